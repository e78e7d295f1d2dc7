package control

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sample is a Stats with something of everything, and with hostile names.
func sampleStats() *Stats {
	q := QueueStats{Waiting: 3, InHand: 2, Bytes: 500, Put: 1 << 60, PutBytes: 12345, Done: 7, Returned: 1}
	return &Stats{
		Name: "('::1', 10673)", Server: true, TLS: "certs", Version: "1.0", Started: time.Unix(1700000000, 5e8), Running: true,
		Peers: []PeerStats{{Name: "pump7", Connected: true, Since: 1.5, Queue: q, Lanes: []LaneStats{{"reading", 3, 500, 77, 1700000001500}, {"b\"\n", 1, 0, 0, 0}}}, {Name: "a\"b\\c\nd\xff", Queue: q}},
		Types: []TypeStats{{Type: "reading", Receivers: 1, Queue: q}}, Sent: 5,
		Dropped: map[string]uint64{"queue reading full": 3, "send: type": 1}, Events: map[string]uint64{"link up": 9},
		MemoryUsed: 9, MemoryLimit: 1 << 30,
		Disk:    &DiskStats{Bytes: 77, Syncs: Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{1, 2, 3}, Sum: 0.5}},
		Certs:   []CertStats{{Name: "server", NotAfter: time.Unix(1800000000, 0)}},
		Process: ProcessStats{Files: 12},
	}
}

func TestIgnoredTrafficIsReadFromBothFormsOfIt(t *testing.T) {
	for _, tt := range []struct {
		ignored any
		peer    string
		all     bool
		metric  string
	}{
		{nil, "", false, "0"},
		{false, "", false, "0"},
		{true, "", true, "1"},
		{[]string{"c1"}, "c1", false, "1"},
		{[]any{"c1"}, "c1", false, "1"},
		{[]any{}, "", false, "0"},
	} {
		s := &Stats{Name: "c", Ignored: tt.ignored}
		if peer, all := s.Ignores(); peer != tt.peer || all != tt.all {
			t.Errorf("%v: got %q, %v, want %q, %v", tt.ignored, peer, all, tt.peer, tt.all)
		}
		if want := `aioc_traffic_ignored{name="c"} ` + tt.metric + "\n"; !strings.Contains(s.Metrics(time.Now()), want) {
			t.Errorf("%v: no line %q", tt.ignored, want)
		}
	}
}

// The rules of the format: https://prometheus.io/docs/instrumenting/exposition_formats
var (
	helpLine   = regexp.MustCompile(`^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) \S.*$`)
	typeLine   = regexp.MustCompile(`^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)$`)
	sampleLine = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)+)\})? (\S+)$`)
)

// checkExposition returns what breaks the rules, and the samples.
func checkExposition(text string) (problems []string, samples map[string]float64) {
	samples = map[string]float64{}
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !strings.HasSuffix(text, "\n") {
		bad("no newline at the end")
	}
	seen := map[string]bool{}
	name, kind, help := "", "", ""
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if m := helpLine.FindStringSubmatch(line); m != nil {
			help = m[1]
			continue
		}
		if m := typeLine.FindStringSubmatch(line); m != nil {
			name, kind = m[1], m[2]
			if help != name || seen[name] {
				bad("family %s has no HELP before it, or comes twice", name)
			}
			if (kind == "counter") != strings.HasSuffix(name, "_total") {
				bad("%s is a %s", name, kind)
			}
			seen[name] = true
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			bad("not understood: %q", line)
			continue
		}
		family := m[1]
		if kind == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				family = strings.TrimSuffix(family, suffix)
			}
		}
		if family != name {
			bad("%s stands below %s", m[1], name)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			bad("%q: %v", line, err)
		}
		key := strings.TrimSuffix(line, " "+m[3])
		if _, twice := samples[key]; twice {
			bad("%s comes twice", key)
		}
		samples[key] = value
	}
	return problems, samples
}

func TestMetricsKeepTheRulesOfTheFormat(t *testing.T) {
	for name, s := range map[string]*Stats{"full": sampleStats(), "empty": {}} {
		problems, _ := checkExposition(s.Metrics(time.Unix(1700000100, 0)))
		for _, p := range problems {
			t.Errorf("%s: %s", name, p)
		}
	}
	text := sampleStats().Metrics(time.Unix(1700000100, 0))
	_, samples := checkExposition(text)
	for key, want := range map[string]float64{
		`aioc_peers_connected{name="('::1', 10673)"}`:                                       1,
		`aioc_peers_known{name="('::1', 10673)"}`:                                           2,
		`aioc_peer_queue_messages{name="('::1', 10673)",peer="pump7"}`:                      3,
		"aioc_peer_queue_put_total{name=\"('::1', 10673)\",peer=\"a\\\"b\\\\c\\nd\uFFFD\"}": 1 << 60,
		`aioc_lane_messages{name="('::1', 10673)",peer="pump7",type="reading"}`:             3,
		`aioc_lane_oldest_time_seconds{name="('::1', 10673)",peer="pump7",type="reading"}`:  1700000001.5,
		`aioc_lane_messages{name="('::1', 10673)",peer="pump7",type="b\"\n"}`:               1,
		`aioc_type_queue_in_hand_messages{name="('::1', 10673)",type="reading"}`:            2,
		`aioc_dropped_total{name="('::1', 10673)",reason="queue reading full"}`:             3,
		`aioc_disk_sync_seconds_bucket{name="('::1', 10673)",le="0.01"}`:                    3,
		`aioc_disk_sync_seconds_bucket{name="('::1', 10673)",le="+Inf"}`:                    6,
		`aioc_disk_sync_seconds_count{name="('::1', 10673)"}`:                               6,
		`aioc_start_time_seconds{name="('::1', 10673)"}`:                                    1700000000.5,
		`aioc_certificate_expiry_time_seconds{name="('::1', 10673)",certificate="server"}`:  1800000000,
		`aioc_uptime_seconds{name="('::1', 10673)"}`:                                        99.5,
	} {
		if got, ok := samples[key]; !ok || got != want {
			t.Errorf("%s: got %v, %v; want %v", key, got, ok, want)
		}
	}
	for key := range samples {
		if !strings.HasPrefix(key, "aioc_") {
			t.Errorf("%s: a name that others may use", key)
		}
	}
}

func TestRulesOfTheFormatAreNoticed(t *testing.T) {
	for _, text := range []string{
		"a 1", "a 1\n", "# TYPE a gauge\na 1\n", "# HELP a x\n# TYPE a counter\na 1\n", "# HELP a x\n# TYPE a gauge\na{b=\"\n\"} 1\n",
		"# HELP a x\n# TYPE a gauge\na 1\na 1\n", "# HELP a x\n# TYPE a gauge\nb 1\n", "# HELP a x\n# TYPE a gauge\na one\n",
	} {
		if problems, _ := checkExposition(text); len(problems) == 0 {
			t.Errorf("%q passed", text)
		}
	}
}
