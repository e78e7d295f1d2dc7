package connector

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"aioc/lib/access"
	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/wire"
)

// peerLink is the link to an identified peer, and the handler of what arrives
// on it.
type peerLink struct {
	c     *Connector
	l     *link.Link
	box   *outbox
	addr  string
	conn  net.Conn
	tls   string // its version, "" without
	since time.Time
	over  chan struct{} // closed when the link has ended and given back everything

	there   bool   // the peer counts as connected; guarded by box.mu
	arrived func() // makes it so, once

	welcome func() error // whether it would be let in again; nil if nothing was shown

	choose func(access.File) (string, error) // where a file lands: see chooser

	greeted atomic.Bool // it is known what the other end speaks

	// Owned by the link's reader.
	how       route
	run       wire.Batch
	first     uint64
	pubs      []byte       // publications, ready for their subscribers
	pubsFrom  queue.Origin // of the first of them
	pubsFirst uint64       // and its number

	streams map[string]*queue.Origin // by type: of its next message
	rooms   map[string]roomWait      // by type that is parked
	reading int64                    // bytes of a big message on its way in
	unsafe  unsafe                   // put since the last commit
	taken   [][]byte                 // transport_ids to acknowledge after it

	incoming map[string]*inFile       // files on their way here, by id; owned by the link's reader
	files    sync.WaitGroup           // what writes them
	known    chan struct{}            // closed when it is known what the other end speaks
	chunky   atomic.Bool              // it takes files in chunks
	feed     chunkFeed                // those on their way there
	sending  atomic.Pointer[outgoing] // the file that is on its way
}

// chunks reports whether the other end takes files ahead of their messages.
func (p *peerLink) chunks() bool { return p.chunky.Load() }

// route is how frames with a certain header are handled.
type route struct {
	known   bool
	version uint64 // Connector.version when it was made
	typ     string
	q       *queue.Queue
	drop    string        // reason
	single  bool          // not simply put
	fan     *fan          // a publication, to be spread
	durable bool          // to be on disk before it counts as taken
	mortal  bool          // it expires
	from    *queue.Origin // of the next message, if the peer numbers them
}

// passed counts a message that is not put.
func (r *route) passed() {
	if r.from != nil {
		r.from.Seq++
	}
}

func (p *peerLink) Frame(n uint64, f *wire.Frame) error {
	if n == 0 {
		return p.control(f)
	}
	if !f.Same || !p.how.known || p.how.version != p.c.version.Load() {
		if err := p.putRun(); err != nil {
			return err
		}
		version := p.c.version.Load()
		p.how = p.route(f.Header)
		p.how.version = version
	}
	switch h := &p.how; {
	case h.drop != "":
		h.passed()
		p.c.drop(h.drop, p.box.name, h.typ, 1, slog.String("id", string(f.Header.Source)))
		p.l.Refuse(n, &link.Refusal{Reason: "type", Text: h.drop})
		return p.acknowledge(f.Header)
	case h.fan != nil:
		return p.publication(n, f)
	case h.single:
		if err := p.putRun(); err != nil {
			return err
		}
		return p.single(n, f)
	}
	if p.run.Frames == 0 {
		p.first = n
	}
	p.run.Add(f.Raw, 1)
	return nil
}

// route decides about a header.
func (p *peerLink) route(h *wire.Header) route {
	c := p.c
	r := route{known: true, typ: string(h.Type), from: p.streams[string(h.Type)]}
	switch {
	case h.Type == nil:
		r.drop = "no message_type"
	case c.server && !bytes.Equal(h.Source, []byte(p.box.name)):
		// Differs: the original checks this with certificates only.
		r.drop = "source_id is not that of the connection"
	case c.ignored(p.box.name):
		r.drop = "traffic ignored"
	case r.typ == wire.TypePubSub && c.publishing():
		r.single = true
		if h.Publish != nil {
			var err error
			if r.fan, err = c.fanOf(h); err != nil {
				r.drop = "publication with a topic that is not valid"
			}
		}
		return r
	case c.inbox[r.typ] == nil:
		r.drop = "message type not in recv_message_types"
	}
	r.q = c.inbox[r.typ]
	r.durable = c.durableRecv(r.typ)
	_, r.mortal = h.ExpiresAt()
	r.single = h.TransportID != nil || h.ResponseID != nil || h.WithFile != nil || h.WaitForAck
	return r
}

// single handles one message that is not simply put.
func (p *peerLink) single(n uint64, f *wire.Frame) error {
	h := f.Header
	if p.how.typ == wire.TypePubSub {
		p.how.passed()
		if err := p.subscription(f.Data); err != nil {
			return err
		}
		return p.acknowledge(h)
	}
	raw, header, bin := f.Raw, []byte(nil), f.Binary
	if h.TransportID != nil {
		header = wire.AppendEdited(nil, h.Raw, wire.Edit{Key: "transport_id"})
	}
	if h.WithFile != nil {
		var err error
		if header, bin, err = p.receiveFile(header, f); errors.Is(err, errNoSpace) {
			p.how.passed()
			p.c.events.add("file waits: no room here", 1)
			typ, l := p.how.typ, p.l
			l.Park(n, typ, &link.Refusal{Reason: "disk", Text: err.Error()})
			time.AfterFunc(fullPause, func() { l.Room(typ) })
			return nil
		}
		if err != nil {
			return err
		}
	}
	if h.ResponseID != nil && p.c.waiters.any() {
		if l := p.c.waiters.take(requestKey(p.box.name, p.how.typ, h.ResponseID)); l != nil {
			p.how.passed()
			if header == nil {
				header = h.Raw
			}
			if err := l.SendRaw(header, f.Data, bin); err != nil {
				p.c.drop("response not read by the program that asked", p.box.name, p.how.typ, 1)
			}
			return p.acknowledge(h)
		}
	}
	if header != nil {
		var err error
		if raw, err = wire.AppendFrame(nil, header, f.Data, bin); err != nil {
			return err
		}
	}
	taken, err := p.put(n, raw)
	if err == nil && taken {
		err = p.acknowledge(h)
	}
	return err
}

// acknowledge answers a transport_id, as soon as all that was put is safe.
func (p *peerLink) acknowledge(h *wire.Header) error {
	if h.TransportID == nil {
		return nil
	}
	id := append([]byte(nil), h.TransportID...)
	if len(p.unsafe) > 0 {
		p.taken = append(p.taken, id)
		return nil
	}
	return p.ack(id)
}

// ack answers a transport_id.
func (p *peerLink) ack(id []byte) error {
	return p.l.Send([]wire.Edit{
		{Key: "transport_id", Value: id},
		{Key: "message_type", Value: []byte(`"` + wire.TypeAck + `"`)},
	}, nil, nil)
}

// Flush puts the run and waits until all that was put is on disk, as far as it
// has to be. After an error it is not known what was taken: the link ends, and
// the peer sends it again.
func (p *peerLink) Flush() error {
	if err := p.putRun(); err != nil {
		return err
	}
	if err := p.unsafe.commit(); err != nil {
		return err
	}
	for _, id := range p.taken {
		if err := p.ack(id); err != nil {
			return err
		}
	}
	p.taken = p.taken[:0]
	return nil
}

// putRun puts the run.
func (p *peerLink) putRun() error {
	_ = p.spread() // what could not be kept is seen to
	n := p.first
	for _, frames := range p.run.Spans {
		if _, err := p.put(n, frames); err != nil {
			return err
		}
		for len(frames) > 0 {
			_, frames = wire.Split(frames)
			n++
		}
	}
	p.run.Reset()
	return nil
}

// put puts frames, of which the first has number n, and reports whether all
// were taken. What finds no room goes back to a peer that understands that;
// from others it is lost. From a server that has not answered our announcement
// it is better not to take it at all: one of this toolkit sends it again.
func (p *peerLink) put(n uint64, frames []byte) (all bool, err error) {
	h := &p.how
	taken := 0
	extra := queue.Extra{Mortal: h.mortal, Now: !p.l.Flow()} // a Python peer cannot be told to wait
	if h.from != nil {
		extra.From = *h.from
		defer func(all []byte) { h.from.Seq += uint64(count(all)) }(frames)
	}
	parked := p.l.Refusing(h.typ)
	if err = queue.ErrFull; !parked { // else they would overtake
		taken, err = h.q.PutExtra(h.typ, frames, &extra)
	}
	if h.durable && taken > 0 {
		p.unsafe.add(h.q, h.typ, extra.Round)
	}
	full := errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrDisk)
	switch {
	case err == nil:
		return true, nil
	case full && !p.l.Flow() && h.durable:
		// It is not lost if it is not acknowledged: it comes again.
		return false, fmt.Errorf("message not taken: %w", err)
	case full && !p.greeted.Load():
		return false, errTooEarly
	}
	for part := frames[:taken]; len(part) > 0; n++ {
		_, part = wire.Split(part)
	}
	rest := frames[taken:]
	first, _ := wire.Split(rest)
	lost := 0
	why := &link.Refusal{Reason: "full", Text: "queue of type " + h.typ + " full"}
	switch {
	case errors.Is(err, queue.ErrDisk):
		why.Reason, why.Text = "disk", "messages of type "+h.typ+" cannot be kept on disk: "+diskReason(err)
	case full && h.durable && !p.l.Refusing(h.typ):
		why.Reason = "disk" // no more than max_size_persistence_path
	}
	for len(rest) > 0 {
		_, rest = wire.Split(rest)
		if p.l.Flow() && full {
			p.l.Park(n, h.typ, why)
		} else {
			lost++
		}
		n++
	}
	if lost > 0 {
		p.c.drop("queue "+h.typ+" full", p.box.name, h.typ, lost)
		return false, nil
	}
	p.awaitRoom(h.q, h.typ, len(first), parked)
	return false, nil
}

// roomWait is what a queue was asked for on behalf of a parked type.
type roomWait struct {
	forget func()
	need   int // bytes
}

// awaitRoom lets a parked type be resumed when there is room for n bytes, and
// for the first that was parked. A queue is asked once for each type, however
// much of it is refused.
func (p *peerLink) awaitRoom(q *queue.Queue, typ string, n int, parked bool) {
	if w, ok := p.rooms[typ]; ok {
		w.forget()
		if parked {
			n = max(n, w.need)
		}
	}
	if p.rooms == nil {
		p.rooms = map[string]roomWait{}
	}
	l := p.l
	p.rooms[typ] = roomWait{q.OnRoom(typ, n, func() { l.Room(typ) }), n}
}

// forgetRooms ends what awaitRoom began, when the link has ended.
func (p *peerLink) forgetRooms() {
	for _, w := range p.rooms {
		w.forget()
	}
}

// errTooEarly ends a link whose other end cannot be told yet to wait.
var errTooEarly = errors.New("queue full before the server has said what it speaks")

// control handles the frames that are no messages and that the link left over.
func (p *peerLink) control(f *wire.Frame) error {
	if string(f.Header.Type) == wire.TypePing {
		p.c.verdict.ponged(f.Header.ResponseID)
		if l := p.c.waiters.take(requestKey(p.box.name, wire.TypePing, f.Header.ResponseID)); l != nil {
			_ = l.SendRaw(f.Header.Raw, f.Data, f.Binary)
		}
		return nil
	}
	switch string(f.Header.Type) {
	case wire.TypeStream:
		return p.numbered(f.Data)
	case wire.TypeSubscribe:
		if p.c.server {
			return p.subscription(f.Data)
		}
	case wire.TypeFile:
		return p.offered(f)
	case wire.TypeChunk:
		return p.chunk(f)
	case wire.TypeFileAck:
		return p.fileAnswer(f)
	case wire.TypeNack:
		p.c.fold.Warn("nack\x00"+p.box.name, 1, "refused by the peer",
			slog.String("peer", p.box.name), slog.String("err", p.nacked(f.Header)))
		return nil
	}
	// Differs: a second hello would rename the connection in the original.
	return fmt.Errorf("%w: %s from an identified peer", link.ErrProtocol, f.Header.Type)
}

// numbered notes the number of the next message of a type. A peer that lies
// loses messages of its own only.
func (p *peerLink) numbered(data []byte) error {
	if err := p.putRun(); err != nil { // what came before has other numbers
		return err
	}
	var s stream
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("%w: %s: %w", link.ErrProtocol, wire.TypeStream, err)
	}
	epoch, err := hex.DecodeString(s.Epoch)
	if err != nil || len(epoch) != len(queue.Epoch{}) || s.Seq == 0 {
		return fmt.Errorf("%w: %s without epoch or seq", link.ErrProtocol, wire.TypeStream)
	}
	if p.c.inbox[s.Type] == nil && s.Type != wire.TypePubSub {
		return nil // what comes of it is refused
	}
	if p.streams == nil {
		p.streams = map[string]*queue.Origin{}
	}
	p.streams[s.Type] = &queue.Origin{Peer: p.box.name, Epoch: queue.Epoch(epoch), Seq: s.Seq}
	p.how.known = false
	return nil
}

// skipped notes that a message did not get here: it was too big.
func (p *peerLink) skipped(messageType string) {
	if s := p.streams[messageType]; s != nil && p.putRun() == nil {
		s.Seq++
	}
}
