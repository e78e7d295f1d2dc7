package chat

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"aioc/lib/cli"
	"aioc/lib/wire"
)

// offer is the data of opFile.
type offer struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// whole is the data of opEnd.
type whole struct {
	SHA256 string `json:"sha256"`
}

// stopped is the data of opStop and opQuit.
type stopped struct {
	Text string `json:"text"`
	Full bool   `json:"full,omitempty"` // the receiver's disk: it may help to try again
}

// stopError is why a file did not arrive.
type stopError struct{ stopped }

func (e *stopError) Error() string { return "the other end: " + safe(clip(e.Text, 300)) }

// receiving is the file that is coming in. It is owned by the reader.
type receiving struct {
	*landing
	id    uint64
	size  int64 // -1 when nobody has said it
	shown *transfer

	// From an original that sends in chunks.
	chunk, chunks int
}

// discard gives the file up.
func (r *receiving) discard() { r.landing.discard() }

// begin opens the file name, in a directory named as the caller on the end that
// was called, as the original has it.
func (s *session) begin(id uint64, name string, size int64) (*receiving, error) {
	plain, err := plainName(name)
	if err != nil {
		return nil, err
	}
	sub := ""
	if !s.dialled {
		sub = s.conn.Name
	}
	l, err := land(s.c.o.Dir, sub, plain)
	if err != nil {
		return nil, err
	}
	r := &receiving{landing: l, id: id, size: size, shown: newTransfer(plain, size, false)}
	s.mu.Lock()
	s.incoming, s.give, s.promised = r.shown, false, false
	s.mu.Unlock()
	s.c.post(s.c.busy)
	return r, nil
}

// over ends the file that is coming in, however it ended.
func (s *session) over() {
	s.in.discard()
	s.in = nil
	s.mu.Lock()
	s.incoming = nil
	s.mu.Unlock()
	s.settle()
}

// settle wakes collect.
func (s *session) settle() {
	select {
	case s.settled <- struct{}{}:
	default:
	}
}

// lacks says that a file has not come, by the other end's doing or the line's.
func (s *session) lacks(format string, args ...any) {
	s.c.ui.note(format, args...)
	s.miss(fmt.Errorf("%w: %s", ErrBroken, safe(fmt.Sprintf(format, args...))))
}

// miss notes why a file has not come.
func (s *session) miss(err error) {
	s.mu.Lock()
	s.promised = false
	if s.missed == nil {
		s.missed = err
	}
	s.mu.Unlock()
	s.settle()
}

// missing returns why a file has not come, if one has not.
func (s *session) missing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missed
}

// complete tells whether files have come, and all of them whole.
func (s *session) complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored && s.missed == nil && !s.promised && s.incoming == nil
}

// collect waits for the file that is coming in or has been announced. A script
// that calls to fetch a file has nothing to say, and must not leave before it.
func (s *session) collect() error {
	waits := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.promised || s.incoming != nil
	}
	for waits() {
		select {
		case <-s.settled:
		case <-s.ctx.Done():
			return errGone
		}
	}
	_ = s.out.waitIdle(s.ctx) // the sender is told, as far as it listens
	return nil
}

// given tells whether the user gives up the file that is coming in.
func (s *session) given() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.give
}

// failed tells both sides that the file name is not stored. When the other end
// is an original it learns so by a text.
func (s *session) failed(id uint64, name string, err error) {
	why := stopped{Text: plainError(err), Full: cli.Full(err)}
	s.c.ui.note("%s from the other end is not stored: %s", clip(name, maxName), why.Text)
	missed := fmt.Errorf("%s from the other end is not stored: %s", safe(clip(name, maxName)), safe(why.Text))
	if why.Full {
		missed = fmt.Errorf("%w: %w", ErrBroken, missed)
	}
	s.miss(missed)
	if s.isNative() {
		s.answer(s.made(opStop, id, why))
		return
	}
	text := fmt.Sprintf("%s is not stored here: %s", safe(clip(name, maxName)), why.Text)
	if frame, err := s.frame([]byte(text), nil); err == nil {
		s.answer(frame)
	}
}

// plainError is an error of the file system without the temporary name in it,
// which means nothing to people.
func plainError(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// errGiven is the end of a transfer that the user at this end did not want.
var errGiven = errors.New("cancelled by the receiver")

// offered begins a file.
func (s *session) offered(id uint64, data []byte) error {
	var o offer
	if err := json.Unmarshal(data, &o); err != nil || o.Size < 0 {
		return fmt.Errorf("offer of a file: not understood: %q", clip(string(data), 80))
	}
	if s.in != nil {
		return errors.New("offer of a file: the one before is not at its end")
	}
	r, err := s.begin(id, o.Name, o.Size)
	if err != nil {
		s.failed(id, o.Name, err)
		return nil
	}
	s.in = r
	return nil
}

// piece stores the next bytes. Those of a file that was given up are still on
// their way for a while.
func (s *session) piece(id uint64, data []byte) error {
	if s.in == nil || s.in.id != id {
		return nil
	}
	err := s.store(data)
	if err != nil {
		s.failed(id, s.in.name, err)
		s.over()
	}
	return nil
}

// store writes to the file that is coming in.
func (s *session) store(data []byte) error {
	if s.given() {
		return errGiven
	}
	if s.in.size >= 0 && s.in.got+int64(len(data)) > s.in.size {
		return errors.New("it is longer than announced")
	}
	err := s.in.write(data)
	s.in.shown.done.Store(s.in.got)
	return err
}

// whole gives the file its name.
func (s *session) whole(id uint64, data []byte) error {
	if s.in == nil || s.in.id != id {
		return nil
	}
	defer s.over()
	var w whole
	err := json.Unmarshal(data, &w)
	switch {
	case err != nil:
	case s.given():
		err = errGiven
	case s.in.got != s.in.size:
		err = fmt.Errorf("%d of %d bytes have come", s.in.got, s.in.size)
	case hex.EncodeToString(s.in.sum.Sum(nil)) != w.SHA256:
		err = errors.New("it is not what was sent: the checksum differs")
	}
	if err == nil {
		var name string
		if name, err = s.keep(); err == nil {
			s.answer(s.made(opGot, id, name))
			return nil
		}
	}
	s.failed(id, s.in.name, err)
	return nil
}

// keep stores the file under its name and says so.
func (s *session) keep() (name string, err error) {
	size, took := s.in.got, s.in.shown.took()
	if name, err = s.in.finish(); err != nil {
		return "", err
	}
	s.mu.Lock()
	s.stored = true
	s.mu.Unlock()
	hint := ""
	if strings.HasSuffix(strings.ToLower(name), ".zip") {
		hint = "; !dezip " + name + " extracts it"
	}
	s.c.ui.note("received %s (%s%s)%s", name, bytesText(size), took, hint)
	return name, nil
}

// quit is told that the sender gave up.
func (s *session) quit(id uint64, data []byte) {
	if s.in == nil || s.in.id != id {
		return
	}
	var w stopped
	_ = json.Unmarshal(data, &w) // without its reason then
	s.lacks("%s is not coming: %s", s.in.name, clip(w.Text, 300))
	s.over()
}

// withFile is the header key of that name, as the original writes it.
type withFile struct {
	SrcPath string `json:"src_path"`
	DstType string `json:"dst_type"`
	DstName string `json:"dst_name"`
	Delete  bool   `json:"delete"`
	Offset  int64  `json:"binary_offset"`
	Error   string `json:"file_error,omitempty"`
	Chunked []any  `json:"chunked,omitempty"` // base name, index from 1, count
}

// chunkMark is what the original puts behind the name of a file that it sends
// in chunks.
const chunkMark = "__aioconnectors_chunk"

// receiveWhole stores the file in a message of an original and reports whether
// there is one.
func (s *session) receiveWhole(f *wire.Frame) bool {
	var w withFile
	if err := json.Unmarshal(f.Header.WithFile, &w); err != nil || w.DstName == "" {
		return false
	}
	name, index, count := w.DstName, 1, 1
	if len(w.Chunked) == 3 {
		base, _ := w.Chunked[0].(string)
		i, _ := w.Chunked[1].(float64)
		n, _ := w.Chunked[2].(float64)
		name, index, count = strings.TrimSuffix(base, chunkMark), int(i), int(n)
	}
	if w.Error != "" {
		s.lacks("the other end could not read %s: %s", clip(name, maxName), clip(w.Error, 300))
		return true
	}
	content := f.Binary
	if w.Offset > 0 {
		content = content[min(w.Offset, int64(len(content))):]
	}
	if err := s.chunk(name, index, count, content); err != nil {
		s.failed(0, name, err)
		if s.in != nil {
			s.over()
		}
	}
	return true
}

// chunk stores one of count chunks of the file name. They come in order.
func (s *session) chunk(name string, index, count int, content []byte) error {
	if index == 1 {
		if s.in != nil { // the other end gave that one up
			s.lacks("%s is not coming: only %d of %d parts have come", s.in.name, s.in.chunk, s.in.chunks)
			s.over()
		}
		r, err := s.begin(0, name, -1)
		if err != nil {
			return err
		}
		s.in, r.chunks = r, count
	}
	if s.in == nil {
		return nil // of a file that was given up
	}
	if index != s.in.chunk+1 || count != s.in.chunks {
		return fmt.Errorf("part %d of %d came after part %d of %d", index, count, s.in.chunk, s.in.chunks)
	}
	s.in.chunk = index
	if err := s.store(content); err != nil {
		return err
	}
	if index < count {
		return nil
	}
	defer s.over()
	_, err := s.keep()
	return err
}
