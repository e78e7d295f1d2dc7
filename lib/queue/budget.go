package queue

import "sync"

// Budget bounds the memory of many queues together. A nil Budget has no bound.
type Budget struct {
	mu    sync.Mutex
	max   int
	used  int
	tight bool // a take failed since the last give
	room  []func()
}

// NewBudget returns a budget of max bytes.
func NewBudget(max int) *Budget { return &Budget{max: max} }

// Used returns the bytes in use.
func (b *Budget) Used() int {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Take reserves n bytes for something else than a queue, such as a big message
// on its way in, and reports whether there was room. Give returns them.
func (b *Budget) Take(n int) bool { return b.take(n) }

// Give returns n bytes that Take reserved. No lock of a queue may be held.
func (b *Budget) Give(n int) {
	for _, f := range b.give(n) {
		f()
	}
}

// take reserves n bytes. A reservation above max succeeds when nothing else is
// in use, so that one big message can pass.
func (b *Budget) take(n int) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used > 0 && b.used+n > b.max {
		b.tight = true
		return false
	}
	b.used += n
	return true
}

// force reserves n bytes, whether or not there is room.
func (b *Budget) force(n int) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += n
}

// give returns n bytes, and what its caller must call when it holds no lock:
// those who wait for room, as soon as there is any. One whose queue another
// fills for good must not wait for that one.
func (b *Budget) give(n int) (calls []func()) {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.used == 0 || b.used+smallBlock <= b.max {
		b.tight = false
		calls, b.room = b.room, nil
	}
	return calls
}

// onRoom reports whether there is room; if not, f is among what a later give
// returns.
func (b *Budget) onRoom(f func()) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.tight {
		return true
	}
	b.room = append(b.room, f)
	return false
}
