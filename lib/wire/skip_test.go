package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// skipping returns a Reader that steps over frames above max bytes.
func skipping(in io.Reader, max int) *Reader {
	r := NewReader(in, max)
	r.Skip()
	return r
}

func TestAFrameAboveTheLimitIsSteppedOver(t *testing.T) {
	const limit = 100
	sizes := []int{10, limit, 5000, 70, 40, 300_000, limit, limit, 10, 101, 10}
	var stream []byte
	for i, n := range sizes {
		header := fmt.Sprintf(`{"tag": "%d"}`, i)
		stream = append(stream, mustFrame(t, header, strings.Repeat("x", n), "")...)
	}
	for name, in := range map[string]io.Reader{
		"at once":      bytes.NewReader(stream),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"in halves":    iotest.HalfReader(bytes.NewReader(stream)),
		"end with it":  iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			r := skipping(in, limit)
			var f Frame
			for i, n := range sizes {
				if err := r.Next(&f); err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if string(f.Header.Tag) != fmt.Sprint(i) {
					t.Fatalf("got the header %s for frame %d", f.Header.Raw, i)
				}
				whole := Size(len(f.Header.Raw), n, 0)
				switch {
				case whole <= limit:
					if f.TooBig != 0 || len(f.Data) != n || len(f.Raw) != whole {
						t.Errorf("frame %d: TooBig %d, %d bytes of data, want %d", i, f.TooBig, len(f.Data), n)
					}
				case f.TooBig != int64(whole) || f.Raw != nil || f.Data != nil || f.Binary != nil:
					t.Errorf("frame %d: TooBig %d, %d bytes of it, want %d and none", i, f.TooBig, len(f.Raw), whole)
				}
			}
			if err := r.Next(&f); err != io.EOF {
				t.Errorf("at the end: %v, want %v", err, io.EOF)
			}
		})
	}
}

// The buffer has its usual size and may end anywhere in a frame that is too
// big: no memory is asked for on its behalf.
func TestABigFrameAtTheEndOfTheBufferNeedsNoMemory(t *testing.T) {
	const limit = maxBuffer
	big := mustFrame(t, `{"tag": "big"}`, strings.Repeat("x", 2*limit), "")
	last := mustFrame(t, `{"tag": "last"}`, "", "")
	for left := 1; left <= 24; left++ {
		// The reader has grown to its usual buffer, and then reads a full one
		// that has left bytes of the big frame at its end.
		grow := mustFrame(t, `{}`, strings.Repeat("x", maxBuffer-100), "")
		pad := mustFrame(t, `{}`, strings.Repeat("x", maxBuffer-left-Size(2, 0, 0)), "")
		in := &stepped{parts: [][]byte{grow, append(pad, big[:left]...), big[left : left+1], append(big[left+1:], last...)}, between: func() {}}
		r := skipping(in, limit)
		r.Account(func(delta int) bool {
			t.Errorf("%d bytes left: %d bytes of memory are asked for", left, delta)
			return false
		})
		var f Frame
		for i, want := range []string{"", "", "big", "last"} {
			if err := r.Next(&f); err != nil {
				t.Fatalf("%d bytes left, frame %d: %v", left, i, err)
			}
			if string(f.Header.Tag) != want {
				t.Errorf("%d bytes left, frame %d: got %s, want %q", left, i, f.Header.Raw, want)
			}
		}
	}
}

func TestABigFrameIsReadyWithItsHeader(t *testing.T) {
	const limit = 50
	small := mustFrame(t, `{}`, "", "")
	header := `{"tag": "big"}`
	big := mustFrame(t, header, strings.Repeat("x", 200), "")
	stream := bytes.Join([][]byte{small, big, small}, nil)
	for n := range len(stream) - len(small) + 1 {
		r := skipping(bytes.NewReader(stream[:len(small)+n]), limit)
		var f Frame
		if err := r.Next(&f); err != nil { // reads all there is
			t.Fatal(err)
		}
		if got, want := r.Ready(), n >= 6+len(header); got != want {
			t.Errorf("with %d bytes of it: Ready = %v, want %v", n, got, want)
			continue
		}
		if !r.Ready() {
			continue
		}
		if err := r.Next(&f); err != nil || f.TooBig != int64(len(big)) {
			t.Fatalf("with %d bytes of it: %v, TooBig %d", n, err, f.TooBig)
		}
		if got, want := r.Ready(), n >= len(big)+len(small); got != want {
			t.Errorf("after it, with %d bytes: Ready = %v, want %v", n, got, want)
		}
	}
}

func TestTheEndOfTheStreamInABigFrameIsUnexpected(t *testing.T) {
	const limit = 50
	big := mustFrame(t, `{"tag": "big"}`, strings.Repeat("x", 200), "")
	for n := 1; n < len(big); n++ {
		for name, in := range map[string]io.Reader{
			"at once":      bytes.NewReader(big[:n]),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(big[:n])),
		} {
			r := skipping(in, limit)
			var f Frame
			err := r.Next(&f)
			if n >= 6+len(`{"tag": "big"}`) {
				if err != nil || f.TooBig != int64(len(big)) {
					t.Fatalf("%d bytes, %s: %v, TooBig %d", n, name, err, f.TooBig)
				}
				err = r.Next(&f)
			}
			if err != io.ErrUnexpectedEOF {
				t.Errorf("%d bytes, %s: %v, want %v", n, name, err, io.ErrUnexpectedEOF)
			}
		}
	}
	broken := errors.New("broken")
	r := skipping(io.MultiReader(bytes.NewReader(big[:100]), iotest.ErrReader(broken)), limit)
	var f Frame
	if err := r.Next(&f); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(&f); err != broken {
		t.Errorf("Next = %v, want %v", err, broken)
	}
}

// full gives bytes without end, whatever they are.
type full struct{}

func (full) Read(p []byte) (int, error) { return len(p), nil }

func TestFourGigabytesAreSteppedOverInAUsualBuffer(t *testing.T) {
	const length = 1<<32 - 1
	start := le(uint32(length), uint16(2), "{}")
	rest := io.LimitReader(full{}, length+4-int64(len(start)))
	r := skipping(io.MultiReader(bytes.NewReader(start), rest, bytes.NewReader(mustFrame(t, `{"tag": "last"}`, "", ""))), MaxFrame)
	r.Account(func(delta int) bool {
		t.Errorf("%d bytes of memory are asked for", delta)
		return false
	})
	var f Frame
	if err := r.Next(&f); err != nil || f.TooBig != length+4 {
		t.Fatalf("Next = %v, TooBig %d, want %d", err, f.TooBig, int64(length+4))
	}
	if err := r.Next(&f); err != nil || string(f.Header.Tag) != "last" || f.TooBig != 0 {
		t.Errorf("then Next = %v, %v", err, f.Header)
	}
	if len(r.buf) > maxBuffer {
		t.Errorf("the buffer has %d bytes, want at most %d", len(r.buf), maxBuffer)
	}
}

func TestABigFrameThatIsNoneIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  []byte
		err  error
		text string
	}{
		{"a header that is not JSON", le(300, uint16(2), "{]"), ErrHeader, ""},
		{"a header longer than the frame", append(le(300, uint16(299)), `{"tag": "`+strings.Repeat("x", 288)+`"}`+"more"...), ErrFrame, "header of 299 bytes in a frame of 300"},
		{"the longest header, of which little is here", le(300, uint16(65535), "{"), ErrFrame, "header of 65535 bytes in a frame of 300"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var f Frame
			r := skipping(bytes.NewReader(c.raw), 50)
			if err := r.Next(&f); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("Next = %v, want %v, %q", err, c.err, c.text)
			}
		})
	}
}

func TestAnEmptyBinaryStaysWhenTheHeaderChanges(t *testing.T) {
	for _, c := range []struct {
		name string
		bin  []byte
		want []byte
	}{
		{"none", nil, le(8, uint16(2), "{}", 0)},
		{"an empty one", []byte{}, le(12, uint16(2), "{}", 0, 0)},
		{"a byte", []byte{7}, le(13, uint16(2), "{}", 0, 1, "\x07")},
	} {
		got, err := AppendFrame(nil, []byte("{}"), nil, c.bin)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, %v; want %x", c.name, got, err, c.want)
		}
	}
	f, err := ParseFrame(le(33, uint16(21), flagged, 2, "hi", 0))
	if err != nil {
		t.Fatal(err)
	}
	again, err := AppendFrame(nil, AppendEdited(nil, f.Header.Raw, Edit{"tag", []byte(`"x"`)}), f.Data, f.Binary)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = ParseFrame(again); err != nil || f.Binary == nil || string(f.Header.Tag) != "x" {
		t.Errorf("written again: %v, binary %v", err, f.Binary)
	}
}
