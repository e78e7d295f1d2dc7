package connector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"aioc/lib/access"
	"aioc/lib/broker"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// errNoSpace means that there is no space for a file, and that its sender can be
// told to wait.
var errNoSpace = errors.New("no space for a file")

// streamMin is from how many bytes on a frame with a file is not read whole
// before the file is written.
const streamMin = 1 << 20

// receiveFile stores the file that came with a message. It returns the header
// and the binary part for the program, which learns where the file is, or why
// it is not there: the message is delivered in any case. header is the message's
// own if it is nil. An error is one of the link.
func (p *peerLink) receiveFile(header []byte, f *wire.Frame) (edited, bin []byte, err error) {
	edited, bin, _, err = p.receive(header, f)
	return edited, bin, err
}

// receive is receiveFile, and also returns where the file is.
func (p *peerLink) receive(header []byte, f *wire.Frame) (edited, bin []byte, at landing, err error) {
	h := f.Header
	if header == nil {
		header = h.Raw
	}
	file, bad := transfer.Parse(h.WithFile)
	var content io.Reader
	size := int64(len(f.Binary))
	if f.Body == nil {
		n := file.OwnBytes(h, size)
		bin, content, size = f.Binary[:n:n], bytes.NewReader(f.Binary[n:]), size-n
	} else {
		size = f.Body.Len()
		n := file.OwnBytes(h, size)
		if n > p.c.cfg.Load().MaxMessageSize || !p.c.memory(int(n)) {
			return nil, nil, at, wire.ErrMemory
		}
		defer p.c.memory(-int(n))
		bin, content, size = make([]byte, n), f.Body, size-n
		if _, err := io.ReadFull(f.Body, bin); err != nil {
			return nil, nil, at, err
		}
	}
	failure := ""
	if bad == nil && file.Error == "" {
		at, bad = p.store(h, &file, content, size)
	}
	if errors.Is(bad, errEnding) {
		return nil, nil, at, bad // it comes again
	}
	if f.Body != nil && f.Body.Err() != nil {
		return nil, nil, at, f.Body.Err() // it comes again
	}
	if bad != nil && fileReason(bad) == "full" && file.Sent != nil && p.l.Flow() && string(h.Type) != wire.TypePubSub {
		return nil, nil, at, errNoSpace // it comes again
	}
	if bad != nil {
		failure = bad.Error()
		p.c.fileFailed("file not stored", bad, p.box.name, about(h))
		if file.Sent != nil {
			p.refuseFile(file.Sent.ID, bad) // before the message's _ack: its sender keeps the file
		}
	}
	edits := []wire.Edit{{Key: "with_file", Value: transfer.Note(h.WithFile, at.stored, failure)}}
	if len(bin) == 0 {
		bin = nil
		edits = append(edits, wire.Edit{Key: "with_binary"})
	}
	return wire.AppendEdited(nil, header, edits...), bin, at, nil
}

// fileFailed counts and logs a file that was not stored, or not sent. One that
// waits is not lost, and counts as an event.
func (c *Connector) fileFailed(what string, err error, peer, messageType string) {
	reason := fileReason(err)
	counts := &c.counts
	if strings.HasPrefix(what, "file waits") {
		counts = &c.events
	}
	counts.add(what+": "+reason, 1)
	c.fold.Warn(what+"\x00"+reason+"\x00"+peer, 1, what,
		slog.String("peer", peer), slog.String("type", messageType), slog.String("reason", reason), slog.String("err", err.Error()))
}

// about is the type of a message with a file as the log names it: that of a
// publication is its topic.
func about(h *wire.Header) string {
	if string(h.Type) == wire.TypePubSub {
		if topic, err := broker.Topic(h); err == nil {
			return topic
		}
	}
	return string(h.Type)
}

// fileReason is the word for an error with a file.
func fileReason(err error) string {
	var e *transfer.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return "bad"
}

// errEnding is that the connector stops while a hook thinks about a file: it is
// no answer, neither yes nor no.
var errEnding = errors.New("the connector stops")

// chooser returns how hook_target_directory is asked until ctx ends, nil if there
// is none.
func (c *Connector) chooser(ctx context.Context) func(f access.File) (string, error) {
	if c.hooks.TargetDirectory == nil {
		return nil
	}
	return func(f access.File) (string, error) {
		dir, err := c.hooks.TargetDirectory(ctx, f)
		switch {
		case err != nil && ctx.Err() != nil:
			err = errEnding
		case err != nil:
			err = &transfer.Error{Reason: "refused", Text: "the receiver does not want the file"}
		}
		return dir, err
	}
}

// landing is where the file of a message lands.
type landing struct {
	place  transfer.Place
	rules  transfer.Rules
	stored string // its full name; "" when it is not there, and of a chunk but the last
}

// landing says where the file of a message is to land.
func (p *peerLink) landing(h *wire.Header, file *transfer.File) (at landing, err error) {
	cfg := p.c.cfg.Load()
	t, ok := cfg.FileTargets[file.Type]
	if !ok {
		return at, &transfer.Error{Reason: "type", Text: "the receiver has no file_recv_config for the dst_type"}
	}
	if at.place, err = transfer.Find(t.Directory, h, file); err != nil {
		return at, err
	}
	dir, err := p.chosen(h, file)
	if err != nil {
		return at, err
	}
	if dir != "" {
		at.place = at.place.Below(dir)
	}
	at.rules = transfer.Rules{Owner: t.Owner, Override: t.Override, Max: cfg.MaxFileRecv}
	if at.rules.Mode, err = t.FileMode(); err != nil {
		return at, err
	}
	if t.AnyOwner && file.Owner != "" {
		at.rules.Owner = file.Owner
	}
	return at, nil
}

// chosen is the directory that hook_target_directory names, "" for that of the
// configuration. A file that comes ahead of its message comes with the same
// header twice: it is asked about once. What would be another question is asked.
func (p *peerLink) chosen(h *wire.Header, file *transfer.File) (dir string, err error) {
	if p.choose == nil {
		return "", nil
	}
	question := access.File{Type: file.Type, Name: file.Name, Message: string(h.Type), Source: p.box.name, Header: h.Raw}
	if file.Sent == nil {
		return p.choose(question)
	}
	header := wire.AppendEdited(nil, h.Raw,
		wire.Edit{Key: "with_file", Value: wire.AppendEdited(nil, h.WithFile, wire.Edit{Key: "transfer"})},
		wire.Edit{Key: "with_binary"}, wire.Edit{Key: "transport_id"})
	key := transfer.StageID(p.box.name, file.Sent.ID+"\x00"+string(header))
	if dir, ok := p.c.choices.get(key); ok {
		return dir, nil
	}
	if dir, err = p.choose(question); err == nil {
		p.c.choices.put(key, dir)
	}
	return dir, err
}

// opened counts and logs what a directory, which was used, has to say.
func (p *peerLink) opened(d *transfer.Dir) {
	if why := d.Unowned(); why != nil {
		p.c.counts.add("file without its owner", 1)
		p.c.fold.Warn("owner\x00"+why.Error(), 1, "file stored, but its owner is this connector's", slog.String("err", why.Error()))
	}
	if n := d.GaveWay(); n > 0 {
		p.c.counts.add("file not completed: gave way to another of its peer", n)
		p.c.fold.Warn("gave way\x00"+p.box.name, n, "files that were not completed gave way to others of the same peer",
			slog.String("peer", p.box.name))
	}
}

// store puts the file of a message in its place.
func (p *peerLink) store(h *wire.Header, file *transfer.File, content io.Reader, size int64) (at landing, err error) {
	c, peer := p.c, p.box.name
	key := ""
	if file.Sent != nil {
		// The message may come again, because there was no room for it, or because
		// of a crash.
		key = transfer.StageID(peer, file.Sent.ID)
		if at, ok := c.landed.get(key); ok {
			return at, nil
		}
	}
	if at, err = p.landing(h, file); err != nil {
		return at, err
	}
	place := at.place
	d, err := transfer.Open(place, at.rules)
	if err != nil {
		return at, err
	}
	defer d.Close()
	defer p.opened(d)
	land := func(s *transfer.Stage) (string, error) {
		if c := file.Chunk; c != nil {
			return s.Add(transfer.StageID(peer, place.Path()+"\x00"+string(h.RequestID)), c, place.Name)
		}
		return s.Land(place.Name)
	}
	if file.Sent == nil {
		if err := d.Vacant(place.Name); err != nil {
			return at, err
		}
		s, err := d.Create()
		if err != nil {
			return at, err
		}
		if _, err = io.Copy(s, content); err == nil {
			at.stored, err = land(s)
		}
		if err != nil {
			s.Discard()
		}
		return at, err
	}

	defer func() {
		if err == nil {
			c.landed.put(key, at)
		}
	}()
	var s *transfer.Stage
	s, err = d.Sealed(key)
	if err != nil && (size > 0 || file.Sent.Size == 0) { // with the message
		if size != file.Sent.Size {
			return at, &transfer.Error{Reason: "digest", Text: "the file is not as long as its sender said"}
		}
		if s, err = d.Create(); err != nil {
			return at, err
		}
		sum := sha256.New()
		if _, err = io.Copy(s, io.TeeReader(content, sum)); err == nil && hex.EncodeToString(sum.Sum(nil)) != file.Sent.Sum {
			err = &transfer.Error{Reason: "digest", Text: "the file has another sum than its sender said"}
		}
	} else if err == nil && s.Offset() != file.Sent.Size {
		err = &transfer.Error{Reason: "digest", Text: "the file is not as long as its sender said"}
	}
	if s != nil && err == nil {
		at.stored, err = land(s)
	}
	if err != nil && s != nil {
		s.Discard()
	}
	if err != nil && file.Chunk == nil && d.Has(place.Name, file.Sent.Size, file.Sent.Sum) {
		at.stored, err = place.Path(), nil
	}
	return at, err
}

// maxMemo is how many values a memo has.
const maxMemo = 4096

// memo remembers what was put last, of files that may come again.
type memo[V any] struct {
	mu     sync.Mutex
	values map[string]V
	ring   []string // the keys, oldest at next
	next   int
}

func (m *memo[V]) get(key string) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.values[key]
	return v, ok
}

func (m *memo[V]) put(key string, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = map[string]V{}
	}
	if _, known := m.values[key]; !known {
		if len(m.ring) < maxMemo {
			m.ring = append(m.ring, key)
		} else {
			delete(m.values, m.ring[m.next])
			m.ring[m.next] = key
			m.next = (m.next + 1) % maxMemo
		}
	}
	m.values[key] = v
}

// sweepEvery is how often files that were not completed are looked for.
const sweepEvery = 6 * time.Hour

// sweepFiles removes what was left of files that were not completed, now and
// then, until ctx ends.
func (c *Connector) sweepFiles(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		for _, t := range c.cfg.Load().FileTargets {
			if n := transfer.Sweep(t.Directory, time.Now()); n > 0 {
				c.counts.add("file not completed: removed", n)
				c.log.Info("files that were not completed were removed", "n", n)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
