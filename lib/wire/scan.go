package wire

import "fmt"

// scanner steps over JSON without building anything.
type scanner struct {
	b      []byte
	i      int
	strict bool // RFC 8259 only: no NaN, no Infinity
	spaced bool // white space was met
}

func (s *scanner) bad(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrHeader, what, s.i)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.spaced = true
			s.i++
		default:
			return
		}
	}
}

// peek returns the byte at the scanner, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// value steps over one value. On an error at the end of the input s.i is
// len(s.b): more input could make it whole.
func (s *scanner) value(depth int) error {
	if depth > maxDepth {
		return s.bad("nested too deep")
	}
	switch c := s.peek(); c {
	case '"':
		return s.str()
	case '{', '[':
		end := c + 2 // '}' is '{'+2, ']' is '['+2
		s.i++
		s.space()
		if s.peek() == end {
			s.i++
			return nil
		}
		for {
			if c == '{' {
				if err := s.key(); err != nil {
					return err
				}
			}
			if err := s.value(depth + 1); err != nil {
				return err
			}
			s.space()
			switch s.peek() {
			case ',':
				s.i++
				s.space()
			case end:
				s.i++
				return nil
			default:
				return s.bad("expected , or " + string(rune(end)))
			}
		}
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	case 'N':
		if !s.strict {
			return s.word("NaN")
		}
	case 'I':
		if !s.strict {
			return s.word("Infinity")
		}
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return s.number()
		}
	}
	return s.bad("expected a value")
}

// key steps over a member's name and colon.
func (s *scanner) key() error {
	if s.peek() != '"' {
		return s.bad("expected a key")
	}
	if err := s.str(); err != nil {
		return err
	}
	s.space()
	if s.peek() != ':' {
		return s.bad("expected :")
	}
	s.i++
	s.space()
	return nil
}

func (s *scanner) word(w string) error {
	for j := 0; j < len(w); j++ {
		if s.peek() != w[j] {
			return s.bad("expected " + w)
		}
		s.i++
	}
	return nil
}

func (s *scanner) str() error {
	b := s.b
	for i := s.i + 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return nil
		case c < 0x20:
			s.i = i
			return s.bad("control character in a string")
		case c == '\\':
			i++
			if i == len(b) {
				continue
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for k := 0; k < 4; k++ {
					i++
					if i == len(b) {
						break
					}
					if c := b[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
						s.i = i
						return s.bad("bad \\u escape")
					}
				}
			default:
				s.i = i
				return s.bad("bad escape")
			}
		}
	}
	s.i = len(b)
	return s.bad("unfinished string")
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
		if s.peek() == 'I' && !s.strict {
			return s.word("Infinity")
		}
	}
	if s.peek() == '0' {
		s.i++
	} else if !s.digits() {
		return s.bad("expected a digit")
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.bad("expected a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.bad("expected a digit")
		}
	}
	return nil
}

// fields calls f for each pair of the object b. The key is decoded, the value
// is JSON text.
func fields(b []byte, f func(key, value []byte)) error {
	s := scanner{b: b}
	s.space()
	if s.peek() != '{' {
		return s.bad("not a JSON object")
	}
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
	} else {
		for more := true; more; {
			at := s.i
			if s.peek() != '"' {
				return s.bad("expected a key")
			}
			if err := s.str(); err != nil {
				return err
			}
			key := text(b[at:s.i])
			s.space()
			if s.peek() != ':' {
				return s.bad("expected :")
			}
			s.i++
			s.space()
			at = s.i
			if err := s.value(1); err != nil {
				return err
			}
			f(key, b[at:s.i])
			s.space()
			switch s.peek() {
			case ',':
				s.i++
				s.space()
			case '}':
				s.i++
				more = false
			default:
				return s.bad("expected , or }")
			}
		}
	}
	s.space()
	if s.i != len(b) {
		return s.bad("bytes after the object")
	}
	return nil
}

// elements calls f for each element of the array b; anything else has none.
func elements(b []byte, f func(value []byte)) error {
	s := scanner{b: b}
	s.space()
	if s.peek() != '[' {
		return s.bad("not a JSON array")
	}
	s.i++
	s.space()
	for s.peek() != ']' {
		at := s.i
		if err := s.value(1); err != nil {
			return err
		}
		f(b[at:s.i])
		s.space()
		if s.peek() == ',' {
			s.i++
			s.space()
		}
	}
	return nil
}
