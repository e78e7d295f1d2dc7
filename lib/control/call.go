package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Limits of calls, the last two on the commander socket.
const (
	maxCommand  = 1 << 20          // bytes of a command, or of its arguments
	maxReply    = 64 << 20         // bytes of a reply
	bodyTimeout = 10 * time.Second // for a command, which a tool sends at once
)

// command is a call as it is sent on the commander socket.
type command struct {
	Cmd    string          `json:"cmd"`
	Kwargs json.RawMessage `json:"kwargs"`
}

// Serve reads one command from c, a connection of the commander socket, runs
// it and replies. It does not close c. A command that fails is answered with a
// text that begins with "error: ", or with what the method OriginalReply of the
// error returns, and the failure returned.
//
// Differs: the original neither answers a command that it does not know or
// that fails nor closes the connection.
func (r *Registry) Serve(ctx context.Context, c net.Conn) error {
	if err := c.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	body, err := readSized(c, maxCommand)
	if err == io.EOF {
		return nil // somebody looked whether we are alive
	}
	if err != nil && !errors.Is(err, ErrArgument) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("command: %w", err)
	}
	var cmd command
	var result any
	if err != nil {
		// Its length says that it is too big.
	} else if err = json.Unmarshal(body, &cmd); err != nil {
		err = fmt.Errorf("%w: the command is not a JSON object with cmd and kwargs", ErrArgument)
	} else if cmd.Cmd == "" {
		return nil
	} else {
		result, err = r.Call(ctx, cmd.Cmd, cmd.Kwargs)
	}
	text := Text(result)
	if err != nil {
		text = "error: " + err.Error()
		var original interface{ OriginalReply() string }
		if errors.As(err, &original) {
			text = original.OriginalReply() // tools of the original look for it
		}
	}
	if errWrite := c.SetWriteDeadline(time.Now().Add(bodyTimeout)); errWrite != nil {
		return errors.Join(err, errWrite)
	}
	return errors.Join(err, writeSized(c, []byte(text)))
}

// Call sends one command to the commander socket at path, of this toolkit or
// the original, and returns the text of the reply. kwargs, which may be nil, is
// what JSON makes an object of. The original does not reply to what it does not
// know: give ctx a deadline.
func Call(ctx context.Context, path, name string, kwargs any) (string, error) {
	args, err := json.Marshal(kwargs)
	if err != nil {
		return "", fmt.Errorf("command %s: %w", name, err)
	}
	if string(args) == "null" {
		args = []byte("{}") // null would make the original fail
	}
	body, err := json.Marshal(command{name, args})
	if err != nil {
		return "", fmt.Errorf("command %s: %w", name, err)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("command %s: %w", name, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := writeSized(c, body); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("command %s: %w", name, err)
	}
	reply, err := readSized(c, maxReply)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("command %s: no reply: %w", name, err)
	}
	return string(reply), nil
}

// readSized reads a length and so many bytes. The error is io.EOF when there is
// not even a length, and wraps ErrArgument when it is more than max.
func readSized(r io.Reader, max uint32) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > max {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrArgument, n, max)
	}
	body, err := io.ReadAll(io.LimitReader(r, int64(n))) // memory as the bytes arrive
	if err == nil && len(body) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	return body, err
}

func writeSized(w io.Writer, body []byte) error {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}
