package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of a frame in bytes, its length field included.
const (
	// MaxFrame is the default limit. The original's API cuts files into
	// chunks of 200 MiB (max_size_chunk_upload), which must pass.
	MaxFrame = 256 << 20

	// MaxUnidentified is the limit before an end is identified: a hello, a
	// token or a certificate request is far below.
	MaxUnidentified = 64 << 10

	minBuffer = 4 << 10   // what an idle connection costs
	maxBuffer = 256 << 10 // what a busy one reads at once
	shrink    = 8         // a buffer of which less than this part is used gets that part
	patience  = 4         // after so many reads that were so small
)

var (
	// ErrTooBig is wrapped when a frame is longer than the reader's limit.
	ErrTooBig = errors.New("frame too big")
	// ErrFrame is wrapped when the lengths in a frame contradict each other.
	ErrFrame = errors.New("bad frame")
	// ErrMemory is returned when the memory for a big frame was refused.
	ErrMemory = errors.New("no memory for a frame of this size now")
)

// Frame is a view of one frame. All its slices belong to the Reader it came
// from and are valid until the next call of Next that has to read (see Ready);
// Header until the next call of Next.
type Frame struct {
	Raw    []byte // the whole frame, length field included
	Header *Header
	Data   []byte
	Binary []byte // nil without a binary section
	Same   bool   // the header is, to the byte, that of the frame before
	TooBig int64  // length of a frame above the limit, of which only the header is here; see Skip
	Body   *Body  // the binary section, not read yet, and then Raw is nil; see Stream
}

// Reader reads frames from a stream. Many frames are read at once; the buffer
// starts small and grows only as bytes arrive, never because a length says so.
type Reader struct {
	r          io.Reader
	buf        []byte
	start, end int
	little     int // reads in a row that used little of buf
	max        int
	account    func(delta int) bool // asked for memory beyond maxBuffer
	skip       bool                 // frames that are too big are stepped over
	discard    int64                // bytes of such a frame still to come
	stream     int64                // frames with a longer file are not read whole; 0: all are
	streamMax  int64
	body       Body
	pace       pace
	big        bool // the frame that is read is one for pace

	header Header
	last   []byte // the header's bytes, kept outside buf
	parsed bool   // header holds last, parsed without error
}

// NewReader returns a Reader of r which refuses frames longer than max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: r, max: max}
}

// SetMax changes the limit, for what is not read yet.
func (r *Reader) SetMax(max int) { r.max = max }

// Skip makes the reader step over frames above the limit instead of failing:
// Next returns their header, and TooBig.
func (r *Reader) Skip() { r.skip = true }

// Account makes the reader ask for memory beyond its usual buffer, before big
// frames use it: account is called with the number of bytes, and refuses by
// returning false; with a negative number when they are given back.
func (r *Reader) Account(account func(delta int) bool) { r.account = account }

// Release gives back what was asked for, at the end. The reader must not be
// used any more.
func (r *Reader) Release() { _ = r.resize(0) }

// resize makes a buffer of size bytes the reader's, and accounts for it.
func (r *Reader) resize(size int) error {
	if r.account != nil {
		if delta := max(size, maxBuffer) - max(len(r.buf), maxBuffer); delta != 0 && !r.account(delta) {
			return ErrMemory
		}
	}
	old := r.buf[r.start:r.end]
	r.buf = make([]byte, size)
	r.start, r.end = 0, copy(r.buf, old)
	return nil
}

// announced returns the length of the frame at start as its first bytes say,
// or 0 when they are not there yet. It may not fit an int.
func (r *Reader) announced() int64 {
	if r.end-r.start < 4 {
		return 0
	}
	return int64(binary.LittleEndian.Uint32(r.buf[r.start:])) + 4
}

// whole returns the length of the frame at start, or 0 when it is not all
// there yet.
func (r *Reader) whole() (int, error) {
	switch n := r.announced(); {
	case n == 0:
		return 0, nil
	case n > int64(r.max):
		return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooBig, n, r.max)
	case n < 4+2+4:
		return 0, fmt.Errorf("%w: only %d bytes", ErrFrame, n-4)
	case n > int64(r.end-r.start):
		return 0, nil
	default:
		return int(n), nil
	}
}

// Ready reports whether Next can return without reading, so that a caller can
// finish a batch before it waits and before the bytes of earlier frames move.
func (r *Reader) Ready() bool {
	if r.step(); r.discard > 0 {
		return false
	}
	n, err := r.whole()
	if err != nil && r.skip && errors.Is(err, ErrTooBig) {
		return r.headerEnd() > 0
	}
	return n > 0 || err != nil
}

// step drops what is here of a frame that is stepped over.
func (r *Reader) step() {
	k := min(r.discard, int64(r.end-r.start))
	r.start += int(k)
	r.discard -= k
}

// headerEnd returns the length of the frame at start up to the end of its
// header, or 0 when that is not all here.
func (r *Reader) headerEnd() int {
	if r.end-r.start < 6 {
		return 0
	}
	t := 6 + int(binary.LittleEndian.Uint16(r.buf[r.start+4:]))
	if r.end-r.start < t {
		return 0
	}
	return t
}

// Next reads the next frame into f. At the end of the stream between frames it
// returns io.EOF, within one io.ErrUnexpectedEOF. Other errors wrap ErrTooBig,
// ErrFrame, ErrHeader, are ErrMemory or ErrSlow, or are the stream's. After an error the Reader is done.
func (r *Reader) Next(f *Frame) error {
	f.TooBig, f.Body = 0, nil
	for r.step(); r.discard > 0; r.step() {
		if err := r.fill(); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
	}
	r.big = false
	if r.stream > 0 {
		if streamed, err := r.open(f); streamed || err != nil {
			return err
		}
	}
	n, err := r.whole()
	for n == 0 && err == nil {
		if err = r.fill(); err == nil {
			n, err = r.whole()
		}
	}
	if err != nil {
		if r.skip && errors.Is(err, ErrTooBig) {
			return r.stepOver(f)
		}
		return err
	}
	raw := r.buf[r.start : r.start+n] // with the capacity to join it with the next: see Batch
	r.start += n

	t := 6 + int(binary.LittleEndian.Uint16(raw[4:]))
	if t+4 > n {
		return fmt.Errorf("%w: header of %d bytes in a frame of %d", ErrFrame, t-6, n-4)
	}
	if err := r.parse(f, raw[6:t]); err != nil {
		return err
	}
	f.Raw = raw
	return f.sections(raw[t:])
}

// parse makes raw the header of f.
func (r *Reader) parse(f *Frame, raw []byte) error {
	f.Same = r.parsed && bytes.Equal(raw, r.last)
	if !f.Same {
		r.parsed = false
		r.last = append(r.last[:0], raw...)
		if err := r.header.Parse(r.last); err != nil {
			return err
		}
		r.parsed = true
	}
	f.Header = &r.header
	return nil
}

// stepOver reads the header of the frame at start, which is too big, and
// leaves the rest to be dropped.
func (r *Reader) stepOver(f *Frame) error {
	length := r.announced()
	for r.end-r.start < 6 {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if n := int64(binary.LittleEndian.Uint16(r.buf[r.start+4:])); 6+n+4 > length {
		return fmt.Errorf("%w: header of %d bytes in a frame of %d", ErrFrame, n, length-4)
	}
	t := r.headerEnd()
	for ; t == 0; t = r.headerEnd() {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if err := r.parse(f, r.buf[r.start+6:r.start+t]); err != nil {
		return err
	}
	f.Raw, f.Data, f.Binary, f.TooBig = nil, nil, nil, length
	r.start += t
	r.discard = length - int64(t)
	return nil
}

// sections cuts data and binary out of what follows the header. A length that
// is larger than what is left means what is left, as in the original.
func (f *Frame) sections(rest []byte) error {
	f.Data, rest = section(rest)
	f.Binary = nil
	if f.Header.WithBinary {
		if len(rest) < 4 {
			return fmt.Errorf("%w: with_binary without a binary section", ErrFrame)
		}
		f.Binary, _ = section(rest)
	}
	return nil
}

func section(b []byte) (content, rest []byte) {
	n := int64(binary.LittleEndian.Uint32(b)) // may not fit an int
	b = b[4:]
	k := int(min(n, int64(len(b))))
	return b[:k], b[k:]
}

// fill reads once, making room first.
func (r *Reader) fill() error {
	size := len(r.buf)
	switch have := r.end - r.start; {
	case size == 0:
		size = minBuffer
	case have == 0:
		// A buffer that was mostly unused, or that one big frame made,
		// is given back in steps.
		little := r.end < size/shrink && size > minBuffer
		switch {
		case size > maxBuffer:
			size = maxBuffer
		case little && r.little == patience:
			size, r.little = max(size/shrink, minBuffer), 0
		case little:
			r.little++ // a stream that comes in bursts makes a new buffer for each else
		case r.end == size && size < maxBuffer:
			size *= 2
		}
		if !little {
			r.little = 0
		}
		r.start, r.end = 0, 0
	case r.end == size && (size < maxBuffer || r.announced() > int64(size) && r.announced() <= int64(r.max)):
		// Full, and still small or too small for one frame. One above the
		// limit is stepped over: its header fits.
		size = min(2*size, max(int(r.announced()), maxBuffer))
	case r.end == size || r.start > size/2:
		r.start, r.end = 0, copy(r.buf, r.buf[r.start:r.end])
	}
	if size != len(r.buf) {
		if err := r.resize(size); err != nil {
			return err
		}
	}
	n, err := r.read(r.buf[r.end:], r.slow())
	r.end += n
	if n > 0 {
		return nil // an error comes again with the next read
	}
	if err == io.EOF && r.end > r.start {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// Size is the length of the frame that AppendFrame makes, in bytes; bin is 0
// without a binary section.
func Size(header, data, bin int) int {
	n := 4 + 2 + header + 4 + data
	if bin > 0 {
		n += 4 + bin
	}
	return n
}

// AppendFrame appends a frame made of header (JSON text), data and, unless it
// is nil, bin; with a bin the header must say with_binary. One that is empty
// and not nil, as a Reader gives it, makes an empty section. It fails when a
// length does not fit its field.
func AppendFrame(dst, header, data, bin []byte) ([]byte, error) {
	n := Size(len(header), len(data), len(bin))
	if bin != nil && len(bin) == 0 {
		n += 4
	}
	if len(header) > MaxHeader {
		return dst, fmt.Errorf("%w: header of %d bytes, at most %d", ErrTooBig, len(header), MaxHeader)
	}
	if uint64(n) > 1<<32 {
		return dst, tooLong(int64(n))
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n-4))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(header)))
	dst = append(dst, header...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(data)))
	dst = append(dst, data...)
	if bin != nil {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(bin)))
		dst = append(dst, bin...)
	}
	return dst, nil
}

func tooLong(n int64) error { return fmt.Errorf("%w: %d bytes", ErrTooBig, n) }

// Split returns the first frame of b, which holds whole frames, and the rest.
func Split(b []byte) (frame, rest []byte) {
	n := int(binary.LittleEndian.Uint32(b)) + 4
	return b[:n:n], b[n:]
}

// ParseFrame parses the one frame that raw is. Unlike a Reader it allocates a
// Header; f points into raw.
func ParseFrame(raw []byte) (f Frame, err error) {
	r := Reader{buf: raw, end: len(raw), max: len(raw)}
	if n, err := r.whole(); err != nil || n == 0 || n != len(raw) {
		return f, fmt.Errorf("%w: not one whole frame", ErrFrame)
	}
	err = r.Next(&f)
	return f, err
}
