package main

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/envelope"
	"aioc/lib/wire"
)

// message is what goes to the connector. Its slices are valid until the next
// one is made.
type message struct {
	header, data, binary []byte
	await                []byte // JSON text of the request id when a response is awaited
}

// composer makes messages of what was read. The header that repeats is built
// once.
type composer struct {
	info api.Info
	opts *options
	ids  *ids

	before, after []byte // the header around a request id of its own
	header        []byte // a header with such an id, or an edited one
	fixed         []byte // JSON text of -request-id
	binary        []byte // content of -binary

	envelopes envelope.Decoder
	await     []byte // JSON text of the id in header
	own       bool   // that id was made for one message only
	count     int    // messages made
	marks     []byte // memory for a header with what is of one message only
}

// newComposer returns a composer for messages to the connector that info
// describes. Options that do not fit it are an error that wraps one of the
// statuses.
func newComposer(info api.Info, o *options, bin []byte) (*composer, error) {
	c := &composer{info: info, opts: o, binary: bin, ids: new(ids)}
	if !info.Native && (o.ack || o.wait) {
		flag := "-ack"
		if !o.ack {
			flag = "-wait"
		}
		return nil, &statusError{usage, flag + " can't be used here: the connector is a Python one and does not say what became of a message"}
	}
	if !info.Native && (o.id != "" || o.ttl > 0) {
		flag := "-id"
		if o.id == "" {
			flag = "-ttl"
		}
		return nil, &statusError{usage, flag + " can't be used here: the connector is a Python one, which does not know it"}
	}
	if o.to != "" && !info.Server && info.Peer != "" && o.to != info.Peer {
		return nil, &statusError{usage, fmt.Sprintf("-to %s: the connector is a client, which has one peer: %s", o.to, info.Peer)}
	}
	typ, to := o.typ, info.Peer
	if info.Server || to == "" {
		to = o.to // little is known of a Python connector without its configuration
	}
	if !o.envelope {
		if typ == "" {
			if len(info.SendTypes) == 0 {
				return nil, &statusError{usage, "-type is missing: the connector has no send_message_types to take the first of"}
			}
			typ = info.SendTypes[0]
		}
		if info.Server && to == "" && !o.publish {
			return nil, &statusError{usage, "-to is missing: the connector is a server, which needs to know for which client it is"}
		}
	}
	if o.publish {
		if err := config.ValidType(typ); err != nil {
			return nil, &statusError{usage, err.Error()}
		}
	} else if typ != "" {
		if err := c.allowed(typ); err != nil {
			return nil, err
		}
	}
	if o.requestID != "" {
		c.fixed = o.requestJSON
	}
	if o.envelope {
		return c, nil
	}

	// The order of keys is that of the original.
	c.before = append(c.before, `{"message_type": `...)
	if o.publish {
		c.before = wire.AppendString(c.before, wire.TypePubSub)
	} else {
		c.before = wire.AppendString(c.before, typ)
	}
	c.before = append(c.before, `, "source_id": `...)
	c.before = wire.AppendString(c.before, info.Name)
	if to != "" {
		c.before = append(c.before, `, "destination_id": `...)
		c.before = wire.AppendString(c.before, to)
	}
	if c.fixed != nil {
		c.before = append(append(c.before, `, "request_id": `...), c.fixed...)
	}
	if o.responseID != "" {
		c.after = append(append(c.after, `, "response_id": `...), o.responseJSON...)
	}
	if len(bin) > 0 {
		c.after = append(c.after, `, "with_binary": true`...)
	}
	if o.await {
		c.after = append(c.after, `, "await_response": true`...)
	}
	if o.file.path != "" {
		c.after = append(c.after, `, "with_file": `...)
		c.after = o.file.append(c.after, typ)
	}
	if o.ack {
		c.after = append(c.after, `, "wait_for_ack": true`...)
	}
	if o.publish {
		c.after = append(c.after, `, "message_type_publish": `...)
		c.after = wire.AppendString(c.after, typ)
	}
	if o.tag != "" {
		c.after = append(c.after, `, "tag": `...)
		c.after = wire.AppendString(c.after, o.tag)
	}
	c.after = append(c.after, '}')
	c.header = append(append(c.header, c.before...), c.after...)
	if len(c.header) > wire.MaxHeader {
		return nil, &statusError{usage, fmt.Sprintf("header of %d bytes, at most %d: shorten an id", len(c.header), wire.MaxHeader)}
	}
	return c, nil
}

// allowed returns an error unless the connector sends messages of type typ.
func (c *composer) allowed(typ string) error {
	if typ == wire.TypePing || slices.Contains(c.info.SendTypes, typ) {
		return nil
	}
	if !c.info.Native && c.info.SendTypes == nil {
		return nil // not known
	}
	if len(c.info.SendTypes) == 0 {
		return &statusError{refused, fmt.Sprintf("type %q: the connector sends none: its send_message_types are empty", typ)}
	}
	return &statusError{refused, fmt.Sprintf("type %q is not one that the connector sends (send_message_types): %s",
		typ, strings.Join(c.info.SendTypes, ", "))}
}

// compose makes a message of what was read.
func (c *composer) compose(read []byte) (m message, err error) {
	if c.opts.envelope {
		m, err = c.unpack(read)
	} else {
		m = message{header: c.header, data: read, binary: c.binary}
		if c.opts.await {
			if m.await = c.fixed; m.await == nil {
				m.await = c.ids.next()
				c.header = append(append(append(c.header[:0], c.before...), `, "request_id": `...), m.await...)
				c.header = append(c.header, c.after...)
				m.header = c.header
			}
		}
		if c.count++; c.opts.id != "" || c.opts.ttl > 0 {
			m.header = c.marked(m.header)
		}
	}
	if err == nil {
		if n := wire.Size(len(m.header), len(m.data), len(m.binary)); n > wire.MaxFrame {
			err = &inputError{fmt.Sprintf("it is %d bytes long, at most %d can be", n, wire.MaxFrame)}
		}
	}
	return m, err
}

// marked returns a header with the id of the next message and the time when it
// expires. Of several messages all but the first have a number behind the id.
func (c *composer) marked(header []byte) []byte {
	b := append(c.marks[:0], header[:len(header)-1]...)
	if id := c.opts.id; id != "" {
		if c.count > 1 {
			id = fmt.Sprintf("%s#%d", id, c.count)
		}
		b = wire.AppendString(append(b, `, "id": `...), id)
	}
	if c.opts.ttl > 0 {
		b = strconv.AppendInt(append(b, `, "expires": `...), time.Now().Add(c.opts.ttl).UnixMilli(), 10)
	}
	c.marks = append(b, '}')
	return c.marks
}

// unpack makes a message of an envelope.
func (c *composer) unpack(line []byte) (m message, err error) {
	e, err := c.envelopes.Parse(line)
	if err != nil {
		return m, &inputError{err.Error()}
	}
	m.data, m.binary = e.Data, e.Binary
	if e.Same && !c.own && len(c.header) > 0 {
		m.header, m.await = c.header, c.await
		return m, nil
	}
	var h wire.Header
	if err := h.Parse(e.Header); err != nil {
		return m, &inputError{err.Error()}
	}
	edits := []wire.Edit{{Key: "source_id", Value: wire.AppendString(nil, c.info.Name)}}
	set := func(key string, value []byte) { edits = append(edits, wire.Edit{Key: key, Value: value}) }

	typ := c.opts.typ
	if typ != "" {
		set("message_type", wire.AppendString(nil, typ))
	} else if h.Field("message_type") == nil {
		if len(c.info.SendTypes) == 0 {
			return m, &inputError{`the key "message_type" is missing: put it in, or give -type`}
		}
		typ = c.info.SendTypes[0]
		set("message_type", wire.AppendString(nil, typ))
	} else if typ = string(h.Type); h.Type == nil {
		return m, &inputError{`key "message_type": want a string`}
	}
	if err := c.allowed(typ); err != nil {
		return m, err
	}
	switch {
	case !c.info.Server && c.info.Peer != "":
		set("destination_id", wire.AppendString(nil, c.info.Peer))
	case c.opts.to != "":
		set("destination_id", wire.AppendString(nil, c.opts.to))
	case c.info.Server && len(h.Dest) == 0:
		return m, &inputError{`key "destination_id": want the name of a client: put it in, or give -to`}
	}
	if c.opts.responseID != "" {
		set("response_id", c.opts.responseJSON)
	}
	if c.opts.ack {
		set("wait_for_ack", []byte("true"))
	}
	if c.opts.tag != "" {
		set("tag", wire.AppendString(nil, c.opts.tag))
	}
	c.own, c.await = false, nil
	id := h.RequestID
	if c.fixed != nil {
		id = c.fixed
		set("request_id", id)
	}
	if c.opts.await || h.AwaitResponse {
		if h.ResponseID != nil {
			return m, &inputError{"a response is not answered itself: it cannot have both await_response and response_id"}
		}
		if id == nil || string(id) == "null" {
			c.own = true
			id = c.ids.next()
			set("request_id", id)
		}
		set("await_response", []byte("true"))
		c.await = append([]byte(nil), id...)
	}
	c.header = wire.AppendEdited(c.header[:0], e.Header, edits...)
	if len(c.header) > wire.MaxHeader {
		return m, &inputError{fmt.Sprintf("header of %d bytes, at most %d", len(c.header), wire.MaxHeader)}
	}
	m.header, m.await = c.header, c.await
	return m, nil
}

// ids makes request ids of 32 lower-case hex digits, as the original does:
// half of each is random, the other half counts. The zero value is ready.
type ids struct {
	prefix [8]byte
	n      uint64
	text   []byte
}

// next returns a new id as JSON text, valid until the next call.
func (i *ids) next() []byte {
	if i.n == 0 {
		rand.Read(i.prefix[:]) // never fails
	}
	i.n++
	var b [16]byte
	copy(b[:], i.prefix[:])
	binary.BigEndian.PutUint64(b[8:], i.n)
	i.text = append(i.text[:0], '"')
	i.text = hex.AppendEncode(i.text, b[:])
	i.text = append(i.text, '"')
	return i.text
}

// idJSON is an id of the command line as JSON text: decimal digits are an
// integer, text in double quotes is the string that JSON says, anything else a
// string.
func idJSON(s string) ([]byte, error) {
	switch {
	case s == "":
		return nil, errors.New("want an id")
	case !utf8.ValidString(s):
		return nil, errors.New("want UTF-8")
	case strings.Trim(s, "0123456789") == "":
		if s = strings.TrimLeft(s, "0"); s == "" {
			s = "0"
		}
		return []byte(s), nil
	case s[0] == '"':
		if n, err := wire.ValueEnd([]byte(s), true); err != nil || n != len(s) {
			return nil, errors.New(`what begins with " has to be a whole JSON string`)
		}
		text, _ := wire.Text([]byte(s))
		return wire.AppendString(nil, text), nil
	}
	return wire.AppendString(nil, s), nil
}
