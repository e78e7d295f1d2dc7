package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/access"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/wire"
)

// command sends a command as the tool of the original does.
func (n *node) command(t testing.TB, name string, kwargs map[string]any) string {
	t.Helper()
	reply, err := control.Call(within(t), n.paths.CommanderSocket, name, kwargs)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return reply
}

// do runs a command, as the own socket does, and returns the result as JSON.
func (n *node) do(t testing.TB, name string, kwargs map[string]any) (string, error) {
	t.Helper()
	args, err := json.Marshal(kwargs)
	if err != nil {
		t.Fatal(err)
	}
	result, err := n.commands.Call(within(t), name, args)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), nil
}

// onFile gives a configuration a file.
func onFile(t testing.TB, text string) func(*config.Config) {
	return func(cfg *config.Config) {
		file := filepath.Join(cfg.Dir(), "x.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg.File = file
		for _, key := range access.Keys() {
			*access.List(cfg, key) = *access.List(loaded, key)
		}
	}
}

// The calls and replies are those of a capture of the original.
func TestListsAreChangedByTheCommandsOfTheOriginal(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "lists.json"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []struct {
		Side, Cmd, Reply string
		Kwargs           map[string]any
	}
	if err := json.Unmarshal(text, &calls); err != nil {
		t.Fatal(err)
	}
	s := server(t)
	nodes := map[string]*node{"server": s, "client": s.client(t, "client1")}
	for _, c := range calls {
		if got := nodes[c.Side].command(t, c.Cmd, c.Kwargs); got != c.Reply {
			t.Errorf("%s: %s %v: got %q, want %q", c.Side, c.Cmd, c.Kwargs, got, c.Reply)
		}
	}
	if len(calls) < 15 {
		t.Errorf("%d calls in the capture", len(calls))
	}
}

func TestWhoIsNoLongerWelcomeIsDisconnected(t *testing.T) {
	for _, test := range []struct {
		name, command string
		kwargs        map[string]any
		gone          []string
		log           string
	}{
		{"the name", "add_blacklist_client", map[string]any{"client_id": "pump1$"}, []string{"pump1"}, "blacklisted_clients_id"},
		{"all that the expression matches", "add_blacklist_client", map[string]any{"client_id": "pump"}, []string{"pump1", "pump2"}, "blacklisted_clients_id"},
		{"the address", "add_blacklist_client", map[string]any{"client_ip": "127.0.0.1"}, []string{"pump1", "pump2", "tank"}, "blacklisted_clients_ip"},
		{"the network", "add_blacklist_client", map[string]any{"client_ip": "127.0.0.0/8"}, []string{"pump1", "pump2", "tank"}, "blacklisted_clients_subnet"},
		{"all but", "add_whitelist_client", map[string]any{"client_id": "pump2"}, []string{"pump1", "tank"}, "whitelisted_clients_id"},
		{"all of elsewhere", "add_whitelist_client", map[string]any{"client_ip": "10.0.0.1"}, []string{"pump1", "pump2", "tank"}, "whitelisted_clients_ip"},
		{"nobody", "add_blacklist_client", map[string]any{"client_id": "ump"}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := server(t, onFile(t, "{}"))
			names := []string{"pump1", "pump2", "tank"}
			for _, name := range names {
				s.client(t, name)
			}
			if got := s.command(t, test.command, test.kwargs); got != "True" {
				t.Fatalf("got %q", got)
			}
			for _, name := range names {
				if slices.Contains(test.gone, name) {
					s.disconnected(t, name)
					eventually(t, "the log says it", func() bool {
						return s.log.count("peer not welcome any more peer="+name) >= 1 && s.log.count(test.log) >= 2
					})
					eventually(t, "it is refused when it comes back", func() bool { return s.log.count("client refused") >= 1 })
				} else if b := s.box(name, false); b == nil || b.current() == nil {
					t.Errorf("%s was disconnected", name)
				}
			}
			// And what was added is taken back.
			remove := strings.Replace(test.command, "add_", "remove_", 1)
			if got := s.command(t, remove, test.kwargs); got != "True" {
				t.Fatalf("%s: got %q", remove, got)
			}
			for _, name := range names {
				s.connected(t, name)
			}
		})
	}
}

func TestChangedListsAreSaved(t *testing.T) {
	s := server(t, onFile(t, `{"whitelisted_clients_id": ["a"], "is_server": true}`))
	// Somebody edits the file, which is not read again.
	if err := config.Update(s.cfg.File, "blacklisted_clients_ip", []string{"10.9.9.9"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		kwargs map[string]any
	}{
		{"add_whitelist_client", map[string]any{"client_id": "b"}},
		{"add_blacklist_client", map[string]any{"client_ip": "10.0.0.1"}},
		{"add_blacklist_client", map[string]any{"client_ip": "10.1.0.0/16"}},
		{"remove_whitelist_client", map[string]any{"client_id": "a"}},
	} {
		if got := s.command(t, c.name, c.kwargs); got != "True" {
			t.Errorf("%s %v: got %q", c.name, c.kwargs, got)
		}
	}
	got, err := config.Load(s.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.WhitelistID, got.BlacklistIP, got.BlacklistSubnet) != "[b] [10.9.9.9 10.0.0.1] [10.1.0.0/16]" {
		t.Errorf("saved: %v %v %v", got.WhitelistID, got.BlacklistIP, got.BlacklistSubnet)
	}
	if reply := s.command(t, "show_attribute", map[string]any{"attribute": "blacklisted_clients_ip"}); reply != "{'10.0.0.1'}" {
		t.Errorf("in effect: %s", reply)
	}
	// The file cannot be written: it holds all the same.
	if err := os.Remove(s.cfg.File); err != nil {
		t.Fatal(err)
	}
	if _, err := s.do(t, "add_blacklist_client", map[string]any{"client_ip": "10.0.0.2"}); err == nil || !strings.Contains(err.Error(), "until the connector ends") {
		t.Errorf("got %v", err)
	}
	if reply := s.command(t, "show_attribute", map[string]any{"attribute": "blacklisted_clients_ip"}); reply != "{'10.0.0.1', '10.0.0.2'}" {
		t.Errorf("in effect: %s", reply)
	}
}

func TestListsAreShownAndExplained(t *testing.T) {
	s := server(t, func(cfg *config.Config) {
		cfg.WhitelistID = []string{"pump[0-9]+$"}
		cfg.BlacklistSubnet = []string{"10.0.0.0/8"}
	})
	reply, err := s.do(t, "show_lists", nil)
	var lists map[string][]string
	if err == nil {
		err = json.Unmarshal([]byte(reply), &lists)
	}
	if err != nil || len(lists) != 6 || fmt.Sprint(lists["whitelisted_clients_id"]) != "[pump[0-9]+$]" || lists["blacklisted_clients_id"] == nil {
		t.Errorf("got %s, %v", reply, err)
	}
	for _, test := range []struct {
		id, ip string
		by     string
	}{
		{"pump1", "192.0.2.1", ""},
		{"pump1", "::ffff:10.0.0.1", "blacklisted_clients_subnet"},
		{"tank", "", "whitelisted_clients_id"},
		{"pump1\n", "", "client_name"},
		{"../pump1", "", "client_name"},
		{"default", "", "client_name"},
		{"", "10.0.0.1", "blacklisted_clients_subnet"},
	} {
		reply, err := s.do(t, "explain", map[string]any{"client_id": test.id, "client_ip": test.ip})
		var e access.Explanation
		if err == nil {
			err = json.Unmarshal([]byte(reply), &e)
		}
		if err != nil || e.By != test.by || e.Welcome != (test.by == "") || len(e.Steps) < 6 {
			t.Errorf("%q %q: got %s, %v, want %q", test.id, test.ip, reply, err, test.by)
		}
	}
	for _, kwargs := range []map[string]any{nil, {"client_ip": "10.0.0.0/8"}} {
		if reply, err := s.do(t, "explain", kwargs); err == nil {
			t.Errorf("%v: got %s", kwargs, reply)
		}
	}
	if _, err := s.do(t, "add_blacklist_client", map[string]any{"client_id": "a(?=b)"}); err == nil || !strings.Contains(err.Error(), "look-around") {
		t.Errorf("got %v", err)
	}
	if _, err := s.do(t, "remove_blacklist_client", map[string]any{"client_id": "a"}); err == nil || !strings.Contains(err.Error(), `"a": not on the list`) {
		t.Errorf("got %v", err)
	}
}

func TestAReloadTakesTheLists(t *testing.T) {
	s := server(t, onFile(t, "{}"))
	s.client(t, "pump1")
	s.client(t, "tank")
	next := *s.cfg
	next.BlacklistID = []string{"pump"}
	if err := s.Reload(&next); err != nil {
		t.Fatal(err)
	}
	s.disconnected(t, "pump1")
	if b := s.box("tank", false); b == nil || b.current() == nil {
		t.Error("one who is welcome was disconnected")
	}
	if s.log.count("changed key not used") != 0 {
		t.Error("a restart is asked for")
	}
	bad := next
	bad.BlacklistID = []string{"("}
	if err := s.Reload(&bad); err == nil || !strings.Contains(err.Error(), "blacklisted_clients_id") {
		t.Errorf("got %v", err)
	}
	if s.guard.Rules().Decide("pump1", pumpAddr) == nil {
		t.Error("after a bad file the lists are others")
	}
	next.BlacklistID = nil
	if err := s.Reload(&next); err != nil {
		t.Fatal(err)
	}
	s.connected(t, "pump1")
}

var pumpAddr = access.Client{}.Addr.Addr() // not known

func TestAListWithoutAFileOutlivesAReload(t *testing.T) {
	s := server(t)
	s.command(t, "add_blacklist_client", map[string]any{"client_id": "pump"})
	next := *s.cfg
	if err := s.Reload(&next); err != nil {
		t.Fatal(err)
	}
	if s.guard.Rules().Decide("pump1", pumpAddr) == nil {
		t.Error("the entry is gone")
	}
	if s.log.count("until the connector ends: it has no configuration file") != 1 {
		t.Error("the log does not say that it was not saved")
	}
}

// knock connects as a client and says hello, and tells whether it was let in.
func knock(t testing.TB, s *node, name string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", s.cfg.ServerAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	header, err := json.Marshal(map[string]string{"message_type": "_handshake_no_ssl", "source_id": name})
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.AppendFrame(nil, header, []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A ping is answered only by one that lets us in.
	ping, err := wire.AppendFrame(frame, []byte(fmt.Sprintf(`{"message_type": "_ping", "source_id": %q, "await_response": true, "request_id": 1}`, name)), []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Write(ping) // it may be closed already
	conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 1))
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("neither let in nor refused")
	}
	return n > 0
}

func TestAProgramOfTheConfigurationDecides(t *testing.T) {
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho $AIOC_CLIENT $AIOC_ADDR >> "+asked+"\ntest $AIOC_CLIENT = pump1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := server(t, func(cfg *config.Config) {
		cfg.HookAuthClient = config.Command{hook}
		cfg.BlacklistID = []string{"evil"}
	})
	for _, name := range []string{"pump2", "pump1", "evil"} {
		if got := knock(t, s, name); got != (name == "pump1") {
			t.Errorf("%s: let in is %v", name, got)
		}
	}
	text, err := os.ReadFile(asked)
	if err != nil || strings.Contains(string(text), "evil") || strings.Count(string(text), "127.0.0.1\n") != 2 {
		t.Errorf("asked: %q, %v", text, err)
	}
	eventually(t, "both refusals are counted", func() bool {
		s.counts.mu.Lock()
		defer s.counts.mu.Unlock()
		return s.counts.n["peer refused: admit"] == 2
	})
	s.halt(t)
	log := s.log.String()
	for _, want := range []string{`hook_server_auth_client: the program says no, with status 1`, `reason="refused by hook_server_auth_client" n=1`,
		`reason="refused by blacklisted_clients_id" n=1`, `reason="peer refused: admit" n=2`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s", want)
		}
	}
}

func TestAHookThatHangsDoesNotKeepTheConnectorFromEnding(t *testing.T) {
	dir := t.TempDir()
	began := filepath.Join(dir, "began")
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n: > "+began+"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := server(t, func(cfg *config.Config) {
		cfg.HookAuthClient, cfg.HookTimeout = config.Command{hook}, time.Hour
	})
	in := make(chan bool, 1)
	go func() { in <- knock(t, s, "pump1") }()
	eventually(t, "the hook runs", func() bool { _, err := os.Stat(began); return err == nil })
	s.halt(t)
	if <-in {
		t.Error("it was let in")
	}
}

func TestAHookThatThinksAboutAFileDoesNotKeepTheConnectorFromEnding(t *testing.T) {
	dir := newDir(t)
	began := filepath.Join(dir, "began")
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n: > "+began+"\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := server(t, stores(dir), func(cfg *config.Config) {
		cfg.HookTargetDirectory, cfg.HookTimeout = config.Command{hook}, time.Hour
	})
	c := s.client(t, "c1")
	src, _ := makeFile(t, "f", 1000)
	if err := c.sendFile(t, "", withFile(src, "pics", "f", false), "x", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hook runs", func() bool { _, err := os.Stat(began); return err == nil })
	s.halt(t)
	if n := s.counted("file refused: refused") + s.counted("file not stored: refused"); n != 0 {
		t.Errorf("%d files are refused, want none: it may come again", n)
	}
	if _, err := os.Stat(src); err != nil {
		t.Error(err)
	}
}

func TestGoHooksGoOverPrograms(t *testing.T) {
	cfg := newConfig(t)
	cfg.ClientName = "c1"
	cfg.IsServer = false
	cfg.HookStoreToken = config.Command{"/nonexistent"}
	c := New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Hooks: access.Hooks{StoreToken: func(_ context.Context, s string) (string, error) { return s + "!", nil }}})
	if got, err := c.hooks.StoreToken(t.Context(), "x"); got != "x!" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAConnectorDoesNotStartWithAProgramThatOthersCanChange(t *testing.T) {
	hook := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(hook, 0o777); err != nil {
		t.Fatal(err)
	}
	cfg := newConfig(t)
	cfg.ServerAddr = config.Addr{Host: "127.0.0.1"}
	cfg.HookWhitelist = config.Command{hook}
	c := New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler)})
	if err := c.Run(within(t), 0); err == nil || !strings.Contains(err.Error(), "hook_whitelist_clients: ") || !strings.Contains(err.Error(), "chmod go-w "+hook) {
		t.Errorf("got %v", err)
	}
}

// hookScript writes a program for a hook.
func hookScript(t *testing.T, text string) config.Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return config.Command{path}
}

func TestAProgramDecidesWhoIsGivenACertificate(t *testing.T) {
	mode := certified(t, newDir(t))
	hook := hookScript(t, "test $AIOC_HOOK = hook_allow_certificate_creation && test $AIOC_CLIENT = pump7")
	s := server(t, mode, func(cfg *config.Config) { cfg.HookAllowCertificate = hook })
	s.client(t, "pump7", mode)
	s.lateClient(t, "pump8", mode)
	eventually(t, "the other is refused", func() bool {
		return s.log.count(`client \"pump8\": hook_allow_certificate_creation: the program says no, with status 1`) > 0
	})
	if keys := s.keys.Load(); !keys.server.Has("pump7") || keys.server.Has("pump8") {
		t.Errorf("certificates: %q", keys.server.Names())
	}
}

func TestAListThatIsOnlyAListTakesNoProof(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		s.client(t, "pump7", mode)
		only := map[string]any{"client_id": "pump7", "list_only": true}
		reply, err := s.do(t, "add_blacklist_client", only)
		if err != nil || !strings.Contains(reply, `"changed":true`) {
			t.Fatalf("got %s, %v", reply, err)
		}
		s.disconnected(t, "pump7")
		if k := s.keys.Load(); k.tokens != nil && !k.tokens.Has("pump7") || k.tokens == nil && !k.server.Has("pump7") {
			t.Errorf("the %s is gone", what)
		}
		if _, err := s.do(t, "remove_blacklist_client", only); err != nil {
			t.Fatal(err)
		}
		s.connected(t, "pump7") // with what it had
	})
}

func TestBlacklistingTakesTheProofOfExactlyThatName(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		has := func(name string) bool {
			if k := s.keys.Load(); k.tokens != nil {
				return k.tokens.Has(name)
			}
			return s.keys.Load().server.Has(name)
		}
		s.client(t, "pump7", mode)
		s.client(t, "pump77", mode)
		if got := s.command(t, "add_blacklist_client", map[string]any{"client_id": "pump7"}); got != "True" {
			t.Fatalf("got %q", got)
		}
		s.disconnected(t, "pump7")
		s.disconnected(t, "pump77")
		if s.log.count("deleted, as add_blacklist_client does with who has exactly this name peer=pump7") != 1 {
			t.Error("the log does not say it")
		}
		if has("pump7") || !has("pump77") {
			t.Errorf("%s: pump7 %v, pump77 %v, want false, true", what, has("pump7"), has("pump77"))
		}
		if got := s.command(t, "remove_blacklist_client", map[string]any{"client_id": "pump7"}); got != "True" {
			t.Fatalf("got %q", got)
		}
		s.connected(t, "pump77")
	})
}

func TestTokensGoThroughTheirHooks(t *testing.T) {
	mode := tokened(t, newDir(t))
	store, load := hookScript(t, "tr 0-9a-f g-v"), hookScript(t, "tr g-v 0-9a-f")
	hooks := func(cfg *config.Config) { cfg.HookStoreToken, cfg.HookLoadToken = store, load }
	s := server(t, mode)
	c := s.client(t, "pump7", mode, hooks)
	text, err := os.ReadFile(c.paths.ClientToken)
	if err != nil || len(text) != 64 || strings.ContainsAny(string(text), "0123456789abcdef") {
		t.Errorf("the file has %d bytes that were not changed: %v", len(text), err)
	}
	c.halt(t)
	s.disconnected(t, "pump7")
	run(t, c.cfg, nil)
	s.connected(t, "pump7")
	if n := s.log.count("token issued"); n != 1 {
		t.Errorf("%d tokens were issued, want 1", n)
	}
}
