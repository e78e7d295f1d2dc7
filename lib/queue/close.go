package queue

import (
	"errors"
	"fmt"
	"time"

	"aioc/lib/spool"
)

// Close refuses further puts. What waits stays on disk, as far as there is a
// store, and is discarded otherwise; it returns how many messages were
// discarded. What takers have in hand and is in memory only is discarded when
// they give it back. Notes of what waits are told ErrClosed. Takers get nothing
// more.
func (q *Queue) Close() (discarded int) {
	q.mu.Lock()
	if q.closing {
		q.unlock()
		return 0
	}
	q.closing = true
	lanes := q.lanes
	q.unlock()
	for _, l := range lanes {
		l.save()
	}
	q.mu.Lock()
	discarded = q.shut()
	q.unlock()
	q.fills.Wait()
	for _, l := range lanes {
		l.closeLog()
	}
	return discarded
}

// save writes to the log what is in memory only. Nothing is put any more.
func (l *lane) save() {
	d, q := l.disk, l.q
	if d == nil {
		return
	}
	d.in.Lock()
	defer d.in.Unlock()
	q.mu.Lock()
	some := d.loose < l.num && len(l.loose()) > 0
	d.busy = some
	q.unlock()
	if !some {
		return
	}
	err := l.open()
	if err == nil {
		if err = l.spill(); err == nil {
			err = d.log.Commit(d.last)
		}
	}
	q.mu.Lock()
	d.busy = false
	q.unlock()
	if err != nil {
		q.store.Failed(l.name, 0, fmt.Errorf("what waits in memory cannot be kept: %w", err))
	}
}

// shut closes the queue. q.mu is held.
func (q *Queue) shut() (discarded int) {
	q.closing, q.closed = true, true
	for _, l := range q.lanes {
		discarded += l.discard()
		if d := l.disk; d != nil {
			for d.fresh.n > 0 {
				it := *d.fresh.at(0)
				d.fresh.drop()
				l.lose(&it)
			}
			l.tellTwice(ErrClosed)
		}
		l.callRoom()
		l.forgot(l.memo) // what is written to the log at the end is there still
	}
	q.stats.Waiting = 0
	q.tellRest()
	q.wake()
	q.checkEmpty()
	return discarded
}

// tellRest tells the notes of messages that are on disk alone. q.mu is held.
func (q *Queue) tellRest() {
	if q.tails == 0 || len(q.notes) == 0 {
		return
	}
	inHand := map[uint64]bool{}
	for t := range q.open {
		for i := range t.hand.n {
			inHand[t.hand.at(i).seq] = true
		}
	}
	for seq := range q.notes {
		if !inHand[seq] {
			q.tell(&item{seq: seq, flags: noted}, ErrClosed)
		}
	}
}

// closeLog ends the use of the log.
func (l *lane) closeLog() {
	d := l.disk
	if d == nil {
		return
	}
	d.in.Lock()
	defer d.in.Unlock()
	l.q.mu.Lock()
	log := d.log
	l.q.unlock()
	if log == nil {
		return
	}
	l.writeAcks()
	if err := log.PutState(); err != nil {
		l.q.store.Failed(l.name, 0, err)
	}
	if err := log.Close(); err != nil {
		l.q.store.Failed(l.name, 0, err)
	}
}

// CloseIfEmpty closes the queue if nothing waits or is in hand and nothing has
// to be remembered, and reports whether it did. If it is only because of ids that
// it did not, again is when to ask once more; otherwise it is 0.
func (q *Queue) CloseIfEmpty() (closed bool, again time.Duration) {
	q.mu.Lock()
	if q.closing || q.stats.Waiting+q.stats.InHand > 0 {
		q.unlock()
		return false, 0
	}
	now := time.Now()
	for _, l := range q.lanes {
		if d := l.disk; d != nil && d.log != nil && d.durable && !d.left {
			q.unlock()
			return false, 0
		}
		l.expireIDs(now)
		again = max(again, l.ids.lasts(now))
	}
	if again > 0 {
		q.unlock()
		return false, again
	}
	q.removeLocked()
	return true, 0
}

// removeLocked closes an empty queue and removes what it has on disk. q.mu is
// held, and released.
func (q *Queue) removeLocked() {
	q.shut()
	lanes := q.lanes
	q.unlock()
	q.fills.Wait()
	for _, l := range lanes {
		if d := l.disk; d != nil && d.log != nil {
			if err := d.log.Remove(); err != nil {
				q.store.Failed(l.name, 0, err)
			}
		}
	}
}

// RemoveIfEmpty is CloseIfEmpty for a queue that was opened and not used yet: it
// also removes logs of durable types, unless they have ids to remember.
func (q *Queue) RemoveIfEmpty() bool {
	q.mu.Lock()
	used := q.closing || q.stats.Waiting+q.stats.InHand > 0 || q.takers > 0
	for _, l := range q.lanes {
		l.expireIDs(time.Now())
		used = used || len(l.ids.when) > 0
	}
	if used {
		q.unlock()
		return false
	}
	q.removeLocked()
	return true
}

// Purge discards what waits on disk, in memory too as far as it is on disk, and
// returns how many messages that were. What takers have in hand stays.
func (q *Queue) Purge() (discarded int) {
	q.mu.Lock()
	defer q.unlock()
	if q.closed {
		return 0
	}
	for _, l := range q.lanes {
		if l.disk != nil && l.disk.log != nil {
			discarded += l.purge()
		}
	}
	q.wake() // who waits for what was on disk learns that it is gone
	q.checkEmpty()
	return discarded
}

// purge is Purge for one lane. q.mu is held.
func (l *lane) purge() (n int) {
	l.soon()
	d, q := l.disk, l.q
	var keep []item
	for {
		it, ok := l.pop(never)
		if !ok {
			break
		}
		num := l.number(&it)
		if num >= d.loose {
			keep = append(keep, it)
			continue
		}
		q.tell(&it, ErrPurged)
		l.acked(num)
		l.release(&it)
		n++
	}
	for _, it := range keep {
		l.back.push(it)
	}
	if d.tail > 0 && d.first <= l.readable() {
		// Those that are not committed yet stay.
		last := l.readable()
		l.tellTail(spool.Range{First: d.first, Last: last}, ErrPurged)
		if rest := l.tailFrom(last + 1); rest < d.tail {
			n += d.tail - rest
			d.acks = append(d.acks, spool.Range{First: d.first, Last: last})
			d.tail, d.first = rest, last+1
			d.gen++
		}
		if d.tail == 0 {
			d.first = never
			q.tails--
		}
		l.ackSoon()
	}
	q.stats.Waiting -= n
	return n
}

// ErrPurged is what the note of a message is told that was discarded by Purge.
var ErrPurged = errors.New("discarded by command")
