package connector

import (
	"errors"
	"net"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
)

// notTaken fails the test unless err is a *api.NotTaken for the reason, of the
// message with that index.
func notTaken(t *testing.T, err error, index int, reason string) {
	t.Helper()
	var why *api.NotTaken
	if !errors.As(err, &why) || why.Index != index || why.Reason != reason || why.Text == "" {
		t.Errorf("got %#v, want message %d not taken: %s", err, index, reason)
	}
}

func TestSendersAreToldAtOnceWhyNothingIsTaken(t *testing.T) {
	s := server(t)
	lonely := s.lateClient(t, "lonely", func(cfg *config.Config) { cfg.ServerAddr.Port = 1 })
	c := s.client(t, "c1", func(cfg *config.Config) {
		cfg.SendTypes = []string{"any"}
		cfg.MaxMessageSize = 1 << 20
	})
	for _, test := range []struct {
		name      string
		from      *node
		typ, to   string
		data      string
		reason    string
		text      string
		needsName bool
	}{
		{name: "the server is away", from: lonely, typ: "any", reason: "away", text: "is not connected"},
		{name: "the client is away", from: s, typ: "any", to: "c2", reason: "away", text: "peer c2 is not connected"},
		{name: "no name", from: s, typ: "any", reason: "name", text: "no destination_id: a server needs the name of a client"},
		{name: "a bad name", from: s, typ: "any", to: "../c1\n", reason: "name", text: "destination_id: "},
		{name: "a name that is kept", from: s, typ: "any", to: "default", reason: "name", text: "destination_id: "},
		{name: "a type", from: c, typ: "other", reason: "type", text: "message type other is not in send_message_types"},
		{name: "a reserved type", from: c, typ: "_ssl", reason: "type"},
		{name: "too big", from: c, typ: "any", data: strings.Repeat("x", 1<<20), reason: "size", text: "max_message_size"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.from.try(t, test.typ, test.to, test.data, test.data)
			if test.reason == "type" && test.typ[0] == '_' && errors.Is(err, api.ErrLost) {
				return // it is no message at all, and closes the connection
			}
			notTaken(t, err, 0, test.reason)
			if err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %q, want %q", err, test.text)
			}
		})
	}
}

func TestNothingIsTakenAfterWhatWasNot(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	cl := c.open(t)
	out := cl.Sender(api.SendOptions{})
	defer out.Close()
	h := cl.Header("any", "")
	put := 0
	next := func() error {
		err := out.Put(h, []byte(numbers(put, put+1)[0]), nil)
		put++
		return err
	}
	for range 10 {
		if err := next(); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := out.Taken(within(t)); taken != 10 || err != nil {
		t.Fatalf("got %d taken, %v", taken, err)
	}
	s.halt(t)
	eventually(t, "the server is away", func() bool { return c.box("", false).there() == nil })
	// What is sent now is refused, and also what follows when the server is
	// back: it would come before.
	var err error
	for err == nil {
		err = next()
		out.Flush()
	}
	notTaken(t, err, 10, "away")
	again := run(t, s.cfg, nil)
	again.connected(t, "c1")
	eventually(t, "the server is back", func() bool { return c.box("", false).there() != nil })
	if err := next(); err == nil {
		t.Error("a message was put after one that was not taken")
	}
	if taken, err := out.Finish(within(t)); taken != 10 {
		t.Errorf("got %d taken, %v, want 10", taken, err)
	}
	in.wait(t, 10)
	inOrder(t, firsts(in.all()), 10)
}

func TestASenderCanWaitForThePeer(t *testing.T) {
	s := server(t)
	cl := s.open(t)
	out := cl.Sender(api.SendOptions{Wait: true})
	defer out.Close()
	var list []string
	for i := range 3 {
		// The same sender waits for the same client again and again.
		more := numbers(10*i, 10*i+10)
		list = append(list, more...)
		for _, d := range more {
			if err := out.Put(cl.Header("any", "c1"), []byte(d), nil); err != nil {
				t.Fatal(err)
			}
		}
		out.Flush()
		eventually(t, "it waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.boxes["c1"] != nil
		})
		c := s.client(t, "c1")
		got := c.receive(t, api.ReceiveOptions{}).wait(t, 10)
		if got[0].data != more[0] || got[9].data != more[9] {
			t.Errorf("round %d: got %q", i, data(got))
		}
		if taken, err := out.Taken(within(t)); err != nil || taken != len(list) {
			t.Fatalf("round %d: got %d taken, %v", i, taken, err)
		}
		c.halt(t)
		s.disconnected(t, "c1")
	}
}

// A connection that the server is about to end is no peer to a sender that waits.
func TestASenderWaitsUntilTheServerHasSaidSomething(t *testing.T) {
	t.Run("a server of another mode never does", func(t *testing.T) {
		s := server(t, anonymous(t))
		c := s.lateClient(t, "c1", func(cfg *config.Config) { cfg.UseSSL = false })
		cl := c.open(t)
		out := cl.Sender(api.SendOptions{Wait: true})
		defer out.Close()
		if err := out.Put(cl.Header("any", ""), []byte(`1`), nil); err != nil {
			t.Fatal(err)
		}
		out.Flush()
		eventually(t, "many connections have come and gone", func() bool {
			return c.log.count("link ended before the server had said a word") > 0 && s.counted("peer refused: tls") >= 4
		})
		if n := c.box("", false).q.Stats().Put; n != 0 {
			t.Errorf("got %d messages taken, want none", n)
		}
		if got := c.log.count("link up"); got != 0 {
			t.Errorf("got %d links up", got)
		}
		if p := strings.Join(c.problems(), "\n"); !strings.Contains(p, "not connected to the server") {
			t.Errorf("health says %q", p)
		}
	})
	t.Run("one that keeps the connection in silence counts after a while", func(t *testing.T) {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		cfg := newConfig(t)
		cfg.IsServer, cfg.ClientName = false, "c1"
		cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
		c := run(t, cfg, nil)
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		cl := c.open(t)
		out := cl.Sender(api.SendOptions{Wait: true})
		defer out.Close()
		if err := out.Put(cl.Header("any", ""), []byte(`1`), nil); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Taken(within(t)); err != nil || n != 1 {
			t.Errorf("got %d taken, %v", n, err)
		}
	})
}

func TestAWaitingSenderThatLeavesLeavesNothing(t *testing.T) {
	s := server(t)
	cl := s.open(t)
	for range 5 {
		out := cl.Sender(api.SendOptions{Wait: true})
		if err := out.Put(cl.Header("any", "nobody"), nil, nil); err != nil {
			t.Fatal(err)
		}
		out.Flush()
		eventually(t, "it waits", func() bool { return s.box("nobody", false) != nil })
		out.Close()
		eventually(t, "it is forgotten", func() bool { return s.box("nobody", false) == nil })
	}
}

func TestAPreservedSocketOutlivesItsPeers(t *testing.T) {
	// A Python program keeps one connection for all messages; their headers are
	// all alike.
	s := server(t)
	p := dialRaw(t, "unix", s.paths.SendSocket)
	header := `{"message_type": "any", "source_id": "x", "destination_id": "c1"}`
	for range 3 {
		c := s.client(t, "c1")
		in := c.receive(t, api.ReceiveOptions{})
		p.write(header, "there")
		in.wait(t, 1)
		c.halt(t)
		s.disconnected(t, "c1")
		before := s.counted("send: away")
		p.write(header, "away")
		eventually(t, "it is dropped and counted", func() bool { return s.counted("send: away") == before+1 })
	}
}

func TestAStoppedConnectorRefuses(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	out := c.open(t)
	long := out.Sender(api.SendOptions{}) // stays connected all the time
	defer long.Close()
	command(t, c, "stop", nil)
	notTaken(t, c.try(t, "any", "", "1"), 0, "stopped")
	if err := long.Put(out.Header("any", ""), []byte("2"), nil); err != nil {
		t.Fatal(err)
	}
	_, err := long.Taken(within(t))
	notTaken(t, err, 0, "stopped")
	command(t, c, "start", nil)
	s.connected(t, "c1")
	eventually(t, "messages are taken again", func() bool { return c.try(t, "any", "", "3") == nil })
	if got := data(in.wait(t, 1)); got[0] != "3" {
		t.Errorf("got %q, want 3", got)
	}
}

// command runs a command on the commander socket.
func command(t testing.TB, n *node, name string, kwargs map[string]any) string {
	t.Helper()
	result, err := control.Call(within(t), n.cfg.Paths().CommanderSocket, name, kwargs)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(result, "error: ") {
		t.Fatalf("%s: %s", name, result)
	}
	return result
}
