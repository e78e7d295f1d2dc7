package identity

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"testing"
)

const head = "[req]\nprompt = no\ndistinguished_name = dn\n"

func TestSubjectsFollowTheTemplate(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"the original's":                    {defaultTemplate, "O=company,C=US"},
		"an empty section":                  {head + "[dn]\n", "O=company"},
		"several fields in their order":     {head + "[dn]\nC=FR\nST = Île-de-France\nL= Paris \nOU=Sensors\nCN = base", "O=company,CN=base,OU=Sensors,L=Paris,ST=Île-de-France,C=FR"},
		"long names":                        {head + "[ dn ]\ncountryName = DE\ncommonName = x\n", "O=company,CN=x,C=DE"},
		"an O of its own is replaced":       {head + "[dn]\nO = mine\nC = DE\n", "O=company,C=DE"},
		"the other name of O is kept":       {head + "[dn]\norganizationName = mine\nC = DE\n", "O=company,C=DE,O=mine"},
		"the last of a name counts":         {head + "[dn]\nC = DE\nL = a\nC = FR\n", "O=company,C=FR,L=a"},
		"a number makes another":            {head + "[dn]\n0.OU = a\n1.OU = b\n", "O=company,OU=b,OU=a"},
		"a plus joins":                      {head + "[dn]\nCN = a\n+OU = b\n", "O=company,CN=a+OU=b"},
		"comments, quotes and escapes":      {head + "# text\n[dn] # more\nL = \"a # b\"  # no\nCN = 'x = y' z\nOU = p\\#q\n", "O=company,OU=p#q,CN=x = y z,L=a # b"},
		"quotes keep blanks":                {head + "[dn]\nL = \"a  \"\n", "O=company,L=a \\ "},
		"a line goes on":                    {head + "[dn]\nL = one\\\n two\n", "O=company,L=one two"},
		"lines end as in DOS":               {strings.ReplaceAll(head+"[dn]\nC = US\n", "\n", "\r\n"), "O=company,C=US"},
		"req settings in no section":        {"prompt = no\ndistinguished_name = dn\n[dn]\nC = US\n", "O=company,C=US"},
		"another name of the section":       {"[req]\nprompt=no\ndistinguished_name = who\n[who]\nC=US\n", "O=company,C=US"},
		"other sections are passed over":    {"[new_oids]\nx = 1.2.3\n" + head + "[dn]\nC = US\n", "O=company,C=US"},
		"settings that are not about names": {head + "default_bits = 4096\nstring_mask = utf8only\n[dn]\nC = US\n", "O=company,C=US"},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, err := parseTemplate([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			der, err := tmpl.subject("company")
			if err != nil {
				t.Fatal(err)
			}
			var names pkix.RDNSequence
			if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
				t.Fatal(err, rest)
			}
			if got := names.String(); got != c.want {
				t.Errorf("subject %q, want %q", got, c.want)
			}
		})
	}
}

func TestSubjectHasTheBytesThatOpenSSLMakes(t *testing.T) {
	tmpl, err := parseTemplate([]byte(defaultTemplate))
	if err != nil {
		t.Fatal(err)
	}
	der, err := tmpl.subject("company")
	if err != nil {
		t.Fatal(err)
	}
	// The first vector of subject_hash.json.
	const want = "301f310b30090603550406130255533110300e060355040a0c07636f6d70616e79"
	if got := hex.EncodeToString(der); got != want {
		t.Errorf("subject %s, want %s", got, want)
	}
}

func TestTemplatesThatCannotBeHonouredAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                         {"", "distinguished_name"},
		"not text":                        {"\xff", "UTF-8"},
		"no section of the subject":       {"[req]\nprompt = no\n", "distinguished_name"},
		"a section that is missing":       {head, "must be the last one"},
		"one that is not last":            {head + "[dn]\nC=US\n[v3]\nx=y\n", "must be the last one"},
		"questions":                       {"[req]\ndistinguished_name = dn\n[dn]\nC = Country\n", "prompt = no"},
		"an unknown field":                {head + "[dn]\nCountry = US\n", `line 5: subject field "Country" is not known`},
		"a country that is none":          {head + "[dn]\nC = France\n", "line 5: C = \"France\" has 6 characters"},
		"an empty value":                  {head + "[dn]\nL =\n", "has 0 characters"},
		"too long":                        {head + "[dn]\nCN = " + strings.Repeat("x", 65) + "\n", "1 to 64"},
		"a character of another alphabet": {head + "[dn]\nC = FÜ\n", "'Ü' is not allowed"},
		"extensions":                      {head + "x509_extensions = v3\n[v3]\nsubjectAltName=DNS:a\n[dn]\nC = US\n", "line 4: x509_extensions"},
		"variables":                       {head + "[dn]\nL = $HOME\n", "line 5: variables"},
		"an included file":                {".include = /etc/x\n" + head + "[dn]\nC=US\n", "line 1: .include"},
		"a quote without end":             {head + "[dn]\nL = \"x\n", "line 5: a quote"},
		"a broken section":                {head + "[dn\nL = x\n", "line 4: a section is written"},
		"a line that is nothing":          {head + "[dn]\nhello\n", "line 5: neither"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseTemplate([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestDetailsAreTheTemplateAndTheOrganization(t *testing.T) {
	for text, want := range map[string]string{
		"[dn]\nC = US\n": "[dn]\nC = US\nO = abc\n",
		"[dn]\nC = US":   "[dn]\nC = US\nO = abc\n",
	} {
		if got := string((&template{text: []byte(text)}).details("abc")); got != want {
			t.Errorf("details of %q: %q, want %q", text, got, want)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add([]byte(defaultTemplate))
	f.Add([]byte(head + "[dn]\n0.OU = \"a\" \\# b\n+L = 'x'\\\n y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		tmpl, err := parseTemplate(text)
		if err != nil {
			return
		}
		der, err := tmpl.subject("company")
		if err != nil {
			t.Fatalf("a template that was taken has no subject: %v", err)
		}
		if _, err := SubjectHash(der); err != nil {
			t.Fatalf("the subject %x is none: %v", der, err)
		}
		if _, err := parseTemplate(tmpl.details("abc")); err != nil {
			t.Fatalf("with O appended it is refused: %v", err)
		}
	})
}
