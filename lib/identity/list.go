package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aioc/lib/config"
)

// Certificate is what people want to know of a certificate in a tree. Of one that
// a CA has issued and not kept, what is not known is "" or the zero time.
type Certificate struct {
	Name        string    `json:"name"`             // of its owner: "server", "default", or a client's name
	Side        string    `json:"side"`             // who has it in this tree: "server" or "client"
	Path        string    `json:"path"`             // its file
	Number      int       `json:"number,omitempty"` // in the file: 2 for the second, 0 for the first
	Subject     string    `json:"subject"`          // as RFC 4514 writes it
	Hash        string    `json:"hash"`             // SubjectHash
	Serial      string    `json:"serial"`           // upper case hexadecimal, as in source_id_2_cert.json
	Fingerprint string    `json:"fingerprint"`      // as Fingerprint returns it
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
}

// Valid says with an error that wraps ErrDate that the certificate has expired
// at now, or is not valid yet.
func (c *Certificate) Valid(now time.Time) error {
	return checkDates(c.NotBefore, c.NotAfter, now, "replace it")
}

// List returns the certificates in the tree of dir, those of the server's side
// first. Files that cannot be read or hold none are left out and named in the
// error, which comes with the others. Without any tree the error wraps ErrMissing.
func List(dir string) ([]Certificate, error) {
	tree := config.CertificateTree(dir)
	if _, err := os.Stat(tree.Root); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("certificates %q are %w: run: aioc-certs create %s", tree.Root, ErrMissing, shellWord(dir))
	} else if err != nil {
		return nil, err
	}
	all := []Certificate{}
	var bad []error
	add := func(side, name, path string) {
		found, err := readCertificates(path)
		if err != nil {
			bad = append(bad, fmt.Errorf("certificate %q: %w", path, err))
		}
		for _, c := range found {
			c.Side, c.Name = side, name
			all = append(all, c)
		}
	}
	for _, s := range []struct{ side, server, clients string }{
		{"server", tree.ServerCertDir, tree.ServerClientCerts},
		{"client", tree.ClientServerCertDir, tree.ClientCertDir},
	} {
		for _, dir := range []string{s.server, s.clients} {
			entries, err := os.ReadDir(dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				bad = append(bad, err)
			}
			for _, e := range entries {
				if name, ok := strings.CutSuffix(e.Name(), ".pem"); ok && name != "" && name[0] != '.' {
					add(s.side, name, filepath.Join(dir, e.Name()))
				}
			}
		}
	}
	issued, err := listIssued(tree, all)
	if err != nil {
		bad = append(bad, err)
	}
	return append(all, issued...), errors.Join(bad...)
}

// listIssued returns what is known of clients whose certificates are not in the
// tree: a CA need not keep them.
func listIssued(tree config.Certificates, stored []Certificate) ([]Certificate, error) {
	text, err := readOwn(tree.SourceIDToCert)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var x *index
	if err == nil {
		x, err = parseIndex(text)
	}
	if err != nil {
		return nil, fmt.Errorf("clients' names %q: %w", tree.SourceIDToCert, err)
	}
	var sums issued
	if text, err := readOwn(issuedPath(tree)); err == nil {
		if err := json.Unmarshal(text, &sums); err != nil {
			return nil, fmt.Errorf("issued certificates %q: %w", issuedPath(tree), err)
		}
	}
	database, err := readDatabase(tree)
	if err != nil {
		return nil, err
	}
	var all []Certificate
	for _, name := range x.serials.keys {
		serial := x.serials.values[name]
		same := func(c Certificate) bool { return c.Side == "server" && c.Name == name && c.Serial == serial }
		if slices.ContainsFunc(stored, same) {
			continue
		}
		c := Certificate{Name: name, Side: "server", Path: tree.SourceIDToCert, Serial: serial}
		if sum, err := hex.DecodeString(sums[serial].SHA256); err == nil && len(sum) > 0 {
			c.Fingerprint = fingerprintOf(sum)
		}
		for _, f := range database {
			if strings.EqualFold(f[3], serial) {
				c.NotAfter, c.Subject = parseDatabaseTime(f[1]), f[5]
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// readCertificates reads all certificates of a PEM file. Text between them is
// passed over: OpenSSL writes a description there.
func readCertificates(path string) ([]Certificate, error) {
	text, _, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var all []Certificate
	requests := 0 // a server in CA mode leaves requests beside certificates
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE REQUEST" {
			requests++
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return all, errors.New(strings.TrimPrefix(err.Error(), "x509: "))
		}
		hash, err := SubjectHash(cert.RawSubject)
		if err != nil {
			return all, err
		}
		// Not cert.Subject, which has an order of its own.
		var subject pkix.RDNSequence
		if _, err := asn1.Unmarshal(cert.RawSubject, &subject); err != nil {
			return all, fmt.Errorf("subject: %w", err)
		}
		number := len(all) + 1
		if number == 1 {
			number = 0
		}
		all = append(all, Certificate{
			Number:      number,
			Path:        path,
			Subject:     subject.String(),
			Hash:        hash,
			Serial:      fmt.Sprintf("%X", cert.SerialNumber.Bytes()),
			Fingerprint: Fingerprint(block.Bytes),
			NotBefore:   cert.NotBefore.UTC(),
			NotAfter:    cert.NotAfter.UTC(),
		})
	}
	if len(all) == 0 && requests == 0 {
		return nil, errors.New("no certificate in it")
	}
	return all, nil
}
