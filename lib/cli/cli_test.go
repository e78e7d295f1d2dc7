package cli

import (
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample declares a flag of each kind.
func sample(stdout, stderr io.Writer) (s *Set, values func() []any) {
	s = New("aioc-sample", "[flags] [FILE]\n-t FILE", stdout, stderr)
	v := s.Bool("v", "say more")
	to := s.String("to", "base", "ID", "where to")
	n := s.Int("n", 0, 0, "COUNT", "stop after COUNT")
	timeout := s.Duration("timeout", time.Minute, "D", "stop after D")
	types := s.List("type", "T", "message types")
	set := s.Values("set", "KEY=JSON", "another key")
	return s, func() []any { return []any{*v, *to, *n, *timeout, *types, *set} }
}

func TestParse(t *testing.T) {
	var none []string
	tests := []struct {
		name string
		args []string
		want []any
		rest []string
	}{
		{"no arguments leave the defaults", nil, []any{false, "base", 0, time.Minute, none, none}, []string{}},
		{"one and two dashes are the same", []string{"-v", "--to=x"},
			[]any{true, "x", 0, time.Minute, none, none}, []string{}},
		{"a list grows by repetition and by commas", []string{"-type", "a,b", "-type=c"},
			[]any{false, "base", 0, time.Minute, []string{"a", "b", "c"}, none}, []string{}},
		{"values keep their commas", []string{"-set", "k=[1,2]", "-set", "l=3"},
			[]any{false, "base", 0, time.Minute, none, []string{"k=[1,2]", "l=3"}}, []string{}},
		{"a plain number is seconds", []string{"-timeout", "10"},
			[]any{false, "base", 0, 10 * time.Second, none, none}, []string{}},
		{"two dashes end the flags", []string{"-n", "2", "--", "-v", "x"},
			[]any{false, "base", 2, time.Minute, none, none}, []string{"-v", "x"}},
		{"an operand ends the flags", []string{"file", "-v"},
			[]any{false, "base", 0, time.Minute, none, none}, []string{"file", "-v"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			s, values := sample(&stdout, &stderr)
			rest, status, done := s.Parse(tt.args)
			if status != OK || done {
				t.Fatalf("Parse(%q) = status %d, done %v: %s", tt.args, status, done, &stderr)
			}
			if got := values(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("values\n got %#v\nwant %#v", got, tt.want)
			}
			if !slices.Equal(rest, tt.rest) {
				t.Errorf("rest = %q, want %q", rest, tt.rest)
			}
			if stdout.Len()+stderr.Len() > 0 {
				t.Errorf("printed %q and %q", &stdout, &stderr)
			}
		})
	}
}

func TestParseMistakes(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string // in the one line
	}{
		{"an unknown flag", []string{"-bogus"}, "-bogus"},
		{"a flag without its argument", []string{"-n"}, "needs an argument: -n"},
		{"a number that is none", []string{"-n", "many"}, `"many" for flag -n: want a whole number`},
		{"a number too small", []string{"-n", "-1"}, "want 0 or more"},
		{"a duration that is none", []string{"-timeout", "soon"}, "want a length of time such as 10s"},
		{"a negative duration", []string{"-timeout", "-1s"}, "not negative"},
		{"an empty value in a list", []string{"-type", "a,,b"}, "single commas"},
		{"a hostile argument stays on its line", []string{"-n", "a\nb\x1b[31m"}, `\x1b[31m`},
		{"-version beside a mistake", []string{"-version", "-bogus"}, "-bogus"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			s, _ := sample(&stdout, &stderr)
			rest, status, done := s.Parse(tt.args)
			if status != Usage || !done || rest != nil {
				t.Errorf("Parse(%q) = %q, %d, %v; want status %d and done", tt.args, rest, status, done, Usage)
			}
			first, second, _ := strings.Cut(stderr.String(), "\n")
			if !strings.HasPrefix(first, "aioc-sample: ") || !strings.Contains(first, tt.want) {
				t.Errorf("first line %q, want it to contain %q", first, tt.want)
			}
			if second != "see aioc-sample -h\n" {
				t.Errorf("second line %q", second)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout has %q", &stdout)
			}
		})
	}
}

func TestHelpIsTheUsageOnStdout(t *testing.T) {
	var stdout, stderr strings.Builder
	s, _ := sample(&stdout, &stderr)
	_, status, done := s.Parse([]string{"-v", "-h"})
	if status != OK || !done {
		t.Errorf("status %d, done %v", status, done)
	}
	want := `usage: aioc-sample [flags] [FILE]
       aioc-sample -t FILE
  -h             print this
  -n COUNT       stop after COUNT
  -set KEY=JSON  another key
  -timeout D     stop after D (default 1m)
  -to ID         where to (default base)
  -type T        message types
  -v             say more
  -version       print name, version and Go version
`
	if stdout.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &stdout, want)
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr has %q", &stderr)
	}
}

func TestVersionFlag(t *testing.T) {
	var stdout, stderr strings.Builder
	s, _ := sample(&stdout, &stderr)
	_, status, done := s.Parse([]string{"-version"})
	if status != OK || !done {
		t.Errorf("status %d, done %v", status, done)
	}
	if got := stdout.String(); !strings.HasPrefix(got, "aioc-sample "+Version()+" (go") || !strings.HasSuffix(got, ")\n") {
		t.Errorf("printed %q", got)
	}
}

// full is a writer to a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestHelpToAFullDiskFails(t *testing.T) {
	for _, arg := range []string{"-h", "-version"} {
		var stderr strings.Builder
		s, _ := sample(full{}, &stderr)
		if _, status, done := s.Parse([]string{arg}); status != Failed || !done {
			t.Errorf("%s: status %d, done %v; want %d", arg, status, done, Failed)
		}
		if want := "aioc-sample: no space left on device\n"; stderr.String() != want {
			t.Errorf("%s: stderr %q, want %q", arg, &stderr, want)
		}
	}
}

func TestEnvironmentGivesWayToFlags(t *testing.T) {
	t.Setenv("AIOC_CONFIG", "/etc/aioc.json")
	t.Setenv("AIOC_DIR", "/run/aioc")
	t.Setenv("AIOC_CONNECTOR", "pump7")
	s := New("aioc-sample", "", io.Discard, io.Discard)
	config, dir, connector := s.Config(), s.Dir(), s.Connector()
	if _, _, done := s.Parse([]string{"-dir", "/tmp/d"}); done {
		t.Fatal("Parse failed")
	}
	got := []string{*config, *dir, *connector}
	if want := []string{"/etc/aioc.json", "/tmp/d", "pump7"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if s.Given("config") || !s.Given("dir") {
		t.Errorf("Given(config) = %v, Given(dir) = %v; want false, true", s.Given("config"), s.Given("dir"))
	}
}

func TestParseDuration(t *testing.T) {
	tests := []struct {
		word string
		want time.Duration
		ok   bool
	}{
		{"10s", 10 * time.Second, true},
		{"1m30s", 90 * time.Second, true},
		{"10", 10 * time.Second, true},
		{"0.5", 500 * time.Millisecond, true},
		{"0", 0, true},
		{"", 0, false},
		{"-3", 0, false},
		{"10 s", 0, false},
		{"99999999999999", 0, false},
		{"NaN", 0, false},
	}
	for _, tt := range tests {
		got, err := ParseDuration(tt.word)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v, ok %v", tt.word, got, err, tt.want, tt.ok)
		}
	}
}

func TestShortDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		10 * time.Second: "10s", time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		100 * time.Millisecond: "100ms", 70 * time.Second: "1m10s",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("shortDuration(%v) = %q, want %q", d, got, want)
		}
	}
}
