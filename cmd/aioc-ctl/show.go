package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
)

// connectorRow is one connector in the reply of list.
type connectorRow struct {
	Name   string `json:"name"`
	Server bool   `json:"server"`
	Native bool   `json:"native"` // of this toolkit
	Alive  bool   `json:"alive"`
	State  string `json:"state"` // running, stopped, silent or dead
}

// listTimeout is how long list waits for a connector: one that is well answers
// at once.
const listTimeout = 2 * time.Second

// state asks a connector how it is. One of the original, and one that does not
// let this user ask, is taken to run.
func (c *call) state(ctx context.Context, dir string, e config.Endpoint) string {
	if !e.Alive() {
		return "dead"
	}
	if e.Own == "" {
		return "running"
	}
	ctx, cancel := context.WithTimeout(ctx, min(listTimeout, c.p.opt.timeout))
	defer cancel()
	client, err := api.OpenControl(ctx, api.Target{Dir: dir, Connector: e.Name})
	if err == nil {
		defer client.Close()
		var reply json.RawMessage
		if reply, err = client.Call(ctx, "show_attribute", map[string]any{"attribute": "is_running"}); err == nil {
			return pick(text(reply) == "false", "stopped", "running")
		}
	}
	return pick(ctx.Err() != nil, "silent", "running")
}

// list lists the connectors in the directory.
func list(ctx context.Context, c *call) error {
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
	rows := make([]connectorRow, len(all))
	var asked sync.WaitGroup // all at once: one that is silent holds up nobody
	for i, e := range all {
		asked.Go(func() {
			state := c.state(ctx, dir, e)
			if state == "stopped" {
				e.Name = api.Names(ctx, []config.Endpoint{e})[0]
			}
			rows[i] = connectorRow{e.Name, e.Server, e.Own != "", state != "dead", state}
		})
	}
	asked.Wait()
	return c.p.emit(rows, func(t *table) {
		t.head("NAME", "ROLE", "KIND", "STATE")
		for _, r := range rows {
			t.row(r.Name, pick(r.Server, "server", "client"), pick(r.Native, "aioc", "python"), r.State)
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
	Dead int `json:"dead_letters"` // of the type
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
			rows = append(rows, queueRow{"send", name, control.QueueStats{Waiting: n}, 0})
		}
		slices.SortFunc(rows, func(a, b queueRow) int { return strings.Compare(a.Name, b.Name) })
		rows = append(rows, queueRow{"recv", "", control.QueueStats{Waiting: q.Recv}, 0})
	} else {
		s, err := c.stats(ctx)
		if err != nil {
			return err
		}
		rows = queueRows(s)
	}
	return c.p.emit(rows, func(t *table) {
		t.head("WAY", "NAME", "WAITING", "IN HAND", "MEMORY", "DISK", "PUT", "DONE", "DEAD")
		for _, r := range rows {
			t.row(r.Direction, dash(r.Name), strconv.Itoa(r.Waiting), strconv.Itoa(r.InHand), size(int64(r.Bytes)), size(r.Disk),
				strconv.FormatUint(r.Put, 10), strconv.FormatUint(r.Done, 10), strconv.Itoa(r.Dead))
		}
	})
}

func queueRows(s *control.Stats) []queueRow {
	rows := []queueRow{}
	for _, p := range s.Peers {
		rows = append(rows, queueRow{"send", p.Name, p.Queue, 0})
	}
	for _, t := range s.Types {
		rows = append(rows, queueRow{"recv", t.Type, t.Queue, s.DeadLetters[t.Type]})
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
	Dead     int      `json:"dead_letters"`
	Config   string   `json:"config_file,omitempty"`
	Dir      string   `json:"directory,omitempty"`
	Sandbox  string   `json:"sandbox,omitempty"`
	Ignored  string   `json:"ignored,omitempty"` // whose messages are dropped
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
		r = statusRow{s.Name, s.Server, s.Address, true, s.Version, s.PID, s.Running, time.Since(s.Started).Seconds(), s.TLS, 0, 0, 0, 0,
			s.ConfigFile, s.Directory, s.Sandbox, "", s.Problems}
		if peer, all := s.Ignores(); all {
			r.Ignored = "all peers"
		} else {
			r.Ignored = peer
		}
		for _, p := range s.Peers {
			if p.Connected {
				r.Peers++
			}
		}
		for _, q := range queueRows(s) {
			r.Waiting += q.Waiting + q.InHand
		}
		for _, n := range s.DeadLetters {
			r.Dead += n
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
			if r.Ignored != "" {
				t.row("ignored", r.Ignored+"; see ignore-traffic")
			}
			t.row("waiting", strconv.Itoa(r.Waiting)+" messages")
			t.row("dead letters", strconv.Itoa(r.Dead)+pick(r.Dead > 0, "; see dead list", ""))
			t.row("dropped or refused", strconv.FormatUint(r.Dropped, 10)+pick(r.Dropped > 0, "; see stats", ""))
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
	if c.p.opt.json {
		return usagef("metrics: it is the text format of Prometheus, without -json: the command stats has the same as JSON")
	}
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
	to := peerNamed(info, c.arg(0))
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
