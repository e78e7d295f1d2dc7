package link

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

// item is a message of a source.
type item struct {
	seq  int // place among all messages of the source
	typ  string
	raw  []byte
	wait bool // finished only by an acknowledgement
}

// source is a Source in memory that keeps account of what became of its
// messages.
type source struct {
	mu      sync.Mutex
	changed chan struct{} // closed and renewed with each change
	wake    func()
	frame   func(typ string, seq int) []byte

	sent    []item // all that was put
	items   []item // waiting, by seq
	hand    map[uint64]item
	taken   uint64
	parked  map[string]bool
	done    []string // "seq", "seq: error", in order
	closed  int
	after   []string // calls after Close
	next    int
	wait    bool // put marks messages so
	takeMax int  // most frames in one Take; 0: no limit
}

func newSource() *source {
	return &source{changed: make(chan struct{}), hand: map[uint64]item{}, parked: map[string]bool{},
		frame: func(typ string, seq int) []byte {
			raw, err := wire.AppendFrame(nil, []byte(`{"message_type": "`+typ+`", "source_id": "near"}`), fmt.Append(nil, seq), nil)
			if err != nil {
				panic(err)
			}
			return raw
		}}
}

func (s *source) change() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// put adds messages of the given types.
func (s *source) put(types ...string) {
	s.mu.Lock()
	for _, typ := range types {
		it := item{seq: s.next, typ: typ, raw: s.frame(typ, s.next), wait: s.wait}
		s.sent, s.items = append(s.sent, it), append(s.items, it)
		s.next++
	}
	wake := s.wake
	s.mu.Unlock()
	if wake != nil {
		wake()
	}
}

func (s *source) call(format string, args ...any) {
	c := fmt.Sprintf(format, args...)
	if s.closed > 0 {
		s.after = append(s.after, c)
	}
	s.change()
}

func (s *source) Take(b *wire.Batch, max, count int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takeMax > 0 {
		count = min(count, s.takeMax)
	}
	s.items = slices.DeleteFunc(s.items, func(it item) bool {
		if n == count || b.Bytes >= max || s.parked[it.typ] {
			return false
		}
		s.taken++
		s.hand[s.taken] = it
		b.Add(it.raw, 1)
		n++
		return true
	})
	if n > 0 {
		s.change()
	}
	return n
}

func (s *source) Done(n uint64, acked bool) (finished int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call("done %d %v", n, acked)
	var numbers []uint64
	for k, it := range s.hand {
		if k <= n && (acked || !it.wait) {
			numbers = append(numbers, k)
		}
	}
	slices.Sort(numbers)
	for _, k := range numbers {
		s.done = append(s.done, fmt.Sprint(s.hand[k].seq))
		delete(s.hand, k)
	}
	return len(numbers)
}

func (s *source) DoneOne(n uint64, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call("one %d", n)
	it, ok := s.hand[n]
	if !ok {
		return false
	}
	delete(s.hand, n)
	text := fmt.Sprint(it.seq)
	if err != nil {
		text += ": " + err.Error()
	}
	s.done = append(s.done, text)
	return true
}

func (s *source) Return(n uint64, park bool, why *Refusal) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call("return %d %v", n, park)
	it, ok := s.hand[n]
	if !ok {
		return ""
	}
	delete(s.hand, n)
	s.parked[it.typ] = park
	s.giveBack(it)
	return it.typ
}

func (s *source) giveBack(it item) {
	at, _ := slices.BinarySearchFunc(s.items, it.seq, func(a item, seq int) int { return a.seq - seq })
	s.items = slices.Insert(s.items, at, it)
}

func (s *source) Resume(typ string) {
	s.mu.Lock()
	s.call("resume %s", typ)
	delete(s.parked, typ)
	wake := s.wake
	s.mu.Unlock()
	wake()
}

func (s *source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, it := range s.hand {
		delete(s.hand, n)
		s.giveBack(it)
	}
	s.closed++
	s.change()
}

// outcome returns what is finished and what waits, by sequence number.
func (s *source) outcome() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var wait []string
	for _, it := range s.items {
		wait = append(wait, fmt.Sprint(it.seq))
	}
	return "done " + strings.Join(s.done, " ") + "; in hand " + fmt.Sprint(len(s.hand)) + "; waiting " + strings.Join(wait, " ")
}

// until waits for a condition on the source, checked with its lock held.
func (s *source) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		s.mu.Lock()
		yes, changed := ok(), s.changed
		s.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s: not within a minute; %s", what, s.outcome())
		}
	}
}

// sink is a Handler that notes what arrives.
type sink struct {
	mu      sync.Mutex
	got     []string // "n type data"
	flushes int
	onFrame func(n uint64, f *wire.Frame) error
	onFlush func() error
}

func (s *sink) Frame(n uint64, f *wire.Frame) error {
	if s.onFrame != nil {
		if err := s.onFrame(n, f); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, fmt.Sprintf("%d %s %s", n, f.Header.Type, f.Data))
	return nil
}

func (s *sink) Flush() error {
	s.mu.Lock()
	s.flushes++
	s.mu.Unlock()
	if s.onFlush != nil {
		return s.onFlush()
	}
	return nil
}

func (s *sink) arrived() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, ", ")
}

// end is a link that runs.
type end struct {
	*Link
	result chan error // what Run returned
	cancel context.CancelFunc
}

// run runs a link until the test ends.
func run(t testing.TB, conn net.Conn, opt Options) *end {
	t.Helper()
	return runUpTo(t, conn, wire.MaxFrame, opt)
}

// runUpTo is run with another limit to the size of frames.
func runUpTo(t testing.TB, conn net.Conn, max int, opt Options) *end {
	t.Helper()
	if opt.ID == "" {
		opt.ID = "near"
	}
	if opt.Handler == nil {
		opt.Handler = &sink{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &end{Link: New(conn, wire.NewReader(conn, max), opt), result: make(chan error, 1), cancel: cancel}
	if s, ok := opt.Source.(*source); ok {
		s.mu.Lock()
		s.wake = e.Wake
		s.mu.Unlock()
	}
	over := make(chan struct{})
	go func() {
		e.result <- e.Run(ctx)
		close(over)
	}()
	t.Cleanup(func() {
		cancel()
		<-over
	})
	return e
}

// far is the other end of a link, played by the test inside a synctest bubble.
type far struct {
	t    testing.TB
	conn net.Conn
	mu   sync.Mutex
	got  []string
	sum  int // bytes read
	err  error
}

// start runs a link in a bubble, and reads what it writes.
func start(t testing.TB, opt Options) (*end, *far) {
	t.Helper()
	e, f := startUnread(t, opt)
	f.read()
	return e, f
}

// startUnread is start with an other end that does not read.
func startUnread(t testing.TB, opt Options) (*end, *far) {
	t.Helper()
	near, other := net.Pipe()
	f := &far{t: t, conn: other}
	t.Cleanup(func() { other.Close() })
	return run(t, near, opt), f
}

// read starts reading.
func (f *far) read() {
	r := wire.NewReader(f.conn, wire.MaxFrame)
	go func() {
		for {
			var frame wire.Frame
			err := r.Next(&frame)
			f.mu.Lock()
			if err != nil {
				f.err = err
				f.mu.Unlock()
				return
			}
			f.sum += len(frame.Raw)
			text := string(frame.Header.Raw) + " " + string(frame.Data)
			if frame.Binary != nil {
				text += fmt.Sprintf(" %x", frame.Binary)
			}
			f.got = append(f.got, text)
			f.mu.Unlock()
		}
	}()
}

// send writes one frame and waits until everybody waits.
func (f *far) send(header, data string) {
	f.t.Helper()
	if _, err := f.conn.Write(mustFrame(f.t, header, data)); err != nil {
		f.t.Fatalf("send: %v", err)
	}
	synctest.Wait()
}

// message is send with a message of a type.
func (f *far) message(typ, data string) {
	f.t.Helper()
	f.send(`{"message_type": "`+typ+`", "source_id": "far"}`, data)
}

func (f *far) ack(n int) {
	f.t.Helper()
	f.send(fmt.Sprintf(`{"ackto": %d, "message_type": "_ack"}`, n), "")
}

// take returns what was read since the last call.
func (f *far) take() []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.got
	f.got = nil
	return got
}

// expect compares what was read since the last call.
func (f *far) expect(want ...string) {
	f.t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		f.t.Errorf("the other end read\n got %q\nwant %q", got, want)
	}
}

func mustFrame(t testing.TB, header, data string) []byte {
	t.Helper()
	raw, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// frameOf is how far notes a message of a source.
func frameOf(typ string, seq int) string {
	return fmt.Sprintf(`{"message_type": "%s", "source_id": "near"} %d`, typ, seq)
}

// Frames of a link with ID near.
const (
	announcement = `{"await_response": true, "request_id": "aioc", "message_type": "_ping", "aioc": ["ackto", "flow"], "source_id": "near"} `
	farAnnounces = `{"await_response": true, "request_id": "aioc", "message_type": "_ping", "aioc": ["ackto", "flow"], "source_id": "far"}`
)

func acksTo(n int) string {
	return fmt.Sprintf(`{"ackto": %d, "message_type": "_ack", "source_id": "near"} `, n)
}

func own(typ, data string) string {
	return fmt.Sprintf(`{"message_type": "%s", "source_id": "near"} %s`, typ, data)
}

func check(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

var both = []string{wire.ExtAckTo, wire.ExtFlow}

// pair returns two connected Unix sockets.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.TempDir() + "/s", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.DialUnix("unix", nil, ln.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}
