package connector

import (
	"net"
	"os"
	"strings"
	"testing"

	"aioc/lib/config"
	"aioc/lib/identity"
)

func TestHealthSaysWhyAClientIsNotConnected(t *testing.T) {
	cfg := newConfig(t)
	cfg.IsServer, cfg.ClientName = false, "c1"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ServerAddr.Port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	c := run(t, cfg, nil)
	eventually(t, "health has the reason", func() bool {
		problems := c.problems()
		return len(problems) == 1 && strings.HasPrefix(problems[0], "not connected to the server 127.0.0.1:") && strings.HasSuffix(problems[0], "connection refused")
	})
}

func TestARenewedCertificateCountsAtOnce(t *testing.T) {
	dir := newDir(t)
	if err := identity.Create(dir); err != nil {
		t.Fatal(err)
	}
	cfg := config.Defaults()
	cfg.IsServer, cfg.CertificatesDir = true, dir
	if err := cfg.SetDir(dir); err != nil {
		t.Fatal(err)
	}
	var f certFiles
	before := f.list(cfg, cfg.Paths())
	if len(before) != 2 || before[0].Name != "server" || before[1].Name != "default" {
		t.Fatalf("got %+v, want the server's and the default one", before)
	}
	if err := os.Remove(cfg.Paths().ServerCert); err != nil {
		t.Fatal(err)
	}
	if got := f.list(cfg, cfg.Paths()); len(got) != 1 {
		t.Errorf("removed: got %+v", got)
	}
	if err := identity.RenewServer(dir); err != nil {
		t.Fatal(err)
	}
	if got := f.list(cfg, cfg.Paths()); len(got) != 2 {
		t.Errorf("renewed: got %+v", got)
	}
}

func TestAFullDiskIsNamed(t *testing.T) {
	dir := t.TempDir()
	if got := shortOf(dir, 0); got != "" {
		t.Errorf("nothing is needed: got %q", got)
	}
	if got := shortOf(dir, 1<<62); !strings.Contains(got, "the disk of "+dir+" is full") {
		t.Errorf("more is needed than any disk has: got %q", got)
	}
	if got := shortOf(dir+"/none", 1<<62); got != "" {
		t.Errorf("no directory: got %q", got)
	}
}
