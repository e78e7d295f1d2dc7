package connector

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
)

func TestLinksThatComeAndGoAreLoggedNowAndThen(t *testing.T) {
	var f flaps
	now := time.Unix(1e9, 0)
	// A day in which a link is made every 100 ms.
	lines := 0
	for range 24 * 3600 * 10 {
		if f.log("p", now) {
			lines++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if want := 24*360 + flapBurst; lines > want {
		t.Errorf("%d links of a day are logged, want at most %d", lines, want)
	}
	if !f.log("other", now) {
		t.Error("another peer is not logged")
	}
	if !f.log("p", now.Add(flapEvery)) || !f.log("p", now.Add(-time.Hour)) && !f.log("p", now.Add(time.Hour)) {
		t.Error("it is never logged again")
	}
	for i := range 3 * flapPeers {
		f.log(fmt.Sprint(i), now)
	}
	lines = 0
	for i := range 24 * 3600 * 10 {
		if f.log(fmt.Sprint("new", i), now) {
			lines++
		}
		now = now.Add(100 * time.Millisecond)
	}
	if want := 24*3600 + flapAllBurst; lines > want {
		t.Errorf("%d links of a day, each of another name, are logged, want at most %d", lines, want)
	}
	if n := len(f.peers); n > flapPeers {
		t.Errorf("%d peers are remembered", n)
	}
}

func TestAFlappingPeerDoesNotFillTheLog(t *testing.T) {
	s := server(t)
	for range 100 {
		p := s.peer(t, "c1")
		s.connected(t, "c1")
		p.Close()
		s.disconnected(t, "c1")
	}
	if n := strings.Count(s.log.String(), "\n"); n > 2*flapBurst+20 {
		t.Errorf("%d lines for 100 links", n)
	}
	if n := s.log.count("links come and go"); n != 1 {
		t.Errorf("%d lines say so, want 1", n)
	}
	if n := stats(t, s).Events["link up"]; n != 100 {
		t.Errorf("%d links are counted, want 100", n)
	}
}

// No message, token or key gets into a log at any level.
func TestNoLogHasASecret(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		debug := func(n *node) *node { n.level.Set(slog.LevelDebug); return n }
		s := debug(server(t, mode))
		c := debug(s.client(t, "c1", mode))
		s.connected(t, "c1")
		in := s.receive(t, api.ReceiveOptions{})
		const content = "hunter2-the-content"
		c.send(t, "any", "", content, content)
		in.wait(t, 2)
		_ = c.try(t, "no_such_type", "", content)
		_ = s.try(t, "any", "nobody", content)
		for _, n := range []*node{s, c} {
			command(t, n, "restart", map[string]any{"hard": true})
		}
		s.connected(t, "c1")
		s.halt(t)
		c.halt(t)
		secrets := []string{content, "PRIVATE KEY"}
		for _, n := range []*node{s, c} {
			secrets = append(secrets, secretsOf(t, n)...)
		}
		if len(secrets) < 3 {
			t.Fatalf("no secret was found in %s", c.paths.Root)
		}
		for _, n := range []*node{s, c} {
			log := n.log.String()
			if !strings.Contains(log, "debug") {
				t.Error("nothing is logged at level DEBUG")
			}
			for _, secret := range secrets {
				if strings.Contains(log, secret) {
					t.Errorf("the log of %s has %q", n.ID(), secret)
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
	if err != nil {
		t.Fatal(err)
	}
	return secrets
}
