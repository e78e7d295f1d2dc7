package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The JSON forms of the values, by the type of the field. Each decoder returns
// whether the value has its form; what is wrong otherwise is said by want.

// want says in words what the value of a key is.
func (k key) want() string {
	if k.words != "" {
		return k.words
	}
	var w string
	switch k.field0().(type) {
	case *bool:
		w = "true or false"
	case *string:
		w = "a string"
		if k.path {
			w = "a path as a string"
		}
	case *int, *int64:
		w = fmt.Sprintf("a whole number from %d to %d", k.min, k.max)
		if k.max > 1<<40 {
			w = fmt.Sprintf("a whole number, at least %d", k.min)
		}
	case *time.Duration:
		w = fmt.Sprintf("a number of seconds above 0, at most %d", k.max)
	case *[]string:
		w = "an array of strings"
	case *map[string]int:
		w = `an object of whole numbers, such as {"any": 1}`
	case *Types:
		w = "true, false or an array of message types"
	case *Ignore:
		w = "true, false or the name of a peer as a string"
	case *Rotate:
		w = "true, false or a number of bytes"
	case *Verify:
		w = "true, false or a path as a string"
	case *Addr:
		w = `an array of host and port, such as ["127.0.0.1", 10673]`
	case *Proxy:
		return `an object with enabled, address, port, authorization and ssl_server`
	case *Command:
		w = `a path as a string, or an array of it and arguments, such as ["/usr/local/bin/check", "-v"]`
	case *map[string]FileTarget:
		return `an object such as {"any": {"target_directory": "/srv/files"}}`
	}
	if k.null {
		w += ", or null"
	}
	return w
}

// field0 returns a pointer of the field's type.
func (k key) field0() any {
	if len(k.alias) > 0 {
		k, _ = lookup(k.alias[0])
	}
	return k.field(&Config{})
}

// set sets the key, or those that it stands for. It returns the words for the
// user if the value is not what it should be, else "".
func (k key) set(c *Config, raw []byte) (problem string) {
	if len(k.alias) == 0 {
		return k.decode(c, raw)
	}
	for _, name := range k.alias {
		target, _ := lookup(name)
		if problem := target.decode(c, raw); problem != "" {
			return problem
		}
	}
	return ""
}

// decode sets the field to the value.
func (k key) decode(c *Config, raw []byte) (problem string) {
	bad := func() string {
		if k.secret {
			return "want " + k.want()
		}
		return "got " + shorten(string(raw)) + ", want " + k.want()
	}
	null := string(raw) == "null"
	if null {
		// The original takes null as its default for lists and objects.
		switch p := k.field(c).(type) {
		case *[]string:
			if !k.null {
				d := keyDefault(k)
				*p = d
				return ""
			}
			*p = nil
			return ""
		case *map[string]int:
			*p = nil
			return ""
		case *map[string]FileTarget:
			*p = nil
			return ""
		case *Proxy:
			*p = Proxy{null: true}
			return ""
		}
		if !k.null {
			return bad()
		}
	}
	ok := false
	switch p := k.field(c).(type) {
	case *bool:
		*p, ok = decodeBool(raw)
		if s, isString := decodeString(raw); k.null && (null || isString) {
			*p, ok = s != "", true // the original takes any string for true
		}
	case *string:
		if null {
			*p, ok = "", true
			break
		}
		var s string
		if s, ok = decodeString(raw); !ok {
			break
		}
		if strings.ContainsRune(s, 0) {
			return bad() + " without the character NUL"
		}
		if k.path && s != "" || k.path && !k.null {
			full, err := fullPath(s)
			if err != nil {
				return bad() + ": " + err.Error()
			}
			s = full
		}
		*p = s
	case *int:
		var n int64
		n, ok = decodeInt(raw)
		ok = ok && n >= k.min && n <= k.max
		*p = int(n)
	case *int64:
		*p, ok = decodeInt(raw)
		ok = ok && *p >= k.min && *p <= k.max
	case *time.Duration:
		if null {
			*p, ok = 0, true
			break
		}
		var seconds float64
		seconds, ok = decodeFloat(raw)
		*p = time.Duration(math.Round(min(seconds, float64(k.max)+1) * 1e9))
		ok = ok && *p > 0 && *p <= time.Duration(k.max)*time.Second
	case *[]string:
		*p, ok = decodeStrings(raw)
	case *map[string]int:
		*p, ok = decodePriorities(raw)
	case *Types:
		*p, ok = decodeTypes(raw)
	case *Ignore:
		*p, ok = decodeIgnore(raw)
	case *Rotate:
		*p, ok = decodeRotate(raw)
	case *Verify:
		var problem string
		if *p, problem = decodeVerify(raw); problem == "" {
			return ""
		}
		return bad() + problem
	case *Command:
		var problem string
		if *p, problem = decodeCommand(raw); problem == "" {
			return ""
		}
		return bad() + problem
	case *Addr:
		a, problem := decodeAddr(raw)
		if problem != "" {
			return "got " + shorten(string(raw)) + ", want " + problem
		}
		*p, ok = a, true
	case *Proxy:
		proxy, problem := decodeProxy(raw)
		if problem != "" {
			return problem
		}
		*p, ok = proxy, true
	case *map[string]FileTarget:
		targets, problem := decodeTargets(raw)
		if problem != "" {
			return problem
		}
		*p, ok = targets, true
	}
	if !ok {
		return bad()
	}
	return ""
}

// keyDefault returns the default of a key whose value is a list.
func keyDefault(k key) []string {
	list, _ := decodeStrings([]byte(k.def))
	return list
}

func decodeBool(raw []byte) (v, ok bool) {
	return string(raw) == "true", string(raw) == "true" || string(raw) == "false"
}

// decodeString decodes a JSON string. One that Go cannot hold, which has half
// of a surrogate pair, is refused.
func decodeString(raw []byte) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	if strings.ContainsRune(s, utf8.RuneError) && !bytes.Contains(raw, []byte("\ufffd")) && !bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return "", false
	}
	return s, true
}

func decodeFloat(raw []byte) (float64, bool) {
	if len(raw) == 0 || raw[0] != '-' && (raw[0] < '0' || raw[0] > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return f, err == nil && !math.IsInf(f, 0)
}

// decodeInt decodes a whole number, also one that Python wrote as a float.
func decodeInt(raw []byte) (int64, bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	f, ok := decodeFloat(raw)
	return int64(f), ok && f == math.Trunc(f) && math.Abs(f) < 1<<53
}

func decodeArray(raw []byte) ([]json.RawMessage, bool) {
	if len(raw) == 0 || raw[0] != '[' {
		return nil, false
	}
	list := []json.RawMessage{}
	err := json.Unmarshal(raw, &list)
	return list, err == nil
}

func decodeStrings(raw []byte) ([]string, bool) {
	items, ok := decodeArray(raw)
	list := []string{}
	for _, item := range items {
		s, isString := decodeString(item)
		ok = ok && isString
		list = append(list, s)
	}
	return list, ok
}

func decodePriorities(raw []byte) (map[string]int, bool) {
	members, err := parseObject(raw)
	if err != nil {
		return nil, false
	}
	priorities := map[string]int{}
	for _, m := range members.members {
		n, ok := decodeInt(m.value(raw))
		if !ok || n > math.MaxInt32 || n < math.MinInt32 {
			return nil, false
		}
		priorities[m.name] = int(n)
	}
	return priorities, true
}

func decodeTypes(raw []byte) (Types, bool) {
	if v, ok := decodeBool(raw); ok {
		return Types{All: v}, true
	}
	names, ok := decodeStrings(raw)
	return Types{Names: names}, ok
}

func decodeIgnore(raw []byte) (Ignore, bool) {
	if v, ok := decodeBool(raw); ok {
		return Ignore{All: v}, true
	}
	peer, ok := decodeString(raw)
	if list, isList := decodeStrings(raw); isList && len(list) == 1 {
		peer, ok = list[0], true // as the original holds it in memory
	}
	return Ignore{Peer: peer}, ok && peer != ""
}

func decodeRotate(raw []byte) (Rotate, bool) {
	if v, ok := decodeBool(raw); ok {
		return Rotate{On: v}, true
	}
	size, ok := decodeInt(raw)
	return Rotate{On: true, Size: size}, ok && size > 0
}

func decodeVerify(raw []byte) (v Verify, problem string) {
	if v, ok := decodeBool(raw); ok {
		return Verify{On: v}, ""
	}
	path, ok := decodeString(raw)
	if !ok || path == "" || strings.ContainsRune(path, 0) {
		return Verify{}, "."
	}
	path, err := fullPath(path)
	if err != nil {
		return Verify{}, ": " + err.Error()
	}
	return Verify{On: true, File: path}, ""
}

// decodeProxy never quotes a value: one of them is a password.
func decodeProxy(raw []byte) (p Proxy, problem string) {
	const want = "an object with enabled, address, port, authorization and ssl_server"
	o, err := parseObject(raw)
	if err != nil {
		return p, "want " + want
	}
	p.null = len(o.members) == 0
	for _, m := range o.members {
		v, ok := m.value(raw), true
		switch m.name {
		case "enabled":
			if p.Enabled, ok = decodeBool(v); !ok {
				return p, "enabled: want true or false"
			}
		case "address":
			if p.Addr.Host, ok = decodeString(v); !ok {
				return p, "address: want the proxy's host as a string"
			}
		case "port":
			if p.Addr.Port, p.Addr.text, ok = decodePort(v); !ok {
				return p, "port: want a number from 0 to 65535"
			}
		case "ssl_server":
			if p.TLS, ok = decodeBool(v); !ok {
				return p, "ssl_server: want true or false"
			}
		case "authorization":
			if p.Username, p.Password, ok = decodeAuthorization(v); !ok {
				return p, `authorization: want "", or an object with username and password`
			}
		default:
			return p, fmt.Sprintf("%s: no such key: want %s", printable(m.name), want)
		}
	}
	return p, ""
}

func decodeAuthorization(raw []byte) (user, password string, ok bool) {
	if s, isString := decodeString(raw); isString && s == "" || string(raw) == "null" || string(raw) == "false" {
		return "", "", true
	}
	o, err := parseObject(raw)
	if err != nil {
		return "", "", false
	}
	for _, m := range o.members {
		switch m.name {
		case "username":
			user, ok = decodeString(m.value(raw))
		case "password":
			password, ok = decodeString(m.value(raw))
		default:
			ok = false
		}
		if !ok {
			return "", "", false
		}
	}
	return user, password, len(o.members) == 0 || user != ""
}

func decodeTargets(raw []byte) (targets map[string]FileTarget, problem string) {
	o, err := parseObject(raw)
	if err != nil {
		return nil, "got " + shorten(string(raw)) + `, want an object such as {"any": {"target_directory": "/srv/files"}}`
	}
	targets = map[string]FileTarget{}
	for _, m := range o.members {
		v := m.value(raw)
		inner, err := parseObject(v)
		if err != nil {
			return nil, fmt.Sprintf("%s: got %s, want an object with target_directory", printable(m.name), shorten(string(v)))
		}
		var t FileTarget
		for _, f := range inner.members {
			fv, ok, want := f.value(v), true, "a string"
			switch f.name {
			case "target_directory":
				t.Directory, ok = decodeString(fv)
			case "owner":
				if string(fv) != "null" {
					t.Owner, ok = decodeString(fv)
				}
			case "override_existing":
				want = "true or false"
				t.Override, ok = decodeBool(fv)
			case "mode":
				want = `a string of octal digits, such as "640"`
				t.Mode, ok = decodeString(fv)
			case "accept_owner":
				want = "true or false"
				t.AnyOwner, ok = decodeBool(fv)
			default:
				return nil, fmt.Sprintf("%s: %s: no such key: want target_directory, owner, override_existing, mode and accept_owner", printable(m.name), printable(f.name))
			}
			if !ok {
				return nil, fmt.Sprintf("%s: %s: got %s, want %s", printable(m.name), f.name, shorten(string(fv)), want)
			}
		}
		targets[m.name] = t
	}
	return targets, ""
}
