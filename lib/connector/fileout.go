package connector

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/queue"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// A message with a file waits in a queue of its own beside the peer's, so that
// a big file holds up no other message. One goroutine for each peer takes from
// it, as long as there is something: it brings the file over, and then puts the
// message into the peer's queue. Messages with files keep their order; others
// may pass them by.
//
// What is noted of such a message while it waits:
//
//	file_caller  [uid, gid...]  who named the file
//	file_id      hex digits     of the transfer, the same after a restart
//	file_copy    true           there is a copy of the file: see filepass.go
//	file_shared  hex digits     the same for all who get one file: see fileshare.go

const (
	embedMax = 256 << 10 // bytes of a file that goes inside its message

	// unsentMax is how much the kernel keeps of a link, on which a file is, that
	// is not sent yet. A message that comes waits behind it.
	unsentMax = 256 << 10

	// longWay is a round trip for which leastWindow is too little.
	longWay = 5 * time.Millisecond

	// fullPause is how long a file waits that the receiver has no room for.
	fullPause = 10 * time.Second
	// maxRestarts is how often a file is sent again that arrived damaged.
	maxRestarts = 3
)

// errLinkDown means that the link ended while a file was on its way.
var errLinkDown = errors.New("link down")

// callerOf is who may read what the program at the other end may read.
func callerOf(l local.Caller) transfer.Caller {
	c := transfer.Caller{UID: l.UID, GIDs: []int{l.GID}}
	if l.UID == 0 || l.UID == os.Geteuid() {
		return c
	}
	if u, err := user.LookupId(strconv.Itoa(l.UID)); err == nil {
		groups, _ := u.GroupIds() // without: fewer rights
		for _, g := range groups {
			if gid, err := strconv.Atoi(g); err == nil {
				c.GIDs = append(c.GIDs, gid)
			}
		}
	}
	return c
}

func newFileID() string {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// appendCaller appends a caller as a JSON array of numbers.
func appendCaller(dst []byte, c transfer.Caller) []byte {
	dst = strconv.AppendInt(append(dst, '['), int64(c.UID), 10)
	for _, g := range c.GIDs {
		dst = strconv.AppendInt(append(dst, ", "...), int64(g), 10)
	}
	return append(dst, ']')
}

// parseCaller reads what appendCaller wrote. What is no such array has no
// rights.
func parseCaller(array []byte) transfer.Caller {
	c := transfer.Caller{UID: -1}
	for i, text := range bytes.Split(bytes.Trim(array, "[] "), []byte(", ")) {
		n, err := strconv.Atoi(string(text))
		switch {
		case err != nil:
			return transfer.Caller{UID: -1}
		case i == 0:
			c.UID = n
		default:
			c.GIDs = append(c.GIDs, n)
		}
	}
	return c
}

// fileQueue returns the queue of messages with files.
func (c *Connector) fileQueue(b *outbox) *queue.Queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.files == nil {
		b.files, b.filesQuota = c.newQueue(b.name, c.spoolFiles(b.name))
	}
	return b.files
}

// waitingFiles returns that queue if there is one.
func (b *outbox) waitingFiles() *queue.Queue {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.files
}

// sendFiles sees to it that what waits in the queue of messages with files is
// sent, as long as the connector is not stopped.
func (c *Connector) sendFiles(b *outbox) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if s == nil || b.sending || b.files == nil {
		return
	}
	b.sending = true
	b.held++ // the peer's queue stays meanwhile
	s.all.Go(func() { c.fileLoop(s.pumped, b) })
}

// fileLoop sends the files for one peer until none waits.
func (c *Connector) fileLoop(ctx context.Context, b *outbox) {
	defer c.release(b)
	some := make(chan struct{}, 1)
	t := b.files.Taker(func() {
		select {
		case some <- struct{}{}:
		default:
		}
	}, nil)
	defer t.Close() // what was not sent goes back
	for {
		var batch wire.Batch
		t.Watch() // a put, or that all was discarded, ends the wait for the peer
		b.mu.Lock()
		// While the peer is away all wait in the queue, where a purge finds them.
		if up := b.up; b.link == nil && b.files.Len() > 0 && ctx.Err() == nil {
			b.mu.Unlock()
			select {
			case <-up:
			case <-some:
			case <-ctx.Done():
			}
			continue
		}
		n := t.Take(&batch, 1, 1)
		if n == 0 && b.files.Len() > 0 && ctx.Err() == nil { // on its way from, or to, the disk
			b.mu.Unlock()
			select {
			case <-some:
			case <-ctx.Done():
			}
			continue
		}
		if n == 0 || ctx.Err() != nil {
			b.sending = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		id, err := c.sendFile(ctx, b, batch.Spans[0])
		// What the peer has must not go again.
		if ctx.Err() != nil && err != nil && !errors.Is(err, queue.ErrPurged) {
			b.mu.Lock()
			b.sending = false
			b.mu.Unlock()
			return
		}
		t.DoneOne(t.Numbered(), err)
		c.letGo(id)
	}
}

// outgoing is a message with its file, on its way to a peer.
type outgoing struct {
	c      *Connector
	b      *outbox
	f      wire.Frame
	file   transfer.File
	caller transfer.Caller
	id     string
	header []byte // without what was noted
	held   bool   // src was open since the message came
	src    *transfer.Source
	sum    hash.Hash // of the first summed bytes
	summed int64

	mu      sync.Mutex // guards what follows
	changed chan struct{}
	started bool
	acked   int64
	done    bool
	refused *transfer.Error
	resting bool          // nothing is on its way: see rest
	purged  chan struct{} // closed when it was discarded meanwhile

	unstored *transfer.Error // it came with the message that put has sent
}

// sendFile brings one message with its file to the peer. It returns when the
// peer has taken it, with an error when it is not to be sent again, and the id of
// the file.
func (c *Connector) sendFile(ctx context.Context, b *outbox, frame []byte) (id string, err error) {
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return "", err
	}
	o := &outgoing{c: c, b: b, f: f, caller: parseCaller(f.Header.Field("file_caller")), changed: make(chan struct{}, 1), purged: make(chan struct{})}
	b.leaving.Store(o)
	defer b.leaving.Store(nil)
	o.id, _ = wire.Text(f.Header.Field("file_id"))
	o.file, err = transfer.Parse(f.Header.WithFile)
	o.header = wire.AppendEdited(nil, f.Header.Raw, wire.Edit{Key: "file_caller"}, wire.Edit{Key: "file_id"}, wire.Edit{Key: "file_copy"}, wire.Edit{Key: "file_shared"})
	if err == nil {
		err = o.open()
	}
	if o.src != nil {
		defer func() {
			if ctx.Err() != nil && o.held { // it may be the only way to the file
				c.held.back(o.id, o.src)
			} else {
				o.src.Close()
			}
		}()
	}
	if err == nil {
		err = o.deliver(ctx)
	}
	var failure *transfer.Error
	if errors.As(err, &failure) {
		// The program at the other end learns it.
		c.fileFailed("file not sent", err, b.name, about(f.Header))
		err = o.put(ctx, o.with(wire.Edit{Key: "file_error", Value: wire.AppendString(nil, failure.Text)}), nil)
	} else if failure = o.notStored(); err == nil && failure != nil {
		c.fileFailed("file not stored by the peer", failure, b.name, about(f.Header))
	}
	switch {
	case err != nil:
	case failure == nil && !o.file.Keep && o.last():
		if err := o.src.Remove(o.caller); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.fileFailed("file sent, but not removed", err, b.name, about(f.Header))
		}
	case failure != nil && f.Header.WaitForAck && !f.Header.AwaitResponse:
		err = &link.Refusal{Reason: "file", Text: "the peer has the message, but not its file: " + failure.Text}
	}
	return o.id, err
}

// last reports whether nobody else is to get the file.
func (o *outgoing) last() bool {
	return o.f.Header.Field("file_shared") == nil || o.c.shares.sent(o.id)
}

// notStored is why the peer has not stored the file that came with, or before,
// the message: nil if it has, or cannot tell.
func (o *outgoing) notStored() *transfer.Error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unstored
}

// open opens the file or its copy, or takes it as it was opened when the message
// came.
func (o *outgoing) open() (err error) {
	if o.src = o.c.held.take(o.id); o.src != nil {
		o.held = true
	} else if string(o.f.Header.Field("file_copy")) == "true" {
		o.src, err = o.c.copies.kept.Open(o.id, o.file.Source)
	} else {
		o.src, err = transfer.OpenSource(o.file.Source, o.caller)
	}
	if err != nil {
		o.src = nil
		return err
	}
	if most := o.c.cfg.Load().MaxFileSend; o.src.Size > most {
		return &transfer.Error{Reason: "size", Text: fmt.Sprintf("%s cannot send too large file of size %d", o.c.id, o.src.Size)}
	}
	return nil
}

// with returns with_file with edits. It always says where the file begins in
// the binary part: a Python receiver would guess wrong without.
func (o *outgoing) with(edits ...wire.Edit) []byte {
	own := strconv.Itoa(len(o.f.Binary))
	if o.file.Chunk != nil { // of a Python program, which does not pad
		edits = append(edits, wire.Edit{Key: "dst_name", Value: wire.AppendString(nil, o.file.Chunk.Name())})
	}
	return wire.AppendEdited(nil, o.f.Header.WithFile, append(edits, wire.Edit{Key: "binary_offset", Value: []byte(own)})...)
}

// deliver waits for the peer and sends it the file and the message.
func (o *outgoing) deliver(ctx context.Context) error {
	for {
		p, err := o.peer(ctx)
		if err != nil {
			return err
		}
		most := o.c.cfg.Load().MaxFileChunkSize
		switch {
		// One that is to be removed goes ahead even if it is small: it is
		// known then whether the other end has stored it.
		case p.chunks() && o.src.Size <= embedMax && o.file.Keep, !p.chunks() && o.src.Size <= min(embedMax, most):
			return o.embed(ctx, p)
		case !p.chunks():
			if err := o.pieces(ctx, p); !errors.Is(err, errLinkDown) {
				return err
			}
			continue
		}
		sum, err := o.transfer(ctx, p)
		if errors.Is(err, errLinkDown) {
			continue
		}
		if err != nil {
			return err
		}
		return o.put(ctx, o.with(o.sent(sum)), nil)
	}
}

// sent notes in with_file which file belongs to the message.
func (o *outgoing) sent(sum string) wire.Edit {
	return wire.Edit{Key: "transfer", Value: fmt.Appendf(nil, `["%s", %d, "%s"]`, o.id, o.src.Size, sum)}
}

// peer waits for a link of which it is known what the other end speaks.
func (o *outgoing) peer(ctx context.Context) (*peerLink, error) {
	for {
		if p := o.b.current(); p != nil {
			select {
			case <-p.known:
				return p, nil
			case <-p.over:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			continue
		}
		if err := o.rest(ctx, o.b.whenUp(), nil); err != nil {
			return nil, err
		}
	}
}

// rest waits until a or b is closed. Meanwhile the message can be discarded: it
// returns queue.ErrPurged then.
func (o *outgoing) rest(ctx context.Context, a, b <-chan struct{}) (err error) {
	o.mu.Lock()
	o.resting = true
	o.mu.Unlock()
	select {
	case <-a:
	case <-b:
	case <-o.purged:
	case <-ctx.Done():
		err = ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.resting = false
	if o.gone() {
		return queue.ErrPurged
	}
	return err
}

// gone reports whether the message was discarded. o.mu is held.
func (o *outgoing) gone() bool {
	select {
	case <-o.purged:
		return true
	default:
		return false
	}
}

// purge discards the message if it is one of those on disk and nothing of it is
// on its way, and reports whether it did.
func (o *outgoing) purge() bool {
	if !o.c.durableSend(string(o.f.Header.Type)) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.resting || o.gone() {
		return false
	}
	close(o.purged)
	return true
}

// embed sends a small file inside its message.
func (o *outgoing) embed(ctx context.Context, p *peerLink) error {
	content := make([]byte, o.src.Size)
	if err := o.readAt(content, 0); err != nil {
		return err
	}
	var edits []wire.Edit
	if p.chunks() {
		sum := sha256.Sum256(content)
		edits = append(edits, o.sent(hex.EncodeToString(sum[:])))
	}
	return o.put(ctx, o.with(edits...), content)
}

// pieces sends a file inside messages, as the original does: one, or several of
// max_size_chunk_upload bytes of which each has all else of the message too.
// The link reads the file while it writes.
func (o *outgoing) pieces(ctx context.Context, p *peerLink) error {
	most := o.c.cfg.Load().MaxFileChunkSize
	count := int((o.src.Size + most - 1) / most)
	p.sending.Store(o)
	defer p.sending.Store(nil)
	for i := range count {
		off := int64(i) * most
		withFile := o.with()
		if count > 1 {
			withFile = transfer.Piece(withFile, o.file.Name, i+1, count)
		}
		if err := o.whole(ctx, p, withFile, off, min(most, o.src.Size-off)); err != nil {
			return err
		}
	}
	return nil
}

// whole sends the message with n bytes of the file from off on, past the queue:
// so much is not copied into memory. It returns when the message was written,
// or acknowledged if its sender waits for that.
func (o *outgoing) whole(ctx context.Context, p *peerLink, withFile []byte, off, n int64) error {
	edits := []wire.Edit{{Key: "with_file", Value: withFile}, {Key: "with_binary", Value: []byte("true")}}
	acked := o.f.Header.WaitForAck || o.c.durableSend(string(o.f.Header.Type))
	if acked {
		edits = append(edits, wire.Edit{Key: "transport_id", Value: wire.AppendString(nil, o.id)})
	}
	head, err := wire.AppendOpenFrame(nil, wire.AppendEdited(nil, o.header, edits...), o.f.Data, o.f.Binary, n)
	if err != nil {
		return &link.Refusal{Reason: "size", Text: err.Error()}
	}
	o.mu.Lock()
	o.done = false
	o.mu.Unlock()
	r := &measured{r: io.NewSectionReader(o.src, off, n), o: o, off: off}
	t := &tail{r: r, n: n, head: head, written: make(chan struct{})}
	p.feed.pushTail(t)
	defer p.feed.idle()
	p.l.Wake()
	select {
	case <-t.written:
	case <-p.l.Done():
		if t.failed() {
			return &transfer.Error{Reason: "missing", Text: o.file.Source + ": it became shorter while it was sent"}
		}
		return errLinkDown
	case <-ctx.Done():
		return ctx.Err()
	}
	if !acked {
		return nil
	}
	return o.wait(ctx, p, func() bool { return o.done })
}

// measured tells how much of a file was read, which is the most that is known
// of its way to a Python connector.
type measured struct {
	r   io.Reader
	o   *outgoing
	off int64
}

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.off += int64(n)
	m.o.c.watching.tell(m.o.id, m.off, m.o.src.Size)
	return n, err
}

// wholeAcked handles the _ack of a message that whole has sent.
func (p *peerLink) wholeAcked(transportID []byte) {
	id, _ := wire.Text(transportID)
	if o := p.sending.Load(); o != nil && o.id == id {
		o.mu.Lock()
		o.done = true
		o.mu.Unlock()
		o.tell()
	}
}

// readAt fills b from the file.
func (o *outgoing) readAt(b []byte, off int64) error {
	n, err := o.src.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == io.EOF:
		return &transfer.Error{Reason: "missing", Text: o.file.Source + ": it became shorter while it was sent"}
	}
	return &transfer.Error{Reason: "disk", Text: fmt.Sprintf("%s: %v", o.file.Source, err)}
}

// put puts the message into the peer's queue, with content behind its binary
// part, and waits until the peer has taken it.
func (o *outgoing) put(ctx context.Context, withFile, content []byte) error {
	h := o.f.Header
	bin := append(o.f.Binary[:len(o.f.Binary):len(o.f.Binary)], content...)
	edits := []wire.Edit{{Key: "with_file", Value: withFile}}
	if len(bin) > 0 {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	} else {
		bin = nil
	}
	frame, err := wire.AppendFrame(nil, wire.AppendEdited(nil, o.header, edits...), o.f.Data, bin)
	if err != nil {
		return &link.Refusal{Reason: "size", Text: err.Error()}
	}
	typ := string(h.Type)
	var taken chan error
	var extra queue.Extra
	_, extra.Mortal = h.ExpiresAt()
	if o.c.durableSend(typ) {
		// It may be in both queues when the connector is killed now, also after
		// the file was removed.
		sum := sha256.Sum256([]byte(o.id))
		extra.ID = queue.ID(sum[:len(extra.ID)])
	}
	o.b.landing.Store(o) // the peer says before its _ack that it has not stored the file
	defer o.b.landing.Store(nil)
	for {
		told := make(chan error, 1) // what a commit that failed says is not said of the next attempt
		taken, extra.Round = told, 0
		extra.Note = &queue.Note{WaitForAck: h.WaitForAck, Done: func(err error) { told <- err }}
		_, err := o.b.q.PutExtra(typ, frame, &extra)
		if err == nil {
			err = o.b.q.CommitSince(queue.Written{Type: typ, Round: extra.Round})
		}
		if err == nil {
			break
		}
		if !errors.Is(err, queue.ErrFull) && !errors.Is(err, queue.ErrDisk) {
			return err
		}
		room := make(chan struct{})
		forget := o.b.q.OnRoom(typ, len(frame), func() { close(room) })
		if err := o.rest(ctx, room, nil); err != nil {
			forget()
			return err
		}
	}
	o.b.passed.Store(true)
	defer o.b.passed.Store(false)
	select {
	case err := <-taken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
