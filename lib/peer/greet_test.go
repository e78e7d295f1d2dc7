package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// bothModes runs a test without TLS and with it.
func bothModes(t *testing.T, f func(t *testing.T, withTLS bool)) {
	t.Run("no TLS", func(t *testing.T) { f(t, false) })
	t.Run("TLS", func(t *testing.T) { f(t, true) })
}

func TestEveryBadHelloIsRefusedWithItsReason(t *testing.T) {
	long := strings.Repeat("n", 129)
	for _, test := range []struct {
		name   string
		header string // TYPE stands for the type of the mode
		data   string // all bytes when there is no header
		reason string
		text   string // in the log
	}{
		{"an ordinary message", `{"message_type": "any", "source_id": "client1"}`, "hello", ReasonHello, `"any"`},
		{"no type", `{"source_id": "client1"}`, "hello", ReasonHello, "no type"},
		{"a type that is not text", `{"message_type": 1, "source_id": "client1"}`, "hello", ReasonHello, "no type"},
		{"a type with more behind it", `{"message_type": "TYPEx", "source_id": "client1"}`, "hello", ReasonHello, "not a hello"},
		{"a token", `{"message_type": "_token", "source_id": "client1"}`, `{"cmd": "get_new_token"}`, ReasonHello, "token"},
		{"a certificate request", `{"message_type": "_ssl", "source_id": "client1"}`, `{"cmd": "get_new_certificate"}`, ReasonHello, "certificate"},
		{"a ping", `{"message_type": "_ping", "source_id": "client1"}`, "", ReasonHello, "_ping"},
		{"a very long type with control characters", `{"message_type": "` + strings.Repeat(`\u001b`, 1000) + `", "source_id": "client1"}`, "hello", ReasonHello, `\x1b`},
		{"no data", `{"message_type": "TYPE", "source_id": "client1"}`, "", ReasonHello, "other data"},
		{"other data", `{"message_type": "TYPE", "source_id": "client1"}`, "hello\n", ReasonHello, "other data"},
		{"data as JSON", `{"message_type": "TYPE", "source_id": "client1"}`, `"hello"`, ReasonHello, "other data"},
		{"no source_id", `{"message_type": "TYPE"}`, "hello", ReasonName, "source_id"},
		{"source_id null", `{"message_type": "TYPE", "source_id": null}`, "hello", ReasonName, "source_id"},
		{"source_id a number", `{"message_type": "TYPE", "source_id": 7}`, "hello", ReasonName, "source_id"},
		{"an empty name", `{"message_type": "TYPE", "source_id": ""}`, "hello", ReasonName, "empty"},
		{"a newline at the end of the name", `{"message_type": "TYPE", "source_id": "client1\n"}`, "hello", ReasonName, `\n`},
		{"a newline in the name", `{"message_type": "TYPE", "source_id": "a\nlevel=ERROR b"}`, "hello", ReasonName, `\n`},
		{"a slash in the name", `{"message_type": "TYPE", "source_id": "../client1"}`, "hello", ReasonName, "characters"},
		{"a space in the name", `{"message_type": "TYPE", "source_id": "client 1"}`, "hello", ReasonName, "characters"},
		{"a NUL in the name", `{"message_type": "TYPE", "source_id": "client1\u0000"}`, "hello", ReasonName, "characters"},
		{"129 characters", `{"message_type": "TYPE", "source_id": "` + long + `"}`, "hello", ReasonName, "128"},
		{"the name of a default certificate", `{"message_type": "TYPE", "source_id": "default7"}`, "hello", ReasonName, "reserved"},
		{"the name default", `{"message_type": "TYPE", "source_id": "default"}`, "hello", ReasonName, "reserved"},
		{"a second source_id that counts", `{"message_type": "TYPE", "source_id": "client1", "source_id": "a/b"}`, "hello", ReasonName, "characters"},

		{"garbage", "", "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", ReasonFrame, "too big"},
		{"4 GiB", "", string(announced(0xffffffff, 1, 2, 3)), ReasonFrame, "too big"},
		{"one byte more than a stranger may send", "", string(announced(wire.MaxUnidentified-3, 0)), ReasonFrame, "too big"},
		{"no frame at all", "", string(announced(0)), ReasonFrame, "bad frame"},
		{"a header longer than its frame", "", string(announced(20, append([]byte{255, 255}, make([]byte, 18)...)...)), ReasonFrame, "bad frame"},
		{"a header that is an array", `[1]`, "hello", ReasonFrame, "bad header"},
		{"a header that is a number", `1`, "hello", ReasonFrame, "bad header"},
		{"a header that is cut", `{"message_type": "TYPE"`, "hello", ReasonFrame, "bad header"},
		{"a deep header", strings.Repeat("[", 60000), "hello", ReasonFrame, "bad header"},
		{"a deep value", `{"a": ` + strings.Repeat("[", 60000), "hello", ReasonFrame, "bad header"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, withTLS bool) {
				s := start(t, Options{Config: testConfig(withTLS)}, nil)
				b := []byte(test.data)
				if test.header != "" {
					b = frame(strings.ReplaceAll(test.header, "TYPE", s.mode.hello()), test.data)
				}
				c := reach(t, s.Listener)
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
				if got := wait(t, "reason", s.refused); got != test.reason {
					t.Errorf("reason: got %q, want %q", got, test.reason)
				}
				ended(t, c)
				if err := s.end(); !errors.Is(err, context.Canceled) {
					t.Errorf("Serve: got %v, want %v", err, context.Canceled)
				}
				none(t, "identified", s.conns)
				none(t, "second reason", s.refused)
				lines := s.log.lines(t, slog.LevelInfo)
				if len(lines) != 1 || lines[0].Level != "WARN" || lines[0].Msg != "client refused" ||
					!strings.Contains(lines[0].Err, test.text) || lines[0].Addr != c.LocalAddr().String() {
					t.Errorf("log: got %+v, want one warning about %s with %q", lines, c.LocalAddr(), test.text)
				}
				if len(lines) > 0 && len(lines[0].Err) > 300 {
					t.Errorf("log: %d bytes of error, want few", len(lines[0].Err))
				}
			})
		})
	}
}

func TestAHelloIsTakenAsPythonMayWriteIt(t *testing.T) {
	long := strings.Repeat("n", 128)
	for _, test := range []struct{ name, header, want string }{
		{"as the original writes it", `{"message_type": "TYPE", "source_id": "client1"}`, "client1"},
		{"compact, other order, more keys", `{"x":[NaN],"source_id":"client1","message_type":"TYPE"}`, "client1"},
		{"escaped", `{"message_type": "TYPE", "source_id": "\u0063lient\u0031"}`, "client1"},
		{"all allowed characters", `{"message_type": "TYPE", "source_id": "aZ09-_:"}`, "aZ09-_:"},
		{"128 characters", `{"message_type": "TYPE", "source_id": "` + long + `"}`, long},
		{"almost a default certificate", `{"message_type": "TYPE", "source_id": "default7x"}`, "default7x"},
		{"the last of two names", `{"message_type": "TYPE", "source_id": "a/b", "source_id": "client1"}`, "client1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bothModes(t, func(t *testing.T, withTLS bool) {
				s := start(t, Options{Config: testConfig(withTLS)}, nil)
				c := reach(t, s.Listener)
				if _, err := c.Write(frame(strings.ReplaceAll(test.header, "TYPE", s.mode.hello()), "hello")); err != nil {
					t.Fatal(err)
				}
				got := wait(t, "identified", s.conns)
				if got.Name != test.want || got.TLS != withTLS || got.Addr.String() != c.LocalAddr().String() {
					t.Errorf("got name %q, TLS %v, address %v, want %q, %v, %v", got.Name, got.TLS, got.Addr, test.want, withTLS, c.LocalAddr())
				}
				if _, isTLS := got.Conn.(*tlsConn); isTLS != withTLS {
					t.Errorf("got a %T", got.Conn)
				}
				if _, isTCP := got.Conn.(*net.TCPConn); isTCP == withTLS {
					t.Errorf("got a %T", got.Conn)
				}
			})
		})
	}
}

func TestWhatFollowsTheHelloIsNotLostAndMayBeBig(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		s := start(t, Options{Config: testConfig(withTLS)}, nil)
		c := reach(t, s.Listener)
		header := `{"message_type": "any", "source_id": "client1"}`
		big := strings.Repeat("x", 3*maxHandshake) // also more than a stranger may send
		stream := append(hello(s.Listener, "client1"), frame(header, "one")...)
		stream = append(append(stream, frame(header, big)...), frame(header, "three")...)
		go c.Write(stream)
		conn := wait(t, "identified", s.conns)
		var f wire.Frame
		for _, want := range []string{"one", big, "three"} {
			if err := conn.Reader.Next(&f); err != nil {
				t.Fatal(err)
			}
			if string(f.Data) != want {
				t.Errorf("got %d bytes %.20q, want %d bytes %.20q", len(f.Data), f.Data, len(want), want)
			}
		}
		// And the limit is that of the configuration now.
		go c.Write(announced(1<<31 - 1))
		if err := conn.Reader.Next(&f); !errors.Is(err, wire.ErrTooBig) || !strings.Contains(err.Error(), "268435456") {
			t.Errorf("got %v, want too big, at most max_message_size", err)
		}
	})
}

func TestAClientSaysWhatTheOriginalSays(t *testing.T) {
	for _, test := range []struct {
		vector string
		tls    bool
	}{
		{"handshake_no_ssl", false},
		{"reconnect_no_ssl", false},
		{"handshake_ssl_allow_all", true},
	} {
		t.Run(test.vector, func(t *testing.T) {
			want := vector(t, test.vector)
			o := Options{Config: testConfig(test.tls)}
			if test.tls {
				o.TLS = clientTLS()
			}
			d := NewDialer(o)
			near, far := net.Pipe()
			d.dial = func(context.Context) (net.Conn, error) { return near, nil }
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() {
				done <- d.Run(ctx, func(ctx context.Context, c *Conn) error { <-ctx.Done(); return nil })
			}()
			if test.tls {
				far = tls.Server(far, pipeTLS(t))
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(far, got); err != nil {
				t.Fatal(err)
			}
			go cancel()
			rest, _ := io.ReadAll(far)
			if !bytes.Equal(got, want) || len(rest) > 0 {
				t.Errorf("got  %q and %q\nwant %q", got, rest, want)
			}
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: got %v, want %v", err, context.Canceled)
			}

			// And a server takes it.
			s := start(t, Options{Config: testConfig(test.tls)}, nil)
			c := reach(t, s.Listener)
			if _, err := c.Write(want); err != nil {
				t.Fatal(err)
			}
			if conn := wait(t, "identified", s.conns); conn.Name != "client1" {
				t.Errorf("got the name %q, want client1", conn.Name)
			}
		})
	}
}

func TestEndsThatDoNotAgreeOnTLSSaySo(t *testing.T) {
	t.Run("a client with TLS at a server without", func(t *testing.T) {
		s := start(t, Options{Config: testConfig(false)}, nil)
		c := tls.Client(dialTo(t, s.Listener), clientTLS())
		if err := c.Handshake(); err == nil {
			t.Error("a handshake without TLS")
		}
		if got := wait(t, "reason", s.refused); got != ReasonHello {
			t.Errorf("got %q, want %q", got, ReasonHello)
		}
		s.end()
		if got := s.log.lines(t, slog.LevelWarn); len(got) != 1 || !strings.Contains(got[0].Err, "the client uses TLS: set use_ssl") {
			t.Errorf("log: got %+v", got)
		}
	})
	t.Run("a client without TLS at a server with it", func(t *testing.T) {
		s := start(t, Options{Config: testConfig(true)}, nil)
		c := dialTo(t, s.Listener)
		if _, err := c.Write(vector(t, "handshake_no_ssl")); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, "reason", s.refused); got != ReasonTLS {
			t.Errorf("got %q, want %q", got, ReasonTLS)
		}
		s.end()
		if got := s.log.lines(t, slog.LevelWarn); len(got) != 1 || !strings.Contains(got[0].Err, "the client does not use TLS: set use_ssl") {
			t.Errorf("log: got %+v", got)
		}
	})
	t.Run("the hello of the other mode", func(t *testing.T) {
		s := start(t, Options{Config: testConfig(false)}, nil)
		c := dialTo(t, s.Listener)
		if _, err := c.Write(vector(t, "handshake_ssl_allow_all")); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, "reason", s.refused); got != ReasonHello {
			t.Errorf("got %q, want %q", got, ReasonHello)
		}
	})
	t.Run("a TLS client whose server answers in clear", func(t *testing.T) {
		o := Options{Config: testConfig(true), TLS: clientTLS()}
		o.Config.TryReconnect = false
		d := NewDialer(o)
		near, far := net.Pipe()
		d.dial = func(context.Context) (net.Conn, error) { return near, nil }
		go func() {
			io.ReadFull(far, make([]byte, 5))
			go io.Copy(io.Discard, far)
			far.Write(frame(`{"message_type": "_ping"}`, ""))
		}()
		err := d.Run(t.Context(), func(context.Context, *Conn) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "the server does not use TLS") {
			t.Errorf("got %v", err)
		}
	})
}

func TestTLSGarbageIsRefused(t *testing.T) {
	for _, test := range []struct {
		name, reason string
		bytes        []byte
	}{
		{"text", ReasonTLS, []byte("GET / HTTP/1.1\r\n\r\n")},
		{"a record of an old version that is cut", ReasonLost, []byte{22, 3, 1, 0, 200, 1}},
		{"a record that is too long", ReasonTLS, []byte{22, 3, 1, 0xff, 0xff, 1, 0, 0, 0}},
		{"a hello that is garbage", ReasonTLS, []byte{22, 3, 1, 0, 8, 1, 0, 0, 4, 9, 9, 9, 9}},
		{"a message of 16 MiB", ReasonTLS, []byte{22, 3, 1, 0, 8, 1, 0xff, 0xff, 0xff, 9, 9, 9, 9}},
		{"an alert", ReasonTLS, []byte{21, 3, 1, 0, 2, 2, 40}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, Options{Config: testConfig(true)}, nil)
			c := dialTo(t, s.Listener)
			if _, err := c.Write(test.bytes); err != nil {
				t.Fatal(err)
			}
			c.(*net.TCPConn).CloseWrite()
			if got := wait(t, "reason", s.refused); got != test.reason {
				s.end()
				t.Errorf("got %q, want %q: %+v", got, test.reason, s.log.lines(t, slog.LevelDebug))
			}
		})
	}
}

func TestAdmitIsAskedTwiceAndItsNoIsFinal(t *testing.T) {
	bothModes(t, func(t *testing.T, withTLS bool) {
		for _, test := range []struct {
			name  string
			no    string
			asked string
		}{
			{"yes", "", "addr() name(client1)"},
			{"no to the address", MomentAddr, "addr()"},
			{"no to the name", MomentName, "addr() name(client1)"},
		} {
			t.Run(test.name, func(t *testing.T) {
				asked := make(chan string, 10)
				var l *Listener
				o := Options{Config: testConfig(withTLS)}
				o.Admit = func(moment string, addr netip.AddrPort, name string) error {
					asked <- moment + "(" + name + ")"
					if !addr.IsValid() || addr.Addr() != netip.MustParseAddr("127.0.0.1") {
						t.Errorf("address %v", addr)
					}
					if moment == test.no {
						return errors.New("on the black list")
					}
					return nil
				}
				s := start(t, o, func(made *Listener) { l = made })
				c := reach(t, l)
				c.Write(hello(l, "client1"))
				if test.no == "" {
					wait(t, "identified", s.conns)
				} else {
					if got := wait(t, "reason", s.refused); got != ReasonAdmit {
						t.Errorf("got %q, want %q", got, ReasonAdmit)
					}
					ended(t, c)
				}
				s.end()
				close(asked)
				var all []string
				for a := range asked {
					all = append(all, a)
				}
				if got := strings.Join(all, " "); got != test.asked {
					t.Errorf("asked: got %s, want %s", got, test.asked)
				}
				if lines := s.log.lines(t, slog.LevelWarn); test.no != "" && (len(lines) != 1 || !strings.Contains(lines[0].Err, "on the black list")) {
					t.Errorf("log: got %+v", lines)
				}
			})
		}
	})
}

func FuzzGreetServer(f *testing.F) {
	for _, m := range []mode{modePlain, modeAnonymous} {
		b, err := handshakeFrame(m.hello(), "client1", []byte("hello"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add(announced(1 << 31))
	f.Fuzz(func(t *testing.T, b []byte) {
		far, near := net.Pipe()
		defer far.Close()
		l := &Listener{o: Options{Config: testConfig(false)}.withDefaults(), greeting: patience}
		name, err := l.greet(&stranger{Conn: near, gate: l.gate}, &Conn{Conn: near, Reader: wire.NewReader(bytes.NewReader(b), wire.MaxUnidentified)}, identity.Who{})
		if err != nil {
			if name != "" {
				t.Errorf("a name, %q, with the error %v", name, err)
			}
			return
		}
		if err := config.ValidName(name); err != nil {
			t.Error(err)
		}
	})
}
