package identity

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// runKilled runs changeAndDie in another process and says whether it was killed.
func runKilled(t *testing.T, step int, env ...string) (killed bool) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program)
	c.Env = append(append(os.Environ(), killStep+"="+strconv.Itoa(step)), env...)
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("step %d: %v: %s", step, err, out)
	}
	return false
}

// modes runs a test for a tree with and one without a CA.
func modes(t *testing.T, test func(t *testing.T, ca bool, newTree func() string)) {
	for _, ca := range []bool{false, true} {
		t.Run(fmt.Sprintf("CA %v", ca), func(t *testing.T) {
			test(t, ca, func() string {
				if ca {
					return mustCreateCA(t, newDir(t))
				}
				return mustCreate(t, newDir(t))
			})
		})
	}
}

func TestAKilledEnrolmentCanBeRepeated(t *testing.T) {
	modes(t, func(t *testing.T, ca bool, newTree func() string) {
		for step := 1; ; step++ {
			dir := newTree()
			c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
			request, err := c.NewRequest()
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "request")
			mustWrite(t, file, string(request))
			env := []string{killServer + "=" + dir, killRequest + "=" + file}
			if ca {
				env = append(env, killCA+"=1")
			}
			killed := runKilled(t, step, env...)
			s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca})
			mustEnrol(t, s, c) // with the same key
			if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); err != nil {
				t.Errorf("killed at step %d: the client afterwards: %v", step, err)
			}
			if left, _ := filepath.Glob(filepath.Join(s.tree.ServerClientCerts, stagedPrefix+"*")); len(left) > 0 {
				t.Errorf("killed at step %d: left %q", step, left)
			}
			if _, _, err := s.Enrol("pump7", nil); !errors.Is(err, ErrTaken) {
				t.Errorf("killed at step %d: another asks for the name: %v", step, err)
			}
			if !killed {
				if step < 4 {
					t.Errorf("only %d steps: the test sees too little", step)
				}
				return
			}
		}
	})
}

func TestAKilledDeletionCanBeRepeatedAndLetsNobodyIn(t *testing.T) {
	modes(t, func(t *testing.T, ca bool, newTree func() string) {
		for step := 1; ; step++ {
			dir := newTree()
			o := ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca}
			s := mustServer(t, o)
			c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
			other := mustClient(t, ClientOptions{Dir: dir, Name: "pump8"})
			mustEnrol(t, s, c)
			mustEnrol(t, s, other)
			env := []string{killServer + "=" + dir, killDelete + "=1"}
			if ca {
				env = append(env, killCA+"=1")
			}
			killed := runKilled(t, step, env...)
			// The server that has run all the time sees what another has done.
			_, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn))
			if step > 1 && err == nil || step == 1 && err != nil {
				t.Errorf("killed at step %d: the client afterwards: %v", step, err)
			}
			if err := s.Delete("pump7", false); err != nil && !errors.Is(err, ErrUnknown) {
				t.Errorf("killed at step %d: once more: %v", step, err)
			}
			if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); err == nil {
				t.Errorf("killed at step %d: the deleted client is let in", step)
			}
			if err := c.Delete(); err != nil {
				t.Fatal(err)
			}
			mustEnrol(t, s, c)
			for _, c := range []*Client{c, other} {
				if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); err != nil {
					t.Errorf("killed at step %d: %q: %v", step, c.o.Name, err)
				}
			}
			if !killed {
				return
			}
		}
	})
}
