package connector

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// bothModes runs a test without TLS and with it.
func bothModes(t *testing.T, f func(t *testing.T, edits ...func(*config.Config))) {
	t.Run("plain", func(t *testing.T) { f(t) })
	t.Run("TLS", func(t *testing.T) { f(t, anonymous(t)) })
}

func TestContentsArriveExactlyBothWays(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	cases := []struct {
		name, more string // JSON fields
		data, bin  []byte
	}{
		{name: "nothing"},
		{name: "text", data: []byte(`{"a": "\u00e9 é"}`)},
		{name: "every byte", data: every},
		{name: "a binary", more: `, "with_binary": true`, data: []byte("x"), bin: every},
		{name: "a binary without data", more: `, "with_binary": true`, bin: []byte{0}},
		{name: "1 MiB", more: `, "with_binary": true`, data: bytes.Repeat(every, 4096), bin: bytes.Repeat(every[1:], 4096)},
		{name: "a number as response_id that nobody waits for", more: `, "response_id": 0`},
		{name: "request_id 0", more: `, "request_id": 0, "tag": "a-b_c:1"`},
		{name: "request_id as text", more: `, "request_id": "7\u00e9"`},
		{name: "a big number", more: `, "request_id": 123456789012345678901234567890`},
		{name: "unknown keys", more: `, "x": {"y": [1, 2.50, null, "\ud83d\ude00"]}`},
	}
	bothModes(t, func(t *testing.T, edits ...func(*config.Config)) {
		s := server(t, edits...)
		c := s.client(t, "c1", edits...)
		for _, way := range []struct {
			name     string
			from, to *node
			peer     string
		}{{"up", c, s, ""}, {"down", s, c, "c1"}} {
			t.Run(way.name, func(t *testing.T) {
				in := way.to.receive(t, api.ReceiveOptions{})
				cl := way.from.open(t)
				out := cl.Sender(api.SendOptions{})
				var want []message
				for _, m := range cases {
					h := cl.Header("any", way.peer)
					h = append(h[:len(h)-1], m.more+"}"...)
					if err := out.Put(h, m.data, m.bin); err != nil {
						t.Fatalf("%s: %v", m.name, err)
					}
					want = append(want, message{string(h), string(m.data), string(m.bin)})
				}
				if _, err := out.Finish(within(t)); err != nil {
					t.Fatal(err)
				}
				got := in.wait(t, len(want))
				for i := range want {
					if got[i] != want[i] {
						t.Errorf("%s: got %.200q, %d and %d bytes, want %.200q, %d and %d bytes", cases[i].name,
							got[i].header, len(got[i].data), len(got[i].bin), want[i].header, len(want[i].data), len(want[i].bin))
					}
				}
			})
		}
	})
}

func TestAConnectorSpeaksInItsOwnName(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	p := dialRaw(t, "unix", c.paths.SendSocket)
	p.write(`{"message_type": "any", "source_id": "somebody", "destination_id": "elsewhere"}`, "1")
	p.write(`{"message_type": "any"}`, "2")
	for _, m := range in.wait(t, 2) {
		var h wire.Header
		if err := h.Parse([]byte(m.header)); err != nil {
			t.Fatal(err)
		}
		if got, want := string(h.Source)+" to "+string(h.Dest), "c1 to "+c.cfg.PeerID(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestOrderOfManyMessagesIsKept(t *testing.T) {
	const many = 100_000
	bothModes(t, func(t *testing.T, edits ...func(*config.Config)) {
		s := server(t, edits...)
		c := s.client(t, "c1", edits...)
		up, down := s.receive(t, api.ReceiveOptions{}), c.receive(t, api.ReceiveOptions{})
		list := numbers(0, many/2) // both ways at once
		sent := make(chan error, 1)
		go func() { sent <- c.try(t, "any", "", list...) }()
		s.send(t, "any", "c1", list...)
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		inOrder(t, up.wait(t, many/2), many/2)
		inOrder(t, down.wait(t, many/2), many/2)
	})
}

func TestTypesDoNotBlockEachOther(t *testing.T) {
	s := server(t, types("slow", "quick"), small(64<<10))
	c := s.client(t, "c1", types("slow", "quick"), small(64<<10))
	full := make(chan error, 1)
	go func() { full <- c.try(t, "slow", "", padded(0, 1000)...) }()
	eventually(t, "the slow type is full at both ends", func() bool {
		return s.inbox["slow"].Len() > 50 && c.box("", false).q.Len() > 50
	})
	in := s.receive(t, api.ReceiveOptions{Types: []string{"quick"}})
	c.send(t, "quick", "", numbers(0, 1000)...)
	inOrder(t, in.wait(t, 1000), 1000)
	inOrder(t, s.receive(t, api.ReceiveOptions{Types: []string{"slow"}}).wait(t, 1000), 1000)
	if err := <-full; err != nil {
		t.Error(err)
	}
}

// padded is numbers with 1 KiB each.
func padded(from, to int) []string {
	list := numbers(from, to)
	for i := range list {
		list[i] += " " + strings.Repeat("x", 1<<10)
	}
	return list
}

func TestSmallerPrioritiesGoFirst(t *testing.T) {
	// Messages wait for a peer that comes late, so all are there to choose from.
	s := server(t, types("low", "high", "plain"), func(cfg *config.Config) {
		cfg.Priorities = map[string]int{"low": 5, "high": -1}
	})
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	p.write(`{"message_type": "_ack", "source_id": "c1"}`, "") // says that it speaks nothing else
	eventually(t, "that is known", func() bool { return s.box("c1", false).current().greeted.Load() })
	// The first messages fill the connection, since the peer does not read.
	stuck := strings.Repeat("x", 16<<20)
	s.send(t, "low", "c1", stuck)
	eventually(t, "it is on its way", func() bool { return s.box("c1", false).q.Stats().InHand == 1 })
	for i := range 3 {
		for _, typ := range []string{"low", "plain", "high"} {
			s.send(t, typ, "c1", typ+strconv.Itoa(i))
		}
	}
	var got []string
	for len(got) < 10 {
		_, d := p.message()
		got = append(got, d[:min(len(d), 8)])
	}
	want := []string{stuck[:8], "high0", "high1", "high2", "plain0", "plain1", "plain2", "low0", "low1", "low2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPeersAreKeptApart(t *testing.T) {
	s := server(t)
	var sinks []*sink
	for i := range 5 {
		c := s.client(t, fmt.Sprint("c", i))
		sinks = append(sinks, c.receive(t, api.ReceiveOptions{}))
	}
	for i := range sinks {
		s.send(t, "any", fmt.Sprint("c", i), fmt.Sprint("for ", i))
	}
	for i, in := range sinks {
		if got := data(in.wait(t, 1)); !slices.Equal(got, []string{fmt.Sprint("for ", i)}) {
			t.Errorf("c%d got %q", i, got)
		}
	}
}
