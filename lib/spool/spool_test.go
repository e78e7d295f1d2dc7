package spool

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// mustOpen opens a log and fails the test when that fails or damage is found.
func mustOpen(t *testing.T, dir string, o Options) (*Log, *Recovered) {
	t.Helper()
	l, rec, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if len(rec.Damage) > 0 {
		t.Fatalf("damage: %v", rec.Damage)
	}
	return l, rec
}

// batch makes records with the sequences from first to last.
func batch(first, last uint64, size int) []Record {
	var records []Record
	for seq := first; seq <= last; seq++ {
		frame := bytes.Repeat([]byte{byte(seq)}, size)
		records = append(records, Record{Seq: seq, Time: int64(seq) * 1000, Flags: uint8(seq), Meta: fmt.Appendf(nil, "m%d", seq), Frame: frame})
	}
	return records
}

func mustAppend(t *testing.T, l *Log, records []Record) {
	t.Helper()
	if err := l.Append(records); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t *testing.T, l *Log, seq uint64) {
	t.Helper()
	if err := l.Commit(seq); err != nil {
		t.Fatal(err)
	}
}

func mustAck(t *testing.T, l *Log, ranges ...Range) {
	t.Helper()
	if err := l.Ack(ranges...); err != nil {
		t.Fatal(err)
	}
}

// readAll reads what waits, with pages of about size bytes, checks that each
// record is as batch made it, and returns the sequences as text.
func readAll(t *testing.T, l *Log, size int) string {
	t.Helper()
	r := l.Reader(0)
	defer r.Close()
	var p Page
	var got set
	for {
		if err := r.Read(&p, size, ^uint64(0)); err != nil {
			t.Fatal(err)
		}
		if len(p.Lost) > 0 {
			t.Fatalf("lost: %v", p.Lost)
		}
		if len(p.Records) == 0 {
			return ranges(got)
		}
		for _, rec := range p.Records {
			if want := fmt.Sprintf("m%d", rec.Seq); string(rec.Meta) != want || rec.Time != int64(rec.Seq)*1000 || rec.Flags != uint8(rec.Seq) {
				t.Fatalf("record %d: got %+v", rec.Seq, rec)
			}
			for _, b := range rec.Frame {
				if b != byte(rec.Seq) {
					t.Fatalf("record %d: got frame %q", rec.Seq, rec.Frame)
				}
			}
			got.push(rec.Seq)
		}
	}
}

func ranges(s set) string {
	var parts []string
	for _, r := range s {
		parts = append(parts, fmt.Sprintf("%d-%d", r.First, r.Last))
	}
	return strings.Join(parts, " ")
}

func TestWhatIsAppendedIsThereAgainUntilItIsAcknowledged(t *testing.T) {
	for _, durable := range []bool{false, true} {
		dir := t.TempDir()
		o := Options{Durable: durable, SegmentSize: 4096}
		l, rec := mustOpen(t, dir, o)
		if rec.First != 0 || rec.Last != 0 || rec.Waiting != 0 {
			t.Errorf("a new log: got %+v", rec)
		}
		for i := range uint64(20) {
			mustAppend(t, l, batch(i*10+1, i*10+10, 100))
			mustCommit(t, l, i*10+10)
		}
		mustAck(t, l, Range{5, 7}, Range{100, 150}, Range{199, 300})
		for _, size := range []int{1, 1000, 10_000, 1 << 20} {
			if got, want := readAll(t, l, size), "1-4 8-99 151-198"; got != want {
				t.Errorf("pages of %d bytes: got %s, want %s", size, got, want)
			}
		}
		epoch := l.Epoch()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l, rec = mustOpen(t, dir, o)
		if got, want := readAll(t, l, 5000), "1-4 8-99 151-198"; got != want || rec.First != 1 || rec.Last != 200 || rec.Waiting != 144 {
			t.Errorf("after a restart: got %s, %+v, want %s", got, rec, want)
		}
		if l.Epoch() != epoch {
			t.Error("the epoch has changed")
		}
		mustAck(t, l, Range{1, 198})
		mustAppend(t, l, batch(201, 210, 10))
		mustCommit(t, l, 210)
		if got := l.Stats().Segments; got != 1 {
			t.Errorf("got %d segments, want those removed that are acknowledged", got)
		}
		if got, want := readAll(t, l, 5000), "201-210"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestManyCommitsShareASync(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{Durable: true})
	const writers, each = 50, 20
	for round := range uint64(each) {
		first := round*writers + 1
		mustAppend(t, l, batch(first, first+writers-1, 100))
		var wg sync.WaitGroup
		for i := range uint64(writers) {
			wg.Go(func() {
				if err := l.Commit(first + i); err != nil {
					t.Error(err)
				}
				if got := l.Committed(); got < first+i {
					t.Errorf("committed %d, want at least %d", got, first+i)
				}
			})
		}
		wg.Wait()
	}
	s := l.Stats()
	if s.Appended != writers*each || s.Waiting != writers*each || s.Syncs > 2*each {
		t.Errorf("got %+v", s)
	}
}

func TestABatchThatIsOutOfOrderIsRefused(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{})
	mustAppend(t, l, batch(5, 6, 1))
	for _, bad := range [][]Record{batch(6, 6, 1), batch(0, 0, 1), {{Seq: 8}, {Seq: 7}}, {{Seq: 7, Meta: make([]byte, MaxMeta+1)}}} {
		if err := l.Append(bad); !errors.Is(err, ErrOrder) {
			t.Errorf("got %v, want ErrOrder", err)
		}
	}
	if got := readAll(t, l, 100); got != "5-6" {
		t.Errorf("got %s", got)
	}
}
