package connector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/durable"
)

// contents describes all below a directory.
func contents(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all = append(all, fmt.Sprint(path, info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatIsKeptOnDiskIsChecked(t *testing.T) {
	s := server(t, types("d", "e"), onDisk("d"))
	if r, err := CheckSpools(s.cfg); r.Logs != 0 || r.Warnings != nil || err != nil {
		t.Errorf("before: got %+v, %v", r, err)
	}
	s.send(t, "d", "c1", padded(0, 20)...)
	s.send(t, "d", "c2", padded(0, 5)...)
	s.halt(t)
	before := contents(t, s.paths.Spool)
	r, err := CheckSpools(s.cfg)
	if r.Logs != 2 || r.Waiting != 25 || r.Unread != 0 || r.Warnings != nil || err != nil {
		t.Errorf("got %+v, %v; want 2 logs with 25 messages", r, err)
	}
	if now := contents(t, s.paths.Spool); !slices.Equal(now, before) {
		t.Errorf("it was changed: got\n%s\nwant\n%s", strings.Join(now, "\n"), strings.Join(before, "\n"))
	}

	// Damage, and a type that is received no more.
	dir := s.paths.SpoolType(s.paths.SpoolTo("c1"), "d")
	logs, err := filepath.Glob(dir + "/*.log")
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(s.paths.SpoolFrom("old"), 0o700); err != nil {
		t.Fatal(err)
	}
	r, err = CheckSpools(s.cfg)
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[0], `"old"`) || !strings.Contains(r.Warnings[1], logs[0]) || r.Waiting != 24 || err != nil {
		t.Errorf("with damage: got %+v, %v", r, err)
	}

	// Nor is a header that is gone taken for what a crash left: a start reads the
	// rest, and health says what becomes of the file.
	clear(text[:1024])
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = CheckSpools(s.cfg)
	if len(r.Warnings) != 2 || !strings.Contains(r.Warnings[1], logs[0]) || r.Waiting != 24 || err != nil {
		t.Errorf("without a header: got %+v, %v", r, err)
	}
	s = s.again(t)
	if p := strings.Join(s.problems(), "\n"); !strings.Contains(p, "damage") || !strings.Contains(p, ".bad") {
		t.Errorf("health: got %q", p)
	}
	s.client(t, "c1", types("d")).receive(t, api.ReceiveOptions{}).wait(t, 19)
	eventually(t, "the damaged segment is kept", func() bool {
		_, err := os.Stat(logs[0] + ".bad")
		return err == nil
	})
	s.halt(t)
	dir = s.paths.SpoolType(s.paths.SpoolTo("c2"), "d")
	if logs, err = filepath.Glob(dir + "/*.log"); err != nil || len(logs) == 0 {
		t.Fatal(logs, err)
	}

	// What a start would refuse.
	want := fs.ErrPermission
	if os.Geteuid() == 0 {
		want = durable.ErrUnsafe
		err = os.Chown(dir, 12345, 12345)
	} else {
		err = os.Chmod(logs[0], 0o000)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err = CheckSpools(s.cfg); !errors.Is(err, want) {
		t.Errorf("somebody else's: got %v, want %v", err, want)
	}
	if err := os.RemoveAll(s.paths.Spool); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.paths.Spool, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = CheckSpools(s.cfg); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a file in its place: got %v", err)
	}
}

func TestOfVeryMuchOnDiskAPartIsChecked(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	s.send(t, "d", "c1", "0")
	s.halt(t)
	var r SpoolReport
	left := int64(10)
	if err := r.checkLog(s.paths.SpoolType(s.paths.SpoolTo("c1"), "d"), &left); err != nil || r.Unread != 1 || r.Waiting != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}
