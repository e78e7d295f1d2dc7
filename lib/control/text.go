package control

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Raw is a reply that is printed as it is, whatever it holds.
type Raw string

// Set is a reply that Python prints as a set.
type Set []string

// Networks is a reply that Python prints as a set of its networks.
type Networks []string

// Tuple is a reply that Python prints as a tuple.
type Tuple []any

// Text is the reply to a command as the commander socket of the original sends
// it: Python's str(v) if v is true for Python, else {}. What only this toolkit
// replies is JSON.
func Text(v any) string {
	switch v := v.(type) {
	case nil:
		return "{}"
	case Raw:
		if v == "" {
			return "{}"
		}
		return string(v)
	case string:
		if v == "" {
			return "{}"
		}
		return v
	case bool:
		// Both are texts already when the original asks whether they are true.
		return pythonBool(v)
	case []string:
		if len(v) == 0 {
			return "{}"
		}
	}
	switch reflect.TypeOf(v).Kind() {
	case reflect.Struct, reflect.Pointer, reflect.Slice, reflect.Map:
		if known(v) {
			break
		}
		// The original has no such reply; a program can read this one.
		text, err := json.Marshal(v)
		if err != nil {
			return "error: " + err.Error()
		}
		return string(text)
	}
	return repr(v)
}

// known reports whether Python has a form for the type.
func known(v any) bool {
	switch v.(type) {
	case []string, []any, Tuple, Set, Networks, map[string]any:
		return true
	}
	return false
}

func pythonBool(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

// repr is Python's repr of a value.
func repr(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return pythonBool(v)
	case Raw:
		return string(v)
	case string:
		return reprString(v)
	case int:
		return strconv.Itoa(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return reprFloat(v)
	case json.Number:
		return v.String()
	case []string:
		return "[" + join(v, func(s string) string { return reprString(s) }) + "]"
	case []any:
		return "[" + join(v, repr) + "]"
	case Tuple:
		if len(v) == 1 {
			return "(" + repr(v[0]) + ",)"
		}
		return "(" + join(v, repr) + ")"
	case Set:
		if len(v) == 0 {
			return "set()"
		}
		return "{" + join(v, func(s string) string { return reprString(s) }) + "}"
	case Networks:
		if len(v) == 0 {
			return "set()"
		}
		return "{" + join(v, func(s string) string {
			version := "4"
			if strings.Contains(s, ":") {
				version = "6"
			}
			return "IPv" + version + "Network(" + reprString(s) + ")"
		}) + "}"
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		return "{" + join(keys, func(k string) string { return reprString(k) + ": " + repr(v[k]) }) + "}"
	}
	return reprString(fmt.Sprint(v))
}

// reprFloat is the shortest text that is the same number, with an exponent where
// Python writes one.
func reprFloat(f float64) string {
	switch abs := math.Abs(f); {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.ToLower(strings.TrimPrefix(fmt.Sprint(f), "+"))
	case abs != 0 && (abs < 1e-4 || abs >= 1e16):
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func join[T any](list []T, f func(T) string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = f(v)
	}
	return strings.Join(parts, ", ")
}

// reprString quotes as Python does: single quotes, unless the text has one and
// no double quote.
func reprString(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b := []byte{quote}
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x100 && !unicode.IsPrint(r):
			b = fmt.Appendf(b, `\x%02x`, r)
		case !unicode.IsPrint(r) && r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		case !unicode.IsPrint(r):
			b = fmt.Appendf(b, `\U%08x`, r)
		default:
			b = append(b, string(r)...)
		}
	}
	return string(append(b, quote))
}
