package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

var (
	// ErrMissing: a certificate or key that is needed is not there.
	ErrMissing = errors.New("not there")
	// ErrUnsafe: others may read a key, or change it.
	ErrUnsafe = errors.New("not private")
	// ErrDate: a certificate has expired or is not valid yet.
	ErrDate = errors.New("not valid today")
)

// maxFile is the size in bytes past which a file is no certificate or key.
const maxFile = 1 << 20

// ServerOptions says what a server proves itself with, and whom it lets in.
type ServerOptions struct {
	Dir string // certificates_directory_path, where the tree is

	// OldTLS accepts TLS 1.0 and 1.1 as well: server_secure_tls is false.
	OldTLS bool

	Clients   Clients // which certificate clients must show
	CA        bool    // server_ca: certificates of clients are signed by server_ca.pem
	NotStored bool    // server_ca_certs_not_stored: with CA, none of them is kept
	MaxCerts  int     // max_certs: how many clients may have one; 0 for the default

	// ReadOnly leaves what a killed process has left half done as it is. Only
	// what reads can be used then.
	ReadOnly bool

	// Offline is for tools that change the tree and serve nobody: the server's own
	// certificate is not read, and may have expired.
	Offline bool

	// Warn, if not nil, is told once when the tree has changed and cannot be
	// read: the state before the change then stays. It must not call the Server.
	Warn func(error)
}

func serverConfig(cert tls.Certificate, old bool) *tls.Config {
	c := &tls.Config{
		Certificates: []tls.Certificate{cert},
		ClientAuth:   tls.NoClientCert,
		MinVersion:   tls.VersionTLS12,
		// Messages come in bursts: small first records would only cost time.
		DynamicRecordSizingDisabled: true,
	}
	if old {
		c.MinVersion = tls.VersionTLS10
	}
	return c
}

// clientConfig is that of a client that takes any server: it verifies nothing,
// names no host (no SNI) and shows no certificate. What it sends is hidden from
// those who listen, not from one who stands between.
func clientConfig(old bool) *tls.Config {
	c := &tls.Config{
		InsecureSkipVerify:          true,
		MinVersion:                  tls.VersionTLS12,
		DynamicRecordSizingDisabled: true,
	}
	if old {
		c.MinVersion = tls.VersionTLS10
	}
	return c
}

// Fingerprint returns the SHA-256 of a certificate's DER in the form that
// ssh-keygen prints: "SHA256:" and 43 characters of base64.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return fingerprintOf(sum[:])
}

func fingerprintOf(sum []byte) string { return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum) }

// remedy is what can be done about a certificate and its key.
type remedy struct {
	missing string // when one of them is not there
	expired string
}

// ofServer is the remedy for the server's own.
func ofServer(tree config.Certificates, dir string) remedy {
	r := remedy{
		missing: "run: aioc-certs create " + shellWord(dir),
		expired: "run: aioc-certs renew server " + shellWord(dir) + ", then give its clients the new one (aioc-certs pack client)",
	}
	if exists(tree.ServerCert + orgSuffix) {
		r.expired = "replace it by the next one: aioc-certs replace-server PEM " + shellWord(dir)
		r.missing = r.expired + ", or: aioc-certs revert-server " + shellWord(dir)
	} else if _, err := checkEmpty(tree); errors.Is(err, ErrExists) && exists(tree.ServerCertDir) {
		r.missing = "bring it back, or " + r.expired // create would refuse
	}
	return r
}

// readPair reads a certificate and its key and checks all that would make them
// useless or unsafe at now.
func readPair(certFile, keyFile string, r remedy, now time.Time) (tls.Certificate, error) {
	var none tls.Certificate
	certPEM, _, err := readFile(certFile)
	if err != nil {
		return none, explain("certificate", certFile, r.missing, err)
	}
	keyPEM, info, err := readFile(keyFile)
	if err != nil {
		return none, explain("key", keyFile, r.missing, err)
	}
	if err := checkPrivate(keyFile, info); err != nil {
		return none, fmt.Errorf("key %q: %w", keyFile, err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return none, fmt.Errorf("certificate %q with key %q: %s", certFile, keyFile, mismatch(err, certPEM, keyPEM))
	}
	if err := checkDates(pair.Leaf.NotBefore, pair.Leaf.NotAfter, now, r.expired); err != nil {
		return none, fmt.Errorf("certificate %q: %w", certFile, err)
	}
	return pair, nil
}

// mismatch says why a certificate and a key are no pair.
func mismatch(err error, certs, key []byte) string {
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return "the key is encrypted, and nobody is there to ask for the passphrase: write it without: openssl pkey -in KEY -out NEW"
	}
	if all, parseErr := parseCertificates(certs); parseErr == nil {
		for _, c := range all[1:] {
			if _, err := tls.X509KeyPair(certificatePEM(c.Raw), key); err == nil {
				return fmt.Sprintf("the key is that of %s, which must be the first certificate in the file, with those of its CAs behind it", c.Subject)
			}
		}
	}
	// The text of package tls starts with its name and never quotes a key.
	return strings.TrimPrefix(err.Error(), "tls: ")
}

// explain adds what to do about a file that is missing to an error of readFile.
func explain(what, path, missing string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %q is %w: %s", what, path, ErrMissing, missing)
	}
	return fmt.Errorf("%s %q: %w", what, path, err)
}

// checkDates says whether a certificate is valid at now, and what to do about
// one that has expired.
func checkDates(notBefore, notAfter, now time.Time, expired string) error {
	const minute = "2006-01-02 15:04 UTC"
	switch {
	case now.After(notAfter):
		return fmt.Errorf("%w: it expired on %s: %s", ErrDate, notAfter.UTC().Format(time.DateOnly), expired)
	case now.Before(notBefore):
		return fmt.Errorf("%w: it begins at %s, and the clock of this host says %s: set the clock, or replace the certificate",
			ErrDate, notBefore.UTC().Format(minute), now.UTC().Format(minute))
	}
	return nil
}

// checkPrivate says whether the key at path, which is open as info, is for us
// alone: its own mode as ssh asks it of keys, and nobody else who could replace it.
func checkPrivate(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%w: mode %04o lets others use it: run: chmod 600 %s", ErrUnsafe, mode, shellWord(path))
	}
	if err := durable.CheckOwner(path); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return nil
}

// readFile reads a regular file of no more than maxFile bytes.
func readFile(path string) ([]byte, fs.FileInfo, error) {
	// Without O_NONBLOCK, opening a pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, bare(err)
	}
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	return data, info, nil
}

// bare takes the path from an error of package os: ours has it already.
func bare(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// shellWord returns s so that a shell reads it as one word, for commands that
// errors suggest.
func shellWord(s string) string {
	if s == "" {
		return "''"
	}
	plain := strings.IndexFunc(s, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("/._-+=:@%", c))
	}) < 0
	if s[0] == '-' {
		s = "." + string(filepath.Separator) + s
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
