package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"aioc/lib/durable"
)

// Update sets one key in a configuration file, in place and atomically. All
// other keys, their order and every byte of their formatting stay as they are,
// and so do mode and owner of the file; a symbolic link is followed. A new key is
// put at its place if the keys are sorted, else at the end. The value is anything
// that encoding/json can encode and that the key allows; an unknown key is an
// error, as is a file that is not a JSON object. Other mistakes in the file do not
// matter. Concurrent calls wait for each other, in other processes too.
// Differs: the original writes the whole file anew, sorted, and not atomically
// (aioconnectors core.py).
func Update(path, key string, value any) error {
	k, ok := lookup(key)
	if !ok {
		return fmt.Errorf("config %q: %w", path, unknownKey(key))
	}
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("config %q: %s: %w", path, key, err)
	}
	raw := ascii(bytes.TrimSpace(buf.Bytes()))
	scratch := Defaults()
	problem := k.set(scratch, raw)
	if problem == "" {
		problem = k.problem(scratch)
	}
	if problem != "" {
		return fmt.Errorf("config %q: %s: %s", path, key, problem)
	}
	err := durable.Edit(path, func(old []byte) ([]byte, error) {
		data, err := setMember(old, key, raw)
		var s *syntaxError
		if errors.As(err, &s) {
			line, column := lineColumn(old, s.offset)
			return nil, fmt.Errorf("line %d, column %d: %w", line, column, err)
		}
		return data, err
	})
	if err != nil {
		return fmt.Errorf("config %q: set %s: %w", path, key, err)
	}
	return nil
}

// setMember returns data with one member of the outer object replaced or added.
// The value is JSON without white space.
func setMember(data []byte, name string, value []byte) ([]byte, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	indent, lines := style(data, o)
	eol := "\n"
	if bytes.Contains(data, []byte("\r\n")) {
		eol = "\r\n"
	}
	text := layout(value, indent, lines, eol)
	for _, m := range o.members {
		if m.name == name {
			return slices.Concat(data[:m.valStart], text, data[m.valEnd:]), nil
		}
	}
	pair := append(appendString(nil, name), ": "...)
	pair = append(pair, text...)
	separator := ", "
	if lines {
		separator = "," + eol + indent
	}
	if len(o.members) == 0 {
		return slices.Concat(data[:o.open], []byte("{"+eol+indent), pair, []byte(eol+"}"), data[o.close+1:]), nil
	}
	sorted := slices.IsSortedFunc(o.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
	if sorted {
		for _, m := range o.members {
			if m.name > name {
				return slices.Concat(data[:m.keyStart], pair, []byte(separator), data[m.keyStart:]), nil
			}
		}
	}
	last := o.members[len(o.members)-1].valEnd
	return slices.Concat(data[:last], []byte(separator), pair, data[last:]), nil
}

// style finds out how the outer object is laid out: the white space before a
// key, and whether each key has a line of its own.
func style(data []byte, o object) (indent string, lines bool) {
	if len(o.members) == 0 {
		return "    ", true
	}
	for i := len(o.members) - 1; i >= 0; i-- {
		at := o.members[i].keyStart
		start := bytes.LastIndexByte(data[:at], '\n') + 1
		if start > 0 && len(bytes.Trim(data[start:at], " \t")) == 0 {
			return string(data[start:at]), true
		}
		if i > 0 {
			return "", false
		}
	}
	return "", false
}

// layout gives a value the white space that its surroundings have.
func layout(value []byte, indent string, lines bool, eol string) []byte {
	var buf bytes.Buffer
	if lines {
		step := indent
		if step == "" || len(step) > 8 {
			step = "    "
		}
		if json.Indent(&buf, value, indent, step) != nil {
			return value
		}
		return bytes.ReplaceAll(buf.Bytes(), []byte("\n"), []byte(eol))
	}
	// On one line, as Python writes it: a space after each comma and colon.
	inString, escaped := false, false
	for _, c := range value {
		buf.WriteByte(c)
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		case !inString && (c == ',' || c == ':'):
			buf.WriteByte(' ')
		}
	}
	return buf.Bytes()
}

// ascii escapes what is not ASCII in JSON, which can only be in strings.
func ascii(value []byte) []byte {
	var out []byte
	for _, r := range string(value) {
		if r < 0x80 {
			out = append(out, byte(r))
			continue
		}
		quoted := appendString(nil, string(r))
		out = append(out, quoted[1:len(quoted)-1]...)
	}
	return out
}
