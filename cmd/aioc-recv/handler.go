package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/wire"
)

// How long a failed message waits before it is tried again. At a connector of
// this toolkit it waits there, where it holds up nobody.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = time.Minute
)

// job is a message in hand.
type job struct {
	n       uint64
	typ     string
	source  string
	tag     string
	file    string // where the file is that came with it, or ""
	noFile  string // why the file that came with it was not stored, or ""
	id      []byte // JSON text of the request id, or nil
	request bool   // its sender waits for a response
	data    []byte
	binary  []byte // nil without a binary part
	tries   int    // attempts, this one included once it has begun
	failed  int    // those of them that failed with another status than 75
	key     jobKey
	stderr  string // the end of what the handler wrote there
	answer  []byte // the response that could not be sent yet, or nil
	losses  int    // of the connector, before it came
}

// jobKey tells messages apart, but for those that are the same in all that a
// handler is told.
type jobKey [sha256.Size]byte

// newJob copies what a handler needs of a message.
func newJob(n uint64, f *wire.Frame) *job {
	h := f.Header
	j := &job{
		n: n, typ: string(h.Type), source: string(h.Source), tag: string(h.Tag),
		id:      append([]byte(nil), h.RequestID...),
		request: h.AwaitResponse && h.RequestID != nil,
		data:    append([]byte(nil), f.Data...),
	}
	if n, err := strconv.Atoi(string(h.Field("tries"))); err == nil {
		j.failed = max(n, 0)
		j.tries = j.failed
	}
	j.key = sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %q", j.typ, j.source, j.tag, j.id, j.data))
	_ = wire.Fields(h.WithFile, func(key, value []byte) {
		switch string(key) {
		case "dst_path":
			j.file, _ = wire.Text(value)
		case "file_error":
			j.noFile, _ = wire.Text(value)
		}
	})
	if f.Binary != nil {
		j.binary = append([]byte{}, f.Binary...)
	}
	return j
}

// handlers gives each message to a process of its own, and tries those again
// that failed. newHandlers completes what its user has filled in.
type handlers struct {
	ctx     context.Context // ends all processes
	end     context.CancelCauseFunc
	atOnce  int
	tries   int  // after so many failures a message is a dead letter; 0: never
	native  bool // the connector keeps what is tried later, and dead letters
	attempt func(ctx context.Context, j *job) (stdout []byte, err error)
	respond func(request api.Request, data []byte) error
	done    func(n uint64, err error)
	print   func([]byte) error
	log     func(format string, args ...any)
	active  func() // called when a message has come or is done
	quiet   time.Duration
	stuck   func(waiting int) // called when, for quiet, all that is in hand waits to be tried again

	wg sync.WaitGroup

	mu        sync.Mutex
	changed   *sync.Cond // with mu: a message is no more in hand, or ctx has ended
	ready     []*job
	running   int
	waiting   int            // failed, and in a pause
	begun     int            // grows with each message that is begun
	given     int            // given up
	postponed int            // given back, to be tried later
	put75     map[jobKey]int // how often a handler has ended with 75
	losses    int            // of the connector
	ended     bool           // nothing new is begun
}

// newHandlers makes h ready.
func newHandlers(h *handlers) *handlers {
	h.changed = sync.NewCond(&h.mu)
	context.AfterFunc(h.ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changed.Broadcast()
	})
	return h
}

// take puts a message into the queue. For a Python connector, which knows no
// window, it waits while there are as many in hand as there may be. Of the
// others there may be more for a moment, when one was restarted while handlers
// ran: to wait then would be not to see it go again.
func (h *handlers) take(n uint64, f *wire.Frame) error {
	j := newJob(n, f)
	h.active()
	h.mu.Lock()
	defer h.mu.Unlock()
	for !h.native && h.inHand() >= h.window() && h.ctx.Err() == nil {
		h.changed.Wait()
	}
	j.losses = h.losses
	j.tries += h.put75[j.key]
	if j.tries > 0 && h.postponed > 0 {
		h.postponed--
	}
	h.ready = append(h.ready, j)
	h.begin()
	return nil
}

// lost drops what has not been begun, since the connector has gone away: from
// the next one it comes again, and would be done twice.
func (h *handlers) lost() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.losses++
	h.ready = nil
	h.changed.Broadcast()
}

// window is how many messages can be in hand. Beside those that are handled
// there is room for as many that have failed and wait, so that one of them does
// not stop the others. It is no more than that because what is in hand here
// cannot be done by another receiver, and while all of it waits nothing else is
// begun.
func (h *handlers) window() int { return 2 * h.atOnce }

// inHand is how many are. h.mu is held.
func (h *handlers) inHand() int { return h.running + h.waiting + len(h.ready) }

// begin starts as many handlers as there may be. h.mu is held.
func (h *handlers) begin() {
	for !h.ended && h.ctx.Err() == nil && h.running < h.atOnce && len(h.ready) > 0 {
		j := h.ready[0]
		h.ready = h.ready[1:]
		h.running++
		h.begun++
		h.wg.Go(func() {
			if h.handle(j) {
				h.active()
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			h.running--
			h.changed.Broadcast()
			h.begin()
			h.rest()
		})
	}
}

// rest has stuck called if nothing but pauses is left and nothing is begun
// soon. h.mu is held.
func (h *handlers) rest() {
	resting := func() bool { return !h.ended && h.waiting > 0 && h.waiting == h.inHand() }
	if h.stuck == nil || !resting() {
		return
	}
	begun := h.begun
	time.AfterFunc(h.quiet, func() {
		h.mu.Lock()
		n, still := h.waiting, begun == h.begun && resting()
		h.mu.Unlock()
		if still {
			h.stuck(n)
		}
	})
}

// putOff returns how many messages have failed and are with the connector, to
// be tried later.
func (h *handlers) putOff() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.postponed
}

// busy reports whether a message is being handled or about to be.
func (h *handlers) busy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running+len(h.ready) > 0
}

// holds reports whether a message is in hand, handled or not.
func (h *handlers) holds() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inHand() > 0
}

// finish waits until nothing is in hand or ctx has ended.
func (h *handlers) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.inHand() > 0 && h.ctx.Err() == nil {
		h.changed.Wait()
	}
}

// stop begins nothing new and returns when the last process has ended, which
// is soon when ctx has. What is not done then goes back to the queue because
// it is never acknowledged; stop returns how many that are.
func (h *handlers) stop() (left int) {
	h.mu.Lock()
	h.ended = true
	h.changed.Broadcast()
	h.mu.Unlock()
	h.wg.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inHand() + h.given
}

// handle makes one attempt at j and deals with the outcome. It reports whether
// j is no more in hand.
func (h *handlers) handle(j *job) bool {
	j.tries++
	if j.answer != nil {
		return h.respondTo(j)
	}
	out, err := h.attempt(h.ctx, j)
	var start *startError
	switch {
	case err != nil && (h.ctx.Err() != nil || errors.As(err, &start)):
		if start != nil {
			h.end(start)
		}
		h.back(j, err)
	case j.request:
		return h.answer(j, out, err)
	case err != nil:
		return h.failed(j, err)
	default:
		if len(out) > 0 {
			if err := h.print(out); err != nil {
				h.end(err)
				h.back(j, err)
				return true
			}
		}
		h.forget75(j)
		h.done(j.n, nil)
	}
	return true
}

// failed deals with a handler that has failed. It returns what handle does.
func (h *handlers) failed(j *job, err error) bool {
	status := -1
	var exit *exitError
	if errors.As(err, &exit) {
		status = exit.status
	}
	err = fmt.Errorf("handler %w", err)
	if status == cli.Temporary {
		h.count75(j)
		return h.again(j, err)
	}
	j.failed++
	if status != cli.BadData && (h.tries == 0 || j.failed < h.tries) {
		return h.again(j, err)
	}
	if !h.native {
		h.log("%w (type %s, try %d), given up: a Python connector keeps no dead letters", err, j.typ, j.tries)
		h.done(j.n, nil)
		return true
	}
	h.log("%w (type %s, try %d), given up: see aioc-ctl dead", err, j.typ, j.tries)
	h.forget75(j)
	why := err.Error()
	if j.stderr != "" {
		why += ": " + j.stderr
	}
	h.done(j.n, api.Dead(j.tries, why))
	return true
}

// most75 bounds the messages of which it is known how often they ended with 75.
const most75 = 10_000

// count75 counts an attempt that is no failure: the connector, which keeps the
// number of failures with the message, is not told of it.
func (h *handlers) count75(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.put75 == nil || len(h.put75) >= most75 { // others may have taken those
		h.put75 = map[jobKey]int{}
	}
	h.put75[j.key]++
}

// forget75 is called when j is done.
func (h *handlers) forget75(j *job) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.put75, j.key)
}

// back gives j back to the connector.
func (h *handlers) back(j *job, err error) {
	h.done(j.n, err)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.given++
}

// answer sends the response to a request: what the handler printed, or why it
// failed. It returns what handle does.
func (h *handlers) answer(j *job, out []byte, err error) bool {
	if err != nil {
		h.log("handler %w; the request of %s is answered with an error", err, j.source)
		out = append(wire.AppendString([]byte(`{"error": `), "handler "+err.Error()), '}')
	}
	j.answer = append([]byte{}, out...) // not nil
	return h.respondTo(j)
}

// respondTo sends the response that is in j. When the connector has no room
// for it the request is kept and the same response sent later.
func (h *handlers) respondTo(j *job) bool {
	err := h.respond(api.Request{Type: j.typ, Source: j.source, RequestID: j.id}, j.answer)
	var refusal *api.NotTaken
	switch {
	case errors.Is(err, api.ErrLost):
		h.back(j, err) // comes again from the restarted connector
		return true
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("response to %s was not taken within %v: the queue is full", j.source, respondTimeout)
		if h.ctx.Err() != nil {
			h.back(j, err)
			return true
		}
		return h.again(j, err)
	case errors.As(err, &refusal) && (refusal.Reason == "full" || refusal.Reason == "stopped") && h.ctx.Err() == nil:
		return h.again(j, fmt.Errorf("response to %s: %w", j.source, err))
	case err != nil:
		h.log("response to %s: %w", j.source, err)
	}
	h.done(j.n, nil)
	return true
}

// again has j tried again after a pause. It returns what handle does.
func (h *handlers) again(j *job, err error) bool {
	pause := pauseAfter(j.tries)
	h.log("%w (type %s, try %d), again in %v", err, j.typ, j.tries, pause.Round(10*time.Millisecond))
	if h.native && j.answer == nil {
		h.mu.Lock()
		h.postponed++
		h.mu.Unlock()
		h.done(j.n, api.Later(j.failed, pause, err.Error()))
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting++
	time.AfterFunc(pause, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.waiting--
		if j.losses == h.losses {
			h.ready = append([]*job{j}, h.ready...) // the oldest first
		}
		h.changed.Broadcast()
		h.begin()
	})
	return false
}

// pauseAfter is the pause after so many tries: it doubles, and a random half
// of it keeps those apart that failed together.
func pauseAfter(tries int) time.Duration {
	pause := lastPause
	if tries <= 10 {
		pause = min(firstPause<<(tries-1), lastPause)
	}
	return pause/2 + rand.N(pause/2+1)
}

// startError says that the command cannot be run at all.
type startError struct {
	command string
	err     error
}

func (e *startError) Error() string {
	err := e.err
	var detail *exec.Error
	if errors.As(err, &detail) {
		err = detail.Err
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Sprintf("command %q: %v", e.command, err)
}

func (e *startError) Unwrap() error { return e.err }

// status is 127 when there is no such command, else 126.
func (e *startError) status() int {
	if errors.Is(e.err, exec.ErrNotFound) || errors.Is(e.err, fs.ErrNotExist) {
		return cli.NotFound
	}
	return cli.CannotExecute
}

// never reports whether a command that failed to start with err never will.
func never(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOENT, syscall.ENOTDIR, syscall.EACCES, syscall.ENOEXEC,
		syscall.EPERM, syscall.EISDIR, syscall.ELOOP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// facts are the environment variables that tell a handler about its message.
var facts = [...]string{"AIOC_MESSAGE_TYPE", "AIOC_SOURCE_ID", "AIOC_REQUEST_ID", "AIOC_TAG", "AIOC_FILE", "AIOC_FILE_ERROR", "AIOC_BINARY", "AIOC_TRIES"}

// environment is the environment of all handlers: that of this program without
// what another handler may have been told, and with the way to the connector.
func environment(own []string, t api.Target) []string {
	env := make([]string, 0, len(own)+len(facts)+3)
next:
	for _, e := range own {
		if t.ConfigFile != "" && t.Dir == "" && strings.HasPrefix(e, "AIOC_DIR=") {
			continue // it would go before the directory in the file
		}
		for _, f := range facts {
			if strings.HasPrefix(e, f+"=") {
				continue next
			}
		}
		env = append(env, e)
	}
	// A later value wins over an earlier one.
	for _, v := range [][2]string{{"AIOC_CONFIG", t.ConfigFile}, {"AIOC_DIR", t.Dir}, {"AIOC_CONNECTOR", t.Connector}} {
		if v[1] != "" {
			env = append(env, v[0]+"="+v[1])
		}
	}
	return env
}

// idText is a request id in the form that -response-id of aioc-send reads.
func idText(id []byte) string {
	text, ok := wire.Text(id)
	if !ok || text == "" || text[0] == '"' || strings.Trim(text, "0123456789") == "" {
		return string(id)
	}
	return text
}
