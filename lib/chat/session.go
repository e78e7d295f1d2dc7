package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"aioc/lib/link"
	"aioc/lib/peer"
	"aioc/lib/wire"
)

// messageType is the only one that a chat knows.
const messageType = "any"

// extension is announced by the chats of this family. Between two of them a
// message whose header has the key "chat" is not a text: the key says what it
// is. Their "id" is the number of a file, from 1, counted by its sender.
const extension = "chat"

// The values of the key "chat".
const (
	opHello   = "hello"   // the end takes part: JSON of greeting
	opRefused = "refused" // it does not: data says why; the connection ends
	opFile    = "file"    // a file begins: JSON of offer
	opPiece   = "piece"   // the next bytes of it
	opEnd     = "end"     // it is whole: JSON of whole
	opGot     = "got"     // it is stored: data is the path at the receiver
	opStop    = "stop"    // the receiver does not want it, or no more of it: JSON of stopped
	opQuit    = "quit"    // the sender gives it up: JSON of stopped
	opTerm    = "term"    // give me the shell: JSON of window, with its terminal
	opSize    = "size"    // the window has another size: JSON of window
	opKeys    = "keys"    // typed into the shell
	opOut     = "out"     // what the shell writes
	opOver    = "over"    // the shell has ended: data says how
)

// greeting is the data of opHello.
type greeting struct {
	Shell  bool `json:"shell,omitempty"`  // the end runs a shell for the other one
	Upload bool `json:"upload,omitempty"` // a file follows, and then the end leaves
}

const (
	// pieceSize is how much of a file goes into a frame at most, and pieceMin
	// where the line is slow.
	pieceSize = 128 << 10
	pieceMin  = 8 << 10

	// windowBytes are on their way at most. Of a file it is what the line takes
	// in the time ahead, but windowMin at least: a text waits behind that.
	windowBytes = 2 << 20
	windowMin   = 4 * pieceMin
	ahead       = 2 * time.Second

	// silence is how long the other end may take for what it was sent, and may
	// say nothing at all: it is asked whether it is there after half of that.
	silence = time.Minute

	// slower is how many times that an original may take for an answer, which
	// only comes when it has everything before, and its user has let it.
	slower = 5

	// writeTimeout is what a part of a message may take, which the other end
	// does not acknowledge.
	writeTimeout = slower * silence
)

var (
	errSilent = errors.New("the other end does not answer any more")
	errDeaf   = errors.New("the other end does not read the answers to what it sends")
	errEnded  = errors.New("the chat is over")
)

// session is a connection with one other end, from its handshake to its end.
type session struct {
	c       *chat
	conn    *peer.Conn
	link    *link.Link
	out     *outbox
	dialled bool
	self    string // source_id
	base    []byte // header of a text
	ctx     context.Context
	end     context.CancelCauseFunc

	greeted  chan struct{} // closed when native is known
	native   bool          // the other end is a chat of this family
	acks     bool          // it acknowledges
	admitted chan struct{} // closed when it may speak
	admit    func()        // closes admitted
	flushed  chan struct{} // the other end has read all before
	settled  chan struct{} // a file has come to its end
	ended    chan struct{} // closed when run returns

	// Owned by the main loop.
	asked    bool     // the user was
	welcome  bool     // hello has come
	ready    bool     // texts may be sent
	hello    greeting // of the other end
	helloOut bool     // ours is sent
	leaving  bool

	spoke atomic.Bool   // the other end has said anything at all
	heard atomic.Uint64 // what it has said, in frames
	owed  atomic.Int64  // answers that only an original gives, and that are waited for
	cut   atomic.Bool   // of what came through a pipe, not all has arrived

	// Owned by the reader.
	in      *receiving
	helloIn bool // hello has come

	mu       sync.Mutex
	uploads  []*upload // the first is being sent
	nextID   uint64
	incoming *transfer // what in shows of itself
	give     bool      // in is to be given up
	promised bool      // a file has been announced that has not begun
	stored   bool      // a file has come whole
	missed   error     // the first file that has not
	shell    *shell
	shellErr error
	waiting  map[string]chan struct{} // uploads to an original, by request id
}

// newSession returns the session over conn; run lets it live.
func newSession(ctx context.Context, c *chat, conn *peer.Conn, dialled bool, self string) *session {
	s := &session{c: c, conn: conn, dialled: dialled, self: self,
		greeted: make(chan struct{}), admitted: make(chan struct{}), flushed: make(chan struct{}),
		settled: make(chan struct{}, 1), ended: make(chan struct{}),
		waiting: map[string]chan struct{}{}}
	s.ctx, s.end = context.WithCancelCause(ctx)
	s.admit = sync.OnceFunc(func() { close(s.admitted) })
	base := wire.AppendString([]byte(`{"message_type": `), messageType)
	base = wire.AppendString(append(base, `, "source_id": `...), self)
	base = wire.AppendString(append(base, `, "destination_id": `...), conn.Name)
	s.base = append(base, '}')
	// Whoever has not been let in costs no memory.
	conn.Reader.Account(func(delta int) bool {
		if delta < 0 {
			return true
		}
		select {
		case <-s.admitted:
			return true
		case <-s.ctx.Done():
			return false
		}
	})
	var l *link.Link
	s.out = newOutbox(func() { l.Wake() })
	l = link.New(conn.Conn, conn.Reader, link.Options{
		ID: self, Peer: conn.Name, Handler: s, Source: s.out, Log: c.log,
		Extensions: []string{wire.ExtAckTo, extension}, Dialled: dialled,
		Greeted:      s.greet,
		WriteTimeout: writeTimeout,
		WindowBytes:  windowBytes,
		Nudge:        !dialled,
	})
	s.link = l
	return s
}

// run lives until the connection ends, and returns why: io.EOF when the other
// end left.
func (s *session) run() error {
	defer close(s.ended)
	var side sync.WaitGroup
	side.Go(s.watch)
	err := s.link.Run(s.ctx)
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	s.end(err)
	if s.in != nil {
		s.lacks("%s is not here: only a part of it has come", s.in.name)
		s.over()
	}
	side.Wait()
	s.mu.Lock()
	sh := s.shell
	s.shell, s.shellErr = nil, errEnded
	s.mu.Unlock()
	if sh != nil {
		sh.close()
	}
	return err
}

// watch ends the session when the other end takes nothing any more, or is
// stopped.
func (s *session) watch() {
	limit := s.c.o.silence
	tick := time.NewTicker(limit / 12)
	defer tick.Stop()
	var taken, heard uint64
	takenAt, heardAt, asked := time.Now(), time.Now(), false
	for {
		var now time.Time
		select {
		case <-s.ctx.Done():
			return
		case now = <-tick.C:
		}
		if !s.isKnown() {
			continue // lib/link waits no longer than it has to
		}
		if n := s.out.progress(); n != taken || s.out.waiting() == 0 {
			taken, takenAt = n, now
		}
		if n := s.heard.Load() + taken; n != heard {
			heard, heardAt, asked = n, now, false
		}
		switch {
		case s.acks && (now.Sub(takenAt) > limit || now.Sub(heardAt) > limit), !s.acks && now.Sub(heardAt) > slower*limit:
			s.end(errSilent)
			return
		case !s.acks && s.owed.Load() == 0:
			heardAt = now // its silence says nothing
		case s.acks && !asked && now.Sub(heardAt) > limit/2:
			asked = true
			_ = s.ping(aliveID) // with an error it is over
		}
	}
}

// The request ids of pings: of watch, and of deliver.
const (
	aliveID = "aioc-chat-alive"
	flushID = "aioc-chat-end"
)

// ping has the other end answer when it has read all before.
func (s *session) ping(id string) error {
	return s.link.Send([]wire.Edit{
		{Key: "await_response", Value: []byte("true")},
		{Key: "request_id", Value: wire.AppendString(nil, id)},
		{Key: "destination_id", Value: wire.AppendString(nil, s.conn.Name)},
		{Key: "message_type", Value: wire.AppendString(nil, wire.TypePing)},
	}, nil, nil)
}

// why returns errGone with what ended the connection, where that says more.
func (s *session) why() error {
	cause := context.Cause(s.ctx)
	if cause == nil || errors.Is(cause, errEnded) || errors.Is(cause, io.EOF) || errors.Is(cause, context.Canceled) {
		return errGone
	}
	return fmt.Errorf("%w: %w", errGone, cause)
}

// greet is called once when it is known what the other end speaks.
func (s *session) greet(f *wire.Frame) {
	if f != nil && f.Header.Extensions != nil {
		s.spoke.Store(true)
		s.native = f.Header.Speaks(extension)
		s.acks = f.Header.Speaks(wire.ExtAckTo)
	}
	close(s.greeted)
	s.c.post(func() { s.c.met(s) })
}

// isKnown tells whether it is known what the other end is.
func (s *session) isKnown() bool {
	select {
	case <-s.greeted:
		return true
	default:
		return false
	}
}

// isNative tells whether the other end is known to be a chat of this family.
func (s *session) isNative() bool {
	select {
	case <-s.greeted:
		return s.native
	default:
		return false
	}
}

// frame makes a frame: the header of a text with edits.
func (s *session) frame(data, bin []byte, edits ...wire.Edit) ([]byte, error) {
	header := s.base
	if len(edits) > 0 {
		header = wire.AppendEdited(nil, header, edits...)
	}
	return wire.AppendFrame(nil, header, data, bin)
}

// op makes a frame for a chat of this family.
func (s *session) op(op string, id uint64, data []byte) []byte {
	edits := []wire.Edit{{Key: "chat", Value: wire.AppendString(nil, op)}}
	if id > 0 {
		edits = append(edits, wire.Edit{Key: "id", Value: strconv.AppendUint(nil, id, 10)})
	}
	frame, err := s.frame(data, nil, edits...)
	if err != nil {
		// Names are short and pieces small: only an end of our own that is not
		// one could get here.
		s.end(err)
	}
	return frame
}

// tell sends an op that goes first, with v as JSON unless it is a string.
func (s *session) tell(op string, id uint64, v any) {
	s.out.put(item{frame: s.made(op, id, v)})
}

// answer sends what the other end wants to hear, and hangs up on one that wants
// ever more without reading it.
func (s *session) answer(frame []byte) {
	if !s.out.putAnswer(item{frame: frame}) {
		s.end(errDeaf)
	}
}

// made makes a frame of an op, with v as JSON unless it is a string.
func (s *session) made(op string, id uint64, v any) []byte {
	var data []byte
	switch v := v.(type) {
	case nil:
	case string:
		data = []byte(v)
	default:
		data, _ = json.Marshal(v) // our own structs
	}
	return s.op(op, id, data)
}

// say sends a text. patient waits while much is on its way, as a pipe should.
func (s *session) say(text string, patient bool) error {
	frame, err := s.frame([]byte(text), nil)
	if err != nil {
		return err
	}
	if !patient {
		s.out.put(item{frame: frame})
		return nil
	}
	arrived := func(err error) {
		if err != nil {
			s.cut.Store(true)
		}
	}
	err = s.out.putLow(s.ctx, item{frame: frame, done: arrived})
	arrived(err)
	return err
}

// refuse says no and hangs up.
func (s *session) refuse(why string) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Second)
	defer cancel()
	select {
	case <-s.greeted:
	case <-ctx.Done():
	}
	if s.isNative() {
		s.tell(opRefused, 0, why)
		_ = s.out.waitIdle(ctx) // it is told as far as it listens
	}
	s.end(errEnded)
}

// deliver waits until the other end has everything, as far as that can be
// known.
func (s *session) deliver(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()
	err := s.out.waitIdle(ctx)
	if err == nil && !s.acks {
		// An original acknowledges nothing, but answers a ping when it has
		// read what came before it.
		s.owed.Add(1)
		defer s.owed.Add(-1)
		if err = s.ping(flushID); err == nil {
			select {
			case <-s.flushed:
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}
	if err != nil && s.ctx.Err() != nil {
		return errGone
	}
	return err
}

// Frame is of link.Handler.
func (s *session) Frame(n uint64, f *wire.Frame) error {
	s.spoke.Store(true)
	s.heard.Add(1)
	if n == 0 {
		if id, _ := wire.Text(f.Header.ResponseID); id == flushID {
			select {
			case <-s.flushed:
			default:
				close(s.flushed)
			}
		}
		return nil
	}
	// The greeting may come before it is known that the other end greets.
	if s.isNative() || !s.isKnown() {
		op, _ := wire.Text(f.Header.Field("chat"))
		if op == opRefused {
			s.end(&refusedError{string(f.Data)})
			return nil
		}
		if op == opHello {
			var g greeting
			if err := json.Unmarshal(f.Data, &g); err != nil {
				return fmt.Errorf("greeting of the other end: %w", err)
			}
			if !s.helloIn { // it is said once
				s.helloIn = true
				s.mu.Lock()
				s.promised = g.Upload
				s.mu.Unlock()
				s.c.post(func() { s.c.greetedBy(s, g) })
			}
			return nil
		}
		if op != "" {
			if err := s.await(); err != nil {
				return err
			}
			return s.handle(op, f)
		}
	}
	if err := s.await(); err != nil {
		return err
	}
	return s.message(f)
}

// await waits until the other end may speak.
func (s *session) await() error {
	select {
	case <-s.admitted:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// Flush is of link.Handler.
func (s *session) Flush() error { return nil }

// message handles a text, or what an original sends.
func (s *session) message(f *wire.Frame) error {
	h := f.Header
	if h.ResponseID != nil {
		s.mu.Lock()
		answered := s.waiting[string(h.ResponseID)]
		delete(s.waiting, string(h.ResponseID))
		s.mu.Unlock()
		if answered != nil {
			close(answered)
			return nil
		}
	}
	shown := true
	if h.WithFile != nil {
		shown = !s.receiveWhole(f)
	}
	if h.AwaitResponse && h.RequestID != nil {
		frame, err := s.frame(f.Data, nil, wire.Edit{Key: "response_id", Value: h.RequestID})
		if err != nil {
			return err
		}
		s.answer(frame)
	}
	if !shown {
		return nil
	}
	if s.c.o.Exec != "" {
		return s.typed(string(f.Data) + "\r")
	}
	// The original shows nothing for an empty text.
	if len(f.Data) > 0 || s.isNative() {
		return s.c.ui.text(string(f.Data)) // with an error it is not acknowledged
	}
	return nil
}

// handle is Frame for what only a chat of this family sends.
func (s *session) handle(op string, f *wire.Frame) error {
	id, _ := strconv.ParseUint(string(f.Header.Field("id")), 10, 64)
	switch op {
	case opFile:
		return s.offered(id, f.Data)
	case opPiece:
		return s.piece(id, f.Data)
	case opEnd:
		return s.whole(id, f.Data)
	case opGot:
		s.got(id, string(f.Data))
	case opStop:
		s.stopped(id, f.Data)
	case opQuit:
		s.quit(id, f.Data)
	case opTerm, opSize:
		var w window
		if err := json.Unmarshal(f.Data, &w); err != nil {
			return fmt.Errorf("window of the other end: %w", err)
		}
		return s.resized(w, op == opTerm)
	case opKeys:
		return s.typed(string(f.Data))
	case opOut:
		s.c.ui.shellOut(f.Data)
	case opOver:
		how := string(f.Data)
		s.c.ui.shellOver()
		s.c.ui.note("the shell of the other end has ended: %s", how)
	default:
		// From a later version; it is for this end to understand or not.
		s.c.log.Debug("unknown kind of message", "type", op)
	}
	return nil
}

// refusedError is that the other end did not want to talk.
type refusedError struct{ why string }

func (e *refusedError) Error() string {
	if e.why == "" {
		return "the other end refused"
	}
	return "the other end refused: " + safe(clip(e.why, 200))
}
