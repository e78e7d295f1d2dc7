package peer

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// watched is a connection that counts what is written to it.
type watched struct {
	net.Conn
	begun chan struct{} // gets something when a Write begins, while there is room

	mu        sync.Mutex // guards what follows
	writes    []int      // sizes
	deadlines int        // calls of SetWriteDeadline
	room      int        // writes that do not fail; -1 for all
	err       error      // of those that do
}

func watch(c net.Conn) *watched { return &watched{Conn: c, begun: make(chan struct{}, 1), room: -1} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.writes = append(w.writes, len(p))
	fail := w.room == 0
	if w.room > 0 {
		w.room--
	}
	w.mu.Unlock()
	select {
	case w.begun <- struct{}{}:
	default:
	}
	if fail {
		return len(p) / 2, w.err
	}
	return w.Conn.Write(p)
}

func (w *watched) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	w.deadlines++
	w.mu.Unlock()
	return w.Conn.SetWriteDeadline(t)
}

// take returns the sizes of the writes since it was called last.
func (w *watched) take() []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.writes
	w.writes = nil
	return list
}

// failAfter lets all but the next n writes fail.
func (w *watched) failAfter(n int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.room, w.err = n, err
}

// tlsPair returns both ends of a TLS connection whose handshake is done: one that
// joins records, over w, and one of package tls over raw.
func tlsPair(t *testing.T, version uint16, change func(client *tls.Config)) (c *tlsConn, w *watched, far *tls.Conn, raw net.Conn) {
	t.Helper()
	near, raw := net.Pipe()
	t.Cleanup(func() { near.Close(); raw.Close() })
	w = watch(near)
	server, client := pipeTLS(t), clientTLS()
	server.MaxVersion = version
	if change != nil {
		change(client)
	}
	r := tlsOver(w)
	c = r.with(tls.Server(r, server))
	far = tls.Client(raw, client)
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	if err := errors.Join(far.Handshake(), wait(t, "handshake", done)); err != nil {
		t.Fatal(err)
	}
	w.take()
	<-w.begun
	return c, w, far, raw
}

// grown makes package tls send records of full size: it begins with small ones.
func grown(t *testing.T, c *tlsConn, w *watched, far io.Reader) {
	t.Helper()
	read := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, far, 1<<20)
		read <- err
	}()
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "read", read); err != nil {
		t.Fatal(err)
	}
	w.take()
	<-w.begun
}

// pattern is n bytes of which none are like those nearby.
func pattern(n int) []byte {
	b := make([]byte, 0, n+4)
	for i := uint32(0); len(b) < n; i++ {
		b = binary.BigEndian.AppendUint32(b, i*2654435761)
	}
	return b[:n]
}

func TestWhatIsWrittenOverTLSArrivesWithFewSystemCalls(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, w, far, _ := tlsPair(t, version, nil)
		for _, full := range []bool{false, true} { // records of full size
			if full {
				grown(t, c, w, far)
			}
			for _, test := range []struct{ size, writes int }{
				{1, 1}, {100, 1}, {maxRecord - 1, 1}, {maxRecord, 1},
				{maxRecord + 1, 1}, {2 * maxRecord, 1}, {4*maxRecord + 150, 1}, {7 * maxRecord, 1},
				{8*maxRecord - 1, 1}, {8 * maxRecord, 1}, {8*maxRecord + 1, 1}, {9 * maxRecord, 2},
				{joinMax, 2}, {16 * maxRecord, 2}, {1 << 20, 8}, {1<<20 + 7, 8},
			} {
				content, got := pattern(test.size), make(chan []byte, 1)
				go func() {
					b := make([]byte, test.size)
					n, _ := io.ReadFull(far, b)
					got <- b[:n]
				}()
				n, err := c.Write(content)
				if err != nil || n != test.size {
					t.Fatalf("%d bytes: got %d, %v", test.size, n, err)
				}
				if !bytes.Equal(wait(t, "read", got), content) {
					t.Fatalf("%d bytes: others arrived", test.size)
				}
				if calls := w.take(); full && len(calls) != test.writes {
					t.Errorf("%s, %d bytes: got calls of %v bytes, want %d", tls.VersionName(version), test.size, calls, test.writes)
				}
			}
		}
		if c.records.buf != nil || c.records.held {
			t.Error("an idle connection keeps a buffer")
		}
		if n, err := c.Write(nil); n != 0 || err != nil {
			t.Errorf("nothing: got %d, %v", n, err)
		}
	}
}

func TestWritesOfSeveralAtOnceDoNotMix(t *testing.T) {
	c, _, far, _ := tlsPair(t, tls.VersionTLS13, nil)
	sizes := []int{10, maxRecord + 1, 3*maxRecord + 5, 2 * joinMax}
	const rounds = 20
	var writers sync.WaitGroup
	total := 0
	for i, size := range sizes {
		total += rounds * size
		writers.Go(func() {
			p := bytes.Repeat([]byte{byte('a' + i)}, size)
			for range rounds {
				if _, err := c.Write(p); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	got := make([]byte, total)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	for len(got) > 0 {
		size := sizes[got[0]-'a']
		if n := bytes.Count(got[:size], got[:1]); n != size {
			t.Fatalf("a write of %d bytes has %d of another", size, size-n)
		}
		got = got[size:]
	}
}

func TestAWriteOverTLSThatFailsSaysSoAndIsTheLast(t *testing.T) {
	broken := errors.New("broken")
	for _, test := range []struct {
		name       string
		size, fine int
	}{
		{"a small one", 100, 0},
		{"one that is joined", 3 * maxRecord, 0},
		{"the first of several calls", 1 << 20, 0},
		{"one in the middle", 1 << 20, 3},
		{"the last", 1 << 20, 7},
	} {
		c, w, far, _ := tlsPair(t, tls.VersionTLS13, nil)
		grown(t, c, w, far)
		go func() { _, _ = io.Copy(io.Discard, far) }()
		w.failAfter(test.fine, broken)
		if n, err := c.Write(make([]byte, test.size)); n != 0 || !errors.Is(err, broken) {
			t.Errorf("%s: got %d, %v, want the error", test.name, n, err)
		}
		if got := len(w.take()); got != test.fine+1 {
			t.Errorf("%s: %d calls, want %d", test.name, got, test.fine+1)
		}
		w.failAfter(-1, nil)
		for _, size := range []int{1, 3 * maxRecord} {
			if n, err := c.Write(make([]byte, size)); n != 0 || !errors.Is(err, broken) {
				t.Errorf("%s: later, %d bytes: got %d, %v, want the error", test.name, size, n, err)
			}
		}
		if calls := w.take(); len(calls) > 0 {
			t.Errorf("%s: later calls of %v bytes, want none: what they carry cannot be read", test.name, calls)
		}
	}
}

func TestADeadlineEndsAWriteOverTLS(t *testing.T) {
	for _, size := range []int{100, 3 * maxRecord, 1 << 20} {
		c, w, _, _ := tlsPair(t, tls.VersionTLS13, nil)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, size))
			done <- err
		}()
		wait(t, "a call", w.begun)
		if err := c.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		if err := wait(t, "the end of the write", done); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes: got %v, want the deadline", size, err)
		}
	}
}

// A link is closed while its other end does not read: that must not wait until
// an alert can be sent.
func TestCloseEndsAWriteOverTLSAtOnce(t *testing.T) {
	for _, size := range []int{100, 3 * maxRecord, 1 << 20} {
		c, w, _, _ := tlsPair(t, tls.VersionTLS13, nil)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, size))
			done <- err
		}()
		wait(t, "a call", w.begun)
		if err := c.Close(); err != nil {
			t.Errorf("%d bytes: close: %v", size, err)
		}
		if err := wait(t, "the end of the write", done); err == nil {
			t.Errorf("%d bytes: the write succeeded", size)
		}
		if w.deadlines != 0 {
			t.Errorf("%d bytes: an alert was tried", size)
		}
		if _, err := c.Write(make([]byte, size)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%d bytes: after close: got %v", size, err)
		}
	}
}

func TestCloseOfAnIdleConnectionTellsTheOtherEnd(t *testing.T) {
	c, w, far, _ := tlsPair(t, tls.VersionTLS13, nil)
	grown(t, c, w, far)
	end := make(chan error, 1)
	go func() {
		_, err := far.Read(make([]byte, 1))
		end <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := wait(t, "the end", end); err != io.EOF {
		t.Errorf("got %v, want the end that was told", err)
	}
}

// Package tls writes alerts and answers to a new key while a Write is under way
// or between its records.
func TestRecordsLeaveInTheOrderInWhichTheyWereMade(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	w := watch(near)
	r := tlsOver(w)
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&got, far)
	}()
	write := func(text string) {
		t.Helper()
		if n, err := r.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	write("1") // outside
	r.hold()
	write("2")
	write("3 alert")
	r.release()
	write("4 alert")
	r.drop()
	write("5")
	r.hold()
	big := strings.Repeat("x", joinMax)
	write(big)
	write("6")
	write(big[1:])
	write("7 alert")
	r.drop() // as after an error of what came next
	write("8")
	near.Close()
	<-read
	want := "1" + "2" + "3 alert" + "4 alert" + "5" + big + "6" + big[1:] + "7 alert" + "8"
	if got.String() != want {
		t.Errorf("%d bytes arrived that are not the %d written", got.Len(), len(want))
	}
	if calls := fmt.Sprint(w.take()); calls != fmt.Sprint([]int{1, 15, 1, joinMax, joinMax, 7, 1}) {
		t.Errorf("got calls of %s bytes", calls)
	}
}

// expandLabel is HKDF-Expand-Label of TLS 1.3, RFC 8446 section 7.1.
func expandLabel(secret []byte, label string, size int) ([]byte, error) {
	label = "tls13 " + label
	info := append(binary.BigEndian.AppendUint16(nil, uint16(size)), byte(len(label)))
	info = append(append(info, label...), 0)
	return hkdf.Expand(sha256.New, secret, string(info), size)
}

func TestANewKeyIsAnsweredInItsPlaceAmongTheRecords(t *testing.T) {
	var keys bytes.Buffer
	c, _, far, raw := tlsPair(t, tls.VersionTLS13, func(client *tls.Config) { client.KeyLogWriter = &keys })
	asks := far.ConnectionState().CipherSuite == tls.TLS_AES_128_GCM_SHA256
	if !asks {
		t.Log("no AES in this processor: no other key is asked for")
	}
	// The client asks for a new key: RFC 8446 section 4.6.3, with the first record
	// that it sends.
	var record []byte
	for line := range strings.Lines(keys.String()) {
		words := strings.Fields(line)
		if !asks || len(words) != 3 || words[0] != "CLIENT_TRAFFIC_SECRET_0" {
			continue
		}
		secret, err := hex.DecodeString(words[2])
		if err != nil {
			t.Fatal(err)
		}
		key, err1 := expandLabel(secret, "key", 16)
		iv, err2 := expandLabel(secret, "iv", 12)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		message := []byte{24, 0, 0, 1, 1, 22} // key_update, update_requested; a handshake record
		record = []byte{23, 3, 3, 0, byte(len(message) + gcm.Overhead())}
		record = gcm.Seal(record, iv, message, record)
	}
	if asks && record == nil {
		t.Fatalf("key log: got %q", keys.String())
	}

	read := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		read <- err
	}()
	const size, writes = 1<<20 + 5, 8
	sent := make(chan error, 1)
	go func() {
		for range writes {
			if _, err := c.Write(pattern(size)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	got := make([]byte, size)
	for i := range writes {
		if i == 2 {
			// The pipe is read meanwhile: the server may have to write first.
			go func() { _, _ = raw.Write(record) }()
		}
		if _, err := io.ReadFull(far, got); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		if !bytes.Equal(got, pattern(size)) {
			t.Fatalf("write %d: other bytes arrived", i)
		}
	}
	if err := wait(t, "written", sent); err != nil {
		t.Fatal(err)
	}
	if !asks {
		return
	}
	// The server wants the client's new key now, which this client does not use.
	go func() { _, _ = io.Copy(io.Discard, far) }() // an alert
	go func() { _, _ = far.Write([]byte("x")) }()
	if err := wait(t, "the server's end", read); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("got %v: the new key was not taken", err)
	}
}

func TestTheConnectionBelowTLSCanBeReached(t *testing.T) {
	s := start(t, Options{Config: testConfig(true)}, nil)
	r := run(t, clientOf(s.Listener, testConfig(true)), nil)
	right, file := certificateFor(t, "127.0.0.1")
	p := startProxy(t, right, s.Addr().String(), says("HTTP/1.1 200 OK\r\n\r\n"))
	cfg := through(p, s.Listener, testConfig(true))
	cfg.Proxy.TLS, cfg.ProxyCAFile = true, file
	far := wait(t, "server up", s.conns)
	proxied := run(t, cfg, nil)
	for name, c := range map[string]*Conn{"client": wait(t, "client up", r.conns), "server": far, "through a proxy": wait(t, "proxied up", proxied.conns)} {
		tlsConn, ok := c.Conn.(interface{ NetConn() net.Conn })
		if !ok {
			t.Errorf("%s: %T has no NetConn", name, c.Conn)
			continue
		}
		if _, ok := tlsConn.NetConn().(*net.TCPConn); !ok {
			t.Errorf("%s: got %T", name, tlsConn.NetConn())
		}
	}
}
