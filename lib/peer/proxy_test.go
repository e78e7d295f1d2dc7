package peer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/wire"
)

// fakeProxy answers the requests that it gets, and makes a tunnel if it has said
// so.
type fakeProxy struct {
	addr     config.Addr
	requests chan string
}

// startProxy starts a proxy. answer writes what it says to a request, and says
// whether a tunnel follows; to is where it leads, whatever was asked for.
func startProxy(t *testing.T, tlsConfig *tls.Config, to string, answer func(c net.Conn, request string) bool) *fakeProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	addr := ln.Addr().(*net.TCPAddr)
	p := &fakeProxy{addr: config.Addr{Host: "127.0.0.1", Port: addr.Port}, requests: make(chan string, 1000)}
	if tlsConfig != nil {
		ln = tls.NewListener(ln, tlsConfig)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go p.serve(c, to, answer)
		}
	}()
	return p
}

func (p *fakeProxy) serve(c net.Conn, to string, answer func(c net.Conn, request string) bool) {
	defer c.Close()
	r := bufio.NewReader(c)
	request := ""
	for !strings.HasSuffix(request, "\r\n\r\n") {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		request += line
	}
	p.requests <- request
	if !answer(c, request) {
		return
	}
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	go func() {
		io.Copy(far, r)
		far.Close()
	}()
	io.Copy(c, far)
}

// says is a proxy that answers so.
func says(text string) func(net.Conn, string) bool {
	return func(c net.Conn, _ string) bool {
		io.WriteString(c, text)
		return strings.Contains(text, " 200") || strings.Contains(text, " 2")
	}
}

// through returns the configuration of a client of a server, through a proxy.
func through(p *fakeProxy, l *Listener, server *config.Config) *config.Config {
	c := clientOf(l, server)
	c.Proxy = config.Proxy{Enabled: true, Addr: p.addr}
	return c
}

func TestAClientConnectsThroughAProxy(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(c net.Conn, request string) bool
	}{
		{"as squid answers", says("HTTP/1.1 200 Connection established\r\n\r\n")},
		{"HTTP/1.0 and headers", says("HTTP/1.0 200 OK\r\nVia: x\r\nDate: y\r\n\r\n")},
		{"without a reason", says("HTTP/1.1 200 \r\n\r\n")},
		{"without even the space", says("HTTP/1.1 200\r\n\r\n")},
		{"another success", says("HTTP/1.1 204 x\r\n\r\n")},
		{"lines that end in a newline only", says("HTTP/1.1 200 OK\nVia: x\n\n")},
		{"something before", says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")},
		{"a length, which means nothing here", says("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")},
		{"in pieces", func(c net.Conn, _ string) bool {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nVia: x\r\n\r\n") {
				c.Write([]byte{b})
			}
			return true
		}},
		{"many headers", says("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Filler: abcdefghijklmnopqrstuvwxyz\r\n", 400) + "\r\n")},
	} {
		t.Run(test.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, withTLS bool) {
				s := start(t, Options{Config: testConfig(withTLS)}, nil)
				p := startProxy(t, nil, s.Addr().String(), test.answer)
				cfg := through(p, s.Listener, testConfig(withTLS))
				cfg.ServerAddr.Host = "server.invalid" // the proxy looks it up
				r := run(t, cfg, nil)
				near, far := wait(t, "client up", r.conns), wait(t, "server up", s.conns)
				if far.Name != "client1" || near.Addr.Port() != uint16(p.addr.Port) || near.TLS != withTLS {
					t.Errorf("got %q, %v, %v", far.Name, near.Addr, near.TLS)
				}
				host := cfg.ServerAddr.String()
				if got, want := wait(t, "request", p.requests), "CONNECT "+host+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"; got != want {
					t.Errorf("request: got %q, want %q", got, want)
				}
				if _, err := near.Write(frame(`{"message_type": "any", "source_id": "client1"}`, "one")); err != nil {
					t.Fatal(err)
				}
				var f wire.Frame
				if err := far.Reader.Next(&f); err != nil || string(f.Data) != "one" {
					t.Errorf("got %q, %v", f.Data, err)
				}
			})
		})
	}
}

func TestWhatFollowsTheProxysAnswerBelongsToTheTunnel(t *testing.T) {
	message := frame(`{"message_type": "any", "source_id": "server"}`, "at once")
	p := startProxy(t, nil, "", func(c net.Conn, _ string) bool {
		c.Write(append([]byte("HTTP/1.1 200 OK\r\n\r\n"), message...))
		io.Copy(io.Discard, c)
		return false
	})
	cfg := testConfig(false)
	cfg.ServerAddr = config.Addr{Host: "server.invalid", Port: 1}
	cfg.Proxy = config.Proxy{Enabled: true, Addr: p.addr}
	r := run(t, cfg, nil)
	var f wire.Frame
	if err := wait(t, "up", r.conns).Reader.Next(&f); err != nil || string(f.Data) != "at once" {
		t.Errorf("got %q, %v", f.Data, err)
	}
}

// once makes one attempt and returns its error.
func once(t *testing.T, cfg *config.Config, o Options) error {
	t.Helper()
	cfg.TryReconnect = false
	o.Config = cfg
	if cfg.UseSSL {
		o.TLS = clientTLS()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	up := errors.New("connected")
	return NewDialer(o).Run(ctx, func(context.Context, *Conn) error { return up })
}

func TestAProxyThatRefusesIsUnderstood(t *testing.T) {
	body := "Content-Type: text/html\r\nContent-Length: 20\r\n\r\n<html>secret</html>\r\n"
	for _, test := range []struct {
		name, answer, user, want string
	}{
		{"wants authorization", "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n" + body, "", "it wants a user name and password (407): set authorization in proxy, or hook_proxy_authorization"},
		{"refuses the authorization", "HTTP/1.1 407 x\r\nproxy-authenticate: NTLM\r\nproxy-authenticate: basic\r\n" + body, "u", "it refuses the user name or password (407): correct authorization in proxy"},
		{"wants another authorization", "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", "u", `kind "Negotiate", "NTLM" (407): only Basic is supported`},
		{"forbids", "HTTP/1.1 403 Forbidden\r\n" + body, "", `it does not allow a connection to the server: 403 "Forbidden"`},
		{"finds nothing", "HTTP/1.1 502 Bad Gateway\r\n" + body, "", `it cannot connect to the server: 502 "Bad Gateway"`},
		{"sends elsewhere", "HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", "", `it does not make the connection: 302 "Found"`},
		{"a reason for the terminal", "HTTP/1.1 500 \x1b[31m" + strings.Repeat("x", 100) + "\r\n\r\n", "", `500 "\x1b[31mxxx`},
		{"a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", "", "it does not answer as an HTTP proxy"},
		{"a status that is none", "HTTP/1.1 +20 OK\r\n\r\n", "", "it does not answer as an HTTP proxy"},
		{"another version", "HTTP/2.0 200 OK\r\n\r\n", "", "it does not answer as an HTTP proxy"},
		{"200 elsewhere", "HTTP/1.1 x200 OK\r\n\r\n", "", "it does not answer as an HTTP proxy"},
		{"SSH", "SSH-2.0-OpenSSH_9.2\r\n", "", `it does not answer as an HTTP proxy: "SSH-2"`},
		{"nothing", "", "", "it closed the connection before its answer"},
		{"half of it", "HTTP/1.1 200 OK\r\n", "", "it closed the connection before its answer"},
		{"a TLS alert", "\x15\x03\x01\x00\x02\x02\x28", "", "it uses TLS: set ssl_server to true"},
		{"headers without an end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxProxyAnswer) + "\r\n\r\n", "", "its answer has more than 16384 bytes of headers"},
		{"nothing but beginnings", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", maxProxyAnswer/10), "", "its answer has more than 16384 bytes of headers"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, nil, "127.0.0.1:1", func(c net.Conn, _ string) bool {
				io.WriteString(c, test.answer)
				return false
			})
			cfg := testConfig(false)
			cfg.ServerAddr = config.Addr{Host: "server.invalid", Port: 1}
			cfg.Proxy = config.Proxy{Enabled: true, Addr: p.addr, Username: test.user, Password: "s3cret"}
			err := once(t, cfg, Options{})
			prefix := "server server.invalid:1: proxy " + p.addr.String() + ": "
			if err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %s%s", err, prefix, test.want)
			}
			if text := err.Error(); len(text) > 300 || strings.ContainsAny(text, "\x1b\r\n") || strings.Contains(text, "s3cret") || strings.Contains(text, "html") {
				t.Errorf("got %q", text)
			}
		})
	}
}

func TestAuthorizationComesFromTheConfigurationOrAHook(t *testing.T) {
	hook := func(user, password string, err error) func(context.Context, string, string) (string, string, error) {
		return func(_ context.Context, u, p string) (string, string, error) { return u + user, p + password, err }
	}
	for _, test := range []struct {
		name, user, password string
		hook                 func(context.Context, string, string) (string, string, error)
		header               string // "" is none
		err                  string
	}{
		{"none", "", "", nil, "", ""},
		{"the original's example", "user", "pass:word\u20ac", nil, "Basic dXNlcjpwYXNzOndvcmTigqw=", ""},
		{"no password", "user", "", nil, "Basic dXNlcjo=", ""},
		{"a hook", "", "", hook("user", "", nil), "Basic dXNlcjo=", ""},
		{"a hook that changes it", "us", "pass", hook("er", ":word\u20ac", nil), "Basic dXNlcjpwYXNzOndvcmTigqw=", ""},
		{"a hook that fails", "user", "", hook("", "", errors.New("no")), "", "hook_proxy_authorization: no"},
		{"a hook whose user cannot be said", "user", "", hook(":x", "", nil), "", "a user name cannot contain a colon"},
		{"a newline changes nothing", "us\r\nX: y", "", nil, "Basic dXMNClg6IHk6", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, Options{Config: testConfig(false)}, nil)
			p := startProxy(t, nil, s.Addr().String(), says("HTTP/1.1 200 OK\r\n\r\n"))
			cfg := through(p, s.Listener, testConfig(false))
			cfg.Proxy.Username, cfg.Proxy.Password = test.user, test.password
			err := once(t, cfg, Options{ProxyAuthorization: test.hook})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want %s", err, test.err)
				}
				none(t, "requests", p.requests)
				return
			}
			want := "CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n"
			if test.header != "" {
				want += "Proxy-Authorization: " + test.header + "\r\n"
			}
			want = strings.ReplaceAll(want, "HOST", cfg.ServerAddr.String()) + "\r\n"
			if got := wait(t, "request", p.requests); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// The proxy of the captures gets from us what it got from the original, with
// a Host header and the usual spelling of Basic.
func TestTheRequestIsTheOriginalsWithAHost(t *testing.T) {
	text, err := os.ReadFile("testdata/proxy.json")
	if err != nil {
		t.Fatal(err)
	}
	var captures []struct {
		Name, Request, User, Password, Host string
		Port                                int
	}
	if err := json.Unmarshal(text, &captures); err != nil {
		t.Fatal(err)
	}
	if len(captures) != 3 {
		t.Errorf("%d captures, want 3", len(captures))
	}
	for _, c := range captures {
		request, err := hex.DecodeString(c.Request)
		if err != nil {
			t.Fatal(err)
		}
		addr := config.Addr{Host: c.Host, Port: c.Port}
		want := strings.Replace(string(request), "\r\n", "\r\nHost: "+addr.String()+"\r\n", 1)
		want = strings.Replace(want, ": basic ", ": Basic ", 1)
		got, err := connectRequest(addr, c.User, c.Password)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", c.Name, got, err, want)
		}
	}
}

func TestAHostCannotAddToTheRequest(t *testing.T) {
	for _, host := range []string{"a\r\nX: y", "a b", "a\n", "a\x00", "a\x7f"} {
		if b, err := connectRequest(config.Addr{Host: host, Port: 1}, "", ""); err == nil {
			t.Errorf("%q: got %q", host, b)
		}
	}
	if b, err := connectRequest(config.Addr{Host: "::1", Port: 1}, "", ""); err != nil || !strings.HasPrefix(string(b), "CONNECT [::1]:1 HTTP/1.1\r\nHost: [::1]:1\r\n") {
		t.Errorf("got %q, %v", b, err)
	}
}

// certificateFor returns a certificate for a name, and a file that has it.
func certificateFor(t *testing.T, name string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC),
		BasicConstraintsValid: true, IsCA: true}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

func TestTheConnectionToTheProxyMayBeTLS(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		right, file := certificateFor(t, "127.0.0.1")
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		p := startProxy(t, right, s.Addr().String(), says("HTTP/1.1 200 OK\r\n\r\n"))
		cfg := through(p, s.Listener, testConfig(withTLS))
		cfg.Proxy.TLS, cfg.ProxyCAFile = true, file
		r := run(t, cfg, nil)
		near, far := wait(t, "client up", r.conns), wait(t, "server up", s.conns)
		if near.Addr.Port() != uint16(p.addr.Port) || near.TLS != withTLS || far.TLS != withTLS {
			t.Errorf("got %v, %v, %v", near.Addr, near.TLS, far.TLS)
		}
		if _, err := near.Write(frame(`{"message_type": "any", "source_id": "client1"}`, "one")); err != nil {
			t.Fatal(err)
		}
		var f wire.Frame
		if err := far.Reader.Next(&f); err != nil || string(f.Data) != "one" {
			t.Errorf("got %q, %v", f.Data, err)
		}
	})
}

func TestAProxyWhoseCertificateIsWrongIsNotAsked(t *testing.T) {
	right, file := certificateFor(t, "127.0.0.1")
	other, otherFile := certificateFor(t, "other.example.org")
	noPEM := filepath.Join(t.TempDir(), "x.pem")
	if err := os.WriteFile(noPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		tls    *tls.Config
		cafile string
		want   string
	}{
		{"nobody that the system trusts", right, "", "set proxy_cafile"},
		{"another certificate", right, otherFile, "set proxy_cafile"},
		{"the certificate of another host", other, otherFile, "127.0.0.1"},
		{"no certificates in the file", right, noPEM, "has no certificate in PEM"},
		{"no file", right, "/nonexistent", "proxy_cafile: open /nonexistent"},
		{"no TLS", nil, file, "it closed the connection"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, test.tls, "127.0.0.1:1", says("HTTP/1.1 200 OK\r\n\r\n"))
			cfg := testConfig(false)
			cfg.ServerAddr = config.Addr{Host: "server.invalid", Port: 1}
			cfg.Proxy = config.Proxy{Enabled: true, Addr: p.addr, TLS: true, Username: "u", Password: "s3cret"}
			cfg.ProxyCAFile = test.cafile
			cfg.ConnectTimeout = time.Second
			if test.tls != nil {
				cfg.ConnectTimeout = patience
			} else {
				test.want = "no connection through the proxy" // it waits for a line
			}
			if err := once(t, cfg, Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
			none(t, "requests", p.requests)
		})
	}
}

func TestConnectTimeoutIsForTheProxyToo(t *testing.T) {
	for name, answer := range map[string]func(net.Conn, string) bool{
		"it says nothing": func(c net.Conn, _ string) bool { io.Copy(io.Discard, c); return false },
		"it does not stop": func(c net.Conn, _ string) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(c, "X"); err != nil {
					return false
				}
			}
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, nil, "", answer)
			cfg := testConfig(false)
			cfg.ServerAddr = config.Addr{Host: "server.invalid", Port: 1}
			cfg.Proxy = config.Proxy{Enabled: true, Addr: p.addr}
			cfg.ConnectTimeout = 200 * time.Millisecond
			err := once(t, cfg, Options{})
			if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "no connection through the proxy "+p.addr.String()+" within 200ms (connect_timeout)") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAProxyThatComesBackIsFound(t *testing.T) {
	s := start(t, Options{Config: testConfig(false)}, nil)
	tries := make(chan struct{}, 1000)
	var n atomic.Int32
	p := startProxy(t, nil, s.Addr().String(), func(c net.Conn, request string) bool {
		tries <- struct{}{}
		if n.Add(1) < 3 {
			io.WriteString(c, "HTTP/1.1 503 Busy\r\n\r\n")
			return false
		}
		return says("HTTP/1.1 200 OK\r\n\r\n")(c, request)
	})
	r := run(t, through(p, s.Listener, testConfig(false)), nil)
	wait(t, "client up", r.conns)
	wait(t, "server up", s.conns)
	r.drop <- errors.New("dropped")
	wait(t, "client up again", r.conns)
	if len(tries) < 4 {
		t.Errorf("%d tries, want 4", len(tries))
	}
}
