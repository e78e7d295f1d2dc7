package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
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
)

// stopTime is how long a process may take to end after it was told to.
const stopTime = 15 * time.Second

// tail keeps the last bytes written to it. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > most {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-most:]...)
	}
	return len(p), nil
}

// last is the last non-empty line kept.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := bytes.TrimSpace(t.buf)
	if i := bytes.LastIndexByte(p, '\n'); i >= 0 {
		p = p[i+1:]
	}
	return strings.ToValidUTF8(string(p), "?")
}

// child is one process of a line that is measured.
type child struct {
	name   string
	cmd    *exec.Cmd
	in     *os.File      // its standard input, nil unless piped
	out    *bufio.Reader // its standard output, nil unless piped
	pipes  []*os.File
	stderr tail
	told   atomic.Bool   // to end
	done   chan struct{} // closed when it has ended
	err    error         // set before done is closed
	ended  time.Time     // likewise
}

// command is what start runs.
type command struct {
	name    string // for messages
	path    string
	args    []string
	dir     string
	stdin   *os.File // nil for none; not closed
	pipeIn  bool     // write to child.in instead
	pipeOut bool     // read from child.out; else its output is thrown away
	env     []string // added to this process's
	lasting bool     // it ends only when it is told to
}

// start runs a command. It ends with the context at the latest; the caller waits for it with wait,
// stop or kill. failed is called with the reason when it fails or ends too early.
func start(ctx context.Context, c command, failed func(error)) (*child, error) {
	p := &child{name: c.name, done: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, c.path, c.args...)
	p.cmd.Dir = c.dir
	p.cmd.Env = append(os.Environ(), c.env...)
	p.cmd.Stderr = &p.stderr
	p.cmd.WaitDelay = time.Second
	if c.stdin != nil {
		p.cmd.Stdin = c.stdin
	}
	var theirs []*os.File
	if c.pipeIn {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		p.cmd.Stdin, p.in = r, w
		p.pipes, theirs = append(p.pipes, w), append(theirs, r)
	}
	if c.pipeOut {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, errors.Join(err, closeAll(p.pipes), closeAll(theirs))
		}
		p.cmd.Stdout, p.out = w, bufio.NewReaderSize(r, bufferSize)
		p.pipes, theirs = append(p.pipes, r), append(theirs, w)
	}
	err := p.cmd.Start()
	err = errors.Join(err, closeAll(theirs))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", c.name, err), closeAll(p.pipes))
	}
	go func() {
		p.err = p.cmd.Wait()
		p.ended = time.Now()
		if c.lasting && p.err == nil && !p.told.Load() {
			p.err = errors.New("ended too early")
		}
		close(p.done)
		if err := p.failure(); err != nil && !p.told.Load() {
			failed(err)
		}
	}()
	return p, nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// failure is the error of a process that ended, with the last line it wrote to standard error; nil
// if it ended well.
func (p *child) failure() error {
	if p.err == nil {
		return nil
	}
	if last := p.stderr.last(); last != "" {
		return fmt.Errorf("%s: %w: %s", p.name, p.err, last)
	}
	return fmt.Errorf("%s: %w", p.name, p.err)
}

// wait waits for the end of the process and tells how it failed, if it did.
func (p *child) wait() error {
	<-p.done
	return errors.Join(p.failure(), closeAll(p.pipes))
}

// tell asks a process to end.
func (p *child) tell() error {
	p.told.Store(true)
	return p.cmd.Process.Signal(syscall.SIGTERM)
}

// stop asks a lasting process to end, waits for it, and ends it the hard way when it does not. That it
// ended by the signal is no failure; that it had ended before is one.
func (p *child) stop() error {
	if p.told.Swap(true) {
		return nil
	}
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	if errors.Is(err, os.ErrProcessDone) {
		return p.wait()
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		err = errors.Join(err, fmt.Errorf("%s: still running %v after SIGTERM", p.name, stopTime), p.cmd.Process.Kill())
		<-p.done
	}
	return errors.Join(err, closeAll(p.pipes))
}

// kill ends the process at once, if it still runs, and waits for that.
func (p *child) kill() {
	p.told.Store(true)
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return
	}
	<-p.done
	// The read and write ends are of no use any more, whatever Close says.
	_ = closeAll(p.pipes)
}

// line reads one line of the process's standard output.
func (p *child) line() (string, error) {
	s, err := p.out.ReadString('\n')
	if err == nil {
		return strings.TrimSuffix(s, "\n"), nil
	}
	if err == io.EOF {
		<-p.done
		if err := p.failure(); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: reading its output: %w", p.name, err)
}

// ready reads the line "ready WORD" that the children made by this program write when they can be
// used, and returns WORD.
func (p *child) ready() (string, error) {
	s, err := p.line()
	if err != nil {
		return "", err
	}
	word, ok := strings.CutPrefix(s, "ready")
	if !ok {
		return "", fmt.Errorf("%s: said %q instead of ready", p.name, s)
	}
	return strings.TrimSpace(word), nil
}

// times reads what times wrote at the other end, and waits for the process.
func (p *child) times() ([]time.Duration, error) {
	var took []time.Duration
	s, err := p.line()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(s), &took); err != nil {
		return nil, fmt.Errorf("%s: its output: %w", p.name, err)
	}
	return took, p.wait()
}

// cpu is the processor time of an ended process, user and system.
func (p *child) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// memory is what a running process has in memory now and what it had at most, in bytes. Where there
// is no /proc both are what ps(1) says now.
func memory(pid int) (now, most int64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err == nil {
		return parseStatus(string(status))
	}
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("memory of process %d: ps: %w", pid, err)
	}
	kib, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("memory of process %d: ps: %w", pid, err)
	}
	return kib << 10, kib << 10, nil
}

// parseStatus finds the resident size now and at most in the text of a /proc/PID/status.
func parseStatus(status string) (now, most int64, err error) {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		var to *int64
		switch key {
		case "VmRSS":
			to = &now
		case "VmHWM":
			to = &most
		default:
			continue
		}
		number, _, _ := strings.Cut(strings.TrimSpace(value), " ")
		kib, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("process status: %s: %w", key, err)
		}
		*to = kib << 10
	}
	if now == 0 || most == 0 {
		return 0, 0, errors.New("process status: no VmRSS or VmHWM")
	}
	return now, most, nil
}
