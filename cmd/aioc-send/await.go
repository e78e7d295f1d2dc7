package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/envelope"
	"aioc/lib/wire"
)

// inFlight is how many requests wait for their responses at once.
const inFlight = 256

// errNoResponse ends the program when a response has not come in time.
var errNoResponse = errors.New("no response in time")

// outputError is a failed write to standard output.
type outputError struct{ err error }

func (e *outputError) Error() string { return "standard output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// goneError is the loss of the connection on which responses are awaited. A
// Python connector closes it when the peer is not connected.
type goneError struct{ err error }

func (e *goneError) Error() string { return e.err.Error() }
func (e *goneError) Unwrap() error { return e.err }

// awaiter prints responses in the order of their requests.
type awaiter struct {
	out     io.Writer
	whole   bool                    // print envelopes
	timeout time.Duration           // for each response
	end     context.CancelCauseFunc // ends the program's work
	flush   func() error            // writes the requests that are buffered
	ended   <-chan struct{}         // closed with the connection: nothing more comes

	mu       sync.Mutex
	pending  []*request          // oldest first; those before a missing one stay
	waiting  map[string]*request // by idKey, without a response
	late     *time.Timer         // fires when the oldest without a response is late
	changed  chan struct{}       // has a token after a change
	failures []failure           // requests that get no response
	line     []byte
	encoder  envelope.Encoder
}

// request is a message that waits for its response, or that has it.
type request struct {
	n        int // its number among the messages, from 1
	deadline time.Time
	done     bool
	line     []byte
}

// failure is a request that gets no response.
type failure struct {
	text   string
	status int // of the program
}

// newAwaiter returns an awaiter that prints to out, and calls end when a
// response is late or cannot be printed.
func newAwaiter(out io.Writer, whole bool, timeout time.Duration, end context.CancelCauseFunc) *awaiter {
	a := &awaiter{out: out, whole: whole, timeout: timeout, end: end,
		waiting: make(map[string]*request), changed: make(chan struct{}, 1)}
	a.late = time.AfterFunc(time.Hour, a.expire)
	a.late.Stop()
	return a
}

// stop ends the timer. Late responses are then no more looked for.
func (a *awaiter) stop() { a.late.Stop() }

// add notes message n, whose request id is the JSON text id. It waits while
// too many requests are in flight, or one with the same id.
func (a *awaiter) add(ctx context.Context, n int, id []byte) error {
	key := idKey(id)
	room := func() bool { return len(a.pending) < inFlight && a.waiting[key] == nil }
	if !a.is(room) {
		if err := a.flush(); err != nil {
			return err
		}
		if err := a.until(ctx, room); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &request{n: n, deadline: time.Now().Add(a.timeout)}
	a.pending = append(a.pending, r)
	a.waiting[key] = r
	if len(a.waiting) == 1 {
		a.late.Reset(a.timeout)
	}
	return nil
}

// forget drops the requests after the first taken ones: they are not, or it is
// not known whether they are.
func (a *awaiter) forget(taken int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, r := range a.waiting {
		if r.n > taken {
			delete(a.waiting, key)
			r.done = true
		}
	}
}

// wait waits until every request has its response. Its error is a goneError or
// the cause of ctx.
func (a *awaiter) wait(ctx context.Context) error {
	return a.until(ctx, func() bool { return a.oldest() == nil })
}

// is calls ok with mu held.
func (a *awaiter) is(ok func() bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ok()
}

// until waits until ok, which is called with mu held, says true.
func (a *awaiter) until(ctx context.Context, ok func() bool) error {
	for over := false; !a.is(ok); {
		if over {
			return &goneError{api.ErrLost}
		}
		select {
		case <-a.changed:
		case <-a.ended:
			over = true // what came before it counts
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// expire ends the program when a response is late indeed.
func (a *awaiter) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if oldest := a.oldest(); oldest != nil {
		if left := time.Until(oldest.deadline); left > 0 {
			a.late.Reset(left)
		} else {
			a.end(errNoResponse)
		}
	}
}

// oldest returns the first request without a response, or nil.
func (a *awaiter) oldest() *request {
	for _, r := range a.pending {
		if !r.done {
			return r
		}
	}
	return nil
}

// response takes a response. It is called by the goroutine of the connection.
func (a *awaiter) response(f *wire.Frame) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f.Header.ResponseID == nil {
		if f.Header.Error != nil {
			for key, r := range a.waiting {
				a.fail(key, r, f.Header.Error)
			}
		}
	} else if key := idKey(f.Header.ResponseID); a.waiting[key] != nil {
		r := a.waiting[key]
		if f.Header.Error != nil {
			a.fail(key, r, f.Header.Error)
		} else {
			delete(a.waiting, key)
			r.done = true
			if a.whole {
				r.line = a.encoder.Append(nil, f)
			} else {
				r.line = envelope.AppendData(nil, f.Data)
			}
			r.line = append(r.line, '\n')
		}
	}
	err := a.print()
	if err != nil {
		a.end(err)
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
	return err
}

// fail notes that r gets no response any more.
func (a *awaiter) fail(key string, r *request, reason []byte) {
	delete(a.waiting, key)
	r.done = true
	why := failure{string(reason), cli.Refused}
	if why.text == "disconnected_during_wait" {
		why = failure{"the peer was disconnected before it answered", cli.Temporary}
	}
	why.text = fmt.Sprintf("message %d got no response: %s", r.n, why.text)
	a.failures = append(a.failures, why)
}

// print writes the responses whose turn it is.
func (a *awaiter) print() error {
	a.line = a.line[:0]
	i := 0
	for ; i < len(a.pending) && a.pending[i].done; i++ {
		a.line = append(a.line, a.pending[i].line...)
	}
	if i == 0 {
		return nil
	}
	a.pending = append(a.pending[:0], a.pending[i:]...)
	if len(a.line) == 0 {
		return nil
	}
	if _, err := a.out.Write(a.line); err != nil {
		return &outputError{err}
	}
	return nil
}

// rest writes the responses that have come, without waiting for the turn of
// those behind a missing one any longer.
func (a *awaiter) rest() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line = a.line[:0]
	for _, r := range a.pending {
		a.line = append(a.line, r.line...)
		r.line = nil
	}
	if len(a.line) == 0 {
		return nil
	}
	if _, err := a.out.Write(a.line); err != nil {
		return &outputError{err}
	}
	return nil
}

// failed returns the requests that got no response, but those of missing.
func (a *awaiter) failed() []failure {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failures
}

// missing says which messages up to last have no response: "messages 2 and 5".
func (a *awaiter) missing(last int) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	const shown = 10
	var numbers []string
	more := 0
	for _, r := range a.pending {
		switch {
		case r.done || r.n > last:
		case len(numbers) < shown:
			numbers = append(numbers, strconv.Itoa(r.n))
		default:
			more++
		}
	}
	if more > 0 {
		numbers = append(numbers, strconv.Itoa(more)+" more")
	}
	switch n := len(numbers); n {
	case 0:
		return "no message"
	case 1:
		return "message " + numbers[0]
	default:
		return "messages " + strings.Join(numbers[:n-1], ", ") + " and " + numbers[n-1]
	}
}

// idKey is the same for the same id, however it is escaped; the number 7 and
// the string "7" differ.
func idKey(id []byte) string {
	if len(id) > 0 && id[0] == '"' {
		text, _ := wire.Text(id)
		return `"` + text
	}
	return string(bytes.TrimSpace(id))
}
