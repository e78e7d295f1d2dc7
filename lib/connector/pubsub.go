package connector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"aioc/lib/broker"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/durable"
	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/wire"
)

// publishing reports whether this connector forwards publications.
func (c *Connector) publishing() bool {
	cfg := c.cfg.Load()
	return c.server && cfg.Broker
}

// lasting reports whether subscriptions to a topic outlive the connection of
// the subscriber: what is published meanwhile waits for it.
func (c *Connector) lasting(topic string) bool { return c.cfg.Load().PersistSend.Has(topic) }

// fan is where the publications of a topic go, and with which header.
type fan struct {
	topic  string
	header []byte
	boxes  []*outbox
	table  uint64 // version of the table that says so

	lasting bool // it is of a durable type
}

// fanOf decides about the header of a publication. Publications without
// subscribers go nowhere, as in the original.
func (c *Connector) fanOf(h *wire.Header) (*fan, error) {
	topic, err := broker.Topic(h)
	if err != nil {
		return nil, err
	}
	f := &fan{topic: topic, header: broker.AppendHeader(nil, h, topic, c.id), table: c.table.Version(), lasting: c.durableSend(topic)}
	for _, name := range c.table.Subscribers(topic) {
		if b := c.box(name, true); b != nil && !c.ignored(name) {
			f.boxes = append(f.boxes, b)
		}
	}
	return f, nil
}

// spread puts publications, whole frames of one topic, into the queue of each
// subscriber, which share their memory. One that has no room for them loses
// them: neither the publisher nor the others wait for it. What has to be on disk is
// added to put. With an error, which wraps queue.ErrDisk, those that are returned
// could not be kept for anybody.
func (c *Connector) spread(f *fan, frames []byte, extra queue.Extra, put *unsafe) (rest []byte, err error) {
	if len(f.boxes) == 0 {
		return nil, nil
	}
	if f.lasting {
		return c.spreadLasting(f, frames, extra, put)
	}
	pages := queue.Pages(frames, c.budget)
	for i := range f.boxes {
		x := extra
		x.Now = true // nobody waits for a slow subscriber
		lost := 0
		for _, page := range pages {
			x.Page = page
			if lost == 0 {
				lost = c.spreadTo(f, i, page.Frames(), &x)
			} else {
				lost += count(page.Frames()) // they must not overtake
			}
		}
		if lost > 0 {
			c.drop("queue of a subscriber full", f.boxes[i].name, f.topic, lost)
		}
	}
	for _, page := range pages {
		page.Release()
	}
	return nil, nil
}

// spreadTo puts publications into the queue of subscriber i and returns how many
// found no room.
func (c *Connector) spreadTo(f *fan, i int, frames []byte, x *queue.Extra) (lost int) {
	b := f.boxes[i]
	for len(frames) > 0 {
		taken, err := b.q.PutExtra(f.topic, frames, x)
		frames = frames[taken:]
		if errors.Is(err, queue.ErrClosed) {
			// It was dropped when the subscriber had gone.
			if b = c.box(b.name, true); b == nil {
				break
			}
			f.boxes[i] = b
			continue
		}
		if err != nil {
			break
		}
	}
	return count(frames)
}

// count returns the number of frames.
func count(frames []byte) (n int) {
	for ; len(frames) > 0; n++ {
		_, frames = wire.Split(frames)
	}
	return n
}

// publication takes a publication from a peer. Those that come together are
// spread together.
func (p *peerLink) publication(n uint64, f *wire.Frame) error {
	if f.Header.WithFile != nil {
		_ = p.spread() // those before it; what could not be kept is seen to
	}
	if p.how.fan.lasting && p.l.Refusing(p.how.typ) { // else it would overtake
		_ = p.spread()
		p.how.passed()
		p.l.Park(n, p.how.typ, &link.Refusal{Reason: "disk"})
		return nil
	}
	h, header, bin := f.Header, p.how.fan.header, f.Binary
	var err error
	if h.WithFile != nil {
		var at landing
		if header, bin, at, err = p.receive(header, f); err != nil {
			return err
		}
		if sent, err := p.spreadFile(f, header, bin, at); sent || err != nil {
			return err
		}
	}
	if len(p.pubs) == 0 {
		p.pubsFirst = n
	}
	if from := p.how.from; from != nil {
		if len(p.pubs) == 0 {
			p.pubsFrom = *from
		}
		from.Seq++
	}
	if p.pubs, err = wire.AppendFrame(p.pubs, header, f.Data, bin); err != nil {
		return fmt.Errorf("%w: publication: %w", link.ErrProtocol, err)
	}
	if h.TransportID != nil {
		if err := p.spread(); err != nil {
			if p.l.Flow() {
				return nil // it comes again when there is room
			}
			return fmt.Errorf("publication not taken: %w", err)
		}
		return p.acknowledge(h)
	}
	if len(p.pubs) > mostSpread {
		_ = p.spread()
	}
	return nil
}

// mostSpread is the bytes of publications that are spread together at most.
const mostSpread = 256 << 10

// spread spreads the publications that have come. With an error some could not
// be kept on disk: a peer that understands that keeps them, from others they are
// lost unless they are not acknowledged.
func (p *peerLink) spread() (err error) {
	if len(p.pubs) == 0 {
		return nil
	}
	var rest []byte
	if rest, err = p.c.spread(p.how.fan, p.pubs, queue.Extra{From: p.pubsFrom}, &p.unsafe); err != nil {
		p.unspread(count(p.pubs)-count(rest), count(rest), err)
	}
	p.pubsFrom = queue.Origin{}
	if p.pubs = p.pubs[:0]; cap(p.pubs) > 4*mostSpread {
		p.pubs = nil
	}
	return err
}

// diskPause is how long a peer keeps publications that the disk has no room for.
const diskPause = time.Second

// unspread sees to n publications that could not be kept, behind some that were.
func (p *peerLink) unspread(kept, n int, err error) {
	if !p.l.Flow() {
		for _, b := range p.how.fan.boxes {
			p.c.drop("publication not kept on disk", b.name, p.how.fan.topic, n, slog.String("err", err.Error()))
		}
		return
	}
	typ, l := p.how.typ, p.l
	why := &link.Refusal{Reason: "disk", Text: "publications of type " + p.how.fan.topic + " cannot be kept on disk: " + diskReason(err)}
	for i := range n {
		l.Park(p.pubsFirst+uint64(kept+i), typ, why)
	}
	time.AfterFunc(diskPause, func() { l.Room(typ) })
}

// subscription handles what a client subscribes to.
func (p *peerLink) subscription(data []byte) error {
	c := p.c
	change, err := broker.ParseChange(data)
	changed := false
	if err == nil && !c.publishing() {
		if len(change.Subscribe) == 0 {
			return nil // a client says so when it wants nothing
		}
		err = errors.New("pubsub_central_broker is false in the server's configuration")
	}
	before := c.table.Topics(p.box.name)
	if err == nil {
		changed, err = c.table.Apply(p.box.name, change)
	}
	if err != nil {
		c.counts.add("subscription refused", 1)
		c.fold.Warn("subscription\x00"+p.box.name, 1, "subscription refused", slog.String("peer", p.box.name), slog.String("err", err.Error()))
		if !p.l.Acks() {
			return nil
		}
		return p.l.Send([]wire.Edit{
			{Key: "message_type", Value: []byte(`"` + wire.TypeNack + `"`)},
			{Key: "reason", Value: []byte(`"subscribe"`)},
			{Key: "error", Value: wire.AppendString(nil, err.Error())},
		}, nil, nil)
	}
	if changed {
		now := c.table.Topics(p.box.name)
		c.log.Info("subscribed", "peer", p.box.name, "topics", now)
		c.tableChanged()
		c.left(p.box.name, slices.DeleteFunc(before, func(t string) bool { return slices.Contains(now, t) }))
	}
	return nil
}

// tableChanged makes others see a change of the subscriptions.
func (c *Connector) tableChanged() {
	c.version.Add(1)
	c.saving.Lock()
	defer c.saving.Unlock()
	text, err := c.table.Append(nil, c.lasting)
	if err != nil || bytes.Equal(text, c.saved) {
		return
	}
	if err := durable.WriteFile(c.paths.Subscriptions, text, 0o600); err != nil {
		c.fold.Warn("subscriptions", 1, "subscriptions not written: they last until the next start", slog.String("err", err.Error()))
		return
	}
	c.saved = text
}

// loadTable reads the subscriptions that outlived the last run.
func (c *Connector) loadTable() {
	if !c.publishing() {
		return
	}
	text, err := os.ReadFile(c.paths.Subscriptions)
	if err == nil {
		err = c.table.Load(text)
		c.known = err == nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("subscriptions not read: clients must subscribe again", "file", c.paths.Subscriptions, "err", err)
	}
	c.saved = text
	c.version.Add(1)
}

// unsubscribed ends the subscriptions of a client that has gone, but those
// that last.
func (c *Connector) unsubscribed(name string) {
	if c.table.Keep(name, c.lasting) {
		c.tableChanged()
	}
}

// subscribe tells the server what this client subscribes to, when the link is
// up. plain: it is a Python server.
func (p *peerLink) subscribe(plain bool) {
	p.c.telling.Lock()
	defer p.c.telling.Unlock()
	topics := p.c.subscriptions()
	p.tell(topics, plain)
}

// tell is subscribe with telling held, and the topics that there are.
func (p *peerLink) tell(topics []string, plain bool) {
	p.c.verdict.set("")
	if !plain {
		// Also when there are none: there may be some of the last time.
		_ = p.l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypeSubscribe + `"`)}},
			broker.Change{Subscribe: topics, Only: true}.Data(), nil)
		return
	}
	if len(topics) > 0 {
		// It lists a client that comes back twice, unless it unsubscribes first.
		p.change(broker.Change{Unsubscribe: topics})
		p.change(broker.Change{Subscribe: topics})
	}
}

// change sends a change of subscriptions as the original does.
func (p *peerLink) change(c broker.Change) {
	_ = p.l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypePubSub + `"`)}}, c.Data(), nil)
}

// subscriptions returns what this client subscribes to.
func (c *Connector) subscriptions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.topics)
}

// setSubscriptions changes what this client subscribes to, until it ends.
// Topics that are not in recv_message_types are left out, as in the original,
// with a warning.
func (c *Connector) setSubscriptions(topics []string) []string {
	var next []string
	for _, t := range topics {
		if c.inbox[t] == nil {
			c.log.Warn("not subscribed: the type is not in recv_message_types", "type", t)
		} else if !slices.Contains(next, t) {
			next = append(next, t)
		}
	}
	c.telling.Lock()
	defer c.telling.Unlock()
	c.mu.Lock()
	last := c.topics
	c.topics = next
	var b *outbox
	for _, b = range c.boxes {
	}
	c.mu.Unlock()
	c.log.Info("subscriptions changed", "topics", next)
	p := b.current()
	if p == nil || !p.greeted.Load() {
		return next // they are told when the server is there
	}
	if p.l.Acks() {
		p.tell(next, false)
		return next
	}
	without := func(a, b []string) []string {
		return slices.DeleteFunc(slices.Clone(a), func(t string) bool { return slices.Contains(b, t) })
	}
	if gone := without(last, next); len(gone) > 0 {
		p.change(broker.Change{Unsubscribe: gone})
	}
	if more := without(next, last); len(more) > 0 {
		p.change(broker.Change{Subscribe: more})
	}
	return next
}

// unsubscribeAll tells a Python server that this client goes. One of this
// toolkit sees that, and keeps the subscriptions that last.
func (p *peerLink) unsubscribeAll() {
	topics := p.c.subscriptions()
	if !p.c.server && !p.l.Acks() && len(topics) > 0 {
		p.change(broker.Change{Unsubscribe: topics})
	}
}

// pubsubCommands are the commands of a subscriber.
func (c *Connector) pubsubCommands() []control.Command {
	return []control.Command{
		{Name: "show_subscribe_message_types", Run: func(context.Context, control.Args) (any, error) {
			return listed(c.subscriptions()), nil
		}},
		{Name: "set_subscribe_message_types", Args: []control.Arg{{Name: "message_types", Kind: control.List, Required: true}},
			Run: func(ctx context.Context, a control.Args) (any, error) {
				topics := a.List("message_types")
				for _, t := range topics {
					if err := config.ValidType(t); err != nil {
						return nil, fmt.Errorf("%w: message_types: %w", control.ErrArgument, err)
					}
				}
				if ctx.Value(ownSocket{}) != nil {
					if err := c.mayReceive(topics); err != nil {
						return nil, err
					}
				}
				if c.server {
					return nil, nil
				}
				now := listed(c.setSubscriptions(topics))
				if ctx.Value(ownSocket{}) != nil {
					if err := c.confirmed(ctx); err != nil {
						return nil, err
					}
				}
				return now, nil
			}},
		{Name: "show_subscriptions", Run: func(context.Context, control.Args) (any, error) {
			return c.table.All(), nil
		}},
	}
}

// mayReceive returns an error when this connector cannot subscribe to all of the
// topics.
// Differs: the original leaves out, without a word in its reply, those that are
// not in recv_message_types (aioconnectors core.py). So do we on its commander
// socket.
func (c *Connector) mayReceive(topics []string) error {
	if c.server {
		return control.Failure("permission", "this is a server: its clients subscribe")
	}
	var unknown []string
	for _, t := range topics {
		if c.inbox[t] == nil {
			unknown = append(unknown, strconv.Quote(t))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return control.Failure("permission", strings.Join(unknown, ", ")+
		": not in recv_message_types of this client, so nothing was changed: add it there and restart the client")
}

// listed is a list as the original replies with it: {} when it is empty, but []
// in JSON.
func listed(list []string) []string { return append([]string{}, list...) }

// publicationKeys are the keys that a publication may have on its way to a
// broker: any other makes one of the original lose it.
var publicationKeys = []string{
	"message_type", "source_id", "destination_id", "request_id", "response_id", "with_binary", "await_response",
	"with_file", "wait_for_ack", "message_type_publish", "tag", "transport_id",
}

// decidePublication decides about a publication of a local program.
func (c *Connector) decidePublication(h *wire.Header, d *decision) *link.Refusal {
	if _, err := broker.Topic(h); err != nil {
		return &link.Refusal{Reason: "bad", Text: err.Error()}
	}
	if !c.server {
		return nil
	}
	if !c.publishing() {
		return &link.Refusal{Reason: "type", Text: "publishing on a server needs pubsub_central_broker"}
	}
	f, err := c.fanOf(h)
	if err != nil {
		return &link.Refusal{Reason: "bad", Text: err.Error()}
	}
	d.fan = f
	return nil
}

// strangeKeys are the edits that remove what a broker of the original would
// not understand.
func strangeKeys(h *wire.Header) (edits []wire.Edit) {
	_ = wire.Fields(h.Raw, func(key, _ []byte) {
		if !slices.Contains(publicationKeys, string(key)) {
			edits = append(edits, wire.Edit{Key: string(key)})
		}
	})
	return edits
}

// publish spreads the publication of a program on the broker's own host.
func (in *intake) publish(n uint64, f *wire.Frame) {
	h := &in.how
	if f.Header.WithFile != nil {
		in.publishFile(n, f)
		return
	}
	frame, err := wire.AppendFrame(nil, h.fan.header, f.Data, f.Binary)
	if err != nil {
		in.refuse(n, h, &link.Refusal{Reason: "size", Text: err.Error()})
		return
	}
	if _, err := in.c.spread(h.fan, frame, h.extra, &in.unsafe); err != nil {
		in.notNow(n, h, &link.Refusal{Reason: "full", Text: "the connector cannot keep it on disk now: " + diskReason(err)})
		return
	}
	in.published()
}

// published answers for a publication.
func (in *intake) published() {
	h := &in.how
	if h.answer != nil && len(in.unsafe) > 0 {
		in.answers = append(in.answers, *h)
		return
	}
	in.answered(h, nil)
}
