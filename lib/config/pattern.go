package config

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
)

// Pattern returns what Go's regexp is to be given for a pattern of the lists of
// client names, so that it matches a valid name when Python's re.match does with
// the pattern as it stands: from the beginning of the name, not necessarily to
// its end. The few things that the two write differently are translated; what
// Go's RE2 cannot do, and what would mean something else in it, is an error that
// says so.
// Differs: $ and \Z match at the very end only, not also before a final newline
// as Python's $ does (aioconnectors connection.py calls re.match).
func Pattern(s string) (string, error) {
	re2, err := translate(s)
	if err == nil {
		_, err = syntax.Parse(re2, syntax.Perl)
	}
	if err != nil {
		var se *syntax.Error
		if errors.As(err, &se) {
			err = errors.New(se.Code.String())
		}
		return "", fmt.Errorf("%q is not a regular expression: %w: the syntax is that of RE2, which has no look-around and no back references", s, err)
	}
	return `\A(?:` + re2 + `)`, nil
}

// translate rewrites what Python and RE2 write differently.
func translate(s string) (string, error) {
	var b strings.Builder
	inClass, classStart := false, 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			switch next := s[i]; {
			case next == 'Z' && !inClass:
				b.WriteString(`\z`)
			case next == 'Q':
				return "", errors.New(`\Q, which Python does not have`)
			case next >= '1' && next <= '9' && !octal(s[i:]):
				return "", errors.New("a back reference")
			default:
				b.WriteByte(c)
				b.WriteByte(next)
			}
		case inClass:
			if c == '[' && i+1 < len(s) && s[i+1] == ':' {
				return "", errors.New(`[: in a class means other characters in Python: write \[: or the characters themselves`)
			}
			if c == ']' && i > classStart {
				inClass = false
			}
			b.WriteByte(c)
		case c == '[':
			inClass, classStart = true, i+1
			if classStart < len(s) && s[classStart] == '^' {
				classStart++
			}
			b.WriteString(s[i:classStart])
			i = classStart - 1
		case c == '{' && strings.HasPrefix(s[i:], "{,"):
			// At most so many, or any number. RE2 takes it for what it is.
			end := i + 2
			for end < len(s) && s[end] >= '0' && s[end] <= '9' {
				end++
			}
			if end < len(s) && s[end] == '}' {
				b.WriteString("{0")
			} else {
				b.WriteByte(c)
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// octal tells whether s begins with three octal digits, which is a character in
// Python too.
func octal(s string) bool {
	return len(s) >= 3 && s[0] <= '3' && strings.Trim(s[:3], "01234567") == ""
}

// Open tells whether a valid pattern also matches every name that begins with
// one that it matches, without saying so by .* at its end: whoever writes
// client1 often does not mean client10.
func Open(pattern string) bool {
	re2, err := translate(pattern)
	if err != nil {
		return false
	}
	re, err := syntax.Parse(re2, syntax.Perl)
	return err == nil && open(re)
}

func open(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEndText, syntax.OpEndLine, syntax.OpNoMatch:
		return false
	case syntax.OpConcat:
		return open(re.Sub[len(re.Sub)-1])
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			if open(sub) {
				return true
			}
		}
		return false
	case syntax.OpCapture:
		return open(re.Sub[0])
	case syntax.OpStar, syntax.OpPlus:
		return !dot(re.Sub[0])
	case syntax.OpRepeat:
		return re.Max != -1 || !dot(re.Sub[0])
	}
	return true
}

// dot tells whether re is any character.
func dot(re *syntax.Regexp) bool {
	return re.Op == syntax.OpAnyChar || re.Op == syntax.OpAnyCharNotNL
}

// closed returns an open pattern such that something can be put at its end.
func closed(pattern string) string {
	if strings.Contains(pattern, "|") {
		return "(" + pattern + ")"
	}
	return pattern
}
