package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
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
		{word: "spool", least: 1, most: 3, flags: []string{"frames"}, endless: true, run: spoolCommand},
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
	case s == "set()":
		return json.RawMessage("[]"), true
	case len(s) > 1 && (s[0] == '[' && s[len(s)-1] == ']' || s[0] == '{' && s[len(s)-1] == '}' && !strings.Contains(s, ":")):
		list := []string{}
		for _, item := range strings.Split(s[1:len(s)-1], ", ") {
			if len(item) < 2 || item[0] != item[len(item)-1] || item[0] != '\'' && item[0] != '"' || strings.Contains(item, `\`) {
				return nil, false
			}
			list = append(list, item[1:len(item)-1])
		}
		b, err := json.Marshal(list)
		return b, err == nil
	}
	return nil, false
}

// connectorRow is one connector in the reply of list.
type connectorRow struct {
	Name   string `json:"name"`
	Server bool   `json:"server"`
	Native bool   `json:"native"` // of this toolkit
	Alive  bool   `json:"alive"`
}

// list lists the connectors in the directory.
func list(_ context.Context, c *call) error {
	dir := c.p.opt.target.Dir
	if file := c.p.opt.target.ConfigFile; file != "" && dir == "" {
		cfg, err := config.Load(file)
		if err != nil {
			return fmt.Errorf("%w: %w", api.ErrConfig, err)
		}
		dir = cfg.Dir()
	}
	if dir == "" {
		dir = config.Defaults().Dir()
	}
	all, err := config.Running(dir)
	if err != nil {
		if os.IsPermission(err) {
			return failf(cli.Refused, "%v", err)
		}
		return err
	}
	rows := []connectorRow{}
	for _, e := range all {
		rows = append(rows, connectorRow{e.Name, e.Server, e.Own != "", e.Alive()})
	}
	return c.p.emit(rows, func(t *table) {
		t.head("NAME", "ROLE", "KIND", "STATE")
		for _, r := range rows {
			t.row(r.Name, pick(r.Server, "server", "client"), pick(r.Native, "aioc", "python"), pick(r.Alive, "running", "dead"))
		}
	})
}

func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// stats asks for all statistics of a connector of this toolkit.
func (c *call) stats(ctx context.Context) (*control.Stats, error) {
	reply, err := c.ask(ctx, "stats", nil)
	if err != nil {
		return nil, err
	}
	s := new(control.Stats)
	if err := json.Unmarshal(reply, s); err != nil {
		return nil, fmt.Errorf("the reply is not understood: %w", err)
	}
	return s, nil
}

// pythonPeers asks a Python connector who is connected.
func (c *call) pythonPeers(ctx context.Context) ([]control.PeerStats, error) {
	reply, err := c.ask(ctx, "show_connected_peers", map[string]any{"dump_result": true})
	if err != nil {
		return nil, err
	}
	var addrs map[string][]any
	if err := json.Unmarshal([]byte(text(reply)), &addrs); err != nil {
		return nil, fmt.Errorf("the reply is not understood: %w", err)
	}
	list := []control.PeerStats{}
	for name, a := range addrs {
		p := control.PeerStats{Name: name, Connected: true}
		if len(a) == 2 {
			p.Addr = fmt.Sprint(a[0], ":", a[1])
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b control.PeerStats) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func peers(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	var list []control.PeerStats
	left := 0
	if c.python() {
		var err error
		if list, err = c.pythonPeers(ctx); err != nil {
			return err
		}
	} else {
		s, err := c.stats(ctx)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(s.Peers, func(p control.PeerStats) bool { return !p.Connected })
		left = s.PeersLeft
	}
	return c.p.emit(list, func(t *table) {
		t.head("NAME", "ADDRESS", "TLS", "KIND", "SINCE", "WAITING")
		for _, p := range list {
			since, kind := "-", "?"
			if !c.python() {
				since, kind = age(p.Since), pick(p.Native, "aioc", "python")
			}
			t.row(p.Name, p.Addr, dash(p.TLS), kind, since, strconv.Itoa(p.Queue.Waiting+p.Queue.InHand))
		}
		if left > 0 {
			t.row(fmt.Sprintf("and %d more", left))
		}
	})
}

// queueRow is one queue in the reply of queues.
type queueRow struct {
	Direction string `json:"direction"` // send: to a peer; recv: of a type, for programs here
	Name      string `json:"name"`      // the peer or the type
	control.QueueStats
}

func queues(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	rows := []queueRow{}
	if c.python() {
		reply, err := c.ask(ctx, "peek_queues", map[string]any{"dump_result": true})
		if err != nil {
			return err
		}
		var q struct {
			Recv int            `json:"queue_recv"`
			Send map[string]int `json:"queue_send"`
		}
		if err := json.Unmarshal([]byte(text(reply)), &q); err != nil {
			return fmt.Errorf("the reply is not understood: %w", err)
		}
		for name, n := range q.Send {
			rows = append(rows, queueRow{"send", name, control.QueueStats{Waiting: n}})
		}
		slices.SortFunc(rows, func(a, b queueRow) int { return strings.Compare(a.Name, b.Name) })
		rows = append(rows, queueRow{"recv", "", control.QueueStats{Waiting: q.Recv}})
	} else {
		s, err := c.stats(ctx)
		if err != nil {
			return err
		}
		rows = queueRows(s)
	}
	return c.p.emit(rows, func(t *table) {
		t.head("WAY", "NAME", "WAITING", "IN HAND", "MEMORY", "DISK", "PUT", "DONE")
		for _, r := range rows {
			t.row(r.Direction, dash(r.Name), strconv.Itoa(r.Waiting), strconv.Itoa(r.InHand), size(int64(r.Bytes)), size(r.Disk),
				strconv.FormatUint(r.Put, 10), strconv.FormatUint(r.Done, 10))
		}
	})
}

func queueRows(s *control.Stats) []queueRow {
	rows := []queueRow{}
	for _, p := range s.Peers {
		rows = append(rows, queueRow{"send", p.Name, p.Queue})
	}
	for _, t := range s.Types {
		rows = append(rows, queueRow{"recv", t.Type, t.Queue})
	}
	return rows
}

// statusRow is the reply of status.
type statusRow struct {
	Name     string   `json:"name"`
	Server   bool     `json:"server"`
	Address  string   `json:"address,omitempty"`
	Native   bool     `json:"native"`
	Version  string   `json:"version,omitempty"`
	PID      int      `json:"pid,omitempty"`
	Running  bool     `json:"running"`
	Uptime   float64  `json:"uptime_seconds,omitempty"`
	TLS      string   `json:"tls,omitempty"`
	Peers    int      `json:"peers_connected"`
	Waiting  int      `json:"messages_waiting"`
	Dropped  uint64   `json:"dropped"`
	Config   string   `json:"config_file,omitempty"`
	Dir      string   `json:"directory,omitempty"`
	Sandbox  string   `json:"sandbox,omitempty"`
	Problems []string `json:"problems"`
}

func showStatus(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	info := c.client.Info()
	r := statusRow{Name: info.Name, Server: info.Server, Problems: []string{}}
	if c.python() {
		reply, err := c.ask(ctx, "show_attribute", map[string]any{"attribute": "is_running"})
		if err != nil {
			return err
		}
		r.Running = text(reply) == "True"
		list, err := c.pythonPeers(ctx)
		if err != nil {
			return err
		}
		r.Peers = len(list)
		if !r.Running {
			r.Problems = append(r.Problems, "the connector is stopped")
		}
	} else {
		s, err := c.stats(ctx)
		if err != nil {
			return err
		}
		r = statusRow{s.Name, s.Server, s.Address, true, s.Version, s.PID, s.Running, time.Since(s.Started).Seconds(), s.TLS, 0, 0, 0,
			s.ConfigFile, s.Directory, s.Sandbox, s.Problems}
		for _, p := range s.Peers {
			if p.Connected {
				r.Peers++
			}
		}
		for _, q := range queueRows(s) {
			r.Waiting += q.Waiting + q.InHand
		}
		for _, n := range s.Dropped {
			r.Dropped += n
		}
	}
	return c.p.emit(r, func(t *table) {
		t.row("connector", pick(r.Server && r.Native, r.Address, r.Name)+" ("+pick(r.Server, "server", "client")+pick(r.Native, "", ", Python")+")")
		t.row("state", pick(r.Running, "running", "stopped"))
		if r.Native {
			if !r.Server {
				t.row("server", r.Address)
			}
			t.row("tls", r.TLS)
			t.row("process", fmt.Sprintf("%d, version %s, for %s", r.PID, r.Version, age(r.Uptime)))
			t.row("configuration", dash(r.Config))
			t.row("directory", r.Dir)
			t.row("sandbox", dash(r.Sandbox))
			t.row("waiting", strconv.Itoa(r.Waiting)+" messages")
			t.row("dropped", strconv.FormatUint(r.Dropped, 10)+pick(r.Dropped > 0, "; see stats", ""))
		}
		t.row("peers", strconv.Itoa(r.Peers)+" connected")
		for _, p := range r.Problems {
			t.row("problem", p)
		}
	})
}

func health(ctx context.Context, c *call) error {
	reply, err := c.ask(ctx, "health", nil)
	if err != nil {
		return err
	}
	var h control.Health
	if err := json.Unmarshal(reply, &h); err != nil {
		return fmt.Errorf("the reply is not understood: %w", err)
	}
	err = c.p.emit(h, func(t *table) {
		if h.OK {
			t.row("ok")
		}
		for _, p := range h.Problems {
			t.row(p)
		}
	})
	if err == nil && !h.OK {
		err = &statusError{status: cli.Failed}
	}
	return err
}

func metrics(ctx context.Context, c *call) error {
	reply, err := c.ask(ctx, "metrics", nil)
	if err != nil {
		return err
	}
	return c.p.write([]byte(text(reply)))
}

// pingRow is the reply of ping.
type pingRow struct {
	Peer    string  `json:"peer"`
	Seconds float64 `json:"seconds"`
}

func ping(ctx context.Context, c *call) error {
	var err error
	if c.client, err = api.Open(ctx, c.p.opt.target); err != nil {
		return err
	}
	info := c.client.Info()
	to := c.arg(0)
	switch {
	case info.Server && to == "":
		return usagef("ping: want the name of a client: this is a server")
	case info.Server:
		if err := config.ValidName(to); err != nil {
			return usagef("ping: %v", err)
		}
	case to != "" && info.Peer != "" && to != info.Peer:
		return usagef("ping: %s is a client and has one peer, its server: leave %q out", info.Name, to)
	default:
		to = info.Peer
	}
	started := time.Now()
	if _, err := c.client.Request(ctx, "_ping", to, []byte("ping"), nil); err != nil {
		var n *api.NotTaken
		if errors.As(err, &n) && n.Reason == "away" {
			return failf(cli.Unavailable, "ping: %s is not connected", pick(to == "", "the server", to))
		}
		if context.Cause(ctx) == errTimeout {
			err = failf(cli.Timeout, "ping: %s did not answer in time", pick(to == "", "the server", to))
		}
		return err
	}
	r := pingRow{to, time.Since(started).Seconds()}
	return c.p.emit(r, func(t *table) {
		t.row(fmt.Sprintf("%s answered after %.1f ms", pick(to == "", "the server", to), r.Seconds*1000))
	})
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

// listed is blacklist and whitelist.
func listed(ctx context.Context, c *call) error {
	action, who := c.args[0], c.arg(1)
	switch {
	case action == "list" && who == "":
		return showLists(ctx, c)
	case action != "add" && action != "remove":
		return usagef("%s: %q: want add, remove or list", c.word, action)
	case who == "":
		return usagef("%s %s: want PATTERN, IP or SUBNET", c.word, action)
	}
	kwargs := map[string]any{"client_ip": nil, "client_id": nil}
	_, badIP := netip.ParseAddr(who)
	if _, err := netip.ParsePrefix(who); err == nil || badIP == nil {
		kwargs["client_ip"] = who
	} else if strings.Contains(who, "/") {
		return usagef("%s: %q is no subnet, which is written 10.1.0.0/16, and no name has a slash", c.word, who)
	} else {
		kwargs["client_id"] = who
	}
	reply, err := c.ask(ctx, action+"_"+c.word+"_client", kwargs)
	if err == nil && !done(text(reply)) {
		err = failf(cli.Failed, "%s %s: refused: only a server has lists%s", c.word, action, pick(action == "remove", ", and what is not there cannot be removed", ""))
	}
	return err
}

func showLists(ctx context.Context, c *call) error {
	type entry struct {
		Kind  string `json:"kind"`
		Value string `json:"value"`
	}
	all := []entry{}
	for _, kind := range []string{"id", "ip", "subnet"} {
		reply, err := c.ask(ctx, "show_attribute", map[string]any{"attribute": c.word + "ed_clients_" + kind})
		if err != nil {
			return err
		}
		if c.python() {
			v, ok := pythonValue(text(reply))
			if !ok && text(reply) != "{}" {
				all = append(all, entry{kind, text(reply)})
				continue
			}
			reply = v
		}
		var values []string
		if len(reply) > 0 {
			if err := json.Unmarshal(reply, &values); err != nil {
				return fmt.Errorf("the reply is not understood: %w", err)
			}
		}
		slices.Sort(values)
		for _, v := range values {
			all = append(all, entry{kind, v})
		}
	}
	return c.p.emit(all, func(t *table) {
		t.head("KIND", "VALUE")
		for _, e := range all {
			t.row(e.Kind, e.Value)
		}
	})
}

func explain(ctx context.Context, c *call) error {
	o := c.p.opt
	if o.id == "" && o.ip == "" {
		return usagef("explain: want -id, -ip or both")
	}
	kwargs := map[string]any{}
	if o.id != "" {
		kwargs["client_id"] = o.id
	}
	if o.ip != "" {
		if _, err := netip.ParseAddr(o.ip); err != nil {
			return usagef("explain: -ip %q: want an IP address", o.ip)
		}
		kwargs["client_ip"] = o.ip
	}
	reply, err := c.ask(ctx, "explain", kwargs)
	if err != nil {
		return err
	}
	var e explanation
	if err := json.Unmarshal(reply, &e); err != nil {
		return fmt.Errorf("the reply is not understood: %w", err)
	}
	err = c.p.emit(e, func(t *table) {
		t.head("RULE", "RESULT", "ENTRY", "NOTE")
		for _, s := range e.Steps {
			t.row(s.Rule, s.Result, dash(s.Entry), dash(s.Note))
		}
		t.row(pick(e.Welcome, "welcome", "refused by "+e.By))
	})
	if err == nil && !e.Welcome {
		err = &statusError{status: cli.Failed}
	}
	return err
}

// explanation is the reply of explain.
type explanation struct {
	Welcome bool   `json:"welcome"`
	By      string `json:"by,omitempty"` // the rule that refuses
	Steps   []struct {
		Rule   string `json:"rule"`
		Result string `json:"result"`
		Entry  string `json:"entry,omitempty"`
		Note   string `json:"note,omitempty"`
	} `json:"steps"`
}

// result is what the commands that delete reply.
type result struct {
	Status bool   `json:"status"`
	Msg    string `json:"msg"`
}

// forget returns the deletion of certificates or tokens.
func forget(what string) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		if err := c.open(ctx); err != nil {
			return err
		}
		command := "delete_client_" + what + "_on_client"
		kwargs := map[string]any{"restart_client": true}
		switch id := c.arg(0); {
		case c.client.Info().Server && id == "":
			return usagef("%s: want the name of a client: this is a server", c.word)
		case c.client.Info().Server:
			command = "delete_client_" + what + "_on_server"
			kwargs = map[string]any{"client_id": id}
			if what == "certificate" {
				kwargs["remove_only_symlink"] = false
			}
		case id != "" && id != c.client.Info().Name:
			return usagef("%s: this is client %s, which can delete its own only", c.word, c.client.Info().Name)
		}
		reply, err := c.ask(ctx, command, kwargs)
		if err != nil {
			return err
		}
		var r result
		if s := text(reply); done(s) {
			return nil
		} else if json.Unmarshal([]byte(s), &r) != nil {
			return failf(cli.Failed, "%s: refused: %s", c.word, s)
		}
		if !r.Status {
			return failf(cli.Failed, "%s: %s", c.word, r.Msg)
		}
		return nil
	}
}

func reloadTokens(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	command := "load_client_token"
	if c.client.Info().Server {
		command = "load_server_tokens"
	}
	if !c.python() {
		_, err := c.ask(ctx, command, nil)
		return err
	}
	// It does it and never answers.
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := c.client.Call(short, command, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return err
}

func ignoreTraffic(ctx context.Context, c *call) error {
	kwargs := map[string]any{"unique_peer": c.args[0]}
	switch c.args[0] {
	case "on":
		kwargs = map[string]any{"enable": true}
	case "off":
		kwargs = map[string]any{"disable": true}
	case "show":
		kwargs = map[string]any{"show": true}
	}
	return plain("manage_ignore_peer_traffic", kwargs)(ctx, c)
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
	return plain("set_subscribe_message_types", map[string]any{"message_types": types})(ctx, c)
}

// sure asks the user on a terminal; -yes answers.
func (c *call) sure(ctx context.Context, question string) error {
	if c.p.opt.yes {
		return nil
	}
	if !c.p.menu && !terminal(c.p.stdin) {
		return usagef("%s deletes messages: say -yes if that is meant", c.word)
	}
	answer, err := c.p.ask(ctx, question+" (y/n) ")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return failf(cli.Failed, "%s: nothing was done", c.word)
	}
	return nil
}

func purge(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	if err := c.sure(ctx, "Delete messages on disk that were left behind?"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.p.opt.timeout, errTimeout)
	defer cancel()
	return plain("delete_previous_persistence_remains", nil)(ctx, c)
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
		if id != "" || o.all {
			return usagef("dead list: want no argument but -type")
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
