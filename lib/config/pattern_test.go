package config

import (
	"regexp"
	"strings"
	"testing"
)

// The matches are those of re.match in Python 3.10.
func TestPatternsMatchTheNamesThatPythonMatches(t *testing.T) {
	names := strings.Fields("client1 client10 a aa aaa aaaa pump7 pump42 ab a-b a:b a_b aXb A x CLIENT1 b bc client1-x myclient1")
	for _, test := range []struct{ pattern, want string }{
		{`client1`, "client1 client10 client1-x"},
		{`client1$`, "client1"},
		{`client1\Z`, "client1"},
		{`^client1`, "client1 client10 client1-x"},
		{`lient1`, ""},
		{`pump[0-9]+`, "pump7 pump42"},
		{`pump\d{2}`, "pump42"},
		{`a{,3}$`, "a aa aaa"},
		{`a{,}$`, "a aa aaa aaaa"},
		{`a{2,}$`, "aa aaa aaaa"},
		{`a{}`, ""},
		{`a{,x`, ""},
		{`x|client1`, "client1 client10 x client1-x"},
		{`(?i)CLIENT`, "client1 client10 CLIENT1 client1-x"},
		{`a.b`, "a-b a:b a_b aXb"},
		{`.*`, "client1 client10 a aa aaa aaaa pump7 pump42 ab a-b a:b a_b aXb A x CLIENT1 b bc client1-x myclient1"},
		{``, "client1 client10 a aa aaa aaaa pump7 pump42 ab a-b a:b a_b aXb A x CLIENT1 b bc client1-x myclient1"},
		{`[]a]`, "a aa aaa aaaa ab a-b a:b a_b aXb"},
		{`[^]a]`, "client1 client10 pump7 pump42 A x CLIENT1 b bc client1-x myclient1"},
		{`[a\]]`, "a aa aaa aaaa ab a-b a:b a_b aXb"},
		{`[\w-]+$`, "client1 client10 a aa aaa aaaa pump7 pump42 ab a-b a_b aXb A x CLIENT1 b bc client1-x myclient1"},
		{`(?P<n>a)b`, "ab"},
		{`a\-b`, "a-b"},
		{`client1\b`, "client1 client1-x"},
		{`\x41`, "A"},
		{`\101`, "A"},
		{`(?:a|b)c$`, "bc"},
		{`a+?$`, "a aa aaa aaaa"},
		{`[[a]`, "a aa aaa aaaa ab a-b a:b a_b aXb"},
		{`c*`, "client1 client10 a aa aaa aaaa pump7 pump42 ab a-b a:b a_b aXb A x CLIENT1 b bc client1-x myclient1"},
		{`(a|client)1$`, "client1"},
		{`client[1-3]$`, "client1"},
		{`CLIENT`, "CLIENT1"},
		{`a\:b`, "a:b"},
		{`a_b`, "a_b"},
		{`[a-c]{,2}$`, "a aa ab b bc"},
	} {
		re2, err := Pattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		re := regexp.MustCompile(re2)
		var got []string
		for _, name := range names {
			if re.MatchString(name) {
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s, in Go %s: got %q, want %q", test.pattern, re2, got, test.want)
		}
	}
}

func TestPatternsThatCannotBeTheSameAreRefused(t *testing.T) {
	for _, test := range []struct{ name, pattern, want string }{
		{"look-ahead", `client(?=1)`, "look-around"},
		{"negative look-behind", `a(?<!b)c`, "look-around"},
		{"a back reference", `(a)\1`, "a back reference"},
		{"a back reference of two digits", `(a)\12`, "a back reference"},
		{"a back reference by name", `(?P<x>a)(?P=x)`, "no back references"},
		{"a condition", `(a)?(?(1)b|c)`, "RE2"},
		{"a possessive repetition", `a*+`, "invalid nested repetition operator"},
		{"an atomic group", `(?>a)`, "RE2"},
		{"verbose", `(?x) a`, "RE2"},
		{"a class of POSIX, which Python does not have", `[[:alpha:]]+`, "means other characters in Python"},
		{"a glob", `*`, "missing argument to repetition operator"},
		{"an open group", `(a`, "missing closing )"},
		{"an open class", `[a`, "missing closing ]"},
		{"a group that closes what is around it", `a)|(b`, "unexpected )"},
		{"too many repetitions", `((a{1000}){1000}){1000}`, "invalid repeat count"},
		{"a backslash at the end", `a\`, "trailing backslash"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if re2, err := Pattern(test.pattern); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, %v, want an error with %q", re2, err, test.want)
			}
		})
	}
}

func TestANewlineAtTheEndIsNotTheEnd(t *testing.T) {
	for _, pattern := range []string{"client1$", `client1\Z`, "client[0-9]+$"} {
		re2, err := Pattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(re2).MatchString("client1\n") {
			t.Errorf("%s matches a name with a newline", pattern)
		}
	}
}

func TestPatternsWithoutAnEndAreFound(t *testing.T) {
	for _, test := range []struct {
		pattern string
		want    bool
	}{
		{"client1", true}, {"client1$", false}, {`client1\Z`, false}, {"client1.*", false}, {"client1.+", false},
		{"client1.{2,}", false}, {"client1.{2}", true}, {"client1[0-9]*", true}, {"a$|b", true}, {"(a|b)$", false}, {"(a$|b$)", false},
		{"", true}, {"a?", true}, {".*", false}, {"(?m)a$", false}, {"a$?", true}, {"(?=", false},
	} {
		if got := Open(test.pattern); got != test.want {
			t.Errorf("%s: got %v, want %v", test.pattern, got, test.want)
		}
	}
	c := mustParse(t, `{"whitelisted_clients_id": ["client1", "pump.*", "a|b"], "blacklisted_clients_id": ["evil"]}`)
	got := strings.Join(c.Warnings(), "\n")
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, `"client1" also admits every longer name that begins so: write "client1$", or "client1.*" if that is meant`) ||
		!strings.Contains(got, `write "(a|b)$"`) {
		t.Errorf("got %s", got)
	}
}

func FuzzPattern(f *testing.F) {
	f.Add(`a{,3}[]\]]\Z`, "aaa")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		re2, err := Pattern(pattern)
		if err != nil {
			return
		}
		re, err := regexp.Compile(re2)
		if err != nil {
			t.Fatalf("%q became %q: %v", pattern, re2, err)
		}
		if loc := re.FindStringIndex(name); loc != nil && loc[0] != 0 {
			t.Errorf("%q matches %q from %d", pattern, name, loc[0])
		}
	})
}
