package wire

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// scanner steps over JSON without building anything, in one pass, UTF-8
// included. Its methods take the index to start at and return the index after
// what they stepped over and ""; or the index of what is wrong and a word about
// it. When that index is the end of b, more input could make b whole.
type scanner struct {
	b      []byte
	strict bool // RFC 8259 only: no NaN, no Infinity
	spaced bool // white space was met
}

// bad makes the error of what a scanner says.
func bad(what string, at int) error {
	return fmt.Errorf("%w: %s at byte %d", ErrHeader, what, at)
}

// space steps over white space.
func (s *scanner) space(i int) int {
	if i < len(s.b) && s.b[i] <= ' ' {
		return s.spaces(i)
	}
	return i
}

func (s *scanner) spaces(i int) int {
	for ; i < len(s.b); i++ {
		switch s.b[i] {
		case ' ', '\t', '\n', '\r':
			s.spaced = true
		default:
			return i
		}
	}
	return i
}

// at returns the byte at i, 0 at the end.
func (s *scanner) at(i int) byte {
	if i < len(s.b) {
		return s.b[i]
	}
	return 0
}

// value steps over one value that stands in depth objects and arrays.
func (s *scanner) value(i, depth int) (end int, what string) {
	switch c := s.at(i); c {
	case '"':
		return quoted(s.b, i)
	case '{', '[':
		return s.nested(i, depth)
	case 't':
		return s.word(i, "true")
	case 'f':
		return s.word(i, "false")
	case 'n':
		return s.word(i, "null")
	case 'N':
		if !s.strict {
			return s.word(i, "NaN")
		}
	case 'I':
		if !s.strict {
			return s.word(i, "Infinity")
		}
	case '-':
		if !s.strict && s.at(i+1) == 'I' {
			return s.word(i, "-Infinity")
		}
		return number(s.b, i)
	default:
		if c >= '0' && c <= '9' {
			return number(s.b, i)
		}
	}
	return i, "expected a value"
}

// nested steps over an object or an array.
func (s *scanner) nested(i, depth int) (end int, what string) {
	if depth >= maxDepth {
		return i, "nested too deep"
	}
	b, pair := s.b, s.b[i] == '{'
	closing := byte(']')
	if pair {
		closing = '}'
	}
	if i = s.space(i + 1); s.at(i) == closing {
		return i + 1, ""
	}
	for {
		if pair {
			if i, what = s.key(i); what != "" {
				return i, what
			}
			i = s.space(i + 1)
		}
		// value does all of this, but most are strings and numbers.
		switch {
		case i == len(b):
			return i, "expected a value"
		case b[i] == '"':
			i, what = quoted(b, i)
		case isDigit(b[i]):
			i, what = number(b, i)
		default:
			i, what = s.value(i, depth+1)
		}
		if what != "" {
			return i, what
		}
		if i < len(b) && b[i] == ',' {
			i = s.space(i + 1)
			continue
		}
		i = s.space(i)
		switch s.at(i) {
		case ',':
			i = s.space(i + 1)
		case closing:
			return i + 1, ""
		default:
			if pair {
				return i, "expected , or }"
			}
			return i, "expected , or ]"
		}
	}
}

// key steps over a member's name, up to the colon.
func (s *scanner) key(i int) (colon int, what string) {
	if s.at(i) != '"' {
		return i, "expected a key"
	}
	if i, what = quoted(s.b, i); what != "" || s.at(i) == ':' {
		return i, what
	}
	if i = s.space(i); s.at(i) != ':' {
		return i, "expected :"
	}
	return i, ""
}

func (s *scanner) word(i int, w string) (end int, what string) {
	for j := range len(w) {
		if s.at(i+j) != w[j] {
			return i + j, "expected " + w
		}
	}
	return i + len(w), ""
}

// quoted steps over the string that begins at b[i].
func quoted(b []byte, i int) (end int, what string) {
	const (
		each = 0x0101010101010101 // times c: c in each of eight bytes
		high = 0x80 * each
	)
	for i++; ; {
		// Eight bytes at once. The lowest bit of marks that is set is in
		// the first byte that is a quote, a backslash, a control
		// character or not ASCII: a borrow only reaches later bytes.
		for i+8 <= len(b) {
			x := binary.LittleEndian.Uint64(b[i:])
			marks := (x | (x - ' '*each) | (x ^ '"'*each - each) | (x ^ '\\'*each - each)) & high
			if marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			return len(b), "unfinished string"
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, ""
		case c == '\\':
			if i, what = escape(b, i+1); what != "" {
				return i, what
			}
		case c < ' ':
			return i, "control character in a string"
		case c < utf8.RuneSelf:
			i++
		default:
			for i < len(b) && b[i] >= utf8.RuneSelf {
				if r, n := utf8.DecodeRune(b[i:]); r != utf8.RuneError || n > 1 {
					i += n
				} else if utf8.FullRune(b[i:]) {
					return i, "not UTF-8"
				} else {
					return len(b), "unfinished string"
				}
			}
		}
	}
}

// escape steps over what follows a backslash.
func escape(b []byte, i int) (end int, what string) {
	if i == len(b) {
		return i, "unfinished string"
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1, ""
	case 'u':
		for range 4 {
			if i++; i == len(b) {
				return i, "unfinished string"
			}
			if c := b[i]; !isDigit(c) && (c|0x20)-'a' > 'f'-'a' {
				return i, "bad \\u escape"
			}
		}
		return i + 1, ""
	}
	return i, "bad escape"
}

// number steps over the number that begins at b[i].
func number(b []byte, i int) (end int, what string) {
	if b[i] == '-' {
		i++
	}
	switch {
	case i < len(b) && b[i] == '0':
		i++
	case i < len(b) && isDigit(b[i]):
		i = digits(b, i)
	default:
		return i, "expected a digit"
	}
	if i < len(b) && b[i] == '.' {
		if i++; i == len(b) || !isDigit(b[i]) {
			return i, "expected a digit"
		}
		i = digits(b, i)
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i == len(b) || !isDigit(b[i]) {
			return i, "expected a digit"
		}
		i = digits(b, i)
	}
	return i, ""
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func digits(b []byte, i int) int {
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	return i
}

// pairs calls f for each pair of the object b, in order: the key and the value
// as they stand there, the key with its quotes.
func pairs(b []byte, f func(key, value []byte)) error {
	s := scanner{b: b}
	i := s.space(0)
	if s.at(i) != '{' {
		return bad("not a JSON object", i)
	}
	i = s.space(i + 1)
	for more := s.at(i) != '}'; more; {
		key := i
		colon, what := s.key(key)
		if what != "" {
			return bad(what, colon)
		}
		// The key ends before the colon and the space in front of it.
		name := colon
		for b[name-1] != '"' {
			name--
		}
		start := s.space(colon + 1)
		if i, what = s.value(start, 1); what != "" {
			return bad(what, i)
		}
		f(b[key:name], b[start:i])
		i = s.space(i)
		switch s.at(i) {
		case ',':
			i = s.space(i + 1)
		case '}':
			more = false
		default:
			return bad("expected , or }", i)
		}
	}
	if i = s.space(i + 1); i != len(b) {
		return bad("bytes after the object", i)
	}
	return nil
}

// elements calls f for each element of b if that is an array. b has been
// scanned before without error.
func elements(b []byte, f func(value []byte)) {
	s := scanner{b: b}
	if s.at(0) != '[' {
		return
	}
	for i := s.space(1); s.at(i) != ']'; {
		end, what := s.value(i, 1)
		if what != "" {
			return
		}
		f(b[i:end])
		if i = s.space(end); s.at(i) == ',' {
			i = s.space(i + 1)
		}
	}
}
