package queue

import (
	"encoding/binary"
	"strconv"
	"time"

	"aioc/lib/wire"
)

// Tried notes that frame number n has been tried so often by now. Whoever
// takes it next is told, by the key tries of its header; after a restart too if
// the message is on disk.
func (t *Taker) Tried(n uint64, tries int) {
	q := t.q
	q.mu.Lock()
	defer q.unlock()
	it := t.numbered(n)
	if it == nil {
		return
	}
	it.flags |= tried
	q.setTries(it.seq, tries)
	l := q.blocks[it.blk].lane
	if d := l.disk; d != nil && d.log != nil && l.number(it) < d.loose {
		num, log := l.number(it), d.log
		q.pending = append(q.pending, func() {
			// Lost, it only means that counting starts again.
			_ = log.Note(num, binary.AppendUvarint(nil, uint64(tries)))
		})
	}
}

// Defer puts frame number n back where it came from, but so that it is not
// taken before a time is over. Others are not held up by it.
func (t *Taker) Defer(n uint64, d time.Duration) bool {
	q := t.q
	q.mu.Lock()
	defer q.unlock()
	it := t.numbered(n)
	if it == nil {
		return false
	}
	l := q.blocks[it.blk].lane
	back := *it
	it.flags = finished
	t.left--
	t.pop()
	wait := 1
	switch {
	case q.closed || d <= 0 || back.flags&orphan != 0:
		wait = l.giveBack(back)
	default:
		l.hand -= int(back.n) + overhead
		if l.later == nil {
			l.later = map[uint64]item{}
		}
		l.later[back.seq] = back
		time.AfterFunc(d, func() { l.again(back.seq) })
	}
	q.returned(1, wait)
	return true
}

// again lets a message that was deferred be taken.
func (l *lane) again(seq uint64) {
	l.q.mu.Lock()
	defer l.q.unlock()
	it, ok := l.later[seq]
	if !ok {
		return // the queue was closed, or the log alone has it now
	}
	delete(l.later, seq)
	l.back.push(it)
	l.q.wake()
}

// soon ends all that is deferred. q.mu is held.
func (l *lane) soon() {
	for seq, it := range l.later {
		delete(l.later, seq)
		l.back.push(it)
	}
}

// Frame returns a copy of frame number n, nil when it is not in hand.
func (t *Taker) Frame(n uint64) []byte {
	t.q.mu.Lock()
	defer t.q.mu.Unlock()
	it := t.numbered(n)
	if it == nil {
		return nil
	}
	return append([]byte(nil), t.q.frame(it)...)
}

// setTries keeps how often a message was tried. q.mu is held.
func (q *Queue) setTries(seq uint64, n int) {
	if q.tries == nil {
		q.tries = map[uint64]int{}
	}
	q.tries[seq] = n
}

// readTries reads the note of a record.
func readTries(note []byte) int {
	n, size := binary.Uvarint(note)
	if size <= 0 || n > 1<<30 {
		return 0
	}
	return int(n)
}

// withTries returns a frame with the key tries in its header.
func withTries(frame []byte, n int) []byte {
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return frame
	}
	header := wire.AppendEdited(nil, f.Header.Raw, wire.Edit{Key: "tries", Value: strconv.AppendInt(nil, int64(n), 10)})
	out, err := wire.AppendFrame(nil, header, f.Data, f.Binary)
	if err != nil {
		return frame
	}
	return out
}
