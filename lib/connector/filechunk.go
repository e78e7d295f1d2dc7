package connector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"aioc/lib/link"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// transfer brings the file over to an end that takes it ahead of its message,
// and returns its sum. When the link ends it goes on, on the next one, where
// the other end says.
func (o *outgoing) transfer(ctx context.Context, p *peerLink) (sum string, err error) {
	p.sending.Store(o)
	defer p.sending.Store(nil)
	defer p.feed.idle()
	keepShort(p.conn, unsentMax)
	defer keepShort(p.conn, 0)
	for restarts := 0; ; {
		o.mu.Lock()
		o.started, o.acked, o.done, o.refused = false, 0, false, nil
		o.mu.Unlock()
		if err := p.l.Send([]wire.Edit{
			{Key: "message_type", Value: []byte(`"` + wire.TypeFile + `"`)},
			{Key: "file", Value: wire.AppendString(nil, o.id)},
			{Key: "size", Value: strconv.AppendInt(nil, o.src.Size, 10)},
		}, wire.AppendEdited(nil, o.header, wire.Edit{Key: "with_file", Value: o.with()}), nil); err != nil {
			return "", errLinkDown
		}
		if err = o.wait(ctx, p, func() bool { return o.started }); err == nil {
			sum, err = o.chunks(ctx, p)
		}
		var why *transfer.Error
		switch {
		case errors.As(err, &why) && why.Reason == "full":
			o.c.fileFailed("file waits: no room at the receiver", err, o.b.name, about(o.f.Header))
			over := make(chan struct{})
			timer := time.AfterFunc(fullPause, func() { close(over) })
			err := o.rest(ctx, over, p.l.Done())
			timer.Stop()
			if err != nil {
				return "", err
			}
			select {
			case <-p.l.Done():
				return "", errLinkDown
			default:
			}
		case err == errDamaged:
			if restarts++; restarts > maxRestarts {
				return "", &transfer.Error{Reason: "digest", Text: o.file.Source + ": it changed while it was sent"}
			}
		default:
			return sum, err
		}
	}
}

// errDamaged means that the file has to be sent from its beginning.
var errDamaged = errors.New("file damaged")

// fileAnswer handles _file_ack.
func (p *peerLink) fileAnswer(f *wire.Frame) error {
	id, _ := wire.Text(f.Header.Field("file"))
	o, landing := p.sending.Load(), false
	if o == nil {
		o, landing = p.box.landing.Load(), true
	}
	if o == nil || o.id != id {
		return nil // of one that we gave up
	}
	err := o.answered(f, landing)
	if err == nil && !landing {
		o.tellProgress()
	}
	return err
}

// answered notes what a _file_ack says.
func (o *outgoing) answered(f *wire.Frame, landing bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.Header.Error != nil {
		reason, _ := wire.Text(f.Header.Field("reason"))
		why := &transfer.Error{Reason: fileWord(reason), Text: link.Clip(string(f.Header.Error))}
		if landing {
			o.unstored = why
		} else {
			o.refused = why
		}
	} else {
		off, err := strconv.ParseInt(string(f.Header.Field("offset")), 10, 64)
		if err != nil || off < 0 || off > o.src.Size {
			return fmt.Errorf("%w: _file_ack", link.ErrProtocol)
		}
		o.acked, o.started = off, true
		o.done = string(f.Header.Field("done")) == "true"
	}
	o.tell()
	return nil
}

// tellProgress tells the program that sent the file how much of it is there.
func (o *outgoing) tellProgress() {
	o.mu.Lock()
	off := o.acked
	o.mu.Unlock()
	o.c.watching.tell(o.id, max(off, 0), o.src.Size)
}

// tell makes wait look again.
func (o *outgoing) tell() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// fileWord is a reason that a peer gave, if it is one of those that there are.
func fileWord(reason string) string {
	switch reason {
	case "name", "directory", "type", "size", "exists", "full", "disk", "refused", "missing", "digest", "permission":
		return reason
	}
	return "bad"
}

// wait waits until ready, called with mu held, is true.
func (o *outgoing) wait(ctx context.Context, p *peerLink, ready func() bool) error {
	for {
		o.mu.Lock()
		ok, refused := ready(), o.refused
		o.mu.Unlock()
		switch {
		case refused != nil:
			return refused
		case ok:
			return nil
		}
		select {
		case <-o.changed:
		case <-p.l.Done():
			return errLinkDown
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// chunks sends the file from where the other end is, to its end.
func (o *outgoing) chunks(ctx context.Context, p *peerLink) (sum string, err error) {
	o.mu.Lock()
	off, done := o.acked, o.done
	o.mu.Unlock()
	if err := o.summedTo(ctx, off); err != nil {
		return "", err
	}
	window, mark, marked := int64(leastWindow), off, time.Now()
	for off < o.src.Size {
		full := false
		if err := o.wait(ctx, p, func() bool {
			if o.acked > mark {
				// It takes long until the other end is heard: more has to be
				// on its way.
				if full && time.Since(marked) > longWay {
					window = min(2*window, fileWindow)
				}
				mark, marked = off, time.Now()
			}
			full = full || off-o.acked >= window
			return off-o.acked < window
		}); err != nil {
			return "", err
		}
		memory := p.feed.lend()
		part := memory[chunkRoom:][:min(chunkBytes, o.src.Size-off)]
		if err := o.readAt(part, off); err != nil {
			return "", err
		}
		_, _ = o.sum.Write(part) // never fails
		o.summed += int64(len(part))
		var f chunkFrame
		if allZero(part) {
			f, err = frameIn(memory, o.chunkHeader(off, wire.Edit{Key: "zeros", Value: strconv.AppendInt(nil, int64(len(part)), 10)}), 0)
		} else {
			f, err = frameIn(memory, o.chunkHeader(off), len(part))
		}
		if err == nil {
			err = p.feed.push(ctx, p.l, f)
		}
		if err != nil {
			return "", err
		}
		off += int64(len(part))
	}
	sum = hex.EncodeToString(o.sum.Sum(nil))
	if done {
		return sum, nil
	}
	o.mu.Lock()
	o.acked = -1
	o.mu.Unlock()
	last, err := wire.AppendFrame(nil, o.chunkHeader(off, wire.Edit{Key: "sum", Value: wire.AppendString(nil, sum)}), nil, nil)
	if err == nil {
		err = p.feed.push(ctx, p.l, chunkFrame{frame: last})
	}
	if err != nil {
		return "", err
	}
	err = o.wait(ctx, p, func() bool { return o.done || o.acked == 0 })
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && !o.done {
		o.sum, o.summed = nil, 0
		err = errDamaged
	}
	return sum, err
}

// summedTo makes the sum that of the first off bytes.
func (o *outgoing) summedTo(ctx context.Context, off int64) error {
	if o.sum == nil || o.summed != off {
		o.sum, o.summed = sha256.New(), 0
	}
	buf := chunkBuffers.get()[:chunkBytes]
	defer chunkBuffers.put(buf)
	for o.summed < off {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		part := buf[:min(chunkBytes, off-o.summed)]
		if err := o.readAt(part, o.summed); err != nil {
			return err
		}
		_, _ = o.sum.Write(part) // never fails
		o.summed += int64(len(part))
	}
	return nil
}

// chunkHeader is the header of a _chunk.
func (o *outgoing) chunkHeader(off int64, more ...wire.Edit) []byte {
	return wire.AppendEdited(nil, []byte("{}"), append([]wire.Edit{
		{Key: "message_type", Value: []byte(`"` + wire.TypeChunk + `"`)},
		{Key: "file", Value: wire.AppendString(nil, o.id)},
		{Key: "offset", Value: strconv.AppendInt(nil, off, 10)},
	}, more...)...)
}

var zeroChunk [chunkBytes]byte

func allZero(b []byte) bool { return bytes.Equal(b, zeroChunk[:len(b)]) }
