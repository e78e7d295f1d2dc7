package peer

import (
	"context"
	"crypto/tls"
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

	"aioc/lib/config"
	"aioc/lib/wire"
)

// client is a Dialer that runs.
type client struct {
	*Dialer
	log   *journal
	conns chan *Conn // each stays up until drop
	drop  chan error // ends the connection that is up
	end   func() error
}

// run runs a Dialer until the test ends, or end is called, which returns what Run
// returned. prepare may change the Dialer.
func run(t *testing.T, c *config.Config, prepare func(d *Dialer)) *client {
	t.Helper()
	o := Options{Config: c}
	if c.UseSSL {
		o.TLS = clientTLS()
	}
	return runWith(t, o, prepare)
}

// runWith is run for options that are not those of every test.
func runWith(t *testing.T, o Options, prepare func(d *Dialer)) *client {
	t.Helper()
	j := &journal{}
	o.Log = j.logger()
	r := &client{Dialer: NewDialer(o), log: j, conns: make(chan *Conn, 1000), drop: make(chan error)}
	if prepare != nil {
		prepare(r.Dialer)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- r.Run(ctx, func(ctx context.Context, c *Conn) error {
			r.conns <- c
			select {
			case err := <-r.drop:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	r.end = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { r.end() })
	return r
}

func TestBothEndsMeet(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		cfg := clientOf(s.Listener, testConfig(withTLS))
		c := run(t, cfg, nil)
		near, far := wait(t, "client up", c.conns), wait(t, "server up", s.conns)
		if far.Name != "client1" || near.Name != cfg.PeerID() {
			t.Errorf("got the names %q and %q, want client1 and %q", far.Name, near.Name, cfg.PeerID())
		}
		if near.TLS != withTLS || far.TLS != withTLS {
			t.Errorf("TLS: got %v and %v, want %v", near.TLS, far.TLS, withTLS)
		}
		if near.Addr.String() != s.Addr().String() || far.Addr.String() != near.LocalAddr().String() {
			t.Errorf("addresses: got %v and %v", near.Addr, far.Addr)
		}
		until(t, "the state is up", func() bool { return c.State() == StateUp })
		big := strings.Repeat("x", 3*wire.MaxUnidentified)
		for _, way := range []struct{ from, to *Conn }{{near, far}, {far, near}} {
			go way.from.Write(frame(`{"message_type": "any"}`, big))
			var f wire.Frame
			if err := way.to.Reader.Next(&f); err != nil || string(f.Data) != big {
				t.Errorf("got %d bytes, %v, want %d", len(f.Data), err, len(big))
			}
		}
	})
}

func TestAClientFindsAServerThatComesBack(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		before := runtime.NumGoroutine()
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		cfg := clientOf(s.Listener, testConfig(withTLS))
		c := run(t, cfg, nil)
		for range 3 {
			near := wait(t, "client up", c.conns)
			wait(t, "server up", s.conns)
			s.end()
			if _, err := near.Read(make([]byte, 1)); err == nil {
				t.Error("the connection is still there")
			}
			c.drop <- io.EOF
			again := testConfig(withTLS)
			again.ServerAddr = cfg.ServerAddr
			s = start(t, Options{Config: again}, nil)
			c.Kick()
		}
		wait(t, "client up", c.conns)
		if err := c.end(); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v, want %v", err, context.Canceled)
		}
		if got := c.State(); got != StateWaiting {
			t.Errorf("state after Run: got %q", got)
		}
		s.end()
		goroutines(t, before)
	})
}

func TestAFailedAttemptSaysWhatIsWrong(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := gone.Addr().(*net.TCPAddr).Port
	gone.Close()
	for _, test := range []struct {
		name string
		set  func(c *config.Config)
		text string
		is   error
	}{
		{"nobody listens", func(c *config.Config) {}, fmt.Sprintf("server 127.0.0.1:%d: connect: connection refused", port), syscall.ECONNREFUSED},
		{"no such name", func(c *config.Config) { c.ServerAddr.Host = "no..host" }, "server no..host:", nil},
		{"bound to what is not ours", func(c *config.Config) { c.ClientBindIP = "192.0.2.1" }, `client_bind_ip "192.0.2.1": this host has no such address`, syscall.EADDRNOTAVAIL},
		{"bound to what is nothing", func(c *config.Config) { c.ClientBindIP = "no..host" }, `client_bind_ip "no..host" is neither`, nil},
		{"no name", func(c *config.Config) { c.ClientName = "" }, "client_name: name is empty", nil},
		{"a bad name", func(c *config.Config) { c.ClientName = "default7" }, "client_name:", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(false)
			c.TryReconnect = false
			c.ServerAddr.Port = port
			test.set(c)
			err := NewDialer(Options{Config: c}).Run(t.Context(), func(context.Context, *Conn) error {
				t.Error("connected")
				return nil
			})
			if err == nil || !strings.Contains(err.Error(), test.text) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %q and %v", err, test.text, test.is)
			}
		})
	}
}

func TestAClientConnectsFromWhereItIsTold(t *testing.T) {
	other := "127.0.0.2"
	if ln, err := net.Listen("tcp", other+":0"); err == nil {
		ln.Close()
	} else {
		other = "127.0.0.1" // the only loopback address of this system
	}
	for _, test := range []struct{ name, bind, want string }{
		{"an address", other, other},
		{"an interface", loopback(t), "127.0.0.1"},
		{"a name", "localhost", "127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.bind == "localhost" {
				if a, err := localAddr(t.Context(), test.bind); err != nil || !a.IP.IsLoopback() {
					t.Errorf("got %v, %v, want a loopback address", a, err)
				}
				return
			}
			s := start(t, Options{Config: testConfig(false)}, nil)
			cfg := clientOf(s.Listener, testConfig(false))
			cfg.ClientBindIP = test.bind
			run(t, cfg, nil)
			if got := wait(t, "server up", s.conns).Addr.Addr().String(); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestAClientConnectsToInterfacesAndIPv6(t *testing.T) {
	hosts := []string{"localhost", loopback(t)}
	if hasIPv6() {
		hosts = append(hosts, "::1")
	}
	for _, host := range hosts {
		t.Run(host, func(t *testing.T) {
			c := testConfig(false)
			c.ServerAddr.Host = host
			s := start(t, Options{Config: c}, nil)
			cfg := clientOf(s.Listener, testConfig(false))
			cfg.ServerAddr.Host = host
			run(t, cfg, nil)
			if got := wait(t, "server up", s.conns); !got.Addr.Addr().IsLoopback() {
				t.Errorf("got %v", got.Addr)
			}
		})
	}
}

func TestConnectTimeoutIsForAllOfIt(t *testing.T) {
	for _, test := range []struct {
		name string
		tls  bool
		dial func(ctx context.Context) (net.Conn, error)
	}{
		{"TCP", false, func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }},
		{"the greeting", false, func(context.Context) (net.Conn, error) { near, _ := net.Pipe(); return near, nil }},
		{"TLS", true, func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			return near, nil
		}},
		{"slow TCP and TLS", true, func(ctx context.Context) (net.Conn, error) {
			<-time.After(6 * time.Second)
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			return near, nil
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testConfig(test.tls)
				c.TryReconnect = false
				began := time.Now()
				r := run(t, c, func(d *Dialer) { d.dial = test.dial })
				synctest.Wait()
				if got := r.State(); got != StateConnecting {
					t.Errorf("state: got %q, want %q", got, StateConnecting)
				}
				<-time.After(10 * time.Second)
				synctest.Wait()
				err := r.end()
				if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "no connection within 10s (connect_timeout)") {
					t.Errorf("got %v", err)
				}
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// tries is when attempts began, since the test did.
type tries struct {
	mu  sync.Mutex
	all []time.Duration
}

// take returns the attempts since it was last called.
func (a *tries) take() []time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = nil
	return all
}

// attempts lets d dial by dial, which is told how often it was called, and wait
// as long as it may.
func attempts(d *Dialer, dial func(n int) (net.Conn, error)) *tries {
	began, a, n := time.Now(), &tries{}, 0
	d.jitter = func(bound time.Duration) time.Duration { return bound }
	d.dial = func(context.Context) (net.Conn, error) {
		a.mu.Lock()
		a.all = append(a.all, time.Since(began))
		a.mu.Unlock()
		n++
		return dial(n)
	}
	return a
}

var errAway = &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}

// sink returns a connection to somebody who reads all and says nothing.
func sink() net.Conn {
	near, far := net.Pipe()
	go io.Copy(io.Discard, far)
	return near
}

func TestThePausesGrowToFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at *tries
		r := run(t, testConfig(false), func(d *Dialer) {
			at = attempts(d, func(n int) (net.Conn, error) { return nil, errAway })
		})
		<-time.After(17 * time.Second)
		synctest.Wait()
		ms := time.Millisecond
		want := []time.Duration{0, 100 * ms, 300 * ms, 700 * ms, 1500 * ms, 3100 * ms, 6300 * ms, 11300 * ms, 16300 * ms}
		if got := at.take(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if got := r.State(); got != StateWaiting {
			t.Errorf("state: got %q, want %q", got, StateWaiting)
		}
		if got := r.log.lines(t, slog.LevelInfo); len(got) != 1 || got[0].Msg != "server not reachable, trying on" ||
			got[0].Addr != "127.0.0.1:0" || !strings.Contains(got[0].Err, "connection refused") {
			t.Errorf("log: got %+v, want one line", got)
		}

		// A server that stays away is mentioned ever more rarely.
		<-time.After(24*time.Hour - 17*time.Second)
		synctest.Wait()
		// After 1, 3, 7, 15, 31 minutes, 1 h 3 min, 2 h 3 min, ... 23 h 3 min.
		if got := r.log.lines(t, slog.LevelInfo); len(got) != 1+6+22 || got[1].Msg != "server still not reachable, trying on" {
			t.Errorf("log after a day: %d lines, want 29", len(got))
		}

		began := time.Now()
		if err := r.end(); !errors.Is(err, context.Canceled) || time.Since(began) != 0 {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

func TestThePausesAreSmallAgainAfterAGoodConnection(t *testing.T) {
	for _, test := range []struct {
		name string
		life time.Duration
		want time.Duration // the pause after it
	}{
		{"a good one", 5 * time.Second, 100 * time.Millisecond},
		{"a short one", 5*time.Second - 1, 800 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at *tries
				r := run(t, testConfig(false), func(d *Dialer) {
					at = attempts(d, func(n int) (net.Conn, error) {
						if n == 4 {
							return sink(), nil
						}
						return nil, errAway
					})
				})
				c := <-r.conns // after 100+200+400 ms
				if got := r.State(); got != StateUp {
					t.Errorf("state: got %q, want %q", got, StateUp)
				}
				r.Kick() // means nothing now
				<-time.After(test.life)
				r.drop <- io.EOF
				<-time.After(test.want)
				synctest.Wait()
				want := 700*time.Millisecond + test.life + test.want
				if got := at.take(); len(got) != 5 || got[4] != want {
					t.Errorf("got attempts at %v, want the fifth at %v", got, want)
				}
				if _, err := c.Write([]byte{1}); err == nil {
					t.Error("the connection is open after up returned")
				}
				lines := r.log.lines(t, slog.LevelInfo)
				if len(lines) != 3 || lines[0].Level != "WARN" || lines[1].Msg != "server reached again" || lines[1].N != 3 ||
					lines[2].Msg != "server not reachable, trying on" {
					t.Errorf("log: got %+v", lines)
				}
			})
		})
	}
}

func TestAServerThatRefusesWithoutAWordIsMentioned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, testConfig(false), func(d *Dialer) {
			attempts(d, func(n int) (net.Conn, error) { return sink(), nil })
		})
		for range 20 {
			<-r.conns
			r.drop <- io.EOF
		}
		synctest.Wait()
		got := r.log.lines(t, slog.LevelInfo)
		if len(got) != 1 || !strings.Contains(got[0].Msg, "server ends each connection soon") || got[0].N != manyShort {
			t.Errorf("log: got %+v, want one line", got)
		}
	})
}

func TestAKickEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at *tries
		r := run(t, testConfig(false), func(d *Dialer) {
			at = attempts(d, func(n int) (net.Conn, error) { return nil, errAway })
		})
		<-time.After(12 * time.Second) // attempts up to 11.3 s
		synctest.Wait()
		at.take()
		r.Kick()
		<-time.After(400 * time.Millisecond)
		synctest.Wait()
		s := time.Second
		want := []time.Duration{12 * s, 12*s + s/10, 12*s + 3*s/10}
		if got := at.take(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestThePauseIsRandom(t *testing.T) {
	d := NewDialer(Options{Config: testConfig(false)})
	least, most := maxPause, time.Duration(0)
	for range 1000 {
		p := d.jitter(maxPause)
		least, most = min(least, p), max(most, p)
	}
	// Each bound fails once in more than 10^20 runs.
	if least < 0 || least > maxPause/20 || most < maxPause*19/20 || most > maxPause {
		t.Errorf("got pauses from %v to %v, want from 0 to %v", least, most, maxPause)
	}
}

func TestWithoutReconnectTheFirstEndIsTheEnd(t *testing.T) {
	errLink := errors.New("keep alive unanswered")
	for _, test := range []struct {
		name string
		dial func(n int) (net.Conn, error)
		drop []error
		want error
	}{
		{"never connected", func(int) (net.Conn, error) { return nil, errAway }, nil, syscall.ECONNREFUSED},
		{"ended with an error", func(int) (net.Conn, error) { return sink(), nil }, []error{errLink}, errLink},
		{"ended well", func(int) (net.Conn, error) { return sink(), nil }, []error{nil}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := testConfig(false)
				c.TryReconnect = false
				var at *tries
				r := run(t, c, func(d *Dialer) { at = attempts(d, test.dial) })
				for _, err := range test.drop {
					r.drop <- err
				}
				<-time.After(time.Minute)
				synctest.Wait()
				if err := r.end(); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if got := at.take(); len(got) != 1 {
					t.Errorf("%d attempts, want 1", len(got))
				}
			})
		})
	}
}

func TestTheEndOfTheContextEndsAnyStateAtOnce(t *testing.T) {
	hang := func(context.Context) (net.Conn, error) {
		near, _ := net.Pipe()
		return near, nil
	}
	for _, test := range []struct {
		name  string
		tls   bool
		dial  func(ctx context.Context) (net.Conn, error)
		state string
	}{
		{"dialling", false, func(ctx context.Context) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }, StateConnecting},
		{"greeting", false, hang, StateConnecting},
		{"TLS", true, hang, StateConnecting},
		{"up", false, func(context.Context) (net.Conn, error) { return sink(), nil }, StateUp},
		{"waiting", false, func(context.Context) (net.Conn, error) { return nil, errAway }, StateWaiting},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r := run(t, testConfig(test.tls), func(d *Dialer) {
					d.dial = test.dial
					d.jitter = func(time.Duration) time.Duration { return time.Hour }
				})
				synctest.Wait()
				if got := r.State(); got != test.state {
					t.Errorf("state: got %q, want %q", got, test.state)
				}
				if err := r.end(); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, want %v", err, context.Canceled)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("it took %v", took)
				}
				for _, line := range r.log.lines(t, slog.LevelInfo) {
					if test.state != StateWaiting {
						t.Errorf("log: %+v", line)
					}
				}
			})
		})
	}
}

func TestATLSClientGoesOnAfterTheGreeting(t *testing.T) {
	// The end of the attempt's context must not close the connection.
	cert := pipeTLS(t)
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		r := run(t, testConfig(true), func(d *Dialer) {
			d.dial = func(context.Context) (net.Conn, error) { return near, nil }
		})
		server := tls.Server(far, cert)
		reader := wire.NewReader(server, wire.MaxFrame)
		var f wire.Frame
		if err := reader.Next(&f); err != nil || string(f.Header.Source) != "client1" {
			t.Fatalf("got %v from %q", err, f.Header.Source)
		}
		c := <-r.conns
		<-time.After(time.Hour)
		go c.Write(frame(`{"message_type": "any"}`, "late"))
		if err := reader.Next(&f); err != nil || string(f.Data) != "late" {
			t.Errorf("got %q, %v", f.Data, err)
		}
		far.Close()
	})
}
