package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Set is the flags of one program, its usage text and where both streams of
// its output go. It is used by one goroutine, before the program's work starts.
type Set struct {
	name     string
	synopsis string
	stdout   io.Writer
	stderr   io.Writer
	flags    *flag.FlagSet
	args     map[string]string // the word for a flag's argument, in capitals
	version  *bool
}

// New returns an empty set for the program called name. The synopsis is what
// follows the name on the usage line, for instance "[flags] [FILE]"; each line
// of it becomes a usage line. -h and -version are always there.
func New(name, synopsis string, stdout, stderr io.Writer) *Set {
	s := &Set{
		name:     name,
		synopsis: synopsis,
		stdout:   stdout,
		stderr:   stderr,
		flags:    flag.NewFlagSet(name, flag.ContinueOnError),
		args:     make(map[string]string),
	}
	s.flags.SetOutput(io.Discard)
	s.flags.Usage = func() {}
	s.version = s.Bool("version", "print name, version and Go version")
	return s
}

// Bool declares a flag that is there or not.
func (s *Set) Bool(name, text string) *bool {
	return s.flags.Bool(name, false, text)
}

// String declares a flag with an argument, which usage calls arg. Usage shows
// a default that is not empty.
func (s *Set) String(name, value, arg, text string) *string {
	if value != "" {
		text += " (default " + value + ")"
	}
	return s.plain(name, value, arg, text)
}

// plain declares a flag with an argument and leaves its text alone.
func (s *Set) plain(name, value, arg, text string) *string {
	s.args[name] = arg
	return s.flags.String(name, value, text)
}

// Int declares a flag whose argument is a whole number not smaller than least.
// Usage shows a default that is not 0.
func (s *Set) Int(name string, value, least int, arg, text string) *int {
	if value != 0 {
		text += " (default " + strconv.Itoa(value) + ")"
	}
	p := new(int)
	*p = value
	s.Func(name, arg, text, func(word string) error {
		n, err := strconv.Atoi(word)
		if err != nil {
			return errors.New("want a whole number")
		}
		if n < least {
			return fmt.Errorf("want %d or more", least)
		}
		*p = n
		return nil
	})
	return p
}

// Duration declares a flag whose argument is read by [ParseDuration]. Usage
// shows a default that is not 0.
func (s *Set) Duration(name string, value time.Duration, arg, text string) *time.Duration {
	if value != 0 {
		text += " (default " + shortDuration(value) + ")"
	}
	p := new(time.Duration)
	*p = value
	s.Func(name, arg, text, func(word string) error {
		d, err := ParseDuration(word)
		if err == nil {
			*p = d
		}
		return err
	})
	return p
}

// List declares a flag that may be repeated, and whose argument may be several
// values with commas between them. An empty value is a mistake.
func (s *Set) List(name, arg, text string) *[]string {
	p := new([]string)
	s.Func(name, arg, text, func(word string) error {
		for v := range strings.SplitSeq(word, ",") {
			if v == "" {
				return errors.New("want values with single commas between them")
			}
			*p = append(*p, v)
		}
		return nil
	})
	return p
}

// Values declares a flag that may be repeated, and whose argument is taken as
// it is, commas included.
func (s *Set) Values(name, arg, text string) *[]string {
	p := new([]string)
	s.Func(name, arg, text, func(word string) error {
		*p = append(*p, word)
		return nil
	})
	return p
}

// Func declares a flag whose argument is given to set each time the flag is
// there. The error of set is shown after the flag and its argument.
func (s *Set) Func(name, arg, text string, set func(string) error) {
	s.args[name] = arg
	s.flags.Func(name, text, set)
}

// Config declares -config, which AIOC_CONFIG is the default of.
func (s *Set) Config() *string {
	return s.plain("config", os.Getenv("AIOC_CONFIG"), "FILE", "configuration file (default $AIOC_CONFIG)")
}

// Dir declares -dir, which AIOC_DIR is the default of. It stays empty when
// neither is given: the configuration then says which directory it is.
func (s *Set) Dir() *string {
	return s.plain("dir", os.Getenv("AIOC_DIR"), "DIR", "directory of sockets and state (default $AIOC_DIR)")
}

// Connector declares -connector, which AIOC_CONNECTOR is the default of.
func (s *Set) Connector() *string {
	return s.plain("connector", os.Getenv("AIOC_CONNECTOR"), "NAME",
		"which connector: a client's name, or a server's HOST:PORT (default $AIOC_CONNECTOR)")
}

// Given says whether the flag was on the command line.
func (s *Set) Given(name string) bool {
	given := false
	s.flags.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	return given
}

// Parse reads the arguments, without the name of the program. Flags come
// first, in the style of Go; "--" ends them. It returns the arguments after the
// flags. When done is true there is nothing left to do but to exit with
// status: -h and -version have been answered on stdout, a mistake on stderr.
func (s *Set) Parse(args []string) (rest []string, status int, done bool) {
	err := s.flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = io.WriteString(s.stdout, s.Text())
		return nil, s.printed(err), true
	case err != nil:
		return nil, s.Mistake("%w", err), true
	case *s.version:
		return nil, s.printed(printVersion(s.stdout, s.name)), true
	}
	return s.flags.Args(), OK, false
}

// printed is the status after text was written to stdout.
func (s *Set) printed(err error) int {
	if err != nil {
		Errorf(s.stderr, s.name, "%w", err)
		return Failed
	}
	return OK
}

// Mistake reports a usage mistake in one line on stderr, says where help is,
// and returns the status to exit with.
func (s *Set) Mistake(format string, args ...any) int {
	Errorf(s.stderr, s.name, format, args...)
	fmt.Fprintf(s.stderr, "see %s -h\n", s.name)
	return Usage
}

// widest is how far the texts of the flags are indented at most.
const widest = 22

// Text is the usage text: the synopsis, then a line for each flag.
func (s *Set) Text() string {
	var b strings.Builder
	lead := "usage: "
	for line := range strings.SplitSeq(s.synopsis, "\n") {
		b.WriteString(strings.TrimRight(lead+s.name+" "+line, " ") + "\n")
		lead = "       "
	}
	type row struct{ words, text string }
	rows := []row{}
	width := 0
	add := func(name, arg, text string) {
		words := "-" + name
		if arg != "" {
			words += " " + arg
		}
		if len(words) <= widest {
			width = max(width, len(words))
		}
		rows = append(rows, row{words, text})
	}
	help := false
	s.flags.VisitAll(func(f *flag.Flag) { // sorted by name
		if !help && f.Name > "h" {
			add("h", "", "print this")
			help = true
		}
		add(f.Name, s.args[f.Name], f.Usage)
	})
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, r.words, r.text)
	}
	return b.String()
}

// ParseDuration reads a length of time as Go writes it ("1m30s", "100ms"), or a
// plain number of seconds ("10", "0.5"). It may not be negative.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil {
		return 0, errors.New("want a length of time such as 10s, 1m30s or 0.5 (seconds)")
	}
	if d < 0 {
		return 0, errors.New("want a length of time that is not negative")
	}
	return d, nil
}

// shortDuration writes 1m0s as 1m and 1h0m0s as 1h.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
