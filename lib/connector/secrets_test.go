package connector

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// everyMode runs a test with each way of protecting the connection.
func everyMode(t *testing.T, f func(t *testing.T, mode func(*config.Config))) {
	t.Run("off", func(t *testing.T) { f(t, func(*config.Config) {}) })
	t.Run("anonymous", func(t *testing.T) { f(t, anonymous(t)) })
	t.Run("certificates", func(t *testing.T) { f(t, certified(t, newDir(t))) })
	t.Run("tokens", func(t *testing.T) { f(t, tokened(t, newDir(t))) })
	t.Run("CA", func(t *testing.T) {
		dir := newDir(t)
		if err := identity.CreateCA(dir); err != nil {
			t.Fatal(err)
		}
		certs := certified(t, dir)
		f(t, func(cfg *config.Config) {
			certs(cfg)
			cfg.ServerCA = true
		})
	})
}

// No message, token, password or key gets into a log at any level, whatever is
// done with them.
func TestNoLogHasASecret(t *testing.T) {
	everyMode(t, func(t *testing.T, mode func(*config.Config)) {
		const content = "hunter2-the-content"
		debug := func(n *node) *node { n.level.Set(slog.LevelDebug); return n }
		many := func(cfg *config.Config) {
			cfg.SendTypes, cfg.RecvTypes = []string{"any", "job", "full"}, []string{"any", "job"}
			cfg.DebugMessageCounts = true
			cfg.PersistRecv = config.Types{Names: []string{"job"}}
			cfg.Proxy.Username, cfg.Proxy.Password = "u", content
		}
		s := debug(server(t, mode, many, isBroker, stores(t.TempDir())))
		c := debug(s.client(t, "c1", mode, many, func(cfg *config.Config) { cfg.SubscribeTypes = []string{"any"} }))
		s.connected(t, "c1")
		// What arrives, is refused, cannot be placed, dies.
		in := s.judge(t, func(_, data string) error { return api.Dead(1, "no handler could do it") })
		c.send(t, "job", "", content, content)
		in.wait(t, 2)
		eventually(t, "two are dead", func() bool { return s.events.snapshot()["dead letter"] == 2 })
		in.stop()
		out := s.receive(t, api.ReceiveOptions{})
		c.send(t, "any", "", content)
		out.wait(t, 1)
		c.publish(t, "any", content)
		c.publish(t, "nobody", content)
		_ = c.try(t, "no_such_type", "", content)
		_ = c.try(t, "full", "", content)
		_ = s.try(t, "any", "nobody", content)
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, target := range []string{"pics", "nowhere"} {
			_ = c.sendFile(t, "", fmt.Sprintf(`{"src_path": %q, "dst_type": %q, "dst_name": "f", "delete": false}`, path, target), content, content)
		}
		// What breaks the protocol: nobody quotes it.
		for _, n := range []*node{s, c} {
			for _, typ := range []string{wire.TypeCall, wire.TypeConsume, wire.TypeSubscribe, wire.TypeStream, wire.TypeNack, wire.TypeAck, wire.TypeFile, wire.TypePubSub, "any", ""} {
				for _, data := range []string{content, `"` + content + `"`, `{"` + content + `": 1`, `{"password": "` + content + `"}`, `["` + content + `"`} {
					p := n.program(t)
					p.write(fmt.Sprintf(`{"message_type": %q, "transport_id": "1", "ackto": 1}`, typ), data)
					p.Close()
					own := dialRaw(t, "unix", n.paths.OwnSocket)
					_, _ = own.Write([]byte(data))
					own.Close()
				}
			}
		}
		raw := dialRaw(t, "tcp", s.cfg.ServerAddr.String())
		_, _ = raw.Write([]byte("GET / HTTP/1.1\r\nAuthorization: Bearer " + content + "\r\n\r\n"))
		raw.closed()
		// What commands show.
		for _, name := range []string{"show_config", "stats", "metrics", "show_lists", "reload"} {
			_, _ = ask(t, s, name, nil)
		}
		if s.cfg.UseSSL && s.cfg.UseToken {
			// A token that is not the right one.
			c.halt(t)
			token, err := os.ReadFile(c.paths.ClientToken)
			if err != nil {
				t.Fatal(err)
			}
			wrong := []byte(strings.TrimSpace(string(token)))
			wrong[len(wrong)-1] ^= 1
			if err := os.WriteFile(c.paths.ClientToken, wrong, 0o600); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is refused", func() bool {
				other := debug(s.lateClient(t, "c1", mode, func(cfg *config.Config) { cfg.TokensDir = c.cfg.TokensDir }))
				refused := s.log.count("client refused") > 0
				other.halt(t)
				if strings.Contains(other.log.String(), string(wrong)) {
					t.Errorf("the log of the client has its token")
				}
				return refused
			})
			if strings.Contains(s.log.String(), string(wrong)) || strings.Contains(s.log.String(), string(token)) {
				t.Errorf("the log of the server has a token")
			}
		}
		for _, n := range []*node{s, c} {
			if n.running.Load() {
				command(t, n, "restart", map[string]any{"hard": true})
			}
		}
		s.halt(t)
		c.halt(t)
		secrets := []string{content, "PRIVATE KEY", base64.StdEncoding.EncodeToString([]byte(content)), hex.EncodeToString([]byte(content))}
		known := len(secrets)
		for _, n := range []*node{s, c} {
			secrets = append(secrets, secretsOf(t, n)...)
		}
		if s.cfg.UseSSL && len(secrets) == known {
			t.Fatalf("no secret was found in %s", s.paths.Root)
		}
		for _, n := range []*node{s, c} {
			log := n.log.String()
			if !strings.Contains(log, "debug") {
				t.Error("nothing is logged at level DEBUG")
			}
			for _, secret := range secrets {
				if i := strings.Index(log, secret); i >= 0 {
					t.Errorf("the log of %s has %q: %s", n.ID(), secret, log[max(0, i-300):min(len(log), i+100)])
				}
			}
		}
	})
}

// secretsOf returns what is secret in the files of a connector: tokens and their
// hashes, and lines of private keys.
func secretsOf(t *testing.T, n *node) (secrets []string) {
	t.Helper()
	if text, err := os.ReadFile(n.paths.ServerTokens); err == nil {
		var table map[string]any
		if err := json.Unmarshal(text, &table); err != nil {
			t.Fatal(err)
		}
		for _, v := range table {
			secrets = append(secrets, fmt.Sprint(v))
		}
	}
	if text, err := os.ReadFile(n.paths.ClientToken); err == nil {
		secrets = append(secrets, strings.TrimSpace(string(text)))
	}
	err := filepath.WalkDir(n.paths.Root, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".key") {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if lines := strings.Split(string(text), "\n"); len(lines) > 2 {
				secrets = append(secrets, lines[1])
			}
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a mode without certificates
		t.Fatal(err)
	}
	return secrets
}
