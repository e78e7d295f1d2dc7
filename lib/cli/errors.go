package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Errorf prints one line, "name: message", in a single write. Whatever could
// break the line or drive a terminal is escaped.
func Errorf(w io.Writer, name, format string, args ...any) {
	message := fmt.Errorf(format, args...).Error()
	io.WriteString(w, name+": "+Escape(message)+"\n")
}

// Report prints err as [Errorf] does. An error that joins several, as
// [errors.Join] does, is printed as a line for each.
func Report(w io.Writer, name string, err error) {
	for _, line := range lines(err) {
		Errorf(w, name, "%s", line)
	}
}

// lines is the message of err, or the messages of the errors that it joins.
func lines(err error) []string {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || !isJoin(err, joined.Unwrap()) {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range joined.Unwrap() {
		all = append(all, lines(e)...)
	}
	return all
}

// isJoin says whether err adds no words of its own to those of its parts, as
// an error made with two %w does.
func isJoin(err error, parts []error) bool {
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = p.Error()
	}
	return len(parts) > 0 && err.Error() == strings.Join(words, "\n")
}

// Escape writes characters that are not printable, and bytes that are not
// UTF-8, as Go does in a quoted string, so that text of a stranger neither
// breaks a line nor reaches a terminal as a command. All else stays as it is.
func Escape(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !strconv.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if strconv.IsPrint(r) && !(r == utf8.RuneError && n == 1) {
			b.WriteString(s[:n])
		} else {
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}
