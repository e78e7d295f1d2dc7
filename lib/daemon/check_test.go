package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/connector"
	"aioc/lib/durable"
	"aioc/lib/spool"
)

func TestCheckingFindsWhatIsWrongAndChangesNothing(t *testing.T) {
	dir := newDir(t)
	loose := filepath.Join(dir, "loose")
	if err := os.Mkdir(loose, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o770); err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(newDir(t), "file"), filepath.Join(newDir(t), "link")
	mustWrite(t, file, "")
	if err := os.Symlink("nothing", link); err != nil {
		t.Fatal(err)
	}
	hook, looseHook := filepath.Join(newDir(t), "hook"), filepath.Join(newDir(t), "hook")
	for path, mode := range map[string]os.FileMode{hook: 0o700, looseHook: 0o702} {
		mustWrite(t, path, "#!/bin/sh\n")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	shut, shutStatus := newDir(t), cli.Refused
	if err := os.Chmod(shut, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		shutStatus = 0 // root may write everywhere
	}
	low, lowWords := 0, "listens on: 127.0.0.1:1"
	if unprivileged() > 1 {
		low, lowWords = cli.Refused, "port 1: permission denied: ports below"
	}
	occupied := newDir(t)
	mustWrite(t, filepath.Join(occupied, "aioc_server_127001_10673"), "")
	for _, test := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"a file for a directory", []string{"-tls", "off", "-dir", file}, cli.BadConfig, "is not a directory"},
		{"a directory in a file", []string{"-tls", "off", "-dir", file + "/x"}, cli.BadConfig, "not a directory"},
		{"a link to nothing", []string{"-tls", "off", "-dir", link}, cli.BadConfig, "is a symbolic link to nothing"},
		{"a directory to be made where others may rename", []string{"-tls", "off", "-dir", filepath.Join(loose, "a/b")}, cli.Refused, "chmod g-w " + loose},
		{"a directory without the right to write", []string{"-tls", "off", "-dir", shut}, shutStatus, shut},
		{"a directory to be made in it", []string{"-tls", "off", "-dir", filepath.Join(shut, "a/b")}, shutStatus, shut},
		{"something with the name of a socket", []string{"-tls", "off", "-dir", occupied}, cli.BadConfig, "is not a socket: move it away"},
		{"an address of another host", []string{"-tls", "off", "-dir", dir, "-addr", "192.0.2.1:10673"}, cli.BadConfig, "192.0.2.1 is not an address of this host"},
		{"every address", []string{"-tls", "off", "-dir", dir, "-addr", "0.0.0.0:10673"}, 0, "all is well"},
		{"a low port", []string{"-tls", "off", "-dir", dir, "-addr", "127.0.0.1:1"}, low, lowWords},
		{"tokens overridden", []string{"-tls", "off", "-dir", dir, "-set", "use_token=true"}, 0, "warning: use_token has no effect: -tls off overrides it"},
		{"a hook", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf(`hook_server_auth_client=[%q, "-v"]`, hook)}, 0, "hook_server_auth_client: " + hook + " -v\nall is well"},
		{"a hook that others can change", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf("hook_server_auth_client=%q", looseHook)}, cli.Refused, "hook_server_auth_client: " + strconv.Quote(looseHook) + " is writable for everybody: run: chmod o-w " + looseHook},
		{"a hook that cannot be run", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf("hook_server_auth_client=%q", file)}, cli.BadConfig, "is not a program that can be run: permission denied: make it executable"},
		{"a whitelist without an end", []string{"-tls", "off", "-dir", dir, "-set", `whitelisted_clients_id=["pump1"]`}, 0, `"pump1" also admits every longer name`},
		{"no place for files", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf(`file_recv_config={"photo": {"target_directory": %q}}`, file+"/{source_id}")}, 0, fmt.Sprintf("warning: file_recv_config: files of the type \"photo\" cannot be stored in %q: not a directory", file)},
		{"no place to make one", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf(`file_recv_config={"photo": {"target_directory": %q}}`, file+"/x/y")}, 0, "cannot be stored in " + strconv.Quote(file+"/x/y") + ": not a directory"},
		{"a place for files that will be made", []string{"-tls", "off", "-dir", dir, "-set", fmt.Sprintf(`file_recv_config={"photo": {"target_directory": %q}}`, dir+"/x/y")}, 0, "all is well\n"},
		{"a warning", []string{"-tls", "off", "-dir", dir, "-set", "ssl_allow_all=true"}, 0, "all is well"},
		{"all is well", []string{"-tls", "off", "-dir", filepath.Join(dir, "new")}, 0, "all is well"},
		{"no certificate", []string{"-tls", "anonymous", "-dir", dir}, cli.BadConfig, "run: aioc-certs create " + dir},
		{"a directory for all", []string{"-tls", "off", "-dir", loose}, cli.Refused, "chmod g-w " + loose},
		{"no such host", []string{"-tls", "off", "-dir", dir, "-addr", "nosuch.invalid:10673"}, cli.BadConfig, "server_sockaddr: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, out, errs := do(t, true, append([]string{"-t"}, test.args...)...)
			if status != test.status || !strings.Contains(out+errs, test.want) {
				t.Errorf("got %d, %q, %q, want %d, %q", status, out, errs, test.status, test.want)
			}
		})
	}
	for bind, want := range map[string]int{"127.0.0.1": 0, "192.0.2.1": cli.BadConfig} {
		status, out, errs := do(t, false, "-t", "-tls", "off", "-dir", dir, "-name", "c1", "-set", fmt.Sprintf("client_bind_ip=%q", bind))
		if status != want || want != 0 && !strings.Contains(errs, "client_bind_ip: "+bind+" is not an address of this host") {
			t.Errorf("client_bind_ip %s: got %d, %q, %q, want %d", bind, status, out, errs, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v, want the directory as it was", entries, err)
	}
}

func TestTheExamplesOfThePageCanStart(t *testing.T) {
	page, err := os.ReadFile("../../man/aioc.json.5")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, text := range strings.Split(string(page), ".Bd -literal -offset indent\n")[1:] {
		text, _, _ = strings.Cut(text, ".Ed")
		if !strings.HasPrefix(text, "{") {
			continue
		}
		found++
		file := mustWrite(t, filepath.Join(newDir(t), "x.json"), text)
		server := strings.Contains(text, `"is_server": true`)
		if status, _, errs := do(t, server, "-print-config", file); status != 0 || errs != "" {
			t.Errorf("%s: got %d, %q", text, status, errs)
		}
	}
	if found == 0 {
		t.Error("no examples in the page")
	}
}

func TestStatusesOfWhatGoesWrong(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{syscall.EADDRINUSE, cli.Failed},
		{syscall.EADDRNOTAVAIL, cli.BadConfig},
		{syscall.EACCES, cli.Refused},
		{syscall.ENOSPC, cli.Temporary},
		{durable.ErrUnsafe, cli.Refused},
		{mistakef("x: %w", syscall.EROFS), cli.BadConfig},
		{connector.ErrRunning, cli.Failed},
	} {
		if got := status(fmt.Errorf("words: %w", test.err)); got != test.want {
			t.Errorf("%v: got %d, want %d", test.err, got, test.want)
		}
	}
}

func TestTheLockOfAnotherUserIsExplained(t *testing.T) {
	dir := newDir(t)
	lock := mustWrite(t, filepath.Join(dir, ".aioc_server_127001_10673.lock"), "")
	if err := os.Chmod(lock, 0o400); err != nil {
		t.Fatal(err)
	}
	want, words := cli.Refused, "another user ran this connector: run as that user, or choose another directory with -dir"
	if os.Geteuid() == 0 {
		want, words = 0, "" // root may write everywhere
	}
	if status, _, errs := do(t, true, "-t", "-tls", "off", "-dir", dir); status != want || !strings.Contains(errs, words) {
		t.Errorf("got %d, %q, want %d, %q", status, errs, want, words)
	}
}

func TestTheCheckTellsOfWhatIsOnDisk(t *testing.T) {
	dir := newDir(t)
	cfg := config.Defaults()
	if err := cfg.SetDir(dir); err != nil {
		t.Fatal(err)
	}
	paths := cfg.Paths()
	log, _, err := spool.Open(paths.SpoolFrom("any"), spool.Options{Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(3) {
		if err := log.Append([]spool.Record{{Seq: i + 1, Frame: make([]byte, 1000)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(want int, words ...string) {
		t.Helper()
		status, out, errs := do(t, true, "-t", "-tls", "off", "-dir", dir)
		for _, w := range words {
			if !strings.Contains(out+errs, w) {
				t.Errorf("got %q, %q, want %q", out, errs, w)
			}
		}
		if status != want {
			t.Errorf("got status %d, %q, want %d", status, errs, want)
		}
	}
	check(0, "waiting on disk: 3 messages in 1 log(s)", "all is well\n")
	logs, err := filepath.Glob(filepath.Join(paths.SpoolFrom("any"), "*.log"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	mustWrite(t, logs[0], string(text))
	check(0, "waiting on disk: 2 messages", "warning: damage in what is kept on disk: "+logs[0], "but for the warnings")
	if err := os.Chmod(paths.Spool, 0o777); err != nil {
		t.Fatal(err)
	}
	check(cli.Refused, "what is kept on disk: ", paths.Spool)
}
