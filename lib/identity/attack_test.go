package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/config"
)

// forged is a certificate as an attacker or an accident makes it.
type forged struct {
	serial    *big.Int
	subject   []byte
	from      time.Time
	until     time.Time
	parent    *x509.Certificate // nil for one signed by itself
	parentKey any
	ca        bool
}

func (f forged) make(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c := &x509.Certificate{SerialNumber: f.serial, RawSubject: f.subject, NotBefore: f.from, NotAfter: f.until,
		BasicConstraintsValid: f.ca, IsCA: f.ca}
	if c.SerialNumber == nil {
		c.SerialNumber = newSerial()
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = now.Add(-time.Hour)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = now.Add(time.Hour)
	}
	parent, signer := f.parent, f.parentKey
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// showing is a client that shows any certificate, whatever the server asks for.
func showing(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	}
}

func mustLoad(t testing.TB, c *Client) tls.Certificate {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(c.tree.ClientCert(c.o.Name), c.tree.ClientKey(c.o.Name))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestForgedCertificatesAreRefused(t *testing.T) {
	for _, ca := range []bool{false, true} {
		t.Run(map[bool]string{false: "without a CA", true: "with a CA"}[ca], func(t *testing.T) {
			dir := newDir(t)
			if ca {
				mustCreateCA(t, dir)
			} else {
				mustCreate(t, dir)
			}
			s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca, NotStored: true})
			c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
			mustEnrol(t, s, c)
			own := mustLoad(t, c)
			template, err := parseTemplate([]byte(defaultTemplate))
			if err != nil {
				t.Fatal(err)
			}
			other, err := template.subject("other")
			if err != nil {
				t.Fatal(err)
			}
			// A CA that the operator has admitted, and whose holder is not honest.
			partner := forged{subject: other, ca: true}.make(t)
			if err := os.WriteFile(filepath.Join(dir, "partner.pem"), certificatePEM(partner.Leaf.Raw), 0o644); err != nil {
				t.Fatal(err)
			}
			hash, err := SubjectHash(other)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../../../../partner.pem", linkPath(s.tree, hash, 0)); err != nil {
				t.Fatal(err)
			}
			bySubject, err := template.subject("somebody")
			if err != nil {
				t.Fatal(err)
			}
			for _, attack := range []struct {
				name   string
				forged forged
				want   error
			}{
				{"signed by itself, with no connection to the tree", forged{subject: bySubject}, ErrUnknown},
				{"the serial number of a client", forged{subject: bySubject, serial: own.Leaf.SerialNumber}, ErrForeign},
				{"the serial number and the subject of a client", forged{subject: own.Leaf.RawSubject, serial: own.Leaf.SerialNumber}, ErrForeign},
				{"the subject of a client", forged{subject: own.Leaf.RawSubject}, ErrUnknown},
				{"signed by another client's certificate", forged{subject: bySubject, parent: own.Leaf, parentKey: own.PrivateKey}, ErrUnknown},
				{"signed by another client's certificate, with its serial number",
					forged{subject: own.Leaf.RawSubject, serial: own.Leaf.SerialNumber, parent: own.Leaf, parentKey: own.PrivateKey}, ErrForeign},
				{"signed by an admitted CA, with the serial number of a client",
					forged{subject: bySubject, serial: own.Leaf.SerialNumber, parent: partner.Leaf, parentKey: partner.PrivateKey}, ErrForeign},
				{"signed by an admitted CA, nobody's", forged{subject: bySubject, parent: partner.Leaf, parentKey: partner.PrivateKey}, ErrUnknown},
			} {
				t.Run(attack.name, func(t *testing.T) {
					_, err, clientErr := meet(t, s.TLS(), showing(attack.forged.make(t)))
					if !errors.Is(err, attack.want) || clientErr == nil {
						t.Errorf("server %v, client %v; want %v", err, clientErr, attack.want)
					}
					if err != nil && strings.ContainsRune(err.Error(), '\n') {
						t.Errorf("more than one line: %q", err)
					}
				})
			}
			if _, err, _ := meet(t, s.TLS(), &tls.Config{InsecureSkipVerify: true}); err == nil {
				t.Error("a client without any certificate was let in")
			}
			if _, err, _ := meet(t, s.TLS(), showing(own)); err != nil {
				t.Errorf("the client itself: %v", err)
			}
			if ca {
				// The operator may write a number of the partner's into the index.
				good := forged{subject: bySubject, parent: partner.Leaf, parentKey: partner.PrivateKey}.make(t)
				mustWrite(t, s.tree.SourceIDToCert, string(s.fresh().index.with("guest", serialText(good.Leaf)).text()))
				if _, err, _ := meet(t, s.TLS(), showing(good)); err != nil {
					t.Errorf("a client of an admitted CA: %v", err)
				}
			}
		})
	}
}

func TestASerialNumberThatTheOriginalIssuedIsNoOtherCAs(t *testing.T) {
	dir := mustCreateCA(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: true, NotStored: true})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, c)
	own := mustLoad(t, c)
	if err := os.Remove(issuedPath(s.tree)); err != nil { // as the original leaves the tree
		t.Fatal(err)
	}
	template, _ := parseTemplate([]byte(defaultTemplate))
	subject, err := template.subject("partner")
	if err != nil {
		t.Fatal(err)
	}
	partner := forged{subject: subject, ca: true}.make(t)
	mustWrite(t, filepath.Join(s.tree.Symlinks, "partner.pem"), string(certificatePEM(partner.Leaf.Raw)))
	hash, err := SubjectHash(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.tree.Symlinks, "partner.pem"), linkPath(s.tree, hash, 0)); err != nil {
		t.Fatal(err)
	}
	attack := forged{subject: own.Leaf.RawSubject, serial: own.Leaf.SerialNumber, parent: partner.Leaf, parentKey: partner.PrivateKey}.make(t)
	if _, err, _ := meet(t, s.TLS(), showing(attack)); !errors.Is(err, ErrForeign) {
		t.Errorf("a foreign CA with the number of a client: %v", err)
	}
	if _, err, _ := meet(t, s.TLS(), showing(own)); err != nil {
		t.Errorf("the client itself: %v", err)
	}
}

func TestWhoHasAClientsCertificateSignsNobodys(t *testing.T) {
	dir := mustCreateCA(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: true, NotStored: true})
	// Tools make such certificates: openssl req -x509 says CA:TRUE unless told
	// otherwise, and openssl ca what its configuration says.
	self := forged{subject: mustSubject(t, "self"), ca: true}.make(t)
	mustWrite(t, s.tree.ServerClientCert("self"), string(certificatePEM(self.Leaf.Raw)))
	if err := addLink(s.tree, "self", self.Leaf); err != nil {
		t.Fatal(err)
	}
	st := s.fresh()
	signed := forged{subject: mustSubject(t, "signed"), ca: true, parent: st.ca, parentKey: st.caKey}.make(t)
	// One whom nothing but the index knows, as the original leaves it.
	victim := forged{subject: mustSubject(t, "victim"), parent: st.ca, parentKey: st.caKey}.make(t)
	x := st.index
	for name, cert := range map[string]tls.Certificate{"self": self, "signed": signed, "victim": victim} {
		x = x.with(name, serialText(cert.Leaf))
	}
	mustWrite(t, s.tree.SourceIDToCert, string(x.text()))
	for name, cert := range map[string]tls.Certificate{"self": self, "signed": signed, "victim": victim} {
		if _, err, _ := meet(t, s.TLS(), showing(cert)); err != nil {
			t.Errorf("%s itself: %v", name, err)
		}
	}
	for name, by := range map[string]tls.Certificate{"self": self, "signed": signed} {
		attack := forged{subject: victim.Leaf.RawSubject, serial: victim.Leaf.SerialNumber, parent: by.Leaf, parentKey: by.PrivateKey}.make(t)
		attack.Certificate = append(attack.Certificate, by.Leaf.Raw)
		if _, err, _ := meet(t, s.TLS(), showing(attack)); !errors.Is(err, ErrForeign) {
			t.Errorf("signed by %s: %v, want %v", name, err, ErrForeign)
		}
	}
}

func TestCertificatesAreGoodOnlyWithinTheirDates(t *testing.T) {
	for _, ca := range []bool{false, true} {
		dir := newDir(t)
		if ca {
			mustCreateCA(t, dir)
		} else {
			mustCreate(t, dir)
		}
		s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: ca})
		c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
		mustEnrol(t, s, c)
		leaf := mustLoad(t, c).Leaf
		cs := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		for _, at := range []struct {
			name string
			now  time.Time
			want error
		}{
			{"today", time.Now(), nil},
			{"before it begins", leaf.NotBefore.Add(-time.Minute), ErrDate},
			{"after it has expired", leaf.NotAfter.Add(time.Minute), ErrDate},
		} {
			st := s.fresh()
			who, err := s.recognise(st, cs.PeerCertificates, at.now)
			if !errors.Is(err, at.want) || who.Name != "pump7" {
				t.Errorf("CA %v, %s: %+v, %v; want %v", ca, at.name, who, err, at.want)
			}
		}
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, MaxCerts: 2})
	first := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, first)
	own := mustLoad(t, first)
	request := func(change func(c *x509.Certificate, key *ecdsa.PrivateKey)) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template, _ := parseTemplate([]byte(defaultTemplate))
		p, err := newPairOf(template, newOrganization(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := firstCertificate(p.cert)
		if err != nil {
			t.Fatal(err)
		}
		made := &x509.Certificate{SerialNumber: c.SerialNumber, RawSubject: c.RawSubject, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
		change(made, key)
		der, err := x509.CreateCertificate(rand.Reader, made, made, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: c.RawSubject}, key)
		if err != nil {
			t.Fatal(err)
		}
		return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), certificatePEM(der)...)
	}
	good := request(func(*x509.Certificate, *ecdsa.PrivateKey) {})
	defaultCert, err := firstCertificate(mustRead(t, s.tree.ServerClientCert("default")))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, client string
		request      []byte
		want         error
	}{
		{"a path in the name", "../pump8", good, ErrName},
		{"a slash in the name", "a/b", good, ErrName},
		{"a newline after the name", "pump8\n", good, ErrName},
		{"only dots", "..", good, ErrName},
		{"no name", "", good, ErrName},
		{"a reserved name", "default7", good, ErrName},
		{"a name that another has", "pump7", good, ErrTaken},
		{"a name that another has, for a Python client", "pump7", nil, ErrTaken},
		{"no PEM", "pump8", []byte("x"), ErrRequest},
		{"a certificate without request", "pump8", certificatePEM(own.Leaf.Raw), ErrRequest},
		{"a request without certificate", "pump8", good[:bytes.Index(good, []byte("-----BEGIN CERTIFICATE-----"))], ErrRequest},
		{"somebody else's certificate", "pump8",
			append(good[:bytes.Index(good, []byte("-----BEGIN CERTIFICATE-----")):bytes.Index(good, []byte("-----BEGIN CERTIFICATE-----"))], certificatePEM(own.Leaf.Raw)...), ErrRequest},
		{"the certificate of one who is not known here", "pump8",
			slices.Concat(good[:bytes.Index(good, []byte("-----BEGIN CERTIFICATE-----"))], certificatePEM(forged{subject: mustSubject(t, "x")}.make(t).Leaf.Raw)), ErrRequest},
		{"the serial number of another client", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.SerialNumber = own.Leaf.SerialNumber }), ErrRequest},
		{"the serial number of the default certificate", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.SerialNumber = defaultCert.SerialNumber }), ErrRequest},
		{"the subject of another client", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.RawSubject = own.Leaf.RawSubject }), ErrRequest},
		{"a certificate that may sign others", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.BasicConstraintsValid, c.IsCA = true, true }), ErrRequest},
		{"a certificate for a hundred years", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.NotAfter = time.Now().AddDate(100, 0, 0) }), ErrRequest},
		{"a certificate that has expired", "pump8",
			request(func(c *x509.Certificate, _ *ecdsa.PrivateKey) { c.NotAfter = time.Now().Add(-time.Minute) }), ErrRequest},
		{"a request whose signature is not good", "pump8", spoilt(t, good, "CERTIFICATE REQUEST"), ErrRequest},
		{"a certificate whose signature is not good", "pump8", spoilt(t, good, "CERTIFICATE"), ErrRequest},
		{"a request of a megabyte", "pump8", bytes.Repeat([]byte("x"), 1<<20), ErrRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, _, err := s.Enrol(c.client, c.request); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	if _, _, err := s.Enrol("pump8", good); err != nil {
		t.Fatalf("a good request: %v", err)
	}
	if _, _, err := s.Enrol("pump9", nil); !errors.Is(err, ErrFull) {
		t.Errorf("one more than max_certs: %v", err)
	}
	if got := s.Names(); len(got) != 2 {
		t.Errorf("clients: %q", got)
	}
}

// spoilt returns PEM blocks of which one has another signature at its end.
func spoilt(t *testing.T, text []byte, kind string) []byte {
	t.Helper()
	var out []byte
	found := false
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			block.Bytes[len(block.Bytes)-1] ^= 1
			found = true
		}
		out = append(out, pem.EncodeToMemory(block)...)
	}
	if !found {
		t.Fatalf("no %s", kind)
	}
	return out
}

// signedRequest is what a client sends whose certificate has this number and
// subject.
func signedRequest(t *testing.T, serial *big.Int, subject []byte) []byte {
	t.Helper()
	cert := forged{serial: serial, subject: subject}.make(t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), certificatePEM(cert.Leaf.Raw)...)
}

func TestOfThoseWhoEnrolTogetherNoneTakesWhatAnotherHas(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	one := forged{}.make(t).Leaf
	type request struct {
		name string
		text []byte
	}
	for _, c := range []struct {
		name string
		a, b request
		want error
	}{
		{"a serial number", request{"a1", signedRequest(t, one.SerialNumber, mustSubject(t, "a1"))},
			request{"a2", signedRequest(t, one.SerialNumber, mustSubject(t, "a2"))}, ErrRequest},
		{"a subject", request{"b1", signedRequest(t, nil, mustSubject(t, "b"))},
			request{"b2", signedRequest(t, nil, mustSubject(t, "b"))}, ErrRequest},
		{"a name", request{"c1", signedRequest(t, nil, mustSubject(t, "c1"))},
			request{"c1", signedRequest(t, nil, mustSubject(t, "c2"))}, ErrTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(s.Names())
			got := make(chan error, 2)
			s.writing.Lock() // as if others were being enrolled: both wait
			for _, r := range []request{c.a, c.b} {
				go func() {
					_, _, err := s.Enrol(r.name, r.text)
					got <- err
				}()
			}
			for {
				s.waitingMu.Lock()
				n := len(s.waiting)
				s.waitingMu.Unlock()
				if n == 2 {
					break
				}
				runtime.Gosched()
			}
			s.writing.Unlock()
			first, second := <-got, <-got
			if first == nil {
				first, second = second, first
			}
			if !errors.Is(first, c.want) || second != nil {
				t.Errorf("got %v and %v, want %v for one of them", first, second, c.want)
			}
			if n := len(s.Names()) - before; n != 1 {
				t.Errorf("%d got a certificate, want 1", n)
			}
		})
	}
}

func TestATreeThatOthersCouldChangeIsRefused(t *testing.T) {
	tree := func(dir string) config.Certificates { return config.CertificateTree(dir) }
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		words  string
	}{
		{"the key is readable by others", func(t *testing.T, dir string) { mustChmod(t, tree(dir).ServerKey, 0o640) }, "chmod 600"},
		{"the directory of certificates is writable by others", func(t *testing.T, dir string) { mustChmod(t, tree(dir).ServerClientCerts, 0o777) }, "chmod go-w"},
		{"the directory of links is writable by the group", func(t *testing.T, dir string) { mustChmod(t, tree(dir).Symlinks, 0o770) }, "chmod g-w"},
		{"the index is writable by others", func(t *testing.T, dir string) {
			mustWrite(t, tree(dir).SourceIDToCert, string((&index{}).text()))
			mustChmod(t, tree(dir).SourceIDToCert, 0o666)
		}, "chmod go-w"},
		{"the index is a link", func(t *testing.T, dir string) {
			mustWrite(t, filepath.Join(dir, "elsewhere"), string((&index{}).text()))
			mustSymlink(t, filepath.Join(dir, "elsewhere"), tree(dir).SourceIDToCert)
		}, "symbolic link"},
		{"the directory of links is a link", func(t *testing.T, dir string) {
			if err := os.Rename(tree(dir).Symlinks, filepath.Join(dir, "elsewhere")); err != nil {
				t.Fatal(err)
			}
			mustSymlink(t, filepath.Join(dir, "elsewhere"), tree(dir).Symlinks)
		}, "symbolic link"},
		{"the directory belongs to another", func(t *testing.T, dir string) {
			if err := os.Chown(tree(dir).ServerClientCerts, 4711, -1); err != nil {
				// Only root can give a directory away; it then trusts nobody but root.
				t.Log(err)
				mustChmod(t, tree(dir).ServerClientCerts, 0o777)
			}
		}, "ch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := mustCreate(t, newDir(t))
			s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
			c.change(t, dir)
			_, err := OpenServer(ServerOptions{Dir: dir, Clients: OwnCertificates})
			if !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), c.words) || strings.Contains(err.Error(), "\n") {
				t.Errorf("start: %v; want ErrUnsafe with %q", err, c.words)
			}
			if err := s.Reload(); !errors.Is(err, ErrUnsafe) {
				t.Errorf("reload: %v; want ErrUnsafe", err)
			}
		})
	}
}

func TestALinkPlantedAsAClientsCertificateIsNotFollowed(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	mustEnrol(t, s, c)
	path := s.tree.ServerClientCert("pump7")
	if err := os.Rename(path, filepath.Join(dir, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	mustSymlink(t, filepath.Join(dir, "elsewhere"), path)
	if _, err, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a certificate that is a link: %v", err)
	}
	// And a link that leads out of the tree admits nobody.
	outside := forged{subject: mustLoad(t, c).Leaf.RawSubject}.make(t)
	mustWrite(t, filepath.Join(dir, "evil.pem"), string(certificatePEM(outside.Leaf.Raw)))
	hash, err := SubjectHash(outside.Leaf.RawSubject)
	if err != nil {
		t.Fatal(err)
	}
	mustSymlink(t, "../../../../evil.pem", linkPath(s.tree, hash, 1))
	if err := os.Remove(linkPath(s.tree, hash, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(linkPath(s.tree, hash, 1), linkPath(s.tree, hash, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err, _ := meet(t, s.TLS(), showing(outside)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a certificate outside of the tree: %v", err)
	}
}

func TestAClientTakesOnlyTheServerThatItKnows(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	other := mustCreate(t, newDir(t))
	real := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates})
	false_ := mustServer(t, ServerOptions{Dir: other})
	c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
	if _, _, err := meet(t, real.TLS(), mustTLS(t, c, ShowDefault)); err != nil {
		t.Errorf("the server: %v", err)
	}
	if _, _, err := meet(t, false_.TLS(), mustTLS(t, c, ShowDefault)); !errors.Is(err, ErrForeign) {
		t.Errorf("another server: %v", err)
	}
	// One that the server's key has signed is not it: the certificate is no CA.
	pair, err := tls.LoadX509KeyPair(real.tree.ServerCert, real.tree.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	signed := forged{subject: pair.Leaf.RawSubject, parent: pair.Leaf, parentKey: pair.PrivateKey}.make(t)
	if _, _, err := meet(t, &tls.Config{Certificates: []tls.Certificate{signed}}, mustTLS(t, c, ShowDefault)); !errors.Is(err, ErrForeign) {
		t.Errorf("one that the server has signed: %v", err)
	}
	// Several certificates may stand in the file, and its old name is known.
	both := append(mustRead(t, config.CertificateTree(other).ServerCert), mustRead(t, real.tree.ServerCert)...)
	mustWrite(t, real.tree.ClientServerCert, string(both))
	for _, server := range []*Server{real, false_} {
		if _, _, err := meet(t, server.TLS(), mustTLS(t, c, ShowDefault)); err != nil && server == real {
			t.Errorf("one of two servers: %v", err)
		}
	}
	old := strings.TrimSuffix(real.tree.ClientServerCert, "pem") + "crt"
	if err := os.Rename(real.tree.ClientServerCert, old); err != nil {
		t.Fatal(err)
	}
	if _, _, err := meet(t, real.TLS(), mustTLS(t, c, ShowDefault)); err != nil {
		t.Errorf("with server.crt: %v", err)
	}
}

func mustChmod(t testing.TB, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mustSymlink(t testing.TB, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}
