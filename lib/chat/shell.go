package chat

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// window is the terminal of the other end.
type window struct {
	Term string `json:"term,omitempty"` // $TERM there; "" when only the size changed
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

const (
	// lineTerm is the terminal of a shell whose user types whole lines.
	lineTerm = "dumb"

	typedMax  = 64 << 10              // typed and not read by the shell; more is dropped
	gather    = 10 * time.Millisecond // how long its output waits for more of it
	outMax    = 16 << 10              // of its output in a message
	hangUp    = time.Second           // from SIGHUP to SIGKILL
	lastWords = time.Second           // for the output of a shell that has ended
	termWords = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+._"
)

// shell is a program in a pseudo-terminal, which the other end drives.
type shell struct {
	pty  *os.File
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended and its output is out
	how  string        // how it ended; after gone

	mu     sync.Mutex
	typed  []byte
	more   chan struct{}
	closed bool
}

// startShell starts the program path in a terminal like w. out gets its output,
// may wait, and must not be called after it has returned an error.
func startShell(path, dir string, w window, out func([]byte) error) (*shell, error) {
	m, name, err := openMaster()
	if err != nil {
		return nil, fmt.Errorf("pseudo-terminal: %w", err)
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("pseudo-terminal: %w", err)
	}
	defer slave.Close()
	s := &shell{pty: m, gone: make(chan struct{}), more: make(chan struct{}, 1)}
	s.resize(w)
	s.cmd = exec.Command(path, "-i")
	s.cmd.Dir = dir
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	for _, v := range os.Environ() {
		switch key, _, _ := strings.Cut(v, "="); key {
		case "TERM", "LINES", "COLUMNS", "PROMPT_COMMAND":
		default:
			s.cmd.Env = append(s.cmd.Env, v)
		}
	}
	s.cmd.Env = append(s.cmd.Env, "TERM="+w.Term)
	if err := s.cmd.Start(); err != nil {
		m.Close()
		return nil, fmt.Errorf("shell %q: %w", path, bare(err))
	}
	go s.write()
	go func() {
		defer close(s.gone)
		silent := make(chan struct{})
		go func() {
			defer close(silent)
			s.read(out)
		}()
		s.how = "status 0"
		if err := s.cmd.Wait(); err != nil {
			s.how = err.Error()
		}
		select {
		case <-silent:
		case <-time.After(lastWords):
		}
		s.pty.Close() // also what it left in the background is hung up on
		<-silent
	}()
	return s, nil
}

// termName returns a name of a terminal that can do no harm in a shell.
func termName(s string) string {
	if s == "" || len(s) > 64 || strings.Trim(s, termWords) != "" {
		return lineTerm
	}
	return s
}

// control calls f with the descriptor of file, which stays non-blocking.
func control(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = c.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// resize gives the terminal another size.
func (s *shell) resize(w window) {
	if w.Rows == 0 || w.Cols == 0 {
		w.Rows, w.Cols = 24, 80
	}
	// It fails only on a terminal that is gone.
	_ = control(s.pty, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: w.Rows, Col: w.Cols})
	})
}

// keys are typed into the terminal. It does not wait for a program that does
// not read: what is too much for it is dropped, as a terminal does.
func (s *shell) keys(text string) {
	s.mu.Lock()
	if len(s.typed)+len(text) <= typedMax {
		s.typed = append(s.typed, text...)
	}
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// write hands the program what is typed, until the terminal is gone.
func (s *shell) write() {
	for {
		select {
		case <-s.more:
		case <-s.gone:
			return
		}
		s.mu.Lock()
		text := s.typed
		s.typed = nil
		s.mu.Unlock()
		if _, err := s.pty.Write(text); err != nil {
			return
		}
	}
}

// read passes on the output until the last program with this terminal has
// ended, or nobody wants more.
func (s *shell) read(out func([]byte) error) {
	pieces := make(chan []byte, 4)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 4096)
			n, err := s.pty.Read(buf)
			if n > 0 {
				select {
				case pieces <- buf[:n]:
				case <-stop:
					return
				}
			}
			if err != nil && !errors.Is(err, io.ErrShortBuffer) {
				return // EIO on Linux, EOF elsewhere
			}
		}
	}()
	for piece := range pieces {
		timer := time.NewTimer(gather)
	more:
		for len(piece) < outMax {
			select {
			case next, ok := <-pieces:
				if !ok {
					break more
				}
				piece = append(piece, next...)
			case <-timer.C:
				break more
			}
		}
		timer.Stop()
		if out(piece) != nil {
			return
		}
	}
}

// close ends the shell and what it has started.
func (s *shell) close() {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if !first {
		<-s.gone
		return
	}
	s.signal(syscall.SIGHUP)
	select {
	case <-s.gone:
	case <-time.After(hangUp):
	}
	s.signal(syscall.SIGKILL)
	<-s.gone
}

// signal signals the processes of the terminal: the shell's group, the one in
// the foreground, and all of its session where they can be found.
func (s *shell) signal(sig syscall.Signal) {
	pid := s.cmd.Process.Pid
	for _, other := range inSession(pid) {
		_ = unix.Kill(other, sig)
	}
	_ = control(s.pty, func(fd int) error {
		if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && group > 1 {
			_ = unix.Kill(-group, sig)
		}
		return nil
	})
	select {
	case <-s.gone: // its number may be somebody else's by now
	default:
		_ = unix.Kill(-pid, sig)
	}
}

// serve starts the shell if it is not there, for a terminal like w.
func (s *session) serve(w window) (*shell, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shell != nil || s.shellErr != nil {
		return s.shell, s.shellErr
	}
	native := s.isNative()
	var held []byte // the start of a character
	sh, err := startShell(s.c.o.Exec, s.c.o.Dir, w, func(b []byte) error {
		if native {
			return s.out.putLow(s.ctx, item{frame: s.op(opOut, 0, b)})
		}
		// The original wants text in every message.
		b = append(held, b...)
		cut := whole8(b)
		held = append([]byte(nil), b[cut:]...)
		if cut == 0 {
			return nil
		}
		return s.say(strings.ToValidUTF8(string(b[:cut]), "?"), true)
	})
	if err != nil {
		s.shellErr = err
		s.c.ui.note("%v", err)
		s.shellEnded(err.Error(), false)
		return nil, err
	}
	s.shell = sh
	s.c.ui.note("the other end has a shell now: %s", s.c.o.Exec)
	s.c.side.Go(func() {
		<-sh.gone
		s.mu.Lock()
		current := s.shell == sh
		if current {
			s.shell = nil
		}
		s.mu.Unlock()
		sh.close()
		if current {
			s.c.ui.note("the shell has ended: %s", sh.how)
			s.shellEnded(sh.how, true)
		}
	})
	return sh, nil
}

// shellEnded tells the other end, behind the output if patient.
func (s *session) shellEnded(how string, patient bool) {
	switch {
	case !s.isNative():
		_ = s.say("the shell has ended: "+how, patient)
	case patient:
		_ = s.out.putLow(s.ctx, item{frame: s.op(opOver, 0, []byte(how))})
	default:
		s.tell(opOver, 0, how)
	}
}

// whole8 returns how much of b is whole characters.
func whole8(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}

// typed hands the shell what the other end typed.
func (s *session) typed(text string) error {
	if s.c.o.Exec == "" {
		return nil
	}
	sh, err := s.serve(window{Term: lineTerm})
	if err == nil {
		sh.keys(text)
	}
	return nil
}

// resized is told the terminal of the other end.
func (s *session) resized(w window, open bool) error {
	if s.c.o.Exec == "" {
		return nil
	}
	w.Term = termName(w.Term)
	s.mu.Lock()
	sh := s.shell
	s.mu.Unlock()
	if sh == nil && open {
		sh, _ = s.serve(w)
	}
	if sh != nil {
		sh.resize(w)
	}
	return nil
}
