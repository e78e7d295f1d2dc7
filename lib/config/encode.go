package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// appendValue appends the value of the key as JSON without white space.
func (k key) appendValue(dst []byte, c *Config) []byte {
	switch p := k.field(c).(type) {
	case *bool:
		if !*p && k.null {
			return append(dst, "null"...)
		}
		return strconv.AppendBool(dst, *p)
	case *string:
		if *p == "" && k.null {
			return append(dst, "null"...)
		}
		return appendString(dst, *p)
	case *int:
		return strconv.AppendInt(dst, int64(*p), 10)
	case *int64:
		return strconv.AppendInt(dst, *p, 10)
	case *time.Duration:
		if *p == 0 && k.null {
			return append(dst, "null"...)
		}
		return strconv.AppendFloat(dst, p.Seconds(), 'f', -1, 64)
	case *[]string:
		if *p == nil && k.null {
			return append(dst, "null"...)
		}
		return appendStrings(dst, *p)
	case *Command:
		switch len(*p) {
		case 0:
			return append(dst, "null"...)
		case 1:
			return appendString(dst, (*p)[0])
		}
		return appendStrings(dst, *p)
	case *map[string]int:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(*p)) {
			dst = appendKey(dst, i, name)
			dst = strconv.AppendInt(dst, int64((*p)[name]), 10)
		}
		return append(dst, '}')
	case *Types:
		if p.Names != nil && !p.All {
			return appendStrings(dst, p.Names)
		}
		return strconv.AppendBool(dst, p.All)
	case *Ignore:
		if p.Peer != "" && !p.All {
			return appendString(dst, p.Peer)
		}
		return strconv.AppendBool(dst, p.All)
	case *Rotate:
		if p.On && p.Size > 0 {
			return strconv.AppendInt(dst, p.Size, 10)
		}
		return strconv.AppendBool(dst, p.On)
	case *Verify:
		if p.On && p.File != "" {
			return appendString(dst, p.File)
		}
		return strconv.AppendBool(dst, p.On)
	case *Addr:
		return p.appendJSON(dst)
	case *Proxy:
		return p.appendJSON(dst)
	case *map[string]FileTarget:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(*p)) {
			t := (*p)[name]
			dst = append(appendKey(dst, i, name), '{')
			dst = strconv.AppendBool(appendKey(dst, 0, "override_existing"), t.Override)
			if t.Mode != "" {
				dst = appendString(appendKey(dst, 1, "mode"), t.Mode)
			}
			if t.AnyOwner {
				dst = strconv.AppendBool(appendKey(dst, 1, "accept_owner"), t.AnyOwner)
			}
			dst = appendString(appendKey(dst, 1, "owner"), t.Owner)
			dst = appendString(appendKey(dst, 2, "target_directory"), t.Directory)
			dst = append(dst, '}')
		}
		return append(dst, '}')
	}
	return dst
}

func (p Proxy) appendJSON(dst []byte) []byte {
	if p == (Proxy{}) || p == (Proxy{null: true}) {
		return append(dst, "{}"...)
	}
	dst = appendString(appendKey(append(dst, '{'), 0, "address"), p.Addr.Host)
	dst = appendKey(dst, 1, "authorization")
	if p.Username == "" {
		dst = appendString(dst, "")
	} else {
		dst = appendString(appendKey(append(dst, '{'), 0, "password"), p.Password)
		dst = append(appendString(appendKey(dst, 1, "username"), p.Username), '}')
	}
	dst = strconv.AppendBool(appendKey(dst, 2, "enabled"), p.Enabled)
	dst = p.Addr.appendPort(appendKey(dst, 3, "port"))
	dst = strconv.AppendBool(appendKey(dst, 4, "ssl_server"), p.TLS)
	return append(dst, '}')
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, s)
	}
	return append(dst, ']')
}

// appendKey appends the name of the ith member of an object, and its colon.
func appendKey(dst []byte, i int, name string) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	return append(appendString(dst, name), ':')
}

// appendString appends a JSON string in ASCII, as Python's json writes it.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r == '\r':
			dst = append(dst, `\r`...)
		case r == '\t':
			dst = append(dst, `\t`...)
		case r == '\b':
			dst = append(dst, `\b`...)
		case r == '\f':
			dst = append(dst, `\f`...)
		case r >= ' ' && r < 0x7f || r == 0x7f:
			dst = append(dst, byte(r))
		case r < 0x10000:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			r -= 0x10000
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return append(dst, '"')
}

// AppendJSON appends the effective configuration, as -print-config prints it:
// every key, sorted, 4 spaces, in ASCII, with a newline at the end. Loaded again
// it gives the same text. It contains the proxy's password.
func (c *Config) AppendJSON(dst []byte) []byte {
	all := slices.DeleteFunc(keys(), func(k key) bool { return k.field == nil })
	slices.SortFunc(all, func(a, b key) int { return strings.Compare(a.name, b.name) })
	compact := []byte{'{'}
	for i, k := range all {
		compact = k.appendValue(appendKey(compact, i, k.name), c)
	}
	compact = append(compact, '}')
	buf := bytes.NewBuffer(dst)
	json.Indent(buf, compact, "", "    ") // fails only for what is not JSON
	buf.WriteByte('\n')
	return buf.Bytes()
}

// MarshalJSON returns the text of AppendJSON.
func (c *Config) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

// Template returns the default configuration, that of a server.
func Template() []byte { return Defaults().AppendJSON(nil) }
