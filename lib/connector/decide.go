package connector

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"time"

	"aioc/lib/config"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// withRequestID adds a request_id of 32 hex digits to the header, as the
// original does.
func withRequestID(header []byte, h *wire.Header) (edited, id []byte) {
	if header == nil {
		header = h.Raw
	}
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	id = wire.AppendString(nil, hex.EncodeToString(random[:]))
	return wire.AppendEdited(nil, header, wire.Edit{Key: "request_id", Value: id}), id
}

// decide looks at a header and says how its frames are handled.
func (c *Connector) decide(h *wire.Header, native, wait bool, caller local.Caller) decision {
	d := decision{known: true, typ: string(h.Type), await: h.AwaitResponse, ack: h.WaitForAck}
	if h.RequestID != nil {
		d.id = append([]byte(nil), h.RequestID...)
	}
	refuse := func(reason, text string) decision {
		d.refuse = &link.Refusal{Reason: reason, Text: text}
		return d
	}
	var edits []wire.Edit
	if h.TransportID != nil {
		if native {
			d.answer = append([]byte(nil), h.TransportID...)
		}
		edits = append(edits, wire.Edit{Key: "transport_id"})
	}
	d.ping = d.typ == wire.TypePing
	if d.ping && h.ResponseID != nil {
		d.await = false
	}
	if !c.maySend(h.Type) {
		return refuse("type", "message type "+d.typ+" is not in send_message_types")
	}
	if d.typ == wire.TypePubSub {
		if d.refuse = c.decidePublication(h, &d); d.refuse != nil || d.fan != nil {
			return d
		}
		edits = append(edits, strangeKeys(h)...)
	}
	d.file = h.WithFile != nil && !d.ping
	if h.ResponseID != nil && !d.ping && d.typ != wire.TypePubSub {
		// The original disconnects when it gets a response that it cannot place.
		if c0 := h.ResponseID[0]; c0 == '{' || c0 == '[' {
			return refuse("bad", "response_id is neither a string nor a number")
		}
		if c.inbox[d.typ] == nil {
			return refuse("type", "a response of type "+d.typ+" needs that type in recv_message_types too")
		}
	}
	d.durable = c.durableSend(d.typ)
	d.box = c.boxFor(string(h.Dest), wait || d.durable, !caller.Trusted())
	if d.box == nil {
		if len(h.Dest) == 0 {
			return refuse("name", "no destination_id: a server needs the name of a client")
		}
		if err := config.ValidName(string(h.Dest)); err != nil {
			return refuse("name", "destination_id: "+err.Error())
		}
		return d
	}
	if c.ignored(d.box.name) {
		return refuse("ignored", "traffic with "+d.box.name+" is ignored")
	}
	if string(h.Source) != c.id {
		edits = append(edits, wire.Edit{Key: "source_id", Value: wire.AppendString(nil, c.id)})
	}
	if !c.server && string(h.Dest) != d.box.name {
		edits = append(edits, wire.Edit{Key: "destination_id", Value: wire.AppendString(nil, d.box.name)})
	}
	if h.ID != nil && !d.ping {
		sum := sha256.Sum256(h.ID)
		copy(d.extra.ID[:], sum[:])
		edits = append(edits, wire.Edit{Key: "id"})
	}
	if h.Expires != nil {
		if _, ok := h.ExpiresAt(); !ok {
			return refuse("bad", "expires is not a number of milliseconds")
		}
		d.extra.Mortal = !d.ping
	}
	if edits != nil {
		d.header = wire.AppendEdited(nil, h.Raw, edits...)
	}
	return d
}

// gone forgets what a program that has ended wanted to know.
func (in *intake) gone() {
	in.c.watching.gone(in.l)
	if in.asked {
		in.c.waiters.gone(in.l)
	}
}

// reader reads what a local program sends.
func (c *Connector) reader(from io.Reader, caller local.Caller) *wire.Reader {
	r := wire.NewReader(from, int(c.cfg.Load().MaxMessageSize))
	if r.Account(c.memory); !caller.Trusted() {
		r.Account(c.strangerMemory)
	}
	return r
}

// patience is how long a local program may take to go on with a big message that
// it has begun: 0 is for ever.
func (c *Connector) patience(caller local.Caller) time.Duration {
	if caller.Trusted() {
		return 0
	}
	return c.cfg.Load().SendTimeout
}

// serveSender takes messages on one connection of the original's send socket.
func (c *Connector) serveSender(ctx context.Context, conn *net.UnixConn) {
	caller, leave, ok := c.meet(conn)
	if !ok {
		return
	}
	defer leave()
	in := &intake{c: c, conn: conn, ctx: ctx, caller: caller}
	in.l = link.New(conn, c.reader(conn, caller), link.Options{
		ID: c.id, Handler: in, PassPings: true, Log: c.log, ReadTimeout: c.patience(caller),
		TooBig: func(f *wire.Frame) {
			c.drop("larger than max_message_size", "local program", string(f.Header.Type), 1)
		},
	})
	defer in.gone()
	err := in.l.Run(ctx)
	c.localEnded("sender", err)
}
