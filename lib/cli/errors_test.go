package cli

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestEscape(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain text stays", `config "x.json": key \n`, `config "x.json": key \n`},
		{"letters of all scripts stay", "Füße 東京", "Füße 東京"},
		{"a newline", "a\nb", `a\nb`},
		{"a terminal sequence", "\x1b]0;title\a", `\x1b]0;title\a`},
		{"a control character above 127", "a\u009bb", `a\u009bb`},
		{"text that runs backwards", "a\u202eb", `a\u202eb`},
		{"bytes that are no UTF-8", "a\xff\xfeb", `a\xff\xfeb`},
		{"the replacement character itself", "a\ufffdb", "a\ufffdb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Escape(tt.in); got != tt.want {
				t.Errorf("Escape(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestReport(t *testing.T) {
	a, b, c := errors.New("first"), errors.New("second\nline"), errors.New("third")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"one error is one line", a, "n: first\n"},
		{"a newline in a message is escaped", b, `n: second\nline` + "\n"},
		{"joined errors are a line each", errors.Join(a, errors.Join(c, a)), "n: first\nn: third\nn: first\n"},
		{"words around joined errors are kept", fmt.Errorf("load: %w", errors.Join(a, c)), `n: load: first\nthird` + "\n"},
		{"two wrapped errors are one line", fmt.Errorf("%w: %w", a, c), "n: first: third\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			Report(&out, "n", tt.err)
			if out.String() != tt.want {
				t.Errorf("printed %q, want %q", &out, tt.want)
			}
		})
	}
}

func TestStatusesAreSortedAndUnique(t *testing.T) {
	last := -1
	for _, s := range Statuses() {
		if s.Code <= last {
			t.Errorf("status %d comes after %d", s.Code, last)
		}
		last = s.Code
		if s.Code != Signaled(0) && s.Label != fmt.Sprint(s.Code) {
			t.Errorf("label %q of status %d", s.Label, s.Code)
		}
		if s.Words == "" {
			t.Errorf("status %d has no words", s.Code)
		}
	}
	if got := Signaled(15); got != 143 {
		t.Errorf("Signaled(15) = %d, want 143", got)
	}
}
