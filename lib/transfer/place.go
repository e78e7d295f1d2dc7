package transfer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"aioc/lib/wire"
)

// Error is why a file cannot be stored or sent.
type Error struct {
	Reason string // one word, to count: name, directory, type, size, exists, full, disk, refused, missing, digest, permission
	Text   string // for people: goes into file_error
}

func (e *Error) Error() string { return e.Text }

func failf(reason, format string, args ...any) *Error {
	return &Error{reason, fmt.Sprintf(format, args...)}
}

// Bounds of a name that comes over the network.
const (
	maxName  = 1024 // bytes
	maxDepth = 32   // directories, of a name or a target directory
	maxPart  = 255  // bytes between two slashes
)

// ownPrefix begins the names of files that are not complete.
const ownPrefix = ".aioc-"

// Place is where a file is to land.
type Place struct {
	Base string   // a directory that the configuration names, absolute and clean
	Sub  []string // directories below it that depend on the message
	Name string   // below both, clean, with slashes between directories
}

// Dir is the directory that target_directory stands for.
func (p Place) Dir() string { return filepath.Join(append([]string{p.Base}, p.Sub...)...) }

// Path is the full name.
func (p Place) Path() string { return filepath.Join(p.Dir(), filepath.FromSlash(p.Name)) }

// Find says where the file of a message with header h is to land. template is
// target_directory. What the message fills in must be one component of a path.
// An error is an *Error.
//
// Differs: the original fills in with str.format, expands ~ and $NAME in what
// comes over the network too, and compares texts (aioconnectors connection.py).
func Find(template string, h *wire.Header, f *File) (Place, error) {
	var p Place
	pieces, err := cut(expandHome(template))
	if err != nil {
		return p, err
	}
	name := f.Name
	if f.Chunk != nil {
		name = f.Chunk.Whole()
	}
	if p.Name, err = cleanName(name); err != nil {
		return p, err
	}
	base := string(filepath.Separator)
	for _, component := range components(pieces) {
		text, filled := "", false
		for _, piece := range component {
			if piece.key == "" {
				text += piece.text
				continue
			}
			value, err := lookup(piece.key, h, f)
			if err != nil {
				return p, err
			}
			text += value
			filled = true
		}
		switch {
		case filled:
			if what := badPart(text); what != "" {
				return p, failf("directory", "target_directory: %q %s", text, what)
			}
			p.Sub = append(p.Sub, text)
		case text == "" || text == ".":
		case len(p.Sub) == 0:
			base = filepath.Join(base, text)
		case text == "..":
			return p, failf("directory", "target_directory of the receiver has .. after a placeholder")
		default:
			p.Sub = append(p.Sub, text)
		}
	}
	p.Base = base
	if len(p.Sub) > maxDepth {
		return p, failf("directory", "target_directory of the receiver is deeper than %d", maxDepth)
	}
	return p, nil
}

// Base returns the directory below which all places of a target_directory are:
// what is left of its first placeholder.
func Base(template string) string {
	base, _ := fixed(template)
	return base
}

// fixed returns the Base of a template and how many directories come below it.
func fixed(template string) (base string, depth int) {
	base = string(filepath.Separator)
	pieces, err := cut(expandHome(template))
	if err != nil {
		return base, 0
	}
	for _, component := range components(pieces) {
		filled := false
		text := ""
		for _, p := range component {
			filled = filled || p.key != ""
			text += p.text
		}
		switch {
		case text == "" && !filled:
		case depth > 0 || filled:
			depth++
		default:
			base = filepath.Join(base, text)
		}
	}
	return base, depth
}

// Below returns the place with another directory: one that a hook names. A
// relative name is below the target directory, an absolute one replaces it.
// The hook is the receiver's own, so it may name any.
func (p Place) Below(dir string) Place {
	if filepath.IsAbs(dir) {
		return Place{Base: filepath.Clean(dir), Name: p.Name}
	}
	sub := filepath.Clean(dir)
	if sub == "." {
		return p
	}
	if !filepath.IsLocal(sub) {
		return Place{Base: filepath.Join(p.Dir(), sub), Name: p.Name}
	}
	p.Sub = append(p.Sub[:len(p.Sub):len(p.Sub)], strings.Split(filepath.ToSlash(sub), "/")...)
	return p
}

// expandHome replaces ~ at the start and $NAME of a directory in the
// configuration by what they stand for in the environment. What stands for them
// is no template.
func expandHome(dir string) string {
	quote := strings.NewReplacer("{", "{{", "}", "}}")
	if rest, ok := strings.CutPrefix(dir, "~/"); ok {
		if home, err := os.UserHomeDir(); err == nil {
			dir = quote.Replace(home) + "/" + rest
		}
	}
	var b strings.Builder
	for {
		before, after, found := strings.Cut(dir, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n := 0
		for n < len(after) && (after[n] == '_' || isAlnum(after[n])) {
			n++
		}
		if value, ok := os.LookupEnv(after[:n]); ok {
			b.WriteString(quote.Replace(value))
		} else {
			b.WriteString("$" + after[:n])
		}
		dir = after[n:]
	}
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// piece of a template: text, or the key of what stands in braces.
type piece struct{ text, key string }

// cut divides a template. Config.Check has looked at it before.
func cut(template string) (pieces []piece, err error) {
	var text []byte
	for i := 0; i < len(template); i++ {
		c := template[i]
		if c != '{' && c != '}' {
			text = append(text, c)
			continue
		}
		if i+1 < len(template) && template[i+1] == c {
			text = append(text, c)
			i++
			continue
		}
		end := strings.IndexByte(template[i:], '}')
		if c == '}' || end < 0 {
			return nil, failf("directory", "target_directory of the receiver has a brace that is not closed")
		}
		pieces = append(pieces, piece{text: string(text)}, piece{key: template[i+1 : i+end]})
		text = nil
		i += end
	}
	return append(pieces, piece{text: string(text)}), nil
}

// components divides pieces at slashes.
func components(pieces []piece) (list [][]piece) {
	current := []piece{}
	for _, p := range pieces {
		if p.key != "" {
			current = append(current, p)
			continue
		}
		for i, part := range strings.Split(p.text, "/") {
			if i > 0 {
				list = append(list, current)
				current = []piece{}
			}
			if part != "" {
				current = append(current, piece{text: part})
			}
		}
	}
	return append(list, current)
}

// lookup is what a message says for a placeholder.
func lookup(key string, h *wire.Header, f *File) (string, error) {
	var value []byte
	switch key {
	case "with_file[dst_name]":
		return f.Name, nil
	case "with_file[dst_type]":
		return f.Type, nil
	case "message_type", "source_id", "destination_id", "tag", "request_id", "response_id":
		value = h.Field(key)
	default:
		return "", failf("directory", "target_directory of the receiver: {%s} is not known", key)
	}
	if text, ok := wire.Text(value); ok {
		return text, nil
	}
	if len(value) == 0 || strings.Trim(string(value), "0123456789-") != "" {
		return "", failf("directory", "target_directory of the receiver needs %s, which the message does not have", key)
	}
	return string(value), nil
}

// badPart says what is wrong with one component of a path, "" if nothing is.
func badPart(s string) string {
	switch {
	case s == "" || s == "." || s == "..":
		return "is no name of a directory or file"
	case strings.Contains(s, "/"):
		return "has a slash"
	case len(s) > maxPart:
		return fmt.Sprintf("is longer than %d bytes", maxPart)
	case strings.HasPrefix(s, ownPrefix):
		return "begins with " + ownPrefix + ", as only files that are not complete do"
	case !utf8.ValidString(s):
		return "is not UTF-8"
	}
	for _, r := range s {
		// A line feed in a name breaks whoever reads a list of files.
		if r < ' ' || 0x7f <= r && r < 0xa0 {
			return "has a control character"
		}
	}
	return ""
}

// CheckName returns an error, without the key's name, when no connector of this
// toolkit stores a file under a dst_name.
func CheckName(name string) error {
	_, err := cleanName(name)
	var bad *Error
	if errors.As(err, &bad) {
		return errors.New(strings.TrimPrefix(bad.Text, "dst_name "))
	}
	return err
}

// cleanName checks a dst_name and brings it into its shortest form.
func cleanName(name string) (string, error) {
	if len(name) > maxName {
		return "", failf("name", "dst_name is longer than %d bytes", maxName)
	}
	if name == "" {
		return "", failf("name", "dst_name is missing")
	}
	if strings.HasPrefix(name, "/") {
		return "", failf("name", "dst_name %q is absolute", name)
	}
	parts := strings.Split(name, "/")
	clean := parts[:0]
	for _, part := range parts {
		switch part {
		case "", ".":
			continue
		case "..":
			// A link in the way would make it lead elsewhere than it says.
			return "", failf("name", "dst_name %q contains ..", name)
		}
		if what := badPart(part); what != "" {
			return "", failf("name", "dst_name %q %s", name, what)
		}
		clean = append(clean, part)
	}
	if len(clean) == 0 {
		return "", failf("name", "dst_name %q names no file", name)
	}
	if len(clean) > maxDepth {
		return "", failf("name", "dst_name is deeper than %d directories", maxDepth)
	}
	return strings.Join(clean, "/"), nil
}
