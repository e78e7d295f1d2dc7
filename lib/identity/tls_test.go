package identity

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aioc/lib/config"
)

// serverTLS is what a server with the options shows.
func serverTLS(o ServerOptions) (*tls.Config, error) {
	s, err := OpenServer(o)
	if err != nil {
		return nil, err
	}
	return s.TLS(), nil
}

// anyServer is what a client has that takes any.
func anyServer(t *testing.T) *tls.Config {
	t.Helper()
	return mustTLS(t, mustClient(t, ClientOptions{Name: "pump7", Trust: TrustAll}), ShowNone)
}

// shake lets a client and a server meet and returns what the client and the
// server saw.
func shake(t *testing.T, server, client *tls.Config) (atClient, atServer tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	deadline := time.Now().Add(30 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		_, err := io.WriteString(s, "hello")
		done <- err
	}()
	word := make([]byte, 5)
	_, err = io.ReadFull(c, word)
	if err != nil {
		b.Close()
	}
	if serverErr := <-done; err == nil {
		err = serverErr
	}
	if err == nil && string(word) != "hello" {
		t.Errorf("the client read %q", word)
	}
	return c.ConnectionState(), s.ConnectionState(), err
}

func TestAnyClientMeetsAnyServer(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	server := mustServer(t, ServerOptions{Dir: dir}).TLS()
	var hello *tls.ClientHelloInfo
	fresh := server.GetConfigForClient
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return fresh(h)
	}
	client := anyServer(t)
	atClient, atServer, err := shake(t, server, client)
	if err != nil {
		t.Fatal(err)
	}
	if atClient.Version != tls.VersionTLS13 {
		t.Errorf("version %s", tls.VersionName(atClient.Version))
	}
	if hello.ServerName != "" {
		t.Errorf("the client named the host %q", hello.ServerName)
	}
	if len(atServer.PeerCertificates) != 0 {
		t.Error("the client showed a certificate")
	}
	block, _ := pem.Decode(mustRead(t, config.CertificateTree(dir).ServerCert))
	if got, want := Fingerprint(atClient.PeerCertificates[0].Raw), Fingerprint(block.Bytes); got != want {
		t.Errorf("the server showed %s, want %s", got, want)
	}
	if !server.DynamicRecordSizingDisabled {
		t.Error("the first records are small")
	}
}

func TestOldVersionsAreRefusedUnlessAsked(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	for _, c := range []struct {
		name     string
		old, met bool
		version  uint16
	}{
		{"1.1 by default", false, false, tls.VersionTLS11},
		{"1.2 by default", false, true, tls.VersionTLS12},
		{"1.1 when asked", true, true, tls.VersionTLS11},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := mustServer(t, ServerOptions{Dir: dir, OldTLS: c.old}).TLS()
			client := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: c.version}
			if _, _, err := shake(t, server, client); (err == nil) != c.met {
				t.Errorf("error %v, want to meet: %v", err, c.met)
			}
		})
	}
	client := anyServer(t)
	server, err := mustServer(t, ServerOptions{Dir: dir, OldTLS: true}).TLS().GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	server.MaxVersion = tls.VersionTLS11
	if _, _, err := shake(t, server, client); err == nil {
		t.Error("the client took TLS 1.1")
	}
}

func TestAServerNamesWhatIsWrongWithItsCertificate(t *testing.T) {
	type testCase struct {
		name    string
		prepare func(t *testing.T, c config.Certificates)
		is      error
		says    string
	}
	cases := []testCase{
		{"no tree", func(t *testing.T, c config.Certificates) { _ = os.RemoveAll(c.Root) }, ErrMissing, "is not there: run: aioc-certs create "},
		{"no key", func(t *testing.T, c config.Certificates) { remove(t, c.ServerKey) }, ErrMissing, "server.key\" is not there: bring it back, or run: aioc-certs renew server "},
		{"a directory with a blank", func(t *testing.T, c config.Certificates) { remove(t, c.ServerCert) }, ErrMissing, `a b'\''s'`},
		{"a key that the group may read", func(t *testing.T, c config.Certificates) { chmod(t, c.ServerKey, 0o640) }, ErrUnsafe, "mode 0640 lets others use it: run: chmod 600 "},
		{"a key that others may read", func(t *testing.T, c config.Certificates) { chmod(t, c.ServerKey, 0o604) }, ErrUnsafe, "mode 0604"},
		{"a directory of the key that others may change", func(t *testing.T, c config.Certificates) { chmod(t, filepath.Dir(c.ServerKey), 0o777) }, ErrUnsafe, "writable"},
		{"an empty certificate", func(t *testing.T, c config.Certificates) { mustWrite(t, c.ServerCert, "") }, nil, "failed to find any PEM data"},
		{"another's key", func(t *testing.T, c config.Certificates) {
			mustWrite(t, c.ServerKey, string(mustRead(t, c.ClientKey("default"))))
			chmod(t, c.ServerKey, 0o600)
		}, nil, "private key does not match public key"},
		{"a directory for a certificate", func(t *testing.T, c config.Certificates) {
			remove(t, c.ServerCert)
			if err := os.Mkdir(c.ServerCert, 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil, "not a regular file"},
		{"a pipe for a certificate", func(t *testing.T, c config.Certificates) {
			remove(t, c.ServerCert)
			if err := syscall.Mkfifo(c.ServerCert, 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, "not a regular file"},
		{"a huge certificate", func(t *testing.T, c config.Certificates) {
			if err := os.Truncate(c.ServerCert, maxFile+1); err != nil {
				t.Fatal(err)
			}
		}, nil, "larger than 1048576 bytes"},
	}
	if os.Geteuid() == 0 {
		cases = append(cases, testCase{"somebody else's key", func(t *testing.T, c config.Certificates) {
			if err := os.Chown(c.ServerKey, 12345, -1); err != nil {
				t.Fatal(err)
			}
		}, ErrUnsafe, "belongs to user 12345"})
	} else {
		cases = append(cases, testCase{"a key that we may not read", func(t *testing.T, c config.Certificates) { chmod(t, c.ServerKey, 0) }, os.ErrPermission, "server.key"})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := mustCreate(t, filepath.Join(newDir(t), "a b's"))
			c.prepare(t, config.CertificateTree(dir))
			_, err := serverTLS(ServerOptions{Dir: dir})
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.is, c.says)
			}
		})
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestCertificatesOutsideTheirDatesAreNamed(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	now := time.Now()
	end := now.Add(validity)
	for _, c := range []struct {
		name string
		now  time.Time
		says string
	}{
		{"now", now, ""},
		{"on the last day", end.Add(-time.Minute), ""},
		{"after it", end.Add(time.Minute), "it expired on " + end.UTC().Format(time.DateOnly) + ": run: aioc-certs renew server "},
		{"a host whose clock is half an hour behind", now.Add(-30 * time.Minute), ""},
		{"a clock that was never set", time.Unix(0, 0), "the clock of this host says 1970-01-01 00:00 UTC"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readPair(tree.ServerCert, tree.ServerKey, ofServer(tree, dir), c.now)
			if c.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrDate) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), tree.ServerCert) {
				t.Errorf("error %v, want %v with %q", err, ErrDate, c.says)
			}
		})
	}
}

func TestFingerprintIsThatOfTheWholeCertificate(t *testing.T) {
	// openssl x509 -fingerprint -sha256 of testdata/original, in base64.
	hex := "\x16\x14\xAB\x78\x50\x04\xEF\x23\x16\x4E\x7E\x09\x8E\x07\x26\x24\x98\xAE\x1B\x81\xEF\x0F\xB3\x4D\x7A\xEF\x17\x06\x6B\x2A\xA3\xB0"
	want := "SHA256:" + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(hex)), "=")
	block, _ := pem.Decode(mustRead(t, "testdata/original/certificates/server/server-cert/server.pem"))
	if got := Fingerprint(block.Bytes); got != want {
		t.Errorf("Fingerprint = %s, want %s", got, want)
	}
}

func TestShellWordsAreReadBackByAShell(t *testing.T) {
	for s, want := range map[string]string{
		"":          "''",
		"/var/tmp":  "/var/tmp",
		"a b":       "'a b'",
		"it's":      `'it'\''s'`,
		"-x":        "./-x",
		"$HOME":     "'$HOME'",
		"~":         "'~'",
		"*":         "'*'",
		"a\nb":      "'a\nb'",
		"host:1@%+": "host:1@%+",
	} {
		if got := shellWord(s); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", s, got, want)
		}
	}
}
