package identity

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aioc/lib/config"
)

func mustServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	s, err := OpenServer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClient(t testing.TB, o ClientOptions) *Client {
	t.Helper()
	c, err := OpenClient(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustTLS(t testing.TB, c *Client, show Show) *tls.Config {
	t.Helper()
	config, err := c.TLS(show)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// meet makes a TLS connection in memory and returns what both ends made of it.
// The client's end of a refused connection hears of it when it reads.
func meet(t testing.TB, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	a, b := socketPair(t)
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if serverErr = s.Handshake(); serverErr == nil {
			s.Write([]byte("x")) // after the tickets
		}
		s.Close()
	}()
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	c.Close()
	<-done
	return s.ConnectionState(), serverErr, clientErr
}

func socketPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { c.Close() })
	}
	return a, b
}

// mustEnrol lets a client get its certificate from the server, as an aioc client
// does.
func mustEnrol(t testing.TB, s *Server, c *Client) {
	t.Helper()
	request, err := c.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	crt, key, err := s.Enrol(c.o.Name, request)
	if err != nil {
		t.Fatal(err)
	}
	if key != nil {
		t.Error("the server returned a key it cannot have")
	}
	if err := c.Store(crt, nil); err != nil {
		t.Fatal(err)
	}
}

func TestAClientEnrolsAndIsRecognised(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	if c.HasOwn() {
		t.Fatal("a new client has a certificate of its own")
	}
	state, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, c, ShowDefault))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("with the default certificate: server %v, client %v", serverErr, clientErr)
	}
	who, err := s.Recognise(state)
	if err != nil || !who.Default || who.Name != "" {
		t.Fatalf("the default certificate is %+v, %v", who, err)
	}
	mustEnrol(t, s, c)
	if !c.HasOwn() || !s.Has("pump7") {
		t.Fatalf("after the enrolment: client has %v, server has %v", c.HasOwn(), s.Names())
	}
	state, serverErr, clientErr = meet(t, s.TLS(), mustTLS(t, c, ShowOwn))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("with its own certificate: server %v, client %v", serverErr, clientErr)
	}
	who, err = s.Recognise(state)
	if err != nil || who.Default || who.Name != "pump7" {
		t.Fatalf("the own certificate is %+v, %v", who, err)
	}
	if state.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %x, want 1.3", state.Version)
	}

	tree := config.CertificateTree(dir)
	if _, err := os.Lstat(tree.ServerClientKey("pump7")); err == nil {
		t.Error("the server has the client's key")
	}
	if info, err := os.Lstat(tree.ClientKey("pump7")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the client's key: %v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(tree.ClientCertDir, ".aioc-*")); len(left) > 0 {
		t.Errorf("left on the client: %q", left)
	}

	if err := s.Delete("pump7", false); err != nil {
		t.Fatal(err)
	}
	_, serverErr, clientErr = meet(t, s.TLS(), mustTLS(t, c, ShowOwn))
	if !errors.Is(serverErr, ErrUnknown) || clientErr == nil {
		t.Fatalf("after the deletion: server %v, client %v", serverErr, clientErr)
	}
	if _, err := s.Recognise(state); !errors.Is(err, ErrUnknown) {
		t.Errorf("an open connection of a deleted client: %v", err)
	}
	if err := c.Delete(); err != nil {
		t.Fatal(err)
	}
	mustEnrol(t, s, c)
}

func TestTheFirstOfManyWhoAskForANameGetsIt(t *testing.T) {
	modes(t, func(t *testing.T, ca bool, newTree func() string) {
		dir := newTree()
		s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca})
		const names, each = 8, 4
		got := make(chan error, names*each)
		for i := range names * each {
			go func() {
				_, _, err := s.Enrol(fmt.Sprintf("pump%d", i%names), nil)
				got <- err
			}()
		}
		good := 0
		for range names * each {
			if err := <-got; err == nil {
				good++
			} else if !errors.Is(err, ErrTaken) {
				t.Error(err)
			}
		}
		if good != names || len(s.Names()) != names {
			t.Errorf("%d clients got a certificate, %d are known; want %d", good, len(s.Names()), names)
		}
	})
}

func TestATreeThatCannotBeReadLeavesTheOldState(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	var warned []error
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, Warn: func(err error) { warned = append(warned, err) }})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, c)
	text := string(mustRead(t, s.tree.SourceIDToCert))
	mustWrite(t, s.tree.SourceIDToCert, text[:len(text)-1])
	for range 3 {
		if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); err != nil {
			t.Errorf("the client, with half an index: %v", err)
		}
	}
	if len(warned) != 1 {
		t.Errorf("warned %d times, want once: %v", len(warned), warned)
	}
	if err := s.Reload(); err == nil {
		t.Error("a reload takes half an index")
	}
	// The administrator corrects it, without the client.
	mustWrite(t, s.tree.SourceIDToCert, string((&index{}).text()))
	if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a client that is no more in the index: %v", err)
	}
}
