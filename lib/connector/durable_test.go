package connector

import (
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// onDisk makes types durable in both directions.
func onDisk(names ...string) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.PersistSend, cfg.PersistRecv = config.Types{Names: names}, config.Types{Names: names}
	}
}

// again runs a connector that was halted or killed once more.
func (n *node) again(t testing.TB) *node {
	t.Helper()
	if !n.cfg.IsServer {
		return run(t, n.cfg, nil)
	}
	ln, err := net.Listen("tcp4", n.cfg.ServerAddr.String())
	if err != nil {
		t.Fatal(err)
	}
	return run(t, n.cfg, ln)
}

// kill ends the connector and leaves on disk what would be there if it had been
// killed at the moment of the call.
func (n *node) kill(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	s := n.session
	n.mu.Unlock()
	s.intakes()
	s.pumps()
	s.all.Wait() // what it would acknowledge from here on must not count
	image := t.TempDir() + "/spool"
	spool := n.paths.Spool
	for range 100 { // files may go while they are copied
		os.RemoveAll(image)
		if err := os.CopyFS(image, os.DirFS(spool)); err == nil {
			break
		}
	}
	n.halt(t)
	if err := os.RemoveAll(spool); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(spool, os.DirFS(image)); err != nil {
		t.Fatal(err)
	}
}

func TestADurableMessageForAPeerThatIsAwayIsTaken(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	s.send(t, "d", "c1", numbers(0, 10)...)
	notTaken(t, s.try(t, "m", "c1", "x"), 0, "away")
	s.kill(t)
	s = s.again(t)
	s.send(t, "d", "c1", numbers(10, 20)...)
	s.halt(t)
	s = s.again(t)
	c := s.client(t, "c1", types("d", "m"), onDisk("d"))
	in := c.receive(t, api.ReceiveOptions{})
	inOrder(t, in.wait(t, 20), 20)
	eventually(t, "the server has nothing left", func() bool { return s.box("c1", false).q.Len() == 0 })
	// Nor after a start.
	s.halt(t)
	s = s.again(t)
	if b := s.box("c1", false); b != nil && b.q.Len() > 0 {
		t.Errorf("%d messages are left", b.q.Len())
	}
}

func TestWhatIsInMemoryOutlivesAStop(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	c.send(t, "any", "", numbers(0, 100)...)
	eventually(t, "they are there", func() bool { return s.inbox["any"].Len() == 100 })
	c.halt(t)
	s.halt(t)
	s = s.again(t)
	inOrder(t, s.receive(t, api.ReceiveOptions{}).wait(t, 100), 100)
	if n := s.log.count("lost"); n > 0 {
		t.Errorf("got %d lines of loss", n)
	}
}

func TestMemoryOverflowsToDisk(t *testing.T) {
	const many = 20_000
	tight := func(cfg *config.Config) { cfg.MaxMemoryPerQueue = 64 << 10 }
	s := server(t, tight)
	c := s.client(t, "c1", tight)
	c.send(t, "any", "", padded(0, many)...) // nobody receives
	eventually(t, "all are there", func() bool { return s.inbox["any"].Len() == many })
	if st := s.inbox["any"].Stats(); st.OnDisk < many/2 || st.Bytes > 64<<10 {
		t.Errorf("got %d on disk alone and %d bytes in memory", st.OnDisk, st.Bytes)
	}
	inOrder(t, s.receive(t, api.ReceiveOptions{}).wait(t, many), many)
	eventually(t, "all memory is given back", func() bool { return s.budget.Used() == 0 && c.budget.Used() == 0 })
}

// arrivals checks that a receiver that was restarted got each of n messages, in
// order, and again only what it had in hand at the end.
func checkArrivals(t *testing.T, all []message, n int) {
	t.Helper()
	next := 0
	for i, m := range all {
		got, err := strconv.Atoi(m.data)
		if err != nil || got > next {
			t.Fatalf("message %d: got %.20q, want %d", i, m.data, next)
		}
		next = max(next, got+1)
	}
	if next != n {
		t.Errorf("got %d messages, want %d", next, n)
	}
}

func TestNothingIsLostOrDoubledWhenConnectorsAreKilled(t *testing.T) {
	for _, victim := range []string{"client", "server"} {
		for _, way := range []string{"up", "down"} {
			t.Run(victim+" "+way, func(t *testing.T) {
				const rounds, some = 6, 300
				s := server(t, types("d"), onDisk("d"))
				c := s.client(t, "c1", types("d"), onDisk("d"))
				var all []message
				sent := 0
				for range rounds {
					from, to, peer := c, s, ""
					if way == "down" {
						from, to, peer = s, c, "c1"
					}
					in := to.receive(t, api.ReceiveOptions{Count: some / 2})
					if err := from.try(t, "d", peer, numbers(sent, sent+some)...); err != nil {
						t.Fatal(err)
					}
					sent += some
					if err := in.ended(t); err != nil {
						t.Fatal(err)
					}
					all = append(all, in.all()...)
					if victim == "client" {
						c.kill(t)
						s.disconnected(t, "c1")
						c = c.again(t)
					} else {
						s.kill(t)
						s = s.again(t)
					}
					s.connected(t, "c1")
				}
				to := s
				if way == "down" {
					to = c
				}
				in := to.receive(t, api.ReceiveOptions{})
				in.wait(t, sent-len(all))
				eventually(t, "nothing is left", func() bool {
					return s.inbox["d"].Len()+c.inbox["d"].Len()+s.box("c1", false).q.Len()+c.box("", false).q.Len() == 0
				})
				all = append(all, in.all()...)
				checkArrivals(t, all, sent)
				// A receiver acknowledges before it ends, but the log may have been
				// copied before that.
				if n := len(all) - sent; n > 0 {
					t.Logf("%d came twice", n)
				}
			})
		}
	}
}

func TestAnOutageOfTheServerLosesNothing(t *testing.T) {
	const many = 72_000 // 20 a second for an hour
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := newConfig(t)
	cfg.ServerAddr = config.Addr{Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}
	ln.Close()
	s := &node{cfg: cfg}
	onDisk("any")(cfg)
	c := s.lateClient(t, "c1", onDisk("any"), func(cfg *config.Config) { cfg.MaxMemoryPerQueue = 1 << 20 })
	for from := 0; from < many; from += many / 4 {
		c.send(t, "any", "", numbers(from, from+many/4)...)
		if from == many/2 {
			c.kill(t)
			c = c.again(t)
		}
	}
	if b := c.budget.Used(); b > 1<<20 {
		t.Errorf("%d bytes in memory for a server that is away", b)
	}
	s = s.again(t)
	in := s.receive(t, api.ReceiveOptions{})
	inOrder(t, in.wait(t, many), many)
	eventually(t, "nothing is left", func() bool { return s.inbox["any"].Len() == 0 && c.box("", false).q.Len() == 0 })
	if n := in.len(); n != many {
		t.Errorf("got %d messages, want %d", n, many)
	}
}

func TestALinkThatBreaksDoublesNothing(t *testing.T) {
	for _, names := range [][]string{nil, {"any"}} {
		s := server(t, onDisk(names...))
		c := s.client(t, "c1", onDisk(names...))
		in := s.receive(t, api.ReceiveOptions{})
		// Whether a break hits a message that has come and is not acknowledged is
		// chance: it is tried until one did.
		const many, most = 10_000, 50
		total := 0
		for round := 0; s.inbox["any"].Stats().Duplicates == 0; round++ {
			if round == most {
				t.Fatal("no message was sent twice: nothing was tried")
			}
			first := total
			total += many
			sent := make(chan error, 1)
			go func() { sent <- c.tryWaiting(t, "any", "", numbers(first, total)...) }()
			for in.len() < first+many*3/4 {
				old := c.box("", false).current()
				n := in.len()
				eventually(t, "some more have come", func() bool { return in.len() >= min(n+many/10, total) })
				if old != nil {
					old.l.Close(nil)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			in.wait(t, total)
		}
		inOrder(t, in.all(), total)
		eventually(t, "nothing is left", func() bool { return c.box("", false).q.Len() == 0 && s.inbox["any"].Len() == 0 })
		if n := in.len(); n != total {
			t.Errorf("got %d messages, want %d", n, total)
		}
	}
}

// tryWaiting is try with -wait.
func (n *node) tryWaiting(t testing.TB, typ, to string, data ...string) error {
	t.Helper()
	a := n.open(t)
	defer a.Close()
	s := a.Sender(api.SendOptions{Wait: true})
	defer s.Close()
	h := a.Header(typ, to)
	for _, d := range data {
		if err := s.Put(h, []byte(d), nil); err != nil {
			return err
		}
	}
	_, err := s.Finish(within(t))
	return err
}

func TestADurableMessageToAPythonPeerWaitsForItsAcknowledgement(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	s.send(t, "d", "c1", "0", "1", "2")
	for i, want := range []string{"0", "1", "2"} {
		h, d := p.message()
		if d != want || string(h.TransportID) != strconv.Itoa(i+1) {
			t.Errorf("got %q with transport_id %s, want %q with %d", d, h.TransportID, want, i+1)
		}
	}
	p.write(`{"transport_id": 1, "message_type": "_ack", "source_id": "c1"}`, "")
	eventually(t, "one is finished", func() bool { return s.box("c1", false).q.Len() == 2 })
	p.Close()
	s.disconnected(t, "c1")
	s.halt(t)
	s = s.again(t)
	p = s.peer(t, "c1")
	for _, want := range []string{"1", "2"} {
		h, d := p.message()
		if d != want {
			t.Errorf("got %q, want %q", d, want)
		}
		p.write(`{"transport_id": `+string(h.TransportID)+`, "message_type": "_ack", "source_id": "c1"}`, "")
	}
	eventually(t, "all are finished", func() bool { return s.box("c1", false).q.Len() == 0 })
}

func TestADurableMessageOfAPythonPeerIsAcknowledgedWhenItIsOnDisk(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	p := s.peer(t, "c1")
	s.connected(t, "c1")
	p.write(`{"message_type": "d", "source_id": "c1", "wait_for_ack": true, "transport_id": 7}`, "x")
	if h, _ := p.message(); string(h.Type) != wire.TypeAck || string(h.TransportID) != "7" {
		t.Errorf("got %s", h.Raw)
	}
	s.kill(t)
	s = s.again(t)
	if got := data(s.receive(t, api.ReceiveOptions{}).wait(t, 1)); !slices.Equal(got, []string{"x"}) {
		t.Errorf("got %q", got)
	}
}

// leftover writes a file as a Python connector leaves it.
func leftover(t *testing.T, file string, frames ...[]byte) {
	t.Helper()
	var text []byte
	for _, f := range frames {
		text = append(append(text, "@@@PERSISTENCE_SEPARATOR@@@"...), f...)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAPythonConnectorLeftIsTakenOver(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	s.halt(t)
	sent := s.paths.PersistenceSend("c-1") // the name of its peer is c1 there
	leftover(t, sent,
		frame(`{"message_type": "d", "source_id": "x", "destination_id": "c-1"}`, "0"),
		frame(`{"message_type": "m", "source_id": "x", "destination_id": "c-1"}`, "1"),
		frame(`{"message_type": "unknown", "source_id": "x", "destination_id": "c-1"}`, "no"),
		frame(`{"message_type": "d", "source_id": "x", "destination_id": "c-1"}`, "2"))
	received := s.paths.PersistenceRecv("d")
	leftover(t, received, frame(`{"message_type": "d", "source_id": "c2"}`, "0"), []byte("damage"),
		frame(`{"message_type": "d", "source_id": "c2"}`, "1"))
	s = s.again(t)
	if n := s.box("c-1", false).q.Len(); n != 3 {
		t.Errorf("got %d messages for the peer, want 3", n)
	}
	inOrder(t, s.receive(t, api.ReceiveOptions{}).wait(t, 2), 2)
	for _, file := range []string{sent, received} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := os.Stat(received + ".bad"); err != nil {
		t.Errorf("what was damaged is not kept: %v", err)
	}
	s.halt(t)
	s = s.again(t)
	c := s.client(t, "c-1", types("d", "m"))
	got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 3)) // types are received side by side
	if slices.Index(got, "0") > slices.Index(got, "2") || !slices.Contains(got, "1") {
		t.Errorf("got %q", got)
	}
}

func TestAnInterruptedTakeOverTakesNothingTwice(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	s.halt(t)
	file := s.paths.PersistenceRecv("d")
	var frames [][]byte
	for _, n := range numbers(0, 100) {
		frames = append(frames, frame(`{"message_type": "d", "source_id": "c2"}`, n))
	}
	leftover(t, file, frames...)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = s.again(t)
		s.kill(t)
		// As if it had been killed before it could remove the file.
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	s = s.again(t)
	eventually(t, "they are there", func() bool { return s.inbox["d"].Len() == 100 })
	inOrder(t, s.receive(t, api.ReceiveOptions{}).wait(t, 100), 100)
}

func TestACommandDiscardsWhatWaitsOnDisk(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	s.send(t, "d", "c1", numbers(0, 100)...)
	leftover(t, s.paths.PersistenceSend("c9"), frame(`{"message_type": "d"}`, "x"))
	if got, want := command(t, s, "purge", nil), `{"discarded":100,"peers":{"c1":100},"types":{}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	command(t, s, "delete_previous_persistence_remains", nil)
	if n := s.box("c1", false).q.Len(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if _, err := os.Stat(s.paths.PersistenceSend("c9")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the Python connector: %v", err)
	}
	s.send(t, "d", "c1", numbers(0, 3)...)
	s.halt(t)
	s = s.again(t)
	c := s.client(t, "c1", types("d", "m"))
	inOrder(t, c.receive(t, api.ReceiveOptions{}).wait(t, 3), 3)
}

func TestAMessageThatWasSentWithItsIDIsTakenOnce(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	c := s.client(t, "c1", types("d", "m"), onDisk("d"))
	in := s.receive(t, api.ReceiveOptions{})
	put := func(typ, id, data string) {
		t.Helper()
		a := c.open(t)
		defer a.Close()
		out := a.Sender(api.SendOptions{})
		defer out.Close()
		h := wire.AppendEdited(nil, a.Header(typ, ""), wire.Edit{Key: "id", Value: wire.AppendString(nil, id)})
		if err := out.Put(h, []byte(data), nil); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Finish(within(t)); n != 1 || err != nil {
			t.Fatalf("%d taken, %v", n, err)
		}
	}
	for range 3 {
		put("m", "a", "0")
		put("d", "a", "1")
	}
	put("d", "b", "2")
	got := in.wait(t, 3)
	inOrder(t, got, 3)
	if strings.Contains(got[0].header, `"id"`) {
		t.Errorf("the id goes on: %s", got[0].header)
	}
	c.kill(t)
	s.disconnected(t, "c1")
	c = c.again(t)
	put("d", "a", "1")
	put("d", "c", "3")
	inOrder(t, in.wait(t, 4), 4)
}

func TestAMessageIsDroppedWhenItsTimeIsOver(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	a := s.open(t)
	out := a.Sender(api.SendOptions{})
	defer out.Close()
	expires := func(in time.Duration) []byte {
		return wire.AppendEdited(nil, a.Header("d", "c1"), wire.Edit{Key: "expires", Value: strconv.AppendInt(nil, time.Now().Add(in).UnixMilli(), 10)})
	}
	for _, d := range []struct {
		in   time.Duration
		data string
	}{{-time.Second, "late"}, {time.Hour, "0"}, {time.Millisecond, "late"}, {time.Hour, "1"}} {
		if err := out.Put(expires(d.in), []byte(d.data), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := out.Taken(within(t)); n != 4 || err != nil {
		t.Fatalf("%d taken, %v", n, err)
	}
	p := s.peer(t, "c1")
	for _, want := range []string{"0", "1"} {
		h, d := p.message()
		if d != want || h.Expires != nil {
			t.Errorf("got %q with %s, want %q", d, h.Raw, want)
		}
		p.write(`{"transport_id": `+string(h.TransportID)+`, "message_type": "_ack", "source_id": "c1"}`, "")
	}
	eventually(t, "nothing is left", func() bool { return s.box("c1", false).q.Len() == 0 })
	if n := s.counted("expired"); n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
}

func TestAPeerForWhichNothingWaitsIsForgottenAtAStart(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	c := s.client(t, "c1", types("d"))
	s.send(t, "d", "c1", "0")
	s.send(t, "d", "c2", "1")
	c.receive(t, api.ReceiveOptions{}).wait(t, 1)
	eventually(t, "it is acknowledged", func() bool { return s.box("c1", false).q.Len() == 0 })
	c.halt(t)
	s.halt(t)
	s = s.again(t)
	if s.box("c1", false) != nil {
		t.Error("the peer is known still")
	}
	if _, err := os.Stat(s.paths.SpoolTo("c1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
	if n := s.box("c2", false).q.Len(); n != 1 {
		t.Errorf("%d messages wait for the other, want 1", n)
	}
}

func TestAPythonReceiverGetsWhatIsOnDisk(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	c := s.client(t, "c1", types("d"))
	c.send(t, "d", "", numbers(0, 100)...)
	eventually(t, "they are there", func() bool { return s.inbox["d"].Stats().OnDisk == 100 })
	ln, err := net.Listen("unix", s.paths.ReceiveSocket("d"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	next := 0
	for next < 200 {
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		r := wire.NewReader(conn, wire.MaxFrame)
		for next < 200 {
			var f wire.Frame
			if err := r.Next(&f); err != nil {
				break
			}
			if string(f.Data) != strconv.Itoa(next) {
				t.Fatalf("got %s, want %d", f.Data, next)
			}
			if next++; next == 100 {
				c.send(t, "d", "", numbers(100, 200)...)
			}
		}
		conn.Close()
	}
	eventually(t, "nothing is left", func() bool { return s.inbox["d"].Len() == 0 })
}

func TestDrainTakesWhatIsOnDiskAlone(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	c := s.client(t, "c1", types("d", "m"), onDisk("d"))
	next := 0
	for range 20 {
		// While nobody receives, a message of a durable type is on disk alone.
		c.send(t, "d", "", numbers(next, next+5)...)
		eventually(t, "all has arrived", func() bool { st := s.inbox["d"].Stats(); return st.Waiting == 5 && st.OnDisk == 5 })
		eventually(t, "it is safe there", func() bool { return c.box("", false).q.Len() == 0 })
		in := s.receive(t, api.ReceiveOptions{Types: []string{"m", "d"}, Drain: true})
		if err := in.ended(t); err != nil {
			t.Fatal(err)
		}
		if got, want := data(in.all()), numbers(next, next+5); !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		next += 5
	}
	if in := s.receive(t, api.ReceiveOptions{Drain: true}); in.ended(t) != nil || in.len() != 0 {
		t.Errorf("nothing is left: got %v, %d messages", in.err, in.len())
	}
}

func TestWhatCannotBeKeptIsAProblemAtBothEndsAndNoLoss(t *testing.T) {
	const many = 300
	s := server(t, types("d"), onDisk("d"), func(cfg *config.Config) { cfg.MaxPersistenceSize = 100_000 })
	c := s.client(t, "c1", types("d"), onDisk("d"))
	c.send(t, "d", "", padded(0, many)...) // nobody receives
	problem := func(n *node, want string) func() bool {
		return func() bool { return strings.Contains(strings.Join(n.problems(), "\n"), want) }
	}
	eventually(t, "the server says so", problem(s, `messages that programs here receive (type "d") cannot be kept on disk`))
	eventually(t, "the client says so", problem(c, `cannot keep messages of type "d" on its disk`))
	for _, n := range []*node{s, c} {
		if got := n.counts.snapshot(); len(got) > 0 {
			t.Errorf("%s: counted as dropped: %v", n.ID(), got)
		}
	}
	inOrder(t, s.receive(t, api.ReceiveOptions{}).wait(t, many), many)
	eventually(t, "all is well there", func() bool { return len(s.problems()) == 0 })
}
