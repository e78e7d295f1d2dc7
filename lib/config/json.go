package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A reader of JSON that knows where each member of the outer object stands, so
// that an error can name the line, and a value can be replaced without touching
// the rest. It refuses what two programs could read differently: duplicate keys
// and bytes that are not UTF-8.

// maxDepth bounds the nesting of values. A configuration needs three levels.
const maxDepth = 64

// maxRepeated bounds the keys that stand twice that are reported.
const maxRepeated = 100

// A member is one key of the outer object, by the offsets of its parts.
type member struct {
	name             string
	keyStart         int
	valStart, valEnd int
}

func (m member) value(data []byte) []byte { return data[m.valStart:m.valEnd] }

// An object is the outer object of a file.
type object struct {
	open, close int // offsets of the braces
	members     []member
}

// syntaxError is a mistake at an offset.
type syntaxError struct {
	offset int
	text   string
}

func (e *syntaxError) Error() string { return e.text }

// A scanner moves over the bytes of a file. Its errors are syntaxErrors.
type scanner struct {
	data     []byte
	pos      int
	repeated []*syntaxError // keys that stand twice, at any depth, in order
}

// parseObject reads a file that holds one object.
func parseObject(data []byte) (object, error) {
	o, repeated, err := scanObject(data)
	if err == nil && len(repeated) > 0 {
		err = repeated[0]
	}
	return o, err
}

// scanObject is parseObject, but goes on after a key that stands twice: those
// are returned apart, and are among the members.
func scanObject(data []byte) (o object, repeated []*syntaxError, err error) {
	s := &scanner{data: data}
	o, err = s.file()
	return o, s.repeated, err
}

// file reads all of the data, which is one object.
func (s *scanner) file() (object, error) {
	data := s.data
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return object{}, s.errorf(0, "the file begins with a byte order mark: save it as UTF-8 without one")
	}
	if i := invalidUTF8(data); i >= 0 {
		return object{}, s.errorf(i, "not UTF-8: save the file as UTF-8")
	}
	s.space()
	if s.pos == len(data) {
		return object{}, s.errorf(s.pos, "the file is empty: write at least {}")
	}
	if data[s.pos] != '{' {
		if err := s.value(0); err != nil {
			return object{}, err
		}
		return object{}, s.errorf(0, "not a JSON object: the file must begin with { and end with }")
	}
	o := object{open: s.pos}
	members, err := s.object(0)
	if err != nil {
		return object{}, err
	}
	o.members, o.close = members, s.pos-1
	s.space()
	if s.pos < len(data) {
		return object{}, s.unexpected("after the object")
	}
	return o, nil
}

// oneValue reads one JSON value with nothing but white space around it.
func oneValue(data []byte) ([]byte, error) {
	s := &scanner{data: data}
	if i := invalidUTF8(data); i >= 0 {
		return nil, errors.New("not UTF-8")
	}
	s.space()
	start := s.pos
	if err := s.value(0); err != nil {
		return nil, err
	}
	end := s.pos
	s.space()
	if s.pos < len(data) {
		return nil, s.unexpected("after the value")
	}
	if len(s.repeated) > 0 {
		return nil, s.repeated[0]
	}
	return data[start:end], nil
}

func (s *scanner) errorf(offset int, format string, args ...any) error {
	return &syntaxError{offset, fmt.Sprintf(format, args...)}
}

func (s *scanner) space() {
	for s.pos < len(s.data) && strings.IndexByte(" \t\r\n", s.data[s.pos]) >= 0 {
		s.pos++
	}
}

// unexpected is the error for what stands at the position, in the words of
// somebody who sees the file.
func (s *scanner) unexpected(where string) error {
	if s.pos >= len(s.data) {
		return s.errorf(s.pos, "the text ends too early: a closing bracket or quote is missing")
	}
	r, _ := utf8.DecodeRune(s.data[s.pos:])
	switch {
	case r == '#', r == '/':
		return s.errorf(s.pos, "comments are not JSON: remove it")
	case r == '\'':
		return s.errorf(s.pos, "strings need double quotes")
	}
	return s.errorf(s.pos, "unexpected %q %s", r, where)
}

// value moves past one value.
func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.errorf(s.pos, "nested too deeply")
	}
	if s.pos == len(s.data) {
		return s.unexpected("")
	}
	switch c := s.data[s.pos]; {
	case c == '{':
		_, err := s.object(depth)
		return err
	case c == '[':
		return s.array(depth)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_':
		return s.word()
	}
	return s.unexpected("where a value should be")
}

func (s *scanner) word() error {
	start := s.pos
	for s.pos < len(s.data) && plainWord(string(s.data[s.pos])) {
		s.pos++
	}
	switch w := string(s.data[start:s.pos]); w {
	case "true", "false", "null", "NaN", "Infinity":
		return nil // the last two are written by Python for numbers that no key takes
	case "True", "False":
		return s.errorf(start, "%s is not JSON: write %s", w, strings.ToLower(w))
	case "None":
		return s.errorf(start, "None is not JSON: write null")
	default:
		return s.errorf(start, "%s is not JSON: strings need double quotes", shorten(w))
	}
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func (s *scanner) number() error {
	start := s.pos
	for s.pos < len(s.data) && (strings.IndexByte("+-.", s.data[s.pos]) >= 0 || isLetter(s.data[s.pos]) || s.data[s.pos] >= '0' && s.data[s.pos] <= '9') {
		s.pos++
	}
	if text := s.data[start:s.pos]; !json.Valid(text) && string(text) != "-Infinity" {
		return s.errorf(start, "%s is not a number: strings need double quotes", shorten(string(text)))
	}
	return nil
}

func (s *scanner) text() (string, error) {
	start := s.pos
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; {
		case c == '\\':
			s.pos++
		case c == '"':
			s.pos++
			text, ok := decodeString(s.data[start:s.pos])
			if !ok {
				return "", s.errorf(start, "a string has a bad escape: write \\\\ for a backslash")
			}
			return text, nil
		case c < ' ':
			return "", s.errorf(s.pos, "a string contains %q: a closing quote is missing, or write \\n for a new line", c)
		}
	}
	return "", s.errorf(start, "a string has no closing quote")
}

func (s *scanner) array(depth int) error {
	s.pos++
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == ']' {
		s.pos++
		return nil
	}
	for {
		s.space()
		if err := s.value(depth + 1); err != nil {
			return err
		}
		done, err := s.next(']')
		if done || err != nil {
			return err
		}
	}
}

func (s *scanner) object(depth int) ([]member, error) {
	s.pos++
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == '}' {
		s.pos++
		return nil, nil
	}
	var members []member
	seen := map[string]bool{}
	for {
		s.space()
		m := member{keyStart: s.pos}
		if s.pos == len(s.data) || s.data[s.pos] != '"' {
			if s.pos < len(s.data) && isLetter(s.data[s.pos]) {
				return nil, s.errorf(s.pos, "keys need double quotes")
			}
			return nil, s.unexpected("where a key should be")
		}
		var err error
		if m.name, err = s.text(); err != nil {
			return nil, err
		}
		if seen[m.name] && len(s.repeated) < maxRepeated {
			s.repeated = append(s.repeated, &syntaxError{m.keyStart, printable(m.name) + " stands twice: remove one"})
		}
		seen[m.name] = true
		s.space()
		if s.pos == len(s.data) || s.data[s.pos] != ':' {
			return nil, s.unexpected("where the : after a key should be")
		}
		s.pos++
		s.space()
		m.valStart = s.pos
		if err := s.value(depth + 1); err != nil {
			return nil, err
		}
		m.valEnd = s.pos
		members = append(members, m)
		done, err := s.next('}')
		if err != nil {
			return nil, err
		}
		if done {
			return members, nil
		}
	}
}

// next moves past the comma between two values, or past the closing bracket,
// which is then done.
func (s *scanner) next(closing byte) (done bool, err error) {
	end := s.pos
	s.space()
	if s.pos == len(s.data) {
		return false, s.unexpected("")
	}
	switch s.data[s.pos] {
	case closing:
		s.pos++
		return true, nil
	case ',':
		comma := s.pos
		s.pos++
		s.space()
		if s.pos < len(s.data) && s.data[s.pos] == closing {
			return false, s.errorf(comma, "a comma before the closing %c: remove it", closing)
		}
		return false, nil
	case '"':
		return false, s.errorf(end, "a comma is missing")
	}
	return false, s.unexpected("where a comma or " + string(rune(closing)) + " should be")
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// lineColumn returns where an offset is, both from 1, in characters.
func lineColumn(data []byte, offset int) (line, column int) {
	before := data[:min(offset, len(data))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// printable makes a key, or a word of a file, harmless to print.
func printable(s string) string {
	if plainWord(s) {
		return s
	}
	return shorten(fmt.Sprintf("%q", s))
}

// plainWord tells whether s needs no quotes in an error or a shell.
func plainWord(s string) bool {
	return s != "" && len(s) <= 60 && strings.IndexFunc(s, func(r rune) bool {
		return !isLetter(byte(r)) && (r < '0' || r > '9') && !strings.ContainsRune("_-.:/@%+", r) || r >= utf8.RuneSelf
	}) < 0
}

// shorten cuts a text that is quoted in an error.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= 60 {
		return s
	}
	cut := 57
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// shellQuote makes s one word of a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
