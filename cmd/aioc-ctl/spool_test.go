package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/spool"
	"aioc/lib/wire"
)

// logDir makes a log with three messages, as a connector does, and returns the
// directory of the connector and that of the log.
func logDir(t *testing.T) (dir, log string) {
	t.Helper()
	dir = t.TempDir()
	log = filepath.Join(dir, "spool_server_x", "from", "any")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	l, _, err := spool.Open(log, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	frame, err := wire.AppendFrame(nil, []byte(`{"message_type": "any"}`), []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := l.Append([]spool.Record{{Seq: uint64(n + 1), Frame: frame}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Commit(3); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, log
}

func TestLogsOnDiskAreVerifiedDumpedAndSalvaged(t *testing.T) {
	dir, log := logDir(t)
	copied := filepath.Join(t.TempDir(), "copy")
	for _, tt := range []struct {
		args   []string
		status int
		out    string
	}{
		{[]string{"-dir", t.TempDir(), "spool", "verify"}, 0, "[]\n"},
		{[]string{"-dir", dir, "spool", "verify"}, 0, `[{"directory":"` + log + `","waiting":3,`},
		{[]string{"spool", "verify", log}, 0, `[{"directory":"` + log + `","waiting":3,`},
		{[]string{"spool", "dump", log}, 0, `{"kind":"message"`},
		{[]string{"spool", "dump", "-frames", log}, 0, `{"kind":"message"`},
		{[]string{"spool", "salvage", log, copied}, 0, "3\n"},
		{[]string{"spool", "verify", copied}, 0, `[{"directory":"` + copied + `","waiting":3,`},
		{[]string{"spool", "salvage", log, copied}, 1, ""},
		{[]string{"spool", "verify", dir + "/none"}, 1, ""},
		{[]string{"-dir", dir + "/none", "spool", "verify"}, 1, ""},
		{[]string{"spool", "dump"}, 2, ""},
		{[]string{"spool", "salvage", log}, 2, ""},
		{[]string{"spool", "eat"}, 2, ""},
		{[]string{"spool", "verify", "a", "b"}, 2, ""},
	} {
		status, out, errs := ctl(t, "", tt.args...)
		if status != tt.status || !strings.HasPrefix(out, tt.out) || (status == 0) != (errs == "") {
			t.Errorf("%q: status %d, %q, %q; want %d, %q", tt.args, status, out, errs, tt.status, tt.out)
		}
	}
}

func TestDamageIsSaid(t *testing.T) {
	_, log := logDir(t)
	files, err := filepath.Glob(filepath.Join(log, "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(b), "hello")
	if i < 0 {
		t.Fatal("the message is not in the log")
	}
	b[i] ^= 1
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	status, out, errs := ctl(t, "", "spool", "verify", log)
	if status != 1 || errs != "" || !strings.Contains(out, `"waiting":2`) || strings.Contains(out, `"damage":[]`) {
		t.Errorf("status %d, %q, %q", status, out, errs)
	}
}
