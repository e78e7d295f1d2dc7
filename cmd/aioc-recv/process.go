package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"aioc/lib/wire"
)

// killAfter is how long a handler has to end by itself when it is told to.
const killAfter = 5 * time.Second

// outputWait is how long the output of a handler that has ended is waited for,
// when a process that it left behind holds it open.
const outputWait = 2 * time.Second

// processes runs one process for each attempt.
type processes struct {
	path    string   // of the command
	args    []string // the command as it was given, its name first
	env     []string
	native  bool          // the connector is one of this toolkit
	limit   time.Duration // for each attempt; 0: none
	kill    time.Duration // killAfter
	stderr  io.Writer
	log     func(format string, args ...any)
	started atomic.Bool // the command could be run at least once
}

// attempt runs the command for j and returns what it printed. The error says
// what became of the handler, in words that follow "handler ".
func (p *processes) attempt(ctx context.Context, j *job) (stdout []byte, err error) {
	env := append(p.env[:len(p.env):len(p.env)],
		"AIOC_MESSAGE_TYPE="+clean(j.typ), "AIOC_SOURCE_ID="+clean(j.source), "AIOC_TRIES="+strconv.Itoa(j.tries))
	if len(j.id) > 0 {
		env = append(env, "AIOC_REQUEST_ID="+clean(idText(j.id)))
	}
	if j.tag != "" {
		env = append(env, "AIOC_TAG="+clean(j.tag))
	}
	if j.file != "" && p.native { // a Python connector passes on what the peer wrote
		env = append(env, "AIOC_FILE="+clean(j.file))
	}
	if j.noFile != "" && p.native {
		env = append(env, "AIOC_FILE_ERROR="+clean(j.noFile))
	}
	if j.binary != nil {
		path, err := keep(j.binary)
		if path != "" {
			defer os.Remove(path)
		}
		if err != nil {
			return nil, fmt.Errorf("not started: binary part: %w", err)
		}
		env = append(env, "AIOC_BINARY="+path)
	}
	out := &limitedBuffer{max: wire.MaxFrame - wire.MaxHeader - 64}
	cmd := exec.Command(p.path, p.args[1:]...)
	cmd.Args[0] = p.args[0]
	cmd.Env = env
	if len(j.data) > 0 {
		cmd.Stdin = bytes.NewReader(j.data)
	}
	words := &lastWords{w: p.stderr}
	cmd.Stdout, cmd.Stderr = out, words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputWait
	if err := cmd.Start(); err != nil {
		if !p.started.Load() && never(err) {
			return nil, &startError{p.args[0], err}
		}
		return nil, fmt.Errorf("not started: %w", err)
	}
	p.started.Store(true)

	g := group{pid: cmd.Process.Pid, kill: p.kill}
	defer context.AfterFunc(ctx, g.end)()
	var late atomic.Bool
	if p.limit > 0 {
		defer time.AfterFunc(p.limit, func() {
			late.Store(true)
			g.end()
		}).Stop()
	}
	err = cmd.Wait()
	g.ended()
	j.stderr = words.String()
	if errors.Is(err, exec.ErrWaitDelay) {
		p.log("handler has ended, but a process that it left behind holds its output open")
		err = nil
	}
	if late.Load() {
		return nil, fmt.Errorf("took longer than %v", p.limit)
	}
	return out.Bytes(), inWords(err, out)
}

// inWords is what became of the handler.
func inWords(err error, out *limitedBuffer) error {
	if out.full {
		return fmt.Errorf("wrote more than %d bytes", out.max)
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return fmt.Errorf("was ended by signal %d", status.Signal())
	}
	return &exitError{exit.ExitCode()}
}

// exitError says that a handler has exited with a status.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("exited with status %d", e.status) }

// lastWords passes on what a handler writes to its standard error and keeps the
// end of it.
type lastWords struct {
	w   io.Writer
	end []byte
}

// mostWords is how many bytes of it are kept.
const mostWords = 2 << 10

func (l *lastWords) Write(b []byte) (int, error) {
	l.end = append(l.end, b...)
	if over := len(l.end) - mostWords; over > 0 {
		l.end = append(l.end[:0], l.end[over:]...)
	}
	return l.w.Write(b)
}

// String returns what was kept.
func (l *lastWords) String() string {
	return strings.TrimSpace(strings.ToValidUTF8(string(l.end), ""))
}

// group is the process group of a handler.
type group struct {
	pid  int
	kill time.Duration

	mu    sync.Mutex
	timer *time.Timer // of the SIGKILL; nil when end was not called
	over  bool
}

// end has the whole group end: SIGTERM, and SIGKILL if that does not help.
func (g *group) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over || g.timer != nil {
		return
	}
	syscall.Kill(-g.pid, syscall.SIGTERM)
	g.timer = time.AfterFunc(g.kill, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.over {
			syscall.Kill(-g.pid, syscall.SIGKILL)
		}
	})
}

// ended says that the handler has ended. What it left behind of a group that
// was told to end does not stay.
func (g *group) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	if g.timer != nil {
		g.timer.Stop()
		syscall.Kill(-g.pid, syscall.SIGKILL)
	}
}

// keep writes a binary part to a temporary file that only this user can read.
// The file is to be removed even when there is an error.
func keep(b []byte) (path string, err error) {
	f, err := os.CreateTemp("", "aioc-recv-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	return f.Name(), err
}

// clean makes a value fit for the environment, which has no NUL.
func clean(s string) string { return strings.ReplaceAll(s, "\x00", "\ufffd") }

// limitedBuffer takes so many bytes and no more.
type limitedBuffer struct {
	bytes.Buffer
	max  int
	full bool
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		b.full = true
		return 0, errors.New("too much output")
	}
	return b.Buffer.Write(p)
}

// lockedWriter lets several handlers write to what is not a file.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
