package identity

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

const (
	orgSuffix  = ".org"        // the server's certificate and key before they were replaced
	nextSuffix = ".next"       // those that RenewServer will give it
	swapPrefix = ".aioc-swap-" // a directory of the tree while it is being changed
)

// ReplaceServer makes the certificate and the key in the files the server's. The
// certificate may be followed by those of the CAs between it and the root. What
// the tree had is kept beside it as server.pem.org and server.key.org, for
// RevertServer, unless such files are there: then they are of the first time.
// Both files change in one step. As with RenewServer, the tree's client side comes
// to trust the new one as well. Errors wrap ErrMissing, ErrUnsafe, ErrDate or
// ErrBusy where one of them is the reason; nothing has changed then.
//
// Differs: the original keeps what was there last, so that a second call loses
// the certificate that clients know.
func ReplaceServer(dir, certFile, keyFile string) error {
	tree := config.CertificateTree(dir)
	for _, path := range []string{certFile, keyFile} {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q is %w", path, ErrMissing)
		}
	}
	leaf, err := readPair(certFile, keyFile, remedy{"say which file it is", "get a new one"}, time.Now())
	if err != nil {
		return err
	}
	certPEM, _, err := readFile(certFile)
	if err != nil {
		return fmt.Errorf("certificate %q: %w", certFile, err)
	}
	key, _, err := readFile(keyFile)
	if err != nil {
		return fmt.Errorf("key %q: %w", keyFile, err)
	}
	return changeTree(dir, []string{tree.ServerDir, tree.ServerCertDir}, func() error {
		// The certificate and not its CA, which may have signed those of others.
		if err := trustToo(tree, certificatePEM(leaf.Certificate[0]), true); err != nil {
			return err
		}
		return swapDir(tree.ServerCertDir, func(temp string) error {
			for _, f := range []struct {
				path string
				data []byte
				mode fs.FileMode
			}{{tree.ServerCert, certPEM, 0o644}, {tree.ServerKey, key, 0o600}} {
				name := filepath.Base(f.path)
				old, _, err := readFile(f.path)
				switch {
				case err == nil && !exists(filepath.Join(temp, name+orgSuffix)):
					err = durable.WriteFile(filepath.Join(temp, name+orgSuffix), old, f.mode)
				case errors.Is(err, fs.ErrNotExist):
					err = nil // nothing to come back to
				}
				if err == nil {
					err = durable.WriteFile(filepath.Join(temp, name), f.data, f.mode)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Issuer returns the name of the CA whose certificate the file at path lacks
// behind those that it has, and "" when the last has signed itself: who verifies
// them must have that one.
func Issuer(path string) (string, error) {
	text, _, err := readFile(path)
	if err != nil {
		return "", fmt.Errorf("certificate %q: %w", path, err)
	}
	all, err := parseCertificates(text)
	if err != nil {
		return "", fmt.Errorf("certificate %q: %w", path, err)
	}
	last := all[0]
	for _, c := range all[1:] {
		if bytes.Equal(last.RawIssuer, c.RawSubject) {
			last = c
		}
	}
	if bytes.Equal(last.RawIssuer, last.RawSubject) {
		return "", nil
	}
	return last.Issuer.String(), nil
}

// RevertServer puts back the certificate and the key that ReplaceServer has kept.
// The error wraps ErrMissing when there are none, and else as for ReplaceServer.
func RevertServer(dir string) error {
	tree := config.CertificateTree(dir)
	for _, path := range []string{tree.ServerCert + orgSuffix, tree.ServerKey + orgSuffix} {
		if !exists(path) {
			return fmt.Errorf("%q is %w: the certificate was not replaced", path, ErrMissing)
		}
	}
	return changeTree(dir, []string{tree.ServerDir, tree.ServerCertDir}, func() error {
		return swapDir(tree.ServerCertDir, func(temp string) error {
			for _, path := range []string{tree.ServerCert, tree.ServerKey} {
				to := filepath.Join(temp, filepath.Base(path))
				if err := durable.Rename(to+orgSuffix, to); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// PrepareServer makes the certificate and key that RenewServer will give the
// server, if they are not there, and tells whether they were not. The server goes
// on with those that it has; the tree's client side trusts both from now on, so
// that clients can be given it in the meantime. Errors are as those of RenewServer.
func PrepareServer(dir string) (made bool, err error) {
	tree := config.CertificateTree(dir)
	p, old, err := nextServer(tree, dir)
	if err != nil {
		return false, err
	}
	return !old, changeTree(dir, []string{tree.ServerDir, tree.ServerCertDir}, func() error {
		// Behind the one that counts, which is shown first as the server's.
		if err := trustToo(tree, p.cert, false); err != nil || old {
			return err
		}
		return swapDir(tree.ServerCertDir, func(temp string) error { return writeServer(tree, temp, p, nextSuffix) })
	})
}

// RenewServer gives the server a new certificate and key: those of PrepareServer
// if it was called before. In the tree's client side, which is what clients are
// given, the new certificate comes to stand before the old ones that still hold: a
// client that has that file trusts the server before and after. Clients on other
// hosts must be given it. Errors wrap ErrMissing, ErrUnsafe, ErrTemplate or
// ErrBusy where one of them is the reason.
func RenewServer(dir string) error {
	tree := config.CertificateTree(dir)
	p, old, err := nextServer(tree, dir)
	if err != nil {
		return err
	}
	return changeTree(dir, []string{tree.ServerDir, tree.ServerCertDir}, func() error {
		if err := trustToo(tree, p.cert, true); err != nil {
			return err
		}
		return swapDir(tree.ServerCertDir, func(temp string) error {
			if err := writeServer(tree, temp, p, ""); err != nil || !old {
				return err
			}
			for _, path := range []string{tree.ServerCert, tree.ServerKey} {
				if err := os.Remove(filepath.Join(temp, filepath.Base(path)+nextSuffix)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// nextServer returns the certificate and key that the server gets next: old tells
// that PrepareServer has made them.
func nextServer(tree config.Certificates, dir string) (p *pair, old bool, err error) {
	if exists(tree.ServerCert + orgSuffix) {
		return nil, false, fmt.Errorf("the server's certificate was replaced by one from elsewhere: give it the next one with: aioc-certs replace-server PEM %s", shellWord(dir))
	}
	if _, err := checkEmpty(tree); !exists(tree.ServerCert) && !errors.Is(err, ErrExists) {
		return nil, false, explain("certificate", tree.ServerCert, ofServer(tree, dir).missing, fs.ErrNotExist)
	}
	certFile, keyFile := tree.ServerCert+nextSuffix, tree.ServerKey+nextSuffix
	if exists(certFile) || exists(keyFile) {
		again := fmt.Sprintf("run: rm -f %s %s, and prepare another one", shellWord(certFile), shellWord(keyFile))
		if _, err := readPair(certFile, keyFile, remedy{again, again}, time.Now()); err != nil {
			return nil, false, err
		}
		p = &pair{}
		if p.cert, _, err = readFile(certFile); err == nil {
			p.key, _, err = readFile(keyFile)
		}
		return p, true, err
	}
	t, err := readTemplate(tree)
	if err != nil {
		return nil, false, err
	}
	p, err = newPair(t, serverOrganization)
	return p, false, err
}

// writeServer writes a certificate and key for the server to the directory temp.
func writeServer(tree config.Certificates, temp string, p *pair, suffix string) error {
	if err := durable.WriteFile(filepath.Join(temp, filepath.Base(tree.ServerKey)+suffix), p.key, 0o600); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(temp, filepath.Base(tree.ServerCert)+suffix), p.cert, 0o644)
}

// trustToo lets the tree's client side, if there is one, trust one more server's
// certificate, before or behind those that it trusts. It comes before the server's
// change: what clients trust too early does no harm.
func trustToo(tree config.Certificates, added []byte, first bool) error {
	if !exists(tree.ClientServerCertDir) {
		return nil
	}
	text, err := trustMore(tree.ClientServerCert, added, first, time.Now())
	if err != nil {
		return err
	}
	return durable.WriteFile(tree.ClientServerCert, text, 0o644)
}

// trustMore returns the certificates at path that still hold, and added before or
// behind them.
func trustMore(path string, added []byte, first bool, now time.Time) ([]byte, error) {
	old, _, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return added, nil
	}
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", path, err)
	}
	all, err := parseCertificates(old)
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", path, err)
	}
	var text []byte
	for _, c := range all {
		if one := certificatePEM(c.Raw); now.Before(c.NotAfter) && !bytes.Equal(one, added) {
			text = append(text, one...)
		}
	}
	if first {
		return slices.Concat(added, text), nil
	}
	return append(text, added...), nil
}

// RenewDefault makes a new default certificate and key. The server goes on
// taking the old one, which it then knows as defaultN.pem: hosts that have it can
// still get their first certificate. Errors are as those of RenewServer.
func RenewDefault(dir string) error {
	tree := config.CertificateTree(dir)
	if !exists(tree.ServerCert) {
		return fmt.Errorf("%q is %w: default certificates are made on the host of the server", tree.ServerCert, ErrMissing)
	}
	t, err := readTemplate(tree)
	if err != nil {
		return err
	}
	return changeTree(dir, []string{tree.ServerDir, tree.ServerCertDir, tree.ServerClientCerts, tree.Symlinks}, func() error {
		return renewDefault(tree, t, dir)
	})
}

// renewDefault may be killed at any step: a default certificate that can be used
// is always there, and the next call ends what is left over.
func renewDefault(tree config.Certificates, t *template, dir string) error {
	p, cert, err := newDefault(tree, t, dir)
	if err != nil {
		return err
	}
	current := tree.ServerClientCert(defaultName)
	stale, err := linksTo(tree, defaultName)
	if err != nil {
		return err
	}
	if old, err := readOwn(current); err == nil {
		oldCert, err := firstCertificate(old)
		if err != nil {
			return fmt.Errorf("certificate %q: %w", current, err)
		}
		name := defaultName
		for n := 1; name == defaultName || exists(tree.ServerClientCert(name)); n++ {
			name = fmt.Sprint(defaultName, n)
		}
		if err := durable.WriteFile(tree.ServerClientCert(name), old, 0o644); err != nil {
			return err
		}
		if err := addLink(tree, name, oldCert); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("certificate %q: %w", current, err)
	}
	if err := durable.WriteFile(current, p.cert, 0o644); err != nil {
		return err
	}
	if err := addLink(tree, defaultName, cert); err != nil {
		return err
	}
	for range stale {
		// Numbers may have changed: the new link is the one with the new hash.
		links, err := linksTo(tree, defaultName)
		if err != nil {
			return err
		}
		hash, err := SubjectHash(cert.RawSubject)
		if err != nil {
			return err
		}
		for _, path := range links {
			if !strings.HasPrefix(filepath.Base(path), hash+".") {
				if err := removeLink(tree, path); err != nil {
					return err
				}
				break
			}
		}
	}
	if !exists(tree.ClientCertDir) {
		return nil
	}
	return swapDir(tree.ClientCertDir, func(temp string) error {
		if err := durable.WriteFile(filepath.Join(temp, defaultName+".key"), p.key, 0o600); err != nil {
			return err
		}
		return durable.WriteFile(filepath.Join(temp, defaultName+".pem"), p.cert, 0o644)
	})
}

// newDefault makes a default certificate: one of the CA if the tree has that.
func newDefault(tree config.Certificates, t *template, dir string) (*pair, *x509.Certificate, error) {
	p, err := newPair(t, newOrganization())
	if err != nil {
		return nil, nil, err
	}
	if HasCA(dir) {
		ca, caKey, err := readCA(tree, dir, time.Now())
		if err != nil {
			return nil, nil, err
		}
		own, err := tls.X509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, nil, err
		}
		cert, text, err := sign(t, newOrganization(), own.Leaf.PublicKey, ca, caKey, time.Now())
		if err != nil {
			return nil, nil, err
		}
		line, err := databaseLine(cert)
		if err != nil {
			return nil, nil, err
		}
		p.cert = text
		return p, cert, editDatabase(tree, func(lines []string) []string { return append(lines, line) })
	}
	cert, err := firstCertificate(p.cert)
	return p, cert, err
}

// changeTree runs do while nobody else changes the tree of dir, whose
// directories must be safe from others.
func changeTree(dir string, dirs []string, do func() error) error {
	if err := checkDirs("run: aioc-certs create "+shellWord(dir), dirs); err != nil {
		return err
	}
	lock, err := lockTree(config.CertificateTree(dir))
	if err != nil {
		return err
	}
	defer lock.Unlock()
	return do()
}

// swapDir changes several files of a directory in one step: change works in a
// copy, which then takes the directory's place. Where the system cannot exchange
// two directories there is a moment without it, and a kill in it leaves it under
// another name, which the next call brings back. The caller holds the tree's lock.
func swapDir(dir string, change func(temp string) error) (err error) {
	parent := filepath.Dir(dir)
	prefix := swapPrefix + filepath.Base(dir) + "-"
	if err := cleanSwaps(dir, prefix); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	temp, err := os.MkdirTemp(parent, prefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(temp); err == nil {
			err = removeErr
		}
	}()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(filepath.Join(dir, e.Name()), filepath.Join(temp, e.Name())); err != nil {
			return err
		}
	}
	if err := os.Chmod(temp, info.Mode().Perm()); err != nil {
		return err
	}
	if err := change(temp); err != nil {
		return err
	}
	if err := durable.SyncDir(temp); err != nil {
		return err
	}
	if err := exchange(temp, dir); err == nil {
		return durable.SyncDir(parent)
	}
	old := temp + ".old"
	if err := durable.Rename(dir, old); err != nil {
		return err
	}
	if err := durable.Rename(temp, dir); err != nil {
		return errors.Join(err, durable.Rename(old, dir))
	}
	return os.RemoveAll(old)
}

// cleanSwaps ends what a killed process has left beside dir.
func cleanSwaps(dir, prefix string) error {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		path := filepath.Join(filepath.Dir(dir), e.Name())
		if strings.HasSuffix(path, ".old") && !exists(dir) {
			err = durable.Rename(path, dir)
		} else {
			err = os.RemoveAll(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copyEntry copies a file or link with its mode.
func copyEntry(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		data, _, err := readFile(from)
		if err != nil {
			return fmt.Errorf("%q: %w", from, err)
		}
		return durable.CreateFile(to, data, info.Mode().Perm())
	}
	return fmt.Errorf("%q is neither a file nor a link: move it away", from)
}
