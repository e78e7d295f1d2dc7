//go:build interop

package regress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"aioc/lib/identity"
)

// TestInteropCertificates lets this family and the original work on one tree of
// certificates, which either has made: what one has given a client the other
// recognises, and what one has taken from it the other does, too.
func TestInteropCertificates(t *testing.T) {
	for _, py := range pythons(t) {
		for _, ca := range []bool{false, true} {
			for _, maker := range []string{ours, theirs} {
				t.Run(fmt.Sprintf("%s/CA %v/tree=%s", py.name, ca, maker), func(t *testing.T) {
					testTree(t, py, ca, maker)
				})
			}
		}
	}
}

// sharedTree is a tree with the code of both at it.
type sharedTree struct {
	py     python
	dir    string
	ca     string // 1 or 0, as certs.py reads it
	server *identity.Server
}

func testTree(t *testing.T, py python, ca bool, maker string) {
	dir, err := os.MkdirTemp("/tmp", "ai")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tree := &sharedTree{py: py, dir: dir, ca: "0"}
	if ca {
		tree.ca = "1"
	}
	switch {
	case maker == theirs && ca:
		tree.run(t, script(t, "program.py"), "create_certificates", "--ca", dir)
	case maker == theirs:
		tree.run(t, script(t, "program.py"), "create_certificates", dir)
	case ca:
		err = identity.CreateCA(dir)
	default:
		err = identity.Create(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	tree.server, err = identity.OpenServer(identity.ServerOptions{Dir: dir, Clients: identity.OwnCertificates, CA: ca, NotStored: true})
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]*identity.Client{}
	for _, name := range []string{"ours", "key-of-ours", "theirs", "new"} {
		if clients[name], err = identity.OpenClient(identity.ClientOptions{Dir: dir, Name: name}); err != nil {
			t.Fatal(err)
		}
	}

	// One client sends a request, one is of Python and gets its key from us, and
	// one enrols at a server of Python.
	request, err := clients["ours"].NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	for name, csr := range map[string][]byte{"ours": request, "key-of-ours": nil} {
		crt, key, err := tree.server.Enrol(name, csr)
		if err == nil {
			err = clients[name].Store(crt, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tree.script(t, "enrol", "theirs")

	everybody := map[string]string{"ours": "ours", "key-of-ours": "key-of-ours", "theirs": "theirs", "new": "default"}
	tree.expect(t, clients, everybody)

	// Each deletes what the other has given.
	if out := tree.script(t, "delete", "ours"); !strings.Contains(out, `"status": true`) {
		t.Errorf("the original deletes: %s", out)
	}
	if err := tree.server.Delete("theirs", false); err != nil {
		t.Errorf("delete: %v", err)
	}
	delete(everybody, "ours")
	delete(everybody, "theirs")
	tree.expect(t, clients, everybody)

	// The names are free again, at the other end.
	tree.script(t, "enrol", "ours")
	crt, key, err := tree.server.Enrol("theirs", nil)
	if err == nil {
		err = clients["theirs"].Store(crt, key)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.RenewDefault(dir); err != nil {
		t.Fatal(err)
	}
	everybody["ours"], everybody["theirs"] = "ours", "theirs"
	tree.expect(t, clients, everybody)
}

// expect says whom the servers of both must recognise: by the name of the client
// the answer, and nobody else.
func (s *sharedTree) expect(t *testing.T, clients map[string]*identity.Client, want map[string]string) {
	t.Helper()
	cmd := exec.Command(s.py.exe, script(t, "certs.py"), "serve", s.dir, s.ca)
	cmd.Env = plainEnv()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ourPort := s.serve(t)
	for name, c := range clients {
		show := identity.ShowOwn
		if name == "new" {
			show = identity.ShowDefault
		}
		for server, address := range map[string]string{theirs: "127.0.0.1:" + strings.TrimSpace(port), ours: ourPort} {
			got := meet(t, c, show, address)
			if got == "nobody" { // the original lets it in first, and then looks
				got = ""
			}
			if got != want[name] {
				t.Errorf("client %q at server=%s: recognised as %q, want %q", name, server, got, want[name])
			}
		}
	}
}

// serve is certs.py serve of ours.
func (s *sharedTree) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := tls.Server(conn, s.server.TLS())
			c.SetDeadline(time.Now().Add(patience))
			if c.Handshake() == nil {
				who, err := s.server.Recognise(c.ConnectionState())
				switch {
				case err != nil:
				case who.Default:
					io.WriteString(c, "default")
				default:
					io.WriteString(c, who.Name)
				}
			}
			c.Close()
		}
	}()
	return l.Addr().String()
}

// meet returns what the server says to the client, "" when it refuses it.
func meet(t *testing.T, c *identity.Client, show identity.Show, address string) string {
	t.Helper()
	config, err := c.TLS(show)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, config)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(conn)
	if err != nil {
		return ""
	}
	return string(text)
}

// script runs certs.py.
func (s *sharedTree) script(t *testing.T, what string, names ...string) string {
	t.Helper()
	return s.run(t, append([]string{script(t, "certs.py"), what, s.dir, s.ca}, names...)...)
}

func (s *sharedTree) run(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.py.exe, args...)
	cmd.Env = plainEnv()
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}
