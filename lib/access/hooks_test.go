package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/fold"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// journal keeps what is logged and counted.
type journal struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	counts map[string]int
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) count(reason string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.counts == nil {
		j.counts = map[string]int{}
	}
	j.counts[reason]++
}

func (j *journal) counted(reason string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counts[reason]
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ; !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// script writes a shell script that can be run.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// hooksOf returns the hooks of a configuration whose key is a script.
func hooksOf(t *testing.T, key, text string, change func(c *config.Config)) (Hooks, *journal) {
	t.Helper()
	c := config.Defaults()
	c.FilesDir = "/run/aioc"
	c.IsServer = !strings.Contains(key, "token") && !strings.Contains(key, "proxy")
	c.ClientName = "pump7"
	c.Proxy.Addr = config.Addr{Host: "proxy", Port: 8080}
	c.HookTimeout = patience
	if err := c.Set(key, []byte(fmt.Sprintf("%q", script(t, text)))); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c)
	}
	j := &journal{}
	return Programs(c, fold.New(slog.New(slog.NewTextHandler(j, nil))), j.count), j
}

var pump7 = Client{"pump7", netip.MustParseAddrPort("192.0.2.7:51515")}

func TestAProgramDecidesByItsStatus(t *testing.T) {
	facts := `test "$AIOC_HOOK $AIOC_CLIENT $AIOC_ADDR $AIOC_PORT $AIOC_DIR $AIOC_CONNECTOR" = "KEY pump7 192.0.2.7 51515 /run/aioc 127.0.0.1:10673" && test "$AIOC_ID" = "('127.0.0.1', 10673)" && test -z "$AIOC_CONFIG$NOTIFY_SOCKET"`
	t.Setenv("AIOC_CONFIG", "x")
	t.Setenv("NOTIFY_SOCKET", "x")
	for _, test := range []struct {
		name, text string
		want       string // error
		failed     int
		log        string
	}{
		{"the facts are there", facts, "", 0, ""},
		{"yes", "exit 0", "", 0, ""},
		{"no", "exit 1", "the program says no, with status 1", 0, ""},
		{"another no", "exit 77", "the program says no, with status 77", 0, ""},
		{"its output does not matter", "echo no", "", 0, ""},
		{"its errors are logged", "echo why not >&2; exit 1", "the program says no, with status 1", 0, `text="why not"`},
		{"a lot of errors is cut", "head -c 1000000 /dev/zero | tr '\\0' e >&2", "", 0, strings.Repeat("e", maxStderr)},
		{"too much output", "head -c 1000000 /dev/zero", "printed more than 65536 bytes", 1, "taken for a no"},
		{"a signal", "kill -9 $$", "ended by signal 9", 1, "ended by signal 9"},
		{"what it leaves behind does not hold it", "sleep 1000 & exit 0", "", 0, ""},
	} {
		for _, key := range []string{"hook_server_auth_client", "hook_allow_certificate_creation"} {
			t.Run(key+": "+test.name, func(t *testing.T) {
				h, j := hooksOf(t, key, strings.ReplaceAll(test.text, "KEY", key), nil)
				hook := h.ServerAuthClient
				if hook == nil {
					hook = h.AllowCertificate
				}
				err := hook(t.Context(), pump7)
				if (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
					t.Errorf("got %v, want %q", err, test.want)
				}
				if got := j.counted("hook failed: " + key); got != test.failed {
					t.Errorf("counted %d, want %d", got, test.failed)
				}
				if log := j.String(); !strings.Contains(log, test.log) || len(log) > 2*maxStderr {
					t.Errorf("log: got %q, want %q", log, test.log)
				}
			})
		}
	}
}

func TestAHookThatHangsIsKilledWithWhatItStarted(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	h, j := hooksOf(t, "hook_server_auth_client", "trap '' TERM\nsleep 1000 & echo $$ $! > "+pids+".tmp; mv "+pids+".tmp "+pids+"\nwait", func(c *config.Config) {
		c.HookTimeout = 300 * time.Millisecond
	})
	began := time.Now()
	err := h.ServerAuthClient(t.Context(), pump7)
	if err == nil || !strings.Contains(err.Error(), "took longer than 300ms (hook_timeout)") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
	if strings.Count(j.String(), "\n") != 1 || !strings.Contains(j.String(), `msg="hook failed: taken for a no" hook=hook_server_auth_client`) || j.counted("hook failed: hook_server_auth_client") != 1 {
		t.Errorf("log: got %q", j.String())
	}
	text, err := os.ReadFile(pids)
	if errors.Is(err, fs.ErrNotExist) {
		return // so slow a machine that it was killed before
	}
	var shell, sleep int
	if _, err := fmt.Sscan(string(text), &shell, &sleep); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the processes of the hook are gone", func() bool { return !alive(sleep) && !alive(shell) })
}

// alive tells whether a process runs. One that nobody has waited for does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return os.Getpid() == pid
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestAHookThatCannotBeRunIsANo(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(path string) error
		want  string
	}{
		{"not executable", func(path string) error { return os.Chmod(path, 0o600) }, "cannot be run: "},
		{"gone", os.Remove, "no such file"},
		{"not a program", func(path string) error { return os.WriteFile(path, []byte("\x00\x01"), 0o700) }, "cannot be run: "},
		{"without its interpreter", func(path string) error { return os.WriteFile(path, []byte("#!/nonexistent\n"), 0o700) }, "no such file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var path string
			h, j := hooksOf(t, "hook_server_auth_client", "exit 0", func(c *config.Config) { path = c.HookAuthClient[0] })
			if err := test.spoil(path); err != nil {
				t.Fatal(err)
			}
			if err := h.ServerAuthClient(t.Context(), pump7); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if j.counted("hook failed: hook_server_auth_client") != 1 || strings.Count(j.String(), "\n") != 1 {
				t.Errorf("log: got %q", j.String())
			}
		})
	}
}

func TestTheEndOfTheConnectorEndsAHook(t *testing.T) {
	h, j := hooksOf(t, "hook_server_auth_client", "exec sleep 1000", nil)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := h.ServerAuthClient(ctx, pump7); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if j.String() != "" {
		t.Errorf("log: got %q", j.String())
	}
}

func TestOnlySoManyHooksRunAtATime(t *testing.T) {
	dir := t.TempDir()
	// Each waits until the test lets it go.
	h, j := hooksOf(t, "hook_server_auth_client", "mktemp "+dir+"/XXXXXX >/dev/null; exec cat "+filepath.Join(dir, "..", "fifo"), nil)
	fifo := filepath.Join(dir, "..", "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	running := func() int {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	results := make(chan error, maxRunning+maxWaiting+5)
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(results) {
		go func() { results <- h.ServerAuthClient(ctx, pump7) }()
	}
	// Five are too many.
	for range 5 {
		select {
		case err := <-results:
			if err == nil || !strings.Contains(err.Error(), "too many at a time: 80 wait for it") {
				t.Errorf("got %v", err)
			}
		case <-time.After(patience):
			t.Fatal("all wait")
		}
	}
	eventually(t, "as many run as may", func() bool { return running() >= maxRunning })
	if n := running(); n != maxRunning {
		t.Errorf("%d run, want %d", n, maxRunning)
	}
	if n := j.counted("hook failed: hook_server_auth_client"); n != 5 {
		t.Errorf("counted %d, want 5", n)
	}
	if n := strings.Count(j.String(), "\n"); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
	cancel()
	for range cap(results) - 5 {
		if err := <-results; err == nil {
			t.Error("a hook that was ended said yes")
		}
	}
}

func TestWhoIsOnNoWhitelistIsToldOf(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	h, _ := hooksOf(t, "hook_whitelist_clients", "echo $AIOC_CLIENT $AIOC_ADDR >> "+told, nil)
	g := NewGuard(mustRules(t, `"whitelisted_clients_id": ["c$"], "whitelisted_clients_ip": ["192.0.2.7"], "blacklisted_clients_id": ["c"]`), h, nil)
	for _, c := range []struct {
		moment string
		client Client
	}{
		{MomentAddr, Client{"", netip.MustParseAddrPort("192.0.2.8:1")}},
		{MomentName, pump7},
		{MomentName, Client{"c", pump7.Addr}}, // of a blacklist it is not told
	} {
		if err := g.Admit(t.Context(), c.moment, c.client); err == nil {
			t.Errorf("%v is admitted", c.client)
		}
	}
	text, err := os.ReadFile(told)
	if err != nil || string(text) != "192.0.2.8\npump7 192.0.2.7\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestHooksThatAnswerWithATextGetTheirSecretsOnStandardInput(t *testing.T) {
	secret := "s3cret"
	run := map[string]func(ctx context.Context, h Hooks) (string, error){
		"hook_store_token": func(ctx context.Context, h Hooks) (string, error) { return h.StoreToken(ctx, secret) },
		"hook_load_token":  func(ctx context.Context, h Hooks) (string, error) { return h.LoadToken(ctx, secret) },
		"hook_proxy_authorization": func(ctx context.Context, h Hooks) (string, error) {
			user, password, err := h.ProxyAuthorization(ctx, "u", secret)
			return user + ":" + password, err
		},
		"hook_target_directory": func(ctx context.Context, h Hooks) (string, error) {
			return h.TargetDirectory(ctx, File{"t", "n", "m", "s", []byte(`{"tag": "` + secret + `"}`)})
		},
	}
	for _, test := range []struct{ key, text, want, err string }{
		{"hook_store_token", `tr a-z A-Z`, "S3CRET", ""},
		{"hook_store_token", `cat; echo; echo`, "s3cret\n\n", ""},
		{"hook_store_token", `exit 3`, "", "says no, with status 3"},
		{"hook_load_token", `cat; echo`, "s3cret", ""},
		{"hook_load_token", `sleep 1000 & cat`, "", "holds its output open"},
		{"hook_load_token", `case "$*$(env)" in *s3cret*) exit 1; esac; cat`, "s3cret", ""},
		{"hook_proxy_authorization", `test $AIOC_PROXY = proxy:8080 && cat`, "u:s3cret", ""},
		{"hook_proxy_authorization", `printf 'a\r\nb c'`, "a:b c", ""},
		{"hook_proxy_authorization", `echo a`, "a:", ""},
		{"hook_proxy_authorization", `printf 'a\nb\nc\n'`, "", "did not print two lines"},
		{"hook_proxy_authorization", `printf a`, "", "did not print two lines"},
		{"hook_proxy_authorization", `exit 1`, "", "says no"},
		{"hook_target_directory", `echo $AIOC_FILE_TYPE/$AIOC_FILE_NAME/$AIOC_MESSAGE_TYPE/$AIOC_SOURCE_ID`, "t/n/m/s", ""},
		{"hook_target_directory", `grep -q '"tag": "s3cret"'`, "", ""},
		{"hook_target_directory", `echo a; echo b`, "", "more than one line"},
		{"hook_target_directory", `exit 1`, "", "says no"},
	} {
		t.Run(test.key+" "+test.text, func(t *testing.T) {
			h, j := hooksOf(t, test.key, test.text, nil)
			got, err := run[test.key](t.Context(), h)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error: got %v, want %q", err, test.err)
			}
			if err == nil && got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if strings.Contains(j.String(), secret) {
				t.Errorf("the log has a secret: %q", j.String())
			}
		})
	}
}

func TestAFileNameThatIsNoNameIsNotPassedOn(t *testing.T) {
	h, j := hooksOf(t, "hook_target_directory", "exit 0", nil)
	if dir, err := h.TargetDirectory(t.Context(), File{Name: "a\x00b"}); err == nil || j.counted("hook failed: hook_target_directory") != 1 {
		t.Errorf("got %q, %v", dir, err)
	}
	// Nothing of it is run.
	name := "`touch /tmp/x`;\n$(false)"
	h, _ = hooksOf(t, "hook_target_directory", `test "$AIOC_FILE_NAME" = "$(printf '`+"`touch /tmp/x`"+`;\n$(false)')"`, nil)
	if dir, err := h.TargetDirectory(t.Context(), File{Name: name}); err != nil || dir != "" {
		t.Errorf("got %q, %v", dir, err)
	}
}

func TestProgramsThatOthersCanChangeAreRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		spoil  func(path string) error
		unsafe bool
		want   string
	}{
		{"as it should be", func(string) error { return nil }, false, ""},
		{"writable for the group", func(path string) error { return os.Chmod(path, 0o770) }, true, "is writable for its group: run: chmod g-w "},
		{"in a directory that is writable for all", func(path string) error { return os.Chmod(filepath.Dir(path), 0o777) }, true, "is writable for its group and everybody: run: chmod go-w "},
		{"a link to one that is", func(path string) error {
			other := path + ".other"
			return errors.Join(os.WriteFile(other, nil, 0o700), os.Chmod(other, 0o702), os.Remove(path), os.Symlink(other, path))
		}, true, "is writable for everybody"},
		{"not executable", func(path string) error { return os.Chmod(path, 0o600) }, false, "is not a program that can be run: permission denied: make it executable"},
		{"missing", os.Remove, false, "no such file"},
		{"a directory", func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, false, "it is not a file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := script(t, "exit 0")
			if err := test.spoil(path); err != nil {
				t.Fatal(err)
			}
			c := config.Defaults()
			c.HookAuthClient = config.Command{path, "-v"}
			err := CheckPrograms(c)
			if (err == nil) != (test.want == "") || err != nil && (!strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "hook_server_auth_client: ")) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if errors.Is(err, durable.ErrUnsafe) != test.unsafe || errors.Is(err, ErrProgram) != (test.want != "" && !test.unsafe) {
				t.Errorf("got %v, unsafe is to be %v", err, test.unsafe)
			}
			c.IsServer = false // where the hook has no meaning
			if err := CheckPrograms(c); err != nil {
				t.Errorf("on a client: %v", err)
			}
		})
	}
}

func TestTheGuardAsksHooksAfterTheLists(t *testing.T) {
	var asked []string
	no := errors.New("no")
	answers := map[string]error{}
	hook := func(name string) func(context.Context, Client) error {
		return func(_ context.Context, c Client) error {
			asked = append(asked, name+" "+c.Name+" "+c.Addr.Addr().String())
			return answers[name]
		}
	}
	j := &journal{}
	h := Hooks{ServerAuthClient: hook("auth"), AllowCertificate: hook("certificate")}
	g := NewGuard(mustRules(t, `"blacklisted_clients_id": ["evil"]`), h, j.count)
	mapped := netip.MustParseAddrPort("[::ffff:192.0.2.7]:51515")
	for _, test := range []struct {
		moment, client, no string
		asked              string
		want               string
	}{
		{MomentAddr, "", "", "", ""},
		{MomentName, "pump7", "", "auth pump7 192.0.2.7", ""},
		{MomentName, "pump7", "auth", "auth pump7 192.0.2.7", "hook_server_auth_client: no"},
		{MomentName, "evil1", "", "", `on the list blacklisted_clients_id: "evil"`},
		{MomentCertificate, "pump7", "", "certificate pump7 192.0.2.7", ""},
		{MomentCertificate, "pump7", "certificate", "certificate pump7 192.0.2.7", "hook_allow_certificate_creation: no"},
		{MomentCertificate, "evil1", "", "", `on the list blacklisted_clients_id: "evil"`},
	} {
		asked, answers = nil, map[string]error{test.no: no}
		err := g.Admit(t.Context(), test.moment, Client{test.client, mapped})
		if strings.Join(asked, ", ") != test.asked || (err == nil) != (test.want == "") || err != nil && err.Error() != test.want {
			t.Errorf("%s %q: got %v, %q, want %q, %q", test.moment, test.client, err, asked, test.want, test.asked)
		}
		if test.no != "" && !errors.Is(err, no) {
			t.Errorf("%v does not wrap the answer of the hook", err)
		}
	}
	if j.counted("blacklisted_clients_id") != 2 || j.counted("hook_server_auth_client") != 1 || j.counted("hook_allow_certificate_creation") != 1 {
		t.Errorf("counted %v", j.counts)
	}
	g.Use(mustRules(t, ``))
	if err := g.Admit(t.Context(), MomentName, Client{"evil1", mapped}); err != nil {
		t.Errorf("after the lists were replaced: %v", err)
	}
}

func TestExplainNamesTheRuleThatDecides(t *testing.T) {
	g := NewGuard(mustRules(t, `"whitelisted_clients_id": ["pump"], "blacklisted_clients_subnet": ["10.0.0.0/8"]`),
		Hooks{ServerAuthClient: func(context.Context, Client) error { t.Error("a hook was asked"); return nil }}, nil)
	for _, test := range []struct {
		client, addr string
		want         string
	}{
		{"pump1", "192.0.2.1", ""},
		{"x", "10.0.0.1", "whitelisted_clients_id"},
		{"pump1", "10.0.0.1", "blacklisted_clients_subnet"},
	} {
		e := g.Explain(test.client, netip.MustParseAddr(test.addr))
		if e.By != test.want || e.Welcome != (test.want == "") || len(e.Steps) != 7 || e.Steps[6] != (Step{Rule: "hook_server_auth_client", Result: Unasked}) {
			t.Errorf("%s %s: got %+v, want %q", test.client, test.addr, e, test.want)
		}
		if note := e.Steps[2].Note; strings.Contains(note, "admits every longer name") != (e.Steps[2].Result == Passes) {
			t.Errorf("%s: the note is %q", test.client, note)
		}
	}
}

func TestHooksOfAProgramGoOverThoseOfTheConfiguration(t *testing.T) {
	h, _ := hooksOf(t, "hook_server_auth_client", "exit 1", nil)
	low, _ := hooksOf(t, "hook_target_directory", "echo low", nil)
	h.AllowCertificate = low.AllowCertificate
	yes := Hooks{ServerAuthClient: func(context.Context, Client) error { return nil }}.Over(h).Over(low)
	if err := yes.ServerAuthClient(t.Context(), pump7); err != nil {
		t.Errorf("the lower one was asked: %v", err)
	}
	if dir, err := yes.TargetDirectory(t.Context(), File{}); dir != "low" || err != nil {
		t.Errorf("got %q, %v", dir, err)
	}
	if yes.AllowCertificate != nil || yes.StoreToken != nil {
		t.Error("hooks out of nowhere")
	}
}
