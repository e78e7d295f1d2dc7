package queue

import (
	"errors"
	"slices"
	"sync"
	"time"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// A Topic is what is published of a durable type: one log, which holds each
// message once, and of which the queue of each subscriber has a view. In such a
// queue it is a lane beside that for messages of the type which are sent to that
// subscriber alone. Its methods may be called from any goroutine.
type Topic struct {
	name string
	// hub has one lane, with the log. It knows what publishers sent before and
	// says what is committed; nothing is taken from it. Its disk.in is held while
	// something is published, and while subscribers come and go.
	hub  *Queue
	lane *lane

	losses []loss // by failed syncs, not told yet; guarded by hub.mu

	mu    sync.Mutex // held while the lanes are told, or get what is put
	lanes []*lane    // of subscribers
}

// loss is what a failed sync has cost.
type loss struct {
	safe, upTo uint64
	err        error
}

// A Subscriber is where publications wait for one of those they are for.
type Subscriber struct {
	Name  string // of its view; always the same
	Queue *Queue
	Quota *spool.Quota // of all that waits for it
	Lost  int          // set by Put: messages that found no room

	lane *lane
}

// NewTopic returns a topic whose log, which has to be one that is shared, is
// opened by the store. The order has to be that of the queues of all
// subscribers; of the budget it takes what is remembered of messages.
func NewTopic(messageType string, store Store, order *Order, budget *Budget) *Topic {
	t := &Topic{name: messageType, hub: New(0, budget, nil)}
	t.hub.Keep(store, nil)
	t.hub.Follow(order)
	t.lane = t.hub.lane(messageType)
	t.lane.hubOf = t
	return t
}

// Type returns the message type.
func (t *Topic) Type() string { return t.name }

// Open opens the log and returns the names of those for whom something may wait in
// it. Who is to get it is given to Attach.
func (t *Topic) Open() ([]string, error) {
	t.lane.disk.in.Lock()
	defer t.lane.disk.in.Unlock()
	if err := t.open(); err != nil {
		return nil, err
	}
	return t.lane.disk.own.Views(), nil
}

// open opens the log unless it is open. disk.in is held.
func (t *Topic) open() error {
	d := t.lane.disk
	if d.own != nil {
		return nil
	}
	if err := t.lane.open(); err != nil {
		return err
	}
	t.hub.mu.Lock()
	defer t.hub.unlock()
	if d.tail > 0 { // it waits in the views
		t.hub.stats.Waiting -= d.tail
		t.hub.tails--
		d.tail, d.first = 0, never
	}
	return nil
}

// Attach lets what is published, and was before, wait in the queue of a
// subscriber. It returns how many messages that are, and ErrClosed when the queue
// is closed.
func (t *Topic) Attach(s *Subscriber) (waiting int, err error) {
	t.lane.disk.in.Lock()
	defer t.lane.disk.in.Unlock()
	if err := t.open(); err != nil {
		return 0, err
	}
	return t.attach(s)
}

// attach is Attach with disk.in held and the log open. Another time it only finds
// the lane.
func (t *Topic) attach(s *Subscriber) (waiting int, err error) {
	q := s.Queue
	q.mu.Lock()
	if q.closing {
		q.unlock()
		return 0, ErrClosed
	}
	l := q.topics[t.name]
	if s.lane = l; l != nil && !l.disk.left {
		q.unlock()
		return 0, nil
	}
	q.unlock()
	log := t.lane.disk.own
	view := log.View(s.Name, s.Quota)
	n, first, last := view.Waiting()
	next, safe := log.Last()+1, log.Committed()

	q.mu.Lock()
	if l == nil {
		l = q.addLane(t.name)
		if q.topics == nil {
			q.topics = map[string]*lane{}
		}
		q.topics[t.name] = l
		l.disk = &disk{durable: true, loose: never}
		if other := q.byType[t.name]; other != nil {
			l.twin, other.twin = other, l
		}
	}
	d := l.disk
	d.log, d.view, d.left = view, view, false
	d.last, d.safe, d.first = last, safe, never
	l.num, l.epoch = max(l.num, next), log.Epoch()
	if n > 0 {
		d.first, d.tail, d.tailSeq = first, int(n), 0
		q.stats.Waiting += int(n)
		q.tails++
		l.checkFill()
	}
	s.lane = l
	q.unlock()
	t.mu.Lock()
	t.lanes = append(t.lanes, l)
	t.mu.Unlock()
	return int(n), nil
}

// Hall is what Put asks while nobody else publishes to the topic and no
// subscription of it ends.
type Hall struct {
	// Still returns those who are subscribers at this moment.
	Still func([]Subscriber) []Subscriber
	// Queue returns a queue for one whose queue is closed, with its quota, or nil.
	Queue func(name string) (*Queue, *spool.Quota)
}

// Put appends publications, whole frames, once and lets them wait for all who are
// subscribers, which it returns, to be taken when CommitSince has returned. What
// was put before, as x says, is left out. A subscriber whose quota has no room
// loses them: its Lost is set. With an error, which wraps ErrDisk, nothing was put.
func (t *Topic) Put(frames []byte, x *Extra, to []Subscriber, hall Hall) ([]Subscriber, error) {
	l, d := t.lane, t.lane.disk
	d.in.Lock()
	defer d.in.Unlock()
	to = hall.Still(to)
	for i := range to {
		to[i].Lost, to[i].lane = 0, nil
	}
	if err := t.open(); err != nil {
		t.hub.diskFull(l, err)
		return to, err
	}
	t.hub.mu.Lock()
	if t.hub.closing {
		t.hub.unlock()
		return to, ErrClosed
	}
	if x.From.Seq > 0 || x.ID != (ID{}) {
		skipped := l.skipKnown(frames, x)
		if frames = frames[skipped:]; skipped > 0 {
			l.began(x)
		}
	}
	t.hub.unlock()
	if len(frames) == 0 {
		return to, nil
	}
	count := 0
	for rest := frames; len(rest) > 0; count++ {
		_, rest = wire.Split(rest)
	}
	byView := make(map[*spool.View]*Subscriber, len(to))
	views := make([]*spool.View, 0, len(to))
	for i := range to {
		s := &to[i]
		_, err := t.attach(s)
		if errors.Is(err, ErrClosed) {
			if s.Queue, s.Quota = hall.Queue(s.Name); s.Queue != nil {
				_, err = t.attach(s)
			}
		}
		if err != nil {
			s.Lost = count
			continue
		}
		if v := s.lane.disk.view; byView[v] == nil {
			byView[v] = s
			views = append(views, v)
		}
	}
	num, seq, left, err := t.append(frames, count, x, views)
	if err != nil {
		return to, err
	}
	for _, v := range left {
		s := byView[v]
		delete(byView, v)
		s.Lost = count
		s.lane.leftOut()
	}
	if len(byView) == 0 { // nothing was appended
		if x.From.Seq > 0 {
			x.From.Seq += uint64(count)
		}
		return to, nil
	}
	// Others may commit it at once, and find it lost: the lanes are told when all
	// have it.
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added(count, num, x)
	for _, v := range views { // in order, unlike byView
		if s := byView[v]; s != nil {
			s.lane.accept(frames, count, num, seq, x)
		}
	}
	return to, nil
}

// append appends count frames for the views and returns the number and the sequence
// number of the first, and the views that had no room. disk.in is held.
func (t *Topic) append(frames []byte, count int, x *Extra, views []*spool.View) (num, seq uint64, left []*spool.View, err error) {
	l, d, q := t.lane, t.lane.disk, t.hub
	q.mu.Lock()
	num, seq = l.num, q.order.reserve(count)
	m := l.metaOf(x)
	q.mu.Unlock()
	d.record(frames, num, seq, m)
	left, err = d.own.Share(d.records, views)
	if errors.Is(err, spool.ErrFailed) {
		if err = l.repair(err); err == nil {
			m = l.recordAgain(frames, num, seq, m, x)
			left, err = d.own.Share(d.records, views)
		}
	}
	d.forgetRecords()
	if err != nil || len(left) == len(views) {
		q.mu.Lock()
		l.notWritten(&m, x)
		q.mu.Unlock()
	}
	if err != nil {
		q.diskFull(l, err)
		return 0, 0, nil, diskError(err)
	}
	return num, seq, left, nil
}

// added notes that count publications are in the log, the first with number num.
// disk.in is held.
func (t *Topic) added(count int, num uint64, x *Extra) {
	l, q := t.lane, t.hub
	q.mu.Lock()
	defer q.unlock()
	l.num = num + uint64(count)
	l.disk.last = l.num - 1
	l.took(x, count)
	l.began(x)
}

// accept adds publications that are in the log now to those that wait.
func (l *lane) accept(frames []byte, count int, num, seq uint64, x *Extra) {
	q := l.q
	q.mu.Lock()
	defer q.unlock()
	if !q.closed { // else they are found in the log
		l.disk.refused = nil
		l.appended(frames, count, num, seq, x)
	}
}

// leftOut notes that a publication had no room.
func (l *lane) leftOut() {
	q := l.q
	q.mu.Lock()
	defer q.unlock()
	l.disk.refused, l.disk.when = ErrFull, time.Now()
}

// CommitSince is Queue.CommitSince for what was published.
func (t *Topic) CommitSince(written ...Written) error { return t.hub.CommitSince(written...) }

// tell tells the lanes of the subscribers what has become of what was published.
func (t *Topic) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hub.mu.Lock()
	losses, safe := t.losses, t.lane.disk.safe
	t.losses = nil
	t.hub.mu.Unlock()
	t.lanes = slices.DeleteFunc(t.lanes, func(l *lane) bool {
		q := l.q
		q.mu.Lock()
		defer q.unlock()
		if q.closed || l.disk.left {
			return true
		}
		for _, lost := range losses {
			l.lostCommit(lost.safe, lost.upTo, lost.err)
		}
		l.committed(safe)
		return false
	})
}

// End ends a subscription, if sure says so while nothing is published: what waits
// for it is discarded. It returns how many messages that were.
func (t *Topic) End(name string, sure func() bool) (discarded int) {
	d := t.lane.disk
	d.in.Lock()
	defer d.in.Unlock()
	t.hub.mu.Lock()
	closing := t.hub.closing
	t.hub.mu.Unlock()
	if closing || d.own == nil || !sure() || !slices.Contains(d.own.Views(), name) {
		return 0
	}
	view := d.own.View(name, nil)
	waiting, _, _ := view.Waiting()
	discarded = int(waiting)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lanes = slices.DeleteFunc(t.lanes, func(l *lane) bool {
		if l.disk.view != view {
			return false
		}
		l.leave()
		return true
	})
	view.End()
	// So that it survives a kill; else it is written with what is published next.
	if err := d.own.PutState(); err != nil {
		t.hub.store.Failed(t.name, 0, err)
	}
	return discarded
}

// leave discards what waits. What takers have in hand they may finish.
func (l *lane) leave() {
	d, q := l.disk, l.q
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return
	}
	l.soon()
	n := d.tail
	for it, ok := l.pop(never); ok; it, ok = l.pop(never) {
		q.tell(&it, ErrPurged)
		l.release(&it)
		n++
	}
	for ; d.fresh.n > 0; d.fresh.drop() {
		l.release(d.fresh.at(0))
		n++
	}
	if d.tail > 0 {
		l.tellTail(spool.Range{Last: never}, ErrPurged)
		q.tails--
	}
	q.stats.Waiting -= n
	for t := range q.open {
		for i := range t.hand.n {
			if it := t.hand.at(i); it.flags&finished == 0 && q.blocks[it.blk].lane == l {
				it.flags |= orphan
			}
		}
	}
	d.left, d.acks, d.tail, d.first = true, nil, 0, never
	d.gen++ // who is reading reads in vain
	q.wake()
	q.checkEmpty()
}

// tailFrom returns how many messages that are on disk alone have a number of at
// least num. q.mu is held.
func (l *lane) tailFrom(num uint64) int {
	d := l.disk
	if d.view != nil { // it has some of the numbers only, and perhaps more than it knows of
		return int(d.view.Count(max(num, d.first), d.last))
	}
	return int(max(d.last, num-1) - (num - 1))
}

// Idle reports whether nobody has a view of the log and there is nothing to
// remember.
func (t *Topic) Idle() bool {
	names, err := t.Open()
	if err != nil || len(names) > 0 {
		return false
	}
	t.hub.mu.Lock()
	defer t.hub.unlock()
	now := time.Now()
	t.lane.expireIDs(now)
	return t.lane.ids.lasts(now) == 0
}

// Remove closes the topic and removes its log.
func (t *Topic) Remove() {
	t.hub.mu.Lock()
	t.hub.removeLocked()
}

// Close closes the log. The queues of the subscribers are closed before.
func (t *Topic) Close() { t.hub.Close() }

// Stats returns a snapshot of the log; ok is false when there is none.
func (t *Topic) Stats() (s spool.Stats, ok bool) {
	_, logs := t.hub.StatsAndLogs()
	if len(logs) == 0 {
		return s, false
	}
	return logs[0], true
}

// Troubles is Queue.Troubles for what is published.
func (t *Topic) Troubles() []Trouble { return t.hub.Troubles() }
