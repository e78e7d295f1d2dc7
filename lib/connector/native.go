package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"

	"aioc/lib/control"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/queue"
	"aioc/lib/wire"
)

// program is a connection on the connector's own socket: an intake that can
// also consume and call commands.
type program struct {
	intake
	late lateLink
	fed  bool
}

// Info is what a connector tells a program that announces itself on its own
// socket, as JSON in the data of the answer.
type Info struct {
	Name      string   `json:"name"`   // source_id of this connector
	Server    bool     `json:"server"` // else a client
	Peer      string   `json:"peer,omitempty"`
	SendTypes []string `json:"send_message_types"`
	RecvTypes []string `json:"recv_message_types"`
	Max       int64    `json:"max_message_size"`
}

// consume is the data of a _consume frame.
type consume struct {
	Types  []string `json:"types"`
	Window int      `json:"window"` // most messages not acknowledged
	Count  int      `json:"count"`  // messages in all, 0: no limit
	Drain  bool     `json:"drain"`  // say _empty when there is nothing
}

// call is the data of a _call frame, and of the answer.
type call struct {
	Cmd    string          `json:"cmd"`
	Kwargs json.RawMessage `json:"kwargs,omitempty"`
}

type callReply struct {
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
	Reason string `json:"reason,omitempty"` // of the error: see control.Reason
}

// ownExtensions are what the connector speaks on its own socket.
var ownExtensions = append(slices.Clone(extensions), wire.ExtPass)

// maxWindow bounds the messages that one program has in hand.
const maxWindow = 1 << 16

// serveOwn serves one connection of the connector's own socket.
func (c *Connector) serveOwn(ctx context.Context, conn *net.UnixConn) {
	caller, leave, ok := c.meet(conn)
	if !ok {
		return
	}
	defer leave()
	p := &program{}
	account := c.passing.account(caller)
	files := local.NewIncoming(conn, func(delta int) bool {
		ok := account(delta)
		if !ok && delta > 0 {
			c.counts.add("file passed: too many", 1)
			c.fold.Warn("passed", 1, "file refused: too many were passed that no message names", slog.Int("uid", caller.UID))
		}
		return ok
	})
	defer files.Close()
	p.intake = intake{c: c, conn: conn, ctx: ctx, caller: caller, native: true, passed: files}
	p.l = link.New(conn, c.reader(files, caller), link.Options{
		ID: c.id, Handler: p, Log: c.log, PassPings: true,
		Extensions: ownExtensions, Info: c.info,
		Greeted: func(f *wire.Frame) {
			if f != nil {
				p.wait = string(f.Header.Field("wait")) == "true"
				if f.Header.Speaks(wire.ExtPass) { // before it knows that it may
					files.Accept()
				}
			}
		},
		WindowBytes: 1 << 20, ReadTimeout: c.patience(caller),
	})
	p.late.set(p.l)
	defer p.gone()
	err := p.l.Run(ctx)
	c.localEnded("program", err)
}

// meet asks who opened a connection, and whether they may have it until leave.
// If not, it is closed.
func (c *Connector) meet(conn *net.UnixConn) (caller local.Caller, leave func(), ok bool) {
	caller, err := c.callerOf(conn)
	if err != nil {
		c.log.Warn("local program refused", "err", err)
	} else {
		leave, ok = c.enter(caller)
	}
	if !ok {
		conn.Close()
	}
	return caller, leave, ok
}

// maxStranger bounds the connections of a user who may only send.
const maxStranger = 256

// enter counts a connection of a caller, until leave, and reports whether the
// caller may have one more.
func (c *Connector) enter(caller local.Caller) (leave func(), ok bool) {
	if caller.Trusted() {
		return func() {}, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.strangers[caller.UID] >= maxStranger {
		c.counts.add("local connection refused", 1)
		c.fold.Warn("stranger", 1, "local connection refused: too many of one user", slog.Int("uid", caller.UID))
		return nil, false
	}
	c.strangers[caller.UID]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.strangers[caller.UID]--; c.strangers[caller.UID] == 0 {
			delete(c.strangers, caller.UID)
		}
	}, true
}

// localEnded logs why a local connection ended, if it is worth it.
func (c *Connector) localEnded(who string, err error) {
	switch {
	case errors.Is(err, local.ErrPassed), errors.Is(err, wire.ErrFrame), errors.Is(err, wire.ErrHeader), errors.Is(err, wire.ErrTooBig), errors.Is(err, wire.ErrMemory), errors.Is(err, link.ErrProtocol):
		c.counts.add("local protocol violation", 1)
		c.fold.Warn("local violation\x00"+who, 1, "local connection closed", slog.String("who", who), slog.String("err", err.Error()))
	case err != nil && !errors.Is(err, io.EOF):
		c.log.Debug("local connection closed", "who", who, "err", err)
	}
}

func (c *Connector) info() []byte {
	cfg := c.cfg.Load()
	text, err := json.Marshal(Info{c.id, c.server, cfg.PeerID(), cfg.SendTypes, cfg.RecvTypes, cfg.MaxMessageSize})
	if err != nil {
		return nil // strings always marshal
	}
	return text
}

func (p *program) Frame(n uint64, f *wire.Frame) error {
	if n > 0 {
		if p.stopped(n, f) {
			return nil
		}
		return p.intake.Frame(n, f)
	}
	switch string(f.Header.Type) {
	case wire.TypeConsume:
		return p.consume(f)
	case wire.TypeCall:
		return p.call(f)
	}
	return fmt.Errorf("%w: frame of type %s", link.ErrProtocol, f.Header.Type)
}

// stopped refuses messages while the connector is stopped. The socket itself
// stays, so that it can be started.
func (p *program) stopped(n uint64, f *wire.Frame) bool {
	running := p.c.running.Load()
	if !running {
		p.how.known = false // the next frame may have this header
		h := p.c.decide(f.Header, true, false, p.caller)
		p.refuse(n, &h, &link.Refusal{Reason: "stopped", Text: "the connector is stopped"})
	}
	return !running
}

// consume starts to give messages to the program.
func (p *program) consume(f *wire.Frame) error {
	fail := func(reason, text string) error {
		return p.l.Send([]wire.Edit{
			{Key: "message_type", Value: []byte(`"` + wire.TypeNack + `"`)},
			{Key: "reason", Value: wire.AppendString(nil, reason)},
			{Key: "error", Value: wire.AppendString(nil, text)},
		}, nil, nil)
	}
	if !p.caller.Trusted() {
		p.c.counts.add("consumer refused", 1)
		return fail("permission", "receiving needs the user or group of the connector, or root")
	}
	if p.fed {
		return fmt.Errorf("%w: a second _consume", link.ErrProtocol)
	}
	var want consume
	if err := json.Unmarshal(f.Data, &want); err != nil {
		return fmt.Errorf("%w: _consume: %w", link.ErrProtocol, err)
	}
	if len(want.Types) == 0 {
		want.Types = p.c.cfg.Load().RecvTypes
	}
	var queues []*queue.Queue
	for _, typ := range want.Types {
		q := p.c.inbox[typ]
		if q == nil {
			return fail("type", "message type "+typ+" is not in recv_message_types")
		}
		queues = append(queues, q)
	}
	if want.Window <= 0 || want.Window > maxWindow {
		want.Window = maxWindow
	}
	p.fed = true
	source := newFeed(queues, p.late.wake, max(want.Count, 0), !p.l.Acks())
	source.bury = p.c.bury
	if want.Drain {
		source.empty = func() {
			_ = p.l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypeEmpty + `"`)}}, nil, nil)
		}
	}
	p.l.SetWindow(want.Window)
	p.l.SetSource(source)
	return nil
}

// call runs a command.
func (p *program) call(f *wire.Frame) error {
	id := append([]byte(nil), f.Header.RequestID...)
	var want call
	var reply callReply
	err := json.Unmarshal(f.Data, &want)
	if err != nil {
		err = fmt.Errorf("%w: a call is a JSON object with cmd and kwargs", control.ErrArgument)
	} else if reply.Result, err = p.c.command(p.ctx, p.caller, want.Cmd, want.Kwargs); err != nil {
		p.c.commandFailed(p.caller, want.Cmd, err)
	}
	if err != nil {
		reply = callReply{Error: err.Error(), Reason: control.Reason(err)}
	}
	text, err := json.Marshal(reply)
	if err != nil {
		return err
	}
	edits := []wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypeCall + `"`)}}
	if len(id) > 0 {
		edits = append(edits, wire.Edit{Key: "response_id", Value: id})
	}
	return p.l.Send(edits, text, nil)
}

// commandFailed logs it. What a stranger says tells nothing apart: it would get a
// line for whatever it makes up.
func (c *Connector) commandFailed(caller local.Caller, name string, err error) {
	kind := err.Error()
	if !caller.Trusted() {
		kind = control.Reason(err) + "\x00" + strconv.Itoa(caller.UID)
	}
	attrs := []slog.Attr{slog.Int("uid", caller.UID), slog.String("err", err.Error())}
	if name != "" {
		attrs = append([]slog.Attr{slog.String("cmd", name)}, attrs...)
	}
	c.fold.Warn("command\x00"+kind, 1, "command failed", attrs...)
}

// command runs a command if the caller may.
func (c *Connector) command(ctx context.Context, caller local.Caller, name string, kwargs json.RawMessage) (any, error) {
	if known, _ := c.commands.Command(name); !caller.Trusted() && !known.Anyone {
		c.counts.add("command refused", 1)
		return nil, fmt.Errorf("%w: commands need the user or group of the connector, or root", control.ErrRefused)
	}
	return c.commands.Call(context.WithValue(ctx, ownSocket{}, true), name, kwargs)
}

// ownSocket is the key of the contexts of commands that came on the own socket,
// where what the original ignores is refused.
type ownSocket struct{}

// serveCommander serves one command on the original's commander socket.
func (c *Connector) serveCommander(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	caller, err := c.callerOf(conn)
	if err == nil && !caller.Trusted() {
		c.counts.add("command refused", 1)
		err = fmt.Errorf("%w: user %d may not give commands", control.ErrRefused, caller.UID)
	}
	if err == nil {
		err = c.commands.Serve(ctx, conn)
	}
	if err != nil {
		c.commandFailed(caller, "", err)
	}
}
