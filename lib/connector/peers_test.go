package connector

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
)

func TestTheNewestConnectionOfANameCounts(t *testing.T) {
	s := server(t)
	var last *raw
	for i := range 5 {
		p := s.peer(t, "c1")
		p.write(`{"message_type": "_ack", "source_id": "c1"}`, "") // no extensions
		if last != nil {
			last.closed()
		}
		last = p
		eventually(t, "it is the client's", func() bool {
			b := s.box("c1", false)
			if b == nil {
				return false
			}
			l := b.current()
			return l != nil && l.addr == p.LocalAddr().String()
		})
		s.send(t, "any", "c1", numbers(10*i, 10*i+10)...)
		for k := 10 * i; k < 10*i+10; k++ {
			if _, d := p.message(); d != fmt.Sprint(k) {
				t.Fatalf("got %q, want %d", d, k)
			}
		}
	}
	if n := s.log.count("link replaced"); n != 1 {
		t.Errorf("got %d lines about it, want 1: the others are held back", n)
	}
}

func TestTwoClientsOfOneNameLoseNothing(t *testing.T) {
	// They throw each other out for ever; whatever either gets is kept.
	const many = 300
	s := server(t)
	one, two := s.client(t, "c1"), s.lateClient(t, "c1")
	a, b := one.receive(t, api.ReceiveOptions{}), two.receive(t, api.ReceiveOptions{})
	cl := s.open(t)
	out := cl.Sender(api.SendOptions{Wait: true})
	for _, d := range numbers(0, many) {
		if err := out.Put(cl.Header("any", "c1"), []byte(d), nil); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := out.Finish(within(t)); taken != many || err != nil {
		t.Fatalf("got %d taken, %v", taken, err)
	}
	eventually(t, "each message has come to one of them", func() bool {
		return len(firsts(append(a.all(), b.all()...))) == many
	})
	for _, in := range []*sink{a, b} {
		list := firsts(in.all())
		if !slices.IsSortedFunc(list, func(x, y message) int { return len(x.data)*1000 - len(y.data)*1000 + strings.Compare(x.data, y.data) }) {
			t.Errorf("out of order: %q", data(list))
		}
	}
}

func TestAPeerSpeaksInItsOwnNameOnly(t *testing.T) {
	s := server(t)
	in := s.receive(t, api.ReceiveOptions{})
	p := s.peer(t, "c1")
	for i := range 1000 {
		p.write(fmt.Sprintf(`{"message_type": "any", "source_id": "c%d"}`, i+2), "false")
	}
	p.write(`{"message_type": "any"}`, "nobody's")
	p.write(`{"message_type": "nosuch", "source_id": "c1"}`, "")
	p.write(`{"source_id": "c1"}`, "")
	p.write(`{"message_type": "any", "source_id": "c1"}`, "true")
	if got := data(in.wait(t, 1)); !slices.Equal(got, []string{"true"}) {
		t.Errorf("got %q", got)
	}
	for reason, want := range map[string]uint64{
		"source_id is not that of the connection": 1001,
		"message type not in recv_message_types":  1,
		"no message_type":                         1,
	} {
		if n := s.counted(reason); n != want {
			t.Errorf("%s: got %d, want %d", reason, n, want)
		}
	}
	if n := s.log.count("message dropped"); n != 3 {
		t.Errorf("got %d lines about it, want 3", n)
	}
	if n := len(s.counts.n); n > 10 {
		t.Errorf("got %d counters: a stranger can make them", n)
	}
}

func TestWhoDoesNotKeepTheRulesIsClosed(t *testing.T) {
	for _, test := range []struct {
		name  string
		hello bool
		frame []byte
	}{
		{"a message before the hello", false, frame(`{"message_type": "any", "source_id": "c1"}`, "")},
		{"a bad name", false, frame(`{"message_type": "_handshake_no_ssl", "source_id": "../c1"}`, "hello")},
		{"a default name", false, frame(`{"message_type": "_handshake_no_ssl", "source_id": "default"}`, "hello")},
		{"a name with a newline", false, frame(`{"message_type": "_handshake_no_ssl", "source_id": "c1\n"}`, "hello")},
		{"a second hello", true, frame(`{"message_type": "_handshake_no_ssl", "source_id": "c2"}`, "hello")},
		{"a command", true, frame(`{"message_type": "_call", "source_id": "c1"}`, `{"cmd": "stop"}`)},
		{"a consumer", true, frame(`{"message_type": "_consume", "source_id": "c1"}`, `{}`)},
		{"an acknowledgement of what was not sent", true, frame(`{"message_type": "_ack", "source_id": "c1", "ackto": 7}`, "")},
		{"a refusal of what was not sent", true, frame(`{"message_type": "_nack", "source_id": "c1", "transport_id": 7}`, "")},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := server(t)
			p := dialRaw(t, "tcp", s.cfg.ServerAddr.String())
			if test.hello {
				p = s.peer(t, "c1")
			}
			if _, err := p.Write(test.frame); err != nil {
				t.Fatal(err)
			}
			p.closed()
			s.disconnected(t, "c1")
			s.client(t, "c2") // others are served
		})
	}
}

// breaker passes TCP connections on to the server and cuts them at random.
type breaker struct {
	ln   net.Listener
	to   string
	all  sync.WaitGroup
	mu   sync.Mutex
	off  bool // no more cuts
	cuts int
	open map[net.Conn]bool
}

func newBreaker(t *testing.T, to string) *breaker {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &breaker{ln: ln, to: to, open: map[net.Conn]bool{}}
	b.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.all.Go(func() { b.pass(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		b.mu.Lock()
		for c := range b.open {
			c.Close()
		}
		b.mu.Unlock()
		b.all.Wait()
	})
	return b
}

// pass copies both ways until a random number of bytes went one way.
func (b *breaker) pass(in net.Conn) {
	out, err := net.Dial("tcp", b.to)
	if err != nil {
		in.Close()
		return
	}
	b.mu.Lock()
	b.open[in], b.open[out] = true, true
	b.mu.Unlock()
	var both sync.WaitGroup
	end := func() {
		in.Close()
		out.Close()
	}
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			defer end()
			limit := rand.Int64N(1 << 20)
			if _, err := io.CopyN(way[0], way[1], limit); err != nil {
				return
			}
			b.mu.Lock()
			off := b.off
			if !off {
				b.cuts++
			}
			b.mu.Unlock()
			if off {
				_, _ = io.Copy(way[0], way[1])
			}
		})
	}
	both.Wait()
	b.mu.Lock()
	delete(b.open, in)
	delete(b.open, out)
	b.mu.Unlock()
}

func TestNothingIsLostOrReorderedWhenTheLinkBreaks(t *testing.T) {
	const many = 50_000
	s := server(t)
	b := newBreaker(t, s.cfg.ServerAddr.String())
	addr, ok := b.ln.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("not TCP")
	}
	c := s.lateClient(t, "c1", func(cfg *config.Config) { cfg.ServerAddr.Port = addr.Port })
	up, down := s.receive(t, api.ReceiveOptions{}), c.receive(t, api.ReceiveOptions{})
	sent := make(chan error, 2)
	for _, from := range []*node{s, c} {
		go func() {
			cl := from.open(t)
			out := cl.Sender(api.SendOptions{Wait: true})
			h := cl.Header("any", "c1")
			for _, d := range numbers(0, many) {
				if err := out.Put(h, []byte(d), nil); err != nil {
					sent <- err
					return
				}
			}
			taken, err := out.Finish(within(t))
			if err == nil && taken != many {
				err = fmt.Errorf("got %d taken, want %d", taken, many)
			}
			sent <- err
		}()
	}
	calm := time.AfterFunc(3*time.Second, func() {
		b.mu.Lock()
		b.off = true
		b.mu.Unlock()
	})
	defer calm.Stop()
	for range 2 {
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	for name, in := range map[string]*sink{"up": up, "down": down} {
		last := fmt.Sprint(many - 1)
		eventually(t, "the last one has come "+name, func() bool {
			in.mu.Lock()
			defer in.mu.Unlock()
			return len(in.got) > 0 && in.got[len(in.got)-1].data == last
		})
		list := in.all()
		inOrder(t, firsts(list), many)
		t.Logf("%s: %d messages came again", name, len(list)-many)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cuts < 2 {
		t.Errorf("only %d cuts", b.cuts)
	}
}

// The list is for people and for the menu of the original. Daemons of one host
// start together when it boots.
func TestConnectorsThatStartTogetherAreAllListed(t *testing.T) {
	dir := newDir(t)
	var all []*Connector
	var want []string
	for i := range 8 {
		cfg := newConfig(t)
		cfg.IsServer = false
		cfg.ClientName = fmt.Sprintf("pump%d", i)
		if err := cfg.SetDir(dir); err != nil {
			t.Fatal(err)
		}
		all = append(all, New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler)}))
		want = append(want, cfg.ClientName)
	}
	for _, test := range []struct {
		running bool
		want    []string
	}{{true, want}, {false, nil}} {
		var group sync.WaitGroup
		for _, c := range all {
			group.Go(func() { c.setActive(test.running) })
		}
		group.Wait()
		text, err := os.ReadFile(filepath.Join(dir, "active_connectors.json"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) {
			t.Errorf("running %v: got %q, want %q", test.running, got, test.want)
		}
	}
}
