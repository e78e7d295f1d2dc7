package link

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"

	"aioc/lib/wire"
)

const (
	joinBytes = 16 << 10 // batches up to this are copied into one buffer
	nowBytes  = 16 << 10 // what Wake writes itself

	// pieceMax is a write's share of WriteTimeout. With the usual 50 seconds a link
	// of 128 kbit/s is not too slow.
	pieceMax = 512 << 10

	// nowRounds is how many batches it writes at most.
	nowRounds = 4

	// nowGap is the least time between two writes by Wake. Frames that come
	// faster are gathered by the writer: a system call each would cost more.
	nowGap = 30 * time.Microsecond
)

// write sends what there is whenever it is woken, until the link closes.
func (l *Link) write() {
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		for more := true; more; {
			l.writing.Lock()
			more = l.writeSome()
			l.writing.Unlock()
		}
	}
}

// writeSome writes one batch, waiting for the socket, and reports whether
// there was one. The right to write is held.
func (l *Link) writeSome() bool {
	b := &l.batch
	if !l.held {
		more := l.gather(batchBytes)
		if len(b.Spans) == 0 {
			if !more {
				l.Close(nil)
			}
			// An idle link keeps no buffers.
			l.join, l.spare, l.busy = nil, nil, false
			return false
		}
	}
	l.held = false
	l.busy = b.Bytes > nowBytes
	err := l.writeAll(b.Spans)
	if err == nil && b.Tail != nil {
		err = l.writeTail(b.Tail, b.TailBytes)
	}
	if err != nil {
		l.broken(fmt.Errorf("write: %w", err))
		return false
	}
	l.settling.Lock()
	l.wrote()
	l.settling.Unlock()
	return true
}

// joined makes one span of a small batch.
func (l *Link) joined() {
	b := &l.batch
	if b.Bytes > joinBytes || len(b.Spans) < 2 {
		return
	}
	l.join = l.join[:0]
	for _, s := range b.Spans {
		l.join = append(l.join, s...)
	}
	b.Spans = append(b.Spans[:0], l.join)
}

// writeNow writes what there is, if it is little, nobody is writing and the
// socket takes it at once. It saves the way over another goroutine, which is
// most of what a single message takes. It reports false when the writer is to
// look.
func (l *Link) writeNow() bool {
	if l.direct == nil || !l.begun.Load() || !l.writing.TryLock() {
		return false
	}
	defer l.writing.Unlock()
	// The source may be what wakes the link, while it is told something. And it
	// may wake others, so this waits for no lock that another link holds.
	if !l.settling.TryLock() {
		return false
	}
	defer l.settling.Unlock()
	if l.over() {
		return false
	}
	now := time.Now()
	if l.busy || l.held || now.Sub(l.nowAt) < nowGap {
		return false
	}
	l.nowAt = now
	b := &l.batch
	for range nowRounds {
		more := l.gather(nowBytes)
		if len(b.Spans) == 0 {
			return more // the source knows that it has to wake us
		}
		if l.busy = b.Bytes >= nowBytes || b.Tail != nil; !l.busy {
			b.Spans[0] = b.Spans[0][l.writeDirect(b.Spans[0]):]
		}
		if len(b.Spans[0]) > 0 {
			l.held = true
			return false
		}
		l.wrote()
	}
	return false // others bring more all the time
}

// writeDirect writes as much of p as the socket takes at once. What did not fit
// is the writer's to write, and so are errors to meet.
func (l *Link) writeDirect(p []byte) (n int) {
	err := l.direct.Write(func(fd uintptr) bool {
		n, _ = syscall.Write(int(fd), p)
		return true
	})
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// direct returns how to write to conn without waiting, nil when there is no way.
func direct(conn net.Conn) syscall.RawConn {
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, _ := c.SyscallConn()
		return raw
	case *net.UnixConn:
		raw, _ := c.SyscallConn()
		return raw
	}
	return nil
}

// gather fills the batch with the link's own frames and then the source's,
// about size bytes. It reports false when the link is finishing. A batch that
// is small is one span.
func (l *Link) gather(size int) (more bool) {
	b := &l.batch
	b.Reset()
	l.mu.Lock()
	l.queueNacks()
	due := l.ackDue // refusals of these numbers are in out now, and not later
	own := l.out
	l.out, l.spare = l.spare[:0], nil
	l.ownOut = own
	if l.drained != nil {
		close(l.drained)
		l.drained = nil
	}
	more = !l.finishing
	room := 0
	switch {
	case !more:
	case l.acks.Load() && !l.windowed && l.bytes >= l.opt.WindowBytes:
	case l.opt.Nudge && l.decided && !l.acks.Load():
		// A Python client over TLS may be stuck with its answer until
		// something arrives. It must not be sent so much then that it stops
		// reading, since nothing would free it any more.
		if l.inFlight == 0 {
			room = 1
		}
	case l.windowed:
		room = l.opt.Window - l.inFlight
	case !l.acks.Load():
		room = l.opt.Window // an end that does not acknowledge has no window
	default:
		room = l.opt.Window - l.inFlight
	}
	l.shut = more && room <= 0
	l.mu.Unlock()

	b.Add(own, 0)
	n, before := 0, b.Bytes
	if s := l.source.Load(); s != nil && room > 0 {
		n = (*s).Take(b, size, room)
	}
	l.mu.Lock()
	if n > 0 {
		l.taken += uint64(n)
		l.inFlight += n
		l.bytes += b.Bytes - before
		l.marks = append(l.marks, mark{l.taken, b.Bytes - before})
	}
	if due > l.acked && b.Tail == nil && (l.ackWanted || b.Bytes > 0 || !more) {
		// After the own frames: refusals come before what covers their numbers.
		l.acked, l.ackBytes, l.ackWanted = due, 0, l.ackWanted && l.ackDue > due
		b.Add(l.ackFrame(), 0)
	}
	l.mu.Unlock()
	l.joined()
	return more
}

// ackFrame is the _ack of all up to acked. mu and the right to write are held.
func (l *Link) ackFrame() []byte {
	h := append(l.ackHead[:0], `{"ackto": `...)
	h = strconv.AppendUint(h, l.acked, 10)
	h = append(h, `, "message_type": "_ack", "source_id": `...)
	h = append(wire.AppendString(h, l.opt.ID), '}')
	l.ackHead = h
	l.ackBuf, _ = wire.AppendFrame(l.ackBuf[:0], h, nil, nil)
	return l.ackBuf
}

// wrote accounts for the batch, which has been written. settling is held.
func (l *Link) wrote() {
	if cap(l.ownOut) <= 64<<10 {
		l.spare = l.ownOut[:0]
	}
	l.ownOut = nil
	l.settleBatch()
	l.mu.Lock()
	decided, written := l.decided, l.written
	l.mu.Unlock()
	if decided && !l.acks.Load() {
		l.finish(written, false)
	}
}

// broken ends the link because a write failed. The reader still takes what is
// here already: the other end may have acknowledged frames before it went.
func (l *Link) broken(err error) {
	l.mu.Lock()
	first := l.closeLocked(err)
	l.mu.Unlock()
	if first && l.conn.SetReadDeadline(time.Now().Add(lastWords)) != nil {
		l.conn.Close()
	}
}

// readUntil sets the deadline of the reader, unless the link is ending: then it
// has another.
func (l *Link) readUntil(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil
	}
	return l.conn.SetReadDeadline(t)
}

// writeAll writes the spans. Each piece of at most pieceMax has WriteTimeout.
func (l *Link) writeAll(spans [][]byte) error {
	var piece net.Buffers
	size := 0
	flush := func() error {
		if l.opt.WriteTimeout > 0 {
			if err := l.conn.SetWriteDeadline(time.Now().Add(l.opt.WriteTimeout)); err != nil {
				return err
			}
		}
		var err error
		if len(piece) == 1 {
			_, err = l.conn.Write(piece[0])
		} else {
			_, err = piece.WriteTo(l.conn)
		}
		piece, size = nil, 0
		return err
	}
	if len(spans) == 1 && len(spans[0]) <= pieceMax {
		piece = spans
		return flush()
	}
	for _, s := range spans {
		for len(s) > 0 {
			n := min(len(s), pieceMax-size)
			piece = append(piece, s[:n])
			size += n
			s = s[n:]
			if size == pieceMax {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if size == 0 {
		return nil
	}
	return flush()
}

// writeTail writes the n bytes of r that follow the spans. Each piece has
// WriteTimeout.
func (l *Link) writeTail(r io.Reader, n int64) error {
	buf := make([]byte, min(n, batchBytes))
	for n > 0 {
		piece := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(r, piece); err != nil {
			return fmt.Errorf("file of a message: %w", err)
		}
		if err := l.writeAll([][]byte{piece}); err != nil {
			return err
		}
		n -= int64(len(piece))
	}
	return nil
}
