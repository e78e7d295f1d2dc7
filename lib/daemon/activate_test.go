package daemon

import (
	"net"
	"os"
	"strings"
	"testing"

	"aioc/lib/cli"
)

// The service manager is told what it does wrong.
func TestOnlyAServerTakesASocketAndOneOnly(t *testing.T) {
	for _, tt := range []struct {
		who     string
		sockets int
	}{{"client", 1}, {"server", 2}} {
		var files []*os.File
		for range tt.sockets {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			file, err := ln.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			ln.Close()
			defer file.Close()
			files = append(files, file)
		}
		d := spawn(t, tt.who, []string{"LISTEN_FDS=" + string(rune('0'+tt.sockets))}, files, "-tls", "off", "-dir", newDir(t), "-addr", freeAddr(t))
		if status := d.ends(t); status != cli.Failed || !strings.Contains(d.text(), "only aioc-server takes one, one only") {
			t.Errorf("%s, %d sockets: status %d, %s", tt.who, tt.sockets, status, d.text())
		}
	}
}
