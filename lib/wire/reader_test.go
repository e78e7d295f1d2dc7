package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func mustFrame(t testing.TB, header, data, bin string) []byte {
	t.Helper()
	var section []byte // none for an empty bin
	if bin != "" {
		section = []byte(bin)
	}
	f, err := AppendFrame(nil, []byte(header), []byte(data), section)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// le makes a frame by hand: a number is four bytes, a uint16 two, strings themselves.
func le(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, p)
		case uint16:
			b = binary.LittleEndian.AppendUint16(b, p)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

const flagged = `{"with_binary": true}` // 21 bytes

func TestFramesMadeByHand(t *testing.T) {
	for _, c := range []struct {
		name      string
		raw       []byte
		data, bin string
		hasBin    bool
		err       error
		text      string
	}{
		{name: "the smallest", raw: le(8, uint16(2), "{}", 0)},
		{name: "data", raw: le(10, uint16(2), "{}", 2, "hi"), data: "hi"},
		{name: "trailing bytes", raw: le(15, uint16(2), "{}", 2, "hi", "extra"), data: "hi"},
		{name: "a binary that nothing announces", raw: le(17, uint16(2), "{}", 2, "hi", 3, "bin"), data: "hi"},
		{name: "a binary", raw: le(36, uint16(21), flagged, 2, "hi", 3, "bin"), data: "hi", bin: "bin", hasBin: true},
		{name: "an empty binary", raw: le(33, uint16(21), flagged, 2, "hi", 0), data: "hi", hasBin: true},
		{name: "bytes after a binary", raw: le(38, uint16(21), flagged, 2, "hi", 3, "bin", "xx"), data: "hi", bin: "bin", hasBin: true},
		{name: "more data announced than there is", raw: le(10, uint16(2), "{}", 3, "hi"), data: "hi"},
		{name: "4 GiB of data announced", raw: le(10, uint16(2), "{}", uint32(1<<32-1), "hi"), data: "hi"},
		{name: "2 GiB of data announced", raw: le(10, uint16(2), "{}", uint32(1<<31), "hi"), data: "hi"},
		{name: "more binary announced than there is", raw: le(36, uint16(21), flagged, 2, "hi", uint32(1<<31), "bin"), data: "hi", bin: "bin", hasBin: true},
		{name: "no binary section", raw: le(29, uint16(21), flagged, 2, "hi"), err: ErrFrame, text: "with_binary without a binary section"},
		{name: "a binary section that is cut", raw: le(32, uint16(21), flagged, 2, "hi", "\x03\x00\x00"), err: ErrFrame},
		{name: "data that leaves no binary section", raw: le(36, uint16(21), flagged, 99, "hi", 3, "bin"), err: ErrFrame},
		{name: "length 0", raw: le(0), err: ErrFrame, text: "only 0 bytes"},
		{name: "length 1", raw: le(1, "x"), err: ErrFrame, text: "only 1 bytes"},
		{name: "length 5", raw: le(5, uint16(0), "xyz"), err: ErrFrame, text: "only 5 bytes"},
		{name: "length 4 GiB", raw: le(uint32(1<<32 - 1)), err: ErrTooBig, text: "4294967299 bytes, at most 268435456"},
		{name: "length 2 GiB", raw: le(uint32(1 << 31)), err: ErrTooBig, text: "2147483652 bytes"},
		{name: "an empty header", raw: le(6, uint16(0), 0), err: ErrHeader},
		{name: "a header longer than the frame", raw: le(8, uint16(3), "{}", 0), err: ErrFrame, text: "header of 3 bytes in a frame of 8"},
		{name: "the longest header in a short frame", raw: le(8, uint16(65535), "{}", 0), err: ErrFrame},
		{name: "a header that is not JSON", raw: le(8, uint16(2), "{]", 0), err: ErrHeader},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, parseErr := ParseFrame(c.raw)
			var f Frame
			err := NewReader(bytes.NewReader(c.raw), MaxFrame).Next(&f)
			if !errors.Is(err, c.err) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Fatalf("Next = %v, want %v, %q", err, c.err, c.text)
			}
			if (parseErr == nil) != (err == nil) {
				t.Errorf("ParseFrame = %v, Next = %v", parseErr, err)
			}
			if err != nil {
				return
			}
			for _, f := range []Frame{f, parsed} {
				if string(f.Data) != c.data || string(f.Binary) != c.bin || (f.Binary != nil) != c.hasBin {
					t.Errorf("data %q, binary %q; want %q, %q", f.Data, f.Binary, c.data, c.bin)
				}
				if !bytes.Equal(f.Raw, c.raw) || f.Header == nil {
					t.Errorf("Raw = %x, Header %v; want %x", f.Raw, f.Header, c.raw)
				}
			}
		})
	}
}

func TestParseFrameWantsOneWholeFrame(t *testing.T) {
	raw := mustFrame(t, `{}`, "data", "")
	for i := range raw {
		if _, err := ParseFrame(raw[:i]); !errors.Is(err, ErrFrame) {
			t.Errorf("ParseFrame of %d bytes of %d: %v, want %v", i, len(raw), err, ErrFrame)
		}
	}
	if _, err := ParseFrame(append(raw, 0)); !errors.Is(err, ErrFrame) {
		t.Errorf("ParseFrame with a byte more: %v, want %v", err, ErrFrame)
	}
}

func TestEveryShortPrefixIsAnUnexpectedEnd(t *testing.T) {
	first := mustFrame(t, `{"tag": "a"}`, "first", "")
	stream := append(first[:len(first):len(first)], mustFrame(t, `{"with_binary": true}`, "data", "bin")...)
	for n := range len(stream) {
		for name, in := range map[string]io.Reader{
			"at once":      bytes.NewReader(stream[:n]),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(stream[:n])),
		} {
			r := NewReader(in, MaxFrame)
			var f Frame
			want := io.ErrUnexpectedEOF
			if n >= len(first) {
				if err := r.Next(&f); err != nil {
					t.Fatalf("%d bytes, %s: %v", n, name, err)
				}
			}
			if n == 0 || n == len(first) {
				want = io.EOF
			}
			if err := r.Next(&f); err != want {
				t.Errorf("%d bytes, %s: %v, want %v", n, name, err, want)
			}
		}
	}
}

func TestTheStreamsErrorIsPassedOn(t *testing.T) {
	broken := errors.New("broken")
	raw := mustFrame(t, `{}`, "data", "")
	r := NewReader(io.MultiReader(bytes.NewReader(raw), bytes.NewReader(raw[:5]), iotest.ErrReader(broken)), MaxFrame)
	var f Frame
	if err := r.Next(&f); err != nil {
		t.Fatal(err)
	}
	if err := r.Next(&f); err != broken {
		t.Errorf("Next = %v, want %v", err, broken)
	}
	if err := NewReader(silent{}, MaxFrame).Next(&f); err != io.ErrNoProgress {
		t.Errorf("a stream that gives nothing: %v, want %v", err, io.ErrNoProgress)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestTheLimit(t *testing.T) {
	raw := mustFrame(t, `{}`, "0123456789", "")
	for _, c := range []struct {
		max  int
		want error
	}{{len(raw), nil}, {len(raw) - 1, ErrTooBig}, {0, ErrTooBig}} {
		var f Frame
		if err := NewReader(bytes.NewReader(raw), c.max).Next(&f); !errors.Is(err, c.want) {
			t.Errorf("a frame of %d bytes with the limit %d: %v, want %v", len(raw), c.max, err, c.want)
		}
	}
	// The limit of an end that is not identified yet, then the usual one.
	small, big := mustFrame(t, `{}`, "hello", ""), mustFrame(t, `{}`, strings.Repeat("x", MaxUnidentified), "")
	r := NewReader(bytes.NewReader(append(small, big...)), MaxUnidentified)
	var f Frame
	if err := r.Next(&f); err != nil {
		t.Fatal(err)
	}
	r.SetMax(MaxFrame)
	if err := r.Next(&f); err != nil || len(f.Data) != MaxUnidentified {
		t.Errorf("after SetMax: %v, %d bytes", err, len(f.Data))
	}
}

func TestSameMeansTheHeaderOfTheFrameBefore(t *testing.T) {
	a, b, c := `{"tag": "a"}`, `{"tag": "b"}`, `{"tag": "a" }`
	var stream []byte
	headers := []string{a, a, b, a, a, c, c, a, b, b, b}
	for i, h := range headers {
		stream = append(stream, mustFrame(t, h, fmt.Sprint(i), "")...)
	}
	r := NewReader(iotest.HalfReader(bytes.NewReader(stream)), MaxFrame)
	for i, h := range headers {
		var f Frame
		if err := r.Next(&f); err != nil {
			t.Fatal(err)
		}
		if want := i > 0 && headers[i-1] == h; f.Same != want {
			t.Errorf("frame %d: Same = %v, want %v", i, f.Same, want)
		}
		if string(f.Header.Raw) != h || string(f.Header.Tag) != h[9:10] || string(f.Data) != fmt.Sprint(i) {
			t.Errorf("frame %d: header %s, tag %s, data %s; want %s", i, f.Header.Raw, f.Header.Tag, f.Data, h)
		}
	}
}

func TestABadHeaderIsNotTheSameAsABadHeader(t *testing.T) {
	bad := mustFrame(t, `{"tag": `, "", "")
	r := NewReader(bytes.NewReader(append(bad, bad...)), MaxFrame)
	var f Frame
	for range 2 {
		if err := r.Next(&f); !errors.Is(err, ErrHeader) {
			t.Errorf("Next = %v, want %v", err, ErrHeader)
		}
	}
}

func TestReadyFramesStayInPlace(t *testing.T) {
	var stream []byte
	for i := range 100 {
		stream = append(stream, mustFrame(t, `{}`, fmt.Sprintf("%099d", i), "")...)
	}
	r := NewReader(bytes.NewReader(stream), MaxFrame)
	var batch Batch
	var f Frame
	seen := 0
	for seen < 100 {
		batch.Reset()
		for first := true; first || r.Ready(); first = false {
			if err := r.Next(&f); err != nil {
				t.Fatal(err)
			}
			batch.Add(f.Raw, 1)
		}
		if len(batch.Spans) != 1 {
			t.Errorf("%d frames that lie together are %d spans", batch.Frames, len(batch.Spans))
		}
		want := stream[:batch.Bytes]
		if got := bytes.Join(batch.Spans, nil); !bytes.Equal(got, want) {
			t.Fatalf("frames from %d on have changed", seen)
		}
		stream = stream[batch.Bytes:]
		seen += batch.Frames
	}
	if r.Ready() {
		t.Error("Ready at the end of the stream")
	}
}

func TestReadyReportsWhatNextRefuses(t *testing.T) {
	r := NewReader(bytes.NewReader(append(mustFrame(t, `{}`, "", ""), le(uint32(1<<31))...)), MaxFrame)
	var f Frame
	if r.Ready() {
		t.Error("Ready before anything was read")
	}
	if err := r.Next(&f); err != nil {
		t.Fatal(err)
	}
	if !r.Ready() {
		t.Error("not Ready, but Next need not read to refuse what is next")
	}
	if err := r.Next(&f); !errors.Is(err, ErrTooBig) {
		t.Errorf("Next = %v, want %v", err, ErrTooBig)
	}
}

// stepped gives its parts one by one, and calls between them.
type stepped struct {
	parts   [][]byte
	between func()
}

func (s *stepped) Read(p []byte) (int, error) {
	s.between()
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; len(s.parts[0]) == 0 {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func TestMemoryGrowsAsBytesArrive(t *testing.T) {
	var r *Reader
	announced := le(200<<20, uint16(2), "{}", 200<<20-8)
	arrived, largest := 0, 0
	in := &stepped{parts: [][]byte{announced[:10], make([]byte, 100), make([]byte, 100<<10), make([]byte, 1<<20)}}
	total := 10 + 100 + 100<<10 + 1<<20
	in.between = func() {
		left := 0
		for _, p := range in.parts {
			left += len(p)
		}
		arrived = total - left
		if limit := max(minBuffer, 2*arrived); len(r.buf) > limit {
			t.Errorf("after %d bytes the buffer has %d, want at most %d", arrived, len(r.buf), limit)
		}
		largest = max(largest, len(r.buf))
	}
	r = NewReader(in, MaxFrame)
	var f Frame
	if err := r.Next(&f); err != io.ErrUnexpectedEOF {
		t.Errorf("Next = %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if largest < 1<<20 {
		t.Errorf("the buffer had at most %d bytes for %d that came", largest, arrived)
	}
}

func TestABigFrameFillsItsBufferExactly(t *testing.T) {
	raw := mustFrame(t, `{}`, strings.Repeat("x", 5<<20), "")
	r := NewReader(bytes.NewReader(raw), MaxFrame)
	var f Frame
	if err := r.Next(&f); err != nil || !bytes.Equal(f.Raw, raw) {
		t.Fatalf("Next = %v, %d bytes", err, len(f.Raw))
	}
	if len(r.buf) != len(raw) {
		t.Errorf("the buffer has %d bytes for a frame of %d", len(r.buf), len(raw))
	}
}

func TestABufferShrinksWhenItIsIdle(t *testing.T) {
	small, big := mustFrame(t, `{}`, "hello", ""), mustFrame(t, `{}`, strings.Repeat("x", 3<<20), "")
	parts := [][]byte{big}
	for range 12 {
		parts = append(parts, small)
	}
	in := &stepped{parts: parts, between: func() {}}
	r := NewReader(in, MaxFrame)
	var f Frame
	var sizes []int
	for range parts {
		if err := r.Next(&f); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(r.buf))
	}
	if sizes[0] < len(big) || sizes[1] != maxBuffer || sizes[len(sizes)-1] != minBuffer {
		t.Errorf("the buffer had %v bytes; want %d for the big frame, %d then, %d in the end", sizes, len(big), maxBuffer, minBuffer)
	}
}

func TestFramesOfEverySizePassInAnyPieces(t *testing.T) {
	var stream []byte
	var sizes []int
	for _, n := range []int{0, 1, minBuffer - 13, minBuffer - 12, minBuffer - 11, 100, 3 * minBuffer, maxBuffer - 12, maxBuffer - 11, 7, 600 << 10, 1, 200 << 10, 200 << 10, 200 << 10, 0} {
		sizes = append(sizes, n)
		stream = append(stream, mustFrame(t, `{}`, strings.Repeat("x", n), "")...)
	}
	for _, piece := range []int{1000, 4096, 65536, 100_000, len(stream)} {
		r := NewReader(&pieces{b: stream, n: piece}, MaxFrame)
		var f Frame
		for i, n := range sizes {
			if err := r.Next(&f); err != nil {
				t.Fatalf("pieces of %d: frame %d: %v", piece, i, err)
			}
			if len(f.Data) != n || strings.Trim(string(f.Data), "x") != "" {
				t.Fatalf("pieces of %d: frame %d has %d bytes, want %d", piece, i, len(f.Data), n)
			}
		}
		if err := r.Next(&f); err != io.EOF {
			t.Errorf("pieces of %d: at the end: %v", piece, err)
		}
	}
}

// pieces gives at most n bytes at a time.
type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.b[:min(p.n, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func TestMemoryBeyondTheUsualIsAccountedFor(t *testing.T) {
	raw := mustFrame(t, `{}`, strings.Repeat("x", 3<<20), "")
	small := mustFrame(t, `{}`, "", "")
	used, most := 0, 0
	r := NewReader(&stepped{parts: [][]byte{raw, small, raw}, between: func() {}}, MaxFrame)
	r.Account(func(delta int) bool {
		used += delta
		most = max(most, used)
		return true
	})
	var f Frame
	for i, want := range []int{len(raw) - maxBuffer, 0, len(raw) - maxBuffer} {
		if err := r.Next(&f); err != nil {
			t.Fatal(err)
		}
		if used != want {
			t.Errorf("after frame %d %d bytes are accounted for, want %d", i, used, want)
		}
	}
	r.Release()
	if used != 0 || most > len(raw)-maxBuffer {
		t.Errorf("after Release %d bytes are accounted for, want 0; at most it were %d", used, most)
	}
}

func TestABigFrameWithoutMemoryIsRefused(t *testing.T) {
	raw := mustFrame(t, `{}`, strings.Repeat("x", 3<<20), "")
	used := 0
	r := NewReader(bytes.NewReader(append(mustFrame(t, `{}`, strings.Repeat("x", 100<<10), ""), raw...)), MaxFrame)
	r.Account(func(delta int) bool {
		if used+delta > 1<<20 {
			return false
		}
		used += delta
		return true
	})
	var f Frame
	if err := r.Next(&f); err != nil {
		t.Errorf("a frame that needs no more than usual: %v", err)
	}
	if err := r.Next(&f); !errors.Is(err, ErrMemory) {
		t.Errorf("Next = %v, want %v", err, ErrMemory)
	}
	if r.Release(); used != 0 {
		t.Errorf("after Release %d bytes are accounted for, want 0", used)
	}
}

func TestFramesAreReadWithoutAllocation(t *testing.T) {
	for _, c := range []struct {
		name    string
		size    int
		headers []string
	}{
		{"the same header", 100, []string{`{"message_type": "any", "source_id": "client1"}`}},
		{"other headers", 100, []string{`{"request_id": 1, "tag": "a", "with_file": {"dst_name": "a"}}`, `{"request_id": 22, "tag": "b"}`}},
		{"frames of 64 KiB", 64 << 10, []string{`{}`}},
		{"frames of 200 KiB", 200 << 10, []string{`{}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stream []byte
			for _, h := range c.headers {
				stream = append(stream, mustFrame(t, h, strings.Repeat("x", c.size), "")...)
			}
			r := NewReader(&endless{b: stream}, MaxFrame)
			var f Frame
			next := func() {
				if err := r.Next(&f); err != nil {
					t.Fatal(err)
				}
			}
			for range 1 + 4*maxBuffer/c.size {
				next() // until the buffer has its size
			}
			if n := testing.AllocsPerRun(1000, next); n != 0 {
				t.Errorf("%v allocations per frame", n)
			}
		})
	}
}

func TestAppendFrameKeepsToItsFields(t *testing.T) {
	long := strings.Repeat(" ", MaxHeader-1)
	if _, err := AppendFrame(nil, []byte("{"+long), nil, nil); err != nil {
		t.Errorf("a header of %d bytes: %v", MaxHeader, err)
	}
	dst, err := AppendFrame([]byte("before"), []byte("{}"+long), nil, nil)
	if !errors.Is(err, ErrTooBig) || string(dst) != "before" {
		t.Errorf("a header of %d bytes: %v, %q", MaxHeader+1, err, dst)
	}
}

func TestSplitCutsOffOneFrame(t *testing.T) {
	a, b := mustFrame(t, `{}`, "a", ""), mustFrame(t, `{}`, "bb", "")
	all := append(a[:len(a):len(a)], b...)
	frame, rest := Split(all)
	if !bytes.Equal(frame, a) || !bytes.Equal(rest, b) || cap(frame) != len(frame) {
		t.Errorf("Split = %x (room for %d), %x", frame, cap(frame), rest)
	}
}

func TestABatchJoinsWhatLiesTogether(t *testing.T) {
	memory := []byte("aaabbbcccddd")
	other := []byte("eee")
	var b Batch
	b.Add(memory[0:3], 1)
	b.Add(nil, 5)
	b.Add(memory[3:6], 1)
	b.Add(memory[9:12], 2) // a gap
	b.Add(other, 1)
	b.Add(memory[6:9:9], 1) // before the one above
	b.Add(memory[9:12], 1)  // together, but the span may not reach so far
	got := string(bytes.Join(b.Spans, []byte("|")))
	if want := "aaabbb|ddd|eee|ccc|ddd"; got != want || b.Bytes != 18 || b.Frames != 7 {
		t.Errorf("batch of %q, %d bytes, %d frames; want %q, 18, 7", got, b.Bytes, b.Frames, want)
	}
	spans := b.Spans
	b.Reset()
	if len(b.Spans) != 0 || b.Bytes != 0 || b.Frames != 0 || spans[0] != nil {
		t.Errorf("after Reset: %+v", b)
	}
}
