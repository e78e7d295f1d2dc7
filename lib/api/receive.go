package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// ReceiveOptions of a Receiver. Frame is required.
type ReceiveOptions struct {
	Types  []string // none: all that the connector receives
	Window int      // most messages in hand, not acknowledged; 0: 65536
	Count  int      // messages in all; 0: no limit
	Drain  bool     // end when nothing is left

	// Frame is called for each message, in order, with its number; f is valid
	// during the call only. An error ends the receiver.
	Frame func(n uint64, f *wire.Frame) error
	// Flush, if set, is called after the last of some messages that came
	// together. When it has returned nil they are acknowledged.
	Flush func() error
	// Manual: each message is acknowledged by Done instead.
	Manual bool
	// Lost, if set, is called when the connection to the connector has ended,
	// before Run waits for a new one. Messages that are not acknowledged are
	// nobody's from here on, and come again: they are best not begun any more.
	// It is not called for a Python connector, of which each message is ours.
	Lost func()
}

// Receiver receives messages.
type Receiver struct {
	c *Client
	o ReceiveOptions

	mu     sync.Mutex
	l      *link.Link // the connection of now
	base   uint64     // number before its first message
	last   uint64     // number of the newest message
	batch  int        // messages since the last flush
	done   int        // acknowledged
	result error      // why it ended, once over
	over   bool
}

// ackDelay is how long the connector may wait to hear what has been received.
const ackDelay = 25 * time.Millisecond

// wideWindow is a window that is not filled while acknowledgements wait: the
// link sends them sooner when there are many.
const wideWindow = 8 << 10

// errOver ends a link whose receiver has all it wants.
var errOver = errors.New("done")

// Receiver returns a receiver, which Run starts.
func (c *Client) Receiver(o ReceiveOptions) *Receiver {
	if o.Flush == nil {
		o.Flush = func() error { return nil }
	}
	return &Receiver{c: c, o: o}
}

// Run receives until Count messages were acknowledged or, with Drain, nothing
// is left (nil), ctx ends (its error), a callback fails (its error), or the
// connector refuses. When the connector goes away it waits for it to come
// back. What was not acknowledged when Run returns stays with the connector.
func (r *Receiver) Run(ctx context.Context) error {
	if !r.c.info.Native {
		return r.listen(ctx)
	}
	const least, most = 50 * time.Millisecond, time.Second
	pause := least
	for {
		ch, err := r.c.channel(ctx, greeting{})
		if err == nil {
			pause = least
			err = r.consume(ctx, ch)
		}
		r.mu.Lock()
		over, result := r.over, r.result
		r.mu.Unlock()
		switch {
		case over:
			return result
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrRefused):
			return err
		}
		if ch != nil && r.o.Lost != nil {
			r.o.Lost()
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, most)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// consume receives over one connection.
func (r *Receiver) consume(ctx context.Context, ch *channel) error {
	o := link.Options{ID: r.c.info.Name, Handler: (*arrivals)(r), Announced: true}
	// With a small window, and when it drains, the connector waits for them.
	if !r.o.Drain && !r.o.Manual && (r.o.Window <= 0 || r.o.Window >= wideWindow) {
		o.AckDelay = ackDelay
	}
	l := link.New(ch.conn, ch.r, o)
	r.mu.Lock()
	r.l, r.base, r.batch = l, r.last, 0
	want := struct {
		Types  []string `json:"types"`
		Window int      `json:"window"`
		Count  int      `json:"count"`
		Drain  bool     `json:"drain"`
	}{r.o.Types, r.o.Window, 0, r.o.Drain}
	if r.o.Count > 0 {
		want.Count = r.o.Count - r.done
	}
	r.mu.Unlock()
	data, err := json.Marshal(want)
	if err != nil {
		return err
	}
	if err := l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypeConsume + `"`)}}, data, nil); err != nil {
		return err
	}
	// When ctx ends, the acknowledgements that wait still go out.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		l.Finish()
		time.AfterFunc(time.Second, cancel)
	})
	defer stop()
	err = l.Run(run)
	if errors.Is(err, io.EOF) || errors.Is(err, link.ErrClosed) {
		err = nil
	}
	return err
}

// Later is an error for Done: the message was tried so often by now, and goes
// back to be given out again, to any receiver, when delay is over. why is for
// people.
func Later(tries int, delay time.Duration, why string) error {
	return &link.Refusal{Reason: link.Later, Text: why, Tries: tries, Delay: delay}
}

// Dead is an error for Done: the message can never be done, and becomes a dead
// letter of the connector, with why.
func Dead(tries int, why string) error {
	return &link.Refusal{Reason: link.Dead, Text: why, Tries: tries}
}

// Done ends the handling of message n: with nil it is acknowledged, with an
// error of Later or Dead that happens to it, and with any other it goes back to
// the connector at once. Dead letters count as done. Any goroutine may call it. A message of
// a connection that is gone is nobody's any more.
func (r *Receiver) Done(n uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n <= r.base || r.l == nil {
		return
	}
	var why *link.Refusal
	if err == nil || errors.As(err, &why) && why.Reason == link.Dead {
		r.done++
	}
	r.l.Settle(n-r.base, err)
	r.enough()
}

// enough ends the receiver when it has all it wants. mu is held.
func (r *Receiver) enough() {
	if r.o.Count > 0 && r.done >= r.o.Count && !r.over {
		r.finish(nil)
		if r.batch == 0 {
			r.l.Finish() // the acknowledgements go out first
		}
	}
}

// finish notes the result. mu is held.
func (r *Receiver) finish(err error) {
	if !r.over {
		r.over, r.result = true, err
	}
}

// arrivals is a Receiver as the handler of its link.
type arrivals Receiver

func (a *arrivals) Frame(n uint64, f *wire.Frame) error {
	r := (*Receiver)(a)
	r.mu.Lock()
	over, l := r.over, r.l
	r.mu.Unlock()
	if over {
		if n > 0 {
			l.Hold(n) // not ours any more: it goes back
		}
		return nil
	}
	if n == 0 {
		return r.control(f)
	}
	if r.o.Manual {
		l.Hold(n)
	}
	r.mu.Lock()
	r.last = r.base + n
	r.batch++
	number := r.last
	r.mu.Unlock()
	if err := r.o.Frame(number, f); err != nil {
		return r.failed(err)
	}
	return nil
}

// control handles what the connector says beside messages.
func (r *Receiver) control(f *wire.Frame) error {
	switch string(f.Header.Type) {
	case wire.TypeEmpty:
		if !r.o.Drain {
			return nil
		}
		if err := r.o.Flush(); err != nil {
			return r.failed(err)
		}
		return r.failed(nil)
	case wire.TypeNack:
		return r.failed(fmt.Errorf("%w: %s", ErrRefused, f.Header.Error))
	}
	return nil
}

// failed ends the receiver with err and returns an error for its link.
func (r *Receiver) failed(err error) error {
	r.mu.Lock()
	r.finish(err)
	r.mu.Unlock()
	return errOver
}

func (a *arrivals) Flush() error {
	r := (*Receiver)(a)
	r.mu.Lock()
	n, over, l := r.batch, r.over, r.l
	r.mu.Unlock()
	if n == 0 || over && !r.o.Manual {
		return nil
	}
	if !over {
		if err := r.o.Flush(); err != nil {
			return r.failed(err)
		}
	}
	// What Done has settled in the meantime is acknowledged from here on: until
	// now the link could not, and an end would have lost it.
	l.Acknowledge()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batch = 0
	switch {
	case !r.o.Manual:
		r.done += n
		r.enough()
	case r.over:
		l.Finish()
	}
	return nil
}

// listen receives from a Python connector, which connects to the socket of
// each type. It acknowledges nothing: what it has sent is ours.
func (r *Receiver) listen(ctx context.Context) error {
	types := r.o.Types
	if len(types) == 0 {
		types = r.c.info.RecvTypes
	}
	if len(types) == 0 {
		return fmt.Errorf("%w: a Python connector does not tell its message types: name them", ErrRefused)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	turn := make(chan struct{}, 1) // one batch at a time
	var number uint64
	for _, typ := range types {
		ln, err := local.Listen(r.c.paths.ReceiveSocket(typ), local.Options{Mode: 0o770, Shared: true})
		if err != nil {
			cancel()
			all.Wait()
			return err
		}
		defer ln.Close()
		all.Go(func() {
			// The order of the connections is that of the messages.
			ln.ServeInTurn(ctx, func(ctx context.Context, conn *net.UnixConn) {
				h := &listened{r: r, turn: turn, number: &number, cancel: cancel}
				h.l = link.New(conn, wire.NewReader(conn, wire.MaxFrame), link.Options{ID: r.c.info.Name, Handler: h})
				_ = h.l.Run(ctx)
				h.release()
			})
		})
	}
	all.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return r.result
	}
	return ctx.Err()
}

// listened is the handler of a connection from a Python connector.
type listened struct {
	r      *Receiver
	l      *link.Link
	turn   chan struct{}
	number *uint64 // guarded by turn
	cancel context.CancelFunc
	mine   bool // turn is ours
	batch  int
}

func (h *listened) Frame(_ uint64, f *wire.Frame) error {
	if !h.mine {
		h.turn <- struct{}{}
		h.mine = true
	}
	h.r.mu.Lock()
	over := h.r.over
	h.r.mu.Unlock()
	if over {
		return errOver
	}
	*h.number++
	h.batch++
	if err := h.r.o.Frame(*h.number, f); err != nil {
		return h.end(err)
	}
	h.r.mu.Lock()
	enough := h.r.o.Count > 0 && h.r.done+h.batch >= h.r.o.Count
	h.r.mu.Unlock()
	if enough {
		return h.Flush()
	}
	return nil
}

func (h *listened) end(err error) error {
	_ = h.r.failed(err)
	h.cancel()
	return errOver
}

func (h *listened) Flush() error {
	if !h.mine {
		return nil
	}
	defer h.release()
	if h.batch == 0 {
		return nil
	}
	n := h.batch
	h.batch = 0
	if err := h.r.o.Flush(); err != nil {
		return h.end(err)
	}
	h.r.mu.Lock()
	h.r.done += n
	enough := h.r.o.Count > 0 && h.r.done >= h.r.o.Count
	h.r.mu.Unlock()
	if enough {
		return h.end(nil)
	}
	return nil
}

func (h *listened) release() {
	if h.mine {
		h.mine = false
		<-h.turn
	}
}
