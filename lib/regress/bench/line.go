package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// runTime bounds one run of a line, starting and ending its processes included.
const runTime = 90 * time.Second

// outcome is what one run of messages through a line gave.
type outcome struct {
	elapsed time.Duration // from the start of the sender to the end of the receiver
	cpu     time.Duration // of all processes together
	server  int64         // most memory of the server's daemon, in bytes
	client  int64         // of the client's
}

// subject is one kind of line, of which throughput is measured.
type subject interface {
	// name is what the tables call it.
	name() string
	// input tells whether it takes its messages as JSON, and whether it reads the same input again
	// when it needs more.
	input() (json, again bool)
	// run starts a new line, passes count messages through it and ends it.
	run(ctx context.Context, in input, count int, tls bool) (outcome, error)
}

// line is what runs: the processes of one line in a directory of their own.
type line struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	dir      string
	children []*child
}

// newLine makes an empty line in a new directory in parent; where that is "", in the one of temporary
// files if its path is short enough for sockets.
func newLine(ctx context.Context, parent string) (*line, error) {
	if parent == "" {
		if parent = os.TempDir(); len(parent) > 20 {
			parent = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(parent, "ab")
	if err != nil {
		return nil, err
	}
	l := &line{dir: dir}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	l.timer = time.AfterFunc(runTime, func() { l.cancel(fmt.Errorf("not finished in %v", runTime)) })
	return l, nil
}

// start starts a process of the line. When it fails, or ends though it was to last, the whole line
// ends with that reason, so that nobody waits for what will not come.
func (l *line) start(c command) (*child, error) {
	p, err := start(l.ctx, c, l.cancel)
	if err == nil {
		l.children = append(l.children, p)
	}
	return p, err
}

// self starts this program in one of its modes, and waits until it says that it is ready if it is
// one that says so.
func (l *line) self(c command, says bool) (p *child, word string, err error) {
	if c.path, err = os.Executable(); err != nil {
		return nil, "", err
	}
	if p, err = l.start(c); err == nil && says {
		word, err = p.ready()
	}
	return p, word, err
}

// path is the path of a file of the line.
func (l *line) path(name string) string { return filepath.Join(l.dir, name) }

// end ends all processes that are left and removes the directory. What ended the line before its time
// is a better reason than err, which is what was noticed of that.
func (l *line) end(err error) error {
	l.timer.Stop()
	if cause := context.Cause(l.ctx); cause != nil {
		err = cause
	}
	l.cancel(nil)
	for _, p := range l.children {
		p.kill()
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// finish waits for sender and receiver, then stops the daemons, and sums up.
func (l *line) finish(begin time.Time, sender, receiver, server, client *child) (o outcome, err error) {
	if err := sender.wait(); err != nil {
		return o, err
	}
	if err := receiver.wait(); err != nil {
		return o, err
	}
	o.elapsed = receiver.ended.Sub(begin)
	if _, o.server, err = memory(server.cmd.Process.Pid); err != nil {
		return o, err
	}
	if _, o.client, err = memory(client.cmd.Process.Pid); err != nil {
		return o, err
	}
	if err := errors.Join(client.stop(), server.stop()); err != nil {
		return o, err
	}
	for _, p := range []*child{sender, receiver, server, client} {
		o.cpu += p.cpu()
	}
	return o, nil
}

// relay is the yardstick: a plain copy, or one with a look-up for each frame.
type relay struct{ lookup bool }

func (r relay) name() string {
	if r.lookup {
		return "relay look-up"
	}
	return "relay copy"
}

func (r relay) input() (json, again bool) { return false, true }

// daemons starts the two relays between the socket "in", which the client makes, and the socket
// "out", on which something already listens. It returns them and the port of the server.
func (r relay) daemons(l *line, tls bool) (server, client *child, port int, err error) {
	flags := []string{"relay"}
	if tls {
		flags = append(flags, "-tls")
	}
	if r.lookup {
		flags = append(flags, "-lookup")
	}
	dir := l.dir
	args := append(flags[:len(flags):len(flags)], "-listen", "tcp:127.0.0.1:0", "-dial", "unix:out")
	server, addr, err := l.self(command{name: "relay server", args: args, dir: dir, pipeOut: true, lasting: true}, true)
	if err != nil {
		return nil, nil, 0, err
	}
	args = append(flags[:len(flags):len(flags)], "-listen", "unix:in", "-dial", "tcp:"+addr)
	client, _, err = l.self(command{name: "relay client", args: args, dir: dir, pipeOut: true, lasting: true}, true)
	if err != nil {
		return nil, nil, 0, err
	}
	a, err := netip.ParseAddrPort(addr)
	return server, client, int(a.Port()), err
}

func (r relay) run(ctx context.Context, in input, count int, tls bool) (o outcome, err error) {
	l, err := newLine(ctx, "")
	if err != nil {
		return o, err
	}
	defer func() { err = l.end(err) }()
	args := []string{"receive", "-listen", "out", "-count", fmt.Sprint(count)}
	receiver, _, err := l.self(command{name: "relay receiver", args: args, dir: l.dir, pipeOut: true}, true)
	if err != nil {
		return o, err
	}
	server, client, port, err := r.daemons(l, tls)
	if err != nil {
		return o, err
	}
	stdin, err := os.Open(in.path)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, stdin.Close()) }()
	begin := time.Now()
	args = []string{"send", "-to", "in", "-port", fmt.Sprint(port), "-count", fmt.Sprint(count)}
	sender, _, err := l.self(command{name: "relay sender", args: args, dir: l.dir, stdin: stdin}, false)
	if err != nil {
		return o, err
	}
	if err := sender.wait(); err != nil {
		return o, err
	}
	got, err := receiver.line()
	if err != nil {
		return o, err
	}
	frame := len(appendFrame(nil, headerJSON(port), record(0, in.size, false)))
	if want := fmt.Sprintf("%d %d", count, count*frame); got != want {
		return o, fmt.Errorf("relay receiver: counted %s messages and bytes, want %s", got, want)
	}
	return l.finish(begin, sender, receiver, server, client)
}

// ask sends requests through a new line of relays and the responses back.
func (r relay) ask(ctx context.Context, warm, count, size int, tls bool) (took []time.Duration, err error) {
	l, err := newLine(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() { err = l.end(err) }()
	args := []string{"answer", "-listen", "out"}
	_, _, err = l.self(command{name: "relay responder", args: args, dir: l.dir, pipeOut: true}, true)
	if err != nil {
		return nil, err
	}
	_, _, port, err := r.daemons(l, tls)
	if err != nil {
		return nil, err
	}
	args = []string{"ask", "-to", "in", "-port", fmt.Sprint(port), "-size", fmt.Sprint(size), "-warm", fmt.Sprint(warm), "-count", fmt.Sprint(count)}
	p, _, err := l.self(command{name: "relay requester", args: args, dir: l.dir, pipeOut: true}, false)
	if err != nil {
		return nil, err
	}
	return p.times()
}
