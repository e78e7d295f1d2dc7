package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// The variables with which a test starts this program again to kill it.
const (
	killDir    = "IDENTITY_TEST_DIR"
	killStep   = "IDENTITY_TEST_STEP"
	killSimple = "IDENTITY_TEST_NO_EXCHANGE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		at, _ := strconv.Atoi(os.Getenv(killStep))
		b := builder{exchange: exchange}
		if os.Getenv(killSimple) != "" {
			b.exchange = func(string, string) error { return syscall.EINVAL }
		}
		n := 0
		b.step = func(string) error {
			if n++; n == at {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return nil
		}
		if err := b.create(dir); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newDir returns a directory that only we may write to, whatever the umask.
func newDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustCreate(t testing.TB, dir string) string {
	t.Helper()
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustWrite(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustJSON(t testing.TB, path string, to any) {
	t.Helper()
	if err := json.Unmarshal(mustRead(t, path), to); err != nil {
		t.Fatal(err)
	}
}
