package connector

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"aioc/lib/api"
)

func TestAReceiverThatComesLatePushesBackToTheSender(t *testing.T) {
	const limit = 256 << 10
	const many, size = 3000, 1 << 10
	s := server(t, types("any", "other"), small(limit))
	c := s.client(t, "c1", types("any", "other"), small(limit))
	for _, way := range []struct {
		name     string
		from, to *node
		peer     string
	}{{"up", c, s, ""}, {"down", s, c, "c1"}} {
		t.Run(way.name, func(t *testing.T) {
			list := padded(0, many)
			sent := make(chan error, 1)
			go func() { sent <- way.from.try(t, "any", way.peer, list...) }()
			far, near := way.to.inbox["any"], way.from.box(way.peer, false).q
			// The sender goes on when half of the near queue is free.
			full := func() bool {
				return far.Stats().Bytes > limit-2*size && near.Stats().Bytes > limit/2
			}
			eventually(t, "both queues are full", full)
			if f, n := far.Stats().Bytes, near.Stats().Bytes; f > limit || n > limit {
				t.Errorf("got %d and %d bytes waiting, want at most %d", n, f, limit)
			}
			// Another type passes, also after the first one has been parked.
			other := way.to.receive(t, api.ReceiveOptions{Types: []string{"other"}})
			way.from.send(t, "other", way.peer, numbers(0, 100)...)
			inOrder(t, other.wait(t, 100), 100)
			other.stop()
			if !full() {
				t.Error("the queues are not full any more")
			}
			select {
			case err := <-sent:
				t.Fatalf("everything was taken: %v", err)
			default:
			}

			// A receiver that takes some and goes, then one that stays.
			first := way.to.receive(t, api.ReceiveOptions{Types: []string{"any"}, Count: 100})
			if err := first.ended(t); err != nil {
				t.Fatal(err)
			}
			second := way.to.receive(t, api.ReceiveOptions{Types: []string{"any"}})
			second.wait(t, many-100)
			if err := <-sent; err != nil {
				t.Error(err)
			}
			eventually(t, "nothing is left", func() bool { return far.Len() == 0 && near.Len() == 0 })
			second.stop()
			second.ended(t)
			inOrder(t, append(first.all(), second.all()...), many)
		})
	}
	for _, n := range []*node{s, c} {
		eventually(t, "all memory is given back", func() bool { return n.budget.Used() == 0 })
	}
}

func TestAReceiverThatDoesNotReadHoldsLittle(t *testing.T) {
	const limit = 256 << 10
	s := server(t, small(limit))
	c := s.client(t, "c1", small(limit))
	hold := make(chan struct{})
	in := s.receive(t, api.ReceiveOptions{Flush: func() error { <-hold; return nil }})
	list := padded(0, 20_000)
	sent := make(chan error, 1)
	go func() { sent <- c.try(t, "any", "", list...) }()
	eventually(t, "all is full", func() bool {
		return s.inbox["any"].Stats().Bytes > limit-4096 && c.box("", false).q.Stats().Bytes > limit/2
	})
	if n := in.len(); n > 1000 {
		t.Errorf("got %d messages in the hand of one who does not read on", n)
	}
	close(hold)
	inOrder(t, in.wait(t, len(list)), len(list))
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestWhatWaitsAtAReconnectionIsNotDropped(t *testing.T) {
	// The queue of the type is full at the receiving end when the connection
	// is new and nothing is known of the other end.
	// They fill the far queue, and no more than half of the near one: a sender that
	// found that full waits until it is half empty.
	const limit, many = 64 << 10, 80
	for _, down := range []bool{false, true} {
		name := map[bool]string{false: "up", true: "down"}[down]
		t.Run(name, func(t *testing.T) {
			s := server(t, small(limit))
			c := s.client(t, "c1", small(limit))
			from, to, peer := c, s, ""
			if down {
				from, to, peer = s, c, "c1"
			}
			list := padded(0, many)
			sent := make(chan error, 1)
			go func() { sent <- from.try(t, "any", peer, list...) }()
			eventually(t, "the far queue is full", func() bool { return to.inbox["any"].Stats().Bytes > limit-4096 })
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			for range 5 {
				old := s.box("c1", false).current()
				old.l.Close(nil)
				eventually(t, "connected again", func() bool {
					b := s.box("c1", false)
					return b != nil && b.current() != nil && b.current() != old && c.box("", false).there() != nil
				})
			}
			in := to.receive(t, api.ReceiveOptions{})
			seen := 0
			eventually(t, "all have arrived", func() bool {
				seen = len(firsts(in.all()))
				return seen == many
			})
			inOrder(t, firsts(in.all()), many)
			for _, n := range []*node{s, c} {
				if strings.Contains(n.log.String(), "dropped") {
					t.Errorf("%s dropped something", n.ID())
				}
			}
		})
	}
}

// firsts returns the first appearance of each message, by its number.
func firsts(all []message) (list []message) {
	seen := map[string]bool{}
	for _, m := range all {
		if number, _, _ := strings.Cut(m.data, " "); !seen[number] {
			seen[number] = true
			list = append(list, m)
		}
	}
	return list
}

// heap returns the bytes in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestAQueueThatStaysFullKeepsNothingOfLinksThatHaveEnded(t *testing.T) {
	const limit, many = 64 << 10, 20
	s := server(t, small(limit))
	filler := s.native(t, "filler")
	for _, d := range padded(0, 100) {
		filler.write(`{"message_type": "any", "source_id": "filler"}`, d)
	}
	filler.until("_nack")
	var gone atomic.Int32
	for i := range many {
		name := fmt.Sprint("c", i)
		p := s.native(t, name)
		runtime.AddCleanup(s.box(name, false).current(), func(struct{}) { gone.Add(1) }, struct{}{})
		for _, d := range padded(0, 3) {
			p.write(fmt.Sprintf(`{"message_type": "any", "source_id": %q}`, name), d)
		}
		p.until("_nack")
		p.Close()
		s.disconnected(t, name)
	}
	eventually(t, "what was kept for most is free", func() bool {
		runtime.GC()
		return gone.Load() >= many*8/10
	})
	if n := s.inbox["any"].Len(); n == 0 {
		t.Error("the queue is empty")
	}
}
