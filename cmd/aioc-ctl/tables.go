package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"aioc/lib/cli"
)

// table is a text in columns for people.
type table struct{ w *tabwriter.Writer }

func (t *table) head(words ...string) { t.row(words...) }

// row adds a line. What came from others cannot break it.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = cli.Escape(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// emit prints a value: as a table on a terminal, else as one line of JSON. With
// no table, the value is laid out by its type.
func (p *program) emit(v any, fill func(*table)) error {
	if p.opt.json || !p.menu && !terminal(p.stdout) {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			return err
		}
		return p.write(b.Bytes())
	}
	var b bytes.Buffer
	t := &table{tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)}
	if fill != nil {
		fill(t)
	} else {
		t.value("", v)
	}
	if err := t.w.Flush(); err != nil {
		return err
	}
	return p.write(trimLines(b.Bytes()))
}

// trimLines removes the spaces that pad the last column.
func trimLines(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		out = append(append(out, bytes.TrimRight(line, " \n")...), '\n')
	}
	return out
}

// value lays out what JSON holds, keys in order.
func (t *table) value(key string, v any) {
	switch v := v.(type) {
	case map[string]any:
		var keys []string
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			name := k
			if key != "" {
				name = key + "." + k
			}
			t.value(name, v[k])
		}
	case []any:
		for i, e := range v {
			switch e.(type) {
			case map[string]any, []any:
				t.value(strings.TrimPrefix(key+"."+strconv.Itoa(i), "."), e)
			default:
				t.value(key, e)
			}
		}
		if len(v) == 0 && key != "" {
			t.row(key, "-")
		}
	default:
		cells := []string{key, word(v)}
		if key == "" {
			cells = cells[1:]
		}
		t.row(cells...)
	}
}

func word(v any) string {
	switch v := v.(type) {
	case nil:
		return "-"
	case string:
		return v
	}
	return fmt.Sprint(v)
}

// write writes to standard output.
func (p *program) write(text []byte) error {
	if _, err := p.stdout.Write(text); err != nil {
		return outputError{fmt.Errorf("standard output: %w", err)}
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is a length of time in two units at most.
func age(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	switch days := d / (24 * time.Hour); {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// size is a number of bytes with a unit.
func size(n int64) string {
	if n < 10000 {
		return strconv.FormatInt(n, 10)
	}
	f := float64(n)
	for _, unit := range []string{"K", "M", "G"} {
		f /= 1024
		if f < 1024 || unit == "G" {
			return fmt.Sprintf("%.1f%s", f, unit)
		}
	}
	return ""
}
