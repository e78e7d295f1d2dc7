package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

// member is what is known of one view, from its begin to its end.
type member struct {
	expect
	given         set  // Share returned
	ending, ended bool // End was called; and that is on the disk
}

// fan is what is known of all views, the newest of a name last.
type fan map[string][]*member

type fanWork struct {
	*workload
	now  fan
	done []func(fan) // in the order of the changes of the file system at which they happen
	at   []int
}

func (w *fanWork) note(f func(fan)) {
	f(w.now)
	w.done, w.at = append(w.done, f), append(w.at, len(w.fs.ops))
}

func (f fan) last(name string) *member {
	all := f[name]
	if len(all) == 0 || all[len(all)-1].ending {
		all = append(all, &member{})
		f[name] = all
	}
	return all[len(all)-1]
}

func (w *fanWork) share(n, size int, names ...string) {
	w.t.Helper()
	r := Range{w.next, w.next + uint64(n) - 1}
	var views []*View
	for _, name := range names {
		views = append(views, w.l.View(name, nil))
	}
	w.note(func(f fan) {
		for _, name := range names {
			f.last(name).started.add(r)
		}
	})
	_, err := w.l.Share(batch(r.First, r.Last, size), views)
	switch {
	case err == nil:
		w.next, w.mark = r.Last+1, r.Last
		w.note(func(f fan) {
			for _, name := range names {
				f.last(name).given.add(r)
			}
		})
	case errors.Is(err, ErrFailed):
		w.repair()
	case !errors.Is(err, ErrNoSpace):
		w.t.Fatal(err)
	}
}

// repair voids for all what was not committed.
func (w *fanWork) repair() {
	w.t.Helper()
	lost := Range{w.l.Committed() + 1, w.l.Last()}
	w.workload.repair()
	w.note(func(f fan) {
		for _, all := range f {
			for _, m := range all {
				m.void = union(m.void, common(m.started, set{lost}))
			}
		}
	})
}

func (w *fanWork) commit() {
	w.t.Helper()
	if w.next == 1 {
		return
	}
	if err := w.l.Commit(w.next - 1); errors.Is(err, ErrFailed) {
		w.repair()
	} else if err != nil {
		w.t.Fatal(err)
	}
	upTo := w.next - 1
	w.note(func(f fan) {
		for _, all := range f {
			for _, m := range all {
				m.committed = common(minus(m.given, m.void), set{{1, upTo}})
			}
		}
	})
}

func (w *fanWork) ack(name string) {
	w.t.Helper()
	m := w.now.last(name)
	s := minus(m.committed, m.ackBegun)
	if len(s) == 0 {
		return
	}
	r := s[0]
	if w.rng.IntN(2) == 0 {
		r = s[w.rng.IntN(len(s))]
		r.First += w.rng.Uint64N(r.Last - r.First + 1)
	}
	r.Last = min(r.Last, r.First+w.rng.Uint64N(9))
	w.note(func(f fan) { m := f.last(name); m.ackBegun = union(m.ackBegun, set{r}) })
	if err := w.l.View(name, nil).Ack(r); err != nil {
		if !errors.Is(err, ErrNoSpace) {
			w.t.Fatal(err)
		}
		return
	}
	w.note(func(f fan) { m := f.last(name); m.acked = union(m.acked, m.ackBegun) })
}

// synced notes that acknowledgements and ends are on the disk.
func (w *fanWork) synced(ends bool) {
	w.note(func(f fan) {
		for _, all := range f {
			for _, m := range all {
				m.acked, m.ackSynced = m.ackBegun, m.ackBegun
				m.ended = m.ended || ends && m.ending
			}
		}
	})
}

func (w *fanWork) end(name string) {
	if !slices.Contains(w.l.Views(), name) {
		return
	}
	w.note(func(f fan) { f.last(name).ending = true })
	w.l.View(name, nil).End()
}

// again closes the log and opens it.
func (w *fanWork) again() {
	w.t.Helper()
	w.commit()
	if err := w.l.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.synced(true)
	w.open()
}

var fanWorkloads = []struct {
	name string
	size int64
	run  func(w *fanWork)
}{
	{"views come and go", 4096, func(w *fanWork) {
		for i := range 50 {
			names := []string{"a", "b", "c", "d"}[:1+i%4]
			if i%7 == 0 {
				names = []string{"e", "a"}
			}
			w.share(1+i%5, 150, names...)
			if i%3 > 0 {
				w.commit()
			}
			w.ack("a")
			w.ack(names[len(names)-1])
			switch {
			case i%10 == 9:
				w.end("c")
			case i == 25:
				w.again()
			case i%8 == 7:
				if err := w.l.SyncAcks(); err != nil {
					w.t.Fatal(err)
				}
				w.synced(false)
			}
		}
	}},
	{"with failures", 3000, func(w *fanWork) {
		w.fs.fault = func(o op) error {
			switch p := w.rng.IntN(25); {
			case o.kind == "write" && p == 0:
				return syscall.ENOSPC
			case o.kind == "sync" && p < 2 && !isAcks(o.name):
				return syscall.EIO
			case o.kind == "truncate" && p < 8:
				return syscall.EIO
			}
			return nil
		}
		names := []string{"a", "b", "c", "d", "e"}
		for range 150 {
			name := names[w.rng.IntN(len(names))]
			switch w.rng.IntN(12) {
			case 0, 1, 2, 3, 4, 5:
				var some []string
				for _, name := range names {
					if w.rng.IntN(3) > 0 {
						some = append(some, name)
					}
				}
				if len(some) > 0 {
					w.share(1+w.rng.IntN(4), w.rng.IntN(300), some...)
				}
			case 6, 7:
				w.commit()
			case 8, 9, 10:
				w.ack(name)
			case 11:
				if w.rng.IntN(3) == 0 {
					w.end(name)
				}
			}
		}
		w.fs.fault = nil
		w.again()
	}},
}

func TestNoCrashCostsAViewWhatWasCommittedOrGivesItWhatIsNotForIt(t *testing.T) {
	t.Parallel()
	states := 0
	for _, test := range fanWorkloads {
		o := Options{Durable: true, Shared: true, SegmentSize: test.size}
		w := &fanWork{workload: newWorkload(t, o, newMemFS(nil)), now: fan{}}
		w.open()
		test.run(w)
		w.commit()
		if err := w.l.Close(); err != nil {
			t.Fatal(err)
		}
		known := fan{}
		rng := rand.New(rand.NewPCG(4, 4))
		for n, i := 0, 0; n <= len(w.fs.ops); n++ {
			for ; i < len(w.at) && w.at[i] <= n; i++ {
				w.done[i](known)
			}
			if n%stateStep != 0 {
				continue
			}
			for _, c := range crashes {
				if !w.fs.applies(n, c) {
					continue
				}
				states++
				disk := newMemFS(w.fs.crash(n, c, rng))
				if c.name == "killed" && !w.fs.doubtful(n) {
					disk = w.fs.after(n)
				}
				checkFan(t, fmt.Sprintf("%s, change %d, %s", test.name, n, c.name), o, known, c, disk)
				if t.Failed() {
					return
				}
			}
		}
	}
	t.Logf("%d states", states)
}

// checkFan opens what a crash has left and compares it with what is known.
func checkFan(t *testing.T, name string, o Options, known fan, c crash, disk *memFS) {
	t.Helper()
	w := newWorkload(t, o, disk)
	rec := w.open()
	there := map[string]set{}
	for _, view := range w.l.Views() {
		if known[view] == nil {
			t.Errorf("%s: there is a view %q", name, view)
		}
		there[view] = readView(t, w.l, view)
	}
	for view, all := range known {
		got := there[view]
		var may set
		for _, m := range all {
			if !m.ended {
				may = union(may, minus(m.started, m.void))
			}
			done := m.ackSynced
			if c.name == "killed" {
				done = m.acked
			}
			if again := common(got, done); len(again) > 0 {
				t.Errorf("%s: view %s: got %s again", name, view, ranges(again))
			}
		}
		if extra := minus(got, may); len(extra) > 0 {
			t.Errorf("%s: view %s: got %s, which is not for it", name, view, ranges(extra))
		}
		if m := all[len(all)-1]; !m.ending {
			if miss := minus(minus(m.committed, m.ackBegun), got); len(miss) > 0 {
				t.Errorf("%s: view %s: lost %s", name, view, ranges(miss))
			}
		}
	}
	if w.mark != rec.Last {
		t.Errorf("%s: the state is of %d, want %d", name, w.mark, rec.Last)
	}
	// It goes on, and is the same when it is opened again.
	next := rec.Last + 1
	views := []*View{w.l.View("a", nil), w.l.View("new", nil)}
	if _, err := w.l.Share(batch(next, next+1, 50), views); err != nil {
		t.Fatal(err)
	}
	w.mark = next + 1
	if err := w.l.Close(); err != nil {
		t.Fatal(err)
	}
	w.open()
	there["a"] = union(there["a"], set{{next, next + 1}})
	there["new"] = set{{next, next + 1}}
	for view, want := range there {
		if got := readView(t, w.l, view); ranges(got) != ranges(want) {
			t.Errorf("%s: view %s: opened again: got %s, want %s", name, view, ranges(got), ranges(want))
		}
	}
	w.l.Close()
	if w.fs.open != 0 {
		t.Errorf("%s: %d files are open after Close", name, w.fs.open)
	}
}
