package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestLevels(t *testing.T) {
	for _, name := range []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"} {
		level, err := ParseLevel(name)
		if err != nil {
			t.Errorf("ParseLevel(%q): %v", name, err)
		}
		if got := LevelName(level); got != name {
			t.Errorf("LevelName(ParseLevel(%q)) = %q", name, got)
		}
		if lower, err := ParseLevel(strings.ToLower(name)); lower != level || err != nil {
			t.Errorf("ParseLevel(%q) = %v, %v; want %v", strings.ToLower(name), lower, err, level)
		}
	}
	if level, err := ParseLevel("WARN"); level != slog.LevelWarn || err != nil {
		t.Errorf("ParseLevel(WARN) = %v, %v", level, err)
	}
	for _, name := range []string{"", "LOUD", "10", "INFO\n"} {
		if _, err := ParseLevel(name); err == nil || !strings.Contains(err.Error(), "want DEBUG, INFO") {
			t.Errorf("ParseLevel(%q): error %v", name, err)
		}
	}
}

// record is a record of a fixed time.
func record(level slog.Level, message string, args ...any) slog.Record {
	r := slog.NewRecord(time.Date(2026, 11, 22, 19, 0, 0, 5e6, time.FixedZone("", 3600)), level, message, 0)
	r.Add(args...)
	return r
}

func TestTextLog(t *testing.T) {
	tests := []struct {
		name   string
		record slog.Record
		want   string
	}{
		{"a line is time in UTC, level, message and keys",
			record(slog.LevelInfo, "link up", "peer", "pump7", "n", 3, "wait", 2*time.Second),
			"2026-11-22T18:00:00.005Z info link up peer=pump7 n=3 wait=2s\n"},
		{"the levels have their names", record(LevelCritical, "stopped"), "2026-11-22T18:00:00.005Z critical stopped\n"},
		{"a value with a space is quoted", record(slog.LevelWarn, "m", "err", errors.New("no such file")),
			"2026-11-22T18:00:00.005Z warning m err=\"no such file\"\n"},
		{"an empty value shows", record(slog.LevelError, "m", "id", ""), "2026-11-22T18:00:00.005Z error m id=\"\"\n"},
		{"a value cannot break the line", record(slog.LevelInfo, "m", "id", "a\nb\x1b"),
			"2026-11-22T18:00:00.005Z info m id=\"a\\nb\\x1b\"\n"},
		{"a value cannot pass for another key", record(slog.LevelInfo, "m", "id", "a=b"),
			"2026-11-22T18:00:00.005Z info m id=\"a=b\"\n"},
		{"a key cannot break the line", record(slog.LevelInfo, "m", "k\n", 1),
			"2026-11-22T18:00:00.005Z info m \"k\\n\"=1\n"},
		{"the message cannot break the line", record(slog.LevelInfo, "m\nx"), "2026-11-22T18:00:00.005Z info m\\nx\n"},
		{"bytes are text", record(slog.LevelInfo, "m", "b", []byte("hi")), "2026-11-22T18:00:00.005Z info m b=hi\n"},
		{"a group is a prefix", record(slog.LevelInfo, "m", slog.Group("g", "a", 1, "b", 2)),
			"2026-11-22T18:00:00.005Z info m g.a=1 g.b=2\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			h := NewLogger(&out, LogText, slog.LevelDebug).Handler()
			if err := h.Handle(t.Context(), tt.record); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.want {
				t.Errorf("got  %q\nwant %q", &out, tt.want)
			}
		})
	}
}

func TestLogWithAttrsAndGroups(t *testing.T) {
	var out strings.Builder
	h := NewLogger(&out, LogText, slog.LevelDebug).With("role", "client").WithGroup("link").With("id", "a b").Handler()
	if err := h.Handle(context.Background(), record(slog.LevelInfo, "up", "n", 1)); err != nil {
		t.Fatal(err)
	}
	want := "2026-11-22T18:00:00.005Z info up role=client link.id=\"a b\" link.n=1\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

func TestJournalLogHasPrioritiesAndNoTime(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: "<7>m a=1\n", slog.LevelInfo: "<6>m a=1\n", slog.LevelWarn: "<4>m a=1\n",
		slog.LevelError: "<3>m a=1\n", LevelCritical: "<2>m a=1\n",
	} {
		var out strings.Builder
		h := NewLogger(&out, LogJournal, slog.LevelDebug).Handler()
		if err := h.Handle(t.Context(), record(level, "m", "a", 1)); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("%v: got %q, want %q", level, &out, want)
		}
	}
}

func TestJSONLog(t *testing.T) {
	var out strings.Builder
	h := NewLogger(&out, LogJSON, slog.LevelDebug).Handler()
	if err := h.Handle(t.Context(), record(slog.LevelWarn, "m\n", "wait", time.Second, "err", errors.New("x"))); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatalf("%v in %q", err, &out)
	}
	want := map[string]any{"time": "2026-11-22T18:00:00.005Z", "level": "warning", "msg": "m\n", "wait": "1s", "err": "x"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q is not one line", &out)
	}
}

func TestLevelChangesWhileRunning(t *testing.T) {
	for _, format := range []LogFormat{LogText, LogJSON, LogJournal} {
		var out strings.Builder
		var level slog.LevelVar
		log := NewLogger(&out, format, &level)
		log.Debug("hidden")
		level.Set(slog.LevelDebug)
		log.Debug("shown")
		level.Set(slog.LevelError)
		log.Warn("hidden")
		if got := out.String(); strings.Contains(got, "hidden") || !strings.Contains(got, "shown") {
			t.Errorf("format %d: logged %q", format, got)
		}
	}
}

// lineWriter counts writes that are not one whole line.
type lineWriter struct{ lines, bad int }

func (w *lineWriter) Write(p []byte) (int, error) {
	w.lines++
	if strings.Count(string(p), "\n") != 1 || p[len(p)-1] != '\n' {
		w.bad++
	}
	return len(p), nil
}

func TestConcurrentRecordsAreWholeLines(t *testing.T) {
	var out lineWriter
	log := NewLogger(&out, LogText, slog.LevelInfo)
	var wg sync.WaitGroup
	for i := range 8 {
		l := log.With("worker", i)
		wg.Go(func() {
			for n := range 100 {
				l.Info("step", "n", n)
			}
		})
	}
	wg.Wait()
	if out.lines != 800 || out.bad != 0 {
		t.Errorf("%d writes, %d of them not one line; want 800, 0", out.lines, out.bad)
	}
}

func TestParseLogFormat(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	here := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	tests := []struct {
		name, word, stream string
		want               LogFormat
		ok                 bool
	}{
		{"text is text", "text", "", LogText, true},
		{"text into the journal has priorities", "text", here, LogJournal, true},
		{"a journal that is another file is not meant", "text", "1:2", LogText, true},
		{"json stays json in the journal", "json", here, LogJSON, true},
		{"other words are refused", "xml", "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("JOURNAL_STREAM", tt.stream)
			got, err := ParseLogFormat(tt.word, f)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("ParseLogFormat(%q) = %v, %v; want %v, ok %v", tt.word, got, err, tt.want, tt.ok)
			}
		})
	}
}

func TestAValueIsAtMostSoLong(t *testing.T) {
	long := strings.Repeat("é", 100_000)
	for _, format := range []LogFormat{LogText, LogJSON, LogJournal} {
		var b strings.Builder
		log := NewLogger(&b, format, slog.LevelDebug)
		log.Info("m", "type", long, "err", errors.New(long), "bytes", []byte(long))
		if format == LogJSON {
			log.Info("m", "type", long)
		}
		for line := range strings.Lines(b.String()) {
			if format != LogJSON && len(line) > 3*maxValue+200 {
				t.Errorf("%v: a line of %d bytes", format, len(line))
			}
			if !strings.Contains(line, "ééé... (200000 bytes)") {
				t.Errorf("%v: %.300s", format, line)
			}
		}
	}
}
