package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"aioc/lib/config"
)

// inSandbox in the environment makes this test program shut itself in a sandbox
// in which the directory may be written, and try what can be done.
const inSandbox = "DAEMON_SANDBOX"

// tryAll prints the limits, and then, for each thing it tries, its name and
// whether it was refused.
func tryAll(dir string) int {
	cfg := config.Defaults()
	cfg.IsServer = os.Getenv("ROLE") == "server"
	if err := cfg.SetDir(dir); err != nil {
		fmt.Println(err)
		return 1
	}
	cfg.ServerAddr.Host = "127.0.0.1"
	cfg.ServerAddr.Port, _ = strconv.Atoi(os.Getenv("PORT"))
	cfg.FileTargets = map[string]config.FileTarget{"x": {Directory: filepath.Join(dir, "..", "files") + "/{source_id}"}}
	limits, err := sandbox(cfg)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(limits)
	outside := filepath.Dir(dir)
	// In other threads too.
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		try := func(name string, err error) {
			fmt.Println(name, errors.Is(err, fs.ErrPermission))
		}
		try("write inside", os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
		try("write target", os.MkdirAll(filepath.Join(outside, "files", "c1"), 0o700))
		os.Mkdir(filepath.Join(dir, "sub"), 0o700)
		try("rename inside", os.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "sub", "f")))
		try("remove outside", os.Remove(filepath.Join(outside, "old")))
		_, err := os.ReadFile(filepath.Join(outside, "keep"))
		try("read outside", err)
		try("write outside", os.WriteFile(filepath.Join(outside, "g"), nil, 0o600))
		try("overwrite outside", os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600))
		try("mkdir outside", os.Mkdir(filepath.Join(outside, "h"), 0o700))
		try("execute", exec.Command("/bin/true").Run())
		conn, err := net.Dial("tcp", os.Getenv("OTHER"))
		if err == nil {
			conn.Close()
		}
		try("connect", err)
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // of which Landlock knows nothing
		ln, err := lc.Listen(context.Background(), "tcp", cfg.ServerAddr.String())
		if err == nil {
			ln.Close()
		}
		try("listen", err)
	}()
	<-done
	return 0
}

func TestTheSandboxRefusesWhatADaemonDoesNotNeed(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, role := range []string{"server", "client"} {
		base := newDir(t)
		dir := filepath.Join(base, "in")
		for _, d := range []string{dir, filepath.Join(base, "files")} {
			if err := os.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		mustWrite(t, filepath.Join(base, "old"), "")
		mustWrite(t, filepath.Join(base, "keep"), "kept")
		_, port, err := net.SplitHostPort(freeAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), inSandbox+"="+dir, "ROLE="+role, "PORT="+port, "OTHER="+other.Addr().String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		limits, tried, _ := strings.Cut(string(out), "\n")
		// Where the kernel or the build cannot do it, it must say so.
		full := strings.Contains(limits, "writes below")
		network := strings.Contains(limits, "connects to")
		if !full && !strings.HasPrefix(limits, "off: this program was built with cgo") && !strings.Contains(limits, "Landlock") && limits != "none on this system" {
			t.Errorf("limits: %q", limits)
		}
		for line := range strings.Lines(tried) {
			i := strings.LastIndexByte(strings.TrimSpace(line), ' ')
			name, refused := line[:i], strings.TrimSpace(line[i:]) == "true"
			want := false
			switch name {
			case "write outside", "overwrite outside", "mkdir outside", "execute":
				want = full
			case "connect":
				want = network
			case "listen":
				want = network && role == "client"
			}
			if refused != want {
				t.Errorf("%s: %s: refused %v, want %v (%s)", role, name, refused, want, limits)
			}
		}
		if n := strings.Count(tried, "\n"); n != 11 {
			t.Errorf("%d things were tried: %s", n, out)
		}
	}
}

func TestThereIsNoSandboxWhereItWouldHurt(t *testing.T) {
	cfg := config.Defaults()
	if err := cfg.Set("sandbox", []byte("false")); err != nil {
		t.Fatal(err)
	}
	if limits, err := sandbox(cfg); err != nil || runtime.GOOS == "linux" && limits != "off: the key sandbox is false" {
		t.Errorf("got %q, %v", limits, err)
	}
	for _, k := range config.Keys() {
		if !strings.HasPrefix(k.Name, "hook_") || k.Name == "hook_timeout" {
			continue
		}
		cfg := config.Defaults()
		if err := cfg.Set(k.Name, []byte(`["/bin/true"]`)); err != nil {
			t.Fatal(err)
		}
		if limits, err := sandbox(cfg); err != nil || runtime.GOOS == "linux" && !strings.Contains(limits, k.Name) {
			t.Errorf("%s: got %q, %v", k.Name, limits, err)
		}
	}
}
