package connector

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
)

func TestStopAndStartKeepTheLocalSockets(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := c.receive(t, api.ReceiveOptions{})
	s.send(t, "any", "c1", "1")
	in.wait(t, 1)
	for i := range 3 {
		command(t, s, "stop", map[string]any{"hard": i == 1})
		if _, err := os.Lstat(s.paths.SendSocket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the send socket: got %v", err)
		}
		if got := command(t, s, "show_connected_peers", map[string]any{"dump_result": true}); got != "{}" {
			t.Errorf("peers: got %s", got)
		}
		notTaken(t, s.try(t, "any", "c1", "lost"), 0, "stopped")
		command(t, s, "stop", nil) // once more
		command(t, s, "start", nil)
		command(t, s, "start", nil)
		s.connected(t, "c1")
		eventually(t, "messages pass", func() bool { return s.try(t, "any", "c1", "2") == nil })
	}
	command(t, s, "restart", map[string]any{"sleep_between": 0.01})
	s.connected(t, "c1")
	eventually(t, "messages pass", func() bool { return s.try(t, "any", "c1", "3") == nil })
	eventually(t, "the last one is there", func() bool { all := in.all(); return all[len(all)-1].data == "3" })
	if n := strings.Count(strings.Join(data(in.all()), " "), "lost"); n != 0 {
		t.Errorf("got %d that were refused", n)
	}
}

func TestShutdownByCommandEndsRun(t *testing.T) {
	for _, hard := range []bool{false, true} {
		s := server(t)
		command(t, s, "stop", map[string]any{"shutdown": true, "hard": hard})
		select {
		case <-s.done:
		case <-time.After(patience):
			t.Fatal("it runs on")
		}
		if s.err != nil {
			t.Error(s.err)
		}
		if left := leftovers(t, s.cfg.Dir()); len(left) != 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// leftovers lists the sockets in a directory and what was to be temporary.
func leftovers(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type() == os.ModeSocket || e.IsDir() {
			list = append(list, e.Name())
		}
	}
	return list
}

func TestStoppingPassesOnWhatWasTaken(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	list := numbers(0, 20_000)
	c.send(t, "any", "", list...)
	c.halt(t) // most is still on its way
	c.again(t)
	inOrder(t, in.wait(t, len(list)), len(list))
}

func TestASecondConnectorOfTheNameIsRefused(t *testing.T) {
	s := server(t)
	second := New(Options{Config: s.cfg, Log: s.Connector.log, Level: s.level})
	if err := second.Run(t.Context(), 0); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v, want %v", err, ErrRunning)
	}
	// Names that differ in punctuation only would share the sockets.
	c := s.client(t, "ab")
	cfg := *c.cfg
	cfg.ClientName = "a-b"
	third := New(Options{Config: &cfg, Log: c.Connector.log, Level: c.level})
	if err := third.Run(t.Context(), 0); !errors.Is(err, ErrRunning) {
		t.Errorf("got %v, want %v", err, ErrRunning)
	}
	s.send(t, "any", "ab", "still there")
}

func TestReloadChangesWhatItCan(t *testing.T) {
	s := server(t, types("a"))
	c := s.client(t, "c1", types("a"))
	notTaken(t, c.try(t, "b", "", ""), 0, "type")
	next := *c.cfg
	next.SendTypes = []string{"a", "b"}
	next.MaxMessageSize = 1 << 20
	if err := c.Reload(&next); err != nil {
		t.Fatal(err)
	}
	c.send(t, "b", "", "")
	if n := c.log.count("changed key not used"); n != 1 || !strings.Contains(c.log.String(), "max_message_size") {
		t.Errorf("got %d lines about what needs a restart, want 1", n)
	}
	next.IgnoreTraffic = config.Ignore{All: true}
	if err := c.Reload(&next); err != nil {
		t.Fatal(err)
	}
	notTaken(t, c.try(t, "a", "", ""), 0, "ignored")
}

func TestReloadSaysWhatItCannotChange(t *testing.T) {
	s := server(t)
	next := *s.cfg
	s.Connector.reload = func() error { return s.Reload(&next) }
	if got := command(t, s, "reload", nil); got != "{}" {
		t.Errorf("nothing has changed: got %s", got)
	}
	next.MaxMessageSize++
	for range 2 { // and each time
		if got := command(t, s, "reload", nil); !strings.Contains(got, `{"unchanged":["max_message_size"]`) {
			t.Errorf("got %s, want the key", got)
		}
	}
}

func TestARestartReadsTheConfigurationWhereItIsExpected(t *testing.T) {
	s := server(t, types("a"))
	next := *s.cfg
	var bad error
	read := 0
	s.Connector.reload = func() error {
		if read++; bad != nil {
			return bad
		}
		return s.Reload(&next)
	}
	starts := func() uint64 { return s.events.snapshot()["start"] }
	next.SendTypes = []string{"a", "b"}
	command(t, s, "restart", nil)
	if read != 0 || starts() != 2 {
		t.Errorf("the original's: read %d times, started %d times, want 0 and 2", read, starts())
	}
	if got, err := ask(t, s, "restart", nil); err != nil || got != "null" || starts() != 3 || !s.maySend([]byte("b")) {
		t.Errorf("got %s, %v, started %d times", got, err, starts())
	}
	next.MaxMessageSize++
	if got, err := ask(t, s, "restart", map[string]any{"hard": true}); err != nil || !strings.Contains(got, `"unchanged":["max_message_size"]`) || starts() != 4 {
		t.Errorf("got %s, %v, want the key that needs a new process", got, err)
	}
	bad = errors.New("line 3: no such key")
	if got, err := ask(t, s, "restart", nil); err == nil || !strings.Contains(err.Error(), "not restarted: line 3") || starts() != 4 || !s.running.Load() {
		t.Errorf("got %s, %v, started %d times, want that it is refused", got, err, starts())
	}
	for _, pause := range []float64{-1, 1e9, 1e300} {
		if _, err := ask(t, s, "restart", map[string]any{"sleep_between": pause}); !errors.Is(err, control.ErrArgument) {
			t.Errorf("a pause of %v s: got %v", pause, err)
		}
	}
}

func TestReloadReachesAConnectionThatIsOpen(t *testing.T) {
	s := server(t, types("a"))
	c := s.client(t, "c1", types("a"))
	a := c.open(t)
	one := a.Sender(api.SendOptions{})
	defer one.Close()
	put := func(want int) error {
		t.Helper()
		if err := one.Put(a.Header("a", ""), []byte("x"), nil); err != nil {
			return err
		}
		taken, err := one.Taken(t.Context())
		if taken != want {
			t.Errorf("%d taken, want %d", taken, want)
		}
		return err
	}
	if err := put(1); err != nil {
		t.Fatal(err)
	}
	next := *c.cfg
	next.IgnoreTraffic = config.Ignore{All: true}
	if err := c.Reload(&next); err != nil {
		t.Fatal(err)
	}
	notTaken(t, put(1), 1, "ignored")
}

func TestWhatWasCountedIsInTheLogAtTheEnd(t *testing.T) {
	s := server(t, types("a"))
	c := s.client(t, "c1", types("a", "b"))
	if err := c.try(t, "b", "", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server refuses the type", func() bool {
		return s.counted("message type not in recv_message_types") == 1
	})
	s.halt(t)
	if log := s.log.String(); !strings.Contains(log, "counted since the start") || !strings.Contains(log, `"message type not in recv_message_types"`) {
		t.Errorf("nothing is said of it:\n%s", log)
	}
}
