package connector

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/wire"
)

// listener is a program that listens as those of the original do.
type listener struct {
	ln  *net.UnixListener
	got chan message
}

func listenAt(t *testing.T, path string) *listener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &listener{ln: ln, got: make(chan message, 100_000)}
}

// next returns the next message.
func (l *listener) next(t *testing.T) message {
	t.Helper()
	select {
	case m := <-l.got:
		return m
	case <-time.After(patience):
		t.Fatal("no message comes")
	}
	panic("not reached")
}

// serve takes connections and reads up to limit messages from each, 0: all.
func (l *listener) serve(limit int) {
	for {
		conn, err := l.ln.Accept()
		if err != nil {
			return
		}
		r := wire.NewReader(conn, wire.MaxFrame)
		var f wire.Frame
		for n := 0; limit == 0 || n < limit; n++ {
			if r.Next(&f) != nil {
				break
			}
			l.got <- message{string(f.Header.Raw), string(f.Data), string(f.Binary)}
		}
		conn.Close()
	}
}

func TestAPythonListenerGetsMessages(t *testing.T) {
	for _, preserve := range []bool{true, false} {
		t.Run(fmt.Sprint("preserved ", preserve), func(t *testing.T) {
			s := server(t, types("any", "other"), func(cfg *config.Config) { cfg.PreserveReceive = preserve })
			c := s.client(t, "c1", types("any", "other"))
			c.send(t, "any", "", numbers(0, 50)...) // before there is a listener
			l := listenAt(t, s.paths.ReceiveSocket("any"))
			limit := 0
			if !preserve {
				limit = 1 // it closes after each message
			}
			go l.serve(limit)
			for i := range 50 {
				if m := l.next(t); m.data != strconv.Itoa(i) {
					t.Fatalf("got %q, want %d", m.data, i)
				}
			}
			// It goes, messages wait, another comes.
			l.ln.Close()
			c.send(t, "other", "", "other")
			if preserve {
				return // the connection that is open goes on
			}
			c.send(t, "any", "", numbers(50, 100)...)
			again := listenAt(t, s.paths.ReceiveSocket("any"))
			go again.serve(limit)
			for i := 50; i < 100; i++ {
				if m := again.next(t); m.data != strconv.Itoa(i) {
					t.Fatalf("got %q, want %d", m.data, i)
				}
			}
		})
	}
}

func TestAListenerThatComesAndGoesGetsAllThatWasNotWritten(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	path := s.paths.ReceiveSocket("any")
	for round := range 3 {
		l := listenAt(t, path)
		go l.serve(0)
		list := numbers(100*round, 100*round+100)
		c.send(t, "any", "", list...)
		for _, want := range list {
			if m := l.next(t); m.data != want {
				t.Fatalf("got %q, want %q", m.data, want)
			}
		}
		l.ln.Close()
		// The connection that is open ends with the next listener's: ask
		// the pump to see it by stopping and starting.
		command(t, s, "stop", nil)
		command(t, s, "start", nil)
		s.connected(t, "c1")
		eventually(t, "the client knows", func() bool { return c.try(t, "_ping", "") == nil && c.box("", false).there() != nil })
	}
}

func TestAPythonProgramAsksAndIsAnswered(t *testing.T) {
	s := server(t)
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	ask := dialRaw(t, "unix", s.paths.SendSocket)
	ask.write(`{"message_type": "any", "source_id": "x", "destination_id": "c1", "await_response": true}`, "question")
	h, d := p.message()
	if d != "question" || len(h.RequestID) != 34 || !h.AwaitResponse {
		t.Fatalf("got %s %q, want a request_id of 32 digits", h.Raw, d)
	}
	p.write(fmt.Sprintf(`{"message_type": "any", "source_id": "c1", "response_id": %s}`, h.RequestID), "answer")
	if h, d := ask.next(); d != "answer" || string(h.Source) != "c1" {
		t.Errorf("got %s %q", h.Raw, d)
	}
	// The same connection sends on.
	ask.write(`{"message_type": "any", "source_id": "x", "destination_id": "c1"}`, "more")
	if h, d := p.message(); d != "more" || h.AwaitResponse {
		t.Errorf("got %s %q", h.Raw, d)
	}
}

func TestAProgramThatWritesAndGoesHasSent(t *testing.T) {
	const many = 200
	s := server(t, small(16<<10))
	c := s.client(t, "c1", small(16<<10))
	// The queues are soon full, and the programs do not wait for them.
	for i := range many {
		p, err := net.Dial("unix", c.paths.SendSocket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(frame(`{"message_type": "any", "source_id": "x"}`, fmt.Sprintf("%d%01000d", i, 0))); err != nil {
			t.Fatal(err)
		}
		p.Close()
	}
	l := listenAt(t, s.paths.ReceiveSocket("any"))
	go l.serve(0)
	seen := map[string]bool{}
	for range many {
		seen[l.next(t).data] = true
	}
	if len(seen) != many {
		t.Errorf("got %d different messages, want %d", len(seen), many)
	}
}
