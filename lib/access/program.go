package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"aioc/lib/fold"
)

const (
	maxRunning = 16       // of one hook, at a time
	maxWaiting = 64       // who wait for them
	maxAnswer  = 64 << 10 // bytes of standard output
	maxStderr  = 4 << 10  // bytes of standard error that are logged

	// outputWait is how long the output of a program that has ended is waited
	// for, when a process that it left behind holds it open.
	outputWait = time.Second
)

// program is a hook that is a program.
type program struct {
	name  string // of the hook
	argv  []string
	env   []string
	limit time.Duration
	fold  *fold.Log
	count func(reason string)

	slots chan struct{} // those that run
	queue chan struct{} // the same, and those that wait
}

// errNo is a program that says no.
type errNo int

func (e errNo) Error() string { return fmt.Sprintf("the program says no, with status %d", int(e)) }

// run runs the program and returns what it prints. It has p.limit for it, with
// waiting for its turn. Any error is a no; all but errNo have been logged.
func (p *program) run(ctx context.Context, env []string, stdin []byte) (string, error) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()
	select {
	case p.queue <- struct{}{}:
		defer func() { <-p.queue }()
	default:
		return "", p.failed(fmt.Errorf("too many at a time: %d wait for it", cap(p.queue)))
	}
	if p.queue != p.slots {
		select {
		case p.slots <- struct{}{}:
			defer func() { <-p.slots }()
		case <-ctx.Done():
			return "", p.ended(parent, errors.New("too many at a time: it was not its turn"))
		}
	}
	answer, err := p.exec(ctx, env, stdin)
	if err != nil && ctx.Err() != nil {
		err = p.ended(parent, err)
	} else if no := errNo(0); err != nil && !errors.As(err, &no) {
		err = p.failed(err)
	}
	if err != nil {
		return "", err
	}
	return answer, nil
}

// ended is what has become of a program whose time has ended.
func (p *program) ended(parent context.Context, err error) error {
	if parent.Err() != nil {
		return parent.Err() // the connector stops: nothing is wrong with it
	}
	return p.failed(fmt.Errorf("took longer than %v (hook_timeout): %w", p.limit, err))
}

// failed logs and counts an error.
func (p *program) failed(err error) error {
	p.count("hook failed: " + p.name)
	p.fold.Warn("hook\x00"+p.name, 1, "hook failed: taken for a no", slog.String("hook", p.name), slog.String("err", err.Error()))
	return err
}

// exec runs the program in a process group of its own, which is killed when ctx
// ends.
func (p *program) exec(ctx context.Context, env []string, stdin []byte) (string, error) {
	out := &bounded{max: maxAnswer, strict: true}
	errs := &bounded{max: maxStderr}
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(p.env[:len(p.env):len(p.env)], env...)
	cmd.Stdin = bytes.NewReader(stdin)
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = outputWait
	err := cmd.Run()
	if text := strings.TrimSpace(string(errs.b)); text != "" {
		p.fold.Warn("said\x00"+p.name, 1, "hook says", slog.String("hook", p.name), slog.String("text", text))
	}
	var exit *exec.ExitError
	switch {
	case out.full:
		return "", fmt.Errorf("printed more than %d bytes", maxAnswer)
	case ctx.Err() != nil && err != nil:
		return "", errors.New("killed")
	case errors.Is(err, exec.ErrWaitDelay):
		if len(stdin) == 0 {
			return "", nil // it said yes; what it left behind is not its answer
		}
		return "", errors.New("a process that it left behind holds its output open")
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return "", fmt.Errorf("ended by signal %d", status.Signal())
		}
		return "", errNo(exit.ExitCode())
	case err != nil && cmd.Process == nil:
		return "", fmt.Errorf("cannot be run: %w", err)
	case err != nil:
		return "", err
	}
	return string(out.b), nil
}

// bounded keeps so many bytes. What is more is dropped or, if it is strict, an
// error for the writer.
type bounded struct {
	b      []byte
	max    int
	strict bool
	full   bool
}

func (w *bounded) Write(p []byte) (int, error) {
	room := w.max - len(w.b)
	if len(p) > room {
		w.full = true
		if w.strict {
			return 0, errors.New("too much output")
		}
	}
	w.b = append(w.b, p[:min(room, len(p))]...)
	return len(p), nil
}
