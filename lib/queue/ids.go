package queue

import (
	"slices"
	"time"
)

const (
	// idWindow is for how long, and idMost how many, ids of messages are kept in
	// each lane; fewer when all that is remembered takes too much memory.
	idWindow = 10 * time.Minute
	idMost   = 100_000
	// idBytes and markBytes are what an id and a mark cost, roughly.
	idBytes   = 128
	markBytes = 256
)

// remembers takes n bytes to remember something, and reports whether there was
// room. q.mu is held.
func (l *lane) remembers(n int) bool {
	if !l.q.budget.remember(n) {
		return false
	}
	l.memo += n
	return true
}

// forgot gives back what remembers took, as far as it did. q.mu is held.
func (l *lane) forgot(n int) {
	if n = min(n, l.memo); n > 0 {
		l.memo -= n
		l.q.pending = append(l.q.pending, l.q.budget.forget(n)...)
	}
}

// addID remembers an id. Without memory for it the oldest of the lane make room,
// so that no lane makes others forget. q.mu is held.
func (l *lane) addID(id ID, at int64) {
	w := &l.ids
	if _, known := w.when[id]; !known {
		for !l.remembers(idBytes) && w.drop() {
			l.forgot(idBytes)
			l.q.stats.Forgotten++
		}
	}
	w.add(id, at)
	l.expireIDs(time.Now())
}

// expireIDs forgets the ids that are not to be remembered any more. q.mu is held.
func (l *lane) expireIDs(now time.Time) { l.forgot(l.ids.expire(now) * idBytes) }

// newID is an id whose record is not on disk yet.
type newID struct {
	id    ID
	num   uint64
	notes []*Note // of those who have put it again
}

// tell calls the notes.
func (n *newID) tell(q *Queue, err error) {
	for _, note := range n.notes {
		q.pending = append(q.pending, func() { note.Done(err) })
	}
	n.notes = nil
}

// tellTwice ends what twice began, when it is not known any more what is on disk.
// q.mu is held.
func (l *lane) tellTwice(err error) {
	for i := range l.disk.newIDs {
		l.disk.newIDs[i].tell(l.q, err)
	}
	l.disk.newIDs = nil
}

// twice tells the note of a message that was put before that it is done with:
// when the first one is on disk, if it has to be. q.mu is held.
func (l *lane) twice(id ID, note *Note) {
	if note == nil || note.Done == nil {
		return
	}
	if d := l.disk; d != nil {
		for i := range d.newIDs {
			if n := &d.newIDs[i]; n.id == id {
				n.notes = append(n.notes, note)
				return
			}
		}
	}
	l.q.pending = append(l.q.pending, func() { note.Done(nil) })
}

// window remembers ids for a while.
type window struct {
	when  map[ID]int64
	order []ID // from gone on, oldest first
	gone  int
}

func (w *window) has(id ID) bool {
	at, ok := w.when[id]
	return ok && time.Since(time.Unix(at, 0)) < idWindow
}

func (w *window) add(id ID, at int64) {
	if w.when == nil {
		w.when = map[ID]int64{}
	}
	if _, known := w.when[id]; !known {
		w.order = append(w.order, id)
	}
	w.when[id] = at
}

// drop forgets the oldest id and reports whether there was one.
func (w *window) drop() bool {
	for w.gone < len(w.order) {
		id := w.order[w.gone]
		w.gone++
		if _, ok := w.when[id]; ok {
			delete(w.when, id)
			return true
		}
	}
	return false
}

// remove forgets ids and returns how many of them there were.
func (w *window) remove(ids []newID) (n int) {
	if len(ids) == 0 {
		return 0
	}
	before := len(w.when)
	lost := make(map[ID]bool, len(ids))
	for _, n := range ids {
		lost[n.id] = true
		delete(w.when, n.id)
	}
	w.order = slices.DeleteFunc(w.order[w.gone:], func(id ID) bool { return lost[id] })
	w.gone = 0
	return before - len(w.when)
}

// expire forgets the ids that are too old or too many, and returns how many.
func (w *window) expire(now time.Time) (n int) {
	before := len(w.when)
	old := now.Add(-idWindow).Unix()
	for ; w.gone < len(w.order); w.gone++ {
		id := w.order[w.gone]
		if len(w.when) <= idMost && w.when[id] > old {
			break
		}
		delete(w.when, id)
	}
	if w.gone > len(w.order)/2 {
		w.order = append(w.order[:0], w.order[w.gone:]...)
		w.gone = 0
	}
	return before - len(w.when)
}

// lasting returns the ids that are not too old. They are valid until one is added
// or forgotten.
func (w *window) lasting(now time.Time) []ID {
	old := now.Add(-idWindow).Unix()
	first := w.gone
	for first < len(w.order) && w.when[w.order[first]] <= old {
		first++
	}
	return w.order[first:]
}

// lasts returns for how long there are ids to remember, 0 if there are none. It
// is called after expire.
func (w *window) lasts(now time.Time) time.Duration {
	if len(w.when) == 0 {
		return 0
	}
	last := time.Unix(w.when[w.order[len(w.order)-1]], 0)
	// No longer than the window, should the clock have been put back.
	return min(max(last.Add(idWindow).Sub(now), 0), idWindow) + time.Second
}
