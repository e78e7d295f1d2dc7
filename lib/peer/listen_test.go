package peer

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"aioc/lib/config"
)

func TestListenSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		name string
		addr config.Addr
		text string
		is   error
	}{
		{"in use", config.Addr{Host: "127.0.0.1", Port: taken.Addr().(*net.TCPAddr).Port}, "another program listens there, or did a minute ago: stop it and wait, or choose", syscall.EADDRINUSE},
		{"not ours", config.Addr{Host: "192.0.2.1"}, "this host has no such address", syscall.EADDRNOTAVAIL},
		{"not ours, IPv6", config.Addr{Host: "2001:db8::1"}, "listen on [2001:db8::1]:0", nil},
		{"no such name", config.Addr{Host: "no..host"}, "listen on no..host:0", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(false)
			c.ServerAddr = test.addr
			l, err := Listen(t.Context(), Options{Config: c})
			if err == nil {
				l.Close()
				t.Fatal("it listens")
			}
			if !strings.Contains(err.Error(), test.text) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %q and %v", err, test.text, test.is)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
		})
	}
}

func TestListenTakesAddressesAndInterfaces(t *testing.T) {
	for _, test := range []struct {
		name, host string
		want       string // the address listened on
		ipv6       bool   // reachable by IPv6
	}{
		{"IPv4", "127.0.0.1", "127.0.0.1", false},
		{"all of IPv4", "0.0.0.0", "0.0.0.0", false},
		{"a name", "localhost", "", false},
		{"an interface", loopback(t), "127.0.0.1", false},
		{"IPv6", "::1", "::1", true},
		{"everything", "::", "::", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(false)
			c.ServerAddr.Host = test.host
			if test.ipv6 && !hasIPv6() {
				// Such a host refuses it, and says so.
				if l, err := Listen(t.Context(), Options{Config: c}); err == nil {
					l.Close()
					t.Error("it listens on IPv6, which this host does not have")
				}
				return
			}
			s := start(t, Options{Config: c}, nil)
			got := s.Addr().(*net.TCPAddr)
			if test.want != "" && got.IP.String() != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
			to := "127.0.0.1"
			if !got.IP.IsUnspecified() {
				to = got.IP.String()
			}
			conn, err := net.Dial("tcp", net.JoinHostPort(to, fmt.Sprint(got.Port)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write(hello(s.Listener, "client1"))
			id := wait(t, "identified", s.conns)
			if id.Addr.String() != conn.LocalAddr().String() {
				t.Errorf("got the client's address %v, want %v", id.Addr, conn.LocalAddr())
			}
		})
	}
}

func TestAListenerMayBeHandedOver(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := testConfig(false)
	c.ServerAddr = config.Addr{Host: "192.0.2.1", Port: 1} // does not count
	s := start(t, Options{Config: c, Listener: ln}, nil)
	if s.Addr() != ln.Addr() {
		t.Errorf("got %v, want %v", s.Addr(), ln.Addr())
	}
	conn := dialTo(t, s.Listener)
	conn.Write(hello(s.Listener, "client1"))
	wait(t, "identified", s.conns)

	unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	if _, err := Listen(t.Context(), Options{Config: c, Listener: unix}); err == nil || !strings.Contains(err.Error(), "not TCP but unix") {
		t.Errorf("a Unix socket: got %v", err)
	}
}

// loopback returns the name of the interface with the address 127.0.0.1.
func loopback(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if host, err := config.BindHost(i.Name); err == nil && host == "127.0.0.1" {
			return i.Name
		}
	}
	t.Fatal("no interface has the address 127.0.0.1")
	return ""
}

// hasIPv6 tells whether the host has the IPv6 loopback address.
func hasIPv6() bool {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err == nil {
		ln.Close()
	}
	return err == nil
}
