package link

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"aioc/lib/wire"
)

// Another message's settling says nothing of one that the handler has in hand.
func TestOnlyWhatWasFlushedIsAcknowledged(t *testing.T) {
	for _, hold := range []bool{true, false} {
		t.Run(fmt.Sprintf("the second one held %v", hold), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &sink{}
				e, f := start(t, Options{Announced: true, Handler: h})
				goOn := make(chan struct{})
				h.onFrame = func(n uint64, _ *wire.Frame) error {
					if n == 2 {
						<-goOn
					}
					if n == 1 || hold {
						e.Hold(n)
					}
					return nil
				}
				two := append(mustFrame(t, `{"message_type": "a"}`, "1"), mustFrame(t, `{"message_type": "a"}`, "2")...)
				if _, err := f.conn.Write(two); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				e.Settle(1, nil)
				if got := f.take(); slices.Contains(got, acksTo(2)) {
					t.Errorf("while the handler has the second one, the other end read %q", got)
				}
				goOn <- struct{}{}
				got := f.take()
				if !hold {
					if !slices.Equal(got, []string{acksTo(2)}) {
						t.Errorf("after the flush the other end read %q", got)
					}
					return
				}
				if slices.Contains(got, acksTo(2)) {
					t.Errorf("with the second one held, the other end read %q", got)
				}
				e.Settle(2, nil)
				f.expect(acksTo(2))
			})
		})
	}
}

func TestHeldMessagesMayBeSettledInAnyOrder(t *testing.T) {
	const many = 5000
	orders := map[string][]int{"forwards": nil, "backwards": nil, "the first last": nil, "at random": rand.Perm(many)}
	for i := range many {
		orders["forwards"] = append(orders["forwards"], i)
		orders["backwards"] = append(orders["backwards"], many-1-i)
		orders["the first last"] = append(orders["the first last"], (i+1)%many)
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &sink{}
				e, f := start(t, Options{Announced: true, Handler: h})
				h.onFrame = func(n uint64, _ *wire.Frame) error {
					e.Hold(n)
					return nil
				}
				var all []byte
				for range many {
					all = append(all, mustFrame(t, `{"message_type": "a"}`, "")...)
				}
				if _, err := f.conn.Write(all); err != nil {
					t.Fatal(err)
				}
				f.expect()
				settled := make([]bool, many)
				open := 0 // the first that is not settled
				for k, i := range order {
					e.Settle(uint64(i)+1, nil)
					e.Settle(uint64(i)+1, nil) // once more says nothing
					settled[i] = true
					for open < many && settled[open] {
						open++
					}
					if k%1000 == 999 {
						for _, got := range f.take() {
							var to int
							if _, err := fmt.Sscanf(got, `{"ackto": %d,`, &to); err == nil && to > open {
								t.Fatalf("acknowledged up to %d, settled up to %d", to, open)
							}
						}
					}
				}
				f.take()
				e.mu.Lock()
				acked, holds := e.acked, len(e.holds)
				e.mu.Unlock()
				if acked != many || holds != 0 {
					t.Errorf("acknowledged up to %d, %d held; want %d and none", acked, holds, many)
				}
			})
		})
	}
}

// Same means for a handler: as in the last frame that it was given.
func TestAHandlerIsNotToldThatAHeaderIsTheSameAsOneItHasNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		var e *end
		var same []string
		h.onFrame = func(n uint64, f *wire.Frame) error {
			same = append(same, fmt.Sprintf("%d %v", n, f.Same))
			if n == 1 {
				e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
			}
			return nil
		}
		near, other := net.Pipe()
		f := &far{t: t, conn: other}
		t.Cleanup(func() { other.Close() })
		e = runUpTo(t, near, 200, Options{Announced: true, Handler: h})
		f.read()
		const forged = `{"message_type": "a", "source_id": "victim"}`
		f.message("a", "1")
		f.send(`{"message_type": "_parked"}`, "a")
		f.message("b", "2")
		f.send(forged, "3") // refused: the handler does not see it
		e.Room("a")
		f.send(forged, "4")
		f.send(forged, "5")
		f.send(`{"message_type": "c"}`, strings.Repeat("x", 300)) // too big
		f.send(`{"message_type": "c"}`, "7")
		f.send(`{"message_type": "c"}`, "8")
		want := []string{"1 false", "2 false", "4 false", "5 true", "7 false", "8 true"}
		if !slices.Equal(same, want) {
			t.Errorf("got %q, want %q", same, want)
		}
	})
}

func TestAMessageThatIsTooBigIsRefusedAndTheLinkGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		var told []string
		near, other := net.Pipe()
		f := &far{t: t, conn: other}
		t.Cleanup(func() { other.Close() })
		e := runUpTo(t, near, 200, Options{Announced: true, Handler: h, TooBig: func(f *wire.Frame) {
			told = append(told, fmt.Sprintf("%s %d", f.Header.Type, f.TooBig))
		}})
		f.read()
		f.message("a", "1")
		f.expect(acksTo(1))
		big := mustFrame(t, `{"message_type": "b"}`, strings.Repeat("x", 1000))
		stream := slices.Concat(mustFrame(t, `{"message_type": "a"}`, "2"), big, mustFrame(t, `{"message_type": "a"}`, "4"))
		if _, err := f.conn.Write(stream); err != nil {
			t.Fatal(err)
		}
		got := f.take()
		text := fmt.Sprintf(`"reason": "size", "error": "message of %d bytes is larger than max_message_size", "source_id"`, len(big))
		refused := slices.IndexFunc(got, func(s string) bool {
			return strings.Contains(s, `"_nack", "transport_id": 3, `+text)
		})
		covered := slices.Index(got, acksTo(4))
		if refused < 0 || covered < refused {
			t.Errorf("got %q, want the refusal of 3, then the acknowledgement up to 4", got)
		}
		check(t, "arrived", h.arrived(), "1 a 1, 2 a 2, 4 a 4")
		check(t, "told", strings.Join(told, ", "), fmt.Sprintf("b %d", len(big)))
		// What is no message cannot be refused.
		f.send(`{"message_type": "_consume"}`, strings.Repeat("x", 1000))
		if err := <-e.result; !errors.Is(err, wire.ErrTooBig) {
			t.Errorf("got %v, want %v", err, wire.ErrTooBig)
		}
	})
}

func TestAPingIsAnsweredUpToItsLimit(t *testing.T) {
	const header = `{"message_type": "_ping", "await_response": true, "request_id": 1}`
	for _, more := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d above", more), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, f := start(t, Options{Announced: true})
				f.send(header, strings.Repeat("x", PingMax-wire.Size(len(header), 0, 0)+more))
				if more == 0 {
					if got := f.take(); len(got) != 1 || !strings.Contains(got[0], `"response_id": 1`) {
						t.Errorf("got %d frames, want the answer", len(got))
					}
					return
				}
				if err := <-e.result; !errors.Is(err, ErrProtocol) {
					t.Errorf("got %v, want %v", err, ErrProtocol)
				}
			})
		})
	}
}

// What others send by way of a link cannot end it: it is refused.
func TestFramesOnBehalfOfOthersAreRefusedWhenNothingIsRead(t *testing.T) {
	header := []byte(`{"message_type": "a"}`)
	raw := mustFrame(t, string(header), strings.Repeat("x", 1<<20))
	for name, send := range map[string]func(l *Link) error{
		"frames":  func(l *Link) error { return l.SendFrame(raw) },
		"headers": func(l *Link) error { return l.SendRaw(header, make([]byte, 1<<20), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, f := startUnread(t, Options{Announced: true})
				synctest.Wait()
				var err error
				n := 0
				for ; err == nil && n < 100; n++ {
					err = send(e.Link)
					synctest.Wait()
				}
				if !errors.Is(err, ErrBusy) || n > controlCap>>20 {
					t.Errorf("frame %d: got %v, want %v", n, err, ErrBusy)
				}
				if e.over() {
					t.Fatal("the link has ended")
				}
				f.read()
				f.take()
				if err := send(e.Link); err != nil {
					t.Errorf("after all was read: %v", err)
				}
			})
		})
	}
}

// Messages in hand are bounded by number for who asked for a number, however
// big they are.
func TestAWindowThatWasAskedForIsTheOnlyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.takeMax = 1
		e, f := start(t, Options{Announced: true, Source: s, WindowBytes: 100})
		s.put(slices.Repeat([]string{"a"}, 20)...)
		if n := len(f.take()); n >= 10 {
			t.Errorf("got %d messages in a window of 100 bytes", n)
		}
		e.SetWindow(10)
		f.take()
		synctest.Wait()
		check(t, "outcome", s.outcome(), "done ; in hand 10; waiting 10 11 12 13 14 15 16 17 18 19")
		f.send(`{"transport_id": 7, "message_type": "_ack"}`, "")
		check(t, "outcome", s.outcome(), "done 6; in hand 10; waiting 11 12 13 14 15 16 17 18 19")
	})
}

// A type that the handler parks with what came before a _parked is answered by
// it, so that it is resumed when there is room.
func TestWhatCameBeforeParkedIsHandledBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		var e *end
		var run []uint64
		h.onFrame = func(n uint64, _ *wire.Frame) error {
			run = append(run, n)
			return nil
		}
		h.onFlush = func() error {
			for _, n := range run {
				e.Park(n, "a", &Refusal{Reason: "full", Text: "queue full"})
			}
			run = nil
			return nil
		}
		l, f := start(t, Options{Announced: true, Handler: h})
		e = l
		stream := append(mustFrame(t, `{"message_type": "a"}`, "1"), mustFrame(t, `{"message_type": "_parked"}`, "a")...)
		if _, err := f.conn.Write(stream); err != nil {
			t.Fatal(err)
		}
		if got := f.take(); slices.Contains(got, own("_resume", "a")) {
			t.Errorf("resumed before there is room: %q", got)
		}
		if !e.Refusing("a") || e.Refusing("b") {
			t.Errorf("refusing a %v, b %v; want a alone", e.Refusing("a"), e.Refusing("b"))
		}
		e.Room("a")
		f.expect(own("_resume", "a"))
		if e.Refusing("a") {
			t.Error("refusing after the resume")
		}
	})
}
