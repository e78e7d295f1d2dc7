package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"aioc/lib/cli"
)

// table is a text in columns for people.
type table struct {
	title []string // the words above the columns, nil without
	rows  [][]string
}

func (t *table) head(words ...string) { t.title = words }

// row adds a line. What came from others cannot break it.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = cli.Escape(c)
	}
	t.rows = append(t.rows, cells)
}

// Room that the layout wants.
const (
	gap       = 2  // between columns
	leastLast = 16 // of a last column whose words are wrapped
)

// text lays the table out for a number of columns, 0 for as many as it needs.
// Where there is too little room the last column is wrapped between words. If
// that is not enough, each row becomes some lines, with the words of the title
// in front of the cells.
func (t *table) text(columns int) string {
	all := t.rows
	if t.title != nil {
		all = append([][]string{t.title}, all...)
	}
	// What a column takes is what has another one behind it, or is in the last.
	var widths []int
	for _, row := range all {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			if i < len(row)-1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(c))
			}
		}
	}
	before := 0 // the last column
	for _, n := range widths[:max(len(widths)-1, 0)] {
		before += n + gap
	}
	var b strings.Builder
	widest := 0
	for _, row := range all {
		n := 0
		for i, c := range row {
			if n += utf8.RuneCountInString(c); i < len(row)-1 {
				n += widths[i] - utf8.RuneCountInString(c) + gap
			}
		}
		widest = max(widest, n)
	}
	if columns > 0 && widest > columns && columns-before < leastLast && len(widths) > 1 {
		t.records(&b, columns)
		return b.String()
	}
	for _, row := range all {
		line, indent := "", 0
		for i, c := range row[:max(len(row)-1, 0)] {
			line += c + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c)+gap)
			indent += widths[i] + gap
		}
		if len(row) > 0 {
			line += strings.Join(wrap(row[len(row)-1], columns-indent), "\n"+strings.Repeat(" ", indent))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// records lays the table out with a line or more for each cell.
func (t *table) records(b *strings.Builder, columns int) {
	label := 0
	for _, word := range t.title {
		label = max(label, utf8.RuneCountInString(word)+gap)
	}
	if label > columns/2 {
		label = gap
	}
	for k, row := range t.rows {
		if k > 0 && t.title != nil && len(row) > 1 {
			b.WriteString("\n")
		}
		for i, c := range row {
			word, indent := "", label
			switch {
			case t.title == nil && i > 0:
				indent = gap
			case t.title == nil || len(row) == 1:
				indent = 0
			case i < len(t.title):
				word = t.title[i]
			}
			if c == "" {
				continue
			}
			if n := utf8.RuneCountInString(word); n > 0 {
				word += strings.Repeat(" ", max(indent-n, gap))
			} else {
				word = strings.Repeat(" ", indent)
			}
			b.WriteString(word + strings.Join(wrap(c, columns-indent), "\n"+strings.Repeat(" ", indent)) + "\n")
		}
	}
}

// wrap breaks a text between words into lines of at most so many characters; what
// has no space stays whole. With 0 or less it is one line.
func wrap(text string, columns int) (lines []string) {
	if columns <= 0 || utf8.RuneCountInString(text) <= columns {
		return []string{text}
	}
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
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
	t := &table{}
	if fill != nil {
		fill(t)
	} else {
		t.value("", v)
	}
	return p.write([]byte(t.text(columnsOf(p.stdout))))
}

// columnsOf is how wide a stream is if it is a terminal, else 0.
func columnsOf(stream any) int {
	f, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 {
		return 0
	}
	return columns
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

// harmless returns text with what a terminal could take for a command written as
// JSON writes it: there, and in the text of metrics, names of others stand as they
// are.
func harmless(text []byte) []byte {
	bad := func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }
	if !bytes.ContainsFunc(text, bad) {
		return text
	}
	var b []byte
	for _, r := range string(text) {
		switch {
		case !bad(r):
			b = utf8.AppendRune(b, r)
		case r > 0xffff:
			for _, half := range utf16.Encode([]rune{r}) {
				b = fmt.Appendf(b, `\u%04x`, half)
			}
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
	}
	return b
}

// Write is write, for those who want a writer.
func (p *program) Write(text []byte) (int, error) {
	if err := p.write(text); err != nil {
		return 0, err
	}
	return len(text), nil
}

// write writes to standard output.
func (p *program) write(text []byte) error {
	if terminal(p.stdout) {
		text = harmless(text)
	}
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
