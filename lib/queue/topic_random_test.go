package queue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// audience is a hall and what each subscriber has to get.
type audience struct {
	*hall
	r    *rand.Rand
	next uint64
	subs map[string]*listener
}

// listener is one who subscribes, or has.
type listener struct {
	x    *taker
	wait []uint64 // published for it, or sent to it alone, and not finished
	hand []uint64 // of those, taken: by number, from 1; 0 when finished
}

func (a *audience) listen(name string) {
	l := a.subs[name]
	l.x, l.hand = newTaker(a.queues[name]), nil
}

// publish publishes for some, or sends to one alone, and commits it.
func (a *audience) some() {
	var names []string
	for _, name := range []string{"a", "b", "c", "d"} {
		if a.r.IntN(3) > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	n := 1 + a.r.IntN(20)
	size := a.r.IntN(400)
	alone := a.r.IntN(5) == 0
	if alone {
		names = names[:1]
	}
	for _, name := range names {
		if a.subs[name] == nil {
			a.subs[name] = &listener{}
			a.queue(name)
			a.listen(name)
		}
		for i := range n {
			a.subs[name].wait = append(a.subs[name].wait, a.next+uint64(i))
		}
	}
	from, to := a.next, a.next+uint64(n)-1
	a.next += uint64(n)
	if alone {
		mustPut(a.t, a.queues[names[0]], topicType, messages(from, to, size)...)
		mustCommit(a.t, a.queues[names[0]], topicType)
		return
	}
	budget := NewBudget(1 << 20)
	x := Extra{}
	list := a.subscribers(names...)
	for _, page := range Pages(slices.Concat(messages(from, to, size)...), budget) {
		x.Page = page
		if _, err := a.topic.Put(page.Frames(), &x, list, everybody); err != nil {
			a.t.Fatal(err)
		}
		page.Release()
	}
	if err := a.topic.CommitSince(Written{topicType, x.Round}); err != nil {
		a.t.Fatal(err)
	}
}

// take takes some and checks that none is left out, and none is not for it.
func (a *audience) take(name string) {
	l := a.subs[name]
	var b wire.Batch
	l.x.Take(&b, 1+a.r.IntN(4000), 1+a.r.IntN(30))
	for _, f := range frames(&b) {
		id := idOf(f)
		if !slices.Contains(l.wait, id) {
			a.t.Fatalf("%s took %d, which is not for it", name, id)
		}
		for _, before := range l.wait {
			if before >= id {
				break
			}
			if !slices.Contains(l.hand, before) {
				a.t.Fatalf("%s took %d before %d", name, id, before)
			}
		}
		if want := message(id, len(f)); !slices.Equal(f, want) && len(f) >= 20 {
			a.t.Fatalf("message %d has changed", id)
		}
		l.hand = append(l.hand, id)
	}
}

func (a *audience) finished(l *listener, i int) {
	if id := l.hand[i]; id > 0 {
		l.wait = slices.DeleteFunc(l.wait, func(w uint64) bool { return w == id })
	}
	l.hand[i] = 0
}

func (a *audience) restart(how ending) {
	if how == killed { // its takers go with it
		image := filepath.Join(a.t.TempDir(), "image")
		if err := os.CopyFS(image, os.DirFS(a.dir)); err != nil {
			a.t.Fatal(err)
		}
		defer func(old string) { os.RemoveAll(old) }(a.dir)
		for _, l := range a.subs {
			l.x.Close()
		}
		a.close()
		a.dir = image
	} else {
		for _, l := range a.subs {
			l.x.Close()
		}
		a.close()
	}
	a.open("a", "b", "c", "d")
	for name := range a.subs {
		a.listen(name)
	}
}

func (a *audience) step() {
	name := []string{"a", "b", "c", "d"}[a.r.IntN(4)]
	l := a.subs[name]
	k := a.r.IntN(100)
	if l == nil || k < 35 {
		a.some()
		return
	}
	switch {
	case k < 70:
		a.take(name)
	case k < 84 && len(l.hand) > 0:
		n := 1 + a.r.IntN(len(l.hand))
		l.x.Done(uint64(n), true)
		for i := range n {
			a.finished(l, i)
		}
	case k < 88 && len(l.hand) > 0:
		n := a.r.IntN(len(l.hand))
		if l.x.DoneOne(uint64(n+1), nil) {
			a.finished(l, n)
		}
	case k < 92:
		l.x.Close()
		if a.r.IntN(2) == 0 {
			a.some() // it is away
		}
		a.listen(name)
	case k < 94:
		// Those that are sent to it alone stay, and it may finish what it has.
		a.topic.End(name, func() bool { return true })
		l.x.Close()
		a.drain(name)
	case k == 94:
		a.restart(stopped)
	case k == 95:
		a.restart(killed)
	}
}

// drain takes all that is left of what was sent to one alone and checks that it
// waited.
func (a *audience) drain(name string) {
	l := a.subs[name]
	a.listen(name)
	for a.queues[name].Stats().Waiting > 0 {
		for _, id := range l.x.take(a.t, 1) {
			if !slices.Contains(l.wait, id) {
				a.t.Fatalf("%s took %d, which is not for it", name, id)
			}
		}
	}
	l.x.Done(l.x.n, true)
	l.x.Close()
	l.wait = nil
	a.listen(name)
}

func TestATopicLosesAndDoublesNothing(t *testing.T) {
	seeds, steps := 12, 250
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 9))
			h := &hall{t: t, dir: filepath.Join(t.TempDir(), "h"), limit: []int{2000, 20_000, 1 << 20}[seed%3], quota: map[string]*spool.Quota{}}
			h.open()
			a := &audience{hall: h, r: r, next: 1, subs: map[string]*listener{}}
			defer h.close()
			for range steps {
				a.step()
			}
			a.restart(stopped)
			for name, l := range a.subs {
				want := slices.Clone(l.wait)
				checkIDs(t, l.x.finish(t, len(want)), want...)
				if st := a.queues[name].Stats(); st.Waiting+st.InHand+st.Bytes+st.OnDisk != 0 {
					t.Errorf("%s at the end: %+v", name, st)
				}
				l.x.Close()
			}
			if s, _ := a.topic.Stats(); s.Segments > 1 || s.Waiting > 0 {
				t.Errorf("%d segments, %d wait", s.Segments, s.Waiting)
			}
			if f := a.store.failures(); len(f) > 0 {
				t.Errorf("failures: %q", f)
			}
		})
		if !ok {
			return
		}
	}
}
