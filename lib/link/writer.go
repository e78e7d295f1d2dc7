package link

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"aioc/lib/wire"
)

const (
	joinBytes = 16 << 10 // small batches are copied into one buffer
	pieceMax  = 1 << 20  // a write's share of WriteTimeout
)

// write sends what there is whenever it is woken, until the link closes.
func (l *Link) write() {
	var b wire.Batch
	var spare []byte
	var join []byte
	for {
		select {
		case <-l.wake:
		case <-l.done:
			return
		}
		for {
			own, more := l.gather(&b, spare)
			if len(b.Spans) == 0 {
				if !more {
					l.Close(nil)
				}
				break
			}
			if b.Bytes <= joinBytes && len(b.Spans) > 1 {
				join = join[:0]
				for _, s := range b.Spans {
					join = append(join, s...)
				}
				b.Spans = append(b.Spans[:0], join)
			}
			if err := l.writeAll(b.Spans); err != nil {
				l.Close(fmt.Errorf("write: %w", err))
				return
			}
			spare = nil
			if cap(own) <= 64<<10 {
				spare = own[:0]
			}
			l.wrote()
		}
		b.Reset()
		if cap(join) > 0 && len(l.wake) == 0 {
			join = nil // an idle link keeps no buffers
			spare = nil
		}
	}
}

// gather fills b with the link's own frames and then the source's. It returns
// the memory of the own frames, for reuse, and false when the link is
// finishing.
func (l *Link) gather(b *wire.Batch, spare []byte) (own []byte, more bool) {
	b.Reset()
	l.mu.Lock()
	l.queueNacks() // before the acknowledgement that covers their numbers
	if l.ackDue > l.acked {
		l.acked = l.ackDue
		h := append([]byte(`{"ackto": `), strconv.FormatUint(l.acked, 10)...)
		h = append(h, `, "message_type": "_ack", "source_id": `...)
		h = append(wire.AppendString(h, l.opt.ID), '}')
		l.out, _ = wire.AppendFrame(l.out, h, nil, nil)
	}
	own, l.out = l.out, spare
	if l.drained != nil {
		close(l.drained)
		l.drained = nil
	}
	more = !l.finishing
	room := 0
	switch {
	case !more:
	case l.acks.Load() && l.bytes >= l.opt.WindowBytes:
	case l.windowed:
		room = l.opt.Window - l.inFlight
	case !l.acks.Load():
		room = l.opt.Window // an end that does not acknowledge has no window
	default:
		room = l.opt.Window - l.inFlight
	}
	l.mu.Unlock()

	b.Add(own, 0)
	s := l.source.Load()
	if s == nil || room <= 0 {
		return own, more
	}
	before := b.Bytes
	n := (*s).Take(b, batchBytes, room)
	if n > 0 {
		l.mu.Lock()
		l.taken += uint64(n)
		l.inFlight += n
		l.bytes += b.Bytes - before
		l.marks = append(l.marks, mark{l.taken, b.Bytes - before})
		l.mu.Unlock()
	}
	return own, more
}

// wrote accounts for a batch that has been written.
func (l *Link) wrote() {
	l.mu.Lock()
	l.written = l.taken
	decided, ackLate, oneLate := l.decided, l.ackLate, l.oneLate
	l.ackLate, l.oneLate = 0, nil
	written := l.written
	l.mu.Unlock()
	if decided && !l.acks.Load() {
		l.finish(written, false)
	}
	if ackLate > 0 {
		l.finish(ackLate, true)
	}
	for _, a := range oneLate {
		l.finishOne(a.n, a.err)
	}
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
