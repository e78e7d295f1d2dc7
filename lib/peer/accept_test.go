package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

// pipes is a net.Listener whose connections are net.Pipes, for tests with a
// clock of their own.
type pipes struct {
	conns  chan net.Conn
	errs   chan error // what Accept returns before any connection
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), errs: make(chan error, 100), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case err := <-p.errs:
		return nil, err
	default:
	}
	select {
	case c := <-p.conns:
		return c, nil
	case err := <-p.errs:
		return nil, err
	case <-p.closed:
		return nil, &net.OpError{Op: "accept", Err: net.ErrClosed}
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// connect returns the client's end of a new connection.
func (p *pipes) connect() net.Conn {
	near, far := net.Pipe()
	p.conns <- far
	return near
}

func TestSilenceAndSlownessEndAfterTenSeconds(t *testing.T) {
	for _, test := range []struct {
		name string
		tls  bool
		send func(l *Listener, c net.Conn)
	}{
		{"silence", false, func(*Listener, net.Conn) {}},
		{"silence where TLS is expected", true, func(*Listener, net.Conn) {}},
		{"half a frame", false, func(l *Listener, c net.Conn) { b := hello(l, "client1"); c.Write(b[:len(b)/2]) }},
		{"a frame but for its last byte", false, func(l *Listener, c net.Conn) { b := hello(l, "client1"); c.Write(b[:len(b)-1]) }},
		{"half a TLS record", true, func(l *Listener, c net.Conn) { c.Write([]byte{22, 3, 1, 2, 0, 1}) }},
		{"a TLS handshake without a hello", true, func(l *Listener, c net.Conn) {
			t := tlsClient(c)
			t.Handshake()
			io.Copy(io.Discard, t) // net.Pipe has no buffer
		}},
		{"a byte a second", false, func(l *Listener, c net.Conn) {
			for _, b := range hello(l, "client1") {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cert := serverTLS(t)
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				o := Options{Config: testConfig(test.tls), Listener: ln}
				if test.tls {
					o.TLS = cert
				}
				s := start(t, o, nil)
				began := time.Now()
				c := ln.connect()
				defer c.Close()
				var sender sync.WaitGroup
				sender.Go(func() { test.send(s.Listener, c) })
				if got := <-s.refused; got != ReasonSlow {
					t.Errorf("reason: got %q, want %q", got, ReasonSlow)
				}
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("it took %v, want 10 s", took)
				}
				c.Close()
				sender.Wait()
				s.end()
				none(t, "identified", s.conns)
				lines := s.log.lines(t, slog.LevelInfo)
				if len(lines) != 1 || !strings.Contains(lines[0].Err, "no whole hello within 10s") {
					t.Errorf("log: got %+v", lines)
				}
			})
		})
	}
}

func TestAnIdentifiedConnectionHasNoDeadline(t *testing.T) {
	for _, withTLS := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", withTLS), func(t *testing.T) {
			cert := serverTLS(t)
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				o := Options{Config: testConfig(withTLS), Listener: ln}
				near := net.Conn(nil)
				if withTLS {
					o.TLS = cert
				}
				s := start(t, o, nil)
				near = ln.connect()
				if withTLS {
					near = tlsClient(near)
				}
				defer near.Close()
				near.Write(hello(s.Listener, "client1"))
				conn := <-s.conns
				<-time.After(time.Hour) // of the test's own clock
				go near.Write(frame(`{"message_type": "any"}`, "late"))
				var f wire.Frame
				if err := conn.Reader.Next(&f); err != nil || string(f.Data) != "late" {
					t.Errorf("got %q, %v, want late", f.Data, err)
				}
				none(t, "refused", s.refused)
			})
		})
	}
}

func TestAProbeIsNoFailure(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		for _, how := range []string{"closed", "reset"} {
			t.Run(how, func(t *testing.T) {
				s := start(t, Options{Config: testConfig(withTLS)}, nil)
				for range 20 {
					c := dialTo(t, s.Listener).(*net.TCPConn)
					if how == "reset" {
						c.SetLinger(0)
					}
					c.Close()
				}
				until(t, "20 lines of debugging", func() bool { return len(s.log.lines(t, slog.LevelDebug)) == 20 })
				s.end()
				none(t, "refused", s.refused)
				if got := s.log.lines(t, slog.LevelInfo); len(got) > 0 {
					t.Errorf("log: got %+v, want nothing above debug", got)
				}
			})
		}
	})
}

func TestHalfAHelloAndTheEndIsAFailure(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		c := reach(t, s.Listener)
		if _, err := c.Write(hello(s.Listener, "client1")[:20]); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if got := wait(t, "reason", s.refused); got != ReasonLost {
			t.Errorf("got %q, want %q", got, ReasonLost)
		}
	})
}

func TestAnHonestClientGetsThroughAFlood(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		c := testConfig(withTLS)
		c.MaxUnidentified = 20
		s := start(t, Options{Config: c}, nil)
		const flood = 120
		var silent []net.Conn
		for i := range flood {
			silent = append(silent, dialTo(t, s.Listener))
			if i%40 == 39 {
				honest := reach(t, s.Listener)
				name := fmt.Sprint("client", i)
				if _, err := honest.Write(hello(s.Listener, name)); err != nil {
					t.Fatal(err)
				}
				if got := wait(t, "identified", s.conns); got.Name != name {
					t.Errorf("got %q, want %q", got.Name, name)
				}
			}
		}
		// The oldest went, and their clients know.
		for range flood - c.MaxUnidentified {
			if got := wait(t, "reason", s.refused); got != ReasonCrowd {
				t.Errorf("got %q, want %q", got, ReasonCrowd)
			}
		}
		for _, c := range silent[:flood-c.MaxUnidentified-3] {
			ended(t, c)
		}
		s.end()
		if got := s.log.lines(t, slog.LevelInfo); len(got) > 5 {
			t.Errorf("log: %d lines, want few: %+v", len(got), got)
		}
	})
}

func TestAThousandHalfOpenConnectionsCostLittleMemory(t *testing.T) {
	ln := newPipes()
	s := start(t, Options{Config: testConfig(false), Listener: ln}, nil)
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := memory()
	// The worst frame that can be begun: all but its last byte.
	most := announced(wire.MaxUnidentified-4, make([]byte, wire.MaxUnidentified-5)...)
	var clients []net.Conn
	var wg sync.WaitGroup
	for range 1000 {
		c := ln.connect()
		clients = append(clients, c)
		wg.Go(func() { c.Write(most) })
	}
	wg.Wait()
	after := memory()
	t.Logf("memory grew by %d KiB", (after-min(before, after))>>10)
	if after > before+64<<20 {
		t.Errorf("memory grew by %d MiB, want less than 64", (after-before)>>20)
	}
	for range 1000 - 512 {
		if got := wait(t, "reason", s.refused); got != ReasonCrowd {
			t.Errorf("got %q, want %q", got, ReasonCrowd)
		}
	}
	for _, c := range clients {
		c.Close()
	}
	s.end()
	if got := s.log.lines(t, slog.LevelInfo); len(got) > 10 {
		t.Errorf("log: %d lines, want few", len(got))
	}
}

func TestTheGateCountsBytes(t *testing.T) {
	conn := func() net.Conn { near, _ := net.Pipe(); return near }
	t.Run("one sends too much", func(t *testing.T) {
		g := newGate(10)
		s := g.enter(conn())
		if err := g.add(s, maxHandshake); err != nil {
			t.Errorf("at the limit: got %v", err)
		}
		if err := g.add(s, 1); !errors.Is(err, errHandshake) {
			t.Errorf("past it: got %v, want %v", err, errHandshake)
		}
	})
	t.Run("all together send too much", func(t *testing.T) {
		g := newGate(10)
		g.maxBytes = 100
		small, big, last := g.enter(conn()), g.enter(conn()), g.enter(conn())
		for _, step := range []struct {
			s *stranger
			n int
		}{{small, 30}, {big, 40}, {last, 30}, {last, 1}} {
			if err := g.add(step.s, step.n); err != nil {
				t.Fatal(err)
			}
		}
		if g.leave(big) {
			t.Error("the one who sent most is still there")
		}
		if !g.leave(small) || !g.leave(last) {
			t.Error("another one went")
		}
		if g.bytes != 0 || g.guests.Len() != 0 {
			t.Errorf("%d bytes of %d strangers are left", g.bytes, g.guests.Len())
		}
	})
	t.Run("who was pushed out reads no more", func(t *testing.T) {
		g := newGate(1)
		near, far := net.Pipe()
		first := g.enter(far)
		second := g.enter(conn())
		if _, err := near.Write([]byte{1}); err == nil {
			t.Error("the connection is open")
		}
		if err := g.add(first, 1); err == nil {
			t.Error("add: no error")
		}
		if g.leave(first) || !g.leave(second) || g.leave(second) {
			t.Error("the wrong one is there")
		}
	})
	t.Run("who is served stays, but not more than half", func(t *testing.T) {
		g := newGate(4)
		var all []*stranger
		for range 4 {
			all = append(all, g.enter(conn()))
		}
		for _, s := range all[:3] {
			for range 2 { // the second time changes nothing
				if !g.serve(s, 3) {
					t.Error("serve: not in")
				}
			}
		}
		if got := g.served.Len(); got != 2 {
			t.Errorf("%d are served, want 2", got)
		}
		g.enter(conn())
		g.enter(conn())
		if g.serve(all[2], 3) || g.leave(all[3]) {
			t.Error("who is not served is still there")
		}
		g.unserve(all[0])
		if !g.serve(all[0], 0) || g.served.Len() != 1 {
			t.Error("who was served is not among the others")
		}
		for range 3 {
			g.enter(conn())
		}
		if g.leave(all[0]) || !g.leave(all[1]) {
			t.Error("the wrong one is there")
		}
		if g.served.Len() != 0 || g.guests.Len() != 3 {
			t.Errorf("%d and %d are left, want 0 and 3", g.served.Len(), g.guests.Len())
		}
	})
	t.Run("who is served counts its bytes, and ends with the gate", func(t *testing.T) {
		g := newGate(4)
		g.maxBytes = 10
		near1, far1 := net.Pipe()
		near2, far2 := net.Pipe()
		big, other := g.enter(far1), g.enter(far2)
		g.serve(big, 2)
		g.serve(other, 2)
		if err := g.add(big, 11); err != nil {
			t.Error(err)
		}
		if g.leave(big) || g.bytes != 0 {
			t.Errorf("who sent too much is still there, %d bytes are counted", g.bytes)
		}
		g.close()
		for _, c := range []net.Conn{near1, near2} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("got %v, want EOF", err)
			}
		}
	})
	t.Run("a closed gate closes who comes", func(t *testing.T) {
		g := newGate(2)
		near1, far1 := net.Pipe()
		g.enter(far1)
		g.close()
		near2, far2 := net.Pipe()
		g.enter(far2)
		for _, c := range []net.Conn{near1, near2} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("got %v, want EOF", err)
			}
		}
	})
}

func TestAFailureToAcceptIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		emfile := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
		s := start(t, Options{Config: testConfig(false), Listener: ln}, nil)
		began := time.Now()
		silent := ln.connect()
		defer silent.Close()
		synctest.Wait()
		for range 12 {
			ln.errs <- emfile
		}
		c := ln.connect()
		defer c.Close()
		// 5 ms, doubled up to 1 s: 5+10+20+40+80+160+320+640, and 4 times 1 s.
		if took := time.Since(began); took != 5275*time.Millisecond {
			t.Errorf("the pauses took %v", took)
		}
		if got := <-s.refused; got != ReasonCrowd {
			t.Errorf("too many open files: the oldest is %q, want %q", got, ReasonCrowd)
		}
		c.Write(hello(s.Listener, "client1"))
		<-s.conns
		s.end()
		// The first failure, the silent one, and the other failures.
		lines := s.log.lines(t, slog.LevelInfo)
		if len(lines) != 3 || lines[0].Msg != "accept failed" || !strings.Contains(lines[0].Err, "too many open files") ||
			lines[2].Msg != "accept failed" || lines[2].N != 11 {
			t.Errorf("log: got %+v", lines)
		}
	})
}

func TestServeEndsWithItsContextAndLeavesNothing(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		serverTLS(t)
		before := runtime.NumGoroutine()
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		for i := range 5 {
			dialTo(t, s.Listener) // silent
			half := []byte{22, 3, 1, 0, 200, 1}
			if !withTLS {
				half = hello(s.Listener, "half")[:20]
			}
			dialTo(t, s.Listener).Write(half)
			c := reach(t, s.Listener)
			if _, err := c.Write(hello(s.Listener, fmt.Sprint("client", i))); err != nil {
				t.Fatal(err)
			}
			wait(t, "identified", s.conns)
		}
		addr := s.Addr().String()
		if err := s.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: got %v, want %v", err, context.Canceled)
		}
		goroutines(t, before)
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Error("it still listens")
		}
		// That it ended is nobody's failure.
		if got := s.log.lines(t, slog.LevelInfo); len(got) > 0 {
			t.Errorf("log: got %+v, want nothing", got)
		}
		none(t, "refused", s.refused)
	})
}

func TestServeWaitsForNoStranger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		s := start(t, Options{Config: testConfig(false), Listener: ln}, nil)
		defer ln.connect().Close()
		synctest.Wait()
		began := time.Now()
		s.end()
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v to end", took)
		}
	})
}

func TestCloseEndsAcceptingAndNotTheConnections(t *testing.T) {
	s := start(t, Options{Config: testConfig(false)}, nil)
	c := dialTo(t, s.Listener)
	c.Write(hello(s.Listener, "client1"))
	conn := wait(t, "identified", s.conns)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	go c.Write(frame(`{"message_type": "any"}`, "still here"))
	var f wire.Frame
	if err := conn.Reader.Next(&f); err != nil || string(f.Data) != "still here" {
		t.Errorf("got %q, %v", f.Data, err)
	}
	if err := s.end(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: got %v", err)
	}
}
