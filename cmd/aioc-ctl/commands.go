package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
)

// row is how one verb is carried out.
type row struct {
	word        string
	least, most int      // arguments
	flags       []string // of its own
	endless     bool     // -timeout is not for the whole
	run         func(context.Context, *call) error
}

// rows are the verbs; control.Verbs describes them.
func rows() []row {
	return []row{
		{word: "list", run: list},
		{word: "status", run: showStatus},
		{word: "health", run: health},
		{word: "peers", run: peers},
		{word: "queues", run: queues},
		{word: "stats", run: plain("stats", nil)},
		{word: "metrics", run: metrics},
		{word: "top", flags: []string{"n", "interval"}, endless: true, run: top},
		{word: "ping", most: 1, run: ping},
		{word: "disconnect", least: 1, most: 1, run: disconnect},
		{word: "blacklist", least: 1, most: 2, run: listed},
		{word: "whitelist", least: 1, most: 2, run: listed},
		{word: "explain", flags: []string{"id", "ip"}, run: explain},
		{word: "delete-certificate", most: 1, run: forget("certificate")},
		{word: "delete-token", most: 1, run: forget("token")},
		{word: "reload-tokens", run: reloadTokens},
		{word: "ignore-traffic", least: 1, most: 1, run: ignoreTraffic},
		{word: "log-level", most: 1, run: logLevel},
		{word: "subscriptions", run: subscriptions},
		{word: "subscribe", least: 1, most: math.MaxInt, run: subscribe},
		{word: "purge", flags: []string{"yes"}, endless: true, run: purge},
		{word: "dead", least: 1, most: 2, flags: []string{"type", "all", "yes"}, endless: true, run: dead},
		{word: "spool", least: 1, most: 4, flags: []string{"frames"}, endless: true, run: spoolCommand},
		{word: "start", run: plain("start", nil)},
		{word: "stop", flags: []string{"hard"}, run: stop("stop")},
		{word: "restart", flags: []string{"hard"}, run: stop("restart")},
		{word: "reload", run: plain("reload", nil)},
		{word: "shutdown", flags: []string{"hard"}, run: shutdown},
		{word: "show", least: 1, most: 1, run: show},
		{word: "config", run: plain("show_config", nil)},
	}
}

// synopsis is how the verb is used.
func (r row) synopsis() string { return strings.TrimRight(r.word+" "+r.verb().Args, " ") }

func (r row) verb() control.Verb {
	all := control.Verbs()
	i := slices.IndexFunc(all, func(v control.Verb) bool { return v.Word == r.word })
	return all[i] // a test compares both tables
}

// call is one command on its way.
type call struct {
	p      *program
	word   string
	args   []string
	client *api.Client
}

func (c *call) close() {
	if c.client != nil {
		c.client.Close()
	}
}

func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// open finds the connector.
func (c *call) open(ctx context.Context) error {
	if c.client != nil {
		return nil
	}
	var err error
	c.client, err = api.OpenControl(ctx, c.p.opt.target)
	if err != nil {
		return err
	}
	r := row{word: c.word}
	if !c.client.Info().Native && !r.verb().Python {
		return failf(cli.Failed, "%s: this is a Python connector, which has no such command", c.word)
	}
	return nil
}

// python reports whether the connector is one of the original.
func (c *call) python() bool { return !c.client.Info().Native }

// ask gives a command to the connector.
func (c *call) ask(ctx context.Context, command string, kwargs map[string]any) (json.RawMessage, error) {
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	if c.python() {
		// Its own tool says the same: the method is not awaited.
		switch command {
		case "show_connected_peers", "peek_queues", "manage_ignore_peer_traffic", "show_log_level", "set_log_level",
			"show_subscribe_message_types", "delete_previous_persistence_remains", "show_attribute":
			command += "__sync"
		}
	}
	reply, err := c.client.Call(ctx, command, kwargs)
	if err != nil && c.python() && ctx.Err() != nil && context.Cause(ctx) == errTimeout {
		return nil, fmt.Errorf("%w: a Python connector says nothing when it does not know a command or a name, or fails", errTimeout)
	}
	if c.python() && errors.Is(err, io.EOF) {
		return nil, failf(cli.Failed, "%s: no reply: a Python connector says nothing when it does not know a command or a name, or fails", c.word)
	}
	if errors.Is(err, control.ErrUnknown) {
		return nil, failf(cli.Failed, "%s: this connector does not have it: %v", c.word, err)
	}
	return reply, err
}

// text is a reply as a text: a JSON string without its quotes.
func text(reply json.RawMessage) string {
	var s string
	if json.Unmarshal(reply, &s) == nil {
		return s
	}
	return string(reply)
}

// plain returns what prints the reply to a command as it is.
func plain(command string, kwargs map[string]any) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		reply, err := c.ask(ctx, command, kwargs)
		if err != nil {
			return err
		}
		return c.print(reply)
	}
}

// print prints a reply; nothing when there is none.
func (c *call) print(reply json.RawMessage) error {
	if s := text(reply); c.client != nil && c.python() {
		if s == "{}" {
			reply = json.RawMessage("null")
		} else if v, ok := pythonValue(s); ok {
			reply = v
		}
	}
	if string(reply) == "null" {
		return nil
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(reply))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return fmt.Errorf("the reply is not understood: %w", err)
	}
	return c.p.emit(v, nil)
}

// pythonValue reads the texts of Python that stand for true, false and lists of
// strings.
func pythonValue(s string) (json.RawMessage, bool) {
	switch {
	case s == "True":
		return json.RawMessage("true"), true
	case s == "False":
		return json.RawMessage("false"), true
	case s == "set()" || s == "[]":
		return json.RawMessage("[]"), true
	case len(s) > 1 && (s[0] == '[' && s[len(s)-1] == ']' || s[0] == '{' && s[len(s)-1] == '}' && !strings.Contains(s, ":")):
		list := []string{}
		for rest := s[1 : len(s)-1]; ; {
			text, after, ok := pythonString(rest)
			if !ok {
				return nil, false
			}
			if list = append(list, text); after == "" {
				break
			}
			if rest, ok = strings.CutPrefix(after, ", "); !ok {
				return nil, false
			}
		}
		b, err := json.Marshal(list)
		return b, err == nil
	}
	return nil, false
}

// pythonString reads the string in quotes that s begins with, and returns what is
// after it. Names and types, which is what there is, have no escapes but those of
// quotes.
func pythonString(s string) (text, after string, ok bool) {
	if s == "" || s[0] != '\'' && s[0] != '"' {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == s[0]:
			return b.String(), s[i+1:], true
		case s[i] == '\\':
			if i++; i == len(s) || !strings.ContainsRune(`\'"`, rune(s[i])) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

func disconnect(ctx context.Context, c *call) error {
	reply, err := c.ask(ctx, "disconnect_client", map[string]any{"client_id": c.args[0]})
	if err != nil {
		return err
	}
	switch s := text(reply); {
	case strings.HasPrefix(s, "Non existing"):
		return failf(cli.Unavailable, "disconnect: %s is not connected", c.args[0])
	case !done(s):
		return failf(cli.Failed, "disconnect: refused: only a server has clients")
	}
	return nil
}

// done reports whether a reply says that it was done.
func done(s string) bool { return s == "true" || s == "True" }

// peerNamed is the peer that the user means: of a client also its server as
// HOST:PORT, which all other programs take, and not only as the original writes it.
func peerNamed(info api.Info, word string) string {
	if addr, err := config.ParseAddr(word); err == nil && !info.Server {
		if own, ok := config.ParseText(info.Peer); ok && own.String() == addr.String() {
			return info.Peer
		}
	}
	return word
}

func ignoreTraffic(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	kwargs := map[string]any{"unique_peer": peerNamed(c.client.Info(), c.args[0])}
	switch c.args[0] {
	case "on":
		kwargs = map[string]any{"enable": true}
	case "off":
		kwargs = map[string]any{"disable": true}
	case "show":
		kwargs = map[string]any{"show": true}
	}
	peer, _ := kwargs["unique_peer"].(string)
	changed := peer != "" || kwargs["enable"] != nil
	if err := plain("manage_ignore_peer_traffic", kwargs)(ctx, c); err != nil || !changed || c.python() {
		return err
	}
	s, err := c.stats(ctx)
	if err != nil {
		return err
	}
	if s.ConfigFile == "" {
		fmt.Fprintf(c.p.stderr, "%s: %s: until the connector ends: it has no configuration file to write it into\n", name, c.word)
	}
	if peer != "" && s.PeersLeft == 0 && !slices.ContainsFunc(s.Peers, func(p control.PeerStats) bool { return p.Name == peer }) {
		fmt.Fprintf(c.p.stderr, "%s: %s: no peer %s is here now: the messages of one that comes will be dropped\n", name, c.word, cli.Escape(peer))
	}
	return nil
}

func logLevel(ctx context.Context, c *call) error {
	if level := c.arg(0); level != "" {
		l, err := cli.ParseLevel(level)
		if err != nil {
			return usagef("%v", err)
		}
		return plain("set_log_level", map[string]any{"level": cli.LevelName(l)})(ctx, c)
	}
	return plain("show_log_level", nil)(ctx, c)
}

func subscriptions(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	if c.client.Info().Server && !c.python() {
		return plain("show_subscriptions", nil)(ctx, c)
	}
	return plain("show_subscribe_message_types", nil)(ctx, c)
}

func subscribe(ctx context.Context, c *call) error {
	types := c.args
	if len(types) == 1 && types[0] == "none" {
		types = []string{}
	}
	reply, err := c.ask(ctx, "set_subscribe_message_types", map[string]any{"message_types": types})
	if err != nil {
		return err
	}
	if err := c.print(reply); err != nil {
		return err
	}
	// A Python connector leaves out what it does not receive, without a word.
	if v, ok := pythonValue(text(reply)); ok && c.python() {
		reply = v
	}
	var now []string
	if json.Unmarshal(reply, &now) == nil {
		for _, t := range types {
			if !slices.Contains(now, t) {
				return failf(cli.Refused, "subscribe: %q was left out: it is not in recv_message_types of the client", t)
			}
		}
	}
	return nil
}

// sure asks the user on a terminal; -yes answers.
func (c *call) sure(ctx context.Context, question string) error {
	if c.p.opt.yes {
		return nil
	}
	if !c.p.menu && !terminal(c.p.stdin) {
		return usagef("%s deletes messages: say -yes if that is meant", pick(c.word == "dead", "dead drop", c.word))
	}
	answer, err := c.p.ask(ctx, question+" (y/n) ")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return failf(cli.Failed, "%s: nothing was done", pick(c.word == "dead", "dead drop", c.word))
	}
	return nil
}

func purge(ctx context.Context, c *call) error {
	short, stop := context.WithTimeoutCause(ctx, c.p.opt.timeout, errTimeout)
	err := c.open(short)
	stop() // the user may think about the question
	if err != nil {
		return err
	}
	if err := c.sure(ctx, "Delete ALL messages that wait on disk, for peers and for programs here?"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.p.opt.timeout, errTimeout)
	defer cancel()
	if c.python() {
		return plain("delete_previous_persistence_remains", nil)(ctx, c)
	}
	reply, err := c.ask(ctx, "purge", nil)
	if err != nil {
		return err
	}
	var did struct {
		Discarded int            `json:"discarded"`
		Peers     map[string]int `json:"peers"`
		Types     map[string]int `json:"types"`
	}
	if err := json.Unmarshal(reply, &did); err != nil {
		return fmt.Errorf("the reply is not understood: %w", err)
	}
	return c.p.emit(did, func(t *table) {
		t.head("QUEUE", "DELETED")
		for _, part := range []struct {
			what string
			of   map[string]int
		}{{"peer ", did.Peers}, {"type ", did.Types}} {
			for _, name := range slices.Sorted(maps.Keys(part.of)) {
				t.row(part.what+name, strconv.Itoa(part.of[name]))
			}
		}
		t.row("all", strconv.Itoa(did.Discarded))
	})
}

func dead(ctx context.Context, c *call) error {
	o, action, id := c.p.opt, c.args[0], c.arg(1)
	kwargs := map[string]any{}
	if id != "" {
		kwargs["id"] = id
	}
	if o.typ != "" {
		kwargs["message_type"] = o.typ
	}
	switch action {
	case "list":
		if id != "" || o.all && o.typ != "" { // all is what there is without -type
			return usagef("dead list: want no argument but one of -type and -all")
		}
	case "show":
		if id == "" || o.typ != "" || o.all {
			return usagef("dead show: want the ID that dead list shows")
		}
	case "retry", "drop":
		n := 0
		for _, given := range []bool{id != "", o.typ != "", o.all} {
			if given {
				n++
			}
		}
		if n != 1 {
			return usagef("dead %s: want one of ID, -type and -all", action)
		}
		if action == "drop" {
			if err := c.sure(ctx, "Delete these messages for good?"); err != nil {
				return err
			}
		}
	default:
		return usagef("dead: %q: want list, show, retry or drop", action)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
	defer cancel()
	return plain("dead_"+action, kwargs)(ctx, c)
}

// stop returns the commands stop and restart.
func stop(command string) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		return plain(command, map[string]any{"hard": c.p.opt.hard})(ctx, c)
	}
}

func shutdown(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	reply, err := c.ask(ctx, "stop", map[string]any{"hard": c.p.opt.hard, "shutdown": true})
	if errors.Is(err, api.ErrLost) {
		err = nil // it was quick
	}
	if err != nil {
		return err
	}
	if c.python() {
		return c.print(reply)
	}
	// It ends when it has passed on what it took.
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		again, err := api.OpenControl(ctx, c.p.opt.target)
		if errors.Is(err, api.ErrNoConnector) {
			return nil
		}
		if err == nil {
			again.Close()
			if again.Info().Name != c.client.Info().Name {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func show(ctx context.Context, c *call) error {
	return plain("show_attribute", map[string]any{"attribute": c.args[0]})(ctx, c)
}
