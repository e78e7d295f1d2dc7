package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNamesOfSpoolsAreThoseOfFilesAndNeverTheSame(t *testing.T) {
	long := strings.Repeat("x", 300)
	names := []string{
		"a", "A", "a-b", "ab", "a_b", "a:b", "a.b", "a%b", "a%3ab", ":", "::", ".", "..", "...", "a/b", "/", "a b", "a\nb", "a\x00b",
		"('127.0.0.1', 10673)", "127.0.0.1", "é", "\xff", "%", "%%", "name", "漢字", long, long + "y", strings.Repeat(":", 128),
	}
	dir := t.TempDir()
	for _, name := range names {
		file := escapeName(name)
		if file == "." || file == ".." || len(file) > 255 || strings.ContainsAny(file, "/\x00\n") {
			t.Errorf("%q: %q is not the name of a file", name, file)
		}
		path := filepath.Join(dir, file)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		if LongName(path) {
			if err := os.WriteFile(filepath.Join(path, SpoolName), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, other := range []string{"%zz", "%4", "a%41", ".a", "%%x", "file"} { // nobody's
		path := filepath.Join(dir, other)
		if other == "file" {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	got, err := SpoolNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("got %q\nwant %q", got, names)
	}
	if got, err := SpoolNames(filepath.Join(dir, "none")); err != nil || len(got) != 0 {
		t.Errorf("of no directory: got %q, %v", got, err)
	}
}

func TestConnectorsHaveSpoolsOfTheirOwn(t *testing.T) {
	dirs := map[string]string{}
	for _, name := range []string{"ab", "a-b", "AB", "a:b"} {
		c := Defaults()
		c.IsServer, c.ClientName = false, name
		dir := c.Paths().Spool
		if other := dirs[dir]; other != "" {
			t.Errorf("%q and %q share %s", name, other, dir)
		}
		dirs[dir] = name
	}
	c := Defaults()
	if got, want := filepath.Base(c.Paths().Spool), "spool_server_127%2e0%2e0%2e1.10673"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p := c.Paths()
	if got, want := p.SpoolType(p.SpoolTo("pump7"), "a b"), filepath.Join(p.Spool, "to", "pump7", "a%20b"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTypesThatAreToBeOnDiskNeedRoomThere(t *testing.T) {
	c := Defaults()
	c.MaxPersistenceSize = 0
	if problems := c.Check(); len(problems) > 0 {
		t.Errorf("without types: %v", problems)
	}
	c.PersistSend = Types{All: true}
	if problems := c.Check(); len(problems) != 1 || !strings.Contains(problems[0].Error(), "max_size_persistence_path") {
		t.Errorf("with types: %v", problems)
	}
}
