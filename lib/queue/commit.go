package queue

import (
	"errors"
	"fmt"
	"time"

	"aioc/lib/spool"
)

// Commit waits until all messages of the types that were put before are safe,
// as far as they have to be, and lets them be taken. With an error some of
// them were lost, and will not be. Of what others have found out to be lost
// before, it says nothing: see CommitSince.
func (q *Queue) Commit(types ...string) error {
	var few [4]Written
	written := few[:0]
	for _, name := range types {
		written = append(written, Written{Type: name})
	}
	return q.CommitSince(written...)
}

// Written is what has to be committed: messages of a type, from the put on whose
// Extra got this Round.
type Written struct {
	Type  string
	Round uint64 // 0: what is there now
}

// errLostBefore is the error for those who commit what another's commit has
// lost.
var errLostBefore = errors.New("a sync failed after it was put")

// began notes in which round something was put, or known. Who commits it later
// would not see that somebody else's commit has lost it. q.mu is held.
func (l *lane) began(x *Extra) {
	if d := l.disk; d != nil && d.durable && x.Round == 0 {
		x.Round = d.round
	}
}

// CommitSince is Commit with an error, too, when something was lost since it was
// put, whoever committed it.
func (q *Queue) CommitSince(written ...Written) error {
	var failed error
	var few [4]*lane
	lanes := few[:0]
	q.mu.Lock()
	for _, w := range written {
		l := q.byType[w.Type]
		if l == nil || l.disk == nil || !l.disk.durable {
			continue
		}
		if w.Round != 0 && w.Round != l.disk.round {
			failed = fmt.Errorf("%w: type %s: %w", ErrDisk, l.name, errLostBefore)
		}
		if l.disk.log != nil {
			lanes = append(lanes, l)
		}
	}
	q.mu.Unlock()
	// What arrived in order on several lanes becomes free to take at once.
	type outcome struct {
		upTo, safe uint64
		err        error
	}
	var fewer [4]outcome
	outcomes := fewer[:0]
	for _, l := range lanes {
		q.mu.Lock()
		o := outcome{upTo: l.disk.last, safe: l.disk.safe}
		log := l.disk.log
		q.mu.Unlock()
		if o.upTo > o.safe {
			o.err = log.Commit(o.upTo)
			o.safe = log.Committed()
		}
		outcomes = append(outcomes, o)
	}
	q.mu.Lock()
	defer q.unlock()
	for i, l := range lanes {
		o := outcomes[i]
		if o.err != nil {
			failed = fmt.Errorf("%w: type %s: %w", ErrDisk, l.name, o.err)
			l.lostCommit(o.safe, o.upTo, o.err)
		}
		l.committed(o.safe)
	}
	return failed
}

// committed lets the messages up to safe be taken. The log may have more of them
// than the lane knows of yet: who put those commits them too. q.mu is held.
func (l *lane) committed(safe uint64) {
	d := l.disk
	if safe = min(safe, d.last); safe <= d.safe {
		return
	}
	if d.safe = safe; d.view == nil {
		d.refused = nil
	}
	if l.hubOf != nil {
		l.q.pending = append(l.q.pending, l.hubOf.tell)
	}
	for d.fresh.n > 0 && l.number(d.fresh.at(0)) <= safe {
		*l.wait.push() = *d.fresh.at(0)
		d.fresh.drop()
	}
	l.sure(safe)
	l.q.wake()
	l.checkFill()
}

// lostCommit drops the messages above safe up to upTo, which did not reach the
// disk. q.mu is held.
func (l *lane) lostCommit(safe, upTo uint64, err error) {
	d, q := l.disk, l.q
	l.committed(safe)
	if safe = d.safe; upTo <= safe {
		return // others have seen to it
	}
	d.refused, d.when = err, time.Now()
	if t := l.hubOf; t != nil {
		t.losses = append(t.losses, loss{safe, upTo, err})
		q.pending = append(q.pending, t.tell)
	}
	lost := 0
	for d.fresh.n > 0 && l.number(d.fresh.at(0)) <= upTo {
		it := *d.fresh.at(0)
		d.fresh.drop()
		q.tell(&it, err)
		l.release(&it)
		lost++
	}
	if from := max(d.first, safe+1); d.tail > 0 && from <= upTo {
		l.tellTail(spool.Range{First: from, Last: upTo}, err)
		n := min(d.tail, int(upTo-from+1))
		if d.view != nil {
			n = d.tail - l.tailFrom(d.first)
		}
		d.tail -= n
		lost += n
		if d.tail == 0 {
			d.first = never
			q.tails--
			q.wake()
		}
	}
	q.stats.Waiting -= lost
	d.safe = max(d.safe, upTo)
	d.round++
	l.lostMarks(err)
	d.acks = append(d.acks, spool.Range{First: safe + 1, Last: upTo})
	l.ackSoon()
	q.pending = append(q.pending, func() { q.store.Failed(l.name, lost, err) })
	q.checkEmpty()
}

// acked notes that a message of the log is finished. q.mu is held.
func (l *lane) acked(num uint64) {
	d := l.disk
	if k := len(d.acks) - 1; k >= 0 && d.acks[k].Last+1 == num {
		d.acks[k].Last = num
	} else {
		d.acks = append(d.acks, spool.Range{First: num, Last: num})
	}
	l.ackSoon()
}

// ackSoon arranges for the log to hear of what is finished, when q.mu is
// released.
func (l *lane) ackSoon() {
	d := l.disk
	if len(d.acks) > 0 && !d.acking && !d.busy && d.log != nil {
		d.acking = true
		l.q.pending = append(l.q.pending, l.writeAcks)
	}
}

// writeAcks tells the log what is finished.
func (l *lane) writeAcks() {
	d := l.disk
	l.q.mu.Lock()
	d.acking = false
	acks, log := d.acks, d.log
	if !d.busy {
		d.acks = nil
	}
	busy := d.busy
	l.q.mu.Unlock()
	if busy || len(acks) == 0 || log == nil {
		return
	}
	if err := log.Ack(acks...); err != nil && !errors.Is(err, spool.ErrClosed) {
		l.q.store.Failed(l.name, 0, fmt.Errorf("what is done with may come again after a restart: %w", err))
	}
}
