//go:build interop

package regress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// testCtl drives connectors of both kinds with aioc-ctl, and these with the
// original's interactive cli.
func testCtl(t *testing.T, py python) {
	var tests []subtest
	for _, kinds := range [][2]string{{ours, theirs}, {theirs, ours}} {
		name := fmt.Sprintf("server=%s/client=%s", kinds[0], kinds[1])
		tests = append(tests, subtest{name, func(t *testing.T) {
			p := newPair(t, py, kinds[0], kinds[1], "off", []string{"any", "b"}, 0, nil)
			p.start(t)
			for _, h := range p.hosts() {
				other := p.server
				if h.server {
					other = p.client
				}
				t.Run("aioc-ctl/"+h.role(), func(t *testing.T) { testCtlOn(t, h, other) })
				if h.kind == ours {
					t.Run("cli/"+h.role(), func(t *testing.T) { testCLI(t, py, h, other) })
				}
			}
		}})
	}
	together(t, 2, tests)
}

// ctl runs aioc-ctl for a host.
func (h *host) ctl(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries(t), "aioc-ctl"), append([]string{"-config", h.config}, args...)...)
	cmd.Env = plainEnv()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// testCtlOn tries the commands that both kinds have, and what is said of those
// that only one has.
func testCtlOn(t *testing.T, h, other *host) {
	peer := strconv.Quote(h.peer)
	type claim struct {
		args   string
		status int
		out    string // its beginning
	}
	claims := []claim{
		{"list", 0, `[{"name":`},
		{"status", 0, `{"name":` + strconv.Quote(h.id)},
		{"peers", 0, `[{"name":` + peer},
		{"queues", 0, `[{"direction":"send","name":` + peer},
		{"log-level", 0, `"INFO"`},
		{"log-level debug", 0, `"DEBUG"`},
		{"log-level INFO", 0, `"INFO"`},
		{"ignore-traffic show", 0, "false"},
		{"ignore-traffic on", 0, "true"},
		{"ignore-traffic off", 0, "false"},
		{"show is_running", 0, "true"},
		{"show recv_message_types", 0, `["any","b"]`},
		{"start", 0, ""},
	}
	if h.server {
		claims = append(claims, claim{"ping " + clientName, 0, `{"peer":"` + clientName},
			claim{"blacklist list", 0, "[]"},
			claim{"blacklist add 192.0.2.1", 0, ""},
			claim{"blacklist add nobody.*", 0, ""},
			claim{"blacklist list", 0, `[{"kind":"id","value":"nobody.*"},{"kind":"ip","value":"192.0.2.1"}]`},
			claim{"blacklist remove nobody.*", 0, ""},
			claim{"blacklist remove 192.0.2.1", 0, ""},
			claim{"blacklist list", 0, "[]"},
			claim{"disconnect nobody", 69, ""})
	} else {
		claims = append(claims, claim{"ping", 0, `{"peer":`}, claim{"subscriptions", 0, ""})
	}
	if h.kind == theirs {
		claims = append(claims, claim{"stats", 1, ""}, claim{"explain -id x", 1, ""}, claim{"-timeout 2s show no_such_attribute", 124, ""})
	} else {
		claims = append(claims, claim{"health", 0, `{"ok":true`}, claim{"stats", 0, "{"}, claim{"show no_such_attribute", 2, ""})
	}
	claims = append(claims, claim{"stop", 0, ""}, claim{"show is_running", 0, "false"}, claim{"start", 0, ""})
	for _, c := range claims {
		status, out, errs := h.ctl(t, strings.Fields(c.args)...)
		if c.status == 124 && status == 1 {
			status = 124 // newer Pythons close the connection, older ones say nothing
		}
		if status != c.status || !strings.HasPrefix(out, c.out) || (status == 0) != (errs == "") {
			t.Errorf("%s %s: aioc-ctl %s: status %d, %q, %q; want %d, %q", h.kind, h.role(), c.args, status, out, errs, c.status, c.out)
		}
		if out != "" && !json.Valid([]byte(out)) {
			t.Errorf("aioc-ctl %s: %q is not JSON", c.args, out)
		}
	}
	h.awaitPeers(t, h.peer)
	other.awaitPeers(t, other.peer)
	// A name with spaces, on a client.
	if status, out, errs := h.ctl(t, "ignore-traffic", h.peer); status != 0 || !strings.HasPrefix(out, "["+peer) || errs != "" {
		t.Errorf("%s %s: aioc-ctl ignore-traffic %s: status %d, %q, %q", h.kind, h.role(), h.peer, status, out, errs)
	}
	if status, out, errs := h.ctl(t, "ignore-traffic", "off"); status != 0 || out != "false\n" {
		t.Errorf("%s %s: aioc-ctl ignore-traffic off: status %d, %q, %q", h.kind, h.role(), status, out, errs)
	}
	if status, _, errs := h.ctl(t, "restart"); status != 0 {
		t.Errorf("restart: status %d, %s", status, errs)
	}
	h.awaitPeers(t, h.peer)
	other.awaitPeers(t, other.peer)
	if h.server {
		if status, _, errs := h.ctl(t, "disconnect", clientName); status != 0 {
			t.Errorf("disconnect: status %d, %s", status, errs)
		}
		h.awaitPeers(t, h.peer) // it comes back
	}
}

// testCLI types into the original's menu what an operator would.
func testCLI(t *testing.T, py python, h, other *host) {
	name := h.id
	if h.server {
		name = strings.NewReplacer("('", "", "',", "", ")", "").Replace(h.id)
	}
	lines := []string{h.dir, name, "4", "6", "10", "11", "3", "5", "y", "y", "q", "5", "pump7", "y", "q"}
	wants := []string{"Connected peers : {", h.peer, `"queue_recv": 0`, "DEBUG", "current status :  True", "current status :  False", "current status :  ['pump7']"}
	if h.server {
		lines = append(lines, "9", "nobody", "y", "14", "10.9.0.0/16", "y", "14", "evil.*", "y", "15", "10.9.0.0/16", "y", "15", "evil.*", "y", "14", "q",
			"16", "pump.*", "y", "17", "pump.*", "y", "12", "7", "nobody", "y", "8", "nobody", "y")
		wants = append(wants, "Non existing client nobody", "Blacklisted_clients_subnet : {IPv4Network('10.9.0.0/16')}", "Blacklisted_clients_id : {'evil.*'}",
			"Whitelisted_clients_id : {'pump.*'}", "Only available for clients", `{"status": true, "msg": ""}`)
	} else {
		lines = append(lines, "12", "13", "b", "y", "13", "", "y", "7", "y", "8", "y")
		wants = append(wants, "['b']", "no certificates are used here", "no tokens are used here")
	}
	lines = append(lines, "11", "2", "1", "0", "2", "0", "3", "4", "q", "q")
	cmd := exec.Command(py.exe, "-u", script(t, "program.py"), "cli")
	cmd.Dir = t.TempDir()
	cmd.Env = append(plainEnv(), "TERM=dumb")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	p := start(t, "the original's cli", cmd)
	eventually(t, "the original's cli ends", func() error {
		if !p.ended() {
			return errors.New("it runs")
		}
		return nil
	})
	out := string(p.out.bytes())
	if p.err != nil {
		t.Errorf("cli: %v\n%s", p.err, out)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("the cli never shows %q:\n%s", want, tail([]byte(out), 6000))
		}
	}
	if strings.Contains(out, "error: ") || strings.Contains(out, "Traceback") {
		t.Errorf("the cli shows an error:\n%s", out)
	}
	h.awaitPeers(t, h.peer)
	other.awaitPeers(t, other.peer)
}
