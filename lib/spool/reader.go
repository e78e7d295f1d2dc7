package spool

import (
	"errors"
	"hash/crc32"
	"io/fs"
)

// A Page is what Read fills. It may be used again and again; its records are
// valid until then.
type Page struct {
	Records []Record
	// Lost are records that are damaged on the disk. They count as
	// acknowledged now, and their segment is kept as .bad.
	Lost []Range

	buf []byte
}

// A Reader reads the records of a log in order. It may be used by one goroutine
// at a time, while others use the log.
type Reader struct {
	l    *Log
	v    *View    // whose records it reads, nil: all
	next uint64   // the first sequence to look for
	seg  *segment // of f; only its constants are looked at without the lock
	f    File
	off  int64 // of the first record that was not looked at
}

// Reader returns a reader of the records from sequence from on.
func (l *Log) Reader(from uint64) *Reader { return &Reader{l: l, next: max(from, 1)} }

// Close closes what the reader holds open. Read may be called again.
func (r *Reader) Close() error {
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f, r.seg = nil, nil
	return err
}

// Seek makes the reader go on with sequence from, wherever it is.
func (r *Reader) Seek(from uint64) {
	r.Close()
	r.next = max(from, 1)
}

// Read replaces the content of the page by the next records that are not
// acknowledged and whose sequence is at most upTo: together about max bytes, but
// at least one if there is any. Records just appended are read too, committed or
// not. When nothing is left the page is empty and the error nil; more may come.
// After an error, which is the disk's or ErrClosed, the same records can be read
// again later.
func (r *Reader) Read(p *Page, max int, upTo uint64) error {
	clear(p.Records)
	p.Records, p.Lost = p.Records[:0], p.Lost[:0]
	for len(p.Records) == 0 && len(p.Lost) == 0 {
		end, live, err := r.position(upTo)
		if err != nil {
			return err
		}
		if len(live) == 0 {
			return nil
		}
		next := r.next
		if err := r.read(p, max, end, live); err != nil {
			r.Seek(next)
			p.Records, p.Lost = p.Records[:0], p.Lost[:0]
			return r.l.wrap(err)
		}
		r.settle(p)
	}
	return nil
}

// position opens the segment with the first record to read, and returns its end
// and which records of it are wanted; none when there is nothing to read.
func (r *Reader) position(upTo uint64) (end int64, live set, err error) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, nil, l.wrap(ErrClosed)
	}
	for seg, all := range r.wanted {
		for i := all.find(r.next); i < len(*all) && (*all)[i].First <= upTo && len(live) < maxRanges; i++ {
			live = append(live, Range{max(r.next, (*all)[i].First), min(upTo, (*all)[i].Last)})
		}
		if len(live) == 0 {
			continue
		}
		if r.seg != seg {
			r.Close()
			f, err := l.fs.Open(l.path(seg.number, logSuffix))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, nil, l.wrap(err)
			}
			if err != nil {
				f = nothing{} // somebody removed it: all of it is lost
			}
			r.f, r.seg, r.off = f, seg, segmentHead
		}
		if i := seg.before(live[0].First); i >= 0 && seg.index[i].off > r.off {
			r.off = seg.index[i].off
		}
		return seg.size, live, nil
	}
	return 0, nil, nil
}

// wanted yields the segments with what is wanted of them. The log is locked.
func (r *Reader) wanted(yield func(*segment, *set) bool) {
	if r.v != nil {
		for _, h := range r.v.holds {
			if !yield(h.seg, &h.live) {
				return
			}
		}
		return
	}
	for _, seg := range r.l.segs {
		if !yield(seg, &seg.live) {
			return
		}
	}
}

// live is what is wanted of the segment that is open. The log is locked.
func (r *Reader) live() set {
	if r.v == nil {
		return r.seg.live
	}
	if h := r.v.hold(r.seg); h != nil {
		return h.live
	}
	return nil
}

// read reads wanted records of one segment. The window of the scanner is the
// page's buffer: it is filled again only while no record lies in it.
func (r *Reader) read(p *Page, size int, end int64, live set) error {
	if cap(p.buf) > 2*max(size, readBlock) {
		p.buf = nil // a single record was that large
	}
	s := scanner{r: r.f, size: end, seal: seal(r.seg.key, r.seg.number), buf: p.buf[:0], window: max(size, readBlock)}
	defer func() { p.buf = s.buf }()
	last := live[len(live)-1].Last
	bytes := 0
	for r.off < end && r.next <= last {
		if len(p.Records) > 0 && (bytes >= size || !s.has(r.off, recordHead)) {
			return s.err
		}
		h, ok := parseHead(s.bytes(r.off, recordHead), s.seal, r.off)
		next := r.off + recordHead + int64(h.length)
		if !ok || next > end {
			if len(p.Records) > 0 {
				return s.err // the search would move the window
			}
			r.off = s.next(r.off + 1)
			if s.err != nil {
				return s.err
			}
			continue
		}
		if h.kind == kindMessage && h.seq >= r.next {
			if h.seq > last {
				break
			}
			if live.has(h.seq) {
				if len(p.Records) > 0 && (bytes+h.length > size || !s.has(r.off, recordHead+h.length)) {
					return s.err
				}
				body := s.bytes(r.off, recordHead+h.length)[recordHead:]
				if s.err != nil {
					return s.err
				}
				if crc32.Update(s.seal, castagnoli, body) == h.crc {
					p.Records = append(p.Records, Record{Seq: h.seq, Time: h.time, Flags: h.flags,
						Meta: body[:h.meta:h.meta], Frame: body[h.meta:], Size: h.length - h.meta})
					bytes += h.length
				} else {
					p.Lost = append(p.Lost, Range{h.seq, h.seq})
				}
			}
			p.missing(live, r.next, h.seq-1)
			r.next = h.seq + 1
		}
		r.off = next
	}
	if s.err == nil && r.next <= last {
		p.missing(live, r.next, last)
		r.next = last + 1
	}
	return s.err
}

// missing adds to Lost what should have been found between two records.
func (p *Page) missing(live set, from, to uint64) {
	if from <= to {
		live.overlap(Range{from, to}, func(part Range) { p.Lost = append(p.Lost, part) })
	}
}

// settle leaves out what was acknowledged or taken back meanwhile, adds the
// notes, and takes what is lost out of the log.
func (r *Reader) settle(p *Page) {
	l := r.l
	l.mu.Lock()
	defer l.mu.Unlock()
	kept, live := p.Records[:0], r.live()
	for _, rec := range p.Records {
		if live.has(rec.Seq) {
			rec.Note = l.notes[rec.Seq]
			kept = append(kept, rec)
		}
	}
	clear(p.Records[len(kept):])
	p.Records = kept
	lost := p.Lost
	p.Lost = p.Lost[:0:0]
	for _, part := range lost {
		live.overlap(part, func(part Range) { p.Lost = append(p.Lost, part) })
	}
	if len(p.Lost) == 0 || l.closed {
		return
	}
	r.seg.damaged = true
	for _, part := range p.Lost {
		if r.v != nil { // the others find it themselves
			n := r.v.remove(part)
			r.v.lost += uint64(n)
			l.counts.Lost += uint64(n)
			continue
		}
		n := r.seg.live.remove(part)
		l.waiting -= n
		l.counts.Lost += uint64(n)
		r.seg.pending.add(part)
		l.forgetNotes(part)
	}
	l.release(r.seg)
	if l.readOnly {
		return
	}
	l.tidy()
	l.writeAcks() // what is not written now is written with the next
}

// nothing is the content of a file that is not there.
type nothing struct{ File }

func (nothing) ReadAt(b []byte, _ int64) (int, error) { clear(b); return len(b), nil }
func (nothing) Close() error                          { return nil }
