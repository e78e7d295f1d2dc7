package envelope

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"aioc/lib/wire"
)

// frame makes a frame as it would have come from a connection.
func frame(t testing.TB, header, data, bin string) *wire.Frame {
	t.Helper()
	raw, err := wire.AppendFrame(nil, []byte(header), []byte(data), []byte(bin))
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.ParseFrame(raw)
	if err != nil {
		t.Fatalf("frame with header %s: %v", header, err)
	}
	return &f
}

func TestAppend(t *testing.T) {
	tests := []struct {
		name, header, data, bin string
		want                    string
	}{
		{"JSON data is embedded", `{"message_type": "a", "source_id": "c1"}`, `{"t":1}`, "",
			`{"message_type":"a","source_id":"c1","data":{"t":1}}`},
		{"JSON data keeps its white space", `{"message_type": "a"}`, `{"t": 1.0}`, "",
			`{"message_type":"a","data":{"t": 1.0}}`},
		{"numbers keep their text", `{"message_type": "a", "request_id": 12345678901234567890123}`, `1.50E+2`, "",
			`{"message_type":"a","request_id":12345678901234567890123,"data":1.50E+2}`},
		{"white space around JSON makes it text", `{"message_type": "a"}`, "1\n", "",
			`{"message_type":"a","data_text":"1\n"}`},
		{"a line break in JSON makes it text", `{"message_type": "a"}`, "[1,\r\n2]", "",
			`{"message_type":"a","data_text":"[1,\r\n2]"}`},
		{"NaN is text", `{"message_type": "a"}`, "NaN", "", `{"message_type":"a","data_text":"NaN"}`},
		{"text is escaped where it must be", `{"message_type": "a"}`, "a\"\\\x00\x1f\x7f\u0085é\u2028😀\ufffd", "",
			`{"message_type":"a","data_text":"a\"\\\u0000\u001f\u007f\u0085é\u2028😀` + "\ufffd" + `"}`},
		{"other bytes are base64", `{"message_type": "a"}`, "\xff\xfe", "",
			`{"message_type":"a","data_base64":"//4="}`},
		{"empty data has no key", `{"message_type": "a"}`, "", "", `{"message_type":"a"}`},
		{"an empty header", `{}`, "1", "", `{"data":1}`},
		{"nothing at all", `{}`, "", "", `{}`},
		{"a binary part", `{"message_type": "a", "with_binary": true}`, "1", "\x00\x01",
			`{"message_type":"a","data":1,"binary_base64":"AAE="}`},
		{"a binary part alone", `{"with_binary": true}`, "", "\x00", `{"binary_base64":"AA=="}`},
		{"with_binary that is not true is not printed", `{"message_type": "a", "with_binary": false}`, "", "",
			`{"message_type":"a"}`},
		{"transport_id is not printed", `{"message_type": "a", "transport_id": 7}`, "", "", `{"message_type":"a"}`},
		{"names of the envelope go to transport", `{"message_type": "a", "data": 1, "transport": [2, 3]}`, "x", "",
			`{"message_type":"a","transport":{"data":1,"transport":[2,3]},"data_text":"x"}`},
		{"only names of the envelope", `{"data_text": "q"}`, "", "", `{"transport":{"data_text":"q"}}`},
		{"the last of two keys counts", `{"a": 1, "b": 2, "a": 3}`, "", "", `{"a":3,"b":2}`},
		{"line breaks in the header are white space", "{\"a\":\n[1,\r\n\t2], \"b\": \"x y\"}", "", "", `{"a":[1,2],"b":"x y"}`},
		{"NaN in the header is a string", `{"request_id": NaN, "x": [Infinity, -Infinity]}`, "", "",
			`{"request_id":"NaN","x":"[Infinity, -Infinity]"}`},
		{"escapes in values stay", `{"tag": "\u00e9\/"}`, "", "", `{"tag":"\u00e9\/"}`},
		{"escapes in keys are read", `{"\u0064ata": 1, "caf\u00e9": 2}`, "", "", `{"café":2,"transport":{"data":1}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := frame(t, tt.header, tt.data, tt.bin)
			got := string(Append([]byte("x"), f))[1:]
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
			m, err := Parse([]byte(got))
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Data) != tt.data || string(m.Binary) != tt.bin {
				t.Errorf("came back as data %q, binary %q", m.Data, m.Binary)
			}
		})
	}
}

// An empty binary section cannot be made with AppendFrame.
func TestAppendShowsAnEmptyBinarySection(t *testing.T) {
	f := frame(t, `{"message_type": "a"}`, "1", "")
	f.Header.WithBinary, f.Binary = true, []byte{}
	want := `{"message_type":"a","data":1,"binary_base64":""}`
	if got := string(Append(nil, f)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDeepDataIsText(t *testing.T) {
	for _, depth := range []int{deepest, deepest + 1, 1001, 5000} {
		data := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		line := Append(nil, frame(t, `{"message_type": "a"}`, data, ""))
		if got, want := bytes.Contains(line, []byte(`"data":`)), depth <= deepest; got != want {
			t.Errorf("depth %d embedded: %v, want %v", depth, got, want)
		}
		if m, err := Parse(line); err != nil || string(m.Data) != data {
			t.Errorf("depth %d did not come back: %v", depth, err)
		}
	}
	wide := "[" + strings.Repeat(`{"[":["{"]},`, 2000) + "1]"
	if nests([]byte(wide), deepest) {
		t.Error("a wide value counts as deep")
	}
}

func TestParse(t *testing.T) {
	tests := []struct {
		name, line        string
		header, data, bin string
	}{
		{"a message", `{"message_type":"a","data":{"b": 1}}`, `{"message_type": "a"}`, `{"b": 1}`, ""},
		{"white space everywhere", " {\t\"message_type\" : \"a\" ,\n\"data\" : 1 } \r\n", `{"message_type": "a"}`, `1`, ""},
		{"data first", `{"data":[1],"message_type":"a"}`, `{"message_type": "a"}`, `[1]`, ""},
		{"no data", `{"message_type":"a"}`, `{"message_type": "a"}`, "", ""},
		{"nothing", `{}`, `{}`, "", ""},
		{"null is data", `{"data":null}`, `{}`, "null", ""},
		{"empty text", `{"data_text":""}`, `{}`, "", ""},
		{"text", `{"data_text":"\u0000\ud83d\ude00\n"}`, `{}`, "\x00😀\n", ""},
		{"base64", `{"data_base64":"\/\/4="}`, `{}`, "\xff\xfe", ""},
		{"a binary part sets with_binary", `{"message_type":"a","binary_base64":"AAE=","x":1}`,
			`{"message_type": "a", "x": 1, "with_binary": true}`, "", "\x00\x01"},
		{"with_binary is made anew", `{"with_binary":true,"a":1}`, `{"a": 1}`, "", ""},
		{"an empty binary part is none", `{"binary_base64":"","a":1}`, `{"a": 1}`, "", ""},
		{"transport_id is left out", `{"transport_id":5,"a":1}`, `{"a": 1}`, "", ""},
		{"transport holds any key", `{"transport":{"data":1,"transport":{"a": 2}},"data":3}`,
			`{"data": 1, "transport": {"a": 2}}`, "3", ""},
		{"the last of two header keys counts", `{"a":1,"b":2,"a":3}`, `{"a": 3, "b": 2}`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Parse([]byte(tt.line))
			if err != nil {
				t.Fatal(err)
			}
			if string(m.Header) != tt.header || string(m.Data) != tt.data || string(m.Binary) != tt.bin {
				t.Errorf("got  %s %q %q\nwant %s %q %q", m.Header, m.Data, m.Binary, tt.header, tt.data, tt.bin)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, line, want string }{
		{"nothing", ``, "not a JSON object"},
		{"an array", `[1]`, "not a JSON object"},
		{"a string", `"data"`, "not a JSON object"},
		{"a key that is not a string", `{1:2}`, "expected a key at byte 1"},
		{"no colon", `{"a" 1}`, "expected : at byte 5"},
		{"no value", `{"a":}`, "expected a value at byte 5"},
		{"no comma", `{"a":1 "b":2}`, "expected , or } at byte 7"},
		{"a comma at the end", `{"a":1,}`, "expected a key at byte 7"},
		{"a comma at the start", `{,"a":1}`, "expected a key at byte 1"},
		{"an object in place of a comma", `{"a":1{"b":2}`, "expected , or }"},
		{"an open end", `{"a":1`, "expected , or }"},
		{"an open brace", `{`, "expected a key"},
		{"two objects", `{"a":1} {"b":2}`, "text after the object"},
		{"NaN", `{"a":NaN}`, "expected a value"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", "not UTF-8"},
		{"text that is not a string", `{"data_text":1}`, `"data_text": want a string`},
		{"base64 that is not a string", `{"data_base64":[]}`, `"data_base64": want a string`},
		{"base64 that is none", `{"data_base64":"*"}`, `"data_base64": not base64`},
		{"base64 without padding", `{"binary_base64":"AA"}`, `"binary_base64": not base64`},
		{"data in two forms", `{"data":1,"data_text":"a"}`, `only one of the keys "data", "data_text"`},
		{"data twice", `{"data":1,"data":2}`, `"data" is there twice`},
		{"half a surrogate pair", `{"data_text":"\ud800x"}`, "half of a surrogate pair"},
		{"halves in the wrong order", `{"data_text":"\udc00\ud800"}`, "half of a surrogate pair"},
		{"transport that is not an object", `{"transport":[]}`, `"transport": want an object`},
		{"a header too long", `{"a":"` + strings.Repeat("x", 65536) + `"}`, "at most 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.line))
			if !errors.Is(err, ErrEnvelope) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an ErrEnvelope with %q", err, tt.want)
			}
		})
	}
}

func TestEveryShortPrefixIsRefused(t *testing.T) {
	line := `{"message_type":"a","transport":{"data":1},"data":{"a":"\u00e9"},"binary_base64":"AA=="}`
	if _, err := Parse([]byte(line)); err != nil {
		t.Fatal(err)
	}
	for i := range line {
		if _, err := Parse([]byte(line[:i])); err == nil {
			t.Errorf("accepted %s", line[:i])
		}
	}
}

// A Decoder must say the same of a line whatever the line before was.
func TestDecoderRemembersOnlyWhatIsTheSame(t *testing.T) {
	lines := []string{
		`{"message_type":"a","request_id":1,"data":1}`,
		`{"message_type":"a","request_id":1,"data":2}`,
		`{"message_type":"a","request_id":12,"data":2}`,
		`{"message_type":"a","request_id":1}`,
		`{"message_type":"a","request_id":1,"data":1,"tag":"t"}`,
		`{"message_type":"a","request_id":1,"data":1,"transport":{"data":1}}`,
		`{"message_type":"a","request_id":1,"binary_base64":"AA=="}`,
		`{"message_type":"a","request_id":1,"binary_base64":"AB=="}`,
		`{"message_type":"a","request_id":1 , "data_text":"x" } `,
		`{"message_type":"a","request_id":1}{}`,
		`{"message_type":"a","request_id":1,"data":1,"data":2}`,
		`{"message_type":"a","request_id":1,"request_id":2}`,
		`{"message_type":"a","request_id":1.5}`,
		`{"message_type":"a","request_id":1,}`,
		`{"data":1}`,
		`{"data_base64":"?","message_type":"z"}`,
		`{}`,
	}
	var d Decoder
	last, again := "", 0
	for i := range len(lines) * len(lines) * 2 {
		// Every pair of neighbours comes up.
		line := lines[i/2/len(lines)]
		if i%2 == 1 {
			line = lines[i/2%len(lines)]
		}
		got, gotErr := d.Parse([]byte(line))
		want, wantErr := Parse([]byte(line))
		if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
			t.Fatalf("%s: got error %v, want %v", line, gotErr, wantErr)
		}
		if string(got.Header) != string(want.Header) || string(got.Data) != string(want.Data) || string(got.Binary) != string(want.Binary) {
			t.Fatalf("%s: got %s %q %q, want %s %q %q", line, got.Header, got.Data, got.Binary, want.Header, want.Data, want.Binary)
		}
		if got.Same {
			again++
			if last != string(got.Header) {
				t.Fatalf("%s: header said to be the same, but %s is not %s", line, got.Header, last)
			}
		}
		last = string(got.Header)
	}
	if again == 0 {
		t.Error("no header was ever the same")
	}
}

func TestAppendData(t *testing.T) {
	tests := []struct{ name, data, want string }{
		{"compact JSON", `{"a":[1,"x y"]}`, `{"a":[1,"x y"]}`},
		{"spaced JSON", " {\"a\" : [1,\t\"x \\\" y\"]}\r\n", `{"a":[1,"x \" y"]}`},
		{"JSON with space around", "1\n", "1"},
		{"a JSON string", `"a"`, `"a"`},
		{"text", "hello\nworld", `"hello\nworld"`},
		{"escape sequences", "\x1b[2J\u009b", `"\u001b[2J\u009b"`},
		{"bytes", "\x80", `{"base64":"gA=="}`},
		{"nothing", "", `""`},
		{"NaN", "NaN", `"NaN"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendData(nil, []byte(tt.data))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"message_type":"a","data":{"b":1},"binary_base64":"AA==","transport":{"data":1}}`))
	f.Add([]byte(`{"data_text":"\ud83d\ude00"}`))
	f.Add([]byte(`{"a":1 ,"data_base64":"//4="}`))
	f.Add([]byte(`{"a":1{"b":2}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := Parse(line)
		if err != nil {
			return
		}
		if !json.Valid(line) {
			t.Fatalf("accepted %q", line)
		}
		var d Decoder
		for range 2 { // the second time from memory
			again, err := d.Parse(line)
			if err != nil || !bytes.Equal(m.Header, again.Header) || !bytes.Equal(m.Data, again.Data) || !bytes.Equal(m.Binary, again.Binary) {
				t.Fatalf("%q: not the same again: %v", line, err)
			}
		}
		returns(t, m.Header, m.Data, m.Binary)
	})
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte(`{"message_type": "a", "data": NaN, "request_id": 1}`), []byte("x"), []byte("y"))
	f.Add([]byte(`{"a": {"b": [1, 2]}}`), []byte(" [1]"), []byte{})
	f.Fuzz(func(t *testing.T, header, data, bin []byte) {
		var h wire.Header
		if len(header) > wire.MaxHeader/8 || h.Parse(header) != nil {
			return
		}
		edit := wire.Edit{Key: "with_binary"}
		if len(bin) > 0 {
			edit.Value = []byte("true")
		}
		returns(t, wire.AppendEdited(nil, header, edit), data, bin)
	})
}

// returns checks that a message survives Append and Parse.
func returns(t *testing.T, header, data, bin []byte) {
	t.Helper()
	f := frame(t, string(header), string(data), string(bin))
	line := Append(nil, f)
	if !json.Valid(line) || bytes.ContainsAny(line, "\n\r") {
		t.Fatalf("bad line %q", line)
	}
	m, err := Parse(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if !bytes.Equal(m.Data, data) || !bytes.Equal(m.Binary, bin) {
		t.Fatalf("%s: data %q binary %q, want %q %q", line, m.Data, m.Binary, data, bin)
	}
	want, got := values(t, header), values(t, m.Header)
	if want["with_binary"] == "" {
		delete(got, "with_binary")
	}
	for k, v := range want {
		if k == keyTransportID {
			continue
		}
		if got[k] != v {
			t.Fatalf("%s: header key %q is %s, want %s", line, k, got[k], v)
		}
		delete(got, k)
	}
	if len(got) > 0 {
		t.Fatalf("%s: header keys came from nowhere: %v", line, got)
	}
}

// values is the header as a map from key to JSON text without white space.
func values(t *testing.T, header []byte) map[string]string {
	t.Helper()
	all, err := members(header)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	for _, m := range all {
		if valid, _ := wire.Valid(m.value); valid && !nests(m.value, deepest) {
			values[m.key] = string(appendCompact(nil, m.value))
		} else {
			values[m.key] = string(AppendText(nil, m.value))
		}
	}
	return values
}

func BenchmarkEncoder(b *testing.B) {
	f := frame(b, `{"message_type": "reading", "source_id": "pump7", "destination_id": "('127.0.0.1', 10673)"}`,
		`{"sensor":"t1","temp":21.5,"unit":"C","at":"2026-11-22T18:00:00Z","note":"`+strings.Repeat("x", 20)+`"}`, "")
	var e Encoder
	var line []byte
	b.SetBytes(int64(len(f.Data)))
	for b.Loop() {
		line = e.Append(line[:0], f)
	}
}

func BenchmarkDecoder(b *testing.B) {
	line := []byte(`{"message_type":"reading","source_id":"pump7","destination_id":"('127.0.0.1', 10673)",` +
		`"data":{"sensor":"t1","temp":21.5,"unit":"C","at":"2026-11-22T18:00:00Z","note":"` + strings.Repeat("x", 20) + `"}}`)
	var d Decoder
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if _, err := d.Parse(line); err != nil {
			b.Fatal(err)
		}
	}
}
