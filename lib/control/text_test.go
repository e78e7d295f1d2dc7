package control

import (
	"encoding/json"
	"math"
	"testing"
)

// What Python 3.11 prints, from an interpreter.
func TestTextsAreQuotedAsPythonDoes(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", `''`},
		{"plain", `'plain'`},
		{"it's", `"it's"`},
		{`say "x"`, `'say "x"'`},
		{`it's "both" `, `'it\'s "both" '`},
		{`back\slash`, `'back\\slash'`},
		{"'", `"'"`},
		{`"`, `'"'`},
		{`\'`, `"\\'"`},
		{"a\nb\r\tc", `'a\nb\r\tc'`},
		{"\x00\x1f\x7f\u0080\u009f\u00a0\u00ad", `'\x00\x1f\x7f\x80\x9f\xa0\xad'`},
		{"é ü ß 日本語 😀", `'é ü ß 日本語 😀'`},
		{"\u200b\u2028\u2029\ufeff", `'\u200b\u2028\u2029\ufeff'`},
		{"\ue000\U000e0001\U0010ffff", `'\ue000\U000e0001\U0010ffff'`},
		{"\u3000\u00a0 x", `'\u3000\xa0 x'`},
		{"\u0378", `'\u0378'`},
		{"\U0001f9ff", `'🧿'`},
	} {
		if got := repr(tt.in); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestNumbersAreWrittenAsPythonDoes(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{
		{0, "0"}, {-7, "-7"}, {int64(1) << 40, "1099511627776"}, {json.Number("30"), "30"}, {json.Number("1.50"), "1.50"},
		{0.0, "0.0"}, {math.Copysign(0, -1), "-0.0"}, {1.0, "1.0"}, {1.5, "1.5"}, {5e-324, "5e-324"},
		{1e15, "1000000000000000.0"}, {1e16, "1e+16"}, {123456789012345678.0, "1.2345678901234568e+17"},
		{0.0001, "0.0001"}, {0.00001, "1e-05"}, {1e22, "1e+22"}, {1.7976931348623157e308, "1.7976931348623157e+308"},
		{math.NaN(), "nan"}, {math.Inf(1), "inf"}, {math.Inf(-1), "-inf"}, {0.1, "0.1"}, {1.0 / 3, "0.3333333333333333"},
	} {
		if got := repr(tt.in); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.in, got, tt.want)
		}
	}
}

// A reply is Python's str of the value, or {} where the value is not true.
func TestRepliesHaveTheFormsOfPython(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   any
		want string
	}{
		{"nothing", nil, "{}"},
		{"networks", Networks{"10.1.0.0/16", "fd00::/8"}, "{IPv4Network('10.1.0.0/16'), IPv6Network('fd00::/8')}"},
		{"no networks", Networks{}, "set()"},
		{"what only this toolkit replies", &Health{OK: true, Name: "n", Problems: []string{}}, `{"ok":true,"name":"n","problems":[]}`},
		{"no text", "", "{}"},
		{"no raw text", Raw(""), "{}"},
		{"no list", []string{}, "{}"},
		{"nil list", []string(nil), "{}"},
		{"true", true, "True"},
		{"false, which is a text by then", false, "False"},
		{"a text as it is", "it's\n", "it's\n"},
		{"raw", Raw(`{"a": 1}`), `{"a": 1}`},
		{"a number", 7, "7"},
		{"a list", []string{"a", "it's"}, `['a', "it's"]`},
		{"a set", Set{"a", "b"}, "{'a', 'b'}"},
		{"an empty set", Set{}, "set()"},
		{"a tuple", Tuple{"127.0.0.1", 10673}, "('127.0.0.1', 10673)"},
		{"a tuple of one", Tuple{"x"}, "('x',)"},
		{"an empty tuple", Tuple{}, "()"},
		{"values in a list", []any{nil, true, false, 1, "x", []any{}, Tuple{1, 2}, Raw("IPv4Network('10.1.0.0/16')")}, "[None, True, False, 1, 'x', [], (1, 2), IPv4Network('10.1.0.0/16')]"},
		{"an empty dict", map[string]any{}, "{}"},
		{"a dict, sorted", map[string]any{"b": []any{"127.0.0.1", 1}, "a": map[string]any{"x": nil}}, "{'a': {'x': None}, 'b': ['127.0.0.1', 1]}"},
	} {
		if got := Text(tt.in); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
