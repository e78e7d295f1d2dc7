package connector

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"aioc/lib/access"
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

// receive is receiveFile, and also returns where the file is, "" when it is not
// there, or not yet.
func (p *peerLink) receive(header []byte, f *wire.Frame) (edited, bin []byte, stored string, err error) {
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
			return nil, nil, "", wire.ErrMemory
		}
		defer p.c.memory(-int(n))
		bin, content, size = make([]byte, n), f.Body, size-n
		if _, err := io.ReadFull(f.Body, bin); err != nil {
			return nil, nil, "", err
		}
	}
	failure := ""
	if bad == nil && file.Error == "" {
		stored, bad = p.store(h, &file, content, size)
	}
	if errors.Is(bad, errEnding) {
		return nil, nil, "", bad // it comes again
	}
	if f.Body != nil && f.Body.Err() != nil {
		return nil, nil, "", f.Body.Err() // it comes again
	}
	if bad != nil && fileReason(bad) == "full" && file.Sent != nil && p.l.Flow() && string(h.Type) != wire.TypePubSub {
		return nil, nil, "", errNoSpace // it comes again
	}
	if bad != nil {
		failure = bad.Error()
		p.c.fileFailed("file not stored", bad, p.box.name, string(h.Type))
		if file.Sent != nil {
			p.refuseFile(file.Sent.ID, bad) // before the message's _ack: its sender keeps the file
		}
	}
	edits := []wire.Edit{{Key: "with_file", Value: transfer.Note(h.WithFile, stored, failure)}}
	if len(bin) == 0 {
		bin = nil
		edits = append(edits, wire.Edit{Key: "with_binary"})
	}
	return wire.AppendEdited(nil, header, edits...), bin, stored, nil
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

// target opens the directory in which the file of a message lands.
func (p *peerLink) target(h *wire.Header, file *transfer.File) (*transfer.Dir, transfer.Place, error) {
	cfg := p.c.cfg.Load()
	t, ok := cfg.FileTargets[file.Type]
	if !ok {
		return nil, transfer.Place{}, &transfer.Error{Reason: "type", Text: "the receiver has no file_recv_config for the dst_type"}
	}
	place, err := transfer.Find(t.Directory, h, file)
	if err != nil {
		return nil, place, err
	}
	if p.choose != nil {
		dir, err := p.choose(access.File{
			Type: file.Type, Name: file.Name, Message: string(h.Type), Source: p.box.name, Header: h.Raw})
		if err != nil {
			return nil, place, err
		}
		if dir != "" {
			place = place.Below(dir)
		}
	}
	rules := transfer.Rules{Owner: t.Owner, Override: t.Override, Max: cfg.MaxFileRecv}
	if rules.Mode, err = t.FileMode(); err != nil {
		return nil, place, err
	}
	if t.AnyOwner && file.Owner != "" {
		rules.Owner = file.Owner
	}
	d, err := transfer.Open(place, rules)
	if err != nil {
		return nil, place, err
	}
	if err := d.Vacant(place.Name); err != nil && file.Sent == nil {
		d.Close()
		return nil, place, err
	}
	return d, place, nil
}

// store puts the file of a message in its place and returns its name; "" for a
// chunk that is not the last.
func (p *peerLink) store(h *wire.Header, file *transfer.File, content io.Reader, size int64) (stored string, err error) {
	c, peer := p.c, p.box.name
	d, place, err := p.target(h, file)
	if err != nil {
		return "", err
	}
	defer d.Close()
	defer func() {
		if why := d.Unowned(); why != nil {
			c.counts.add("file without its owner", 1)
			c.fold.Warn("owner\x00"+why.Error(), 1, "file stored, but its owner is this connector's", slog.String("err", why.Error()))
		}
	}()
	land := func(s *transfer.Stage) (string, error) {
		if c := file.Chunk; c != nil {
			return s.Add(transfer.StageID(peer, place.Path()+"\x00"+string(h.RequestID)), c, place.Name)
		}
		return s.Land(place.Name)
	}
	if file.Sent == nil {
		s, err := d.Create()
		if err != nil {
			return "", err
		}
		if _, err = io.Copy(s, content); err == nil {
			stored, err = land(s)
		}
		if err != nil {
			s.Discard()
		}
		return stored, err
	}

	// The message may come again, because there was no room for it, or because
	// of a crash.
	key := transfer.StageID(peer, file.Sent.ID)
	if stored, ok := c.landed.get(key); ok {
		return stored, nil
	}
	defer func() {
		if err == nil {
			c.landed.put(key, stored)
		}
	}()
	var s *transfer.Stage
	s, err = d.Sealed(key)
	if err != nil && (size > 0 || file.Sent.Size == 0) { // with the message
		if size != file.Sent.Size {
			return "", &transfer.Error{Reason: "digest", Text: "the file is not as long as its sender said"}
		}
		if s, err = d.Create(); err != nil {
			return "", err
		}
		_, err = io.Copy(s, content)
	} else if err == nil && s.Offset() != file.Sent.Size {
		err = &transfer.Error{Reason: "digest", Text: "the file is not as long as its sender said"}
	}
	if s != nil && err == nil {
		stored, err = land(s)
	}
	if err != nil && s != nil {
		s.Discard()
	}
	if err != nil && file.Chunk == nil && d.Has(place.Name, file.Sent.Size, file.Sent.Sum) {
		return place.Path(), nil
	}
	return stored, err
}

// maxLanded is how many files that landed are remembered.
const maxLanded = 4096

// landed remembers where files landed, for messages that come again.
type landed struct {
	mu   sync.Mutex
	path map[string]string
	ring []string // the keys, oldest at next
	next int
}

func (l *landed) get(key string) (path string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	path, ok = l.path[key]
	return path, ok
}

func (l *landed) put(key, path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == nil {
		l.path = map[string]string{}
	}
	if _, known := l.path[key]; !known {
		if len(l.ring) < maxLanded {
			l.ring = append(l.ring, key)
		} else {
			delete(l.path, l.ring[l.next])
			l.ring[l.next] = key
			l.next = (l.next + 1) % maxLanded
		}
	}
	l.path[key] = path
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
