package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// intake is what takes messages from one local program and puts them into the
// queues of peers. It is the handler of that program's link.
//
// Frames with the same header go the same way, so what is decided for one is
// kept; those that lie side by side are put with one copy.
type intake struct {
	c      *Connector
	l      *link.Link
	conn   *net.UnixConn
	ctx    context.Context // ends when messages are taken no more
	caller local.Caller    // who the program is
	native bool            // our own socket: everything is answered
	wait   bool            // the program waits for a peer that is away

	passed *local.Incoming // files that the program passes; nil: none

	asked bool // has sent a request

	unsafe  unsafe     // put since the last commit
	answers []decision // to be answered after it
	safe    []func()   // to be called after it

	// Of the current header.
	how decision

	// The run that waits to be put.
	run   wire.Batch
	first uint64 // number of its first frame
	spare []byte // memory for frames whose header was changed
}

// decision is how frames with a certain header are handled.
type decision struct {
	known   bool
	version uint64 // Connector.version when it was made
	durable bool   // to be on disk before it counts as taken
	extra   queue.Extra
	box     *outbox
	typ     string
	header  []byte // instead of the frame's; nil: as it is
	refuse  *link.Refusal
	ping    bool
	fan     *fan // on a broker: a publication, to be spread
	await   bool
	file    bool   // the message names a file
	ack     bool   // the sender waits for the peer's acknowledgement
	id      []byte // request_id
	answer  []byte // transport_id: to be answered with it
}

// lookEvery is how often somebody who waits looks whether the program is there.
const lookEvery = 200 * time.Millisecond

var (
	errIntakeClosed = errors.New("no more messages are taken")
	// errAbsent closes the connection of a Python program, as the original does when
	// a peer is not connected.
	errAbsent = errors.New("request that cannot be answered")
)

func (in *intake) Frame(n uint64, f *wire.Frame) error {
	if !f.Same || !in.how.known || in.how.version != in.c.version.Load() {
		if err := in.putRun(); err != nil {
			return err
		}
		version := in.c.version.Load()
		in.how = in.c.decide(f.Header, in.native, in.wait, in.caller)
		in.how.version = version
		if f.Header.Type == nil {
			return errors.New("frame without message_type")
		}
	}
	h := &in.how
	if h.refuse != nil {
		in.refuse(n, h, h.refuse)
		return nil
	}
	if h.fan != nil {
		if err := in.putRun(); err != nil {
			return err
		}
		in.publish(n, f)
		return nil
	}
	if h.box == nil {
		h.known = false // the peer may come meanwhile
		in.notNow(n, h, &link.Refusal{Reason: "away", Text: "peer " + string(f.Header.Dest) + " is not connected"})
		if h.await && !in.native {
			return errAbsent
		}
		return nil
	}
	if h.ping || h.await || h.ack || h.file || h.answer != nil || h.extra.ID != (queue.ID{}) {
		if err := in.putRun(); err != nil {
			return err
		}
		return in.single(n, f)
	}
	if in.run.Frames == 0 {
		in.first = n
	}
	raw := f.Raw
	if h.header != nil {
		from := len(in.spare)
		out, err := wire.AppendFrame(in.spare, h.header, f.Data, f.Binary)
		if err != nil {
			in.refuse(n, h, &link.Refusal{Reason: "size", Text: err.Error()})
			return nil
		}
		in.spare, raw = out, out[from:]
	}
	in.run.Add(raw, 1)
	return nil
}

// Flush puts the run and waits until all that was put is on disk, as far as it
// has to be.
func (in *intake) Flush() error {
	if err := in.putRun(); err != nil {
		return err
	}
	return in.commit()
}

// commit waits until all that was put is on disk, as far as it has to be, and
// gives the answers that waited for that. After an error it is not known what
// was taken, and the connection ends.
func (in *intake) commit() error {
	if err := in.unsafe.commit(); err != nil {
		return err
	}
	for i := range in.answers {
		in.answered(&in.answers[i], nil)
	}
	in.answers = in.answers[:0]
	for i, tell := range in.safe {
		tell()
		in.safe[i] = nil
	}
	in.safe = in.safe[:0]
	return nil
}

// putRun puts the run.
func (in *intake) putRun() error {
	if in.run.Frames == 0 {
		return nil
	}
	var err error
	n := in.first
	for _, frames := range in.run.Spans {
		if n, err = in.put(n, frames); err != nil {
			break
		}
	}
	in.run.Reset()
	if cap(in.spare) > 1<<20 {
		in.spare = nil
	}
	in.spare = in.spare[:0]
	return err
}

// put puts frames, of which the first has number n, and returns the number
// after the last. It waits while the queue is full.
func (in *intake) put(n uint64, frames []byte) (uint64, error) {
	h := &in.how
	for len(frames) > 0 {
		if in.ctx.Err() != nil {
			in.unsent(frames)
			return n, errIntakeClosed
		}
		if why := in.away(); why != nil {
			for len(frames) > 0 {
				_, frames = wire.Split(frames)
				in.notNow(n, h, why)
				n++
			}
			return n, nil
		}
		extra := h.extra
		taken, err := h.box.q.PutExtra(h.typ, frames, &extra)
		if errors.Is(err, queue.ErrClosed) {
			in.again()
			continue
		}
		if h.durable && taken > 0 {
			in.unsafe.add(h.box.q, h.typ, extra.Round)
		}
		for part := frames[:taken]; len(part) > 0; n++ {
			_, part = wire.Split(part)
		}
		frames = frames[taken:]
		if err == nil {
			break
		}
		if why := in.hopeless(err); why != nil {
			for len(frames) > 0 {
				_, frames = wire.Split(frames)
				in.notNow(n, h, why)
				n++
			}
			return n, nil
		}
		first, _ := wire.Split(frames)
		if err := in.room(h.box.q, h.typ, len(first), err); err != nil {
			in.unsent(frames)
			return n, err
		}
	}
	return n, nil
}

// diskReason says in short why something cannot be kept on disk. The log of the
// connector has the whole error.
func diskReason(err error) string {
	if errors.Is(err, spool.ErrTotal) {
		return "max_size_persistence_total is reached"
	}
	if errors.Is(err, spool.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return "no space left"
	}
	return "the disk fails, see its log"
}

// hopeless returns why it is not worth waiting after err, which Put returned:
// the disk is full or failing, or nobody takes anything from a queue that is
// full. A Python program cannot be told, and waits.
func (in *intake) hopeless(err error) *link.Refusal {
	switch {
	case !in.native || in.wait:
		return nil
	case errors.Is(err, queue.ErrDisk):
		in.how.known = false
		return &link.Refusal{Reason: "full", Text: "the connector cannot keep it on disk now: " + diskReason(err)}
	case in.how.durable && in.how.box.there() == nil:
		in.how.known = false
		return &link.Refusal{Reason: "full", Text: "peer " + in.how.box.name + " is not connected, and what waits for it is as much as may be (max_size_persistence_path)"}
	}
	return nil
}

// unsent counts frames of a program that is not told what was not taken.
func (in *intake) unsent(frames []byte) {
	n := 0
	for ; len(frames) > 0; n++ {
		_, frames = wire.Split(frames)
	}
	if !in.native {
		in.c.drop("send: stopped", "local program", in.how.typ, n)
	}
}

// room waits until there is room after err, which Put returned.
func (in *intake) room(q *queue.Queue, typ string, need int, err error) error {
	if !errors.Is(err, queue.ErrFull) && !errors.Is(err, queue.ErrDisk) {
		return err
	}
	if err := in.commit(); err != nil { // it may be what fills the queue
		return err
	}
	room := make(chan struct{})
	defer q.OnRoom(typ, need, func() { close(room) })()
	return in.await(room)
}

// await waits for c, at most until the program has left. A Python program may
// leave as soon as it has written: what it has written counts.
func (in *intake) await(c <-chan struct{}) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-c:
			return nil
		case <-in.l.Done():
			return link.ErrClosed
		case <-in.ctx.Done():
			return errIntakeClosed
		case <-look.C:
			// Nobody reads from the connection meanwhile, who would notice.
			if in.native && hungUp(in.conn) {
				in.l.Close(nil)
				return link.ErrClosed
			}
		}
	}
}

// away returns why nothing can be put for the peer, if it is away. A program
// that asked for it waits here until the peer is there.
func (in *intake) away() *link.Refusal {
	if in.how.durable && !in.c.mayKeep(in.caller) {
		in.how.known = false
		in.c.counts.add("send: disk", 1)
		in.c.fold.Warn("stranger's disk", 1, "durable messages refused: users who may only send have used half of max_size_persistence_total", slog.Int("uid", in.caller.UID))
		return &link.Refusal{Reason: "full", Text: "users who may only send may not use more of the disk (half of max_size_persistence_total)"}
	}
	if in.how.durable || in.how.box.there() != nil {
		return nil
	}
	in.again() // the peer may have come back, with another outbox
	b := in.how.box
	if b.there() != nil {
		return nil
	}
	if !in.wait {
		in.how.known = false
		return &link.Refusal{Reason: "away", Text: "peer " + b.name + " is not connected"}
	}
	// The outbox of a peer that is away may have been forgotten.
	name := b.name
	if b = in.c.hold(name); b == nil {
		in.how.known = false
		return &link.Refusal{Reason: "away", Text: "peer " + name + " is not connected, and too many are waited for"}
	}
	defer in.c.release(b)
	in.how.box = b
	if err := in.commit(); err != nil {
		return &link.Refusal{Reason: "full", Text: err.Error()}
	}
	for b.there() == nil {
		switch err := in.await(b.whenUp()); {
		case errors.Is(err, errIntakeClosed):
			return &link.Refusal{Reason: "stopped", Text: "the connector is stopped"}
		case err != nil:
			return &link.Refusal{Reason: "closed", Text: "connection closed"}
		}
	}
	return nil
}

// single handles one frame that is not simply passed on.
func (in *intake) single(n uint64, f *wire.Frame) error {
	h := &in.how
	put := false
	if why := in.away(); why != nil {
		in.notNow(n, h, why)
		if h.await && !in.native {
			return errAbsent
		}
		return nil
	}
	header, id := h.header, h.id
	if h.await && id == nil {
		header, id = withRequestID(header, f.Header)
	}
	if h.ping && !h.await {
		return nil // an answer to nobody's question
	}
	var fileID string
	var tellTaken func() // that the program's file waits
	if h.file {
		if header == nil {
			header = f.Header.Raw
		}
		a, why := in.admitFile(f.Header)
		if why != nil {
			in.notTaken(n, h, why)
			return nil
		}
		fileID = newFileID()
		if a.src != nil {
			tellTaken = in.watchFile(fileID, f.Header, a.src.Size)
		}
		defer func() {
			if !put {
				in.c.letGo(fileID)
			}
		}()
		copied, why := in.holdFile(fileID, &a, h.box, h.durable)
		if why != nil {
			in.notTaken(n, h, why)
			return nil
		}
		header = wire.AppendEdited(nil, header, a.edits(fileID, copied)...)
	}
	raw := f.Raw
	if header != nil {
		out, err := wire.AppendFrame(nil, header, f.Data, f.Binary)
		if err != nil {
			in.refuse(n, h, &link.Refusal{Reason: "size", Text: err.Error()})
			return nil
		}
		raw = out
	}
	if h.ping && len(raw) > link.PingMax {
		in.refuse(n, h, &link.Refusal{Reason: "size", Text: fmt.Sprintf("ping of %d bytes, at most %d", len(raw), link.PingMax)})
		return nil
	}
	if h.await && len(id) > maxID {
		in.refuse(n, h, &link.Refusal{Reason: "bad", Text: fmt.Sprintf("request_id of %d bytes, at most %d", len(id), maxID)})
		return nil
	}
	key := requestKey(h.box.name, h.typ, id)
	in.asked = in.asked || h.await
	if h.await {
		if why := in.c.waiters.add(key, in.l, in.conn); why != nil {
			in.c.counts.add("request refused", 1)
			in.notNow(n, h, why)
			if !in.native {
				return errAbsent // it would wait in vain
			}
			return nil
		}
	}
	if h.ping {
		// Pings are not queued: they ask about the link.
		p := h.box.current()
		if p == nil || p.l.SendFrame(raw) != nil {
			if in.c.waiters.withdraw(key, in.l) {
				failResponse(in.l, key, disconnected)
			}
		}
		in.answered(h, nil)
		return nil
	}
	if h.ack || h.await {
		for full := in.c.asked.add(); full != nil; full = in.c.asked.add() {
			if err := in.commit(); err != nil {
				return err
			}
			if err := in.await(full); err != nil {
				return err
			}
		}
		defer func() {
			if !put {
				in.c.asked.done()
			}
		}()
	}
	extra := h.extra
	extra.Note = in.note(n, h, key)
	if h.file {
		extra.Note = in.c.fileNote(fileID, extra.Note)
	}
	for {
		q := h.box.q
		if h.file {
			q = in.c.fileQueue(h.box)
		}
		_, err := q.PutExtra(h.typ, raw, &extra)
		if err == nil {
			put = true
			if h.durable {
				in.unsafe.add(q, h.typ, extra.Round)
			}
			if tellTaken != nil && h.durable {
				in.safe = append(in.safe, tellTaken)
			} else if tellTaken != nil {
				tellTaken()
			}
			if h.file {
				in.c.sendFiles(h.box)
			}
			switch {
			case h.answer == nil || h.ack:
			case h.durable:
				in.answers = append(in.answers, *h)
			default:
				in.answered(h, nil)
			}
			return nil
		}
		if errors.Is(err, queue.ErrClosed) {
			in.again()
			if why := in.away(); why != nil {
				return in.tooLate(n, h, key, why)
			}
			continue
		}
		if why := in.hopeless(err); why != nil {
			return in.tooLate(n, h, key, why)
		}
		if err := in.room(q, h.typ, len(raw), err); err != nil {
			return err
		}
	}
}

// again looks the peer's outbox up once more: it is dropped when a peer that
// is away has nothing waiting, and made again when the peer comes back.
func (in *intake) again() {
	if b := in.c.box(in.how.box.name, false); b != nil {
		in.how.box = b
	}
}
