//go:build interop

package regress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// original is the release of aioconnectors that the family is held against.
const original = "1.6.3"

// python is an interpreter with the original installed, in an environment of
// its own.
type python struct {
	name    string // such as python3.10
	exe     string // the environment's interpreter
	stalls  bool   // 3.11 or later: as a TLS client it falls silent
	version string // such as 3.10.13
}

// pythonKinds are the two kinds of Python that differ on the wire, with the
// minor versions of each in the order in which they are tried.
var pythonKinds = []struct {
	words  string
	stalls bool
	minors []int
}{
	{"below 3.11", false, []int{10, 9, 8}},
	{"3.11 or later", true, []int{13, 12, 11, 14, 15, 16}},
}

// pythons returns one Python of each kind that this machine has, and fails the
// test when there is none with which the original can be installed.
// AIOC_INTEROP_PYTHON, a list of interpreters like PATH, overrides the search.
func pythons(t *testing.T) []python {
	t.Helper()
	candidates := interpreters()
	var found []python
	var problems []string
	for _, kind := range pythonKinds {
		before := len(found)
		for _, minor := range kind.minors {
			exe, ok := candidates[minor]
			if !ok {
				continue
			}
			p, err := environment(exe, minor)
			if err != nil {
				problems = append(problems, fmt.Sprintf("%s: %v", exe, err))
				continue
			}
			p.stalls = kind.stalls
			found = append(found, p)
			break
		}
		if len(found) == before {
			loud(t, fmt.Sprintf("NO PYTHON %s WAS USED: install one (with its venv module) to test that kind too",
				strings.ToUpper(kind.words)))
		}
	}
	for _, p := range problems {
		loud(t, p)
	}
	if len(found) == 0 {
		t.Fatalf("the original could not be installed with any Python: install Python 3.8 or later with its venv module " +
			"and make sure that pip can install aioconnectors==" + original)
	}
	for _, p := range found {
		loud(t, fmt.Sprintf("running with Python %s and aioconnectors %s (%s)", p.version, original, p.exe))
	}
	return found
}

// loud says something that must not be overlooked, also without -v.
func loud(t *testing.T, text string) {
	t.Helper()
	t.Log(text)
	if !testing.Verbose() {
		fmt.Fprintln(os.Stderr, "interop: "+text)
	}
}

// interpreters finds what Python there is: minor version to path.
func interpreters() map[int]string {
	var paths []string
	if list := os.Getenv("AIOC_INTEROP_PYTHON"); list != "" {
		paths = filepath.SplitList(list)
	} else {
		for minor := 8; minor <= 16; minor++ {
			if p, err := exec.LookPath(fmt.Sprintf("python3.%d", minor)); err == nil {
				paths = append(paths, p)
			}
		}
		if p, err := exec.LookPath("python3"); err == nil {
			paths = append(paths, p)
		}
		if home, err := os.UserHomeDir(); err == nil {
			more, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/*/bin/python3"))
			paths = append(paths, more...)
		}
		paths = append(paths, "/usr/bin/python3", "/usr/local/bin/python3")
	}
	found := map[int]string{}
	for _, p := range paths {
		var minor int
		out, err := exec.Command(p, "-I", "-c", "import sys, venv; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)").Output()
		if err != nil {
			continue
		}
		if _, err := fmt.Sscan(string(out), &minor); err != nil || minor < 8 {
			continue
		}
		if _, ok := found[minor]; !ok {
			found[minor] = p
		}
	}
	return found
}

// environment returns a virtual environment of exe with the original in it,
// kept in the user's cache from one run to the next.
func environment(exe string, minor int) (python, error) {
	out, err := exec.Command(exe, "-I", "-c", "import platform; print(platform.python_version())").Output()
	if err != nil {
		return python{}, fmt.Errorf("version: %w", err)
	}
	p := python{name: fmt.Sprintf("python3.%d", minor), version: strings.TrimSpace(string(out))}
	cache, err := os.UserCacheDir()
	if err != nil {
		return python{}, fmt.Errorf("where to keep the environment: %w", err)
	}
	dir := filepath.Join(cache, "aioc-interop", p.version)
	p.exe = filepath.Join(dir, "bin", "python")
	if usable(p.exe) == nil {
		return p, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return python{}, err
	}
	// Made beside its place and moved there, so that an interrupted run
	// leaves nothing half made under the name that the next one looks for.
	made, err := os.MkdirTemp(filepath.Dir(dir), p.version+".new")
	if err != nil {
		return python{}, err
	}
	defer os.RemoveAll(made)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	python := filepath.Join(made, "bin", "python")
	for _, argv := range [][]string{
		{exe, "-m", "venv", made},
		{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "aioconnectors==" + original},
	} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return p, fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(out, 2000))
		}
	}
	if err := usable(python); err != nil {
		return p, err
	}
	if err := os.Rename(made, dir); err != nil {
		if usable(p.exe) == nil {
			return p, nil // another run was faster
		}
		if err := os.RemoveAll(dir); err != nil {
			return p, err
		}
		if err := os.Rename(made, dir); err != nil {
			return p, err
		}
	}
	return p, usable(p.exe)
}

// usable says whether an interpreter has the right release of the original.
func usable(exe string) error {
	out, err := exec.Command(exe, "-c", "import aioconnectors; print(aioconnectors.__version__)").CombinedOutput()
	if err != nil {
		return fmt.Errorf("import aioconnectors: %w\n%s", err, tail(out, 2000))
	}
	if got := strings.TrimSpace(string(out)); got != original {
		return fmt.Errorf("aioconnectors %s is installed, want %s", got, original)
	}
	return nil
}

// process is a program that a test runs beside itself.
type process struct {
	what string
	cmd  *exec.Cmd
	out  *record // standard error, and standard output unless it is a pipe
	done chan struct{}
	err  error // why it ended; valid once done is closed
}

// start starts a program and sees to it that it ends with the test; what it
// wrote is shown when the test failed.
func start(t *testing.T, what string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{what: what, cmd: cmd, out: &record{}, done: make(chan struct{})}
	cmd.Stderr = p.out
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s (%s) wrote:\n%s", what, strings.Join(cmd.Args, " "), tail(p.out.bytes(), 6000))
		}
	})
	return p
}

// kill ends the program as a power cut would, and waits for its end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// end asks the program to end with a signal, and waits for its end.
func (p *process) end(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: still there %v after %v", p.what, patience, sig)
	}
}

// ended says whether the program has ended by itself.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// record is a buffer that may be written and read at the same time.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *record) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.buf.Bytes())
}

// tail returns the last n bytes of b, from the start of a line.
func tail(b []byte, n int) string {
	if len(b) <= n {
		return string(b)
	}
	b = b[len(b)-n:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	return "...\n" + string(b)
}
