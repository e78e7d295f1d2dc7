package wire

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

// corpus.json says what Python's json makes of texts that are mostly almost
// JSON. It was written by corpus.py.
type judged struct {
	In      string
	Strict  bool              // JSON without NaN and the like
	Strings map[string]string // an object: the keys whose value is a string; else nil
	True    []string          // keys whose value is true for Python
	Present []string          // keys whose value is not null
	Keys    []string          // all
}

func corpus(t testing.TB) []judged {
	t.Helper()
	var all []judged
	mustLoad(t, "corpus.json", &all)
	for i := range all {
		b, err := base64.StdEncoding.DecodeString(all[i].In)
		if err != nil {
			t.Fatal(err)
		}
		all[i].In = string(b)
	}
	if len(all) < 500 {
		t.Fatalf("only %d texts", len(all))
	}
	return all
}

func TestHeadersMeanWhatPythonTakesThemFor(t *testing.T) {
	for _, c := range corpus(t) {
		var h Header
		err := h.Parse([]byte(c.In))
		if (err == nil) != (c.Strings != nil) {
			t.Errorf("Parse(%q) = %v, Python takes it: %v", c.In, err, c.Strings != nil)
			continue
		}
		if err != nil {
			if !errors.Is(err, ErrHeader) {
				t.Errorf("Parse(%q) = %v, want one that wraps ErrHeader", c.In, err)
			}
			continue
		}
		for key, got := range map[string][]byte{
			"message_type": h.Type, "source_id": h.Source, "destination_id": h.Dest,
			"message_type_publish": h.Publish, "tag": h.Tag, "error": h.Error,
		} {
			if want, ok := c.Strings[key]; ok != (got != nil) || want != string(got) {
				t.Errorf("%q: %s = %q, want %q", c.In, key, got, want)
			}
		}
		for key, got := range map[string]bool{
			"with_binary": h.WithBinary, "await_response": h.AwaitResponse, "wait_for_ack": h.WaitForAck, "with_file": h.WithFile != nil,
		} {
			if want := slices.Contains(c.True, key); got != want {
				t.Errorf("%q: %s = %v, want %v", c.In, key, got, want)
			}
		}
		for key, got := range map[string][]byte{
			"request_id": h.RequestID, "response_id": h.ResponseID, "transport_id": h.TransportID,
		} {
			if want := slices.Contains(c.Present, key); (got != nil) != want {
				t.Errorf("%q: %s = %q, want one: %v", c.In, key, got, want)
			}
			if f := h.Field(key); got != nil && string(f) != string(got) {
				t.Errorf("%q: Field(%s) = %q, want %q", c.In, key, f, got)
			}
		}
		var keys []string
		if err := Fields(h.Raw, func(key, value []byte) { keys = append(keys, string(key)) }); err != nil {
			t.Errorf("Fields(%q): %v", c.In, err)
		}
		slices.Sort(keys)
		if keys = slices.Compact(keys); !slices.Equal(keys, c.Keys) {
			t.Errorf("%q: keys %q, want %q", c.In, keys, c.Keys)
		}
	}
}

func TestValuesAreValidWhenPythonReadsThemWithoutNaN(t *testing.T) {
	for _, c := range corpus(t) {
		in := []byte(c.In)
		if got, _ := Valid(in); got != c.Strict {
			t.Errorf("Valid(%q) = %v, want %v", c.In, got, c.Strict)
		}
		trimmed := []byte(strings.Trim(c.In, " \t\r\n"))
		n, err := ValueEnd(trimmed, true)
		if whole := err == nil && n == len(trimmed); whole != c.Strict {
			t.Errorf("ValueEnd(%q) = %d, %v; is one value: %v", trimmed, n, err, c.Strict)
		}
	}
}

func TestValid(t *testing.T) {
	deep := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	for _, c := range []struct {
		in             string
		valid, compact bool
	}{
		{`{"a":[1,"b c",{"d":null}]}`, true, true},
		{`{"a": 1}`, true, false},
		{"\n{}", true, false},
		{"{}\n", true, false},
		{"[ ]", true, false},
		{`" "`, true, true},
		{`"é漢😀"`, true, true},
		{"\"\xff\"", false, false},
		{"\"\xed\xa0\x80\"", false, false},
		{"\"abcdefgh\xc3\"", false, false},
		{`NaN`, false, false},
		{`[-Infinity]`, false, false},
		{``, false, false},
		{` `, false, false},
		{`{} {}`, false, false},
		{`1,`, false, false},
		{deep, true, true},
		{"[" + deep + "]", false, false},
		{`{"a":` + deep + `}`, false, false},
	} {
		if valid, compact := Valid([]byte(c.in)); valid != c.valid || compact != c.compact {
			t.Errorf("Valid(%.40q) = %v, %v; want %v, %v", c.in, valid, compact, c.valid, c.compact)
		}
	}
}

func TestValueEnd(t *testing.T) {
	for _, c := range []struct {
		in    string
		final bool
		n     int
		err   string
	}{
		{`{"a":1}`, false, 7, ""},
		{`{"a":1}rest`, false, 7, ""},
		{`{"a":1} {"b":`, true, 7, ""},
		{`"a"b`, false, 3, ""},
		{`true`, false, 4, ""},
		{`truer`, false, 4, ""},
		{`12`, false, 0, ""},
		{`12`, true, 2, ""},
		{`12 `, false, 2, ""},
		{`-`, false, 0, ""},
		{`-`, true, 0, "expected a digit at byte 1"},
		{`-x`, false, 0, "expected a digit at byte 1"},
		{`1.`, false, 0, ""},
		{`1.e`, false, 0, "expected a digit at byte 2"},
		{`1e+`, false, 0, ""},
		{`1e+`, true, 0, "expected a digit at byte 3"},
		{`tr`, false, 0, ""},
		{`tr`, true, 0, "expected true at byte 2"},
		{`trx`, false, 0, "expected true at byte 2"},
		{``, false, 0, ""},
		{``, true, 0, "expected a value at byte 0"},
		{`NaN`, false, 0, "expected a value at byte 0"},
		{`-Infinity`, false, 0, "expected a digit at byte 1"},
		{`"ab`, false, 0, ""},
		{`"ab`, true, 0, "unfinished string at byte 3"},
		{`"\`, false, 0, ""},
		{`"\u12`, false, 0, ""},
		{`"\u12"`, false, 0, `bad \u escape at byte 5`},
		{`"\x"`, false, 0, "bad escape at byte 2"},
		{"\"a\x01", false, 0, "control character in a string at byte 2"},
		{"\"\xff\"", false, 0, "not UTF-8 at byte 1"},
		{"\"\xff", false, 0, "not UTF-8 at byte 1"},
		{"\"\xe6\xbc", false, 0, ""},
		{"\"\xe6\xbc", true, 0, "unfinished string at byte 3"},
		{"\"\xe6\xbc\"", true, 0, "not UTF-8 at byte 1"},
		{`[`, false, 0, ""},
		{`[1`, false, 0, ""},
		{`[1`, true, 0, "expected , or ] at byte 2"},
		{`[1}`, false, 0, "expected , or ] at byte 2"},
		{`[1,`, false, 0, ""},
		{`[1,]`, false, 0, "expected a value at byte 3"},
		{`{"a"`, false, 0, ""},
		{`{"a" 1`, false, 0, "expected : at byte 5"},
		{`{"a":1,}`, false, 0, "expected a key at byte 7"},
		{`{"a":1]`, false, 0, "expected , or } at byte 6"},
		{`{1:1}`, false, 0, "expected a key at byte 1"},
		{"\x00", false, 0, "expected a value at byte 0"},
		{"[1,\x00", false, 0, "expected a value at byte 3"},
		{"[\x00", false, 0, "expected a value at byte 1"},
		{strings.Repeat("[", maxDepth), false, 0, ""},
		{strings.Repeat("[", maxDepth+1), false, 0, "nested too deep at byte 1000"},
	} {
		n, err := ValueEnd([]byte(c.in), c.final)
		if n != c.n || (err == nil) != (c.err == "") || err != nil && !strings.HasSuffix(err.Error(), ": "+c.err) {
			t.Errorf("ValueEnd(%.40q, %v) = %d, %v; want %d, %q", c.in, c.final, n, err, c.n, c.err)
		}
		if err != nil && !errors.Is(err, ErrHeader) {
			t.Errorf("ValueEnd(%.40q): %v does not wrap ErrHeader", c.in, err)
		}
	}
}

// A value that comes in pieces: no prefix of it is an error, none is whole.
func TestEveryPrefixOfAValueNeedsMore(t *testing.T) {
	for _, in := range []string{
		`{"id": 12, "text": "a \"quoted\" word, \u00e9\ud83d\ude00 é漢😀", "list": [true, false, null, -1.5e+10, [], {}], "s": ""}`,
		`"0123456789\n0123456789é"`,
		`[[[["a"]]]]`,
	} {
		for i := range len(in) {
			if n, err := ValueEnd([]byte(in[:i]), false); n != 0 || err != nil {
				t.Errorf("ValueEnd(%q) = %d, %v; want 0 and no error", in[:i], n, err)
			}
			if _, err := ValueEnd([]byte(in[:i]), true); err == nil {
				t.Errorf("ValueEnd(%q, final): no error", in[:i])
			}
		}
		if n, err := ValueEnd([]byte(in), false); n != len(in) || err != nil {
			t.Errorf("ValueEnd(%q) = %d, %v; want all", in, n, err)
		}
	}
}

// Every byte at every place of a string, so that none hides behind another
// among those that are looked at together.
func TestEachByteOfAStringIsLookedAt(t *testing.T) {
	for length := range 20 {
		for at := range length {
			for c := range 256 {
				for _, after := range []byte{'x', '"' + 1, '\\' + 1, ' ', '!'} {
					in := append([]byte{'"'}, strings.Repeat("x", length)...)
					in = append(in, '"')
					in[1+at] = byte(c)
					if at+2 < len(in)-1 {
						in[at+2] = after
					}
					want := c >= ' ' && c < 0x80 && c != '"' && c != '\\'
					if c == '\\' {
						continue // its fate depends on what follows
					}
					got, _ := Valid(in)
					if got != want {
						t.Fatalf("Valid(%q) = %v, want %v", in, got, want)
					}
				}
			}
		}
	}
}

func TestSteppingOverAValueAllocatesNothing(t *testing.T) {
	for _, s := range jsonSamples {
		text := []byte(s.text + "\n")
		if n := testing.AllocsPerRun(100, func() {
			if ok, _ := Valid(text); !ok {
				t.Fatalf("%s: not valid", s.text)
			}
			if _, err := ValueEnd(text, false); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}
