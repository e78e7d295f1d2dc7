package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The variables with which a test starts this program again to kill it.
const (
	killDir    = "IDENTITY_TEST_DIR"
	killStep   = "IDENTITY_TEST_STEP"
	killSimple = "IDENTITY_TEST_NO_EXCHANGE"

	killServer  = "IDENTITY_TEST_SERVER"
	killCA      = "IDENTITY_TEST_CA"
	killDelete  = "IDENTITY_TEST_DELETE"
	killRequest = "IDENTITY_TEST_REQUEST"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killServer); dir != "" {
		os.Exit(changeAndDie(dir))
	}
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

// changeAndDie enrols or deletes the client "pump7" and kills itself before the
// step that the environment says.
func changeAndDie(dir string) int {
	at, _ := strconv.Atoi(os.Getenv(killStep))
	n := 0
	o := ServerOptions{Dir: dir, Clients: OwnCertificates, CA: os.Getenv(killCA) != ""}
	s, err := openServer(o, time.Now, func(string) error {
		if n++; n == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	if err == nil && os.Getenv(killDelete) != "" {
		err = s.Delete("pump7", false)
	} else if err == nil {
		var request []byte
		if request, err = os.ReadFile(os.Getenv(killRequest)); err == nil {
			_, _, err = s.Enrol("pump7", request)
		}
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}
