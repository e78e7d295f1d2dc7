package spool

import (
	"sort"
	"time"
)

// point says where a record is, and when it was put.
type point struct {
	seq  uint64
	off  int64
	time int64 // Unix ms
}

const (
	pointBytes = 64 << 10                 // the most between two points, but for a larger record
	pointTime  = int64(time.Second / 1e6) // the least between two points that are nearer, ms
	pointShare = 32                       // of the time since the first point
)

// addPoint adds a record to an index, unless one before it is near enough, in
// bytes and in time. How far apart in time two are grows with the time since the
// first: the age of a message that has waited for a day may be an hour off, and
// the index stays small.
func addPoint(index []point, p point) []point {
	if k := len(index) - 1; k >= 0 {
		apart := max(pointTime, (p.time-index[0].time)/pointShare)
		since := p.time - index[k].time
		if p.off < index[k].off+pointBytes && since < apart && since > -apart { // a clock may go back
			return index
		}
	}
	return append(index, p)
}

// waitingIndex returns the index without what is before the first record that
// waits. Without that, a log that was emptied would tell the age of what has
// long gone. The index itself stays as it is.
func (s *segment) waitingIndex() []point {
	if len(s.live) == 0 {
		return s.index[len(s.index):]
	}
	return s.index[max(s.before(s.live[0].First), 0):]
}

// before returns the index of the last point at or before seq, -1 without one.
func (s *segment) before(seq uint64) int {
	return sort.Search(len(s.index), func(i int) bool { return s.index[i].seq > seq }) - 1
}
