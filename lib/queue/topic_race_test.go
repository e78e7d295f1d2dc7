package queue

import (
	"errors"
	"slices"
	"testing"
	"time"

	"aioc/lib/spool"
)

// Another publisher's commit takes along what is in the log and has not reached
// the subscribers yet.
func TestAPublicationThatOthersCommitBeforeItIsThereCanBeTaken(t *testing.T) {
	for _, tail := range []bool{false, true} {
		h := newHall(t)
		h.publish(1, 2, 100, "a")
		a := newTaker(h.queues["a"])
		if !tail {
			checkIDs(t, a.finish(t, 2), 1, 2)
		} else {
			a.Close()
		}
		to := h.subscribers("a")
		early := Extra{}
		if _, err := h.topic.Put(slices.Concat(messages(3, 4, 100)...), &early, to, everybody); err != nil {
			t.Fatal(err)
		}
		late, frames := Extra{From: Origin{Peer: "p", Epoch: Epoch{1}, Seq: 1}}, slices.Concat(messages(5, 7, 100)...)
		h.topic.lane.disk.in.Lock()
		l := h.queues["a"].topics[topicType]
		num, seq, left, err := h.topic.append(frames, 3, &late, []*spool.View{l.disk.view})
		if err != nil || len(left) > 0 {
			t.Fatalf("%d left out, %v", len(left), err)
		}
		if err := h.topic.CommitSince(Written{topicType, early.Round}); err != nil {
			t.Fatal(err)
		}
		if tail { // what is read now is what has been put
			a = newTaker(h.queues["a"])
			checkIDs(t, a.finish(t, 4), 1, 2, 3, 4)
		}
		h.topic.added(3, num, &late)
		l.accept(frames, 3, num, seq, &late)
		h.topic.lane.disk.in.Unlock()
		if err := h.topic.CommitSince(Written{topicType, late.Round}); err != nil {
			t.Fatal(err)
		}
		want := []uint64{3, 4, 5, 6, 7}
		if tail {
			want = want[2:]
		}
		checkIDs(t, a.finish(t, len(want)), want...)
		if st, q := h.queues["a"].Stats(), h.queues["a"]; st.Waiting+st.InHand+st.OnDisk > 0 || q.tails != 0 {
			t.Errorf("%+v, %d lanes on disk", st, q.tails)
		}
		if m := h.topic.lane.marks["p"]; m == nil || m.sure != 3 {
			t.Errorf("of the peer %+v is known, want all that is on disk", m)
		}
	}
}

// What is put after a put that failed says once more who it is from.
func TestAPublicationIsKnownAgainThoughTheFirstOfItsPeerWasNotKept(t *testing.T) {
	for _, why := range []string{"disk full", "no room for the subscriber", "sync failed"} {
		t.Run(why, func(t *testing.T) {
			disk := &weakFS{}
			h := &hall{t: t, dir: t.TempDir(), limit: 1 << 20, fs: disk, quota: map[string]*spool.Quota{"small": spool.NewQuota(10)}}
			h.open()
			defer func() { h.close() }()
			put := func(peer string, seq uint64, name string) error {
				t.Helper()
				x := Extra{From: Origin{Peer: peer, Epoch: Epoch{1}, Seq: seq}}
				_, err := h.topic.Put(message(seq, 100), &x, h.subscribers(name), everybody)
				if err == nil {
					err = h.topic.CommitSince(Written{topicType, x.Round})
				}
				return err
			}
			if err := put("other", 1, "a"); err != nil {
				t.Fatal(err)
			}
			name := "a"
			switch why {
			case "disk full":
				disk.full.Store(true)
			case "sync failed":
				disk.sync.Store(true)
			default:
				name = "small"
			}
			if err := put("p", 2, name); errors.Is(err, ErrDisk) != (name == "a") {
				t.Fatalf("got %v", err)
			}
			disk.full.Store(false)
			disk.sync.Store(false)
			for range 2 {
				if err := put("p", 3, "a"); err != nil {
					t.Fatal(err)
				}
				h.again(killed)
			}
			checkIDs(t, newTaker(h.queues["a"]).finish(t, 2), 1, 3)
			if n := h.queues["a"].Len(); n > 0 {
				t.Errorf("%d came twice", n)
			}
		})
	}
}

// A log asks for the state while it is locked.
func TestNobodyIsCalledWhileTheStateIsWritten(t *testing.T) {
	budget := NewBudget(fullBlock)
	q := New(1000, budget, nil)
	q.Keep(&store{dir: t.TempDir()}, nil)
	q.mu.Lock()
	l := q.lane("d")
	for i, age := range []time.Duration{2 * idWindow, 0} {
		l.remembers(idBytes)
		l.ids.add(ID{byte(i + 1)}, time.Now().Add(-age).Unix())
	}
	q.mu.Unlock()
	budget.Take(fullBlock)
	if budget.Take(1) || budget.onRoom(func() { t.Error("who waits for memory was called") }) {
		t.Fatal("there is room")
	}
	budget.used = 0 // so that whoever gives something back calls
	state := l.state(nil)

	other := New(1000, nil, nil)
	other.Keep(&store{dir: t.TempDir()}, nil)
	other.mu.Lock()
	m := other.lane("d")
	m.disk.byIndex = map[uint64]*mark{}
	other.mu.Unlock()
	m.restore(state)
	if len(m.ids.when) != 1 || !m.ids.has(ID{2}) {
		t.Errorf("ids %v are in the state, want the one that is not too old", m.ids.order)
	}
}

// A subscriber's queue may be dropped, and made again, before something is put.
func TestASubscriberWhoseQueueIsMadeAgainUsesItsQuota(t *testing.T) {
	h := newHall(t)
	old, quota := spool.NewQuota(0), spool.NewQuota(0)
	h.quota["a"] = old
	to := h.subscribers("a")
	h.queues["a"].Close()
	hall := everybody
	hall.Queue = func(name string) (*Queue, *spool.Quota) {
		if h.queues[name] == to[0].Queue {
			delete(h.queues, name)
			h.queue(name)
		}
		return h.queues[name], quota
	}
	x := Extra{}
	to, err := h.topic.Put(slices.Concat(messages(1, 3, 100)...), &x, to, hall)
	if err != nil || to[0].Lost > 0 {
		t.Fatalf("%d lost, %v", to[0].Lost, err)
	}
	if err := h.topic.CommitSince(Written{topicType, x.Round}); err != nil {
		t.Fatal(err)
	}
	if old.Used() != 0 || quota.Used() == 0 {
		t.Errorf("%d bytes of the old quota and %d of the new are used", old.Used(), quota.Used())
	}
	checkIDs(t, newTaker(h.queues["a"]).finish(t, 3), 1, 2, 3)
}
