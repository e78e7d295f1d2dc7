package spool

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// sample is a log of several segments with records of each kind, closed, and
// what waits in it.
func sample(t testing.TB) (image map[string][]byte, waiting set, last uint64) {
	m := newMemFS(nil)
	mark := uint64(0)
	l, _, err := Open(crashDir, Options{Durable: true, SegmentSize: 2600, FS: m, State: func(dst []byte) []byte { return le.AppendUint64(dst, mark) }})
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	for i := range uint64(18) {
		check(l.Append(batch(3*i+1, 3*i+3, 100)))
		mark = 3*i + 3
		if i%2 == 0 {
			check(l.Commit(mark))
		}
		if i == 5 {
			check(l.PutState())
		}
		waiting.add(Range{3*i + 1, 3*i + 3})
	}
	for _, r := range []Range{{2, 3}, {12, 12}, {20, 24}, {35, 35}} {
		check(l.Ack(r))
		waiting.remove(r)
	}
	check(l.Note(1, []byte("note")))
	check(l.Commit(mark))
	check(l.Close())
	return m.crash(len(m.ops), crashes[0], nil), waiting, mark
}

func TestOneFlippedBitCostsAtMostTheRecordItHits(t *testing.T) {
	t.Parallel()
	image, waiting, last := sample(t)
	// Which record is where, and which acknowledgements.
	type part struct {
		end  int64
		hit  set // records of a segment
		acks set // records that an acknowledgement is about
		kind uint8
	}
	parts := map[string][]part{}
	bits, names := 0, slices.Sorted(maps.Keys(image))
	header, _ := parseHeader(image[crashDir+"/0000000001.log"])
	for _, name := range names {
		number, suffix := parseName(name[len(crashDir)+1:])
		start := int64(segmentHead)
		if suffix == ackSuffix {
			number, start = number|ofAcks, 0
		} else {
			parts[name] = []part{{end: segmentHead}}
		}
		s := scanner{r: bytes.NewReader(image[name]), size: int64(len(image[name])), seal: seal(header.key, number), window: window}
		holes := s.scan(start, func(e entry) {
			p := part{end: e.end(), kind: e.kind}
			switch e.kind {
			case kindMessage:
				p.hit.push(e.seq)
			case kindAck:
				for b := e.body; len(b) > 0; b = b[16:] {
					p.acks.add(Range{le.Uint64(b), le.Uint64(b[8:])})
				}
			}
			parts[name] = append(parts[name], p)
		})
		if len(holes) > 0 {
			t.Fatalf("%s: %v", name, holes)
		}
		bits += 8 * len(image[name])
	}
	if bits < 100_000 || len(names) < 5 {
		t.Fatalf("the sample has %d bits in %d files", bits, len(names))
	}
	step := max(1, bits/flips) // every bit, unless that takes too long
	count := 0
	for _, name := range names {
		data := image[name]
		for bit := 0; bit < 8*len(data); bit += step {
			count++
			at := int64(bit / 8)
			i := slices.IndexFunc(parts[name], func(p part) bool { return at < p.end })
			p := parts[name][i]
			flipped := maps.Clone(image)
			flipped[name] = slices.Clone(data)
			flipped[name][at] ^= 1 << (bit % 8)
			w := newWorkload(t, Options{Durable: true, SegmentSize: 2600}, newMemFS(flipped))
			where := fmt.Sprintf("%s, bit %d of byte %d", name, bit%8, at)
			rec := w.open()
			got := w.waiting(where)
			want := union(minus(waiting, p.hit), minus(p.acks, nil))
			if miss := minus(minus(waiting, p.hit), got); len(miss) > 0 || len(minus(got, want)) > 0 {
				t.Errorf("%s: got %s, want %s", where, ranges(got), ranges(want))
			}
			if len(rec.Damage) == 0 {
				t.Errorf("%s: nothing is reported", where)
			}
			if rec.Last != last || w.mark != last && p.kind != kindState && len(p.hit) == 0 {
				t.Errorf("%s: last %d, state %d, want %d", where, rec.Last, w.mark, last)
			}
			if w.fs.open != 0 {
				t.Errorf("%s: %d open files", where, w.fs.open)
			}
			if t.Failed() {
				return
			}
		}
	}
	if t.Logf("%d flips", count); count < flips {
		t.Errorf("got %d flips, want %d", count, flips)
	}
}

func TestDamageWhileTheLogIsOpenIsReportedToTheReader(t *testing.T) {
	image, waiting, _ := sample(t)
	w := newWorkload(t, Options{Durable: true, SegmentSize: 2600}, newMemFS(image))
	w.open()
	name := crashDir + "/0000000001.log"
	data := w.fs.names[name].data
	data[bytes.Index(data, bytes.Repeat([]byte{5}, 50))] ^= 1 // in the frame of record 5
	var p Page
	var got, lost set
	for r := w.l.Reader(1); ; {
		if err := r.Read(&p, 300, ^uint64(0)); err != nil {
			t.Fatal(err)
		}
		if len(p.Records)+len(p.Lost) == 0 {
			r.Close()
			break
		}
		for _, rec := range p.Records {
			got.add(Range{rec.Seq, rec.Seq})
		}
		for _, r := range p.Lost {
			lost.add(r)
		}
	}
	if want := minus(waiting, set{{5, 5}}); ranges(got) != ranges(want) || ranges(lost) != "5-5" {
		t.Errorf("got %s, lost %s, want %s, 5-5", ranges(got), ranges(lost), ranges(want))
	}
	if s := w.l.Stats(); s.Lost != 1 || s.Waiting != waiting.count()-1 {
		t.Errorf("got %+v", s)
	}
	// Once all is acknowledged the damaged segment stays, under another name.
	if err := w.l.Ack(Range{1, 100}); err != nil {
		t.Fatal(err)
	}
	w.next, w.mark = 55, 54
	w.put(1, 1)
	w.commit()
	w.l.Close()
	var logs []string
	for _, n := range slices.Sorted(maps.Keys(w.fs.names)) {
		if !strings.HasSuffix(n, ackSuffix) {
			logs = append(logs, n)
		}
	}
	if len(logs) != 2 || logs[0] != name+".bad" {
		t.Errorf("left: %q", logs)
	}
}

func TestABlockThatCannotBeReadCostsWhatIsInIt(t *testing.T) {
	w := newWorkload(t, Options{Durable: true}, newMemFS(nil))
	w.open()
	w.put(200, 100)
	w.commit()
	w.close()
	const bad = 3 * readBlock
	w.fs.read = func(name string, off int64, n int) error {
		if off <= bad && bad < off+int64(n) {
			return syscall.EIO
		}
		return nil
	}
	rec := w.open()
	kinds := map[Kind]bool{}
	for _, d := range rec.Damage {
		kinds[d.Kind] = true
	}
	if n := 200 - rec.Waiting; n < 25 || n > 60 || !kinds[Unreadable] {
		t.Errorf("lost %d of 200: %v", n, rec.Damage)
	}
	w.fs.read = func(string, int64, int) error { return syscall.EMFILE }
	r := w.l.Reader(0)
	defer r.Close()
	var p Page
	if err := r.Read(&p, 1000, 1000); err == nil {
		t.Error("an error that passes is none")
	}
	w.fs.read = nil
	if err := r.Read(&p, 1000, 1000); err != nil || len(p.Records) == 0 || len(p.Lost) > 0 {
		t.Errorf("after it passed: got %v, %d records, lost %v", err, len(p.Records), p.Lost)
	}
}

func FuzzOpen(f *testing.F) {
	image, _, _ := sample(f)
	names := slices.Sorted(maps.Keys(image))
	f.Add(image[names[1]], image[names[0]]) // the .log, the .ack
	for _, name := range names {
		f.Add(image[name], []byte{})
	}
	f.Fuzz(func(t *testing.T, log, acks []byte) {
		w := newWorkload(t, Options{Durable: true}, newMemFS(map[string][]byte{
			crashDir + "/0000000001.log": log, crashDir + "/0000000001.ack": acks, crashDir + "/0000000002.log": acks,
		}))
		w.o.Restore, w.o.Replay = nil, nil
		rec := w.open()
		if rec.Last >= ^uint64(0)-10 {
			return
		}
		var p Page
		r := w.l.Reader(0)
		n := int64(0)
		for {
			if err := r.Read(&p, 1000, ^uint64(0)); err != nil {
				t.Fatal(err)
			}
			if len(p.Records) == 0 {
				break
			}
			n += int64(len(p.Records))
		}
		r.Close()
		if n != rec.Waiting {
			t.Errorf("read %d records of %d", n, rec.Waiting)
		}
		w.put(1, 10)
		w.commit()
		w.close()
		if again := w.open(); again.Waiting != rec.Waiting+1 || again.Last != rec.Last+1 {
			t.Errorf("after one more: got %+v, had %+v", again, rec)
		}
	})
}
