package connector

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aioc/lib/config"
)

// authority is a CA as those that everybody trusts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // its certificate, PEM
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(newDir(t), "ca.pem")}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err == nil {
		err = os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// install gives the server of the tree in dir a certificate for a host name.
func (a *authority) install(t *testing.T, dir, host string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tree := config.CertificateTree(dir)
	for path, block := range map[string]*pem.Block{
		tree.ServerCert: {Type: "CERTIFICATE", Bytes: der},
		tree.ServerKey:  {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAServerWithACertificateOfAPublicCAIsKnownByItsName(t *testing.T) {
	right, wrong := newAuthority(t, "right"), newAuthority(t, "wrong")
	for _, test := range []struct {
		name   string
		tokens bool
		host   string
		edit   func(cfg *config.Config)
		ok     bool
	}{
		{"the name", false, "localhost", func(c *config.Config) { c.ClientCAFile = right.file }, true},
		{"another name", false, "127.0.0.1", func(c *config.Config) { c.ClientCAFile = right.file }, false},
		{"another CA", false, "localhost", func(c *config.Config) { c.ClientCAFile = wrong.file }, false},
		{"not the certificate that the client has", false, "localhost", func(c *config.Config) {}, false},
		{"tokens, any name", true, "127.0.0.1", func(c *config.Config) { c.TokenVerifyPeerCert.File = right.file }, true},
		{"tokens, another CA", true, "127.0.0.1", func(c *config.Config) { c.TokenVerifyPeerCert.File = wrong.file }, false},
		{"tokens, the name", true, "localhost", func(c *config.Config) {
			c.TokenVerifyPeerCert.File, c.TokenVerifyHostname = right.file, true
		}, true},
		{"tokens, another name", true, "127.0.0.1", func(c *config.Config) {
			c.TokenVerifyPeerCert.File, c.TokenVerifyHostname = right.file, true
		}, false},
		{"tokens, not the certificate that the client has", true, "localhost", func(c *config.Config) {}, false},
		{"tokens, no certificates verified", true, "127.0.0.1", func(c *config.Config) { c.TokenVerifyPeerCert = config.Verify{} }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := newDir(t)
			mode := certified(t, dir)
			right.install(t, dir, "localhost")
			s := server(t, mode, func(c *config.Config) { c.SSLAllowAll, c.UseToken = test.tokens, test.tokens })
			c := s.lateClient(t, "pump7", mode, func(c *config.Config) {
				c.SSLAllowAll, c.UseToken = test.tokens, test.tokens
				c.ServerAddr.Host = test.host
				test.edit(c)
			})
			if test.ok {
				s.connected(t, "pump7")
				return
			}
			eventually(t, "the client does not take the server", func() bool { return c.log.count("TLS handshake") > 0 })
			eventually(t, "the server counts it", func() bool { return s.counted("peer refused: tls") > 0 })
			if s.box("pump7", false) != nil {
				t.Error("it is connected")
			}
		})
	}
}
