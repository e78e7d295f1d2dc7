package peer

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// madeTree is a tree of certificates that tests copy: making one takes a while.
var madeTree = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tree")
	if err == nil {
		err = os.Chmod(dir, 0o700)
	}
	if err == nil {
		err = identity.Create(dir)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := madeTree(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// home is the directory of a server and its clients.
type home struct {
	dir    string
	server *identity.Server
	tokens *identity.Tokens
	cfg    *config.Config // of the server
}

// newHome returns one with a new tree, for certificates or tokens.
func newHome(t *testing.T, tokens bool) *home {
	t.Helper()
	from, err := madeTree()
	if err != nil {
		t.Fatal(err)
	}
	h := &home{dir: t.TempDir(), cfg: testConfig(true)}
	if err := os.Chmod(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-Rp", from+"/certificates", h.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	o := identity.ServerOptions{Dir: h.dir, Clients: identity.OwnCertificates}
	h.cfg.SSLAllowAll, h.cfg.UseToken = tokens, tokens
	if tokens {
		o.Clients = identity.TrustedCertificates
		if h.tokens, err = identity.OpenTokens(filepath.Join(h.dir, "server_tokens.json")); err != nil {
			t.Fatal(err)
		}
	}
	if h.server, err = identity.OpenServer(o); err != nil {
		t.Fatal(err)
	}
	return h
}

// start starts the server.
func (h *home) start(t *testing.T, o Options) *server {
	t.Helper()
	o.Config, o.Server, o.TLS, o.Tokens = h.cfg, h.server, h.server.TLS(), h.tokens
	return start(t, o, nil)
}

// client returns the options of a client, on a host of its own.
func (h *home) client(t *testing.T, s *server, name string) Options {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	from, err := madeTree()
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "certificates"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-Rp", from+"/certificates/client", dir+"/certificates/").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cfg := clientOf(s.Listener, h.cfg)
	cfg.ClientName = name
	c, err := identity.OpenClient(identity.ClientOptions{Dir: dir, Name: name, Trust: identity.TrustTree})
	if err != nil {
		t.Fatal(err)
	}
	return Options{Config: cfg, Client: c, Token: &identity.TokenFile{Path: filepath.Join(dir, "token")}}
}

// dialAs connects by hand, with TLS as the client would show it.
func dialAs(t *testing.T, s *server, o Options, own bool) net.Conn {
	t.Helper()
	cfg, err := ClientTLS(o.Config, o.Client, own)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Client(dialTo(t, s.Listener), cfg)
}

// modes runs a test with certificates and with tokens.
func modes(t *testing.T, f func(t *testing.T, h *home)) {
	t.Run("certificates", func(t *testing.T) { f(t, newHome(t, false)) })
	t.Run("tokens", func(t *testing.T) { f(t, newHome(t, true)) })
}

func TestAClientGetsWhatItProvesItselfWithAndComesBack(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		c := runWith(t, o, nil)
		for range 2 {
			far := wait(t, "server up", s.conns)
			wait(t, "client up", c.conns)
			if far.Name != "pump7" || !far.TLS {
				t.Errorf("got %q, TLS %v", far.Name, far.TLS)
			}
			if err := far.Welcome(); err != nil {
				t.Errorf("welcome: %v", err)
			}
			c.drop <- io.EOF
		}
		none(t, "refused", s.refused)
		issued := 0
		for _, line := range s.log.lines(t, slog.LevelInfo) {
			if strings.HasSuffix(line.Msg, " issued") {
				issued++
			}
		}
		if issued != 1 {
			t.Errorf("issued %d times, want once", issued)
		}
	})
}

func TestASecondClientOfANameIsRefused(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		s := h.start(t, Options{})
		first := runWith(t, h.client(t, s, "pump7"), nil)
		wait(t, "the first", s.conns)
		wait(t, "the first", first.conns)
		second := runWith(t, h.client(t, s, "pump7"), nil)
		if got := wait(t, "reason", s.refused); got != ReasonIssue {
			t.Errorf("reason: got %q, want %q", got, ReasonIssue)
		}
		until(t, "the client says what may be the reason", func() bool {
			for _, line := range second.log.lines(t, slog.LevelWarn) {
				if line.Msg == "server refuses this client, trying on" && strings.Contains(line.Err, `for "pump7" already`) {
					return true
				}
			}
			return false
		})
		none(t, "connected", second.conns)
	})
}

func TestWhoWasDeletedIsNotWelcomeAnyMore(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		c := runWith(t, o, nil)
		far := wait(t, "server up", s.conns)
		wait(t, "client up", c.conns)
		reason := ReasonCertificate
		var err error
		if h.tokens == nil {
			err = h.server.Delete("pump7", false)
		} else {
			_, err = h.tokens.Delete("pump7")
			reason = ReasonToken
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := far.Welcome(); err == nil {
			t.Error("it is still welcome")
		}
		c.drop <- io.EOF
		if got := wait(t, "reason", s.refused); got != reason {
			t.Errorf("reason: got %q, want %q", got, reason)
		}
	})
}

func TestWithAlternateDefaultCertAClientEnrolsAgainByItself(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		o.Config.AlternateDefaultCert = true
		c := runWith(t, o, func(d *Dialer) {
			d.jitter = func(time.Duration) time.Duration { return 10 * time.Millisecond }
		})
		wait(t, "server up", s.conns)
		wait(t, "client up", c.conns)
		var err error
		if h.tokens == nil {
			err = h.server.Delete("pump7", false)
		} else {
			_, err = h.tokens.Delete("pump7")
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for { // in TLS 1.3 a refused client is up for a moment
				select {
				case c.drop <- errors.New("the test ends it"):
				case <-t.Context().Done():
					return
				}
			}
		}()
		if far := wait(t, "server up again", s.conns); far.Name != "pump7" || far.Welcome() != nil {
			t.Errorf("got %q", far.Name)
		}
	})
}

func TestACertificateCanStandForAToken(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		h := newHome(t, false)
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		c := runWith(t, o, nil)
		wait(t, "enrolled", s.conns)
		c.end()
		s.end()

		// The same server with tokens now.
		var err error
		if h.server, err = identity.OpenServer(identity.ServerOptions{Dir: h.dir, Clients: identity.TrustedCertificates}); err != nil {
			t.Fatal(err)
		}
		if h.tokens, err = identity.OpenTokens(filepath.Join(h.dir, "server_tokens.json")); err != nil {
			t.Fatal(err)
		}
		h.cfg.SSLAllowAll, h.cfg.UseToken, h.cfg.TokenAllowOtherCert = true, true, allowed
		s = h.start(t, Options{})
		conn := dialAs(t, s, o, true)
		if _, err := conn.Write(frame(`{"message_type": "any", "source_id": "pump7"}`, "x")); err != nil {
			t.Fatal(err)
		}
		if allowed {
			if far := wait(t, "identified", s.conns); far.Name != "pump7" {
				t.Errorf("got %q", far.Name)
			}
		} else if got := wait(t, "reason", s.refused); got != ReasonHello {
			t.Errorf("reason: got %q, want %q", got, ReasonHello)
		}
	}
}

func TestAdmitIsAskedAtEachMoment(t *testing.T) {
	want := map[bool][]string{false: {"addr ", "name pump7", "certificate pump7", "addr ", "name pump7"},
		true: {"addr ", "name pump7", "addr ", "name pump7"}}
	for _, tokens := range []bool{false, true} {
		h := newHome(t, tokens)
		asked := make(chan string, 100)
		s := h.start(t, Options{Admit: func(moment string, _ netip.AddrPort, name string) error {
			asked <- moment + " " + name
			return nil
		}})
		runWith(t, h.client(t, s, "pump7"), nil)
		wait(t, "server up", s.conns)
		for _, w := range want[tokens] {
			if got := wait(t, w, asked); got != w {
				t.Errorf("tokens %v: got %q, want %q", tokens, got, w)
			}
		}
	}
	for _, moment := range []string{MomentName, MomentCertificate} {
		h := newHome(t, false)
		s := h.start(t, Options{Admit: func(m string, _ netip.AddrPort, name string) error {
			if m == moment {
				return errors.New("on the black list")
			}
			return nil
		}})
		runWith(t, h.client(t, s, "pump7"), nil)
		if got := wait(t, "reason", s.refused); got != ReasonAdmit {
			t.Errorf("%s: got %q, want %q", moment, got, ReasonAdmit)
		}
		if names := h.server.Names(); len(names) != 0 {
			t.Errorf("%s: certificates were made for %q", moment, names)
		}
	}
}

func TestManyClientsEnrolAtOnce(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		const many = 25
		s := h.start(t, Options{})
		for i := range many {
			runWith(t, h.client(t, s, "pump"+string(rune('a'+i))), nil)
		}
		seen := map[string]bool{}
		for range many {
			far := wait(t, "a client", s.conns)
			seen[far.Name] = true
		}
		if len(seen) != many {
			t.Errorf("got %d clients, want %d", len(seen), many)
		}
		names := h.server.Names()
		if h.tokens != nil {
			names = h.tokens.Names()
		}
		if len(names) != many {
			t.Errorf("got %d names, want %d", len(names), many)
		}
	})
}

func TestACrowdDoesNotPushOutWhoIsServed(t *testing.T) {
	modes(t, func(t *testing.T, h *home) {
		h.cfg.MaxUnidentified = 10
		s := h.start(t, Options{})
		for range cap(s.issuing) {
			s.issuing <- struct{}{} // as if that many were at it
		}
		o := h.client(t, s, "pump7")
		c := dialAs(t, s, o, false)
		data := `{"cmd": "get_new_certificate"}`
		if h.tokens != nil {
			data = `{"cmd": "get_new_token"}`
		}
		ask, err := handshakeFrame(s.mode.hello(), "pump7", []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(ask); err != nil {
			t.Fatal(err)
		}
		until(t, "it is served", func() bool {
			s.gate.mu.Lock()
			defer s.gate.mu.Unlock()
			return s.gate.served.Len() == 1
		})
		for range 2 * h.cfg.MaxUnidentified {
			dialTo(t, s.Listener)
		}
		for range 2*h.cfg.MaxUnidentified - (h.cfg.MaxUnidentified - 1) {
			if got := wait(t, "reason", s.refused); got != ReasonCrowd {
				t.Errorf("got %q, want %q", got, ReasonCrowd)
			}
		}
		<-s.issuing
		var f wire.Frame
		if err := wire.NewReader(c, wire.MaxUnidentified).Next(&f); err != nil {
			t.Fatal(err)
		}
		if got := words(f.Data); got["crt"] == "" && got["token"] == "" {
			t.Error("the answer is none")
		}
		c.Close()
		// It is no refusal, even if the connection is pushed out in the end.
		until(t, "issued", func() bool {
			return slices.ContainsFunc(s.log.lines(t, slog.LevelInfo), func(e entry) bool { return strings.HasSuffix(e.Msg, " issued") })
		})
	})
}

func TestWhoWasPushedOutGetsNothing(t *testing.T) {
	h := newHome(t, false)
	h.cfg.MaxUnidentified = 2
	asked := make(chan string, 10)
	o := Options{Config: h.cfg, Server: h.server, TLS: h.server.TLS()}
	o.Admit = func(moment string, _ netip.AddrPort, _ string) error {
		asked <- moment
		return nil
	}
	s := start(t, o, func(l *Listener) { l.turn = time.Hour })
	s.issuing <- struct{}{} // as if one were at it: the others are not served
	c := dialAs(t, s, h.client(t, s, "pump7"), false)
	ask, err := handshakeFrame(s.mode.hello(), "pump7", []byte(`{"cmd": "get_new_certificate"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(ask); err != nil {
		t.Fatal(err)
	}
	for wait(t, "asked", asked) != MomentCertificate {
	}
	for range h.cfg.MaxUnidentified {
		dialTo(t, s.Listener)
	}
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("it got something")
	}
	// It does not wait for its turn: others need its place.
	if got := wait(t, "reason", s.refused); got != ReasonCrowd {
		t.Errorf("got %q, want %q", got, ReasonCrowd)
	}
	<-s.issuing
	// Not even for a moment: it has no answer to be taken back.
	if _, err := os.Stat(config.CertificateTree(h.dir).SourceIDToCert); !errors.Is(err, os.ErrNotExist) || h.server.Has("pump7") {
		t.Errorf("a certificate was made that nobody has (%v)", err)
	}
}

func TestAClientWhoseCertificateIsNotTakenIsNeverUp(t *testing.T) {
	h := newHome(t, false)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	c := runWith(t, o, nil)
	wait(t, "server up", s.conns)
	wait(t, "client up", c.conns)
	if err := h.server.Delete("pump7", false); err != nil {
		t.Fatal(err)
	}
	c.drop <- io.EOF
	until(t, "the client says that it is refused", func() bool {
		for _, line := range c.log.lines(t, slog.LevelWarn) {
			if line.Msg == "server refuses this client, trying on" && strings.Contains(line.Err, "does not take the certificate") {
				return true
			}
		}
		return false
	})
	wait(t, "reason", s.refused)
	none(t, "up", c.conns)
}

func TestAClientWithoutACertificateIsNotUpWhereOneIsWanted(t *testing.T) {
	h := newHome(t, false)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	o.Config.SSLAllowAll, o.Client, o.TLS = true, nil, clientTLS()
	c := runWith(t, o, nil)
	until(t, "the client says what to do", func() bool {
		for _, line := range c.log.lines(t, slog.LevelWarn) {
			if line.Msg == "server refuses this client, trying on" && strings.Contains(line.Err, "set ssl_allow_all and use_token alike") {
				return true
			}
		}
		return false
	})
	if got := wait(t, "reason", s.refused); got != ReasonCertificate {
		t.Errorf("reason: got %q, want %q", got, ReasonCertificate)
	}
	none(t, "up", c.conns)
}

func TestAServerThatIsNotTrustedIsNamed(t *testing.T) {
	h := newHome(t, false)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	other := t.TempDir()
	if err := os.Chmod(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := identity.Create(other); err != nil {
		t.Fatal(err)
	}
	var err error
	if o.Client, err = identity.OpenClient(identity.ClientOptions{Dir: other, Name: "pump7"}); err != nil {
		t.Fatal(err)
	}
	c := runWith(t, o, nil)
	until(t, "the client does not trust the server", func() bool {
		for _, line := range c.log.lines(t, slog.LevelWarn) {
			if line.Msg == "server is not trusted, trying on" {
				return true
			}
		}
		return false
	})
	if got := wait(t, "reason", s.refused); got != ReasonTLS {
		t.Errorf("reason: got %q, want %q", got, ReasonTLS)
	}
	none(t, "up", c.conns)
}

func TestWhatAServerSendsAtOnceIsNotLost(t *testing.T) {
	h := newHome(t, false)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	first := runWith(t, o, nil)
	wait(t, "enrolled", s.conns)
	first.end()
	s.end()

	// One without tickets, which sends at once.
	silent := h.server.TLS().Clone()
	inner := silent.GetConfigForClient
	silent.GetConfigForClient = func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := inner(i)
		if err == nil {
			c = c.Clone()
			c.SessionTicketsDisabled = true
		}
		return c, err
	}
	ln, err := net.Listen("tcp", o.Config.ServerAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, early := range []bool{true, false} {
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t := tls.Server(c, silent)
			if early {
				t.Write(frame(`{"message_type": "any"}`, "at once"))
			} else if t.Handshake() == nil {
				time.AfterFunc(2*maxVerdict, func() { t.Write(frame(`{"message_type": "any"}`, "at once")) })
			}
		}()
		c := runWith(t, o, nil)
		near := wait(t, "client up", c.conns)
		var f wire.Frame
		if err := near.Reader.Next(&f); err != nil || string(f.Data) != "at once" {
			t.Errorf("early %v: got %q, %v", early, f.Data, err)
		}
		near.Close()
		c.end()
	}
}
