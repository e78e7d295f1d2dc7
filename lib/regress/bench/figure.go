package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Verdicts on a figure that has a floor or a ceiling.
const (
	pass  = "PASS"
	below = "below"
)

// figure is one number that was measured, or made of two that were.
type figure struct {
	Name    string    `json:"figure"`
	Subject string    `json:"subject"`
	Size    int       `json:"size,omitempty"` // of a message's data, in bytes
	TLS     string    `json:"tls,omitempty"`
	Disk    string    `json:"disk,omitempty"` // file system, where it counts
	Value   float64   `json:"value"`          // the median of Runs where there are some
	Unit    string    `json:"unit"`
	Runs    []float64 `json:"runs,omitempty"`
	Count   int       `json:"count,omitempty"`    // messages, requests or starts in one run
	AtLeast float64   `json:"at_least,omitempty"` // the floor
	AtMost  float64   `json:"at_most,omitempty"`  // the ceiling
	Verdict string    `json:"verdict,omitempty"`
}

// judge sets the verdict.
func (f figure) judge() figure {
	switch {
	case f.AtLeast != 0 && f.Value < f.AtLeast, f.AtMost != 0 && f.Value > f.AtMost:
		f.Verdict = below
	case f.AtLeast != 0 || f.AtMost != 0:
		f.Verdict = pass
	}
	return f
}

// bound tells the floor or ceiling in words, if there is one.
func (f figure) bound() string {
	switch {
	case f.AtLeast != 0:
		return fmt.Sprintf("(at least %v)", f.AtLeast)
	case f.AtMost != 0:
		return fmt.Sprintf("(at most %v)", f.AtMost)
	}
	return ""
}

// median is the middle value, or the mean of the two in the middle; 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// percentile is the smallest of the values that is not smaller than p hundredths of them; 0 of
// nothing.
func percentile[T cmp.Ordered](values []T, p float64) (v T) {
	if len(values) == 0 {
		return v
	}
	s := slices.Sorted(slices.Values(values))
	i := int(math.Ceil(p/100*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// report is all figures, in the order in which they were made.
type report struct{ figures []figure }

// add adds a figure with its runs and gives it their median.
func (r *report) add(f figure, runs []float64) {
	f.Runs, f.Value = runs, median(runs)
	r.figures = append(r.figures, f.judge())
}

// value finds a figure's value; false when it was not measured.
func (r *report) value(name, subject string, size int, tls string) (float64, bool) {
	for _, f := range r.figures {
		if f.Name == name && f.Subject == subject && f.Size == size && f.TLS == tls {
			return f.Value, true
		}
	}
	return 0, false
}

// ratio adds the figure subject a / b of a measured figure, with its floor or ceiling, if both were
// measured. The subject of the new figure is "a / b".
func (r *report) ratio(name, a, b string, like figure) {
	x, okX := r.value(name, a, like.Size, like.TLS)
	y, okY := r.value(name, b, like.Size, like.TLS)
	if !okX || !okY || y == 0 {
		return
	}
	like.Name, like.Subject, like.Value, like.Unit = name+" ratio", a+" / "+b, x/y, "ratio"
	r.figures = append(r.figures, like.judge())
}

// lines writes every figure as a line of JSON.
func (r *report) lines(w io.Writer) error {
	for _, f := range r.figures {
		p, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s\n", p); err != nil {
			return err
		}
	}
	return nil
}

// missed is how many figures are below their floor or above their ceiling.
func (r *report) missed() (n int) {
	for _, f := range r.figures {
		if f.Verdict == below {
			n++
		}
	}
	return n
}

// table writes the figures of one name for people: a row for each size and mode, a column for each
// subject.
func (r *report) table(w io.Writer, title, name string) error {
	var rows, columns []string
	cells := map[[2]string]string{}
	for _, f := range r.figures {
		if f.Name != name {
			continue
		}
		row := f.row()
		if !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
		if !slices.Contains(columns, f.Subject) {
			columns = append(columns, f.Subject)
		}
		cells[[2]string{row, f.Subject}] = f.cell()
	}
	if len(rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	text := title + "\t" + strings.Join(columns, "\t") + "\t\n"
	for _, row := range rows {
		text += row + "\t"
		for _, column := range columns {
			text += cells[[2]string{row, column}] + "\t"
		}
		text += "\n"
	}
	if _, err := io.WriteString(t, text+"\n"); err != nil {
		return err
	}
	return t.Flush()
}

// row is the name of the figure's row.
func (f figure) row() string {
	var words []string
	if f.Size != 0 {
		words = append(words, sizeText(f.Size))
	}
	if f.TLS != "" {
		words = append(words, tlsText(f.TLS))
	}
	if f.Disk != "" {
		words = append(words, f.Disk)
	}
	return strings.Join(words, ", ")
}

// cell is the figure's value in the table, with its verdict.
func (f figure) cell() string {
	text := number(f.Value)
	if f.Verdict != "" {
		text += " " + f.Verdict
	}
	return text
}

// sizeText is a number of bytes in words.
func sizeText(size int) string {
	switch {
	case size >= 1<<20 && size%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", size>>20)
	case size >= 1024 && size%1024 == 0:
		return fmt.Sprintf("%d KiB", size/1024)
	}
	return fmt.Sprintf("%d B", size)
}

// tlsText is a mode in words.
func tlsText(mode string) string {
	if mode == "off" {
		return "no TLS"
	}
	return "TLS"
}

// number is a value with three digits that count, thousands and millions abbreviated.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return digits(v/1e6) + " M"
	case v >= 1e4:
		return digits(v/1e3) + " k"
	}
	return digits(v)
}

// digits is a value with three digits that count.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// tables writes all figures for people.
func (r *report) tables(w io.Writer) error {
	for _, t := range append([][2]string{
		{"messages/s", "throughput"},
		{"MB/s of data", "bandwidth"},
		{"CPU of all processes, us/message", "cpu"},
		{"most memory of a daemon, MiB", "peak memory"},
		{"request and response p50, us", "round trip p50"},
		{"request and response p99, us", "round trip p99"},
		{"start-up with one message, ms", "start-up"},
		{"idle memory, MiB", "idle memory"},
		{"with certificates", fmt.Sprintf("%d clients enrol at once", enrolments)},
		{"a second", "full handshakes"},
		{"durable messages/s", "durable"},
		{"files, MB/s", "files"},
		{"files, CPU of both ends, s/GB", "cpu of files"},
		{"most memory of a daemon, MiB", "peak memory with files"},
		{"request and response while a file travels, p50, us", "round trip beside a file p50"},
		{"request and response while a file travels, p99, us", "round trip beside a file p99"},
	}, fanTables()...) {
		if err := r.table(w, t[0], t[1]); err != nil {
			return err
		}
	}
	return r.verdicts(w)
}

// verdicts writes a line for each ratio and for each figure that has a floor or a ceiling.
func (r *report) verdicts(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	text := ""
	for _, f := range r.figures {
		if f.Verdict == "" && f.Unit != "ratio" {
			continue
		}
		words := []string{strings.TrimSuffix(f.Name, " ratio"), f.Subject}
		if row := f.row(); row != "" {
			words = append(words, row)
		}
		text += fmt.Sprintf("%s\t%s\t%s\t%s\n", f.Verdict, strings.Join(words, ", "), digits(f.Value), f.bound())
	}
	if _, err := io.WriteString(t, text); err != nil {
		return err
	}
	return t.Flush()
}
