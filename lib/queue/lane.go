package queue

import (
	"slices"
	"sync"

	"aioc/lib/wire"
)

const (
	smallBlock = 4 << 10  // an idle lane's first
	fullBlock  = 64 << 10 // a busy lane's; also the unit of the pool
	overhead   = 32       // bytes that an item costs beside its frame
)

// block holds frames, one after the other. Its bytes never change once put.
type block struct {
	lane *lane
	buf  []byte // length: what is used
	live int    // items not finished
	id   uint32 // its place in Queue.blocks
	page *Page  // whose buf it is, nil: the queue's own
}

// item is one message of a lane. It has no pointers: a queue holds millions,
// which the garbage collector need not look at.
type item struct {
	seq   uint64 // the order of arrival in the queue
	blk   uint32 // place in Queue.blocks
	n     uint32
	num   uint32 // the number in the lane, its low half: see lane.number
	off   uint16 // a block with more than one frame is no longer than fullBlock
	flags uint16
}

const (
	finished = 1 << iota // in a taker's hand, and done
	noted                // Queue.notes has a note for it
	mortal               // its header has expires
	tried                // Queue.tries says how often
	orphan               // in a taker's hand, and not wanted any more: see leave
)

// frame returns the bytes of an item, with the capacity to join it with what
// follows in memory: see wire.Batch.
func (q *Queue) frame(it *item) []byte {
	off := uint32(it.off)
	return q.blocks[it.blk].buf[off : off+it.n]
}

// note returns the note of an item, or nil.
func (q *Queue) note(it *item) *Note {
	if it.flags&noted == 0 {
		return nil
	}
	return q.notes[it.seq]
}

// addBlock gives a block a place in the table.
func (q *Queue) addBlock(b *block) {
	if k := len(q.vacant); k > 0 {
		b.id = q.vacant[k-1]
		q.vacant = q.vacant[:k-1]
		q.blocks[b.id] = b
		return
	}
	b.id = uint32(len(q.blocks))
	q.blocks = append(q.blocks, b)
}

func (q *Queue) dropBlock(b *block) {
	q.blocks[b.id] = nil
	q.vacant = append(q.vacant, b.id)
}

// lane is the part of a queue that one message type has. Guarded by q.mu.
//
// Its messages are, in order: those in takers' hands and in back, those in
// wait, those in disk.fresh, and those that are in the log only.
type lane struct {
	q    *Queue
	name string
	prio int
	id   int // its place in the order in which lanes were made

	back  heap            // given back by takers; before all in wait
	later map[uint64]item // by seq: given back, not to be taken before a timer ends
	wait  ring
	tail  *block // where the next frame goes; nil when there is none with room
	bytes int    // of what is in memory and not finished
	hand  int    // of that, in takers' hands
	freed int    // bytes that were finished since the start
	room  []*waiter
	need  int  // the most bytes that one in room waits for
	asked bool // the budget will call announceRoom

	ages  ages             // of what is in memory alone
	num   uint64           // of the next message
	epoch Epoch            // with num, tells this lane's messages from all others
	marks map[string]*mark // by peer: what was taken from it
	ids   window           // of messages that have an id
	memo  int              // bytes of the budget for marks and ids

	disk *disk // nil: memory is all there is
	twin *lane // of the same type: one has what is published, the other the rest

	hubOf *Topic // of the lane that has its log
}

var smallBlocks, fullBlocks sync.Pool // of *block, empty and of no lane

func newBlock(size int) *block {
	var b any
	switch size {
	case smallBlock:
		b = smallBlocks.Get()
	case fullBlock:
		b = fullBlocks.Get()
	}
	if b != nil {
		return b.(*block)
	}
	return &block{buf: make([]byte, 0, size)}
}

// number returns the whole number of an item, of which it has the low half.
func (l *lane) number(it *item) uint64 {
	return l.num - uint64(uint32(l.num)-it.num)
}

// slot says what the items of a put get.
type slot struct {
	to    *ring
	seq   uint64 // of the next
	num   uint64
	flags uint16
	note  *Note
	page  *Page // of which the frames are a part, if it can be kept
	fill  bool  // from disk: what is in takers' hands does not count
	force bool  // the first may go beyond limit and budget
}

// above reports whether a frame of n bytes goes beyond the limit.
func (l *lane) above(n int, e *slot) bool {
	bytes := l.bytes
	if e.fill {
		bytes -= l.hand
	}
	return bytes > 0 && bytes+n+overhead > l.q.limit && !e.force
}

// put copies frames into memory as far as there is room.
func (l *lane) put(frames []byte, e *slot) (taken int, err error) {
	// A few frames must not keep a whole page.
	if e.page != nil && len(frames) >= len(e.page.frames)/2 && !l.above(len(frames), e) {
		return l.putPage(frames, e)
	}
	for len(frames) > 0 {
		// As many whole frames as go into the tail block, in one copy.
		n, count := 0, 0
		space := 0
		if l.tail != nil {
			space = cap(l.tail.buf) - len(l.tail.buf)
		}
		for rest := frames; len(rest) > 0; count++ {
			var f []byte
			if f, rest = wire.Split(rest); n+len(f) > space {
				break
			}
			if l.above(len(f), e) {
				err = ErrFull
				break
			}
			l.bytes += len(f) + overhead
			l.item(l.tail, len(l.tail.buf)+n, len(f), e)
			n += len(f)
		}
		if count > 0 {
			l.tail.buf = append(l.tail.buf, frames[:n]...)
			l.tail.live += count
			taken += n
			frames = frames[n:]
		}
		if err != nil {
			return taken, err
		}
		if len(frames) > 0 {
			if err := l.grow(frames, e); err != nil {
				return taken, err
			}
		}
	}
	return taken, nil
}

// item adds an item, n bytes at off in a block.
func (l *lane) item(b *block, off, n int, e *slot) {
	it := e.to.push()
	*it = item{seq: e.seq, blk: b.id, off: uint16(off), n: uint32(n), num: uint32(e.num), flags: e.flags}
	if e.note != nil {
		it.flags |= noted
		l.q.notes[e.seq] = e.note
	}
	e.seq++
	e.num++
	e.force = false
}

// grow makes a new tail block in which at least the first of frames has room.
func (l *lane) grow(frames []byte, e *slot) error {
	first, _ := wire.Split(frames)
	if l.above(len(first), e) {
		return ErrFull
	}
	size := fullBlock
	switch {
	case len(first) > fullBlock:
		size = len(first)
	case l.bytes == 0 && len(frames) <= smallBlock:
		size = smallBlock
	}
	if old := l.tail; old != nil && old.live == 0 {
		l.tail = nil
		l.free(old)
	}
	if e.force {
		l.q.budget.force(size)
	} else if !l.q.budget.take(size) {
		return ErrFull
	}
	l.tail = newBlock(size)
	l.tail.lane = l
	l.q.addBlock(l.tail)
	return nil
}

func (l *lane) free(b *block) {
	if b.page != nil {
		l.q.pending = append(l.q.pending, b.page.release()...)
		l.q.dropBlock(b)
		return
	}
	l.q.pending = append(l.q.pending, l.q.budget.give(cap(b.buf))...)
	l.q.dropBlock(b)
	b.lane, b.buf = nil, b.buf[:0]
	switch cap(b.buf) {
	case smallBlock:
		smallBlocks.Put(b)
	case fullBlock:
		fullBlocks.Put(b)
	}
}

// release gives up an item's share of its block.
func (l *lane) release(it *item) {
	if it.flags&tried != 0 {
		delete(l.q.tries, it.seq)
	}
	b := l.q.blocks[it.blk]
	l.bytes -= int(it.n) + overhead
	l.freed += int(it.n) + overhead
	if b.live--; b.live == 0 && b != l.tail {
		l.free(b)
	}
	// The tail stays as long as the lane has something, empty or not.
	if tail := l.tail; tail != nil && l.bytes == 0 {
		l.tail = nil
		l.free(tail)
	}
}

// head returns the sequence number of the first message that can be taken.
func (l *lane) head() (uint64, bool) {
	if len(l.back) > 0 {
		return l.back[0].seq, true
	}
	if l.wait.n > 0 {
		return l.wait.at(0).seq, true
	}
	return 0, false
}

// pop removes the first message if its sequence number is not above bound.
func (l *lane) pop(bound uint64) (it item, ok bool) {
	if len(l.back) > 0 {
		if l.back[0].seq > bound {
			return item{}, false
		}
		return l.back.pop(), true
	}
	if l.wait.n == 0 || l.wait.at(0).seq > bound {
		return item{}, false
	}
	it = *l.wait.at(0)
	l.wait.drop()
	return it, true
}

// giveBack puts an item that a taker had back where it was. It returns how many
// messages wait more, which is none when it is not wanted any more.
func (l *lane) giveBack(it item) (n int) {
	l.hand -= int(it.n) + overhead
	if l.q.closed || it.flags&orphan != 0 {
		l.lose(&it)
		return 0
	}
	l.back.push(it)
	return 1
}

func (l *lane) lose(it *item) {
	l.q.tell(it, ErrClosed)
	l.release(it)
}

// tell calls the Done of an item's note, if it has one, and forgets the note.
func (q *Queue) tell(it *item, err error) {
	if note := q.note(it); note != nil {
		delete(q.notes, it.seq)
		if note.Done != nil {
			q.pending = append(q.pending, func() { note.Done(err) })
		}
	}
}

// discard drops what waits in memory and returns how many of those are not on
// disk; what takers have in hand is lost when they close.
func (l *lane) discard() (n int) {
	l.soon()
	for {
		it, ok := l.pop(never)
		if !ok {
			return n
		}
		if l.disk == nil || l.number(&it) >= l.disk.loose {
			n++
		}
		l.lose(&it)
	}
}

// checkRoom tells those who wait for room when there is some.
func (l *lane) checkRoom() {
	if len(l.room) == 0 || l.asked {
		return
	}
	if d := l.disk; d != nil {
		if !d.full && !d.patient {
			l.callRoom()
			return
		}
		if d.durable || d.tail > 0 {
			return // the disk is tried again soon
		}
	}
	if !l.roomy() {
		return
	}
	if !l.q.budget.onRoom(l.announceRoom) {
		l.asked = true
		return
	}
	l.callRoom()
}

// announceRoom is called by the budget, without a lock held.
func (l *lane) announceRoom() {
	l.q.mu.Lock()
	defer l.q.unlock()
	l.asked = false
	if l.roomy() {
		l.callRoom()
	}
}

// roomy reports whether memory has room.
func (l *lane) roomy() bool {
	return l.bytes == 0 || l.bytes <= l.q.limit/2 && l.bytes+l.need <= l.q.limit
}

func (l *lane) callRoom() {
	for _, w := range l.room {
		l.q.pending = append(l.q.pending, w.f)
	}
	l.room, l.need = nil, 0
}

// waiter is one who waits for room.
type waiter struct {
	f    func()
	need int // bytes
}

// forgetRoom removes one who waited, unless it was called. That may leave room
// enough for the others.
func (l *lane) forgetRoom(w *waiter) {
	i := slices.Index(l.room, w)
	if i < 0 {
		return
	}
	l.room, l.need = slices.Delete(l.room, i, i+1), 0
	for _, other := range l.room {
		l.need = max(l.need, other.need)
	}
	l.checkRoom()
}
