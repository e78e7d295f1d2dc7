package spool

import "sync/atomic"

// A Quota bounds the bytes that several logs use on disk together. Its methods
// may be called from any goroutine.
type Quota struct{ limit, used atomic.Int64 }

// NewQuota returns a quota of limit bytes; 0 or less is no bound.
func NewQuota(limit int64) *Quota {
	q := new(Quota)
	q.SetLimit(limit)
	return q
}

// SetLimit changes the bound. What is used already stays.
func (q *Quota) SetLimit(limit int64) { q.limit.Store(limit) }

// Limit returns the bound in bytes; 0 or less is none.
func (q *Quota) Limit() int64 { return q.limit.Load() }

// Used returns the bytes of the segments that hold a record which is not
// acknowledged.
func (q *Quota) Used() int64 { return q.used.Load() }

// Take uses n more bytes, of a log or of something else beside it, unless that
// would be too many, and reports whether it did.
func (q *Quota) Take(n int64) bool {
	for {
		limit, used := q.limit.Load(), q.used.Load()
		if limit > 0 && used+n > limit {
			return false
		}
		if q.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// Add uses n bytes whatever the bound is, or gives them back when n is negative.
func (q *Quota) Add(n int64) { q.used.Add(n) }
