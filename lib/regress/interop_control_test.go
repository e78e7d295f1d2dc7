//go:build interop

package regress

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// testCommands commands connectors of both kinds with the original's remote
// tool. Both must give the same replies.
func testCommands(t *testing.T, py python) {
	var tests []subtest
	for _, kinds := range [][2]string{{ours, theirs}, {theirs, ours}, {ours, ours}, {theirs, theirs}} {
		name := fmt.Sprintf("server=%s/client=%s", kinds[0], kinds[1])
		tests = append(tests, subtest{name, func(t *testing.T) {
			p := newPair(t, py, kinds[0], kinds[1], "off", []string{"any", "b"}, 0, nil)
			p.start(t)
			for _, h := range p.hosts() {
				other := p.server
				if h.server {
					other = p.client
				}
				t.Run(h.role(), func(t *testing.T) {
					d := newDriver(t, h)
					testShow(t, d)
					testMethods(t, py, d)
					if h.kind == ours {
						testMissing(t, d)
					}
					testStop(t, d, other)
				})
			}
		}})
	}
	together(t, 2, tests)
}

// testShow tries the commands that show and set something.
func testShow(t *testing.T, d *driver) {
	h := d.host
	peers, err := h.peers()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("%q: [\"127.0.0.1\", %v]", h.peer, peers[h.peer][1])
	role := map[bool]string{true: "True", false: "False"}[h.server]
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"show_connected_peers", nil, "{" + address + "}"},
		{"show_connected_peers", []any{false}, "{" + pythonKey(h.peer) + strings.ReplaceAll(address[len(h.peer)+2:], `"`, "'") + "}"},
		{"peek_queues", nil, fmt.Sprintf("{\n    \"queue_recv\": 0,\n    \"queue_send\": {\n        %q: 0\n    }\n}", h.peer)},
		{"show_log_level", nil, "INFO"},
		{"set_log_level", []any{"DEBUG"}, "DEBUG"},
		{"show_log_level", nil, "DEBUG"},
		{"set_log_level", []any{"WARNING"}, "WARNING"},
		{"show_log_level", nil, "WARNING"},
		{"set_log_level", []any{"INFO"}, "INFO"},
		{"show_attribute", []any{"source_id"}, h.id},
		{"show_attribute", []any{"is_server"}, role},
		{"show_attribute", []any{"is_running"}, "True"},
		{"show_attribute", []any{"use_ssl"}, "False"},
		{"show_attribute", []any{"recv_message_types"}, "['any', 'b']"},
		{"show_attribute", []any{"connector_files_dirpath"}, h.dir},
		{"start_connector", nil, "{}"}, // it runs already
	} {
		got, err := d.call(c.method, c.args...)
		if err != nil || got != c.want {
			t.Errorf("%s%q replied %q, %v, want %q", c.method, c.args, got, err, c.want)
		}
	}
}

// testMethods tries every method of the original's remote tool, and notices one
// that it does not know. Those with no calls here have them in other tests.
func testMethods(t *testing.T, py python, d *driver) {
	const done = `{"status": true, "msg": ""}`
	server, none := d.host.server, []any{nil, "nobody-7"} // client_ip and client_id
	type call struct {
		args []any
		want string // "" for nothing: the tool does not even ask
	}
	onServer := func(want string) string {
		if !server {
			return ""
		}
		return want
	}
	onClient := func(want string) string {
		if server {
			return "{}"
		}
		return want
	}
	methods := []struct {
		name  string
		calls []call
	}{
		{"ignore_peer_traffic_enable", []call{{nil, "True"}}},
		{"ignore_peer_traffic_enable_unique", []call{{[]any{"pump7"}, "['pump7']"}}},
		{"ignore_peer_traffic_show", []call{{nil, "['pump7']"}}},
		{"ignore_peer_traffic_disable", []call{{nil, "False"}}},
		{"set_subscribe_message_types", []call{{nil, "{}"}, {[]any{"b", "other"}, onClient("['b']")}}},
		{"show_subscribe_message_types", []call{{nil, onClient("['b']")}}},
		{"delete_previous_persistence_remains", []call{{nil, "{}"}}},
		{"disconnect_client", []call{{[]any{"nobody"}, onServer("Non existing client nobody")}}},
		{"add_blacklist_client", []call{{none, onServer("True")}, {[]any{"192.0.2.1"}, onServer("True")}, {[]any{"192.0.2.0/24"}, onServer("True")}}},
		{"remove_blacklist_client", []call{{none, onServer("True")}, {[]any{"192.0.2.1"}, onServer("True")}, {[]any{"192.0.2.0/24"}, onServer("True")}}},
		{"add_whitelist_client", []call{{[]any{"127.0.0.0/8"}, onServer("True")}}},
		{"remove_whitelist_client", []call{{[]any{"127.0.0.0/8"}, onServer("True")}}},
		{"delete_client_certificate", nil}, // testIdentity
		{"delete_client_token", nil},
		{"reload_tokens", nil}, // testMissing
		{"peek_queues", nil},   // testShow
		{"show_connected_peers", nil},
		{"set_log_level", nil},
		{"show_attribute", nil},
		{"show_log_level", nil},
		{"restart_connector", nil}, // testStop
		{"start_connector", nil},
		{"stop_connector", nil},
	}
	known := map[string]bool{}
	for _, m := range methods {
		known[m.name] = true
		for _, c := range m.calls {
			got, err := d.call(m.name, c.args...)
			if c.want == "" { // the tool returns no text
				if err == nil {
					t.Errorf("%s%q replied %q, want that it is not even asked", m.name, c.args, got)
				}
			} else if err != nil || got != c.want {
				t.Errorf("%s%q replied %q, %v, want %q", m.name, c.args, got, err, c.want)
			}
		}
	}
	if server {
		if got, err := d.call("delete_client_certificate", "nobody"); err != nil || got != "True" {
			t.Errorf("delete_client_certificate replied %q, %v, want True", got, err)
		}
		if got, err := d.call("delete_client_token", "nobody"); err != nil || got != done {
			t.Errorf("delete_client_token replied %q, %v, want %s", got, err, done)
		}
	}
	const list = `import inspect, aioconnectors; print(*[n for n, _ in inspect.getmembers(aioconnectors.ConnectorRemoteTool, inspect.isfunction)])`
	out, err := exec.Command(py.exe, "-c", list).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range strings.Fields(string(out)) {
		if !known[method] && method != "__init__" && method != "send_command" {
			t.Errorf("the test does not try %s", method)
		}
	}
}

// pythonKey returns a name as Python shows it in a dictionary.
func pythonKey(name string) string {
	if strings.Contains(name, "'") {
		return `"` + name + `"`
	}
	return "'" + name + "'"
}

// testMissing tries what the connector does not have: a Python connector
// leaves the tool waiting, these answer. Commands that there are not are logged.
func testMissing(t *testing.T, d *driver) {
	reload := "load_client_token"
	if d.host.server {
		reload = "load_server_tokens"
	}
	missing := []string{"no_such_command", "__init__"}
	type call struct {
		command string
		kwargs  map[string]any
	}
	calls := []call{
		{"no_such_thing__sync", map[string]any{"a": 1}},
		{"show_attribute__sync", map[string]any{"attribute": "no_such_attribute"}},
		{"show_attribute__sync", map[string]any{"attribute": "tokens"}},
		{"set_log_level__sync", map[string]any{"level": "LOUD"}},
		{"set_log_level__sync", nil},
		{"stop", map[string]any{"no_such_argument": true}},
		{reload, nil}, // the original does it, and says nothing
	}
	for _, name := range missing {
		calls = append(calls, call{name, nil})
	}
	for _, c := range calls {
		got, err := d.command(c.command, c.kwargs)
		// Without a reply the tool returns the text of an exception.
		if err != nil || got == "" || strings.Contains(got, "bytes read on a total of") {
			t.Errorf("%s %v: no reply: %q, %v", c.command, c.kwargs, got, err)
		}
	}
	if err := eventuallyErr(func() error {
		log := string(d.host.daemon.out.bytes())
		for _, name := range missing {
			if !strings.Contains(log, name) {
				return fmt.Errorf("the log of the %s does not have %s", d.host.role(), name)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if level, err := d.call("show_log_level"); err != nil || level != "INFO" {
		t.Errorf("the log level is %q, %v after levels that there are not, want INFO", level, err)
	}
}

// testStop stops, starts and restarts a connector.
func testStop(t *testing.T, d *driver, other *host) {
	h := d.host
	call := func(method string, args ...any) {
		t.Helper()
		if got, err := d.call(method, args...); err != nil || got != "{}" {
			t.Errorf("%s%v replied %q, %v, want {}", method, args, got, err)
		}
	}
	linked := func() {
		t.Helper()
		h.awaitPeers(t, h.peer)
		other.awaitPeers(t, other.peer)
	}
	sending := filepath.Join(h.dir, "uds_path_send_to_connector_"+h.role()+"_"+h.socket)

	call("restart_connector")
	linked()
	call("restart_connector", nil, 1, false, true) // pause 1 s, hard
	linked()
	call("stop_connector")
	if h.kind == ours {
		// A Python client shows its peer for ever.
		h.awaitPeers(t)
	}
	other.awaitPeers(t)
	if _, err := os.Stat(sending); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after stop: %s: %v, want that it does not exist", sending, err)
	}
	if got, err := d.call("show_attribute", "is_running"); err != nil || got != "False" {
		t.Errorf("is_running is %q, %v after stop, want False", got, err)
	}
	call("start_connector")
	linked()
	if _, err := os.Stat(sending); err != nil {
		t.Errorf("after start: %v", err)
	}
}

// testPrograms runs the original's own programs against these connectors.
func testPrograms(t *testing.T, py python) {
	p := newPair(t, py, ours, ours, "off", []string{"any"}, 0, nil)
	p.start(t)
	program := func(name string, h *host) *process {
		t.Helper()
		cmd := exec.Command(py.exe, "-u", script(t, "program.py"), name, h.config)
		cmd.Dir = h.dir
		return start(t, "aioconnectors "+name, cmd)
	}
	says := func(q *process, words ...string) {
		t.Helper()
		eventually(t, q.what+" says what it should", func() error {
			for _, w := range words {
				if !strings.Contains(string(q.out.bytes()), w) {
					return fmt.Errorf("its output has no %q", w)
				}
			}
			if q.ended() {
				t.Fatalf("%s ended: %v", q.what, q.err)
			}
			return nil
		})
	}
	receiver := program("test_receive_messages", p.server)
	// It starts to listen when it has said so, and the sender goes on anyhow.
	sender := program("test_send_messages", p.client)
	says(receiver, "RECEIVED MESSAGE", "TEST_MESSAGE 22222", "'tag': 'tag1'")
	pinger := program("ping", p.client)
	says(pinger, "SENDING PING", "RECEIVING REPLY")
	for _, q := range []*process{pinger, sender, receiver} {
		if err := q.end(syscall.SIGINT); err != nil {
			t.Error(err)
		}
	}
}
