package spool

import (
	"fmt"
	"slices"
	"time"
)

// Commit waits until the records up to seq are durable. All that wait share one
// sync. The error is ErrFailed when a sync failed before seq was durable, and
// stays so for that record: it was taken back, and once Repair has returned nil
// no restart brings it back.
func (l *Log) Commit(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case l.isFailed(seq):
			return l.wrap(fmt.Errorf("%w: record %d was taken back", ErrFailed, seq))
		case seq <= l.committed || !l.o.Durable:
			return nil
		case seq > l.valid:
			return l.wrap(fmt.Errorf("%w: record %d was not appended", ErrOrder, seq))
		case l.syncing:
			l.synced.Wait()
		case l.closed:
			return l.wrap(ErrClosed)
		default:
			l.sync() // the next turn sees what came of it
		}
	}
}

func (l *Log) isFailed(seq uint64) bool {
	return slices.ContainsFunc(l.failed, func(r Range) bool { return r.First <= seq && seq <= r.Last })
}

// sync makes all of cur durable that is written when it is called. The lock is
// released meanwhile; syncing keeps others from a second sync, since an error
// is reported to one of them only.
func (l *Log) sync() error {
	seg, file, end, seq := l.cur, l.file, l.cur.size, l.valid
	directory := !seg.durable
	unlinked := l.unlinked // names that go meanwhile are not synced with these
	if directory {
		l.unlinked = nil
	}
	l.syncing = true
	l.mu.Unlock()
	start := time.Now()
	err := file.Sync()
	if err == nil && directory {
		err = l.fs.SyncDir(l.dir)
	}
	took := time.Since(start)
	l.mu.Lock()
	l.syncing = false
	l.synced.Broadcast()
	l.counts.Syncs++
	l.counts.SyncTimes[bucket(took)]++
	l.counts.SyncTotal += took
	if directory && err == nil {
		removeAcks(l.fs, unlinked)
	} else if directory {
		l.unlinked = append(unlinked, l.unlinked...)
	}
	if err != nil {
		return l.takeBack(err)
	}
	seg.durable = true
	seg.synced = end
	l.committed = seq
	l.mark(seg)
	l.tidy()
	return nil
}

// mark says in the segment that it is synced, if no batch is there to say it.
func (l *Log) mark(seg *segment) {
	if seg.size > seg.synced || seg.sealed {
		return
	}
	l.buf = appendMark(l.buf[:0], seal(seg.key, seg.number), seg.size, seg.synced, l.committed)
	if _, err := l.file.WriteAt(l.buf, seg.size); err != nil {
		l.undo(err) // a mark that is missing costs something only after damage
		return
	}
	seg.size += int64(len(l.buf))
	seg.marked = seg.synced
}

// takeBack ends cur after a failed sync. What was not durable before is not
// there any more: the system may have dropped it, and a second sync would
// succeed nevertheless.
func (l *Log) takeBack(err error) error {
	seg := l.cur
	l.counts.Failed++
	l.broken = l.wrap(fmt.Errorf("%w: %w", ErrFailed, err))
	if l.valid > l.committed {
		l.failed = append(l.failed, Range{l.committed + 1, l.valid})
		gone := Range{l.committed + 1, ^uint64(0)}
		l.waiting -= seg.live.remove(gone)
		for _, v := range l.views {
			v.takeBack(seg, gone)
		}
		l.forgetNotes(gone)
		seg.last = min(seg.last, l.committed)
		if seg.first > seg.last {
			seg.first, seg.last = 0, 0
		}
	}
	l.valid = l.committed
	seg.size, seg.sealed = seg.synced, true
	seg.index = slices.DeleteFunc(seg.index, func(p point) bool { return p.off >= seg.size })
	l.file.Truncate(seg.size) // if not, prev of the next segment makes it void
	l.file.Close()
	l.cur, l.file = nil, nil
	if !seg.durable {
		l.dropSegment(seg)
	}
	l.release(seg)
	return l.broken
}

// Repair lets a log that had an ErrFailed take records again, in a new segment
// that it makes durable to see whether the disk works. The owner first forgets
// what was taken back, since State is called. Without a failure it does nothing.
func (l *Log) Repair() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.wrap(ErrClosed)
	}
	if l.broken == nil {
		return nil
	}
	if err := l.create(true); err != nil {
		return err
	}
	l.broken = nil
	l.tidy()
	return nil
}

// syncDir syncs the directory with the lock held, which is done where a new
// segment is made durable at once.
func (l *Log) syncDir() error {
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	removeAcks(l.fs, l.unlinked)
	l.unlinked = nil
	return nil
}

// removeAcks removes the acknowledgements of segments whose removal is durable
// by now. Not before: the segment would come back without them.
func removeAcks(fs FS, names []string) {
	for _, name := range names {
		fs.Remove(name) // one that stays is removed by Open
	}
}

// tidy removes segments that nobody needs, and begins a new one instead of a
// large one that holds nothing any more.
func (l *Log) tidy() {
	if seg := l.cur; seg != nil && l.waiting == 0 && !l.syncing && l.broken == nil && !l.closed &&
		seg.last != 0 && seg.size >= l.o.SegmentSize/8 && (!l.o.Durable || l.valid <= l.committed) {
		l.create(l.o.Durable) // if it cannot be made, the old one stays
	}
	newest := len(l.segs) - 1
	for newest >= 0 && !l.segs[newest].durable {
		newest--
	}
	kept := l.segs[:0]
	for i, seg := range l.segs {
		needed := len(seg.live) > 0 || seg == l.cur || seg.durable && i >= newest
		if needed || !l.removeSegment(seg) {
			kept = append(kept, seg)
		}
	}
	clear(l.segs[len(kept):])
	l.segs = kept
}

// removeSegment removes the files of a segment and reports whether it did.
func (l *Log) removeSegment(seg *segment) bool {
	name := l.path(seg.number, logSuffix)
	var err error
	if seg.damaged {
		err = l.fs.Rename(name, l.path(seg.number, badSuffix))
	} else {
		err = l.fs.Remove(name)
	}
	if err != nil {
		return false
	}
	l.forgetFiles(seg)
	return true
}

// forgetFiles accounts for a segment whose file is gone.
func (l *Log) forgetFiles(seg *segment) {
	l.quota.Add(-seg.charged)
	seg.charged = 0
	seg.gone = true
	if l.ackSeg == seg {
		l.ackFile.Close()
		l.ackFile, l.ackSeg = nil, nil
	}
	l.unlinked = append(l.unlinked, l.path(seg.number, ackSuffix))
}

// dropSegment removes a segment that was never durable.
func (l *Log) dropSegment(seg *segment) {
	l.fs.Remove(l.path(seg.number, logSuffix)) // if not, prev of the next one makes it void
	l.forgetFiles(seg)
	l.segs = slices.DeleteFunc(l.segs, func(s *segment) bool { return s == seg })
}
