package regress

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// root is the top of the source tree, seen from this package.
const root = "../.."

// programs holds the programs that were built for this test process.
var programs struct {
	once sync.Once
	dir  string
	err  error
	out  []byte
}

// TestMain runs the tests and removes the programs they had built.
func TestMain(m *testing.M) {
	status := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(status)
}

// binaries returns a directory with all programs, built once per test process.
func binaries(t testing.TB) string {
	t.Helper()
	programs.once.Do(func() {
		programs.dir, programs.err = os.MkdirTemp("", "aioc-bin")
		if programs.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", programs.dir+string(filepath.Separator), "./cmd/...")
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		programs.out, programs.err = cmd.CombinedOutput()
	})
	if programs.err != nil {
		t.Fatalf("build the programs: %v\n%s", programs.err, programs.out)
	}
	noteSources(t)
	return programs.dir
}

// noteSources looks at every source file, so that the go command runs these
// tests again, and does not remember their result, when one has changed.
func noteSources(t testing.TB) {
	t.Helper()
	for _, dir := range []string{"cmd", "lib"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".go" {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// mains returns the names of all programs: the folders of cmd with a main.go.
func mains(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "cmd", "*", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no programs in cmd")
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = filepath.Base(filepath.Dir(f))
	}
	return names
}

// mustRead returns the text of a file of the source tree.
func mustRead(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
