package link

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

func TestASenderAnswersThatATypeIsParkedAndResumesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Announced: true, Source: s})
		s.put("a", "b", "a")
		f.take()
		f.send(`{"transport_id": 1, "message_type": "_nack", "reason": "full", "error": "queue full", "park": true}`, "")
		f.expect(own("_parked", "a"))
		f.send(`{"transport_id": 3, "message_type": "_nack", "reason": "full", "error": "queue full", "park": true}`, "")
		s.put("a", "b")
		f.expect(frameOf("b", 4)) // and _parked is not said twice
		f.ack(4)
		check(t, "outcome", s.outcome(), "done 1 4; in hand 0; waiting 0 2 3")
		f.send(`{"message_type": "_resume"}`, "a")
		f.expect(frameOf("a", 0), frameOf("a", 2), frameOf("a", 3))
		f.send(`{"transport_id": 5, "message_type": "_nack", "park": true}`, "")
		f.expect(own("_parked", "a")) // parked anew
	})
}

func TestARunOfRefusalsMayMixTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Announced: true, Source: s})
		s.put("a", "b", "a")
		f.take()
		f.send(`{"transport_id": 1, "count": 3, "message_type": "_nack", "park": true}`, "")
		f.expect(own("_parked", "a"), own("_parked", "b"))
	})
}

func TestAReceiverRefusesAParkedTypeUntilItIsAnsweredAndHasRoom(t *testing.T) {
	const nack = `{"message_type": "_nack", "transport_id": %d, "reason": "full", "error": "queue full"%s, "park": true, "source_id": "near"} `
	for _, roomFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("room first %v", roomFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &sink{}
				e, f := start(t, Options{Announced: true, Handler: h})
				full := true
				h.onFrame = func(n uint64, f *wire.Frame) error {
					if full && string(f.Header.Type) == "a" {
						e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
					}
					return nil
				}
				f.message("a", "0")
				f.expect(fmt.Sprintf(nack, 1, ""), acksTo(1))
				var more []byte
				for i := range 3 {
					more = append(more, mustFrame(t, `{"message_type": "a"}`, strconv.Itoa(i+1))...)
				}
				if _, err := f.conn.Write(more); err != nil {
					t.Fatal(err)
				}
				f.expect(fmt.Sprintf(nack, 2, `, "count": 3`), acksTo(4))
				f.message("b", "other types go on")
				f.expect(acksTo(5))
				full = false
				if roomFirst {
					e.Room("a")
					f.expect()
					f.message("a", "still on its way")
					f.expect(fmt.Sprintf(nack, 6, ""), acksTo(6))
					f.send(`{"message_type": "_parked"}`, "a")
				} else {
					f.send(`{"message_type": "_parked"}`, "a")
					f.expect()
					e.Room("a")
				}
				f.expect(own("_resume", "a"))
				e.Room("a")
				e.Room("never parked")
				f.expect()
				f.message("a", "again")
				if got := f.take(); len(got) != 1 || got[0][:8] != `{"ackto"` {
					t.Errorf("a resumed message was answered %q, want an _ack", got)
				}
			})
		})
	}
}

// The refusals of a type are written before the _resume that follows them, also
// when the writer had no time for them: the sender would park the type again,
// for ever.
func TestRefusalsAreWrittenBeforeTheResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		e, f := startUnread(t, Options{Announced: true, Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error {
			e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
			return nil
		}
		f.message("a", "0") // the writer waits in writing its refusal
		f.message("a", "1")
		e.Room("a")
		f.send(`{"message_type": "_parked"}`, "a")
		f.read()
		got := f.take()
		last := len(got) - 1
		refusal := slices.IndexFunc(got, func(s string) bool {
			return s == `{"message_type": "_nack", "transport_id": 2, "reason": "full", "error": "queue full", "park": true, "source_id": "near"} `
		})
		resume := slices.Index(got, own("_resume", "a"))
		if refusal < 0 || resume < refusal || got[last] != acksTo(2) {
			t.Errorf("got %q, want the second refusal, then _resume, then the acknowledgement", got)
		}
	})
}

// slow is a source that takes its time to give frames.
type slow struct {
	*source
	taking, gone chan struct{}
}

func (s *slow) Take(b *wire.Batch, max, count int) int {
	n := s.source.Take(b, max, count)
	if n > 0 {
		s.taking <- struct{}{}
		<-s.gone
	}
	return n
}

// What is refused while the writer takes frames from the source is told before
// the acknowledgement that covers its number, or it would be lost.
func TestARefusalWhileFramesAreTakenComesBeforeItsAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		s := &slow{newSource(), make(chan struct{}), make(chan struct{})}
		e, f := start(t, Options{Announced: true, Handler: h, Source: s})
		s.wake = e.Wake
		h.onFrame = func(n uint64, f *wire.Frame) error {
			if string(f.Data) == "refuse" {
				e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
			}
			return nil
		}
		f.message("a", "take")
		f.expect(acksTo(1))
		s.put("b")
		<-s.taking
		f.message("a", "take")
		f.message("a", "refuse")
		s.gone <- struct{}{}
		got := f.take()
		refused := slices.IndexFunc(got, func(s string) bool { return strings.Contains(s, `"_nack", "transport_id": 3`) })
		covered := slices.Index(got, acksTo(3))
		if refused < 0 || covered < refused {
			t.Errorf("got %q, want the refusal of 3 before the acknowledgement up to 3", got)
		}
	})
}

func TestParkingIsNothingToAnEndThatDoesNotKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		e, f := start(t, Options{Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error {
			e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
			e.Refuse(n, &Refusal{Reason: "full", Text: "queue full"})
			return nil
		}
		f.message("a", "0")
		f.message("a", "1")
		f.expect()
		check(t, "arrived", h.arrived(), "1 a 0, 2 a 1")
	})
}

// stalls is a handler with little room, emptied at random.
type stalls struct {
	l    *Link
	room int

	mu      sync.Mutex
	buf     map[string]int  // messages not consumed, by type
	waiting map[string]bool // parked by us
	got     map[string][]int
	total   int
	parks   int
	all     chan struct{}
	want    int
}

func (h *stalls) Frame(n uint64, f *wire.Frame) error {
	seq, err := strconv.Atoi(string(f.Data))
	if err != nil {
		return err
	}
	typ := string(f.Header.Type)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.buf[typ] >= h.room {
		h.waiting[typ] = true
		h.parks++
		h.l.Park(n, typ, &Refusal{Reason: "full", Text: "queue full"})
		return nil
	}
	h.buf[typ]++
	h.got[typ] = append(h.got[typ], seq)
	if h.total++; h.total == h.want {
		close(h.all)
	}
	return nil
}

func (h *stalls) Flush() error { return nil }

// consume makes room in random steps until all has arrived.
func (h *stalls) consume(r *rand.Rand, types []string) {
	tick := time.NewTicker(20 * time.Microsecond)
	defer tick.Stop()
	for {
		select {
		case <-h.all:
			return
		case <-tick.C:
		}
		typ := types[r.IntN(len(types))]
		h.mu.Lock()
		h.buf[typ] = r.IntN(h.buf[typ] + 1)
		room := h.waiting[typ] && h.buf[typ] < h.room
		if room {
			h.waiting[typ] = false
		}
		h.mu.Unlock()
		if room {
			h.l.Room(typ)
		}
	}
}

// Whatever parks whenever: each type arrives once, in order, in both directions.
func TestRandomParkingLosesDuplicatesAndReordersNothing(t *testing.T) {
	types := []string{"a", "b", "c", "d"}
	const count = 1500
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			var ca, cb net.Conn = pair(t)
			if seed%2 == 1 {
				ca, cb = net.Pipe()
			}
			var sources [2]*source
			var handlers [2]*stalls
			var ends [2]*end
			for i, conn := range []net.Conn{ca, cb} {
				s := newSource()
				s.takeMax = 1 + r.IntN(40)
				for range count {
					s.put(types[r.IntN(len(types))])
				}
				h := &stalls{room: 1 + r.IntN(20), want: count, all: make(chan struct{}),
					buf: map[string]int{}, waiting: map[string]bool{}, got: map[string][]int{}}
				sources[i], handlers[i] = s, h
				l := New(conn, wire.NewReader(conn, wire.MaxFrame), Options{ID: "x", Handler: h, Announced: true,
					Window: 1 + r.IntN(100), WindowBytes: 1 + r.IntN(10000)})
				h.l = l
				s.wake = l.Wake
				ends[i] = &end{Link: l, result: make(chan error, 1)}
			}
			var all sync.WaitGroup
			for i, e := range ends {
				all.Go(func() { e.result <- e.Run(t.Context()) })
				e.SetSource(sources[i])
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				all.Go(func() { handlers[i].consume(random, types) })
			}
			limit := time.After(time.Minute)
			for i, h := range handlers {
				select {
				case <-h.all:
				case <-limit:
					t.Errorf("side %d: %d of %d arrived in a minute", i, h.total, count)
				}
			}
			if !t.Failed() {
				for i := range sources {
					sources[i].until(t, "all are acknowledged", func() bool { return len(sources[i].done) == count })
				}
			}
			for _, e := range ends {
				e.Close(nil)
			}
			for _, h := range handlers { // a consumer of a side that failed
				h.mu.Lock()
				if h.total < count {
					close(h.all)
				}
				h.mu.Unlock()
			}
			all.Wait()
			parks := 0
			for i, h := range handlers {
				sent := map[string][]int{}
				for _, it := range sources[1-i].sent {
					sent[it.typ] = append(sent[it.typ], it.seq)
				}
				for _, typ := range types {
					if !slices.Equal(h.got[typ], sent[typ]) {
						t.Errorf("type %s: got %v, want %v", typ, h.got[typ], sent[typ])
					}
				}
				parks += h.parks
			}
			if parks == 0 {
				t.Error("nothing was ever parked")
			}
		})
	}
}
