package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"aioc/lib/config"
)

// absence is an ErrNoConnector in words of its own.
type absence struct{ text string }

func (e *absence) Error() string { return e.text }
func (e *absence) Unwrap() error { return ErrNoConnector }

// nobody is the ErrNoConnector of a socket that is not there, or that one who
// was killed has left.
func nobody(socket string) error {
	return fmt.Errorf("%w: nobody listens at %s: start aioc-server or aioc-client", ErrNoConnector, socket)
}

// connect connects to a socket. A connector that is busy with many who connect at
// once is tried again: Linux does not wait for it.
func connect(ctx context.Context, path string) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTimeout, fmt.Errorf("%w: %s: too many programs connect at once", ErrLost, path))
	defer cancel()
	var d net.Dialer
	const most = 100 * time.Millisecond
	for pause := time.Millisecond; ; pause = min(2*pause, most) {
		conn, err := d.DialContext(ctx, "unix", path)
		if !errors.Is(err, syscall.EAGAIN) {
			if err != nil && ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return conn, dialError(path, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// dialError says what to do when err is that of a permission.
func dialError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s: run as the connector's user or in its group; everybody_can_send_messages in its configuration lets others send", ErrRefused, path)
	}
	return err
}

// dirError is the failure to look for connectors in a directory.
func dirError(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: directory %s: run as the connector's user or in its group, or name another directory with -dir", ErrRefused, dir)
	}
	return fmt.Errorf("directory %s: %w", dir, err)
}

// nameTimeout is how long Names waits for a connector: one that is well answers
// at once.
const nameTimeout = 2 * time.Second

// Names is config.Names with HOST:PORT also for servers of this toolkit that are
// stopped: these are not in the list of active connectors, so they are asked.
func Names(ctx context.Context, list []config.Endpoint) []string {
	names := config.Names(list)
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	for i, e := range list {
		if !e.Server || e.Own == "" || e.Name != e.ID {
			continue
		}
		c := &Client{paths: e.Paths()}
		ch, err := c.greet(ctx, greeting{})
		if err != nil {
			continue // it goes by its ID
		}
		ch.conn.Close()
		if addr, ok := config.ParseText(ch.info.Name); ok {
			names[i] = addr.String()
		}
	}
	return names
}

// gone reports whether err is that of a connection whose other end went away
// or does not answer.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
