package chat

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/wire"
)

// patience is how long a test waits for what must happen: long enough for a
// machine that is busy with other things.
const patience = 60 * time.Second

// record is what was written, for those who wait for it.
type record struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
	end  bool
}

func newRecord(r io.Reader) *record {
	rec := &record{more: make(chan struct{}, 1)}
	go func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := r.Read(buf)
			rec.mu.Lock()
			rec.text.Write(buf[:n])
			rec.end = err != nil
			rec.mu.Unlock()
			select {
			case rec.more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return rec
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await waits until what was written matches, and returns the first group.
func (r *record) await(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	limit := time.After(patience)
	for {
		if m := re.FindStringSubmatch(r.String()); m != nil {
			return m[len(m)-1]
		}
		select {
		case <-r.more:
		case <-limit:
			t.Fatalf("%q does not come:\n%s", pattern, r.String())
		}
	}
}

// party is a chat in this process.
type party struct {
	t        *testing.T
	dir      string
	in       *os.File
	out, err *record
	end      context.CancelCauseFunc
	done     chan error
}

// start runs a chat with pipes. What o leaves open is filled in.
func start(t *testing.T, o Options) *party {
	t.Helper()
	p := &party{t: t, done: make(chan error, 1)}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	var errR *os.File
	o.Stdin, p.in = pipe()
	outR, outW := pipe()
	if o.Stdout == nil {
		o.Stdout = outW
	}
	errR, o.Stderr = pipe()
	p.out, p.err = newRecord(outR), newRecord(errR)
	p.run(&o)
	return p
}

// run fills in what o leaves open and runs the chat.
func (p *party) run(o *Options) {
	if o.Dir == "" {
		o.Dir = p.t.TempDir()
	}
	if o.State == "" {
		o.State = p.t.TempDir()
	}
	if o.listens() {
		o.Bind = "127.0.0.1"
	}
	p.dir = o.Dir
	ctx, cancel := context.WithCancelCause(context.Background())
	p.end = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.done <- Run(ctx, *o)
	}()
	p.t.Cleanup(func() {
		cancel(nil)
		<-ended
	})
}

// port waits until the chat listens.
func (p *party) port() int {
	p.t.Helper()
	port, _ := strconv.Atoi(p.err.await(p.t, `waiting for a call at .*, port (\d+)`))
	return port
}

// say types.
func (p *party) say(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, text); err != nil {
		p.t.Fatal(err)
	}
}

// result waits for the end of the chat.
func (p *party) result() error {
	p.t.Helper()
	select {
	case err := <-p.done:
		return err
	case <-time.After(patience):
		p.t.Fatalf("the chat does not end:\n%s", p.err)
		return nil
	}
}

// stranger is a caller or a called end that a test plays itself.
type stranger struct {
	t *testing.T
	net.Conn
	r     *wire.Reader
	early [][2]string // headers and data that came during announce
}

// dial calls a chat as the original does.
func dial(t *testing.T, port int) *stranger {
	t.Helper()
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	s := &stranger{t: t, Conn: c, r: wire.NewReader(c, wire.MaxFrame)}
	s.send(`{"message_type": "_handshake_ssl", "source_id": "chat_client"}`, "hello", nil)
	return s
}

// send sends a frame.
func (s *stranger) send(header, data string, bin []byte) {
	s.t.Helper()
	frame, err := wire.AppendFrame(nil, []byte(header), []byte(data), bin)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.Write(frame); err != nil {
		s.t.Fatal(err)
	}
}

// announcement is how a chat of the family introduces itself.
const announcement = `{"await_response": true, "request_id": "aioc", "message_type": "_ping", "aioc": ["ackto", "chat"], "source_id": "chat_client"}`

// announce says that this is a chat of the family, and waits for the greeting.
func (s *stranger) announce() {
	s.t.Helper()
	s.send(announcement, "", nil)
	// They come in either order.
	for answer, hello := false, false; !answer || !hello; {
		header, data := s.next("announcement")
		switch {
		case strings.Contains(header, `"response_id": "aioc"`):
			answer = true
		case strings.Contains(header, `"chat": "hello"`):
			hello = true
		default: // what it sends of its own accord may come before the answer
			s.early = append(s.early, [2]string{header, data})
		}
	}
}

// op sends what only a chat of the family sends.
func (s *stranger) op(op string, id int, data string) {
	s.t.Helper()
	s.send(fmt.Sprintf(`{"message_type": "any", "source_id": "chat_client", "chat": %q, "id": %d}`, op, id), data, nil)
}

// receive reads up to the first frame whose header has text in it, and returns
// its header and data.
func (s *stranger) receive(text string) (header, data string) {
	s.t.Helper()
	for {
		if len(s.early) > 0 {
			header, data = s.early[0][0], s.early[0][1]
			s.early = s.early[1:]
		} else {
			header, data = s.next(text)
		}
		if strings.Contains(header, text) {
			return header, data
		}
	}
}

// next reads a frame, while waiting for something.
func (s *stranger) next(something string) (header, data string) {
	s.t.Helper()
	var f wire.Frame
	if err := s.r.Next(&f); err != nil {
		s.t.Fatalf("waiting for %s: %v", something, err)
	}
	return string(f.Header.Raw), string(f.Data)
}
