package api

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newDir returns a directory with a short name, as sockets need it.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// clientPaths returns the sockets of a client of that name.
func clientPaths(t *testing.T, dir, name string) config.Paths {
	t.Helper()
	cfg := config.Defaults()
	if err := cfg.SetDir(dir); err != nil {
		t.Fatal(err)
	}
	cfg.IsServer, cfg.ClientName = false, name
	return cfg.Paths()
}

// fake is the own socket of a connector that says what a test wants.
type fake struct {
	ln    *local.Listener
	frame func(l *link.Link, n uint64, f *wire.Frame) error
	stop  context.CancelFunc
	all   sync.WaitGroup
}

// newFake listens on the own socket.
func newFake(t *testing.T, path string, frame func(l *link.Link, n uint64, f *wire.Frame) error) *fake {
	t.Helper()
	ln, err := local.Listen(path, local.Options{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	k := &fake{ln: ln, frame: frame}
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	k.all.Go(func() { ln.Serve(ctx, k.serve) })
	t.Cleanup(k.end)
	return k
}

func (k *fake) end() {
	k.stop()
	k.all.Wait()
}

// program is one connection of a fake.
type program struct {
	k *fake
	l *link.Link
}

func (p *program) Frame(n uint64, f *wire.Frame) error { return p.k.frame(p.l, n, f) }
func (p *program) Flush() error                        { return nil }

func (k *fake) serve(ctx context.Context, conn *net.UnixConn) {
	p := &program{k: k}
	p.l = link.New(conn, wire.NewReader(conn, wire.MaxFrame), link.Options{ID: "c1", Handler: p, PassPings: true,
		Extensions: []string{wire.ExtAckTo, wire.ExtFlow}, Info: func() []byte {
			return []byte(`{"name": "c1", "peer": "('127.0.0.1', 10673)", "send_message_types": ["any"], "recv_message_types": ["any"], "max_message_size": 1048576}`)
		}})
	_ = p.l.Run(ctx)
}

func TestOpenFindsTheConnector(t *testing.T) {
	take := func(*link.Link, uint64, *wire.Frame) error { return nil }
	t.Run("none", func(t *testing.T) {
		for _, target := range []Target{
			{Dir: newDir(t)},
			{Dir: filepath.Join(newDir(t), "nosuch")},
			{Dir: newDir(t), Connector: "c1"},
		} {
			if _, err := Open(within(t), target); !errors.Is(err, ErrNoConnector) {
				t.Errorf("%+v: got %v, want %v", target, err, ErrNoConnector)
			}
		}
	})
	t.Run("a dead one", func(t *testing.T) {
		dir := newDir(t)
		k := newFake(t, clientPaths(t, dir, "c1").OwnSocket, take)
		k.end()
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: clientPaths(t, dir, "c1").OwnSocket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
		if _, err := Open(within(t), Target{Dir: dir}); !errors.Is(err, ErrNoConnector) {
			t.Errorf("got %v, want %v", err, ErrNoConnector)
		}
	})
	t.Run("the only one, one by name, one of several", func(t *testing.T) {
		dir := newDir(t)
		newFake(t, clientPaths(t, dir, "c1").OwnSocket, take)
		c, err := Open(within(t), Target{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		want := Info{Name: "c1", Peer: "('127.0.0.1', 10673)", SendTypes: []string{"any"}, RecvTypes: []string{"any"}, Max: 1 << 20, Native: true}
		if got := c.Info(); got.Name != want.Name || got.Peer != want.Peer || got.Max != want.Max || !got.Native || got.Server || !slices.Equal(got.SendTypes, want.SendTypes) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if got, want := string(c.Header("any", "elsewhere")), `{"message_type": "any", "source_id": "c1", "destination_id": "('127.0.0.1', 10673)"}`; got != want {
			t.Errorf("header: got %s, want %s", got, want)
		}
		newFake(t, clientPaths(t, dir, "other").OwnSocket, take)
		_, err = Open(within(t), Target{Dir: dir})
		if !errors.Is(err, ErrSeveral) || !strings.Contains(err.Error(), "c1, other") || !strings.Contains(err.Error(), "-connector") {
			t.Errorf("two: got %v, want %v and their names", err, ErrSeveral)
		}
		named, err := Open(within(t), Target{Dir: dir, Connector: "other"})
		if err != nil {
			t.Fatal(err)
		}
		named.Close()
		if _, err := Open(within(t), Target{Dir: dir, Connector: "nosuch"}); !errors.Is(err, ErrNoConnector) || !strings.Contains(err.Error(), "c1, other") {
			t.Errorf("got %v, want %v and the names of those there are", err, ErrNoConnector)
		}
	})
	t.Run("by its configuration", func(t *testing.T) {
		dir := newDir(t)
		newFake(t, clientPaths(t, dir, "c1").OwnSocket, take)
		for _, test := range []struct {
			name, text, want string
			is               error
		}{
			{"right", `{"is_server": false, "client_name": "c1"}`, "", nil},
			{"without a name", `{"is_server": false}`, "client_name is missing", ErrConfig},
			{"broken", `{"is_server": `, "", ErrConfig},
			{"an unknown key", `{"is_servr": false}`, "is_server", ErrConfig},
			{"of another", `{"is_server": false, "client_name": "c2"}`, "", ErrNoConnector},
		} {
			file := filepath.Join(dir, "config.json")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Open(within(t), Target{ConfigFile: file, Dir: dir})
			if !errors.Is(err, test.is) || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want %v %s", test.name, err, test.is, test.want)
			}
			if c != nil {
				c.Close()
			}
		}
	})
}

// open opens the connector c1 in the directory.
func open(t *testing.T, dir string) *Client {
	t.Helper()
	c, err := Open(within(t), Target{Dir: dir, Connector: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestASenderSaysHowManyWereTaken(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame func(l *link.Link, n uint64, f *wire.Frame) error
		taken int
		check func(error) bool
	}{
		{"all", func(*link.Link, uint64, *wire.Frame) error { return nil }, 10, func(err error) bool { return err == nil }},
		{"all but one", func(l *link.Link, n uint64, _ *wire.Frame) error {
			if n == 4 {
				l.Refuse(n, &link.Refusal{Reason: "type", Text: "not this one"})
			}
			return nil
		}, 9, func(err error) bool {
			var why *NotTaken
			return errors.As(err, &why) && why.Index == 3 && why.Reason == "type" && err.Error() == "not this one"
		}},
		{"none after one", func(l *link.Link, n uint64, f *wire.Frame) error {
			if n == 4 {
				l.Park(n, string(f.Header.Type), &link.Refusal{Reason: "away", Text: "gone"})
			}
			return nil
		}, 3, func(err error) bool {
			var why *NotTaken
			return errors.As(err, &why) && why.Index == 3 && why.Reason == "away"
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := newDir(t)
			all := make(chan struct{}) // no answer before all are put
			newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(l *link.Link, n uint64, f *wire.Frame) error {
				<-all
				return test.frame(l, n, f)
			})
			c := open(t, dir)
			s := c.Sender(SendOptions{})
			for range 10 {
				if err := s.Put(c.Header("any", ""), []byte("x"), nil); err != nil {
					t.Fatal(err)
				}
			}
			close(all)
			if taken, err := s.Finish(within(t)); taken != test.taken || !test.check(err) {
				t.Errorf("got %d, %#v, want %d", taken, err, test.taken)
			}
		})
	}
}

func TestASenderReportsTheLossOfItsConnector(t *testing.T) {
	dir := newDir(t)
	k := newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(l *link.Link, n uint64, _ *wire.Frame) error {
		if n > 5 {
			return errors.New("no more")
		}
		return nil
	})
	c := open(t, dir)
	s := c.Sender(SendOptions{})
	for range 5 {
		if err := s.Put(c.Header("any", ""), nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := s.Taken(within(t)); taken != 5 || err != nil {
		t.Fatalf("got %d, %v", taken, err)
	}
	if err := s.Put(c.Header("any", ""), nil, nil); err != nil {
		t.Fatal(err)
	}
	if taken, err := s.Taken(within(t)); taken != 5 || !errors.Is(err, ErrLost) {
		t.Errorf("got %d, %v, want 5, %v", taken, err, ErrLost)
	}
	<-s.Ended()
	if err := s.Put(c.Header("any", ""), nil, nil); !errors.Is(err, ErrLost) {
		t.Errorf("then got %v, want %v", err, ErrLost)
	}
	s.Close()
	s.Close()
	k.end()
	if _, err := Open(within(t), Target{Dir: dir}); !errors.Is(err, ErrNoConnector) {
		t.Errorf("got %v, want %v", err, ErrNoConnector)
	}
}

func TestSocketsOfAConnectorThatWasKilledAreNoConnector(t *testing.T) {
	dir := newDir(t)
	paths := clientPaths(t, dir, "c1")
	for _, socket := range []string{paths.OwnSocket, paths.SendSocket, paths.CommanderSocket} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	}
	for name, open := range map[string]func(context.Context, Target) (*Client, error){"Open": Open, "OpenControl": OpenControl} {
		_, err := open(within(t), Target{Dir: dir})
		if !errors.Is(err, ErrNoConnector) || !strings.Contains(err.Error(), "start aioc-server") {
			t.Errorf("%s: got %v, want %v and what to do", name, err, ErrNoConnector)
		}
	}
}

func TestAConnectorThatSaysNothingIsGivenUpInTime(t *testing.T) {
	dir := newDir(t)
	ln, err := net.Listen("unix", clientPaths(t, dir, "c1").OwnSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	errLate := errors.New("late")
	ctx, cancel := context.WithTimeoutCause(within(t), 10*time.Millisecond, errLate)
	defer cancel()
	if _, err := OpenControl(ctx, Target{Dir: dir}); !errors.Is(err, errLate) {
		t.Errorf("got %v, want %v", err, errLate)
	}
}

func TestTooBigIsKnownBeforeItIsSent(t *testing.T) {
	dir := newDir(t)
	newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(*link.Link, uint64, *wire.Frame) error { return nil })
	c := open(t, dir)
	s := c.Sender(SendOptions{})
	defer s.Close()
	var why *NotTaken
	if err := s.Put(c.Header("any", ""), make([]byte, 1<<20), nil); !errors.As(err, &why) || why.Reason != "size" || why.Index != 0 {
		t.Errorf("got %v, want size", err)
	}
	if err := s.Put(c.Header(strings.Repeat("x", 70_000), ""), nil, nil); !errors.As(err, &why) || why.Reason != "size" {
		t.Errorf("a long header: got %v, want size", err)
	}
}

func TestAReceiverIsToldOfARefusal(t *testing.T) {
	dir := newDir(t)
	newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(l *link.Link, n uint64, f *wire.Frame) error {
		return l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"_nack"`)}, {Key: "error", Value: []byte(`"not you"`)}}, nil, nil)
	})
	err := open(t, dir).Receiver(ReceiveOptions{Frame: func(uint64, *wire.Frame) error { return nil }}).Run(within(t))
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not you") {
		t.Errorf("got %v, want %v: not you", err, ErrRefused)
	}
}

func TestAReceiverSaysThatItsConnectorIsLost(t *testing.T) {
	dir := newDir(t)
	var connections, lost atomic.Int32
	newFake(t, clientPaths(t, dir, "c1").OwnSocket, func(*link.Link, uint64, *wire.Frame) error {
		connections.Add(1)
		return errors.New("gone")
	})
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	err := open(t, dir).Receiver(ReceiveOptions{
		Frame: func(uint64, *wire.Frame) error { return nil },
		Lost: func() {
			if lost.Add(1) == 2 {
				cancel()
			}
		},
	}).Run(ctx)
	if !errors.Is(err, context.Canceled) || lost.Load() != 2 || connections.Load() != 2 {
		t.Errorf("got %v, %d losses of %d connections; want 2 of 2", err, lost.Load(), connections.Load())
	}
}

// python listens on the sockets that a connector of the original has.
func python(t *testing.T, paths config.Paths) (sent chan net.Conn) {
	t.Helper()
	sent = make(chan net.Conn, 10)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: paths.SendSocket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			sent <- conn
		}
	}()
	return sent
}

func TestAPythonConnectorIsSpokenToAsPythonProgramsDo(t *testing.T) {
	dir := newDir(t)
	paths := clientPaths(t, dir, "c1")
	sent := python(t, paths)
	c, err := Open(within(t), Target{Dir: dir, Connector: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Info().Native {
		t.Error("taken for one of this toolkit")
	}
	s := c.Sender(SendOptions{})
	for _, d := range []string{"1", "2"} {
		if err := s.Put(c.Header("any", ""), []byte(d), nil); err != nil {
			t.Fatal(err)
		}
	}
	if taken, err := s.Finish(within(t)); taken != 2 || err != nil {
		t.Errorf("got %d, %v", taken, err)
	}
	var got []string
	for len(got) < 2 { // a connection that only looked is empty
		conn := <-sent
		r := wire.NewReader(conn, wire.MaxFrame)
		var f wire.Frame
		for r.Next(&f) == nil {
			got = append(got, string(f.Data))
			if f.Header.Extensions != nil || f.Header.TransportID != nil {
				t.Errorf("got %s", f.Header.Raw)
			}
		}
		conn.Close()
	}
	if want := []string{"1", "2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	// It connects to the receiver, and again for each hundred.
	var received []string
	done := make(chan error, 1)
	go func() {
		done <- c.Receiver(ReceiveOptions{Types: []string{"any"}, Count: 250, Frame: func(_ uint64, f *wire.Frame) error {
			received = append(received, string(f.Data))
			return nil
		}}).Run(within(t))
	}()
	var want []string
	for i := range 250 {
		want = append(want, strings.Repeat("x", i))
	}
	for rest := want; len(rest) > 0; {
		conn := dial(t, paths.ReceiveSocket("any"))
		for _, d := range rest[:min(100, len(rest))] {
			b, err := wire.AppendFrame(nil, []byte(`{"message_type": "any", "source_id": "s"}`), []byte(d), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		rest = rest[min(100, len(rest)):]
	}
	if err := <-done; err != nil || !slices.Equal(received, want) {
		t.Errorf("got %v, %d messages, want %d", err, len(received), len(want))
	}
	if err := c.Receiver(ReceiveOptions{Frame: func(uint64, *wire.Frame) error { return nil }}).Run(within(t)); !errors.Is(err, ErrRefused) {
		t.Errorf("without a type: got %v, want %v", err, ErrRefused)
	}
}

// dial connects as soon as somebody listens.
func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal(err)
		}
	}
}

func TestCommandsAreCalled(t *testing.T) {
	dir := newDir(t)
	paths := clientPaths(t, dir, "c1")
	var r control.Registry
	r.Add(control.Command{Name: "echo", Args: []control.Arg{{Name: "text", Kind: control.String}},
		Run: func(_ context.Context, a control.Args) (any, error) { return a.String("text"), nil }})
	newFake(t, paths.OwnSocket, func(l *link.Link, _ uint64, f *wire.Frame) error {
		if string(f.Header.Type) != wire.TypeCall {
			return nil
		}
		var call struct {
			Cmd    string
			Kwargs json.RawMessage
		}
		if err := json.Unmarshal(f.Data, &call); err != nil {
			return err
		}
		if call.Cmd == "vanish" {
			l.Close(nil)
			return nil
		}
		reply := map[string]any{}
		result, err := r.Call(context.Background(), call.Cmd, call.Kwargs)
		if err != nil {
			reply["error"], reply["reason"] = err.Error(), control.Reason(err)
		} else {
			reply["result"] = result
		}
		text, err := json.Marshal(reply)
		if err != nil {
			return err
		}
		return l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"` + wire.TypeCall + `"`)}}, text, nil)
	})
	c := open(t, dir)
	got, err := c.Call(within(t), "echo", map[string]any{"text": `a "b"`})
	var text string
	if err != nil || json.Unmarshal(got, &text) != nil || text != `a "b"` {
		t.Errorf("got %s, %v", got, err)
	}
	for _, test := range []struct {
		command string
		kwargs  map[string]any
		want    error
	}{
		{"nothing", nil, control.ErrUnknown},
		{"echo", map[string]any{"text": 1}, control.ErrArgument},
		{"vanish", nil, ErrLost},
	} {
		if _, err := c.Call(within(t), test.command, test.kwargs); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.command, err, test.want)
		}
	}
}
