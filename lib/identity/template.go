package identity

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode/utf8"

	"aioc/lib/config"
)

// defaultTemplate is the request template that aioconnectors writes, byte for
// byte; its own "openssl req" and ours read it (aioconnectors ssl_helper.py).
const defaultTemplate = `
[req]
prompt = no
default_bits = 2048
default_md = sha256
distinguished_name = dn

[ dn ]
C = US
`

// template is what a request template says about subjects.
type template struct {
	text   []byte
	fields []line // of the section of the subject, in order
}

// line is a setting of a template.
type line struct {
	number      int
	name, value string
}

// field is a kind of subject attribute, with the string type and the limits in
// characters that OpenSSL gives it.
type field struct {
	short, long string
	oid         asn1.ObjectIdentifier
	tag         int
	min, max    int
}

// subjectFields returns the attributes that a template may set.
func subjectFields() []field {
	const text, plain, ascii = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String
	return []field{
		{"C", "countryName", asn1.ObjectIdentifier{2, 5, 4, 6}, plain, 2, 2},
		{"ST", "stateOrProvinceName", asn1.ObjectIdentifier{2, 5, 4, 8}, text, 1, 128},
		{"L", "localityName", asn1.ObjectIdentifier{2, 5, 4, 7}, text, 1, 128},
		{"street", "streetAddress", asn1.ObjectIdentifier{2, 5, 4, 9}, text, 1, 128},
		{"postalCode", "postalCode", asn1.ObjectIdentifier{2, 5, 4, 17}, text, 1, 40},
		{"O", "organizationName", asn1.ObjectIdentifier{2, 5, 4, 10}, text, 1, 64},
		{"OU", "organizationalUnitName", asn1.ObjectIdentifier{2, 5, 4, 11}, text, 1, 64},
		{"CN", "commonName", asn1.ObjectIdentifier{2, 5, 4, 3}, text, 1, 64},
		{"title", "title", asn1.ObjectIdentifier{2, 5, 4, 12}, text, 1, 64},
		{"description", "description", asn1.ObjectIdentifier{2, 5, 4, 13}, text, 1, 1024},
		{"serialNumber", "serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}, plain, 1, 64},
		{"emailAddress", "emailAddress", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, ascii, 1, 128},
		{"DC", "domainComponent", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, ascii, 1, 63},
		{"UID", "userId", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, text, 1, 256},
	}
}

// readTemplate reads the request template of a tree, or returns the default one
// if it has none.
func readTemplate(tree config.Certificates) (*template, error) {
	text, _, err := readFile(tree.CSRTemplate)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(defaultTemplate), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrTemplate, tree.CSRTemplate, err)
	}
	t, err := parseTemplate(text)
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", ErrTemplate, tree.CSRTemplate, err)
	}
	return t, nil
}

// onelineSubject writes a subject as "openssl ca" does in its list: /C=US/O=x.
func onelineSubject(der []byte) (string, error) {
	var names []attributeSET
	if _, err := asn1.Unmarshal(der, &names); err != nil {
		return "", fmt.Errorf("subject: %w", err)
	}
	fields := subjectFields()
	var b strings.Builder
	for _, set := range names {
		for _, a := range set {
			var oid asn1.ObjectIdentifier
			if _, err := asn1.Unmarshal(a.Type.FullBytes, &oid); err != nil {
				return "", fmt.Errorf("subject: %w", err)
			}
			name := oid.String()
			if i := slices.IndexFunc(fields, func(f field) bool { return f.oid.Equal(oid) }); i >= 0 {
				name = fields[i].short
			}
			b.WriteString("/" + name + "=")
			for _, c := range a.Value.Bytes {
				if c < ' ' || c > '~' {
					fmt.Fprintf(&b, `\x%02X`, c)
				} else {
					b.WriteByte(c)
				}
			}
		}
	}
	return b.String(), nil
}

// parseTemplate reads a request template as OpenSSL reads its configuration
// files, as far as a subject needs it. Errors begin with the line's number.
// Differs: text is UTF-8 whether "utf8" is set or not, and what would be
// silently left out (extensions, variables) is refused.
func parseTemplate(text []byte) (*template, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8 text")
	}
	sections := map[string][]line{}
	section := "default"
	number := 0
	for rest := string(text); rest != ""; {
		number++
		start := number
		var s string
		s, rest, _ = strings.Cut(rest, "\n")
		s = strings.TrimSuffix(s, "\r")
		for strings.HasSuffix(s, `\`) && !strings.HasSuffix(s, `\\`) && rest != "" {
			var next string
			next, rest, _ = strings.Cut(rest, "\n")
			number++
			s = s[:len(s)-1] + strings.TrimSuffix(next, "\r")
		}
		l, err := unquoteLine(s)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", start, err)
		}
		if l.raw == "" {
			continue
		}
		if strings.HasPrefix(l.raw, "[") {
			name, ok := strings.CutSuffix(l.raw[1:], "]")
			if name = strings.TrimSpace(name); !ok || name == "" {
				return nil, fmt.Errorf("line %d: a section is written [ NAME ]", start)
			}
			section = name
			continue
		}
		if l.name == "" {
			return nil, fmt.Errorf("line %d: neither [ SECTION ] nor NAME = VALUE", start)
		}
		if strings.HasPrefix(l.name, ".") {
			return nil, fmt.Errorf("line %d: %s is not read here: put the text itself into the file", start, l.name)
		}
		// A name that comes again replaces the first and stands where it came last.
		sections[section] = slices.DeleteFunc(sections[section], func(x line) bool { return x.name == l.name })
		sections[section] = append(sections[section], line{start, l.name, l.value})
	}

	req := func(name string) (line, bool) {
		for _, in := range []string{"req", "default"} {
			for _, l := range sections[in] {
				if l.name == name {
					return l, true
				}
			}
		}
		return line{}, false
	}
	for _, name := range []string{"x509_extensions", "req_extensions"} {
		if l, ok := req(name); ok {
			return nil, fmt.Errorf("line %d: %s: certificates made here have no extensions: remove the line", l.number, name)
		}
	}
	dn, ok := req("distinguished_name")
	if !ok {
		return nil, errors.New(`[req] has no "distinguished_name = SECTION", which names the section of the subject`)
	}
	if prompt, ok := req("prompt"); !ok || prompt.value != "no" {
		return nil, errors.New(`[req] must have "prompt = no": the subject is read from the file`)
	}
	if section != dn.value {
		return nil, fmt.Errorf(`the section [ %s ] of the subject must be the last one: "O = ..." is added at the end`, dn.value)
	}
	t := &template{text: text, fields: sections[dn.value]}
	if _, err := t.subject("x"); err != nil {
		return nil, err
	}
	return t, nil
}

// configLine is a line of a configuration file without comment, quotes and escapes.
type configLine struct {
	raw         string // all of it, trimmed
	name, value string // "" when there is no "="
}

// unquoteLine takes a line apart as OpenSSL does: "#" begins a comment, quotes
// of both kinds and backslashes protect.
func unquoteLine(s string) (configLine, error) {
	var out []byte
	equal := -1
	kept := 0 // bytes of out that trailing white space must not be cut from
	quote := byte(0)
scan:
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s):
			i++
			c = s[i]
			if j := strings.IndexByte("nrbt", c); j >= 0 {
				c = "\n\r\b\t"[j]
			}
			out = append(out, c)
			kept = len(out)
			continue
		case quote != 0 && c == quote:
			quote = 0
			kept = len(out)
			continue
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
			continue
		case quote == 0 && c == '#':
			break scan
		case quote == 0 && c == '=' && equal < 0:
			equal = len(out)
		case c == '$' && quote != '\'':
			return configLine{}, errors.New(`variables are not read here: put the value itself, or \$ for a dollar sign`)
		}
		out = append(out, c)
	}
	if quote != 0 {
		return configLine{}, fmt.Errorf("a quote %c that does not end", quote)
	}
	l := configLine{raw: strings.TrimSpace(string(out))}
	if equal >= 0 {
		l.name = strings.TrimSpace(string(out[:equal]))
		value := out[equal+1:]
		keep := max(0, kept-equal-1) // what quotes or backslashes protect stays
		tail := bytes.TrimRight(value[keep:], " \t\r")
		l.value = strings.TrimLeft(string(value[:keep])+string(tail), " \t")
	}
	return l, nil
}

// subject returns the DER of the subject of a certificate for organization: the
// fields of the template, then O, as the appended line does in aioconnectors.
func (t *template) subject(organization string) ([]byte, error) {
	lines := slices.DeleteFunc(slices.Clone(t.fields), func(l line) bool { return l.name == "O" })
	lines = append(lines, line{0, "O", organization})
	var names []attributeSET
	for _, l := range lines {
		// "1.OU" is a second OU; "+OU" belongs to the field before it.
		name, more := strings.CutPrefix(l.name, "+")
		if i := strings.IndexAny(name, ":,."); i >= 0 && i+1 < len(name) {
			name = name[i+1:]
		}
		a, err := encodeField(name, l.value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", l.number, err)
		}
		if more && len(names) > 0 {
			names[len(names)-1] = append(names[len(names)-1], a)
		} else {
			names = append(names, attributeSET{a})
		}
	}
	return asn1.Marshal(names)
}

// encodeField returns one attribute of a subject.
func encodeField(name, value string) (attribute, error) {
	fields := subjectFields()
	i := slices.IndexFunc(fields, func(f field) bool { return f.short == name || f.long == name })
	if i < 0 {
		var known []string
		for _, f := range fields {
			known = append(known, f.short)
		}
		return attribute{}, fmt.Errorf("subject field %q is not known: use one of %s", name, strings.Join(known, " "))
	}
	f := fields[i]
	if n := utf8.RuneCountInString(value); n < f.min || n > f.max {
		return attribute{}, fmt.Errorf("%s = %q has %d characters, it may have %d to %d", name, value, n, f.min, f.max)
	}
	for _, c := range value {
		printable := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune(" '()+,-./:=?", c)
		if f.tag == asn1.TagPrintableString && !printable || f.tag == asn1.TagIA5String && c > 127 {
			return attribute{}, fmt.Errorf("%s = %q: %q is not allowed in this field", name, value, c)
		}
	}
	oid, err := asn1.Marshal(f.oid)
	if err != nil {
		return attribute{}, fmt.Errorf("subject field %s: %w", name, err)
	}
	return attribute{
		Type:  asn1.RawValue{FullBytes: oid},
		Value: asn1.RawValue{Tag: f.tag, Bytes: []byte(value)},
	}, nil
}

// details returns the text of csr_details.conf for organization.
func (t *template) details(organization string) []byte {
	text := slices.Clone(t.text)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return append(text, "O = "+organization+"\n"...)
}
