package chat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"aioc/lib/wire"
)

// To an original a file goes in one message, or, where it would be too big to
// hold in memory, in chunks as its own API cuts them.
const (
	wholeMax  = 16 << 20
	chunkSize = 4 << 20
)

// errCancelled is the end of an upload that the user gave up.
var errCancelled = errors.New("cancelled")

// upload is a file or directory on its way to the other end.
type upload struct {
	s      *session
	id     uint64
	path   string      // as it was written
	done   func(error) // called once
	ctx    context.Context
	cancel context.CancelCauseFunc
	result chan error    // what the other end says
	stored string        // where it is there, if result is nil
	other  bool          // what it is called on its way is not its name
	moved  chan struct{} // a piece has arrived

	shown *transfer // guarded by session.mu; nil until the size is known
}

// upload queues a file or directory. done is told how it ended, not by the main
// loop.
func (s *session) upload(path string, done func(error)) {
	u := &upload{s: s, path: path, done: done, result: make(chan error, 1), moved: make(chan struct{}, 1)}
	u.ctx, u.cancel = context.WithCancelCause(s.ctx)
	s.mu.Lock()
	s.nextID++
	u.id = s.nextID
	s.uploads = append(s.uploads, u)
	first := len(s.uploads) == 1
	s.mu.Unlock()
	s.c.busy()
	if first {
		s.c.side.Go(s.send)
	}
}

// send sends what is queued, one after the other.
func (s *session) send() {
	for {
		s.mu.Lock()
		if len(s.uploads) == 0 {
			s.mu.Unlock()
			return
		}
		u := s.uploads[0]
		s.mu.Unlock()
		err := u.run()
		u.cancel(nil)
		s.mu.Lock()
		s.uploads = s.uploads[1:]
		s.mu.Unlock()
		u.done(err)
	}
}

// transferring returns what is being sent and received, for people to see.
func (s *session) transferring() (list []*transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.uploads) > 0 {
		if t := s.uploads[0].shown; t != nil {
			list = append(list, t)
		}
	}
	if s.incoming != nil {
		list = append(list, s.incoming)
	}
	return list
}

// sending tells whether something is being sent, or prepared for it.
func (s *session) sending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.uploads) > 0
}

// giveUp cancels all transfers and reports whether there were any that had not
// been.
func (s *session) giveUp() (some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.uploads {
		some = some || u.ctx.Err() == nil
		u.cancel(errCancelled)
	}
	some = some || s.incoming != nil && !s.give
	s.give = true
	return some
}

// run sends one file, and returns when the other end has it.
func (u *upload) run() error {
	f, name, size, err := u.open()
	if err != nil {
		return u.explain(err)
	}
	defer f.Close()
	t := newTransfer(name, size, true)
	u.s.mu.Lock()
	u.shown = t
	u.s.mu.Unlock()
	if u.s.isNative() {
		err = u.native(f, name, size, t)
	} else {
		err = u.original(f, name, size, t)
	}
	if err != nil {
		return u.explain(err)
	}
	switch {
	case !u.s.isNative():
		u.s.c.ui.note("sent %s (%s%s); this end cannot know whether it is stored there", name, bytesText(size), t.took())
	case u.other || filepath.Base(u.stored) != name:
		u.s.c.ui.note("sent %s (%s%s), stored there as %s", name, bytesText(size), t.took(), u.stored)
	default:
		u.s.c.ui.note("sent %s (%s%s)", name, bytesText(size), t.took())
	}
	return nil
}

// explain finds the reason in an error of run.
func (u *upload) explain(err error) error {
	if cause := context.Cause(u.ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
		if u.s.ctx.Err() != nil {
			err = u.s.why()
		}
	}
	return fmt.Errorf("%s is not sent: %w", clip(u.path, 200), err)
}

// open opens what is to be sent; of a directory that is an archive.
func (u *upload) open() (f *os.File, name string, size int64, err error) {
	path := u.s.c.below(u.path) // "." has a name then
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", 0, bare(err)
	}
	name = strings.ToValidUTF8(filepath.Base(path), "_")
	u.other = name != filepath.Base(path)
	switch {
	case info.IsDir():
		if name == "/" {
			name = "root"
		}
		name += ".zip"
		u.s.c.ui.note("making an archive of %s", u.path)
		var left int
		if f, left, err = pack(u.ctx, path); err != nil {
			return nil, "", 0, err
		}
		if left > 0 {
			u.s.c.ui.note("%d symbolic links or special files in %s are left out", left, u.path)
		}
	case !info.Mode().IsRegular():
		return nil, "", 0, errors.New("neither a file nor a directory")
	default:
		if f, err = os.Open(path); err != nil {
			return nil, "", 0, bare(err)
		}
	}
	if info, err = f.Stat(); err != nil {
		f.Close()
		return nil, "", 0, err
	}
	return f, name, info.Size(), nil
}

// bare takes the path from an error of package os: ours has it already.
func bare(err error) error {
	if e := (*os.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// native sends to a chat of this family.
func (u *upload) native(f *os.File, name string, size int64, t *transfer) error {
	u.s.tell(opFile, u.id, offer{Name: name, Size: size})
	err := u.pieces(f, size, t)
	if err == nil {
		select {
		case err = <-u.result:
			return err
		case <-u.ctx.Done():
			err = u.ctx.Err()
		}
	}
	u.s.out.drop(u)
	var stop *stopError
	if !errors.As(err, &stop) && u.s.ctx.Err() == nil {
		why := err
		if cause := context.Cause(u.ctx); cause != nil {
			why = cause
		}
		u.s.tell(opQuit, u.id, stopped{Text: plainError(why) + " by the sender"})
	}
	return err
}

// room waits until little enough of what was sent has not arrived, and returns
// how much may follow in one piece.
func (u *upload) room(t *transfer, sent int64) (piece int64, err error) {
	early := func(err error) error {
		if err == nil {
			err = errors.New("the other end says that it has it, before it has come")
		}
		return err
	}
	for {
		select {
		case err := <-u.result: // it is not wanted
			return 0, early(err)
		default:
		}
		done := t.done.Load()
		rate := float64(done) / max(time.Since(t.began).Seconds(), 1e-3)
		window := max(int64(rate*ahead.Seconds()), windowMin)
		if sent-done < window {
			return min(window/4, pieceSize), nil
		}
		select {
		case <-u.moved:
		case err := <-u.result:
			return 0, early(err)
		case <-u.ctx.Done():
			return 0, u.ctx.Err()
		}
	}
}

// pieces sends the content.
func (u *upload) pieces(f *os.File, size int64, t *transfer) error {
	sum := sha256.New()
	buf := make([]byte, pieceSize)
	for rest := size; rest > 0; {
		piece, err := u.room(t, size-rest)
		if err != nil {
			return err
		}
		n, err := io.ReadFull(f, buf[:min(rest, piece)])
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errors.New("it became shorter while it was read")
			}
			return bare(err)
		}
		rest -= int64(n)
		sum.Write(buf[:n])
		it := item{frame: u.s.op(opPiece, u.id, buf[:n]), owner: u, done: func(err error) {
			if err == nil {
				t.done.Add(int64(n))
				select {
				case u.moved <- struct{}{}:
				default:
				}
			}
		}}
		if err := u.s.out.putLow(u.ctx, it); err != nil {
			return err
		}
	}
	end, _ := json.Marshal(whole{SHA256: hex.EncodeToString(sum.Sum(nil))})
	return u.s.out.putLow(u.ctx, item{frame: u.s.op(opEnd, u.id, end), owner: u})
}

// find returns the upload that is being sent, if it has that number.
func (s *session) find(id uint64) *upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.uploads) > 0 && s.uploads[0].id == id {
		return s.uploads[0]
	}
	return nil
}

// got is told that the other end has stored a file.
func (s *session) got(id uint64, name string) {
	if u := s.find(id); u != nil {
		u.stored = name
		u.answer(nil)
	}
}

// stopped is told that it has not.
func (s *session) stopped(id uint64, data []byte) {
	var w stopped
	_ = json.Unmarshal(data, &w) // without its reason then
	if u := s.find(id); u != nil {
		u.answer(&stopError{w})
	}
}

// answer hands over the first word of the other end.
func (u *upload) answer(err error) {
	select {
	case u.result <- err:
	default:
	}
}

// original sends as the original's chat does. The last word on each message is
// its response, which says that it was read, not that anything was stored.
func (u *upload) original(f *os.File, name string, size int64, t *transfer) error {
	part, count := size, int64(1)
	if size > wholeMax {
		part = chunkSize
		count = (size + part - 1) / part
	}
	ids := rand.Int64N(1 << 30)
	var answers []chan struct{}
	defer func() { u.s.forget(ids, len(answers)) }()
	for i := range count {
		content := make([]byte, min(part, size-i*part))
		if _, err := io.ReadFull(f, content); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return errors.New("it became shorter while it was read")
			}
			return bare(err)
		}
		w := withFile{SrcPath: name, DstType: messageType, DstName: name}
		text := ""
		if i == 0 && !u.s.c.uploading {
			text = "Receiving " + name
		}
		if count > 1 {
			// With zeros before it: an original puts chunks together in the
			// order of their names.
			w.Chunked = []any{name + chunkMark, i + 1, count}
			w.DstName = fmt.Sprintf("%s%s_%0*d_%d", name, chunkMark, len(strconv.FormatInt(count, 10)), i+1, count)
			w.SrcPath = w.DstName
		}
		frame, answer, err := u.message(ids+i, text, w, content)
		if err != nil {
			return err
		}
		answers = append(answers, answer)
		it := item{frame: frame, owner: u, done: func(err error) {
			if err == nil {
				t.done.Add(int64(len(content)))
			}
		}}
		if err := u.s.out.putLow(u.ctx, it); err != nil {
			return err
		}
	}
	u.s.owed.Add(1)
	defer u.s.owed.Add(-1)
	for _, answer := range answers {
		select {
		case <-answer:
		case <-u.ctx.Done():
			u.s.out.drop(u)
			return u.ctx.Err()
		}
	}
	return nil
}

// message makes one message of an upload, and the channel that its response
// closes.
func (u *upload) message(id int64, text string, w withFile, content []byte) ([]byte, chan struct{}, error) {
	file, err := json.Marshal(w)
	if err != nil {
		return nil, nil, err
	}
	number := strconv.AppendInt(nil, id, 10)
	edits := []wire.Edit{
		{Key: "request_id", Value: number},
		{Key: "await_response", Value: []byte("true")},
		{Key: "with_file", Value: file},
	}
	if len(content) > 0 {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	} else {
		content = nil
	}
	frame, err := u.s.frame([]byte(text), content, edits...)
	if err != nil {
		return nil, nil, err
	}
	answer := make(chan struct{})
	u.s.mu.Lock()
	u.s.waiting[string(number)] = answer
	u.s.mu.Unlock()
	return frame, answer, nil
}

// forget waits for no more responses to n messages from id on.
func (s *session) forget(id int64, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range int64(n) {
		delete(s.waiting, strconv.FormatInt(id+i, 10))
	}
}
