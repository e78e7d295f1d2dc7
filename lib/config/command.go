package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// A Command is a program to run and its arguments, nil for none. In the file it
// is an array of strings, or the path alone as a string. No shell is involved.
type Command []string

// decodeCommand decodes a Command. The first word is made an absolute path.
func decodeCommand(raw []byte) (Command, string) {
	if string(raw) == "null" {
		return nil, ""
	}
	words, isList := decodeStrings(raw)
	if path, ok := decodeString(raw); ok {
		words, isList = []string{path}, true
	}
	if !isList || len(words) == 0 {
		return nil, "."
	}
	if err := validWords(words); err != nil {
		return nil, ": " + err.Error()
	}
	if strings.HasPrefix(words[0], "~") || strings.HasPrefix(words[0], "$") {
		full, err := fullPath(words[0])
		if err != nil {
			return nil, ": " + err.Error()
		}
		words[0] = full
	}
	return words, ""
}

// problem returns what is wrong with the command, "" if nothing is.
func (c Command) problem() string {
	if c == nil {
		return ""
	}
	if err := validWords(c); err != nil {
		return err.Error()
	}
	if !filepath.IsAbs(c[0]) {
		return fmt.Sprintf("%q is not an absolute path: write the whole path of the program, with its arguments as further strings of an array", c[0])
	}
	return ""
}

func validWords(words []string) error {
	if len(words) == 0 || words[0] == "" {
		return errors.New("the program is missing")
	}
	for _, w := range words {
		if strings.ContainsRune(w, 0) {
			return errors.New("contains the character NUL")
		}
	}
	return nil
}

// A Hook is a hook of the configuration and its command.
type Hook struct {
	Key     string
	Command Command
}

// Hooks returns the hooks that are set and have a meaning on this side, in the
// order of the manual.
func (c *Config) Hooks() []Hook {
	var hooks []Hook
	for _, k := range keys() {
		if k.field == nil || k.side != both && (k.side == serverOnly) != c.IsServer {
			continue
		}
		if p, ok := k.field(c).(*Command); ok && len(*p) > 0 {
			hooks = append(hooks, Hook{k.name, *p})
		}
	}
	return hooks
}
