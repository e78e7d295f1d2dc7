package queue

import (
	"slices"

	"aioc/lib/spool"
)

// checkFill starts to read from the log when memory has little left to give.
// q.mu is held.
func (l *lane) checkFill() {
	d, q := l.disk, l.q
	if d == nil || d.tail == 0 || d.filling || d.stuck || q.closed || q.takers == 0 ||
		l.stocked() || d.first > l.readable() {
		return
	}
	d.filling = true
	q.fills.Go(l.fill)
}

// readable returns the number of the last record that may be read.
func (l *lane) readable() uint64 {
	if l.disk.durable {
		return l.disk.safe
	}
	return l.num - 1
}

// Coming reports, when Take has found nothing, whether messages that are on
// disk alone are about to be read: ready is called when they can be taken, or
// turn out to be gone. What takers have in hand and what is deferred does not
// count, nor what has to wait on disk because of that.
func (t *Taker) Coming() bool {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	return !t.closed && slices.ContainsFunc(t.q.lanes, (*lane).coming)
}

// coming is Coming for one lane. q.mu is held.
func (l *lane) coming() bool {
	if _, ok := l.head(); ok {
		return true // it was read meanwhile
	}
	d := l.disk
	if d == nil || d.tail == 0 || d.first > l.readable() || l.q.closed {
		return false
	}
	return d.filling || len(l.later) == 0 || !l.stocked()
}

// stocked reports whether memory has too much of the lane to read more from
// the log. q.mu is held.
func (l *lane) stocked() bool { return l.bytes-l.hand > l.q.limit/4 }

// fill reads from the log until there is enough in memory.
func (l *lane) fill() {
	d, q := l.disk, l.q
	var page spool.Page
	var r *spool.Reader
	var of journal      // what r reads
	at := uint64(never) // where r is
	defer func() {
		if r != nil {
			_ = r.Close()
		}
	}()
	for more := true; more; {
		q.mu.Lock()
		log, first, last, gen := d.log, d.first, l.readable(), d.gen
		if d.tail == 0 || d.stuck || q.closed || q.takers == 0 || first > last || l.bytes-l.hand > q.limit/2 {
			d.filling = false
			q.unlock()
			return
		}
		q.mu.Unlock()
		l.writeAcks()
		if r != nil && of != log { // another view
			_ = r.Close()
			r = nil
		}
		switch {
		case r == nil:
			r, of = log.Reader(first), log
		case at != first:
			r.Seek(first)
		}
		err := r.Read(&page, readBytes, last)
		at = never
		if k := len(page.Records); k > 0 {
			at = page.Records[k-1].Seq + 1
		}
		q.mu.Lock()
		if gen == d.gen && !q.closed {
			if more = l.filled(&page, last, err); !more {
				d.filling = false
			}
		}
		q.unlock()
	}
}

// filled adds what was read, of records up to last, to memory. It reports
// whether to go on: if not, checkFill is called when there is room. q.mu is held.
func (l *lane) filled(page *spool.Page, last uint64, err error) (more bool) {
	d, q := l.disk, l.q
	defer q.wake() // also when there is nothing: see Coming
	for i := range page.Records {
		r := &page.Records[i]
		m, metaErr := parseMeta(r.Meta)
		if metaErr != nil {
			m = meta{}
		}
		e := slot{to: &l.wait, seq: m.seq, num: r.Seq, note: q.notes[m.seq], fill: true}
		if m.mortal {
			e.flags = mortal
		}
		if n := readTries(r.Note); n > 0 {
			e.flags |= tried
			q.setTries(m.seq, n)
		}
		// One always goes in: others may wait for this lane to go on.
		_, some := l.head()
		e.force = !some
		if _, full := l.put(r.Frame, &e); full != nil {
			d.tailSeq = m.seq
			if l.above(len(r.Frame), &e) {
				return false // until something is taken
			}
			if d.asked {
				return false
			}
			d.asked = !q.budget.onRoom(l.fillAgain)
			return !d.asked
		}
		d.first, d.tailSeq = r.Seq+1, m.seq+1
		d.tail--
		delete(d.noted, r.Seq)
	}
	lost := 0
	for _, r := range page.Lost {
		lost += int(r.Last - r.First + 1)
		l.tellTail(r, errLost)
	}
	switch {
	case err != nil:
		d.stuck = true
		l.retry()
		q.pending = append(q.pending, func() { q.store.Failed(l.name, 0, err) })
	case len(page.Records) == 0 && lost == 0:
		d.first = max(d.first, last+1) // that was all
	}
	if lost = min(lost, d.tail); d.first > d.last {
		lost = d.tail
	}
	if lost > 0 {
		d.tail -= lost
		q.stats.Waiting -= lost
		q.pending = append(q.pending, func() { q.store.Failed(l.name, lost, errLost) })
		q.checkEmpty()
	}
	if d.tail == 0 {
		l.tellTail(spool.Range{Last: never}, errLost)
		d.first = never
		q.tails--
	}
	return true
}

// fillAgain is called by the budget.
func (l *lane) fillAgain() {
	l.q.mu.Lock()
	defer l.q.unlock()
	l.disk.asked = false
	l.checkFill()
}

// unload forgets what is in memory of a lane that nobody takes from: the log
// has it. q.mu is held.
func (l *lane) unload() {
	l.soon()
	d, q := l.disk, l.q
	all := l.back // a heap: the first comes first
	for _, r := range []*ring{&l.wait, &d.fresh} {
		for i := range r.n {
			all = append(all, *r.at(i))
		}
		*r = ring{}
	}
	l.back = nil
	if len(all) == 0 {
		return
	}
	first := all[0]
	if d.tail == 0 {
		q.tails++
	}
	d.first, d.tailSeq = l.number(&first), first.seq
	d.tail += len(all)
	d.gen++
	for i := range all {
		if all[i].flags&noted != 0 {
			d.note(l.number(&all[i]), all[i].seq)
		}
		l.release(&all[i])
	}
}
