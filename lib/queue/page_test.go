package queue

import (
	"bytes"
	"slices"
	"testing"

	"aioc/lib/wire"
)

func TestQueuesShareWhatIsPutIntoAll(t *testing.T) {
	all := slices.Concat(messages(1, 1000, 100)...)
	budget := NewBudget(1 << 20)
	var queues []*Queue
	for i := range 20 {
		limit := 1 << 20
		if i == 0 {
			limit = 50 * (100 + overhead) // has no room for all
		}
		queues = append(queues, New(limit, budget, nil))
	}
	pages := Pages(all, budget)
	if got := budget.Used(); got != len(all) {
		t.Fatalf("%d bytes in use, want %d", got, len(all))
	}
	for i, q := range queues {
		mustPut(t, q, "a", message(0, 100)) // and something of its own
		for _, p := range pages {
			n, err := q.PutExtra("a", p.Frames(), &Extra{Page: p})
			if i > 0 && (err != nil || n != len(p.Frames())) {
				t.Fatalf("took %d, %v", n, err)
			}
		}
		if i > 0 {
			mustPut(t, q, "a", message(1001, 100))
		}
	}
	for _, p := range pages {
		p.Release()
	}
	if got := queues[0].Stats().Bytes; got > 50*(100+overhead) {
		t.Errorf("%d bytes in a queue, more than its limit", got)
	}
	if got, most := budget.Used(), len(all)+len(queues)*2*fullBlock; got > most {
		t.Errorf("%d bytes in use, want at most %d", got, most)
	}
	for i, q := range queues {
		want := upFrom(0, 1002)
		if i == 0 {
			want = upFrom(0, 50)
		}
		x := q.Taker(nothing, nil)
		checkIDs(t, take(x, 700), want[:min(700, len(want))]...)
		x.Done(300, true)
		x.Close() // the rest goes back
		x = q.Taker(nothing, nil)
		checkIDs(t, take(x, 2000), want[min(300, len(want)):]...)
		if i%2 == 0 {
			x.Done(2000, true)
		}
		x.Close()
		q.Close()
	}
	if got := budget.Used(); got != 0 {
		t.Errorf("%d bytes in use at the end", got)
	}
}

func TestPagesAreTheFramesTheyWereMadeOf(t *testing.T) {
	for _, test := range []struct {
		name          string
		frames        []byte
		budget        int
		pages, shared int
	}{
		{"nothing", nil, 1 << 20, 0, 0},
		{"little", message(1, 100), 1 << 20, 1, 0},
		{"much, in small frames", slices.Concat(messages(1, 2000, 100)...), 1 << 20, 4, 3},
		{"one big frame between small ones", slices.Concat(message(1, 100), message(2, 3*fullBlock), message(3, 100)), 1 << 20, 3, 1},
		{"without memory", message(1, leastPage), 1, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			budget := NewBudget(test.budget)
			if test.budget == 1 {
				budget.force(1)
			}
			pages := Pages(test.frames, budget)
			var got []byte
			shared := 0
			for _, p := range pages {
				got = append(got, p.Frames()...)
				if p.shared() {
					shared++
				}
			}
			if len(pages) != test.pages || shared != test.shared || !bytes.Equal(got, test.frames) {
				t.Errorf("got %d pages, %d shared, %d bytes", len(pages), shared, len(got))
			}
			q := New(1<<20, NewBudget(1<<20), nil)
			for _, p := range pages {
				if _, err := q.PutExtra("a", p.Frames(), &Extra{Page: p, Now: true}); err != nil {
					t.Fatal(err)
				}
				p.Release()
			}
			var b wire.Batch
			q.Taker(nothing, nil).Take(&b, 1<<30, 1<<20)
			if got := slices.Concat(b.Spans...); !bytes.Equal(got, test.frames) {
				t.Errorf("took %d bytes, want %d", len(got), len(test.frames))
			}
			q.Close()
		})
	}
}

// Those that go to disk do so as if they were not shared.
func TestSharedFramesOverflowToTheDisk(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		t.Run(typ, func(t *testing.T) {
			budget := NewBudget(1 << 20)
			q := New(100_000, budget, nil)
			q.Keep(&store{dir: t.TempDir()}, nil)
			defer q.Close()
			x := newTaker(q)
			from := Origin{Peer: "p", Epoch: Epoch{1}, Seq: 1}
			for i := range 5 {
				pages := Pages(slices.Concat(messages(uint64(500*i), uint64(500*i+499), 100)...), budget)
				for _, p := range pages {
					if n, err := q.PutExtra(typ, p.Frames(), &Extra{Page: p, From: from, Now: true}); err != nil || n != len(p.Frames()) {
						t.Fatal(n, err)
					}
					from.Seq += uint64(len(slices.Collect(each(p.Frames()))))
					p.Release()
				}
				mustCommit(t, q, typ)
			}
			if st := q.Stats(); st.OnDisk == 0 || st.Waiting != 2500 {
				t.Fatalf("got %+v", st)
			}
			checkIDs(t, x.finish(t, 2500), upFrom(0, 2500)...)
			x.Close()
		})
	}
}

// each is the frames, one by one.
func each(frames []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(frames) > 0 {
			var f []byte
			if f, frames = wire.Split(frames); !yield(f) {
				return
			}
		}
	}
}
