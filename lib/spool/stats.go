package spool

import (
	"math/bits"
	"time"
)

// syncBuckets is how many buckets a histogram of syncs has.
const syncBuckets = 16

// Stats says how a log is.
type Stats struct {
	Bytes    int64 // on disk, of segments and acknowledgements
	Segments int
	Views    int       // of a log that is shared
	Waiting  int64     // records not acknowledged
	Shared   bool      // of a view: Bytes are others' too
	Oldest   time.Time // not after the time of the oldest of them, zero without one

	// Since the log was opened.
	Appended, Acked uint64 // records
	Refused         uint64 // batches
	Lost            uint64 // records that could not be read any more
	Syncs, Failed   uint64

	// SyncTimes counts syncs by how long they took: the first less than 64
	// microseconds, each next one twice as long, the last all beyond.
	SyncTimes [syncBuckets]uint64
	SyncTotal time.Duration // of all of them
}

// SyncBounds returns the upper ends of the counts of SyncTimes but the last.
func SyncBounds() []time.Duration {
	bounds := make([]time.Duration, syncBuckets-1)
	for i := range bounds {
		bounds[i] = 64 * time.Microsecond << i
	}
	return bounds
}

// bucket returns the index in SyncTimes.
func bucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d.Microseconds(), 0))>>6), syncBuckets-1)
}

// Stats returns a snapshot.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.counts
	s.Segments, s.Views = len(l.segs), len(l.views)
	s.Waiting = l.waiting
	for _, seg := range l.segs {
		s.Bytes += seg.size + seg.acked
		if len(seg.live) == 0 || !s.Oldest.IsZero() {
			continue
		}
		s.Oldest = seg.timeOf(seg.live[0].First)
	}
	return s
}

// timeOf returns a time that is not after that of a record, zero if none is known.
func (s *segment) timeOf(seq uint64) time.Time {
	if i := s.before(seq); i >= 0 {
		return time.UnixMilli(s.index[i].time)
	}
	return time.Time{}
}
