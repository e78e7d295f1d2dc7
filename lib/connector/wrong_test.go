package connector

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/local"
)

// us is a caller who may give commands, stranger one who may not.
func us() local.Caller       { return local.Caller{UID: os.Geteuid(), GID: os.Getegid()} }
func stranger() local.Caller { return local.Caller{UID: 1 << 20, GID: 1 << 20} }

// both runs a test with a server and with a client, which are connected.
func both(t *testing.T, f func(t *testing.T, n *node)) {
	s := server(t)
	c := s.client(t, "c1")
	s.connected(t, "c1")
	t.Run("server", func(t *testing.T) { f(t, s) })
	t.Run("client", func(t *testing.T) { f(t, c) })
}

// wrongly are the ways in which a call of a command can be wrong whatever the
// command does, as its arguments.
func wrongly(c control.Command) map[string]string {
	calls := map[string]string{
		"an argument that there is not": `{"no_such_argument": 1}`,
		"a list for the arguments":      `[1]`,
		"a text for the arguments":      `"hard"`,
		"no JSON":                       `{"`,
	}
	values := map[control.Kind]string{control.Bool: `true`, control.String: `"x"`, control.Number: `1`, control.List: `["x"]`}
	all := map[string]json.RawMessage{}
	for _, a := range c.Args {
		all[a.Name] = json.RawMessage(values[a.Kind])
	}
	with := func(name string, value json.RawMessage) string {
		args := map[string]json.RawMessage{}
		for k, v := range all {
			args[k] = v
		}
		if args[name] = value; value == nil {
			delete(args, name)
		}
		text, err := json.Marshal(args)
		if err != nil {
			panic(err) // a mistake in the test
		}
		return string(text)
	}
	for _, a := range c.Args {
		for kind, value := range values {
			if kind != a.Kind {
				calls[fmt.Sprintf("%s that is not %s but %s", a.Name, a.Kind, kind)] = with(a.Name, json.RawMessage(value))
			}
		}
		calls[a.Name+" that is an object"] = with(a.Name, json.RawMessage(`{"a": {}}`))
		if a.Kind == control.List {
			calls[a.Name+" with what is no string"] = with(a.Name, json.RawMessage(`["a", 1]`))
		}
		if a.Required {
			calls["no "+a.Name] = with(a.Name, nil)
			calls[a.Name+" null"] = with(a.Name, json.RawMessage(`null`))
		}
	}
	return calls
}

// Each command that there is, and each that will be, called in each way that is
// wrong: it is not run.
func TestEveryCommandRefusesWhatIsNotInTheTable(t *testing.T) {
	both(t, func(t *testing.T, n *node) {
		for _, name := range n.commands.Names() {
			c, _ := n.commands.Command(name)
			for how, kwargs := range wrongly(c) {
				if _, err := n.Connector.command(within(t), us(), name, json.RawMessage(kwargs)); !errors.Is(err, control.ErrArgument) {
					t.Errorf("%s with %s: %s: got %v, want a bad argument", name, how, kwargs, err)
				}
				if json.Valid([]byte(kwargs)) {
					reply, err := control.Call(within(t), n.paths.CommanderSocket, name, json.RawMessage(kwargs))
					if err != nil || !strings.HasPrefix(reply, "error: bad argument: ") {
						t.Errorf("%s with %s on the commander socket: got %q, %v", name, how, reply, err)
					}
				}
			}
		}
		if !n.running.Load() {
			t.Error("a wrong call stopped the connector")
		}
	})
}

func TestADaemonHasEveryCommandOfTheTable(t *testing.T) {
	both(t, func(t *testing.T, n *node) {
		names := n.commands.Names()
		for _, k := range control.Known() {
			if !slices.Contains(names, k.Name) {
				t.Errorf("%s is in control.Known, and the daemon does not have it", k.Name)
			}
		}
	})
}

// One who may only send gets health and nothing else, whatever is asked for and
// however, and a bounded number of lines in the log.
func TestAStrangerCallsNothingButHealth(t *testing.T) {
	both(t, func(t *testing.T, n *node) {
		before := strings.Count(n.log.String(), "\n")
		names := append(n.commands.Names(), "no_such", "", "health__sync__sync", "stop__sync")
		for _, name := range names {
			for _, kwargs := range []string{"", "{}", `{"attribute": "source_id", "level": "DEBUG"}`, `{"`} {
				_, err := n.Connector.command(within(t), stranger(), name, json.RawMessage(kwargs))
				if name == "health" {
					if good := kwargs == "" || kwargs == "{}"; good != (err == nil) {
						t.Errorf("health %s: %v", kwargs, err)
					}
				} else if !errors.Is(err, control.ErrRefused) {
					t.Errorf("%s %s: got %v, want that it is refused", name, kwargs, err)
				}
			}
		}
		if !n.running.Load() {
			t.Error("a stranger stopped the connector")
		}
		for i := range 1000 {
			name := fmt.Sprint("command", i)
			_, err := n.Connector.command(within(t), stranger(), name, nil)
			n.commandFailed(stranger(), name, err)
			_, err = n.Connector.command(within(t), stranger(), "health", json.RawMessage(fmt.Sprintf(`{"a%d": 1}`, i)))
			n.commandFailed(stranger(), "health", err)
		}
		if lines := strings.Count(n.log.String(), "\n") - before; lines > 20 {
			t.Errorf("%d lines in the log for 2000 calls", lines)
		}
	})
}

// Names that reach for files, break lines or are too long are answered, and leave
// nothing behind.
func TestHostileNamesInCommandsReachNothing(t *testing.T) {
	base := newDir(t)
	inside := func(cfg *config.Config) {
		if err := cfg.SetDir(filepath.Join(base, "a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(base, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"x", "x.json", "x.pem", "x.key"} {
		for _, dir := range []string{"", "a"} {
			if err := os.WriteFile(filepath.Join(base, dir, name), []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	outside := func() (all []string) {
		for _, dir := range []string{base, filepath.Join(base, "a")} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				all = append(all, filepath.Join(dir, e.Name()))
			}
		}
		return all
	}
	names := []string{"", " ", ".", "..", "../x", "../../x", "/etc/passwd", "x/../../../x", "a\nb", "a\x00b", "\x1b[2J", "\u202ex", "%s%n", "[", "(a+)+$",
		"'", `"`, `\`, "$(id)", "7:../../x", "1:..", "-1:any", "('127.0.0.1', 10673)", "\ufffd", strings.Repeat("x", 20_000), strings.Repeat("../", 1000)}
	s := server(t, inside, certified(t, newDir(t)))
	before := outside()
	for _, name := range s.commands.Names() {
		c, _ := s.commands.Command(name)
		for _, a := range c.Args {
			for _, hostile := range names {
				kwargs := map[string]any{}
				for _, other := range c.Args {
					if other.Required && other.Kind == control.String {
						kwargs[other.Name] = "x"
					}
				}
				switch a.Kind {
				case control.String:
					kwargs[a.Name] = hostile
				case control.List:
					kwargs[a.Name] = []string{hostile, hostile}
				default:
					continue
				}
				text, err := json.Marshal(kwargs)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Connector.command(within(t), us(), name, text); err != nil && control.Reason(err) == "failed" && !strings.HasPrefix(name, "dead_") {
					t.Errorf("%s %.80s: %.200v: want a reason that callers can tell apart", name, text, err)
				}
				if _, err := control.Call(within(t), s.paths.CommanderSocket, name, kwargs); err != nil {
					t.Errorf("%s %.80s on the commander socket: %v", name, text, err)
				}
			}
		}
	}
	if now := outside(); !slices.Equal(now, before) {
		t.Errorf("outside of the directory there is %q, and there was %q", now, before)
	}
	for _, path := range before {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			if text, err := os.ReadFile(path); err != nil || string(text) != "kept" {
				t.Errorf("%s: %q, %v", path, text, err)
			}
		}
	}
	if reply := command(t, s, "show_attribute", map[string]any{"attribute": "is_running"}); reply != "True" {
		t.Errorf("is_running: %s", reply)
	}
	for line := range strings.Lines(s.log.String()) {
		if len(line) > 10_000 || strings.ContainsAny(line, "\x00\x1b\u202e") {
			t.Errorf("a line of the log: %.300q", line)
		}
	}
}

// The same through the sockets, for a user who may connect to all of them.
func TestAStrangerGetsNothingThroughTheSockets(t *testing.T) {
	cfg := newConfig(t)
	cfg.ClientName, cfg.IsServer = "c1", false
	n := run(t, cfg, nil, func(c *Connector) {
		c.callerOf = func(*net.UnixConn) (local.Caller, error) { return stranger(), nil }
	})
	for _, name := range []string{"stop", "show_log_level", "no_such", "health"} {
		if reply, err := control.Call(within(t), n.paths.CommanderSocket, name, nil); err == nil {
			t.Errorf("%s on the commander socket: got %q", name, reply)
		}
	}
	if _, err := ask(t, n, "stop", nil); !errors.Is(err, control.ErrRefused) {
		t.Errorf("stop: got %v", err)
	}
	if got, err := ask(t, n, "health", nil); err != nil || !strings.Contains(got, "c1") {
		t.Errorf("health: got %s, %v", got, err)
	}
	if err := n.receive(t, api.ReceiveOptions{}).ended(t); !errors.Is(err, api.ErrRefused) {
		t.Errorf("receiving: got %v, want that it is refused", err)
	}
	if !n.running.Load() || n.counted("command refused") < 5 || n.counted("consumer refused") != 1 {
		t.Errorf("running %v, counted %v", n.running.Load(), n.counts.snapshot())
	}
}
