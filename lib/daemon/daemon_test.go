package daemon

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/wire"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// asDaemon in the environment makes this test program one of the daemons.
const asDaemon = "DAEMON_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(asDaemon) {
	case "server", "client":
		// The one that started us has no number for us before we run.
		if os.Getenv("LISTEN_FDS") != "" {
			os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		}
		os.Exit(Run(os.Getenv(asDaemon) == "server", os.Args[1:], os.Stdout, os.Stderr))
	}
	if dir := os.Getenv(inSandbox); dir != "" {
		os.Exit(tryAll(dir))
	}
	os.Exit(m.Run())
}

// newDir returns a directory with a short name, as sockets need it.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "d")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// do runs a daemon that is to end by itself, in this process: without a sandbox,
// which would be for good.
func do(t *testing.T, server bool, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	args = append([]string{"-set", "sandbox=false"}, args...)
	var out, errs bytes.Buffer
	done := make(chan struct{})
	go func() {
		status = Run(server, args, &out, &errs)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%q does not end", args)
	}
	return status, out.String(), errs.String()
}

// daemon is a running one.
type daemon struct {
	cmd  *exec.Cmd
	mu   sync.Mutex
	log  strings.Builder
	more chan struct{} // a line has come
	done chan struct{}
}

// spawn starts a daemon as a process of its own.
func spawn(t *testing.T, who string, env []string, files []*os.File, args ...string) *daemon {
	t.Helper()
	d := &daemon{cmd: exec.Command(os.Args[0], args...), more: make(chan struct{}, 1), done: make(chan struct{})}
	d.cmd.Env = append(append(os.Environ(), asDaemon+"="+who, "GORACE=atexit_sleep_ms=0"), env...)
	d.cmd.ExtraFiles = files
	errs, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for r := bufio.NewReader(errs); ; {
			line, err := r.ReadString('\n')
			d.mu.Lock()
			d.log.WriteString(line)
			d.mu.Unlock()
			select {
			case d.more <- struct{}{}:
			default:
			}
			if err != nil {
				break
			}
		}
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
		if t.Failed() {
			t.Logf("%s: %s", who, d.text())
		}
	})
	return d
}

func (d *daemon) text() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// logs waits for a text in the log.
func (d *daemon) logs(t *testing.T, text string) {
	t.Helper()
	limit := time.After(patience)
	for !strings.Contains(d.text(), text) {
		select {
		case <-d.more:
		case <-d.done:
			if !strings.Contains(d.text(), text) {
				t.Fatalf("ended without %q", text)
			}
		case <-limit:
			t.Fatalf("the log never says %q", text)
		}
	}
}

func (d *daemon) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// ends waits for the end and returns the exit status.
func (d *daemon) ends(t *testing.T) int {
	t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

func mustWrite(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMistakesInTheCommandLineAreExplained(t *testing.T) {
	dir := newDir(t)
	asClient := mustWrite(t, filepath.Join(dir, "client.json"), `{"is_server": false, "client_name": "c1"}`)
	for _, test := range []struct {
		name   string
		server bool
		args   []string
		status int
		want   string
	}{
		{"two files", true, []string{"a", "b"}, cli.Usage, `one configuration file only, not also "b"`},
		{"a file twice", true, []string{"-config", "a", "b"}, cli.Usage, "-config can't be used with a FILE argument"},
		{"an unknown flag", true, []string{"-nosuch"}, cli.Usage, "see aioc-server -h"},
		{"a flag of the other", true, []string{"-name", "x"}, cli.Usage, "see aioc-server -h"},
		{"no such TLS", true, []string{"-tls", "maybe"}, cli.Usage, "-tls maybe: want certs, ca, token, anonymous or off"},
		{"a log format", true, []string{"-log", "xml"}, cli.Usage, "want text or json"},
		{"-set without =", true, []string{"-set", "use_ssl"}, cli.Usage, "-set use_ssl: want KEY=JSON"},
		{"-set is_server", true, []string{"-set", "is_server=false"}, cli.Usage, "-set is_server: run aioc-client instead"},
		{"-set of an unknown key", true, []string{"-set", "use_sll=false"}, cli.Usage, "use_ssl"},
		{"-set of a text", true, []string{"-set", "send_message_types=any"}, cli.Usage, "not JSON"},
		{"-set of the wrong type", true, []string{"-set", `use_ssl="no"`}, cli.Usage, "use_ssl"},
		{"a bad address", true, []string{"-addr", "x:y:z"}, cli.Usage, "-addr: "},
		{"a bad name", false, []string{"-name", "a/b"}, cli.Usage, "-name: "},
		{"a default name", false, []string{"-name", "default"}, cli.Usage, "-name: "},
		{"no such file", true, []string{"/nosuch.json"}, cli.BadConfig, "/nosuch.json"},
		{"the other daemon's file", true, []string{asClient}, cli.BadConfig, "is_server: false: this is aioc-server: run aioc-client instead"},
		{"flags after the file", true, []string{"a.json", "-t"}, cli.Usage, `-t after the file "a.json": flags come before the file`},
		{"no name of a file", true, []string{""}, cli.Usage, "the name of the configuration file is empty"},
		{"an empty name", false, []string{"-name", ""}, cli.Usage, "-name: the value is empty"},
		{"an empty address", true, []string{"-addr="}, cli.Usage, "-addr: the value is empty"},
		{"a name without letter and digit", false, []string{"-name", "-_-"}, cli.Usage, `-name: name "-_-" has no letter and no digit`},
		{"such a name in the configuration", false, []string{"-set", `client_name=":"`}, cli.Usage, "no letter and no digit"},
		{"a word for a list", true, []string{"-set", "recv_message_types=reading"}, cli.Usage, `recv_message_types='["reading"]'`},
		{"words for a list", true, []string{"-set", "recv_message_types=a,b"}, cli.Usage, `recv_message_types='["a","b"]'`},
		{"a string for a list", true, []string{"-set", `recv_message_types="a"`}, cli.Usage, `recv_message_types='["a"]'`},
		{"a type with a comma", true, []string{"-set", `recv_message_types=["a,b"]`}, cli.Usage, "contains a comma"},
		{"the template and what is in effect", true, []string{"-template", "-print-config"}, cli.Usage, "-template can't be used with -print-config"},
		{"the template and a check", true, []string{"-template", "-t"}, cli.Usage, "-template can't be used with -t"},
		{"printing and a check", true, []string{"-print-config", "-t"}, cli.Usage, "-print-config can't be used with -t"},
		{"certificates that are not there", true, []string{"-dir", dir}, cli.BadConfig, "run: aioc-certs create " + dir},
		{"no certificates for tokens", true, []string{"-dir", dir, "-tls", "token"}, cli.BadConfig, "run: aioc-certs create " + dir},
		{"a whitelist with look-around", true, []string{"-dir", dir, "-tls", "off", "-set", `whitelisted_clients_id=["a(?=b)"]`}, cli.Usage, "which has no look-around"},
		{"a hook that is missing", true, []string{"-dir", dir, "-tls", "off", "-set", `hook_server_auth_client="/nonexistent/hook"`}, cli.BadConfig, `hook_server_auth_client: "/nonexistent/hook" is not a program that can be run: no such file`},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, out, errs := do(t, test.server, test.args...)
			if status != test.status || !strings.Contains(errs, test.want) || out != "" {
				t.Errorf("got %d, %q, %q, want %d, %q", status, out, errs, test.status, test.want)
			}
		})
	}
}

func TestPrintedConfigurationsAreReadBackTheSame(t *testing.T) {
	dir := newDir(t)
	for _, server := range []bool{true, false} {
		for _, args := range [][]string{
			{"-template"},
			{"-print-config", "-dir", dir, "-tls", "off", "-addr", "127.0.0.1:7", "-set", `send_message_types=["a","b"]`},
			{"-print-config", "-dir", dir, "-tls", "anonymous"},
			{"-print-config", "-dir", dir, "-tls", "certs"},
			{"-print-config", "-dir", dir, "-tls", "ca"},
			{"-print-config", "-dir", dir, "-tls", "token"},
		} {
			if !server && args[0] != "-template" {
				args = append(args, "-name", "c1")
			}
			status, first, errs := do(t, server, args...)
			if status != 0 {
				t.Fatalf("%q: got %d, %q", args, status, errs)
			}
			var keys map[string]any
			if err := json.Unmarshal([]byte(first), &keys); err != nil || keys["is_server"] != server {
				t.Errorf("%q: got is_server %v, %v", args, keys["is_server"], err)
			}
			file := mustWrite(t, filepath.Join(dir, "again.json"), first)
			again := []string{"-print-config", file}
			if args[0] == "-template" {
				again = []string{"-print-config", "-tls", "off", "-set", `client_name="c1"`, file}
				if status, out, errs := do(t, server, again...); status != 0 || out == "" {
					t.Errorf("the template is not taken: got %d, %q", status, errs)
				}
				continue
			}
			if status, second, errs := do(t, server, again...); status != 0 || second != first {
				t.Errorf("%q: got %d, %q and\n%s\nwant\n%s", args, status, errs, second, first)
			}
		}
	}
}

func TestStartingIsRefusedWithOneLine(t *testing.T) {
	dir, addr := newDir(t), freeAddr(t)
	running := spawn(t, "server", nil, nil, "-tls", "off", "-dir", dir, "-addr", addr)
	running.logs(t, "listening")
	loose := newDir(t)
	if err := os.Chmod(loose, 0o770); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"the same name", []string{"-tls", "off", "-dir", dir, "-addr", addr}, cli.Failed, "or give this one another address with -addr or directory with -dir"},
		{"an address of another host", []string{"-tls", "off", "-dir", newDir(t), "-addr", "192.0.2.1:10673"}, cli.BadConfig, "192.0.2.1"},
		{"a file for a directory", []string{"-tls", "off", "-dir", mustWrite(t, filepath.Join(newDir(t), "f"), ""), "-addr", freeAddr(t)}, cli.BadConfig, "is not a directory"},
		{"the address in use", []string{"-tls", "off", "-dir", newDir(t), "-addr", addr}, cli.Failed, "another program listens there"},
		{"a directory for the group", []string{"-tls", "off", "-dir", loose, "-addr", freeAddr(t)}, cli.Refused, "chmod g-w " + loose},
		{"no certificate", []string{"-tls", "anonymous", "-dir", newDir(t), "-addr", freeAddr(t)}, cli.BadConfig, "run: aioc-certs create"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := spawn(t, "server", nil, nil, test.args...)
			status := d.ends(t)
			if status != test.status || !strings.Contains(d.text(), test.want) || strings.Count(d.text(), "aioc-server: ") != 1 {
				t.Errorf("got %d, %q, want %d, one line with %q", status, d.text(), test.status, test.want)
			}
		})
	}
	// One that was killed is in nobody's way.
	running.signal(t, syscall.SIGKILL)
	running.ends(t)
	again := spawn(t, "server", nil, nil, "-tls", "off", "-dir", dir, "-addr", addr)
	again.logs(t, "listening")
	again.signal(t, syscall.SIGTERM)
	if status := again.ends(t); status != 0 {
		t.Errorf("got %d after TERM, want 0", status)
	}
}

func TestReloadingKeepsTheOldWhenTheNewIsBad(t *testing.T) {
	dir := newDir(t)
	file := filepath.Join(dir, "s.json")
	good := func(types string) {
		mustWrite(t, file, fmt.Sprintf(`{"connector_files_dirpath": %q, "use_ssl": false, "is_server": true, "send_message_types": [%s]}`, dir, types))
	}
	good(`"a"`)
	d := spawn(t, "server", nil, nil, "-addr", freeAddr(t), file)
	d.logs(t, "listening")
	sendTypes := func() string {
		c, err := api.Open(t.Context(), api.Target{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return strings.Join(c.Info().SendTypes, " ")
	}
	mustWrite(t, file, `{"send_message_types": ["b"`)
	d.signal(t, syscall.SIGHUP)
	d.logs(t, "the old one stays")
	if got := sendTypes(); got != "a" {
		t.Errorf("after a bad file: got %q, want a", got)
	}
	// One whose keys are right, but not together.
	mustWrite(t, file, fmt.Sprintf(`{"connector_files_dirpath": %q, "use_ssl": false, "is_server": true, "send_message_types": ["b"],
		"max_memory_total": 1000000, "max_memory_per_queue": 2000000}`, dir))
	d.signal(t, syscall.SIGHUP)
	d.logs(t, "want at least max_memory_per_queue")
	if got := sendTypes(); got != "a" {
		t.Errorf("after a file that contradicts itself: got %q, want a", got)
	}
	good(`"a", "c"`)
	d.signal(t, syscall.SIGHUP)
	d.logs(t, "configuration read again")
	if got := sendTypes(); got != "a c" {
		t.Errorf("after a good file: got %q, want a c", got)
	}
	d.signal(t, syscall.SIGUSR1) // nothing to reopen
	d.signal(t, syscall.SIGTERM)
	if status := d.ends(t); status != 0 {
		t.Errorf("got %d, want 0", status)
	}
}

func TestQuitEndsAtOnce(t *testing.T) {
	d := spawn(t, "server", nil, nil, "-tls", "off", "-dir", newDir(t), "-addr", freeAddr(t))
	d.logs(t, "listening")
	d.signal(t, syscall.SIGQUIT)
	if status := d.ends(t); status != 131 || !strings.Contains(d.text(), "ended at once by a signal signal=quit") {
		t.Errorf("got %d, %q, want 131", status, d.text())
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	dir, addr := newDir(t), freeAddr(t)
	server := spawn(t, "server", nil, nil, "-tls", "off", "-dir", dir, "-addr", addr, "-grace", "1h")
	server.logs(t, "listening")
	// A client that takes nothing keeps it from ending.
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(frame(`{"message_type": "_handshake_no_ssl", "source_id": "c1"}`, "hello")); err != nil {
		t.Fatal(err)
	}
	server.logs(t, "link up")
	c, err := api.Open(t.Context(), api.Target{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	if err := s.Put(c.Header("any", "c1"), make([]byte, 32<<20), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Taken(t.Context()); err != nil {
		t.Fatal(err)
	}
	server.signal(t, syscall.SIGTERM)
	server.logs(t, "info stopping")
	server.signal(t, syscall.SIGTERM)
	if status := server.ends(t); status != 128+int(syscall.SIGTERM) {
		t.Errorf("got %d, want %d", status, 128+int(syscall.SIGTERM))
	}
}

func TestTheServiceManagerIsToldHowItGoes(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	told := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				t.Fatalf("never told %s: %v", want, err)
			}
			got := string(b[:n])
			if strings.HasPrefix(got, "WATCHDOG=1") && want != "WATCHDOG=1" {
				continue
			}
			if !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %s", got, want)
			}
			return
		}
	}
	// The socket to listen on is handed over.
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	file, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	defer file.Close()
	d := spawn(t, "server", []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=100000", "LISTEN_FDS=1"}, []*os.File{file},
		"-tls", "off", "-dir", dir, "-addr", "127.0.0.1:1")
	told("READY=1")
	told("WATCHDOG=1")
	d.logs(t, ln.Addr().String())
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(frame(`{"message_type": "_handshake_no_ssl", "source_id": "c1"}`, "hello")); err != nil {
		t.Fatal(err)
	}
	d.logs(t, "link up")
	d.signal(t, syscall.SIGHUP)
	told("RELOADING=1")
	told("READY=1")
	d.signal(t, syscall.SIGTERM)
	told("STOPPING=1")
	if status := d.ends(t); status != 0 {
		t.Errorf("got %d, want 0", status)
	}
}

func TestAClientIsReadyWithoutItsServer(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	d := spawn(t, "client", []string{"NOTIFY_SOCKET=" + path}, nil, "-tls", "off", "-dir", dir, "-addr", freeAddr(t))
	b := make([]byte, 4096)
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "READY=1") {
		t.Errorf("got %q, %v", b[:n], err)
	}
	d.logs(t, "no client_name: called ")
	d.signal(t, syscall.SIGINT)
	if status := d.ends(t); status != 0 {
		t.Errorf("got %d, want 0", status)
	}
}

// frame makes a frame.
func frame(header, data string) []byte {
	b, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		panic(err) // a mistake in a test
	}
	return b
}

// broken is a standard output that fails.
type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestOutputThatCannotBeWrittenIsAFailure(t *testing.T) {
	dir := newDir(t)
	for _, args := range [][]string{{"-template"}, {"-print-config", "-tls", "off"}, {"-t", "-tls", "off", "-dir", dir}} {
		for err, want := range map[error]int{syscall.EPIPE: cli.Failed, syscall.ENOSPC: cli.Temporary} {
			var errs bytes.Buffer
			if status := Run(true, args, broken{err}, &errs); status != want || !strings.Contains(errs.String(), "standard output") {
				t.Errorf("%q: got %d, %q, want %d", args, status, errs.String(), want)
			}
		}
	}
	if status := Run(true, []string{"-h"}, io.Discard, io.Discard); status != 0 {
		t.Errorf("-h: got %d", status)
	}
}
