package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMkdirAllMakesEachDirectoryWithTheExactMode(t *testing.T) {
	base := t.TempDir()
	for _, mode := range []fs.FileMode{0o700, 0o777, 0o750} {
		top := filepath.Join(base, mode.String())
		path := filepath.Join(top, "b", "c")
		for range 2 { // the second time all exist
			if err := MkdirAll(path+"/", mode); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{top, filepath.Dir(path), path} {
			info, err := os.Stat(dir)
			if err != nil || info.Mode() != fs.ModeDir|mode {
				t.Errorf("%s: got %v, %v, want %v", dir, info.Mode(), err, mode)
			}
		}
	}
}

func TestMkdirAllIsRefusedByAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	mustWrite(t, path, "", 0o600)
	if err := MkdirAll(path, 0o700); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file of that name: got %v", err)
	}
	if err := MkdirAll(filepath.Join(path, "a"), 0o700); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a file above: got %v", err)
	}
}

func TestMkdirAllMayRunConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := MkdirAll(path, 0o700); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestSyncDirReportsAMissingDirectory(t *testing.T) {
	if err := SyncDir(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

// fakeInfo is a file of any owner and mode.
type fakeInfo struct {
	mode fs.FileMode
	uid  uint32
}

func (fakeInfo) Name() string        { return "" }
func (fakeInfo) Size() int64         { return 0 }
func (i fakeInfo) Mode() fs.FileMode { return i.mode }
func (fakeInfo) ModTime() time.Time  { return time.Time{} }
func (i fakeInfo) IsDir() bool       { return i.mode.IsDir() }
func (i fakeInfo) Sys() any          { return &syscall.Stat_t{Uid: i.uid} }

func TestCheckOwnerNamesThePathAndTheCommand(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, "it's")
	path := filepath.Join(dir, "key")
	if err := MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, path, "", 0o600)
	quotedDir := "'" + filepath.Join(base, `it'\''s`) + "'"
	quotedPath := "'" + filepath.Join(base, `it'\''s`, "key") + "'"
	const me = 1000
	for _, test := range []struct {
		name string
		file fakeInfo // path
		dir  fakeInfo // the directory it is in; those above are root's, 0755
		want string   // part of the error, "" for none
	}{
		{"mine in mine", fakeInfo{0o600, me}, fakeInfo{fs.ModeDir | 0o700, me}, ""},
		{"root's in root's", fakeInfo{0o644, 0}, fakeInfo{fs.ModeDir | 0o755, 0}, ""},
		{"mine in a sticky directory for all", fakeInfo{0o600, me}, fakeInfo{fs.ModeDir | fs.ModeSticky | 0o777, 0}, ""},
		{"another's file", fakeInfo{0o600, 1001}, fakeInfo{fs.ModeDir | 0o700, me}, "run: chown 1000 " + quotedPath},
		{"another's directory", fakeInfo{0o600, me}, fakeInfo{fs.ModeDir | 0o700, 1001}, "run: chown 1000 " + quotedDir},
		{"a file for the group", fakeInfo{0o660, me}, fakeInfo{fs.ModeDir | 0o700, me}, "run: chmod g-w " + quotedPath},
		{"a file for others", fakeInfo{0o602, me}, fakeInfo{fs.ModeDir | 0o700, me}, "run: chmod o-w " + quotedPath},
		{"a directory for all that is not sticky", fakeInfo{0o600, me}, fakeInfo{fs.ModeDir | 0o777, me}, "run: chmod go-w " + quotedDir},
		{"a sticky file for all", fakeInfo{fs.ModeSticky | 0o666, me}, fakeInfo{fs.ModeDir | 0o700, me}, "run: chmod go-w " + quotedPath},
	} {
		err := checkPath(path, me, func(p string) (fs.FileInfo, error) {
			switch p {
			case path:
				return test.file, nil
			case dir:
				return test.dir, nil
			}
			return fakeInfo{fs.ModeDir | 0o755, 0}, nil
		}, true)
		if test.want == "" && err != nil {
			t.Errorf("%s: got %v, want none", test.name, err)
		}
		if test.want != "" && (!errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func TestADirectoryForAllMayBeAParentWhenItIsSticky(t *testing.T) {
	dir := t.TempDir()
	for mode, want := range map[fs.FileMode]bool{0o700: true, fs.ModeSticky | 0o777: true, 0o777: false, 0o770: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := CheckParent(dir); (err == nil) != want || err != nil && !errors.Is(err, ErrUnsafe) {
			t.Errorf("%v: got %v, want accepted %v", mode, err, want)
		}
		if err := CheckOwner(dir); (err == nil) != (mode == 0o700) {
			t.Errorf("%v as the last: got %v", mode, err)
		}
	}
}

func TestCheckOwnerLooksAtRealFiles(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	mustWrite(t, path, "", 0o600)
	if err := os.Symlink("f", link); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwner(link); err != nil {
		t.Errorf("a file of ours: got %v", err)
	}
	if err := os.Chmod(path, 0o620); err != nil {
		t.Fatal(err)
	}
	if err := CheckOwner(link); err == nil || !strings.Contains(err.Error(), "chmod g-w") {
		t.Errorf("behind a link, writable for the group: got %v", err)
	}
	if err := CheckOwner(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v", err)
	}
}
