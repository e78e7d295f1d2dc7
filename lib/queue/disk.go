package queue

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// ErrDisk is wrapped when a message cannot be put because the disk is full or
// failing. It may be tried again.
var ErrDisk = errors.New("disk")

var errLost = errors.New("records cannot be read any more")

const (
	// retryFull is when a disk that was full is tried again.
	retryFull = 250 * time.Millisecond
	// appendBytes is about how much goes to the log at once.
	appendBytes = 1 << 20
	// readBytes is about how much comes from it at once.
	readBytes = 256 << 10
	// leap is by how much the numbers of a lane go on higher after a start. What
	// damage took from the end of the log must not have its numbers given to
	// others: the far end would take them for what it has already.
	leap = 1 << 16
	// never is above all numbers.
	never = ^uint64(0)
)

// disk is what a lane has on disk. A message is in the log if its number is
// below loose; in memory, or in a taker's hand, if it is below first.
type disk struct {
	durable bool

	// in is held while records are appended. It is taken before q.mu. Who
	// appends owns what follows it.
	in      sync.Mutex
	records []spool.Record
	metas   []byte
	copied  []byte

	// Guarded by q.mu.
	log      journal           // nil until it is needed
	own      *spool.Log        // the same, of one whose records are put here
	view     *spool.View       // the same, of one that others share
	left     bool              // that view has ended
	loose    uint64            // from here on messages are in memory only; never: none is
	fresh    ring              // in the log and in memory, not committed yet
	last     uint64            // the last record
	safe     uint64            // up to here records are committed, if durable
	round    uint64            // goes on when records that were put are lost: see began
	first    uint64            // from here on records are not in memory
	tail     int               // how many those are
	tailSeq  uint64            // at most the sequence number of the first of those
	noted    map[uint64]uint64 // sequence numbers of those that have a note, by number
	gen      int               // changed when first goes back
	busy     bool              // records are being appended: nothing may pass them by
	full     bool              // the log had no room
	refused  error             // why the last message could not be kept; nil: it was
	when     time.Time         // when that was
	stuck    bool              // the log cannot be read
	filling  bool
	asked    bool // the budget will call fillAgain
	acks     []spool.Range
	acking   bool // writeAcks will be called
	retrying bool // a timer will end full, or stuck
	patient  bool // memory is full, and is being emptied: see patience
	hasty    bool // it was, and that took too long
	seen     int  // lane.freed when that was looked at last

	// Of marks: what is not on disk yet, and the numbers by which the log knows
	// where messages came from.
	unsure  []unsureMark
	newIDs  []newID // of ids the same
	indexes uint64
	byIndex map[uint64]*mark // while the log is opened
}

// Open opens the logs of the given types, as far as they have something, and
// removes those that have nothing to remember. It is called once, before
// anything is put, and returns how many messages wait.
func (q *Queue) Open(types []string) (waiting int, err error) {
	var failed []error
	for _, name := range types {
		q.mu.Lock()
		l := q.lane(name)
		q.mu.Unlock()
		l.disk.in.Lock()
		if err := l.open(); err != nil {
			failed = append(failed, err)
		}
		l.disk.in.Unlock()
		waiting += l.disk.tail
	}
	return waiting, errors.Join(failed...)
}

// open opens the log unless it is open. disk.in is held.
func (l *lane) open() error {
	d, q := l.disk, l.q
	if d.log != nil {
		return nil
	}
	q.mu.Lock()
	d.byIndex, d.acks, d.first, d.tail, d.tailSeq = map[uint64]*mark{}, nil, never, 0, 0
	q.mu.Unlock()
	log, err := q.store.Open(l.name, l.state, l.restore, l.replay)
	q.mu.Lock()
	defer q.unlock()
	d.byIndex = nil
	if err != nil {
		d.acks, d.first, d.tail = nil, never, 0
		return fmt.Errorf("%w: type %s: %w", ErrDisk, l.name, err)
	}
	if q.closed {
		_ = log.Close()
		return ErrClosed
	}
	d.log, d.own = log, log
	if last := log.Last(); last > 0 {
		l.num = max(l.num, last+leap)
		d.last, d.safe = last, last
	}
	l.ackSoon()
	if d.durable {
		l.epoch, d.loose = log.Epoch(), never
	}
	if d.tail > 0 {
		d.loose = never
		q.stats.Waiting += d.tail
		q.tails++
	}
	l.checkFill()
	return nil
}

// restore is told of a state of the lane.
func (l *lane) restore(state []byte) {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	l.readState(state)
}

// replay is told of a record that is on disk.
func (l *lane) replay(r spool.Record, acknowledged bool) {
	l.q.mu.Lock()
	defer l.q.mu.Unlock()
	d := l.disk
	m, err := parseMeta(r.Meta)
	if err == nil {
		l.q.order.leave(m.seq + 1)
		twice := l.remember(&m, r.Time/1000)
		if twice && !acknowledged {
			// It could not be said to be safe, but was, and was sent again.
			d.acks = append(d.acks, spool.Range{First: r.Seq, Last: r.Seq})
			acknowledged = true
		}
	} // if not, the frame is whole: it is delivered, and perhaps twice
	if !acknowledged {
		if d.tail == 0 {
			d.first, d.tailSeq = r.Seq, m.seq
		}
		d.tail++
	}
}

// newEpoch returns one that there has not been before.
func newEpoch() (e Epoch) {
	_, _ = rand.Read(e[:]) // never fails
	return e
}

// direct reports whether what is put goes to memory, as long as there is room.
func (l *lane) direct() bool {
	d := l.disk
	return d == nil || !d.durable && d.tail == 0 && !d.busy
}

// putDisk is the part of put that may use the log.
func (q *Queue) putDisk(l *lane, frames []byte, x *Extra) (taken int, err error) {
	d := l.disk
	d.in.Lock()
	defer d.in.Unlock()
	if err := l.open(); err != nil {
		q.diskFull(l, err)
		return 0, err
	}
	if x.From.Seq > 0 || x.ID != (ID{}) { // it may have come on another way meanwhile
		q.mu.Lock()
		skipped := l.skipKnown(frames, x)
		if skipped > 0 {
			l.began(x)
		}
		q.unlock()
		if taken, frames = skipped, frames[skipped:]; len(frames) == 0 {
			return taken, nil
		}
	}
	if !d.durable {
		q.mu.Lock()
		if l.direct() && !q.closing {
			var n int
			n, err = l.putMemory(frames, x)
			if taken += n; err == nil {
				q.unlock()
				return taken, nil
			}
			frames = frames[n:]
		}
		if !x.Now && d.tail == 0 && l.patience() {
			q.unlock()
			return taken, ErrFull
		}
		d.busy, d.hasty = true, false
		q.unlock()
		err = l.spill()
		defer func() {
			q.mu.Lock()
			d.busy = false
			l.ackSoon()
			q.unlock()
		}()
	}
	for len(frames) > 0 && err == nil {
		part := frames
		if len(part) > appendBytes {
			part, _ = wire.Split(frames)
			for rest := frames[len(part):]; len(part) < appendBytes; {
				var f []byte
				f, rest = wire.Split(rest)
				part = frames[:len(part)+len(f)]
			}
		}
		for {
			if err = q.appendPart(l, part, x); !errors.Is(err, ErrFull) {
				break
			}
			// As much as there is room for.
			if part = half(part); part == nil {
				break
			}
		}
		if err == nil {
			taken += len(part)
			frames = frames[len(part):]
		}
	}
	if err != nil {
		q.diskFull(l, err)
		err = diskError(err)
	}
	return taken, err
}

// diskError wraps ErrDisk, unless it is another of ours.
func diskError(err error) error {
	if errors.Is(err, ErrClosed) || errors.Is(err, ErrFull) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDisk, err)
}

// lookEvery is how often it is looked whether memory that is full is being
// emptied, and quickPart of which part of the limit has to be free each time.
const (
	lookEvery = 100 * time.Millisecond
	quickPart = 16
)

// patience reports whether who puts something should wait for room in memory,
// which is full, instead of making the lane go to disk: a taker that keeps pace
// empties it quickly, and all that is on disk is written and read. q.mu is held.
func (l *lane) patience() bool {
	d := l.disk
	if d.patient || d.hasty || l.q.takers == 0 {
		return d.patient
	}
	d.patient, d.seen = true, l.freed
	time.AfterFunc(lookEvery, l.look)
	return true
}

// look decides whether those who wait for room in memory go on doing so.
func (l *lane) look() {
	d, q := l.disk, l.q
	q.mu.Lock()
	defer q.unlock()
	quick := l.freed-d.seen >= q.limit/quickPart
	if quick && len(l.room) > 0 && !q.closing {
		d.seen = l.freed
		time.AfterFunc(lookEvery, l.look)
		return
	}
	d.patient, d.hasty = false, !quick && len(l.room) > 0
	l.callRoom()
}

// half returns the first half of frames, nil when there is only one.
func half(frames []byte) []byte {
	n := 0
	for rest := frames; len(rest) > 0; {
		var f []byte
		f, rest = wire.Split(rest)
		if n > 0 && n+len(f) > len(frames)/2 {
			return frames[:n]
		}
		n += len(f)
	}
	return nil
}

// appendPart appends frames to the log, and keeps them in memory too as far as
// they have a taker and there is room. disk.in is held.
func (q *Queue) appendPart(l *lane, frames []byte, x *Extra) error {
	d := l.disk
	count := 0
	for rest := frames; len(rest) > 0; count++ {
		_, rest = wire.Split(rest)
	}
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		return ErrClosed
	}
	log, num, seq := d.own, l.num, q.order.reserve(count)
	m := l.metaOf(x)
	q.mu.Unlock()

	d.record(frames, num, seq, m)
	err := log.Append(d.records)
	if errors.Is(err, spool.ErrFailed) {
		// It may work again, but for what was not committed.
		if err = l.repair(err); err == nil {
			m = l.recordAgain(frames, num, seq, m, x)
			err = log.Append(d.records)
		}
	}
	d.forgetRecords()
	q.mu.Lock()
	defer q.unlock()
	if err != nil {
		l.notWritten(&m, x)
		return spoolError(err)
	}
	l.appended(frames, count, num, seq, x)
	l.took(x, count)
	l.began(x)
	return nil
}

// record makes the records of frames, of which the first has number num, sequence
// number seq and the rest of m. disk.in is held.
func (d *disk) record(frames []byte, num, seq uint64, m meta) {
	now := time.Now().UnixMilli()
	d.records, d.metas = d.records[:0], d.metas[:0]
	for rest := frames; len(rest) > 0; {
		var f []byte
		f, rest = wire.Split(rest)
		i := len(d.records)
		m.seq = seq + uint64(i)
		from := len(d.metas)
		d.metas = m.append(d.metas)
		d.records = append(d.records, spool.Record{Seq: num + uint64(i), Time: now, Meta: d.metas[from:len(d.metas):len(d.metas)], Frame: f})
		m.next()
	}
}

// recordAgain is record after a repair, which may have lost what says where the
// messages come from. disk.in is held.
func (l *lane) recordAgain(frames []byte, num, seq uint64, m meta, x *Extra) meta {
	l.q.mu.Lock()
	l.notWritten(&m, x)
	m = l.metaOf(x)
	l.q.mu.Unlock()
	l.disk.record(frames, num, seq, m)
	return m
}

func (d *disk) forgetRecords() {
	clear(d.records)
	if cap(d.records) > 1<<16 {
		d.records, d.metas = nil, nil
	}
}

// appended adds frames that are in the log now to those that wait. q.mu is held.
func (l *lane) appended(frames []byte, count int, num, seq uint64, x *Extra) {
	d, q := l.disk, l.q
	l.num = num + uint64(count)
	d.last = l.num - 1
	q.count(frames, count)
	e := &slot{to: &l.wait, seq: seq, num: num, flags: x.flags(), note: x.Note, page: x.page()}
	if d.durable {
		e.to = &d.fresh
	}
	if d.tail == 0 && (q.takers > 0 || !d.durable) {
		_, _ = l.put(frames, e)
	}
	if rest := count - int(e.num-num); rest > 0 {
		if d.tail == 0 {
			d.first, d.tailSeq = e.num, e.seq
			q.tails++
		}
		d.tail += rest
		if x.Note != nil { // found by its sequence number when it is read
			q.notes[seq] = x.Note
			d.note(num, seq)
		}
	}
	if !d.durable {
		d.refused = nil
		q.wake()
		l.checkFill()
	}
}

// note remembers that a message that is on disk alone has a note. q.mu is held.
func (d *disk) note(num, seq uint64) {
	if d.noted == nil {
		d.noted = map[uint64]uint64{}
	}
	d.noted[num] = seq
}

// tellTail tells the notes of messages that were on disk alone, with numbers in
// r, and are not there any more. q.mu is held.
func (l *lane) tellTail(r spool.Range, err error) {
	for num, seq := range l.disk.noted {
		if r.First <= num && num <= r.Last {
			delete(l.disk.noted, num)
			l.q.tell(&item{seq: seq, flags: noted}, err)
		}
	}
}

// spoolError makes a full quota an ErrFull.
func spoolError(err error) error {
	if errors.Is(err, spool.ErrFull) {
		return ErrFull
	}
	return err
}

// repair lets the log take records again after a sync of it has failed.
// disk.in is held.
func (l *lane) repair(err error) error {
	d, q := l.disk, l.q
	safe := d.own.Committed()
	q.mu.Lock()
	l.lostCommit(safe, d.last, err)
	q.unlock()
	return d.own.Repair()
}

// spill writes to the log what is in memory only, so that what follows can be
// there alone. disk.in is held and disk.busy set.
func (l *lane) spill() error {
	d, q := l.disk, l.q
	now := time.Now().UnixMilli()
	for {
		q.mu.Lock()
		if d.loose >= l.num {
			d.loose = never
			q.mu.Unlock()
			return nil
		}
		before := d.loose
		loose := l.loose()
		d.records, d.metas, d.copied = d.records[:0], d.metas[:0], d.copied[:0]
		for _, it := range loose {
			if len(d.copied) > appendBytes {
				break
			}
			m := meta{seq: it.seq, mortal: it.flags&mortal != 0}
			from := len(d.copied)
			d.copied = m.append(d.copied)
			meta := d.copied[from:]
			from = len(d.copied)
			d.copied = append(d.copied, q.frame(&it)...)
			d.records = append(d.records, spool.Record{Seq: l.number(&it), Time: now, Meta: meta, Frame: d.copied[from:]})
			d.loose = l.number(&it) + 1
		}
		if len(loose) == len(d.records) {
			d.loose = never
		}
		log := d.own
		q.mu.Unlock()
		if len(d.records) > 0 {
			if err := log.Append(d.records); err != nil {
				q.mu.Lock()
				d.loose = before
				q.mu.Unlock()
				return spoolError(err)
			}
			q.mu.Lock()
			d.last = d.records[len(d.records)-1].Seq
			q.mu.Unlock()
		}
		clear(d.records)
		d.copied = nil
	}
}

// loose returns the items that are in memory only, in order.
func (l *lane) loose() (all []item) {
	add := func(it *item) {
		if it.flags&finished == 0 && l.number(it) >= l.disk.loose {
			all = append(all, *it)
		}
	}
	for t := range l.q.open {
		for i := range t.hand.n {
			if it := t.hand.at(i); it.flags&finished == 0 && l.q.blocks[it.blk].lane == l {
				add(it)
			}
		}
	}
	for i := range l.back {
		add(&l.back[i])
	}
	for _, it := range l.later {
		add(&it)
	}
	for i := range l.wait.n {
		add(l.wait.at(i))
	}
	slices.SortFunc(all, func(a, b item) int { return int(int64(a.seq - b.seq)) })
	return all
}

// diskFull notes that the log takes nothing now, and arranges for it to be
// tried again.
func (q *Queue) diskFull(l *lane, err error) {
	q.mu.Lock()
	defer q.unlock()
	d := l.disk
	if q.closed {
		return
	}
	d.full = true
	d.refused, d.when = err, time.Now()
	l.retry()
	if !errors.Is(err, ErrFull) {
		q.pending = append(q.pending, func() { q.store.Failed(l.name, 0, err) })
	}
}

// Trouble says that messages of a type cannot be kept on disk.
type Trouble struct {
	Type string
	When time.Time // of the last that was refused
	Err  error     // ErrFull is wrapped when all is used that may be
}

// Troubles returns the types of which the last message that was put could not
// be kept on disk.
func (q *Queue) Troubles() (all []Trouble) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		if d := l.disk; d != nil && d.refused != nil {
			all = append(all, Trouble{l.name, d.when, d.refused})
		}
	}
	return all
}

// retry tries the disk again after a while. q.mu is held.
func (l *lane) retry() {
	d := l.disk
	if d.retrying {
		return
	}
	d.retrying = true
	time.AfterFunc(retryFull, func() {
		l.q.mu.Lock()
		defer l.q.unlock()
		d.retrying, d.full, d.stuck = false, false, false
		if !l.q.closed {
			l.callRoom()
			l.checkFill()
		}
	})
}
