// Aioc-recv prints the messages that arrive at a running connector, or runs a
// command for each. See aioc-recv(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
)

const name = "aioc-recv"

// patience is how long a run is taken to be a short one, as many are in a shell
// loop. A short one uses one processor and leaves signals to the system: to
// start other threads would take longer than its work.
const patience = 50 * time.Millisecond

// quiet is how long nothing must have been begun for -drain to take it that
// nothing is left but messages that failed, and several times.
const quiet = time.Second

func main() {
	processors := runtime.GOMAXPROCS(1)
	ctx, end := context.WithCancelCause(context.Background())
	settle := sync.OnceFunc(func() {
		runtime.GOMAXPROCS(processors)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a write that fails says it, and is told
		go func() {
			s := <-signals
			signal.Stop(signals) // the second one ends the program at once
			end(signalError{s.(syscall.Signal)})
		}()
	})
	time.AfterFunc(patience, settle)
	p := program{stdout: os.Stdout, stderr: os.Stderr, connect: connect, settle: settle}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// signalError ends the work because of a signal.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// errTimeout ends the work because of -timeout or -idle.
var errTimeout = errors.New("time is up")

// statusError is an error that knows its exit status.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// options is the command line.
type options struct {
	target        api.Target
	types         []string
	format        format
	count         int // 0: no limit
	timeout, idle time.Duration
	drain         bool
	atOnce        int
	limit         time.Duration
	tries         int // 0: no limit
	command       []string
	path          string // of the command
}

// parse reads the command line. When done is true the program ends with status.
func parse(args []string, stdout, stderr io.Writer) (o *options, status int, done bool) {
	set := cli.New(name, "[flags]\n[flags] -- command [arguments]", stdout, stderr)
	file, dir, connector := set.Config(), set.Dir(), set.Connector()
	types := set.List("type", "TYPE", "message type, repeatable or with commas (default: all of recv_message_types)")
	raw := set.Bool("raw", "print the bytes as they came (default: each message as one JSON line)")
	nul := set.Bool("0", "print the bytes as they came, and a NUL after each message")
	whole := set.Bool("envelope", "print whole messages, each as one JSON object on a line")
	text := set.String("format", "", "TEMPLATE", "print by a Go text/template over the envelope")
	count := set.Int("n", 0, 1, "COUNT", "end after COUNT messages")
	timeout := set.Duration("timeout", 0, "D", "end after so long in all, with status 124")
	idle := set.Duration("idle", 0, "D", "end when nothing has arrived for so long, with status 124")
	drain := set.Bool("drain", "end when the queue is empty")
	atOnce := set.Int("j", 1, 1, "N", "run so many commands at once")
	limit := set.Duration("limit", 0, "D", "a command that takes longer is ended and has failed")
	tries := set.Int("tries", 0, 1, "N", "a message that a command has failed on N times becomes a dead letter")
	rest, status, done := set.Parse(args)
	if done {
		return nil, status, true
	}
	mistake := func(format string, args ...any) (*options, int, bool) {
		return nil, set.Mistake(format, args...), true
	}
	o = &options{
		target: api.Target{ConfigFile: *file, Dir: *dir, Connector: *connector},
		count:  *count, timeout: *timeout, idle: *idle, drain: *drain, atOnce: *atOnce, limit: *limit, tries: *tries,
	}
	if set.Given("config") && !set.Given("dir") {
		o.target.PreferFile()
	}
	for _, t := range *types {
		if !slices.Contains(o.types, t) {
			o.types = append(o.types, t)
		}
	}
	var dashes bool
	if n := len(args) - len(rest); n > 0 {
		dashes = args[n-1] == "--"
	}
	if len(rest) > 0 && !dashes {
		return mistake("unexpected argument %q: a message type comes after -type, a command after --", rest[0])
	}
	if dashes && len(rest) == 0 {
		return mistake("there is no command after --")
	}
	o.command = rest
	for _, f := range []struct {
		name string
		d    time.Duration
	}{{"timeout", o.timeout}, {"idle", o.idle}, {"limit", o.limit}} {
		if f.d == 0 && set.Given(f.name) {
			return mistake("-%s: want more than 0", f.name)
		}
	}

	o.format = lines
	var chosen string
	for _, f := range []struct {
		name string
		set  bool
		use  format
	}{{"-raw", *raw, raws}, {"-0", *nul, records}, {"-envelope", *whole, envelopes()}, {"-format", set.Given("format"), nil}} {
		switch {
		case !f.set:
			continue
		case chosen != "":
			return mistake("%s can't be used with %s: each says how a message is printed", f.name, chosen)
		case len(o.command) > 0:
			return mistake("%s can't be used with a command: the command gets the bytes as they came", f.name)
		}
		chosen, o.format = f.name, f.use
	}
	if chosen == "-format" {
		var err error
		if o.format, err = templates(*text); err != nil {
			return mistake("%w", err)
		}
	}
	if len(o.command) == 0 {
		for _, f := range []string{"j", "limit", "tries"} {
			if set.Given(f) {
				return mistake("-%s can only be used with a command (after --)", f)
			}
		}
		return o, cli.OK, false
	}
	var err error
	if o.path, err = exec.LookPath(o.command[0]); err != nil {
		e := &startError{o.command[0], err}
		cli.Errorf(stderr, name, "%w", e)
		return nil, e.status(), true
	}
	return o, cli.OK, false
}

// program is one run.
type program struct {
	stdout, stderr io.Writer
	connect        func(context.Context, api.Target) (client, error)
	settle         func() // the run is not a short one
}

// run is the program: its arguments in, its exit status out. A signal ends ctx
// with a signalError.
func (p *program) run(ctx context.Context, args []string) int {
	o, status, done := parse(args, p.stdout, p.stderr)
	if done {
		return status
	}
	if len(o.command) == 0 {
		if err := cli.CheckOutput(p.stdout); err != nil {
			cli.Errorf(p.stderr, name, "%w", err)
			return cli.Failed
		}
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if o.timeout > 0 {
		defer time.AfterFunc(o.timeout, func() { end(errTimeout) }).Stop()
	}
	err := p.work(ctx, end, o)
	// What ended the work comes first; an end on its own is no error.
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	status = statusOf(err)
	if spoken(err) {
		var several config.Errors // a line for each
		if errors.As(err, &several) {
			err = several
		}
		cli.Report(p.stderr, name, err)
	}
	return status
}

// work connects and receives.
func (p *program) work(ctx context.Context, end context.CancelCauseFunc, o *options) error {
	cl, err := p.connect(ctx, o.target)
	if err != nil {
		return err
	}
	defer cl.Close()
	types, err := typesOf(o, cl.Info())
	if err != nil {
		return err
	}
	if len(o.command) > 0 {
		return p.handle(ctx, end, cl, o, types)
	}
	active := func() {}
	if o.idle > 0 {
		t := time.AfterFunc(o.idle, func() { end(errTimeout) })
		defer t.Stop()
		active = func() { t.Reset(o.idle) }
	}
	out := &output{w: p.stdout, format: o.format}
	return cl.Receiver(api.ReceiveOptions{
		Types: types, Count: o.count, Drain: o.drain,
		Frame: out.frame,
		Flush: func() error {
			active()
			return out.flush()
		},
	}).Run(ctx)
}

// typesOf returns the types to receive, each of which the connector receives;
// none means all.
func typesOf(o *options, info api.Info) ([]string, error) {
	switch {
	case !info.Native && o.drain:
		return nil, &statusError{cli.Usage, "-drain can't be used here: the connector is a Python one and does not say when nothing is left; -idle may do"}
	case !info.Native && info.RecvTypes == nil: // not known
		if len(o.types) == 0 {
			return nil, &statusError{cli.Usage, "-type is missing: a Python connector does not tell what it receives (its configuration does: -config)"}
		}
		return o.types, nil
	case len(info.RecvTypes) == 0:
		return nil, &statusError{cli.Refused, "the connector receives no messages: its recv_message_types are empty"}
	case len(o.types) == 0:
		return nil, nil // all, also after the connector was restarted with others
	}
	for _, t := range o.types {
		if !slices.Contains(info.RecvTypes, t) {
			return nil, &statusError{cli.Refused, fmt.Sprintf(
				"type %q is not one that the connector receives (recv_message_types): %s", t, strings.Join(info.RecvTypes, ", "))}
		}
	}
	return o.types, nil
}

// handle runs the command for each message.
func (p *program) handle(ctx context.Context, end context.CancelCauseFunc, cl client, o *options, types []string) error {
	p.settle() // a handler must not outlive this program
	// Handlers write to a file by themselves, else several would at once.
	stderr := p.stderr
	if _, ok := stderr.(*os.File); !ok {
		stderr = &lockedWriter{w: stderr}
	}
	log := func(format string, args ...any) { cli.Errorf(stderr, name, format, args...) }
	native := cl.Info().Native
	procs := &processes{
		path: o.path, args: o.command, env: environment(os.Environ(), o.target),
		limit: o.limit, kill: killAfter, stderr: stderr, log: log, native: native,
	}
	var printing sync.Mutex
	h := newHandlers(&handlers{
		ctx: ctx, end: end, atOnce: o.atOnce, tries: o.tries, native: native, attempt: procs.attempt, respond: cl.Respond,
		log:    log,
		active: func() {},
		print: func(b []byte) error {
			printing.Lock()
			defer printing.Unlock()
			if _, err := p.stdout.Write(b); err != nil {
				return &outputError{err}
			}
			return nil
		},
	})
	if o.drain {
		h.quiet = quiet
		h.stuck = func(n int) {
			end(&statusError{cli.Temporary, fmt.Sprintf("failed and went back to the queue: %d; the next run tries again", n)})
		}
	}
	if o.idle > 0 {
		var t *time.Timer
		t = time.AfterFunc(time.Hour, func() {
			if h.busy() || !cl.Info().Native && h.holds() {
				t.Reset(o.idle)
			} else {
				end(errTimeout)
			}
		})
		defer t.Stop()
		h.active = func() { t.Reset(o.idle) }
		h.active()
	}
	r := cl.Receiver(api.ReceiveOptions{
		Types: types, Window: h.window(), Count: o.count, Drain: o.drain,
		Frame: h.take, Flush: func() error { return nil }, Manual: true, Lost: h.lost,
	})
	h.done = r.Done
	// The receiver goes on until the last handler has ended: what that one has
	// done is still acknowledged.
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		h.stop()
		cancel()
	})()
	err := r.Run(running)
	if err == nil {
		h.finish() // what a Python connector has given out is not its any more
	} else {
		end(err)
	}
	left := h.stop()
	if left > 0 && !native {
		log("%d messages were not handled and are lost: a Python connector does not keep them", left)
	}
	if n := h.putOff(); err == nil && n > 0 && o.drain {
		return &statusError{cli.Temporary, fmt.Sprintf("failed and went back to the queue: %d; the next run tries again", n)}
	}
	return err
}

// spoken reports whether err is worth a line: a signal, a timeout and a reader
// that went away are not.
func spoken(err error) bool {
	var signaled signalError
	return err != nil && !errors.As(err, &signaled) && err != errTimeout && !errors.Is(err, syscall.EPIPE)
}

// statusOf is the exit status for err.
func statusOf(err error) int {
	var (
		own      *statusError
		start    *startError
		output   *outputError
		signaled signalError
	)
	switch {
	case err == nil:
		return cli.OK
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &start):
		return start.status()
	case errors.As(err, &signaled):
		return cli.Signaled(int(signaled.Signal))
	case errors.As(err, &output):
		if errors.Is(err, syscall.EPIPE) {
			return cli.Signaled(int(syscall.SIGPIPE))
		}
		if cli.Full(err) {
			return cli.Temporary
		}
		return cli.Failed
	case errors.Is(err, errTimeout):
		return cli.Timeout
	case errors.Is(err, api.ErrLost):
		return cli.Temporary
	case errors.Is(err, api.ErrNoConnector):
		return cli.Unavailable
	case errors.Is(err, api.ErrSeveral):
		return cli.Usage
	case errors.Is(err, api.ErrRefused):
		return cli.Refused
	case errors.Is(err, api.ErrConfig):
		return cli.BadConfig
	}
	return cli.Failed
}
