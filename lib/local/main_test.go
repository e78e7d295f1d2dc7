package local

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// The variables with which a test starts this program again.
const (
	dialPath   = "LOCAL_TEST_DIAL"
	dialUID    = "LOCAL_TEST_UID"
	dialGID    = "LOCAL_TEST_GID"
	dialGroups = "LOCAL_TEST_GROUPS" // how many others it is in, the last of which is 0
	killDir    = "LOCAL_TEST_KILL"
)

// TestMain lets the test program be another process: one of another user that
// connects, or one that is killed before its socket has its name.
func TestMain(m *testing.M) {
	if path := os.Getenv(dialPath); path != "" {
		os.Exit(dialAs(path))
	}
	if dir := os.Getenv(killDir); dir != "" {
		p, err := newPrivate(dir)
		if err == nil {
			_, err = net.Listen("unix", p.socket())
		}
		fmt.Fprintln(os.Stderr, err)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	os.Exit(m.Run())
}

func dialAs(path string) int {
	if text := os.Getenv(dialUID); text != "" {
		uid, _ := strconv.Atoi(text)
		gid, _ := strconv.Atoi(os.Getenv(dialGID))
		n, _ := strconv.Atoi(os.Getenv(dialGroups))
		var groups []int
		for i := range n {
			groups = append(groups, 70000+i)
		}
		if n > 0 {
			groups[n-1] = 0
		}
		for _, err := range []error{syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid)} {
			if err != nil {
				fmt.Println(err)
				return 1
			}
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	c.Read(make([]byte, 1)) // until it has been looked at
	fmt.Println("connected")
	return 0
}

// again starts this program as another process with more in its environment.
func again(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// nobody returns the ids of the user nobody.
func nobody(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		t.Fatal(err)
	}
	if gid, err = strconv.Atoi(u.Gid); err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// newDir returns a directory with a short name that all may pass through.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustListen(t *testing.T, path string, o Options) *Listener {
	t.Helper()
	l, err := Listen(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// names lists a directory.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}
