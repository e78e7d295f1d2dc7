package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"path/filepath"
	"strings"
	"time"

	"aioc/lib/config"
)

// CreateCA is Create for a tree with a CA that signs the certificates of
// clients, as server_ca needs it. It makes in addition
//
//	certificates/server/server_ca_details.conf          what "openssl ca" is told
//	certificates/server/server_ca_csr_details.conf      what "openssl req" is told
//	certificates/server/server-cert/server_ca.pem, .key the CA
//	certificates/server/server-cert/server_ca_csr.pem   the request for default.pem
//	certificates/server/server-cert/index.txt, index.txt.attr, serial.txt
//	certificates/server/client-certs/ca-generated/SERIAL.pem
//
// and signs default.pem. The two .conf files are for aioconnectors, which runs
// openssl; nothing here reads them.
func CreateCA(dir string) error {
	return create(dir, builder{step: func(string) error { return nil }, exchange: exchange, ca: true})
}

// caConfig is the configuration of "openssl ca", with the names of sections
// that aioconnectors puts on its command lines (ssl_helper.py).
const caConfig = `[ ca ]
default_ca = CA_default

[ CA_default ]
base_dir         = BASE
new_certs_dir    = GENERATED
certificate      = $base_dir/server_ca.pem
private_key      = $base_dir/server_ca.key
database         = $base_dir/index.txt
serial           = $base_dir/serial.txt
default_md       = sha256
default_days     = 3650
default_crl_days = 3650
x509_extensions  = ca_extensions
copy_extensions  = copy
email_in_dn      = no
preserve         = no
unique_subject   = no

[ req ]
prompt             = no
default_bits       = 4096
distinguished_name = ca_distinguished_name
x509_extensions    = ca_extensions
string_mask        = utf8only

[ ca_distinguished_name ]
countryName = US

[ ca_extensions ]
basicConstraints       = critical, CA:true
keyUsage               = keyCertSign, cRLSign
subjectKeyIdentifier   = hash
authorityKeyIdentifier = keyid:always, issuer

[ signing_policy ]
organizationName       = supplied
countryName            = optional
stateOrProvinceName    = optional
localityName           = optional
organizationalUnitName = optional
commonName             = optional
emailAddress           = optional

[ signing_req ]
basicConstraints       = CA:FALSE
keyUsage               = digitalSignature, keyEncipherment
subjectKeyIdentifier   = hash
authorityKeyIdentifier = keyid, issuer
`

// caRequestConfig is the configuration of "openssl req" for a client.
const caRequestConfig = `[ req ]
prompt             = no
default_bits       = 2048
distinguished_name = client
req_extensions     = client_extensions
string_mask        = utf8only

[ client ]
countryName      = US
organizationName = ORGANIZATION

[ client_extensions ]
basicConstraints     = CA:FALSE
keyUsage             = digitalSignature, keyEncipherment
subjectKeyIdentifier = hash
`

// made is a file of a new tree.
type made struct {
	path string
	data []byte
	mode fs.FileMode
}

// buildCA makes the CA and the default certificate that it signs, and returns
// that with the files that there are only in such a tree. final is where the
// tree will be: the configuration of openssl names it.
func (b *builder) buildCA(t *template, organization string, final config.Certificates) (client *pair, ca []byte, files []made, err error) {
	now := time.Now()
	caCert, caKey, caPEM, err := newCA(t, now)
	if err != nil {
		return nil, nil, nil, err
	}
	caKeyPEM, err := keyPEM(caKey)
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	cert, certPEM, err := sign(t, organization, key.Public(), caCert, caKey, now)
	if err != nil {
		return nil, nil, nil, err
	}
	keyText, err := keyPEM(key)
	if err != nil {
		return nil, nil, nil, err
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: cert.RawSubject}, key)
	if err != nil {
		return nil, nil, nil, err
	}
	line, err := databaseLine(cert)
	if err != nil {
		return nil, nil, nil, err
	}
	next := new(big.Int).Add(cert.SerialNumber, big.NewInt(1))
	serverCerts, clientCerts := b.tree.ServerCertDir, b.tree.CAGenerated
	files = []made{
		{b.tree.ServerCAKey, caKeyPEM, 0o600},
		{b.tree.ServerCACert, caPEM, 0o644},
		{filepath.Join(serverCerts, "server_ca_csr.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), 0o644},
		{databasePath(b.tree), []byte(line + "\n"), 0o644},
		{databasePath(b.tree) + ".attr", []byte("unique_subject = no\n"), 0o644},
		{filepath.Join(serverCerts, "serial.txt"), []byte(strings.ToUpper(next.Text(16)) + "\n"), 0o644},
		{filepath.Join(clientCerts, serialText(cert)+".pem"), certPEM, 0o644},
	}
	text := strings.NewReplacer("BASE", confValue(final.ServerCertDir), "GENERATED", confValue(final.CAGenerated)).Replace(caConfig)
	requestText := strings.ReplaceAll(caRequestConfig, "ORGANIZATION", organization)
	files = append(files,
		made{filepath.Join(b.tree.ServerDir, "server_ca_details.conf"), []byte(text), 0o644},
		made{filepath.Join(b.tree.ServerDir, "server_ca_csr_details.conf"), []byte(requestText), 0o644})
	return &pair{subject: cert.RawSubject, cert: certPEM, key: keyText}, caCert.RawSubject, files, nil
}

// newCA makes a certificate that may sign others. Its subject is one of its
// own, so that the CAs of several servers can be linked side by side.
func newCA(t *template, now time.Time) (*x509.Certificate, crypto.Signer, []byte, error) {
	subject, err := t.subject("CA " + newOrganization())
	if err != nil {
		return nil, nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, nil, nil, err
	}
	c := &x509.Certificate{
		SerialNumber:          newSerial(),
		RawSubject:            subject,
		NotBefore:             now.Add(-slack),
		NotAfter:              now.Add(validity),
		SubjectKeyId:          id,
		AuthorityKeyId:        id,
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return nil, nil, nil, err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, nil, err
	}
	return made, key, certificatePEM(der), nil
}

// confValue writes a path as a value of an OpenSSL configuration file.
func confValue(path string) string {
	var b strings.Builder
	for _, c := range path {
		if strings.ContainsRune(`\$#"'`+"`", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
