package queue

import "sync"

// Budget bounds the memory of many queues together. A nil Budget has no bound.
type Budget struct {
	mu    sync.Mutex
	max   int
	used  int
	memo  int  // beside that, for what is remembered of messages that are gone
	tight bool // a take failed since the last give
	room  []func()
}

// NewBudget returns a budget of max bytes.
func NewBudget(max int) *Budget { return &Budget{max: max} }

// Used returns the bytes in use for messages.
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
	if b.used > 0 && b.used+n > b.left() {
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

const (
	// memoPart of a budget may be used to remember messages that are gone, but of
	// a small one as much as memoLeast.
	memoPart  = 8
	memoLeast = 4 << 20
)

// left is what there is for messages. mu is held.
func (b *Budget) left() int { return b.max - min(b.memo, b.max/memoPart) }

// remember reserves n bytes for what is remembered of messages that are gone,
// and reports whether there was room. Messages that wait do not matter for that,
// and nobody waits for it.
func (b *Budget) remember(n int) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.memo+n > max(b.max/memoPart, memoLeast) {
		return false
	}
	b.memo += n
	return true
}

// forget returns n bytes that remember reserved, and what give does.
func (b *Budget) forget(n int) (calls []func()) {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	b.memo -= n
	b.mu.Unlock()
	return b.give(0)
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
	if b.used == 0 || b.used+smallBlock <= b.left() {
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
