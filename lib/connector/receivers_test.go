package connector

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/wire"
)

func TestTwoReceiversShareTheMessagesOfAType(t *testing.T) {
	const many = 2000
	s := server(t)
	c := s.client(t, "c1")
	one := s.receive(t, api.ReceiveOptions{Window: 10})
	two := s.receive(t, api.ReceiveOptions{Window: 10})
	c.send(t, "any", "", numbers(0, many)...)
	eventually(t, "all have arrived", func() bool { return one.len()+two.len() >= many })
	got := append(data(one.all()), data(two.all())...)
	for name, in := range map[string]*sink{"one": one, "two": two} {
		list := firsts(in.all())
		if len(list) == 0 || len(list) != in.len() {
			t.Errorf("%s got %d messages, %d of them different", name, in.len(), len(list))
		}
	}
	slices.Sort(got)
	want := numbers(0, many)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %d messages, want each of %d once", len(got), many)
	}
}

func TestWhatADeadReceiverHadInHandComesFirst(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	dead := dialRaw(t, "unix", s.paths.OwnSocket)
	dead.write(`{"message_type": "_ping", "await_response": true, "request_id": "aioc", "aioc": ["ackto", "flow"]}`, "")
	dead.next()
	dead.write(`{"message_type": "_consume"}`, `{"types": ["any"], "window": 7}`)
	c.send(t, "any", "", numbers(0, 20)...)
	for i := range 7 {
		if _, d := dead.message(); d != numbers(i, i+1)[0] {
			t.Fatalf("message %d: got %q", i, d)
		}
	}
	dead.write(`{"message_type": "_ack", "ackto": 2}`, "")
	for i := 7; i < 9; i++ {
		dead.message() // the window has moved
	}
	dead.Close()
	eventually(t, "all wait again", func() bool { return s.inbox["any"].Stats().Waiting == 18 })
	got := data(s.receive(t, api.ReceiveOptions{Drain: true}).wait(t, 18))
	if want := numbers(2, 20); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCountLeavesTheNextMessage(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	c.send(t, "any", "", "first", "second", "third")
	for _, want := range []string{"first", "second", "third"} {
		in := s.receive(t, api.ReceiveOptions{Count: 1})
		if err := in.ended(t); err != nil {
			t.Fatal(err)
		}
		if got := data(in.all()); !slices.Equal(got, []string{want}) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	eventually(t, "nothing is left", func() bool { return s.inbox["any"].Len() == 0 })
}

func TestCountedMessagesThatGoBackComeAgain(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	c.send(t, "any", "", "first", "second")
	tries := 0
	var in *sink
	ready := make(chan struct{})
	in = s.receive(t, api.ReceiveOptions{Count: 1, Manual: true, Frame: func(n uint64, _ *wire.Frame) error {
		<-ready
		if tries++; tries < 4 {
			in.r.Done(n, errors.New("not now"))
		} else {
			in.r.Done(n, nil)
		}
		return nil
	}})
	close(ready)
	if err := in.ended(t); err != nil {
		t.Fatal(err)
	}
	if got, want := data(in.all()), []string{"first", "first", "first", "first"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := data(s.receive(t, api.ReceiveOptions{}).wait(t, 1)); got[0] != "second" {
		t.Errorf("then got %q, want second", got)
	}
}

func TestDrainEndsWhenNothingIsLeft(t *testing.T) {
	s := server(t, types("a", "b", "c"))
	c := s.client(t, "c1", types("a", "b", "c"))
	if in := s.receive(t, api.ReceiveOptions{Drain: true}); in.ended(t) != nil || in.len() != 0 {
		t.Errorf("nothing there: got %v, %d messages", in.err, in.len())
	}
	c.send(t, "a", "", numbers(0, 1000)...)
	c.send(t, "b", "", numbers(0, 1000)...)
	c.send(t, "c", "", "left alone")
	// Sent means taken by the client's connector: the server may have none yet.
	eventually(t, "all has arrived", func() bool {
		return s.inbox["a"].Len() == 1000 && s.inbox["b"].Len() == 1000 && s.inbox["c"].Len() == 1
	})
	in := s.receive(t, api.ReceiveOptions{Drain: true, Types: []string{"a", "b"}, Window: 3})
	if err := in.ended(t); err != nil || in.len() != 2000 {
		t.Errorf("got %v, %d messages, want 2000", err, in.len())
	}
	if n := s.inbox["c"].Len(); n != 1 {
		t.Errorf("got %d of another type, want 1", n)
	}
}

func TestReceiversAreToldWhatIsWrong(t *testing.T) {
	s := server(t, types("any"))
	for _, test := range []struct {
		name  string
		types []string
		want  string
	}{
		{"an unknown type", []string{"nosuch"}, "message type nosuch is not in recv_message_types"},
		{"a known and an unknown one", []string{"any", "_x"}, "message type _x is not"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := s.receive(t, api.ReceiveOptions{Types: test.types})
			if err := in.ended(t); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAReceiverSurvivesARestartOfItsConnector(t *testing.T) {
	s := server(t)
	cfg := s.cfg
	in := s.receive(t, api.ReceiveOptions{})
	c := s.client(t, "c1")
	c.send(t, "any", "", "before")
	in.wait(t, 1)
	s.halt(t)
	s.disconnected(t, "c1")
	again := run(t, cfg, nil)
	again.connected(t, "c1")
	eventually(t, "the message is taken", func() bool { return c.try(t, "any", "", "after") == nil })
	if got := data(in.wait(t, 2)); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("got %q", got)
	}
}
