package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// Trust says which server a client takes.
type Trust int

const (
	// TrustTree takes a server that shows one of the certificates in
	// client/server-cert/server.pem, or one that a CA among these has signed.
	TrustTree Trust = iota
	// TrustFile takes a server that shows one of the certificates in a file of
	// the user's, or one that a CA among these has signed.
	TrustFile
	// TrustAll takes any server.
	TrustAll
)

// Show says which certificate a client shows.
type Show int

const (
	ShowOwn     Show = iota // NAME.pem
	ShowDefault             // default.pem
	ShowNone
)

// ClientOptions says what a client proves itself with and whom it trusts.
type ClientOptions struct {
	Dir   string // certificates_directory_path, where the tree is
	Name  string // client_name
	Trust Trust
	File  string // with TrustFile: its path
	// Host, if not "", is the name that the server's certificate must have,
	// and that the client asks for (SNI): client_cafile_verify_server.
	Host string
	// OldTLS accepts TLS 1.0 and 1.1 as well.
	OldTLS bool
}

// Client is the client's side of a tree. Its methods may be called concurrently,
// but of NewRequest, Store and Delete one at a time.
type Client struct {
	o     ClientOptions
	tree  config.Certificates
	clock func() time.Time
}

// OpenClient checks the name: the error wraps ErrName. Files are read by TLS,
// which also refuses directories that others could change. There is nothing to
// close.
func OpenClient(o ClientOptions) (*Client, error) {
	if err := config.ValidName(o.Name); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	return &Client{o: o, tree: config.CertificateTree(o.Dir), clock: time.Now}, nil
}

// HasOwn says whether the client has a certificate of its own.
func (c *Client) HasOwn() bool {
	_, err := os.Lstat(c.tree.ClientCert(c.o.Name))
	return err == nil
}

// TLS returns the configuration for one connection. The files are read now: call
// it for each. Errors wrap ErrMissing, ErrUnsafe or ErrDate where one of them is
// the reason; an error of the handshake wraps ErrForeign or ErrDate when the
// server is not the one that the client trusts.
func (c *Client) TLS(show Show) (*tls.Config, error) {
	t := clientConfig(c.o.OldTLS)
	if show != ShowNone {
		name := c.o.Name
		if show == ShowDefault {
			name = defaultName
		}
		if err := c.checkModes(); err != nil {
			return nil, err
		}
		cert, err := readPair(c.tree.ClientCert(name), c.tree.ClientKey(name), c.remedy(name), c.clock())
		if err != nil {
			return nil, err
		}
		// Whatever CAs the server names: it compares.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	if c.o.Trust == TrustAll {
		return t, nil
	}
	trusted, path, err := c.trusted()
	if err != nil {
		return nil, err
	}
	t.ServerName = c.o.Host
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := c.verify(trusted, cs.PeerCertificates); err != nil {
			return fmt.Errorf("server certificate %s, held against %q: %w", Fingerprint(cs.PeerCertificates[0].Raw), path, err)
		}
		return nil
	}
	return t, nil
}

// bring is what a client can do that lacks a file of its tree.
func (c *Client) bring() string {
	return "bring it from the host of the server: there run: aioc-certs pack client | ssh HOST tar -x -C " + shellWord(c.o.Dir)
}

// remedy is that for the certificate called name.
func (c *Client) remedy(name string) remedy {
	if name == defaultName {
		return remedy{c.bring(), "on the host of the server run: aioc-certs renew default, then " + c.bring()}
	}
	again := fmt.Sprintf("to get a new one, run on the host of the server: aioc-certs renew %s, then here: aioc-certs renew %s %s", name, name, shellWord(c.o.Dir))
	return remedy{again, again}
}

// trusted returns the certificates that the server's is held against.
func (c *Client) trusted() ([]*x509.Certificate, string, error) {
	path := c.o.File
	if c.o.Trust == TrustTree {
		path = c.tree.ClientServerCert
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			// Its name before version 1.2.0 (aioconnectors core.py).
			if old := strings.TrimSuffix(path, ".pem") + ".crt"; exists(old) {
				path = old
			}
		}
	}
	text, info, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if c.o.Trust == TrustFile {
			return nil, "", fmt.Errorf("certificates of servers %q are %w", path, ErrMissing)
		}
		return nil, "", explain("certificate of the server", path, c.bring(), err)
	}
	if err == nil {
		err = checkWriters(path, info)
	}
	if err == nil && c.o.Trust == TrustTree {
		if ownerErr := durable.CheckOwner(path); ownerErr != nil {
			err = fmt.Errorf("%w: %w", ErrUnsafe, ownerErr)
		}
	}
	var all []*x509.Certificate
	if err == nil {
		all, err = parseCertificates(text)
	}
	if err != nil {
		return nil, "", fmt.Errorf("certificates of servers %q: %w", path, err)
	}
	return all, path, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// verify says whether a server that shows these certificates is trusted.
func (c *Client) verify(trusted, shown []*x509.Certificate) error {
	if len(shown) == 0 {
		return fmt.Errorf("the server showed none: %w", ErrForeign)
	}
	leaf, now := shown[0], c.clock()
	pinned := false
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, t := range trusted {
		pinned = pinned || bytes.Equal(t.Raw, leaf.Raw)
		if t.BasicConstraintsValid && t.IsCA {
			roots.AddCert(t)
		}
	}
	if !pinned {
		for _, s := range shown[1:] {
			between.AddCert(s)
		}
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if invalid := (x509.CertificateInvalidError{}); errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return fmt.Errorf("%w: %w", ErrDate, err)
		}
		if err != nil {
			return fmt.Errorf("%w: %w: either another server answers, or its certificate was replaced: bring the new one from the server", ErrForeign, err)
		}
	}
	if err := datesOfOther(leaf, now); err != nil {
		return err
	}
	if c.o.Host != "" {
		if err := leaf.VerifyHostname(c.o.Host); err != nil {
			return fmt.Errorf("%w: %w: its certificate must have the name in server_sockaddr as a subject alternative name", ErrForeign, err)
		}
	}
	return nil
}

// checkModes refuses a client's side that others could change.
func (c *Client) checkModes() error {
	return checkDirs(c.bring(), []string{c.tree.ClientDir, c.tree.ClientCertDir})
}

// pendingKey is where a key waits for its certificate.
func (c *Client) pendingKey() string {
	return filepath.Join(c.tree.ClientCertDir, ".aioc-"+c.o.Name+".key")
}

// NewRequest makes a key, which stays in the tree with mode 0600, and returns
// what Server.Enrol needs: a PKCS#10 request and a certificate signed with the
// key itself, PEM. Until Store it is the same key at each call, also after a
// restart: so an answer that got lost can be asked for again. Errors wrap
// ErrMissing or ErrUnsafe.
func (c *Client) NewRequest() ([]byte, error) {
	if err := c.checkModes(); err != nil {
		return nil, err
	}
	path := c.pendingKey()
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", path, err)
	}
	t, err := readTemplate(c.tree)
	if err != nil {
		return nil, err
	}
	p, err := newPairOf(t, newOrganization(), key)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: p.subject}, key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), p.cert...), nil
}

// readKey reads a private key that only we may read.
func readKey(path string) (crypto.Signer, error) {
	text, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM in it: remove it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a key in PKCS#8: remove it")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a key that signs: remove it")
	}
	return key, nil
}

// newKey makes a private key at path.
func newKey(path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, durable.CreateFile(path, text, 0o600)
}

// Store takes what the server has answered as the client's own certificate. key
// is nil when the certificate is for the key of NewRequest, else PEM, not
// encrypted. Errors wrap ErrRequest when the two do not belong together, and
// ErrDate; nothing is stored then.
func (c *Client) Store(crt, key []byte) error {
	if err := c.checkModes(); err != nil {
		return err
	}
	var err error
	if key == nil {
		var info fs.FileInfo
		if key, info, err = readFile(c.pendingKey()); err == nil {
			err = checkPrivate(c.pendingKey(), info)
		}
		if err != nil {
			return fmt.Errorf("key %q: %w", c.pendingKey(), err)
		}
	}
	if len(crt) > maxFile || len(key) > maxFile {
		return fmt.Errorf("%w: the answer is larger than %d bytes", ErrRequest, maxFile)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return fmt.Errorf("%w: the answer cannot be used: %s", ErrRequest, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if err := datesOfOther(pair.Leaf, c.clock()); err != nil {
		return fmt.Errorf("the new certificate: %w: is the clock right at both ends?", err)
	}
	// What text the answer had around the certificates is not kept.
	var text []byte
	for _, der := range pair.Certificate {
		text = append(text, certificatePEM(der)...)
	}
	certPath, keyPath := c.tree.ClientCert(c.o.Name), c.tree.ClientKey(c.o.Name)
	// The certificate comes last: where it is, its key is.
	if err := removeIf(certPath); err != nil {
		return err
	}
	if err := durable.WriteFile(keyPath, key, 0o600); err != nil {
		return err
	}
	if err := durable.WriteFile(certPath, text, 0o644); err != nil {
		return err
	}
	return removeIf(c.pendingKey())
}

// Delete removes the client's own certificate and keys, so that it asks for a
// new one. That there is none is no error.
func (c *Client) Delete() error {
	for _, path := range []string{c.tree.ClientCert(c.o.Name), c.tree.ClientKey(c.o.Name), c.pendingKey()} {
		if err := removeIf(path); err != nil {
			return fmt.Errorf("delete certificate of %q: %w", c.o.Name, err)
		}
	}
	return nil
}

// removeIf removes a file if it is there.
func removeIf(path string) error {
	if err := durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
