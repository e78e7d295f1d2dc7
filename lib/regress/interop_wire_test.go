//go:build interop

package regress

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// keepAliveID is the request id and the data of a keep alive.
const keepAliveID = "keep_alive_client_check"

// protocolKeys are the transport keys that the original knows.
var protocolKeys = []string{"message_type", "source_id", "destination_id", "request_id", "response_id", "with_binary",
	"await_response", "with_file", "wait_for_ack", "transport_id", "message_type_publish", "tag", "error"}

// frame is a frame that went over a link.
type frame struct {
	link     int // which connection, from 0
	toServer bool
	message  // its fields have no with_binary added or removed
}

func (f frame) String() string {
	to := "the client"
	if f.toServer {
		to = "the server"
	}
	return fmt.Sprintf("link %d to %s: %v %.100q", f.link, to, f.fields, f.data)
}

// tap stands between a client and a server, passes everything on, and keeps a
// record of the frames.
type tap struct {
	port   int
	server string      // address
	tls    *tls.Config // nil without TLS; the client does not verify
	wg     sync.WaitGroup

	mu     sync.Mutex
	links  int
	frames []frame
	deaf   int // links before this one pass nothing on to the client
	broken error
}

// newTap starts a tap in front of a server that need not run yet.
func newTap(t *testing.T) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{port: l.Addr().(*net.TCPAddr).Port}
	p.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.link(conn) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return p
}

// attach tells the tap where the server is, before the first client comes.
func (p *tap) attach(t *testing.T, server *host, dir string, mode string) {
	t.Helper()
	var port int
	if _, err := fmt.Sscanf(server.id, "('127.0.0.1', %d)", &port); err != nil {
		t.Fatal(err)
	}
	p.server = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	if mode == "off" {
		return
	}
	cert := filepath.Join(dir, "certificates/server/server-cert/server")
	pair, err := tls.LoadX509KeyPair(cert+".pem", cert+".key")
	if err != nil {
		t.Fatal(err)
	}
	p.tls = &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
}

// link passes one connection on.
func (p *tap) link(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	// A connection without a byte is how the original looks whether the
	// server is back: it is no link.
	in := bufio.NewReader(client)
	if _, err := in.Peek(1); err != nil {
		return
	}
	p.mu.Lock()
	number := p.links
	p.links++
	p.mu.Unlock()
	var c, s io.ReadWriteCloser = buffered{client, in}, server
	if p.tls != nil {
		c, s = tls.Server(buffered{client, in}, p.tls), tls.Client(server, p.tls)
	}
	p.wg.Go(func() {
		p.pass(c, s, frame{link: number})
		client.Close()
		server.Close()
	})
	p.pass(s, c, frame{link: number, toServer: true})
}

// buffered is a connection of which something has been read already.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// pass passes frames on until one end closes.
func (p *tap) pass(dst io.Writer, src io.Reader, f frame) {
	for {
		raw, err := readFrame(src)
		if err != nil {
			return
		}
		err = f.parse(raw)
		p.mu.Lock()
		if err != nil {
			p.broken = errors.Join(p.broken, fmt.Errorf("%v: %w", f, err))
		}
		p.frames = append(p.frames, f)
		deaf := !f.toServer && f.link < p.deaf
		p.mu.Unlock()
		if deaf {
			continue
		}
		if _, err := dst.Write(raw); err != nil {
			return
		}
	}
}

// readFrame reads one frame, with its length.
func readFrame(r io.Reader) ([]byte, error) {
	raw := make([]byte, 4)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(raw)
	if n > 1<<24 {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	raw = append(raw, make([]byte, n)...)
	_, err := io.ReadFull(r, raw[4:])
	return raw, err
}

// parse sets the frame's message from its bytes.
func (f *frame) parse(raw []byte) error {
	f.message = message{fields: map[string]string{}}
	section := func(rest []byte, size int) ([]byte, []byte, error) {
		if len(rest) < size {
			return nil, nil, io.ErrUnexpectedEOF
		}
		n := int(binary.LittleEndian.Uint16(rest))
		if size == 4 {
			n = int(binary.LittleEndian.Uint32(rest))
		}
		if len(rest)-size < n {
			return nil, nil, io.ErrUnexpectedEOF
		}
		return rest[size : size+n], rest[size+n:], nil
	}
	header, rest, err := section(raw[4:], 2)
	if err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(header, &keys); err != nil {
		return err
	}
	for k, v := range keys {
		if f.fields[k], err = canonical(v); err != nil {
			return err
		}
	}
	if f.data, rest, err = section(rest, 4); err != nil {
		return err
	}
	if len(rest) > 0 {
		f.binary, rest, err = section(rest, 4)
	}
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes after the last section", len(rest))
	}
	return err
}

// seen returns the frames so far and the number of links.
func (p *tap) seen() ([]frame, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frames[:len(p.frames):len(p.frames)], p.links
}

// silence makes the links that there are now pass nothing on to the client any
// more, as a network does that lost a route.
func (p *tap) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = p.links
}

// testKeepAlive has clients of both kinds keep links alive, and give them up
// when nothing comes back; and looks at all that goes over them.
func testKeepAlive(t *testing.T, py python) {
	var tests []subtest
	everyPair(t, py, func(name, mode, server, client string) {
		tests = append(tests, subtest{name, func(t *testing.T) {
			p, wire := newTappedPair(t, py, mode, server, client)
			p.start(t)
			routes := p.routes(t)
			eventually(t, "three keep alives are answered", func() error {
				asked, answered, err := wire.keepAlives(p, 0)
				if err != nil {
					t.Fatal(err)
				}
				if asked < 3 || answered < 3 {
					return fmt.Errorf("%d keep alives, %d answers", asked, answered)
				}
				return nil
			})
			bothWays(t, routes, func(i int, r route) error { return ping(r) })
			if _, links := wire.seen(); links != 1 {
				t.Errorf("the client has connected %d times, want once", links)
			}

			wire.silence()
			eventually(t, "the client connects again", func() error {
				frames, _ := wire.seen()
				for _, f := range frames {
					if f.link == 1 && f.toServer {
						return nil
					}
				}
				return errors.New("no frame of a second link")
			})
			p.awaitLink(t)
			bothWays(t, routes, func(i int, r route) error { return ping(r) })
			if _, links := wire.seen(); links != 2 {
				t.Errorf("the client has connected %d times, want twice", links)
			}
			wire.check(t, p, mode)
		}})
	})
	// They wait nearly all the time.
	together(t, 4, tests)
}

// newTappedPair makes a pair with a tap between its hosts, whose client asks
// for a sign of life every second.
func newTappedPair(t *testing.T, py python, mode, server, client string) (pair, *tap) {
	t.Helper()
	wire := newTap(t)
	p := newPair(t, py, server, client, mode, []string{"any"}, wire.port,
		// A Python client that has stalled in TLS finds out no sooner than
		// by its send_timeout.
		settings{"keep_alive_period": 1, "keep_alive_timeout": 1, "send_timeout": 5})
	var dir string
	if mode != "off" {
		dir = certificates(t, py, client)
	}
	wire.attach(t, p.server, dir, mode)
	return p, wire
}

// routes returns both directions, with tools of the kind of each connector.
func (p pair) routes(t *testing.T) []route {
	t.Helper()
	server, client := newTools(t, p.server.kind, p.server), newTools(t, p.client.kind, p.client)
	return []route{
		{"to the server", p.client, p.server, client, server},
		{"to the client", p.server, p.client, server, client},
	}
}

// keepAlives counts the keep alives and their answers on a link, and says what
// is wrong with one.
func (p *tap) keepAlives(hosts pair, link int) (asked, answered int, err error) {
	frames, _ := p.seen()
	for _, f := range frames {
		if f.link != link || f.fields["message_type"] != quote("_ping") {
			continue
		}
		var d string
		switch {
		case f.toServer && f.fields["request_id"] == quote(keepAliveID):
			asked++
			want := sample{data: keepAliveID, requestID: keepAliveID}.arrives(hosts.client, "_ping")
			want.fields["await_response"] = "true"
			d = diff(f.message, want)
		case !f.toServer && f.fields["response_id"] == quote(keepAliveID):
			// A server may also send one that nobody asked for.
			answered++
			want := sample{data: keepAliveID, responseID: keepAliveID}.arrives(hosts.server, "_ping")
			d = diff(f.message, want, "destination_id")
		}
		if d != "" {
			return asked, answered, fmt.Errorf("%v: %s", f, d)
		}
	}
	return asked, answered, nil
}

// check looks at everything that went over the wire for what an end of the
// original would not expect.
func (p *tap) check(t *testing.T, hosts pair, mode string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken != nil {
		t.Error(p.broken)
	}
	hello := sample{data: "hello"}.arrives(hosts.client, "_handshake_no_ssl")
	if mode != "off" {
		hello = sample{data: "hello"}.arrives(hosts.client, "_handshake_ssl")
	}
	delete(hello.fields, "destination_id")
	known := map[string]bool{}
	for _, k := range protocolKeys {
		known[k] = true
	}
	greeted := map[int]bool{}
	for _, f := range p.frames {
		if f.toServer && !greeted[f.link] {
			greeted[f.link] = true
			if d := diff(f.message, hello); d != "" {
				t.Errorf("%v: as the first frame: %s", f, d)
			}
		}
		if f.fields["source_id"] == "" {
			t.Errorf("%v: no source_id", f)
		}
		if hosts.server.kind == ours && hosts.client.kind == ours {
			continue // what they say to each other is their own affair
		}
		announces := hosts.client.kind == ours && f.toServer && f.fields["message_type"] == quote("_ping") &&
			f.fields["request_id"] == quote("aioc")
		for k := range f.fields {
			if !known[k] && !(announces && k == "aioc") {
				t.Errorf("%v: key %s is not known to the original", f, k)
			}
		}
	}
}
