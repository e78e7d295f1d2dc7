// Aioc-send sends what it reads on standard input through a running connector.
// See aioc-send(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/wire"
)

const name = "aioc-send"

// grace is how long the connector has to answer for what is on its way when
// the program is told to end.
const grace = 500 * time.Millisecond

// patience is how long a run is taken to be a short one, as most are in a shell
// loop. A short one uses one processor and leaves signals to the system: to
// start other threads would take longer than its work.
const patience = 50 * time.Millisecond

func main() {
	processors := runtime.GOMAXPROCS(1)
	ctx, end := context.WithCancelCause(context.Background())
	time.AfterFunc(patience, func() {
		runtime.GOMAXPROCS(processors)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
		s := <-signals
		signal.Stop(signals) // the second one ends the program at once
		end(signalError{s.(syscall.Signal)})
	})
	p := program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, connect: connect}
	os.Exit(p.run(ctx, os.Args[1:]))
}

// The statuses that a composer can ask for.
const (
	usage   = cli.Usage
	refused = cli.Refused
)

// statusError is an error that knows its exit status.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// signalError ends the work because of a signal.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// errTimeout ends the work because of -timeout.
var errTimeout = errors.New("time is up")

// options is the command line.
type options struct {
	target                    api.Target
	typ, to, tag              string
	requestID, responseID     string
	requestJSON, responseJSON []byte // the same as JSON text
	binary                    string
	lines, records, raw       bool
	envelope                  bool
	ack, await, wait          bool
	publish                   bool
	id                        string
	ttl                       time.Duration // 0: none
	file                      attached
	input                     bool          // standard input is read, also with a file
	timeout                   time.Duration // 0: none
}

// parse reads the command line. When done is true the program ends with status.
func parse(args []string, stdout, stderr io.Writer) (o *options, status int, done bool) {
	o = new(options)
	set := cli.New(name, "[flags] <input", stdout, stderr)
	file, dir, connector := set.Config(), set.Dir(), set.Connector()
	typ := set.String("type", "", "TYPE", "message type (default: the first of send_message_types)")
	to := set.String("to", "", "NAME", "the client it is for; a server needs it")
	tag := set.String("tag", "", "TAG", "label of the messages")
	requestID := set.String("request-id", "", "ID", "request_id: digits are an integer, all else a string")
	responseID := set.String("response-id", "", "ID", "response_id: answer to the request with this id")
	filePath := set.String("file", "", "PATH", "send this file with the message")
	fileType := set.String("file-type", "", "TYPE", "where the peer stores the file (default: as -type)")
	fileName := set.String("file-name", "", "NAME", "its name there (default: as here)")
	remove := set.Bool("delete", "remove the file here when it was sent")
	owner := set.String("owner", "", "USER:GROUP", "who the file is to belong to, if the peer lets us choose")
	bin := set.String("binary", "", "FILE", "each message has the content of FILE as its binary part")
	lines := set.Bool("lines", "each line is a message (default: each JSON value)")
	records := set.Bool("0", "each NUL-ended record is a message")
	raw := set.Bool("raw", "all input is one message")
	whole := set.Bool("envelope", "each JSON object is a whole message; with -await print whole responses")
	ack := set.Bool("ack", "wait until the peer has taken the messages")
	await := set.Bool("await", "wait for the response to each message and print it")
	publish := set.Bool("publish", "the type is a topic: to all who subscribe to it")
	wait := set.Bool("wait", "wait for a peer that is away")
	id := set.String("id", "", "ID", "a message with an id that was sent before is not taken again")
	ttl := set.Duration("ttl", 0, "D", "drop messages that nobody has received after this time")
	timeout := set.Duration("timeout", 0, "D", "how long to wait at most: for each response (default 60s), or with -ack or -wait in all")
	rest, status, done := set.Parse(args)
	if done {
		return nil, status, true
	}
	mistake := func(format string, args ...any) (*options, int, bool) {
		return nil, set.Mistake(format, args...), true
	}
	*o = options{
		target: api.Target{ConfigFile: *file, Dir: *dir, Connector: *connector},
		typ:    *typ, to: *to, tag: *tag, requestID: *requestID, responseID: *responseID, binary: *bin,
		lines: *lines, records: *records, raw: *raw, envelope: *whole,
		ack: *ack, await: *await, wait: *wait, publish: *publish, id: *id, ttl: *ttl, timeout: *timeout,
	}
	if set.Given("config") && !set.Given("dir") {
		o.target.PreferFile()
	}
	if o.input = *filePath == ""; !o.input && len(rest) > 0 && rest[0] == "-" {
		o.input, rest = true, rest[1:]
	}
	if len(rest) > 0 {
		return mistake("unexpected argument %q: messages are read from standard input", rest[0])
	}
	// An empty argument is most likely a shell variable that is not set.
	for _, f := range []struct{ name, value string }{
		{"type", o.typ}, {"to", o.to}, {"tag", o.tag}, {"binary", o.binary}, {"id", o.id},
		{"file", *filePath}, {"file-type", *fileType}, {"file-name", *fileName}, {"owner", *owner},
	} {
		if f.value == "" && set.Given(f.name) {
			return mistake("-%s: the argument is empty", f.name)
		}
	}
	var format string
	for _, f := range []struct {
		name string
		set  bool
	}{{"-lines", o.lines}, {"-0", o.records}, {"-raw", o.raw}, {"-envelope", o.envelope}} {
		if f.set && format != "" {
			return mistake("%s can't be used with %s: each says what a message of the input is", f.name, format)
		}
		if f.set {
			format = f.name
		}
	}
	if o.envelope && o.binary != "" {
		return mistake("-binary can't be used with -envelope: binary_base64 is the binary part")
	}
	if o.envelope && o.id != "" {
		return mistake("-id can't be used with -envelope: write id in it")
	}
	if o.envelope && set.Given("ttl") {
		return mistake("-ttl can't be used with -envelope: write expires in it, in milliseconds since 1970")
	}
	if set.Given("ttl") && o.ttl <= 0 {
		return mistake("-ttl: want more than 0")
	}
	if !utf8.ValidString(o.id) {
		return mistake("-id: want UTF-8")
	}
	if o.publish {
		switch {
		case o.ttl > 0:
			return mistake("-publish can't be used with -ttl: a broker does not pass that on")
		case o.envelope:
			return mistake("-publish can't be used with -envelope: write message_type _pubsub and message_type_publish in it")
		case o.await:
			return mistake("-publish can't be used with -await: subscribers do not answer the publisher")
		case o.to != "":
			return mistake("-publish can't be used with -to: it is for all who subscribe")
		case set.Given("response-id"):
			return mistake("-publish can't be used with -response-id: a response is for one peer")
		}
	}
	o.file = attached{path: *filePath, typ: *fileType, name: *fileName, owner: *owner, remove: *remove}
	if err := o.file.check(set.Given); err != nil {
		return mistake("%w", err)
	}
	switch {
	case o.file.path == "":
	case o.envelope:
		return mistake("-file can't be used with -envelope: write with_file in it")
	case !o.input && format != "":
		return mistake("%s can't be used with -file, unless the argument - says to read standard input", format)
	}
	if o.binary == "-" {
		return mistake("-binary -: standard input is the data of the messages; name a file")
	}
	if o.await && set.Given("response-id") {
		return mistake("-response-id can't be used with -await: a response is not answered itself")
	}
	var err error
	if set.Given("request-id") {
		if o.requestJSON, err = idJSON(o.requestID); err != nil {
			return mistake("-request-id %s: %w", o.requestID, err)
		}
	}
	if set.Given("response-id") {
		if o.responseJSON, err = idJSON(o.responseID); err != nil {
			return mistake("-response-id %s: %w", o.responseID, err)
		}
	}
	if o.tag != "" {
		if err := config.ValidTag(o.tag); err != nil {
			return mistake("-tag: %w", err)
		}
	}
	if set.Given("timeout") {
		if !o.await && !o.ack && !o.wait && !o.file.remove {
			return mistake("-timeout can only be used with -await, -ack, -wait or -delete")
		}
		if o.timeout == 0 {
			return mistake("-timeout: want more than 0")
		}
	}
	return o, cli.OK, false
}

// program is one run.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	connect        func(context.Context, api.Target) (client, error)
	native         bool // the connector is one of this toolkit
}

// run is the program: its arguments in, its exit status out. A signal ends ctx
// with a signalError.
func (p *program) run(ctx context.Context, args []string) int {
	o, status, done := parse(args, p.stdout, p.stderr)
	if done {
		return status
	}
	bin, err := readBinary(o.binary)
	if err != nil {
		cli.Errorf(p.stderr, name, "-binary: %w", err)
		return cli.Failed
	}
	defer o.file.close()
	if err := o.file.open(); err != nil {
		cli.Errorf(p.stderr, name, "-file: %w", err)
		var own *statusError
		if errors.As(err, &own) {
			return own.status
		}
		return cli.Failed
	}
	cl, err := p.connect(ctx, o.target)
	if err == nil {
		defer cl.Close()
		p.native = cl.Info().Native
		// What is read can be sent once: it is not tried whether the connector
		// can remove the file. A publication on the broker itself is acknowledged
		// before the subscribers have it.
		if o.file.remove && o.input && cl.Info().Passes && !(o.publish && cl.Info().Server) {
			o.removeMyself()
		}
		for err == nil {
			var c *composer
			if c, err = newComposer(cl.Info(), o, bin); err != nil {
				break
			}
			if !o.input {
				p.stdin = strings.NewReader("null") // what a Python program sends without data
			}
			status, again := p.send(ctx, cl, c, o)
			if !again {
				return status
			}
			o.removeMyself()
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	status = statusOf(err)
	var several config.Errors // a line for each
	if errors.As(err, &several) {
		err = several
	}
	cli.Report(p.stderr, name, err)
	return status
}

// removeMyself makes this program remove the file, which needs to know that the
// peer has it.
func (o *options) removeMyself() { o.file.mine, o.ack = true, true }

// readBinary reads the file of -binary, if there is one.
func readBinary(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxFrame+1))
	if err == nil && len(b) > wire.MaxFrame {
		err = fmt.Errorf("%s is longer than %d bytes", path, wire.MaxFrame)
	}
	return b, err
}

// send passes on the input to the end, and reports. If nothing was taken, since
// the connector cannot remove the file, it reports nothing, and again is true.
func (p *program) send(ctx context.Context, cl client, c *composer, o *options) (status int, again bool) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	a := newAwaiter(p.stdout, o.envelope, o.responseTimeout(), end)
	defer a.stop()
	if o.timeout > 0 && !o.await {
		defer time.AfterFunc(o.timeout, func() { end(errTimeout) }).Stop()
	}
	so := api.SendOptions{Wait: o.wait, Files: o.file.path != ""}
	way := &journey{}
	if so.Files && o.ack {
		if !o.input {
			way.meter = cli.NewMeter(p.stderr, "sending", filepath.Base(o.file.path))
			defer way.meter.Stop()
		}
		so.Progress = way.progress
	}
	if o.await || o.envelope {
		so.Responses = a.response
	}
	s := cl.Sender(so)
	defer s.Close()
	// A Put that waits is interrupted by closing, but not at once: what is on
	// its way may yet be answered.
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, s.Close) })()
	a.flush, a.ended = s.Flush, s.Ended()
	in := newInput(ctx, p.stdin, s.Flush)
	defer in.close()
	switch {
	case o.lines:
		in.cut = in.cutAt('\n')
	case o.records:
		in.cut = in.cutAt(0)
	case o.raw:
		in.cut = in.cutAll
	default:
		in.cut = in.cutValue
	}
	put := 0
	err := func() error {
		for {
			read, err := in.next()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			m, err := c.compose(read)
			if err != nil {
				return located(err, in, o)
			}
			if m.await != nil {
				if err := a.add(ctx, put+1, m.await); err != nil {
					return err
				}
			}
			if o.file.source != nil {
				err = s.PutFile(m.header, m.data, m.binary, o.file.source.File)
			} else {
				err = s.Put(m.header, m.data, m.binary)
			}
			if err != nil {
				return err
			}
			put++
		}
	}()

	finishing := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		finishing, cancel = context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
	}
	taken, missed := s.Finish(finishing)
	if missed != nil {
		err = missed // it came before what the loop met
	}
	var refusal *api.NotTaken
	if errors.As(err, &refusal) {
		a.forget(refusal.Index) // those before it were taken and will be answered
	}
	var unanswered error
	if (missed == nil || refusal != nil) && ctx.Err() == nil {
		unanswered = a.wait(ctx)
	}
	if err == nil && unanswered == nil && ctx.Err() == nil {
		way.meter.Done()
	}
	way.meter.Stop()
	if refusal != nil && refusal.Reason == "keep" && !o.file.mine && !o.input && !(o.publish && c.info.Server) && ctx.Err() == nil {
		return 0, true
	}
	status = p.report(ctx, a, o, way, put, taken, err, unanswered)
	if o.file.mine && status == cli.OK && put > 0 { // without input nobody has it
		if err := o.file.discard(); err != nil {
			cli.Errorf(p.stderr, name, "%w", err)
			status = cli.Failed
		}
	}
	return status, false
}

// located adds to an error about an envelope on which line it begins.
func located(err error, in *input, o *options) error {
	if !o.envelope {
		return err
	}
	var (
		fault *inputError
		own   *statusError
	)
	switch {
	case errors.As(err, &fault):
		return &inputError{in.where() + fault.text}
	case errors.As(err, &own):
		return &statusError{own.status, in.where() + own.text}
	}
	return err
}

// responseTimeout is how long to wait for a response.
func (o *options) responseTimeout() time.Duration {
	if o.timeout > 0 {
		return o.timeout
	}
	return time.Minute
}
