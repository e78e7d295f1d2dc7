package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

func TestFramesAreFinishedAsTheOtherEndSays(t *testing.T) {
	const one = `{"transport_id": %d, "message_type": "_ack"}`
	const nack = `{"transport_id": %d, "message_type": "_nack", "reason": "type", "error": "no such type"}`
	for _, tt := range []struct {
		name string
		says []string
		want string
	}{
		{"nothing finishes nothing", nil, "done ; in hand 4; waiting "},
		{"one number covers all before it", []string{`{"ackto": 3, "message_type": "_ack"}`}, "done 0 1 2; in hand 1; waiting "},
		{"the same again changes nothing", []string{`{"ackto": 3, "message_type": "_ack"}`, `{"ackto": 2, "message_type": "_ack"}`}, "done 0 1 2; in hand 1; waiting "},
		{"a single one out of order", []string{fmt.Sprintf(one, 3), fmt.Sprintf(one, 1)}, "done 2 0; in hand 2; waiting "},
		{"a single one and then all", []string{fmt.Sprintf(one, 2), `{"ackto": 4, "message_type": "_ack"}`}, "done 1 0 2 3; in hand 0; waiting "},
		{"one refused for good and then all", []string{fmt.Sprintf(nack, 2), `{"ackto": 4, "message_type": "_ack"}`}, "done 1: no such type 0 2 3; in hand 0; waiting "},
		{"an acknowledgement of what was not sent, by id", []string{fmt.Sprintf(one, 77)}, "done ; in hand 4; waiting "},
		{"ids that are no numbers", []string{`{"transport_id": "x", "message_type": "_ack"}`, `{"message_type": "_ack"}`, `{"transport_id": -1, "message_type": "_ack"}`}, "done ; in hand 4; waiting "},
		{"a single refusal for now", []string{`{"transport_id": 2, "message_type": "_nack", "park": true}`}, "done ; in hand 3; waiting 1"},
		{"a refusal of a run", []string{`{"transport_id": 2, "count": 3, "message_type": "_nack", "park": true}`}, "done ; in hand 1; waiting 1 2 3"},
		{"a run refused twice", []string{`{"transport_id": 2, "count": 2, "message_type": "_nack", "park": true}`, `{"transport_id": 2, "count": 2, "message_type": "_nack", "park": true}`}, "done ; in hand 2; waiting 1 2"},
		{"a run of none", []string{`{"transport_id": 2, "count": 0, "message_type": "_nack", "park": true}`}, "done ; in hand 4; waiting "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				_, f := start(t, Options{Announced: true, Source: s})
				s.put("a", "a", "a", "a")
				synctest.Wait()
				for _, header := range tt.says {
					f.send(header, "")
				}
				check(t, "outcome", s.outcome(), tt.want)
			})
		})
	}
}

func TestAnEndThatBreaksTheRulesLosesTheLink(t *testing.T) {
	for _, tt := range []struct {
		name, header string
	}{
		{"acknowledges what was not sent", `{"ackto": 3, "message_type": "_ack"}`},
		{"acknowledges far beyond", `{"ackto": 18446744073709551615, "message_type": "_ack"}`},
		{"refuses what was not sent", `{"transport_id": 3, "message_type": "_nack"}`},
		{"parks what was not sent", `{"transport_id": 3, "message_type": "_nack", "park": true}`},
		{"parks more than was sent", `{"transport_id": 1, "count": 3, "message_type": "_nack", "park": true}`},
		{"parks more than fits a number", `{"transport_id": 1, "count": 18446744073709551615, "message_type": "_nack", "park": true}`},
		{"parks a run beyond the end", `{"transport_id": 2, "count": 2, "message_type": "_nack", "park": true}`},
		{"refuses a text", `{"transport_id": "1", "message_type": "_nack"}`},
		{"refuses a negative number", `{"transport_id": -1, "message_type": "_nack"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				e, f := start(t, Options{Announced: true, Source: s})
				s.put("a", "a")
				synctest.Wait()
				f.send(tt.header, "")
				select {
				case err := <-e.result:
					if !errors.Is(err, ErrProtocol) {
						t.Errorf("got %v, want ErrProtocol", err)
					}
				default:
					t.Error("the link goes on")
				}
				check(t, "outcome", s.outcome(), "done ; in hand 0; waiting 0 1")
			})
		})
	}
}

// A frame of which the other end speaks while it is still being written is
// finished when the write has returned, and with what was said first.
func TestWhatIsSaidBeforeTheWriteReturnsCountsAfterwards(t *testing.T) {
	const nack = `{"transport_id": 2, "message_type": "_nack", "reason": "type", "error": "no such type"}`
	for _, tt := range []struct {
		name   string
		says   []string
		before string
		want   string
	}{
		{"all", []string{`{"ackto": 4, "message_type": "_ack"}`}, "done 0; in hand 3; waiting ", "done 0 1 2 3; in hand 0; waiting "},
		{"one", []string{`{"transport_id": 3, "message_type": "_ack"}`}, "done ; in hand 4; waiting ", "done 2; in hand 3; waiting "},
		{"one refused, then all", []string{nack, `{"ackto": 4, "message_type": "_ack"}`}, "done 0; in hand 3; waiting ", "done 0 1: no such type 2 3; in hand 0; waiting "},
		{"all, then one refused", []string{`{"ackto": 4, "message_type": "_ack"}`, nack}, "done 0; in hand 3; waiting ", "done 0 1 2 3; in hand 0; waiting "},
		{"one refused for now, then all", []string{`{"transport_id": 2, "message_type": "_nack", "park": true}`, `{"ackto": 4, "message_type": "_ack"}`}, "done 0; in hand 3; waiting ", "done 0 2 3; in hand 0; waiting 1"},
		{"a run of which one is written", []string{`{"transport_id": 1, "count": 4, "message_type": "_nack", "park": true}`}, "done ; in hand 3; waiting 0", "done ; in hand 0; waiting 0 1 2 3"},
		{"one twice", []string{nack, `{"transport_id": 2, "message_type": "_ack"}`}, "done ; in hand 4; waiting ", "done 1: no such type; in hand 3; waiting "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				s.takeMax = 3
				_, f := startUnread(t, Options{Announced: true, Source: s})
				one := mustFrame(t, `{"message_type": "a", "source_id": "near"}`, "0")
				s.put("a")
				if _, err := io.ReadFull(f.conn, make([]byte, len(one))); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()      // the first is written
				s.put("a", "a", "a") // one write, that nobody reads to its end
				if _, err := io.ReadFull(f.conn, make([]byte, len(one)+1)); err != nil {
					t.Fatal(err)
				}
				for _, header := range tt.says {
					f.send(header, "")
				}
				check(t, "while the write is under way", s.outcome(), tt.before)
				if _, err := io.ReadFull(f.conn, make([]byte, 2*len(one)-1)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				check(t, "afterwards", s.outcome(), tt.want)
			})
		})
	}
}

func TestAcknowledgementsThatArrivedBeforeAWriteFailedCount(t *testing.T) {
	a, b := pair(t)
	s := newSource()
	s.frame = func(typ string, seq int) []byte {
		return mustFrame(t, `{"message_type": "`+typ+`"}`, strings.Repeat("x", 1<<20))
	}
	s.put("a", "a", "a", "a", "a", "a", "a", "a")
	e := run(t, a, Options{Announced: true, Source: s})
	var got wire.Frame
	r := wire.NewReader(b, wire.MaxFrame)
	for range 2 {
		if err := r.Next(&got); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Write(mustFrame(t, `{"ackto": 2, "message_type": "_ack"}`, "")); err != nil {
		t.Fatal(err)
	}
	b.Close()
	<-e.result
	check(t, "outcome", s.outcome(), "done 0 1; in hand 0; waiting 2 3 4 5 6 7")
}

// gone is a connection whose other end sent its last frames and closed: a write
// fails before they are read.
type gone struct {
	net.Conn
	last []byte
	read chan struct{} // closed when a deadline is set
	shut chan struct{}
}

func (c *gone) Write([]byte) (int, error)       { return 0, syscall.EPIPE }
func (c *gone) SetReadDeadline(time.Time) error { close(c.read); return nil }
func (c *gone) Close() error {
	select {
	case <-c.shut:
	default:
		close(c.shut)
	}
	return nil
}
func (c *gone) Read(b []byte) (int, error) {
	select {
	case <-c.read:
	case <-c.shut:
		return 0, net.ErrClosed
	}
	n := copy(b, c.last)
	c.last = c.last[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestTheLastWordsOfAnEndThatIsGoneAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.put("a", "a", "a")
		h := &sink{}
		c := &gone{read: make(chan struct{}), shut: make(chan struct{})}
		c.last = append(c.last, mustFrame(t, `{"message_type": "a"}`, "too late to be acknowledged")...)
		c.last = append(c.last, mustFrame(t, `{"ackto": 2, "message_type": "_ack"}`, "")...)
		e := run(t, c, Options{Announced: true, Source: s, Handler: h})
		if err := <-e.result; !errors.Is(err, syscall.EPIPE) {
			t.Errorf("got %v, want EPIPE", err)
		}
		check(t, "outcome", s.outcome(), "done 0 1; in hand 0; waiting 2")
		check(t, "arrived", h.arrived(), "")
	})
}

func TestArrivalsAreAcknowledgedWhenTheFlushHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flushed := make(chan struct{})
		h := &sink{}
		h.onFlush = func() error {
			if h.arrived() != "" {
				<-flushed
			}
			return nil
		}
		_, f := start(t, Options{Announced: true, Handler: h})
		two := append(mustFrame(t, `{"message_type": "a"}`, "x"), mustFrame(t, `{"message_type": "a"}`, "y")...)
		if _, err := f.conn.Write(two); err != nil {
			t.Fatal(err)
		}
		f.expect() // not yet
		close(flushed)
		f.expect(acksTo(2))
		f.message("b", "z")
		f.expect(acksTo(3))
		check(t, "arrived", h.arrived(), "1 a x, 2 a y, 3 b z")
	})
}

func TestHeldMessagesAreAcknowledgedWhenSettled(t *testing.T) {
	const single = `{"message_type": "_ack", "transport_id": %d, "source_id": "near"} `
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		e, f := start(t, Options{Announced: true, Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error {
			if string(f.Data) == "hold" {
				e.Hold(n)
			}
			return nil
		}
		for _, data := range []string{"1", "hold", "3", "hold", "hold", "hold", "7"} {
			f.message("a", data)
		}
		f.expect(acksTo(1))
		e.Settle(4, nil)
		f.expect(fmt.Sprintf(single, 4)) // need not wait for the second
		e.Settle(4, nil)
		e.Settle(3, nil)
		e.Settle(99, errors.New("never held"))
		f.expect()
		e.Settle(5, &Refusal{Reason: "name", Text: "no such peer"})
		f.expect(`{"message_type": "_nack", "transport_id": 5, "reason": "name", "error": "no such peer", "source_id": "near"} `)
		e.Settle(2, nil)
		f.expect(acksTo(5))
		e.Settle(6, errors.New("program gone"))
		f.expect(`{"message_type": "_nack", "transport_id": 6, "reason": "back", "error": "program gone", "park": true, "source_id": "near"} `, acksTo(7))
	})
}

// A message that was given back parks its type at the other end, which hears at
// once that it can go on.
func TestATypeParkedByAMessageGivenBackIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		e, f := start(t, Options{Announced: true, Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error { e.Hold(n); return nil }
		f.message("a", "x")
		e.Settle(1, errors.New("program gone"))
		f.take()
		f.send(`{"message_type": "_parked"}`, "a")
		f.expect(own("_resume", "a"))
	})
}

func TestARefusedMessageIsToldBeforeTheAcknowledgementThatCoversIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		e, f := start(t, Options{Announced: true, Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error {
			e.Refuse(n, &Refusal{Reason: "type", Text: `no "a"` + "\n"})
			return nil
		}
		f.message("a", "x")
		f.expect(`{"message_type": "_nack", "transport_id": 1, "reason": "type", "error": "no \"a\"\n", "source_id": "near"} `, acksTo(1))
	})
}

func TestTheWindowBoundsWhatIsInFlight(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  Options
		set  int
	}{
		{"in frames", Options{Window: 2}, 0},
		{"as set later", Options{}, 2},
		{"in bytes", Options{WindowBytes: 100}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				s.takeMax = 1 // a batch may go beyond the bytes
				tt.opt.Announced, tt.opt.Source = true, s
				e, f := start(t, tt.opt)
				if tt.set > 0 {
					e.SetWindow(tt.set)
				}
				s.put("a", "a", "a", "a", "a")
				f.expect(frameOf("a", 0), frameOf("a", 1))
				f.ack(1)
				f.expect(frameOf("a", 2))
				f.ack(3)
				f.expect(frameOf("a", 3), frameOf("a", 4))
			})
		})
	}
}

// Frames that are refused for now make room in the window for other types.
func TestParkedFramesLeaveTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Announced: true, Source: s, Window: 4})
		s.put("a", "a", "a", "a", "b", "b", "b", "b")
		f.take()
		f.send(`{"transport_id": 1, "message_type": "_nack", "park": true}`, "")
		f.expect(own("_parked", "a"), frameOf("b", 4))
		f.send(`{"transport_id": 2, "count": 3, "message_type": "_nack", "park": true}`, "")
		f.expect(frameOf("b", 5), frameOf("b", 6), frameOf("b", 7))
	})
}
