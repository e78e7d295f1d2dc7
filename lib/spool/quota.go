package spool

import "sync/atomic"

// A Quota bounds the bytes that several logs use on disk together. Its methods
// may be called from any goroutine.
type Quota struct {
	limit, used atomic.Int64

	// Constant from the first use on.
	total *Quota
	room  func(n int64) bool
}

// NewQuota returns a quota of limit bytes; 0 or less is no bound.
func NewQuota(limit int64) *Quota {
	q := new(Quota)
	q.SetLimit(limit)
	return q
}

// Within makes all that q uses count for total as well. It is called before q is
// used.
func (q *Quota) Within(total *Quota) { q.total = total }

// Reserve makes room be asked before n more bytes are used: when it says no,
// what is left of the disk is kept for others, and Append fails with ErrNoSpace.
// It is called before q is used.
func (q *Quota) Reserve(room func(n int64) bool) { q.room = room }

// SetLimit changes the bound. What is used already stays.
func (q *Quota) SetLimit(limit int64) { q.limit.Store(limit) }

// Limit returns the bound in bytes; 0 or less is none.
func (q *Quota) Limit() int64 { return q.limit.Load() }

// Used returns the bytes of the segments that hold a record which is not
// acknowledged.
func (q *Quota) Used() int64 { return q.used.Load() }

// Take uses n more bytes, of a log or of something else beside it, unless that
// would be too many: then it returns ErrFull, or ErrTotal or ErrNoSpace when
// others have used them.
func (q *Quota) Take(n int64) error {
	if err := q.hold(n); err != nil {
		return err
	}
	err := q.within(n)
	if err != nil {
		q.used.Add(-n)
	}
	return err
}

// hold is Take for what the log of a view uses already of what there is for all.
func (q *Quota) hold(n int64) error {
	for {
		limit, used := q.limit.Load(), q.used.Load()
		if limit > 0 && used+n > limit {
			return ErrFull
		}
		if q.used.CompareAndSwap(used, used+n) {
			return nil
		}
	}
}

// within uses n more bytes of what there is for all.
func (q *Quota) within(n int64) error {
	if q.room != nil && !q.room(n) {
		return ErrNoSpace
	}
	if q.total == nil {
		return nil
	}
	err := q.total.Take(n)
	if err == ErrFull {
		err = ErrTotal
	}
	return err
}

// held is Add for what hold has taken.
func (q *Quota) held(n int64) { q.used.Add(n) }

// Add uses n bytes whatever the bound is, or gives them back when n is negative.
func (q *Quota) Add(n int64) {
	if q.used.Add(n); q.total != nil {
		q.total.Add(n)
	}
}
