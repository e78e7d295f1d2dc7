package wire

import (
	"bytes"
	"fmt"
	"testing"
)

// endless gives the same bytes over and over.
type endless struct {
	b []byte
	i int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], e.b[e.i:])
		n += k
		e.i = (e.i + k) % len(e.b)
	}
	return n, nil
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10, 300 << 10} {
		for _, same := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d/same=%v", size, same), func(b *testing.B) {
				var stream []byte
				for i := range 10 {
					header := fmt.Sprintf(`{"message_type": "any", "source_id": "client1", "request_id": %d}`, i)
					if same {
						header = `{"message_type": "any", "source_id": "client1"}`
					}
					stream, _ = AppendFrame(stream, []byte(header), bytes.Repeat([]byte("x"), size), nil)
				}
				r := NewReader(&endless{b: stream}, MaxFrame)
				var f Frame
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if err := r.Next(&f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

var jsonSamples = []struct{ name, text string }{
	{"record", `{"id":123456,"name":"temperature","unit":"C","value":21.5,"ok":true,"tags":["roof","north"],"n":null}`},
	{"text", `{"message":"a line of a log, long enough to be one, and with no escape in it at all, as they often are"}`},
	{"spaced", `{"id": 123456, "name": "temperature", "unit": "C", "value": 21.5, "ok": true, "tags": ["roof", "north"]}`},
	{"escaped", `{"path":"C:\\Users\\x\\y","quote":"\"so\"","nl":"a\nb\nc","u":"\u00e9t\u00e9 \ud83d\ude00","more":"0123456789"}`},
	{"UTF-8", `{"Stadt":"Düsseldorf","Straße":"Königsallee","名前":"漢字かな","ok":true,"smile":"😀😀","n":12345}`},
	{"number", `12345.678`},
	{"numbers", `[1,2,3,4,5,6,7,8,9,10,11.5,12.5,13.5,14.5,-15,-16,-17,-18,1e19,2e20,21,22,23,24,25,26,27,28,29,30]`},
}

func BenchmarkValid(b *testing.B) {
	for _, s := range jsonSamples {
		b.Run(s.name, func(b *testing.B) {
			text := []byte(s.text)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if valid, _ := Valid(text); !valid {
					b.Fatal("not valid")
				}
			}
		})
	}
}

func BenchmarkValueEnd(b *testing.B) {
	for _, s := range jsonSamples {
		b.Run(s.name, func(b *testing.B) {
			text := []byte(s.text + "\n" + s.text + "\n")
			b.SetBytes(int64(len(s.text)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := ValueEnd(text, false); n != len(s.text) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(`{"message_type": "any", "source_id": "client1", "destination_id": "('127.0.0.1', 20002)", "request_id": 7}`)
	var h Header
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendEdited(b *testing.B) {
	raw := []byte(`{"message_type": "any", "source_id": "client1", "destination_id": "('127.0.0.1', 20002)", "request_id": 7}`)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendEdited(dst[:0], raw, Edit{"transport_id", []byte("123")}, Edit{"destination_id", nil})
	}
}
