package chat

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"aioc/lib/cli"
)

// The joiners that Persian, Indian scripts and emoji cannot do without. They
// change nothing on a terminal but the shape of their neighbours.
const joiners = "\u200c\u200d"

// marksMax is how many marks may be on a character, which is more than any
// language needs. A heap of them would be drawn over the lines around.
const marksMax = 8

// piled calls f with each character, and tells it whether that is one mark too
// many.
func piled(s string, f func(r rune, size int, tooMany bool)) {
	marks := 0
	for i, r := range s {
		_, n := utf8.DecodeRuneInString(s[i:])
		if r >= 0x300 && (unicode.In(r, unicode.Mn, unicode.Me) || strings.ContainsRune(joiners, r)) {
			marks++
		} else {
			marks = 0
		}
		f(r, n, marks > marksMax)
	}
}

// safe returns text of the other end as it may reach a terminal: no control
// characters of either set, no direction or other invisible marks, no heaps of
// marks, nothing that is not UTF-8; those are written as Go does in quotes. A
// tab becomes spaces.
func safe(s string) string {
	s = strings.ReplaceAll(s, "\t", "    ")
	heap := false
	piled(s, func(_ rune, _ int, tooMany bool) { heap = heap || tooMany })
	if heap {
		var b strings.Builder
		at := 0
		piled(s, func(r rune, n int, tooMany bool) {
			if tooMany {
				q := strconv.QuoteRuneToASCII(r)
				b.WriteString(q[1 : len(q)-1])
			} else {
				b.WriteString(s[at : at+n])
			}
			at += n
		})
		s = b.String()
	}
	if !strings.ContainsAny(s, joiners) {
		return cli.Escape(s)
	}
	var b strings.Builder
	for {
		i := strings.IndexAny(s, joiners)
		if i < 0 {
			b.WriteString(cli.Escape(s))
			return b.String()
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		b.WriteString(cli.Escape(s[:i]))
		b.WriteString(s[i : i+n])
		s = s[i+n:]
	}
}

// textMax is how much of a text is shown. More is no text, and the bytes that
// are written out become four times as many.
const textMax = 4 << 20

// safeLines splits text of the other end into lines for a terminal, and returns
// how many bytes at its end are left out.
func safeLines(s string) (lines []string, left int) {
	if len(s) > textMax {
		left = len(s) - textMax
		s = s[:textMax]
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	lines = strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	for i, line := range lines {
		lines[i] = safe(line)
	}
	return lines, left
}

// plainName returns the name under which a received file is kept: one path
// component that can be typed, shown and listed without surprises, and that
// is not hidden. The error says why there is none.
func plainName(name string) (string, error) {
	if strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("the name %q has a slash or a NUL in it", clip(name, 80))
	}
	var b strings.Builder
	piled(name, func(r rune, _ int, tooMany bool) {
		if r == utf8.RuneError || !unicode.IsPrint(r) || r == '\\' || tooMany {
			r = '_'
		}
		b.WriteRune(r)
	})
	name = strings.TrimSpace(b.String())
	// Neither ".profile" nor "-rf" is what somebody else may put here.
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		name = "_" + name
	}
	switch {
	case name == "":
		return "", fmt.Errorf("the file has no name")
	case len(name) > maxName:
		return "", fmt.Errorf("the name has %d bytes, at most %d", len(name), maxName)
	}
	return name, nil
}

// maxName bounds a received name, so that a number still fits behind it.
const maxName = 240

// clip bounds a text in bytes.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}

// unstyled takes from the output of a shell what a terminal would obey, as far
// as its form is known; safe writes out the rest. It goes on where it was
// when a sequence lies across two pieces.
type unstyled struct{ state byte }

func (u *unstyled) text(b []byte) string {
	var out strings.Builder
	for _, c := range b {
		switch u.state {
		case 0:
			switch c {
			case 0x1b:
				u.state = 'e'
			case '\r', '\a', 0:
			case '\b':
				s := out.String()
				_, n := utf8.DecodeLastRuneInString(s)
				if n > 0 && !strings.HasSuffix(s, "\n") {
					out.Reset()
					out.WriteString(s[:len(s)-n])
				}
			default:
				out.WriteByte(c)
			}
		case 'e': // after ESC
			switch c {
			case '[':
				u.state = '['
			case ']', 'P', '_', '^', 'X': // strings up to ST or BEL
				u.state = ']'
			case '(', ')', '#', '%', ' ':
				u.state = '('
			default:
				u.state = 0
			}
		case '[':
			if c >= 0x40 && c <= 0x7e {
				u.state = 0
			}
		case ']':
			switch c {
			case '\a':
				u.state = 0
			case 0x1b:
				u.state = 'e' // the \ of ST ends it, as any other would
			}
		case '(':
			u.state = 0
		}
	}
	return out.String()
}
