package queue

import (
	"slices"
	"strings"
	"time"
)

// LaneStats is what waits of one message type.
type LaneStats struct {
	Type      string
	Waiting   int // messages, without those in takers' hands
	Bytes     int // in memory, with those
	DiskBytes int64
	Oldest    time.Time // not after the oldest that waits was put; zero when none waits or it is not known
}

// Lanes returns a snapshot of the lanes that have something, sorted by type.
func (q *Queue) Lanes() []LaneStats {
	var all []LaneStats
	var logs []journal
	q.mu.Lock()
	for _, l := range q.lanes {
		s := LaneStats{Type: l.name, Waiting: l.waiting(), Bytes: l.bytes}
		if s.Waiting == 0 && s.Bytes == 0 {
			continue
		}
		var log journal
		if l.disk != nil {
			log = l.disk.log
		}
		if first, ok := l.first(); ok && (l.disk == nil || l.disk.loose != never) {
			s.Oldest = l.ages.of(first)
		}
		all, logs = append(all, s), append(logs, log)
	}
	q.mu.Unlock()
	for i, log := range logs { // which may be waiting for q.mu
		if log == nil {
			continue
		}
		s := log.Stats()
		all[i].DiskBytes = s.Bytes
		if t := s.Oldest; !t.IsZero() && (all[i].Oldest.IsZero() || t.Before(all[i].Oldest)) {
			all[i].Oldest = t
		}
	}
	slices.SortFunc(all, func(a, b LaneStats) int { return strings.Compare(a.Type, b.Type) })
	return joined(all)
}

// joined makes one of the two lanes that a type may have: see Topic.
func joined(all []LaneStats) []LaneStats {
	sum := all[:0]
	for _, s := range all {
		k := len(sum) - 1
		if k < 0 || sum[k].Type != s.Type {
			sum = append(sum, s)
			continue
		}
		to := &sum[k]
		to.Waiting, to.Bytes, to.DiskBytes = to.Waiting+s.Waiting, to.Bytes+s.Bytes, to.DiskBytes+s.DiskBytes
		if to.Oldest.IsZero() || !s.Oldest.IsZero() && s.Oldest.Before(to.Oldest) {
			to.Oldest = s.Oldest
		}
	}
	return sum
}

// waiting is how many messages of the lane nobody has in hand. q.mu is held.
func (l *lane) waiting() int {
	n := len(l.back) + len(l.later) + l.wait.n
	if d := l.disk; d != nil {
		n += d.fresh.n + d.tail
	}
	return n
}

// first returns the number of the first message that waits in memory. q.mu is
// held.
func (l *lane) first() (num uint64, ok bool) {
	see := func(it *item) {
		if n := l.number(it); !ok || n < num {
			num, ok = n, true
		}
	}
	if len(l.back) > 0 {
		see(&l.back[0])
	}
	if l.wait.n > 0 {
		see(l.wait.at(0))
	}
	for _, it := range l.later {
		see(&it)
	}
	return num, ok
}

// ages remembers about when the messages of a lane were put into memory: the
// numbers that were next at some moments.
type ages []age

type age struct {
	num uint64
	at  time.Time
}

const (
	mostAges = 64          // moments; of more, every second one is forgotten
	leastAge = time.Second // between two
)

// put notes that a message is put now; alone: there is no other. q.mu is held.
func (a *ages) put(l *lane, num uint64, alone bool) {
	now := time.Now()
	if alone {
		*a = (*a)[:0]
	}
	if n := len(*a); n > 0 {
		// About as far apart as they can be for the time since the first.
		apart := max(leastAge, now.Sub((*a)[0].at)/(mostAges/2))
		if now.Sub((*a)[n-1].at) < apart {
			return
		}
		if n == mostAges {
			a.thin(l)
		}
	}
	*a = append(*a, age{num, now})
}

// thin forgets what is before the first message that waits, or else every second
// moment.
func (a *ages) thin(l *lane) {
	first, ok := l.first()
	if !ok {
		first = l.num
	}
	old := 0
	for old+1 < len(*a) && (*a)[old+1].num <= first {
		old++
	}
	if old >= mostAges/4 {
		*a = slices.Delete(*a, 0, old)
		return
	}
	for i := range mostAges / 2 {
		(*a)[i] = (*a)[2*i]
	}
	*a = (*a)[:mostAges/2]
}

// of returns a moment that is not after message num was put.
func (a ages) of(num uint64) (at time.Time) {
	for _, one := range a {
		if one.num > num {
			break
		}
		at = one.at
	}
	return at
}
