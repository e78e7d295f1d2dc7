package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"aioc/lib/cli"
)

// files returns a standard input that is empty, and files for what is written.
func files(t *testing.T) (stdin, stdout, stderr *os.File) {
	t.Helper()
	open := func(name string, flag int) *os.File {
		f, err := os.OpenFile(name, flag, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	dir := t.TempDir()
	return open("/dev/null", os.O_RDONLY), open(filepath.Join(dir, "out"), os.O_CREATE|os.O_RDWR), open(filepath.Join(dir, "err"), os.O_CREATE|os.O_RDWR)
}

// text is what was written to a file.
func text(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	notProgram := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notProgram, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args   string
		status int
		want   string
	}{
		{"-nonsense", cli.Usage, "nonsense"},
		{"host", cli.Usage, "-target"},
		{"-accept -port 70000", cli.Usage, "65535"},
		{"-target h -port 0", cli.Usage, "-port 0"},
		{"-target 127.0.0.1:15699", cli.Usage, "-target 127.0.0.1 -port 15699"},
		{"-target [::1]:15699", cli.Usage, "-target ::1 -port 15699"},
		{"-target h -bind eth0", cli.Usage, "-bind can't be used with -target"},
		{"-target h -upload /etc/passwd -exec sh", cli.Usage, "-upload can't be used with -exec"},
		{"-accept -exec sh", cli.Usage, "anybody who calls would get a shell"},
		{"-port 1", cli.Usage, "add -accept"},
		{"-target h -exec sh", cli.Usage, "nobody can be asked"},
		{"-target h -accept -exec /nowhere/sh", cli.NotFound, "no such file"},
		{"-target h -accept -exec no-such-program-here", cli.NotFound, "not found"},
		{"-target h -accept -exec " + notProgram, cli.CannotExecute, "permission denied"},
		{"-target h -upload /nowhere/file", cli.Failed, "no such file"},
		{"-target=", cli.Usage, "-target: the argument is empty"},
		{"-upload=", cli.Usage, "-upload: the argument is empty"},
	} {
		stdin, stdout, stderr := files(t)
		got := run(t.Context(), strings.Fields(test.args), stdin, stdout, stderr)
		if got != test.status || !strings.Contains(text(t, stderr), test.want) {
			t.Errorf("%s: got %d, %q, want %d, %q", test.args, got, text(t, stderr), test.status, test.want)
		}
		if out := text(t, stdout); out != "" {
			t.Errorf("%s: on standard output: %q", test.args, out)
		}
	}
}

func TestNobodyThereIsStatus69(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	stdin, stdout, stderr := files(t)
	got := run(t.Context(), []string{"-target", "127.0.0.1", "-port", strconv.Itoa(port)}, stdin, stdout, stderr)
	if got != cli.Unavailable || !strings.Contains(text(t, stderr), "refused") {
		t.Errorf("got %d, %q, want %d", got, text(t, stderr), cli.Unavailable)
	}
}

func TestASignalEndsTheChat(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	stdin, stdout, stderr := files(t)
	ctx, end := context.WithCancelCause(t.Context())
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"-accept", "-bind", "127.0.0.1", "-port", "0"}, stdin, stdout, stderr)
	}()
	limit := time.After(time.Minute)
	for !strings.Contains(text(t, stderr), "waiting for a call") {
		select {
		case <-limit:
			t.Fatalf("it does not listen: %s", text(t, stderr))
		case <-time.After(10 * time.Millisecond):
		}
	}
	end(signalError{syscall.SIGTERM})
	select {
	case got := <-status:
		if got != 128+15 {
			t.Errorf("got %d", got)
		}
	case <-limit:
		t.Fatal("it does not end")
	}
}

func TestWhereTheKeysAre(t *testing.T) {
	for _, test := range []struct{ xdg, home, want string }{
		{"/state", "/home/ann", "/state/aioc"},
		{"relative", "/home/ann", "/home/ann/.local/state/aioc"},
		{"", "/home/ann", "/home/ann/.local/state/aioc"},
		{"", "", ""},
		{"", "relative", ""},
	} {
		t.Setenv("XDG_STATE_HOME", test.xdg)
		t.Setenv("HOME", test.home)
		if got := stateDir(); got != test.want {
			t.Errorf("%q, %q: got %q, want %q", test.xdg, test.home, got, test.want)
		}
	}
}

func TestTerminalsWithoutEscapes(t *testing.T) {
	for kind, want := range map[string]bool{"": true, "dumb": true, "xterm": false, "vt100": false} {
		if got := dumb(kind); got != want {
			t.Errorf("TERM=%q: got %v, want %v", kind, got, want)
		}
	}
}
