package identity

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"regexp"
	"testing"
)

// subjectVectors are subjects with the hashes that "openssl x509 -hash" printed.
type subjectVectors struct {
	Rows []struct {
		Label string `json:"label"`
		DER   string `json:"subject_der_hex"`
		Hash  string `json:"hash"`
		PEM   string `json:"pem"`
	} `json:"rows"`
}

func TestSubjectHashIsThatOfOpenSSL(t *testing.T) {
	var v subjectVectors
	mustJSON(t, "testdata/subject_hash.json", &v)
	if len(v.Rows) != 23 {
		t.Fatalf("%d vectors, want 23", len(v.Rows))
	}
	for _, row := range v.Rows {
		t.Run(row.Label, func(t *testing.T) {
			der, err := hex.DecodeString(row.DER)
			if err != nil {
				t.Fatal(err)
			}
			got, err := SubjectHash(der)
			if err != nil || got != row.Hash {
				t.Errorf("SubjectHash = %q, %v, want %q", got, err, row.Hash)
			}
			block, _ := pem.Decode([]byte(row.PEM))
			if block == nil {
				return
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return // some subjects are too strange for package x509
			}
			if got, err := SubjectHash(cert.RawSubject); err != nil || got != row.Hash {
				t.Errorf("SubjectHash of the certificate = %q, %v, want %q", got, err, row.Hash)
			}
		})
	}
}

func TestSubjectHashRefusesWhatIsNoName(t *testing.T) {
	for name, der := range map[string]string{
		"nothing":                          "",
		"bytes after the end":              "300000",
		"not a sequence":                   "0c0161",
		"a sequence of no sets":            "30030c0161",
		"an attribute without a value":     "300931073005060355040a",
		"UTF-8 that is none":               "300e310c300a060355040a0c03ff62ff",
		"half a character in a BMPString":  "300e310c300a060355040a1e03006100",
		"a torn UniversalString":           "300e310c300a060355040a1c03006100",
		"an impossible Unicode character":  "300f310d300b060355040a1c0400110000",
		"a surrogate in a UniversalString": "300f310d300b060355040a1c040000d800",
	} {
		t.Run(name, func(t *testing.T) {
			der, err := hex.DecodeString(der)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := SubjectHash(der); err == nil {
				t.Errorf("SubjectHash(%x) = %q, want an error", der, got)
			}
		})
	}
}

func TestSubjectHashRefusesEveryPrefix(t *testing.T) {
	var v subjectVectors
	mustJSON(t, "testdata/subject_hash.json", &v)
	for _, row := range v.Rows {
		der, err := hex.DecodeString(row.DER)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(der) {
			if got, err := SubjectHash(der[:n]); err == nil {
				t.Errorf("%s: the first %d bytes have the hash %q, want an error", row.Label, n, got)
			}
		}
	}
}

func FuzzSubjectHash(f *testing.F) {
	var v subjectVectors
	mustJSON(f, "testdata/subject_hash.json", &v)
	for _, row := range v.Rows {
		der, _ := hex.DecodeString(row.DER)
		f.Add(der)
	}
	digits := regexp.MustCompile(`^[0-9a-f]{8}$`)
	f.Fuzz(func(t *testing.T, der []byte) {
		if got, err := SubjectHash(der); err == nil && !digits.MatchString(got) {
			t.Errorf("SubjectHash(%x) = %q", der, got)
		}
	})
}
