package connector

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/broker"
	"aioc/lib/config"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// onDiskBytes are the bytes of the files below a directory.
func onDiskBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

func TestAPublicationIsOnDiskOnceForAllThatAreAway(t *testing.T) {
	const clients, many = 10, 1000
	s := server(t, isBroker, onDisk("d"))
	var all []*node
	for i := range clients {
		all = append(all, s.client(t, fmt.Sprint("c", i), subscribes("d"), onDisk("d")))
	}
	s.subscribed(t, "d", clients)
	for _, c := range all {
		c.halt(t)
	}
	p := s.client(t, "p1", types("d"), onDisk("d"))
	text := strings.Repeat("x", 200)
	var list []string
	for i := range many {
		list = append(list, fmt.Sprint(i, text))
	}
	p.publish(t, "d", list...)
	eventually(t, "all wait", func() bool {
		return s.waits("c0") == many && s.waits("c9") == many
	})
	// The header and what the log adds to it make up for no more than this.
	if n := onDiskBytes(t, s.paths.Spool); n < many*200 || n > 3*many*200 {
		t.Errorf("%d bytes on disk for %d messages of 200", n, many)
	}
	st := s.stats()
	if st.Disk == nil || st.Disk.Bytes > 3*many*200 {
		t.Errorf("got %+v", st.Disk)
	}
	if len(st.Topics) != 1 || st.Topics[0].Subscribers != clients || st.Topics[0].Messages != many || st.Topics[0].Oldest == 0 {
		t.Errorf("got %+v", st.Topics)
	}
	if text := st.Metrics(time.Now()); !strings.Contains(text, `type="d"} 1000`) || !strings.Contains(text, "aioc_topic_subscribers") {
		t.Errorf("the metrics have no topic:\n%s", text)
	}
	for _, p := range st.Peers {
		if strings.HasPrefix(p.Name, "c") && (p.Queue.Waiting != many || p.Queue.Disk < many*200 || p.Queue.Oldest == 0) {
			t.Errorf("peer %s: %+v", p.Name, p.Queue)
		}
	}
	s.halt(t)
	s = s.again(t)
	for _, i := range []int{3, 7} {
		c := all[i].again(t)
		got := c.receive(t, api.ReceiveOptions{}).wait(t, many)
		if !slices.Equal(data(got), list) {
			t.Errorf("client %d got %d others", i, len(got))
		}
	}
	if n := s.waits("c1"); n != many {
		t.Errorf("%d wait for another, want %d", n, many)
	}
}

func TestSubscribersGetAllOnceWhenTheBrokerIsKilled(t *testing.T) {
	const rounds, some = 6, 200
	s := server(t, isBroker, onDisk("d"))
	a := s.client(t, "a", subscribes("d"), onDisk("d"))
	b := s.client(t, "b", subscribes("d"), onDisk("d"))
	p := s.client(t, "p1", types("d"), onDisk("d", wire.TypePubSub))
	s.subscribed(t, "d", 2)
	sent := 0
	for i := range rounds {
		if i%2 == 0 {
			b.halt(t) // what comes meanwhile waits
			s.disconnected(t, "b")
		}
		p.publish(t, "d", numbers(sent, sent+some)...)
		sent += some
		if i%3 == 1 { // else in the middle of it
			eventually(t, "all has gone", func() bool { return p.waits("") == 0 })
		}
		s.kill(t)
		s = s.again(t)
		s.connected(t, "a")
		s.connected(t, "p1")
		if i%2 == 0 {
			b = b.again(t)
			s.connected(t, "b")
		}
	}
	for name, c := range map[string]*node{"a": a, "b": b} {
		in := c.receive(t, api.ReceiveOptions{})
		inOrder(t, in.wait(t, sent), sent)
		eventually(t, "nothing is left for "+name, func() bool {
			return c.inbox["d"].Len()+s.waits(name)+p.waits("") == 0
		})
		inOrder(t, in.all(), sent)
	}
}

func TestWhatIsSentToOneSubscriberIsSeenByNoOther(t *testing.T) {
	s := server(t, isBroker, types("d"), onDisk("d"))
	a := s.client(t, "a", subscribes("d"), onDisk("d"))
	b := s.client(t, "b", subscribes("d"), onDisk("d"))
	s.subscribed(t, "d", 2)
	a.halt(t)
	b.halt(t)
	s.disconnected(t, "a")
	s.disconnected(t, "b")
	var want []string
	for i := range 20 {
		s.publish(t, "d", fmt.Sprint("all ", i))
		s.send(t, "d", "a", fmt.Sprint("a ", i))
		want = append(want, fmt.Sprint("all ", i), fmt.Sprint("a ", i))
	}
	s.kill(t)
	s = s.again(t)
	a, b = a.again(t), b.again(t)
	if got := data(a.receive(t, api.ReceiveOptions{}).wait(t, 40)); !slices.Equal(got, want) {
		t.Errorf("a got %q", got)
	}
	got := data(b.receive(t, api.ReceiveOptions{}).wait(t, 20))
	want = slices.DeleteFunc(want, func(s string) bool { return s[0] == 'a' && s[1] == ' ' })
	if !slices.Equal(got, want) {
		t.Errorf("b got %q", got)
	}
	eventually(t, "nothing is left", func() bool {
		return s.waits("a")+s.waits("b")+a.inbox["d"].Len()+b.inbox["d"].Len() == 0
	})
}

func TestWhatAnOlderVersionKeptForASubscriberComesFirst(t *testing.T) {
	s := server(t, isBroker, onDisk("d"))
	c := s.client(t, "c1", subscribes("d"), onDisk("d"))
	s.subscribed(t, "d", 1)
	c.halt(t)
	s.halt(t)
	// As it was: the publications in a log of each subscriber.
	q := queue.New(1<<20, nil, nil)
	q.Keep(oldStore{s.paths.SpoolTo("c1")}, nil)
	for _, text := range numbers(0, 10) {
		frame, err := wire.AppendFrame(nil, fmt.Appendf(nil, `{"message_type": "d", "source_id": %q}`, s.ID()), []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := q.Put("d", frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Commit("d"); err != nil {
		t.Fatal(err)
	}
	q.Close()
	s = s.again(t)
	s.publish(t, "d", numbers(10, 20)...)
	c = c.again(t)
	inOrder(t, c.receive(t, api.ReceiveOptions{}).wait(t, 20), 20)
}

// oldStore keeps a log for each type, as they are in a directory of a peer.
type oldStore struct{ dir string }

func (s oldStore) Durable(string) bool       { return true }
func (s oldStore) Failed(string, int, error) {}
func (s oldStore) Open(typ string, state func([]byte) []byte, restore func([]byte), replay func(spool.Record, bool)) (*spool.Log, error) {
	log, _, err := spool.Open(filepath.Join(s.dir, typ), spool.Options{Durable: true, State: state, Restore: restore, Replay: replay})
	return log, err
}

func TestWhoEndsASubscriptionHoldsNothing(t *testing.T) {
	s := server(t, isBroker, onDisk("d"))
	c := s.client(t, "c1", types("d"), onDisk("d"), func(cfg *config.Config) { cfg.SubscribeTypes = []string{"d"} })
	s.subscribed(t, "d", 1)
	c.halt(t)
	s.disconnected(t, "c1")
	s.publish(t, "d", numbers(0, 50)...)
	s.endSubscription("c1", "d") // it has not ended
	if n := s.waits("c1"); n != 50 {
		t.Fatalf("%d wait, want 50", n)
	}
	if _, err := s.table.Apply("c1", broker.Change{Unsubscribe: []string{"d"}}); err != nil {
		t.Fatal(err)
	}
	s.tableChanged()
	s.endSubscription("c1", "d")
	if n := s.counted("unsubscribed"); n != 50 {
		t.Errorf("counted %d, want 50", n)
	}
	eventually(t, "the peer is forgotten", func() bool { return s.box("c1", false) == nil })
	s.publish(t, "d", "nobody")
	s.kill(t)
	s = s.again(t)
	if b := s.box("c1", false); b != nil {
		t.Errorf("%d wait", b.q.Len())
	}
	if _, err := os.Stat(s.paths.SpoolTopic("d")); !os.IsNotExist(err) {
		t.Errorf("the log of a topic without subscribers is there: %v", err)
	}
}

func TestASubscriberBeyondItsQuotaLosesItAlone(t *testing.T) {
	s := server(t, isBroker, onDisk("d"), func(cfg *config.Config) { cfg.MaxPersistenceSize = 1_000_000 })
	c := s.client(t, "away", subscribes("d"), onDisk("d"))
	s.subscribed(t, "d", 1)
	c.halt(t)
	s.disconnected(t, "away")
	quick := s.client(t, "quick", subscribes("d"))
	s.subscribed(t, "d", 2)
	in := quick.receive(t, api.ReceiveOptions{})
	const many = 2000
	var all []string
	for i := range many / 100 {
		var list []string
		for _, number := range numbers(100*i, 100*i+100) {
			list = append(list, strings.Repeat("0", 2000-len(number))+number)
		}
		all = append(all, list...)
		s.publish(t, "d", list...)
		in.wait(t, 100*i+100)
		eventually(t, "it is acknowledged", func() bool { return s.waits("quick") == 0 })
	}
	if got := data(in.all()); !slices.Equal(got, all) {
		t.Errorf("the other got %d messages", len(got))
	}
	lost := int(s.counted("queue of a subscriber full"))
	if n := s.waits("away"); lost == 0 || n == 0 || n+lost != many {
		t.Errorf("%d wait and %d are lost of %d", n, lost, many)
	}
	eventually(t, "it is a problem", func() bool {
		return slices.ContainsFunc(s.problems(), func(p string) bool { return strings.Contains(p, "for away cannot be kept") })
	})
	if n := onDiskBytes(t, s.paths.Spool); n > 2_000_000 {
		t.Errorf("%d bytes on disk", n)
	}
}

func TestPublicationsWaitAtThePublisherWhileTheDiskIsFull(t *testing.T) {
	const size = 400_000
	s := server(t, isBroker, types("d"), onDisk("d"), func(cfg *config.Config) { cfg.MaxPersistenceSize, cfg.MaxPersistenceTotal = size, size })
	c := s.client(t, "c1", subscribes("d"), onDisk("d"))
	s.subscribed(t, "d", 1)
	c.halt(t)
	s.disconnected(t, "c1")
	text := strings.Repeat("x", 2000)
	var hog []string
	for range 130 {
		hog = append(hog, text)
	}
	s.send(t, "d", "hog", hog...)
	p := s.client(t, "p1", types("d"), onDisk(wire.TypePubSub))
	p.publish(t, "d", padded(0, 3000)...)
	eventually(t, "the broker refuses some", func() bool {
		return slices.ContainsFunc(p.problems(), func(p string) bool { return strings.Contains(p, "cannot keep messages of type") })
	})
	if n := s.counted("publication not kept on disk"); n > 0 {
		t.Errorf("%d are lost", n)
	}
	err := s.tryPublish(t, "d", text)
	if notTaken(t, err, 0, "full"); !strings.Contains(fmt.Sprint(err), "max_size_persistence_total") {
		t.Errorf("got %v", err)
	}
	// Room comes when one end has taken what waits.
	h := s.client(t, "hog", types("d"))
	h.receive(t, api.ReceiveOptions{}).wait(t, len(hog))
	c = c.again(t)
	inOrder(t, c.receive(t, api.ReceiveOptions{}).wait(t, 3000), 3000)
	if n := s.counted("queue of a subscriber full"); n > 0 {
		t.Errorf("%d are lost", n)
	}
}

// waits is how many messages wait for a peer, which may have been forgotten when
// there are none.
func (n *node) waits(peer string) int {
	if b := n.box(peer, false); b != nil {
		return b.q.Len()
	}
	return 0
}
