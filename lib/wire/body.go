package wire

import (
	"encoding/binary"
	"io"
)

// Body is the binary section of a frame that is read piece by piece. It is the
// Reader's, and valid until the next call of Next, which steps over what was not
// read.
type Body struct {
	r    *Reader
	left int64
	err  error
}

// Stream makes the reader give out frames that carry a file and are longer than
// min bytes before their binary section has been read: see Frame.Body. For these
// the limit is max instead of the reader's, but for all that comes before the
// file.
func (r *Reader) Stream(min, max int64) { r.stream, r.streamMax = min, max }

// open reads the next frame up to its binary section, if it is one for which
// Stream was called, and makes f that. Otherwise it leaves the frame as it is.
func (r *Reader) open(f *Frame) (bool, error) {
	need := 6
	for {
		// What was not read is whole or not: the usual way finds out.
		if n := r.announced(); n > 0 && (n <= r.stream || n > r.streamMax) {
			return false, nil
		}
		if have := r.end - r.start; have < need {
			if err := r.fill(); err != nil {
				return false, err
			}
			continue
		}
		b := r.buf[r.start:r.end]
		n := r.announced()
		t := 6 + int64(binary.LittleEndian.Uint16(b[4:]))
		if t+4 > n {
			return false, nil
		}
		if need = int(t) + 4; len(b) < need {
			continue
		}
		d := t + 4 + int64(binary.LittleEndian.Uint32(b[t:]))
		if d+4 > n || d+4 > maxBuffer {
			return false, nil
		}
		if need = int(d) + 4; len(b) < need {
			continue
		}
		if r.parse(f, b[6:t]) != nil || f.Header.WithFile == nil || !f.Header.WithBinary {
			r.parsed = false // it is parsed again, and not the same as itself
			return false, nil
		}
		f.Raw, f.Data, f.Binary = nil, b[t+4:d], nil
		r.start += int(d) + 4
		r.discard = n - d - 4
		r.body = Body{r: r, left: min(int64(binary.LittleEndian.Uint32(b[d:])), r.discard)}
		f.Body = &r.body
		r.begin(0)
		return true, nil
	}
}

// Len is how many bytes are not read yet.
func (b *Body) Len() int64 { return b.left }

// Err is the error of the stream that ended the reading before the end, or nil.
func (b *Body) Err() error { return b.err }

// Read reads from the section.
func (b *Body) Read(p []byte) (n int, err error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.left == 0:
		return 0, io.EOF
	}
	r := b.r
	p = p[:min(int64(len(p)), b.left)]
	if r.start < r.end {
		n = copy(p, r.buf[r.start:r.end])
		r.start += n
	} else if n, err = r.read(p, true); err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	b.left -= int64(n)
	r.discard -= int64(n)
	if n > 0 {
		err = nil // it comes again
	}
	b.err = err
	return n, err
}

// AppendOpenFrame is AppendFrame for a frame of whose binary section the last
// more bytes follow in the stream.
func AppendOpenFrame(dst, header, data, bin []byte, more int64) ([]byte, error) {
	if bin == nil {
		bin = []byte{}
	}
	if total := int64(Size(len(header), len(data), 0)) + 4 + int64(len(bin)) + more; total > 1<<32 {
		return dst, tooLong(total)
	}
	from := len(dst)
	dst, err := AppendFrame(dst, header, data, bin)
	if err != nil {
		return dst, err
	}
	for _, at := range []int{from, len(dst) - len(bin) - 4} {
		field := dst[at:]
		binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)+uint32(more))
	}
	return dst, nil
}

// AppendHead is AppendFrame for a frame without a binary section whose data, of n
// bytes, follows in the stream.
func AppendHead(dst, header []byte, n int) ([]byte, error) {
	if total := int64(Size(len(header), 0, 0)) + int64(n); total > 1<<32 {
		return dst, tooLong(total)
	}
	from := len(dst)
	dst, err := AppendFrame(dst, header, nil, nil)
	if err != nil {
		return dst, err
	}
	for _, at := range []int{from, len(dst) - 4} {
		field := dst[at:]
		binary.LittleEndian.PutUint32(field, binary.LittleEndian.Uint32(field)+uint32(n))
	}
	return dst, nil
}
