package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []float64
		want float64
	}{
		{"nothing", nil, 0},
		{"one", []float64{3}, 3},
		{"an odd number, unsorted", []float64{9, 1, 5}, 5},
		{"an even number", []float64{4, 1, 2, 9}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.in); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = 100 - i
	}
	for _, tt := range []struct {
		name string
		in   []int
		p    float64
		want int
	}{
		{"nothing", nil, 50, 0},
		{"the only one", []int{7}, 99, 7},
		{"half of a hundred", hundred, 50, 50},
		{"99 of a hundred", hundred, 99, 99},
		{"all", hundred, 100, 100},
		{"none", hundred, 0, 1},
		{"99 of three", []int{3, 1, 2}, 99, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := percentile(tt.in, tt.p); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    figure
		want string
	}{
		{"no bound", figure{Value: 1}, ""},
		{"above the floor", figure{Value: 0.31, AtLeast: 0.3}, pass},
		{"on the floor", figure{Value: 0.3, AtLeast: 0.3}, pass},
		{"below the floor", figure{Value: 0.29, AtLeast: 0.3}, below},
		{"under the ceiling", figure{Value: 1.9, AtMost: 2}, pass},
		{"over the ceiling", figure{Value: 2.1, AtMost: 2}, below},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.f.judge().Verdict; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// sample is a report of two subjects and their ratio.
func sample() *report {
	r := &report{}
	like := figure{Name: "throughput", Size: 100, TLS: "off", Unit: "messages/s", Count: 5}
	like.Subject = ours
	r.add(like, []float64{3e6, 1e6, 2e6})
	like.Subject = lookup
	r.add(like, []float64{8e6})
	r.ratio("throughput", ours, lookup, figure{Size: 100, TLS: "off", AtLeast: 0.3})
	r.ratio("throughput", ours, "original", figure{Size: 100, TLS: "off", AtLeast: 80})
	return r
}

func TestRatioIsOfMedians(t *testing.T) {
	r := sample()
	if len(r.figures) != 3 {
		t.Fatalf("got %d figures, want 3: no ratio to what was not measured", len(r.figures))
	}
	if f := r.figures[2]; f.Value != 0.25 || f.Verdict != below || f.Subject != "aioc -0 / relay look-up" {
		t.Errorf("got %+v, want the ratio 0.25, below", f)
	}
	if got := r.missed(); got != 1 {
		t.Errorf("got %d floors missed, want 1", got)
	}
}

func TestLinesAreJSON(t *testing.T) {
	var out strings.Builder
	if err := sample().lines(&out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("got %d lines, want 3", len(lines))
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, `{"figure":"`) || !json.Valid([]byte(line)) {
			t.Errorf("not a line for a figure: %s", line)
		}
	}
}

func TestTables(t *testing.T) {
	var out strings.Builder
	if err := sample().tables(&out); err != nil {
		t.Fatal(err)
	}
	want := `     messages/s  aioc -0  relay look-up
  100 B, no TLS   2.00 M         8.00 M

below  throughput, aioc -0 / relay look-up, 100 B, no TLS  0.25  (at least 0.3)
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestNumber(t *testing.T) {
	for _, tt := range []struct {
		in   float64
		want string
	}{{0, "0.00"}, {0.254, "0.25"}, {15.04, "15.0"}, {143, "143"}, {9999, "9999"}, {12345, "12.3 k"}, {6.54321e6, "6.54 M"}} {
		if got := number(tt.in); got != tt.want {
			t.Errorf("number(%v): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestTheTablesOfOpensslAreRead(t *testing.T) {
	const out = `                              sign    verify    sign/s verify/s
 256 bits ecdsa (nistp256)   0.0000s   0.0001s  40000.0  10000.0
                              op      op/s
 253 bits ecdh (X25519)   0.0000s  20000.0
`
	got, err := parseOpenssl(out, 2)
	if want := 2 / (2 * (1/40000. + 1/10000. + 2/20000.)); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "253 bits ecdh (X25519) 0.0000s many", " 256 bits ecdsa (nistp256) 1 2"} {
		if got, err := parseOpenssl(bad, 2); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}
