package peer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/wire"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// testConfig returns a configuration without TLS, or with ssl_allow_all.
func testConfig(withTLS bool) *config.Config {
	c := config.Defaults()
	c.ServerAddr = config.Addr{Host: "127.0.0.1"}
	c.ClientName = "client1"
	c.UseSSL, c.SSLAllowAll = withTLS, withTLS
	return c
}

// clientOf returns the configuration of a client of l.
func clientOf(l *Listener, server *config.Config) *config.Config {
	c := *server
	c.IsServer = false
	addr := l.Addr().(*net.TCPAddr)
	c.ServerAddr = config.Addr{Host: addr.IP.String(), Port: addr.Port}
	return &c
}

// journal is a log that a test reads.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// entry is one line of a journal.
type entry struct {
	Level, Msg, Err, Addr string
	N                     int
}

// lines returns the lines of at least the given level.
func (j *journal) lines(t *testing.T, least slog.Level) []entry {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []entry
	for line := range strings.Lines(j.buf.String()) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(e.Level)); err != nil {
			t.Fatal(err)
		}
		if level >= least {
			all = append(all, e)
		}
	}
	return all
}

// server is a Listener that serves.
type server struct {
	*Listener
	log     *journal
	refused chan string // reasons
	conns   chan *Conn  // identified; they stay until end
	end     func() error
}

// start serves o until the test ends, or end is called, which returns what Serve
// returned. prepare may change the Listener.
func start(t *testing.T, o Options, prepare func(l *Listener)) *server {
	t.Helper()
	s := &server{log: &journal{}, refused: make(chan string, 10000), conns: make(chan *Conn, 1000)}
	o.Log = s.log.logger()
	o.Refused = func(reason string) { s.refused <- reason }
	if o.Config.UseSSL && o.TLS == nil {
		o.TLS = serverTLS(t)
	}
	l, err := Listen(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(l)
	}
	s.Listener = l
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- l.Serve(ctx, func(ctx context.Context, c *Conn) {
			s.conns <- c
			<-ctx.Done()
		})
	}()
	s.end = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { s.end() })
	return s
}

// wait receives from a channel what must come.
func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// none fails if something is in a channel.
func none[T any](t *testing.T, what string, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Errorf("%s: got %v, want none", what, v)
	default:
	}
}

// serverTLS returns a server's TLS configuration with a certificate of its own.
var serverTLS = func() func(t *testing.T) *tls.Config {
	pair := sync.OnceValues(func() (tls.Certificate, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return tls.Certificate{}, err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	})
	return func(t *testing.T) *tls.Config {
		t.Helper()
		cert, err := pair()
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{cert}}
	}
}()

// pipeTLS is serverTLS for a net.Pipe: without session tickets, whose writer would
// wait for a client that writes, too.
func pipeTLS(t *testing.T) *tls.Config {
	t.Helper()
	c := serverTLS(t).Clone()
	c.SessionTicketsDisabled = true
	return c
}

// clientTLS takes any server.
func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// tlsClient is TLS on a connection to a server.
func tlsClient(c net.Conn) *tls.Conn { return tls.Client(c, clientTLS()) }

// dialTo connects to l without more.
func dialTo(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// reach connects to l, with TLS if l has it.
func reach(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c := dialTo(t, l)
	if l.o.TLS != nil {
		c = tls.Client(c, clientTLS())
	}
	return c
}

// ended fails unless the other end closes c without a word.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if b := make([]byte, 1); true {
		n, err := c.Read(b)
		if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the refused client read %d bytes, error %v, want the end", n, err)
		}
	}
}

// frame makes a frame.
func frame(header, data string) []byte {
	b, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		panic(err)
	}
	return b
}

// hello is a client's first frame to l.
func hello(l *Listener, name string) []byte {
	b, err := handshakeFrame(l.mode.hello(), name, []byte("hello"))
	if err != nil {
		panic(err)
	}
	return b
}

// vector returns the bytes of the only frame in a captured conversation.
func vector(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Frames []struct{ Hex string } }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Frames) != 1 {
		t.Fatalf("%s: %d frames, want 1", name, len(v.Frames))
	}
	b, err := hex.DecodeString(v.Frames[0].Hex)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goroutines fails if there are more goroutines than before, when those that are
// ending have ended.
func goroutines(t *testing.T, before int) {
	t.Helper()
	end := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, want at most %d:\n%s", runtime.NumGoroutine(), before,
				stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

// announced returns a frame whose length field says n.
func announced(n uint32, rest ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, n), rest...)
}

func TestAModeThatLacksSomethingIsRefusedBeforeAnythingIsOpened(t *testing.T) {
	type set = func(c *config.Config)
	for _, test := range []struct {
		name string
		set  set
		tls  *tls.Config
		want string
	}{
		{"certificates", func(c *config.Config) { c.UseSSL = true }, clientTLS(), "nothing to"},
		{"certificates, with use_token that does not count", func(c *config.Config) { c.UseSSL, c.UseToken = true, true }, clientTLS(), "nothing to"},
		{"tokens", func(c *config.Config) { c.UseSSL, c.SSLAllowAll, c.UseToken = true, true, true }, clientTLS(), "there is n"},
		{"TLS without its configuration", func(c *config.Config) { c.UseSSL, c.SSLAllowAll = true, true }, nil, "no TLS configuration"},
		{"TLS configuration without TLS", func(c *config.Config) {}, clientTLS(), "use_ssl is false"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(false)
			test.set(c)
			o := Options{Config: c, TLS: test.tls}
			if _, err := Listen(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Listen: got %v, want an error with %q", err, test.want)
			}
			err := NewDialer(o).Run(t.Context(), func(context.Context, *Conn) error { t.Error("connected"); return nil })
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run: got %v, want an error with %q", err, test.want)
			}
		})
	}
}

func TestUseTokenWithoutTLSDoesNotCount(t *testing.T) {
	c := testConfig(false)
	c.UseToken = true
	if got := modeOf(c); got != modePlain {
		t.Errorf("got mode %d, want %d", got, modePlain)
	}
}
