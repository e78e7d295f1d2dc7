package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
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

var (
	// ErrName: what was given cannot be the name of a client.
	ErrName = errors.New("not a name for a client")
	// ErrTaken: another has a certificate for this name.
	ErrTaken = errors.New("name is taken")
	// ErrFull: as many clients as max_certs allows have a certificate.
	ErrFull = errors.New("too many certificates")
	// ErrRequest: a certificate request is not as it must be.
	ErrRequest = errors.New("bad certificate request")
)

const (
	// maxRequest is the size in bytes of the largest certificate request.
	maxRequest = 32 << 10
	// stagedPrefix begins the name of a certificate that is about to be stored.
	// It stays there when the process is killed, for recover to find.
	stagedPrefix = ".aioc-enrol-"
)

// Enrol gives the client its certificate. request is what Client.NewRequest has
// returned at the other end; then key is nil. Without a request the server makes
// the key too, as aioconnectors does, and returns it in PKCS#8. Both are PEM.
//
// When Enrol returns, the certificate is on the disk and good. The first to ask
// for a name gets it. Who asks again with the same key gets an answer again:
// the first one may have been lost. Errors wrap ErrName, ErrTaken, ErrFull,
// ErrRequest, or ErrBusy while another process changes the tree.
//
// Differs: a key that was made here is not kept. The original keeps it beside
// the certificate, and needs it nowhere.
func (s *Server) Enrol(name string, request []byte) (crt, key []byte, err error) {
	if err := config.ValidName(name); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrName, err)
	}
	if s.o.Clients == NoCertificates {
		return nil, nil, errors.New("this server gives no certificates")
	}
	t, err := readTemplate(s.tree)
	if err != nil {
		return nil, nil, err
	}
	// All that takes time is done before others are kept waiting.
	var asked *application
	if request == nil {
		asked, key, err = s.applyFor(t)
	} else {
		asked, err = parseRequest(request, s.o.CA, s.clock())
	}
	if err != nil {
		return nil, nil, err
	}
	e := &enrolment{name: name, application: asked}
	s.enrolTogether(t, e)
	if e.err != nil {
		return nil, nil, fmt.Errorf("certificate for %q: %w", name, e.err)
	}
	return e.crt, key, nil
}

// application is what a client asks for.
type application struct {
	public crypto.PublicKey
	cert   *x509.Certificate // signed with the client's own key; nil in CA mode
	keySum string            // SHA-256 of the public key's DER
}

// applyFor makes the key in the client's place.
func (s *Server) applyFor(t *template) (*application, []byte, error) {
	if !s.o.CA {
		p, err := newPair(t, newOrganization())
		if err != nil {
			return nil, nil, err
		}
		cert, err := firstCertificate(p.cert)
		if err != nil {
			return nil, nil, err
		}
		a, err := newApplication(cert.PublicKey, cert)
		return a, p.key, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, nil, err
	}
	a, err := newApplication(key.Public(), nil)
	return a, text, err
}

func newApplication(public crypto.PublicKey, cert *x509.Certificate) (*application, error) {
	sum, err := keySum(public)
	return &application{public, cert, sum}, err
}

// parseRequest checks what a client sends: a PKCS#10 request, which proves that
// it has the key, and after it a certificate that it has signed itself. That one
// is taken where there is no CA: the client alone can sign with its key, and
// aioconnectors admits only what is signed by itself.
func parseRequest(text []byte, ca bool, now time.Time) (*application, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %w", ErrRequest, fmt.Errorf(format, args...))
	}
	if len(text) > maxRequest {
		return nil, bad("it is larger than %d bytes", maxRequest)
	}
	var request *x509.CertificateRequest
	var cert *x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var err error
		switch {
		case block.Type == "CERTIFICATE REQUEST" && request == nil:
			request, err = x509.ParseCertificateRequest(block.Bytes)
		case block.Type == "CERTIFICATE" && cert == nil:
			cert, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			return nil, bad("%w", err)
		}
	}
	if request == nil {
		return nil, bad("no PEM block CERTIFICATE REQUEST in it")
	}
	if err := checkPublic(request.PublicKey); err != nil {
		return nil, bad("%w", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, bad("%w", err)
	}
	a, err := newApplication(request.PublicKey, nil)
	if err != nil {
		return nil, bad("%w", err)
	}
	if ca {
		return a, nil
	}
	if cert == nil {
		return nil, bad("this server has no CA: after the request, a certificate is needed that the client has signed itself")
	}
	sum, err := keySum(cert.PublicKey)
	switch {
	case err != nil || sum != a.keySum:
		return nil, bad("request and certificate are of two keys")
	case !bytes.Equal(cert.RawIssuer, cert.RawSubject):
		return nil, bad("subject and issuer of the certificate differ")
	case cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 160:
		return nil, bad("serial number of the certificate: it must be positive and have at most 20 bytes")
	case len(cert.Extensions) > 0:
		return nil, bad("the certificate has extensions")
	case cert.NotAfter.After(now.Add(validity + 24*time.Hour)):
		return nil, bad("the certificate is to hold longer than %d days", validity/(24*time.Hour))
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return nil, bad("certificate: %w", err)
	}
	if err := datesOfOther(cert, now); err != nil {
		return nil, fmt.Errorf("%w: certificate: %w: is the clock right at both ends?", ErrRequest, err)
	}
	a.cert = cert
	return a, nil
}

// checkPublic refuses keys that are too weak, or so long that they are a burden.
func checkPublic(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize >= 256 {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 8192 {
			return nil
		}
	}
	return errors.New("the key must be ECDSA with 256 bits or more, Ed25519, or RSA with 2048 to 8192")
}

// change runs do with the newest state while nobody else changes the tree, and
// reads afterwards what it has made of it.
func (s *Server) change(do func(*state) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.changeLocked(do)
}

// changeLocked is change for a caller that holds s.writing.
func (s *Server) changeLocked(do func(*state) error) error {
	lock, err := lockTree(s.tree)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	s.mu.Lock()
	st, err := s.load(s.now)
	if err == nil {
		s.now = st
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	err = do(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	next, readErr := s.load(s.now)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	// Nobody writes while we have the lock, so what was just read is settled.
	for path, is := range next.stamps {
		is.young = false
		next.stamps[path] = is
	}
	s.now = next
	return err
}

func (s *Server) writeIndex(x *index) error {
	if err := s.notice("index"); err != nil {
		return err
	}
	return durable.WriteFile(s.tree.SourceIDToCert, x.text(), 0o644)
}

func (s *Server) writeIssued(all issued) error {
	if err := s.notice("issued"); err != nil {
		return err
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return durable.WriteFile(issuedPath(s.tree), append(text, '\n'), 0o600)
}

// Delete takes the client's certificate from it: it is not let in any more, and
// its name is free. In CA mode the certificate is revoked. With onlyLink the file
// NAME.pem stays, as in aioconnectors (remove_only_symlink), and keeps the name
// from being given away. The error wraps ErrUnknown when there was nothing to
// delete, ErrName, or ErrBusy.
func (s *Server) Delete(name string, onlyLink bool) error {
	if err := config.ValidName(name); err != nil {
		return fmt.Errorf("%w: %w", ErrName, err)
	}
	err := s.change(func(st *state) error { return s.remove(st, name, onlyLink) })
	if err != nil {
		return fmt.Errorf("delete certificate of %q: %w", name, err)
	}
	return nil
}

// remove ends as aioconnectors does, but begins with what locks the client out.
func (s *Server) remove(st *state, name string, onlyLink bool) error {
	serial, known := st.index.serials.values[name]
	if known && s.o.CA {
		// Not that of a certificate which another has signed.
		ours, err := inDatabase(s.tree, serial)
		if err != nil {
			return err
		}
		if _, ok := st.issued[serial]; ok || ours {
			if err := s.notice("revoke"); err != nil {
				return err
			}
			if err := revoke(s.tree, st.ca, st.caKey, serial, s.clock()); err != nil {
				return err
			}
		}
	}
	if known {
		if err := s.writeIndex(st.index.without(name)); err != nil {
			return err
		}
		if _, ok := st.issued[serial]; ok {
			next := issued{}
			for number, c := range st.issued {
				if number != serial {
					next[number] = c
				}
			}
			if err := s.writeIssued(next); err != nil {
				return err
			}
		}
	}
	left := s.anythingOf(name, onlyLink)
	if err := s.removeStored(name, onlyLink); err != nil {
		return err
	}
	if !known && !left {
		return ErrUnknown
	}
	return nil
}

// anythingOf says whether the client has left something though it is not in the
// index: after a deletion that was cut short.
func (s *Server) anythingOf(name string, onlyLink bool) bool {
	links, err := linksTo(s.tree, name)
	if err != nil || len(links) > 0 {
		return true
	}
	if onlyLink {
		return false
	}
	_, err = os.Lstat(s.tree.ServerClientCert(name))
	return err == nil
}

// removeStored removes links and files of a client.
func (s *Server) removeStored(name string, onlyLink bool) error {
	links, err := linksTo(s.tree, name)
	if err != nil {
		return err
	}
	for len(links) > 0 {
		if err := s.notice("unlink"); err != nil {
			return err
		}
		if err := removeLink(s.tree, links[0]); err != nil {
			return err
		}
		if links, err = linksTo(s.tree, name); err != nil { // their numbers may have changed
			return err
		}
	}
	if onlyLink {
		return nil
	}
	for _, path := range []string{s.tree.ServerClientKey(name), s.tree.ServerClientCert(name)} {
		if err := s.notice("remove"); err != nil {
			return err
		}
		if err := durable.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// recover ends enrolments that a killed process has begun. Those in the index
// are completed, the others undone.
func (s *Server) recover() error {
	staged, err := filepath.Glob(filepath.Join(globQuote(s.tree.ServerClientCerts), stagedPrefix+"*.pem"))
	if err != nil || len(staged) == 0 {
		return err
	}
	return s.change(func(st *state) error {
		for _, path := range staged {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), stagedPrefix), ".pem")
			if err := s.recoverOne(st, name, path); err != nil {
				return fmt.Errorf("unfinished certificate %q: %w", path, err)
			}
		}
		return nil
	})
}

func (s *Server) recoverOne(st *state, name, staged string) error {
	text, err := readOwn(staged)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	cert, err := firstCertificate(text)
	if err == nil {
		if owner, ok := st.index.owner(serialText(cert)); ok && owner == name {
			links, err := linksTo(s.tree, name)
			if err != nil {
				return err
			}
			if len(links) == 0 {
				if err := addLink(s.tree, name, cert); err != nil {
					return err
				}
			}
			return durable.Rename(staged, s.tree.ServerClientCert(name))
		}
	}
	return durable.Remove(staged)
}

// globQuote takes their meaning from the characters that Glob knows.
func globQuote(path string) string {
	var b strings.Builder
	for _, c := range path {
		if strings.ContainsRune(`*?[\`, c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
