package queue

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// patience is how long a test waits for what should happen soon.
const patience = 20 * time.Second

// store keeps logs in a directory. Types that begin with "d" are durable.
type store struct {
	dir     string
	quota   *spool.Quota
	fs      spool.FS
	segment int64

	mu     sync.Mutex
	failed []string
	lost   int
}

func (s *store) Durable(typ string) bool { return strings.HasPrefix(typ, "d") }

func (s *store) Open(typ string, state func([]byte) []byte, restore func([]byte), replay func(spool.Record, bool)) (*spool.Log, error) {
	log, _, err := spool.Open(filepath.Join(s.dir, typ), spool.Options{
		Durable: s.Durable(typ), SegmentSize: s.segment, Quota: s.quota, FS: s.fs,
		State: state, Restore: restore, Replay: replay,
	})
	return log, err
}

func (s *store) Failed(typ string, lost int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, fmt.Sprint(typ, ": ", err))
	s.lost += lost
}

func (s *store) failures() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.failed)
}

// onDisk returns a queue with a store, its logs of the types opened.
func onDisk(t *testing.T, s *store, limit int, types ...string) *Queue {
	t.Helper()
	q := New(limit, nil, map[string]int{"d-first": -1})
	q.Keep(s, nil)
	if _, err := q.Open(types); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func mustCommit(t *testing.T, q *Queue, types ...string) {
	t.Helper()
	if err := q.Commit(types...); err != nil {
		t.Fatal(err)
	}
}

// taker takes as a link does, until it is closed.
type taker struct {
	*Taker
	some chan struct{}
	n    uint64
}

func newTaker(q *Queue) *taker {
	x := &taker{some: make(chan struct{}, 1)}
	x.Taker = q.Taker(func() {
		select {
		case x.some <- struct{}{}:
		default:
		}
	}, nil)
	return x
}

// take takes n messages, as they come, and leaves them in hand.
func (x *taker) take(t *testing.T, n int) (ids []uint64) {
	t.Helper()
	end := time.After(patience)
	for len(ids) < n {
		var b wire.Batch
		if x.Take(&b, 1<<30, n-len(ids)) == 0 {
			select {
			case <-x.some:
			case <-end:
				t.Fatalf("took %d messages, want %d", len(ids), n)
			}
		}
		for _, f := range frames(&b) {
			ids = append(ids, idOf(f))
			x.n++
		}
	}
	return ids
}

// finish takes n messages and is done with them.
func (x *taker) finish(t *testing.T, n int) []uint64 {
	t.Helper()
	ids := x.take(t, n)
	x.Done(x.n, true)
	return ids
}

func upFrom(from, n uint64) (ids []uint64) {
	for id := from; id < from+n; id++ {
		ids = append(ids, id)
	}
	return ids
}

func TestADurableMessageIsTakenAfterItsCommitOnly(t *testing.T) {
	s := &store{dir: t.TempDir()}
	q := onDisk(t, s, 1<<20)
	x := newTaker(q)
	mustPut(t, q, "d", messages(1, 3, 20)...)
	checkIDs(t, take(x.Taker, 9))
	mustCommit(t, q, "d")
	checkIDs(t, x.take(t, 3), 1, 2, 3)
	// It stays on disk until it is finished.
	x.DoneOne(2, nil)
	x.Close()
	q.Close()
	q = onDisk(t, s, 1<<20, "d")
	x = newTaker(q)
	checkIDs(t, x.finish(t, 2), 1, 3)
	mustPut(t, q, "d", message(4, 20))
	mustCommit(t, q, "d")
	checkIDs(t, x.finish(t, 1), 4)
	x.Close()
	q.Close()
	q = onDisk(t, s, 1<<20, "d")
	if n := q.Len(); n != 0 {
		t.Errorf("%d messages are left", n)
	}
}

func TestWhatMemoryCannotHoldOverflowsToTheDiskInOrder(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		for _, limit := range []int{1000, 100_000, 1 << 20} {
			s := &store{dir: t.TempDir(), segment: 100_000}
			q := onDisk(t, s, limit)
			x := newTaker(q)
			const n = 5000
			mustPut(t, q, typ, messages(0, n/2-1, 100)...)
			mustCommit(t, q, typ)
			checkIDs(t, x.take(t, 10), upFrom(0, 10)...)
			mustPut(t, q, typ, messages(n/2, n-1, 100)...)
			mustCommit(t, q, typ)
			if b := q.Stats().Bytes; b > limit+10*(100+overhead) {
				t.Errorf("%d bytes in memory, at most %d", b, limit)
			}
			x.Close()
			x = newTaker(q)
			checkIDs(t, x.finish(t, n/3), upFrom(0, n/3)...)
			mustPut(t, q, typ, messages(n, 2*n-1, 100)...)
			mustCommit(t, q, typ)
			for id := uint64(n / 3); id < 2*n; id += 7 {
				k := min(7, 2*n-id)
				checkIDs(t, x.finish(t, int(k)), upFrom(id, k)...)
			}
			if st := q.Stats(); st.Waiting+st.InHand+st.Bytes+st.OnDisk != 0 {
				t.Errorf("at the end: %+v", st)
			}
			if f := s.failures(); len(f) > 0 {
				t.Errorf("failures: %q", f)
			}
		}
	}
}

func TestWhatIsLeftInMemoryIsKeptAtTheEnd(t *testing.T) {
	s := &store{dir: t.TempDir()}
	q := onDisk(t, s, 1<<20)
	x := newTaker(q)
	mustPut(t, q, "a", messages(1, 100, 100)...)
	mustPut(t, q, "b", messages(101, 110, 100)...)
	checkIDs(t, x.take(t, 5), 1, 2, 3, 4, 5)
	x.Done(2, true)
	x.Close()
	if n := q.Close(); n != 0 {
		t.Errorf("%d discarded", n)
	}
	q = onDisk(t, s, 1<<20, "a", "b")
	x = newTaker(q)
	mustPut(t, q, "a", messages(111, 120, 100)...)
	checkIDs(t, x.finish(t, 118), upFrom(3, 118)...)
	if f := s.failures(); len(f) > 0 {
		t.Errorf("failures: %q", f)
	}
}

func TestWhatAPeerSendsAgainIsTakenOnce(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		s := &store{dir: t.TempDir()}
		q := onDisk(t, s, 1<<20)
		one, two := Epoch{1}, Epoch{2}
		put := func(id uint64, n int, from Origin) {
			t.Helper()
			all := slices.Concat(messages(id, id+uint64(n)-1, 50)...)
			if k, err := q.PutExtra(typ, all, &Extra{From: from}); k != len(all) || err != nil {
				t.Fatalf("PutExtra = %d, %v; want %d", k, err, len(all))
			}
			mustCommit(t, q, typ)
		}
		put(1, 3, Origin{"p", one, 1})
		put(101, 3, Origin{"q", two, 1})
		put(2, 4, Origin{"p", one, 2})
		put(1, 2, Origin{"p", one, 1})
		x := newTaker(q)
		checkIDs(t, x.finish(t, 8), 1, 2, 3, 101, 102, 103, 4, 5)
		x.Close()
		if typ == "d" {
			q.Close()
			q = onDisk(t, s, 1<<20, "d")
		}
		put(3, 4, Origin{"p", one, 3})
		put(103, 1, Origin{"q", two, 3})
		put(11, 2, Origin{"p", two, 1}) // a new lane of the same peer
		x = newTaker(q)
		checkIDs(t, x.finish(t, 3), 6, 11, 12)
		if n := q.Len(); n != 0 {
			t.Errorf("type %s: %d are left", typ, n)
		}
	}
}

func TestAnIDIsTakenOnce(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		s := &store{dir: t.TempDir()}
		q := onDisk(t, s, 1<<20)
		put := func(id uint64, name ID) {
			t.Helper()
			f := message(id, 20)
			if k, err := q.PutExtra(typ, f, &Extra{ID: name}); k != len(f) || err != nil {
				t.Fatalf("PutExtra = %d, %v", k, err)
			}
			mustCommit(t, q, typ)
		}
		put(1, ID{1})
		put(2, ID{2})
		put(3, ID{1})
		x := newTaker(q)
		checkIDs(t, x.finish(t, 2), 1, 2)
		x.Close()
		if typ == "d" {
			q.Close()
			q = onDisk(t, s, 1<<20, "d")
		}
		put(4, ID{2})
		put(5, ID{3})
		checkIDs(t, newTaker(q).take(t, 1), 5)
		if n := q.Len(); n != 1 {
			t.Errorf("type %s: %d messages, want 1", typ, n)
		}
	}
}

func TestAnIDIsTakenOnceFromManyAtOnce(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		q := onDisk(t, &store{dir: t.TempDir()}, 1<<20)
		const n, many = 200, 8
		var all sync.WaitGroup
		for range many {
			all.Go(func() {
				for i := range n {
					f := message(uint64(i), 20)
					if k, err := q.PutExtra(typ, f, &Extra{ID: ID{1, byte(i)}}); k != len(f) || err != nil {
						t.Errorf("PutExtra = %d, %v", k, err)
					}
				}
			})
		}
		all.Wait()
		mustCommit(t, q, typ)
		checkIDs(t, newTaker(q).take(t, n), upFrom(0, n)...)
		if st := q.Stats(); st.Put != n || st.Duplicates != n*(many-1) {
			t.Errorf("type %s: %d put, %d duplicates; want %d and %d", typ, st.Put, st.Duplicates, n, n*(many-1))
		}
	}
}

func TestWhoCanWaitDoesSoAsLongAsMemoryIsEmptied(t *testing.T) {
	s := &store{dir: t.TempDir()}
	q := onDisk(t, s, 100_000)
	x := newTaker(q)
	all := messages(0, 9999, 1000)
	next := 0
	put := func() (full bool) {
		t.Helper()
		for next < len(all) {
			if _, err := q.Put("a", all[next]); errors.Is(err, ErrFull) {
				return true
			} else if err != nil {
				t.Fatal(err)
			}
			next++
		}
		return false
	}
	for taken := 0; taken < 2000; {
		if !put() {
			t.Fatal("memory is never full")
		}
		n := next - taken
		checkIDs(t, x.finish(t, n), upFrom(uint64(taken), uint64(n))...)
		taken += n
		roomSoon(t, q, "a")
	}
	if st := q.Stats(); st.DiskBytes > 0 {
		t.Errorf("%d bytes on disk", st.DiskBytes)
	}
	// Now nothing is taken any more.
	for end := time.Now().Add(patience); put(); {
		if time.Now().After(end) {
			t.Fatal("it is not put on disk")
		}
		roomSoon(t, q, "a")
	}
	if st := q.Stats(); st.OnDisk == 0 {
		t.Errorf("%+v", st)
	}
}
