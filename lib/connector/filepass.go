package connector

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"syscall"
	"time"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/spool"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// A program of ours passes the file that its message names, open. So the
// connector need not be able to open it itself: it may run as a user of its own
// and see no home directories. What the header says of that:
//
//	file_passed    the number of the file among those passed on the connection
//	file_progress  true: the program is to be told how far the file is
//
// The file is held open while its message waits. One that could not be opened
// again by its name, after a restart, is copied beside the spool if its type is
// durable, before the message counts as taken; then file_copy is noted.

const (
	// maxPassing bounds the files that were passed and that no message has
	// named yet. Users who may only send have half of that together, and each
	// an eighth.
	maxPassing = 512

	// progressEvery is how often a program is told how far its file is.
	progressEvery = 200 * time.Millisecond
)

// passing counts the files that were passed and that no message has named yet.
type passing struct {
	mu        sync.Mutex
	all       int
	strangers int
	byUID     map[int]int // of those
}

// account returns how a connection of a caller counts: see local.NewIncoming.
func (p *passing) account(caller local.Caller) func(delta int) bool {
	return func(delta int) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		stranger := !caller.Trusted()
		if delta >= 0 && (p.all >= maxPassing || stranger && (p.strangers >= maxPassing/2 || p.byUID[caller.UID] >= maxPassing/8)) {
			return false
		}
		p.all += delta
		if stranger && delta != 0 {
			p.strangers += delta
			if p.byUID == nil {
				p.byUID = map[int]int{}
			}
			if p.byUID[caller.UID] += delta; p.byUID[caller.UID] == 0 {
				delete(p.byUID, caller.UID)
			}
		}
		return true
	}
}

// admitted is the file of a message that was let in.
type admitted struct {
	file   transfer.File
	caller transfer.Caller
	src    *transfer.Source // nil: a Python program's, which cannot be opened
	// It was passed, and cannot be opened again by its name.
	loose  bool
	shared string // what its messages have in common: see shares
}

// close closes the file if it is still here.
func (a *admitted) close() {
	if a.src != nil {
		a.src.Close()
		a.src = nil
	}
}

// edits note in a header what belongs to the file.
func (a *admitted) edits(id string, copied bool) []wire.Edit {
	e := []wire.Edit{
		{Key: "file_passed"}, {Key: "file_progress"}, {Key: "file_copy"}, {Key: "file_shared"},
		{Key: "file_caller", Value: appendCaller(nil, a.caller)},
		{Key: "file_id", Value: wire.AppendString(nil, id)},
	}
	if copied {
		e[2].Value = []byte("true")
	}
	if a.shared != "" {
		e[3].Value = wire.AppendString(nil, a.shared)
	}
	return e
}

// admitFile opens the file that a message names, with the rights of the
// program, or takes it as the program has passed it. One that cannot be opened
// is refused where the program is told so; a Python program's message goes
// without it, as with the original.
func (in *intake) admitFile(h *wire.Header) (a admitted, why *link.Refusal) {
	refuse := func(reason, text string) (admitted, *link.Refusal) {
		a.close()
		return a, &link.Refusal{Reason: reason, Text: text}
	}
	var err error
	if a.file, err = transfer.Parse(h.WithFile); err != nil {
		return refuse("bad", err.Error())
	}
	a.caller = callerOf(in.caller)
	number, err := passedNumber(h)
	passed := err == nil && number > 0 && in.passed != nil
	switch {
	case err != nil:
		return refuse("bad", err.Error())
	case passed:
		f, err := in.passed.Claim(number)
		if errors.Is(err, syscall.EMFILE) {
			in.c.counts.add("file refused: too many passed", 1)
			return refuse("full", a.file.Source+": the connector has too many files open: try again")
		}
		if err != nil {
			return refuse("bad", a.file.Source+": "+err.Error())
		}
		if a.src, err = transfer.PassedSource(f, a.file.Source, a.caller); err != nil {
			a.src = nil
			in.passed.Discard(f)
			return refuse(refusalOf(err), err.Error())
		}
		in.passed.Taken()
	default:
		a.src, err = transfer.OpenSource(a.file.Source, a.caller)
		if err != nil {
			a.src = nil
			if in.native {
				return refuse(refusalOf(err), err.Error())
			}
			return a, nil
		}
	}
	if most := in.c.cfg.Load().MaxFileSend; a.src.Size > most {
		text := fmt.Sprintf("%s: %d bytes, at most %d can be sent (max_size_file_upload_send)", a.file.Source, a.src.Size, most)
		if in.native {
			return refuse("bad", text)
		}
		a.close()
		return a, nil
	}
	if passed {
		// The program can remove it when this process cannot: it may see
		// directories that are closed to us.
		if err := a.src.Removable(a.caller); err != nil && !a.file.Keep {
			return refuse("keep", fmt.Sprintf("%s: the connector cannot remove it: %v", a.file.Source, err))
		}
		a.loose = !a.src.Again(a.caller)
	}
	return a, nil
}

// refusalOf is the word for a file that is not taken from a program.
func refusalOf(err error) string {
	if fileReason(err) == "permission" {
		return "permission"
	}
	return "bad"
}

// passedNumber is the file_passed of a header, 0 without.
func passedNumber(h *wire.Header) (uint64, error) {
	text := h.Field("file_passed")
	if text == nil {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n == 0 {
		return 0, errors.New("file_passed is not a number from 1")
	}
	return n, nil
}

// holdFile keeps the file open under the id, or a copy of it if it would be lost
// otherwise. What can be opened again need not be held when too many are.
func (in *intake) holdFile(id string, a *admitted, b *outbox, durable bool) (copied bool, why *link.Refusal) {
	if a.src == nil {
		return false, nil
	}
	if a.loose && durable {
		if !a.file.Keep { // what is sent is the copy
			a.close()
			return false, &link.Refusal{Reason: "keep", Text: a.file.Source + ": the connector cannot open it by its name, and does not remove it"}
		}
		err := in.copyFile(id, a, b)
		a.close()
		if err == nil {
			return true, nil
		}
		var told *link.Refusal
		if !errors.As(err, &told) {
			told = &link.Refusal{Reason: "full", Text: "the connector cannot keep a copy of " + a.file.Source + " now: " + diskReason(err)}
			in.c.fold.Warn("copy\x00"+b.name, 1, "file of a message cannot be copied", slog.String("peer", b.name), slog.String("err", err.Error()))
		}
		in.c.counts.add("file refused: no copy: "+told.Reason, 1)
		return false, told
	}
	if in.c.held.add(id, a.src, in.caller) {
		a.src = nil
		return false, nil
	}
	a.close()
	if a.loose {
		in.c.counts.add("file refused: too many wait", 1)
		return false, &link.Refusal{Reason: "full", Text: a.file.Source + ": too many files wait to be sent: try again later"}
	}
	return false, nil
}

// copyFile makes a copy of the file, which counts as what waits for the peer
// does. It ends early when the program leaves.
func (in *intake) copyFile(id string, a *admitted, b *outbox) error {
	quota := in.c.quotaOf(b)
	if most := quota.Limit(); most > 0 && a.src.Size > most {
		return &link.Refusal{Reason: "bad", Text: fmt.Sprintf("%s: the connector cannot open it by its name, and a copy of %d bytes is more than may be kept (max_size_persistence_path is %d): let the connector's user read it",
			a.file.Source, a.src.Size, most)}
	}
	if err := quota.Take(a.src.Size); err != nil {
		return noRoom(a, b, err)
	}
	if err := in.commit(); err != nil { // what came before need not wait for it
		quota.Add(-a.src.Size)
		return err
	}
	looked := time.Now()
	err := in.c.copies.kept.Add(id, a.src, func() error {
		switch {
		case in.ctx.Err() != nil:
			return &link.Refusal{Reason: "stopped", Text: "the connector is stopped"}
		case time.Since(looked) > lookEvery:
			looked = time.Now()
			if hungUp(in.conn) {
				return &link.Refusal{Reason: "closed", Text: "connection closed"}
			}
		}
		return nil
	})
	if err != nil {
		quota.Add(-a.src.Size)
		var failure *transfer.Error
		if errors.As(err, &failure) {
			err = &link.Refusal{Reason: "bad", Text: failure.Text}
		}
		return err
	}
	in.c.copies.add(id, a.src.Size, quota)
	return nil
}

// noRoom says that a copy would be more than may be kept, and err which bound.
func noRoom(a *admitted, b *outbox, err error) *link.Refusal {
	text := "what waits for " + b.name + " is as much as may be kept (max_size_persistence_path)"
	if !errors.Is(err, spool.ErrFull) {
		text = "what waits for all is as much as the disk may hold (" + diskReason(err) + ")"
	}
	return &link.Refusal{Reason: "full", Text: a.file.Source + ": " + text + ", and a copy of the file has no room: try again later"}
}

// copyAgain makes the copy id also that of another peer's message.
func (c *Connector) copyAgain(id, other string, a *admitted, b *outbox) *link.Refusal {
	quota := c.quotaOf(b)
	if err := quota.Take(a.src.Size); err != nil {
		return noRoom(a, b, err)
	}
	if err := c.copies.kept.Link(id, other); err != nil {
		quota.Add(-a.src.Size)
		return &link.Refusal{Reason: "full", Text: "the connector cannot keep a copy of " + a.file.Source + " now: " + diskReason(err)}
	}
	c.copies.add(other, a.src.Size, quota)
	return nil
}

// quotaOf returns what bounds the messages with files for a peer, on disk.
func (c *Connector) quotaOf(b *outbox) *spool.Quota {
	c.fileQueue(b)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.filesQuota
}

// maxWatched is how many files of one connection are watched.
const maxWatched = 1024

// watched are the files whose programs are told how far they are. A message may
// wait for days: when its program has left, nothing of it is kept.
type watched struct {
	mu sync.Mutex
	m  map[string]*watch // by file_id
	of map[*link.Link]map[string]struct{}
}

type watch struct {
	l      *link.Link
	number uint64 // file_passed
	at     time.Time
}

// add notes that the program at the other end of l wants to know of a file.
func (w *watched) add(id string, l *link.Link, number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.of[l]) >= maxWatched {
		return
	}
	if w.m == nil {
		w.m = map[string]*watch{}
		w.of = map[*link.Link]map[string]struct{}{}
	}
	if w.of[l] == nil {
		w.of[l] = map[string]struct{}{}
	}
	w.m[id] = &watch{l: l, number: number}
	w.of[l][id] = struct{}{}
}

func (w *watched) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := w.m[id]
	if one == nil {
		return
	}
	delete(w.m, id)
	if delete(w.of[one.l], id); len(w.of[one.l]) == 0 {
		delete(w.of, one.l)
	}
}

// gone forgets what the program at the other end of l, which has left, wanted to
// know.
func (w *watched) gone(l *link.Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.of[l] {
		delete(w.m, id)
	}
	delete(w.of, l)
}

// tell says how far a file is, if somebody wants to know, and was not told a
// moment ago.
func (w *watched) tell(id string, off, size int64) {
	w.mu.Lock()
	one := w.m[id]
	if one != nil {
		if now := time.Now(); off < size && now.Sub(one.at) < progressEvery {
			one = nil
		} else {
			one.at = now
		}
	}
	w.mu.Unlock()
	if one == nil {
		return
	}
	// Who has left does not want to know any more, nor who reads nothing.
	_ = one.l.SendRaw(wire.AppendEdited(nil, []byte("{}"), []wire.Edit{
		{Key: "message_type", Value: []byte(`"` + wire.TypeFileAck + `"`)},
		{Key: "file", Value: strconv.AppendUint(nil, one.number, 10)},
		{Key: "offset", Value: strconv.AppendInt(nil, off, 10)},
		{Key: "size", Value: strconv.AppendInt(nil, size, 10)},
	}...), nil, nil)
}

// watchFile notes that the program wants to know how far the file of a message
// is, and returns what tells it that the message was taken; or nil.
func (in *intake) watchFile(id string, h *wire.Header, size int64) func() {
	number, err := passedNumber(h)
	if err != nil || number == 0 || !in.native || string(h.Field("file_progress")) != "true" {
		return nil
	}
	in.c.watching.add(id, in.l, number)
	return func() { in.c.watching.tell(id, 0, size) }
}
