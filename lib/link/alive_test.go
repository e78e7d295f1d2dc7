package link

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

const keepAliveAnswer = `{"message_type": "_ping", "response_id": "keep_alive_client_check", "source_id": "('127.0.0.1', 20021)"}`

// The pings are those that the original sent, to the byte and nearly to the
// moment, and so is the end when nobody answers.
func TestKeepAliveIsThatOfTheOriginal(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers bool
	}{{"keep_alive", true}, {"keep_alive_unanswered", false}} {
		t.Run(tt.name, func(t *testing.T) {
			v := mustVector(t, tt.name)
			timeout := 5 * time.Second
			if !tt.answers {
				timeout = time.Second
			}
			synctest.Test(t, func(t *testing.T) {
				started := time.Now()
				e, f := startUnread(t, Options{ID: "client1", Peer: "('127.0.0.1', 20022)",
					KeepAlive: time.Second, KeepAliveTimeout: timeout, KeepAliveMisses: 2})
				r := wire.NewReader(f.conn, wire.MaxFrame)
				for _, want := range v.Frames[1:] { // after the hello
					raw := mustHex(t, want.Hex)
					if want.Direction == "server->client" {
						if _, err := f.conn.Write(raw); err != nil {
							t.Fatal(err)
						}
						continue
					}
					var got wire.Frame
					if err := r.Next(&got); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got.Raw, raw) {
						t.Errorf("got  %q\nwant %q", got.Raw, raw)
					}
					near(t, "a ping", started, want.T)
				}
				if tt.answers {
					return
				}
				f.read()
				if err := <-e.result; !errors.Is(err, ErrKeepAlive) {
					t.Errorf("got %v, want ErrKeepAlive", err)
				}
				near(t, "the end", started, v.Closed)
			})
		})
	}
}

// near compares the time since started with one of a capture, which ran on a
// real host.
func near(t *testing.T, what string, started time.Time, want float64) {
	t.Helper()
	if got := time.Since(started).Seconds(); got < want-0.15 || got > want+0.15 {
		t.Errorf("%s after %.3f s, want %.3f s", what, got, want)
	}
}

func TestAnAnswerEndsTheCountOfMisses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, f := start(t, Options{KeepAlive: 10 * time.Second, KeepAliveTimeout: time.Second, KeepAliveMisses: 2})
		for range 5 {
			time.Sleep(11 * time.Second) // one missed
			time.Sleep(10*time.Second + time.Millisecond)
			f.send(keepAliveAnswer, "keep_alive_client_check")
		}
		if n := len(f.take()); n != 10 {
			t.Errorf("%d pings, want 10", n)
		}
		if e.over() {
			t.Error("the link ended")
		}
	})
}

// The time of a ping that was answered does not run on for the next one.
func TestEachPingHasItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		e, f := start(t, Options{KeepAlive: time.Second, KeepAliveTimeout: 1500 * time.Millisecond, KeepAliveMisses: 1})
		time.Sleep(time.Second + time.Millisecond)
		f.send(keepAliveAnswer, "")
		if err := <-e.result; !errors.Is(err, ErrKeepAlive) {
			t.Errorf("got %v, want ErrKeepAlive", err)
		}
		near(t, "the end", started, 3.5)
	})
}

func TestAnswersThatNobodyWaitsForAreTakenInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		_, f := start(t, Options{Handler: h, KeepAlive: time.Minute, KeepAliveTimeout: time.Second, KeepAliveMisses: 1})
		for range 3 {
			f.send(keepAliveAnswer, "")
			time.Sleep(15 * time.Second)
		}
		f.expect()
		time.Sleep(15 * time.Second)
		if n := len(f.take()); n != 1 {
			t.Errorf("%d pings after a minute, want 1", n)
		}
		check(t, "arrived", h.arrived(), "")
	})
}

func TestAnEndIsNudgedUntilItAnnouncesItself(t *testing.T) {
	nudge := `{"message_type": "_ping", "response_id": "keep_alive_client_check", "source_id": "near"} keep_alive_client_check`
	synctest.Test(t, func(t *testing.T) {
		_, f := start(t, Options{Nudge: true, Extensions: both})
		time.Sleep(nudgeEvery - 1)
		f.expect()
		time.Sleep(time.Nanosecond)
		f.expect(nudge)
		f.message("a", "from a plain end")
		time.Sleep(20 * nudgeEvery)
		if got := f.take(); len(got) != 20 || got[19] != nudge {
			t.Errorf("got %d frames in 20 periods: %q", len(got), got)
		}
		f.send(farAnnounces, "")
		f.take()
		time.Sleep(20 * nudgeEvery)
		f.expect()
	})
}

func TestAcknowledgementsMayWaitForCompany(t *testing.T) {
	const delay = 5 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Announced: true, Source: s, AckDelay: delay})
		f.message("a", "1")
		time.Sleep(delay)
		f.expect(acksTo(1))
		f.message("a", "2")
		f.message("a", "3")
		time.Sleep(delay - 1)
		f.expect()
		time.Sleep(time.Nanosecond)
		f.expect(acksTo(3))
		f.message("a", "4")
		s.put("b") // written anyway
		f.expect(frameOf("b", 0), acksTo(4))
		time.Sleep(10 * delay)
		f.expect()
	})
}
