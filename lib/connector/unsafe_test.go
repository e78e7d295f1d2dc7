package connector

import (
	"errors"
	"log/slog"
	"os"
	"testing"

	"aioc/lib/durable"
)

// What others could change is not used, wherever a connector finds it.

func TestAConnectorDoesNotStartInADirectoryOfOthers(t *testing.T) {
	cfg := newConfig(t)
	for _, mode := range []os.FileMode{0o777, 0o775} {
		if err := os.Chmod(cfg.Paths().Dir, mode); err != nil {
			t.Fatal(err)
		}
		c := New(Options{Config: cfg, Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)})
		if err := c.Run(within(t), 0); !errors.Is(err, durable.ErrUnsafe) {
			t.Errorf("mode %04o: got %v, want ErrUnsafe", mode, err)
		}
	}
}

func TestWhatIsKeptOnDiskIsKeptFromOthers(t *testing.T) {
	s := server(t, onDisk("any"))
	s.send(t, "any", "c1", "1")
	s.halt(t)
	if _, err := CheckSpools(s.cfg); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.paths.Spool, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckSpools(s.cfg); !errors.Is(err, durable.ErrUnsafe) {
		t.Errorf("got %v, want ErrUnsafe", err)
	}
	c := New(Options{Config: s.cfg, Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)})
	if err := c.Run(within(t), 0); !errors.Is(err, durable.ErrUnsafe) {
		t.Errorf("the start: got %v, want ErrUnsafe", err)
	}
	if err := os.Chmod(s.paths.Spool, 0o700); err != nil {
		t.Fatal(err)
	}
	s = s.again(t)
	s.send(t, "any", "c2", "2")
}

func TestAFileOfOthersIsNotTakenForWhatThePythonConnectorLeft(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	s.halt(t)
	file := s.paths.PersistenceSend("c1")
	leftover(t, file, frame(`{"message_type": "d", "source_id": "x", "destination_id": "c1"}`, "0"))
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	s = s.again(t)
	if b := s.box("c1", false); b != nil && b.q.Len() != 0 {
		t.Errorf("got %d messages, want none", b.q.Len())
	}
	if n := s.counted("leftover not imported"); n != 1 {
		t.Errorf("got %d files counted, want 1", n)
	}
	s.halt(t)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	s = s.again(t)
	if n := s.box("c1", false).q.Len(); n != 1 {
		t.Errorf("corrected: got %d messages, want 1", n)
	}
}
