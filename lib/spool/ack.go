package spool

import (
	"errors"
	"io/fs"
)

// maxRanges is how many ranges one record of acknowledgements holds.
const maxRanges = 1024

// Ack says that the owner is done with records, in any order; those that are
// not there any more are ignored. A segment of which all is acknowledged is
// removed. Acknowledgements are written with one write for all ranges of a
// segment, so they survive a kill; they are synced by SyncAcks and Close, so a
// power cut may bring back what was acknowledged shortly before. After an error,
// which is the disk's, they count all the same while the log is open, and are
// written with the next ones.
func (l *Log) Ack(ranges ...Range) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap(ErrClosed)
	}
	empty := false
	for _, r := range ranges {
		for _, seg := range l.segs {
			if seg.first > r.Last || seg.last < r.First || seg.last == 0 {
				continue
			}
			n := seg.live.remove(r)
			if n == 0 {
				continue
			}
			l.waiting -= n
			l.counts.Acked += uint64(n)
			seg.pending.add(Range{max(r.First, seg.first), min(r.Last, seg.last)})
			if len(seg.live) == 0 {
				empty = true
				l.release(seg)
			}
		}
		for _, v := range l.views {
			if v.remove(r) > 0 {
				empty = true
			}
		}
		l.forgetNotes(r)
	}
	if empty {
		l.tidy()
	}
	return l.writeAcks()
}

// writeAcks writes what is acknowledged and not written.
func (l *Log) writeAcks() (first error) {
	for _, seg := range l.segs {
		if err := l.writeRanges(seg, 0, &seg.pending); err != nil && first == nil {
			first = err
		}
	}
	for _, v := range l.views {
		if err := v.writeAcks(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// writeRanges writes acknowledgements of one segment, of the view with that
// number or, with 0, of all. What is written is taken out of pending.
func (l *Log) writeRanges(seg *segment, view uint64, pending *set) error {
	for len(*pending) > 0 {
		some := (*pending)[:min(len(*pending), maxRanges)]
		b := l.ackBuf[:0]
		for _, r := range some {
			b = le.AppendUint64(b, r.First)
			b = le.AppendUint64(b, r.Last)
		}
		l.ackBuf = b
		if err := l.writeAck(seg, head{kind: kindAck, seq: view}, nil, b); err != nil {
			return l.failure(err)
		}
		if *pending = (*pending)[len(some):]; len(*pending) == 0 {
			*pending = nil
		}
	}
	return nil
}

// writeAck appends a record to the acknowledgements of a segment.
func (l *Log) writeAck(seg *segment, h head, meta, body []byte) error {
	f, err := l.openAcks(seg)
	if err != nil {
		return err
	}
	l.buf = appendRecord(l.buf[:0], seal(seg.key, seg.number|ofAcks), seg.acked, h, meta, body)
	if _, err := f.WriteAt(l.buf, seg.acked); err != nil {
		return err // the next one is written over what is there
	}
	seg.acked += int64(len(l.buf))
	seg.unsure = true
	return nil
}

// openAcks returns the file for the acknowledgements of a segment. One stays
// open: they come in order mostly.
func (l *Log) openAcks(seg *segment) (f File, err error) {
	if l.ackSeg == seg {
		return l.ackFile, nil
	}
	name := l.path(seg.number, ackSuffix)
	if seg.acks {
		f, err = l.fs.OpenWrite(name)
	} else {
		f, err = l.fs.Create(name)
	}
	if err != nil {
		return nil, err
	}
	seg.acks = true
	if l.ackFile != nil {
		l.ackFile.Close()
	}
	l.ackFile, l.ackSeg = f, seg
	return f, nil
}

// Note keeps a small fact about a record that is not acknowledged, at most
// MaxMeta bytes, in place of the one before. Like an acknowledgement it survives
// a kill, and a power cut after SyncAcks or Close. A record that is not there is
// ignored.
func (l *Log) Note(seq uint64, note []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap(ErrClosed)
	}
	if len(note) > MaxMeta {
		return l.wrap(ErrOrder)
	}
	for _, seg := range l.segs {
		if seg.live.has(seq) {
			l.notes[seq] = append([]byte(nil), note...)
			if err := l.writeAck(seg, head{kind: kindNote, seq: seq}, nil, note); err != nil {
				return l.failure(err)
			}
			return nil
		}
	}
	return nil
}

func (l *Log) forgetNotes(r Range) {
	if len(l.notes) == 0 {
		return
	}
	if r.Last-r.First < uint64(len(l.notes)) {
		for seq := r.First; seq <= r.Last; seq++ {
			delete(l.notes, seq)
		}
		return
	}
	for seq := range l.notes {
		if r.First <= seq && seq <= r.Last {
			delete(l.notes, seq)
		}
	}
}

// SyncAcks makes all acknowledgements and notes durable.
func (l *Log) SyncAcks() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap(ErrClosed)
	}
	return l.syncAcks()
}

func (l *Log) syncAcks() error {
	first := l.writeAcks()
	names := len(l.unlinked) > 0 // a segment that comes back is not acknowledged
	for _, seg := range l.segs {
		if !seg.unsure {
			continue
		}
		f, err := l.openAcks(seg)
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			if first == nil {
				first = l.failure(err)
			}
			continue
		}
		seg.unsure = false
		names = true
	}
	if names {
		if err := l.syncDir(); err != nil && first == nil {
			first = l.failure(err)
		}
	}
	return first
}

// Close makes all that was appended and acknowledged durable and closes the
// files, whatever the error. It may be called twice.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.syncing {
		l.synced.Wait()
	}
	if l.closed {
		return nil
	}
	var err error
	if len(l.changed) > 0 && l.broken == nil {
		err = l.putState()
	}
	if l.cur != nil && l.cur.synced < l.cur.size {
		syncErr := l.file.Sync()
		if syncErr == nil {
			syncErr = l.syncDir()
		}
		if syncErr != nil {
			err = l.wrap(syncErr)
		} else {
			l.cur.synced = l.cur.size
			l.committed = l.valid
			if l.o.Durable {
				l.mark(l.cur)
				l.file.Sync() // for the mark, which may be missing
			}
		}
	}
	if ackErr := l.syncAcks(); err == nil {
		err = ackErr
	}
	l.closed = true
	if l.file != nil {
		if closeErr := l.file.Close(); err == nil && closeErr != nil {
			err = l.wrap(closeErr)
		}
	}
	if l.ackFile != nil {
		l.ackFile.Close()
	}
	l.cur, l.file, l.ackFile, l.ackSeg = nil, nil, nil, nil
	l.synced.Broadcast()
	for _, seg := range l.segs {
		l.quota.Add(-seg.charged)
		seg.charged = 0
	}
	for _, v := range l.views {
		for _, h := range v.holds {
			v.charge(h, -h.charged)
		}
	}
	return err
}

// Remove closes the log and removes its directory with all that it holds.
// Readers get nothing more.
func (l *Log) Remove() error {
	l.Close() // what could not be synced is removed anyway
	l.mu.Lock()
	defer l.mu.Unlock()
	names, err := l.fs.Names(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return l.wrap(err)
	}
	l.segs, l.waiting = nil, 0
	for _, ack := range []bool{false, true} { // acknowledgements last: see removeAcks
		for _, name := range names {
			_, suffix := parseName(name)
			if suffix == "" || (suffix == ackSuffix) != ack {
				continue
			}
			if err := l.fs.Remove(l.join(name)); err != nil {
				return l.wrap(err)
			}
		}
		if err := l.fs.SyncDir(l.dir); err != nil {
			return l.wrap(err)
		}
	}
	if err := l.fs.Remove(l.dir); err != nil {
		return l.wrap(err)
	}
	return l.fs.SyncDir(l.join(".."))
}
