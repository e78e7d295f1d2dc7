package connector

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"aioc/lib/durable"
	"aioc/lib/link"
	"aioc/lib/peer"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// extensions are what this connector speaks beyond the original.
var extensions = []string{wire.ExtAckTo, wire.ExtFlow, wire.ExtChunk, wire.ExtDedup}

// maxGreeting is how long messages wait for the other end to say what it speaks.
// One of this toolkit says so at once; a Python client may say nothing.
const maxGreeting = 500 * time.Millisecond

// maxSilence is after what time a server that keeps the connection and says
// nothing counts as there. An original that ignores this client's traffic says
// nothing; a server of another mode ends the connection long before.
const maxSilence = 2 * time.Second

// ackDelay is how long a peer may wait to hear that a message was taken, unless
// its sender waits for that. It costs the peer a little memory and saves a
// packet for a message that is answered.
const ackDelay = 25 * time.Millisecond

// errReplaced ends a link whose peer has come back on another one.
var errReplaced = errors.New("replaced by a newer connection of the same name")

// serveLinks accepts clients until accepting ends; their links live until the
// pumps end.
func (c *Connector) serveLinks(accepting, pumps context.Context, ln *peer.Listener) {
	// Serve ends the connections with its context, so it gets the longer one.
	stop := context.AfterFunc(accepting, func() { ln.Close() })
	defer stop()
	err := ln.Serve(pumps, func(ctx context.Context, conn *peer.Conn) { _ = c.runPeer(ctx, conn) })
	if accepting.Err() == nil {
		c.log.Error("listening ended", "err", err)
	}
}

// dialLinks keeps a client connected.
func (c *Connector) dialLinks(ctx context.Context, d *peer.Dialer) {
	// Ready with the first link, or when it is plain that it takes a while.
	trying := time.AfterFunc(time.Second, c.ready)
	defer trying.Stop()
	err := d.Run(ctx, c.runPeer)
	if ctx.Err() == nil {
		c.log.Error("connecting ended", "err", err)
		c.mu.Lock()
		shutdown := c.shutdown
		c.mu.Unlock()
		if shutdown != nil && !c.cfg.Load().TryReconnect {
			c.log.Info("not connecting again: enable_client_try_reconnect is false")
		}
	}
}

// runPeer runs the link to a peer until it ends.
func (c *Connector) runPeer(ctx context.Context, conn *peer.Conn) error {
	cfg := c.cfg.Load()
	box := c.hold(conn.Name)
	if box == nil {
		c.counts.add("peer refused: too many are known", 1)
		c.fold.Warn("crowd", 1, "peer refused: too many are known", slog.String("peer", conn.Name))
		return errors.New("too many peers")
	}
	defer c.release(box)
	c.mu.Lock()
	c.real(box)
	c.mu.Unlock()
	p := &peerLink{c: c, box: box, addr: conn.Addr.String(), conn: conn.Conn, tls: tlsVersion(conn.Conn), since: time.Now(),
		over: make(chan struct{}), known: make(chan struct{}), welcome: conn.Welcome, choose: c.chooser(ctx)}
	p.replace(ctx)

	// Nothing is sent before it is known whether the other end can refuse it:
	// one that does not know us yet would drop what finds no room.
	var late lateLink
	feed := sync.OnceFunc(func() { p.l.SetSource(newPeerFeed(c.id, box.q, &late, &p.feed, p.refused, box.refuses)) })
	started := time.Now()
	o := link.Options{
		ID: c.id, Peer: cfg.PeerID(), Handler: p, Log: c.log,
		Extensions: extensions, Dialled: !c.server,
		WriteTimeout: cfg.SendTimeout, ReadTimeout: cfg.SendTimeout,
		TooBig: func(f *wire.Frame) {
			c.drop("larger than max_message_size", box.name, string(f.Header.Type), 1)
			p.skipped(string(f.Header.Type))
		},
		AckDelay: ackDelay,
		Acked:    p.wholeAcked,
		Greeted: func(f *wire.Frame) {
			p.chunky.Store(f != nil && f.Header.Speaks(wire.ExtChunk))
			p.arrived()
			p.greeted.Store(true)
			close(p.known)
			if !c.server {
				p.subscribe(f == nil || f.Header.Extensions == nil)
			}
			feed()
			c.log.Debug("peer greeted", "peer", box.name, "aioc", f != nil && f.Header.Extensions != nil)
		},
		Nudge: c.server && conn.TLS,
	}
	if !c.server {
		o.KeepAlive = cfg.KeepAlivePeriod
		o.KeepAliveTimeout = cfg.KeepAliveTimeout
		o.KeepAliveMisses = cfg.MaxUnansweredKeepAlive
	}
	conn.Reader.Account(p.memory)
	conn.Reader.Stream(streamMin, min(cfg.MaxFileRecv, 1<<32-streamMin)+streamMin)
	p.l = link.New(conn.Conn, conn.Reader, o)
	late.set(p.l)
	if !p.attach() {
		close(p.over)
		return errReplaced
	}
	p.recheck() // what it was let in with may have gone before it could be told
	loud := c.flaps.log(box.name, started)
	p.arrived = sync.OnceFunc(func() {
		if !p.arrive() {
			return
		}
		c.events.add("link up", 1)
		if loud {
			c.log.Info("link up", "peer", box.name, "addr", p.addr)
		}
		c.ready()
	})
	if c.server { // the client has said who it is
		p.arrived()
	}
	ungreeted := time.AfterFunc(maxGreeting, feed)
	unheard := time.AfterFunc(maxSilence, p.arrived)
	err := p.l.Run(ctx)
	ungreeted.Stop()
	unheard.Stop()
	there := box.there() != nil
	p.forgetRooms()
	p.endFiles()
	p.detach()
	c.waiters.fail(box.name)
	switch {
	case errors.Is(err, link.ErrProtocol), errors.Is(err, wire.ErrFrame), errors.Is(err, wire.ErrHeader), errors.Is(err, wire.ErrTooBig):
		c.counts.add("protocol violation", 1)
		c.fold.Warn("violation\x00"+box.name, 1, "link closed: the peer broke the protocol",
			slog.String("peer", box.name), slog.String("addr", p.addr), slog.String("err", err.Error()))
	case errors.Is(err, wire.ErrSlow):
		c.counts.add("message that does not go on", 1)
		c.fold.Warn("slow\x00"+box.name, 1, "link closed: a big message has begun and does not go on; see send_timeout",
			slog.String("peer", box.name), slog.String("addr", p.addr))
	case errors.Is(err, wire.ErrMemory):
		c.counts.add("no memory for a message", 1)
		c.fold.Warn("memory\x00"+box.name, 1, "link closed: no memory for a big message; see max_memory_total",
			slog.String("peer", box.name), slog.String("addr", p.addr))
	default:
		if err == io.EOF {
			err = errors.New("closed by the peer")
		}
		if !there {
			if ctx.Err() == nil {
				c.fold.Warn("unheard\x00"+box.name, 1, "link ended before the server had said a word",
					slog.String("peer", box.name), slog.String("addr", p.addr), slog.String("err", err.Error()))
			}
			break
		}
		if !loud {
			c.fold.Warn("flap\x00"+box.name, 1, "links come and go",
				slog.String("peer", box.name), slog.String("addr", p.addr), slog.String("err", err.Error()))
			break
		}
		c.log.Info("link down", "peer", box.name, "addr", p.addr, "err", err, "after", time.Since(started).Round(time.Millisecond))
	}
	return err
}

// refused counts a message that the peer does not take, for good.
func (p *peerLink) refused(why error) {
	reason := "bad"
	var r *link.Refusal
	if errors.As(why, &r) {
		reason = r.Reason
	}
	p.c.drop("refused by the peer: "+word(reason), p.box.name, "", 1, slog.String("err", why.Error()))
}

// word is a reason that a peer gave, if it is one of those that there are.
func word(reason string) string {
	switch reason {
	case "full", "away", "type", "name", "size", "ignored", "stopped", "closed":
		return reason
	}
	return "bad"
}

// replace ends the link that the peer had until now and waits until it has
// given back what it had in hand, so that the order is kept. The newest
// connection of a name counts.
func (p *peerLink) replace(ctx context.Context) {
	for {
		old := p.box.current()
		if old == nil {
			return
		}
		if old.addr != p.addr {
			p.c.fold.Warn("replaced\x00"+p.box.name, 1, "link replaced", slog.String("peer", p.box.name), slog.String("addr", p.addr), slog.String("old", old.addr))
		}
		old.l.Close(errReplaced)
		select {
		case <-old.over:
		case <-ctx.Done():
			return
		}
	}
}

// attach makes p the link of its peer, unless another has become it meanwhile.
func (p *peerLink) attach() bool {
	b := p.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link != nil {
		return false
	}
	b.link = p
	return true
}

// arrive makes the peer count as connected, if p is its link still. To a client,
// a connection alone proves nothing: one that a server of another mode, or one
// that does not admit us, is about to end looks the same. What says something is
// the server.
func (p *peerLink) arrive() bool {
	b := p.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link != p {
		return false
	}
	p.there = true
	close(b.up)
	return true
}

// detach leaves the peer without a link. Its subscriptions end before another one
// may come, whose own they would else take along.
func (p *peerLink) detach() {
	b := p.box
	if p.c.publishing() {
		p.c.unsubscribed(b.name)
	}
	b.mu.Lock()
	b.link = nil
	if p.there {
		b.up = make(chan struct{})
	}
	b.mu.Unlock()
	close(p.over)
}

// forget drops a server's outbox for which there is nothing to remember.
func (c *Connector) forget(b *outbox) {
	if !c.server {
		return
	}
	_, logs := b.q.StatsAndLogs() // before they are closed
	var fileLogs []spool.Stats
	if files := b.waitingFiles(); files != nil {
		_, fileLogs = files.StatsAndLogs()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b.mu.Lock()
	unused := b.link == nil && b.held == 0 && c.boxes[b.name] == b
	if unused && b.files != nil {
		if unused, _ = b.files.CloseIfEmpty(); unused {
			c.diskBefore.add(fileLogs)
			c.diskBefore.bytes = 0 // as below
			b.files = nil
		}
	}
	b.mu.Unlock()
	if !unused {
		return
	}
	closed, again := b.q.CloseIfEmpty()
	if again > 0 && !b.asking { // it knows ids of messages, for a while
		b.asking = true
		time.AfterFunc(again, func() {
			c.mu.Lock()
			b.asking = false
			c.mu.Unlock()
			c.forget(b)
		})
	}
	if closed {
		c.sentBefore += b.q.Stats().Done
		c.diskBefore.add(logs)
		c.diskBefore.bytes = 0 // what is there now is not counted from before
		delete(c.boxes, b.name)
		c.real(b)
	}
}

// setActive notes in active_connectors.json, which the original's menu reads,
// that we run or have stopped.
func (c *Connector) setActive(running bool) {
	name := c.id
	if c.server {
		name = c.cfg.Load().ServerAddr.Line()
	}
	lock, err := durable.Lock(c.paths.ActiveList + ".lock")
	for i := 0; errors.Is(err, durable.ErrLocked) && i < 200; i++ { // another connector writes: a moment
		<-time.After(10 * time.Millisecond)
		lock, err = durable.Lock(c.paths.ActiveList + ".lock")
	}
	if err == nil {
		defer lock.Unlock()
	}
	var names []string
	if text, err := os.ReadFile(c.paths.ActiveList); err == nil {
		_ = json.Unmarshal(text, &names) // a damaged list is begun anew
	}
	names = slices.DeleteFunc(names, func(s string) bool { return s == name })
	if running {
		names = append(names, name)
	}
	text, err := json.Marshal(names)
	if err == nil {
		err = durable.WriteFile(c.paths.ActiveList, text, 0o644)
	}
	if err != nil {
		c.log.Warn("active_connectors.json not written", "err", err)
	}
}
