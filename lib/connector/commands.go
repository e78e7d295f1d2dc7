package connector

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
)

// softGrace is how long a stop that is not hard waits for what is on its way.
const softGrace = 10 * time.Second

// maxBetween bounds the pause of a restart: a connector that is stopped for longer
// is better stopped and started.
const maxBetween = time.Hour

func (c *Connector) addCommands() {
	c.addIdentityCommands()
	c.commands.Add(c.pubsubCommands()...)
	c.commands.Add(c.spoolCommands()...)
	c.commands.Add(
		control.Command{Name: "start", Run: func(ctx context.Context, _ control.Args) (any, error) {
			return nil, c.start(ctx)
		}},
		control.Command{Name: "stop", Run: func(_ context.Context, a control.Args) (any, error) {
			if a.Bool("shutdown") {
				c.mu.Lock()
				shutdown := c.shutdown
				c.mu.Unlock()
				if a.Bool("hard") {
					c.stop(0)
				}
				shutdown()
				return nil, nil
			}
			c.stop(grace(a.Bool("hard")))
			return nil, nil
		}},
		control.Command{Name: "restart", Run: c.restart},
		control.Command{Name: "show_connected_peers", Run: func(_ context.Context, a control.Args) (any, error) { return c.connectedPeers(a.Bool("dump_result")) }},
		control.Command{Name: "peek_queues", Run: func(_ context.Context, a control.Args) (any, error) { return c.peekQueues(a.Bool("dump_result")) }},
		control.Command{Name: "show_log_level", Run: func(context.Context, control.Args) (any, error) {
			return cli.LevelName(c.level.Level()), nil
		}},
		control.Command{Name: "set_log_level", Run: func(_ context.Context, a control.Args) (any, error) { return c.setLogLevel(a.String("level")) }},
		control.Command{Name: "manage_ignore_peer_traffic", Run: func(ctx context.Context, a control.Args) (any, error) {
			// Differs: the original takes any name, and then ignores nobody. So do we on
			// its commander socket.
			if peer := a.String("unique_peer"); peer != "" && !c.server && peer != c.cfg.Load().PeerID() && ctx.Value(ownSocket{}) != nil {
				return nil, fmt.Errorf("%w: unique_peer: this is a client, whose only peer is its server, %s", control.ErrArgument, c.cfg.Load().PeerID())
			}
			return c.manageIgnore(a)
		}},
		control.Command{Name: "show_attribute", Run: func(ctx context.Context, a control.Args) (any, error) {
			name := a.String("attribute")
			if name == "server_sockaddr" && ctx.Value(ownSocket{}) == nil {
				return c.cfg.Load().ServerAddr.Text(), nil // as Python prints the pair
			}
			return c.attribute(name)
		}},
	)
}

// restart stops and starts. On the own socket the configuration is read again
// before, as an operator expects: with a mistake in it nothing is done, and the
// reply has the keys that need a new process.
// Differs: the original does not read it (aioconnectors core.py). So do we not on
// its commander socket.
func (c *Connector) restart(ctx context.Context, a control.Args) (any, error) {
	pause := a.Number("sleep_between")
	if pause < 0 || pause > maxBetween.Seconds() {
		return nil, fmt.Errorf("%w: restart: sleep_between must be 0 to %.0f seconds", control.ErrArgument, maxBetween.Seconds())
	}
	var reply any
	if ctx.Value(ownSocket{}) != nil && c.reload != nil {
		var err error
		if reply, err = c.reloadNow(); err != nil {
			return nil, fmt.Errorf("not restarted: %w", err)
		}
	}
	c.stop(grace(a.Bool("hard")))
	select {
	case <-time.After(time.Duration(pause * float64(time.Second))):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return reply, c.start(ctx)
}

func grace(hard bool) time.Duration {
	if hard {
		return 0
	}
	return softGrace
}

func (c *Connector) setLogLevel(name string) (any, error) {
	level, err := cli.ParseLevel(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", control.ErrArgument, err)
	}
	c.level.Set(level)
	c.log.Log(context.Background(), slog.LevelInfo, "log level changed", "level", cli.LevelName(level))
	return cli.LevelName(level), nil
}

// connectedPeers is {name: [ip, port]}.
func (c *Connector) connectedPeers(dump bool) (any, error) {
	peers := map[string]any{}
	c.mu.Lock()
	for name, b := range c.boxes {
		if p := b.there(); p != nil {
			host, port := p.addr, 0
			if a, ok := p.l.RemoteAddr().(*net.TCPAddr); ok {
				host, port = a.IP.String(), a.Port
			}
			peers[name] = []any{host, port}
		}
	}
	c.mu.Unlock()
	if len(peers) == 0 {
		return control.Raw(""), nil
	}
	if dump {
		text, err := json.Marshal(peers)
		return control.Raw(spaced(text)), err
	}
	return peers, nil
}

// peekQueues is {"queue_recv": n, "queue_send": {name: n}}.
func (c *Connector) peekQueues(dump bool) (any, error) {
	recv := 0
	for _, q := range c.inbox {
		recv += q.Len()
	}
	send := map[string]any{}
	c.mu.Lock()
	for name, b := range c.boxes {
		if n := b.len(); n > 0 || b.current() != nil {
			send[name] = n
		}
	}
	c.mu.Unlock()
	queues := map[string]any{"queue_recv": recv, "queue_send": send}
	if dump {
		text, err := json.MarshalIndent(queues, "", "    ")
		return control.Raw(text), err
	}
	return queues, nil
}

// spaced puts a space after each comma and colon outside strings, as Python's
// json does.
func spaced(text []byte) []byte {
	var b []byte
	quoted := false
	for i, ch := range text {
		b = append(b, ch)
		switch {
		case ch == '"' && (i == 0 || text[i-1] != '\\'):
			quoted = !quoted
		case !quoted && (ch == ',' || ch == ':'):
			b = append(b, ' ')
		}
	}
	return b
}

// manageIgnore shows or changes whose messages are ignored.
func (c *Connector) manageIgnore(a control.Args) (any, error) {
	var next config.Ignore
	peer := a.String("unique_peer")
	switch {
	case a.Bool("show"):
		return c.ignoredNow(), nil
	case a.Bool("enable"):
		next.All = true
	case a.Bool("disable"):
	case peer != "":
		// An address is what a client calls its server, in the form of the original.
		if err := config.ValidName(peer); err != nil && peer != c.cfg.Load().PeerID() {
			return nil, fmt.Errorf("%w: unique_peer: %w", control.ErrArgument, err)
		}
		next.Peer = peer
	default:
		return nil, nil
	}
	var value any = next.All
	if next.Peer != "" {
		value = next.Peer
	}
	if err := c.remember("ignore_peer_traffic", value); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.ignore = next
	c.mu.Unlock()
	c.version.Add(1)
	c.log.Info("ignored traffic changed", "peer", peer, "all", next.All)
	return c.ignoredNow(), nil
}

// remember writes a key that a command changes into the configuration file, if
// there is one, so that it outlives a restart.
func (c *Connector) remember(key string, value any) error {
	file := c.cfg.Load().File
	if file == "" {
		return nil
	}
	if err := config.Update(file, key, value); err != nil {
		return fmt.Errorf("not changed, since it could not be written down: %w", err)
	}
	return nil
}

// ignoredNow is whose messages are ignored, as the original shows it.
func (c *Connector) ignoredNow() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ignore.Peer != "" {
		return []string{c.ignore.Peer}
	}
	return c.ignore.All
}

// publicConfig is the configuration in effect without what is secret.
func (c *Connector) publicConfig() (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(c.cfg.Load().AppendJSON(nil)))
	dec.UseNumber()
	all := map[string]any{}
	if err := dec.Decode(&all); err != nil {
		return nil, err
	}
	if proxy, ok := all["proxy"].(map[string]any); ok && len(proxy) > 0 {
		if _, ok := proxy["authorization"].(map[string]any); ok {
			proxy["authorization"] = "not shown"
		}
	}
	all["ignore_peer_traffic"] = c.ignoredNow()
	all["default_logger_log_level"] = cli.LevelName(c.level.Level())
	return all, nil
}

// attribute shows what is public of the configuration, under the names that it
// has in the original: those of the configuration keys, source_id and is_running.
func (c *Connector) attribute(name string) (any, error) {
	switch name {
	case "source_id":
		return c.id, nil
	case "is_running":
		return c.running.Load(), nil
	case "proxy": // holds a password
		return nil, fmt.Errorf("%w: attribute %q is not public", control.ErrArgument, name)
	}
	all, err := c.publicConfig()
	if err != nil {
		return nil, err
	}
	v, ok := all[name]
	if !ok {
		return nil, fmt.Errorf("%w: no attribute %q", control.ErrArgument, name)
	}
	if strings.HasPrefix(name, "blacklisted_") || strings.HasPrefix(name, "whitelisted_") {
		set := control.Set{}
		list, _ := v.([]any)
		for _, e := range list {
			set = append(set, fmt.Sprint(e))
		}
		if strings.HasSuffix(name, "_subnet") {
			return control.Networks(set), nil
		}
		return set, nil
	}
	return v, nil
}

// changed returns the keys whose values differ.
func changed(a, b interface{ AppendJSON([]byte) []byte }) (keys []string) {
	var x, y map[string]json.RawMessage
	if json.Unmarshal(a.AppendJSON(nil), &x) != nil || json.Unmarshal(b.AppendJSON(nil), &y) != nil {
		return nil
	}
	for key := range y {
		if !bytes.Equal(x[key], y[key]) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
