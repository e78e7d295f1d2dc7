package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// share appends records for the views of these names, letters.
func share(t *testing.T, l *Log, first, last uint64, size int, names string) {
	t.Helper()
	var views []*View
	for _, name := range names {
		views = append(views, l.View(string(name), nil))
	}
	if left, err := l.Share(batch(first, last, size), views); err != nil || len(left) > 0 {
		t.Fatalf("%d left out, %v", len(left), err)
	}
}

// readView returns what waits for a view, which it checks to be what was shared.
func readView(t *testing.T, l *Log, name string) (got set) {
	t.Helper()
	v := l.View(name, nil)
	r := v.Reader(0)
	defer r.Close()
	var p Page
	for {
		if err := r.Read(&p, 3000, ^uint64(0)); err != nil {
			t.Fatal(err)
		}
		if len(p.Lost) > 0 {
			t.Errorf("cannot be read: %v", p.Lost)
		}
		if len(p.Records) == 0 {
			break
		}
		for _, rec := range p.Records {
			if string(rec.Meta) != fmt.Sprintf("m%d", rec.Seq) || len(rec.Frame) > 0 && rec.Frame[len(rec.Frame)-1] != byte(rec.Seq) {
				t.Errorf("record %d is not what was put", rec.Seq)
			}
			got.push(rec.Seq)
		}
	}
	n, first, last := v.Waiting()
	if n != got.count() || n > 0 && (first != got[0].First || last != got[len(got)-1].Last) {
		t.Errorf("view %s: %d wait, from %d to %d; read %s", name, n, first, last, ranges(got))
	}
	return got
}

// checkViews compares what waits for views with "a:1-3 b:2".
func checkViews(t *testing.T, l *Log, want string) {
	t.Helper()
	var list []string
	for _, name := range slices.Sorted(slices.Values(l.Views())) {
		list = append(list, name+":"+ranges(readView(t, l, name)))
	}
	if got := strings.Join(list, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestARecordWaitsForThoseItWasSharedWith(t *testing.T) {
	dir := t.TempDir() + "/log"
	o := Options{Durable: true, Shared: true, SegmentSize: 4096}
	l, _ := mustOpen(t, dir, o)
	again := func() {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, _ = mustOpen(t, dir, o)
	}
	share(t, l, 1, 3, 500, "ab")
	share(t, l, 4, 6, 500, "b")
	share(t, l, 7, 9, 500, "abc")
	mustCommit(t, l, 9)
	const all = "a:1-3 7-9 b:1-9 c:7-9"
	checkViews(t, l, all)
	again()
	checkViews(t, l, all)
	for name, r := range map[string]Range{"a": {2, 8}, "b": {1, 6}, "c": {9, 9}} {
		if err := l.View(name, nil).Ack(r, Range{100, 200}); err != nil {
			t.Fatal(err)
		}
	}
	const some = "a:1-1 9-9 b:7-9 c:7-8"
	checkViews(t, l, some)
	again()
	checkViews(t, l, some)
	l.View("b", nil).End()
	checkViews(t, l, "a:1-1 9-9 c:7-8")
	again()
	checkViews(t, l, "a:1-1 9-9 c:7-8")
	share(t, l, 10, 10, 5, "b") // a new one of that name
	mustAck(t, l, Range{1, 8})  // for all
	checkViews(t, l, "a:9-9 b:10-10 c:")
	again()
	checkViews(t, l, "a:9-9 b:10-10 c:")
	mustAck(t, l, Range{1, 10})
	if s := l.Stats(); s.Segments != 1 || s.Waiting != 0 {
		t.Errorf("%d segments, %d wait", s.Segments, s.Waiting)
	}
}

func TestARecordIsOnDiskOnceForAllViews(t *testing.T) {
	for _, views := range []int{1, 100} {
		m := newMemFS(nil)
		l, _, err := Open(crashDir, Options{Durable: true, Shared: true, FS: m})
		if err != nil {
			t.Fatal(err)
		}
		var all []*View
		for i := range views {
			all = append(all, l.View(fmt.Sprint("view", i), nil))
		}
		for i := range uint64(10) {
			if _, err := l.Share(batch(100*i+1, 100*i+100, 100), all); err != nil {
				t.Fatal(err)
			}
			mustCommit(t, l, 100*i+100)
		}
		s := l.Stats()
		if most := int64(10*100*(100+recordHead+6) + views*50 + 4096); s.Bytes > most || s.Syncs != 10 {
			t.Errorf("%d views: %d bytes in %d syncs, want at most %d in 10", views, s.Bytes, s.Syncs, most)
		}
		l.Close()
	}
}

// What one view leaves behind is bounded by its quota, and costs the others
// nothing.
func TestAViewBeyondItsQuotaIsLeftOut(t *testing.T) {
	m := newMemFS(nil)
	o := Options{Durable: true, Shared: true, SegmentSize: 8 << 10, FS: m}
	l, _, err := Open(crashDir, o)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 100 << 10
	quota := NewQuota(limit)
	views := []*View{l.View("slow", quota), l.View("quick", NewQuota(limit))}
	rng := rand.New(rand.NewPCG(3, 3))
	given, lost, most := 0, 0, int64(0)
	for seq := uint64(1); seq < 20_000; seq++ {
		left, err := l.Share(batch(seq, seq, 100), views)
		switch {
		case err != nil:
			t.Fatal(err)
		case len(left) == 0:
			given++
			// It is done with all but one of each segment or so.
			if rng.IntN(60) > 0 {
				if err := views[0].Ack(Range{seq, seq}); err != nil {
					t.Fatal(err)
				}
			}
		case len(left) == 1 && left[0] == views[0]:
			lost++
		default:
			t.Fatalf("record %d: %d left out", seq, len(left))
		}
		if seq%50 == 0 {
			mustCommit(t, l, seq)
			if err := views[1].Ack(Range{1, seq}); err != nil {
				t.Fatal(err)
			}
		}
		most = max(most, l.Stats().Bytes)
	}
	if given == 0 || lost == 0 {
		t.Errorf("%d given, %d left out", given, lost)
	}
	if most > 2*limit {
		t.Errorf("%d bytes on disk, of which %d are allowed", most, limit)
	}
	if used := quota.Used(); used > limit+o.SegmentSize || used < limit/2 {
		t.Errorf("%d bytes count, of %d", used, limit)
	}
	waiting := readView(t, l, "slow")
	l.Close()
	if used := quota.Used(); used != 0 {
		t.Errorf("%d bytes count when it is closed", used)
	}
	l, _, err = Open(crashDir, o)
	if err != nil {
		t.Fatal(err)
	}
	l.View("slow", quota)
	if got := readView(t, l, "slow"); ranges(got) != ranges(waiting) {
		t.Errorf("got %s, want %s", ranges(got), ranges(waiting))
	}
	l.View("slow", nil).End()
	l.View("quick", nil).End()
	if s, used := l.Stats(), quota.Used(); s.Segments > 1 || used != 0 {
		t.Errorf("%d segments for nobody, %d bytes count", s.Segments, used)
	}
	l.Close()
}

func TestOneFlippedBitCostsViewsAtMostTheRecordItHits(t *testing.T) {
	t.Parallel()
	m := newMemFS(nil)
	o := Options{Durable: true, Shared: true, SegmentSize: 2000, FS: m}
	l, _, err := Open(crashDir, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(8) {
		share(t, l, 2*i+1, 2*i+2, 200, []string{"a", "ab", "abc", "b"}[i%4])
		mustCommit(t, l, 2*i+2)
	}
	if err := l.View("a", nil).Ack(Range{3, 4}); err != nil {
		t.Fatal(err)
	}
	want := map[string]set{}
	for _, name := range l.Views() {
		want[name] = readView(t, l, name)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	image := m.crash(len(m.ops), crashes[0], nil)
	for _, name := range slices.Sorted(maps.Keys(image)) {
		for bit := 0; bit < 8*len(image[name]); bit += 29 * stateStep {
			flipped := maps.Clone(image)
			flipped[name] = slices.Clone(image[name])
			flipped[name][bit/8] ^= 1 << (bit % 8)
			o.FS = newMemFS(flipped)
			l, rec, err := Open(crashDir, o)
			if err != nil {
				t.Fatal(err)
			}
			missing := set{}
			for view, want := range want {
				r, p, got := l.View(view, nil).Reader(0), Page{}, set(nil)
				for {
					if err := r.Read(&p, 1000, ^uint64(0)); err != nil {
						t.Fatal(err)
					}
					if len(p.Records)+len(p.Lost) == 0 {
						break
					}
					for _, rec := range p.Records {
						got.push(rec.Seq)
					}
				}
				r.Close()
				missing = union(missing, minus(want, got))
				if extra := minus(minus(got, want), set{{3, 4}}); len(extra) > 0 {
					t.Errorf("%s, bit %d: view %s got %s", name, bit, view, ranges(extra))
				}
			}
			if missing.count() > 1 || len(rec.Damage) == 0 {
				t.Errorf("%s, bit %d: lost %s; reported: %v", name, bit, ranges(missing), rec.Damage)
			}
			l.Close()
			if t.Failed() {
				return
			}
		}
	}
}

func TestASharedLogIsInspectedByView(t *testing.T) {
	dir := t.TempDir() + "/log"
	l, _ := mustOpen(t, dir, Options{Durable: true, Shared: true})
	share(t, l, 1, 3, 10, "ab")
	share(t, l, 4, 4, 10, "b")
	for name, r := range map[string]Range{"a": {1, 2}, "b": {2, 3}} {
		if err := l.View(name, nil).Ack(r); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	rec, err := Verify(dir)
	if want := map[string]int64{"a": 1, "b": 2}; err != nil || !maps.Equal(rec.Views, want) {
		t.Errorf("got %v, %v; want %v", rec.Views, err, want)
	}
	var b strings.Builder
	if err := Dump(dir, &b, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"seq":1,`, `"bytes":10,"acknowledged":true}`, `{"kind":"view","bytes":0,"waiting":1,"view":"a"}`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "acknowledged"); n != 1 {
		t.Errorf("%d are acknowledged by all, want 1:\n%s", n, b.String())
	}
	for view, want := range map[string]string{"": "1-1 3-4", "a": "3-3", "b": "1-1 4-4"} {
		out := t.TempDir() + "/" + view
		if _, err := Salvage(dir, out, view); err != nil {
			t.Fatal(err)
		}
		saved, _ := mustOpen(t, out, Options{})
		if got := readAll(t, saved, 1000); got != want {
			t.Errorf("view %q: got %s, want %s", view, got, want)
		}
	}
	if _, err := Salvage(dir, t.TempDir()+"/out", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// The views of the oldest segment are not known then, but those of the next are.
func TestDamageToAllThatSaysWhoTheViewsAreHidesNothing(t *testing.T) {
	dir := t.TempDir()
	o := Options{Durable: true, Shared: true, SegmentSize: 4000}
	l, _, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(10) {
		names := "abc"
		if i > 0 { // c has not, still in the first segment
			names = "ab"
		}
		share(t, l, 10*i+1, 10*i+10, 100, names)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := l.path(1, logSuffix)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[segmentHead : segmentHead+recordHead]) // one copy
	at := segmentHead + bytes.Index(b[segmentHead:], magic)
	clear(b[at : at+recordHead]) // and the other
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l, rec, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if len(rec.Damage) == 0 {
		t.Error("the damage is not seen")
	}
	checkViews(t, l, "a:1-100 b:1-100 c:1-10")
}

func TestAViewCountsForTheQuotaGivenLast(t *testing.T) {
	l, _, err := Open(t.TempDir(), Options{Durable: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	first, second := NewQuota(0), NewQuota(0)
	v := l.View("a", first)
	if _, err := l.Share(batch(1, 10, 100), []*View{v}); err != nil {
		t.Fatal(err)
	}
	used := first.Used()
	l.View("a", second)
	l.View("a", nil)
	if used == 0 || first.Used() != 0 || second.Used() != used {
		t.Errorf("%d and %d are used, want 0 and %d", first.Used(), second.Used(), used)
	}
	if err := v.Ack(Range{1, 10}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if first.Used() != 0 || second.Used() != 0 {
		t.Errorf("%d and %d are used at the end", first.Used(), second.Used())
	}
}
