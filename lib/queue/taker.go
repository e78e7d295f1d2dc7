package queue

import (
	"slices"
	"time"

	"aioc/lib/wire"
)

// A Taker takes from a queue on behalf of one link. The frames it has taken
// are numbered from 1.
type Taker struct {
	q     *Queue
	ready func()
	edit  func(n uint64, asked bool, frame []byte) []byte

	watcher bool

	// Of takers for a peer: see Strict and Announce.
	strict   bool
	announce func(messageType string, epoch Epoch, seq uint64) []byte

	// Guarded by q.mu.
	hand    ring   // taken, not finished
	left    int    // not finished, of those in hand
	base    uint64 // number of the first in hand
	swept   uint64 // below this number only frames that wait to be acknowledged are not finished
	parked  map[*lane]bool
	next    []uint64 // by lane: the number that the far end expects; 0: none
	waiting bool     // in q.idle
	closed  bool
}

// Taker returns a new taker. ready is called, without a lock held, when a Take
// that found nothing is worth repeating. edit, which may be nil, is called for
// frames that cannot be passed on byte for byte to every end, those that have a
// note, expire, or have to be acknowledged (asked), with a lock held, and
// returns what to pass on instead: its bytes must not change later.
func (q *Queue) Taker(ready func(), edit func(n uint64, asked bool, frame []byte) []byte) *Taker {
	t := &Taker{q: q, ready: ready, edit: edit, base: 1}
	q.mu.Lock()
	defer q.unlock()
	q.takers++
	q.open[t] = true
	if q.tails > 0 {
		for _, l := range q.lanes {
			l.checkFill()
		}
	}
	return t
}

// Watcher returns a taker that takes nothing and whose ready is called with the
// next put after Watch. Takers does not count it, and nothing is read from the
// disk for it.
func (q *Queue) Watcher(ready func()) *Taker {
	return &Taker{q: q, ready: ready, base: 1, watcher: true}
}

// Strict makes frames of durable types be finished only by an acknowledgement,
// and be given to edit. It is called before Take.
func (t *Taker) Strict() { t.strict = true }

// Announce makes Take add a frame of its own, which is not counted, before each
// frame whose number in its lane is not the one after that of the lane's frame
// before: announce makes it, or returns nil when that is not wanted now. It is
// called with a lock held. Announce is called before Take.
func (t *Taker) Announce(announce func(messageType string, epoch Epoch, seq uint64) []byte) {
	t.announce = announce
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
		if q.tails > 0 {
			l.checkFill()
		}
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
	var next uint64
	if t.announce != nil {
		for len(t.next) <= l.id {
			t.next = append(t.next, 0)
		}
		next = t.next[l.id]
	}
	strict := t.strict && l.disk != nil && l.disk.durable
	for n < count && b.Bytes < max {
		it, ok := l.pop(bound)
		if !ok {
			break
		}
		if it.flags&mortal != 0 && t.q.expired(l, &it) {
			continue
		}
		if t.announce != nil {
			if uint32(next) != it.num || next == 0 {
				next = l.number(&it)
				own := t.announce(l.name, l.epoch, next)
				if b.Add(own, 0); own == nil {
					next = never // 0 after this one
				}
			}
			next++
		}
		frame := t.q.frame(&it)
		if (it.flags != 0 || strict) && t.edit != nil {
			note := t.q.note(&it)
			frame = t.edit(t.base+uint64(t.hand.n), strict || note != nil && note.WaitForAck, frame)
		}
		if it.flags&tried != 0 {
			frame = withTries(frame, t.q.tries[it.seq])
		}
		b.Add(frame, 1)
		*t.hand.push() = it
		l.hand += int(it.n) + overhead
		n++
	}
	if t.announce != nil {
		t.next[l.id] = next
		if l.twin != nil && l.twin.id < len(t.next) {
			t.next[l.twin.id] = 0 // the far end counts by type
		}
	}
	t.left += n
	return n
}

// expired drops a message that was taken out of its lane if its time is over.
func (q *Queue) expired(l *lane, it *item) bool {
	f, err := wire.ParseFrame(q.frame(it))
	if err != nil {
		return false
	}
	if at, ok := f.Header.ExpiresAt(); !ok || time.Now().Before(at) {
		return false
	}
	q.tell(it, ErrExpired)
	q.stats.Waiting--
	q.stats.Expired++
	l.end(it)
	if gone := q.gone; gone != nil {
		name := l.name
		q.pending = append(q.pending, func() { gone(name, 1) })
	}
	return true
}

// end gives up what a message takes, in memory and on disk.
func (l *lane) end(it *item) {
	if d := l.disk; d != nil && d.log != nil {
		if num := l.number(it); num < d.loose {
			l.acked(num)
		}
	}
	l.release(it)
	l.q.checkEmpty()
	if len(l.room) > 0 {
		l.checkRoom()
	}
	if l.q.tails > 0 {
		l.checkFill()
	}
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
		if it.flags&finished != 0 || !acked && t.unsure(it) {
			continue
		}
		t.finish(it, nil)
		n++
	}
	t.swept = max(t.swept, t.base+uint64(i))
	t.pop()
	return n
}

// unsure reports whether it is not enough for an item to be written.
func (t *Taker) unsure(it *item) bool {
	if it.flags&noted != 0 && t.q.note(it).WaitForAck {
		return true
	}
	if !t.strict {
		return false
	}
	d := t.q.blocks[it.blk].lane.disk
	return d != nil && d.durable
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
		if l.id < len(t.next) {
			// The far end counts none of what it refuses from here on, and what
			// was refused may expire: the next one says its number.
			t.next[l.id] = 0
		}
	}
	wait := l.giveBack(*it)
	it.flags = finished
	t.left--
	q.returned(1, wait)
	t.pop()
	return l.name
}

// Resume ends the parking of a message type's lane.
func (t *Taker) Resume(messageType string) {
	t.q.mu.Lock()
	defer t.q.unlock()
	known := false
	for _, l := range []*lane{t.q.byType[messageType], t.q.topics[messageType]} {
		if l != nil {
			delete(t.parked, l)
			known = true
		}
	}
	if known {
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
	if !t.watcher {
		q.takers--
		delete(q.open, t)
	}
	if i := slices.Index(q.idle, t); i >= 0 {
		q.idle = slices.Delete(q.idle, i, i+1)
	}
	back := 0
	for i := 0; i < t.hand.n; i++ {
		if it := t.hand.at(i); it.flags&finished == 0 {
			back += q.blocks[it.blk].lane.giveBack(*it)
		}
	}
	n := t.left
	t.hand, t.left = ring{}, 0
	q.returned(n, back)
	if q.takers == 0 && q.store != nil && !q.closed {
		for _, l := range q.lanes {
			if l.disk.durable {
				l.unload()
			}
		}
	}
}

// returned accounts for n frames given back, of which some wait again, and lets
// another taker have them.
func (q *Queue) returned(n, wait int) {
	q.stats.InHand -= n
	if n > 0 && !q.closed {
		q.stats.Waiting += wait
		q.stats.Returned += uint64(n)
		q.wake()
		q.checkEmpty()
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
	l.hand -= int(it.n) + overhead
	t.left--
	q.stats.InHand--
	q.stats.Done++
	l.end(it)
	it.flags = finished
}

// pop forgets finished frames at the front.
func (t *Taker) pop() {
	for t.hand.n > 0 && t.hand.at(0).flags&finished != 0 {
		t.hand.drop()
		t.base++
	}
}
