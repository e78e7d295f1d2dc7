package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/wire"
)

// answer runs a receiver that answers each request with its data, doubled.
func (n *node) answer(t *testing.T, o api.ReceiveOptions) *sink {
	t.Helper()
	c := n.open(t)
	o.Frame = func(_ uint64, f *wire.Frame) error {
		req, ok := api.RequestOf(f)
		if !ok {
			return nil
		}
		return c.Respond(within(t), req, []byte(string(f.Data)+string(f.Data)), append([]byte(nil), f.Binary...))
	}
	return n.receive(t, o)
}

func TestRequestsAreAnsweredBothWays(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	s.answer(t, api.ReceiveOptions{})
	c.answer(t, api.ReceiveOptions{})
	for _, way := range []struct {
		name string
		from *node
		to   string
	}{{"up", c, ""}, {"down", s, "c1"}} {
		t.Run(way.name, func(t *testing.T) {
			cl := way.from.open(t)
			var all sync.WaitGroup
			for i := range 50 {
				all.Go(func() {
					want := fmt.Sprint(i, ".")
					got, err := cl.Request(within(t), "any", way.to, []byte(want), []byte{byte(i)})
					if err != nil || string(got.Data) != want+want || string(got.Binary) != string([]byte{byte(i)}) {
						t.Errorf("request %d: got %q, %v", i, got.Data, err)
					}
				})
			}
			all.Wait()
			got, err := cl.Request(within(t), "_ping", way.to, []byte("are you there?"), nil)
			if err != nil || string(got.Data) != "are you there?" {
				t.Errorf("ping: got %q, %v", got.Data, err)
			}
		})
	}
	if n := len(s.waiters.m) + len(c.waiters.m); n != 0 {
		t.Errorf("got %d still waiting", n)
	}
}

func TestARequestEndsWithItsTime(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	ctx, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	cl := c.open(t)
	if _, err := cl.Request(ctx, "any", "", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	cl.Close()
	eventually(t, "the request is forgotten", func() bool { return !c.waiters.any() })
	// The response comes, and somebody else may want it.
	in := c.receive(t, api.ReceiveOptions{})
	s.answer(t, api.ReceiveOptions{})
	got := in.wait(t, 1)
	if !strings.Contains(got[0].header, "response_id") {
		t.Errorf("got %q", got[0].header)
	}
}

func TestRequestsToAnAbsentPeerFailAtOnce(t *testing.T) {
	s := server(t)
	for _, typ := range []string{"any", "_ping"} {
		_, err := s.open(t).Request(within(t), typ, "nobody", nil, nil)
		notTaken(t, err, 0, "away")
	}
	// A Python program is told by the end of the connection.
	p := dialRaw(t, "unix", s.paths.SendSocket)
	p.write(`{"message_type": "any", "source_id": "x", "destination_id": "nobody", "await_response": true, "request_id": 1}`, "")
	p.closed()
}

func TestOnlyTheRequestsToThePeerThatWentFail(t *testing.T) {
	s := server(t)
	gone, stays := s.client(t, "gone"), s.client(t, "stays")
	stayed := stays.receive(t, api.ReceiveOptions{}) // does not answer
	python := dialRaw(t, "unix", s.paths.SendSocket)
	python.write(`{"message_type": "any", "source_id": "x", "destination_id": "gone", "await_response": true, "request_id": "r1"}`, "")
	got := make(chan error, 1)
	go func() {
		_, err := s.open(t).Request(within(t), "any", "gone", nil, nil)
		got <- err
	}()
	answered := make(chan error, 1)
	go func() {
		m, err := s.open(t).Request(within(t), "any", "stays", []byte("still"), nil)
		if err == nil && string(m.Data) != "stillstill" {
			err = fmt.Errorf("got %q", m.Data)
		}
		answered <- err
	}()
	eventually(t, "all wait", func() bool {
		s.waiters.mu.Lock()
		defer s.waiters.mu.Unlock()
		return len(s.waiters.m) == 3
	})
	gone.halt(t)
	if err := <-got; !errors.Is(err, api.ErrNoAnswer) {
		t.Errorf("got %v, want %v", err, api.ErrNoAnswer)
	}
	h, d := python.next()
	var keys map[string]any
	if err := json.Unmarshal(h.Raw, &keys); err != nil || len(keys) != 1 || keys["error"] != "disconnected_during_wait" || d != "{}" {
		t.Errorf("a Python program got %s %q", h.Raw, d)
	}
	select {
	case err := <-answered:
		t.Errorf("the other request: got %v", err)
	default:
	}
	c := stays.open(t)
	eventually(t, "the request is there", func() bool { return stayed.len() == 1 })
	var header wire.Header
	if err := header.Parse([]byte(stayed.all()[0].header)); err != nil {
		t.Fatal(err)
	}
	req, _ := api.RequestOf(&wire.Frame{Header: &header})
	if err := c.Respond(within(t), req, []byte("stillstill"), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestARequestOfOneProgramIsNotAnsweredToAnother(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := c.receive(t, api.ReceiveOptions{}) // does not answer by itself
	const ask = `{"message_type": "any", "destination_id": "c1", "await_response": true, "request_id": "r1"}`
	answer := func(data string) {
		t.Helper()
		if err := c.open(t).Respond(within(t), api.Request{Type: "any", RequestID: []byte(`"r1"`)}, []byte(data), nil); err != nil {
			t.Fatal(err)
		}
	}
	first := s.program(t)
	first.write(ask, "1")
	first.until("_ack")
	second := s.program(t)
	second.write(ask, "2")
	if h, _ := second.until("_nack"); !strings.Contains(h, `"reason": "full"`) || !strings.Contains(h, "request_id") {
		t.Errorf("the second one got %s", h)
	}
	python := dialRaw(t, "unix", s.paths.SendSocket)
	python.write(ask, "3")
	python.closed()
	if n := s.counted("request refused"); n != 2 {
		t.Errorf("got %d refusals counted, want 2", n)
	}
	in.wait(t, 1)
	answer("for the first")
	if _, d := first.until("any"); d != "for the first" {
		t.Errorf("the first one got %q", d)
	}
	// Now the id is free, and when its owner has left too.
	second.write(`{"message_type": "_parked"}`, "any")
	second.until("_resume")
	second.write(ask, "4")
	second.until("_ack")
	second.Close()
	third := s.program(t)
	third.write(ask, "5")
	third.until("_ack")
	answer("for the third")
	if _, d := third.until("any"); d != "for the third" {
		t.Errorf("the third one got %q", d)
	}
	if got, want := data(in.wait(t, 3)), []string{"1", "4", "5"}; !slices.Equal(got, want) {
		t.Errorf("the peer got %q, want %q", got, want)
	}
}

func TestResponsesKeepTheTypeOfTheirID(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	p := dialRaw(t, "unix", s.paths.SendSocket)
	in := s.receive(t, api.ReceiveOptions{})
	p.write(`{"message_type": "any", "source_id": "x", "destination_id": "c1", "await_response": true, "request_id": 1}`, "")
	eventually(t, "it waits", s.waiters.any)
	cl := c.open(t)
	other := api.Request{Type: "any", RequestID: []byte(`"1"`)}
	right := api.Request{Type: "any", RequestID: []byte(`1`)}
	for _, r := range []struct {
		req  api.Request
		data string
	}{{other, "for listeners"}, {right, "for the program"}, {right, "for listeners too"}} {
		if err := cl.Respond(within(t), r.req, []byte(r.data), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, d := p.next(); d != "for the program" {
		t.Errorf("got %q", d)
	}
	if got, want := data(in.wait(t, 2)), []string{"for listeners", "for listeners too"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAcknowledgementsOfThePeerAreWaitedFor(t *testing.T) {
	for _, down := range []bool{false, true} {
		t.Run(map[bool]string{false: "up", true: "down"}[down], func(t *testing.T) {
			s := server(t, small(16<<10))
			c := s.client(t, "c1", small(16<<10))
			from, to, peer := c, s, ""
			if down {
				from, to, peer = s, c, "c1"
			}
			cl := from.open(t)
			out := cl.Sender(api.SendOptions{})
			defer out.Close()
			h := wire.AppendEdited(nil, cl.Header("any", peer), wire.Edit{Key: "wait_for_ack", Value: []byte("true")})
			big := strings.Repeat("x", 10<<10)
			// The first fits into the far queue, the second must wait there.
			for _, d := range []string{"0 " + big, "1 " + big} {
				if err := out.Put(h, []byte(d), nil); err != nil {
					t.Fatal(err)
				}
			}
			short, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
			defer cancel()
			if taken, err := out.Taken(short); taken != 1 || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %d taken, %v, want 1 and a timeout", taken, err)
			}
			// The connection breaks meanwhile.
			s.box("c1", false).current().l.Close(nil)
			in := to.receive(t, api.ReceiveOptions{})
			if taken, err := out.Taken(within(t)); taken != 2 || err != nil {
				t.Errorf("got %d taken, %v, want 2", taken, err)
			}
			eventually(t, "both have arrived", func() bool { return len(firsts(in.all())) == 2 })
			inOrder(t, firsts(in.all()), 2)
		})
	}
}

func TestAPythonPeerIsAskedToAcknowledge(t *testing.T) {
	s := server(t)
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	cl := s.open(t)
	out := cl.Sender(api.SendOptions{})
	defer out.Close()
	h := wire.AppendEdited(nil, cl.Header("any", "c1"), wire.Edit{Key: "wait_for_ack", Value: []byte("true")})
	if err := out.Put(h, []byte("1"), nil); err != nil {
		t.Fatal(err)
	}
	out.Flush()
	got, d := p.message()
	if d != "1" || got.TransportID == nil || !got.WaitForAck {
		t.Fatalf("got %s %q", got.Raw, d)
	}
	short, cancel := context.WithTimeout(within(t), 100*time.Millisecond)
	defer cancel()
	if taken, err := out.Taken(short); taken != 0 || err == nil {
		t.Errorf("got %d taken, %v before the acknowledgement", taken, err)
	}
	// It goes without having said so, and gets the message once more.
	p.Close()
	s.disconnected(t, "c1")
	p = s.peer(t, "c1")
	got, d = p.message()
	if d != "1" || got.TransportID == nil {
		t.Fatalf("the second time: got %s %q", got.Raw, d)
	}
	p.write(fmt.Sprintf(`{"transport_id": %s, "message_type": "_ack", "source_id": "c1"}`, got.TransportID), "")
	if taken, err := out.Taken(within(t)); taken != 1 || err != nil {
		t.Errorf("got %d taken, %v, want 1", taken, err)
	}
}
