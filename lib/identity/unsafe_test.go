package identity

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"aioc/lib/config"
)

// What others could change or read counts for nothing, wherever it is read.

func TestAClientRefusesWhatOthersCouldChangeOrRead(t *testing.T) {
	tls := func(c *Client) error {
		_, err := c.TLS(ShowDefault)
		return err
	}
	request := func(c *Client) error {
		_, err := c.NewRequest()
		return err
	}
	for _, test := range []struct {
		name string
		path func(c *Client) string
		mode os.FileMode
		use  func(c *Client) error
	}{
		{"the directory of the server's certificate is writable by others", func(c *Client) string { return c.tree.ClientServerCertDir }, 0o777, tls},
		{"the server's certificate is writable by the group", func(c *Client) string { return c.tree.ClientServerCert }, 0o664, tls},
		{"the default key is readable by others", func(c *Client) string { return c.tree.ClientKey("default") }, 0o604, tls},
		{"the key of a request is readable by others", (*Client).pendingKey, 0o604, request},
		{"the key of a request is readable by others when the answer comes", (*Client).pendingKey, 0o640, func(c *Client) error { return c.Store(nil, nil) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := mustClient(t, ClientOptions{Dir: mustCreate(t, newDir(t)), Name: "pump7"})
			if err := errors.Join(tls(c), request(c)); err != nil {
				t.Fatal(err)
			}
			mustChmod(t, test.path(c), test.mode)
			if err := test.use(c); !errors.Is(err, ErrUnsafe) {
				t.Errorf("got %v, want ErrUnsafe", err)
			}
		})
	}
}

func TestAKeyOfACAThatOthersCanReadSignsNothing(t *testing.T) {
	dir := mustCreateCA(t, newDir(t))
	o := ServerOptions{Dir: dir, Clients: OwnCertificates, CA: true}
	s := mustServer(t, o)
	mustChmod(t, s.tree.ServerCAKey, 0o640)
	if _, err := OpenServer(o); !errors.Is(err, ErrUnsafe) {
		t.Errorf("start: got %v, want ErrUnsafe", err)
	}
	if err := s.Reload(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("reload: got %v, want ErrUnsafe", err)
	}
}

func TestACAThatOthersCouldReplaceVouchesForNobody(t *testing.T) {
	s := mustServer(t, ServerOptions{Dir: mustCreateCA(t, newDir(t)), Clients: TrustedCertificates, CA: true})
	partner := forged{subject: mustSubject(t, "partner"), ca: true}.make(t)
	hash, err := SubjectHash(partner.Leaf.RawSubject)
	if err != nil {
		t.Fatal(err)
	}
	path := linkPath(s.tree, hash, 0)
	mustWrite(t, path, string(certificatePEM(partner.Leaf.Raw)))
	signed := forged{subject: mustSubject(t, "pump7"), parent: partner.Leaf, parentKey: partner.PrivateKey}.make(t)
	for _, test := range []struct {
		mode os.FileMode
		good bool
	}{{0o644, true}, {0o646, false}, {0o664, false}, {0o600, true}} {
		mustChmod(t, path, test.mode)
		if _, err, _ := meet(t, s.TLS(), showing(signed)); (err == nil) != test.good {
			t.Errorf("mode %04o: got %v", test.mode, err)
		}
	}
}

func TestAKeyThatOthersCanReadIsNotPacked(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	for path, pack := range map[string]func(io.Writer, string) error{
		tree.ServerKey: PackServer, tree.ClientKey("default"): PackClient,
	} {
		mustChmod(t, path, 0o644)
		var b bytes.Buffer
		if err := pack(&b, dir); !errors.Is(err, ErrUnsafe) || b.Len() > 0 {
			t.Errorf("%s: got %v and %d bytes, want ErrUnsafe and none", path, err, b.Len())
		}
		mustChmod(t, path, 0o600)
	}
}
