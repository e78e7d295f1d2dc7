package connector

import (
	"context"
	"io"
	"sync"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// chunkFeed is the chunks of files that a link sends between its messages. They
// are not numbered and not acknowledged as messages are.
type chunkFeed struct {
	mu    sync.Mutex
	ready []chunkFrame
	out   []chunkFrame  // of the last batch, which may be being written
	free  [][]byte      // memory of those before
	busy  bool          // memory is lent: a file is on its way
	room  chan struct{} // closed when a ready one was taken
	tail  *tail         // a message with a file, to be sent as a whole
	last  *tail         // the one in the last batch
}

// chunkFrame is a frame, and the memory in which it is: nil, or lent.
type chunkFrame struct{ frame, memory []byte }

// chunkRoom is what a frame needs before the bytes of the file.
const chunkRoom = 512

// lend returns memory for a chunk, to be pushed: from chunkRoom on for bytes of a
// file, which so need not be copied.
func (c *chunkFeed) lend() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = true
	if k := len(c.free); k > 0 {
		memory := c.free[k-1]
		c.free = c.free[:k-1]
		return memory
	}
	return make([]byte, chunkRoom+chunkBytes)
}

// frameIn makes a frame of which the data, n bytes, is in memory already.
func frameIn(memory, header []byte, n int) (chunkFrame, error) {
	head, err := wire.AppendHead(nil, header, n)
	from := chunkRoom - len(head)
	if err == nil && from < 0 {
		err = wire.ErrTooBig
	}
	if err != nil {
		return chunkFrame{}, err
	}
	copy(memory[from:], head)
	return chunkFrame{memory[from : chunkRoom+n : chunkRoom+n], memory}, nil
}

// tail is a message whose file is read while it is written.
type tail struct {
	head    []byte // the frame without the file
	r       io.Reader
	n       int64
	written chan struct{} // closed when it was

	mu  sync.Mutex
	bad bool // the file could not be read
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil {
		t.mu.Lock()
		t.bad = true
		t.mu.Unlock()
	}
	return n, err
}

// failed reports whether the file could not be read.
func (t *tail) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad
}

// pushTail makes t the next that is sent.
func (c *chunkFeed) pushTail(t *tail) {
	c.mu.Lock()
	c.tail = t
	c.mu.Unlock()
}

const (
	feedAhead = 4 // chunks ready to be written
	feedBatch = 2 // of which so many go into one batch
)

// push adds a chunk for the link l and waits while there are enough.
func (c *chunkFeed) push(ctx context.Context, l *link.Link, f chunkFrame) error {
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
	first := len(c.ready) == 0
	c.ready = append(c.ready, f)
	c.mu.Unlock()
	if first { // otherwise the link knows
		l.Wake()
	}
	return nil
}

// take adds what is ready to b, a little of it: messages come next.
func (c *chunkFeed) take(b *wire.Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.out { // written by now
		if f.memory != nil && c.busy {
			c.free = append(c.free, f.memory)
		}
	}
	clear(c.out)
	c.out = c.out[:0]
	if c.last != nil {
		close(c.last.written)
		c.last = nil
	}
	if t := c.tail; t != nil {
		c.tail, c.last = nil, t
		b.Add(t.head[:len(t.head):len(t.head)], 0)
		b.Tail, b.TailBytes = t, t.n
		return
	}
	n := min(len(c.ready), feedBatch)
	if n == 0 {
		return
	}
	for _, f := range c.ready[:n] {
		b.Add(f.frame[:len(f.frame):len(f.frame)], 0)
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
	c.ready, c.free, c.tail, c.busy = nil, nil, nil, false
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
