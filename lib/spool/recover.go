package spool

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kind says what is wrong with a part of a file.
type Kind string

// The kinds of damage.
const (
	Damaged    Kind = "damaged"                    // no whole record in the middle of a file
	Torn       Kind = "torn end"                   // an incomplete record at the end: a write that a crash cut
	Dropped    Kind = "not committed, after a gap" // records behind a write that a power cut lost
	Unreadable Kind = "cannot be read"             // the disk says so
)

// Damage is a part of a file that recovery stepped over.
type Damage struct {
	File   string // its path
	Offset int64
	Bytes  int64
	Kind   Kind
}

// OfCrash tells whether it is what any crash may leave: a write that was cut.
func (d Damage) OfCrash() bool { return d.Kind == Torn || d.Kind == Dropped }

func (d Damage) String() string {
	return fmt.Sprintf("%s: %d bytes at %d: %s", d.File, d.Bytes, d.Offset, d.Kind)
}

// Recovered is what Open found.
type Recovered struct {
	First   uint64 // the first record that is not acknowledged, 0 without one
	Last    uint64 // the highest sequence of the log, 0 for a new one
	Waiting int64  // records not acknowledged
	Bytes   int64  // on disk
	Damage  []Damage

	// Of a log that is shared: how many records wait for each view.
	Views map[string]int64
}

// found is a segment that recovery looks at.
type found struct {
	seg    *segment
	name   string
	header segmentHeader
	whole  bool // a copy of the header is intact
	half   bool // and only one
	torn   bool // neither, in the newest segment, which may have been cut while it was made
	noKey  bool // nothing says the key of the log
	size   int64
	acks   bool // there is a file of acknowledgements
	limit  uint64
}

// Open opens the log in the directory, which is made if it is missing. It does
// not fail because of what the files hold: damage is stepped over and reported.
// Only one process may have a log open; it is the caller who sees to that.
func Open(dir string, o Options) (*Log, *Recovered, error) {
	l := newLog(dir, o)
	if err := l.fs.MkdirAll(dir); err != nil {
		return nil, nil, l.wrap(err)
	}
	rec := new(Recovered)
	err := l.recover(rec, o.Replay, o.Restore)
	if err == nil && l.o.Durable {
		err = l.settle()
	}
	if err != nil {
		return nil, nil, l.failure(err)
	}
	l.tidy()
	l.summary(rec)
	return l, rec, nil
}

// summary says what waits.
func (l *Log) summary(rec *Recovered) {
	rec.Last, rec.Waiting = l.valid, l.waiting
	for _, v := range l.views {
		if rec.Views == nil {
			rec.Views = map[string]int64{}
		}
		rec.Views[v.name] = v.waiting
	}
	for _, seg := range l.segs {
		rec.Bytes += seg.size + seg.acked
		if rec.First == 0 && len(seg.live) > 0 {
			rec.First = seg.live[0].First
		}
	}
}

// parseName returns the number and suffix of a file of a log, "" for another.
func parseName(name string) (number uint64, suffix string) {
	digits, rest, _ := strings.Cut(name, ".")
	number, err := strconv.ParseUint(digits, 10, 63)
	rest = "." + rest
	if err != nil || number == 0 || fmt.Sprintf("%010d", number) != digits ||
		rest != logSuffix && rest != ackSuffix && rest != badSuffix {
		return 0, ""
	}
	return number, rest
}

func (l *Log) join(name string) string { return filepath.Join(l.dir, name) }

// recover reads all files and makes the segments from them. It changes nothing
// on the disk.
func (l *Log) recover(rec *Recovered, replay func(Record, bool), restore func([]byte)) error {
	all, err := l.list(rec)
	if err != nil {
		return err
	}
	l.guessing = true
	newest := len(all) - 1
	for newest > 0 && !all[newest].whole {
		newest-- // one without a header proves nothing about those before it
	}
	for i, f := range all {
		if err := l.load(f, rec, i >= newest, replay, restore); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if l.shared {
		l.shareOut()
	}
	for _, seg := range l.segs {
		l.waiting += seg.live.count()
		if len(seg.live) > 0 {
			seg.charged = seg.size
			l.quota.Add(seg.charged)
		}
	}
	l.last, l.committed = l.valid, l.valid
	return nil
}

// list finds the segments and reads their headers.
func (l *Log) list(rec *Recovered) ([]*found, error) {
	names, err := l.fs.Names(l.dir)
	if err != nil {
		return nil, err
	}
	var all []*found
	acks := map[uint64]bool{}
	for _, name := range names {
		number, suffix := parseName(name)
		switch suffix {
		case logSuffix:
			all = append(all, &found{name: l.join(name), seg: &segment{number: number}})
		case ackSuffix:
			acks[number] = true
		}
		if suffix != "" {
			l.number = max(l.number, number+1)
		}
	}
	slices.SortFunc(all, func(a, b *found) int {
		if a.seg.number < b.seg.number {
			return -1
		}
		return 1
	})
	known := false
	for i, f := range all {
		f.acks = acks[f.seg.number]
		delete(acks, f.seg.number)
		if err := l.readHeader(f, rec, i == len(all)-1); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if f.whole {
			l.epoch, l.key, known = f.header.epoch, f.header.key, true
		}
	}
	for number := range acks {
		l.unlinked = append(l.unlinked, l.path(number, ackSuffix))
	}
	limit := ^uint64(0)
	for _, f := range slices.Backward(all) {
		f.limit = limit
		f.seg.key = l.key
		if f.whole {
			f.seg.key = f.header.key
			limit = min(limit, f.header.prev)
		}
	}
	if !known {
		return all, l.withoutKey(all)
	}
	return all, nil
}

// withoutKey looks for the key of a log without a header, without which there is
// no record. If none is found this log was cut off while it was made, or nothing
// of it can be read.
func (l *Log) withoutKey(all []*found) error {
	for _, f := range all {
		key, ok, err := l.lostKey(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if ok {
			l.key = key
			for _, f := range all {
				f.seg.key = key
			}
			return nil
		}
	}
	for _, f := range all {
		f.limit, f.noKey = 0, true
	}
	return nil
}

// lostKey is findKey for a file.
func (l *Log) lostKey(f *found) (key uint64, ok bool, err error) {
	file, err := l.fs.Open(f.name)
	if err != nil {
		return 0, false, err
	}
	defer file.Close()
	s := scanner{r: file, size: f.size, window: window}
	key, ok = findKey(&s, f.seg.number)
	return key, ok, s.err
}

// readHeader reads the header of a segment from either copy.
func (l *Log) readHeader(f *found, rec *Recovered, newest bool) error {
	file, err := l.fs.Open(f.name)
	if err != nil {
		return err
	}
	defer file.Close()
	if f.size, err = file.Size(); err != nil {
		return err
	}
	s := scanner{r: file, size: min(f.size, segmentHead), window: segmentHead}
	b := s.bytes(0, segmentHead)
	if s.err != nil {
		return s.err
	}
	var bad []hole
	for i := range int64(2) {
		h, ok := parseHeader(b[min(i*headerCopy, int64(len(b))):])
		if ok && h.number == f.seg.number {
			f.header, f.whole = h, true
		} else {
			bad = append(bad, hole{i * headerCopy, (i + 1) * headerCopy, Damaged})
		}
	}
	if !f.whole && newest {
		f.torn = true // load says what that means
		return nil
	}
	f.half = f.whole && len(bad) > 0
	for _, h := range bad {
		rec.damage(f.name, h)
	}
	return nil
}

func (rec *Recovered) damage(name string, h hole) {
	rec.Damage = append(rec.Damage, Damage{File: name, Offset: h.off, Bytes: h.end - h.off, Kind: h.why})
}

// load reads the records of a segment.
func (l *Log) load(f *found, rec *Recovered, newest bool, replay func(Record, bool), restore func([]byte)) error {
	file, err := l.fs.Open(f.name)
	if err != nil {
		return err
	}
	defer file.Close()
	seg := f.seg
	s := scanner{r: file, size: f.size, seal: seal(seg.key, seg.number), window: window}
	var entries []entry
	var synced int64 // what the last mark says
	holes := s.scan(segmentHead, func(e entry) {
		if e.kind == kindMark && len(e.body) == 8 {
			synced = max(synced, int64(le.Uint64(e.body)))
		}
		entries = append(entries, e)
	})
	if s.err != nil {
		return s.err
	}
	cut := f.size
	gap := newest && l.o.Durable && f.header.flags&notSynced == 0
	if gap && !f.whole && synced == 0 {
		cut = 0
	}
	// A header that is missing is what a crash leaves while a segment is made,
	// unless something in it was durable; without a key nobody can tell.
	lost := !f.whole && (!f.torn || synced > 0 || f.noKey && len(holes) > 0)
	if f.torn {
		why := Torn
		if lost {
			why = Damaged
		}
		rec.damage(f.name, hole{0, min(f.size, segmentHead), why})
	}
	message := slices.ContainsFunc(entries, func(e entry) bool { return e.kind == kindMessage })
	seg.damaged = f.half || lost && len(entries)+len(holes) > 0 || !f.whole && message
	for _, h := range holes {
		if f.noKey {
			h.why = Damaged
		}
		if gap && h.off >= synced && h.off < cut {
			cut = h.off
		}
		if h.off <= cut || h.why != Damaged || f.noKey {
			rec.damage(f.name, h)
			seg.damaged = seg.damaged || h.why != Torn
		}
	}
	if i := slices.IndexFunc(entries, func(e entry) bool { return e.off >= cut }); i >= 0 {
		rec.damage(f.name, hole{cut, f.size, Dropped})
		entries = entries[:i]
	}
	if f.whole {
		l.valid = max(l.valid, f.header.prev)
	}
	seg.size = max(f.size, segmentHead)
	// What older segments say may go only when this one has it too.
	has := func(kind uint8) bool {
		return slices.ContainsFunc(entries, func(e entry) bool { return e.kind == kind })
	}
	state := (l.o.State == nil || has(kindState)) && (!l.shared || has(kindViews))
	seg.synced, seg.durable, seg.sealed = seg.size, f.whole && state, true
	messages := entries[:0]
	for _, e := range entries {
		switch {
		case e.seq > f.limit:
			continue
		case e.kind == kindState || e.kind == kindMark:
			// The sequence of a record that is damaged now is not used again.
			l.valid = max(l.valid, e.seq)
		case e.kind == kindViews:
			l.shared = true
			l.readViews(e.body)
		case e.kind != kindMessage || e.seq <= l.valid:
			continue
		default:
			l.valid = e.seq
			if seg.first == 0 {
				seg.first = e.seq
			}
			seg.last = e.seq
			seg.live.push(e.seq)
		}
		messages = append(messages, e)
	}
	if f.acks {
		if err := l.loadAcks(seg, rec); err != nil {
			return err
		}
	}
	for _, e := range messages {
		if e.kind == kindMessage && len(seg.live) > 0 && e.seq >= seg.live[0].First {
			seg.index = addPoint(seg.index, point{e.seq, e.off, e.time})
		}
		switch {
		case e.kind == kindState && restore != nil:
			restore(e.body)
		case e.kind == kindMessage && replay != nil:
			replay(Record{Seq: e.seq, Time: e.time, Flags: e.flags, Meta: e.body,
				Size: e.length - e.meta, Note: l.notes[e.seq]}, !seg.live.has(e.seq))
		}
	}
	l.segs = append(l.segs, seg)
	return nil
}

// loadAcks reads what has become of the records of a segment.
func (l *Log) loadAcks(seg *segment, rec *Recovered) error {
	name := l.path(seg.number, ackSuffix)
	file, err := l.fs.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	s := scanner{r: file, size: size, seal: seal(seg.key, seg.number|ofAcks), window: window}
	holes := s.scan(0, func(e entry) {
		switch e.kind {
		case kindAck:
			for b := e.body; len(b) >= 16; b = b[16:] {
				r := Range{le.Uint64(b), le.Uint64(b[8:])}
				switch {
				case r.First > r.Last:
				case e.seq > 0: // one view's
					if seg.found == nil {
						seg.found = map[uint64]set{}
					}
					s := seg.found[e.seq]
					s.add(r)
					seg.found[e.seq] = s
				default:
					seg.live.remove(r)
				}
			}
		case kindNote:
			if seg.live.has(e.seq) {
				l.notes[e.seq] = e.body
			}
		}
	})
	for _, h := range holes {
		rec.damage(name, h)
	}
	for seq := range l.notes {
		if seq >= seg.first && seq <= seg.last && !seg.live.has(seq) {
			delete(l.notes, seq)
		}
	}
	seg.acks, seg.acked = true, size
	return s.err
}

// settle makes what was found durable: after a kill it may be in memory only,
// and its owner is about to rely on it.
func (l *Log) settle() error {
	if len(l.segs) == 0 {
		return nil
	}
	file, err := l.fs.Open(l.path(l.segs[len(l.segs)-1].number, logSuffix))
	if err != nil {
		return err
	}
	err = file.Sync()
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	if err := l.syncDir(); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return nil
}
