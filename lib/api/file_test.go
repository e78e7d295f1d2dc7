package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/wire"
)

// taker is the own socket of a connector that takes files which are passed, or
// does not know of that.
type taker struct {
	passes bool
	frame  func(in *local.Incoming, l *link.Link, n uint64, f *wire.Frame) error
}

// taking is one connection of a taker.
type taking struct {
	*taker
	in *local.Incoming
	l  *link.Link
}

func (c *taking) Frame(n uint64, f *wire.Frame) error { return c.frame(c.in, c.l, n, f) }
func (c *taking) Flush() error                        { return nil }

// listen makes it listen, and returns a client of it.
func (k *taker) listen(t *testing.T) *Client {
	t.Helper()
	dir := newDir(t)
	ln, err := local.Listen(clientPaths(t, dir, "c1").OwnSocket, local.Options{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { ln.Serve(ctx, k.serve) })
	t.Cleanup(func() { stop(); all.Wait() })
	c, err := Open(within(t), Target{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (k *taker) serve(ctx context.Context, conn *net.UnixConn) {
	c := &taking{taker: k, in: local.NewIncoming(conn, func(int) bool { return true })}
	defer c.in.Close()
	o := link.Options{ID: "c1", Handler: c, PassPings: true,
		Extensions: []string{wire.ExtAckTo, wire.ExtFlow}, Info: func() []byte { return []byte(`{"name": "c1"}`) }}
	if k.passes {
		o.Extensions = append(o.Extensions, wire.ExtPass)
		o.Greeted = func(f *wire.Frame) {
			if f != nil && f.Header.Speaks(wire.ExtPass) {
				c.in.Accept()
			}
		}
	}
	c.l = link.New(conn, wire.NewReader(c.in, wire.MaxFrame), o)
	_ = c.l.Run(ctx)
}

// files makes files whose contents are their numbers.
func files(t *testing.T, n int) (list []*os.File) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		path := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(path, []byte(strconv.Itoa(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		list = append(list, f)
	}
	return list
}

func TestEachMessageHasItsFile(t *testing.T) {
	const count = 4 * maxPassed
	var mu sync.Mutex
	var got []string
	k := &taker{passes: true, frame: func(in *local.Incoming, l *link.Link, n uint64, f *wire.Frame) error {
		mu.Lock()
		defer mu.Unlock()
		text := string(f.Data) + " "
		if number := f.Header.Field("file_passed"); number != nil {
			n, err := strconv.ParseUint(string(number), 10, 64)
			if err != nil {
				return err
			}
			file, err := in.Claim(n)
			if err != nil {
				return err
			}
			defer file.Close()
			b := make([]byte, 10)
			m, _ := file.ReadAt(b, 0) // shorter
			text += string(b[:m])
		}
		got = append(got, text)
		return nil
	}}
	c := k.listen(t)
	if !c.Info().Passes {
		t.Fatal("the connector does not say that it takes files")
	}
	s := c.Sender(SendOptions{Files: true})
	defer s.Close()
	var want []string
	for i, f := range files(t, count) {
		if i%3 == 0 { // one without
			if err := s.Put(c.Header("any", ""), []byte("-"), nil); err != nil {
				t.Fatal(err)
			}
			want = append(want, "- ")
		}
		if err := s.PutFile(c.Header("any", ""), []byte(strconv.Itoa(i)), nil, f); err != nil {
			t.Fatal(err)
		}
		f.Close() // at once
		want = append(want, fmt.Sprint(i, " ", i))
	}
	if n, err := s.Finish(within(t)); n != len(want) || err != nil {
		t.Errorf("taken: got %d, %v, want %d", n, err, len(want))
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestNoMoreFilesAreOnTheirWayThanAConnectorKeeps(t *testing.T) {
	came := make(chan uint64, 10*maxPassed)
	var mu sync.Mutex
	var l *link.Link
	k := &taker{passes: true, frame: func(in *local.Incoming, on *link.Link, n uint64, f *wire.Frame) error {
		mu.Lock()
		l = on
		mu.Unlock()
		on.Hold(n) // not acknowledged, and not claimed
		came <- n
		return nil
	}}
	c := k.listen(t)
	s := c.Sender(SendOptions{Files: true})
	defer s.Close()
	const count = 2*maxPassed + 1
	put, list, ctx := make(chan error, 1), files(t, count), within(t)
	go func() {
		for _, f := range list {
			if err := s.PutFile(c.Header("any", ""), nil, nil, f); err != nil {
				put <- err
				return
			}
		}
		_, err := s.Taken(ctx)
		put <- err
	}()
	for i := range uint64(count) {
		n := <-came
		if n != i+1 {
			t.Fatalf("message %d came as number %d", n, i+1)
		}
		if n < maxPassed {
			continue
		}
		if n == maxPassed {
			select {
			case n := <-came:
				t.Errorf("message %d came before one was acknowledged", n)
			case err := <-put:
				t.Fatal(err)
			default:
			}
		}
		mu.Lock()
		on := l
		mu.Unlock()
		on.Settle(n-maxPassed+1, nil)
	}
	mu.Lock()
	on := l
	mu.Unlock()
	for n := uint64(count - maxPassed + 2); n <= count; n++ {
		on.Settle(n, nil)
	}
	if err := <-put; err != nil {
		t.Error(err)
	}
}

func TestProgressIsThatOfTheMessage(t *testing.T) {
	k := &taker{passes: true, frame: func(in *local.Incoming, l *link.Link, n uint64, f *wire.Frame) error {
		if string(f.Header.Field("file_progress")) != "true" {
			return nil
		}
		tell := func(file, offset, size string) {
			_ = l.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"_file_ack"`)}, {Key: "file", Value: []byte(file)},
				{Key: "offset", Value: []byte(offset)}, {Key: "size", Value: []byte(size)}}, nil, nil)
		}
		number := string(f.Header.Field("file_passed"))
		tell(number, "0", "10")
		for _, bad := range [][3]string{{"77", "1", "10"}, {`"x"`, "1", "10"}, {number, "-1", "10"}, {number, "11", "10"}, {number, "{}", "10"}, {"-1", "1", "10"}} {
			tell(bad[0], bad[1], bad[2])
		}
		tell(number, "10", "10")
		return nil
	}}
	c := k.listen(t)
	var mu sync.Mutex
	var got []Progress
	s := c.Sender(SendOptions{Files: true, Progress: func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, p)
	}})
	defer s.Close()
	if err := s.Put(c.Header("any", ""), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.PutFile(c.Header("any", ""), nil, nil, files(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Taken(within(t)); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []Progress{{1, 0, 10}, {1, 10, 10}}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAConnectorThatDoesNotTakeFilesGetsTheirNames(t *testing.T) {
	headers := make(chan string, 1)
	k := &taker{frame: func(in *local.Incoming, l *link.Link, n uint64, f *wire.Frame) error {
		headers <- string(f.Header.Raw)
		return nil
	}}
	c := k.listen(t)
	if c.Info().Passes {
		t.Error("it says that it takes files")
	}
	s := c.Sender(SendOptions{Files: true, Progress: func(Progress) {}})
	defer s.Close()
	want := wire.AppendEdited(nil, c.Header("any", ""), wire.Edit{Key: "with_file", Value: []byte(`{"src_path": "/x"}`)})
	if err := s.PutFile(want, nil, nil, files(t, 1)[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(within(t)); err != nil {
		t.Fatal(err)
	}
	if got := <-headers; got != string(want) || strings.Contains(got, "file_passed") {
		t.Errorf("got %s, want %s", got, want)
	}
}
