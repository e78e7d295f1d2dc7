//go:build interop

package regress

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testAccess lets servers of both kinds decide about the same clients with the
// same lists, and connects through a proxy.
func testAccess(t *testing.T, py python) {
	together(t, 3, []subtest{
		{"lists", func(t *testing.T) { testLists(t, py) }},
		{"disconnect/client=" + ours, func(t *testing.T) { testUnwelcome(t, py, ours) }},
		{"disconnect/client=" + theirs, func(t *testing.T) { testUnwelcome(t, py, theirs) }},
		{"proxy/server=" + theirs + "/client=" + ours, func(t *testing.T) { testProxy(t, py, theirs, ours) }},
		{"proxy/server=" + ours + "/client=" + theirs, func(t *testing.T) { testProxy(t, py, ours, theirs) }},
		{"proxy/server=" + ours + "/client=" + ours, func(t *testing.T) { testProxy(t, py, ours, ours) }},
	})
}

// testLists changes the lists of two servers alike, and compares whom they let in
// then, and what they reply.
func testLists(t *testing.T, py python) {
	servers := []*host{
		newPair(t, py, theirs, ours, "off", []string{"any"}, 0, nil).server,
		newPair(t, py, ours, ours, "off", []string{"any"}, 0, nil).server,
	}
	for _, s := range servers {
		s.start(t)
	}
	type change struct{ cmd, id, ip string }
	names := []string{"client1", "client10", "tank", "aaaaaa", "TANK"}
	for _, step := range []struct {
		name    string
		changes []change
		want    string // those who are let in
	}{
		{"no lists", nil, "client1 client10 tank aaaaaa TANK"},
		{"the beginning of a name", []change{{"add_whitelist_client", "client1", ""}}, "client1 client10"},
		{"and an address", []change{{"add_whitelist_client", "", "127.0.0.1"}}, "client1 client10"},
		{"and a network that it is not in", []change{{"add_whitelist_client", "", "10.0.0.0/8"}}, ""},
		{"and one that it is in", []change{{"add_whitelist_client", "", "127.0.0.0/8"}}, "client1 client10"},
		{"black and white", []change{{"add_blacklist_client", "client10", ""}}, "client1"},
		{"the end of a name", []change{{"remove_whitelist_client", "client1", ""}, {"remove_blacklist_client", "client10", ""},
			{"add_whitelist_client", "client1$", ""}}, "client1"},
		{"not from the beginning", []change{{"remove_whitelist_client", "client1$", ""}, {"add_blacklist_client", "lient1", ""}}, "client1 client10 tank aaaaaa TANK"},
		{"alternatives", []change{{"add_blacklist_client", "tank|client1$", ""}}, "client10 aaaaaa TANK"},
		{"the case", []change{{"add_blacklist_client", "(?i)tank", ""}}, "client10 aaaaaa"},
		{"a repetition that RE2 writes differently", []change{{"add_blacklist_client", "a{,5}$", ""}}, "client10 aaaaaa"},
		{"the same, long enough", []change{{"add_blacklist_client", `a{,6}\Z`, ""}}, "client10"},
		{"a blacklisted network", []change{{"add_blacklist_client", "", "127.0.0.0/8"}}, ""},
		{"a blacklisted address", []change{{"remove_blacklist_client", "", "127.0.0.0/8"}, {"add_blacklist_client", "", "127.0.0.1"}}, ""},
		{"neither", []change{{"remove_blacklist_client", "", "127.0.0.1"}}, "client10"},
		{"what cannot be", []change{{"remove_blacklist_client", "", "127.0.0.1"}, {"add_blacklist_client", "", "10.1.0.1/16"},
			{"remove_whitelist_client", "nobody", ""}, {"add_whitelist_client", "", ""}}, "client10"},
	} {
		for _, c := range step.changes {
			kwargs := map[string]any{"client_id": nil, "client_ip": nil}
			if c.id != "" {
				kwargs["client_id"] = c.id
			}
			if c.ip != "" {
				kwargs["client_ip"] = c.ip
			}
			var replies []string
			for _, s := range servers {
				reply, err := s.command(c.cmd, kwargs)
				if err != nil {
					t.Fatal(err)
				}
				replies = append(replies, reply)
			}
			if replies[0] != replies[1] {
				t.Errorf("%s: %v: the original replies %q, ours %q", step.name, c, replies[0], replies[1])
			}
		}
		for _, s := range servers {
			var in []string
			for _, name := range names {
				ok, err := knock(s, name)
				if err != nil {
					t.Fatalf("%s: %s server: %v", step.name, s.kind, err)
				}
				if ok {
					in = append(in, name)
				}
			}
			if got := strings.Join(in, " "); got != step.want {
				t.Errorf("%s: the %s server lets in %q, want %q", step.name, s.kind, got, step.want)
			}
		}
	}
}

// knock connects to a server as a client, and tells whether it was let in: the
// server shows it as connected, or closes the connection.
func knock(s *host, name string) (in bool, err error) {
	_, port, _ := strings.Cut(strings.Trim(s.id, "()"), ", ")
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	conn.Write(rawFrame(fmt.Sprintf(`{"message_type": "_handshake_no_ssl", "source_id": %q}`, name), "hello")) // it may be closed already
	own := fmt.Sprint(conn.LocalAddr().(*net.TCPAddr).Port)
	err = eventuallyErr(func() error {
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			return err
		}
		if _, err := conn.Read(make([]byte, 1024)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			in = false
			return nil
		}
		peers, err := s.peers()
		if err != nil {
			return err
		}
		if addr := peers[name]; len(addr) == 2 && fmt.Sprint(addr[1]) == own {
			in = true
			return nil
		}
		return errors.New("neither let in nor refused")
	})
	return in, err
}

// rawFrame makes a frame.
func rawFrame(header, data string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(2+len(header)+4+len(data)))
	b = append(binary.LittleEndian.AppendUint16(b, uint16(len(header))), header...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

// testUnwelcome blacklists a client of our server, which is disconnected and stays
// away, and takes it back.
func testUnwelcome(t *testing.T, py python, client string) {
	p := newPair(t, py, ours, client, "anonymous", []string{"any"}, 0, nil)
	p.start(t)
	for _, kwargs := range []map[string]any{
		{"client_id": "pump.*", "client_ip": nil}, // matches, and is not the name
		{"client_id": nil, "client_ip": "127.0.0.1"},
	} {
		if reply, err := p.server.command("add_blacklist_client", kwargs); err != nil || reply != "True" {
			t.Fatalf("got %q, %v", reply, err)
		}
		p.server.awaitPeers(t)
		eventually(t, "the client is refused", func() error {
			if !strings.Contains(string(p.server.daemon.out.bytes()), "client refused") {
				return errors.New("the server's log does not say so")
			}
			return nil
		})
		if reply, err := p.server.command("remove_blacklist_client", kwargs); err != nil || reply != "True" {
			t.Fatalf("got %q, %v", reply, err)
		}
		p.awaitLink(t)
	}
	text, err := os.ReadFile(p.server.config)
	if err != nil || !strings.Contains(string(text), `"blacklisted_clients_id": []`) || !strings.Contains(string(text), `"blacklisted_clients_ip": []`) {
		t.Errorf("the file is %s, %v", text, err)
	}
}

// proxy is an HTTP proxy that allows CONNECT to anywhere for user:pass.
type proxy struct {
	ln net.Listener

	mu       sync.Mutex
	requests []string
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	p := &proxy{ln: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
		lines = append(lines, strings.ToLower(strings.TrimRight(line, "\r\n")))
	}
	p.mu.Lock()
	p.requests = append(p.requests, lines[0])
	p.mu.Unlock()
	want := "proxy-authorization: basic " + strings.ToLower(base64.StdEncoding.EncodeToString([]byte("user:pass")))
	if !slices.Contains(lines, want) {
		io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n")
		return
	}
	far, err := net.Dial("tcp", strings.Fields(lines[0])[1])
	if err != nil {
		io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer far.Close()
	io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(far, r)
		far.Close()
		c.Close()
	}()
	io.Copy(c, far)
}

// testProxy connects a client through a proxy, and again after the server has
// been away.
func testProxy(t *testing.T, py python, server, client string) {
	through := newProxy(t)
	p := newPair(t, py, server, client, "anonymous", []string{"any", "ww"}, 0, settings{"proxy": settings{
		"enabled": true, "address": "127.0.0.1", "port": through.ln.Addr().(*net.TCPAddr).Port,
		"authorization": settings{"username": "user", "password": "pass"},
	}})
	// The original's client shows the address of the proxy for the server's.
	linked := func() {
		t.Helper()
		if p.server.awaitPeers(t, clientName); client == ours {
			p.client.awaitPeers(t, p.client.peer)
		}
	}
	for _, h := range p.hosts() {
		h.start(t)
	}
	linked()
	p.server.daemon.kill()
	os.Remove(filepath.Join(p.server.dir, "uds_path_commander_"+p.server.socket))
	p.server.start(t)
	linked()
	to, from := newTools(t, ours, p.server), newTools(t, ours, p.client)
	for _, r := range []route{
		{"to the server", p.client, p.server, from, to},
		{"to the client", p.server, p.client, to, from},
	} {
		box := r.dst.receive(t, "ww", false)
		if err := r.src.send("ww", sample{data: r.name, text: true}); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		if err := awaitWord(box, r.name); err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
	}
	through.mu.Lock()
	defer through.mu.Unlock()
	_, port, _ := strings.Cut(strings.Trim(p.server.id, "()"), ", ")
	want := "connect 127.0.0.1:" + port + " http/1.1"
	if len(through.requests) < 2 || slices.ContainsFunc(through.requests, func(s string) bool { return s != want }) {
		t.Errorf("the proxy was asked %q, want %q twice or more", through.requests, want)
	}
}
