package identity

import (
	"crypto/sha1"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// ASN.1 string types that package asn1 has no name for.
const (
	tagVisibleString   = 26
	tagUniversalString = 28
	tagBMPString       = 30
)

// attribute is one field of a name; both parts are kept as they came.
type attribute struct {
	Type  asn1.RawValue
	Value asn1.RawValue
}

// attributeSET is one relative distinguished name; package asn1 knows a SET by
// the end of the type's name.
type attributeSET []attribute

// SubjectHash returns the name under which OpenSSL looks for a certificate in
// a directory of trusted ones: eight hexadecimal digits made from the subject,
// which is given as the DER of the whole Name (x509.Certificate.RawSubject).
// Subjects that differ in string type, ASCII case or white space only have the
// same hash. The error says what in rawSubject is not a name.
func SubjectHash(rawSubject []byte) (string, error) {
	var names []attributeSET
	rest, err := asn1.Unmarshal(rawSubject, &names)
	if err != nil {
		return "", fmt.Errorf("subject: %w", err)
	}
	if len(rest) > 0 {
		return "", errors.New("subject: bytes after its end")
	}
	// The canonical form is that of OpenSSL's x509_name_canon: the sets one after
	// the other, without the header of the sequence around them.
	var canonical []byte
	for _, name := range names {
		set := make(attributeSET, len(name))
		for i, a := range name {
			value, err := canonicalValue(a.Value)
			if err != nil {
				return "", fmt.Errorf("subject: %w", err)
			}
			set[i] = attribute{a.Type, value}
		}
		der, err := asn1.Marshal(set)
		if err != nil {
			return "", fmt.Errorf("subject: %w", err)
		}
		canonical = append(canonical, der...)
	}
	sum := sha1.Sum(canonical)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}

// canonicalValue returns v as a UTF8String without case and superfluous space if
// it is a string, and unchanged otherwise.
func canonicalValue(v asn1.RawValue) (asn1.RawValue, error) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return v, nil
	}
	var text []byte
	switch v.Tag {
	case asn1.TagUTF8String:
		if !utf8.Valid(v.Bytes) {
			return v, errors.New("a UTF8String that is not UTF-8")
		}
		text = v.Bytes
	case asn1.TagPrintableString, asn1.TagIA5String, tagVisibleString, asn1.TagT61String:
		for _, c := range v.Bytes {
			text = utf8.AppendRune(text, rune(c)) // as Latin-1, also where only ASCII is allowed
		}
	case tagBMPString:
		if len(v.Bytes)%2 != 0 {
			return v, errors.New("a BMPString with an odd number of bytes")
		}
		var units []uint16
		for b := v.Bytes; len(b) > 0; b = b[2:] {
			units = append(units, binary.BigEndian.Uint16(b))
		}
		text = []byte(string(utf16.Decode(units)))
	case tagUniversalString:
		if len(v.Bytes)%4 != 0 {
			return v, errors.New("a UniversalString with a torn character")
		}
		for b := v.Bytes; len(b) > 0; b = b[4:] {
			c := binary.BigEndian.Uint32(b)
			if c > utf8.MaxRune || !utf8.ValidRune(rune(c)) {
				return v, errors.New("a UniversalString with an impossible character")
			}
			text = utf8.AppendRune(text, rune(c))
		}
	default:
		return v, nil
	}
	return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: fold(text)}, nil
}

// fold trims text, makes each run of white space one blank and A-Z small. It
// touches ASCII only.
func fold(text []byte) []byte {
	folded := make([]byte, 0, len(text))
	gap := false
	for _, c := range text {
		switch {
		case c == ' ' || '\t' <= c && c <= '\r':
			gap = true
			continue
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		}
		if gap && len(folded) > 0 {
			folded = append(folded, ' ')
		}
		gap = false
		folded = append(folded, c)
	}
	return folded
}
