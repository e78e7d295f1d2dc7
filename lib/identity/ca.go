package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// issued is our own record, beside source_id_2_cert.json, of what the CA has
// signed, by serial number. The original does not look at it.
type issued map[string]issuedCertificate

type issuedCertificate struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // of the certificate's DER, hexadecimal
	Key    string `json:"key"`    // SHA-256 of the public key's DER, hexadecimal
}

func issuedPath(tree config.Certificates) string {
	return filepath.Join(tree.ServerClientCerts, ".aioc-issued.json")
}

// revokedPath is the CA's list of certificates that are no longer good.
func revokedPath(tree config.Certificates) string {
	return filepath.Join(tree.ServerCertDir, "server_ca.crl")
}

// databasePath is the list that "openssl ca" keeps of what it has signed.
func databasePath(tree config.Certificates) string {
	return filepath.Join(tree.ServerCertDir, "index.txt")
}

// HasCA says whether the tree in dir has a CA for the certificates of clients,
// which server_ca needs and "aioc-certs create -ca" makes.
func HasCA(dir string) bool {
	_, err := os.Lstat(config.CertificateTree(dir).ServerCACert)
	return err == nil
}

// readCA reads the certificate and the key that sign certificates of clients.
func readCA(tree config.Certificates, dir string, now time.Time) (*x509.Certificate, crypto.Signer, error) {
	for _, path := range []string{tree.ServerCACert, tree.ServerCAKey} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("CA %q is %w: server_ca needs it: move the tree away and run: aioc-certs create -ca %s",
				path, ErrMissing, shellWord(dir))
		}
	}
	certPEM, err := readOwn(tree.ServerCACert)
	if err != nil {
		return nil, nil, fmt.Errorf("CA %q: %w", tree.ServerCACert, err)
	}
	keyPEM, info, err := readFile(tree.ServerCAKey)
	if err == nil {
		err = checkPrivate(tree.ServerCAKey, info)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("key %q: %w", tree.ServerCAKey, err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("CA %q with key %q: %s", tree.ServerCACert, tree.ServerCAKey, strings.TrimPrefix(err.Error(), "tls: "))
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.BasicConstraintsValid || !pair.Leaf.IsCA {
		return nil, nil, fmt.Errorf("CA %q: it is not a certificate that may sign others", tree.ServerCACert)
	}
	if err := checkDates(pair.Leaf.NotBefore, pair.Leaf.NotAfter, now,
		"move the tree away and run: aioc-certs create -ca "+shellWord(dir)+": all clients need new certificates"); err != nil {
		return nil, nil, fmt.Errorf("CA %q: %w", tree.ServerCACert, err)
	}
	return pair.Leaf, signer, nil
}

// readRevoked returns the serial numbers in the CA's list.
func readRevoked(path string, ca *x509.Certificate) (map[string]bool, error) {
	list, err := readRevocationList(path, ca)
	if err != nil || list == nil {
		return map[string]bool{}, err
	}
	revoked := make(map[string]bool, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		revoked[fmt.Sprintf("%X", e.SerialNumber.Bytes())] = true
	}
	return revoked, nil
}

// readRevocationList returns nil when there is none yet. One that the CA has not
// signed is refused: without it, deleted clients might be let in again.
func readRevocationList(path string, ca *x509.Certificate) (*x509.RevocationList, error) {
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("revocation list %q: %w", path, err)
	}
	der := text
	if block, _ := pem.Decode(text); block != nil {
		der = block.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		err = list.CheckSignatureFrom(ca)
	}
	if err != nil {
		return nil, fmt.Errorf("revocation list %q is not one that server_ca.pem has signed: put the right one back, or remove it: %w", path, err)
	}
	return list, nil
}

// revoke adds serial numbers to the CA's list and marks them in its database.
func revoke(tree config.Certificates, ca *x509.Certificate, key crypto.Signer, serial string, now time.Time) error {
	path := revokedPath(tree)
	old, err := readRevocationList(path, ca)
	if err != nil {
		return err
	}
	number, ok := new(big.Int).SetString(serial, 16)
	if !ok {
		return fmt.Errorf("serial number %q is not hexadecimal", serial)
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now, NextUpdate: now.Add(validity)}
	if old != nil {
		list.RevokedCertificateEntries = old.RevokedCertificateEntries
		if old.Number != nil {
			list.Number = new(big.Int).Add(old.Number, list.Number)
		}
	}
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(number) == 0 {
			return nil
		}
	}
	list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
		x509.RevocationListEntry{SerialNumber: number, RevocationTime: now})
	der, err := x509.CreateRevocationList(rand.Reader, list, ca, key)
	if err != nil {
		return fmt.Errorf("revocation list %q: %w", path, err)
	}
	if err := durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o644); err != nil {
		return err
	}
	return editDatabase(tree, func(lines []string) []string {
		for i, line := range lines {
			f := strings.Split(line, "\t")
			if len(f) == 6 && f[0] == "V" && strings.EqualFold(f[3], serial) {
				f[0], f[2] = "R", databaseTime(now)
				lines[i] = strings.Join(f, "\t")
			}
		}
		return lines
	})
}

// editDatabase changes the lines of index.txt.
func editDatabase(tree config.Certificates, change func(lines []string) []string) error {
	path := databasePath(tree)
	text, err := readOwn(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("CA's list %q: %w", path, err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	text = nil
	for _, line := range change(lines) {
		text = append(append(text, line...), '\n')
	}
	return durable.WriteFile(path, text, 0o644)
}

// inDatabase says whether the CA has ever given the serial number.
func inDatabase(tree config.Certificates, serial string) (bool, error) {
	lines, err := readDatabase(tree)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(lines, func(f []string) bool { return strings.EqualFold(f[3], serial) }), nil
}

// readDatabase returns the lines of index.txt, each with its six fields: state,
// end, time of revocation, serial number, file, subject.
func readDatabase(tree config.Certificates) ([][]string, error) {
	path := databasePath(tree)
	text, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("CA's list %q: %w", path, err)
	}
	var lines [][]string
	for line := range strings.Lines(string(text)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), "\t"); len(f) == 6 {
			lines = append(lines, f)
		}
	}
	return lines, nil
}

// databaseLine is the line of index.txt for a certificate.
func databaseLine(c *x509.Certificate) (string, error) {
	subject, err := onelineSubject(c.RawSubject)
	if err != nil {
		return "", err
	}
	return strings.Join([]string{"V", databaseTime(c.NotAfter), "", serialText(c), "unknown", subject}, "\t"), nil
}

// databaseTime writes a time as certificates do: two digits of the year until 2049.
func databaseTime(t time.Time) string {
	t = t.UTC()
	if t.Year() >= 2050 {
		return t.Format("20060102150405Z")
	}
	return t.Format("060102150405Z")
}

// parseDatabaseTime is the opposite of databaseTime; what it cannot read is the
// zero time.
func parseDatabaseTime(text string) time.Time {
	layout := "060102150405Z"
	if len(text) > len(layout) {
		layout = "20060102150405Z"
	}
	t, err := time.Parse(layout, text)
	if err != nil {
		return time.Time{}
	}
	return t
}

// sign returns the certificate, PEM, that the CA gives a client for its key.
func sign(t *template, organization string, public crypto.PublicKey, ca *x509.Certificate, key crypto.Signer, now time.Time) (*x509.Certificate, []byte, error) {
	subject, err := t.subject(organization)
	if err != nil {
		return nil, nil, err
	}
	id, err := keyID(public)
	if err != nil {
		return nil, nil, err
	}
	until := now.Add(validity)
	if until.After(ca.NotAfter) {
		until = ca.NotAfter
	}
	c := &x509.Certificate{
		SerialNumber:          newSerial(),
		RawSubject:            subject,
		NotBefore:             now.Add(-slack),
		NotAfter:              until,
		SubjectKeyId:          id,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, public, key)
	if err != nil {
		return nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return made, certificatePEM(der), nil
}
