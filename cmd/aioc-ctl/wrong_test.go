package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/cli"
	"aioc/lib/control"
	"aioc/lib/wire"
)

// rightly is a call of each verb that is right for a server.
func rightly() map[string]string {
	return map[string]string{
		"list": "", "status": "", "health": "", "peers": "", "queues": "", "stats": "", "metrics": "", "top": "-n 1", "ping": "pump7",
		"disconnect": "pump7", "blacklist": "add pump7", "whitelist": "list", "explain": "-id pump7", "delete-certificate": "pump7",
		"delete-token": "pump7", "reload-tokens": "", "ignore-traffic": "show", "log-level": "debug", "subscriptions": "", "subscribe": "any",
		"purge": "-yes", "dead": "list", "spool": "verify", "start": "", "stop": "", "restart": "-hard", "reload": "", "shutdown": "",
		"show": "use_ssl", "config": "",
	}
}

// fake is a daemon of which every call goes wrong in the same way: answer gets
// the connection, the type of the frame and its id. With nil it does not even
// greet, like a process that is stopped.
func fake(t *testing.T, answer func(c net.Conn, typ, id string)) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "aioc_server_127001_10673"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := wire.NewReader(c, wire.MaxFrame)
				var f wire.Frame
				if r.Next(&f) != nil {
					return
				}
				if answer == nil {
					_ = r.Next(&f)
					return
				}
				say(c, `{"message_type": "_ping", "response_id": "aioc", "aioc": ["ackto", "flow"]}`, `{"name": "('127.0.0.1', 10673)", "server": true}`)
				for r.Next(&f) == nil {
					answer(c, string(f.Header.Type), string(f.Header.RequestID))
				}
			}()
		}
	}()
	return dir
}

// say writes a frame.
func say(c net.Conn, header, data string) {
	b, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		panic(err) // a mistake in the test
	}
	_, _ = c.Write(b) // who went away is not told
}

// replies is a fake that answers calls with data.
func replies(t *testing.T, data string) string {
	return fake(t, func(c net.Conn, typ, id string) {
		if typ == wire.TypeCall {
			say(c, fmt.Sprintf(`{"message_type": "_call", "response_id": %s}`, id), data)
		} else {
			c.Close()
		}
	})
}

// Each verb, with a connector that is not there, that ends or falls silent in the
// middle of the call, that refuses, or that answers what nobody understands.
func TestEveryVerbWhenTheCallGoesWrong(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct {
		name, dir string
		status    int
		but       map[string]int // other statuses, -1 for any
		says      string
	}{
		{"nobody is there", empty, cli.Unavailable, nil, "no connector is running in " + empty},
		{"it ends", fake(t, func(c net.Conn, _, _ string) { c.Close() }), cli.Temporary, map[string]int{"shutdown": cli.Timeout}, ""},
		{"it is silent", fake(t, func(net.Conn, string, string) {}), cli.Timeout, nil, ""},
		{"it is stopped", fake(t, nil), cli.Timeout, nil, ""},
		{"it refuses", replies(t, `{"error": "permission denied: you may not", "reason": "permission"}`), cli.Refused, map[string]int{"ping": cli.Temporary}, "you may not"},
		{"it does not have it", replies(t, `{"error": "unknown command \"x\"", "reason": "unknown"}`), cli.Failed, map[string]int{"ping": cli.Temporary}, ""},
		{"it has not the peer", replies(t, `{"error": "no such peer", "reason": "away"}`), cli.Unavailable, map[string]int{"ping": cli.Temporary}, ""},
		{"it is busy", replies(t, `{"error": "the disk is full", "reason": "busy"}`), cli.Temporary, nil, ""},
		{"it fails", replies(t, `{"error": "that\nwent\u001b[2J wrong", "reason": "failed"}`), cli.Failed, map[string]int{"ping": cli.Temporary}, ""},
		{"it fails in a way of its own", replies(t, `{"error": "wrong", "reason": "quite new"}`), cli.Failed, map[string]int{"ping": cli.Temporary}, "wrong"},
		{"it answers no JSON", replies(t, "{"), cli.Failed, map[string]int{"ping": cli.Temporary}, "not understood"},
	} {
		for _, v := range control.Verbs() {
			args, ok := rightly()[v.Word]
			if !ok {
				t.Fatalf("the test does not know %s", v.Word)
			}
			if v.Word == "list" || v.Word == "spool" { // they ask no connector
				continue
			}
			t.Run(tt.name+"/"+v.Word, func(t *testing.T) {
				t.Parallel()
				want := tt.status
				if other, ok := tt.but[v.Word]; ok {
					want = other
				}
				timeout := "20"
				if want == cli.Timeout {
					timeout = "0.2"
				}
				status, out, errs := ctl(t, "", append([]string{"-dir", tt.dir, "-timeout", timeout, v.Word}, strings.Fields(args)...)...)
				if status != want || out != "" {
					t.Errorf("status %d, want %d; prints %q; says %q", status, want, out, errs)
				}
				if strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "aioc-ctl: ") || strings.ContainsAny(errs, "\x1b") {
					t.Errorf("says %q, want a line", errs)
				}
				if _, other := tt.but[v.Word]; !other && !strings.Contains(errs, tt.says) {
					t.Errorf("says %q, want %q", errs, tt.says)
				}
			})
		}
	}
}

// Replies of another form than expected are refused, and not half understood.
func TestStrangeRepliesDoNoHarm(t *testing.T) {
	for _, data := range []string{`{"result": null}`, `{"result": 7}`, `{"result": "x"}`, `{"result": []}`, `{"result": {}}`, `{"result": [{"name": 7}]}`, `{"result": {"peers": 7}}`, `{}`, `7`} {
		dir := replies(t, data)
		for word, args := range rightly() {
			if word == "list" || word == "spool" || word == "ping" || word == "shutdown" {
				continue
			}
			status, out, errs := ctl(t, "", append([]string{"-dir", dir, "-timeout", "20", word}, strings.Fields(args)...)...)
			if status == cli.Refused && word == "subscribe" {
				status = cli.OK // it misses its type in the reply
			}
			if status != cli.OK && status != cli.Failed || strings.Count(errs, "\n") > 1 || strings.Contains(out, "<nil>") {
				t.Errorf("%s, answered %s: status %d, %q, %q", word, data, status, out, errs)
			}
		}
	}
}
