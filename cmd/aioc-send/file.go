package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"aioc/lib/cli"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// attached is what -file and the flags beside it say.
type attached struct {
	path   string // absolute once it was opened
	typ    string // "": the type of the message
	name   string // "": that of path
	owner  string
	remove bool
}

// check looks for contradictions between the flags.
func (f *attached) check(given func(name string) bool) error {
	for _, name := range []string{"file-type", "file-name", "delete", "owner"} {
		if f.path == "" && given(name) {
			return fmt.Errorf("-%s can only be used with -file", name)
		}
	}
	if f.path == "-" {
		return errors.New("-file -: a file is sent by its name; with -raw standard input is the message")
	}
	if given("file-name") {
		if err := transfer.CheckName(f.name); err != nil {
			return fmt.Errorf("-file-name: the peer would not store the file: %w", err)
		}
	}
	if user, group, ok := strings.Cut(f.owner, ":"); f.owner != "" && (!ok || user == "" || group == "" || strings.Contains(group, ":")) {
		return fmt.Errorf("-owner %s: want user:group", f.owner)
	}
	return nil
}

// open makes sure that the file is there and can be read. It is the connector
// that reads it.
func (f *attached) open() error {
	if f.path == "" {
		return nil
	}
	path, err := filepath.Abs(f.path)
	if err != nil {
		return err
	}
	if !utf8.ValidString(path) {
		return fmt.Errorf("%q: a name that is not UTF-8 cannot be passed on: rename the file", path)
	}
	if f.name == "" {
		if err := transfer.CheckName(filepath.Base(path)); err != nil {
			return &statusError{cli.BadData, fmt.Sprintf("the peer would not store the file: %v: name it with -file-name", err)}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", f.path)
	}
	opened, err := os.Open(path)
	if err != nil {
		return err
	}
	f.path = path
	return opened.Close()
}

// append appends the value of with_file for a message of a type. The order of
// keys is that of the original's documentation.
func (f *attached) append(dst []byte, messageType string) []byte {
	typ, name := f.typ, f.name
	if typ == "" {
		typ = messageType
	}
	if name == "" {
		name = filepath.Base(f.path)
	}
	dst = wire.AppendString(append(dst, `{"src_path": `...), f.path)
	dst = wire.AppendString(append(dst, `, "dst_type": `...), typ)
	dst = wire.AppendString(append(dst, `, "dst_name": `...), name)
	dst = fmt.Appendf(dst, `, "delete": %v`, f.remove)
	if f.owner != "" {
		dst = wire.AppendString(append(dst, `, "owner": `...), f.owner)
	}
	return append(dst, '}')
}
