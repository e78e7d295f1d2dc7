package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrFull means that the quota has no room for the batch now.
	ErrFull = errors.New("quota of the spool reached")
	// ErrTotal means that the quota that several others are within has no room now.
	ErrTotal = errors.New("quota of all spools together reached")
	// ErrNoSpace means that the disk is full, or the quota of the user on it, or
	// that what is left is reserved.
	ErrNoSpace = errors.New("no space left for the spool")
	// ErrFailed means that a sync failed: what was not committed is lost, and
	// nothing is taken until Repair.
	ErrFailed = errors.New("sync of the spool failed")
	// ErrClosed means that the log is closed.
	ErrClosed = errors.New("spool closed")
	// ErrOrder means that a batch is not what Append asks for.
	ErrOrder = errors.New("not a valid batch for the spool")
)

// Options are how a log is opened. The zero value is a log that is not synced.
type Options struct {
	// Durable: Commit makes records durable. Without it nothing is synced but
	// by Close, and Commit returns at once.
	Durable bool
	// SegmentSize is how many bytes a segment gets before the next one is
	// begun; a larger batch gets a segment of its own. 0: 8 MiB.
	SegmentSize int64
	// Quota bounds the bytes on disk; logs may share one. nil: no bound.
	Quota *Quota
	// Shared: the log has views, and records are appended for some of them by
	// Share. An Ack or a Note of the log itself is one of all views.
	Shared bool
	// FS is the file system. nil: the real one.
	FS FS

	// State appends to dst what the owner must not lose when old segments go,
	// and returns it. It is called by Append, PutState, Ack, Commit and Repair,
	// with the log locked, so it must not call the log; it must describe
	// exactly the batches whose Append returned nil and was not followed by
	// an ErrFailed that took them back. nil: no state.
	State func(dst []byte) []byte
	// Restore is called by Open with each state found, oldest first, between
	// the calls of Replay for the records before and after it: the last one
	// that is whole and what is replayed after it are the state. The bytes are
	// the owner's.
	Restore func(state []byte)
	// Replay is called by Open for each record that is on disk, in order,
	// without its Frame. The bytes are the owner's.
	Replay func(r Record, acknowledged bool)
}

// A Log is described at the package. Its methods may be called from any
// goroutine.
type Log struct {
	// Constant.
	dir      string
	fs       FS
	o        Options
	epoch    [16]byte
	key      uint64
	quota    *Quota
	readOnly bool // nothing on the disk is changed

	mu        sync.Mutex // guards what follows
	synced    *sync.Cond // a sync has ended
	segs      []*segment // in order; the newest is never removed
	cur       *segment   // the last of segs while it is written, or nil
	file      File       // cur's
	number    uint64     // of the next segment
	last      uint64     // highest sequence ever appended
	valid     uint64     // highest sequence that was not taken back
	committed uint64
	failed    []Range // taken back by failed syncs
	broken    error   // a failed sync, until Repair
	syncing   bool
	closed    bool
	buf       []byte
	ackBuf    []byte
	ackFile   File // of ackSeg
	ackSeg    *segment
	unlinked  []string // what may be left of segments removed since the last sync of the directory
	notes     map[uint64][]byte
	waiting   int64
	counts    Stats

	// Of a log that is shared: waiting counts what is in segments of which a
	// view has something.
	shared   bool
	views    []*View
	byName   map[string]*View
	lastView uint64  // the highest number of a view ever
	turn     uint64  // of Share
	changed  []*View // to be written
	viewBuf  []byte
	guessing bool // while it is opened: no segment has said yet who the views are
}

// segment is one file of the log. Guarded by the log's mu.
type segment struct {
	number  uint64
	key     uint64
	first   uint64 // sequence of its first record, 0 without one
	last    uint64
	live    set            // not acknowledged; of a log that is shared, all since a view had nothing of it
	size    int64          // up to here it is written and valid
	content int64          // the end of what is no mark
	synced  int64          // up to here it is on disk
	marked  int64          // what its last mark says
	durable bool           // its name and header are on disk
	sealed  bool           // is not written any more
	damaged bool           // is kept when all is acknowledged
	charged int64          // what the quota counts for it
	index   []point        // of its records, the first that waits and some after it
	acks    bool           // it has a file of acknowledgements
	acked   int64          // size of that file
	pending set            // acknowledged, not yet in that file
	unsure  bool           // that file is not synced
	holds   int            // views that have something of it
	gone    bool           // it was removed
	found   map[uint64]set // while the log is opened: acknowledged, by number of the view
}

const (
	defaultSegment = 8 << 20
	leastSegment   = 64 << 10
	largeWrite     = 1 << 20 // what is gathered for one write
	largeFrame     = 64 << 10
	markSize       = recordHead + 8
)

// newLog returns a log without segments.
func newLog(dir string, o Options) *Log {
	l := &Log{dir: dir, fs: o.FS, o: o, quota: o.Quota, number: 1, notes: map[uint64][]byte{}, shared: o.Shared}
	if l.fs == nil {
		l.fs = disk{}
	}
	if l.quota == nil {
		l.quota = NewQuota(0)
	}
	if l.o.SegmentSize <= 0 {
		l.o.SegmentSize = defaultSegment
		if limit := l.quota.Limit(); limit > 0 {
			// Segments go as a whole: with few of them little of a quota is of use.
			l.o.SegmentSize = max(min(defaultSegment, limit/16), leastSegment)
		}
	}
	l.synced = sync.NewCond(&l.mu)
	var random [24]byte
	rand.Read(random[:]) // never fails
	copy(l.epoch[:], random[:])
	l.key = le.Uint64(random[16:])
	return l
}

// Epoch identifies the log for as long as its directory is not removed. It is
// kept from the first record on.
func (l *Log) Epoch() [16]byte { return l.epoch }

// Dir returns the directory of the log.
func (l *Log) Dir() string { return l.dir }

// Committed returns the sequence up to which all records that were not taken
// back are durable.
func (l *Log) Committed() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// Last returns the highest sequence ever appended or found; those to append
// must be above it.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Append writes the records, all or none, without making them durable: that is
// Commit's. Sequences start at 1 and must be above all that were ever appended.
// The bytes are not kept. The error is ErrFull, ErrTotal, ErrNoSpace, ErrFailed, ErrClosed,
// ErrOrder, or what else the disk says; but for ErrFailed and ErrClosed the same
// records may be appended again later.
func (l *Log) Append(records []Record) error {
	if len(records) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.append(records)
}

// append is Append with the lock held. It also writes what has become of views.
func (l *Log) append(records []Record) error {
	n := markSize + l.changesSize()
	for i := range records {
		r := &records[i]
		if len(r.Meta) > MaxMeta || len(r.Frame) > MaxFrame {
			return l.wrap(fmt.Errorf("%w: record %d is too big", ErrOrder, r.Seq))
		}
		n += recordHead + int64(len(r.Meta)+len(r.Frame))
	}
	if err := l.room(n); err != nil {
		return err
	}
	before := l.last
	for i := range records {
		if records[i].Seq <= before {
			return l.wrap(fmt.Errorf("%w: record %d after %d", ErrOrder, records[i].Seq, before))
		}
		before = records[i].Seq
	}
	if err := l.charge(n); err != nil {
		return err
	}
	seg, s := l.cur, seal(l.cur.key, l.cur.number)
	w := writer{f: l.file, at: seg.size, buf: l.buf[:0]}
	index := seg.waitingIndex()
	if seg.marked < seg.synced {
		w.buf = appendMark(w.buf, s, w.at, seg.synced, l.committed)
	}
	if len(l.changed) > 0 {
		w.buf = l.appendViews(w.buf, s, w.end(), changedViews, l.changed)
	}
	for i := range records {
		r := &records[i]
		off := w.end()
		index = addPoint(index, point{r.Seq, off, r.Time})
		w.buf = appendHead(w.buf, s, off, head{seq: r.Seq, time: r.Time, kind: kindMessage, flags: r.Flags}, r.Meta, r.Frame)
		w.buf = append(w.buf, r.Meta...)
		w.add(r.Frame)
	}
	w.flush()
	l.keep(w.buf)
	if w.err != nil {
		l.uncharge(n)
		l.counts.Refused++
		return l.undo(w.err)
	}
	if seg.marked < seg.synced {
		seg.marked = seg.synced
	}
	l.changesWritten()
	seg.size, seg.content, seg.index = w.at, w.at, index
	if seg.first == 0 {
		seg.first = records[0].Seq
	}
	for i := range records {
		seg.live.push(records[i].Seq)
	}
	seg.last, l.last, l.valid = before, before, before
	l.waiting += int64(len(records))
	l.counts.Appended += uint64(len(records))
	return nil
}

// keep keeps a buffer for the next batch unless it is large.
func (l *Log) keep(buf []byte) {
	if cap(buf) <= 2*largeWrite {
		l.buf = buf[:0]
	}
}

// PutState writes the owner's state now; the next Commit of a record appended
// later makes it durable. Each new segment starts with a state anyway.
func (l *Log) PutState() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.putState()
}

func (l *Log) putState() error {
	if l.o.State == nil && len(l.changed) == 0 {
		return nil
	}
	var state []byte
	if l.o.State != nil {
		state = l.o.State(nil)
	}
	n := recordHead + int64(len(state)) + l.changesSize()
	number := l.number
	if err := l.room(n); err != nil {
		return err
	}
	if l.number != number {
		return nil // the new segment has it
	}
	seg, b := l.cur, l.buf[:0]
	s := seal(seg.key, seg.number)
	if len(l.changed) > 0 {
		b = l.appendViews(b, s, seg.size, changedViews, l.changed)
	}
	if l.o.State != nil {
		b = appendRecord(b, s, seg.size+int64(len(b)), head{kind: kindState, seq: l.valid}, nil, state)
	}
	_, err := l.file.WriteAt(b, seg.size)
	l.keep(b)
	if err != nil {
		return l.undo(err)
	}
	l.changesWritten()
	seg.size += int64(len(b))
	seg.content = seg.size
	return nil
}

// room makes cur a segment that takes n more bytes.
func (l *Log) room(n int64) error {
	for {
		seg := l.cur
		switch {
		case l.closed:
			return l.wrap(ErrClosed)
		case l.broken != nil:
			return l.broken
		case seg != nil && !seg.sealed && (seg.last == 0 || seg.size+n <= l.o.SegmentSize):
			return nil
		case l.syncing:
			l.synced.Wait()
		case seg != nil && l.o.Durable && seg.synced < seg.content:
			if err := l.sync(); err != nil {
				return err
			}
		default:
			if err := l.create(false); err != nil {
				return err
			}
			l.tidy()
		}
	}
}

// charge counts n bytes of records for the quota, and those of the segment when
// it held nothing that counts.
func (l *Log) charge(n int64) error {
	for {
		more := n
		if l.cur.charged == 0 {
			more += l.cur.size
		}
		err := l.quota.Take(more)
		if err == nil {
			l.cur.charged += more
			return nil
		}
		if l.cur.charged > 0 || l.cur.last == 0 {
			l.counts.Refused++
			return l.wrap(err)
		}
		// All that the segment holds is acknowledged: a new one is smaller.
		l.cur.sealed = true
		if err := l.room(n); err != nil {
			return err
		}
	}
}

// uncharge takes back what charge counted for a batch that was not written.
func (l *Log) uncharge(n int64) {
	l.cur.charged -= n
	l.quota.Add(-n)
	l.release(l.cur)
}

// release gives back the quota of a segment without waiting records.
func (l *Log) release(seg *segment) {
	if len(seg.live) == 0 {
		l.quota.Add(-seg.charged)
		seg.charged = 0
	}
}

// undo takes back what a failed write left behind cur's end.
func (l *Log) undo(err error) error {
	if l.file.Truncate(l.cur.size) != nil {
		// What is there must not be found one day: prev of the next segment
		// makes it void.
		l.cur.sealed = true
	}
	return l.failure(err)
}

// failure says which of our errors one of the system is.
func (l *Log) failure(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return l.wrap(fmt.Errorf("%w: %w", ErrNoSpace, err))
	}
	return l.wrap(err)
}

func (l *Log) wrap(err error) error { return fmt.Errorf("spool %q: %w", l.dir, err) }

// create begins a new segment, and makes it durable at once if asked to. After
// an error the old one is not written any more either.
func (l *Log) create(durable bool) error {
	seg := &segment{number: l.number, key: l.key}
	l.number++
	name := l.path(seg.number, logSuffix)
	f, err := l.fs.Create(name)
	if err != nil {
		return l.failure(err)
	}
	h := segmentHeader{epoch: l.epoch, key: l.key, number: seg.number, prev: l.valid, time: time.Now().UnixMilli()}
	if !l.o.Durable {
		h.flags = notSynced
	}
	b := h.encode()
	if l.shared {
		b = l.appendViews(b, seal(seg.key, seg.number), segmentHead, allViews, l.views)
	}
	if l.o.State != nil {
		b = appendRecord(b, seal(seg.key, seg.number), int64(len(b)), head{kind: kindState, seq: l.valid}, nil, l.o.State(nil))
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && durable {
		if err = f.Sync(); err == nil {
			err = l.syncDir()
		}
		seg.synced = int64(len(b))
	}
	if err != nil {
		f.Close()
		l.fs.Remove(name) // the first error is the one to report
		if l.cur != nil {
			// A crash may bring the new file back, and its prev would make void
			// what the old one got later.
			l.cur.sealed = true
		}
		return l.failure(err)
	}
	seg.size, seg.content = int64(len(b)), int64(len(b))
	seg.durable = durable || !l.o.Durable
	if l.file != nil {
		l.file.Close()
	}
	if l.cur != nil {
		l.cur.sealed = true
		l.sealed(l.cur)
	}
	l.changesWritten()
	l.cur, l.file = seg, f
	l.segs = append(l.segs, seg)
	return nil
}

// The two kinds of files.
const (
	logSuffix = ".log"
	ackSuffix = ".ack"
	badSuffix = ".log.bad"
)

func (l *Log) path(number uint64, suffix string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%010d%s", number, suffix))
}

// writer gathers the parts of a batch.
type writer struct {
	f   File
	at  int64 // offset of buf in the file
	buf []byte
	err error
}

func (w *writer) end() int64 { return w.at + int64(len(w.buf)) }

func (w *writer) add(b []byte) {
	if len(b) < largeFrame {
		w.buf = append(w.buf, b...)
		if len(w.buf) >= largeWrite {
			w.flush()
		}
		return
	}
	w.flush() // a large one is not copied
	w.write(b)
}

func (w *writer) flush() {
	w.write(w.buf)
	w.buf = w.buf[:0]
}

func (w *writer) write(b []byte) {
	if w.err == nil && len(b) > 0 {
		_, w.err = w.f.WriteAt(b, w.at)
	}
	w.at += int64(len(b))
}

// appendMark appends a mark to be written at off: up to which offset the segment
// is synced, and up to which sequence.
func appendMark(b []byte, seal uint32, off, synced int64, committed uint64) []byte {
	var body [8]byte
	le.PutUint64(body[:], uint64(synced))
	return appendRecord(b, seal, off, head{kind: kindMark, seq: committed}, nil, body[:])
}
