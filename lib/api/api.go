// Package api is what Go programs import to use a running connector: to send,
// publish, request and receive messages and to give it commands.
//
//	c, err := api.Open(ctx, api.Target{ConfigFile: "client.json"})
//	s := c.Sender(api.SendOptions{})
//	err = s.Put(c.Header("reading", ""), []byte(`{"temp":21.5}`), nil)
//	taken, err := s.Finish(ctx)
//
// A connector of this toolkit is spoken to on its own socket, where everything
// is acknowledged. One of the Python original is spoken to on its sockets for
// programs, where nothing is; Info.Native tells which it is.
package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/wire"
)

var (
	// ErrNoConnector is wrapped when no connector runs where it was sought.
	ErrNoConnector = errors.New("no connector is running")
	// ErrSeveral is wrapped when several run and none was named.
	ErrSeveral = errors.New("several connectors are running")
	// ErrRefused is wrapped when the connector does not let this user.
	ErrRefused = errors.New("permission denied")
	// ErrLost is wrapped when the connection to the connector ended.
	ErrLost = errors.New("connection to the connector lost")
	// ErrConfig is wrapped when the configuration file is wrong.
	ErrConfig = errors.New("configuration")
)

// greetTimeout is how long a connector may take to answer a greeting.
const greetTimeout = 10 * time.Second

// Target says which connector. The zero value is the only one that runs in the
// default directory.
type Target struct {
	ConfigFile string // that connector's configuration
	Dir        string // connector_files_dirpath
	Connector  string // a client's name, or HOST:PORT of a server
}

// PreferFile drops Dir when ConfigFile names a directory itself: for a Dir that
// comes from the environment, while the file is named on the command line. A file
// that cannot be read changes nothing; Open says why.
func (t *Target) PreferFile() {
	if t.ConfigFile == "" || t.Dir == "" {
		return
	}
	if cfg, err := config.Load(t.ConfigFile); err == nil && cfg.Given("connector_files_dirpath") {
		t.Dir = ""
	}
}

// Info is what is known of a connector.
type Info struct {
	Name      string   // its source_id
	Server    bool     // else a client
	Peer      string   // a client's server, as a destination_id
	SendTypes []string // nil when not known
	RecvTypes []string
	Max       int64 // bytes of a message, 0 when not known
	Native    bool  // of this toolkit: it acknowledges
	Passes    bool  // it takes files that are passed open: see Sender.PutFile
}

// Client is a connection to a connector. Its methods may be called from any
// goroutine.
type Client struct {
	info  Info // not changed after Open
	paths config.Paths

	// Made by Open and not used yet, one of them. mu guards them.
	mu     sync.Mutex
	opened *channel
	python net.Conn // to the send socket of a Python connector

	asker asker

	responding sync.Mutex
	responder  *Sender // guarded by responding
}

// channel is a greeted connection to the connector's own socket.
type channel struct {
	conn net.Conn
	r    *wire.Reader
	info Info
}

// Open finds the connector and connects to it.
func Open(ctx context.Context, t Target) (*Client, error) {
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
	// Not one of ours: perhaps a Python one, with the sockets it has.
	conn, legacy := connect(ctx, c.paths.SendSocket)
	if legacy != nil {
		if absent(legacy) {
			return nil, nobody(c.paths.OwnSocket)
		}
		return nil, legacy
	}
	if err := c.find(ctx, t, false); err != nil {
		conn.Close()
		return nil, err
	}
	c.python = conn // a connection that says nothing makes the original log an error
	return c, nil
}

// find fills in paths and what the configuration tells. When it is hasty it
// may leave out what the connector itself will tell.
func (c *Client) find(ctx context.Context, t Target, hasty bool) error {
	if t.ConfigFile != "" {
		cfg, err := config.Load(t.ConfigFile)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		if t.Dir != "" {
			if err := cfg.SetDir(t.Dir); err != nil {
				return fmt.Errorf("%w: %w", ErrConfig, err)
			}
		}
		if !cfg.IsServer && cfg.ClientName == "" {
			return fmt.Errorf("%w: %s: client_name is missing, so the running client cannot be found by this file: use -connector", ErrConfig, t.ConfigFile)
		}
		c.paths = cfg.Paths()
		c.info = Info{Name: cfg.ID(), Server: cfg.IsServer, Peer: cfg.PeerID(), SendTypes: cfg.SendTypes, RecvTypes: cfg.RecvTypes}
		return nil
	}
	dir := t.Dir
	if dir == "" {
		dir = config.Defaults().Dir()
	}
	if t.Connector != "" {
		paths, err := config.ForConnector(dir, t.Connector)
		if errors.Is(err, fs.ErrNotExist) {
			// It says what there is instead; that a file is missing helps nobody.
			return &absence{strings.TrimSuffix(err.Error(), ": "+fs.ErrNotExist.Error())}
		}
		if err != nil {
			return dirError(dir, err)
		}
		c.paths = paths
		c.info = Info{Name: t.Connector}
		if addr, badAddr := config.ParseAddr(t.Connector); badAddr == nil {
			c.info = Info{Name: addr.Text(), Server: true}
		}
		return nil
	}
	if e, ok := config.Only(dir); ok && hasty {
		c.paths = e.Paths()
		return nil
	}
	all, err := config.Running(dir)
	if err != nil {
		return dirError(dir, err)
	}
	var alive []config.Endpoint
	for _, e := range all {
		if len(all) == 1 || e.Alive() {
			alive = append(alive, e)
		}
	}
	switch len(alive) {
	case 0:
		return fmt.Errorf("%w in %s: start aioc-server or aioc-client, or name its directory with -dir", ErrNoConnector, dir)
	case 1:
		c.paths = alive[0].Paths()
		c.info = Info{Name: alive[0].Name, Server: alive[0].Server}
		return nil
	}
	return fmt.Errorf("%w in %s: say which with -connector: %s", ErrSeveral, dir, strings.Join(Names(ctx, alive), ", "))
}

// Info returns what is known of the connector.
func (c *Client) Info() Info { return c.info }

// Close ends what is still open. Senders and receivers end by themselves.
func (c *Client) Close() error {
	c.mu.Lock()
	ch, python := c.opened, c.python
	c.opened, c.python = nil, nil
	c.mu.Unlock()
	if ch != nil {
		ch.conn.Close()
	}
	if python != nil {
		python.Close()
	}
	c.asker.close()
	c.responding.Lock()
	defer c.responding.Unlock()
	if c.responder != nil {
		c.responder.Close()
		c.responder = nil
	}
	return nil
}

// greeting is what a connection announces beyond what all do.
type greeting struct {
	wait bool // for a peer that is away
	pass bool // files are passed on it
}

// channel returns a greeted connection for one use.
func (c *Client) channel(ctx context.Context, g greeting) (*channel, error) {
	c.mu.Lock()
	ch := c.opened
	if ch != nil && g == (greeting{}) {
		c.opened = nil
		c.mu.Unlock()
		return ch, nil
	}
	c.mu.Unlock()
	return c.greet(ctx, g)
}

// greet connects to the own socket and exchanges announcements.
func (c *Client) greet(ctx context.Context, g greeting) (*channel, error) {
	conn, err := connect(ctx, c.paths.OwnSocket)
	if err != nil {
		return nil, err
	}
	ch := &channel{conn: conn, r: wire.NewReader(conn, wire.MaxUnidentified)}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	err = ch.announce(g)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		switch {
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = fmt.Errorf("%w: it has said nothing for %v", ErrLost, greetTimeout)
		case gone(err):
			err = fmt.Errorf("%w: %w", ErrLost, err)
		}
		return nil, fmt.Errorf("%s: no greeting: %w", c.paths.OwnSocket, err)
	}
	return ch, nil
}

// announce says what this end speaks and reads the answer.
func (ch *channel) announce(g greeting) error {
	header := `{"message_type": "_ping", "await_response": true, "request_id": "aioc", "aioc": ["ackto", "flow"]}`
	if g.pass {
		header = header[:len(header)-2] + `, "` + wire.ExtPass + `"]}`
	}
	if g.wait {
		header = header[:len(header)-1] + `, "wait": true}`
	}
	frame, err := wire.AppendFrame(nil, []byte(header), nil, nil)
	if err != nil {
		return err
	}
	if err := ch.conn.SetDeadline(time.Now().Add(greetTimeout)); err != nil {
		return err
	}
	if _, err := ch.conn.Write(frame); err != nil {
		return err
	}
	var f wire.Frame
	if err := ch.r.Next(&f); err != nil {
		return err
	}
	if !f.Header.Speaks(wire.ExtAckTo) {
		return errors.New("the answer announces nothing")
	}
	info, err := parseInfo(f.Data)
	if err != nil {
		return err
	}
	ch.info = info
	ch.info.Passes = f.Header.Speaks(wire.ExtPass)
	ch.r.SetMax(int(max(info.Max, wire.MaxUnidentified)))
	return ch.conn.SetDeadline(time.Time{})
}

// parseInfo reads what a connector says of itself. It does without
// encoding/json, whose first use takes longer than all else here.
func parseInfo(object []byte) (Info, error) {
	info := Info{Native: true}
	err := wire.Fields(object, func(key, value []byte) {
		switch string(key) {
		case "name":
			info.Name, _ = wire.Text(value)
		case "server":
			info.Server = string(value) == "true"
		case "peer":
			info.Peer, _ = wire.Text(value)
		case "send_message_types":
			info.SendTypes = texts(value)
		case "recv_message_types":
			info.RecvTypes = texts(value)
		case "max_message_size":
			info.Max, _ = strconv.ParseInt(string(value), 10, 64) // 0: not known
		}
	})
	return info, err
}

// texts returns the strings of a JSON array, nil when it is not one.
func texts(array []byte) []string {
	if array[0] != '[' {
		return nil
	}
	list := []string{}
	for rest := array[1:]; ; {
		rest = bytes.TrimLeft(rest, ", \t\r\n")
		n, err := wire.ValueEnd(rest, false)
		if n == 0 || err != nil { // at the bracket that ends it
			return list
		}
		if s, ok := wire.Text(rest[:n]); ok {
			list = append(list, s)
		}
		rest = rest[n:]
	}
}

// Header returns the header of a message of the type to a destination: on a
// client it is always its server. More fields can be added to it with
// wire.AppendEdited.
func (c *Client) Header(messageType, destination string) []byte {
	if !c.info.Server && c.info.Peer != "" {
		destination = c.info.Peer
	}
	h := append([]byte(`{"message_type": `), wire.AppendString(nil, messageType)...)
	h = wire.AppendString(append(h, `, "source_id": `...), c.info.Name)
	if destination != "" {
		h = wire.AppendString(append(h, `, "destination_id": `...), destination)
	}
	return append(h, '}')
}

// absent reports whether an error says that nobody listens.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}
