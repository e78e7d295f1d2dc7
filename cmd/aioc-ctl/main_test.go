package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/connector"
	"aioc/lib/control"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// daemon runs a connector in a directory of its own until the test ends, and
// returns the directory and its end.
func daemon(t *testing.T, edit func(*config.Config)) (dir string, ended <-chan struct{}) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cfg := config.Defaults()
	if err := cfg.SetDir(dir); err != nil {
		t.Fatal(err)
	}
	cfg.UseSSL = false
	edit(cfg)
	ctx, stop := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	level := new(slog.LevelVar)
	o := connector.Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Level: level, Ready: func() { close(ready) },
		Reload: func() error { return fmt.Errorf("config %q: line 3: no such key", "x.json") }}
	if cfg.IsServer {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.ServerAddr.Port = ln.Addr().(*net.TCPAddr).Port
		o.Listener = ln
	}
	c := connector.New(o)
	go func() {
		defer close(done)
		if err := c.Run(ctx, 0); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	select {
	case <-ready:
	case <-done:
	case <-time.After(patience):
		t.Fatal("the connector is not ready")
	}
	return dir, done
}

func server(cfg *config.Config) { cfg.IsServer = true }

// ctl runs the program.
func ctl(t *testing.T, stdin string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := program{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr}
	p.ask = p.question
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status = p.run(ctx, args)
	return status, stdout.String(), stderr.String()
}

func TestEveryVerbHasItsRow(t *testing.T) {
	all := rows()
	for _, v := range control.Verbs() {
		if !slices.ContainsFunc(all, func(r row) bool { return r.word == v.Word }) {
			t.Errorf("%s is in control.Verbs only", v.Word)
		}
	}
	if len(all) != len(control.Verbs()) {
		t.Errorf("%d rows, %d verbs", len(all), len(control.Verbs()))
	}
	known := map[string]bool{}
	for _, c := range control.Known() {
		known[c.Name] = true
	}
	for _, v := range control.Verbs() {
		if v.Command != "" && !known[v.Command] {
			t.Errorf("%s asks for %s, which control.Known does not have", v.Word, v.Command)
		}
	}
	for _, c := range choices() {
		word := strings.Fields(c.words)[0]
		if !slices.ContainsFunc(all, func(r row) bool { return r.word == word }) {
			t.Errorf("the menu has %s", c.words)
		}
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	dir, _ := daemon(t, server)
	for _, tt := range []struct {
		args   string
		status int
		says   string
	}{
		{"", 2, "a command is missing"},
		{"frob", 2, `no command "frob"`},
		{"statsu", 2, "did you mean stats?"},
		{"list all", 2, `unexpected argument "all"`},
		{"status -hard", 2, "-hard can't be used with status"},
		{"-n 0 top", 2, "want 1 or more"},
		{"top", 2, "want -n COUNT"},
		{"metrics -json", 2, "the command stats has the same as JSON"},
		{"top -n 1 -interval 1ms", 2, "want 100ms or more"},
		{"-timeout 0 status", 2, "want more than 0"},
		{"ping", 2, "name of a client"},
		{"ping a/b", 2, "ping: "},
		{"ping nobody", 69, "nobody is not connected"},
		{"disconnect", 2, "want disconnect ID"},
		{"blacklist", 2, "want blacklist add|remove"},
		{"blacklist put x", 2, "want add, remove or list"},
		{"blacklist add", 2, "want PATTERN, IP or SUBNET"},
		{"whitelist add 10.0.0.0/99", 2, "is no subnet"},
		{"blacklist add 10.77.0.300", 2, "is no address"},
		{"blacklist add 10.77.0", 2, "is no address"},
		{"whitelist add 10.77.0.*", 2, "is no address"},
		{"whitelist add 10.77", 2, "is no address"},
		{"explain", 2, "want -id, -ip or both"},
		{"explain -ip ten", 2, "want an IP address"},
		{"explain -id", 2, "-id"},
		{"delete-certificate", 2, "want the name of a client"},
		{"delete-token", 2, "want the name of a client"},
		{"log-level LOUD", 2, "want DEBUG, INFO"},
		{"ignore-traffic", 2, "want ignore-traffic on|off|show|PEER"},
		{"ignore-traffic a/b", 2, "unique_peer"},
		{"subscribe", 2, "want subscribe TYPE"},
		{"purge", 2, "say -yes"},
		{"dead", 2, "want dead list"},
		{"dead bury", 2, "want list, show, retry or drop"},
		{"dead show", 2, "want the ID"},
		{"dead retry", 2, "want one of ID, -type and -all"},
		{"dead retry 7 -all", 2, "want one of ID, -type and -all"},
		{"dead drop 7", 2, "dead drop deletes messages: say -yes"},
		{"show", 2, "want show KEY"},
		{"show no_such_key", 2, "no_such_key"},
		{"shutdown now", 2, `unexpected argument "now"`},
		{"reload", 1, "line 3: no such key"},
		{"restart", 1, "not restarted: config \"x.json\": line 3: no such key"},
		{"-dir /nowhere status", 69, "no connector is running"},
		{"-connector nobody status", 69, `no connector "nobody"`},
		{"-config /nowhere.json status", 78, "/nowhere.json"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			status, out, errs := ctl(t, "", append([]string{"-dir", dir}, strings.Fields(tt.args)...)...)
			if status != tt.status || !strings.Contains(errs, tt.says) || out != "" {
				t.Errorf("status %d, want %d; says %q, want %q; prints %q", status, tt.status, errs, tt.says, out)
			}
		})
	}
}

func TestAnEmptyArgumentIsAMistake(t *testing.T) {
	dir, _ := daemon(t, server)
	for _, args := range [][]string{{"disconnect", ""}, {"explain", "-id", ""}, {"subscribe", "a", ""}} {
		if status, _, errs := ctl(t, "", append([]string{"-dir", dir}, args...)...); status != 2 || !strings.Contains(errs, "empty") {
			t.Errorf("%q: status %d, %s", args, status, errs)
		}
	}
}

func TestRepliesAreJSONWithoutATerminal(t *testing.T) {
	dir, _ := daemon(t, server)
	for _, tt := range []struct{ args, want string }{
		{"health", `{"ok":true,`},
		{"status", `{"name":"('127.0.0.1', `},
		{"peers", "[]\n"},
		{"queues", `[{"direction":"recv","name":"any","waiting":0,`},
		{"stats", `{"address":"127.0.0.1:`},
		{"log-level", "\"INFO\"\n"},
		{"log-level debug", "\"DEBUG\"\n"},
		{"-json show is_server", "true\n"},
		{"show -json recv_message_types", "[\"any\"]\n"},
		{"ignore-traffic off", "false\n"},
		{"start", ""},
		{"metrics", "# HELP aioc_info"},
		{"top -n 1", `{"name":"(`},
		{"config", `{`},
		{"list", `[{"name":"127.0.0.1:`},
		{"stop -hard", ""},
		{"show is_running", "false\n"},
		{"blacklist list", "[]\n"},
	} {
		status, out, errs := ctl(t, "", append([]string{"-dir", dir}, strings.Fields(tt.args)...)...)
		if status != 0 || errs != "" || !strings.HasPrefix(out, tt.want) || (tt.want == "") != (out == "") {
			t.Errorf("%s: status %d, %q, %s; want %q", tt.args, status, out, errs, tt.want)
		}
		if out != "" && tt.args != "metrics" && !json.Valid([]byte(out)) {
			t.Errorf("%s: %q is not JSON", tt.args, out)
		}
	}
	if status, out, _ := ctl(t, "", "-dir", dir, "stop"); status != 0 || out != "" {
		t.Errorf("stop: status %d, %q", status, out)
	}
	if status, out, _ := ctl(t, "", "-dir", dir, "health"); status != 1 || !strings.Contains(out, "the connector is stopped") {
		t.Errorf("health of a stopped one: status %d, %q", status, out)
	}
}

func TestAPeerThatIsIgnoredAndNotKnownIsTold(t *testing.T) {
	dir, _ := daemon(t, server)
	if status, out, errs := ctl(t, "", "-dir", dir, "ignore-traffic", "pump7"); status != 0 || out != "[\"pump7\"]\n" || !strings.Contains(errs, "no peer pump7 is here now") {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
	if _, out, _ := ctl(t, "", "-dir", dir, "status"); !strings.Contains(out, `"ignored":"pump7"`) {
		t.Errorf("status does not tell who is ignored: %q", out)
	}
	cdir, _ := daemon(t, func(cfg *config.Config) { cfg.IsServer, cfg.ClientName = false, "c1" })
	if status, _, errs := ctl(t, "", "-dir", cdir, "ignore-traffic", "pump7"); status != 2 || !strings.Contains(errs, "only peer is its server") {
		t.Errorf("a client: status %d, %q", status, errs)
	}
	if status, out, errs := ctl(t, "", "-dir", cdir, "ignore-traffic", "('127.0.0.1', 10673)"); status != 0 || strings.Contains(errs, "is here now") {
		t.Errorf("its server: status %d, %q, %q", status, out, errs)
	}
	if status, out, _ := ctl(t, "", "-dir", cdir, "ignore-traffic", "127.0.0.1:10673"); status != 0 || out != "[\"('127.0.0.1', 10673)\"]\n" {
		t.Errorf("its server as HOST:PORT: status %d, %q", status, out)
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ignore-traffic", "127.0.0.1:10674"); status != 2 {
		t.Errorf("another server: status %d, %q", status, errs)
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ignore-traffic", "on"); status != 0 || !strings.Contains(errs, "no configuration file") {
		t.Errorf("without a file: status %d, %q", status, errs)
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ignore-traffic", "off"); status != 0 || errs != "" {
		t.Errorf("off: status %d, %q", status, errs)
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ping", "127.0.0.1:10674"); status != 2 || !strings.Contains(errs, "one peer") {
		t.Errorf("ping of another server: status %d, %q", status, errs)
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ping", "127.0.0.1:10673"); status != 69 {
		t.Errorf("ping of a server that is away: status %d, %q", status, errs)
	}
}

func TestShutdownWaitsUntilItHasEnded(t *testing.T) {
	dir, ended := daemon(t, server)
	if status, _, errs := ctl(t, "", "-dir", dir, "shutdown"); status != 0 {
		t.Fatalf("status %d, %s", status, errs)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it runs on")
	}
	if status, _, _ := ctl(t, "", "-dir", dir, "status"); status != 69 {
		t.Errorf("status %d after shutdown, want 69", status)
	}
}

func TestPingOfAClient(t *testing.T) {
	sdir, _ := daemon(t, server)
	_, out, _ := ctl(t, "", "-dir", sdir, "show", "server_sockaddr")
	addr := out
	cdir, _ := daemon(t, func(cfg *config.Config) {
		cfg.IsServer, cfg.ClientName = false, "pump7"
		if _, err := fmt.Sscanf(addr, `["127.0.0.1",%d]`, &cfg.ServerAddr.Port); err != nil {
			t.Fatalf("%s: %v", addr, err)
		}
	})
	for _, args := range [][]string{{"-dir", cdir, "ping"}, {"-dir", sdir, "ping", "pump7"}} {
		if status, out, errs := ctl(t, "", args...); status != 0 || !strings.Contains(out, `"seconds":`) {
			t.Errorf("%q: status %d, %q, %s", args, status, out, errs)
		}
	}
	if status, _, errs := ctl(t, "", "-dir", cdir, "ping", "other"); status != 2 || !strings.Contains(errs, "one peer") {
		t.Errorf("status %d, %s", status, errs)
	}
}

// A connector that vanishes in the middle of a call, or that never answers.
func TestConnectorThatVanishesDuringACall(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"closes":         func(c net.Conn) { c.Close() },
		"reads, closes":  func(c net.Conn) { c.Read(make([]byte, 1000)); c.Close() },
		"sends nonsense": func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")); c.Close() },
	} {
		dir, err := os.MkdirTemp("/tmp", "ctl")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		ln, err := net.Listen("unix", filepath.Join(dir, "aioc_server_127001_10673"))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				serve(c)
			}
		}()
		status, out, errs := ctl(t, "", "-dir", dir, "status")
		if (status != cli.Temporary && status != cli.Failed) || out != "" || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, %q, %q", name, status, out, errs)
		}
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"stop -hard", "stop"}, {"-hard stop", "stop"}, {"blacklist -json add -- -x", "blacklist add -x"}, {"-- -x -y", "-x -y"}, {"", ""},
	} {
		p := program{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}
		set, _ := p.set(&p.opt)
		words, _, done := parse(set, strings.Fields(tt.args))
		if got := strings.Join(words, " "); done || got != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.args, got, done, tt.want)
		}
	}
}

func TestTextsOfPythonAreRead(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"True", "true"}, {"False", "false"}, {"set()", "[]"}, {"['a', 'b']", `["a","b"]`}, {"{'x'}", `["x"]`}, {`["it's"]`, `["it's"]`},
		{"{'a': 1}", ""}, {"INFO", ""}, {"[1]", ""}, {`['a\n']`, ""},
		{`["('127.0.0.1', 10673)", 'b']`, `["('127.0.0.1', 10673)","b"]`}, {`['it\'s "x"', '\\']`, `["it's \"x\"","\\"]`},
		{`['a' 'b']`, ""}, {`['a]`, ""}, {`['a', ]`, ""}, {`['\']`, ""}, {"[]", "[]"},
	} {
		got, ok := pythonValue(tt.in)
		if string(got) != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: got %s, %v; want %s", tt.in, got, ok, tt.want)
		}
	}
}

func TestAListIsChangedAndTheReplySaysHow(t *testing.T) {
	dir, _ := daemon(t, server)
	const unsaved = `,"saved":false,"note":"until the connector ends: it has no configuration file to write the list into"}` + "\n"
	for _, tt := range []struct{ args, want string }{
		{"blacklist add pump7", `{"kind":"id","value":"pump7","changed":true` + unsaved},
		{"blacklist add pump7", `{"kind":"id","value":"pump7","changed":false` + unsaved},
		{"blacklist add aa:bb:cc", `{"kind":"id","value":"aa:bb:cc","changed":true` + unsaved},
		{"blacklist add 10", `{"kind":"id","value":"10","changed":true` + unsaved},
		{"blacklist add pump..", `{"kind":"id","value":"pump..","changed":true` + unsaved},
		{"whitelist add 10.0.0.1", `{"kind":"ip","value":"10.0.0.1","changed":true` + unsaved},
		{"whitelist add 2001:db8::0/64", `{"kind":"subnet","value":"2001:db8::/64","changed":true` + unsaved},
		{"blacklist remove pump7", `{"kind":"id","value":"pump7","changed":true` + unsaved},
	} {
		if status, out, errs := ctl(t, "", append([]string{"-dir", dir}, strings.Fields(tt.args)...)...); status != 0 || out != tt.want || errs != "" {
			t.Errorf("%s: status %d, %q, %q, want %q", tt.args, status, out, errs, tt.want)
		}
	}
	if status, out, errs := ctl(t, "", "-dir", dir, "blacklist", "remove", "pump7"); status == 0 || out != "" || !strings.Contains(errs, "not on the list") {
		t.Errorf("what is not there: status %d, %q, %q", status, out, errs)
	}
}

func TestAListOfConnectorsTellsTheStateAndTheNameOfEach(t *testing.T) {
	dir, _ := daemon(t, server)
	_, before, _ := ctl(t, "", "-dir", dir, "list")
	if !strings.Contains(before, `"state":"running"`) {
		t.Errorf("got %s, want running", before)
	}
	if status, _, errs := ctl(t, "", "-dir", dir, "stop"); status != 0 {
		t.Fatal(errs)
	}
	want := strings.Replace(before, "running", "stopped", 1)
	if _, after, _ := ctl(t, "", "-dir", dir, "list"); after != want {
		t.Errorf("stopped: got %s, want %s", after, want)
	}
	if _, out, _ := ctl(t, "", "-dir", fake(t, nil), "-timeout", "0.2", "list"); !strings.Contains(out, `"state":"silent"`) {
		t.Errorf("got %s, want silent", out)
	}

	// One that is stopped is called by its address when one must be chosen.
	ln, err := net.Listen("unix", filepath.Join(dir, "aioc_client_c1"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, _, errs := ctl(t, "", "-dir", dir, "status"); !strings.Contains(errs, "127.0.0.1:") {
		t.Errorf("says %q, want HOST:PORT", errs)
	}
}

func TestTheMenuAsksBeforeItEndsAConnector(t *testing.T) {
	for line, command := range map[string]string{"2": "stop -hard", "3": "restart", "shutdown": "shutdown"} {
		asked := ""
		m := &menu{p: &program{stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, ask: func(_ context.Context, question string) (string, error) {
			asked = question
			return "n", nil
		}}}
		m.p.opt.target.Dir = t.TempDir()
		err := m.run(t.Context(), []string{line})
		if want := command + ": nothing was done"; asked != command+": sure? (y/n) " || err == nil || err.Error() != want {
			t.Errorf("%s: asks %q, says %v; want %q", line, asked, err, want)
		}
	}
}
