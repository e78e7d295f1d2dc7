package durable

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCleanRemovesOnlyOldTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-2 * tempAge)
	for _, f := range []struct {
		name string
		at   time.Time
		gone bool
	}{
		{".aioc-0123456789abcdef.tmp", long, true},
		{".aioc-0123456789abcdee.tmp", time.Now(), false},
		{".aioc-0123456789abcde.tmp", long, false},
		{".aioc-0123456789abcdeg.tmp", long, false},
		{".aioc-pump7.key", long, false},
		{"0123456789abcdef.tmp", long, false},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, f.at, f.at); err != nil {
			t.Fatal(err)
		}
		want := 0
		if f.gone {
			want = 1
		}
		_, err := os.Stat(path)
		if got := Clean(dir); got != want || err != nil {
			t.Errorf("%s: %d removed, want %d", f.name, got, want)
		}
		if _, err := os.Stat(path); os.IsNotExist(err) != f.gone {
			t.Errorf("%s: %v, want it gone %v", f.name, err, f.gone)
		}
	}
	if n := Clean(filepath.Join(dir, "none")); n != 0 {
		t.Errorf("no directory: %d", n)
	}
}
