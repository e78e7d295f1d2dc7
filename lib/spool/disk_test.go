package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"aioc/lib/durable"
)

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b\n..", "c")
	l, _ := mustOpen(t, dir, Options{Durable: true})
	mustAppend(t, l, batch(1, 2, 10))
	mustAck(t, l, Range{1, 1})
	for path, want := range map[string]fs.FileMode{
		filepath.Dir(dir): fs.ModeDir | 0o700, dir: fs.ModeDir | 0o700,
		filepath.Join(dir, "0000000001.log"): 0o600, filepath.Join(dir, "0000000001.ack"): 0o600,
	} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%q: got %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Remove: got %v", err)
	}
}

func TestOtherFilesInTheDirectoryAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	others := []string{"notes", "1.log", "0000000000.log", "0000000001.log.bak", ".aioc-1.tmp", "00000000001.log"}
	for _, name := range others {
		if err := durable.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, _ := mustOpen(t, dir, Options{})
	mustAppend(t, l, batch(1, 1, 1))
	if err := l.Remove(); err == nil {
		t.Error("a directory with other files was removed")
	}
	for _, name := range others {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestWhatIsNoFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := durable.MkdirAll(filepath.Join(dir, "0000000001.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	if l, _, err := Open(dir, Options{}); err == nil {
		l.Close()
		t.Error("a directory in the place of a segment: no error")
	}
}

func TestReadersAndWritersMayRunConcurrently(t *testing.T) {
	const count = 3000
	l, _ := mustOpen(t, t.TempDir(), Options{Durable: true, SegmentSize: 32 << 10})
	var wg sync.WaitGroup
	wg.Go(func() {
		for seq := uint64(1); seq <= count; seq += 10 {
			if err := l.Append(batch(seq, seq+9, 50)); err != nil {
				t.Error(err)
			}
			if seq%100 == 1 {
				wg.Go(func() {
					if err := l.Commit(seq + 9); err != nil {
						t.Error(err)
					}
					l.Stats()
				})
			}
		}
	})
	var p Page
	r := l.Reader(0)
	defer r.Close()
	for next := uint64(1); next <= count; {
		if err := r.Read(&p, 4000, ^uint64(0)); err != nil || len(p.Lost) > 0 {
			t.Fatal(err, p.Lost)
		}
		for _, rec := range p.Records {
			if rec.Seq != next || string(rec.Meta) != fmt.Sprintf("m%d", next) || rec.Frame[49] != byte(next) {
				t.Fatalf("got record %d, want %d", rec.Seq, next)
			}
			next++
		}
		if len(p.Records) == 0 {
			if err := l.Commit(max(l.Last(), 1)); err != nil && !errors.Is(err, ErrOrder) {
				t.Fatal(err)
			}
		} else if next%3 > 0 {
			mustAck(t, l, Range{p.Records[0].Seq, next - 1})
		}
	}
	wg.Wait()
	mustAck(t, l, Range{1, count})
	if s := l.Stats(); s.Waiting != 0 || s.Acked != count || s.Segments != 1 {
		t.Errorf("got %+v", s)
	}
}

func TestALogIsInspectedWithoutAChange(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Options{Durable: true, SegmentSize: 2048})
	for seq := uint64(1); seq <= 40; seq += 4 {
		mustAppend(t, l, batch(seq, seq+3, 100))
	}
	mustAck(t, l, Range{3, 3}, Range{9, 40})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "0000000001.log")
	if err := durable.Edit(name, func(b []byte) ([]byte, error) { // in record 2
		b[bytes.Index(b, []byte("m2"))+10]++
		return b, nil
	}); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	rec, err := Verify(dir)
	if err != nil || len(rec.Damage) != 1 || rec.Damage[0].File != name || rec.Damage[0].Kind != Damaged || rec.Waiting != 6 || rec.Last != 40 {
		t.Errorf("verify: got %+v, %v", rec, err)
	}
	for frames, want := range map[bool]string{
		true:  "1 4 5 6 7 8 damage log ",
		false: "1 3 4 5 6 7 8 ", // and what is acknowledged in the same segments
	} {
		var out bytes.Buffer
		if err := Dump(dir, &out, frames); err != nil {
			t.Fatal(err)
		}
		got := ""
		for d := json.NewDecoder(&out); d.More(); {
			var v line
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			if v.Kind != "message" {
				got += v.Kind + " "
				continue
			}
			got += fmt.Sprintf("%d ", v.Seq)
			if frames != (len(v.Frame) == 100) || v.Bytes != 100 || v.Acknowledged != (v.Seq == 3 || v.Seq > 8) {
				t.Errorf("frames %v: got %+v", frames, v)
			}
		}
		if frames && got != want || !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "damage log ") {
			t.Errorf("frames %v: got %s, want %s", frames, got, want)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	if n, err := Salvage(dir, out, ""); n != 6 || err != nil {
		t.Errorf("salvage: got %d, %v", n, err)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("the log was changed: %s, was %s", after, before)
	}
	if _, err := Salvage(dir, out, ""); !errors.Is(err, fs.ErrExist) {
		t.Errorf("salvage onto a log: got %v", err)
	}
	saved, _ := mustOpen(t, out, Options{Durable: true})
	if got := readAll(t, saved, 1000); got != "1-1 4-8" {
		t.Errorf("salvaged: got %s", got)
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "x")} {
		if _, err := Verify(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no log: got %v", err)
		}
	}
}

// snapshot returns the names and contents of a directory.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %x\n", e.Name(), data)
	}
	return all.String()
}

func BenchmarkAppend(b *testing.B) {
	l, _, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const n = 1000
	records := batch(1, n, 100)
	for i := range records {
		records[i].Meta = records[i].Meta[:2]
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(records); err != nil {
			b.Fatal(err)
		}
		if err := l.Ack(Range{records[0].Seq, records[n-1].Seq}); err != nil {
			b.Fatal(err)
		}
		for i := range records {
			records[i].Seq += n
		}
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "records/s")
}

func TestWhatWaitsIsFoundWithoutOpeningTheLog(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Options{Durable: true})
	mustAppend(t, l, batch(1, 9, 100))
	mustCommit(t, l, 9)
	mustAck(t, l, Range{1, 3}, Range{5, 5})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	if err := Waiting(dir, func(frame []byte) { got = append(got, frame[0]) }); err != nil || string(got) != "\x04\x06\x07\x08\x09" {
		t.Errorf("got %v, %v, want 4 and 6 to 9", got, err)
	}
	if err := Waiting(t.TempDir(), func([]byte) { t.Error("something waits") }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: got %v, want %v", err, fs.ErrNotExist)
	}
}
