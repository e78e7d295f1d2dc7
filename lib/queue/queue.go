// Package queue is what waits for one destination: a peer, or a message type
// on this host.
//
// A queue has a lane per message type. Whole frames are put in and copied
// once, into blocks; takers take them by priority, then in order of arrival,
// and say when they are done with them. What a taker has not finished when it
// closes goes back to the place it came from.
//
// A queue with a Store keeps lanes on disk. A message of a durable type is
// appended to the log of its lane, and can be taken when Commit has returned;
// memory holds a copy when there is room. Messages of other types go to the
// log when memory is full, and all that follow them of their type, until they
// are read back; what is left of them in memory when the queue is closed is
// appended then. The order of a lane is that of its log, always.
//
// Frames that go to several queues can share their memory: see Page. Those of a
// durable type share the disk too: see Topic.
//
// What a peer sends again is taken once: see Origin. So is what a program puts
// again with the same ID.
//
// All methods may be called from any goroutine.
package queue

import (
	"errors"
	"sync"
	"sync/atomic"

	"aioc/lib/spool"
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
	Bytes           int // now, in memory
	OnDisk          int // messages that wait and are on disk alone
	DiskBytes       int64

	Duplicates uint64 // put again, and not taken again
	Expired    uint64 // not given out: their time was over
	Forgotten  uint64 // ids, before their time, for want of memory
}

// Extra is what is known of the frames of a put.
type Extra struct {
	Note   *Note  // of one frame
	From   Origin // set forward as frames are taken
	ID     ID     // of one frame
	Mortal bool   // the headers have expires: they are not given out after that
	Now    bool   // ErrFull means that the disk is full too: see patience
	Page   *Page  // of which the frames are a part, as they are there; or nil

	// Round is set by a put that left something to commit, unless it is set: it is
	// for CommitSince. Extra is used again only to go on with the same.
	Round uint64
}

// page returns the page if it can be kept.
func (x *Extra) page() *Page {
	if x.Page.shared() {
		return x.Page
	}
	return nil
}

func (x *Extra) flags() uint16 {
	if x.Mortal {
		return mortal
	}
	return 0
}

// ErrExpired is what the note of a message is told whose time was over.
var ErrExpired = errors.New("expired before it could be passed on")

// Queue is described at the package.
type Queue struct {
	limit  int // bytes a lane
	budget *Budget
	prio   map[string]int
	store  Store                           // nil: memory only
	gone   func(messageType string, n int) // told of messages that expired; or nil
	fills  sync.WaitGroup

	mu      sync.Mutex
	lanes   []*lane // by priority
	byType  map[string]*lane
	topics  map[string]*lane // of what is published: see Topic
	order   *Order
	blocks  []*block
	vacant  []uint32         // places in blocks that are free
	notes   map[uint64]*Note // by sequence number
	tries   map[uint64]int   // by sequence number, of messages that failed
	idle    []*Taker         // waiting for messages
	takers  int              // not closed
	open    map[*Taker]bool  // those
	tails   int              // lanes with messages that are on disk alone
	drained []func()         // to call when nothing is left
	closing bool             // nothing is put any more
	closed  bool
	stats   Stats
	pending []func() // to call when mu is released
}

// New returns a queue whose lanes hold at most limit bytes each and all
// together what budget allows (nil: no bound). priorities gives message types
// their priority, smaller first, 0 when absent; the map is not copied.
func New(limit int, budget *Budget, priorities map[string]int) *Queue {
	return &Queue{limit: limit, budget: budget, prio: priorities, byType: map[string]*lane{},
		notes: map[uint64]*Note{}, open: map[*Taker]bool{}, order: new(Order)}
}

// Order gives out the sequence numbers by which queues keep the order of
// arrival. The zero value begins anew. It may be used from any goroutine.
type Order struct{ used atomic.Uint64 }

// reserve returns the first of n numbers that nobody has had.
func (o *Order) reserve(n int) uint64 { return o.used.Add(uint64(n)) - uint64(n) + 1 }

// next returns the number that comes next, at least.
func (o *Order) next() uint64 { return o.used.Load() + 1 }

// leave makes all numbers below next used.
func (o *Order) leave(next uint64) {
	for {
		used := o.used.Load()
		if next <= used+1 || o.used.CompareAndSwap(used, next-1) {
			return
		}
	}
}

// Follow makes the queue use an order that other queues use too, so that what is
// put into all of them has one place in each. It is called before anything is put.
func (q *Queue) Follow(order *Order) { q.order = order }

// Keep gives the queue a store for its lanes. expired, which may be nil, is told
// of messages that were dropped because their time was over. It is called
// before anything is put.
func (q *Queue) Keep(store Store, expired func(messageType string, n int)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.store, q.gone = store, expired
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
		l = q.addLane(messageType)
		if q.store != nil {
			l.disk = &disk{durable: q.store.Durable(messageType), first: never, round: 1}
		}
		q.byType[messageType] = l
		if other := q.topics[messageType]; other != nil {
			l.twin, other.twin = other, l
		}
	}
	return l
}

// addLane adds a lane in its place.
func (q *Queue) addLane(messageType string) *lane {
	l := &lane{q: q, name: messageType, prio: q.prio[messageType], id: len(q.lanes), num: 1, epoch: newEpoch()}
	i := len(q.lanes)
	for i > 0 && q.lanes[i-1].prio > l.prio {
		i--
	}
	q.lanes = append(q.lanes, nil)
	copy(q.lanes[i+1:], q.lanes[i:])
	q.lanes[i] = l
	return l
}

// Put appends the frames, which are whole, to the lane of the message type. It
// copies them. It returns how many bytes of them, whole frames from the start,
// were taken; less than all with ErrFull, ErrClosed or an error that wraps
// ErrDisk. A frame larger than the limit is taken by an empty lane. Frames of
// a durable type count only after Commit.
func (q *Queue) Put(messageType string, frames []byte) (int, error) {
	return q.PutExtra(messageType, frames, &Extra{})
}

// PutNote is Put for one frame that has a note.
func (q *Queue) PutNote(messageType string, frame []byte, note *Note) error {
	_, err := q.PutExtra(messageType, frame, &Extra{Note: note})
	return err
}

// PutExtra is Put for frames of which more is known. What was taken before
// counts as taken.
func (q *Queue) PutExtra(messageType string, frames []byte, x *Extra) (taken int, err error) {
	q.mu.Lock()
	if q.closing {
		q.unlock()
		return 0, ErrClosed
	}
	l := q.lane(messageType)
	if x.From.Seq > 0 || x.ID != (ID{}) {
		taken = l.skipKnown(frames, x)
		frames = frames[taken:]
		if taken > 0 {
			l.began(x) // what is known may not be on disk yet
		}
	}
	if len(frames) == 0 {
		q.unlock()
		return taken, nil
	}
	n := 0
	if l.direct() {
		n, err = l.putMemory(frames, x)
		taken += n
		if err == nil || l.disk == nil {
			q.unlock()
			return taken, err
		}
	}
	q.unlock()
	n, err = q.putDisk(l, frames[n:], x)
	return taken + n, err
}

// putMemory puts frames into memory alone, as far as there is room. q.mu is
// held.
func (l *lane) putMemory(frames []byte, x *Extra) (taken int, err error) {
	q := l.q
	if d := l.disk; d != nil && d.loose == never {
		d.loose = l.num
	}
	most := len(frames)/leastFrame + 1
	e := slot{to: &l.wait, seq: q.order.reserve(most), num: l.num, flags: x.flags(), note: x.Note, page: x.page()}
	alone := l.bytes == 0
	if taken, err = l.put(frames, &e); taken > 0 {
		count := int(e.num - l.num)
		l.ages.put(l, l.num, alone)
		l.num = e.num
		q.count(frames[:taken], count)
		l.took(x, count)
		q.wake()
	}
	return taken, err
}

// leastFrame is the bytes of the shortest frame.
const leastFrame = 10

// count accounts for frames that were put.
func (q *Queue) count(frames []byte, count int) {
	q.stats.Put += uint64(count)
	q.stats.PutBytes += uint64(len(frames))
	q.stats.Waiting += count
}

// skipKnown returns how many bytes of the frames, from the start, were taken
// before. q.mu is held.
func (l *lane) skipKnown(frames []byte, x *Extra) (skipped int) {
	n := 0
	if x.ID != (ID{}) && l.ids.has(x.ID) {
		n = 1
		l.twice(x.ID, x.Note)
	} else if n = l.known(&x.From, len(frames)); n == 0 {
		return 0
	}
	rest := frames
	for ; n > 0 && len(rest) > 0; n-- {
		_, rest = wire.Split(rest)
		l.q.stats.Duplicates++
		if x.From.Seq > 0 {
			x.From.Seq++
		}
	}
	return len(frames) - len(rest)
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
// That may be at once, before OnRoom returns. Who does not want to know any more
// calls forget, or the queue keeps f until then, which may be for ever; a call
// that has begun goes on.
func (q *Queue) OnRoom(messageType string, n int, f func()) (forget func()) {
	q.mu.Lock()
	defer q.unlock()
	l := q.lane(messageType)
	w := &waiter{f, n + overhead}
	l.room = append(l.room, w)
	l.need = max(l.need, w.need)
	if q.closed {
		l.callRoom()
	} else {
		l.checkRoom()
	}
	return func() {
		q.mu.Lock()
		defer q.unlock()
		l.forgetRoom(w)
	}
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
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats.Waiting + q.stats.InHand
}

// Stats returns a snapshot.
func (q *Queue) Stats() Stats {
	s, _ := q.StatsAndLogs()
	return s
}

// StatsAndLogs returns a snapshot, and with it those of the logs on disk.
func (q *Queue) StatsAndLogs() (Stats, []spool.Stats) {
	var logs []journal
	q.mu.Lock()
	s := q.stats
	for _, l := range q.lanes {
		s.Bytes += l.bytes
		if d := l.disk; d != nil {
			s.OnDisk += d.tail
			if d.log != nil {
				logs = append(logs, d.log)
			}
		}
	}
	q.mu.Unlock()
	var all []spool.Stats
	for _, log := range logs { // which may be waiting for q.mu
		one := log.Stats()
		s.DiskBytes += one.Bytes
		all = append(all, one)
	}
	return s, all
}

// next returns the lane to take from and the sequence number up to which it
// may be taken from before another lane's turn.
func (q *Queue) next(t *Taker) (best *lane, bound uint64) {
	bound = never
	var first uint64
	ahead := uint64(never) // what comes first of all that is still on disk
	for _, l := range q.lanes {
		if best != nil && l.prio > best.prio {
			break
		}
		if t.parked[l] {
			continue
		}
		seq, ok := l.head()
		switch {
		case !ok && q.tails > 0 && l.disk.tail > 0 && !l.disk.stuck && l.disk.first <= l.readable():
			ahead = min(ahead, l.disk.tailSeq)
		case !ok:
		case best == nil || seq < first:
			if best != nil {
				bound = first
			}
			best, first = l, seq
		case seq < bound:
			bound = seq
		}
	}
	if best != nil && ahead < first {
		return nil, 0 // it is being read
	}
	return best, min(bound, ahead)
}
