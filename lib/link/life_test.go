package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

func TestWhyALinkEnds(t *testing.T) {
	broken := errors.New("handler broken")
	for _, tt := range []struct {
		name string
		h    *sink
		do   func(t *testing.T, e *end, f *far)
		want error
	}{
		{"closed", &sink{}, func(t *testing.T, e *end, f *far) { e.Close(nil) }, ErrClosed},
		{"closed for a reason, and once more", &sink{}, func(t *testing.T, e *end, f *far) { e.Close(broken); e.Close(nil) }, broken},
		{"context", &sink{}, func(t *testing.T, e *end, f *far) { e.cancel() }, context.Canceled},
		{"closed by the other end", &sink{}, func(t *testing.T, e *end, f *far) { f.conn.Close(); f.conn.Close() }, io.EOF},
		{"closed within a frame", &sink{}, func(t *testing.T, e *end, f *far) {
			if _, err := f.conn.Write([]byte("\x40\x00")); err != nil {
				t.Fatal(err)
			}
			f.conn.Close()
		}, io.ErrUnexpectedEOF},
		{"a frame that is none", &sink{}, func(t *testing.T, e *end, f *far) {
			if _, err := f.conn.Write([]byte("\x00\x00\x00\x00")); err != nil {
				t.Fatal(err)
			}
		}, wire.ErrFrame},
		{"a header that is none", &sink{}, func(t *testing.T, e *end, f *far) { f.send("[1]", "") }, wire.ErrHeader},
		{"the handler fails", &sink{onFrame: func(uint64, *wire.Frame) error { return broken }}, func(t *testing.T, e *end, f *far) { f.message("a", "") }, broken},
		{"the flush fails", &sink{onFlush: func() error { return broken }}, func(t *testing.T, e *end, f *far) {}, broken},
		{"finished", &sink{}, func(t *testing.T, e *end, f *far) { e.Finish(); e.Finish() }, ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				s.put("a")
				e, f := start(t, Options{Announced: true, Source: s, Handler: tt.h})
				synctest.Wait()
				tt.do(t, e, f)
				if err := <-e.result; !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				<-e.Done()
				if s.closed != 1 {
					t.Errorf("the source was closed %d times", s.closed)
				}
				if err := e.Send(nil, nil, nil); err == nil {
					t.Error("Send on an ended link succeeded")
				}
				e.Close(nil)
				e.Finish()
				e.Wake()
				synctest.Wait()
				if len(s.after) > 0 || len(s.hand) > 0 {
					t.Errorf("after the source was closed: %q, %d in hand", s.after, len(s.hand))
				}
			})
		})
	}
}

func TestALinkClosedBeforeItRunsEndsAtOnce(t *testing.T) {
	a, b := pair(t)
	s := newSource()
	s.put("a")
	l := New(a, wire.NewReader(a, wire.MaxFrame), Options{Handler: &sink{}, Source: s, KeepAlive: time.Second, Nudge: true, Extensions: both})
	l.Close(nil)
	if err := l.Run(t.Context()); err != ErrClosed {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("the other end read %d bytes, %v", n, err)
	}
	if s.closed != 1 {
		t.Errorf("the source was closed %d times", s.closed)
	}
}

func TestFinishWritesTheRepliesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &sink{}
		s := newSource()
		e, f := startUnread(t, Options{Announced: true, Source: s, Handler: h})
		h.onFrame = func(n uint64, f *wire.Frame) error {
			e.Refuse(n, &Refusal{Reason: "type", Text: "no such type"})
			return e.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"_nack"`)}}, []byte("bye"), nil)
		}
		f.message("a", "x")
		e.Finish()
		s.put("b") // is not taken any more
		f.read()
		<-e.result
		all := strings.Join(f.take(), "\n")
		for _, want := range []string{own("_nack", "bye"), `"transport_id": 1`, acksTo(1)} {
			if !strings.Contains(all, want) {
				t.Errorf("%q is missing in %q", want, all)
			}
		}
		check(t, "outcome", s.outcome(), "done ; in hand 0; waiting 0")
	})
}

func TestNoGoroutineIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		a, b := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i, conn := range []net.Conn{a, b} {
			s := newSource()
			s.put("a", "b", "a")
			l := New(conn, wire.NewReader(conn, wire.MaxFrame), Options{ID: "x", Handler: &sink{}, Source: s, Extensions: both, Dialled: i == 0,
				KeepAlive: time.Millisecond, KeepAliveTimeout: time.Second, KeepAliveMisses: 2, Nudge: true, AckDelay: time.Millisecond})
			s.wake = l.Wake
			all.Go(func() { l.Run(ctx) })
			if i == 0 {
				s.until(t, "a first one is written", func() bool { return s.taken > 0 })
			}
		}
		cancel()
		all.Wait()
	}
	limit := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(limit) {
		runtime.Gosched() // those that ended are still counted for a moment
	}
	if n := runtime.NumGoroutine(); n > before {
		buf := make([]byte, 1<<16)
		t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
	}
}

func TestASourceMayComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, f := start(t, Options{Announced: true})
		s, other := newSource(), newSource()
		s.put("a")
		other.put("b")
		s.wake = e.Wake
		e.SetSource(s)
		e.SetSource(other) // only the first counts
		f.expect(frameOf("a", 0))
	})
}

func TestWhatIsSentOnBehalfOfOthersIsUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, f := start(t, Options{Announced: true})
		if err := e.SendFrame(mustFrame(t, `{"message_type":"a",  "x":NaN}`, "data")); err != nil {
			t.Fatal(err)
		}
		if err := e.SendFrame([]byte("no frame")); err == nil {
			t.Error("SendFrame took what is no frame")
		}
		if err := e.SendRaw([]byte(`{"message_type": "b"}`), []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		f.expect(`{"message_type":"a",  "x":NaN} data`, `{"message_type": "b"} x`)
	})
}

// stuck is a connection that takes a piece of each write only now and then.
type stuck struct {
	net.Conn
	every time.Duration // 0: never
	piece int
	end   time.Time // deadline
	mu    sync.Mutex
	sum   int
	shut  chan struct{}
	once  sync.Once
}

func (c *stuck) SetWriteDeadline(t time.Time) error { c.end = t; return nil }
func (c *stuck) SetReadDeadline(t time.Time) error {
	time.AfterFunc(time.Until(t), func() { c.Close() })
	return nil
}
func (c *stuck) Read([]byte) (int, error) { <-c.shut; return 0, net.ErrClosed }
func (c *stuck) Close() error             { c.once.Do(func() { close(c.shut) }); return nil }
func (c *stuck) Write(b []byte) (n int, err error) {
	for n < len(b) {
		wait := time.Until(c.end)
		moves := c.every > 0 && c.every < wait
		if moves {
			wait = c.every
		}
		select {
		case <-time.After(wait):
		case <-c.shut:
			return n, net.ErrClosed
		}
		if !moves {
			return n, os.ErrDeadlineExceeded
		}
		k := min(c.piece, len(b)-n)
		n += k
		c.mu.Lock()
		c.sum += k
		c.mu.Unlock()
	}
	return n, nil
}

func TestAStuckEndLosesTheLinkAndASlowOneDoesNot(t *testing.T) {
	const size = 10 << 20
	for _, tt := range []struct {
		name  string
		every time.Duration
		ended bool
	}{{"stuck", 0, true}, {"128 kbit/s", 16 * time.Second, false}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				s.frame = func(string, int) []byte { return mustFrame(t, `{"message_type": "a"}`, strings.Repeat("x", size)) }
				s.put("a")
				c := &stuck{every: tt.every, piece: 256 << 10, shut: make(chan struct{})}
				started := time.Now()
				e := run(t, c, Options{Announced: true, Source: s, WriteTimeout: 50 * time.Second})
				if !tt.ended {
					time.Sleep(20 * time.Minute)
					synctest.Wait()
					if c.sum < size || e.over() {
						t.Errorf("%d of %d bytes went out, ended %v", c.sum, size, e.over())
					}
					return
				}
				if err := <-e.result; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want a timeout", err)
				}
				if d := time.Since(started); d < 50*time.Second || d > 52*time.Second {
					t.Errorf("ended after %v, want 50 s", d)
				}
				check(t, "outcome", s.outcome(), "done ; in hand 0; waiting 0")
			})
		})
	}
}

// An end that asks for replies and reads none is not read from any more; where
// the replies are made by others, it loses the link.
func TestAnEndThatReadsNoReplies(t *testing.T) {
	t.Run("a flood of pings is not read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, f := startUnread(t, Options{})
			flood := mustFrame(t, `{"message_type": "_ping", "await_response": true, "request_id": 1}`, strings.Repeat("x", 4<<10))
			written := 0
			go func() {
				for {
					n, err := f.conn.Write(flood)
					written += n
					if err != nil {
						return
					}
				}
			}()
			time.Sleep(time.Hour)
			synctest.Wait()
			if written < controlMax/2 || written > 4*controlMax {
				t.Errorf("%d bytes of pings were read", written)
			}
			e.mu.Lock()
			waiting := len(e.out)
			e.mu.Unlock()
			if waiting > 4*controlMax {
				t.Errorf("%d bytes of answers wait", waiting)
			}
		})
	})
	t.Run("replies of others fill up to a limit", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, _ := startUnread(t, Options{})
			synctest.Wait()
			data := make([]byte, 1<<20)
			n := 0
			for ; n < 100; n++ {
				if err := e.Send(nil, data, nil); err != nil {
					break
				}
				synctest.Wait()
			}
			if n < controlCap>>20 || n > controlCap>>20+3 {
				t.Errorf("%d MiB were taken, want %d", n, controlCap>>20)
			}
			if err := <-e.result; !errors.Is(err, ErrProtocol) {
				t.Errorf("got %v, want ErrProtocol", err)
			}
		})
	})
}

// What an end says of frames that are being written takes bounded memory, and
// so does the text of a refusal.
func TestWordsOnFramesBeingWrittenAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		e, f := startUnread(t, Options{Announced: true, Source: s})
		s.put("a", "a")
		synctest.Wait() // nobody reads them
		header := fmt.Sprintf(`{"transport_id": 2, "message_type": "_nack", "reason": "%s", "error": "%[1]s"}`, strings.Repeat("é", 10000))
		for range 100 {
			f.send(header, "")
			f.send(`{"transport_id": 1, "message_type": "_ack"}`, "")
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		if n := len(e.late.one); n != 2 {
			t.Errorf("%d words are kept, want 2", n)
		}
		why := &Refusal{}
		if !errors.As(e.late.one[2].err, &why) || len(why.Text) != textMax || len(why.Reason) != textMax {
			t.Errorf("%d and %d bytes of a refusal are kept, want %d", len(why.Reason), len(why.Text), textMax)
		}
	})
}

// steady is a Source that gives the same frame as often as it is allowed.
type steady struct {
	mu    sync.Mutex
	frame []byte
	left  int
	taken uint64
	done  uint64
	all   chan struct{}
}

func (s *steady) Take(b *wire.Batch, max, count int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n < count && s.left > 0 && b.Bytes < max {
		b.Add(s.frame, 1)
		n++
		s.left--
	}
	s.taken += uint64(n)
	return n
}

func (s *steady) Done(n uint64, acked bool) (finished int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.done {
		finished = int(n - s.done)
		s.done = n
		if s.left == 0 && s.done == s.taken {
			s.all <- struct{}{}
		}
	}
	return finished
}

func (s *steady) DoneOne(uint64, error) bool           { return false }
func (s *steady) Return(uint64, bool, *Refusal) string { return "" }
func (s *steady) Resume(string)                        {}
func (s *steady) Close()                               {}

// flow runs two links over a Unix socket and returns a function that sends so
// many messages and waits until all are acknowledged.
func flow(tb testing.TB, size int) func(n int) {
	a, b := pair(tb)
	s := &steady{all: make(chan struct{}, 1)}
	raw, err := wire.AppendFrame(nil, []byte(`{"message_type": "reading", "source_id": "pump7", "destination_id": "('127.0.0.1', 10673)"}`), make([]byte, size), nil)
	if err != nil {
		tb.Fatal(err)
	}
	s.frame = raw
	e := run(tb, a, Options{Announced: true, Source: s})
	run(tb, b, Options{Announced: true, Handler: idle{}})
	return func(n int) {
		s.mu.Lock()
		s.left = n
		s.mu.Unlock()
		e.Wake()
		<-s.all
	}
}

type idle struct{}

func (idle) Frame(uint64, *wire.Frame) error { return nil }
func (idle) Flush() error                    { return nil }

func TestAMessageCostsNoAllocation(t *testing.T) {
	const count = 20000
	send := flow(t, 100)
	send(count) // buffers grow
	if n := testing.AllocsPerRun(5, func() { send(count) }); n > count/10 {
		t.Errorf("%v allocations for %d messages, want at most %d", n, count, count/10)
	}
}

func BenchmarkUnix(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size, " bytes"), func(b *testing.B) {
			send := flow(b, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			send(b.N)
		})
	}
}
