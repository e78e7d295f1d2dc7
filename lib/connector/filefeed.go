package connector

import (
	"context"
	"sync"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// chunkFeed is the chunks of files that a link sends between its messages. They
// are not numbered and not acknowledged as messages are.
type chunkFeed struct {
	mu    sync.Mutex
	ready [][]byte // frames
	out   [][]byte // frames of the last batch, which may be being written
	free  [][]byte
	room  chan struct{} // closed when a ready one was taken
}

const (
	feedAhead = 4 // chunks ready to be written
	feedBatch = 2 // of which so many go into one batch
)

// push adds a chunk for the link l and waits while there are enough.
func (c *chunkFeed) push(ctx context.Context, l *link.Link, edits []wire.Edit, data []byte) error {
	c.mu.Lock()
	for len(c.ready) >= feedAhead {
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-l.Done():
			return errLinkDown
		case <-ctx.Done():
			return ctx.Err()
		}
		c.mu.Lock()
	}
	var buf []byte
	if k := len(c.free); k > 0 {
		buf, c.free = c.free[k-1][:0], c.free[:k-1]
	}
	frame, err := wire.AppendFrame(buf, wire.AppendEdited(nil, []byte("{}"), edits...), data, nil)
	if err == nil {
		c.ready = append(c.ready, frame)
	}
	c.mu.Unlock()
	l.Wake()
	return err
}

// take adds what is ready to b, a little of it: messages come next.
func (c *chunkFeed) take(b *wire.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) > 0 { // written by now
		c.free = append(c.free, c.out...)
		c.out = c.out[:0]
	}
	n := min(len(c.ready), feedBatch)
	if n == 0 {
		return
	}
	for _, frame := range c.ready[:n] {
		b.Add(frame[:len(frame):len(frame)], 0)
	}
	c.out = append(c.out, c.ready[:n]...)
	c.ready = append(c.ready[:0], c.ready[n:]...)
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// idle drops what was not written and lets go of memory.
func (c *chunkFeed) idle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ready, c.free = nil, nil
}

// chunkBuffers lends the memory for chunks.
var chunkBuffers bufferPool

// bufferPool is a pool of buffers of chunkBytes.
type bufferPool struct{ pool sync.Pool }

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[chunkBytes]byte); ok {
		return b[:0]
	}
	return make([]byte, 0, chunkBytes)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) == chunkBytes {
		p.pool.Put((*[chunkBytes]byte)(b[:chunkBytes]))
	}
}
