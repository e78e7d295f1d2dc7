package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFileSize bounds what is read as a configuration file, in bytes. Lists of
// clients can be long, but not that long.
const maxFileSize = 16 << 20

// Errors are all mistakes of a configuration, in the order of the file. Each is
// one line that names the file, the key, and what would be right.
type Errors []error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look at each.
func (e Errors) Unwrap() []error { return e }

// Load reads a configuration file over the defaults. If anything is wrong the
// error is an Errors with all the mistakes of single keys; contradictions
// between keys are found by Check, since flags may resolve them. A file that
// does not exist is fs.ErrNotExist.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, Errors{fmt.Errorf("config %q: %w", path, err)}
	}
	return parse(path, data)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory: name the file in it")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("more than %d bytes: this is not a configuration file", maxFileSize)
	}
	return data, nil
}

// parse reads the content of a file of that name.
func parse(path string, data []byte) (*Config, error) {
	o, repeated, err := scanObject(data)
	place := func(err error) error {
		var s *syntaxError
		if errors.As(err, &s) {
			line, column := lineColumn(data, s.offset)
			return fmt.Errorf("config %q: line %d, column %d: %w", path, line, column, err)
		}
		return fmt.Errorf("config %q: %w", path, err)
	}
	var found Errors
	if err != nil {
		for _, r := range repeated {
			found = append(found, place(r))
		}
		return nil, append(found, place(err))
	}
	c := Defaults()
	c.File = path
	all := keys()
	table := make(map[string]key, len(all))
	for _, k := range all {
		table[k.name] = k
	}
	line, counted := 1, 0
	for _, m := range o.members {
		for ; counted < m.keyStart; counted++ {
			if data[counted] == '\n' {
				line++
			}
		}
		sound := true
		for len(repeated) > 0 && repeated[0].offset < m.valEnd {
			found = append(found, place(repeated[0]))
			repeated, sound = repeated[1:], false
		}
		k, ok := table[m.name]
		if !sound {
			continue
		}
		if !ok {
			found = append(found, fmt.Errorf("config %q: line %d: %w", path, line, unknownKey(m.name)))
			continue
		}
		if problem := k.set(c, m.value(data)); problem != "" {
			found = append(found, fmt.Errorf("config %q: line %d: %s: %s", path, line, k.name, problem))
			continue
		}
		c.mark(k, line)
	}
	for _, k := range all {
		if _, ok := c.given[k.name]; !ok {
			continue
		}
		if problem := k.problem(c); problem != "" {
			found = append(found, c.errorf(k.name, "%s", problem))
		}
	}
	if len(found) > 0 {
		return nil, found
	}
	return c, nil
}

// errorf is a mistake in the value of a key, with the place where it was set.
func (c *Config) errorf(key, format string, args ...any) error {
	text := key + ": " + fmt.Sprintf(format, args...)
	line, ok := c.given[key]
	switch {
	case c.File == "" || !ok || line == 0:
		return errors.New("config: " + text)
	default:
		return fmt.Errorf("config %q: line %d: %s", c.File, line, text)
	}
}
