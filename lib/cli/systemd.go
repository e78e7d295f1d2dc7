package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Notify tells the service manager about the state of the daemon: "READY=1",
// "STATUS=...", "RELOADING=1", "STOPPING=1", "WATCHDOG=1", several with newlines
// between them. The time that RELOADING=1 must come with is added. It does
// nothing when NOTIFY_SOCKET is not set, and never blocks for longer than a
// second. NOTIFY_SOCKET stays in the environment, since it is needed again; a
// child process should be started without it.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET %q: want an absolute path or an abstract socket", path)
	}
	for line := range strings.SplitSeq(state, "\n") {
		if line == "RELOADING=1" {
			state += monotonic()
			break
		}
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}

// monotonic is the line that belongs to RELOADING=1.
func monotonic() string {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return ""
	}
	return fmt.Sprintf("\nMONOTONIC_USEC=%d", ts.Nano()/1000)
}

// WatchdogInterval says how often the service manager wants to see
// "WATCHDOG=1", and whether it does. A daemon sends it twice as often. The
// environment variables that say so are removed, so that no child takes them
// for its own: it is to be called once.
func WatchdogInterval() (time.Duration, bool) {
	usec, pid := take("WATCHDOG_USEC"), take("WATCHDOG_PID")
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, false
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/1000 {
		return 0, false
	}
	return time.Duration(n) * time.Microsecond, true
}

// listenStart is the first descriptor that the service manager passes.
const listenStart = 3

// Listeners returns the open sockets that the service manager passed, in its
// order, or none. The caller closes them. The environment variables that say
// so are removed, so that no child takes them for its own: it is to be called
// once, early.
func Listeners() ([]*os.File, error) {
	return listeners(listenStart)
}

// listeners is Listeners with the number of the first descriptor.
func listeners(start int) ([]*os.File, error) {
	fds, pid, names := take("LISTEN_FDS"), take("LISTEN_PID"), strings.Split(take("LISTEN_FDNAMES"), ":")
	if fds == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(fds)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS %q: want a number of descriptors", fds)
	}
	var files []*os.File
	var mistakes []error
	for i := range n {
		fd := start + i
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, true); err != nil {
			mistakes = append(mistakes, fmt.Errorf("descriptor %d of LISTEN_FDS: %w", fd, err))
			continue
		}
		name := "LISTEN_FD_" + strconv.Itoa(fd)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	if len(mistakes) > 0 {
		for _, f := range files {
			f.Close()
		}
		return nil, errors.Join(mistakes...)
	}
	return files, nil
}

// take reads an environment variable and removes it.
func take(name string) string {
	v := os.Getenv(name)
	os.Unsetenv(name)
	return v
}
