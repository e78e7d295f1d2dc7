package cli

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLogFile(t *testing.T) {
	dir := t.TempDir()
	path, old := filepath.Join(dir, "log"), filepath.Join(dir, "log.1")
	l, err := OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	log := NewLogger(l, LogText, slog.LevelInfo)
	log.Info("first")
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	log.Info("second")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	log.Info("third")
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := l.Write([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Close: %v, want %v", err, fs.ErrClosed)
	}
	for file, want := range map[string][]string{old: {"first", "second"}, path: {"third"}} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(text)) {
			got = append(got, strings.Fields(line)[2])
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s has %q, want %q", filepath.Base(file), got, want)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", filepath.Base(file), info.Mode().Perm())
		}
	}
}

func TestLogFileKeepsWhatWasThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, line := range []string{"one\n", "two\n"} {
		l, err := OpenLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Write([]byte(line)); err != nil {
			t.Error(err)
		}
		l.Close()
	}
	if text, err := os.ReadFile(path); string(text) != "one\ntwo\n" {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestLogFileThatIsNone(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("elsewhere", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, fifo, link, filepath.Join(dir, "no", "log")} {
		if l, err := OpenLog(path); err == nil {
			l.Close()
			t.Errorf("OpenLog(%s) succeeds", path)
		} else if !strings.HasPrefix(err.Error(), "log file: ") || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenLog(%s): %v", path, err)
		}
	}
}

func TestReopenThatFailsKeepsTheOldFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Rename(dir, dir+"2"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("Reopen succeeds in a directory that is gone")
	}
	if _, err := l.Write([]byte("x\n")); err != nil {
		t.Errorf("Write after it: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(dir+"2", "log")); string(text) != "x\n" {
		t.Errorf("got %q, %v", text, err)
	}
}
