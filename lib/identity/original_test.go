package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"aioc/lib/config"
)

// enrolledTree makes the tree that aioconnectors has left after one client,
// client1, had enrolled: testdata/enrolled.json.
func enrolledTree(t *testing.T, name string) string {
	t.Helper()
	var entries []struct{ Path, Type, Mode, Text, Target string }
	mustJSON(t, "testdata/enrolled.json", &entries)
	dir := newDir(t)
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Path, name+"/")
		if !ok {
			continue
		}
		path := filepath.Join(dir, rest)
		mode, _ := strconv.ParseUint(e.Mode, 0, 32)
		var err error
		switch e.Type {
		case "dir":
			err = os.Mkdir(path, 0o700)
		case "link":
			err = os.Symlink(e.Target, path)
		default:
			err = os.WriteFile(path, []byte(e.Text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != "link" {
			mustChmod(t, path, os.FileMode(mode))
		}
	}
	return dir
}

func TestATreeOfTheOriginalIsUsed(t *testing.T) {
	for _, c := range []struct {
		name string
		ca   bool
	}{{"certs-noca/enrolled", false}, {"certs-ca/enrolled", true}} {
		t.Run(c.name, func(t *testing.T) {
			dir := enrolledTree(t, c.name)
			tree := config.CertificateTree(dir)
			// A day on which its certificates are valid.
			pem, err := firstCertificate(mustRead(t, tree.ClientCert("client1")))
			if err != nil {
				t.Fatal(err)
			}
			clock := func() time.Time { return pem.NotBefore.AddDate(1, 0, 0) }
			s, err := openServer(ServerOptions{Dir: dir, Clients: OwnCertificates, CA: c.ca, NotStored: true}, clock, func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			recognise := func(path string) (Who, error) {
				cert, err := firstCertificate(mustRead(t, path))
				if err != nil {
					t.Fatal(err)
				}
				return s.Recognise(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
			}
			if who, err := recognise(tree.ClientCert("client1")); err != nil || who.Name != "client1" {
				t.Errorf("client1 is %+v, %v", who, err)
			}
			if who, err := recognise(tree.ClientCert("default")); err != nil || !who.Default {
				t.Errorf("default is %+v, %v", who, err)
			}
			if got, want := string(s.fresh().index.text()), string(mustRead(t, tree.SourceIDToCert)); got != want {
				t.Errorf("the index would be written as\n%s\nwant\n%s", got, want)
			}
			crt, key, err := s.Enrol("client2", nil)
			if err != nil || len(crt) == 0 || len(key) == 0 {
				t.Fatalf("a Python client enrols: %v", err)
			}
			if _, err := tls.X509KeyPair(crt, key); err != nil {
				t.Errorf("what it gets: %v", err)
			}
			if _, _, err := s.Enrol("client1", nil); !errors.Is(err, ErrTaken) {
				t.Errorf("another client1: %v", err)
			}
			for _, name := range []string{"client2", "client1"} {
				if err := s.Delete(name, false); err != nil {
					t.Errorf("delete %s: %v", name, err)
				}
			}
			if _, err := recognise(tree.ClientCert("client1")); err == nil {
				t.Error("client1 is known after its deletion")
			}
			if got, want := string(mustRead(t, tree.SourceIDToCert)), `{"source_id_2_cert": {}, "cert_2_source_id": {}}`; got != want {
				t.Errorf("the index after the deletions is %s, want %s", got, want)
			}
			links, err := os.ReadDir(tree.Symlinks)
			if want := map[bool]int{false: 1, true: 2}[c.ca]; err != nil || len(links) != want {
				t.Errorf("%d links are left, want %d: %v", len(links), want, err)
			}
			for _, path := range []string{tree.ServerClientCert("client1"), tree.ServerClientKey("client1")} {
				if _, err := os.Lstat(path); err == nil {
					t.Errorf("%q is left", path)
				}
			}
			// The client's side of the same tree.
			client := mustClient(t, ClientOptions{Dir: dir, Name: "client1"})
			client.clock = clock
			config := mustTLS(t, client, ShowDefault)
			config.Time, s.outer.Time = clock, clock
			if _, _, err := meet(t, s.TLS(), config); err != nil {
				t.Errorf("a client on this tree: %v", err)
			}
		})
	}
}

func TestLinksOfOneHashStayWithoutGaps(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	// Certificates of other makers may share a subject.
	subject := mustSubject(t, "same")
	hash, err := SubjectHash(subject)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b", "c", "d"}
	x := &index{}
	certs := map[string]tls.Certificate{}
	for _, name := range names {
		certs[name] = forged{subject: subject}.make(t)
		leaf := certs[name].Leaf
		mustWrite(t, s.tree.ServerClientCert(name), string(certificatePEM(leaf.Raw)))
		if err := addLink(s.tree, name, leaf); err != nil {
			t.Fatal(err)
		}
		x = x.with(name, serialText(leaf))
	}
	mustWrite(t, s.tree.SourceIDToCert, string(x.text()))
	for i, name := range []string{"b", "d", "a", "c"} {
		if err := s.Delete(name, i%2 == 1); err != nil {
			t.Fatal(err)
		}
		links, err := readLinks(s.tree, hash)
		if err != nil || len(links) != len(names)-1-i {
			t.Fatalf("after %q: %d links, %v", name, len(links), err)
		}
		for other, cert := range certs {
			_, err, _ := meet(t, s.TLS(), showing(cert))
			if known := s.Has(other); known != (err == nil) {
				t.Errorf("after %q: %q: known %v, %v", name, other, known, err)
			}
		}
	}
	// What only lost its link keeps its name.
	if _, _, err := s.Enrol("d", nil); !errors.Is(err, ErrTaken) {
		t.Errorf("a name whose certificate is still there: %v", err)
	}
}

func mustSubject(t testing.TB, organization string) []byte {
	t.Helper()
	template, err := parseTemplate([]byte(defaultTemplate))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := template.subject(organization)
	if err != nil {
		t.Fatal(err)
	}
	return subject
}
