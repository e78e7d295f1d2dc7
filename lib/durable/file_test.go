package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// faulty is the disk with its nth call failing, counted from 1. A write that
// fails leaves half of its bytes behind.
type faulty struct {
	disk
	n     int
	calls *int
	log   *[]string
}

var errInjected = errors.New("injected")

func newFaulty(n int) faulty { return faulty{n: n, calls: new(int), log: new([]string)} }

func (s faulty) fail(call string) error {
	*s.calls++
	*s.log = append(*s.log, call)
	if *s.calls == s.n {
		return errInjected
	}
	return nil
}

func (s faulty) create(name string, mode fs.FileMode) (file, error) {
	if err := s.fail("create"); err != nil {
		return nil, err
	}
	f, err := s.disk.create(name, mode)
	return faultyFile{s, f}, err
}

func (s faulty) link(old, new string) error {
	if err := s.fail("link"); err != nil {
		return err
	}
	return s.disk.link(old, new)
}

func (s faulty) rename(old, new string) error {
	if err := s.fail("rename"); err != nil {
		return err
	}
	return s.disk.rename(old, new)
}

func (s faulty) syncDir(dir string) error {
	if err := s.fail("syncDir"); err != nil {
		return err
	}
	return s.disk.syncDir(dir)
}

type faultyFile struct {
	s faulty
	f file
}

func (f faultyFile) Chmod(mode fs.FileMode) error {
	if err := f.s.fail("chmod"); err != nil {
		return err
	}
	return f.f.Chmod(mode)
}

func (f faultyFile) Chown(uid, gid int) error {
	if err := f.s.fail("chown"); err != nil {
		return err
	}
	return f.f.Chown(uid, gid)
}

func (f faultyFile) Write(data []byte) (int, error) {
	if err := f.s.fail("write"); err != nil {
		n, _ := f.f.Write(data[:len(data)/2])
		return n, err
	}
	return f.f.Write(data)
}

func (f faultyFile) Sync() error {
	if err := f.s.fail("sync"); err != nil {
		return err
	}
	return f.f.Sync()
}

func (f faultyFile) Close() error {
	err := f.f.Close()
	if failed := f.s.fail("close"); failed != nil {
		return failed
	}
	return err
}

func mustWrite(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func checkFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != text {
		t.Errorf("%s: got %q, %v, want %q", path, data, err, text)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != mode {
		t.Errorf("%s: got mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
}

func checkNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("names in the directory: got %q, want %q", got, want)
	}
}

func TestWriteFileGivesContentAndExactMode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o666, 0o640, 0o400} {
		path := filepath.Join(t.TempDir(), "a b\n")
		mustWrite(t, path, "one", mode)
		checkFile(t, path, "one", mode)
		mustWrite(t, path, "", 0o644)
		checkFile(t, path, "", 0o644)
		checkNames(t, filepath.Dir(path), "a b\n")
	}
}

func TestWriteFileReplacesASymbolicLink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	mustWrite(t, real, "old", 0o600)
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, link, "new", 0o600)
	checkFile(t, real, "old", 0o600)
	checkFile(t, link, "new", 0o600)
}

func TestCreateFileLeavesWhatExists(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := CreateFile(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "one", 0o600)
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dir, filepath.Join(dir, "dangling")} {
		if err := CreateFile(p, []byte("two"), 0o644); !errors.Is(err, fs.ErrExist) {
			t.Errorf("CreateFile of what exists: got %v, want fs.ErrExist", err)
		}
	}
	checkFile(t, path, "one", 0o600)
	checkNames(t, dir, "dangling", "f")
}

func TestOfConcurrentCreatesExactlyOneSucceeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	errs := make([]error, 20)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = CreateFile(path, bytes.Repeat([]byte{byte('a' + i)}, 1000), 0o600) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Errorf("both %d and %d created the file", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	checkFile(t, path, strings.Repeat(string(rune('a'+winner)), 1000), 0o600)
}

func TestAFailedCallLeavesTheOldFileAndNothingElse(t *testing.T) {
	for _, test := range []struct {
		name  string
		how   publish
		steps string
	}{
		{"replace", replace, "[create chown chmod write sync close rename syncDir]"},
		{"create", create, "[create chown chmod write sync close link syncDir]"},
	} {
		good := newFaulty(0)
		a := attributes{0o640, os.Geteuid(), os.Getegid()}
		if err := writeFile(good, filepath.Join(t.TempDir(), "f"), []byte("new"), a, test.how); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(*good.log); got != test.steps {
			t.Fatalf("%s: got steps %s, want %s", test.name, got, test.steps)
		}
		for n := 1; n <= *good.calls; n++ {
			step := (*good.log)[n-1]
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			if test.how == replace {
				mustWrite(t, path, "old", 0o600)
			}
			err := writeFile(newFaulty(n), path, []byte("new"), a, test.how)
			if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %s fails: got error %v", test.name, step, err)
			}
			switch {
			case step == "syncDir":
				checkFile(t, path, "new", 0o640)
			case test.how == replace:
				checkFile(t, path, "old", 0o600)
			default:
				checkNames(t, dir)
				continue
			}
			checkNames(t, dir, "f")
		}
	}
}

func TestErrorsNameTheFileAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "f")
	for _, err := range []error{WriteFile(path, nil, 0o600), CreateFile(path, nil, 0o600)} {
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), ".tmp") {
			t.Errorf("got %v, want fs.ErrNotExist of %s", err, path)
		}
	}
}

func TestEditKeepsModeAndFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	mustWrite(t, real, "old", 0o640)
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	err := Edit(link, func(old []byte) ([]byte, error) { return append(old, " and new"...), nil })
	if err != nil {
		t.Fatal(err)
	}
	checkFile(t, real, "old and new", 0o640)
	if got, err := os.Readlink(link); got != "real" {
		t.Errorf("the link: got %q, %v, want it untouched", got, err)
	}
	checkNames(t, dir, "link", "real")
}

func TestEditKeepsTheOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, "old", 0o644)
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12345, 54321
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	if err := Edit(path, func([]byte) ([]byte, error) { return []byte("new"), nil }); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if u, g := owner(info); u != uid || g != gid {
		t.Errorf("got owner %d:%d, want %d:%d", u, g, uid, gid)
	}
	checkFile(t, path, "new", 0o644)
}

func TestEditLeavesTheFileWhenTheChangeFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, "old", 0o600)
	if err := Edit(path, func([]byte) ([]byte, error) { return nil, errInjected }); err != errInjected {
		t.Errorf("got %v, want the error of the change", err)
	}
	checkFile(t, path, "old", 0o600)
	if err := Edit(path+"x", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v", err)
	}
	if err := Edit(filepath.Dir(path), nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: got %v", err)
	}
}

func TestConcurrentEditsAreAllKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, "", 0o600)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if err := Edit(path, func(old []byte) ([]byte, error) { return append(old, 'x'), nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	checkFile(t, path, strings.Repeat("x", 30), 0o600)
}

func TestRenameAndRemove(t *testing.T) {
	dir := t.TempDir()
	a, b, sub := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "sub")
	mustWrite(t, a, "a", 0o600)
	mustWrite(t, b, "b", 0o600)
	if err := MkdirAll(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, step := range [][2]string{{a, b}, {b, filepath.Join(sub, "c")}} {
		if err := Rename(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
		checkFile(t, step[1], "a", 0o600)
	}
	checkNames(t, dir, "sub")
	if err := Remove(filepath.Join(sub, "c")); err != nil {
		t.Fatal(err)
	}
	if err := Remove(sub); err != nil {
		t.Fatal(err)
	}
	checkNames(t, dir)
	if err := Remove(sub); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: got %v", err)
	}
	if err := Rename(a, b); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("renamed a missing file: got %v", err)
	}
}
