package queue

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestWhatIsRememberedIsBoundedForAllQueues(t *testing.T) {
	const ids = memoLeast / idBytes
	budget := NewBudget(1 << 20)
	busy, calm := New(1<<30, budget, nil), New(1<<30, budget, nil)
	x := map[*Queue]*Taker{busy: busy.Taker(nothing, nil), calm: calm.Taker(nothing, nil)}
	n := uint64(0)
	// put puts messages with ids of their own, and takes them.
	put := func(q *Queue, typ string, count int) {
		t.Helper()
		for range count {
			n++
			var id ID
			binary.BigEndian.PutUint64(id[:], n)
			f := message(n, 20)
			if k, err := q.PutExtra(typ, f, &Extra{ID: id}); k != len(f) || err != nil {
				t.Fatalf("PutExtra = %d, %v", k, err)
			}
			take(x[q], 1)
			x[q].Done(x[q].Numbered(), true)
		}
	}
	put(calm, "a", 100)
	put(busy, "a", ids)
	if got := budget.memo; got > memoLeast || got < memoLeast-idBytes {
		t.Errorf("%d bytes in use, want nearly %d", got, memoLeast)
	}
	if got := busy.Stats().Forgotten; got != 100 {
		t.Errorf("the busy queue has forgotten %d, want 100", got)
	}
	// The others have what they had, and something when there is nothing left.
	put(calm, "b", 10)
	if st := calm.Stats(); st.Forgotten != 9 || len(calm.byType["a"].ids.when) != 100 || len(calm.byType["b"].ids.when) != 1 {
		t.Errorf("another queue has forgotten %d, and knows %d and %d ids", st.Forgotten, len(calm.byType["a"].ids.when), len(calm.byType["b"].ids.when))
	}
	if got := budget.Used(); got != 0 {
		t.Errorf("%d bytes in use for messages, and there are none", got)
	}
	for _, q := range []*Queue{busy, calm} {
		x[q].Close()
		q.Close()
	}
	if budget.memo != 0 {
		t.Errorf("%d bytes in use at the end", budget.memo)
	}
}

func TestPeersAreForgottenWhenThereIsNoMemoryForAll(t *testing.T) {
	const many = memoLeast / markBytes
	budget := NewBudget(1 << 20)
	var queues []*Queue
	put := func(q *Queue, peer string, seq uint64) {
		t.Helper()
		f := message(seq, 20)
		if k, err := q.PutExtra("a", f, &Extra{From: Origin{peer, Epoch{1}, seq}}); k != len(f) || err != nil {
			t.Fatalf("PutExtra = %d, %v", k, err)
		}
	}
	for range 4 {
		q := New(1<<30, budget, nil)
		queues = append(queues, q)
		x := q.Taker(nothing, nil)
		for i := range many / 2 {
			put(q, fmt.Sprint("p", i), 1)
			take(x, 1)
			x.Done(x.Numbered(), true)
		}
		x.Close()
	}
	known := 0
	for _, q := range queues {
		n := len(q.byType["a"].marks)
		if n == 0 {
			t.Error("a queue knows nobody")
		}
		known += n
	}
	if known > many+len(queues) || budget.memo > memoLeast {
		t.Errorf("%d are known with %d bytes, want at most %d", known, budget.memo, many)
	}
	last := queues[3]
	put(last, fmt.Sprint("p", many/2-1), 1) // the newest is known
	if st := last.Stats(); st.Duplicates != 1 {
		t.Errorf("%d duplicates, want 1", st.Duplicates)
	}
	for _, q := range queues {
		q.Close()
	}
	if budget.memo != 0 {
		t.Errorf("%d bytes in use at the end", budget.memo)
	}
}

// A lane that is full of messages remembers all the same.
func TestMessagesThatWaitMakeNothingForgotten(t *testing.T) {
	budget := NewBudget(fullBlock)
	q := New(1<<30, budget, nil)
	f := message(1, fullBlock)
	for i := range 2 {
		if _, err := q.PutExtra("a", f, &Extra{ID: ID{1}}); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if st := q.Stats(); st.Duplicates != 1 {
		t.Errorf("%d duplicates, want 1", st.Duplicates)
	}
}
