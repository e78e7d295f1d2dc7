package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// Clients says which certificate a server asks of its clients.
type Clients int

const (
	// NoCertificates asks for none: ssl_allow_all, and tokens without
	// token_verify_peer_cert.
	NoCertificates Clients = iota
	// OwnCertificates asks for the client's own or a default one: the mode of
	// certificates, with and without a CA.
	OwnCertificates
	// TrustedCertificates asks for any that the tree trusts, also one that is
	// nobody's: tokens with token_verify_peer_cert.
	TrustedCertificates
)

// Server is the server's side of a tree: its own certificate, and which client
// has which. What others change in the tree counts from the next handshake on.
// All methods may be called concurrently.
type Server struct {
	o      ServerOptions
	tree   config.Certificates
	outer  *tls.Config // asks for the newest state at each handshake
	clock  func() time.Time
	notice func(step string) error // called before each change of the disk, for tests

	writing sync.Mutex // held while the tree is changed, before the lock of other processes

	waitingMu sync.Mutex // guards waiting
	waiting   []*enrolment

	mu       sync.Mutex // guards what follows
	now      *state
	complain string // the last error that o.Warn was told
}

// state is what the tree held when it was read. It is replaced, never changed.
type state struct {
	tls     *tls.Config
	index   *index
	issued  issued
	ca      *x509.Certificate // nil without server_ca
	caKey   crypto.Signer
	revoked map[string]bool // serial numbers of certificates that ca has revoked
	stamps  map[string]stamp
}

// stamp tells whether a file is still the one that was read.
type stamp struct {
	mtime time.Time
	size  int64
	info  fs.FileInfo // nil when the file was not there
	young bool        // it had changed so lately that the same mtime proves nothing
}

// OpenServer reads the server's side of the tree in o.Dir, finishes or undoes
// what a killed process has left half done there, and checks what sshd calls
// strict modes. Errors name the file and what to do, and wrap ErrMissing,
// ErrUnsafe, ErrDate or ErrBusy where one of them is the reason. There is nothing to close.
func OpenServer(o ServerOptions) (*Server, error) {
	return openServer(o, time.Now, func(string) error { return nil })
}

func openServer(o ServerOptions, clock func() time.Time, notice func(string) error) (*Server, error) {
	s := &Server{o: o, tree: config.CertificateTree(o.Dir), clock: clock, notice: notice}
	if s.o.MaxCerts == 0 {
		s.o.MaxCerts = config.Defaults().MaxCerts
	}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	if s.o.Clients != NoCertificates && !o.ReadOnly {
		if err := s.recover(); err != nil {
			return nil, err
		}
	}
	if s.o.Offline {
		return s, nil
	}
	s.outer = s.config(tls.Certificate{})
	s.outer.Certificates = nil
	s.outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.fresh().tls, nil }
	return s, nil
}

// TLS returns the configuration for the server's connections. It is always the
// same one, nil when Offline, and follows the tree. Who is at the other end is decided in the
// handshake, also in that of a resumed session: the error of a client that is
// refused wraps ErrUnknown, ErrForeign, ErrRevoked or ErrDate.
func (s *Server) TLS() *tls.Config { return s.outer }

// Reload reads all files of the tree again and checks their owners and modes.
// After an error the old state stays. Without it changes count as well; what it
// adds is the error, and the checks of directories.
func (s *Server) Reload() error {
	if err := s.checkModes(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.load(nil)
	if err != nil {
		return err
	}
	s.now, s.complain = next, ""
	return nil
}

// Has says whether a client with this name has a certificate here.
func (s *Server) Has(name string) bool {
	_, ok := s.fresh().index.serials.values[name]
	return ok
}

// Names returns the names of the clients that have a certificate here, in the
// order in which they came.
func (s *Server) Names() []string { return slices.Clone(s.fresh().index.serials.keys) }

// config returns the TLS configuration that shows cert.
func (s *Server) config(cert tls.Certificate) *tls.Config {
	c := serverConfig(cert, s.o.OldTLS)
	if s.o.Clients != NoCertificates {
		// Verifying is ours: package tls builds chains, we compare.
		c.ClientAuth = tls.RequireAnyClientCert
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			_, err := s.Recognise(cs)
			return err
		}
	}
	return c
}

// fresh returns the newest state that could be read.
func (s *Server) fresh() *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.load(s.now)
	if err == nil {
		s.now, s.complain = next, ""
		return next
	}
	if text := err.Error(); text != s.complain && s.o.Warn != nil {
		s.o.Warn(err)
		s.complain = text
	}
	return s.now
}

// load reads what has changed since old, which is nil for everything. It returns
// old itself when nothing has.
func (s *Server) load(old *state) (*state, error) {
	next := &state{stamps: map[string]stamp{}}
	if old != nil {
		*next = *old
		next.stamps = make(map[string]stamp, len(old.stamps))
	}
	changed := old == nil
	// Each part is read again when one of its files is another.
	part := func(read func() error, paths ...string) error {
		dirty := old == nil
		for _, path := range paths {
			is := s.stampOf(path)
			next.stamps[path] = is
			if old != nil && !old.stamps[path].same(is) {
				dirty = true
			}
		}
		if !dirty {
			return nil
		}
		changed = true
		return read()
	}
	err := part(func() error {
		if s.o.Offline {
			return nil
		}
		cert, err := readPair(s.tree.ServerCert, s.tree.ServerKey, ofServer(s.tree, s.o.Dir), s.clock())
		if err != nil {
			return err
		}
		next.tls = s.config(cert)
		return nil
	}, s.tree.ServerCert, s.tree.ServerKey)
	if err != nil {
		return nil, err
	}
	if s.o.Clients == NoCertificates {
		next.index = &index{}
		if !changed {
			return old, nil
		}
		return next, nil
	}
	err = part(func() error {
		next.index = &index{}
		text, err := readOwn(s.tree.SourceIDToCert)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			next.index, err = parseIndex(text)
		}
		if err != nil {
			return fmt.Errorf("clients' names %q: %w", s.tree.SourceIDToCert, err)
		}
		return nil
	}, s.tree.SourceIDToCert)
	if err != nil {
		return nil, err
	}
	if s.o.CA {
		if err := s.loadCA(next, part); err != nil {
			return nil, err
		}
	}
	if !changed {
		return old, nil
	}
	return next, nil
}

// loadCA reads what a server that signs its clients' certificates has more.
func (s *Server) loadCA(next *state, part func(read func() error, paths ...string) error) error {
	err := part(func() (err error) {
		next.ca, next.caKey, err = readCA(s.tree, s.o.Dir, s.clock())
		return err
	}, s.tree.ServerCACert, s.tree.ServerCAKey)
	if err != nil {
		return err
	}
	path := issuedPath(s.tree)
	err = part(func() error {
		next.issued = issued{}
		text, err := readOwn(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = json.Unmarshal(text, &next.issued)
		}
		if err != nil {
			return fmt.Errorf("issued certificates %q: %w", path, err)
		}
		return nil
	}, path)
	if err != nil {
		return err
	}
	path = revokedPath(s.tree)
	// The list is of the CA whose signature it bears: both or none are read.
	return part(func() (err error) {
		next.revoked, err = readRevoked(path, next.ca)
		return err
	}, path, s.tree.ServerCACert)
}

func (s *Server) stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	age := s.clock().Sub(info.ModTime())
	return stamp{info.ModTime(), info.Size(), info, age < 100*time.Millisecond && age > -time.Second}
}

// same says that the file has not changed since a was taken.
func (a stamp) same(b stamp) bool {
	if a.info == nil || b.info == nil {
		return a.info == nil && b.info == nil
	}
	return !a.young && a.mtime.Equal(b.mtime) && a.size == b.size && os.SameFile(a.info, b.info)
}

// checkModes refuses a tree that others could change.
func (s *Server) checkModes() error {
	dirs := []string{s.tree.ServerDir, s.tree.ServerCertDir}
	if s.o.Clients != NoCertificates {
		dirs = append(dirs, s.tree.ServerClientCerts, s.tree.Symlinks)
	}
	return checkDirs("run: aioc-certs create "+shellWord(s.o.Dir), dirs)
}

// checkDirs refuses directories of a tree that are links or that others could
// change. missing is what to do when one is not there.
func checkDirs(missing string, paths []string) error {
	for _, path := range paths {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("directory %q is %w: %s", path, ErrMissing, missing)
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return fmt.Errorf("%w: %q is no directory of its own (a symbolic link?): put a directory there", ErrUnsafe, path)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 && st.Uid != 0 {
			// To make it root's would lock out the connector that uses it.
			return fmt.Errorf("%w: %q belongs to user %d, who could change it: run this as that user: sudo -u '#%d' ..., or: chown -R 0 %s",
				ErrUnsafe, path, st.Uid, st.Uid, shellWord(filepath.Dir(path)))
		}
		if err := durable.CheckOwner(path); err != nil {
			return fmt.Errorf("%w: %w", ErrUnsafe, err)
		}
	}
	return nil
}

// readOwn reads a file of the tree that must be a file itself, no link that
// somebody has put there, and that nobody else may write to.
func readOwn(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, bare(err)
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil, fmt.Errorf("%w: it is a symbolic link: put the file itself there", ErrUnsafe)
	}
	text, opened, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if !os.SameFile(info, opened) {
		// Replaced by rename meanwhile, as we do it ourselves, or by a link.
		return readOwn(path)
	}
	if err := checkWriters(path, opened); err != nil {
		return nil, err
	}
	return text, nil
}

// checkWriters refuses a file that others may write to. Its directory is checked
// when the tree is opened.
func checkWriters(path string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%w: mode %04o lets others change it: run: chmod go-w %s", ErrUnsafe, mode, shellWord(path))
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: it belongs to user %d, who could change it: run: chown %d %s", ErrUnsafe, st.Uid, os.Geteuid(), shellWord(path))
	}
	return nil
}

// firstCertificate returns the first certificate of a PEM text.
func firstCertificate(text []byte) (*x509.Certificate, error) {
	all, err := parseCertificates(text)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// parseCertificates returns all certificates of a PEM text, at least one.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return all, nil
}

// lockTree takes the lock that all who change the tree share, and waits a while
// for it. The error wraps ErrBusy when that was in vain.
func lockTree(tree config.Certificates) (*durable.LockFile, error) {
	root, err := resolve(tree.Root)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(root), lockName)
	for deadline := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		lock, err := durable.Lock(path)
		if !errors.Is(err, durable.ErrLocked) {
			return lock, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w: try again", ErrBusy)
		}
	}
}

// lockWait is how long a change waits for another process that is at one.
const lockWait = 10 * time.Second
