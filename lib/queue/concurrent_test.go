package queue

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"aioc/lib/wire"
)

// Several goroutines put, several take, give back, close and start again. Each
// message must be finished once, and nobody may wait for ever.
func TestManyAtOnce(t *testing.T) {
	const putters, takers, each = 4, 4, 3000
	budget := NewBudget(4 * fullBlock)
	for _, limit := range []int{500, 20_000, 1 << 20} {
		t.Run(fmt.Sprint("limit ", limit), func(t *testing.T) {
			q := New(limit, budget, map[string]int{"t0": 1})
			var mu sync.Mutex
			finished, told := map[uint64]int{}, map[uint64]int{}
			stop := make(chan struct{})
			var putting, taking sync.WaitGroup
			for p := range putters {
				putting.Go(func() {
					r := rand.New(rand.NewPCG(uint64(p), 2))
					typ := fmt.Sprint("t", p%3)
					for i := range uint64(each) {
						id := uint64(p)<<32 | i
						f := message(id, 20+r.IntN(400))
						var note *Note
						if r.IntN(4) == 0 {
							note = &Note{WaitForAck: true, Done: func(err error) {
								mu.Lock()
								defer mu.Unlock()
								told[id]++
								if err != nil {
									t.Errorf("%d: %v", id, err)
								}
							}}
						}
						for {
							var err error
							if note != nil {
								err = q.PutNote(typ, f, note)
							} else {
								_, err = q.Put(typ, f)
							}
							if err == nil {
								break
							}
							room := make(chan struct{})
							q.OnRoom(typ, len(f), func() { close(room) })
							<-room
						}
					}
				})
			}
			for k := range takers {
				taking.Go(func() {
					r := rand.New(rand.NewPCG(uint64(k), 3))
					for again := true; again; {
						again = useTaker(t, q, r, stop, func(id uint64) {
							mu.Lock()
							finished[id]++
							mu.Unlock()
						})
					}
				})
			}
			empty := make(chan struct{})
			go func() {
				putting.Wait()
				q.OnEmpty(func() { close(empty) })
			}()
			select {
			case <-empty:
			case <-time.After(time.Minute):
				t.Fatalf("somebody waits for ever: %+v", q.Stats())
			}
			close(stop)
			taking.Wait()
			if len(finished) != putters*each {
				t.Errorf("%d messages were finished, want %d", len(finished), putters*each)
			}
			for id, n := range finished {
				if n != 1 {
					t.Errorf("message %x was finished %d times", id, n)
				}
			}
			for id, n := range told {
				if n != 1 {
					t.Errorf("the note of %x was told %d times", id, n)
				}
			}
			if n := budget.Used(); n != 0 {
				t.Errorf("%d bytes of the budget are left in use", n)
			}
		})
	}
}

// useTaker takes for a while with a new taker; it reports whether to go on.
func useTaker(t *testing.T, q *Queue, r *rand.Rand, stop chan struct{}, finished func(id uint64)) bool {
	ready := make(chan struct{}, 1)
	x := q.Taker(func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	}, nil)
	defer x.Close()
	hand := map[uint64]uint64{} // number to id
	for range 200 {
		var b wire.Batch
		n := x.Take(&b, 4000, 20)
		number := x.Numbered() - uint64(n)
		for _, f := range frames(&b) {
			number++
			hand[number] = idOf(f)
			if want := message(idOf(f), len(f)); string(want) != string(f) {
				t.Errorf("message %x is damaged", idOf(f))
			}
		}
		if n == 0 {
			for number, id := range hand {
				if !x.DoneOne(number, nil) {
					t.Errorf("message %x is not in hand", id)
				}
				finished(id)
			}
			clear(hand)
			select {
			case <-ready:
			case <-stop:
				return false
			}
			continue
		}
		for number, id := range hand {
			switch r.IntN(8) {
			case 0:
				park := r.IntN(2) == 0
				typ := x.Return(number, park)
				if typ == "" {
					t.Errorf("message %x is not in hand", id)
				}
				if park {
					x.Resume(typ)
				}
			case 1, 2:
				continue
			default:
				if !x.DoneOne(number, nil) {
					t.Errorf("message %x is not in hand", id)
				}
				finished(id)
			}
			delete(hand, number)
		}
	}
	return true // what is in hand goes back
}
