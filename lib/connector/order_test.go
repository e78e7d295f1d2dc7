package connector

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// playedServer runs a client whose server is the test, which has greeted it.
func playedServer(t *testing.T, edits ...func(*config.Config)) (c *node, s *raw) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := ln.Accept()
		if err == nil {
			accepted <- conn
		}
	}()
	cfg := newConfig(t)
	cfg.IsServer, cfg.ClientName = false, "c1"
	cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	for _, edit := range edits {
		edit(cfg)
	}
	c = run(t, cfg, nil)
	conn := <-accepted
	t.Cleanup(func() { conn.Close() })
	s = &raw{conn, t, wire.NewReader(conn, wire.MaxFrame)}
	s.until(wire.TypeHelloPlain)
	s.until(wire.TypePing)
	s.write(`{"message_type": "_ping", "response_id": "aioc", "aioc": ["ackto", "flow"], "source_id": "s"}`, "")
	eventually(t, "the client knows what it speaks", func() bool {
		p := c.box("", false).current()
		return p != nil && p.greeted.Load()
	})
	return c, s
}

func TestAProgramLearnsOfNothingBeforeItIsPut(t *testing.T) {
	c, s := playedServer(t, types("a", "b"), small(64<<10))
	p := c.program(t)
	all := frame(`{"message_type": "a", "wait_for_ack": true}`, "1")
	for range 700 {
		all = append(all, frame(`{"message_type": "b"}`, strings.Repeat("x", 100))...)
	}
	go p.Write(all)
	q := c.box("", false).q
	eventually(t, "the queue is full", func() bool { return q.Stats().Bytes > 60<<10 })
	put := q.Stats().Put
	s.write(`{"message_type": "_ack", "ackto": 1}`, "")
	for acked := uint64(0); acked == 0; {
		h, _ := p.next()
		acked = h.AckTo
		if now := q.Stats().Put; acked > now {
			t.Fatalf("%d acknowledged, %d put", acked, now)
		}
	}
	if now := q.Stats().Put; now >= 701 {
		t.Errorf("got %d put, at first %d: the queue was not full", now, put)
	}
}

func TestASenderReachesAPeerThatHasComeBack(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	p := s.program(t)
	const h = `{"message_type": "any", "destination_id": "c1"}`
	p.write(h, "1")
	if got, _ := p.message(); got.AckTo != 1 {
		t.Fatalf("got %s", got.Raw)
	}
	eventually(t, "it has arrived", func() bool { return s.box("c1", false).q.Len() == 0 })
	c.halt(t)
	eventually(t, "the peer is forgotten", func() bool { return s.box("c1", false) == nil })
	c = s.client(t, "c1")
	p.write(h, "2")
	if got, _ := p.message(); got.AckTo != 2 {
		t.Fatalf("got %s", got.Raw)
	}
	if got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 1)); got[0] != "2" {
		t.Errorf("got %q", got)
	}
}

func TestAnIDIsKnownWhenThePeerHasComeBack(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	p := s.program(t)
	const h = `{"message_type": "any", "destination_id": "c1", "id": "x"}`
	p.write(h, "1")
	if got, _ := p.message(); got.AckTo != 1 {
		t.Fatalf("got %s", got.Raw)
	}
	c.receive(t, api.ReceiveOptions{}).wait(t, 1)
	c.halt(t)
	s.disconnected(t, "c1")
	c = s.client(t, "c1")
	p.write(h, "2")
	p.write(`{"message_type": "any", "destination_id": "c1", "id": "y"}`, "3")
	if got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 1)); got[0] != "3" {
		t.Errorf("got %q, want 3", got)
	}
}

func TestAnEmptyBinaryIsPassedOnWithAnotherHeader(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	p := c.program(t)
	f, err := wire.AppendFrame(nil, []byte(`{"message_type": "any", "with_binary": true}`), []byte("1"), []byte{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(f); err != nil {
		t.Fatal(err)
	}
	p.write(`{"message_type": "any"}`, "2")
	if got := data(in.wait(t, 2)); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("got %q", got)
	}
	if n := s.counted("protocol violation"); n != 0 {
		t.Errorf("got %d protocol violations", n)
	}
}

func TestNothingOvertakesWhatFindsNoRoom(t *testing.T) {
	s := server(t, small(64<<10))
	c := s.native(t, "c1")
	var all []byte
	for i, size := range []int{40_000, 40_000, 10, 10, 10} {
		// Headers that differ, so that each is decided anew.
		all = append(all, frame(fmt.Sprintf(`{"message_type": "any", "source_id": "c1", "tag": "%d"}`, i), fmt.Sprint(i, " ", strings.Repeat("x", size)))...)
	}
	if _, err := c.Write(all); err != nil {
		t.Fatal(err)
	}
	refused := map[string]bool{}
	for acked := uint64(0); acked < 5; {
		h, _ := c.next()
		if string(h.Type) == "_nack" {
			refused[string(h.Raw)] = true
		}
		acked = max(acked, h.AckTo)
	}
	if n := s.inbox["any"].Len(); n != 1 {
		t.Errorf("got %d in the queue, want the first alone: %v", n, refused)
	}
}

func TestWhatWasRefusedDecidesNothingForTheNext(t *testing.T) {
	s := server(t, types("t1", "t2"), small(64<<10))
	c := s.native(t, "c1")
	const t2 = `{"message_type": "t2", "source_id": "c1"}`
	c.write(t2, strings.Repeat("x", 40_000))
	c.write(t2, strings.Repeat("x", 40_000))
	c.until("_nack")
	c.write(`{"message_type": "_parked"}`, "t2")
	c.write(`{"message_type": "t1", "source_id": "c1"}`, "good")
	const forged = `{"message_type": "t2", "source_id": "victim"}`
	c.write(forged, "forged 1")
	c.until("_nack")
	s.receive(t, api.ReceiveOptions{Types: []string{"t2"}}).wait(t, 1)
	c.until("_resume")
	c.write(forged, "forged 2")
	eventually(t, "it is dropped", func() bool { return s.counted("source_id is not that of the connection") == 1 })
	if got := data(s.receive(t, api.ReceiveOptions{Types: []string{"t1"}, Drain: true}).wait(t, 1)); !slices.Equal(got, []string{"good"}) {
		t.Errorf("got %q, want what is good", got)
	}
	if n := s.inbox["t1"].Stats().Put; n != 1 {
		t.Errorf("got %d messages put, want 1", n)
	}
}

func TestWhatWasStoppedDecidesNothingForTheNext(t *testing.T) {
	s := server(t)
	a, b := s.client(t, "a1"), s.client(t, "b1")
	ina, inb := a.receive(t, api.ReceiveOptions{}), b.receive(t, api.ReceiveOptions{})
	p := s.program(t)
	h := func(to string) string { return fmt.Sprintf(`{"message_type": "any", "destination_id": %q}`, to) }
	p.write(h("a1"), "for a")
	ina.wait(t, 1)
	eventually(t, "a has acknowledged it", func() bool { return s.box("a1", false).q.Len() == 0 })
	s.Connector.stop(0)
	p.write(h("b1"), "while stopped")
	p.until("_nack")
	if err := s.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.connected(t, "a1")
	s.connected(t, "b1")
	p.write(h("b1"), "for b")
	eventually(t, "it has arrived", func() bool { return ina.len()+inb.len() == 2 })
	if a, b := data(ina.all()), data(inb.all()); len(b) != 1 || b[0] != "for b" {
		t.Errorf("a1 got %q, b1 got %q", a, b)
	}
}

func TestAMessageInHandDoesNotStopAReceiver(t *testing.T) {
	const many = 150 // more than 1 MiB
	s := server(t)
	c := s.client(t, "c1")
	var in *sink
	ready := make(chan struct{})
	in = s.receive(t, api.ReceiveOptions{Manual: true, Window: 8, Frame: func(n uint64, _ *wire.Frame) error {
		<-ready
		if n > 1 {
			in.r.Done(n, nil)
		}
		return nil
	}})
	close(ready)
	list := numbers(0, many)
	for i := range list {
		list[i] += " " + strings.Repeat("x", 10_000)
	}
	c.send(t, "any", "", list...)
	inOrder(t, in.wait(t, many), many)
	eventually(t, "one is left", func() bool { return s.inbox["any"].Len() == 1 })
}

func TestWhatIsLeftAtTheEndIsCounted(t *testing.T) {
	t.Run("in the hand of a program", func(t *testing.T) {
		s := server(t, small(1<<20))
		c := s.client(t, "c1")
		in := s.receive(t, api.ReceiveOptions{Manual: true})
		c.send(t, "any", "", "1", "2", "3")
		in.wait(t, 3)
		c.halt(t)
		s.halt(t)
		if n := s.log.count(`type=any n=3`); n != 1 {
			t.Errorf("got %d lines that say so", n)
		}
	})
	t.Run("written by a Python program", func(t *testing.T) {
		c, _ := playedServer(t, small(64<<10))
		p := dialRaw(t, "unix", c.paths.SendSocket)
		const many = 2000
		var all []byte
		for range many {
			all = append(all, frame(`{"message_type": "any", "source_id": "x"}`, strings.Repeat("x", 100))...)
		}
		go p.Write(all)
		q := c.box("", false).q
		eventually(t, "the queue is full", func() bool { return q.Stats().Bytes > 60<<10 })
		put := q.Stats().Put
		c.Connector.stop(0)
		n := c.counted("send: stopped")
		if n == 0 || put+n > many {
			t.Errorf("got %d put and %d counted of %d", put, n, many)
		}
	})
}

func TestTheSocketOfASupervisorServesEveryStart(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := ln.(*net.TCPListener).File() // as the supervisor keeps it
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	cfg := newConfig(t)
	cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	s := run(t, cfg, ln)
	c := s.client(t, "c1")
	for range 2 {
		s.Connector.stop(0)
		s.disconnected(t, "c1")
		if err := s.start(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.connected(t, "c1")
	}
	eventually(t, "messages pass", func() bool { return c.try(t, "any", "", "x") == nil })
}
