package queue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

// ending is how a queue on disk ends.
type ending int

const (
	stopped ending = iota
	killed
)

// world is a queue on disk and what has to be in it.
type world struct {
	t     *testing.T
	r     *rand.Rand
	s     *store
	limit int
	q     *Queue
	x     *taker
	types []string
	next  uint64
	wait  map[string][]uint64 // by type: put, not finished
	safe  map[string]int      // of durable types: how many of wait are committed
	hand  []held              // by number, from 1
}

type held struct {
	typ  string
	id   uint64
	done bool
}

func (w *world) open() {
	w.t.Helper()
	w.q = New(w.limit, nil, nil)
	w.q.Keep(w.s, nil)
	if _, err := w.q.Open(w.types); err != nil {
		w.t.Fatal(err)
	}
	w.taker()
}

func (w *world) taker() { w.x, w.hand = newTaker(w.q), nil }

func (w *world) put() {
	typ := w.types[w.r.IntN(len(w.types))]
	var all []byte
	n := 1 + w.r.IntN(30)
	for range n {
		size := w.r.IntN(300)
		if w.r.IntN(50) == 0 {
			size = w.r.IntN(2 * w.limit)
		}
		all = append(all, message(w.next, size)...)
		w.wait[typ] = append(w.wait[typ], w.next)
		w.next++
	}
	if k, err := w.q.PutExtra(typ, all, &Extra{Now: true}); k != len(all) || err != nil {
		w.t.Fatalf("Put = %d, %v; want %d", k, err, len(all))
	}
	if w.r.IntN(4) > 0 {
		w.commit()
	}
}

func (w *world) commit() {
	if err := w.q.Commit(w.types...); err != nil {
		w.t.Fatal(err)
	}
	for _, typ := range w.types {
		w.safe[typ] = len(w.wait[typ])
	}
}

// take takes some and checks that each type's come in order, with none left
// out.
func (w *world) take() {
	var b wire.Batch
	w.x.Take(&b, 1+w.r.IntN(5000), 1+w.r.IntN(40))
	for _, f := range frames(&b) {
		id := idOf(f)
		typ := ""
		for t, ids := range w.wait {
			if slices.Contains(ids, id) {
				typ = t
			}
		}
		if typ == "" {
			w.t.Fatalf("took %d, which does not wait", id)
		}
		for _, before := range w.wait[typ] {
			if before == id {
				break
			}
			if !slices.ContainsFunc(w.hand, func(h held) bool { return h.id == before && !h.done }) {
				w.t.Fatalf("took %d of type %s before %d", id, typ, before)
			}
		}
		if want := message(id, len(f)); !slices.Equal(f, want) && len(f) >= 20 {
			w.t.Fatalf("message %d has changed", id)
		}
		w.hand = append(w.hand, held{typ: typ, id: id})
	}
}

func (w *world) finished(h *held) {
	h.done = true
	i := slices.Index(w.wait[h.typ], h.id)
	w.wait[h.typ] = slices.Delete(w.wait[h.typ], i, i+1)
	if i < w.safe[h.typ] {
		w.safe[h.typ]--
	}
}

// restart ends the queue one way or the other and opens it again.
func (w *world) restart(how ending) {
	if how == stopped {
		w.commit()
		w.x.Close()
		if n := w.q.Close(); n > 0 {
			w.t.Fatalf("%d discarded", n)
		}
		w.open()
		return
	}
	image := filepath.Join(w.t.TempDir(), "image")
	if err := os.CopyFS(image, os.DirFS(w.s.dir)); err != nil {
		w.t.Fatal(err)
	}
	w.x.Close()
	w.q.Close()
	w.s.dir = image
	w.open()
	// What has to be there is, and all that is comes in order.
	end := map[string][]uint64{}
	for w.q.Stats().Waiting > 0 {
		for _, id := range w.x.take(w.t, 1) {
			for typ, ids := range w.wait {
				if slices.Contains(ids, id) {
					end[typ] = append(end[typ], id)
				}
			}
		}
	}
	for _, typ := range w.types {
		got := end[typ]
		if !slices.IsSorted(got) || len(slices.Compact(got)) != len(got) {
			w.t.Fatalf("type %s: after a kill: %v", typ, got)
		}
		if w.s.Durable(typ) {
			if n := w.safe[typ]; len(got) < n || !slices.Equal(got[:n], w.wait[typ][:n]) {
				w.t.Fatalf("type %s: after a kill: %v, want at least %v", typ, got, w.wait[typ][:n])
			}
		}
		w.wait[typ], w.safe[typ] = got, len(got)
	}
	w.x.Close()
	w.taker()
}

func (w *world) step() {
	switch k := w.r.IntN(100); {
	case k < 40:
		w.put()
	case k < 75:
		w.take()
	case k < 85 && len(w.hand) > 0:
		n := 1 + w.r.IntN(len(w.hand))
		w.x.Done(uint64(n), true)
		for i := range w.hand[:n] {
			if !w.hand[i].done {
				w.finished(&w.hand[i])
			}
		}
	case k < 90 && len(w.hand) > 0:
		if n := w.r.IntN(len(w.hand)); w.x.DoneOne(uint64(n+1), nil) {
			w.finished(&w.hand[n])
		}
	case k < 93 && len(w.hand) > 0:
		n := w.r.IntN(len(w.hand))
		w.x.Return(uint64(n+1), false)
		w.hand[n].done = true
	case k < 95:
		w.x.Close()
		if w.r.IntN(2) == 0 {
			w.put() // nobody takes
		}
		w.taker()
	case k == 95:
		w.commit()
	case k == 96:
		w.restart(stopped)
	case k == 97:
		w.restart(killed)
	}
}

func TestAQueueOnDiskLosesAndDoublesNothing(t *testing.T) {
	seeds, steps := 10, 200
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 2))
			w := &world{t: t, r: r, s: &store{dir: filepath.Join(t.TempDir(), "q"), segment: int64(1000 + r.IntN(100_000))},
				limit: []int{500, 5000, 100_000}[r.IntN(3)], types: []string{"a", "b", "d1", "d2"},
				wait: map[string][]uint64{}, safe: map[string]int{}}
			w.open()
			for range steps {
				w.step()
			}
			w.restart(stopped)
			n := 0
			for _, ids := range w.wait {
				n += len(ids)
			}
			for len(w.hand) < n {
				before := len(w.hand)
				w.take()
				if len(w.hand) == before {
					<-w.x.some
				}
			}
			w.x.Done(uint64(n), true)
			if st := w.q.Stats(); st.Waiting+st.InHand+st.Bytes+st.OnDisk != 0 {
				t.Errorf("at the end: %+v", st)
			}
			if f := w.s.failures(); len(f) > 0 {
				t.Errorf("failures: %q", f)
			}
			w.x.Close()
			w.q.Close()
		})
		if !ok {
			return
		}
	}
}

func TestTheFirstAfterARefusalSaysItsNumber(t *testing.T) {
	q := New(10_000, nil, nil)
	x := q.Taker(nothing, nil)
	var told []uint64
	x.Announce(func(_ string, _ Epoch, seq uint64) []byte {
		told = append(told, seq)
		return message(seq, 50)
	})
	mortal := func(id int, left time.Duration) []byte {
		h := fmt.Sprintf(`{"message_type": "a", "id": %d, "expires": %d}`, id, time.Now().Add(left).UnixMilli())
		frame, err := wire.AppendFrame(nil, []byte(h), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return frame
	}
	synctest.Test(t, func(t *testing.T) {
		for i, left := range []time.Duration{time.Hour, time.Minute, time.Minute} {
			if _, err := q.PutExtra("a", mortal(i, left), &Extra{Mortal: true}); err != nil {
				t.Fatal(err)
			}
		}
		var b wire.Batch
		if n := x.Take(&b, 1<<30, 3); n != 3 {
			t.Fatalf("took %d", n)
		}
		x.Done(1, true)
		x.Return(2, true)
		x.Return(3, true)
		time.Sleep(2 * time.Minute)
		mustPut(t, q, "a", mortal(4, time.Hour))
		x.Resume("a")
		told = nil
		if n := x.Take(&b, 1<<30, 3); n != 1 || !slices.Equal(told, []uint64{4}) {
			t.Errorf("took %d, told %v; want 1, and that it is number 4", n, told)
		}
	})
}
