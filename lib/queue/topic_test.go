package queue

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// sharedStore keeps the log of a topic in a directory.
type sharedStore struct{ store }

func (s *sharedStore) Open(typ string, state func([]byte) []byte, restore func([]byte), replay func(spool.Record, bool)) (*spool.Log, error) {
	log, _, err := spool.Open(filepath.Join(s.dir, typ), spool.Options{
		Durable: true, Shared: true, SegmentSize: s.segment, FS: s.fs, State: state, Restore: restore, Replay: replay,
	})
	return log, err
}

// hall is a topic with subscribers.
type hall struct {
	t      *testing.T
	dir    string
	fs     spool.FS
	order  *Order
	topic  *Topic
	store  *sharedStore
	queues map[string]*Queue
	limit  int
	quota  map[string]*spool.Quota
}

// everybody subscribes, and has a queue that is open.
var everybody = Hall{Still: func(to []Subscriber) []Subscriber { return to }, Queue: func(string) (*Queue, *spool.Quota) { return nil, nil }}

const topicType = "d"

func newHall(t *testing.T, names ...string) *hall {
	h := &hall{t: t, dir: t.TempDir(), limit: 1 << 20, quota: map[string]*spool.Quota{}}
	h.open(names...)
	t.Cleanup(h.close)
	return h
}

// open opens all that there is on disk.
func (h *hall) open(names ...string) {
	h.t.Helper()
	h.order = new(Order)
	h.store = &sharedStore{store{dir: filepath.Join(h.dir, "topics"), fs: h.fs, segment: 20_000}}
	h.topic = NewTopic(topicType, h.store, h.order, nil)
	h.queues = map[string]*Queue{}
	for _, name := range names {
		h.queue(name)
	}
	there, err := h.topic.Open()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, name := range there {
		h.queue(name)
		if _, err := h.topic.Attach(&h.subscribers(name)[0]); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *hall) queue(name string) {
	h.t.Helper()
	if h.queues[name] != nil {
		return
	}
	q := New(h.limit, nil, nil)
	q.Follow(h.order)
	q.Keep(&store{dir: filepath.Join(h.dir, name), fs: h.fs}, nil)
	if _, err := os.Stat(filepath.Join(h.dir, name, topicType)); err == nil {
		if _, err := q.Open([]string{topicType}); err != nil {
			h.t.Fatal(err)
		}
	}
	h.queues[name] = q
}

func (h *hall) close() {
	for _, q := range h.queues {
		q.Close()
	}
	h.topic.Close()
}

// again ends it one way or the other and opens it.
func (h *hall) again(how ending) {
	h.t.Helper()
	if how == killed {
		image := filepath.Join(h.t.TempDir(), "image")
		if err := os.CopyFS(image, os.DirFS(h.dir)); err != nil {
			h.t.Fatal(err)
		}
		h.close()
		h.dir = image
	} else {
		h.close()
	}
	var names []string
	for name := range h.queues {
		names = append(names, name)
	}
	h.open(names...)
}

func (h *hall) subscribers(names ...string) (to []Subscriber) {
	for _, name := range names {
		h.queue(name)
		to = append(to, Subscriber{Name: name, Queue: h.queues[name], Quota: h.quota[name]})
	}
	return to
}

// publish publishes messages, which wait for those of these names, and commits
// them.
func (h *hall) publish(from, to uint64, size int, names ...string) {
	h.t.Helper()
	x := Extra{}
	list := h.subscribers(names...)
	if _, err := h.topic.Put(slices.Concat(messages(from, to, size)...), &x, list, everybody); err != nil {
		h.t.Fatal(err)
	}
	for _, s := range list {
		if s.Lost > 0 {
			h.t.Fatalf("%d lost for %s", s.Lost, s.Name)
		}
	}
	if err := h.topic.CommitSince(Written{topicType, x.Round}); err != nil {
		h.t.Fatal(err)
	}
}

func TestAPublicationWaitsForEachSubscriber(t *testing.T) {
	for _, how := range []ending{stopped, killed} {
		h := newHall(t)
		h.publish(1, 100, 100, "a", "b")
		h.publish(101, 300, 100, "a", "b", "c")
		a := newTaker(h.queues["a"])
		checkIDs(t, a.finish(t, 250), upFrom(1, 250)...)
		h.publish(301, 310, 100, "b", "a")
		checkIDs(t, a.finish(t, 60), upFrom(251, 60)...)
		if s, ok := h.topic.Stats(); !ok || s.Appended != 310 {
			t.Errorf("%d records on disk, want one for each of 310", s.Appended)
		}
		b := newTaker(h.queues["b"])
		checkIDs(t, b.finish(t, 100), upFrom(1, 100)...)
		b.Close()
		a.Close()
		h.again(how)
		checkIDs(t, newTaker(h.queues["b"]).finish(t, 210), upFrom(101, 210)...)
		checkIDs(t, newTaker(h.queues["c"]).finish(t, 200), upFrom(101, 200)...)
		for name, q := range h.queues {
			if st := q.Stats(); st.Waiting+st.InHand+st.OnDisk > 0 {
				t.Errorf("%s: %+v", name, st)
			}
		}
		if f := h.store.failures(); len(f) > 0 {
			t.Errorf("failures: %q", f)
		}
	}
}

// What is sent to one alone is of the same type, and comes in its place.
func TestWhatIsSentAndWhatIsPublishedKeepTheirOrder(t *testing.T) {
	h := newHall(t)
	next := uint64(0)
	for i := range 20 {
		h.publish(next, next+2, 100, "a", "b")
		mustPut(t, h.queues["a"], topicType, messages(next+3, next+4, 100)...)
		mustCommit(t, h.queues["a"], topicType)
		if next += 5; i == 10 {
			h.again(killed)
		}
	}
	x := h.queues["a"].Taker(nothing, nil)
	type said struct {
		epoch Epoch
		seq   uint64
	}
	var told []said
	x.Announce(func(_ string, epoch Epoch, seq uint64) []byte {
		told = append(told, said{epoch, seq})
		return nil
	})
	var got []uint64
	for len(got) < int(next) {
		var b wire.Batch
		x.Take(&b, 500, 7)
		for _, f := range frames(&b) {
			got = append(got, idOf(f))
		}
	}
	checkIDs(t, got, upFrom(0, next)...)
	if len(told) != int(next) { // announce returned nil: it is asked each time
		last := map[Epoch]uint64{}
		for i, s := range told {
			if i > 0 && s.epoch == told[i-1].epoch || s.seq <= last[s.epoch] {
				t.Fatalf("told %v", told)
			}
			last[s.epoch] = s.seq
		}
		if len(told) != 40 || len(last) != 2 {
			t.Errorf("told %d times of %d lanes, want 40 times of 2", len(told), len(last))
		}
	}
	x.Close()
	checkIDs(t, newTaker(h.queues["b"]).finish(t, 3), 0, 1, 2)
}

// A peer that has two lanes of one type is known by both.
func TestTwoLanesOfAPeerAreTakenOnce(t *testing.T) {
	s := &store{dir: t.TempDir()}
	q := onDisk(t, s, 1<<20)
	put := func(epoch byte, seq uint64, want int) {
		t.Helper()
		before := q.Stats().Put
		if _, err := q.PutExtra("d", message(seq, 20), &Extra{From: Origin{Peer: "p", Epoch: Epoch{epoch}, Seq: seq}}); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, q, "d")
		if got := int(q.Stats().Put - before); got != want {
			t.Errorf("lane %d, message %d: taken %d times, want %d", epoch, seq, got, want)
		}
	}
	put(1, 5, 1)
	put(2, 5, 1)
	put(1, 5, 0)
	put(1, 6, 1)
	put(2, 5, 0)
	put(2, 6, 1)
	for range 2 {
		q.Close()
		q = onDisk(t, s, 1<<20, "d")
		put(1, 6, 0)
		put(2, 6, 0)
	}
	put(3, 1, 1) // the older of the two is forgotten
	put(2, 6, 0)
	put(3, 1, 0)
}

func TestAPublicationThatComesAgainIsPublishedOnce(t *testing.T) {
	h := newHall(t)
	put := func(seq uint64, names ...string) {
		t.Helper()
		x := Extra{From: Origin{Peer: "p", Epoch: Epoch{1}, Seq: seq}}
		if _, err := h.topic.Put(message(seq, 100), &x, h.subscribers(names...), everybody); err != nil {
			t.Fatal(err)
		}
		if x.From.Seq != seq+1 {
			t.Errorf("the next is %d, want %d", x.From.Seq, seq+1)
		}
		if err := h.topic.CommitSince(Written{topicType, x.Round}); err != nil {
			t.Fatal(err)
		}
	}
	put(1, "a")
	put(2, "a")
	put(2, "a", "b")
	h.again(killed)
	put(2, "a", "b")
	put(3, "a", "b")
	h.again(stopped)
	put(3, "a", "b")
	checkIDs(t, newTaker(h.queues["a"]).finish(t, 3), 1, 2, 3)
	checkIDs(t, newTaker(h.queues["b"]).finish(t, 1), 3)
	for name, q := range h.queues {
		if n := q.Len(); n > 0 {
			t.Errorf("%s: %d more", name, n)
		}
	}
}

func TestWhoUnsubscribesGetsNoMoreAndHoldsNothing(t *testing.T) {
	for _, read := range []bool{false, true} {
		h := newHall(t)
		h.publish(1, 1000, 100, "a", "b")
		a := newTaker(h.queues["a"])
		if read {
			checkIDs(t, a.take(t, 3), 1, 2, 3)
		}
		b := newTaker(h.queues["b"])
		checkIDs(t, b.finish(t, 1000), upFrom(1, 1000)...)
		if n := h.topic.End("a", func() bool { return true }); n != 1000 {
			t.Errorf("%d discarded, want 1000", n)
		}
		if n := h.topic.End("a", func() bool { return true }); n != 0 {
			t.Errorf("%d discarded once more", n)
		}
		if s, _ := h.topic.Stats(); s.Segments != 1 || s.Waiting != 0 {
			t.Errorf("%d segments, %d wait", s.Segments, s.Waiting)
		}
		h.publish(1001, 1010, 100, "a", "b") // it is back
		if read {
			a.Done(a.n, true)
		}
		checkIDs(t, a.take(t, 5), upFrom(1001, 5)...)
		a.Close()
		b.Close()
		h.topic.End("b", func() bool { return true })
		h.again(killed)
		if n := h.queues["b"].Len(); n != 0 {
			t.Errorf("%d wait for who has unsubscribed", n)
		}
		x := newTaker(h.queues["a"])
		checkIDs(t, x.finish(t, 10), upFrom(1001, 10)...)
		if st := h.queues["a"].Stats(); st.Waiting+st.InHand+st.Bytes+st.OnDisk != 0 {
			t.Errorf("at the end: %+v", st)
		}
		h.topic.End("a", func() bool { return true })
		if closed, _ := h.queues["a"].CloseIfEmpty(); !closed {
			t.Error("the queue stays for a subscription that has ended")
		}
		if !h.topic.Idle() {
			t.Error("the topic is not idle")
		}
	}
}

func TestASubscriberWithoutRoomLosesItAlone(t *testing.T) {
	h := newHall(t)
	h.quota["slow"] = spool.NewQuota(50_000)
	quick := h.subscribers("quick", "slow")
	x := newTaker(h.queues["quick"])
	lost := 0
	for i := range uint64(200) {
		extra := Extra{}
		if _, err := h.topic.Put(slices.Concat(messages(10*i, 10*i+9, 100)...), &extra, quick, everybody); err != nil {
			t.Fatal(err)
		}
		if quick[0].Lost > 0 {
			t.Fatalf("the other lost %d", quick[0].Lost)
		}
		lost += quick[1].Lost
		if err := h.topic.CommitSince(Written{topicType, extra.Round}); err != nil {
			t.Fatal(err)
		}
		checkIDs(t, x.finish(t, 10), upFrom(10*i, 10)...)
	}
	slow := h.queues["slow"]
	if n := slow.Len(); n+lost != 2000 || lost < 1000 || n < 200 {
		t.Errorf("%d wait and %d are lost of 2000", n, lost)
	}
	if tr := slow.Troubles(); len(tr) != 1 || !errors.Is(tr[0].Err, ErrFull) {
		t.Errorf("got %v", tr)
	}
	if s, _ := h.topic.Stats(); s.Bytes > 100_000 {
		t.Errorf("%d bytes on disk", s.Bytes)
	}
	n := slow.Len()
	y := newTaker(slow)
	checkIDs(t, y.finish(t, n)[:50], upFrom(0, 50)...)
	h.publish(5000, 5009, 100, "quick", "slow")
	checkIDs(t, y.finish(t, 10), upFrom(5000, 10)...)
	if tr := slow.Troubles(); len(tr) != 0 {
		t.Errorf("got %v", tr)
	}
}

func TestAFailedSyncOfATopicIsToldToAll(t *testing.T) {
	disk := &weakFS{}
	h := &hall{t: t, dir: t.TempDir(), limit: 1 << 20, fs: disk, quota: map[string]*spool.Quota{}}
	h.open()
	defer h.close()
	h.publish(1, 10, 100, "a", "b")
	a := newTaker(h.queues["a"])
	disk.sync.Store(true)
	x := Extra{From: Origin{Peer: "p", Epoch: Epoch{1}, Seq: 1}}
	lost := slices.Concat(messages(11, 15, 100)...)
	if _, err := h.topic.Put(lost, &x, h.subscribers("a", "b"), everybody); err != nil {
		t.Fatal(err)
	}
	if err := h.topic.CommitSince(Written{topicType, x.Round}); !errors.Is(err, ErrDisk) {
		t.Fatalf("got %v", err)
	}
	disk.sync.Store(false)
	for name, q := range h.queues {
		if n := q.Len(); n != 10 {
			t.Errorf("%s: %d wait, want 10", name, n)
		}
	}
	x = Extra{From: Origin{Peer: "p", Epoch: Epoch{1}, Seq: 1}} // it comes again
	if _, err := h.topic.Put(lost, &x, h.subscribers("a", "b"), everybody); err != nil {
		t.Fatal(err)
	}
	if err := h.topic.CommitSince(Written{topicType, x.Round}); err != nil {
		t.Fatal(err)
	}
	checkIDs(t, a.finish(t, 15), upFrom(1, 15)...)
	a.Close()
	h.again(killed)
	checkIDs(t, newTaker(h.queues["b"]).finish(t, 15), upFrom(1, 15)...)
}

func TestWhatWaitsForASubscriberCanBeDiscarded(t *testing.T) {
	for _, taking := range []bool{false, true} {
		h := newHall(t)
		h.publish(1, 500, 100, "a", "b")
		a := newTaker(h.queues["a"])
		if taking {
			checkIDs(t, a.take(t, 10), upFrom(1, 10)...)
		} else {
			a.Close()
		}
		want := 500
		if taking {
			want = 490
		}
		if n := h.queues["a"].Purge(); n != want {
			t.Errorf("%d discarded, want %d", n, want)
		}
		a.Close()
		h.publish(501, 502, 100, "a", "b")
		h.again(killed)
		want = 2
		if taking {
			want = 12 // what it had in hand
		}
		if n := h.queues["a"].Len(); n != want {
			t.Errorf("%d wait, want %d", n, want)
		}
		checkIDs(t, newTaker(h.queues["b"]).finish(t, 502), upFrom(1, 502)...)
	}
}
