package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/identity"
)

// enrol gives clients certificates of a tree as a server would that makes the
// keys itself.
func enrol(t *testing.T, dir string, names ...string) {
	t.Helper()
	s, err := identity.OpenServer(identity.ServerOptions{
		Dir: dir, Clients: identity.OwnCertificates, CA: identity.HasCA(dir), NotStored: true, Offline: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		crt, key, err := s.Enrol(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := identity.OpenClient(identity.ClientOptions{Dir: dir, Name: name})
		if err == nil {
			err = c.Store(crt, key)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func has(t *testing.T, dir, client string) bool {
	t.Helper()
	text, err := os.ReadFile(config.CertificateTree(dir).SourceIDToCert)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), `"`+client+`"`)
}

func TestDeleteFreesANameWithoutAServer(t *testing.T) {
	for _, ca := range []bool{false, true} {
		t.Setenv("AIOC_DIR", "")
		dir := newDir(t)
		args := []string{"create", dir}
		if ca {
			args = []string{"create", "-ca", dir}
		}
		if status, _, stderr := runs(args...); status != cli.OK {
			t.Fatal(stderr)
		}
		enrol(t, dir, "pump7", "pump8")
		if status, stdout, stderr := runs("delete", "pump7", dir); status != cli.OK || stdout+stderr != "" {
			t.Errorf("CA %v: status %d, %q, %q", ca, status, stdout, stderr)
		}
		if has(t, dir, "pump7") || !has(t, dir, "pump8") {
			t.Errorf("CA %v: pump7 is known: %v, pump8: %v", ca, has(t, dir, "pump7"), has(t, dir, "pump8"))
		}
		status, _, stderr := runs("delete", "pump7", dir)
		if status != cli.Failed || !strings.Contains(stderr, "not known here") {
			t.Errorf("CA %v: again: status %d, %q", ca, status, stderr)
		}
		enrol(t, dir, "pump7")
	}
}

func TestClientsOfACAAreListedThoughNothingIsStored(t *testing.T) {
	t.Setenv("AIOC_DIR", "")
	dir := newDir(t)
	if status, _, stderr := runs("create", "-ca", dir); status != cli.OK {
		t.Fatal(stderr)
	}
	enrol(t, dir, "pump7")
	status, stdout, stderr := runs("show", "-json", "pump7", dir)
	var found []identity.Certificate
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || status != cli.OK || len(found) != 2 {
		t.Fatalf("status %d, %v, %q:\n%s", status, err, stderr, stdout)
	}
	a, b := found[0], found[1] // the server's and the client's side
	if a.Side == b.Side {
		t.Errorf("both are of the %s", a.Side)
	}
	if a.Fingerprint != b.Fingerprint || a.Serial != b.Serial || !a.NotAfter.Equal(b.NotAfter) {
		t.Errorf("the server knows %+v, the client has %+v", a, b)
	}
	if status, stdout, _ := runs("check", "-days", "3650", dir); status != cli.Failed || !strings.Contains(stdout, "source_id_2_cert.json: pump7: expires on ") {
		t.Errorf("check: status %d:\n%s", status, stdout)
	}
}

func TestRenewNamesWhatIsLeftToDo(t *testing.T) {
	dir := newTree(t)
	enrol(t, dir, "pump7", "pump8", "pump9")
	tree := config.CertificateTree(dir)
	for _, path := range []string{tree.ClientCert("pump8"), tree.ClientKey("pump8")} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if status, _, stderr := runs("delete", "pump9", dir); status != cli.OK {
		t.Fatal(stderr)
	}
	for _, c := range []struct {
		name   string
		status int
		says   string
	}{
		{"pump7", cli.OK, ""},
		{"pump8", cli.OK, "on the host of the client, too"},
		{"pump9", cli.OK, "on the host of the server, too"},
		{"pump10", cli.Failed, "not known here"},
		{"a/b", cli.Failed, "not a name for a client"},
		{"default", cli.OK, ""},
		{"server", cli.OK, "server certificate SHA256:"},
	} {
		status, stdout, stderr := runs("renew", c.name, dir)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.says) || c.says == "" && stderr != "" {
			t.Errorf("%s: status %d, %q, %q; want %d and %q", c.name, status, stdout, stderr, c.status, c.says)
		}
	}
	for _, name := range []string{"pump7", "pump9"} {
		if _, err := os.Lstat(tree.ClientCert(name)); err == nil {
			t.Errorf("%s still has its certificate", name)
		}
	}
}

func TestTheNextCertificateIsMadeAheadOfItsUse(t *testing.T) {
	dir := newTree(t)
	fingerprint := func() string {
		_, stdout, _ := runs("fingerprint", dir) // the server's own is the first
		return strings.Fields(stdout)[0]
	}
	before := fingerprint()
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"renew", "-next", "default", dir}, cli.Usage, "-next goes with server only"},
		{[]string{"renew", "-next", "server", dir}, cli.OK, "when all have it, the server gets it: aioc-certs renew server"},
		{[]string{"renew", "-next", "server", dir}, cli.OK, "is there already"},
		{[]string{"list", "-next", dir}, cli.Usage, "-next can't be used with list"},
	} {
		status, stdout, stderr := runs(c.args...)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: status %d, %q, %q; want %d and %q", c.args, status, stdout, stderr, c.status, c.says)
		}
	}
	if got := fingerprint(); got != before {
		t.Errorf("the server shows %s already", got)
	}
	for _, side := range []string{"client", "server"} {
		if status, _, stderr := runs("pack", side, dir); status != cli.OK {
			t.Errorf("pack %s: status %d, %s", side, status, stderr)
		}
	}
	if status, _, stderr := runs("renew", "server", dir); status != cli.OK || fingerprint() == before {
		t.Errorf("status %d, %s", status, stderr)
	}
}

func TestWhatIsPackedIsATree(t *testing.T) {
	dir := newTree(t)
	enrol(t, dir, "pump7")
	for _, side := range []string{"client", "server"} {
		status, stdout, stderr := runs("pack", side, dir)
		if status != cli.OK || stderr != "" {
			t.Fatalf("pack %s: status %d, %q", side, status, stderr)
		}
		if strings.Contains(stdout, "pump7.key") {
			t.Errorf("pack %s: the key of a client is in it", side)
		}
		tar, err := exec.LookPath("tar")
		if err != nil {
			t.Fatal(err) // POSIX hosts have it, and the page tells people to use it
		}
		there := newDir(t)
		c := exec.Command(tar, "-x", "-C", there)
		c.Stdin = strings.NewReader(stdout)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("tar: %v: %s", err, out)
		}
		if status, stdout, stderr := runs("list", there); status != cli.OK || !strings.Contains(stdout, side) {
			t.Errorf("the unpacked %s: status %d, %q:\n%s", side, status, stderr, stdout)
		}
	}
}

func TestTheServersCertificateIsReplacedAndReverted(t *testing.T) {
	dir, other := newTree(t), newTree(t)
	next := config.CertificateTree(other)
	_, before, _ := runs("fingerprint", dir)
	_, after, _ := runs("fingerprint", other)
	elsewhere := filepath.Join(newDir(t), "private")
	key, err := os.ReadFile(next.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(elsewhere, key, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"revert-server", dir}, cli.Failed, "was not replaced"},
		{[]string{"replace-server", elsewhere, dir}, cli.Usage, "say -key FILE"},
		{[]string{"replace-server", next.ServerCert + "x.pem", dir}, cli.Failed, "not there"},
		{[]string{"replace-server", "-key", config.CertificateTree(dir).ServerKey, next.ServerCert, dir}, cli.Failed, "private key does not match"},
		{[]string{"replace-server", next.ServerCert, dir}, cli.OK, after},
		{[]string{"replace-server", "-key", elsewhere, next.ServerCert, dir}, cli.OK, after},
		{[]string{"renew", "server", dir}, cli.Failed, "replace-server"},
		{[]string{"revert-server", dir}, cli.OK, before},
	} {
		status, stdout, stderr := runs(c.args...)
		if status != c.status || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("%q: status %d, %q, %q; want %d and %q", c.args, status, stdout, stderr, c.status, c.says)
		}
	}
}

func TestRepliesOfServersAreUnderstood(t *testing.T) {
	for reply, want := range map[string]bool{
		`{"status": true, "msg": ""}`:                   true,
		`"{\"status\": true, \"msg\": \"\"}"`:           true,
		`{"status": false, "msg": "no"}`:                false,
		`"{\"status\": false, \"msg\": \"no client\"}"`: false,
		`true`:   false, // it has no certificates
		`"True"`: false,
		`"{}"`:   false,
		`null`:   false,
	} {
		if got := deleted(json.RawMessage(reply)); got != want {
			t.Errorf("%s: %v, want %v", reply, got, want)
		}
	}
}
