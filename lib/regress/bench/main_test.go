package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain makes the test binary what the program is: the processes of the relay.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && modes()[os.Args[1]] != nil {
		os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	// Under the race detector each process would wait for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		name, args string
		status     int
		words      string
	}{
		{"help is asked for", "-h", exitOK, "usage: bench"},
		{"unknown flag", "-x", exitUsage, "not defined"},
		{"an argument", "bin", exitUsage, `unexpected argument "bin"`},
		{"no runs", "-n 0", exitUsage, "-n must be 1 or more"},
		{"no time", "-seconds 0", exitUsage, "-seconds between"},
		{"a size too small", "-sizes 100,8", exitUsage, `-sizes: "8"`},
		{"no size", "-sizes big", exitUsage, `-sizes: "big"`},
		{"unknown mode", "-tls certs", exitUsage, `-tls: "certs"`},
		{"unknown figure", "-figures speed", exitUsage, `-figures: "speed"`},
		{"a file too small", "-file 0", exitUsage, "-file: 0"},
		{"a mode of its own without its flags", "send", exitFailed, "send: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(tt.args), nil, &stdout, &stderr)
			if text := stdout.String() + stderr.String(); status != tt.status || !strings.Contains(text, tt.words) {
				t.Errorf("got status %d and %q, want %d and %q", status, text, tt.status, tt.words)
			}
		})
	}
}

func TestProgramsMissing(t *testing.T) {
	_, err := programs(t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "run make all") {
		t.Errorf("got error %v, want one that says what to do", err)
	}
}

func TestParseStatus(t *testing.T) {
	now, most, err := parseStatus("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
	if now != 1<<20 || most != 2<<20 || err != nil {
		t.Errorf("got %d, %d, %v, want %d, %d", now, most, err, 1<<20, 2<<20)
	}
	for _, bad := range []string{"", "VmRSS: x kB\n", "VmRSS:\t1 kB\n"} {
		if _, _, err := parseStatus(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestMemoryOfThisProcess(t *testing.T) {
	now, most, err := memory(os.Getpid())
	if err != nil || now < 1<<20 || most < now {
		t.Errorf("got %d bytes now, %d at most, error %v", now, most, err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var tail tail
	for range 1000 {
		if _, err := tail.Write([]byte("a line that is not the last\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tail.Write([]byte("the last\n\n")); err != nil {
		t.Fatal(err)
	}
	if got := tail.last(); got != "the last" {
		t.Errorf("got %q, want %q", got, "the last")
	}
	if n := len(tail.buf); n > 4096 {
		t.Errorf("kept %d bytes", n)
	}
}

// shell starts a shell script as a process of a line.
func shell(t *testing.T, l *line, lasting bool, script string) *child {
	t.Helper()
	p, err := l.start(command{name: "script", path: "/bin/sh", args: []string{"-c", script}, dir: l.dir,
		pipeIn: true, pipeOut: true, lasting: lasting})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLineEndsWithTheReasonOfItsFirstFailure(t *testing.T) {
	for _, tt := range []struct {
		name, script, want string
		lasting            bool
	}{
		{"a process that fails", "echo no room >&2; exit 3", "script: exit status 3: no room", false},
		{"a daemon that ends", "exit 0", "script: ended too early", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := newLine(context.Background(), "")
			if err != nil {
				t.Fatal(err)
			}
			waiting := shell(t, l, false, "read x")
			shell(t, l, tt.lasting, tt.script)
			if err := waiting.wait(); err == nil {
				t.Error("the other process was not ended")
			}
			err = l.end(context.Canceled)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
				t.Errorf("the directory is still there: %v", err)
			}
		})
	}
}

func TestDaemonIsStopped(t *testing.T) {
	l, err := newLine(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := shell(t, l, true, `trap 'exit 0' TERM; echo ready here; while :; do read x; done`)
	if word, err := p.ready(); word != "here" || err != nil {
		t.Errorf("got %q, %v, want here", word, err)
	}
	for range 2 {
		if err := p.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if err := l.end(nil); err != nil {
		t.Errorf("end: %v", err)
	}
}

func TestReadyTellsWhyAProcessFailed(t *testing.T) {
	l, err := newLine(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	p := shell(t, l, false, "echo address in use >&2; exit 1")
	_, err = p.ready()
	if want := "script: exit status 1: address in use"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := l.end(err); err == nil {
		t.Error("end lost the reason")
	}
}

func TestRelayPassesEverything(t *testing.T) {
	in, err := writeInput(filepath.Join(t.TempDir(), "in"), 100, 100, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []relay{{lookup: false}, {lookup: true}} {
		for _, tls := range []bool{false, true} {
			t.Run(r.name()+", "+tlsText(mode(tls)), func(t *testing.T) {
				t.Parallel()
				o, err := r.run(t.Context(), in, 1234, tls)
				if err != nil {
					t.Fatal(err)
				}
				if o.elapsed <= 0 || o.cpu <= 0 || o.server < 1<<20 || o.client < 1<<20 {
					t.Errorf("got %+v, want something of everything", o)
				}
				took, err := r.ask(t.Context(), 5, 20, 100, tls)
				if err != nil {
					t.Fatal(err)
				}
				if len(took) != 20 || took[0] <= 0 {
					t.Errorf("got round trips %v, want 20", took)
				}
			})
		}
	}
}

func TestMinimalProgramSendsAFrame(t *testing.T) {
	l, err := newLine(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	minimal, err := buildMinimal(l)
	if err != nil {
		t.Fatal(l.end(err))
	}
	c, err := net.Listen("unix", l.path("sink"))
	if err != nil {
		t.Fatal(l.end(err))
	}
	took, err := l.once(command{name: "minimal", path: minimal, args: []string{"sink"}})
	if err != nil || took <= 0 {
		t.Errorf("it took %v, error %v", took, err)
	}
	conn, err := c.Accept()
	if err != nil {
		t.Fatal(l.end(err))
	}
	got, err := io.ReadAll(conn)
	if want := appendFrame(nil, []byte(`{"message_type": "any", "source_id": "client1"}`), []byte("{}")); !bytes.Equal(got, want) || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if err := l.end(nil); err != nil {
		t.Error(err)
	}
}
