package api

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"aioc/lib/wire"
)

// A connection that says nothing makes the original log an error, so the one
// that finds out whether it is there is used.
func TestAPythonConnectorIsConnectedToOnce(t *testing.T) {
	dir, err := os.MkdirTemp("/tmp", "aioc")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "uds_path_send_to_connector_client_py"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 8) // what each connection has said
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(conn)
			conn.Close()
			got <- string(b)
		}
	}()

	c, err := Open(t.Context(), Target{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if c.Info().Native || c.Info().Name != "py" {
		t.Errorf("got %+v", c.Info())
	}
	for _, data := range []string{"1", "2"} {
		header := c.Header("any", "")
		want, err := wire.AppendFrame(nil, header, []byte(data), nil)
		if err != nil {
			t.Fatal(err)
		}
		s := c.Sender(SendOptions{})
		if err := s.Put(header, []byte(data), nil); err != nil {
			t.Fatal(err)
		}
		if taken, err := s.Finish(t.Context()); taken != 1 || err != nil {
			t.Fatalf("%d taken: %v", taken, err)
		}
		if said := <-got; said != string(want) {
			t.Errorf("got %q, want %q", said, want)
		}
	}
	c.Close()
}
