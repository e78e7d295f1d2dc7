package queue

import (
	"testing"
	"testing/synctest"
	"time"
)

// agree holds the lanes against the figures of the whole queue.
func agree(t *testing.T, q *Queue) {
	t.Helper()
	s := q.Stats()
	n, bytes := 0, 0
	for _, l := range q.Lanes() {
		n, bytes = n+l.Waiting, bytes+l.Bytes
	}
	if n != s.Waiting || bytes != s.Bytes {
		t.Errorf("the lanes have %d messages and %d bytes, the queue %d and %d", n, bytes, s.Waiting, s.Bytes)
	}
}

func TestLanesSayWhatWaits(t *testing.T) {
	for _, limit := range []int{1000, 1 << 20} {
		q := onDisk(t, &store{dir: t.TempDir(), segment: 100_000}, limit)
		if got := q.Lanes(); len(got) != 0 {
			t.Errorf("an empty queue has %+v", got)
		}
		x := newTaker(q)
		mustPut(t, q, "b", messages(0, 99, 100)...)
		mustPut(t, q, "a", messages(0, 9, 100)...)
		mustPut(t, q, "d", messages(0, 49, 100)...)
		agree(t, q)
		mustCommit(t, q, "d")
		agree(t, q)
		x.take(t, 5)
		agree(t, q)
		got := q.Lanes()
		if len(got) != 3 || got[0].Type != "a" || got[1].Type != "b" || got[2].Type != "d" {
			t.Fatalf("got %+v, want a, b and d", got)
		}
		for _, l := range got {
			if since := time.Since(l.Oldest); since < 0 || since > time.Minute {
				t.Errorf("the oldest of %s is %v old", l.Type, since)
			}
		}
		if l := got[2]; l.Waiting < 45 || l.DiskBytes == 0 {
			t.Errorf("what is durable: %+v", l)
		}
		x.Close()
		agree(t, q)
	}
}

func TestTheOldestThatWaitsInMemoryHasAnAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(1<<30, nil, nil)
		start := time.Now()
		taker := q.Taker(nothing, nil)
		oldest := func() time.Duration { return q.Lanes()[0].Oldest.Sub(start) }
		done := uint64(0)
		finish := func(n int) {
			t.Helper()
			if got := len(take(taker, n)); got != n {
				t.Fatalf("took %d, want %d", got, n)
			}
			for range n {
				done++
				taker.Done(done, true)
			}
		}
		for i := range 3600 { // one a second
			mustPut(t, q, "a", message(uint64(i), 20))
			<-time.After(time.Second)
		}
		if got := oldest(); got != 0 {
			t.Errorf("the first was put after %v", got)
		}
		for _, want := range []time.Duration{1000 * time.Second, 3000 * time.Second, 3500 * time.Second} {
			finish(int(want/time.Second) - int(done))
			if got := oldest(); got > want || got < want-300*time.Second {
				t.Errorf("the next was put after %v, want about %v and not more", got, want)
			}
		}
		if n := len(q.byType["a"].ages); n > mostAges {
			t.Errorf("%d moments are remembered", n)
		}
		finish(100)
		if got := q.Lanes(); len(got) != 0 {
			t.Errorf("nothing is left, and it says %+v", got)
		}
		<-time.After(time.Hour)
		mustPut(t, q, "a", message(1, 20))
		mustPut(t, q, "a", message(2, 20))
		if got := oldest(); got != 2*time.Hour {
			t.Errorf("the next was put after %v, want 2h", got)
		}
		// What is in hand does not wait; given back, it does.
		take(taker, 1)
		agree(t, q)
		taker.Close()
		agree(t, q)
		if got := oldest(); got != 2*time.Hour {
			t.Errorf("given back: %v, want 2h", got)
		}
	})
}
