package queue

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

func mustPut(t *testing.T, q *Queue, typ string, frames ...[]byte) {
	t.Helper()
	all := slices.Concat(frames...)
	if n, err := q.PutExtra(typ, all, &Extra{Now: true}); n != len(all) || err != nil {
		t.Fatalf("Put = %d, %v; want %d", n, err, len(all))
	}
}

func messages(from, to uint64, size int) (all [][]byte) {
	for id := from; id <= to; id++ {
		all = append(all, message(id, size))
	}
	return all
}

func take(t *Taker, count int) (ids []uint64) {
	var b wire.Batch
	t.Take(&b, 1<<30, count)
	for _, f := range frames(&b) {
		ids = append(ids, idOf(f))
	}
	return ids
}

func nothing() {}

func checkIDs(t *testing.T, got []uint64, want ...uint64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestSmallerPrioritiesGoFirstThenTheOrderOfArrival(t *testing.T) {
	q := New(1<<20, nil, map[string]int{"first": -1, "last": 9})
	for id, typ := range []string{"last", "a", "b", "first", "a", "last", "first", "b"} {
		mustPut(t, q, typ, message(uint64(id), 20))
	}
	checkIDs(t, take(q.Taker(nothing, nil), 100), 3, 6, 1, 2, 4, 7, 0, 5)
}

func TestWhatIsReturnedKeepsItsPlace(t *testing.T) {
	q := New(1<<20, nil, nil)
	mustPut(t, q, "a", messages(1, 10, 20)...)
	x, y := q.Taker(nothing, nil), q.Taker(nothing, nil)
	checkIDs(t, take(x, 3), 1, 2, 3)
	checkIDs(t, take(y, 3), 4, 5, 6)
	y.Return(2, false)
	x.Return(3, false)
	x.Return(1, false)
	checkIDs(t, take(y, 2), 1, 3)
	x.Close()
	y.Close()
	checkIDs(t, take(q.Taker(nothing, nil), 100), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
}

func TestAParkedTypeWaitsForResumeOrAnotherTaker(t *testing.T) {
	q := New(1<<20, nil, nil)
	mustPut(t, q, "a", message(1, 20))
	mustPut(t, q, "b", message(2, 20))
	mustPut(t, q, "a", message(3, 20))
	calls := 0
	x := q.Taker(func() { calls++ }, nil)
	checkIDs(t, take(x, 1), 1)
	if got := x.Return(1, true); got != "a" {
		t.Errorf("Return = %q, want a", got)
	}
	checkIDs(t, take(x, 9), 2)
	checkIDs(t, take(x, 9))
	x.Resume("a")
	if calls != 1 {
		t.Errorf("Resume made %d calls of ready, want 1", calls)
	}
	checkIDs(t, take(x, 9), 1, 3)
	x.Return(3, true)
	checkIDs(t, take(q.Taker(nothing, nil), 9), 1)
}

func TestAFrameBiggerThanTheLimitIsTakenByAnEmptyLane(t *testing.T) {
	q := New(1000, NewBudget(2000), nil)
	big, small := message(1, 5000), message(2, 20)
	mustPut(t, q, "a", big)
	if n, err := q.Put("a", small); n != 0 || err != ErrFull {
		t.Errorf("Put behind a big frame = %d, %v; want 0, %v", n, err, ErrFull)
	}
	if n, err := q.Put("b", small); n != 0 || err != ErrFull {
		t.Errorf("Put without memory = %d, %v; want 0, %v", n, err, ErrFull)
	}
	room := 0
	q.OnRoom("a", len(small), func() { room++ })
	q.OnRoom("b", len(small), func() { room++ })
	x := q.Taker(nothing, nil)
	checkIDs(t, take(x, 1), 1)
	if room != 0 {
		t.Errorf("OnRoom has called while there is none")
	}
	x.Done(1, true)
	if room != 2 {
		t.Errorf("OnRoom has called %d of 2", room)
	}
	mustPut(t, q, "b", small)
}

func TestAPutIsTakenAsFarAsThereIsRoom(t *testing.T) {
	f := messages(1, 10, 100)
	q := New(4*(len(f[0])+overhead), nil, nil)
	n, err := q.Put("a", slices.Concat(f...))
	if want := 4 * len(f[0]); n != want || err != ErrFull {
		t.Errorf("Put = %d, %v; want %d, %v", n, err, want, ErrFull)
	}
	mustPut(t, q, "b", f[:4]...) // a lane's limit is its own
	if err := q.PutNote("a", f[5], &Note{Done: func(error) { t.Error("told of what was not taken") }}); err != ErrFull {
		t.Errorf("PutNote = %v, want %v", err, ErrFull)
	}
}

func TestAnEmptiedTailIsGivenBackWithTheLastMessage(t *testing.T) {
	budget := NewBudget(1 << 20)
	q := New(1<<20, budget, nil)
	mustPut(t, q, "a", messages(1, 2, 40<<10)...) // two blocks
	x := q.Taker(nothing, nil)
	checkIDs(t, take(x, 2), 1, 2)
	x.DoneOne(2, nil)
	x.DoneOne(1, nil)
	if n := budget.Used(); n != 0 {
		t.Errorf("%d bytes in use by an empty queue", n)
	}
}

// Messages for an end that is away fill the budget nearly; those for another
// end must still go through what is left.
func TestAQueueThatStandsStillDoesNotKeepOthersFromTheRest(t *testing.T) {
	budget := NewBudget(16 * fullBlock)
	away, q := New(1<<30, budget, nil), New(1<<30, budget, nil)
	mustPut(t, away, "a", messages(1, 15, fullBlock)...)
	if got, want := budget.Used(), 15*(fullBlock+1); got < 15*fullBlock || got > want {
		t.Fatalf("%d bytes in use, want about %d", got, want)
	}
	block := messages(16, 16, fullBlock-1000)
	mustPut(t, q, "a", block...)
	if _, err := q.Put("a", message(17, 2000)); err != ErrFull {
		t.Fatalf("Put = %v, want %v", err, ErrFull)
	}
	room := 0
	q.OnRoom("a", 2000, func() { room++ })
	x := q.Taker(nothing, nil)
	take(x, 1)
	x.Done(1, true)
	if room != 1 {
		t.Errorf("there is room, but OnRoom has called %d times", room)
	}
	mustPut(t, q, "a", block...)
}

func TestNotesAreToldOnce(t *testing.T) {
	refused := errors.New("refused")
	for _, c := range []struct {
		name string
		wait bool
		do   func(q *Queue, x *Taker)
		want []error
	}{
		{"nothing happened", false, func(q *Queue, x *Taker) {}, nil},
		{"written", false, func(q *Queue, x *Taker) { x.Done(1, false); x.Done(1, true); x.Close(); q.Close() }, []error{nil}},
		{"written, to be acknowledged", true, func(q *Queue, x *Taker) { x.Done(1, false); x.Done(5, false) }, nil},
		{"acknowledged", true, func(q *Queue, x *Taker) { x.Done(1, false); x.Done(1, true); x.DoneOne(1, refused) }, []error{nil}},
		{"acknowledged alone", true, func(q *Queue, x *Taker) { x.DoneOne(1, nil); x.Done(1, true) }, []error{nil}},
		{"failed", true, func(q *Queue, x *Taker) { x.DoneOne(1, refused); x.DoneOne(1, nil) }, []error{refused}},
		{"returned", false, func(q *Queue, x *Taker) { x.Return(1, false); x.Done(1, true) }, nil},
		{"returned and closed", false, func(q *Queue, x *Taker) { x.Return(1, false); q.Close(); x.Close() }, []error{ErrClosed}},
		{"closed while in hand", false, func(q *Queue, x *Taker) { q.Close() }, nil},
		{"closed while in hand, then finished", false, func(q *Queue, x *Taker) { q.Close(); x.Done(1, false) }, []error{nil}},
		{"closed while in hand, then returned", false, func(q *Queue, x *Taker) { q.Close(); x.Return(1, false) }, []error{ErrClosed}},
		{"closed while in hand, then the taker", false, func(q *Queue, x *Taker) { q.Close(); x.Close() }, []error{ErrClosed}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told []error
			q := New(1000, nil, nil)
			if err := q.PutNote("a", message(1, 20), &Note{Done: func(err error) { told = append(told, err) }, WaitForAck: c.wait}); err != nil {
				t.Fatal(err)
			}
			x := q.Taker(nothing, nil)
			checkIDs(t, take(x, 1), 1)
			c.do(q, x)
			if !slices.Equal(told, c.want) {
				t.Errorf("told %v, want %v", told, c.want)
			}
		})
	}
}

// What is called may call the queue again: no lock is held.
func TestCallsMayUseTheQueue(t *testing.T) {
	q := New(1000, NewBudget(1000), nil)
	var x *Taker
	calls := 0
	x = q.Taker(func() { calls++; take(x, 1); q.Len() }, nil)
	take(x, 1)
	note := &Note{Done: func(error) { calls++; q.OnEmpty(func() { calls++; q.CloseIfEmpty() }) }}
	if err := q.PutNote("a", message(1, 900), note); err != nil {
		t.Fatal(err)
	}
	q.OnRoom("a", 100, func() { calls++; x.InHand() })
	x.Done(1, true)
	if calls != 4 {
		t.Errorf("%d calls, want 4", calls)
	}
	if _, err := q.Put("a", message(2, 20)); err != ErrClosed {
		t.Errorf("Put = %v, want %v", err, ErrClosed)
	}
}

func closeIfEmpty(q *Queue) bool {
	closed, _ := q.CloseIfEmpty()
	return closed
}

func TestAQueueStaysWhileItKnowsIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := New(1000, nil, nil)
		put := func(id byte) {
			if _, err := q.PutExtra("a", message(1, 20), &Extra{ID: ID{id}}); err != nil {
				t.Fatal(err)
			}
			x := q.Taker(nothing, nil)
			defer x.Close()
			take(x, 1)
			x.Done(1, true)
		}
		put(1)
		time.Sleep(idWindow / 2)
		put(2)
		if closed, again := q.CloseIfEmpty(); closed || again < idWindow || again > idWindow+2*time.Second {
			t.Fatalf("got closed %v, again in %v; want again in %v", closed, again, idWindow)
		}
		time.Sleep(idWindow - 2*time.Second)
		put(2) // known still, and not made younger by that
		if st := q.Stats(); st.Put != 2 || st.Duplicates != 1 {
			t.Errorf("got %+v", st)
		}
		closed, again := q.CloseIfEmpty()
		if closed {
			t.Fatal("closed too early")
		}
		time.Sleep(again)
		if closed, again := q.CloseIfEmpty(); !closed {
			t.Errorf("not closed, again in %v", again)
		}
	})
}

func TestAClosedQueue(t *testing.T) {
	for name, shut := range map[string]func(*Queue) bool{
		"Close":        func(q *Queue) bool { return q.Close() == 0 },
		"CloseIfEmpty": closeIfEmpty,
	} {
		t.Run(name, func(t *testing.T) {
			q := New(1000, nil, nil)
			calls := 0
			x := q.Taker(func() { calls++ }, nil)
			take(x, 1)
			if !shut(q) {
				t.Fatal("did not close, or had something")
			}
			if calls != 1 {
				t.Errorf("%d calls of a waiting taker, want 1", calls)
			}
			q.OnRoom("a", 1<<30, func() { calls++ })
			q.OnEmpty(func() { calls++ })
			if calls != 3 {
				t.Errorf("%d calls, want 3", calls)
			}
			if _, err := q.Put("a", message(1, 20)); err != ErrClosed {
				t.Errorf("Put = %v, want %v", err, ErrClosed)
			}
			if err := q.PutNote("a", message(1, 20), &Note{}); err != ErrClosed {
				t.Errorf("PutNote = %v, want %v", err, ErrClosed)
			}
			if closeIfEmpty(q) || q.Close() != 0 {
				t.Error("it closes again")
			}
		})
	}
}

func TestManyMessagesGoBackOneByOneInAnyOrder(t *testing.T) {
	const n = 1 << 16
	for name, order := range map[string]func(i int) uint64{
		"first to last": func(i int) uint64 { return uint64(i + 1) },
		"last to first": func(i int) uint64 { return uint64(n - i) },
		"all over":      func(i int) uint64 { return uint64(i)*40503%n + 1 },
	} {
		t.Run(name, func(t *testing.T) {
			q := New(1<<30, nil, nil)
			mustPut(t, q, "a", messages(1, n, 20)...)
			x, y := q.Taker(nothing, nil), q.Taker(nothing, nil)
			if got := len(take(x, n)); got != n {
				t.Fatalf("took %d, want %d", got, n)
			}
			for i := range n {
				x.Return(order(i), false)
				if i%100 == 0 { // what is back may be taken in between
					take(y, 1)
					y.Return(y.Numbered(), false)
				}
			}
			for i, id := range take(y, n) {
				if id != uint64(i+1) {
					t.Fatalf("message %d came at place %d", id, i)
				}
			}
		})
	}
}

// A message that waits to be acknowledged does not make each Done look again
// at all that came after it.
func TestDoneGoesOnWhereItWas(t *testing.T) {
	const n = 1 << 16
	q := New(1<<30, nil, nil)
	if err := q.PutNote("a", message(1, 20), &Note{WaitForAck: true}); err != nil {
		t.Fatal(err)
	}
	mustPut(t, q, "a", messages(2, n, 20)...)
	x := q.Taker(nothing, nil)
	take(x, n)
	for i := range uint64(n) {
		want := 1
		if i == 0 {
			want = 0
		}
		if got := x.Done(i+1, false); got != want {
			t.Fatalf("Done(%d) = %d, want %d", i+1, got, want)
		}
	}
	if got := x.Done(n, true); got != 1 || x.InHand() != 0 {
		t.Errorf("Done = %d, %d are left; want 1 and none", got, x.InHand())
	}
}

func TestMessagesAreCarriedWithoutAllocation(t *testing.T) {
	for _, c := range []struct {
		name        string
		size, batch int
	}{
		{"one by one", 100, 1},
		{"many", 100, 1000},
		{"of some KiB", 3000, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := New(64<<20, NewBudget(256<<20), nil)
			all := slices.Concat(messages(1, uint64(c.batch), c.size)...)
			x := q.Taker(nothing, nil)
			var b wire.Batch
			n := testing.AllocsPerRun(100, func() {
				if x.Take(&b, 1<<30, 1) != 0 { // waits, so that the put wakes it
					t.Fatal("took something of nothing")
				}
				if _, err := q.Put("a", all); err != nil {
					t.Fatal(err)
				}
				if got := x.Take(&b, 1<<30, 1<<20); got != c.batch {
					t.Fatalf("took %d, want %d", got, c.batch)
				}
				x.Done(x.Numbered(), true)
				b.Reset()
			})
			// The race detector makes pools forget some of what they keep.
			if limit := float64(c.batch) / 20; n > limit {
				t.Errorf("%v allocations for %d messages", n, c.batch)
			}
		})
	}
}

func BenchmarkPutTakeDone(b *testing.B) {
	for _, c := range []struct{ size, batch int }{{100, 1}, {100, 100}, {1000, 50}, {64 << 10, 1}} {
		b.Run(fmt.Sprintf("%dx%d", c.batch, c.size), func(b *testing.B) {
			q := New(64<<20, NewBudget(256<<20), nil)
			all := slices.Concat(messages(1, uint64(c.batch), c.size)...)
			x := q.Taker(nothing, nil)
			var batch wire.Batch
			b.SetBytes(int64(len(all)))
			b.ReportAllocs()
			for b.Loop() {
				x.Take(&batch, 1<<30, 1)
				if _, err := q.Put("a", all); err != nil {
					b.Fatal(err)
				}
				x.Take(&batch, 1<<30, 1<<20)
				x.Done(x.Numbered(), true)
				batch.Reset()
			}
		})
	}
}

func BenchmarkReturn(b *testing.B) {
	const n = 1 << 16
	all := slices.Concat(messages(1, n, 20)...)
	for b.Loop() {
		q := New(1<<30, nil, nil)
		if _, err := q.Put("a", all); err != nil {
			b.Fatal(err)
		}
		x := q.Taker(nothing, nil)
		var batch wire.Batch
		x.Take(&batch, 1<<30, n)
		for i := uint64(n); i > 0; i-- {
			x.Return(i, false)
		}
	}
}

func TestWhatIsDeferredHoldsUpNobody(t *testing.T) {
	q := New(1<<20, nil, nil)
	woken := make(chan struct{}, 100)
	taker := q.Taker(func() { woken <- struct{}{} }, nil)
	mustPut(t, q, "a", messages(1, 3, 20)...)
	checkIDs(t, take(taker, 1), 1)
	taker.Tried(1, 4)
	if !taker.Defer(1, 10*time.Millisecond) || taker.Defer(1, 0) {
		t.Error("a frame in hand can be deferred once")
	}
	if s := q.Stats(); s.Waiting != 3 || s.InHand != 0 {
		t.Errorf("got %d waiting, %d in hand, want 3 and 0", s.Waiting, s.InHand)
	}
	checkIDs(t, take(taker, 10), 2, 3)
	taker.Done(3, true)
	var again []uint64
	for len(again) == 0 {
		if again = take(taker, 10); len(again) == 0 {
			<-woken
		}
	}
	if len(again) != 1 {
		t.Errorf("got %d frames, want the one again", len(again))
	}
	if got := taker.Frame(4); !slices.Equal(got, message(1, 20)) {
		t.Errorf("frame 4 is %q: it must stay as it came", got)
	}
	if taker.Frame(5) != nil {
		t.Error("a frame that is not in hand has bytes")
	}
	taker.Done(4, true)
	if n := q.Len(); n != 0 || len(q.tries) != 0 {
		t.Errorf("got %d messages and %d numbers of tries left, want none", n, len(q.tries))
	}
	mustPut(t, q, "a", message(9, 20))
	checkIDs(t, take(taker, 1), 9)
	taker.Defer(5, time.Hour)
	if n := q.Close(); n != 1 {
		t.Errorf("got %d discarded, want what was deferred", n)
	}
}
