// Aioc-chat lets two people on two hosts talk and hand each other files, with
// nothing to set up. See aioc-chat(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"aioc/lib/chat"
	"aioc/lib/cli"
)

const name = "aioc-chat"

func main() {
	ctx, end := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	stdin := int(os.Stdin.Fd())
	found, _ := term.GetState(stdin) // nil when it is no terminal
	go func() {
		s := <-signals
		end(signalError{s.(syscall.Signal)})
		s = <-signals // the second one ends the program at once
		if found != nil {
			signal.Ignore(syscall.SIGTTOU) // a command may have the terminal
			_ = term.Restore(stdin, found)
		}
		os.Exit(cli.Signaled(int(s.(syscall.Signal))))
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// signalError ends the chat because of a signal.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// run is the program.
func run(ctx context.Context, args []string, stdin, stdout, stderr *os.File) int {
	o, status, done := parse(args, stdin, stdout, stderr)
	if done {
		return status
	}
	if o.Upload == "" {
		if err := cli.CheckOutput(stdout); err != nil {
			cli.Report(stderr, name, err)
			return cli.Failed
		}
	}
	err := chat.Run(ctx, *o)
	if err == nil {
		return cli.OK
	}
	var sig signalError
	if errors.As(err, &sig) {
		return cli.Signaled(int(sig.Signal))
	}
	cli.Report(stderr, name, err)
	switch {
	case errors.Is(err, chat.ErrAway):
		return cli.Unavailable
	case errors.Is(err, chat.ErrRefused):
		return cli.Refused
	case errors.Is(err, chat.ErrBroken), errors.Is(err, chat.ErrBusy), cli.Full(err):
		return cli.Temporary
	}
	return cli.Failed
}

// parse reads the command line. When done is true the program ends with status.
func parse(args []string, stdin, stdout, stderr *os.File) (o *chat.Options, status int, done bool) {
	set := cli.New(name, "[flags]", stdout, stderr)
	target := set.String("target", "", "HOST", "the host to call (default: wait for a call)")
	port := set.Int("port", chat.DefaultPort, 0, "PORT", "where the end that is called listens")
	bind := set.String("bind", "", "ADDRESS", "listen on this address or interface only")
	accept := set.Bool("accept", "ask nobody whether a caller may talk")
	upload := set.String("upload", "", "PATH", "send this file or directory, and leave")
	shell := set.String("exec", "", "SHELL", "give the other end this shell on this host")
	plain := set.Bool("plain", "no line editing, as when not on a terminal")
	rest, status, done := set.Parse(args)
	if done {
		return nil, status, true
	}
	mistake := func(format string, args ...any) (*chat.Options, int, bool) {
		return nil, set.Mistake(format, args...), true
	}
	if len(rest) > 0 {
		return mistake("unexpected argument %q (the host to call goes with -target)", rest[0])
	}
	// An empty argument is most likely a shell variable that is not set.
	for _, f := range []struct{ name, value string }{
		{"target", *target}, {"bind", *bind}, {"upload", *upload}, {"exec", *shell},
	} {
		if f.value == "" && set.Given(f.name) {
			return mistake("-%s: the argument is empty", f.name)
		}
	}
	if host, port, err := net.SplitHostPort(*target); err == nil {
		return mistake("-target %s: the port goes with -port: -target %s -port %s", *target, host, port)
	}
	asks := term.IsTerminal(int(stdin.Fd()))
	listens := *target == ""
	switch {
	case *port > 65535:
		return mistake("-port %d: ports end at 65535", *port)
	case *port == 0 && !listens:
		return mistake("-port 0 can't be called: it lets an end that is called choose one")
	case *bind != "" && !listens:
		return mistake("-bind can't be used with -target: it is for the end that is called")
	case *upload != "" && *shell != "":
		return mistake("-upload can't be used with -exec: it leaves when the file has arrived")
	case *shell != "" && *accept && listens:
		return mistake("-exec can't be used with -accept: anybody who calls would get a shell")
	case listens && !*accept && !asks:
		return mistake("standard input is no terminal, so nobody can be asked whether a caller may talk: add -accept to take any")
	case *shell != "" && !*accept && !asks:
		return mistake("standard input is no terminal, so nobody can be asked whether the other end may have a shell")
	}
	o = &chat.Options{
		Target: *target, Port: *port, Bind: *bind, Accept: *accept, Upload: *upload, Plain: *plain, Dumb: dumb(os.Getenv("TERM")),
		State: stateDir(), Stdin: stdin, Stdout: stdout, Stderr: stderr,
	}
	var err error
	if o.Dir, err = os.Getwd(); err != nil {
		return fail(stderr, fmt.Errorf("working directory: %w", err), cli.Failed)
	}
	if *upload != "" {
		if _, err := os.Stat(*upload); err != nil {
			return fail(stderr, fmt.Errorf("-upload: %w", err), cli.Failed)
		}
	}
	if *shell != "" {
		path, err := exec.LookPath(*shell)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
			return fail(stderr, fmt.Errorf("-exec: %w", err), cli.NotFound)
		case err != nil:
			return fail(stderr, fmt.Errorf("-exec: %w", err), cli.CannotExecute)
		}
		o.Exec = path
	}
	return o, 0, false
}

// fail reports what ends the program before it has begun.
func fail(stderr *os.File, err error, status int) (*chat.Options, int, bool) {
	cli.Report(stderr, name, err)
	return nil, status, true
}

// dumb tells whether a terminal of this kind knows no escape sequences.
func dumb(kind string) bool { return kind == "" || kind == "dumb" }

// stateDir is where the keys of a user are, or "" for one without a home.
func stateDir() string {
	// As the XDG base directory specification has it: a relative one is ignored.
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "aioc")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".local", "state", "aioc")
}
