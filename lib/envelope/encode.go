package envelope

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"

	"aioc/lib/wire"
)

// The keys that are not the header's.
const (
	keyTransport = "transport"
	keyData      = "data"
	keyText      = "data_text"
	keyBase64    = "data_base64"
	keyBinary    = "binary_base64"
)

// Header keys that are not part of an envelope.
const (
	keyWithBinary  = "with_binary"
	keyTransportID = "transport_id"
)

// deepest is how far a value may nest that is embedded in a line: the line
// stays well below what the scanner of wire takes.
const deepest = 900

// own reports whether key is one of the envelope's own.
func own(key string) bool {
	switch key {
	case keyTransport, keyData, keyText, keyBase64, keyBinary:
		return true
	}
	return false
}

// Append appends the message f as one line, without the line break. The header
// of f has been parsed.
func Append(dst []byte, f *wire.Frame) []byte {
	var e Encoder
	return e.Append(dst, f)
}

// Encoder appends one message after the other and remembers the header that
// repeats. The zero value is ready.
type Encoder struct {
	raw  []byte // the header that head was made of
	head []byte // the line up to the data, without what closes it
}

// Append is [Append].
func (e *Encoder) Append(dst []byte, f *wire.Frame) []byte {
	if e.head == nil || !bytes.Equal(e.raw, f.Header.Raw) {
		e.raw = append(e.raw[:0], f.Header.Raw...)
		e.head = appendHead(e.head[:0], f.Header.Raw)
	}
	dst = append(dst, e.head...)
	key := func(k string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, k...)
		dst = append(dst, '"', ':')
	}
	switch {
	case len(f.Data) == 0:
	case embeddable(f.Data):
		key(keyData)
		dst = append(dst, f.Data...)
	case utf8.Valid(f.Data):
		key(keyText)
		dst = AppendText(dst, f.Data)
	default:
		key(keyBase64)
		dst = appendBase64(dst, f.Data)
	}
	if f.Header.WithBinary {
		key(keyBinary)
		dst = appendBase64(dst, f.Binary)
	}
	return append(dst, '}')
}

// member is one key of a header and the JSON text of its value.
type member struct {
	key   string
	value []byte
}

// members returns the pairs of the object raw. The last of several with one
// key counts, in the place of the first.
func members(raw []byte) ([]member, error) {
	var all []member
	at := make(map[string]int)
	err := wire.Fields(raw, func(key, value []byte) {
		i, again := at[string(key)]
		if !again {
			i = len(all)
			all = append(all, member{key: string(key)})
			at[all[i].key] = i
		}
		all[i].value = value
	})
	return all, err
}

// appendHead appends the line's beginning, up to and without the data.
func appendHead(dst, raw []byte) []byte {
	all, _ := members(raw) // has been parsed before
	pairs := func(inside bool) {
		first := true
		for _, m := range all {
			if m.key == keyWithBinary || m.key == keyTransportID || own(m.key) != inside {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = AppendText(dst, []byte(m.key))
			dst = append(dst, ':')
			if valid, compact := wire.Valid(m.value); !valid || inside && nests(m.value, deepest) {
				dst = AppendText(dst, m.value)
			} else if compact {
				dst = append(dst, m.value...)
			} else {
				dst = appendCompact(dst, m.value)
			}
		}
	}
	dst = append(dst, '{')
	pairs(false)
	for _, m := range all {
		if own(m.key) {
			if len(dst) > 1 {
				dst = append(dst, ',')
			}
			dst = append(dst, `"transport":{`...)
			pairs(true)
			return append(dst, '}')
		}
	}
	return dst
}

// embeddable reports whether data can stand in a line as it is.
func embeddable(data []byte) bool {
	if space(data[0]) || space(data[len(data)-1]) {
		return false
	}
	valid, compact := wire.Valid(data)
	if !valid {
		return false
	}
	// Within strings JSON has no line breaks: they are white space.
	if !compact && (bytes.IndexByte(data, '\n') >= 0 || bytes.IndexByte(data, '\r') >= 0) {
		return false
	}
	return !nests(data, deepest)
}

// nests reports whether the valid JSON text b nests deeper than depth.
func nests(b []byte, depth int) bool {
	if len(b) <= 2*depth {
		return false
	}
	now, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if now++; now > depth {
				return true
			}
		case c == '}' || c == ']':
			now--
		}
	}
	return false
}

// AppendData appends data as one JSON value on one line, without the line
// break: JSON without its white space, other text as a string, other bytes as
// an object with the one key base64. Empty data is an empty string.
func AppendData(dst, data []byte) []byte {
	switch valid, compact := wire.Valid(data); {
	case compact && valid:
		return append(dst, data...)
	case valid:
		return appendCompact(dst, data)
	case utf8.Valid(data):
		return AppendText(dst, data)
	}
	dst = append(dst, `{"base64":`...)
	dst = appendBase64(dst, data)
	return append(dst, '}')
}

// AppendText appends text, which is UTF-8, as a JSON string. Control
// characters, those of Unicode and its line separators included, are escaped;
// so the line can be shown on a terminal.
func AppendText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	done := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
			if r >= 0xa0 && r != 0x2028 && r != 0x2029 {
				i += n
				continue
			}
		}
		dst = append(dst, text[done:i]...)
		switch r {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		}
		i += n
		done = i
	}
	dst = append(dst, text[done:]...)
	return append(dst, '"')
}

// appendCompact appends the valid JSON text b without its white space.
func appendCompact(dst, b []byte) []byte {
	quoted, done := false, 0
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && space(c):
			dst = append(dst, b[done:i]...)
			done = i + 1
		}
	}
	return append(dst, b[done:]...)
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// space reports whether c is white space of JSON.
func space(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
