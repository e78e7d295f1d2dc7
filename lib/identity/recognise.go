package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"aioc/lib/durable"
)

var (
	// ErrUnknown: a certificate is nobody's here, or a name has none.
	ErrUnknown = errors.New("not known here")
	// ErrForeign: a certificate is not the one it poses as.
	ErrForeign = errors.New("not the certificate that is known")
	// ErrRevoked: a certificate was good once and has been revoked.
	ErrRevoked = errors.New("revoked")
)

// Who is what a certificate says of the other end of a connection.
type Who struct {
	Name        string // of the client; "" if the certificate is nobody's own
	Default     bool   // it is a default one, which is good for enrolment only
	Serial      string // as in source_id_2_cert.json
	Fingerprint string // as Fingerprint returns it; "" without a certificate
}

// Recognise returns whose certificate the client at the other end has shown. It
// is known by all of its bytes, not by its serial number alone:
//
//   - as default certificate if client-certs holds the same as default.pem or
//     defaultN.pem, and symlinks has a link to that;
//   - as a client's own if client-certs holds the same as NAME.pem, symlinks has
//     a link to that, and source_id_2_cert.json has both;
//   - with CA also if server_ca.pem has signed it, source_id_2_cert.json has its
//     serial number, it is not revoked, and it is what was issued under that
//     number where that is still known. A CA that the operator has linked in
//     symlinks may sign too, but not under a number that server_ca.pem has given.
//
// Otherwise the error wraps ErrUnknown, ErrForeign or ErrRevoked, and ErrDate
// when the certificate is not valid today. Who then still says what was shown;
// its Name is a claim at best. Differs: aioconnectors takes any certificate that
// chains to a linked one, and then looks at the serial number only.
//
// Call it again for an open connection to learn whether it is still welcome.
func (s *Server) Recognise(cs tls.ConnectionState) (Who, error) {
	if len(cs.PeerCertificates) == 0 {
		if s.o.Clients == NoCertificates {
			return Who{}, nil
		}
		return Who{}, fmt.Errorf("the client showed no certificate: it is %w", ErrUnknown)
	}
	return s.recognise(s.fresh(), cs.PeerCertificates, s.clock())
}

func (s *Server) recognise(st *state, shown []*x509.Certificate, now time.Time) (Who, error) {
	leaf := shown[0]
	who := Who{Serial: serialText(leaf), Fingerprint: Fingerprint(leaf.Raw)}
	err := s.identify(st, shown, &who, now)
	if err == nil {
		err = datesOfOther(leaf, now)
	}
	if err != nil {
		return who, fmt.Errorf("client certificate %s with serial number %s: %w", who.Fingerprint, who.Serial, err)
	}
	return who, nil
}

// identify finds out whose certificate shown[0] is, whatever its dates.
func (s *Server) identify(st *state, shown []*x509.Certificate, who *Who, now time.Time) error {
	leaf := shown[0]
	if st.ca != nil && st.revoked[who.Serial] && bytes.Equal(leaf.RawIssuer, st.ca.RawSubject) {
		return ErrRevoked
	}
	linked, err := s.findStored(st, leaf, who)
	if err != nil || linked {
		return err
	}
	if s.o.CA {
		return s.identifySigned(st, shown, who, now)
	}
	return s.stranger(st, who)
}

// findStored looks for the certificate among those that links admit, the way
// OpenSSL does.
func (s *Server) findStored(st *state, leaf *x509.Certificate, who *Who) (found bool, err error) {
	hash, err := SubjectHash(leaf.RawSubject)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	links, err := readLinks(s.tree, hash)
	if err != nil {
		return false, err
	}
	for _, l := range links {
		name, ok := l.client()
		if !ok {
			continue
		}
		path := s.tree.ServerClientCert(name)
		text, err := readOwn(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, and the link was forgotten
		}
		if err != nil {
			return false, fmt.Errorf("certificate %q: %w", path, err)
		}
		stored, err := firstCertificate(text)
		if err != nil || !bytes.Equal(stored.Raw, leaf.Raw) {
			continue
		}
		if isDefault(name) {
			who.Default = true
			return true, nil
		}
		if owner, ok := st.index.owner(who.Serial); ok && owner == name {
			who.Name = name
			return true, nil
		}
		if s.o.Clients == TrustedCertificates {
			return true, nil
		}
	}
	return false, nil
}

// identifySigned is for certificates that are not stored, but signed.
func (s *Server) identifySigned(st *state, shown []*x509.Certificate, who *Who, now time.Time) error {
	leaf := shown[0]
	// A certificate is somebody's even when it has expired: the caller checks
	// its dates, and can then say whose it was.
	at := now
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	} else if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(st.ca)
	for i, c := range shown {
		if i > 0 {
			between.AddCert(c)
		}
		if i < maxChain {
			for _, root := range s.linkedCAs(c.RawIssuer) {
				roots.AddCert(root)
			}
		}
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return s.stranger(st, who)
	}
	ours, others := false, false
	for _, chain := range chains {
		switch {
		case !chain[len(chain)-1].Equal(st.ca):
			others = true
		case len(chain) == 2:
			ours = true
		}
		// What server_ca.pem has signed is a client's: see linkedCAs.
	}
	if !ours && !others {
		return s.stranger(st, who)
	}
	name, known := st.index.owner(who.Serial)
	if !known {
		if s.o.Clients == TrustedCertificates {
			return nil
		}
		return s.stranger(st, who)
	}
	who.Name = name
	if was, ok := st.issued[who.Serial]; ok {
		sum := sha256.Sum256(leaf.Raw)
		if was.SHA256 != hex.EncodeToString(sum[:]) {
			return s.foreign(name)
		}
		return nil
	}
	path := filepath.Join(s.tree.CAGenerated, who.Serial+".pem")
	if text, err := readOwn(path); err == nil {
		stored, err := firstCertificate(text)
		if err != nil {
			return fmt.Errorf("certificate %q: %w", path, err)
		}
		if !bytes.Equal(stored.Raw, leaf.Raw) {
			return s.foreign(name)
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("certificate %q: %w", path, err)
	}
	if !ours {
		// What the original has issued without keeping it is known by its number
		// in the CA's own list: nobody else may use that number.
		listed, err := inDatabase(s.tree, who.Serial)
		if err != nil {
			return err
		}
		if listed {
			return s.foreign(name)
		}
	}
	return nil
}

// maxChain is how many certificates of a client are asked who signed them.
const maxChain = 4

// linkedCAs returns the CA certificates among the links for the subject.
func (s *Server) linkedCAs(subject []byte) []*x509.Certificate {
	hash, err := SubjectHash(subject)
	if err != nil {
		return nil
	}
	links, err := readLinks(s.tree, hash)
	if err != nil {
		return nil
	}
	var found []*x509.Certificate
	for _, l := range links {
		if _, ok := l.client(); ok {
			continue // who has a client's certificate signs nobody's
		}
		if durable.CheckOwner(l.path) != nil {
			continue
		}
		text, _, err := readFile(l.path)
		if err != nil {
			continue
		}
		all, err := parseCertificates(text)
		if err != nil {
			continue
		}
		for _, c := range all {
			if c.BasicConstraintsValid && c.IsCA {
				found = append(found, c)
			}
		}
	}
	return found
}

// stranger is the error for a certificate that was not found.
func (s *Server) stranger(st *state, who *Who) error {
	if name, ok := st.index.owner(who.Serial); ok {
		who.Name = name
		return s.foreign(name)
	}
	return ErrUnknown
}

func (s *Server) foreign(name string) error {
	return fmt.Errorf("it bears the serial number of %q, and is %w", name, ErrForeign)
}

// datesOfOther says whether a client's certificate is valid at now.
func datesOfOther(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("%w: it expired on %s", ErrDate, c.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(c.NotBefore):
		return fmt.Errorf("%w: it begins at %s", ErrDate, c.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// serialText returns the serial number as OpenSSL prints it: upper case
// hexadecimal, two digits for each byte.
func serialText(c *x509.Certificate) string {
	b := c.SerialNumber.Bytes()
	if len(b) == 0 {
		return "00"
	}
	return fmt.Sprintf("%X", b)
}
