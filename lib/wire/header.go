package wire

import (
	"bytes"
	"errors"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxHeader is the longest header in bytes: its length field has 16 bits.
const MaxHeader = 65535

// maxDepth is how deep a header may nest. Python's json gives up near 1000.
const maxDepth = 1000

// ErrHeader is wrapped by every error about a header's content.
var ErrHeader = errors.New("bad header")

// Header is a parsed header. The slices point into Raw, or into memory of
// their own where the text was escaped; they are valid as long as Raw is.
type Header struct {
	Raw []byte // the JSON text as it came

	// Decoded strings, nil when absent or not a string.
	Type    []byte // message_type
	Source  []byte // source_id
	Dest    []byte // destination_id
	Publish []byte // message_type_publish
	Tag     []byte // tag
	Error   []byte // error

	// JSON text of the value, nil when absent or null; WithFile also when it
	// is empty.
	RequestID   []byte
	ResponseID  []byte
	TransportID []byte
	WithFile    []byte
	Extensions  []byte // aioc: the announced extensions
	ID          []byte // id, by which a connector knows a message that is put again
	Expires     []byte // expires: see ExpiresAt

	WithBinary    bool // truthy, as Python understands it
	AwaitResponse bool
	WaitForAck    bool
	AckTo         uint64 // ackto; 0 when absent
}

// Parse scans raw, which h keeps. It accepts what Python's json accepts: any
// order and spacing, escapes, NaN and Infinity, integers of any size; the last
// of duplicate keys counts. It allocates only where a string is escaped.
func (h *Header) Parse(raw []byte) error {
	*h = Header{Raw: raw}
	return pairs(raw, h.field)
}

func (h *Header) field(key, value []byte) {
	switch string(text(key)) {
	case "message_type":
		h.Type = text(value)
	case "source_id":
		h.Source = text(value)
	case "destination_id":
		h.Dest = text(value)
	case "request_id":
		h.RequestID = notNull(value)
	case "response_id":
		h.ResponseID = notNull(value)
	case "transport_id":
		h.TransportID = notNull(value)
	case "with_binary":
		h.WithBinary = truthy(value)
	case "await_response":
		h.AwaitResponse = truthy(value)
	case "wait_for_ack":
		h.WaitForAck = truthy(value)
	case "with_file":
		if h.WithFile = nil; truthy(value) {
			h.WithFile = value
		}
	case "message_type_publish":
		h.Publish = text(value)
	case "tag":
		h.Tag = text(value)
	case "error":
		h.Error = text(value)
	case "aioc":
		h.Extensions = value
	case "id":
		h.ID = notNull(value)
	case "expires":
		h.Expires = notNull(value)
	case "ackto":
		var err error
		if h.AckTo, err = strconv.ParseUint(string(value), 10, 64); err != nil {
			h.AckTo = 0
		}
	}
}

func notNull(value []byte) []byte {
	if string(value) == "null" {
		return nil
	}
	return value
}

// Field returns the JSON text of a top-level value, or nil. It scans the whole
// header: for rare keys.
func (h *Header) Field(name string) []byte {
	var found []byte
	_ = pairs(h.Raw, func(key, value []byte) {
		if string(text(key)) == name {
			found = value
		}
	})
	return found
}

// ExpiresAt returns the time after which the message is of no use any more, if it
// says so in expires, in Unix milliseconds.
func (h *Header) ExpiresAt() (at time.Time, ok bool) {
	ms, err := strconv.ParseInt(string(h.Expires), 10, 64)
	return time.UnixMilli(ms), err == nil
}

// Speaks reports whether the announced extensions contain name.
func (h *Header) Speaks(name string) bool {
	spoken := false
	elements(h.Extensions, func(value []byte) {
		spoken = spoken || string(text(value)) == name
	})
	return spoken
}

// Edit is a change of one top-level key: a new JSON value, or nil to remove it.
type Edit struct {
	Key   string
	Value []byte
}

// AppendEdited appends the header raw with the edits made: an existing key is
// changed in place, a new one appended, all other keys and values keep their
// bytes. The result may be longer than a header can be; AppendFrame says so.
// raw must have been parsed without error.
func AppendEdited(dst, raw []byte, edits ...Edit) []byte {
	dst = append(dst, '{')
	done := make([]bool, len(edits))
	first := true
	comma := func() {
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
	}
	_ = pairs(raw, func(key, value []byte) {
		name := text(key)
		for i := range edits {
			if edits[i].Key == string(name) {
				value = edits[i].Value
				if done[i] || value == nil {
					done[i] = true
					return
				}
				done[i] = true
				break
			}
		}
		comma()
		dst = append(dst, key...)
		dst = append(dst, ": "...)
		dst = append(dst, value...)
	})
	for i := range edits {
		if !done[i] && edits[i].Value != nil {
			comma()
			dst = AppendString(dst, edits[i].Key)
			dst = append(dst, ": "...)
			dst = append(dst, edits[i].Value...)
		}
	}
	return append(dst, '}')
}

// Fields calls f for every top-level pair of the JSON object raw, in order:
// the decoded key and the JSON text of the value. It returns an error that
// wraps ErrHeader when raw is not one JSON object.
func Fields(raw []byte, f func(key, value []byte)) error {
	return pairs(raw, func(key, value []byte) { f(text(key), value) })
}

// Valid reports whether b is one JSON value in strict form (RFC 8259: no NaN,
// valid UTF-8) and whether it is compact: no white space outside strings.
func Valid(b []byte) (valid, compact bool) {
	s := scanner{b: b, strict: true}
	end, what := s.value(s.space(0), 0)
	if what != "" || s.space(end) != len(b) {
		return false, false
	}
	return true, !s.spaced
}

// ValueEnd returns the end of the JSON value (strict form) at the start of b,
// which must not begin with white space: n > 0 and whole, n == 0 when b ends
// before the value does, or an error that says what is wrong with it.
// A number is whole only when something follows it, or when final is set.
func ValueEnd(b []byte, final bool) (n int, err error) {
	s := scanner{b: b, strict: true}
	n, what := s.value(0, 0)
	switch {
	case what != "" && (n < len(b) || final):
		return 0, bad(what, n)
	case what != "":
		return 0, nil
	case n == len(b) && !final && (b[0] == '-' || isDigit(b[0])):
		return 0, nil
	}
	return n, nil
}

// AppendString appends s as a JSON string in ASCII, as Python writes it.
func AppendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	u16 := func(r rune) {
		dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r == '\b':
			dst = append(dst, '\\', 'b')
		case r == '\f':
			dst = append(dst, '\\', 'f')
		case r >= 0x20 && r < 0x7f:
			dst = append(dst, byte(r))
		case r > 0xffff:
			a, b := utf16.EncodeRune(r)
			u16(a)
			u16(b)
		default:
			u16(r)
		}
	}
	return append(dst, '"')
}

// Text decodes the JSON string value; ok is false when value is not a string.
func Text(value []byte) (s string, ok bool) {
	b := text(value)
	return string(b), b != nil
}

// text returns the decoded string, nil when value is not one. Lone surrogates
// become U+FFFD.
func text(value []byte) []byte {
	if len(value) < 2 || value[0] != '"' {
		return nil
	}
	in := value[1 : len(value)-1]
	if bytes.IndexByte(in, '\\') < 0 {
		return in
	}
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); i++ {
		if in[i] != '\\' {
			out = append(out, in[i])
			continue
		}
		i++
		switch c := in[i]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(in[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+6 < len(in) && in[i+1] == '\\' && in[i+2] == 'u' {
					pair = utf16.DecodeRune(r, hex4(in[i+3:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default: // '"', '\\', '/'
			out = append(out, c)
		}
	}
	return out
}

func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= 'a':
			c -= 'a' - 10
		case c >= 'A':
			c -= 'A' - 10
		default:
			c -= '0'
		}
		r = r<<4 | rune(c)
	}
	return r
}

// truthy is Python's truth of a JSON value.
func truthy(value []byte) bool {
	switch value[0] {
	case 'n', 'f':
		return false
	case '"':
		return len(value) > 2
	case '[', '{':
		return len(bytes.Trim(value[1:len(value)-1], " \t\r\n")) > 0
	case 't', 'N', 'I':
		return true
	}
	// A number that is too small for a float is 0, one too large is not.
	f, _ := strconv.ParseFloat(string(value), 64)
	return f != 0
}
