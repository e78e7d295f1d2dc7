package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// ErrExists: there is a tree of certificates already.
var ErrExists = errors.New("certificates are there already")

// ErrTemplate: the request template cannot be used.
var ErrTemplate = errors.New("request template")

// ErrBusy: another process is making a tree in the same place.
var ErrBusy = errors.New("another aioc-certs is at work there")

const (
	tempPrefix = ".certificates-"     // a directory beside the tree, to build in
	tempSuffix = ".tmp"               // the end of its name
	oldName    = "old"                // in it: the tree that was there before
	lockName   = ".certificates.lock" // beside the tree, locked while building

	// organization of the server's certificate (aioconnectors ssl_helper.py).
	serverOrganization = "company"
	// defaultName is whose certificate clients show that have none yet.
	defaultName = "default"

	validity = 3650 * 24 * time.Hour
	// slack lets a host whose clock is behind use a new certificate.
	slack = time.Hour
)

// Create makes a tree of certificates and keys in dir, which is created if it is
// not there. A csr_details_template.conf that is in the tree is kept and gives
// the subjects, and so is every other file outside of the three directories that
// must be empty: server/server-cert, server/client-certs and client. If one of
// these is not, the error wraps ErrExists and names it.
//
// The tree appears complete or not at all, also when the process is killed or
// the host stops: it is built and synced under another name, then moved into
// place; what a dead process has left is removed by the next call. Where the
// system cannot exchange two directories in one step and a tree is there before,
// a kill may leave that tree under the other name: the next call brings it back.
// The error wraps ErrBusy when another process is at it.
func Create(dir string) error {
	return create(dir, builder{step: func(string) error { return nil }, exchange: exchange})
}

func create(dir string, b builder) error {
	if err := b.create(dir); err != nil {
		return fmt.Errorf("create certificates in %q: %w", dir, err)
	}
	return nil
}

// builder makes one tree. step is called before each change of the disk, with
// its name; exchange swaps two directories. Both are fields for tests.
type builder struct {
	step     func(name string) error
	exchange func(a, b string) error
	ca       bool                // with a CA for the certificates of clients
	tree     config.Certificates // the names while it is being built
}

func (b *builder) create(dir string) (err error) {
	if dir == "" {
		return errors.New("the name of the directory is empty")
	}
	if err := b.step("make " + dir); err != nil {
		return err
	}
	// Others must be able to reach the sockets in it.
	if err := durable.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	final := config.CertificateTree(dir)
	target, err := resolve(final.Root)
	if err != nil {
		return err
	}
	parent := filepath.Dir(target)
	for _, path := range []string{dir, parent} { // two only if the tree is a link
		if err := durable.CheckOwner(path); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsafe, err)
		}
	}
	if err := b.step("lock"); err != nil {
		return err
	}
	lock, err := durable.Lock(filepath.Join(parent, lockName))
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("%w: try again", ErrBusy)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()

	if err := b.cleanUp(target); err != nil {
		return err
	}
	before, err := checkEmpty(final)
	if err != nil {
		return err
	}
	if err := b.step("make temporary directory"); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, tempPrefix+"*"+tempSuffix) // 0700
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.discard(temp, target))
		}
	}()
	b.tree = config.CertificateTree(temp)
	if before {
		err = b.keep(target)
	} else {
		err = b.mkdir(b.tree.Root)
	}
	if err != nil {
		return err
	}
	if err := b.build(final); err != nil {
		return err
	}
	if err := b.install(temp, target, before); err != nil {
		return err
	}
	if err := b.step("remove temporary directory"); err != nil {
		return err
	}
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	return durable.SyncDir(parent)
}

// resolve follows path if it is a symbolic link, so that what it stands for is
// replaced and not the link. That need not be there, but its directory must.
func resolve(path string) (string, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return path, nil
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real, nil
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(to))
	if err != nil {
		return "", fmt.Errorf("%q is a link to nothing: make the directory %q, or remove the link", path, filepath.Dir(to))
	}
	return filepath.Join(parent, filepath.Base(to)), nil
}

// cleanUp removes what dead processes have left beside target. The caller holds
// the lock, so no living one is at work.
func (b *builder) cleanUp(target string) error {
	parent := filepath.Dir(target)
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || !strings.HasPrefix(name, tempPrefix) || !strings.HasSuffix(name, tempSuffix) {
			continue
		}
		if err := b.step("remove " + name); err != nil {
			return err
		}
		if err := b.discard(filepath.Join(parent, name), target); err != nil {
			return err
		}
	}
	return nil
}

// discard removes a temporary directory, after putting back what was moved out
// of target's place into it.
func (b *builder) discard(temp, target string) error {
	old := filepath.Join(temp, oldName)
	if _, err := os.Lstat(target); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(old); err == nil {
			if err := durable.Rename(old, target); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(temp)
}

// checkEmpty refuses a tree as aioconnectors does and says whether there is
// anything at all.
func checkEmpty(tree config.Certificates) (before bool, err error) {
	info, err := os.Stat(tree.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%q is not a directory: move it away", tree.Root)
	}
	for _, path := range []string{tree.ServerCertDir, tree.ServerClientCerts, tree.ClientDir} {
		entries, err := os.ReadDir(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true, err
		}
		if len(entries) > 0 {
			return true, fmt.Errorf("%w: %q has %q: move %q away to make new ones",
				ErrExists, path, entries[0].Name(), tree.Root)
		}
	}
	return true, nil
}

// keep begins a new tree with a copy of what is in the old one: the template,
// and whatever else people have put there. Directories become private.
func (b *builder) keep(target string) error {
	return filepath.WalkDir(target, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(target, path)
		if err != nil {
			return err
		}
		to := filepath.Join(b.tree.Root, name)
		switch e.Type() {
		case fs.ModeDir:
			return b.mkdir(to)
		case fs.ModeSymlink:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return b.link(link, to)
		case 0:
			if to == b.tree.CSRDetails {
				return nil // made anew
			}
			data, info, err := readFile(path)
			if err != nil {
				return fmt.Errorf("%q: %w: move it away", path, err)
			}
			return b.write(to, data, info.Mode().Perm())
		}
		return fmt.Errorf("%q is neither a file nor a directory: move it away", path)
	})
}

// build makes the tree, with the modes it ends with, and syncs it. Errors about
// what was there before name it as it is in the final tree.
func (b *builder) build(final config.Certificates) error {
	dirs := []string{b.tree.ServerDir, b.tree.ServerCertDir, b.tree.ServerClientCerts, b.tree.Symlinks,
		b.tree.ClientDir, b.tree.ClientServerCertDir, b.tree.ClientCertDir}
	if b.ca {
		dirs = append(dirs, b.tree.CAGenerated)
	}
	for _, path := range dirs {
		if err := b.mkdir(path); err != nil {
			return err
		}
	}
	t, err := readTemplate(final)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(b.tree.CSRTemplate); errors.Is(err, fs.ErrNotExist) {
		if err := b.write(b.tree.CSRTemplate, t.text, 0o644); err != nil {
			return err
		}
	}

	server, err := newPair(t, serverOrganization)
	if err != nil {
		return err
	}
	// The subject of each client's certificate must be another, or the links of
	// all would have the same name and be searched one after the other.
	clientOrganization := newOrganization()
	var client *pair
	var caSubject []byte
	var files []made
	if b.ca {
		client, caSubject, files, err = b.buildCA(t, clientOrganization, final)
	} else {
		client, err = newPair(t, clientOrganization)
	}
	if err != nil {
		return err
	}
	for _, f := range append([]made{
		{b.tree.ServerKey, server.key, 0o600},
		{b.tree.ServerCert, server.cert, 0o644},
		{b.tree.ClientServerCert, server.cert, 0o644},
		{b.tree.ClientKey(defaultName), client.key, 0o600},
		{b.tree.ClientCert(defaultName), client.cert, 0o644},
		{b.tree.ServerClientCert(defaultName), client.cert, 0o644},
		{b.tree.CSRDetails, t.details(clientOrganization), 0o644},
	}, files...) {
		if name := filepath.Base(f.path); strings.HasSuffix(name, "details.conf") && exists(f.path) {
			continue // the user's own
		}
		if err := b.write(f.path, f.data, f.mode); err != nil {
			return err
		}
	}
	hash, err := SubjectHash(client.subject)
	if err != nil {
		return err
	}
	if err := b.link("../"+defaultName+".pem", filepath.Join(b.tree.Symlinks, hash+".0")); err != nil {
		return err
	}
	if b.ca {
		if hash, err = SubjectHash(caSubject); err != nil {
			return err
		}
		if err := b.link("../../server-cert/server_ca.pem", filepath.Join(b.tree.Symlinks, hash+".0")); err != nil {
			return err
		}
	}
	return filepath.WalkDir(b.tree.Root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = durable.SyncDir(path)
		}
		return err
	})
}

// install moves the tree from b.tree.Root to target.
func (b *builder) install(temp, target string, before bool) error {
	if err := b.step("install"); err != nil {
		return err
	}
	if !before {
		return durable.Rename(b.tree.Root, target)
	}
	err := b.exchange(b.tree.Root, target)
	if err == nil {
		return errors.Join(durable.SyncDir(filepath.Dir(target)), durable.SyncDir(temp))
	}
	// Not every file system can: then there is a moment without any tree, and
	// discard knows how to end it.
	err = durable.Rename(target, filepath.Join(temp, oldName))
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%q is a mount point: mount the directory above it instead", target)
	}
	if err != nil {
		return err
	}
	if err := b.step("install in two moves"); err != nil {
		return err
	}
	return durable.Rename(b.tree.Root, target)
}

// mkdir makes a directory that is for us alone; one that keep has made stays.
func (b *builder) mkdir(path string) error {
	if err := b.step("make " + path); err != nil {
		return err
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if info, statErr := os.Lstat(path); statErr == nil && !info.IsDir() {
			name, _ := filepath.Rel(b.tree.Root, path)
			return fmt.Errorf("%q in the tree is not a directory: remove it", name)
		}
		return nil
	}
	return err
}

func (b *builder) write(path string, data []byte, mode fs.FileMode) error {
	if err := b.step("write " + path); err != nil {
		return err
	}
	return durable.CreateFile(path, data, mode)
}

func (b *builder) link(target, path string) error {
	if err := b.step("link " + path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// pair is a new certificate and its key.
type pair struct {
	subject   []byte // DER
	cert, key []byte // PEM
}

// newPair makes a key, and a certificate of it that it has signed itself.
func newPair(t *template, organization string) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return newPairOf(t, organization, key)
}

// newPairOf makes a certificate of the key that it has signed itself.
func newPairOf(t *template, organization string, key crypto.Signer) (*pair, error) {
	subject, err := t.subject(organization)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: newSerial(),
		RawSubject:   subject,
		NotBefore:    now.Add(-slack),
		NotAfter:     now.Add(validity),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return &pair{subject: subject, cert: certificatePEM(der), key: text}, nil
}

// newOrganization returns the random part of a client's subject.
func newOrganization() string {
	organization := make([]byte, 16)
	rand.Read(organization)
	return hex.EncodeToString(organization)
}

// newSerial returns 20 random bytes as OpenSSL makes them; the first is never 0,
// so all have 40 digits.
func newSerial() *big.Int {
	serial := make([]byte, 20)
	rand.Read(serial)
	serial[0] = serial[0]&0x7f | 0x40
	return new(big.Int).SetBytes(serial)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// keyPEM returns a private key in PKCS#8, not encrypted.
func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// keySum returns the SHA-256 of a public key's DER, hexadecimal.
func keySum(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// keyID returns the identifier of a public key that certificates bear.
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha1.Sum(info.Key.Bytes)
	return sum[:], nil
}
