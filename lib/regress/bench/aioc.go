package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// aioc is a line of the real programs.
type aioc struct {
	bin  string // their directory
	json bool   // messages are JSON values instead of NUL-ended records
}

func (a aioc) name() string {
	if a.json {
		return "aioc JSON"
	}
	return "aioc -0"
}

func (a aioc) input() (json, again bool) { return a.json, false }

// aiocLine is a line of the real programs with its daemons running and connected.
type aiocLine struct {
	*line
	bin            string
	server, client *child
	port           int
}

// setup is how the daemons of a line are started.
type setup struct {
	tls            bool
	in             string   // their directories are made in this one; "" for that of temporary files
	server, client []string // more flags of each
	files          bool     // the server takes files of fileType into the directory "received"
	alone          bool     // the client without a server
}

// start starts both daemons and waits until a message has gone from one end to the other.
func (a aioc) start(ctx context.Context, s setup) (*aiocLine, error) {
	l, err := newLine(ctx, s.in)
	if err != nil {
		return nil, err
	}
	al := &aiocLine{line: l, bin: a.bin}
	if err := al.open(s); err != nil {
		return nil, al.end(err)
	}
	return al, nil
}

// mode is the word of the programs for with and without TLS.
func mode(tls bool) string {
	if tls {
		return "anonymous"
	}
	return "off"
}

// open does the work of start.
func (l *aiocLine) open(s setup) (err error) {
	if l.port, err = freePort(); err != nil {
		return err
	}
	for _, dir := range []string{"server", "client"} {
		if err := os.Mkdir(l.path(dir), 0o700); err != nil {
			return err
		}
	}
	if s.tls {
		p, err := l.tool("aioc-certs", command{args: []string{"create", l.path("server")}})
		if err == nil {
			err = p.wait()
		}
		if err != nil {
			return err
		}
	}
	if s.files {
		if err := os.Mkdir(l.path("received"), 0o700); err != nil {
			return err
		}
		s.server = append(s.server[:len(s.server):len(s.server)], "-set", `recv_message_types=["any","`+fileType+`"]`,
			"-set", fmt.Sprintf(`file_recv_config={%q:{"target_directory":%q}}`, fileType, l.path("received")))
		s.client = append(s.client[:len(s.client):len(s.client)], "-set", `send_message_types=["any","`+fileType+`"]`)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", l.port)
	daemon := func(role string, args ...string) (*child, error) {
		args = append(args, "-addr", addr, "-dir", l.path(role), "-tls", mode(s.tls))
		for _, key := range []string{"certificates_directory_path", "tokens_directory_path", "default_logger_dirpath"} {
			args = append(args, "-set", key+"="+strconv.Quote(l.path(role)))
		}
		p, err := l.tool("aioc-"+role, command{args: args, lasting: true})
		if err != nil {
			return nil, err
		}
		return p, l.appears(filepath.Join(l.path(role), "uds_path_send_to_connector_"+role+"_*"))
	}
	if !s.alone {
		if l.server, err = daemon("server", s.server...); err != nil {
			return err
		}
	}
	if l.client, err = daemon("client", append(s.client[:len(s.client):len(s.client)], "-name", "client1")...); err != nil {
		return err
	}
	if s.alone {
		return nil
	}
	return l.warm()
}

// warm sends one message and receives it.
func (l *aiocLine) warm() error {
	sender, err := l.sender(command{pipeIn: true}, "-wait", "-0")
	if err != nil {
		return err
	}
	if _, err := sender.in.WriteString("warm\x00"); err != nil {
		return err
	}
	if err := errors.Join(sender.in.Close(), sender.wait()); err != nil {
		return err
	}
	receiver, err := l.receiver(command{}, "-0", "-n", "1", "-timeout", "30s")
	if err != nil {
		return err
	}
	return receiver.wait()
}

// tool starts one of the programs.
func (l *aiocLine) tool(name string, c command) (*child, error) {
	c.name, c.path, c.dir = name, filepath.Join(l.bin, name), l.dir
	return l.start(c)
}

// sender starts aioc-send at the client.
func (l *aiocLine) sender(c command, args ...string) (*child, error) {
	c.args = append([]string{"-dir", l.path("client"), "-type", "any"}, args...)
	return l.tool("aioc-send", c)
}

// receiver starts aioc-recv at the server.
func (l *aiocLine) receiver(c command, args ...string) (*child, error) {
	c.args = append([]string{"-dir", l.path("server"), "-type", "any"}, args...)
	return l.tool("aioc-recv", c)
}

// appears waits until a file matches the pattern.
func (l *aiocLine) appears(pattern string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) > 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
	}
}

// recordFlags are the flags of the tools for the form of the messages.
func recordFlags(json bool) []string {
	if json {
		return nil
	}
	return []string{"-0"}
}

func (a aioc) run(ctx context.Context, in input, count int, tls bool) (o outcome, err error) {
	if count != in.count {
		return o, fmt.Errorf("aioc: asked for %d messages of an input of %d", count, in.count)
	}
	l, err := a.start(ctx, setup{tls: tls})
	if err != nil {
		return o, err
	}
	defer func() { err = l.end(err) }()
	stdin, err := os.Open(in.path)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, stdin.Close()) }()
	flags := recordFlags(a.json)
	receiver, err := l.receiver(command{}, append(flags, "-n", strconv.Itoa(count))...)
	if err != nil {
		return o, err
	}
	begin := time.Now()
	sender, err := l.sender(command{stdin: stdin}, flags...)
	if err != nil {
		return o, err
	}
	return l.finish(begin, sender, receiver, l.server, l.client)
}

// verify sends an input through a new line and compares what comes out with it, byte by byte.
func (a aioc) verify(ctx context.Context, in input, tls bool) (err error) {
	l, err := a.start(ctx, setup{tls: tls})
	if err != nil {
		return err
	}
	defer func() { err = l.end(err) }()
	stdin, err := os.Open(in.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stdin.Close()) }()
	want, err := os.Open(in.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, want.Close()) }()
	flags := recordFlags(a.json)
	receiver, err := l.receiver(command{pipeOut: true}, append(flags, "-n", strconv.Itoa(in.count))...)
	if err != nil {
		return err
	}
	sender, err := l.sender(command{stdin: stdin}, flags...)
	if err != nil {
		return err
	}
	if err := same(receiver.out, bufio.NewReaderSize(want, bufferSize)); err != nil {
		return fmt.Errorf("%s: what arrived is not what was sent: %w", a.name(), err)
	}
	return errors.Join(sender.wait(), receiver.wait())
}

// same compares two streams to their ends.
func same(got, want io.Reader) error {
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	at := int64(0)
	for {
		n, err := io.ReadFull(want, b)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		m, gotErr := io.ReadFull(got, a[:n])
		if gotErr != nil && n > 0 {
			return fmt.Errorf("ends after %d bytes: %w", at+int64(m), gotErr)
		}
		if !bytes.Equal(a[:n], b[:n]) {
			for i := range n {
				if a[i] != b[i] {
					return fmt.Errorf("byte %d is %q, want %q", at+int64(i), a[i], b[i])
				}
			}
		}
		at += int64(n)
		if err == nil {
			continue
		}
		if n, err := got.Read(a); n > 0 || err != io.EOF {
			return fmt.Errorf("more than %d bytes", at)
		}
		return nil
	}
}
