package config

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"aioc/lib/wire"
)

// maxName is the longest client name and tag, in bytes.
const maxName = 128

// ValidName returns nil if s may be the name of a client: 1 to 128 of the
// characters 0-9 A-Z a-z - : _, and not the word default followed by digits or
// nothing, which names certificates that many clients share.
// Differs: a newline at the end is refused. The original accepts it, because
// the $ of its regular expression does (aioconnectors helpers.py).
func ValidName(s string) error {
	if err := label("name", s); err != nil {
		return err
	}
	if digits, ok := strings.CutPrefix(s, "default"); ok && strings.Trim(digits, "0123456789") == "" {
		return fmt.Errorf("name %q is reserved: choose one that is not the word default with a number", s)
	}
	return nil
}

// ValidClientName is ValidName for the name that a client of ours gets: it must
// also have a letter or a digit, since the names of its sockets are made of
// those.
func ValidClientName(s string) error {
	if err := ValidName(s); err != nil {
		return err
	}
	if alphanumeric(s) == "" {
		return fmt.Errorf("name %q has no letter and no digit: the names of the sockets are made of them", s)
	}
	return nil
}

// ValidTag returns nil if s may be the tag of a message: 1 to 128 of the
// characters 0-9 A-Z a-z - : _.
func ValidTag(s string) error { return label("tag", s) }

func label(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty: use the characters 0-9 A-Z a-z - : _", what)
	case len(s) > maxName:
		return fmt.Errorf("%s %q has %d bytes: at most %d are allowed", what, s[:20]+"...", len(s), maxName)
	}
	for _, r := range s {
		if (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r != '-' && r != '_' && r != ':' {
			return fmt.Errorf("%s %q contains %q: use only the characters 0-9 A-Z a-z - : _", what, s, r)
		}
	}
	return nil
}

// ValidType returns nil if s may be a message type of an application: not empty,
// UTF-8, without slash and NUL, which cannot be part of a socket's name, without
// comma, which separates types on the command line, and not one that
// wire.Reserved keeps for the protocol.
func ValidType(s string) error {
	switch {
	case s == "":
		return errors.New("message type is empty: give it a name")
	case strings.ContainsAny(s, "/\x00"):
		return fmt.Errorf("message type %q contains a slash or NUL, which cannot be part of a socket's name: choose another", s)
	case strings.Contains(s, ","):
		return fmt.Errorf("message type %q contains a comma, which separates types on the command line: choose another", s)
	case !utf8.ValidString(s):
		return fmt.Errorf("message type %q is not UTF-8", s)
	case wire.Reserved(s):
		return fmt.Errorf("message type %q is reserved, as all that begin with _: choose another", s)
	}
	return nil
}

// listedType is ValidType for the lists of types that pass. There the original
// takes its own types too, which pass without being listed.
func listedType(s string) error {
	if s == wire.TypePing || s == wire.TypePubSub {
		return nil
	}
	return ValidType(s)
}

// DefaultName returns 8 random hexadecimal digits, the name of a client whose
// configuration has none.
func DefaultName() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
