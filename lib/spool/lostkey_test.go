package spool

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// one is a log of one segment, as a kill leaves it: what waits is 1 and 4 to 10.
func one(t *testing.T) map[string][]byte {
	w := newWorkload(t, Options{Durable: true}, newMemFS(nil))
	w.open()
	w.put(10, 500)
	w.commit()
	if err := w.l.Ack(Range{2, 3}); err != nil {
		t.Fatal(err)
	}
	return w.fs.crash(len(w.fs.ops), crashes[0], nil)
}

// kept returns the names of the damaged segments that were kept.
func kept(fs *memFS) (bad []string) {
	for _, name := range slices.Sorted(maps.Keys(fs.names)) {
		if strings.HasSuffix(name, badSuffix) {
			bad = append(bad, name)
		}
	}
	return bad
}

func TestASegmentThatLostItsHeaderIsReadAndKept(t *testing.T) {
	const name = crashDir + "/0000000001.log"
	for _, tt := range []struct {
		what     string
		from, to int
		key      bool // it can be found
		reported bool // as damage, not as a torn end
		waiting  string
	}{
		{"nothing", 0, 0, true, false, "1-1 4-10"},
		{"the first copy", 0, 512, true, true, "1-1 4-10"},
		{"the second copy", 512, 1024, true, true, "1-1 4-10"},
		{"both copies", 0, 1024, true, true, "1-1 4-10"},
		{"the header and the first record", 0, 1100, false, true, ""},
		{"the first block", 0, 4096, false, true, ""},
	} {
		image := one(t)
		before := slices.Clone(image[name])
		clear(image[name][tt.from:tt.to])
		damaged := slices.Clone(image[name])
		disk := newMemFS(image)
		w := newWorkload(t, Options{Durable: true}, disk)
		w.o.Restore, w.o.Replay = nil, nil
		rec := w.open()
		if got := ranges(w.waiting(tt.what)); got != tt.waiting {
			t.Errorf("without %s: got %s, want %s: %v", tt.what, got, tt.waiting, rec.Damage)
		}
		reported := slices.ContainsFunc(rec.Damage, func(d Damage) bool { return d.Kind == Damaged && d.Offset < segmentHead })
		if reported != tt.reported {
			t.Errorf("without %s: got %v", tt.what, rec.Damage)
		}
		if got := kept(disk); (len(got) == 0) != tt.key {
			t.Errorf("without %s, opened: kept %q", tt.what, got)
		}
		// A second kill loses nothing either, nor what comes after the first.
		w.next, w.mark = 11, 10
		w.put(2, 10)
		w.commit()
		w = newWorkload(t, Options{Durable: true}, newMemFS(disk.crash(len(disk.ops), crashes[0], nil)))
		w.o.Restore, w.o.Replay = nil, nil
		w.open()
		want := strings.TrimSpace(tt.waiting + " 11-12")
		if tt.key {
			want = strings.Replace(tt.waiting, "4-10", "4-12", 1)
		}
		if got := ranges(w.waiting(tt.what)); got != want {
			t.Errorf("without %s, opened again: got %s, want %s", tt.what, got, want)
		}
		// When all is done the damaged one is still there to be looked at.
		if err := w.l.Ack(Range{1, 12}); err != nil {
			t.Fatal(err)
		}
		w.next, w.mark = 13, 12
		w.put(1, 10)
		w.commit()
		w.l.Close()
		got := kept(w.fs)
		if !tt.reported {
			if len(got) > 0 {
				t.Errorf("without %s: kept %q", tt.what, got)
			}
			continue
		}
		if len(got) != 1 || got[0] != name+".bad" {
			t.Errorf("without %s: kept %q, want the segment", tt.what, got)
			continue
		}
		data := w.fs.names[got[0]].data
		if !bytes.Equal(data[:len(damaged)], damaged) || bytes.Equal(data, before) {
			t.Errorf("without %s: what is kept is not what was there", tt.what)
		}
	}
}

func TestASegmentThatWasCutWhileItWasMadeIsNotKept(t *testing.T) {
	for what, data := range map[string][]byte{
		"empty": {}, "short": bytes.Repeat([]byte{1}, 700), "zeros": make([]byte, 5000),
	} {
		disk := newMemFS(map[string][]byte{crashDir + "/0000000001.log": data})
		w := newWorkload(t, Options{Durable: true}, disk)
		for _, d := range w.open().Damage {
			if d.Kind != Torn {
				t.Errorf("%s: got %v", what, d)
			}
		}
		if got := kept(disk); len(got) > 0 {
			t.Errorf("%s: kept %q", what, got)
		}
		w.close()
	}
}

func TestAKeyThatIsFoundGivesAllChecksumsOfTheLog(t *testing.T) {
	for _, key := range []uint64{0, 1, 0x0123456789abcdef, ^uint64(0)} {
		for _, number := range []uint64{1, 7, 1 << 40} {
			file := make([]byte, segmentHead)
			file = appendRecord(file, seal(key, number), segmentHead, head{kind: kindMessage, seq: 9}, []byte("meta"), []byte("frame"))
			s := scanner{r: bytes.NewReader(file), size: int64(len(file)), window: window}
			got, ok := findKey(&s, number)
			if !ok {
				t.Fatalf("key %x, segment %d: not found", key, number)
			}
			for _, n := range []uint64{1, 8, number, number | ofAcks} {
				if seal(got, n) != seal(key, n) {
					t.Errorf("key %x, segment %d: other checksums in %x", key, number, n)
				}
			}
			file[len(file)-1] ^= 1
			s = scanner{r: bytes.NewReader(file), size: int64(len(file)), window: window}
			if _, ok := findKey(&s, number); ok {
				t.Errorf("key %x, segment %d: found in a damaged record", key, number)
			}
		}
	}
}

func TestASharedSegmentThatLostItsHeaderIsReadForAllViews(t *testing.T) {
	dir := t.TempDir() + "/log"
	o := Options{Durable: true, Shared: true}
	l, _ := mustOpen(t, dir, o)
	share(t, l, 1, 5, 100, "ab")
	share(t, l, 6, 8, 100, "b")
	if err := errors.Join(l.Commit(8), l.View("a", nil).Ack(Range{2, 3}), l.Close()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(l.path(1, logSuffix), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(make([]byte, segmentHead), 0)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	l, rec, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if checkViews(t, l, "a:1-1 4-5 b:1-8"); len(rec.Damage) == 0 {
		t.Error("no damage is reported")
	}
	share(t, l, 9, 9, 100, "a")
	if err := errors.Join(l.Commit(9), l.Ack(Range{1, 8})); err != nil {
		t.Fatal(err)
	}
	checkViews(t, l, "a:9-9 b:")
	if _, err := os.Stat(l.path(1, badSuffix)); err != nil {
		t.Errorf("the damaged segment is not kept: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
