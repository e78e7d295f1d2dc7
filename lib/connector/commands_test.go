package connector

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
)

func TestEveryCommandIsInTheTable(t *testing.T) {
	s := server(t)
	known := map[string]control.Command{}
	for _, c := range control.Known() {
		known[c.Name] = c
	}
	for _, name := range s.commands.Names() {
		c, _ := s.commands.Command(name)
		k, ok := known[name]
		if !ok {
			t.Errorf("control.Known does not have %s", name)
			continue
		}
		if !slices.Equal(c.Args, k.Args) {
			t.Errorf("%s: arguments are %v, in control.Known %v", name, c.Args, k.Args)
		}
	}
}

// ask runs a command on the own socket.
func ask(t testing.TB, n *node, name string, kwargs map[string]any) (string, error) {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	reply, err := c.Call(within(t), name, kwargs)
	return string(reply), err
}

func TestTheOwnSocketAnswersInJSON(t *testing.T) {
	s := server(t)
	s.client(t, "c1")
	s.connected(t, "c1")
	for _, tt := range []struct {
		name   string
		kwargs map[string]any
		want   string
	}{
		{"show_log_level", nil, `"INFO"`},
		{"show_attribute", map[string]any{"attribute": "is_server"}, `true`},
		{"show_attribute", map[string]any{"attribute": "recv_message_types"}, `["any"]`},
		{"peek_queues", nil, `{"queue_recv":0,"queue_send":{"c1":0}}`},
		{"manage_ignore_peer_traffic", map[string]any{"show": true}, `false`},
		{"start", nil, `null`},
	} {
		if got, err := ask(t, s, tt.name, tt.kwargs); err != nil || got != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
	for _, tt := range []struct {
		name   string
		kwargs map[string]any
		want   error
	}{
		{"no_such", nil, control.ErrUnknown},
		{"stop", map[string]any{"hard": "yes"}, control.ErrArgument},
		{"stop", map[string]any{"softly": true}, control.ErrArgument},
		{"set_log_level", nil, control.ErrArgument},
		{"set_log_level", map[string]any{"level": "LOUD"}, control.ErrArgument},
		{"show_attribute", map[string]any{"attribute": "tokens"}, control.ErrArgument},
		{"manage_ignore_peer_traffic", map[string]any{"unique_peer": "a/../b"}, control.ErrArgument},
	} {
		if _, err := ask(t, s, tt.name, tt.kwargs); !errors.Is(err, tt.want) {
			t.Errorf("%s %v: got %v, want %v", tt.name, tt.kwargs, err, tt.want)
		}
	}
}

// stats asks for the statistics as aioc-ctl does.
func stats(t testing.TB, n *node) control.Stats {
	t.Helper()
	text, err := ask(t, n, "stats", nil)
	if err != nil {
		t.Fatal(err)
	}
	var s control.Stats
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatisticsCountWhatPasses(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	s.connected(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	c.send(t, "any", "", "1", "2", "3")
	in.wait(t, 3)
	var got control.Stats
	eventually(t, "three are done", func() bool {
		got = stats(t, s)
		return got.Types[0].Queue.Done == 3
	})
	if got.Received != 3 || got.Types[0].Queue.Put != 3 || got.Types[0].Receivers != 1 || got.Types[0].Type != "any" {
		t.Errorf("types: %+v", got.Types)
	}
	if len(got.Peers) != 1 || got.Peers[0].Name != "c1" || !got.Peers[0].Connected || !got.Peers[0].Native {
		t.Errorf("peers: %+v", got.Peers)
	}
	if got.TLS != "off" || !got.Running || !got.Server || got.PID != os.Getpid() || got.Events["link up"] != 1 || len(got.Problems) != 0 {
		t.Errorf("got %+v", got)
	}
	eventually(t, "the client has sent three", func() bool { return stats(t, c).Sent == 3 })
	// What is counted outlives the client.
	s.send(t, "any", "c1", "1")
	eventually(t, "one was sent", func() bool { return stats(t, s).Sent == 1 })
	c.halt(t)
	eventually(t, "the client is forgotten", func() bool { return len(stats(t, s).Peers) == 0 })
	if n := stats(t, s).Sent; n != 1 {
		t.Errorf("sent %d messages, want 1", n)
	}
}

func TestHealthSaysWhatIsNotWell(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	s.connected(t, "c1")
	health := func(n *node) (h control.Health) {
		text, err := ask(t, n, "health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
	if h := health(c); !h.OK || len(h.Problems) != 0 || h.Name != "c1" {
		t.Errorf("got %+v", h)
	}
	command(t, s, "manage_ignore_peer_traffic", map[string]any{"unique_peer": "c2"})
	if h := health(s); !h.OK {
		t.Errorf("one peer is ignored: got %+v", h)
	}
	command(t, s, "manage_ignore_peer_traffic", map[string]any{"enable": true})
	if h := health(s); h.OK || len(h.Problems) != 1 || !strings.Contains(h.Problems[0], "the messages of all peers are dropped") {
		t.Errorf("all are ignored: got %+v", h)
	}
	command(t, s, "manage_ignore_peer_traffic", map[string]any{"disable": true})
	if h := health(s); !h.OK {
		t.Errorf("nobody is ignored: got %+v", h)
	}
	command(t, s, "stop", nil)
	if h := health(s); h.OK || !slices.Contains(h.Problems, "the connector is stopped") {
		t.Errorf("got %+v", h)
	}
	eventually(t, "the client is not well", func() bool {
		h := health(c)
		return !h.OK && strings.HasPrefix(h.Problems[0], "not connected to the server")
	})
}

func TestIgnoredTrafficIsWrittenDown(t *testing.T) {
	cfg := newConfig(t)
	cfg.File = filepath.Join(t.TempDir(), "aioc.json")
	if err := os.WriteFile(cfg.File, []byte("{\n    \"use_ssl\": false\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.IsServer = false
	cfg.ClientName = "c1"
	c := run(t, cfg, nil)
	for _, tt := range []struct {
		kwargs      map[string]any
		reply, file string
	}{
		{map[string]any{"enable": true}, "True", `"ignore_peer_traffic": true`},
		{map[string]any{"show": true}, "True", `"ignore_peer_traffic": true`},
		{map[string]any{"unique_peer": "p1"}, "['p1']", `"ignore_peer_traffic": "p1"`},
		{nil, "{}", `"ignore_peer_traffic": "p1"`},
		{map[string]any{"disable": true}, "False", `"ignore_peer_traffic": false`},
	} {
		if got := command(t, c, "manage_ignore_peer_traffic", tt.kwargs); got != tt.reply {
			t.Errorf("%v: got %s, want %s", tt.kwargs, got, tt.reply)
		}
		if text, err := os.ReadFile(cfg.File); err != nil || !strings.Contains(string(text), tt.file) {
			t.Errorf("%v: the file has %s, %v; want %s", tt.kwargs, text, err, tt.file)
		}
	}
	if err := os.Remove(cfg.File); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, c, "manage_ignore_peer_traffic", map[string]any{"enable": true}); err == nil {
		t.Error("what cannot be written down is done")
	}
	if got := command(t, c, "manage_ignore_peer_traffic", map[string]any{"show": true}); got != "False" {
		t.Errorf("after that: got %s, want False", got)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	cfg := newConfig(t)
	cfg.IsServer = false
	cfg.ClientName = "c1"
	cfg.Proxy.Username, cfg.Proxy.Password = "u", "hunter2"
	c := run(t, cfg, nil)
	if got, err := ask(t, c, "show_attribute", map[string]any{"attribute": "proxy"}); !errors.Is(err, control.ErrArgument) {
		t.Errorf("show_attribute proxy: got %s, %v", got, err)
	}
	for _, name := range []string{"show_config", "stats", "metrics"} {
		if got, err := ask(t, c, name, nil); err != nil || strings.Contains(got, "hunter2") {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
}

func TestStatisticsHaveEachTypeOfAPeer(t *testing.T) {
	s := server(t, types("a", "b"), func(cfg *config.Config) { cfg.PersistSend.All = true })
	start := time.Now().Add(-time.Second).UnixMilli()
	s.send(t, "a", "pump7", "1", "2")
	s.send(t, "b", "pump7", "3")
	got := stats(t, s)
	if len(got.Peers) != 1 || len(got.Peers[0].Lanes) != 2 || got.LanesLeft != 0 {
		t.Fatalf("got %+v", got.Peers)
	}
	for i, want := range []control.LaneStats{{Type: "a", Waiting: 2}, {Type: "b", Waiting: 1}} {
		l := got.Peers[0].Lanes[i]
		if l.Type != want.Type || l.Waiting != want.Waiting || l.Disk == 0 || l.Oldest < start || l.Oldest > time.Now().UnixMilli() {
			t.Errorf("got %+v, want %+v", l, want)
		}
	}
	text, err := ask(t, s, "metrics", nil)
	if err != nil || !strings.Contains(text, `peer=\"pump7\",type=\"a\"} 2`) {
		t.Errorf("metrics: %v, %s", err, text)
	}
	// In memory.
	m := server(t)
	c := m.client(t, "c1")
	m.connected(t, "c1")
	c.send(t, "any", "", "1", "2")
	eventually(t, "two wait for a program, for some time", func() bool {
		q := stats(t, m).Types[0].Queue
		return q.Waiting == 2 && q.Oldest >= start && q.Oldest <= time.Now().UnixMilli()
	})
}

func TestStatisticsOfTheDisk(t *testing.T) {
	s := server(t, func(cfg *config.Config) { cfg.PersistRecv.All = true })
	c := s.client(t, "c1")
	s.connected(t, "c1")
	if got := stats(t, c).Disk; got != nil {
		t.Errorf("nothing is on disk, and it says %+v", got)
	}
	c.send(t, "any", "", "1", "2", "3")
	var got control.Stats
	eventually(t, "three wait on disk, synced", func() bool {
		got = stats(t, s)
		return got.Types[0].Queue.Put == 3 && got.Disk != nil && slices.Max(got.Disk.Syncs.Counts) > 0
	})
	if got.Disk.Bytes == 0 || got.Types[0].Queue.Disk == 0 || got.Types[0].Queue.Oldest == 0 || got.Disk.Errors != 0 {
		t.Errorf("got %+v, queue %+v", got.Disk, got.Types[0].Queue)
	}
	if n := len(got.Disk.Syncs.Counts); n != len(got.Disk.Syncs.Bounds)+1 {
		t.Errorf("%d counts, %d bounds", n, len(got.Disk.Syncs.Bounds))
	}
	text, err := ask(t, s, "metrics", nil)
	if err != nil || !strings.Contains(text, "aioc_disk_sync_seconds_bucket") {
		t.Errorf("metrics: %v", err)
	}
}

func TestTheServersAddressIsAPairOnTheOwnSocketAndATextForPython(t *testing.T) {
	cfg := newConfig(t)
	cfg.IsServer, cfg.ClientName = false, "c1"
	c := run(t, cfg, nil)
	kwargs := map[string]any{"attribute": "server_sockaddr"}
	if got, err := ask(t, c, "show_attribute", kwargs); err != nil || !strings.HasPrefix(got, "[\"") {
		t.Errorf("own socket: got %s, %v, want an array", got, err)
	}
	if got := command(t, c, "show_attribute", kwargs); got != cfg.ServerAddr.Text() {
		t.Errorf("commander: got %s, want %s", got, cfg.ServerAddr.Text())
	}
}
