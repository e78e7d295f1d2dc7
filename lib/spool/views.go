package spool

import (
	"encoding/binary"
	"math"
	"slices"
)

// A View is what one of those who share a log has of it: what Share appended for
// it and it has not acknowledged. A segment is removed when all views are done
// with it. A view is known by its name and is there again when the log is opened.
// Its methods may be called from any goroutine.
type View struct {
	l    *Log
	name string

	// Guarded by the log's mu.
	number  uint64 // by which the files know it
	quota   *Quota // nil: nobody has asked for it yet
	in      bool   // what is appended is for it
	ended   bool
	changed bool // it is in Log.changed
	holds   []*hold
	waiting int64
	used    int64 // what the quota counts
	turn    uint64
	lost    uint64

	// While the log is opened.
	from  uint64 // since when it is in
	spans set    // when it was
}

// hold is what a view has of a segment. Guarded by the log's mu.
type hold struct {
	seg     *segment
	live    set   // not acknowledged
	pending set   // acknowledged, and not yet written
	charged int64 // what the quota counts for it
}

// What a record of views says of one.
const (
	viewEnded = iota
	viewOut   // what follows is not for it
	viewIn    // what follows is for it
)

// View returns the view of that name, which is made if there is none: with the
// first Share for it. quota bounds what waits for it: all of each older segment of
// which it has something, and of the newest what came since. It takes the place of
// the one that was given before; nil leaves that.
func (l *Log) View(name string, quota *Quota) *View {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.view(name)
	if v == nil {
		v = l.addView(name)
		l.lastView++
		v.number = l.lastView
	}
	switch {
	case v.quota == nil && quota == nil:
		quota = NewQuota(0)
	case quota == nil || quota == v.quota:
		return v
	case v.quota != nil:
		v.quota.held(-v.used)
	}
	v.quota = quota
	v.quota.held(v.used)
	return v
}

// view returns the view of that name, nil if there is none.
func (l *Log) view(name string) *View { return l.byName[name] }

// addView adds a view without a number.
func (l *Log) addView(name string) *View {
	v := &View{l: l, name: name}
	if l.byName == nil {
		l.byName = map[string]*View{}
	}
	l.views, l.byName[name] = append(l.views, v), v
	return v
}

// Views returns the names of all views.
func (l *Log) Views() (names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.views {
		names = append(names, v.name)
	}
	return names
}

// Share is Append for a log that is shared: the records are for the given views
// only. Those whose quota has no room, or that have ended, are left out and
// returned; when none remains nothing is appended.
func (l *Log) Share(records []Record, views []*View) (left []*View, err error) {
	if len(records) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	var all set
	for i := range records {
		n += recordHead + int64(len(records[i].Meta)+len(records[i].Frame))
		all.push(records[i].Seq)
	}
	l.turn++
	some := false
	for _, v := range views {
		if v.turn == l.turn {
			continue // it is there twice
		}
		if v.ended || v.quota.hold(n) != nil {
			left = append(left, v)
			continue
		}
		v.turn, some = l.turn, true
	}
	if !some {
		return left, nil
	}
	for _, v := range l.views {
		if in := v.turn == l.turn; in != v.in {
			v.in = in
			l.change(v)
		}
	}
	if err := l.append(records); err != nil {
		for _, v := range l.views {
			if v.turn == l.turn {
				v.quota.held(-n)
			}
		}
		return left, err
	}
	for _, v := range l.views {
		if v.turn != l.turn {
			continue
		}
		h := v.hold(l.cur)
		if h == nil {
			h = &hold{seg: l.cur}
			v.holds = append(v.holds, h)
		}
		if len(h.live) == 0 {
			l.cur.holds++
		}
		for _, r := range all {
			h.live.pushRange(r)
		}
		h.charged += n
		v.used += n
		v.waiting += int64(len(records))
	}
	return left, nil
}

// hold returns what the view has of a segment, nil if nothing.
func (v *View) hold(seg *segment) *hold {
	for _, h := range slices.Backward(v.holds) {
		if h.seg == seg {
			return h
		}
	}
	return nil
}

// charge counts n more bytes for the quota.
func (v *View) charge(h *hold, n int64) {
	h.charged += n
	v.used += n
	if v.quota != nil {
		v.quota.held(n)
	}
}

// change arranges for the next write to say what has become of a view.
func (l *Log) change(v *View) {
	if !v.changed {
		v.changed = true
		l.changed = append(l.changed, v)
	}
}

// changesWritten forgets the changes, which are in the file now.
func (l *Log) changesWritten() {
	for _, v := range l.changed {
		v.changed = false
	}
	clear(l.changed)
	l.changed = l.changed[:0]
}

// The forms of a record of views.
const (
	allViews     = 1 // all that there are
	changedViews = 2
)

// viewsBody appends the body of a record of views.
func (l *Log) viewsBody(dst []byte, form byte, views []*View) []byte {
	dst = append(dst, form)
	dst = binary.AppendUvarint(dst, l.lastView)
	for _, v := range views {
		state := byte(viewOut)
		switch {
		case v.ended:
			state = viewEnded
		case v.in:
			state = viewIn
		}
		dst = binary.AppendUvarint(dst, v.number)
		dst = append(dst, state)
		dst = binary.AppendUvarint(dst, uint64(len(v.name)))
		dst = append(dst, v.name...)
	}
	return dst
}

// changesSize is how many bytes appendChanges appends at most.
func (l *Log) changesSize() (n int64) {
	if len(l.changed) == 0 {
		return 0
	}
	n = recordHead + 1 + binary.MaxVarintLen64
	for _, v := range l.changed {
		n += 1 + 2*binary.MaxVarintLen64 + int64(len(v.name))
	}
	return 2 * n
}

// appendViews appends a record of views, to be written at off, twice: what
// damages one of them must not cost a view all that waits for it. Its sequence is
// the least of what may follow it, so that it is void when that is.
func (l *Log) appendViews(dst []byte, seal uint32, off int64, form byte, views []*View) []byte {
	l.viewBuf = l.viewsBody(l.viewBuf[:0], form, views)
	start := len(dst)
	for range 2 {
		dst = appendRecord(dst, seal, off+int64(len(dst)-start), head{kind: kindViews, seq: l.valid + 1}, nil, l.viewBuf)
	}
	return dst
}

// sealed charges the views that have something of a segment for all of it, since
// they keep it from now on. Else one that leaves a message a segment undone would
// make the log grow without bound.
func (l *Log) sealed(seg *segment) {
	for _, v := range l.views {
		if h := v.hold(seg); h != nil && len(h.live) > 0 && h.charged < seg.size {
			v.charge(h, seg.size-h.charged)
		}
	}
}

// remove takes a range out of what waits for the view.
func (v *View) remove(r Range) (n int64) {
	for _, h := range v.holds {
		if h.seg.last < r.First || h.seg.first > r.Last {
			continue
		}
		k := h.live.remove(r)
		if k == 0 {
			continue
		}
		n += k
		h.pending.add(Range{max(r.First, h.seg.first), min(r.Last, h.seg.last)})
		if len(h.live) == 0 {
			v.letGo(h)
		}
	}
	v.waiting -= n
	return n
}

// letGo accounts for a view that has nothing of a segment any more.
func (v *View) letGo(h *hold) {
	v.charge(h, -h.charged)
	if h.seg.holds--; h.seg.holds == 0 {
		v.l.waiting -= h.seg.live.count()
		h.seg.live = nil
		v.l.release(h.seg)
	}
}

// takeBack is remove for records that are not there any more.
func (v *View) takeBack(seg *segment, gone Range) {
	h := v.hold(seg)
	if h == nil {
		return
	}
	n := h.live.remove(gone)
	if v.waiting -= n; n > 0 && len(h.live) == 0 {
		v.letGo(h)
	}
	h.pending.remove(gone)
	v.prune()
}

// prune forgets holds of which nothing is left to do.
func (v *View) prune() {
	v.holds = slices.DeleteFunc(v.holds, func(h *hold) bool {
		return len(h.live) == 0 && (len(h.pending) == 0 || h.seg.gone)
	})
}

// Ack says that the view is done with records: see Log.Ack.
func (v *View) Ack(ranges ...Range) error {
	l := v.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap(ErrClosed)
	}
	if v.ended {
		return nil
	}
	before := l.waiting
	for _, r := range ranges {
		l.counts.Acked += uint64(v.remove(r))
	}
	if l.waiting < before {
		l.tidy()
	}
	return v.writeAcks()
}

// writeAcks writes what is acknowledged and not written.
func (v *View) writeAcks() (first error) {
	for _, h := range v.holds {
		if h.seg.gone {
			continue
		}
		if err := v.l.writeRanges(h.seg, v.number, &h.pending); err != nil && first == nil {
			first = err
		}
	}
	v.prune()
	return first
}

// Note does nothing: nobody tries what is for a view himself.
func (v *View) Note(uint64, []byte) error { return nil }

// End ends the view: what waits for it counts as done. It survives a kill after the
// next Share, PutState or Close. A view of that name that is made later is
// another one.
func (v *View) End() {
	l := v.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if v.ended || l.closed {
		return
	}
	l.end(v)
	l.change(v)
	l.tidy()
}

func (l *Log) end(v *View) {
	v.ended, v.in = true, false
	for _, h := range v.holds {
		if len(h.live) > 0 {
			v.letGo(h)
		}
	}
	v.holds, v.waiting = nil, 0
	delete(l.byName, v.name)
	l.views = slices.DeleteFunc(l.views, func(w *View) bool { return w == v })
}

// Waiting returns how many records wait for the view and the first and the last
// of them.
func (v *View) Waiting() (n int64, first, last uint64) {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	for _, h := range v.holds {
		if k := len(h.live); k > 0 {
			if first == 0 {
				first = h.live[0].First
			}
			last = h.live[k-1].Last
		}
	}
	return v.waiting, first, last
}

// Count returns how many records from sequence from to sequence to wait for the
// view.
func (v *View) Count(from, to uint64) (n int64) {
	v.l.mu.Lock()
	defer v.l.mu.Unlock()
	for _, h := range v.holds {
		h.live.overlap(Range{from, to}, func(r Range) { n += int64(r.Last-r.First) + 1 })
	}
	return n
}

// Reader is Log.Reader for what waits for the view.
func (v *View) Reader(from uint64) *Reader {
	r := v.l.Reader(from)
	r.v = v
	return r
}

// Commit is the log's.
func (v *View) Commit(seq uint64) error { return v.l.Commit(seq) }

// Committed is the log's.
func (v *View) Committed() uint64 { return v.l.Committed() }

// PutState does nothing: the log has the state.
func (v *View) PutState() error { return nil }

// Close does nothing: the log is closed by who opened it.
func (v *View) Close() error { return nil }

// Remove does nothing: that nothing waits for a view does not end it.
func (v *View) Remove() error { return nil }

// Stats is a snapshot of what waits for the view, with the bytes that its quota
// counts. What the log does for all views is in its own.
func (v *View) Stats() Stats {
	l := v.l
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Shared: true, Bytes: v.used, Waiting: v.waiting, Lost: v.lost}
	for _, h := range v.holds {
		if len(h.live) == 0 {
			continue
		}
		if s.Segments++; s.Oldest.IsZero() {
			s.Oldest = h.seg.timeOf(h.live[0].First)
		}
	}
	return s
}

// parseViews reads a record of views and calls each for those in it.
func parseViews(b []byte, each func(number uint64, state byte, name string)) (form byte, last uint64, ok bool) {
	uvarint := func() uint64 {
		n, size := binary.Uvarint(b)
		if ok = ok && size > 0; ok {
			b = b[size:]
		}
		return n
	}
	if len(b) == 0 {
		return 0, 0, false
	}
	form, b, ok = b[0], b[1:], true
	last = uvarint()
	for ok && len(b) > 0 {
		number := uvarint()
		if !ok || len(b) == 0 {
			return form, last, false
		}
		state := b[0]
		b = b[1:]
		n := uvarint()
		if !ok || n > uint64(len(b)) {
			return form, last, false
		}
		each(number, state, string(b[:n]))
		b = b[n:]
	}
	return form, last, ok
}

// readViews applies a record of views that was found behind record l.valid.
func (l *Log) readViews(b []byte) {
	next := l.valid + 1
	there := map[string]bool{}
	form, last, ok := parseViews(b, func(number uint64, state byte, name string) {
		v := l.view(name)
		if state == viewEnded {
			if v != nil && v.number == number {
				l.end(v)
			}
			return
		}
		there[name] = true
		if v == nil {
			v = l.addView(name)
			v.number = number
			if l.guessing && l.valid > 0 && (b[0] == allViews || state == viewOut) {
				// The oldest segment does not say who was there: better to give
				// those who were later what may not be for them than to lose it.
				// Whose change is the first that is known of had the opposite.
				v.spans.add(Range{1, l.valid})
			}
		}
		if v.number != number { // the one of that name has ended
			*v = View{l: l, name: name, number: number}
		}
		if in := state == viewIn; in != v.in {
			if v.in = in; in {
				v.from = next
			} else {
				v.span(l.valid)
			}
		}
	})
	if !ok {
		return // of another version: the next one tells
	}
	l.lastView = max(l.lastView, last)
	if form == allViews {
		l.guessing = false
		for _, v := range slices.Clone(l.views) {
			if !there[v.name] {
				l.end(v)
			}
		}
	}
}

// span notes that the view was in up to record last.
func (v *View) span(last uint64) {
	if v.from <= last {
		v.spans.add(Range{v.from, last})
	}
}

// shareOut makes the holds of the views when all has been read.
func (l *Log) shareOut() {
	numbers := map[uint64]*View{}
	for _, v := range l.views {
		numbers[v.number] = v
		if v.in {
			v.span(math.MaxUint64 - 1)
		}
	}
	for _, seg := range l.segs {
		all := seg.live
		seg.live = nil
		for _, v := range l.views {
			h := &hold{seg: seg}
			for _, r := range v.spans {
				all.overlap(r, func(part Range) { h.live.pushRange(part) })
			}
			for _, r := range seg.found[v.number] {
				h.live.remove(r)
			}
			if len(h.live) == 0 {
				continue
			}
			v.holds = append(v.holds, h)
			v.waiting += h.live.count()
			v.charge(h, seg.size)
			seg.holds++
			for _, r := range h.live {
				seg.live.add(r)
			}
		}
		seg.found = nil
	}
	for _, v := range l.views {
		v.spans = nil
	}
}
