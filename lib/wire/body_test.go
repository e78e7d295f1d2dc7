package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// stream returns frames: small, with a file of n bytes, small.
func stream(t *testing.T, n int, more ...byte) []byte {
	t.Helper()
	file := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
	var all []byte
	for _, f := range []struct {
		header, data string
		bin          []byte
	}{
		{`{"message_type": "a"}`, "first", nil},
		{`{"message_type": "a", "with_file": {"dst_name": "n"}, "with_binary": true}`, "data", file},
		{`{"message_type": "a"}`, "last", nil},
	} {
		var err error
		if all, err = AppendFrame(all, []byte(f.header), []byte(f.data), f.bin); err != nil {
			t.Fatal(err)
		}
	}
	return append(all, more...)
}

func TestAFileIsReadPieceByPiece(t *testing.T) {
	for _, size := range []int{1, 999, 1000, 1001, 300 << 10, 3 << 20} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"at once": func(r io.Reader) io.Reader { return r }, "in halves": iotest.HalfReader, "byte by byte": iotest.OneByteReader,
		} {
			if size > 1<<20 && name == "byte by byte" {
				continue
			}
			for _, read := range []int64{0, 7, 1 << 40} {
				r := NewReader(wrap(bytes.NewReader(stream(t, size))), 1<<20)
				r.Stream(1000, 1<<30)
				grown := 0
				r.Account(func(delta int) bool { grown += delta; return true })
				var f Frame
				for i, want := range []string{"first", "data", "last"} {
					r.Ready()
					if err := r.Next(&f); err != nil {
						t.Fatalf("%d bytes %s: frame %d: %v", size, name, i, err)
					}
					if string(f.Data) != want {
						t.Errorf("%d bytes %s: got %q, want %q", size, name, f.Data, want)
					}
					if whole := i != 1 || size < 900; whole != (f.Body == nil) || whole == (f.Raw == nil) {
						t.Errorf("%d bytes %s: frame %d: got a body %v", size, name, i, f.Body != nil)
					}
					if f.Body == nil {
						continue
					}
					if f.Body.Len() != int64(size) {
						t.Errorf("got a length of %d, want %d", f.Body.Len(), size)
					}
					got, err := io.ReadAll(io.LimitReader(f.Body, read))
					if err != nil || int64(len(got)) != min(read, int64(size)) || !strings.HasPrefix(strings.Repeat("0123456789", size/10+1), string(got)) {
						t.Errorf("%d bytes %s: got %d bytes, %v", size, name, len(got), err)
					}
				}
				if err := r.Next(&f); err != io.EOF {
					t.Errorf("at the end: got %v", err)
				}
				if grown > 0 {
					t.Errorf("%d bytes %s: %d more in memory", size, name, grown)
				}
			}
		}
	}
}

func TestAStreamThatEndsWithinAFileIsAnError(t *testing.T) {
	all := stream(t, 5000)
	for cut := 100; cut < 5000; cut += 7 {
		r := NewReader(bytes.NewReader(all[:cut]), 1<<20)
		r.Stream(1000, 1<<30)
		var f Frame
		err := r.Next(&f)
		if err == nil {
			err = r.Next(&f)
		}
		if err == nil && f.Body != nil {
			if _, err = io.Copy(io.Discard, f.Body); err != nil && f.Body.Err() == nil {
				t.Fatalf("cut at %d: the body does not keep its error", cut)
			}
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: got %v", cut, err)
		}
	}
}

func TestWhatIsNoFileIsReadAsAlways(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 5000)
	for name, f := range map[string]struct {
		header    string
		data, bin []byte
	}{
		"no file":                 {`{"message_type": "a", "with_binary": true}`, nil, big},
		"no binary":               {`{"message_type": "a", "with_file": {"x": 1}}`, big, nil},
		"a lot of data":           {`{"message_type": "a", "with_file": {"x": 1}, "with_binary": true}`, bytes.Repeat([]byte("x"), maxBuffer), big},
		"a header that is no one": {`{]`, nil, big},
	} {
		frame, err := AppendFrame(nil, []byte(f.header), f.data, f.bin)
		if err != nil {
			t.Fatal(err)
		}
		read := func(stream int64) (Frame, error) {
			r := NewReader(bytes.NewReader(frame), 1<<20)
			r.Stream(stream, 1<<30)
			var got Frame
			err := r.Next(&got)
			return got, err
		}
		want, wantErr := read(1 << 30)
		got, err := read(1000)
		if got.Body != nil || !bytes.Equal(got.Raw, want.Raw) || !bytes.Equal(got.Binary, want.Binary) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestAnOpenFrameIsTheBeginningOfAWholeOne(t *testing.T) {
	for _, test := range []struct{ own, file string }{{"", "file"}, {"own", "file"}, {"own", ""}} {
		h := []byte(`{"with_binary": true}`)
		want, err := AppendFrame([]byte("x"), h, []byte("data"), []byte(test.own+test.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := AppendOpenFrame([]byte("x"), h, []byte("data"), []byte(test.own), int64(len(test.file)))
		if err != nil || string(got)+test.file != string(want) {
			t.Errorf("%q and %q: got %q, %v, want %q", test.own, test.file, got, err, want)
		}
	}
	if _, err := AppendOpenFrame(nil, []byte("{}"), nil, nil, 1<<32); !errors.Is(err, ErrTooBig) {
		t.Errorf("4 GiB: got %v", err)
	}
}

func TestAHeadIsTheBeginningOfAWholeFrame(t *testing.T) {
	h := []byte(`{"message_type": "any"}`)
	for _, data := range []string{"", "data"} {
		want, err := AppendFrame([]byte("x"), h, []byte(data), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := AppendHead([]byte("x"), h, len(data))
		if err != nil || string(got)+data != string(want) {
			t.Errorf("%q: got %q, %v, want %q", data, got, err, want)
		}
	}
	if _, err := AppendHead(nil, []byte("{}"), 1<<32-8); !errors.Is(err, ErrTooBig) {
		t.Errorf("4 GiB: got %v", err)
	}
	if _, err := AppendHead(nil, make([]byte, MaxHeader+1), 1); !errors.Is(err, ErrTooBig) {
		t.Errorf("a big header: got %v", err)
	}
}
