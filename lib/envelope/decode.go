package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"aioc/lib/wire"
)

// ErrEnvelope is wrapped by every error about a line.
var ErrEnvelope = errors.New("not a message")

var (
	errSyntax = errors.New("not JSON")
	errMore   = errors.New("text after the object")
)

// Message is a parsed line. Its slices are valid until the next call of the
// Decoder that it came from; Data may be a part of the line.
type Message struct {
	Header []byte // JSON text, ready for a frame: with_binary is there if Binary is not empty
	Data   []byte
	Binary []byte
	Same   bool // Header is, to the byte, that of the Decoder's message before
}

// Parse reads one line. It returns an error that wraps ErrEnvelope when the
// line is not one JSON object (strict form, UTF-8), when one of the envelope's
// own keys has a value of the wrong kind, when there is more than one form of
// the data, or when the header is longer than a frame can hold. Keys that it
// does not know are header keys. An empty binary part is the same as none.
func Parse(line []byte) (Message, error) {
	var d Decoder
	return d.Parse(line)
}

// Decoder parses one line after the other and remembers the header that
// repeats. The zero value is ready.
type Decoder struct {
	prefix []byte // the last line up to the end of its last header value
	plain  []byte // the header of prefix
	marked []byte // the same with with_binary; empty when not made yet
	binary bool   // the last message had marked

	scratch []byte // decoded data
	bytes   []byte // decoded binary part
}

// parts is what a line holds beside header keys: JSON text.
type parts struct {
	data, text, base64, binary, transport []byte
}

// Parse is [Parse].
func (d *Decoder) Parse(line []byte) (Message, error) {
	m, err := d.parse(line)
	if err != nil {
		d.prefix = d.prefix[:0]
		return Message{}, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	return m, nil
}

func (d *Decoder) parse(line []byte) (m Message, err error) {
	p, same := d.again(line)
	if !same {
		if p, err = d.anew(line); err != nil {
			return m, err
		}
	}
	if m, err = d.content(p); err != nil {
		return m, err
	}
	m.Header = d.plain
	binary := len(m.Binary) > 0
	if binary {
		if len(d.marked) == 0 {
			d.marked = wire.AppendEdited(d.marked, d.plain, wire.Edit{Key: keyWithBinary, Value: []byte("true")})
		}
		m.Header = d.marked
	}
	m.Same = same && binary == d.binary
	d.binary = binary
	if len(m.Header) > wire.MaxHeader {
		return m, fmt.Errorf("header of %d bytes, at most %d", len(m.Header), wire.MaxHeader)
	}
	return m, nil
}

// again reads a line which begins as the last one did. It reports false when
// there is anything about the rest of the line that anew has to look at.
func (d *Decoder) again(line []byte) (p parts, same bool) {
	if len(d.prefix) == 0 || !bytes.HasPrefix(line, d.prefix) {
		return p, false
	}
	i := len(d.prefix)
	for {
		key, value, next, err := pair(line, i, false)
		if err != nil || key != nil && !p.set(key, value) {
			return p, false
		}
		if key == nil {
			return p, p.transport == nil
		}
		i = next
	}
}

// anew reads any line and makes its header.
func (d *Decoder) anew(line []byte) (p parts, err error) {
	i := skip(line, 0)
	if i == len(line) || line[i] != '{' {
		return p, errors.New("not a JSON object")
	}
	start := i
	type field struct{ key, value []byte }
	var header []field
	at := make(map[string]int)
	add := func(name string, key, value []byte) {
		if name == keyWithBinary || name == keyTransportID {
			return
		}
		i, again := at[name]
		if !again {
			i = len(header)
			header = append(header, field{})
			at[name] = i
		}
		header[i] = field{key, value}
	}
	prefix := 0 // the end of the last header value
	ours, after := false, false
	for i = start; ; {
		key, value, next, err := pair(line, i, i == start)
		if err != nil {
			return p, syntax(line[start:], err)
		}
		if key == nil {
			break
		}
		name, _ := wire.Text(key)
		if own(name) {
			ours = true
			if !p.set(key, value) {
				return p, fmt.Errorf("key %q is there twice", name)
			}
		} else {
			after = after || ours
			prefix = next
			add(name, key, value)
		}
		i = next
	}
	if p.transport != nil {
		if p.transport[0] != '{' {
			return p, fmt.Errorf("key %q: want an object of header keys", keyTransport)
		}
		if err := wire.Fields(p.transport, func(key, value []byte) {
			add(string(key), wire.AppendString(nil, string(key)), value)
		}); err != nil {
			return p, fmt.Errorf("key %q: %w", keyTransport, err)
		}
	}
	d.prefix, d.plain, d.marked = d.prefix[:0], append(d.plain[:0], '{'), d.marked[:0]
	for i, f := range header {
		if i > 0 {
			d.plain = append(d.plain, ", "...)
		}
		d.plain = append(d.plain, f.key...)
		d.plain = append(d.plain, ": "...)
		d.plain = append(d.plain, f.value...)
	}
	d.plain = append(d.plain, '}')
	if !after && p.transport == nil {
		d.prefix = append(d.prefix, line[:prefix]...)
	}
	return p, nil
}

// pair reads the next pair of the object that is the line: the first one at the
// brace that opens it, the others at the end of the value before. A nil key
// says that the object and the line have ended.
func pair(line []byte, i int, first bool) (key, value []byte, next int, err error) {
	i = skip(line, i)
	if first {
		i = skip(line, i+1)
	}
	if i < len(line) && line[i] == '}' {
		if skip(line, i+1) != len(line) {
			return nil, nil, 0, errMore
		}
		return nil, nil, len(line), nil
	}
	if !first {
		if i == len(line) || line[i] != ',' {
			return nil, nil, 0, errSyntax
		}
		i = skip(line, i+1)
	}
	if i == len(line) || line[i] != '"' {
		return nil, nil, 0, errSyntax
	}
	n, _ := wire.ValueEnd(line[i:], false)
	if n == 0 {
		return nil, nil, 0, errSyntax
	}
	key = line[i : i+n]
	if i = skip(line, i+n); i == len(line) || line[i] != ':' {
		return nil, nil, 0, errSyntax
	}
	if i = skip(line, i+1); i == len(line) {
		return nil, nil, 0, errSyntax
	}
	if n, err = wire.ValueEnd(line[i:], false); n == 0 || err != nil {
		return nil, nil, 0, errSyntax
	}
	return key, line[i : i+n], i + n, nil
}

// syntax says what is wrong with a line that pair could not read.
func syntax(line []byte, err error) error {
	if !utf8.Valid(line) {
		return errors.New("not UTF-8")
	}
	if n, bad := wire.ValueEnd(line, true); n == 0 && bad != nil {
		return errors.New("not JSON: " + strings.TrimPrefix(bad.Error(), wire.ErrHeader.Error()+": "))
	}
	return err
}

// set keeps the value of one of the envelope's own keys (JSON text, quotes
// included). It reports false for any other key, and when it was there before.
func (p *parts) set(key, value []byte) bool {
	name, _ := wire.Text(key)
	var to *[]byte
	switch name {
	case keyData:
		to = &p.data
	case keyText:
		to = &p.text
	case keyBase64:
		to = &p.base64
	case keyBinary:
		to = &p.binary
	case keyTransport:
		to = &p.transport
	default:
		return false
	}
	if *to != nil {
		return false
	}
	*to = value
	return true
}

// content decodes data and binary part.
func (d *Decoder) content(p parts) (m Message, err error) {
	forms := 0
	for _, f := range [][]byte{p.data, p.text, p.base64} {
		if f != nil {
			forms++
		}
	}
	if forms > 1 {
		return m, fmt.Errorf("only one of the keys %q, %q and %q can be there", keyData, keyText, keyBase64)
	}
	switch {
	case p.data != nil:
		m.Data = p.data
	case p.text != nil:
		text, ok := wire.Text(p.text)
		if !ok {
			return m, fmt.Errorf("key %q: want a string", keyText)
		}
		if lone(p.text) {
			return m, fmt.Errorf("key %q: half of a surrogate pair is not a character", keyText)
		}
		d.scratch = append(d.scratch[:0], text...)
		m.Data = d.scratch
	case p.base64 != nil:
		if d.scratch, err = unbase64(d.scratch[:0], keyBase64, p.base64); err != nil {
			return m, err
		}
		m.Data = d.scratch
	}
	if p.binary != nil {
		if d.bytes, err = unbase64(d.bytes[:0], keyBinary, p.binary); err != nil {
			return m, err
		}
		m.Binary = d.bytes
	}
	return m, nil
}

func unbase64(dst []byte, key string, value []byte) ([]byte, error) {
	if value[0] != '"' {
		return dst, fmt.Errorf("key %q: want a string", key)
	}
	text := value[1 : len(value)-1]
	if bytes.IndexByte(text, '\\') >= 0 {
		s, _ := wire.Text(value) // \/ is a way to write a slash
		text = []byte(s)
	}
	dst, err := base64.StdEncoding.AppendDecode(dst, text)
	if err != nil {
		return dst, fmt.Errorf("key %q: not base64 (standard alphabet, padded)", key)
	}
	return dst, nil
}

// lone reports whether the JSON string has an escaped surrogate without its
// other half.
func lone(value []byte) bool {
	high := false // the escape before was the first half of a pair
	for i := 0; i < len(value); i++ {
		low, surrogate := false, false
		if value[i] == '\\' {
			i++
			if value[i] == 'u' {
				c := value[i+2] | 0x20
				surrogate = value[i+1]|0x20 == 'd' && (c == '8' || c == '9' || c >= 'a')
				low = surrogate && c >= 'c'
				i += 4
			}
		}
		if high != low {
			return true
		}
		high = surrogate && !low
	}
	return false
}

// skip returns the index of the first byte of b from i that is not white space.
func skip(b []byte, i int) int {
	for i < len(b) && space(b[i]) {
		i++
	}
	return i
}
