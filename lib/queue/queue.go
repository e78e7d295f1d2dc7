// Package queue is what waits for one destination: a peer, or a message type
// on this host.
//
// A queue has a lane per message type. Whole frames are put in and copied
// once, into blocks; takers take them by priority, then in order of arrival,
// and say when they are done with them. What a taker has not finished when it
// closes goes back to the place it came from.
//
// All methods may be called from any goroutine.
package queue

import (
	"errors"
	"slices"
	"sync"

	"aioc/lib/wire"
)

var (
	// ErrFull means that the lane has no room now; OnRoom tells when it has.
	ErrFull = errors.New("queue full")
	// ErrClosed means that the queue takes nothing any more.
	ErrClosed = errors.New("queue closed")
)

// Note goes with a message whose sender wants to know what became of it, or
// which cannot be passed on byte for byte.
type Note struct {
	// Done is called once, without a lock held: with nil when a taker has
	// finished with the message, with an error when it was discarded.
	Done func(error)
	// WaitForAck: finished means that the far end has acknowledged it, not
	// that it was written.
	WaitForAck bool
}

// Stats are counts of messages and bytes since the queue was made.
type Stats struct {
	Put, PutBytes   uint64
	Done, Returned  uint64
	Waiting, InHand int // now; InHand: taken and not finished
	Bytes           int // now, of both
}

// Queue is described at the package.
type Queue struct {
	limit  int // bytes a lane
	budget *Budget
	prio   map[string]int

	mu      sync.Mutex
	lanes   []*lane // by priority
	byType  map[string]*lane
	seq     uint64
	blocks  []*block
	vacant  []uint32         // places in blocks that are free
	notes   map[uint64]*Note // by sequence number
	idle    []*Taker         // waiting for messages
	takers  int              // not closed
	drained []func()         // to call when nothing is left
	closed  bool
	stats   Stats
	pending []func() // to call when mu is released
}

// New returns a queue whose lanes hold at most limit bytes each and all
// together what budget allows (nil: no bound). priorities gives message types
// their priority, smaller first, 0 when absent; the map is not copied.
func New(limit int, budget *Budget, priorities map[string]int) *Queue {
	return &Queue{limit: limit, budget: budget, prio: priorities, byType: map[string]*lane{}, notes: map[uint64]*Note{}}
}

// unlock releases mu and then calls what was put off until then.
func (q *Queue) unlock() {
	var few [4]func() // on the stack: this is once or more per put and take
	calls := q.pending
	if len(calls) <= len(few) {
		calls = few[:copy(few[:], calls)]
		clear(q.pending)
		q.pending = q.pending[:0]
	} else {
		q.pending = nil
	}
	q.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

func (q *Queue) lane(messageType string) *lane {
	l := q.byType[messageType]
	if l == nil {
		l = &lane{q: q, name: messageType, prio: q.prio[messageType]}
		q.byType[messageType] = l
		i := len(q.lanes)
		for i > 0 && q.lanes[i-1].prio > l.prio {
			i--
		}
		q.lanes = append(q.lanes, nil)
		copy(q.lanes[i+1:], q.lanes[i:])
		q.lanes[i] = l
	}
	return l
}

// Put appends the frames, which are whole, to the lane of the message type. It
// copies them. It returns how many bytes of them, whole frames from the start,
// were taken; less than all with ErrFull or ErrClosed. A frame larger than the
// limit is taken by an empty lane.
func (q *Queue) Put(messageType string, frames []byte) (int, error) {
	return q.put(messageType, frames, nil)
}

// PutNote is Put for one frame that has a note.
func (q *Queue) PutNote(messageType string, frame []byte, note *Note) error {
	_, err := q.put(messageType, frame, note)
	return err
}

func (q *Queue) put(messageType string, frames []byte, note *Note) (int, error) {
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return 0, ErrClosed
	}
	l := q.lane(messageType)
	taken, err := l.put(frames, note)
	if taken > 0 {
		q.wake()
	}
	return taken, err
}

// wake lets all waiting takers know that there is something. All, because one
// that is told may have no room in its own window by now.
func (q *Queue) wake() {
	for _, t := range q.idle {
		t.waiting = false
		q.pending = append(q.pending, t.ready)
	}
	clear(q.idle)
	q.idle = q.idle[:0]
}

// OnRoom calls f once when the lane of the message type is at most half full,
// has room for n bytes and memory is available, or when the queue is closed.
// That may be at once, before OnRoom returns.
func (q *Queue) OnRoom(messageType string, n int, f func()) {
	q.mu.Lock()
	defer q.unlock()
	l := q.lane(messageType)
	l.room = append(l.room, f)
	l.need = max(l.need, n+overhead)
	if q.closed {
		l.callRoom()
		return
	}
	l.checkRoom()
}

// OnEmpty calls f once when no message waits or is in hand, or the queue is
// closed. That may be at once, before OnEmpty returns.
func (q *Queue) OnEmpty(f func()) {
	q.mu.Lock()
	defer q.unlock()
	q.drained = append(q.drained, f)
	q.checkEmpty()
}

func (q *Queue) checkEmpty() {
	if len(q.drained) > 0 && (q.closed || q.stats.Waiting+q.stats.InHand == 0) {
		q.pending = append(q.pending, q.drained...)
		q.drained = nil
	}
}

// Len returns the number of messages that are not finished.
func (q *Queue) Len() int {
	s := q.Stats()
	return s.Waiting + s.InHand
}

// Stats returns a snapshot.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	for _, l := range q.lanes {
		s.Bytes += l.bytes
	}
	return s
}

// Close refuses further puts and discards what waits; it returns how many
// messages that were. What takers have in hand is discarded when they give it
// back. Notes of what is discarded are told ErrClosed. Takers get nothing more.
func (q *Queue) Close() (discarded int) {
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return 0
	}
	return q.shut()
}

// shut closes the queue.
func (q *Queue) shut() (discarded int) {
	q.closed = true
	for _, l := range q.lanes {
		discarded += l.discard()
		l.callRoom()
	}
	q.stats.Waiting = 0
	q.wake()
	q.checkEmpty()
	return discarded
}

// CloseIfEmpty closes the queue if nothing waits or is in hand, and reports
// whether it did.
func (q *Queue) CloseIfEmpty() bool {
	q.mu.Lock()
	defer q.unlock()
	if q.closed || q.stats.Waiting+q.stats.InHand > 0 {
		return false
	}
	q.shut()
	return true
}

// next returns the lane to take from and the sequence number up to which it
// may be taken from before another lane's turn.
func (q *Queue) next(t *Taker) (best *lane, bound uint64) {
	bound = ^uint64(0)
	var first uint64
	for _, l := range q.lanes {
		if best != nil && l.prio > best.prio {
			break
		}
		seq, ok := l.head()
		if !ok || t.parked[l] {
			continue
		}
		switch {
		case best == nil || seq < first:
			if best != nil {
				bound = first
			}
			best, first = l, seq
		case seq < bound:
			bound = seq
		}
	}
	return best, bound
}

// A Taker takes from a queue on behalf of one link. The frames it has taken
// are numbered from 1.
type Taker struct {
	q     *Queue
	ready func()
	edit  func(n uint64, note *Note, frame []byte) []byte

	// Guarded by q.mu.
	hand    ring   // taken, not finished
	left    int    // not finished, of those in hand
	base    uint64 // number of the first in hand
	swept   uint64 // below this number only frames that wait to be acknowledged are not finished
	parked  map[*lane]bool
	waiting bool // in q.idle
	closed  bool
}

// Taker returns a new taker. ready is called, without a lock held, when a Take
// that found nothing is worth repeating. edit, which may be nil, is called for
// each frame that has a note, with a lock held, and returns what to pass on
// instead: its bytes must not change later.
func (q *Queue) Taker(ready func(), edit func(n uint64, note *Note, frame []byte) []byte) *Taker {
	q.mu.Lock()
	q.takers++
	q.mu.Unlock()
	return &Taker{q: q, ready: ready, edit: edit, base: 1}
}

// Takers returns how many takers are not closed.
func (q *Queue) Takers() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takers
}

// Take adds up to count frames to b, until b holds max bytes (one frame may go
// beyond), and returns how many. After it returned 0, ready will be called.
// The bytes stay in place until they are finished.
func (t *Taker) Take(b *wire.Batch, max, count int) int {
	q := t.q
	q.mu.Lock()
	defer q.unlock()
	if t.closed || q.closed {
		return 0
	}
	n := 0
	for n < count && b.Bytes < max {
		l, bound := q.next(t)
		if l == nil {
			break
		}
		n += t.run(l, bound, b, max, count-n)
	}
	q.stats.Waiting -= n
	q.stats.InHand += n
	if n == 0 && !t.waiting {
		t.waiting = true
		q.idle = append(q.idle, t)
	}
	return n
}

// run takes from one lane up to the message with sequence number bound.
func (t *Taker) run(l *lane, bound uint64, b *wire.Batch, max, count int) (n int) {
	for n < count && b.Bytes < max {
		it, ok := l.pop(bound)
		if !ok {
			break
		}
		frame := t.q.frame(&it)
		if it.flags != 0 && t.edit != nil {
			frame = t.edit(t.base+uint64(t.hand.n), t.q.note(&it), frame)
		}
		b.Add(frame, 1)
		*t.hand.push() = it
		n++
	}
	t.left += n
	return n
}

// Done finishes the frames numbered up to upTo, those with a note that waits for
// the far end's acknowledgement only if acked is set, and returns how many
// were not finished before.
func (t *Taker) Done(upTo uint64, acked bool) (n int) {
	t.q.mu.Lock()
	defer t.q.unlock()
	i := 0
	if !acked && t.swept > t.base {
		i = int(t.swept - t.base)
	}
	for ; i < t.hand.n && t.base+uint64(i) <= upTo; i++ {
		it := t.hand.at(i)
		if it.flags == 0 || it.flags == noted && (acked || !t.q.note(it).WaitForAck) {
			t.finish(it, nil)
			n++
		}
	}
	t.swept = max(t.swept, t.base+uint64(i))
	t.pop()
	return n
}

// DoneOne finishes frame number n alone, with an error if it failed for good,
// and reports whether it was in hand.
func (t *Taker) DoneOne(n uint64, err error) bool {
	t.q.mu.Lock()
	defer t.q.unlock()
	it := t.numbered(n)
	if it == nil {
		return false
	}
	t.finish(it, err)
	t.pop()
	return true
}

// Return puts frame number n back where it came from and reports its message
// type, "" when it was not in hand. With park set no frame of its lane is taken
// until Resume.
func (t *Taker) Return(n uint64, park bool) (messageType string) {
	q := t.q
	q.mu.Lock()
	defer q.unlock()
	it := t.numbered(n)
	if it == nil {
		return ""
	}
	l := q.blocks[it.blk].lane
	if park {
		if t.parked == nil {
			t.parked = map[*lane]bool{}
		}
		t.parked[l] = true
	}
	l.giveBack(*it)
	it.flags = finished
	t.left--
	q.returned(1)
	t.pop()
	return l.name
}

// Resume ends the parking of a message type's lane.
func (t *Taker) Resume(messageType string) {
	t.q.mu.Lock()
	defer t.q.unlock()
	if l := t.q.byType[messageType]; l != nil {
		delete(t.parked, l)
		t.q.pending = append(t.q.pending, t.ready)
	}
}

// Numbered returns the number of the frame taken last, 0 before the first.
func (t *Taker) Numbered() uint64 {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.base + uint64(t.hand.n) - 1
}

// Watch makes ready be called with the next put, without taking anything.
func (t *Taker) Watch() {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	if !t.waiting && !t.closed {
		t.waiting = true
		t.q.idle = append(t.q.idle, t)
	}
}

// InHand returns how many frames are taken and not finished.
func (t *Taker) InHand() int {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return t.left
}

// Close gives back what is not finished, in order. Nobody may still read bytes
// that Take added. It may be called twice.
func (t *Taker) Close() {
	q := t.q
	q.mu.Lock()
	defer q.unlock()
	if t.closed {
		return
	}
	t.closed = true
	q.takers--
	if i := slices.Index(q.idle, t); i >= 0 {
		q.idle = slices.Delete(q.idle, i, i+1)
	}
	for i := 0; i < t.hand.n; i++ {
		if it := t.hand.at(i); it.flags&finished == 0 {
			q.blocks[it.blk].lane.giveBack(*it)
		}
	}
	n := t.left
	t.hand, t.left = ring{}, 0
	q.returned(n)
}

// returned accounts for n frames given back and lets another taker have them.
func (q *Queue) returned(n int) {
	q.stats.InHand -= n
	if n > 0 && !q.closed {
		q.stats.Waiting += n
		q.stats.Returned += uint64(n)
		q.wake()
	}
}

func (t *Taker) numbered(n uint64) *item {
	if n < t.base || n >= t.base+uint64(t.hand.n) {
		return nil
	}
	if it := t.hand.at(int(n - t.base)); it.flags&finished == 0 {
		return it
	}
	return nil
}

func (t *Taker) finish(it *item, err error) {
	q := t.q
	q.tell(it, err)
	l := q.blocks[it.blk].lane
	l.release(it)
	it.flags = finished
	t.left--
	q.stats.InHand--
	q.stats.Done++
	q.checkEmpty()
	if len(l.room) > 0 {
		l.checkRoom()
	}
}

// pop forgets finished frames at the front.
func (t *Taker) pop() {
	for t.hand.n > 0 && t.hand.at(0).flags&finished != 0 {
		t.hand.drop()
		t.base++
	}
}
