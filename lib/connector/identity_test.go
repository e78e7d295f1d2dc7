package connector

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/identity"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// certified sets up a certificate for each client, in the tree of dir.
func certified(t testing.TB, dir string) func(*config.Config) {
	if _, err := os.Stat(filepath.Join(dir, "certificates")); err != nil {
		if err := identity.Create(dir); err != nil {
			t.Fatal(err)
		}
	}
	return func(cfg *config.Config) {
		cfg.UseSSL, cfg.SSLAllowAll, cfg.CertificatesDir = true, false, dir
	}
}

// tokened sets up tokens, without certificates of clients.
func tokened(t testing.TB, dir string) func(*config.Config) {
	certs := certified(t, dir)
	return func(cfg *config.Config) {
		certs(cfg)
		cfg.SSLAllowAll, cfg.UseToken, cfg.TokenVerifyPeerCert = true, true, config.Verify{}
	}
}

// provingModes runs a test with certificates and with tokens.
func provingModes(t *testing.T, f func(t *testing.T, mode func(*config.Config), what string)) {
	t.Run("certificates", func(t *testing.T) { f(t, certified(t, newDir(t)), "certificate") })
	t.Run("tokens", func(t *testing.T) { f(t, tokened(t, newDir(t)), "token") })
}

// call calls a command and returns the text of the reply.
func (n *node) call(t testing.TB, name string, kwargs map[string]any) string {
	t.Helper()
	text, err := json.Marshal(kwargs)
	if err != nil {
		t.Fatal(err)
	}
	result, err := n.commands.Call(context.Background(), name, text)
	if err != nil {
		return "error: " + err.Error()
	}
	return control.Text(result)
}

const success = `{"status": true, "msg": ""}`

func TestADeletedClientGoesAndGetsAnotherProofWhenItIsDeletedThereToo(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		c := s.client(t, "pump7", mode)
		if got := s.call(t, "delete_client_"+what+"_on_server", map[string]any{"client_id": "pump7"}); got != success {
			t.Fatalf("on the server: got %s", got)
		}
		eventually(t, "the client is refused", func() bool { return s.log.count("client refused") > 0 })
		s.disconnected(t, "pump7")
		if got := c.call(t, "delete_client_"+what+"_on_client", nil); got != success {
			t.Fatalf("on the client: got %s", got)
		}
		s.connected(t, "pump7")
		eventually(t, "it got a second one", func() bool { return s.log.count(what+" issued") == 2 })
		eventually(t, "the client knows that it is in", func() bool { return c.box("", false).there() != nil })
		r := s.receive(t, api.ReceiveOptions{})
		c.send(t, "any", "", "1")
		r.wait(t, 1)
	})
}

func TestWhoIsDeletedOnTheDiskGoes(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		s.client(t, "pump7", mode)
		s.client(t, "pump8", mode)
		var err error
		if what == "token" { // as an administrator's program does
			var tokens *identity.Tokens
			if tokens, err = identity.OpenTokens(s.paths.ServerTokens); err == nil {
				_, err = tokens.Delete("pump7")
			}
		} else {
			var certs *identity.Server
			if certs, err = identity.OpenServer(ServerIdentity(s.cfg)); err == nil {
				err = certs.Delete("pump7", false)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "pump7 is disconnected", func() bool { return s.log.count("peer not welcome any more") == 1 })
		s.disconnected(t, "pump7")
		if s.box("pump8", false).current() == nil {
			t.Error("pump8 was disconnected as well")
		}
		if n := s.counted("peer disconnected: not welcome any more"); n != 1 {
			t.Errorf("counted %d times, want once", n)
		}
	})
}

func TestAReloadKeepsWhoIsWelcomeAndDropsWhoIsNot(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		s.client(t, "pump7", mode)
		s.client(t, "pump8", mode)
		before := s.box("pump8", false).current()
		again := *s.cfg
		if err := s.Reload(&again); err != nil {
			t.Fatal(err)
		}
		if n := s.log.count("link down"); n != 0 {
			t.Errorf("%d links went down", n)
		}
		if what == "token" {
			if _, err := s.keys.Load().tokens.Delete("pump7"); err != nil {
				t.Fatal(err)
			}
		} else if err := s.keys.Load().server.Delete("pump7", false); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(&again); err != nil {
			t.Fatal(err)
		}
		s.disconnected(t, "pump7")
		if s.box("pump8", false).current() != before {
			t.Error("pump8 was disconnected as well")
		}
	})
}

func TestADamagedFileDoesNotPassAReload(t *testing.T) {
	mode := tokened(t, newDir(t))
	s := server(t, mode)
	s.client(t, "pump7", mode)
	text, err := os.ReadFile(s.paths.ServerTokens)
	if err == nil {
		err = os.WriteFile(s.paths.ServerTokens, text[:len(text)/2], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	again := *s.cfg
	if err := s.Reload(&again); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("got %v", err)
	}
	if s.box("pump7", false).current() == nil {
		t.Error("pump7 was disconnected")
	}
}

// certifiedPeer connects to a server with the certificate of one of its clients,
// which is gone, and speaks the protocol by itself.
func certifiedPeer(t *testing.T, s *node, name string, mode func(*config.Config)) *raw {
	t.Helper()
	c := s.client(t, name, mode)
	cfg := c.cfg
	c.halt(t)
	s.disconnected(t, name)
	id, err := identity.OpenClient(ClientIdentity(cfg))
	if err != nil {
		t.Fatal(err)
	}
	own, err := id.TLS(identity.ShowOwn)
	if err != nil {
		t.Fatal(err)
	}
	r := dialRaw(t, "tcp", s.cfg.ServerAddr.String())
	r.Conn = tls.Client(r.Conn, own)
	r.r = wire.NewReader(r.Conn, wire.MaxFrame)
	return r
}

func TestMessagesUnderTheNameOfAnotherAreNeverDelivered(t *testing.T) {
	mode := certified(t, newDir(t))
	s := server(t, mode)
	s.client(t, "pump8", mode)
	c := certifiedPeer(t, s, "pump7", mode)
	r := s.receive(t, api.ReceiveOptions{})
	for range 10 {
		c.write(`{"message_type": "any", "source_id": "pump8"}`, "forged")
		c.write(`{"message_type": "any"}`, "nameless")
		c.write(`{"message_type": "any", "source_id": "pump7\n"}`, "with a newline")
	}
	c.write(`{"message_type": "any", "source_id": "pump7"}`, "true")
	if got := r.wait(t, 1); len(got) != 1 || got[0].data != "true" {
		t.Errorf("got %v", got)
	}
	const reason = "source_id is not that of the connection"
	if n := s.counted(reason); n != 30 {
		t.Errorf("counted %d, want 30", n)
	}
	if n := s.log.count(reason); n != 1 {
		t.Errorf("%d log lines, want 1", n)
	}
}

func TestAClientWithItsOwnCertificateGetsNoOther(t *testing.T) {
	mode := certified(t, newDir(t))
	s := server(t, mode)
	c := certifiedPeer(t, s, "pump7", mode)
	c.write(`{"message_type": "_ssl", "source_id": "pump9"}`, `{"cmd": "get_new_certificate"}`)
	c.closed()
	eventually(t, "the violation is counted", func() bool { return s.counted("protocol violation") == 1 })
	if names := s.keys.Load().server.Names(); len(names) != 1 {
		t.Errorf("there are certificates for %q, want pump7 only", names)
	}
}

func TestTheNewestConnectionOfACertificateCounts(t *testing.T) {
	mode := certified(t, newDir(t))
	s := server(t, mode)
	c := certifiedPeer(t, s, "pump7", mode)
	c.write(`{"message_type": "any", "source_id": "pump7"}`, "1")
	s.connected(t, "pump7")
	first := s.box("pump7", false).current()
	s.lateClient(t, "pump7", mode)
	eventually(t, "it is another link", func() bool {
		p := s.box("pump7", false).current()
		return p != nil && p != first
	})
	c.closed()
}

func TestCommandsAboutProofsAnswerAsTheOriginal(t *testing.T) {
	certs := certified(t, newDir(t))
	s := server(t, certs)
	c := s.client(t, "client2", certs)
	plain := server(t)
	for _, test := range []struct {
		name    string
		at      *node
		command string
		kwargs  map[string]any
		want    string
	}{
		{"a client that is not there", s, "disconnect_client", map[string]any{"client_id": "ghost"}, "Non existing client ghost"},
		{"on a client", c, "disconnect_client", map[string]any{"client_id": "x"}, "{}"},
		{"a certificate that is not there", s, "delete_client_certificate_on_server", map[string]any{"client_id": "ghost", "remove_only_symlink": false},
			`{"status": false, "msg": "remove_client_cert non existing client in source_id_2_cert : ghost"}`},
		{"a name that is none", s, "delete_client_certificate_on_server", map[string]any{"client_id": "bad/name", "remove_only_symlink": false},
			`{"status": false, "msg": "Invalid source_id : bad/name - please use only ^[0-9a-zA-Z-_:]+$"}`},
		{"a default certificate", s, "delete_client_certificate_on_server", map[string]any{"client_id": "default", "remove_only_symlink": false},
			`{"status": false, "msg": "Invalid source_id : default - cannot match ^default[0-9]*$"}`},
		{"without TLS", plain, "delete_client_certificate_on_server", map[string]any{"client_id": "x"}, "True"},
		{"a token without tokens", s, "delete_client_token_on_server", map[string]any{"client_id": "client1"}, success},
		{"on the wrong side", c, "delete_client_certificate_on_server", map[string]any{"client_id": "x"},
			`{"status": false, "msg": "this is a client: ask the server"}`},
		{"on the other wrong side", s, "delete_client_certificate_on_client", nil,
			`{"status": false, "msg": "this is a server: ask the client"}`},
		{"tokens that are not used", s, "load_server_tokens", nil, "error: no tokens are used here: they need use_token, use_ssl and ssl_allow_all"},
		{"a client that is there", s, "disconnect_client", map[string]any{"client_id": "client2"}, "True"},
		{"without a restart", c, "delete_client_certificate_on_client", map[string]any{"restart_client": false}, success},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.at.call(t, test.command, test.kwargs); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestDeletingWhatIsNotThereIsSaid(t *testing.T) {
	certs, tokens := server(t, certified(t, newDir(t))), server(t, tokened(t, newDir(t)))
	for _, test := range []struct {
		at            *node
		command, want string
	}{
		{certs, "delete_client_certificate_on_server", `no client with the name \"ghost\" has a certificate here`},
		{certs, "delete_client_token_on_server", "no tokens are used here"},
		{tokens, "delete_client_token_on_server", "no client with this name has a token here"},
	} {
		got, err := test.at.Connector.command(within(t), local.Caller{UID: os.Geteuid()}, test.command, []byte(`{"client_id": "ghost"}`))
		if text := fmt.Sprint(got); err != nil || !strings.Contains(text, `"status": false`) || !strings.Contains(text, test.want) {
			t.Errorf("%s: got %v, %v, want %s", test.command, got, err, test.want)
		}
	}
}

func TestDeletingWhatIsNotThereDisconnectsForToolsOfTheOriginalOnly(t *testing.T) {
	for _, command := range []string{"delete_client_certificate_on_server", "delete_client_token_on_server"} {
		s := server(t)
		s.client(t, "c1")
		s.connected(t, "c1")
		l := s.box("c1", false).current().l
		if _, err := s.Connector.command(within(t), local.Caller{UID: os.Geteuid()}, command, []byte(`{"client_id": "c1"}`)); err != nil {
			t.Fatal(err)
		}
		select {
		case <-l.Done():
			t.Errorf("%s failed, and disconnected the client", command)
		case <-time.After(50 * time.Millisecond):
		}
		s.call(t, command, map[string]any{"client_id": "c1"})
		select {
		case <-l.Done():
		case <-within(t).Done():
			t.Errorf("%s by a tool of the original did not disconnect the client", command)
		}
	}
}

func TestATableOfTokensThatOthersCanReadIsHiddenAtTheStart(t *testing.T) {
	var path string
	s := server(t, anonymous(t), func(cfg *config.Config) {
		cfg.UseToken = true
		path = cfg.Paths().ServerTokens
		if err := os.WriteFile(path, []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
			t.Fatal(err)
		}
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	if s.log.count("others could read the table of tokens") != 1 {
		t.Error("the log does not tell")
	}
}

func TestTokensAreReadAgainWhenAsked(t *testing.T) {
	mode := tokened(t, newDir(t))
	s := server(t, mode)
	c := s.client(t, "pump7", mode)
	if got := s.call(t, "load_server_tokens", nil); got != "{}" {
		t.Errorf("on the server: got %s", got)
	}
	if got := c.call(t, "load_client_token", nil); got != "{}" {
		t.Errorf("on the client: got %s", got)
	}
	if err := os.WriteFile(s.paths.ServerTokens, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.call(t, "load_server_tokens", nil); got != "{}" {
		t.Errorf("on the server: got %s", got)
	}
	eventually(t, "the client is disconnected", func() bool { return s.log.count("peer not welcome any more") == 1 })
}

func TestRevokingTakesTheProof(t *testing.T) {
	provingModes(t, func(t *testing.T, mode func(*config.Config), what string) {
		s := server(t, mode)
		s.client(t, "pump7", mode)
		for _, name := range []string{"pump7", "pump7", "ghost", "pump.*", ""} {
			if err := s.revoke(name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		eventually(t, "it is refused", func() bool { return s.log.count("client refused") > 0 })
	})
}

func TestAConnectorDoesNotStartWithoutWhatItNeeds(t *testing.T) {
	dir := newDir(t)
	mode := certified(t, dir)
	for _, test := range []struct {
		name    string
		server  bool
		prepare func(cfg *config.Config) error
		want    string
	}{
		{"no certificates on a server", true, func(cfg *config.Config) error { cfg.CertificatesDir = cfg.Dir(); return nil }, "run: aioc-certs create"},
		{"no certificates on a client", false, func(cfg *config.Config) error { cfg.CertificatesDir = cfg.Dir(); return nil }, "aioc-certs"},
		{"a token that others can read", false, func(cfg *config.Config) error {
			cfg.SSLAllowAll, cfg.UseToken = true, true
			return os.WriteFile(cfg.Paths().ClientToken, []byte("x"), 0o644)
		}, "chmod 600"},
		{"damaged tokens", true, func(cfg *config.Config) error {
			cfg.SSLAllowAll, cfg.UseToken = true, true
			return os.WriteFile(cfg.Paths().ServerTokens, []byte("{"), 0o600)
		}, "damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := newConfig(t)
			mode(cfg)
			cfg.IsServer, cfg.ClientName = test.server, "pump7"
			cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: 1}
			if err := test.prepare(cfg); err != nil {
				t.Fatal(err)
			}
			before := files(t, cfg.Dir())
			if _, err := CheckIdentity(context.Background(), cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("check: got %v, want %q", err, test.want)
			}
			if after := files(t, cfg.Dir()); after != before {
				t.Errorf("the check changed the directory: %s, was %s", after, before)
			}
			err := New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)}).Run(within(t), 0)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("start: got %v, want %q", err, test.want)
			}
		})
	}
}

// files returns the names below a directory.
func files(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}
