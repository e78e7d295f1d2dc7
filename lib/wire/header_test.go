package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

func mustParse(t *testing.T, raw string) *Header {
	t.Helper()
	var h Header
	if err := h.Parse([]byte(raw)); err != nil {
		t.Fatalf("Parse(%.60q): %v", raw, err)
	}
	return &h
}

func TestHeadersInEveryForm(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		want      Header // without Raw
	}{
		{"an empty one", `{}`, Header{}},
		{"white space", "\r\n\t { \"tag\" :\n\"a\" , \"error\":\"b\"} \n", Header{Tag: []byte("a"), Error: []byte("b")}},
		{"another order", `{"source_id":"s","message_type":"m"}`, Header{Type: []byte("m"), Source: []byte("s")}},
		{"escapes", `{"tag": "\"\\\/\b\f\n\r\t\u0041\u00e9\u6F22"}`, Header{Tag: []byte("\"\\/\b\f\n\r\tAé漢")}},
		{"an escaped key", `{"\u0074ag": "a"}`, Header{Tag: []byte("a")}},
		{"raw UTF-8", `{"tag": "é漢😀", "é": 1}`, Header{Tag: []byte("é漢😀")}},
		{"a surrogate pair", `{"tag": "\ud83d\ude00"}`, Header{Tag: []byte("😀")}},
		{"lone surrogates", `{"tag": "\ud83d|\ude00|\ud83d\ud83d\ude00\ude00\ud83d"}`, Header{Tag: []byte("\ufffd|\ufffd|\ufffd😀\ufffd\ufffd")}},
		{"a surrogate and another escape", `{"tag": "\ud83d\n\ud83d\u0041"}`, Header{Tag: []byte("\ufffd\n\ufffdA")}},
		{"an empty string", `{"tag": ""}`, Header{Tag: []byte("")}},
		{"a string that is none", `{"tag": 1, "source_id": null, "message_type": ["a"]}`, Header{}},
		{"the last of duplicate keys", `{"tag": "a", "with_binary": true, "tag": "b", "with_binary": 0}`, Header{Tag: []byte("b")}},
		{"a duplicate key that is no string", `{"tag": "a", "request_id": 1, "tag": 2, "request_id": null}`, Header{}},
		{"NaN and Infinity", `{"request_id": NaN, "response_id": Infinity, "transport_id": -Infinity, "with_binary": NaN}`,
			Header{RequestID: []byte("NaN"), ResponseID: []byte("Infinity"), TransportID: []byte("-Infinity"), WithBinary: true}},
		{"an integer of any size", `{"request_id": 123456789012345678901234567890}`, Header{RequestID: []byte("123456789012345678901234567890")}},
		{"0 and empty identities", `{"request_id": 0, "response_id": "", "transport_id": false}`,
			Header{RequestID: []byte("0"), ResponseID: []byte(`""`), TransportID: []byte("false")}},
		{"true values", `{"with_binary": 1e-5, "await_response": "0", "wait_for_ack": [0], "with_file": {"a": 1}}`,
			Header{WithBinary: true, AwaitResponse: true, WaitForAck: true, WithFile: []byte(`{"a": 1}`)}},
		{"false values", `{"with_binary": -0.0e9, "await_response": "", "wait_for_ack": [ ], "with_file": {}}`, Header{}},
		{"numbers too small for a float", `{"with_binary": 1e-999, "wait_for_ack": 1e999}`, Header{WaitForAck: true}},
		{"ackto", `{"ackto": 18446744073709551615}`, Header{AckTo: 1<<64 - 1}},
		{"an ackto that is too large", `{"ackto": 18446744073709551616}`, Header{}},
		{"an ackto that is no integer", `{"ackto": 5, "ackto": "5"}`, Header{}},
		{"the deepest", `{"x": ` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + `}`, Header{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := mustParse(t, c.raw)
			if string(h.Raw) != c.raw {
				t.Errorf("Raw = %q", h.Raw)
			}
			h.Raw = nil
			got, _ := json.Marshal(h)
			if want, _ := json.Marshal(c.want); !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if (h.Tag == nil) != (c.want.Tag == nil) {
				t.Errorf("Tag = %#v, want %#v", h.Tag, c.want.Tag)
			}
		})
	}
}

func TestWhatIsNoHeaderIsRefused(t *testing.T) {
	deep := `{"x": ` + strings.Repeat("[", maxDepth)
	for _, c := range []struct{ name, raw, want string }{
		{"nothing", ``, "not a JSON object at byte 0"},
		{"white space", "  ", "not a JSON object at byte 2"},
		{"an array", `["message_type"]`, "not a JSON object"},
		{"a string", `"a"`, "not a JSON object"},
		{"a number", `1`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"two objects", `{} {}`, "bytes after the object at byte 3"},
		{"one bracket too many", `{}}`, "bytes after the object at byte 2"},
		{"one that is cut", `{"tag": "a"`, "expected , or } at byte 11"},
		{"a key that is cut", `{"ta`, "unfinished string"},
		{"a comma too many", `{"tag": "a",}`, "expected a key"},
		{"no comma", `{"tag": "a" "error": "b"}`, "expected , or }"},
		{"no value", `{"tag"}`, "expected :"},
		{"a key without quotes", `{tag: 1}`, "expected a key"},
		{"a control character", "{\"tag\": \"a\nb\"}", "control character in a string at byte 10"},
		{"a zero byte in a string", "{\"tag\": \"\x00\"}", "control character"},
		{"a zero byte", "{\x00}", "expected a key"},
		{"a control character in a key", "{\"t\x1fag\": 1}", "control character"},
		{"invalid UTF-8", "{\"tag\": \"\xff\"}", "not UTF-8 at byte 9"},
		{"invalid UTF-8 in a key", "{\"\xc3\": 1}", "not UTF-8"},
		{"a surrogate in UTF-8", "{\"tag\": \"\xed\xa0\x80\"}", "not UTF-8"},
		{"UTF-8 outside a string", `{é: 1}`, "expected a key"},
		{"a byte order mark", "\ufeff{}", "not a JSON object"},
		{"UTF-16", "{\x00}\x00", "expected a key"},
		{"a bad escape", `{"tag": "\x41"}`, "bad escape"},
		{"a bad number", `{"tag": 01}`, "expected , or }"},
		{"Python's None", `{"tag": None}`, "expected NaN"},
		{"a comment", `{} // a`, "bytes after the object"},
		{"too deep", deep + strings.Repeat("]", maxDepth) + "}", "nested too deep"},
		{"far too deep", `{"x": ` + strings.Repeat(`{"x": [`, 9000), "nested too deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h Header
			err := h.Parse([]byte(c.raw))
			if !errors.Is(err, ErrHeader) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse = %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseForgetsTheHeaderBefore(t *testing.T) {
	h := mustParse(t, `{"tag": "a", "with_binary": true, "ackto": 4, "aioc": ["flow"]}`)
	if err := h.Parse([]byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if h.Tag != nil || h.WithBinary || h.AckTo != 0 || h.Extensions != nil {
		t.Errorf("it still has %+v", h)
	}
}

func TestSpeaks(t *testing.T) {
	for _, c := range []struct {
		aioc string
		want bool
	}{
		{`["ackto", "flow"]`, true},
		{`[ "fl\u006fw" , 1]`, true},
		{`["ackto"]`, false},
		{`["flow "]`, false},
		{`[["flow"]]`, false},
		{`[]`, false},
		{`"flow"`, false},
		{`{"flow": 1}`, false},
		{`null`, false},
	} {
		if got := mustParse(t, `{"aioc": `+c.aioc+`}`).Speaks(ExtFlow); got != c.want {
			t.Errorf("%s speaks flow: %v, want %v", c.aioc, got, c.want)
		}
	}
	if mustParse(t, `{}`).Speaks(ExtFlow) {
		t.Error("an end that announces nothing speaks flow")
	}
}

func TestField(t *testing.T) {
	h := mustParse(t, `{"a": 1, "b" : [1, 2] , "a": "x", "\u0063": null}`)
	for key, want := range map[string]string{"a": `"x"`, "b": `[1, 2]`, "c": "null"} {
		if got := h.Field(key); string(got) != want {
			t.Errorf("Field(%s) = %s, want %s", key, got, want)
		}
	}
	if got := h.Field("d"); got != nil {
		t.Errorf("Field(d) = %s, want nil", got)
	}
}

func TestAppendEdited(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		edits     []Edit
		want      string
	}{
		{"no edit", `{"a": 1, "b": "x"}`, nil, `{"a": 1, "b": "x"}`},
		{"an empty header", `{}`, []Edit{{"a", []byte("1")}}, `{"a": 1}`},
		{"a new key", `{"a": 1}`, []Edit{{"b", []byte("2")}}, `{"a": 1, "b": 2}`},
		{"a change in place", `{"a": 1, "b": 2, "c": 3}`, []Edit{{"b", []byte(`"x"`)}}, `{"a": 1, "b": "x", "c": 3}`},
		{"a removal", `{"a": 1, "b": 2}`, []Edit{{"a", nil}}, `{"b": 2}`},
		{"the removal of all", `{"a": 1}`, []Edit{{"a", nil}}, `{}`},
		{"the removal of what is not there", `{"a": 1}`, []Edit{{"b", nil}}, `{"a": 1}`},
		{"a change of a duplicate", `{"a": 1, "b": 2, "a": 3}`, []Edit{{"a", []byte("4")}}, `{"a": 4, "b": 2}`},
		{"the removal of a duplicate", `{"a": 1, "b": 2, "a": 3}`, []Edit{{"a", nil}}, `{"b": 2}`},
		{"several", `{"a": 1, "b": 2}`, []Edit{{"c", []byte("3")}, {"a", nil}, {"b", []byte("0")}, {"d", []byte("4")}}, `{"b": 0, "c": 3, "d": 4}`},
		{"spacing", " {\"a\":1,\n\"b\" : { \"x\":1 } } ", []Edit{{"c", []byte("2")}}, `{"a": 1, "b": { "x":1 }, "c": 2}`},
		{"an escaped key", `{"\u0061": 1}`, []Edit{{"a", []byte("2")}}, `{"\u0061": 2}`},
		{"a key with a lone surrogate", `{"\ud83d": 1}`, []Edit{{"a", []byte("2")}}, `{"\ud83d": 1, "a": 2}`},
		{"a new key to escape", `{}`, []Edit{{"\"é\n", []byte("2")}}, `{"\"\u00e9\n": 2}`},
		{"NaN", `{"a": NaN}`, []Edit{{"b", []byte("-Infinity")}}, `{"a": NaN, "b": -Infinity}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := AppendEdited([]byte("before"), []byte(c.raw), c.edits...)
			if string(got) != "before"+c.want {
				t.Errorf("got  %s\nwant before%s", got, c.want)
			}
		})
	}
}

// meaning returns what the last of each key says.
func meaning(t testing.TB, raw []byte) map[string]string {
	t.Helper()
	m := map[string]string{}
	if err := Fields(raw, func(key, value []byte) { m[string(key)] = string(value) }); err != nil {
		t.Errorf("%q: %v", raw, err)
	}
	return m
}

func checkEdited(t testing.TB, raw []byte, edits ...Edit) {
	t.Helper()
	want := meaning(t, raw)
	for _, e := range edits {
		if delete(want, e.Key); e.Value != nil {
			want[e.Key] = string(e.Value)
		}
	}
	once := AppendEdited(nil, raw, edits...)
	if got := meaning(t, once); !maps.Equal(got, want) {
		t.Errorf("%q edited with %q: %q, want %q", raw, edits, got, want)
	}
	if twice := AppendEdited(nil, once, edits...); !bytes.Equal(once, twice) {
		t.Errorf("%q edited with %q twice: %q, once: %q", raw, edits, twice, once)
	}
}

func TestEditsChangeWhatTheyNameAndNothingElse(t *testing.T) {
	for _, c := range corpus(t) {
		if c.Strings == nil {
			continue
		}
		raw := []byte(c.In)
		checkEdited(t, raw)
		checkEdited(t, raw, Edit{"transport_id", []byte("7")}, Edit{"source_id", nil}, Edit{"tag", []byte(`"x"`)})
	}
}

func TestStringsAreWrittenAsPythonWritesThem(t *testing.T) {
	for in, want := range map[string]string{
		"":                  `""`,
		"plain ~":           `"plain ~"`,
		"\"\\/":             `"\"\\/"`,
		"\b\f\n\r\t":        `"\b\f\n\r\t"`,
		"\x00\x1f\x7f":      `"\u0000\u001f\u007f"`,
		"é漢\u2028\ufffd":    `"\u00e9\u6f22\u2028\ufffd"`,
		"😀\U0010ffff":       `"\ud83d\ude00\udbff\udfff"`,
		"a\xffb":            `"a\ufffdb"`,
		"('127.0.0.1', 80)": `"('127.0.0.1', 80)"`,
	} {
		got := AppendString([]byte("x"), in)
		if string(got) != "x"+want {
			t.Errorf("AppendString(%q) = %s, want x%s", in, got, want)
		}
		back, ok := Text(got[1:])
		if want := strings.ToValidUTF8(in, "\ufffd"); !ok || back != want {
			t.Errorf("Text(%s) = %q, %v; want %q", got[1:], back, ok, want)
		}
	}
	for _, in := range []string{`1`, `null`, `["a"]`, ``, `"`} {
		if s, ok := Text([]byte(in)); ok {
			t.Errorf("Text(%s) = %q, want none", in, s)
		}
	}
}

func TestReserved(t *testing.T) {
	var reserved []string
	for _, typ := range []string{"", "a", "a_", "_", "_ack", TypeCall, " _ack"} {
		if Reserved(typ) {
			reserved = append(reserved, typ)
		}
	}
	if want := []string{"_", "_ack", TypeCall}; !slices.Equal(reserved, want) {
		t.Errorf("reserved: %q, want %q", reserved, want)
	}
}
