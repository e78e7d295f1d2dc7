package wire

import "io"

// Batch gathers whole frames for one write. Frames that lie next to each other
// in memory become one span, so that a batch of many small frames costs one
// system call with few buffers. The bytes are not copied: they must stay as
// they are until the write has returned.
type Batch struct {
	Spans  [][]byte
	Bytes  int // in all spans
	Frames int // added with Add

	// Tail, if set, is what follows the spans: the rest of the last frame, of
	// TailBytes bytes. One that ends early breaks the connection.
	Tail      io.Reader
	TailBytes int64
}

// Add appends the frames in b, n of them.
func (b *Batch) Add(frames []byte, n int) {
	if len(frames) == 0 {
		return
	}
	b.Frames += n
	b.Bytes += len(frames)
	if k := len(b.Spans) - 1; k >= 0 {
		last := b.Spans[k]
		// The same array, and starting where the last span ends.
		if cap(last) >= len(last)+len(frames) && &last[:len(last)+1][len(last)] == &frames[0] {
			b.Spans[k] = last[:len(last)+len(frames)]
			return
		}
	}
	b.Spans = append(b.Spans, frames)
}

// Reset empties the batch and lets go of the bytes.
func (b *Batch) Reset() {
	clear(b.Spans)
	*b = Batch{Spans: b.Spans[:0]}
}
