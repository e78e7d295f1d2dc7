package api

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// fill listens at path with the shortest backlog and fills it.
func fill(t *testing.T, path string) (listener int) {
	t.Helper()
	listener, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(listener) })
	if err := syscall.Bind(listener, &syscall.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(listener, 0); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conn, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			return listener
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the backlog does not fill up")
	return 0
}

func TestABusyConnectorIsTriedAgain(t *testing.T) {
	path := filepath.Join(newDir(t), "s")
	listener := fill(t, path)
	got := make(chan error, 1)
	go func() {
		conn, err := connect(within(t), path)
		if err == nil {
			conn.Close()
		}
		got <- err
	}()
	fd, _, err := syscall.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := <-got; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestABusyConnectorIsNotTriedForEver(t *testing.T) {
	path := filepath.Join(newDir(t), "s")
	fill(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := connect(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestErrorsOfConnectingSayWhatToDo(t *testing.T) {
	denied := &os.PathError{Op: "open", Path: "/d", Err: syscall.EACCES}
	for _, tt := range []struct {
		got  error
		is   error
		want string
	}{
		{dialError("/d/s", denied), ErrRefused, "everybody_can_send_messages"},
		{dirError("/d", denied), ErrRefused, "-dir"},
		{dirError("/d", &os.PathError{Op: "open", Path: "/d", Err: syscall.ENOTDIR}), syscall.ENOTDIR, "directory /d: "},
	} {
		if !errors.Is(tt.got, tt.is) || !strings.Contains(tt.got.Error(), tt.want) {
			t.Errorf("got %v, want %v with %q", tt.got, tt.is, tt.want)
		}
	}
}

func TestAConnectorThatIsNotThereIsNamedOnce(t *testing.T) {
	dir := newDir(t)
	newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(*link.Link, uint64, *wire.Frame) error { return nil })
	_, err := Open(within(t), Target{Dir: dir, Connector: "x"})
	if !errors.Is(err, ErrNoConnector) || strings.Count(err.Error(), "no connector") != 1 ||
		strings.Contains(err.Error(), "file does not exist") || !strings.Contains(err.Error(), "c1") {
		t.Errorf("got %v", err)
	}
}

func TestARequestThatThePeerRefuses(t *testing.T) {
	for header, want := range map[string]error{
		`{"error": "disconnected_during_wait"}`:                        ErrNoAnswer,
		`{"error": "refused: message type not in recv_message_types"}`: ErrDeclined,
		`{"message_type": "any"}`:                                      nil,
	} {
		if _, err := answered(Message{Header: []byte(header)}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", header, err, want)
		}
	}
}
