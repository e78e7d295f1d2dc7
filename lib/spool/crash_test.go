package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const crashDir = "d"

// expect is what is known about records at one moment of a workload.
type expect struct {
	started   set // handed to Append
	committed set // Commit returned
	ackBegun  set // handed to Ack
	acked     set // Ack returned
	ackSynced set // and SyncAcks or Close
	lost      set // taken back by a failed sync
	void      set // and Repair returned
}

func union(a, b set) set {
	a = slices.Clone(a)
	for _, r := range b {
		a.add(r)
	}
	return a
}

func minus(a, b set) set {
	a = slices.Clone(a)
	for _, r := range b {
		a.remove(r)
	}
	return a
}

func common(a, b set) set { return minus(a, minus(a, b)) }

// event changes what is known once at changes of the file system are done.
type event struct {
	at int
	f  func(*expect)
}

// workload drives a log on a memFS and notes what it may rely on and when.
type workload struct {
	t      *testing.T
	rng    *rand.Rand
	fs     *memFS
	o      Options
	l      *Log
	next   uint64
	mark   uint64 // what the owner has taken, its state
	known  expect
	events []event
}

func newWorkload(t *testing.T, o Options, disk *memFS) *workload {
	w := &workload{t: t, rng: rand.New(rand.NewPCG(7, 7)), fs: disk, o: o, next: 1}
	w.o.FS = w.fs
	w.o.State = func(dst []byte) []byte { return le.AppendUint64(dst, w.mark) }
	w.o.Restore = func(state []byte) {
		if len(state) != 8 {
			t.Errorf("got state %x", state)
			return
		}
		w.mark = le.Uint64(state)
	}
	w.o.Replay = func(r Record, _ bool) { w.mark = r.Seq }
	return w
}

func (w *workload) note(f func(*expect)) {
	f(&w.known)
	w.events = append(w.events, event{len(w.fs.ops), f})
}

func (w *workload) open() *Recovered {
	w.t.Helper()
	w.mark = 0
	l, rec, err := Open(crashDir, w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.l, w.next = l, rec.Last+1
	return rec
}

func (w *workload) close() {
	w.t.Helper()
	if err := w.l.Close(); err != nil {
		w.t.Fatal(err)
	}
	acked, all := slices.Clone(w.known.acked), minus(w.known.started, w.known.lost)
	w.note(func(e *expect) {
		e.ackSynced = acked
		e.committed = all
	})
	if w.fs.open != 0 {
		w.t.Errorf("%d files are open after Close", w.fs.open)
	}
	for name := range w.fs.names {
		if log := strings.TrimSuffix(name, ackSuffix) + logSuffix; w.fs.names[log] == nil && isAcks(name) {
			w.t.Errorf("%s is there without its segment", name)
		}
	}
}

// put appends n records and reports whether they were taken.
func (w *workload) put(n, size int) bool {
	w.t.Helper()
	r := Range{w.next, w.next + uint64(n) - 1}
	w.note(func(e *expect) { e.started.add(r) })
	err := w.l.Append(batch(r.First, r.Last, size))
	switch {
	case err == nil:
		w.next, w.mark = r.Last+1, r.Last
		return true
	case errors.Is(err, ErrFailed):
		w.repair()
	case !errors.Is(err, ErrFull) && !errors.Is(err, ErrNoSpace):
		w.t.Fatal(err)
	}
	return false
}

func (w *workload) commit() {
	w.t.Helper()
	if w.next == 1 {
		return
	}
	if err := w.l.Commit(w.next - 1); errors.Is(err, ErrFailed) {
		w.repair()
	} else if err != nil {
		w.t.Fatal(err)
	}
	all := minus(w.known.started, w.known.lost)
	all.remove(Range{w.next, ^uint64(0)})
	w.note(func(e *expect) { e.committed = all })
}

// repair does what an owner does after an ErrFailed.
func (w *workload) repair() {
	w.t.Helper()
	lost := Range{w.l.Committed() + 1, w.l.Last()}
	if lost.First <= lost.Last {
		w.note(func(e *expect) { e.lost.add(lost) })
	}
	w.mark = w.l.Committed()
	for {
		err := w.l.Repair()
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EIO) && !errors.Is(err, ErrNoSpace) {
			w.t.Fatal(err)
		}
	}
	void := slices.Clone(w.known.lost)
	w.note(func(e *expect) { e.void = void })
}

func (w *workload) ack(ranges ...Range) {
	w.t.Helper()
	there := set{{1, w.next - 1}}
	w.note(func(e *expect) {
		for _, r := range ranges {
			e.ackBegun = union(e.ackBegun, common(set{r}, there))
		}
	})
	if err := w.l.Ack(ranges...); err != nil {
		if !errors.Is(err, ErrNoSpace) {
			w.t.Fatal(err)
		}
		return
	}
	begun := slices.Clone(w.known.ackBegun)
	w.note(func(e *expect) { e.acked = begun })
}

func (w *workload) syncAcks() {
	w.t.Helper()
	if err := w.l.SyncAcks(); err != nil {
		w.t.Fatal(err)
	}
	begun := slices.Clone(w.known.ackBegun)
	w.note(func(e *expect) { e.acked, e.ackSynced = begun, begun })
}

// someWaiting returns a random record or a few that wait and are committed.
func (w *workload) someWaiting() (Range, bool) {
	s := minus(w.known.committed, w.known.ackBegun)
	if len(s) == 0 {
		return Range{}, false
	}
	r := s[w.rng.IntN(len(s))]
	first := r.First + w.rng.Uint64N(r.Last-r.First+1)
	return Range{first, min(r.Last, first+w.rng.Uint64N(4))}, true
}

var workloads = []struct {
	name string
	o    Options
	run  func(w *workload)
}{
	{"append", Options{Durable: true, SegmentSize: 64 << 10}, func(w *workload) {
		for i := range 60 {
			w.put(1+i%7, 100+i*10)
			if i%3 != 1 {
				w.commit()
			}
		}
	}},
	{"ack", Options{Durable: true, SegmentSize: 16 << 10}, func(w *workload) {
		for i := range 40 {
			w.put(3, 150)
			w.commit()
			if i%4 == 0 {
				w.ack(Range{1, uint64(i)}) // in order
			}
			if r, ok := w.someWaiting(); ok {
				w.ack(r, Range{r.First + 5, r.First + 5}) // anywhere, and perhaps not there yet
			}
			if i%8 == 7 {
				w.syncAcks()
			}
		}
	}},
	{"rotate", Options{Durable: true, SegmentSize: 2048}, func(w *workload) {
		for i := range 50 {
			w.put(4, 200)
			if i%2 == 0 {
				w.commit()
			}
			if i%10 == 5 {
				if err := w.l.PutState(); err != nil {
					w.t.Fatal(err)
				}
			}
			if i%10 == 9 { // all of it
				w.commit()
				w.ack(Range{1, w.next - 1})
			}
		}
	}},
	{"quota", Options{Durable: true, SegmentSize: 4096, Quota: NewQuota(12 << 10)}, func(w *workload) {
		for range 120 {
			if !w.put(2, 300) {
				w.commit()
				r, _ := w.someWaiting()
				w.ack(Range{r.First, r.First + 9})
			}
		}
		w.commit()
	}},
	{"import", Options{Durable: true, SegmentSize: 8192}, func(w *workload) {
		for i := range 6 {
			w.put(100, 50+100*i) // larger than a segment
			w.put(1, largeFrame+1000*i)
			w.commit()
			w.put(1, 1)
			w.commit()
			w.ack(Range{w.next - 40, w.next - 1})
			w.syncAcks()
		}
	}},
	{"mixed, with failures", Options{Durable: true, SegmentSize: 4096}, func(w *workload) {
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
		for range 150 {
			switch w.rng.IntN(10) {
			case 0, 1, 2, 3, 4:
				w.put(1+w.rng.IntN(6), w.rng.IntN(400))
			case 5, 6:
				w.commit()
			case 7, 8:
				if r, ok := w.someWaiting(); ok {
					w.ack(r)
				}
			case 9:
				if r, ok := w.someWaiting(); ok {
					w.l.Note(r.First, []byte("tried"))
				}
			}
		}
		w.fs.fault = nil
		w.commit()
		w.syncAcks()
	}},
	{"opened again and again", Options{Durable: true, SegmentSize: 4096}, func(w *workload) {
		for i := range 12 {
			w.put(3, 300)
			w.commit()
			w.put(2, 100)
			if r, ok := w.someWaiting(); ok {
				w.ack(r)
			}
			if i%2 == 0 {
				w.ack(Range{1, w.next / 2})
			}
			w.close()
			w.open()
		}
	}},
}

func isAcks(name string) bool {
	_, suffix := parseName(name[len(crashDir)+1:])
	return suffix == ackSuffix
}

func TestNoCrashLosesWhatWasCommitted(t *testing.T) {
	t.Parallel()
	states := 0
	for _, test := range workloads {
		w := newWorkload(t, test.o, newMemFS(nil))
		w.open()
		test.run(w)
		w.close()
		var known expect
		events := w.events
		rng := rand.New(rand.NewPCG(1, 1))
		for n := 0; n <= len(w.fs.ops); n++ {
			for len(events) > 0 && events[0].at <= n {
				events[0].f(&known)
				events = events[1:]
			}
			if n%stateStep != 0 {
				continue
			}
			for _, c := range crashes {
				if !w.fs.applies(n, c) {
					continue
				}
				states++
				name := fmt.Sprintf("%s, change %d, %s", test.name, n, c.name)
				disk := newMemFS(w.fs.crash(n, c, rng))
				if c.name == "killed" && !w.fs.doubtful(n) {
					disk = w.fs.after(n)
				}
				checkCrash(t, name, test.o, w.l.Epoch(), known, c, disk, rng)
				if t.Failed() {
					return
				}
			}
		}
	}
	t.Logf("%d states", states)
	if states < leastStates {
		t.Errorf("got %d states, want %d", states, leastStates)
	}
}

func TestASegmentThatCouldNotBeMadeVoidsNothing(t *testing.T) {
	o := Options{Durable: true, SegmentSize: 4096}
	w := newWorkload(t, o, newMemFS(nil))
	w.open()
	w.put(1, 1500)
	w.commit()
	w.fs.fault = func(o op) error {
		if o.kind == "write" && o.off == 0 {
			return syscall.ENOSPC // half of it is written: a whole header
		}
		return nil
	}
	if w.put(1, 3000) {
		t.Fatal("a second segment was made")
	}
	w.fs.fault = nil
	w.put(1, 10) // has room in the first one
	w.commit()
	rng := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		again := newWorkload(t, o, newMemFS(w.fs.crash(len(w.fs.ops), crash{"", 512, 1, 0.5, false}, rng)))
		again.open()
		if got := again.waiting("crashed"); ranges(got) != "1-2" {
			t.Fatalf("got %s, want 1-2", ranges(got))
		}
		again.l.Close()
	}
}

// checkCrash opens what a crash has left and compares it with what is known,
// goes on, crashes again and compares again.
func checkCrash(t *testing.T, name string, o Options, epoch [16]byte, known expect, c crash, disk *memFS, rng *rand.Rand) {
	t.Helper()
	if o.Quota != nil {
		o.Quota = NewQuota(0)
	}
	w := newWorkload(t, o, disk)
	rec := w.open()
	opened := len(disk.ops)
	got := w.waiting(name)
	if miss := minus(minus(known.committed, known.ackBegun), got); len(miss) > 0 {
		t.Errorf("%s: lost %s", name, ranges(miss))
	}
	if extra := minus(got, minus(known.started, known.void)); len(extra) > 0 {
		t.Errorf("%s: got %s, which was never put or taken back", name, ranges(extra))
	}
	done := known.ackSynced
	if c.name == "killed" {
		done = known.acked
	}
	if again := common(got, done); len(again) > 0 {
		t.Errorf("%s: got %s again", name, ranges(again))
	}
	below := minus(minus(known.started, known.lost), set{{rec.Last + 1, ^uint64(0)}})
	if gap := minus(minus(below, known.ackBegun), got); len(gap) > 0 {
		t.Errorf("%s: has %d, and not %s", name, rec.Last, ranges(gap))
	}
	if len(known.committed) > 0 && w.l.Epoch() != epoch {
		t.Errorf("%s: another epoch", name)
	}
	if w.mark != rec.Last {
		t.Errorf("%s: the state is of %d, want %d", name, w.mark, rec.Last)
	}
	if rng.IntN(3) > 0 { // the rest takes three times as long
		w.l.Close()
		return
	}
	// What was found is as good as committed now.
	first, last := got, rec.Last
	w.known = expect{started: slices.Clone(got), committed: slices.Clone(got)}
	w.put(2, 700)
	w.put(3, 700)
	w.commit()
	w.put(1, 10)
	all := union(got, set{{last + 1, last + 6}})
	image := w.fs.crash(opened+rng.IntN(len(w.fs.ops)+1-opened), crashes[rng.IntN(4)], rng)
	w.close()
	w.open()
	if now := w.waiting(name); ranges(now) != ranges(all) || w.mark != last+6 {
		t.Errorf("%s: opened again: got %s of %d, want %s", name, ranges(now), w.mark, ranges(all))
	}
	w.l.Close()

	w = newWorkload(t, o, newMemFS(image))
	rec = w.open()
	got = minus(w.waiting(name), minus(known.ackBegun, first)) // those may come again
	if miss := minus(first, got); len(miss) > 0 || len(minus(got, all)) > 0 {
		t.Errorf("%s, and again: got %s, want at least %s", name, ranges(got), ranges(first))
	}
	if gap := minus(minus(all, set{{rec.Last + 1, ^uint64(0)}}), got); len(gap) > 0 || rec.Last < last || w.mark != rec.Last {
		t.Errorf("%s, and again: has %d, state %d, and not %s", name, rec.Last, w.mark, ranges(gap))
	}
	w.l.Close()
}

// waiting reads all that waits.
func (w *workload) waiting(name string) (got set) {
	w.t.Helper()
	r := w.l.Reader(0)
	defer r.Close()
	var p Page
	for {
		if err := r.Read(&p, 8192, ^uint64(0)); err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		if len(p.Lost) > 0 {
			w.t.Errorf("%s: cannot be read: %v", name, p.Lost)
		}
		if len(p.Records) == 0 {
			return got
		}
		for _, rec := range p.Records {
			if string(rec.Meta) != fmt.Sprintf("m%d", rec.Seq) || len(rec.Frame) > 0 && rec.Frame[len(rec.Frame)-1] != byte(rec.Seq) {
				w.t.Errorf("%s: record %d is not what was put", name, rec.Seq)
			}
			got.push(rec.Seq)
		}
	}
}
