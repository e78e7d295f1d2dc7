package durable

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestMain lets the test program take a lock as another process, when it is
// started with the name of the file.
func TestMain(m *testing.M) {
	if path := os.Getenv("DURABLE_TEST_LOCK"); path != "" {
		_, err := Lock(path)
		switch {
		case err == nil:
			os.Exit(10)
		case errors.Is(err, ErrLocked):
			os.Exit(11)
		}
		os.Exit(12)
	}
	os.Exit(m.Run())
}

// lockElsewhere takes the lock in another process, which then ends, and returns
// its exit status.
func lockElsewhere(t *testing.T, path string) int {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "DURABLE_TEST_LOCK="+path)
	cmd.Run() // the status tells
	return cmd.ProcessState.ExitCode()
}

func TestLockIsHeldUntilUnlocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "", 0o600)
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second lock in this process: got %v, want ErrLocked", err)
	}
	if got := lockElsewhere(t, path); got != 11 {
		t.Errorf("a second lock in another process: got status %d, want 11 for ErrLocked", got)
	}
	for range 2 {
		if err := l.Unlock(); err != nil {
			t.Errorf("unlock: got %v", err)
		}
	}
	// The other process takes it and dies without giving it back.
	if got := lockElsewhere(t, path); got != 10 {
		t.Errorf("another process after unlock: got status %d, want 10", got)
	}
	l, err = Lock(path)
	if err != nil {
		t.Fatalf("after the other process died: %v", err)
	}
	l.Unlock()
}

func TestLockIsNotInherited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, l.file.Fd(), syscall.F_GETFD, 0)
	if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("got flags %#x, %v, want FD_CLOEXEC", flags, errno)
	}
	l.Unlock()
}

func TestLockOfARemovedFileIsNotTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if same, err := current(l.file, path); !same || err != nil {
		t.Errorf("while the file is there: got %v, %v", same, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if same, err := current(l.file, path); same || err != nil {
		t.Errorf("after it was removed: got %v, %v", same, err)
	}
	mustWrite(t, path, "", 0o600)
	if same, err := current(l.file, path); same || err != nil {
		t.Errorf("after another took its name: got %v, %v", same, err)
	}
}

func TestLockRefusesWhatIsNoFileOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("target", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		want       error
	}{
		{"a symbolic link", filepath.Join(dir, "link"), syscall.ELOOP},
		{"a directory", dir, syscall.EISDIR},
		{"a missing directory", filepath.Join(dir, "x", "lock"), fs.ErrNotExist},
	} {
		if _, err := Lock(test.path); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
	}
	checkNames(t, dir, "link")
}
