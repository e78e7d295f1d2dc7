package config

import (
	"regexp"
	"strings"
	"testing"
)

func TestNamesOfClients(t *testing.T) {
	for _, name := range []string{"a", "client1", "client-1", "a:b", "A-Z_09:", strings.Repeat("x", 128), "defaults", "default-1", "xdefault", "Default"} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q: got %v", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                       "is empty",
		"client1\n":              `contains '\n'`,
		"client 1":               `contains ' '`,
		"../x":                   `contains '.'`,
		"a/b":                    `contains '/'`,
		"é":                      `contains 'é'`,
		"\xff":                   "contains",
		"a\x00":                  `contains '\x00'`,
		"default":                "reserved",
		"default7":               "reserved",
		"default00012":           "reserved",
		strings.Repeat("x", 129): "has 129 bytes: at most 128",
		strings.Repeat("é", 10):  "contains",
	} {
		if err := ValidName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", name, err, want)
		}
	}
}

func TestNamesOfOurClientsHaveALetterOrADigit(t *testing.T) {
	for name, want := range map[string]bool{"a-b": true, "-7": true, "-": false, "_:-": false, "": false, "default": false} {
		if err := ValidClientName(name); (err == nil) != want {
			t.Errorf("%q: got %v, want accepted %v", name, err, want)
		}
	}
}

func TestTags(t *testing.T) {
	for tag, want := range map[string]bool{"default": true, "a:b": true, "": false, "a b": false, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false} {
		if err := ValidTag(tag); (err == nil) != want {
			t.Errorf("%q: got %v, want accepted %v", tag, err, want)
		}
	}
}

func TestMessageTypes(t *testing.T) {
	for messageType, want := range map[string]bool{
		"any": true, "a b": true, "é.1": true, "a_": true, "..": true,
		"": false, "_": false, "_mine": false, "a,b": false, ",": false, "a/b": false, "a\x00": false, "\xff": false,
		"_ping": false, "_pubsub": false, "_ack": false, "_ssl": false, "_consume": false, "_nack": false, "_resume": false,
	} {
		if err := ValidType(messageType); (err == nil) != want {
			t.Errorf("%q: got %v, want accepted %v", messageType, err, want)
		}
	}
}

func TestDefaultNameIsValidAndDiffers(t *testing.T) {
	a, b := DefaultName(), DefaultName()
	if a == b || !regexp.MustCompile(`\A[0-9a-f]{8}\z`).MatchString(a) || ValidName(a) != nil {
		t.Errorf("got %q and %q, want two times 8 hexadecimal digits", a, b)
	}
}
