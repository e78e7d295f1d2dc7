package identity

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aioc/lib/config"
)

func TestListReadsTheTreesOfTheOriginal(t *testing.T) {
	all, err := List("testdata/original")
	if err != nil {
		t.Fatal(err)
	}
	// As openssl x509 -hash -serial prints them.
	want := []struct{ side, name, hash, serial, subject string }{
		{"server", "server", "16ae8728", "3E108C8480683828FB2D95AA1ADBC0016C7BA06D", "O=company,C=US"},
		{"server", "client1", "8e2f880a", "320816E5E4F775EC2F9E60695900F10DBAB87BE5", ""},
		{"server", "default", "aaa2595a", "6A167482AAC81C1915BFAC04641E372FB86803BA", "O=e079ed2028014acd92c24f6d0848bd95,C=US"},
		{"client", "server", "16ae8728", "3E108C8480683828FB2D95AA1ADBC0016C7BA06D", "O=company,C=US"},
		{"client", "pump7", "6331438b", "530EEBC1572D5CDC7F8F3BAAF1DB3AE9FE4AD548", ""},
	}
	if len(all) != len(want) {
		t.Fatalf("%d certificates, want %d: %+v", len(all), len(want), all)
	}
	for i, w := range want {
		c := all[i]
		if c.Side != w.side || c.Name != w.name || c.Hash != w.hash || c.Serial != w.serial {
			t.Errorf("certificate %d: %+v, want %+v", i, c, w)
		}
		if w.subject != "" && c.Subject != w.subject {
			t.Errorf("certificate %d: subject %q, want %q", i, c.Subject, w.subject)
		}
		if !strings.HasSuffix(c.Path, "/"+w.name+".pem") {
			t.Errorf("certificate %d: path %q", i, c.Path)
		}
	}
	if err := all[0].Valid(all[0].NotBefore.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if err := all[0].Valid(all[0].NotAfter.Add(time.Hour)); !errors.Is(err, ErrDate) {
		t.Errorf("a day too late: %v", err)
	}
}

func TestListNamesBadFilesAndGoesOn(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	clients := filepath.Join(dir, "certificates", "server", "client-certs")
	mustWrite(t, filepath.Join(clients, "empty.pem"), "")
	mustWrite(t, filepath.Join(clients, "torn.pem"), "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
	mustWrite(t, filepath.Join(clients, "note.txt"), "not looked at")
	if err := os.Mkdir(filepath.Join(clients, "dir.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	all, err := List(dir)
	if len(all) != 4 {
		t.Errorf("%d certificates, want 4: %+v", len(all), all)
	}
	for _, says := range []string{"empty.pem\": no certificate in it", "torn.pem", "dir.pem\": not a regular file"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want %q in it", err, says)
		}
	}
}

func TestListReadsAllCertificatesOfAFile(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	trusted := filepath.Join(dir, "certificates", "client", "server-cert", "server.pem")
	other := mustRead(t, "testdata/original/certificates/server/server-cert/server.pem")
	mustWrite(t, trusted, string(mustRead(t, trusted))+"some text\n"+string(other))
	all, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range all {
		if c.Side == "client" && c.Name == "server" {
			n++
		}
	}
	if n != 2 {
		t.Errorf("the client trusts %d servers, want 2", n)
	}
}

func TestListSaysHowToMakeATree(t *testing.T) {
	dir := newDir(t)
	_, err := List(dir)
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "run: aioc-certs create "+dir) {
		t.Errorf("error %v, want %v", err, ErrMissing)
	}
}

func TestTroublesNamesTheCertificatesThatLetNobodyIn(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	if got := Troubles(dir); len(got) != 0 {
		t.Errorf("a new tree: got %q", got)
	}
	old := forged{subject: mustSubject(t, "x"), from: time.Now().Add(-2 * time.Hour), until: time.Now().Add(-time.Hour)}.make(t)
	for _, name := range []string{"default", "pump7"} {
		mustWrite(t, tree.ServerClientCert(name), string(certificatePEM(old.Certificate[0])))
	}
	mustWrite(t, tree.ServerClientCert("tank"), "garbage")
	got := strings.Join(Troubles(dir), "\n")
	for _, want := range []string{
		"who has it cannot get a certificate: certificate \"" + tree.ServerClientCert("default") + "\": not valid today: it expired on ",
		"run: aioc-certs renew default " + dir,
		"this client cannot connect: certificate \"" + tree.ServerClientCert("pump7"),
		"run: aioc-certs renew pump7 " + dir,
		"tank.pem\": no certificate in it",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 2 {
		t.Errorf("got %d lines, want 3:\n%s", n+1, got)
	}
	for i := range 2 * maxTroubles {
		mustWrite(t, tree.ServerClientCert(fmt.Sprint("more", i)), "garbage")
	}
	if got := Troubles(dir); len(got) != maxTroubles+1 || got[maxTroubles] != "and 23 more: see aioc-certs check" {
		t.Errorf("many: got %d lines, the last %q", len(got), got[len(got)-1])
	}
}
