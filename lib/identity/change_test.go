package identity

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/config"
)

// mustPair writes a certificate with its key and returns the certificate's path.
func mustPair(t testing.TB, cert tls.Certificate, mode os.FileMode) string {
	t.Helper()
	dir := newDir(t)
	path := filepath.Join(dir, "new.pem")
	var text []byte
	for _, der := range cert.Certificate {
		text = append(text, certificatePEM(der)...)
	}
	mustWrite(t, path, string(text))
	key, err := keyPEM(cert.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir, "new.key"), string(key))
	mustChmod(t, filepath.Join(dir, "new.key"), mode)
	return path
}

func shownBy(t testing.TB, s *Server) [][]byte {
	t.Helper()
	var shown [][]byte
	_, _, err := meet(t, s.TLS(), &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates {
			shown = append(shown, c.Raw)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return shown
}

func TestTheServersCertificateIsReplacedWithItsChainAndPutBack(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	s := mustServer(t, ServerOptions{Dir: dir})
	first := shownBy(t, s)
	root := forged{subject: mustSubject(t, "root"), ca: true}.make(t)
	next := forged{subject: mustSubject(t, "next"), parent: root.Leaf, parentKey: root.PrivateKey}.make(t)
	next.Certificate = append(next.Certificate, root.Certificate[0])
	path := mustPair(t, next, 0o600)
	for range 2 { // the second time must not take the new one for the old
		if err := ReplaceServer(dir, path, strings.TrimSuffix(path, "pem")+"key"); err != nil {
			t.Fatal(err)
		}
		if got := shownBy(t, s); len(got) != 2 || !bytes.Equal(got[0], next.Certificate[0]) || !bytes.Equal(got[1], root.Certificate[0]) {
			t.Errorf("a running server shows %d certificates, want the new one and its CA", len(got))
		}
	}
	for _, path := range []string{tree.ServerKey, tree.ServerKey + orgSuffix} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%q: %v, %v", path, info, err)
		}
	}
	if err := RenewServer(dir); err == nil {
		t.Error("a certificate from elsewhere is renewed")
	}
	if err := RevertServer(dir); err != nil {
		t.Fatal(err)
	}
	if got := shownBy(t, s); len(got) != 1 || !bytes.Equal(got[0], first[0]) {
		t.Error("the first certificate did not come back")
	}
	if err := RevertServer(dir); !errors.Is(err, ErrMissing) {
		t.Errorf("a second revert: %v", err)
	}
	entries, err := os.ReadDir(tree.ServerDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), swapPrefix) {
			t.Errorf("%q is left", e.Name())
		}
	}
}

func TestClientsThatArePackedAfterAReplacementTrustTheServer(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	was := mustRead(t, tree.ServerCert)
	root := forged{subject: mustSubject(t, "root"), ca: true}.make(t)
	next := forged{subject: mustSubject(t, "next"), parent: root.Leaf, parentKey: root.PrivateKey}.make(t)
	path := mustPair(t, next, 0o600)
	for range 2 {
		if err := ReplaceServer(dir, path, strings.TrimSuffix(path, "pem")+"key"); err != nil {
			t.Fatal(err)
		}
		// The certificate alone: its CA has signed those of others as well.
		if got, want := mustRead(t, tree.ClientServerCert), append(certificatePEM(next.Certificate[0]), was...); !bytes.Equal(got, want) {
			t.Errorf("clients trust\n%s\nwant\n%s", got, want)
		}
	}
	if issuer, err := Issuer(path); err != nil || issuer != root.Leaf.Subject.String() {
		t.Errorf("issuer: got %q, %v, want the root", issuer, err)
	}
	if issuer, err := Issuer(tree.ServerKey + orgSuffix); err == nil {
		t.Errorf("issuer of a key: %q", issuer)
	}
}

func TestALostServersKeyIsMadeAnew(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	for _, lost := range [][]string{{tree.ServerKey}, {tree.ServerCert}, {tree.ServerCert, tree.ServerKey}} {
		for _, path := range lost {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := RenewServer(dir); err != nil {
			t.Errorf("without %q: %v", lost, err)
		}
		mustServer(t, ServerOptions{Dir: dir})
	}
}

func TestBadReplacementsChangeNothing(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	good := forged{subject: mustSubject(t, "x")}.make(t)
	expired := forged{subject: mustSubject(t, "x"), from: time.Now().Add(-2 * time.Hour), until: time.Now().Add(-time.Hour)}.make(t)
	before := mustRead(t, tree.ServerCert)
	other := mustPair(t, good, 0o600)
	open := mustPair(t, good, 0o644)
	old := mustPair(t, expired, 0o600)
	key := func(path string) string { return strings.TrimSuffix(path, "pem") + "key" }
	locked := filepath.Join(filepath.Dir(other), "locked.key")
	mustWrite(t, locked, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
	mustChmod(t, locked, 0o600)
	turned := filepath.Join(filepath.Dir(other), "turned.pem")
	mustWrite(t, turned, string(before)+string(mustRead(t, other)))
	for _, c := range []struct {
		name, cert, key string
		says            string
	}{
		{"an encrypted key", other, locked, "is encrypted"},
		{"the certificate of the CA first", turned, key(other), "must be the first"},
		{"an expired certificate", old, key(old), "get a new one"},
	} {
		if err := ReplaceServer(dir, c.cert, c.key); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
	for _, c := range []struct {
		name, cert, key string
		want            error
	}{
		{"no certificate", filepath.Join(dir, "none.pem"), key(other), ErrMissing},
		{"no key", other, filepath.Join(dir, "none.key"), ErrMissing},
		{"a key that others can read", open, key(open), ErrUnsafe},
		{"an expired certificate", old, key(old), ErrDate},
		{"the key of another", tree.ServerCert, key(other), nil},
	} {
		err := ReplaceServer(dir, c.cert, c.key)
		if err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if !bytes.Equal(before, mustRead(t, tree.ServerCert)) || exists(tree.ServerCert+orgSuffix) {
		t.Error("the tree has changed")
	}
}

func TestAClientTrustsTheServerBeforeAndAfterItsRenewal(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, c)
	before := shownBy(t, mustServer(t, ServerOptions{Dir: dir}))
	if err := RenewServer(dir); err != nil {
		t.Fatal(err)
	}
	if after := shownBy(t, mustServer(t, ServerOptions{Dir: dir})); bytes.Equal(before[0], after[0]) {
		t.Error("the certificate is the same")
	}
	if _, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); serverErr != nil || clientErr != nil {
		t.Errorf("with the new certificate: server %v, client %v", serverErr, clientErr)
	}
	all, err := parseCertificates(mustRead(t, s.tree.ClientServerCert))
	if err != nil || len(all) != 2 || !bytes.Equal(all[1].Raw, before[0]) {
		t.Errorf("the client trusts %d certificates, %v; want the new and the old one", len(all), err)
	}
}

func TestAPreparedCertificateIsTrustedBeforeTheServerHasIt(t *testing.T) {
	dir, client := mustCreate(t, newDir(t)), newDir(t)
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, c)
	before := shownBy(t, mustServer(t, ServerOptions{Dir: dir}))
	for i := range 2 {
		if made, err := PrepareServer(dir); err != nil || made != (i == 0) {
			t.Fatalf("call %d: got %v, %v", i, made, err)
		}
	}
	if after := shownBy(t, mustServer(t, ServerOptions{Dir: dir})); !bytes.Equal(before[0], after[0]) {
		t.Error("the certificate is another one already")
	}
	if info, err := os.Stat(s.tree.ServerKey + nextSuffix); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the next key: mode %v, %v", info.Mode(), err)
	}

	// The client on another host is given what it trusts now, and nothing later.
	tree := config.CertificateTree(client)
	for _, name := range []string{"client", "client/server-cert", "client/client-certs"} {
		if err := os.MkdirAll(filepath.Join(tree.Root, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for to, from := range map[string]string{tree.ClientServerCert: s.tree.ClientServerCert,
		tree.ClientCert("pump7"): s.tree.ClientCert("pump7"), tree.ClientKey("pump7"): s.tree.ClientKey("pump7")} {
		if err := os.WriteFile(to, mustRead(t, from), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	far := mustClient(t, ClientOptions{Dir: client, Name: "pump7"})
	trusted := func(when string) {
		t.Helper()
		s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
		if _, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, far, ShowOwn)); serverErr != nil || clientErr != nil {
			t.Errorf("%s: server %v, client %v", when, serverErr, clientErr)
		}
	}
	trusted("before")
	next := mustRead(t, s.tree.ServerCert+nextSuffix)
	if err := RenewServer(dir); err != nil {
		t.Fatal(err)
	}
	trusted("after")
	if got := mustRead(t, s.tree.ServerCert); !bytes.Equal(got, next) {
		t.Error("the server has not got the one that was prepared")
	}
	for _, path := range []string{s.tree.ServerCert, s.tree.ServerKey} {
		if exists(path + nextSuffix) {
			t.Errorf("%s%s is still there", path, nextSuffix)
		}
	}
	if all, err := parseCertificates(mustRead(t, s.tree.ClientServerCert)); err != nil || len(all) != 2 || !bytes.Equal(all[1].Raw, before[0]) {
		t.Errorf("the tree's client trusts %d certificates, %v; want the new and the old one", len(all), err)
	}
}

func TestAPreparedCertificateThatIsDamagedIsNotUsed(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	if _, err := PrepareServer(dir); err != nil {
		t.Fatal(err)
	}
	before := mustRead(t, tree.ServerCert)
	if err := os.Remove(tree.ServerKey + nextSuffix); err != nil {
		t.Fatal(err)
	}
	_, prepared := PrepareServer(dir)
	for _, err := range []error{prepared, RenewServer(dir)} {
		if err == nil || !strings.Contains(err.Error(), "run: rm -f ") {
			t.Errorf("got %v, want what to do", err)
		}
	}
	if !bytes.Equal(before, mustRead(t, tree.ServerCert)) {
		t.Error("the server's certificate has changed")
	}
}

func TestBothDefaultCertificatesAreGoodAfterARenewal(t *testing.T) {
	modes(t, func(t *testing.T, ca bool, newTree func() string) {
		dir := newTree()
		s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca})
		c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
		configs := []*tls.Config{mustTLS(t, c, ShowDefault)}
		for range 2 {
			if err := RenewDefault(dir); err != nil {
				t.Fatal(err)
			}
			configs = append(configs, mustTLS(t, c, ShowDefault))
		}
		for i, config := range configs {
			state, serverErr, clientErr := meet(t, s.TLS(), config)
			if serverErr != nil || clientErr != nil {
				t.Errorf("default certificate %d: server %v, client %v", i, serverErr, clientErr)
				continue
			}
			if who, err := s.Recognise(state); err != nil || !who.Default {
				t.Errorf("default certificate %d is %+v, %v", i, who, err)
			}
		}
		entries, err := os.ReadDir(s.tree.Symlinks)
		if want := 3 + map[bool]int{true: 1}[ca]; err != nil || len(entries) != want {
			t.Errorf("%d links, want %d: %v", len(entries), want, err)
		}
		mustEnrol(t, s, c)
	})
}

func TestAClientEnrolsFromWhatWasPacked(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	mustEnrol(t, s, mustClient(t, ClientOptions{Dir: dir, Name: "pump7"}))
	var archive bytes.Buffer
	if err := PackClient(&archive, dir); err != nil {
		t.Fatal(err)
	}
	there := newDir(t)
	names := unpack(t, &archive, there)
	want := []string{"certificates/", "certificates/client/", "certificates/client/server-cert/", "certificates/client/client-certs/",
		"certificates/client/server-cert/server.pem", "certificates/client/client-certs/default.pem", "certificates/client/client-certs/default.key"}
	if !slices.Equal(names, want) {
		t.Errorf("the archive has\n%q\nwant\n%q", names, want)
	}
	c := mustClient(t, ClientOptions{Dir: there, Name: "pump8"})
	if _, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, c, ShowDefault)); serverErr != nil || clientErr != nil {
		t.Fatalf("server %v, client %v", serverErr, clientErr)
	}
	mustEnrol(t, s, c)

	// The server moves to another host, and knows its clients there.
	archive.Reset()
	if err := PackServer(&archive, dir); err != nil {
		t.Fatal(err)
	}
	moved := newDir(t)
	unpack(t, &archive, moved)
	s = mustServer(t, ServerOptions{Dir: moved, Clients: OwnCertificates})
	if _, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); serverErr != nil || clientErr != nil {
		t.Errorf("the moved server: server %v, client %v", serverErr, clientErr)
	}
	mustChmod(t, config.CertificateTree(dir).ClientKey("default"), 0o644)
	if err := PackClient(io.Discard, dir); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a key that others can read: %v", err)
	}
}

func unpack(t *testing.T, archive io.Reader, dir string) (names []string) {
	t.Helper()
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if err == io.EOF {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, os.FileMode(h.Mode))
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		default:
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
			if err == nil {
				err = os.Chmod(path, os.FileMode(h.Mode))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
