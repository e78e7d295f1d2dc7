package queue

import "testing"

func TestWhoGivesUpWaitingForRoomIsForgotten(t *testing.T) {
	q := New(1000, nil, nil)
	mustPut(t, q, "a", message(1, 900))
	for range 1000 {
		q.OnRoom("a", 100, func() { t.Error("called although it was forgotten") })()
	}
	if n := len(q.byType["a"].room); n != 0 {
		t.Errorf("the queue keeps %d who do not wait any more", n)
	}
	room := 0
	forget := q.OnRoom("a", 100, func() { room++ })
	x := q.Taker(nothing, nil)
	take(x, 1)
	x.Done(1, true)
	forget() // called before
	forget()
	if room != 1 {
		t.Errorf("one who waited was called %d times, want once", room)
	}
}

func TestWhoNeedsLittleDoesNotWaitForOneWhoNeedsMuchAndGaveUp(t *testing.T) {
	q := New(1000, nil, nil)
	f := messages(1, 5, 150)
	mustPut(t, q, "a", f...)
	room := 0
	q.OnRoom("a", 100, func() { room++ })
	forget := q.OnRoom("a", 900, func() { t.Error("called although it was forgotten") })
	x := q.Taker(nothing, nil)
	take(x, 5)
	x.Done(4, true)
	if room != 0 {
		t.Errorf("called %d times while there was no room for all", room)
	}
	forget()
	if room != 1 {
		t.Errorf("called %d times, want once", room)
	}
}

// Memory that is short for long must not gather those who ask for more.
func TestALaneAsksForMemoryOnce(t *testing.T) {
	budget := NewBudget(4 * fullBlock)
	other := New(1<<30, budget, nil)
	s := &store{dir: t.TempDir()}
	q := New(1<<20, budget, nil)
	q.Keep(s, nil)
	t.Cleanup(func() { q.Close() })
	mustPut(t, q, "d", messages(1, 100, 4000)...)
	mustCommit(t, q, "d")
	mustPut(t, other, "a", messages(1, 4, fullBlock-1000)...)
	x := newTaker(q)
	got := x.take(t, 1)
	for range 100 {
		x.Taker.Resume("d") // no reason to read, but one to look
		q.mu.Lock()
		q.byType["d"].checkFill()
		q.unlock()
		q.fills.Wait()
	}
	budget.mu.Lock()
	n := len(budget.room)
	budget.mu.Unlock()
	if n > 2 {
		t.Errorf("%d calls wait for memory, want at most one of the log and one of room", n)
	}
	y := newTaker(other)
	y.take(t, 4)
	y.Done(4, true)
	checkIDs(t, append(got, x.finish(t, 99)...), upFrom(1, 100)...)
}
