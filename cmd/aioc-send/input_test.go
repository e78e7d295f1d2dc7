package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// cutter has in cut as the flag says.
func cutter(in *input, flag string) {
	switch flag {
	case "-lines":
		in.cut = in.cutAt('\n')
	case "-0":
		in.cut = in.cutAt(0)
	case "-raw":
		in.cut = in.cutAll
	default:
		in.cut = in.cutValue
	}
}

// all returns every message of r and the error that ended it.
func all(t *testing.T, r io.Reader, flag string, max int) (messages []string, err error) {
	t.Helper()
	in := newInput(t.Context(), r, func() error { return nil })
	defer in.close()
	if max > 0 {
		in.max = max
	}
	cutter(in, flag)
	for {
		m, err := in.next()
		if err == io.EOF {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

func TestInput(t *testing.T) {
	long := strings.Repeat("x", 3*inputSize)
	tests := []struct {
		name, flag, input string
		want              []string
	}{
		{"nothing", "", "", nil},
		{"white space", "", " \n\t\r\n", nil},
		{"one value", "", `{"a":1}`, []string{`{"a":1}`}},
		{"values keep their inner white space", "", " {\"a\" :\n1}\n\n[ ]\t", []string{"{\"a\" :\n1}", "[ ]"}},
		{"values of all kinds", "", `1 -2.5e3 "x" true false null {} []`,
			[]string{"1", "-2.5e3", `"x"`, "true", "false", "null", "{}", "[]"}},
		{"values without space between", "", `{}[]"a"{}1"b"2[3]null{}`,
			[]string{"{}", "[]", `"a"`, "{}", "1", `"b"`, "2", "[3]", "null", "{}"}},
		{"a number at the very end", "", "12\n34", []string{"12", "34"}},
		{"brackets and quotes in strings", "", `"]\"}" {"}":"[\\"} 1`, []string{`"]\"}"`, `{"}":"[\\"}`, "1"}},
		{"a long value", "", `{"a":"` + long + `"} 2`, []string{`{"a":"` + long + `"}`, "2"}},
		{"a long array", "", "[" + strings.Repeat("1,", inputSize) + "2]", []string{"[" + strings.Repeat("1,", inputSize) + "2]"}},
		{"a long number", "", strings.Repeat("7", inputSize+5) + " 1", []string{strings.Repeat("7", inputSize+5), "1"}},
		{"UTF-8", "", `"é😀"`, []string{`"é😀"`}},

		{"no lines", "-lines", "", nil},
		{"lines", "-lines", "a\n\nb c\r\nd", []string{"a", "", "b c\r", "d"}},
		{"a line break at the end", "-lines", "a\n", []string{"a"}},
		{"long lines", "-lines", long + "\n" + long + "y\nz", []string{long, long + "y", "z"}},

		{"no records", "-0", "", nil},
		{"records", "-0", "a\x00\x00b\nc\x00d", []string{"a", "", "b\nc", "d"}},
		{"a NUL at the end", "-0", "a\x00", []string{"a"}},

		{"raw nothing is one empty message", "-raw", "", []string{""}},
		{"raw", "-raw", "a\n\x00b", []string{"a\n\x00b"}},
		{"long raw", "-raw", long, []string{long}},
	}
	readers := []struct {
		name string
		of   func(io.Reader) io.Reader
	}{
		{"whole", func(r io.Reader) io.Reader { return r }},
		{"half", iotest.HalfReader},
		{"one byte", iotest.OneByteReader},
		{"error with the data", iotest.DataErrReader},
	}
	for _, tt := range tests {
		for _, r := range readers {
			if r.name == "one byte" && len(tt.input) > 1000 {
				continue
			}
			t.Run(tt.name+"/"+r.name, func(t *testing.T) {
				got, err := all(t, r.of(strings.NewReader(tt.input)), tt.flag, 0)
				if err != nil || !slices.Equal(got, tt.want) {
					t.Errorf("got %.200q, %v\nwant %.200q", got, err, tt.want)
				}
			})
		}
	}
}

func TestInputThatIsNotJSON(t *testing.T) {
	tests := []struct {
		name, input string
		before      int // messages before the fault
		want        string
	}{
		{"a word", "1\n2\n  hello", 2, "line 3, byte 7: not JSON: invalid character 'h'"},
		{"the first byte", "?", 0, "line 1, byte 1: not JSON: invalid character '?'"},
		{"within an object", "{}\n{\"a\" 1}", 1, "line 2, byte 9: not JSON: invalid character '1' after object key"},
		{"a comma too much", `{"a":1,}`, 0, "line 1, byte 8: not JSON: invalid character '}'"},
		{"brackets that do not match", `[1} 2`, 0, "line 1, byte 3: not JSON: invalid character '}'"},
		{"a closing bracket", "1 ]", 1, "line 1, byte 3: not JSON"},
		{"a comma between values", "1,2", 1, "line 1, byte 2: expected white space"},
		{"words stuck together", "truefalse", 1, "line 1, byte 5: expected white space"},
		{"a leading zero", "01", 1, "line 1, byte 2: expected white space"},
		{"NaN", "NaN", 0, "line 1, byte 1: not JSON: invalid character 'N'"},
		{"half a word", "tru\n", 0, "line 1, byte 4: not JSON"},
		{"a bad escape", `"\x"`, 0, "line 1, byte 3: not JSON"},
		{"a control character", "\"a\x01\"", 0, "line 1, byte 3: not JSON"},
		{"not UTF-8", "1 \"a\xff\"", 1, "line 1, byte 5: not UTF-8"},
		{"too deep", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), 0, "line 1, byte 1: nested too deep"},
		{"an end within an object", "{}\n{\"a\":", 1, "line 2, byte 9: the input ends within a JSON value"},
		{"an end within a string", `"abc`, 0, "line 1, byte 5: the input ends within"},
		{"an end within a word", "nul", 0, "line 1, byte 4: the input ends within"},
		{"an end within a number", "1 -", 1, "line 1, byte 4: the input ends within"},
		{"a fault after much", "[" + strings.Repeat("1,\n", inputSize) + "?]", 0,
			fmt.Sprintf("line %d, byte %d: not JSON", inputSize+1, 3*inputSize+2)},
	}
	for _, tt := range tests {
		for _, one := range []bool{false, true} {
			if one && len(tt.input) > 20000 {
				continue
			}
			t.Run(fmt.Sprint(tt.name, one), func(t *testing.T) {
				r := io.Reader(strings.NewReader(tt.input))
				if one {
					r = iotest.OneByteReader(r)
				}
				got, err := all(t, r, "", 0)
				var bad *inputError
				if len(got) != tt.before || !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %d messages and %v, want %d and %q", len(got), err, tt.before, tt.want)
				}
			})
		}
	}
}

func TestInputTooLong(t *testing.T) {
	for _, flag := range []string{"", "-lines", "-0", "-raw"} {
		_, err := all(t, strings.NewReader(`"`+strings.Repeat("x", 4*inputSize)), flag, inputSize)
		var bad *inputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestInputReadError(t *testing.T) {
	broken := errors.New("broken")
	got, err := all(t, io.MultiReader(strings.NewReader("1 2 "), iotest.ErrReader(broken)), "", 0)
	if len(got) != 2 || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
}

// Whoever types or computes the next message must see the last one go out.
func TestInputGivesOutAMessageBeforeItWaits(t *testing.T) {
	for flag, pieces := range map[string][][2]string{
		"":       {{"{\"a\":1}", `{"a":1}`}, {" [1] ", "[1]"}, {"12", ""}, {"3 ", "123"}, {"tr", ""}, {"ue", "true"}, {`{"b`, ""}, {`":2}`, `{"b":2}`}},
		"-lines": {{"a\n", "a"}, {"b", ""}, {"c\n", "bc"}},
		"-0":     {{"a\x00", "a"}, {"b", ""}, {"c\x00", "bc"}},
	} {
		r, w := io.Pipe()
		waits := make(chan struct{})
		in := newInput(t.Context(), r, func() error { waits <- struct{}{}; return nil })
		cutter(in, flag)
		got := make(chan string, 1)
		go func() {
			for {
				m, err := in.next()
				if err != nil {
					close(got)
					return
				}
				got <- string(m)
			}
		}()
		<-waits
		for _, p := range pieces {
			if _, err := w.Write([]byte(p[0])); err != nil {
				t.Fatal(err)
			}
			<-waits // what is whole was given out before
			select {
			case m := <-got:
				if m != p[1] {
					t.Errorf("%s: after %q got %q, want %q", flag, p[0], m, p[1])
				}
			default:
				if p[1] != "" {
					t.Errorf("%s: after %q nothing came", flag, p[0])
				}
			}
		}
		w.Close()
		if m, more := <-got; more {
			t.Errorf("%s: at the end came %q", flag, m)
		}
		in.close()
	}
}

func TestInputEndsWithItsContext(t *testing.T) {
	ctx, end := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	in := newInput(ctx, r, func() error { end(errTimeout); return nil })
	defer in.close()
	cutter(in, "")
	if _, err := in.next(); err != errTimeout {
		t.Errorf("got %v", err)
	}
}

func BenchmarkInput(b *testing.B) {
	value := `{"sensor":"t1","temp":21.5,"unit":"C","at":"2026-11-22T18:00:00Z","note":"xxxxxxxxxxxxxxxxxxxx"}`
	for _, bb := range []struct{ name, flag, sep string }{
		{"json", "", "\n"}, {"lines", "-lines", "\n"}, {"nul", "-0", "\x00"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const many = 10000
			text := bytes.Repeat([]byte(value+bb.sep), many)
			b.SetBytes(int64(len(value)))
			n := 0
			for n < b.N {
				in := newInput(context.Background(), bytes.NewReader(text), func() error { return nil })
				cutter(in, bb.flag)
				for n < b.N {
					if _, err := in.next(); err != nil {
						break
					}
					n++
				}
				in.close()
			}
		})
	}
}
