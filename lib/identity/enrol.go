package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"aioc/lib/durable"
)

// enrolment is a client that waits for its certificate. What follows the
// application is guarded by Server.writing.
type enrolment struct {
	name string
	*application

	crt    []byte // PEM
	err    error
	done   bool
	serial string
	staged string // without a CA: where the certificate is until it is published
	before string // with a CA: the serial number of the certificate that this one replaces
}

// enrolTogether ends an enrolment, and with it all that others have begun: what
// costs time is to bring the tree to the disk, and once does for many.
func (s *Server) enrolTogether(t *template, e *enrolment) {
	s.waitingMu.Lock()
	s.waiting = append(s.waiting, e)
	s.waitingMu.Unlock()
	s.writing.Lock()
	defer s.writing.Unlock()
	if e.done {
		return
	}
	s.waitingMu.Lock()
	all := s.waiting
	s.waiting = nil
	s.waitingMu.Unlock()
	err := s.changeLocked(func(st *state) error {
		s.enrol(st, t, all)
		return nil
	})
	for _, e := range all {
		e.done = true
		if e.err == nil {
			e.err = err
		}
	}
}

// enrol gives each who may have it a certificate; the others get an error.
func (s *Server) enrol(st *state, t *template, all []*enrolment) {
	x := &index{st.index.serials.clone(), st.index.names.clone()}
	var accepted []*enrolment
	for _, e := range all {
		again, err := s.decide(st, x, e)
		switch {
		case err != nil:
			e.err = err
			continue
		case again:
			continue
		case s.o.CA:
			e.err = s.issue(st, t, e)
		default:
			e.err = s.stage(x, e, accepted)
		}
		if e.err != nil {
			continue
		}
		if e.before != "" {
			x.names.remove(e.before)
		}
		x.serials.set(e.name, e.serial)
		x.names.set(e.serial, e.name)
		accepted = append(accepted, e)
	}
	if len(accepted) == 0 {
		return
	}
	var err error
	if s.o.CA {
		err = s.recordSigned(st, x, accepted)
	} else {
		err = s.publish(st, x, accepted)
	}
	if err != nil {
		for _, e := range accepted {
			e.crt, e.err = nil, err
		}
	}
}

// decide says whether the client may have a certificate. again is true when it
// has asked before with the same key, and has its answer.
func (s *Server) decide(st *state, x *index, e *enrolment) (again bool, err error) {
	path := s.tree.ServerClientCert(e.name)
	old, known := x.serials.values[e.name]
	if was := st.issued[old]; known && s.o.CA && was.Name == e.name && was.Key == e.keySum {
		e.before = old
		return false, nil
	}
	stored, err := readOwn(path)
	switch {
	case err == nil:
		if cert, parseErr := firstCertificate(stored); known && parseErr == nil && serialText(cert) == old {
			if sum, err := keySum(cert.PublicKey); err == nil && sum == e.keySum {
				e.crt = certificatePEM(cert.Raw) // the answer was lost
				return true, nil
			}
		}
		return false, fmt.Errorf("%w: %q is there: run: aioc-certs delete %s %s", ErrTaken, path, e.name, shellWord(s.o.Dir))
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%w: %q: %w", ErrTaken, path, err)
	case known:
		return false, fmt.Errorf("%w: %q has it: run: aioc-certs delete %s %s", ErrTaken, s.tree.SourceIDToCert, e.name, shellWord(s.o.Dir))
	case len(x.serials.keys) >= s.o.MaxCerts:
		return false, fmt.Errorf("%w: max_certs is %d", ErrFull, s.o.MaxCerts)
	}
	return false, nil
}

// stage brings a certificate that its owner has signed to the disk, under a name
// that admits nobody yet. Those before it are published with it.
func (s *Server) stage(x *index, e *enrolment, before []*enrolment) error {
	e.serial = serialText(e.cert)
	// The client has chosen number and subject: neither may be somebody else's.
	if err := s.checkUnused(x, e.cert, e.serial); err != nil {
		return err
	}
	for _, b := range before {
		if bytes.Equal(b.cert.RawSubject, e.cert.RawSubject) {
			return errSubject(e.cert)
		}
	}
	if err := s.notice("stage"); err != nil {
		return err
	}
	e.crt = certificatePEM(e.cert.Raw)
	e.staged = filepath.Join(s.tree.ServerClientCerts, stagedPrefix+e.name+".pem")
	return durable.WriteFile(e.staged, e.crt, 0o644)
}

// publish admits staged certificates. From the moment the index has the clients
// until the files have their own names, recover would end what is done here.
func (s *Server) publish(st *state, x *index, all []*enrolment) error {
	err := s.writeIndex(x)
	for _, e := range all {
		if err == nil {
			err = s.notice("link")
		}
		if err == nil {
			err = makeLink(s.tree, e.name, e.cert)
		}
	}
	if err == nil {
		err = durable.SyncDir(s.tree.Symlinks)
	}
	for _, e := range all {
		if err == nil {
			err = s.notice("rename")
		}
		if err == nil {
			err = os.Rename(e.staged, s.tree.ServerClientCert(e.name)) // one sync for all follows
		}
	}
	if err == nil {
		err = durable.SyncDir(s.tree.ServerClientCerts)
	}
	if err == nil {
		return nil
	}
	undo := []error{err, s.writeIndex(st.index)}
	for _, e := range all {
		undo = append(undo, s.removeStored(e.name, false), removeIf(e.staged))
	}
	return errors.Join(undo...)
}

func errSubject(cert *x509.Certificate) error {
	return fmt.Errorf("%w: subject %q is another certificate's", ErrRequest, cert.Subject)
}

// checkUnused refuses a serial number or a subject that another certificate of
// the tree has: by the one aioconnectors recognises clients, by the other OpenSSL
// looks for them.
func (s *Server) checkUnused(x *index, cert *x509.Certificate, serial string) error {
	if _, used := x.names.values[serial]; used {
		return fmt.Errorf("%w: serial number %s is another client's", ErrRequest, serial)
	}
	hash, err := SubjectHash(cert.RawSubject)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if _, err := os.Lstat(linkPath(s.tree, hash, 0)); err == nil {
		return errSubject(cert)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(s.tree.ServerClientCerts)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pem")
		if !ok || !isDefault(name) {
			continue
		}
		text, err := readOwn(s.tree.ServerClientCert(name))
		if err != nil {
			return fmt.Errorf("certificate %q: %w", s.tree.ServerClientCert(name), err)
		}
		if c, err := firstCertificate(text); err == nil && serialText(c) == serial {
			return fmt.Errorf("%w: serial number %s is that of %s.pem", ErrRequest, serial, name)
		}
	}
	return nil
}

// issue makes a certificate of the CA. On the disk nothing happens yet.
func (s *Server) issue(st *state, t *template, e *enrolment) error {
	cert, text, err := sign(t, newOrganization(), e.public, st.ca, st.caKey, s.clock())
	if err != nil {
		return err
	}
	e.crt, e.cert, e.serial = text, cert, serialText(cert)
	return nil
}

// recordSigned brings what the CA has issued to the disk. The index comes last:
// what is there without it is nobody's.
func (s *Server) recordSigned(st *state, x *index, all []*enrolment) error {
	next := issued{}
	for number, c := range st.issued {
		if _, ok := x.names.values[number]; ok { // others were replaced, or never confirmed
			next[number] = c
		}
	}
	var added []string
	for _, e := range all {
		line, err := databaseLine(e.cert)
		if err != nil {
			return err
		}
		added = append(added, line)
		sum := sha256.Sum256(e.cert.Raw)
		next[e.serial] = issuedCertificate{e.name, hex.EncodeToString(sum[:]), e.keySum}
	}
	if err := s.notice("database"); err != nil {
		return err
	}
	if err := editDatabase(s.tree, func(lines []string) []string { return append(lines, added...) }); err != nil {
		return err
	}
	for _, e := range all {
		if e.before == "" {
			continue
		}
		if err := s.notice("revoke"); err != nil {
			return err
		}
		if err := revoke(s.tree, st.ca, st.caKey, e.before, s.clock()); err != nil {
			return err
		}
	}
	if !s.o.NotStored {
		if err := s.notice("keep"); err != nil {
			return err
		}
		if err := durable.MkdirAll(s.tree.CAGenerated, 0o700); err != nil {
			return err
		}
		for _, e := range all {
			if err := durable.WriteFile(filepath.Join(s.tree.CAGenerated, e.serial+".pem"), e.crt, 0o644); err != nil {
				return err
			}
		}
	}
	if err := s.writeIssued(next); err != nil {
		return err
	}
	return s.writeIndex(x)
}
