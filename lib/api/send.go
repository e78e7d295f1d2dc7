package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// SendOptions of a Sender.
type SendOptions struct {
	// Wait for a peer that is away instead of failing.
	Wait bool
	// Responses is called, from another goroutine, for each response to a
	// message with await_response; the frame is valid during the call only.
	Responses func(f *wire.Frame) error
	// Files: PutFile will be used.
	Files bool
	// Progress is called, from another goroutine, when it is known how far the
	// file of a message is; not more often than some times a second, and never
	// where Info.Passes is not set.
	Progress func(p Progress)
}

// Progress is how far the file of a message is. The first one, with nothing sent,
// says that the connector has taken the message.
type Progress struct {
	Index      int   // which message, from 0
	Sent, Size int64 // bytes that the peer has, and of the file
}

// NotTaken is the error of a message that was not taken.
type NotTaken struct {
	Index  int    // which one, from 0
	Reason string // away, full, type, name, size, stopped, closed, ignored, bad, permission, file, keep
	Text   string // for people
}

func (e *NotTaken) Error() string { return e.Text }

// sendBuffer is how many bytes are gathered before they are written.
const sendBuffer = 128 << 10

// maxPassed is how many files are passed and not acknowledged. The connector
// closes those that are too many.
const maxPassed = 16

// Sender sends messages in order, many in flight. Put, Flush and Finish are
// called from one goroutine.
type Sender struct {
	c       *Client
	options SendOptions
	out     *local.Outgoing // nil: no files are passed
	link    *link.Link
	ended   chan struct{} // closed when link has ended
	wait    sync.WaitGroup

	mu       sync.Mutex
	changed  *sync.Cond
	buf      []byte // frames not given to the link yet
	frames   int    // in buf
	spare    []byte
	count    uint64               // messages
	acked    uint64               // covered by an acknowledgement, refused or not
	failure  *NotTaken            // the first
	failing  chan struct{}        // closed with the next message that is not taken
	failures map[uint64]*NotTaken // by number
	files    map[uint64]uint64    // messages whose files were passed, by the number of the file
	err      error                // why nothing can be sent any more
}

// Sender returns a new sender. An error in connecting comes with the first Put.
func (c *Client) Sender(o SendOptions) *Sender {
	s := &Sender{c: c, options: o, ended: make(chan struct{}), failing: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	if c.info.Native {
		s.err = s.openNative()
	} else {
		s.err = s.openPython()
	}
	return s
}

func (s *Sender) openNative() error {
	ch, err := s.c.channel(context.Background(), greeting{s.options.Wait, s.options.Files && s.c.info.Passes})
	if err != nil {
		close(s.ended)
		if absent(err) { // it was there when the Client was opened
			err = fmt.Errorf("%w: %w", ErrLost, err)
		}
		return err
	}
	conn := ch.conn
	if unix, ok := conn.(*net.UnixConn); ok && s.options.Files && ch.info.Passes {
		s.out = local.NewOutgoing(unix)
		conn = s.out
	}
	s.link = link.New(conn, ch.r, link.Options{
		ID: s.c.info.Name, Handler: (*answers)(s), Source: (*buffered)(s),
		Announced: true, Responses: true,
		Window: 1 << 30, WindowBytes: 1 << 30, // the connector pushes back
	})
	s.wait.Go(s.run)
	return nil
}

func (s *Sender) openPython() error {
	s.c.mu.Lock()
	conn := s.c.python
	s.c.python = nil
	s.c.mu.Unlock()
	if conn == nil {
		var err error
		if conn, err = connect(context.Background(), s.c.paths.SendSocket); err != nil {
			close(s.ended)
			if absent(err) {
				err = fmt.Errorf("%w: %w", ErrLost, err)
			}
			return err
		}
	}
	s.link = link.New(conn, wire.NewReader(conn, wire.MaxFrame), link.Options{
		ID: s.c.info.Name, Handler: (*answers)(s), Source: (*buffered)(s), Responses: true,
	})
	s.wait.Go(s.run)
	return nil
}

// run runs the link until it ends.
func (s *Sender) run() {
	err := s.link.Run(context.Background())
	s.mu.Lock()
	if s.err == nil {
		s.err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	s.changed.Broadcast()
	s.mu.Unlock()
	close(s.ended)
}

// Put sends one message: header is JSON text as Client.Header makes it, and
// must say with_binary when there is a binary. The bytes are copied. It waits
// while the connector takes nothing. It returns an error as soon as one is
// known, which may be of an earlier message: then a *NotTaken.
func (s *Sender) Put(header, data, binary []byte) error {
	_, err := s.put(header, data, binary, nil)
	return err
}

// PutFile is Put for a message whose with_file names the file f, which is open
// for reading. The connector sends what is open, whatever has the name then, and
// need not be able to open it itself. f may be closed at once. It waits while
// many files are not acknowledged yet. One that the connector is to remove
// (delete) and cannot is not taken, with the reason keep.
//
// A connector that does not know this opens the file by its name.
func (s *Sender) PutFile(header, data, binary []byte, f *os.File) error {
	_, err := s.put(header, data, binary, f)
	return err
}

// put is PutFile, or Put without a file, and returns the message's number, from
// 1. Unlike Put it may be called from any goroutine.
func (s *Sender) put(header, data, binary []byte, f *os.File) (n uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pass := f != nil && s.out != nil
	full := func() bool { return len(s.buf) >= sendBuffer || pass && len(s.files) >= maxPassed }
	for full() && s.failed() == nil {
		s.mu.Unlock()
		s.link.Wake()
		s.mu.Lock()
		if full() && s.failed() == nil {
			s.changed.Wait()
		}
	}
	if err := s.failed(); err != nil {
		return 0, err
	}
	if len(binary) == 0 {
		binary = nil
	}
	var number uint64
	if pass { // before the bytes that speak of it
		if number, err = s.out.Pass(f); errors.Is(err, net.ErrClosed) {
			return 0, fmt.Errorf("%w: %w", ErrLost, err)
		} else if err != nil {
			return 0, err
		}
		edits := []wire.Edit{{Key: "file_passed", Value: strconv.AppendUint(nil, number, 10)}}
		if s.options.Progress != nil {
			edits = append(edits, wire.Edit{Key: "file_progress", Value: []byte("true")})
		}
		header = wire.AppendEdited(nil, header, edits...)
	}
	buf, err := wire.AppendFrame(s.buf, header, data, binary)
	if err == nil && s.c.info.Max > 0 && int64(len(buf)-len(s.buf)) > s.c.info.Max {
		err = fmt.Errorf("%w: the connector takes at most %d bytes (max_message_size)", wire.ErrTooBig, s.c.info.Max)
	}
	if err != nil {
		return 0, &NotTaken{Index: int(s.count), Reason: "size", Text: err.Error()}
	}
	s.buf = buf
	s.frames++
	s.count++
	if pass {
		if s.files == nil {
			s.files = map[uint64]uint64{}
		}
		s.files[number] = s.count
	}
	return s.count, nil
}

// broken reports whether nothing more can be put.
func (s *Sender) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed() != nil
}

// fate returns why message n was not taken, nil if it was or may yet be, and a
// channel that is closed when that may have changed.
func (s *Sender) fate(n uint64) (*NotTaken, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures[n], s.failing
}

// failed returns why no more can be put.
func (s *Sender) failed() error {
	if s.failure != nil {
		return s.failure
	}
	return s.err
}

// Flush writes what was put. Call it before waiting for more to put.
func (s *Sender) Flush() error {
	s.mu.Lock()
	some := s.frames > 0
	err := s.failed()
	s.mu.Unlock()
	if some {
		s.link.Wake()
	}
	return err
}

// Finish is Taken, and closes the sender unless responses are awaited.
func (s *Sender) Finish(ctx context.Context) (taken int, err error) {
	taken, err = s.Taken(ctx)
	if s.options.Responses == nil {
		s.Close()
	}
	return taken, err
}

// Taken waits until all messages put so far are taken, or ctx ends. It returns
// how many were taken, exactly unless the connection was lost, and the first
// failure: a *NotTaken, or an error that wraps ErrLost.
func (s *Sender) Taken(ctx context.Context) (taken int, err error) {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.changed.Broadcast()
		s.mu.Unlock()
	})
	defer stop()
	_ = s.Flush()
	s.mu.Lock()
	for s.acked < s.count && s.err == nil && ctx.Err() == nil {
		s.changed.Wait()
	}
	taken = int(s.acked)
	for n := range s.failures {
		if n <= s.acked {
			taken--
		}
	}
	switch {
	case s.failure != nil:
		err = s.failure
	case s.acked < s.count && s.err != nil:
		err = s.err
	case s.acked < s.count:
		err = ctx.Err()
	}
	s.mu.Unlock()
	return taken, err
}

// Ended is closed when the connection has ended: no response can come.
func (s *Sender) Ended() <-chan struct{} { return s.ended }

// Close ends the sender. What Finish or Taken did not report as taken may be
// lost.
func (s *Sender) Close() {
	if s.link != nil {
		s.link.Close(nil)
	}
	<-s.ended
	s.wait.Wait()
}

// buffered is a Sender as the source of its link.
type buffered Sender

// Take gives the link all that is buffered. The memory of the batch before is
// free again by now.
func (s *buffered) Take(b *wire.Batch, _, _ int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.frames
	if n == 0 {
		return 0
	}
	b.Add(s.buf, n)
	full := s.buf
	s.buf, s.frames = s.spare[:0], 0
	if cap(full) > 4*sendBuffer {
		full = nil
	}
	s.spare = full
	s.changed.Broadcast()
	return n
}

func (s *buffered) Done(n uint64, _ bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= s.acked {
		return 0
	}
	finished := int(n - s.acked)
	s.acked = n
	for number, message := range s.files {
		if message <= n {
			delete(s.files, number)
		}
	}
	s.changed.Broadcast()
	return finished
}

func (s *buffered) DoneOne(n uint64, err error) bool {
	if err == nil {
		return true // a later acknowledgement covers it
	}
	var why *link.Refusal
	if errors.As(err, &why) {
		s.fail(n, why.Reason, why.Text)
	} else {
		s.fail(n, "bad", err.Error())
	}
	return true
}

// Return notes the refusal. It keeps nothing to send again, so it names no
// type, and the connector goes on refusing what follows of the same type: the
// order is kept for who sends again.
func (s *buffered) Return(n uint64, _ bool, why *link.Refusal) string {
	s.fail(n, why.Reason, why.Text)
	return ""
}

func (s *buffered) Resume(string) {}
func (s *buffered) Close()        {}

// fail notes that message number n was not taken.
func (s *buffered) fail(n uint64, reason, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failures == nil {
		s.failures = map[uint64]*NotTaken{}
	}
	s.failures[n] = &NotTaken{Index: int(n - 1), Reason: reason, Text: text}
	close(s.failing)
	s.failing = make(chan struct{})
	if s.failure == nil || int(n-1) < s.failure.Index {
		s.failure = &NotTaken{Index: int(n - 1), Reason: reason, Text: text}
	}
	s.changed.Broadcast()
}

// answers is a Sender as the handler of its link.
type answers Sender

func (s *answers) Frame(_ uint64, f *wire.Frame) error {
	if string(f.Header.Type) == wire.TypeFileAck {
		(*Sender)(s).fileSent(f.Header)
		return nil
	}
	if s.options.Responses != nil {
		return s.options.Responses(f)
	}
	return nil
}

func (s *answers) Flush() error { return nil }

// fileSent is told how far a file is.
func (s *Sender) fileSent(h *wire.Header) {
	number := func(key string) int64 {
		n, err := strconv.ParseInt(string(h.Field(key)), 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	s.mu.Lock()
	message := s.files[uint64(number("file"))]
	s.mu.Unlock()
	if message == 0 || s.options.Progress == nil {
		return
	}
	p := Progress{int(message - 1), number("offset"), number("size")}
	if p.Sent >= 0 && p.Size >= p.Sent {
		s.options.Progress(p)
	}
}
