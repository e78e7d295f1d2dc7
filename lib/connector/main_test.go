package connector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}

// within returns a context that ends before the test hangs.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// journal keeps what is logged.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
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

// count returns how many lines hold the text.
func (j *journal) count(text string) (n int) {
	for line := range strings.Lines(j.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// node is a connector that runs in a test.
type node struct {
	*Connector
	cfg  *config.Config
	log  *journal
	stop context.CancelFunc
	done chan struct{}
	err  error // of Run, when done is closed
}

// halt ends the connector and waits for it.
func (n *node) halt(t testing.TB) {
	t.Helper()
	n.stop()
	select {
	case <-n.done:
	case <-time.After(patience):
		t.Fatal("the connector does not end")
	}
}

// newDir returns a directory with a short name, as sockets need it.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "c")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newConfig returns a configuration in a directory of its own, without TLS.
func newConfig(t testing.TB) *config.Config {
	t.Helper()
	cfg := config.Defaults()
	if err := cfg.SetDir(newDir(t)); err != nil {
		t.Fatal(err)
	}
	cfg.UseSSL = false
	return cfg
}

// run runs a connector until the test ends.
func run(t testing.TB, cfg *config.Config, ln net.Listener, edits ...func(*Connector)) *node {
	t.Helper()
	n := &node{cfg: cfg, log: &journal{}, done: make(chan struct{})}
	ready := make(chan struct{})
	var level slog.LevelVar
	n.Connector = New(Options{Config: cfg, Log: cli.NewLogger(n.log, cli.LogText, &level), Level: &level,
		Listener: ln, Ready: func() { close(ready) }})
	for _, edit := range edits {
		edit(n.Connector)
	}
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() {
		n.err = n.Run(ctx, 100*time.Millisecond)
		close(n.done)
	}()
	t.Cleanup(func() {
		n.halt(t)
		if t.Failed() {
			log := n.log.String()
			t.Logf("log of %s:\n%s", n.ID(), log[max(0, len(log)-4000):])
		}
	})
	select {
	case <-ready:
	case <-n.done:
		t.Fatalf("%s does not start: %v", cfg.ID(), n.err)
	}
	return n
}

// server runs a server on a free port of this host.
func server(t testing.TB, edits ...func(*config.Config)) *node {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := newConfig(t)
	cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	for _, edit := range edits {
		edit(cfg)
	}
	return run(t, cfg, ln)
}

// client runs a client of the server and waits until it is connected.
func (n *node) client(t testing.TB, name string, edits ...func(*config.Config)) *node {
	t.Helper()
	c := n.lateClient(t, name, edits...)
	n.connected(t, name)
	eventually(t, "the client is connected", func() bool { return c.box("", false).there() != nil })
	return c
}

// lateClient is client without the waiting.
func (n *node) lateClient(t testing.TB, name string, edits ...func(*config.Config)) *node {
	t.Helper()
	cfg := newConfig(t)
	cfg.IsServer, cfg.ClientName, cfg.ServerAddr = false, name, n.cfg.ServerAddr
	for _, edit := range edits {
		edit(cfg)
	}
	return run(t, cfg, nil)
}

// connected waits until a client is connected to the server.
func (n *node) connected(t testing.TB, name string) {
	t.Helper()
	eventually(t, name+" is connected", func() bool {
		b := n.box(name, false)
		return b != nil && b.there() != nil
	})
}

// disconnected waits until a client is not connected any more.
func (n *node) disconnected(t testing.TB, name string) {
	t.Helper()
	eventually(t, name+" is not connected", func() bool {
		b := n.box(name, false)
		return b == nil || b.current() == nil
	})
}

// anonymous sets up TLS that proves nobody's identity.
func anonymous(t testing.TB) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.UseSSL, cfg.SSLAllowAll = true, true
		if cfg.IsServer {
			if err := identity.Create(cfg.CertificatesDir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// types sets the message types.
func types(names ...string) func(*config.Config) {
	return func(cfg *config.Config) { cfg.SendTypes, cfg.RecvTypes = names, names }
}

// small bounds the queues, which have memory only.
func small(bytes int64) func(*config.Config) {
	return func(cfg *config.Config) { cfg.MaxMemoryPerQueue, cfg.MaxPersistenceSize = bytes, 0 }
}

// open connects to the connector as a program does.
func (n *node) open(t testing.TB) *api.Client {
	t.Helper()
	c, err := api.Open(within(t), api.Target{Dir: n.cfg.Dir()})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Info().Native {
		t.Fatal("not taken for a connector of this toolkit")
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// send sends messages of a type, one for each data, and waits until they are
// taken.
func (n *node) send(t testing.TB, typ, to string, data ...string) {
	t.Helper()
	if err := n.try(t, typ, to, data...); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// try is send with its error.
func (n *node) try(t testing.TB, typ, to string, data ...string) error {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	h := c.Header(typ, to)
	for _, d := range data {
		if err := s.Put(h, []byte(d), nil); err != nil {
			return err
		}
	}
	taken, err := s.Finish(within(t))
	if err == nil && taken != len(data) {
		t.Errorf("got %d taken, want %d", taken, len(data))
	}
	return err
}

// message is what a receiver got.
type message struct{ header, data, bin string }

// sink is a running receiver.
type sink struct {
	r    *api.Receiver
	stop context.CancelFunc
	done chan struct{}
	err  error // of Run, when done is closed

	mu  sync.Mutex
	got []message
}

// receive runs a receiver until the test or stop ends it.
func (n *node) receive(t testing.TB, o api.ReceiveOptions) *sink {
	t.Helper()
	c := n.open(t)
	s := &sink{done: make(chan struct{})}
	inner := o.Frame
	o.Frame = func(number uint64, f *wire.Frame) error {
		s.mu.Lock()
		s.got = append(s.got, message{string(f.Header.Raw), string(f.Data), string(f.Binary)})
		s.mu.Unlock()
		if inner != nil {
			return inner(number, f)
		}
		return nil
	}
	s.r = c.Receiver(o)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		s.err = s.r.Run(ctx)
		close(s.done)
	}()
	t.Cleanup(func() {
		stop()
		<-s.done
	})
	return s
}

// all returns what has arrived.
func (s *sink) all() []message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]message(nil), s.got...)
}

func (s *sink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.got)
}

// wait waits for n messages and returns all.
func (s *sink) wait(t testing.TB, n int) []message {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for s.len() < n {
		if time.Now().After(end) {
			t.Fatalf("got %d messages, want %d", s.len(), n)
		}
		<-tick.C
	}
	return s.all()
}

// ended waits for the end of Run and returns its error.
func (s *sink) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("the receiver does not end")
	}
	return s.err
}

// data returns the data of messages.
func data(all []message) []string {
	list := make([]string, len(all))
	for i, m := range all {
		list[i] = m.data
	}
	return list
}

// numbers returns the texts of from, from+1, ... to-1.
func numbers(from, to int) []string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

// inOrder fails the test unless the messages are numbers(0, n), exactly.
func inOrder(t testing.TB, all []message, n int) {
	t.Helper()
	if len(all) != n {
		t.Errorf("got %d messages, want %d", len(all), n)
	}
	for i, m := range all {
		if number, _, _ := strings.Cut(m.data, " "); number != strconv.Itoa(i) {
			t.Fatalf("message %d: got %.20q", i, m.data)
		}
	}
}

// raw is a connection on which a test speaks the protocol by itself.
type raw struct {
	net.Conn
	t testing.TB
	r *wire.Reader
}

func dialRaw(t testing.TB, network, addr string) *raw {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &raw{c, t, wire.NewReader(c, wire.MaxFrame)}
}

// peer connects to the server as a client of the original does.
func (n *node) peer(t testing.TB, name string) *raw {
	t.Helper()
	c := dialRaw(t, "tcp", n.cfg.ServerAddr.String())
	c.write(fmt.Sprintf(`{"message_type": "_handshake_no_ssl", "source_id": %q}`, name), "hello")
	return c
}

// frame makes a frame.
func frame(header, data string) []byte {
	b, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		panic(err) // a mistake in a test
	}
	return b
}

// write writes a frame.
func (c *raw) write(header, data string) {
	c.t.Helper()
	if _, err := c.Write(frame(header, data)); err != nil {
		c.t.Fatal(err)
	}
}

// next reads a frame.
func (c *raw) next() (wire.Header, string) {
	c.t.Helper()
	var f wire.Frame
	if err := c.r.Next(&f); err != nil {
		c.t.Fatalf("no frame: %v", err)
	}
	var h wire.Header
	if err := h.Parse(append([]byte(nil), f.Header.Raw...)); err != nil {
		c.t.Fatal(err)
	}
	return h, string(f.Data)
}

// message reads the next frame that is no nudge of the link.
func (c *raw) message() (wire.Header, string) {
	c.t.Helper()
	for {
		if h, d := c.next(); string(h.Type) != wire.TypePing {
			return h, d
		}
	}
}

// closed waits until the other end has closed the connection.
func (c *raw) closed() {
	c.t.Helper()
	var f wire.Frame
	for {
		if err := c.r.Next(&f); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				c.t.Fatal("the connection is not closed")
			}
			return
		}
	}
}

// counted returns how often a reason was counted.
func (n *node) counted(reason string) uint64 {
	n.counts.mu.Lock()
	defer n.counts.mu.Unlock()
	return n.counts.n[reason]
}
