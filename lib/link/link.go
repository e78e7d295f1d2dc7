// Package link is a live stream of frames between two ends: a reader, a
// coalescing writer, a window of frames not yet acknowledged, keep alive.
//
// One type serves peers and local programs. A link knows no queues, files or
// disks: it takes what it sends from a Source and hands what arrives to a
// Handler.
//
// Acknowledgements. The frames that a Source gives are numbered from 1 for as
// long as the link lives, and so are the frames that carry a message at the
// other end. Once both ends have announced "ackto", an _ack with that key
// covers all frames up to its number; an _ack with a transport_id covers one;
// a _nack gives one back. To an end that announces nothing, a frame is
// finished when it has been written, or, where its header carries a
// transport_id (which is its number), when that is acknowledged. Until it is
// known which kind the other end is, nothing is finished, so that nothing is
// lost when the link breaks early.
//
// A message type can be parked: the receiving end refuses a frame with a _nack
// that says so, and goes on refusing the type until the sender has answered
// _parked; so what was on its way does not overtake what was refused. When it
// has room it sends _resume.
package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"aioc/lib/wire"
)

var (
	// ErrClosed is what Run returns after Close(nil).
	ErrClosed = errors.New("link closed")
	// ErrProtocol is wrapped when the other end broke a rule.
	ErrProtocol = errors.New("protocol violation")
	// ErrKeepAlive is returned when the other end stopped answering.
	ErrKeepAlive = errors.New("keep alive unanswered")
)

// Source is what a link sends from. Its frames are numbered from 1 in the
// order in which Take adds them. The link calls Take from one goroutine, the
// others from any, and Close once, after everything else.
type Source interface {
	// Take adds up to count frames to b until b holds max bytes and returns
	// how many. When it returns 0 it arranges for Link.Wake to be called.
	Take(b *wire.Batch, max, count int) int
	// Done finishes the frames up to n and returns how many that were. When
	// acked is not set they have only been written.
	Done(n uint64, acked bool) int
	// DoneOne finishes one frame, with an error if it was refused for good.
	DoneOne(n uint64, err error) bool
	// Return takes one frame back, to be sent again, and reports its type,
	// or "" when that is not to be: then the type is not resumed.
	Return(n uint64, park bool, why *Refusal) (messageType string)
	// Resume lets a parked type be taken again.
	Resume(messageType string)
	// Close takes everything back that is not finished.
	Close()
}

// Handler is given what arrives, from one goroutine.
type Handler interface {
	// Frame is called for each frame that the link does not handle itself.
	// n is the number of a frame that carries a message, 0 for other frames.
	// Unless the handler calls Hold or refuses it, the message counts as
	// taken when the next Flush has returned. f and its slices are valid
	// until Flush returns. An error ends the link.
	Frame(n uint64, f *wire.Frame) error
	// Flush is called before the link waits for more bytes.
	Flush() error
}

// The reasons of a program for a message that it was given and could not do.
const (
	Later = "later" // not before Delay is over
	Dead  = "dead"  // never
)

// Refusal is why a frame was not taken.
type Refusal struct {
	Reason string // one word: full, away, type, name, size, stopped, bad, Later, Dead
	Text   string // for people

	// Of a program that has tried and failed: how often, and for how long it
	// shall not be tried again, in milliseconds on the wire.
	Tries int
	Delay time.Duration
}

func (r *Refusal) Error() string { return r.Text }

// Options of a link. ID and Handler are required.
type Options struct {
	ID      string  // source_id of the link's own frames
	Peer    string  // destination_id of keep-alive pings
	Handler Handler // what arrives
	Source  Source  // what to send; may come later, by SetSource
	Log     *slog.Logger

	// Extensions that this end speaks. A dialling end announces them as
	// soon as the link runs, the other end answers an announcement.
	Extensions []string
	Dialled    bool
	// Announced: both ends have announced ackto and flow already.
	Announced bool
	// Info, if set, is the data of the answer to an announcement.
	Info func() []byte
	// Greeted, if set, is called when it is known what the other end
	// speaks, with its answer or announcement; with nil when there is none.
	Greeted func(f *wire.Frame)

	// TooBig, if set, is called for a message above the reader's limit, which
	// is refused: only its header is there.
	TooBig func(f *wire.Frame)

	// Acked, if set, is called for an _ack with a transport_id that is the number
	// of no frame.
	Acked func(transportID []byte)

	// Pings that do not announce anything are messages for the Handler, as on
	// the socket where local programs send. Otherwise the link answers them.
	PassPings bool
	// Responses: the messages that arrive are answers; they are not numbered
	// and not acknowledged.
	Responses bool

	WriteTimeout time.Duration // for each write to make progress; 0: none
	ReadTimeout  time.Duration // for a big frame that has begun: see wire.Reader.Pace; 0: none
	WindowBytes  int           // most bytes sent and not acknowledged; 0: 8 MiB
	Window       int           // most frames; 0: 65536

	// AckDelay is how long acknowledgements may wait for company: for more of
	// them, or for a frame that is written anyway. 0: not at all.
	AckDelay time.Duration

	KeepAlive        time.Duration // period of pings; 0: none
	KeepAliveTimeout time.Duration
	KeepAliveMisses  int

	// Nudge: send a silent frame every half second until the other end has
	// announced itself, for the sake of Python clients over TLS.
	Nudge bool
}

// PingMax bounds the bytes of a ping, as a whole frame: a longer one is not
// answered and ends the link.
const PingMax = 256 << 10

const (
	batchBytes  = 256 << 10 // what one write gathers
	controlMax  = 256 << 10 // own frames waiting to be written, before the reader waits
	controlCap  = 16 << 20  // own frames waiting, at which the link is given up
	decideAfter = 5 * time.Second
	nudgeEvery  = 500 * time.Millisecond
	lastWords   = time.Second // for reading on after a write that failed
	textMax     = 4 << 10     // kept of the text of a refusal
)

// Link is described at the package. Its methods may be called from any
// goroutine.
type Link struct {
	// Constant.
	opt  Options // but Window, guarded by mu
	conn net.Conn
	log  *slog.Logger

	wake   chan struct{} // capacity 1: there may be something to write
	done   chan struct{} // closed by Close
	acks   atomic.Bool   // the other end announced ackto
	flow   atomic.Bool   // and flow
	dedup  atomic.Bool   // and dedup
	begun  atomic.Bool   // Run has begun
	source atomic.Pointer[Source]
	side   sync.WaitGroup // timers, and what else runs beside reader and writer

	// settling is held while the source is told what became of frames, so that
	// it hears of them in the order in which the other end spoke. It is taken
	// before mu.
	settling sync.Mutex

	// Guarded by the right to write, which is taken before mu.
	writing sync.Mutex
	batch   wire.Batch
	join    []byte
	ackBuf  []byte // the _ack in the batch
	ackHead []byte // memory for its header
	ownOut  []byte // what of the batch came from out
	spare   []byte // memory for out
	held    bool   // the batch, or what is left of it, waits for the writer
	busy    bool   // the last batch was a big one: there is more to come
	nowAt   time.Time
	direct  syscall.RawConn // to write without waiting; nil when that cannot be

	// Owned by the reader.
	r       *wire.Reader
	kind    kind // of the last frame
	skipped bool // a message was not given to the handler: its Same would lie

	// mu guards what follows.
	mu      sync.Mutex
	err     error
	closing bool
	decided bool
	timers  [4]*time.Timer
	alive   keepAlive

	// Sending.
	out       []byte // the link's own frames
	drained   chan struct{}
	finishing bool   // close when out is written
	windowed  bool   // SetWindow was called
	shut      bool   // the writer found the window closed
	taken     uint64 // frames taken from the source
	written   uint64 // of those, handed to the kernel
	inFlight  int    // taken and not finished
	bytes     int    // the same in bytes, roughly
	marks     []mark // ends of batches in flight
	late      late
	parked    map[string]bool // types the other end has parked

	// Receiving.
	seen      uint64             // frames that carry a message
	flushed   uint64             // of those, through the handler's Flush
	holds     []hold             // not settled, in order, from gone on
	gone      int                // of holds, at its start, settled
	acked     uint64             // last ackto sent
	ackDue    uint64             // ackto to send with the next write
	ackBytes  int                // of the frames since the last ackto, roughly
	ackTimer  bool               // an AckDelay is running
	ackWanted bool               // ackDue is to be written even if nothing else is
	refusing  map[string]*refuse // types this end has parked
	nacks     nackRun            // refusals not queued yet
}

// mark notes that frame n ended a batch of so many bytes.
type mark struct {
	n     uint64
	bytes int
}

// New returns a link over conn, which it will close. r reads from conn and may
// hold bytes read already.
func New(conn net.Conn, r *wire.Reader, opt Options) *Link {
	if opt.WindowBytes == 0 {
		opt.WindowBytes = 8 << 20
	}
	if opt.Window == 0 {
		opt.Window = 1 << 16
	}
	l := &Link{opt: opt, conn: conn, r: r, log: opt.Log,
		wake: make(chan struct{}, 1), done: make(chan struct{})}
	l.direct = direct(conn)
	r.Skip()
	r.Pace(opt.ReadTimeout, l.readUntil)
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if opt.Announced {
		l.acks.Store(true)
		l.flow.Store(true)
		l.decided = true
	}
	if opt.Source != nil {
		l.SetSource(opt.Source)
	}
	return l
}

// Run reads and writes until the link ends and returns why: ErrClosed, io.EOF
// when the other end closed between frames, ctx.Err(), or what went wrong. The
// source is closed by then, and no goroutine is left.
func (l *Link) Run(ctx context.Context) error {
	l.side.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer l.side.Done()
		l.Close(ctx.Err())
	})
	var writer sync.WaitGroup
	l.begin()
	l.begun.Store(true) // the announcement is the first of what is written
	l.Wake()
	writer.Go(l.write)
	err := l.read()
	l.Close(err)
	l.conn.Close() // a writer that failed leaves that to the reader
	writer.Wait()
	if stop() {
		l.side.Done()
	}
	l.mu.Lock()
	for i := range l.timers {
		l.stopTimer(i)
	}
	err = l.err
	l.mu.Unlock()
	l.side.Wait()
	l.writing.Lock() // somebody's Wake may be at it still
	l.settling.Lock()
	l.settleBatch() // the other end may have taken some of the last
	l.settling.Unlock()
	l.writing.Unlock()
	if s := l.source.Load(); s != nil {
		(*s).Close()
	}
	l.r.Release()
	return err
}

// over reports whether the link is closing.
func (l *Link) over() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Close ends the link with err (nil: ErrClosed) as its reason, at once. Only
// the first call counts.
func (l *Link) Close(err error) {
	l.mu.Lock()
	first := l.closeLocked(err)
	l.mu.Unlock()
	if first {
		l.conn.Close()
	}
}

// closeLocked marks the link as closing; who calls it closes the connection
// afterwards.
func (l *Link) closeLocked(err error) (first bool) {
	if l.closing {
		return false
	}
	if err == nil {
		err = ErrClosed
	}
	l.closing, l.err = true, err
	close(l.done)
	return true
}

// Finish closes the link after its own frames that wait (acknowledgements,
// replies) have been written.
func (l *Link) Finish() {
	l.mu.Lock()
	l.finishing = true
	l.mu.Unlock()
	l.signal()
}

// Done is closed when the link is closing.
func (l *Link) Done() <-chan struct{} { return l.done }

// RemoteAddr is that of the connection.
func (l *Link) RemoteAddr() net.Addr { return l.conn.RemoteAddr() }

// Acks reports whether the other end acknowledges by number.
func (l *Link) Acks() bool { return l.acks.Load() }

// Flow reports whether the other end understands the parking of types.
func (l *Link) Flow() bool { return l.flow.Load() }

// Dedup reports whether the other end wants to know the numbers of messages, so
// that it takes what is sent again once.
func (l *Link) Dedup() bool { return l.dedup.Load() }

// SetWindow bounds the frames that are sent and not finished, also towards an
// end that does not announce extensions.
func (l *Link) SetWindow(frames int) {
	l.mu.Lock()
	l.opt.Window, l.windowed = frames, true
	l.mu.Unlock()
	l.signal()
}

// SetSource sets what the link sends from, once.
func (l *Link) SetSource(s Source) {
	if l.source.CompareAndSwap(nil, &s) {
		l.signal()
	}
}

// Wake makes the link look at its source again. When little goes on it writes
// at once, as far as that needs no waiting: so it must be called without any
// lock that the source takes.
func (l *Link) Wake() {
	if !l.writeNow() {
		l.signal()
	}
}

// signal makes the writer look whether there is something to write.
func (l *Link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Send queues a frame of the link's own, outside the numbered ones: header
// without source_id, which is added. It does not wait: an other end that asks
// for much and reads nothing loses the link.
func (l *Link) Send(header []wire.Edit, data, bin []byte) error {
	l.mu.Lock()
	err := l.queue(header, data, bin)
	l.mu.Unlock()
	l.Wake()
	return err
}

// queue is Send with mu held.
func (l *Link) queue(header []wire.Edit, data, bin []byte) error {
	return l.queueFrame(wire.AppendEdited(nil, []byte("{}"), append(header,
		wire.Edit{Key: "source_id", Value: wire.AppendString(nil, l.opt.ID)})...), data, bin)
}

// queueFrame is SendRaw with mu held.
func (l *Link) queueFrame(header, data, bin []byte) error {
	if l.closing {
		return l.err
	}
	if len(l.out) > controlCap {
		l.closeLocked(fmt.Errorf("%w: %d bytes of replies not read", ErrProtocol, len(l.out)))
		l.side.Go(func() { l.conn.Close() }) // over TLS it may take a while
		return ErrClosed
	}
	out, err := wire.AppendFrame(l.out, header, data, bin)
	if err == nil {
		l.out = out
	}
	return err
}

// throttle makes the reader wait while many replies are not written: an other
// end that does not read its replies is not read either.
func (l *Link) throttle() {
	l.mu.Lock()
	var wait chan struct{}
	if len(l.out) > controlMax && !l.closing {
		if l.drained == nil {
			l.drained = make(chan struct{})
		}
		wait = l.drained
	}
	l.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-l.done:
		}
	}
}

// decide is called when it is known, or has to be assumed, what the other end
// speaks.
func (l *Link) decide(f *wire.Frame) {
	if f != nil && f.Header.Extensions != nil {
		if f.Header.Speaks(wire.ExtAckTo) {
			l.acks.Store(true)
			l.flow.Store(f.Header.Speaks(wire.ExtFlow))
			l.dedup.Store(f.Header.Speaks(wire.ExtDedup))
		}
	}
	l.mu.Lock()
	first := !l.decided
	l.decided = true
	written := l.written
	l.mu.Unlock()
	if first && l.opt.Greeted != nil {
		l.opt.Greeted(f)
	}
	if first && !l.acks.Load() {
		l.settling.Lock()
		l.finish(written, false)
		l.settling.Unlock()
	}
	l.signal()
}

// finish tells the source that the frames up to n are done. settling is held.
func (l *Link) finish(n uint64, acked bool) {
	s := l.source.Load()
	if s == nil || n == 0 {
		return
	}
	finished := (*s).Done(n, acked)
	l.mu.Lock()
	l.inFlight -= finished
	k := 0
	for k < len(l.marks) && l.marks[k].n <= n {
		l.bytes -= l.marks[k].bytes
		k++
	}
	l.marks = append(l.marks[:0], l.marks[k:]...)
	l.mu.Unlock()
}

// ended turns a read error into the reason of the link's end.
func ended(err error) error {
	if err == io.EOF {
		return err
	}
	return fmt.Errorf("read: %w", err)
}

// ErrBusy is returned when an end has too many answers to read already.
var ErrBusy = errors.New("too many answers not read")

// SendFrame is SendRaw with a frame that is complete.
func (l *Link) SendFrame(frame []byte) error {
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return err
	}
	return l.SendRaw(f.Header.Raw, f.Data, f.Binary)
}

// SendRaw is Send with the header as it is, on behalf of somebody else, such as
// an answer that a local program waits for (see Options.Responses there). When
// the other end does not read what it has been sent this way, the frame is
// refused with ErrBusy.
func (l *Link) SendRaw(header, data, bin []byte) error {
	l.mu.Lock()
	err := ErrBusy
	if len(l.out) <= controlCap/2 {
		err = l.queueFrame(header, data, bin)
	}
	l.mu.Unlock()
	l.Wake()
	return err
}
