package cli

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager listens as the service manager does, at a path or abstract name.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// told returns the next datagram.
func told(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestNotify(t *testing.T) {
	names := []string{filepath.Join(shortDir(t), "notify")}
	if runtime.GOOS == "linux" {
		names = append(names, fmt.Sprintf("@aioc-cli-test-%d", os.Getpid()))
	}
	for _, name := range names {
		conn := manager(t, name)
		t.Setenv("NOTIFY_SOCKET", name)
		for _, state := range []string{"READY=1", "STATUS=two peers\nWATCHDOG=1"} {
			if err := Notify(state); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := told(t, conn); got != state {
				t.Errorf("%s: told %q, want %q", name, got, state)
			}
		}
		if err := Notify("RELOADING=1"); err != nil {
			t.Fatal(err)
		}
		first, second, _ := strings.Cut(told(t, conn), "\n")
		usec, err := strconv.ParseInt(strings.TrimPrefix(second, "MONOTONIC_USEC="), 10, 64)
		if first != "RELOADING=1" || err != nil || usec <= 0 {
			t.Errorf("%s: reloading told %q and %q", name, first, second)
		}
	}
}

func TestNotifyWithoutAManager(t *testing.T) {
	dir := shortDir(t)
	tests := []struct {
		name, socket string
		ok           bool
	}{
		{"no manager is no error", "", true},
		{"a manager that is gone is an error", filepath.Join(dir, "gone"), false},
		{"a relative path is an error", "notify", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", tt.socket)
			if err := Notify("READY=1"); (err == nil) != tt.ok {
				t.Errorf("error %v, want ok %v", err, tt.ok)
			}
		})
	}
}

func TestWatchdogInterval(t *testing.T) {
	me := strconv.Itoa(os.Getpid())
	tests := []struct {
		name, usec, pid string
		want            time.Duration
		ok              bool
	}{
		{"for this process", "30000000", me, 30 * time.Second, true},
		{"for any process", "500000", "", 500 * time.Millisecond, true},
		{"for another process", "30000000", "1", 0, false},
		{"not asked for", "", "", 0, false},
		{"not a number", "soon", "", 0, false},
		{"too large", "9223372036854775807", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("WATCHDOG_USEC", tt.usec)
			t.Setenv("WATCHDOG_PID", tt.pid)
			if got, ok := WatchdogInterval(); got != tt.want || ok != tt.ok {
				t.Errorf("got %v, %v; want %v, %v", got, ok, tt.want, tt.ok)
			}
			if _, there := os.LookupEnv("WATCHDOG_USEC"); there {
				t.Error("WATCHDOG_USEC is still set")
			}
		})
	}
}

func TestListenersOfAnotherProcessAreNotTaken(t *testing.T) {
	for _, pid := range []string{"", "1", "x"} {
		t.Setenv("LISTEN_FDS", "1")
		t.Setenv("LISTEN_PID", pid)
		files, err := Listeners()
		if files != nil || err != nil {
			t.Errorf("LISTEN_PID %q: got %v, %v; want none", pid, files, err)
		}
		if _, there := os.LookupEnv("LISTEN_FDS"); there {
			t.Error("LISTEN_FDS is still set")
		}
	}
	t.Setenv("LISTEN_FDS", "many")
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if _, err := Listeners(); err == nil {
		t.Error("a number of descriptors that is none was taken")
	}
	t.Setenv("LISTEN_FDS", "1")
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	if _, err := listeners(1 << 20); err == nil {
		t.Error("a descriptor that is not open was taken")
	}
}

// TestListeners starts this test again as the service that is given a socket.
func TestListeners(t *testing.T) {
	if os.Getenv("CLI_TEST_SERVICE") == "1" {
		serve(t)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The shell knows its process number before it becomes the service.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestListeners$' -test.v`, os.Args[0])
	cmd.Env = append(os.Environ(), "CLI_TEST_SERVICE=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=peers", "WANT_ADDR="+l.Addr().String())
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("service: %v\n%s", err, out)
	} else if !strings.Contains(string(out), "serving "+l.Addr().String()) {
		t.Errorf("the service did not serve:\n%s", out)
	}
}

func serve(t *testing.T) {
	files, err := Listeners()
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v, %v; want one listener", files, err)
	}
	if got := files[0].Name(); got != "peers" {
		t.Errorf("name %q, want peers", got)
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := l.Addr().String(); got != os.Getenv("WANT_ADDR") {
		t.Errorf("listening on %s, want %s", got, os.Getenv("WANT_ADDR"))
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		if v, there := os.LookupEnv(name); there {
			t.Errorf("%s is still %q", name, v)
		}
	}
	fmt.Println("serving", l.Addr())
}
