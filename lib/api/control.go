package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/wire"
)

// maxReply bounds the bytes of a reply to a command.
const maxReply = 64 << 20

// callReply is the data of the frame that answers a command.
type callReply struct {
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
	Reason string          `json:"reason"`
}

// Call runs a command of the connector and returns its result as JSON, null when
// there is none. An error of the command wraps one of those of package control.
//
// The commands of a Python connector answer with a text, which comes as a JSON
// string. It does not answer what it does not know or what fails: give ctx a
// deadline.
func (c *Client) Call(ctx context.Context, command string, kwargs map[string]any) (json.RawMessage, error) {
	if !c.info.Native {
		text, err := control.Call(ctx, c.paths.CommanderSocket, command, kwargs)
		if err != nil {
			if absent(err) {
				return nil, nobody(c.paths.CommanderSocket)
			}
			return nil, dialError(c.paths.CommanderSocket, err)
		}
		return json.Marshal(text)
	}
	ch, err := c.channel(ctx, greeting{})
	if err != nil {
		if absent(err) {
			return nil, nobody(c.paths.OwnSocket)
		}
		return nil, fmt.Errorf("command %s: %w", command, err)
	}
	defer ch.conn.Close()
	reply, err := ch.call(ctx, command, kwargs)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if gone(err) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if err != nil {
		return nil, fmt.Errorf("command %s: %w", command, err)
	}
	if reply.Error != "" {
		return nil, control.Failure(reply.Reason, reply.Error)
	}
	return reply.Result, nil
}

// call writes a command and reads frames until its reply.
func (ch *channel) call(ctx context.Context, command string, kwargs map[string]any) (*callReply, error) {
	data, err := json.Marshal(map[string]any{"cmd": command, "kwargs": kwargs})
	if err != nil {
		return nil, err
	}
	frame, err := wire.AppendFrame(nil, []byte(`{"message_type": "`+wire.TypeCall+`", "request_id": 1}`), data, nil)
	if err != nil {
		return nil, err
	}
	ch.r.SetMax(maxReply)
	stop := context.AfterFunc(ctx, func() { _ = ch.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := ch.conn.Write(frame); err != nil {
		return nil, err
	}
	for {
		var f wire.Frame
		if err := ch.r.Next(&f); err != nil {
			return nil, err
		}
		if string(f.Header.Type) != wire.TypeCall {
			continue
		}
		reply := &callReply{Result: json.RawMessage("null")}
		if err := json.Unmarshal(f.Data, reply); err != nil {
			return nil, errors.New("the reply is not understood")
		}
		if reply.Result == nil {
			reply.Result = json.RawMessage("null")
		}
		return reply, nil
	}
}

// OpenControl is Open for one who only gives commands: a Python connector that
// is stopped has no socket but the one for them.
func OpenControl(ctx context.Context, t Target) (*Client, error) {
	c := &Client{}
	if err := c.find(ctx, t, true); err != nil {
		return nil, err
	}
	ch, err := c.greet(ctx, greeting{})
	if err == nil {
		c.opened, c.info = ch, ch.info
		return c, nil
	}
	if !absent(err) {
		return nil, err
	}
	if _, err := os.Lstat(c.paths.CommanderSocket); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, dialError(c.paths.CommanderSocket, err)
		}
		return nil, nobody(c.paths.OwnSocket)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		// One of ours was killed and has left its sockets, unless a Python connector
		// has taken the others over. Only here, as a connection that says nothing
		// makes the original log an error.
		if alive, err := config.Alive(c.paths.CommanderSocket); err == nil && !alive {
			return nil, nobody(c.paths.OwnSocket)
		}
	}
	if err := c.find(ctx, t, false); err != nil {
		return nil, err
	}
	return c, nil
}
