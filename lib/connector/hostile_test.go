package connector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode/utf8"

	"aioc/lib/api"
	"aioc/lib/config"
)

// nonsense is what strangers may write.
func nonsense() map[string][]byte {
	announce := func(n uint32, rest string) []byte {
		return append(binary.LittleEndian.AppendUint32(nil, n), rest...)
	}
	return map[string][]byte{
		"nothing":              nil,
		"text":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"4 GiB":                announce(1<<32-1, "x"),
		"half a frame":         frame(`{"message_type": "any"}`, "data")[:20],
		"a length alone":       announce(100, ""),
		"a frame of no bytes":  announce(0, ""),
		"an array":             frame(`["message_type", "any"]`, ""),
		"a number":             frame(`17`, ""),
		"an empty header":      frame(``, ""),
		"deep nesting":         frame(strings.Repeat(`{"a":`, 5000)+"1"+strings.Repeat("}", 5000), ""),
		"deep arrays":          frame(`{"message_type": `+strings.Repeat("[", 30000)+strings.Repeat("]", 30000)+`}`, ""),
		"not UTF-8":            frame("{\"message_type\": \"\xff\xfe\"}", ""),
		"a type that is none":  frame(`{"message_type": ["any"], "source_id": {"a": 1}}`, ""),
		"a name of a path":     frame(`{"message_type": "any", "source_id": "../../etc", "destination_id": "../../etc\u0000\n"}`, ""),
		"a binary that is not": frame(`{"message_type": "any", "with_binary": true}`, ""),
		"a command":            append(announce(60, ""), bytes.Repeat([]byte("{"), 60)...),
		"an odd command":       announce(30, `{"cmd": ["stop"], "kwargs": 7}`),
		"an unknown command":   announce(20, `{"cmd": "__init__"} `),
		"announcements":        bytes.Repeat(frame(`{"message_type": "_ping", "await_response": true, "request_id": "aioc", "aioc": [[["ackto"]], 7, "flow"]}`, ""), 50),
		"acknowledgements":     bytes.Repeat(frame(`{"message_type": "_ack", "ackto": 18446744073709551615, "transport_id": -1}`, ""), 50),
		"refusals":             bytes.Repeat(frame(`{"message_type": "_nack", "transport_id": 1, "park": true, "count": 18446744073709551615}`, ""), 50),
		"odd consuming":        frame(`{"message_type": "_consume"}`, `{"types": 7, "window": -1, "count": 1e300}`),
		"odd calls":            bytes.Repeat(frame(`{"message_type": "_call", "request_id": [1]}`, `{"cmd": 7}`), 50),
		"requests of nothing":  bytes.Repeat(frame(`{"message_type": "_ping", "await_response": true, "request_id": null}`, ""), 50),
		"resuming":             bytes.Repeat(frame(`{"message_type": "_resume"}`, "any"), 50),
		"parking":              bytes.Repeat(frame(`{"message_type": "_parked"}`, "any"), 50),
	}
}

func TestNonsenseOnAnySocketHarmsNobody(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	before := heap()
	lines := s.log.count("") + c.log.count("")
	sockets := map[string][2]string{
		"own of the server":     {"unix", s.paths.OwnSocket},
		"send of the server":    {"unix", s.paths.SendSocket},
		"command to the server": {"unix", s.paths.CommanderSocket},
		"own of the client":     {"unix", c.paths.OwnSocket},
		"send of the client":    {"unix", c.paths.SendSocket},
		"TCP":                   {"tcp", s.cfg.ServerAddr.String()},
	}
	var silent []net.Conn // stay open and say no more
	for name, socket := range sockets {
		for what, b := range nonsense() {
			for range 10 {
				conn, err := net.Dial(socket[0], socket[1])
				if err != nil {
					t.Fatalf("%s, %s: %v", name, what, err)
				}
				silent = append(silent, conn)
				_, _ = conn.Write(b) // it may be closed already
			}
		}
	}
	defer func() {
		for _, conn := range silent {
			conn.Close()
		}
	}()
	// Identified, and no better.
	for what, b := range nonsense() {
		p := s.peer(t, "stranger")
		if what != "nothing" {
			_, _ = p.Write(b)
		}
		p.Close()
	}
	c.send(t, "any", "", "still there")
	got := in.wait(t, 1)
	eventually(t, "the message is there", func() bool {
		got = in.all()
		return got[len(got)-1].data == "still there"
	})
	if after := heap(); after > before+64<<20 {
		t.Errorf("memory grew by %d MiB, want less than 64", (after-before)>>20)
	}
	// Two lines for each connection of the stranger, up and down, and few
	// for the rest: not one for each of a thousand.
	got2 := s.log.count("") + c.log.count("") - lines - s.log.count("peer=stranger")
	if got2 > 100 {
		t.Errorf("got %d lines of log for %d connections, want at most 100", got2, len(silent))
	}
	for _, n := range []*node{s, c} {
		for line := range strings.Lines(n.log.String()) {
			if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x00\x1b\r") || !utf8.ValidString(line) {
				t.Errorf("unescaped: %q", line)
			}
		}
	}
}

func TestABigMessageThatNeverEndsHoldsItsBytesOnly(t *testing.T) {
	s := server(t)
	before := heap()
	for i := range 20 {
		p := s.peer(t, fmt.Sprint("c", i))
		if _, err := p.Write(binary.LittleEndian.AppendUint32(nil, 250<<20)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		s.connected(t, fmt.Sprint("c", i))
	}
	if after := heap(); after > before+32<<20 {
		t.Errorf("memory grew by %d MiB", (after-before)>>20)
	}
}

// descriptors counts those that this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestManyConnectionsLeaveNothing(t *testing.T) {
	const local, remote, atOnce = 10_000, 2_000, 100
	s := server(t, func(cfg *config.Config) { cfg.MaxUnidentified = remote }) // so that none is pushed out
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	c.send(t, "any", "", "first")
	in.wait(t, 1)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)

	var all sync.WaitGroup
	turns := make(chan int, atOnce)
	each := func(n int, f func(i int) error) {
		for i := range n {
			turns <- i
			all.Go(func() {
				defer func() { <-turns }()
				if err := f(i); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	header := `{"message_type": "any", "source_id": "x", "destination_id": ""}`
	each(local, func(i int) error {
		conn, err := net.Dial("unix", c.paths.SendSocket)
		for errors.Is(err, syscall.EAGAIN) { // the queue of the listening socket is full
			runtime.Gosched()
			conn, err = net.Dial("unix", c.paths.SendSocket)
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		b := frame(header, fmt.Sprint(i))
		if i%10 == 0 {
			b = b[:len(b)-1] // ended abruptly
		}
		_, err = conn.Write(b)
		return err
	})
	in.wait(t, 1+local*9/10)
	each(remote, func(i int) error {
		conn, err := net.Dial("tcp", s.cfg.ServerAddr.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		name := fmt.Sprint("p", i)
		b := frame(fmt.Sprintf(`{"message_type": "_handshake_no_ssl", "source_id": %q}`, name), "hello")
		b = append(b, frame(fmt.Sprintf(`{"message_type": "any", "source_id": %q}`, name), "x")...)
		if i%10 == 0 {
			b = b[:len(b)/2]
		}
		_, err = conn.Write(b)
		return err
	})
	in.wait(t, 1+(local+remote)*9/10)
	eventually(t, "no goroutine and no descriptor is left", func() bool {
		return runtime.NumGoroutine() <= goroutines && descriptors(t) <= files
	})
	eventually(t, "no peer is remembered", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.boxes) == 1
	})
}
