package connector

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// isBroker makes a server forward publications.
func isBroker(cfg *config.Config) { cfg.Broker = true }

// subscribes sets what a client subscribes to.
func subscribes(topics ...string) func(*config.Config) {
	return func(cfg *config.Config) { cfg.RecvTypes, cfg.SubscribeTypes = topics, topics }
}

// publish publishes messages, one for each data, and waits until they are taken.
func (n *node) publish(t testing.TB, topic string, data ...string) {
	t.Helper()
	if err := n.tryPublish(t, topic, data...); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// tryPublish is publish, and returns why a message was not taken.
func (n *node) tryPublish(t testing.TB, topic string, data ...string) error {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	for i, d := range data {
		h := fmt.Appendf(nil, `{"message_type": "_pubsub", "source_id": "x", "request_id": %d, "message_type_publish": %q, "tag": "t"}`, i%3, topic)
		if err := s.Put(h, []byte(d), nil); err != nil {
			return err
		}
	}
	_, err := s.Finish(within(t))
	return err
}

// subscribed waits until the broker knows the subscribers of a topic.
func (n *node) subscribed(t testing.TB, topic string, clients int) {
	t.Helper()
	eventually(t, fmt.Sprint(clients, " subscribe to ", topic), func() bool { return len(n.table.Subscribers(topic)) == clients })
}

func TestPublicationsReachAllSubscribersOnceAndInOrder(t *testing.T) {
	s := server(t, isBroker)
	both := s.client(t, "c1", subscribes("a", "b"))
	one := s.client(t, "c2", subscribes("a"))
	s.client(t, "c3", subscribes("c"))
	publisher := s.client(t, "p1")
	s.subscribed(t, "a", 2)
	publisher.publish(t, "a", numbers(0, 3000)...)
	publisher.publish(t, "b", "only c1")
	publisher.publish(t, "nobody", "lost")
	inOrder(t, both.receive(t, api.ReceiveOptions{Types: []string{"a"}}).wait(t, 3000), 3000)
	got := one.receive(t, api.ReceiveOptions{Types: []string{"a"}}).wait(t, 3000)
	inOrder(t, got, 3000)
	want := fmt.Sprintf(`{"message_type": "a", "source_id": %q, "request_id": 1, "tag": "t"}`, s.ID())
	if got[1].header != want {
		t.Errorf("got  %s\nwant %s", got[1].header, want)
	}
	if got := data(both.receive(t, api.ReceiveOptions{Types: []string{"b"}}).wait(t, 1)); got[0] != "only c1" {
		t.Errorf("got %q", got)
	}
}

func TestTheBrokersOwnProgramsPublish(t *testing.T) {
	s := server(t, isBroker)
	c := s.client(t, "c1", subscribes("a"))
	s.subscribed(t, "a", 1)
	s.publish(t, "a", "here", "and here")
	if got := data(c.receive(t, api.ReceiveOptions{}).wait(t, 2)); !slices.Equal(got, []string{"here", "and here"}) {
		t.Errorf("got %q", got)
	}
}

func TestPublishingIsRefusedWithoutBroker(t *testing.T) {
	s := server(t)
	for _, n := range []*node{s, s.client(t, "c1")} {
		c := n.open(t)
		sender := c.Sender(api.SendOptions{})
		err := sender.Put([]byte(`{"message_type": "_pubsub", "source_id": "x", "message_type_publish": "a", "wait_for_ack": true}`), nil, nil)
		if err == nil {
			_, err = sender.Finish(within(t))
		}
		sender.Close()
		if err == nil {
			t.Errorf("%s: taken", n.ID())
		}
	}
	if n := s.counted("message type not in recv_message_types"); n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	s.client(t, "c2", subscribes("a"))
	eventually(t, "the subscription is refused", func() bool { return s.counted("subscription refused") >= 1 })
	if n := s.counted("subscription refused"); n != 1 {
		t.Errorf("counted %d refused, want 1: who wants nothing is not refused", n)
	}
}

func TestASubscriberThatComesBackIsServedOnce(t *testing.T) {
	s := server(t, isBroker)
	// As a client of the original does: it subscribes at each connection, and never unsubscribes.
	subscriber := func() *raw {
		c := s.peer(t, "old")
		c.write(`{"message_type": "_pubsub", "source_id": "old"}`, `{"subscribe_message_types": ["a"]}`)
		c.write(`{"message_type": "_ping", "source_id": "old", "await_response": true, "request_id": 1}`, "")
		c.until("_ping") // what came before it has been read
		s.subscribed(t, "a", 1)
		return c
	}
	for range 3 {
		c := subscriber()
		s.publish(t, "a", "one")
		if h, d := c.message(); string(h.Type) != "a" || d != "one" {
			t.Fatalf("got %s, %q", h.Raw, d)
		}
		s.publish(t, "a", "two")
		if _, d := c.message(); d != "two" {
			t.Fatalf("got %q, want two", d)
		}
	}
	subscriber().Close()
	s.subscribed(t, "a", 0)
}

func TestNonsenseSubscriptionsEndNothing(t *testing.T) {
	s := server(t, isBroker)
	c := s.peer(t, "c1")
	for _, text := range []string{"", "{}", "[1]", `{"subscribe_message_types": 7}`, `{"subscribe_message_types": ["../x"]}`, "\x00\xff"} {
		c.write(`{"message_type": "_pubsub", "source_id": "c1"}`, text)
	}
	c.write(`{"message_type": "_pubsub", "source_id": "c1", "message_type_publish": "../x"}`, "")
	c.write(`{"message_type": "_pubsub", "source_id": "victim"}`, `{"subscribe_message_types": ["a"]}`)
	c.write(`{"message_type": "_pubsub", "source_id": "c1"}`, `{"subscribe_message_types": ["a"]}`)
	s.subscribed(t, "a", 1)
	if got := s.table.Subscribers("a"); got[0] != "c1" {
		t.Errorf("got %q, want c1", got)
	}
	if n := s.counted("subscription refused"); n != 6 {
		t.Errorf("counted %d refused, want 6", n)
	}
	// Keys that the original would stumble over.
	c.write(`{"message_type": "_pubsub", "source_id": "c1", "message_type_publish": "a", "data": 1, "error": 2, "transport_id": 7}`, "x")
	seen := map[string]bool{}
	for range 2 {
		h, _ := c.message()
		seen[string(h.Type)] = true
	}
	if !seen["_ack"] || !seen["a"] {
		t.Errorf("got %v, want the acknowledgement and the publication", seen)
	}
}

func TestTheEndOfALinkDoesNotTakeTheSubscriptionsOfTheNext(t *testing.T) {
	s := server(t, isBroker)
	c := s.client(t, "c1", subscribes("a"))
	s.subscribed(t, "a", 1)
	in := s.receive(t, api.ReceiveOptions{})
	c.send(t, "any", "", "after the subscription")
	in.wait(t, 1) // so the server is done with what came before, and saves nothing more
	old := s.box("c1", false).current()
	s.saving.Lock() // as if the disk were slow: the end of the link waits here
	c.box("", false).current().l.Close(nil)
	s.subscribed(t, "a", 0)
	if s.box("c1", false).current() != old {
		t.Error("another link may come before the subscriptions of the last one have ended")
	}
	s.saving.Unlock()
	s.subscribed(t, "a", 1)
}

func TestSubscriptionsChangeWhileRunning(t *testing.T) {
	s := server(t, isBroker)
	c := s.client(t, "c1", types("a", "b"), func(cfg *config.Config) { cfg.SubscribeTypes = []string{"a"} })
	s.subscribed(t, "a", 1)
	call := func(name, kwargs, want string) {
		t.Helper()
		got, err := c.commands.Call(within(t), name, []byte(kwargs))
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, %v, want %s", name, got, err, want)
		}
	}
	call("show_subscribe_message_types", "{}", "[a]")
	call("set_subscribe_message_types", `{"message_types": ["b", "b", "unknown"]}`, "[b]")
	s.subscribed(t, "a", 0)
	s.subscribed(t, "b", 1)
	old := c.box("", false).current()
	old.l.Close(nil)
	eventually(t, "it is back and knows", func() bool {
		l := c.box("", false).current()
		return l != nil && l != old && l.greeted.Load() && slices.Equal(s.table.Subscribers("b"), []string{"c1"})
	})
	s.publish(t, "b", "still")
	if got := data(c.receive(t, api.ReceiveOptions{Types: []string{"b"}}).wait(t, 1)); got[0] != "still" {
		t.Errorf("got %q", got)
	}
	call("set_subscribe_message_types", `{"message_types": []}`, "[]")
	s.subscribed(t, "b", 0)
	for _, n := range []*node{s, c} {
		if got := command(t, n, "show_subscribe_message_types", nil); got != "{}" {
			t.Errorf("no types on the commander socket: got %s, want what the original says", got)
		}
		if got, err := ask(t, n, "show_subscribe_message_types", nil); err != nil || got != "[]" {
			t.Errorf("no types as JSON: got %s, %v", got, err)
		}
	}
	if _, err := c.commands.Call(within(t), "set_subscribe_message_types", []byte(`{"message_types": ["_ack"]}`)); err == nil {
		t.Error("a reserved type: no error")
	}
}

func TestATopicThatIsNotReceivedIsRefused(t *testing.T) {
	s := server(t, isBroker)
	c := s.client(t, "c1", types("a", "b"), func(cfg *config.Config) { cfg.SubscribeTypes = []string{"a"} })
	s.subscribed(t, "a", 1)
	me := local.Caller{UID: os.Geteuid()}
	_, err := c.Connector.command(within(t), me, "set_subscribe_message_types", []byte(`{"message_types": ["b", "news"]}`))
	if !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), `"news": not in recv_message_types`) {
		t.Errorf("got %v, want one that is refused and names news", err)
	}
	if got := c.subscriptions(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q, want those of before", got)
	}
	if _, err := s.Connector.command(within(t), me, "set_subscribe_message_types", []byte(`{"message_types": ["a"]}`)); err == nil {
		t.Error("a server: no error")
	}
	// On the commander socket it is as in the original.
	if got := command(t, c, "set_subscribe_message_types", map[string]any{"message_types": []string{"b", "news"}}); got != "['b']" {
		t.Errorf("commander: got %s", got)
	}
	s.subscribed(t, "b", 1)
	eventually(t, "the log says so", func() bool { return c.log.count("not subscribed") == 1 })
}

func TestAServerThatIsNoBrokerSaysSo(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1", types("a", "b"))
	s.connected(t, "c1")
	eventually(t, "they have greeted", func() bool { return c.box("", false).current().greeted.Load() })
	if problems := c.problems(); len(problems) != 0 {
		t.Errorf("before: %q", problems)
	}
	set := func(kwargs string) error {
		_, err := c.Connector.command(within(t), us(), "set_subscribe_message_types", []byte(kwargs))
		return err
	}
	const why = "pubsub_central_broker is false"
	for range 2 {
		if err := set(`{"message_types": ["a"]}`); !errors.Is(err, control.ErrRefused) || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want that the server refuses", err)
		}
	}
	if problems := c.problems(); len(problems) != 1 || !strings.Contains(problems[0], why) {
		t.Errorf("health has %q, want that the server refuses", problems)
	}
	// To want nothing is fine, and the original's tool is told what it always was.
	if err := set(`{"message_types": []}`); err != nil || len(c.problems()) != 0 {
		t.Errorf("nothing: got %v, %q", err, c.problems())
	}
	if got := command(t, c, "set_subscribe_message_types", map[string]any{"message_types": []string{"b"}}); got != "['b']" {
		t.Errorf("commander: got %s", got)
	}
	if n := len(c.verdict.waits); n != 0 {
		t.Errorf("%d waits are remembered", n)
	}
	s.halt(t)
	eventually(t, "the link is down", func() bool { return c.box("", false).current() == nil })
	if err := set(`{"message_types": ["a"]}`); err != nil {
		t.Errorf("the server is away: got %v", err)
	}
}

func TestLastingSubscriptionsOutliveTheBroker(t *testing.T) {
	s := server(t, isBroker, func(cfg *config.Config) { cfg.PersistSend = config.Types{Names: []string{"d"}} })
	c := s.client(t, "c1", subscribes("d", "m"))
	s.subscribed(t, "d", 1)
	s.subscribed(t, "m", 1)
	c.halt(t)
	s.subscribed(t, "m", 0)
	s.subscribed(t, "d", 1)
	text, err := os.ReadFile(s.paths.Subscriptions)
	if err != nil || strings.TrimSpace(string(text)) != `{"c1":["d"]}` {
		t.Errorf("got %s, %v", text, err)
	}
	if info, err := os.Stat(s.paths.Subscriptions); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info, err)
	}
	s.halt(t)
	next := New(Options{Config: s.cfg, Log: s.Connector.log, Level: s.level})
	next.loadTable()
	if got := next.table.Subscribers("d"); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("got %q, want c1", got)
	}
}

func TestASlowSubscriberHoldsUpNobody(t *testing.T) {
	s := server(t, isBroker, small(4<<20))
	slow := s.peer(t, "slow") // reads nothing
	slow.write(`{"message_type": "_pubsub", "source_id": "slow"}`, `{"subscribe_message_types": ["a"]}`)
	quick := s.client(t, "quick", subscribes("a"))
	s.subscribed(t, "a", 2)
	in := quick.receive(t, api.ReceiveOptions{})
	const n = 400
	big := strings.Repeat("x", 64<<10)
	publisher := s.client(t, "p1")
	for i := range n {
		publisher.publish(t, "a", fmt.Sprint(i, " ", big))
		in.wait(t, i+1) // never more at a time than there is room for
	}
	inOrder(t, in.all(), n)
	if s.counted("queue of a subscriber full") == 0 {
		t.Error("nothing is counted as lost for the slow one")
	}
	if s.log.count("queue of a subscriber full") == 0 {
		t.Error("nothing is logged")
	}
}

func TestPublicationsForAPythonBrokerHaveNoStrangeKeys(t *testing.T) {
	var h wire.Header
	if err := h.Parse([]byte(`{"message_type": "_pubsub", "message_type_publish": "a", "x\n": 1, "tag": "t", "expires": 3}`)); err != nil {
		t.Fatal(err)
	}
	got := string(wire.AppendEdited(nil, h.Raw, strangeKeys(&h)...))
	if want := `{"message_type": "_pubsub", "message_type_publish": "a", "tag": "t"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
