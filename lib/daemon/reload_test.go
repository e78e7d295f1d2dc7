package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"aioc/lib/config"
	"aioc/lib/identity"
)

func TestAReloadThatHangsHoldsUpNothing(t *testing.T) {
	dir := newDir(t)
	if err := identity.Create(dir); err != nil {
		t.Fatal(err)
	}
	cfg := config.Defaults()
	cfg.IsServer, cfg.ClientName = false, "c1"
	if err := cfg.SetDir(dir); err != nil {
		t.Fatal(err)
	}
	token := cfg.Paths().ClientToken
	if err := os.MkdirAll(filepath.Dir(token), 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, token, "sealed")
	hang, asked := filepath.Join(dir, "hang"), filepath.Join(dir, "asked")
	hook := filepath.Join(dir, "hook")
	script := fmt.Sprintf("#!/bin/sh\nwhile [ -e %s ]; do : >%s; sleep 0.1; done\necho opened\n", hang, asked)
	if err := os.WriteFile(hook, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	d := spawn(t, "client", nil, nil, "-tls", "token", "-dir", dir, "-addr", freeAddr(t), "-name", "c1",
		"-set", fmt.Sprintf("hook_load_token=%q", hook), "-set", "hook_timeout=3600", "-set", "token_verify_peer_cert=false")
	d.logs(t, "trying on")
	mustWrite(t, hang, "")
	d.signal(t, syscall.SIGHUP)
	holds(t, asked, "")
	d.signal(t, syscall.SIGHUP)
	d.signal(t, syscall.SIGUSR1)
	d.signal(t, syscall.SIGTERM)
	if status := d.ends(t); status != 0 {
		t.Errorf("got %d, want 0: %s", status, d.text())
	}
}

func TestAReloadTakesTheLevelOfTheLogAsAStartDoes(t *testing.T) {
	for _, tt := range []struct {
		args          []string
		before, after string // content of the file
		first, want   string
	}{
		{nil, `{"default_logger_log_level": "DEBUG"}`, `{}`, "DEBUG", "INFO"},
		{nil, `{}`, `{"default_logger_log_level": "ERROR"}`, "INFO", "ERROR"},
		{[]string{"-v"}, `{}`, `{"default_logger_log_level": "ERROR"}`, "DEBUG", "DEBUG"},
		{[]string{"-set", `default_logger_log_level="WARNING"`}, `{"default_logger_log_level": "ERROR"}`, `{}`, "WARNING", "WARNING"},
	} {
		dir := newDir(t)
		file := mustWrite(t, filepath.Join(dir, "aioc.json"), tt.before)
		d := spawn(t, "server", nil, nil, append(append([]string{"-tls", "off", "-dir", dir, "-addr", freeAddr(t)}, tt.args...), file)...)
		check := func(when, want string) {
			t.Helper()
			var all struct {
				Level string `json:"default_logger_log_level"`
			}
			if err := json.Unmarshal([]byte(d.asked(t, dir, "show_config")), &all); err != nil {
				t.Fatal(err)
			}
			if got := d.asked(t, dir, "show_log_level"); got != `"`+want+`"` || all.Level != want {
				t.Errorf("%q, %s %s: the level is %s and config says %s, want %s", tt.args, tt.after, when, got, all.Level, want)
			}
		}
		check("before", tt.first)
		mustWrite(t, file, tt.after)
		d.asked(t, dir, "reload")
		check("after", tt.want)
		d.signal(t, syscall.SIGTERM)
		d.ends(t)
	}
}
