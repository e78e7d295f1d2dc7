package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func FuzzReader(f *testing.F) {
	for _, c := range capturedFrames(f)[:40] {
		raw := c.raw(f)
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
	}
	f.Add(le(8, uint16(2), "{}", uint32(1<<31)))
	f.Add(le(uint32(1 << 31)))
	f.Fuzz(func(t *testing.T, stream []byte) {
		const limit = 1 << 20
		one := NewReader(bytes.NewReader(stream), limit)
		two := NewReader(iotest.OneByteReader(bytes.NewReader(stream)), limit)
		rest := stream
		for {
			var a, b Frame
			errA, errB := one.Next(&a), two.Next(&b)
			if (errA == nil) != (errB == nil) || errA != nil && errA.Error() != errB.Error() {
				t.Fatalf("read at once: %v, byte by byte: %v", errA, errB)
			}
			if errA != nil {
				if errA == io.EOF && len(rest) > 0 {
					t.Fatalf("EOF with %d bytes left", len(rest))
				}
				return
			}
			if !bytes.HasPrefix(rest, a.Raw) || !bytes.Equal(a.Raw, b.Raw) || !bytes.Equal(a.Data, b.Data) || !bytes.Equal(a.Binary, b.Binary) || a.Same != b.Same {
				t.Fatal("not the bytes of the stream")
			}
			rest = rest[len(a.Raw):]
			checkRebuilt(t, &a)
		}
	})
}

// checkRebuilt makes a frame of the parts of f; it must have the same parts.
func checkRebuilt(t *testing.T, f *Frame) {
	t.Helper()
	if f.Binary != nil && len(f.Binary) == 0 {
		return // cannot be written
	}
	raw, err := AppendFrame(nil, f.Header.Raw, f.Data, f.Binary)
	if err != nil || len(raw) > len(f.Raw) {
		t.Fatalf("AppendFrame: %v, %d bytes of a frame of %d", err, len(raw), len(f.Raw))
	}
	again, err := ParseFrame(raw)
	if err != nil || !bytes.Equal(again.Header.Raw, f.Header.Raw) || !bytes.Equal(again.Data, f.Data) || !bytes.Equal(again.Binary, f.Binary) {
		t.Fatalf("%x: %v, not the same again", raw, err)
	}
}

// nests reports whether b has more than n brackets open at a time, strings
// included: never fewer than there are.
func nests(b []byte, n int) bool {
	return bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) > n
}

// lenient reports whether b has words that Python's json takes and
// encoding/json does not.
func lenient(b []byte) bool {
	return bytes.Contains(b, []byte("NaN")) || bytes.Contains(b, []byte("Infinity"))
}

func FuzzHeader(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add([]byte(c.In))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var h Header
		err := h.Parse(raw)
		if err != nil && !errors.Is(err, ErrHeader) {
			t.Fatalf("%v does not wrap ErrHeader", err)
		}
		if nests(raw, maxDepth) || lenient(raw) {
			return
		}
		var want map[string]json.RawMessage
		strict := json.Unmarshal(raw, &want)
		is := strict == nil && want != nil && utf8.Valid(raw)
		if is != (err == nil) {
			t.Fatalf("Parse = %v, encoding/json: %v", err, strict)
		}
		if err != nil {
			return
		}
		for key, got := range meaning(t, raw) {
			if string(want[key]) != got {
				t.Errorf("%q = %s, encoding/json: %s", key, got, want[key])
			}
		}
		var tag string
		if err := json.Unmarshal(want["tag"], &tag); err == nil && h.Tag != nil && tag != string(h.Tag) {
			t.Errorf("tag = %q, encoding/json: %q", h.Tag, tag)
		}
	})
}

func FuzzEdit(f *testing.F) {
	for i, c := range corpus(f) {
		if c.Strings != nil {
			f.Add([]byte(c.In), "tag", i%3 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, key string, remove bool) {
		var h Header
		if h.Parse(raw) != nil || !utf8.ValidString(key) {
			return
		}
		edit := Edit{Key: key, Value: []byte("[1, 2]")}
		if remove {
			edit.Value = nil
		}
		checkEdited(t, raw, edit, Edit{"an added key", []byte("null")}, Edit{"with_binary", nil})
	})
}

func FuzzValueEnd(f *testing.F) {
	for _, c := range corpus(f) {
		f.Add([]byte(c.In))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		valid, compact := Valid(b)
		if nests(b, maxDepth) {
			return
		}
		if want := json.Valid(b) && utf8.Valid(b); valid != want {
			t.Fatalf("Valid = %v, want %v", valid, want)
		}
		if valid {
			var dense bytes.Buffer
			if err := json.Compact(&dense, b); err != nil {
				t.Fatal(err)
			}
			if want := dense.Len() == len(b); compact != want {
				t.Errorf("compact = %v, want %v", compact, want)
			}
		}
		b = []byte(strings.TrimLeft(string(b), " \t\r\n"))
		n, err := ValueEnd(b, true)
		if err == nil {
			if ok, _ := Valid(b[:n]); !ok {
				t.Fatalf("ValueEnd = %d, but that is no value", n)
			}
			// It ends where it does however much is there.
			if m, err := ValueEnd(append(b[:n:n], ' '), false); m != n || err != nil {
				t.Errorf("ValueEnd = %d, %v with a space behind; want %d", m, err, n)
			}
		} else if valid {
			t.Errorf("ValueEnd of a value: %v", err)
		}
		// What is refused already is refused for good, whatever comes.
		if m, more := ValueEnd(b, false); more != nil && (err == nil || m != 0) {
			t.Errorf("ValueEnd = %d, %v; at the end: %d, %v", m, more, n, err)
		}
	})
}
