package connector

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

const announces = `{"message_type": "_ping", "await_response": true, "request_id": "aioc", "aioc": ["ackto", "flow"], "source_id": %q}`

// program connects to the connector's own socket.
func (n *node) program(t testing.TB) *raw {
	t.Helper()
	p := dialRaw(t, "unix", n.paths.OwnSocket)
	p.write(fmt.Sprintf(announces, "program"), "")
	p.next()
	return p
}

// native connects to the server as a client of this toolkit does.
func (n *node) native(t testing.TB, name string) *raw {
	t.Helper()
	c := n.peer(t, name)
	c.write(fmt.Sprintf(announces, name), "")
	c.next()
	return c
}

// until reads until a frame of the type arrives.
func (c *raw) until(typ string) (header, data string) {
	c.t.Helper()
	for {
		if h, d := c.next(); string(h.Type) == typ {
			return string(h.Raw), d
		}
	}
}

func TestABigPingEndsNothingButItself(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	up := c.box("", false).current()
	for _, size := range []int{link.PingMax, 4 << 20} {
		_, err := c.open(t).Request(within(t), "_ping", "", []byte(strings.Repeat("x", size)), nil)
		notTaken(t, err, 0, "size")
	}
	// The longest that the program writes may be a little longer on its way.
	m, err := c.open(t).Request(within(t), "_ping", "", []byte(strings.Repeat("x", link.PingMax-1024)), nil)
	if err != nil || len(m.Data) != link.PingMax-1024 {
		t.Errorf("got %d bytes, %v", len(m.Data), err)
	}
	if c.box("", false).current() != up {
		t.Error("the link to the server has ended")
	}
	// A peer that sends one loses its own link.
	bad := s.peer(t, "bad")
	bad.write(`{"message_type": "_ping", "await_response": true, "request_id": "1", "source_id": "bad"}`, strings.Repeat("x", link.PingMax))
	bad.closed()
	eventually(t, "it is counted", func() bool { return s.counted("protocol violation") == 1 })
}

func TestPingsOfOneProgramDoNotEndTheLinkOfAPeerThatReadsNothing(t *testing.T) {
	s := server(t)
	slow := s.peer(t, "slow")
	s.connected(t, "slow")
	p := s.program(t)
	go func() { // the answers that there are
		for p.r.Next(new(wire.Frame)) == nil {
		}
	}()
	data := strings.Repeat("x", link.PingMax-1024)
	const many = 160 // more than the connection and the link hold
	for i := range many {
		p.write(fmt.Sprintf(`{"message_type": "_ping", "destination_id": "slow", "await_response": true, "request_id": "%d"}`, i), data)
	}
	s.send(t, "any", "slow", "after the pings")
	eventually(t, "some are answered without the peer", func() bool {
		s.waiters.mu.Lock()
		defer s.waiters.mu.Unlock()
		return len(s.waiters.m) < many
	})
	for {
		h, d := slow.next()
		if string(h.Type) == "any" {
			if d != "after the pings" {
				t.Errorf("got %q", d)
			}
			break
		}
	}
	if n := s.log.count("link down"); n != 0 {
		t.Errorf("got %d links down", n)
	}
}

func TestAMessageAboveTheLimitOfThePeerIsRefused(t *testing.T) {
	s := server(t, func(cfg *config.Config) { cfg.MaxMessageSize = 1 << 20 })
	c := s.client(t, "c1")
	up := c.box("", false).current()
	in := s.receive(t, api.ReceiveOptions{})
	big := strings.Repeat("x", 3<<20)
	c.send(t, "any", "", "0", big, "1")
	inOrder(t, in.wait(t, 2), 2)
	eventually(t, "both count it", func() bool {
		return s.counted("larger than max_message_size") == 1 && c.counted("refused by the peer: size") == 1
	})
	// Who asked is told.
	_, err := c.open(t).Request(within(t), "any", "", []byte(big), nil)
	if err == nil || !strings.Contains(err.Error(), "larger than max_message_size") {
		t.Errorf("a request: got %v", err)
	}
	p := dialRaw(t, "unix", c.paths.SendSocket)
	p.write(`{"message_type": "any", "await_response": true, "request_id": "r1"}`, big)
	if h, _ := p.next(); !strings.HasPrefix(string(h.Error), "refused: message of ") {
		t.Errorf("a Python program: got %s", h.Raw)
	}
	// Also of what it takes itself, on any socket.
	q := dialRaw(t, "unix", s.paths.SendSocket)
	q.write(`{"message_type": "any", "destination_id": "c1"}`, big)
	q.write(`{"message_type": "any", "destination_id": "c1"}`, "small")
	if got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 1)); got[0] != "small" {
		t.Errorf("got %.20q", got[0])
	}
	if c.box("", false).current() != up || c.waiters.any() {
		t.Error("the link has ended, or somebody waits still")
	}
}

func TestRequestsOfATypeThatThePeerDoesNotTakeAreAnswered(t *testing.T) {
	s := server(t, types("any"))
	c := s.client(t, "c1", types("any", "other"))
	_, err := c.open(t).Request(within(t), "other", "", []byte("?"), nil)
	if err == nil || !strings.Contains(err.Error(), "recv_message_types") {
		t.Errorf("got %v", err)
	}
}

func TestAResponseMustBeOneThatThePeerCanPlace(t *testing.T) {
	s := server(t, func(cfg *config.Config) {
		cfg.SendTypes, cfg.RecvTypes = []string{"any", "out"}, []string{"any"}
	})
	c := s.client(t, "c1", types("any", "out"))
	in := c.receive(t, api.ReceiveOptions{})
	for _, test := range []struct{ typ, id, reason string }{
		{"any", `{"a": 1}`, "bad"},
		{"any", `[1]`, "bad"},
		{"out", `"1"`, "type"},
		{"any", `"1"`, ""},
		{"any", `1`, ""},
	} {
		p := s.program(t)
		p.write(fmt.Sprintf(`{"message_type": %q, "destination_id": "c1", "response_id": %s}`, test.typ, test.id), "x")
		if h, _ := p.next(); test.reason == "" {
			if string(h.Type) != "_ack" {
				t.Errorf("%s %s: got %s", test.typ, test.id, h.Raw)
			}
		} else if string(h.Type) != "_nack" || string(h.Field("reason")) != `"`+test.reason+`"` {
			t.Errorf("%s %s: got %s, want %s", test.typ, test.id, h.Raw, test.reason)
		}
	}
	if got := in.wait(t, 2); len(got) != 2 {
		t.Errorf("got %d messages, want 2", len(got))
	}
}

func TestRequestsThatWaitAreBounded(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	p := c.program(t)
	var all []byte
	for i := range maxWaitersOne + 1 {
		all = append(all, frame(fmt.Sprintf(`{"message_type": "any", "await_response": true, "request_id": %d}`, i), "")...)
	}
	go p.Write(all)
	if h, _ := p.until("_nack"); !strings.Contains(h, fmt.Sprintf(`"transport_id": %d, "reason": "full"`, maxWaitersOne+1)) {
		t.Errorf("got %s, want message %d refused", h, maxWaitersOne+1)
	}
	waiting := func() int {
		c.waiters.mu.Lock()
		defer c.waiters.mu.Unlock()
		return len(c.waiters.m)
	}
	if n := waiting(); n != maxWaitersOne {
		t.Errorf("got %d that wait, want %d", n, maxWaitersOne)
	}
	// Others may ask.
	other := c.program(t)
	other.write(`{"message_type": "any", "await_response": true, "request_id": "other"}`, "")
	other.until("_ack")
	p.Close()
	eventually(t, "only the other one waits", func() bool { return waiting() == 1 })
	c.waiters.mu.Lock()
	if n := len(c.waiters.of); n != 1 {
		t.Errorf("got %d programs remembered, want 1", n)
	}
	c.waiters.mu.Unlock()
	// An id that would take much memory.
	for _, test := range []struct {
		size int
		want string
	}{{maxID - 2, "_ack"}, {maxID - 1, "_nack"}} {
		q := c.program(t)
		q.write(fmt.Sprintf(`{"message_type": "any", "await_response": true, "request_id": %q}`, strings.Repeat("i", test.size)), "")
		if h, _ := q.next(); string(h.Type) != test.want {
			t.Errorf("an id of %d bytes: got %s", test.size, h.Raw)
		}
	}
}

func TestHalvesOfBigMessagesKeepNobodyOut(t *testing.T) {
	const total = 8 << 20
	s := server(t, func(cfg *config.Config) { cfg.MaxMemoryTotal = total })
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	half := frame(`{"message_type": "any"}`, strings.Repeat("x", total-1<<20))
	half = half[:len(half)-10]
	for i := range 3 {
		bad := s.peer(t, fmt.Sprint("bad", i))
		_, _ = bad.Write(half) // the connection may be closed meanwhile
	}
	eventually(t, "the greedy ones are closed", func() bool { return s.counted("no memory for a message") == 3 })
	var patient []net.Conn
	for i := range 2 {
		bad := s.peer(t, fmt.Sprint("patient", i))
		if _, err := bad.Write(half[:1<<20]); err != nil {
			t.Fatal(err)
		}
		patient = append(patient, bad)
	}
	eventually(t, "the patient ones hold memory", func() bool { return s.reading.Load() >= 1<<20 })
	if n := s.reading.Load(); n > total/2 {
		t.Errorf("got %d bytes held by halves, want at most %d", n, total/2)
	}
	list := padded(0, 1000)
	c.send(t, "any", "", list...)
	inOrder(t, in.wait(t, len(list)), len(list))
	for _, conn := range patient {
		conn.Close()
	}
	eventually(t, "all memory is given back", func() bool { return s.budget.Used() == 0 && s.reading.Load() == 0 })
}

func TestWhatStrangersBeginKeepsNobodyElseOut(t *testing.T) {
	const total = 8 << 20
	s := server(t, func(cfg *config.Config) { cfg.MaxMemoryTotal = total })
	if !s.strangerMemory(total/4) || s.strangerMemory(1) {
		t.Errorf("strangers got %d bytes, want %d", s.strange.Load(), total/4)
	}
	if !s.memory(total / 4) {
		t.Error("others got nothing")
	}
	if s.memory(1); !s.strangerMemory(-total/4) || !s.strangerMemory(1) {
		t.Errorf("strangers get nothing back; they have %d", s.strange.Load())
	}
}

func TestWhatOnePeerBeginsKeepsNobodyElseOut(t *testing.T) {
	const total = 16 << 20
	s := server(t, func(cfg *config.Config) { cfg.MaxMemoryTotal = total })
	one, two := &peerLink{c: s.Connector}, &peerLink{c: s.Connector}
	check := func(what string, got, want bool) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %t, want %t", what, got, want)
		}
	}
	check("all that there is, alone", one.memory(total/2), true)
	check("more than that", one.memory(1), false)
	check("back", one.memory(-total/4), true)
	check("another", two.memory(total/8), true)
	check("more than half, while there is another", one.memory(1), false)
	check("the other, up to half", two.memory(total/8), true)
	check("back", two.memory(-total/4), true)
	check("alone again", one.memory(1), true)
	one.memory(-total/4 - 1)
	if one.reading != 0 || two.reading != 0 || s.reading.Load() != 0 || s.budget.Used() != 0 {
		t.Errorf("got %d, %d, %d and %d bytes at the end", one.reading, two.reading, s.reading.Load(), s.budget.Used())
	}
}

func TestABigMessageThatDoesNotGoOnEndsItsLinkOnly(t *testing.T) {
	s := server(t, func(cfg *config.Config) { cfg.SendTimeout = time.Second })
	in := s.receive(t, api.ReceiveOptions{})
	c := s.client(t, "c1")
	up := c.box("", false).current()
	begun := frame(`{"message_type": "any", "source_id": "bad"}`, strings.Repeat("x", 8<<20))
	bad := s.peer(t, "bad")
	if _, err := bad.Write(begun[:1<<20]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it holds memory", func() bool { return s.reading.Load() > 0 })
	bad.closed()
	eventually(t, "it is counted, and its memory is back", func() bool {
		return s.counted("message that does not go on") == 1 && s.reading.Load() == 0
	})
	eventually(t, "the log has a line", func() bool { return s.log.count("a big message has begun and does not go on") == 1 })
	// One whose messages are small may be silent in the middle of one.
	slow := s.peer(t, "slow")
	small := frame(`{"message_type": "any", "source_id": "slow"}`, "slow")
	if _, err := slow.Write(small[:10]); err != nil {
		t.Fatal(err)
	}
	// A stranger on this host is treated alike.
	if d := s.patience(local.Caller{UID: os.Geteuid() + 1000, GID: os.Getegid() + 1000}); d != time.Second {
		t.Errorf("strangers may be silent for %v", d)
	}
	if d := s.patience(local.Caller{UID: os.Geteuid()}); d != 0 {
		t.Errorf("the connector's user may be silent for %v only", d)
	}
	if _, err := slow.Write(small[10:]); err != nil {
		t.Fatal(err)
	}
	c.send(t, "any", "", "still there")
	in.wait(t, 2)
	if c.box("", false).current() != up {
		t.Error("the link of another peer has ended")
	}
}

func TestNamesThatProgramsMakeUpLeaveRoomForPeers(t *testing.T) {
	s := server(t, types("d", "m"), onDisk("d"))
	s.mu.Lock()
	for i := range maxBoxes/2 - 1 {
		s.boxes[fmt.Sprint("made-up", i)] = nil // only their number counts here
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		maps.DeleteFunc(s.boxes, func(_ string, b *outbox) bool { return b == nil })
		s.mu.Unlock()
	}()
	s.send(t, "d", "one", "x")
	notTaken(t, s.try(t, "d", "another", "x"), 0, "away")
	s.send(t, "d", "one", "y")
	b := s.hold("c1")
	if b == nil {
		t.Fatal("a client finds no room")
	}
	s.release(b)
}

func TestMessagesWithQuestionsAreBounded(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	p, q := s.program(t), s.program(t)
	const h = `{"message_type": "d", "destination_id": "c1", "wait_for_ack": true}`
	count := func() int {
		s.asked.mu.Lock()
		defer s.asked.mu.Unlock()
		return s.asked.n
	}
	s.asked.mu.Lock()
	s.asked.n = maxAsked - 1
	s.asked.mu.Unlock()
	p.write(h, "1")
	eventually(t, "the first is put", func() bool { b := s.box("c1", false); return b != nil && b.q.Len() == 1 })
	q.write(h, "2")
	p.write(h, "3")
	p.Close() // its question stays, as the message does
	eventually(t, "one waits", func() bool {
		s.asked.mu.Lock()
		defer s.asked.mu.Unlock()
		return s.asked.room != nil
	})
	if n := s.box("c1", false).q.Len(); n != 1 || count() != maxAsked {
		t.Errorf("got %d put and %d counted, want 1 and %d", n, count(), maxAsked)
	}
	c := s.client(t, "c1", types("d"))
	if got, _ := q.message(); got.AckTo != 1 {
		t.Errorf("got %s", got.Raw)
	}
	if got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 2)); got[0] != "1" || got[1] != "2" && got[1] != "3" {
		t.Errorf("got %q", got)
	}
	eventually(t, "all questions are answered", func() bool { return count() == maxAsked-1 })
}

func TestAStrangerHasABoundedNumberOfConnections(t *testing.T) {
	s := server(t)
	one := local.Caller{UID: os.Geteuid() + 1000, GID: os.Getegid() + 1000}
	two := local.Caller{UID: one.UID + 1, GID: one.GID}
	var leave []func()
	for i := range maxStranger {
		f, ok := s.enter(one)
		if !ok {
			t.Fatalf("connection %d is refused", i)
		}
		leave = append(leave, f)
	}
	if _, ok := s.enter(one); ok {
		t.Errorf("connection %d is let in", maxStranger)
	}
	if n := s.counted("local connection refused"); n != 1 {
		t.Errorf("got %d refusals counted, want 1", n)
	}
	f, ok := s.enter(two)
	if !ok {
		t.Error("another user is refused")
	}
	leave = append(leave, f)
	for range 2 * maxStranger {
		if _, ok := s.enter(local.Caller{UID: os.Geteuid(), GID: os.Getegid()}); !ok {
			t.Fatal("the connector's own user is refused")
		}
	}
	leave[0]()
	if f, ok = s.enter(one); !ok {
		t.Error("refused although one has left")
	}
	leave[0] = f
	for _, f := range leave {
		f()
	}
	if n := len(s.strangers); n != 0 {
		t.Errorf("got %d users remembered, want none", n)
	}
}

func TestAReceiverIsToldOnceThatNothingIsLeft(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	p := s.program(t)
	p.write(`{"message_type": "_consume"}`, `{"types": ["any"], "drain": true}`)
	var got []string
	next := func() string {
		h, _ := p.message()
		got = append(got, string(h.Type))
		return string(h.Type)
	}
	next()
	for i := range 5 {
		p.write(fmt.Sprintf(`{"message_type": "_call", "request_id": %d}`, i), `{"cmd": "nothing"}`)
		next()
	}
	c.send(t, "any", "", "x")
	next()
	p.write(`{"message_type": "_ack", "ackto": 1}`, "")
	next()
	p.write(`{"message_type": "_call", "request_id": 5}`, `{"cmd": "nothing"}`)
	next()
	want := []string{"_empty", "_call", "_call", "_call", "_call", "_call", "any", "_empty", "_call"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
