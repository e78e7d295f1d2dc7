package spool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestAFullDiskRefusesABatchAndTakesItLater(t *testing.T) {
	// The nth change that needs room fails, whichever it is; of a write half of
	// the bytes are there.
	for n := 1; ; n++ {
		w := newWorkload(t, Options{Durable: true, SegmentSize: 2048}, newMemFS(nil))
		changes := 0
		w.fs.fault = func(o op) error {
			if o.kind == "write" || o.kind == "create" {
				if changes++; changes == n {
					return syscall.ENOSPC
				}
			}
			return nil
		}
		w.open()
		refused := 0
		for w.next <= 30 {
			if !w.put(3, 150) {
				refused++
			}
			w.commit()
		}
		if refused > 1 {
			t.Errorf("change %d: refused %d batches, want at most 1", n, refused)
		}
		w.l.Ack(Range{4, 6}) // may be what fails
		for _, when := range []string{"open", "opened again"} {
			if got := w.waiting(when); ranges(got) != "1-3 7-30" {
				t.Errorf("change %d, %s: got %s, want 1-3 7-30", n, when, ranges(got))
			}
			if when == "open" {
				w.close()
				w.open()
			}
		}
		if changes < n {
			if n < 20 {
				t.Errorf("only %d changes", n)
			}
			return
		}
	}
}

func TestADiskThatIsFullSaysSoAndNothingIsLeftOfTheBatch(t *testing.T) {
	w := newWorkload(t, Options{Durable: true}, newMemFS(nil))
	w.open()
	w.put(2, 100)
	size, _ := w.l.file.Size()
	w.fs.fault = func(o op) error {
		if o.kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	}
	err := w.l.Append(batch(3, 5, 1000))
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), crashDir) {
		t.Errorf("got %v", err)
	}
	if now, _ := w.l.file.Size(); now != size {
		t.Errorf("the file has %d bytes, had %d", now, size)
	}
	if got := w.waiting("full"); ranges(got) != "1-2" {
		t.Errorf("got %s", ranges(got))
	}
	if err := w.l.Ack(Range{1, 1}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("an acknowledgement: got %v, want ErrNoSpace", err)
	}
	if got := w.waiting("acknowledged"); ranges(got) != "2-2" {
		t.Errorf("the acknowledgement does not count: got %s", ranges(got))
	}
	w.fs.fault = nil
	w.put(1, 10)
	w.close() // writes it
	w.open()
	if got := w.waiting("again"); ranges(got) != "2-3" {
		t.Errorf("opened again: got %s, want 2-3", ranges(got))
	}
}

func TestAFailedSyncTakesBackWhatWasNotCommitted(t *testing.T) {
	w := newWorkload(t, Options{Durable: true}, newMemFS(nil))
	w.open()
	w.put(3, 100)
	w.commit()
	w.put(2, 100)
	w.fs.fault = func(o op) error {
		if o.kind == "sync" {
			return syscall.EIO
		}
		return nil
	}
	for range 2 { // the error stays
		if err := w.l.Commit(5); !errors.Is(err, ErrFailed) {
			t.Errorf("got %v, want ErrFailed", err)
		}
	}
	if err := w.l.Append(batch(6, 6, 1)); !errors.Is(err, ErrFailed) {
		t.Errorf("another batch: got %v, want ErrFailed", err)
	}
	if err := w.l.Repair(); !errors.Is(err, syscall.EIO) {
		t.Errorf("repair while the disk fails: got %v", err)
	}
	w.fs.fault = nil
	w.mark = 3
	if err := w.l.Repair(); err != nil {
		t.Fatal(err)
	}
	w.next = 6
	w.put(2, 100)
	for seq, want := range map[uint64]error{3: nil, 4: ErrFailed, 5: ErrFailed, 6: nil, 7: nil} {
		if err := w.l.Commit(seq); !errors.Is(err, want) {
			t.Errorf("commit of %d: got %v, want %v", seq, err, want)
		}
	}
	if got := w.waiting("repaired"); ranges(got) != "1-3 6-7" {
		t.Errorf("got %s, want 1-3 6-7", ranges(got))
	}
	if s := w.l.Stats(); s.Failed != 1 || s.Waiting != 5 {
		t.Errorf("got %+v", s)
	}
	w.l.Close()
	rec := w.open()
	if got := w.waiting("again"); ranges(got) != "1-3 6-7" || rec.Last != 7 || w.mark != 7 {
		t.Errorf("opened again: got %s, %+v", ranges(got), rec)
	}
}

func TestAllThatWaitForAFailedSyncAreTold(t *testing.T) {
	w := newWorkload(t, Options{Durable: true}, newMemFS(nil))
	w.open()
	w.put(8, 100)
	w.fs.fault = func(o op) error {
		if o.kind == "sync" {
			return syscall.EIO
		}
		return nil
	}
	var wg sync.WaitGroup
	for seq := uint64(1); seq <= 8; seq++ {
		wg.Go(func() {
			if err := w.l.Commit(seq); !errors.Is(err, ErrFailed) {
				t.Errorf("%d: got %v, want ErrFailed", seq, err)
			}
		})
	}
	wg.Wait()
	if s := w.l.Stats(); s.Syncs != 1 {
		t.Errorf("got %d syncs, want 1: a failed one is not tried again", s.Syncs)
	}
}

func TestAQuotaIsSharedAndRoomComesBack(t *testing.T) {
	q := NewQuota(20 << 10)
	o := Options{Quota: q, SegmentSize: 4096}
	a, _ := mustOpen(t, t.TempDir(), o)
	b, _ := mustOpen(t, t.TempDir(), o)
	var next [2]uint64
	put := func(i int) error {
		err := []*Log{a, b}[i].Append(batch(next[i]+1, next[i]+2, 500))
		if err == nil {
			next[i] += 2
		}
		return err
	}
	for range 4 {
		if err := put(1); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if err := put(0); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if used := q.Used(); used > q.Limit() || used < q.Limit()-2000 {
		t.Errorf("used %d of %d", used, q.Limit())
	}
	if err := put(1); !errors.Is(err, ErrFull) {
		t.Errorf("the other log: got %v, want ErrFull", err)
	}
	mustAck(t, a, Range{1, next[0]})
	for range 3 {
		if err := put(1); err != nil {
			t.Errorf("with room again: %v", err)
		}
	}
	mustAck(t, b, Range{1, next[1]})
	if used := q.Used(); used != 0 {
		t.Errorf("nothing waits, and %d bytes are used", used)
	}
	// What is acknowledged in the newest segments takes no room from others.
	for range 100 {
		for i := range 2 {
			if err := put(i); err != nil {
				t.Fatal(err)
			}
			mustAck(t, []*Log{a, b}[i], Range{1, next[i]})
		}
	}
}

func TestWhatIsForAllIsSharedByQuotas(t *testing.T) {
	total, left := NewQuota(40<<10), int64(1<<20)
	open := func() (*Log, *Quota) {
		q := NewQuota(30 << 10)
		q.Within(total)
		q.Reserve(func(n int64) bool { return n <= left })
		l, _ := mustOpen(t, t.TempDir(), Options{Quota: q, SegmentSize: 4096})
		return l, q
	}
	one, oneQ := open()
	two, twoQ := open()
	fill := func(l *Log) error {
		for {
			if err := l.Append(batch(l.Last()+1, l.Last()+1, 1000)); err != nil {
				return err
			}
		}
	}
	check := func(what string, err, want error, others ...error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		for _, other := range others {
			if errors.Is(err, other) {
				t.Errorf("%s: got %v, which is %v too", what, err, other)
			}
		}
		if sum := oneQ.Used() + twoQ.Used(); sum != total.Used() {
			t.Errorf("%s: %d bytes used in all, %d by each", what, total.Used(), sum)
		}
	}
	check("one", fill(one), ErrFull, ErrTotal, ErrNoSpace)
	check("two, with what one has left", fill(two), ErrTotal, ErrFull)
	if n := total.Used(); n < 36<<10 || n > 40<<10 {
		t.Errorf("%d bytes are used of 40 KiB", n)
	}
	if err := one.Ack(Range{1, one.Last()}); err != nil {
		t.Fatal(err)
	}
	left = 0
	check("two, when the rest of the disk is reserved", fill(two), ErrNoSpace, ErrTotal)
	left = 1 << 20
	check("two, when there is room", fill(two), ErrFull, ErrTotal)
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := two.Remove(); err != nil {
		t.Fatal(err)
	}
	check("at the end", nil, nil)
	if n := total.Used(); n != 0 {
		t.Errorf("%d bytes are used at the end", n)
	}
}

func TestAQuotaAsLargeAsASegmentIsUsableAgainAndAgain(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{Quota: NewQuota(70 << 10)})
	next := uint64(0)
	for range 50 {
		first := next
		for l.Append(batch(next+1, next+1, 1000)) == nil {
			next++
		}
		if next-first < 40 {
			t.Fatalf("got only %d records into an empty log", next-first)
		}
		mustAck(t, l, Range{1, next})
	}
}

func TestNotesAreKeptUntilTheRecordIsAcknowledged(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Options{Durable: true})
	mustAppend(t, l, batch(1, 5, 10))
	for i := range 3 {
		if err := l.Note(2, fmt.Appendf(nil, "tries %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(l.Note(4, []byte("x")), l.Note(9, []byte("no such record")), l.Ack(Range{4, 4})); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	replayed := ""
	l, _ = mustOpen(t, dir, Options{Durable: true, Replay: func(r Record, acked bool) {
		replayed += fmt.Sprintf("%d %s %d %q %v\n", r.Seq, r.Meta, r.Size, r.Note, acked)
	}})
	want := "1 m1 10 \"\" false\n2 m2 10 \"tries 2\" false\n3 m3 10 \"\" false\n4 m4 10 \"\" true\n5 m5 10 \"\" false\n"
	if replayed != want {
		t.Errorf("got %s, want %s", replayed, want)
	}
	var p Page
	r := l.Reader(2)
	defer r.Close()
	if err := r.Read(&p, 1, 100); err != nil || len(p.Records) != 1 || string(p.Records[0].Note) != "tries 2" {
		t.Errorf("got %v, %+v", err, p.Records)
	}
}

func TestALogIsRemovedWithItsDirectory(t *testing.T) {
	w := newWorkload(t, Options{Durable: true, SegmentSize: 2048}, newMemFS(nil))
	w.open()
	w.put(30, 100)
	w.put(30, 100)
	w.commit()
	w.ack(Range{3, 4}, Range{40, 50})
	w.fs.names[crashDir] = w.fs.add(nil) // the directory itself
	if err := w.l.Remove(); err != nil {
		t.Fatal(err)
	}
	if len(w.fs.names) > 0 || w.fs.open > 0 {
		t.Errorf("left: %v, %d open", w.fs.names, w.fs.open)
	}
	for _, err := range []error{w.l.Append(batch(1, 1, 1)), w.l.Ack(Range{1, 1}), w.l.Note(1, nil), w.l.PutState(), w.l.Repair(), w.l.SyncAcks()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
}

func TestSetsAreWhatAMapOfSequencesWouldBe(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var s set
	model := map[uint64]bool{}
	for range 20_000 {
		first := rng.Uint64N(100)
		r := Range{first, first + rng.Uint64N(8)}
		had := int64(0)
		for seq := r.First; seq <= r.Last; seq++ {
			if model[seq] {
				had++
			}
		}
		parts := int64(0)
		s.overlap(r, func(p Range) { parts += int64(p.Last-p.First) + 1 })
		if add := rng.IntN(2) == 0; add {
			s.add(r)
			for seq := r.First; seq <= r.Last; seq++ {
				model[seq] = true
			}
		} else {
			if n := s.remove(r); n != had {
				t.Fatalf("removed %d, want %d", n, had)
			}
			for seq := r.First; seq <= r.Last; seq++ {
				delete(model, seq)
			}
		}
		if parts != had || s.count() != int64(len(model)) {
			t.Fatalf("overlap %d, want %d; %d in all, want %d", parts, had, s.count(), len(model))
		}
		for seq := range uint64(110) {
			if s.has(seq) != model[seq] {
				t.Fatalf("%d: got %v in %s", seq, s.has(seq), ranges(s))
			}
		}
		for i := 1; i < len(s); i++ {
			if s[i-1].Last+1 >= s[i].First {
				t.Fatalf("not in order, or not joined: %s", ranges(s))
			}
		}
	}
}
