package spool

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"syscall"
)

const (
	window    = 256 << 10 // read at once
	readBlock = 4 << 10   // what a read error costs
	arenaSize = 16 << 10
)

// entry is a record that a scan found.
type entry struct {
	head
	off  int64
	body []byte // of a message its meta, else all of it
}

// end returns the offset behind the record.
func (e *entry) end() int64 { return e.off + recordHead + int64(e.length) }

// hole is a part of a file in which no whole record was found.
type hole struct {
	off, end int64
	why      Kind
}

// scanner reads the records of a file, stepping over what is no record. It
// holds a window of the file, larger only where one meta part needs it.
type scanner struct {
	r      io.ReaderAt
	size   int64
	seal   uint32
	window int
	buf    []byte
	at     int64  // offset of buf in the file
	arena  []byte // for what entries keep
	bad    []hole // what cannot be read
	err    error  // of a read that another time may succeed
}

// has tells whether the window has n bytes at off.
func (s *scanner) has(off int64, n int) bool {
	return off >= s.at && min(off+int64(n), s.size) <= s.at+int64(len(s.buf))
}

// bytes returns what the file has at off, n bytes or up to its end. They are
// valid until the window moves.
func (s *scanner) bytes(off int64, n int) []byte {
	n = int(min(int64(n), s.size-off))
	if n <= 0 || s.err != nil {
		return nil
	}
	if !s.has(off, n) {
		size := int(min(int64(max(n, s.window)), s.size-off))
		if cap(s.buf) < size {
			s.buf = make([]byte, size)
		}
		s.buf, s.at = s.buf[:size], off
		s.fill()
	}
	return s.buf[off-s.at:][:n]
}

// fill reads the window. Blocks that the disk cannot read are zeros.
func (s *scanner) fill() {
	n, err := s.r.ReadAt(s.buf, s.at)
	if n == len(s.buf) || errors.Is(err, io.EOF) {
		clear(s.buf[n:])
		return
	}
	for i := 0; i < len(s.buf); i += readBlock {
		b := s.buf[i:min(i+readBlock, len(s.buf))]
		n, err := s.r.ReadAt(b, s.at+int64(i))
		clear(b[n:])
		switch {
		case n == len(b) || errors.Is(err, io.EOF):
		case errors.Is(err, syscall.EIO):
			s.bad = append(s.bad, hole{s.at + int64(i), s.at + int64(i+len(b)), Unreadable})
		default:
			s.err = err
			return
		}
	}
}

// keep copies bytes that outlive the window.
func (s *scanner) keep(b []byte) []byte {
	if cap(s.arena)-len(s.arena) < len(b) {
		s.arena = make([]byte, 0, max(len(b), int(min(arenaSize, s.size))))
	}
	n := len(s.arena)
	s.arena = append(s.arena, b...)
	return s.arena[n:len(s.arena):len(s.arena)]
}

// record returns the record at off. whole tells whether its body is intact;
// without ok there is no head of a record, or it ends behind the file.
func (s *scanner) record(off int64) (e entry, whole, ok bool) {
	b := s.bytes(off, recordHead)
	h, ok := parseHead(b, s.seal, off)
	if !ok || off+recordHead+int64(h.length) > s.size {
		return entry{}, false, false
	}
	e = entry{head: h, off: off}
	keep := h.meta
	if h.kind != kindMessage {
		keep = h.length
	}
	crc := s.seal
	for done := 0; done < h.length; {
		n := h.length - done
		if done == 0 && keep > 0 {
			b = s.bytes(off+recordHead, max(keep, min(n, readBlock)))
			if len(b) >= keep {
				e.body = s.keep(b[:keep])
			}
		} else {
			b = s.bytes(off+recordHead+int64(done), min(n, s.window))
		}
		if len(b) == 0 {
			return entry{}, false, false
		}
		crc = crc32.Update(crc, castagnoli, b)
		done += len(b)
	}
	return e, crc == h.crc, true
}

// next returns the offset at or behind off where the next head of a record is,
// or the end of the file.
func (s *scanner) next(off int64) int64 {
	for off < s.size && s.err == nil {
		b := s.bytes(off, s.window)
		i := bytes.Index(b, magic)
		if i < 0 {
			off += int64(max(len(b)-len(magic)+1, 1))
			continue
		}
		off += int64(i)
		if h, ok := parseHead(s.bytes(off, recordHead), s.seal, off); ok && off+recordHead+int64(h.length) <= s.size {
			return off
		}
		off++
	}
	return s.size
}

// scan calls found for each whole record from off on and returns the holes
// between them and behind the last. A rest of nothing but zeros is no hole: it is
// space that was never written.
func (s *scanner) scan(off int64, found func(entry)) (holes []hole) {
	broken := func(from, to int64, why Kind) {
		if n := len(holes); n > 0 && holes[n-1].end == from {
			holes[n-1].end = to
			return
		}
		holes = append(holes, hole{from, to, why})
	}
	for off < s.size && s.err == nil {
		e, whole, ok := s.record(off)
		switch {
		case ok && whole:
			found(e)
			off = e.end()
		case ok:
			broken(off, e.end(), Damaged)
			off = e.end()
		default:
			to := s.next(off + 1)
			why := Damaged
			if to == s.size {
				why = Torn
			}
			if to < s.size || !s.zero(off) || s.unreadable(off, to) {
				broken(off, to, why)
			}
			off = to
		}
	}
	for i := range holes {
		if s.unreadable(holes[i].off, holes[i].end) {
			holes[i].why = Unreadable
		}
	}
	return holes
}

// unreadable tells whether the disk could not read some of a part of the file.
func (s *scanner) unreadable(off, end int64) bool {
	return slices.ContainsFunc(s.bad, func(h hole) bool { return h.off < end && off < h.end })
}

// zero tells whether there are only zeros from off on.
func (s *scanner) zero(off int64) bool {
	for off < s.size && s.err == nil {
		b := s.bytes(off, s.window)
		for _, c := range b {
			if c != 0 {
				return false
			}
		}
		off += int64(len(b))
	}
	return true
}
