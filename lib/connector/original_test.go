package connector

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/link"
	"aioc/lib/wire"
)

// The tests in this file are of what goes wrong in the original, where no other
// test is about it.

func TestEveryTransportIDIsAcknowledged(t *testing.T) {
	// After 100000 a client of the original sends 0, which its own server does
	// not acknowledge.
	s := server(t)
	in := s.receive(t, api.ReceiveOptions{})
	p := s.peer(t, "c1")
	for i, id := range []string{`1`, `0`, `100000`, `"x"`, `-1`} {
		p.write(fmt.Sprintf(`{"message_type": "any", "source_id": "c1", "wait_for_ack": true, "transport_id": %s}`, id), fmt.Sprint(i))
		h, _ := p.message()
		if string(h.Type) != wire.TypeAck || string(h.TransportID) != id {
			t.Errorf("%s: got %s", id, h.Raw)
		}
	}
	inOrder(t, in.wait(t, 5), 5)
}

func TestIgnoredPeersOfTheConfigurationAreIgnoredFromTheStart(t *testing.T) {
	for _, test := range []struct {
		name   string
		ignore config.Ignore
		c2     bool
	}{
		{"one", config.Ignore{Peer: "c1"}, true},
		{"all", config.Ignore{All: true}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := server(t, func(cfg *config.Config) { cfg.IgnoreTraffic = test.ignore })
			in := s.receive(t, api.ReceiveOptions{})
			s.client(t, "c1").send(t, "any", "", "of c1")
			eventually(t, "it is dropped and counted", func() bool { return s.counted("traffic ignored") == 1 })
			var why *api.NotTaken
			if err := s.try(t, "any", "c1", "to c1"); !errors.As(err, &why) || why.Reason != "ignored" {
				t.Errorf("to c1: got %v", err)
			}
			s.client(t, "c2").send(t, "any", "", "of c2")
			if !test.c2 {
				eventually(t, "that of c2 too", func() bool { return s.counted("traffic ignored") == 2 })
				return
			}
			if got := in.wait(t, 1); got[0].data != "of c2" {
				t.Errorf("got %q", got[0].data)
			}
			s.send(t, "any", "c2", "to c2")
		})
	}
}

// A client that reads nothing loses its own connection; the original stops
// listening.
func TestAClientThatReadsNothingEndsItsOwnLinkOnly(t *testing.T) {
	s := server(t, func(cfg *config.Config) { cfg.SendTimeout = 300 * time.Millisecond })
	other := s.client(t, "c2")
	in := other.receive(t, api.ReceiveOptions{})
	s.peer(t, "c1") // reads nothing
	s.connected(t, "c1")
	s.send(t, "any", "c1", strings.Repeat("x", 16<<20))
	eventually(t, "its link is given up", func() bool { return s.log.count("link down peer=c1") == 1 })
	s.disconnected(t, "c1")
	s.send(t, "any", "c2", "still there")
	in.wait(t, 1)
	s.client(t, "c3")
}

// The original compares texts of addresses, and sends no keep-alive pings to a
// server that is given by its name.
func TestKeepAliveWorksWithTheNameOfAHost(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg := newConfig(t)
	cfg.IsServer, cfg.ClientName = false, "c1"
	cfg.ServerAddr = config.Addr{Host: "localhost", Port: ln.Addr().(*net.TCPAddr).Port}
	cfg.KeepAlivePeriod, cfg.KeepAliveTimeout, cfg.MaxUnansweredKeepAlive = 50*time.Millisecond, 100*time.Millisecond, 2
	c := run(t, cfg, nil)
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := wire.NewReader(conn, wire.MaxFrame)
	for pings := 0; pings < 2; {
		var f wire.Frame
		if err := r.Next(&f); err != nil {
			t.Fatalf("after %d pings: %v", pings, err)
		}
		if string(f.Header.RequestID) == `"keep_alive_client_check"` {
			pings++
		}
	}
	eventually(t, "the client gives up a server that does not answer", func() bool { return c.log.count(link.ErrKeepAlive.Error()) > 0 })
}

// The original reads the whole file when a frame holds its separator, and alters
// what it separates.
func TestDataThatLooksLikeTheOriginalsSeparatorIsKeptAsItIs(t *testing.T) {
	list := []string{"@@@PERSISTENCE_SEPARATOR@@@", "a@@@PERSISTENCE_SEPARATOR@@@b", "#@@PERSISTENCE_SEPARATOR@@#"}
	s := server(t, onDisk("any"))
	s.send(t, "any", "c1", list...)
	s.halt(t)
	s = s.again(t)
	got := data(s.client(t, "c1").receive(t, api.ReceiveOptions{}).wait(t, len(list)))
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", list) {
		t.Errorf("got %q, want %q", got, list)
	}
}

// In the original nothing is published any more while a publisher waits for a
// response, which never comes.
func TestAPublisherThatWaitsForAResponseHoldsUpNobody(t *testing.T) {
	s := server(t, isBroker)
	in := s.client(t, "c1", subscribes("a")).receive(t, api.ReceiveOptions{})
	s.subscribed(t, "a", 1)
	asks := `{"message_type": "_pubsub", "message_type_publish": "a", "source_id": "c2", "request_id": 1, "await_response": true}`
	s.program(t).Write(frame(asks, "0"))
	in.wait(t, 1)
	s.client(t, "p").program(t).Write(frame(asks, "1"))
	in.wait(t, 2)
	s.publish(t, "a", "2")
	inOrder(t, in.wait(t, 3), 3)
}

// A program may leave out or put in what the original, at the other end, would
// end the connection for, or not answer.
func TestWhatAProgramWritesIsMadeSafeForThePeer(t *testing.T) {
	s := server(t)
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	out := s.program(t)
	next := func(typ, data string) wire.Header {
		t.Helper()
		for {
			h, d := p.next()
			if string(h.Type) == typ && d == data {
				if string(h.Source) != s.ID() {
					t.Errorf("%s: not in the name of the connector: %s", data, h.Raw)
				}
				return h
			}
		}
	}
	id := regexp.MustCompile(`^"[0-9a-f]{32}"$`)
	out.write(`{"message_type": "_ping", "destination_id": "c1", "await_response": true}`, "a ping")
	if h := next(wire.TypePing, "a ping"); !id.Match(h.RequestID) {
		t.Errorf("a ping without request_id: got %s", h.Raw)
	}
	out.write(`{"message_type": "any", "destination_id": "c1", "await_response": true}`, "a request")
	if h := next("any", "a request"); !id.Match(h.RequestID) {
		t.Errorf("a request without request_id: got %s", h.Raw)
	}
	out.write(`{"message_type": "any", "destination_id": "c1", "source_id": "c2", "wait_for_ack": true, "transport_id": 0}`, "to be acknowledged")
	if h := next("any", "to be acknowledged"); string(h.TransportID) == "" || string(h.TransportID) == "0" {
		t.Errorf("transport_id: got %s", h.Raw)
	}
	out.write(`{"message_type": "any", "destination_id": "c1", "transport_id": 7}`, "plain")
	if h := next("any", "plain"); h.TransportID != nil {
		t.Errorf("transport_id of a program: got %s", h.Raw)
	}
}
