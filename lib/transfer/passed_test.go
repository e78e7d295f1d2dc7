package transfer

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAPassedFileIsTakenAsItIsOpen(t *testing.T) {
	dir := public(t)
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	memory := func() (*os.File, error) {
		f, err := os.CreateTemp(dir, "gone")
		if err == nil {
			_, err = f.WriteString("content")
			os.Remove(f.Name())
		}
		return f, err
	}
	file := func(path string, flag int) func() (*os.File, error) {
		return func() (*os.File, error) { return os.OpenFile(path, flag|syscall.O_NONBLOCK, 0) }
	}
	for _, test := range []struct {
		name string
		open func() (*os.File, error)
		path string
		want string // reason
	}{
		{"one that a stranger could not open", file(path, os.O_RDONLY), path, ""},
		{"open for reading and writing", file(path, os.O_RDWR), path, ""},
		{"one that has no name any more", memory, path, ""},
		{"one with another name", file(path, os.O_RDONLY), "/no/such", ""},
		{"open for writing", file(path, os.O_WRONLY), path, "permission"},
		{"open as a name only", file(path, unopened), path, "permission"},
		{"a directory", file(dir, os.O_RDONLY), path, "missing"},
		{"a fifo", file(filepath.Join(dir, "fifo"), os.O_RDWR), path, "missing"},
		{"a device", file("/dev/zero", os.O_RDONLY), path, "missing"},
		{"a relative name", file(path, os.O_RDONLY), "f", "name"},
		{"a name with a NUL", file(path, os.O_RDONLY), "/a\x00b", "name"},
	} {
		for _, caller := range []Caller{me, stranger} {
			f, err := test.open()
			if err != nil {
				t.Fatal(err)
			}
			s, err := PassedSource(f, test.path, caller)
			if reason(err) != test.want {
				t.Errorf("%s, for %d: got %v, want %q", test.name, caller.UID, err, test.want)
			}
			if err != nil {
				if err := f.Close(); err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				continue
			}
			b := make([]byte, 7)
			if _, err := s.ReadAt(b, 0); err != nil || string(b) != "content" || s.Size != 7 {
				t.Errorf("%s: got %q, %v", test.name, b, err)
			}
			s.Close()
		}
	}
}

func TestWhetherAPassedFileCanBeOpenedAgain(t *testing.T) {
	dir := public(t)
	for _, name := range []string{"private", "public", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "public"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file, name string
		caller     Caller
		want       bool
	}{
		{"public", "public", stranger, true},
		{"private", "private", stranger, false},
		{"private", "private", me, true},
		{"public", "other", me, false},
		{"public", "missing", me, false},
	} {
		f, err := os.Open(filepath.Join(dir, test.file))
		if err != nil {
			t.Fatal(err)
		}
		s, err := PassedSource(f, filepath.Join(dir, test.name), test.caller)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Again(test.caller); got != test.want {
			t.Errorf("%s as %s for %d: got %v, want %v", test.file, test.name, test.caller.UID, got, test.want)
		}
		s.Close()
	}
}

// What Removable says is what Remove does.
func TestWhetherAFileCanBeRemoved(t *testing.T) {
	for _, test := range []struct {
		name   string
		mode   os.FileMode // of the directory
		caller Caller
		other  bool // another file has its name
		want   bool
	}{
		{"mine", 0o755, me, false, true},
		{"one to which something was added", 0o755, me, false, false},
		{"another one of mine", 0o755, me, true, false},
		{"a directory that a stranger may only read", 0o755, stranger, false, false},
		{"one that all may write", 0o777, stranger, false, true},
		{"another file there", 0o777, stranger, true, false},
		{"one that is sticky", 0o777 | os.ModeSticky, stranger, false, false},
		{"one that is sticky, and mine", 0o777 | os.ModeSticky, me, false, true},
		{"one that nobody may write", 0o555, me, false, os.Geteuid() == 0},
	} {
		dir := filepath.Join(public(t), "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := PassedSource(f, path, test.caller)
		if err != nil {
			t.Fatal(err)
		}
		if test.name == "one to which something was added" {
			more, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = more.WriteString("more")
				more.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if test.other {
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("y"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(dir, test.mode); err != nil {
			t.Fatal(err)
		}
		if err := s.Removable(test.caller); (err == nil) != test.want {
			t.Errorf("%s: removable: got %v", test.name, err)
		}
		_, there := os.Lstat(path)
		if there != nil {
			t.Errorf("%s: Removable has removed it", test.name)
		}
		err = s.Remove(test.caller)
		if (err == nil) != test.want {
			t.Errorf("%s: removed: got %v", test.name, err)
		}
		if _, left := os.Lstat(path); (left != nil) != test.want {
			t.Errorf("%s: is there: %v", test.name, left == nil)
		}
		s.Close()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func goOn() error { return nil }

func TestCopiesAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "copies")
	kept := KeptIn(dir)
	const id, other = "0123456789abcdef0123456789abcdef", "f123456789abcdef0123456789abcdef"
	if got, err := kept.List(); len(got) != 0 || err != nil {
		t.Errorf("before the first: got %v, %v", got, err)
	}
	content := make([]byte, 300<<10)
	content[0], content[len(content)-1] = 'a', 'z'
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	source := func() *Source {
		t.Helper()
		s, err := OpenSource(path, me)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	if err := kept.Add(id, source(), goOn); err != nil {
		t.Fatal(err)
	}
	if err := kept.Link(id, other); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{id, other} {
		s, err := kept.Open(id, path)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, s.Size)
		if _, err := s.ReadAt(got, 0); err != nil || string(got) != string(content) {
			t.Errorf("got %d bytes, %v, want %d", s.Size, err, len(content))
		}
		info, err := s.Stat()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("got mode %v, %v", info.Mode(), err)
		}
		s.Close()
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: got %v, %v", info.Mode(), err)
	}
	got, err := kept.List()
	if err != nil || len(got) != 2 || got[id] != int64(len(content)) {
		t.Errorf("got %v, %v", got, err)
	}
	kept.Remove(id)
	kept.Remove(id)
	if _, err := kept.Open(id, path); reason(err) != "missing" {
		t.Errorf("one that was removed: got %v", err)
	}
	for _, bad := range []string{"", "../x", id + "/"} {
		if _, err := kept.Open(bad, path); reason(err) != "missing" {
			t.Errorf("id %q: got %v", bad, err)
		}
	}

	// What fails leaves nothing.
	short := source()
	if err := os.Truncate(path, 100<<10); err != nil {
		t.Fatal(err)
	}
	if err := kept.Add(id, short, goOn); reason(err) != "missing" {
		t.Errorf("one that became shorter: got %v", err)
	}
	end := errors.New("the end")
	if err := kept.Add(id, source(), func() error { return end }); err != end {
		t.Errorf("ended: got %v", err)
	}
	if got, err := kept.List(); err != nil || len(got) != 1 {
		t.Errorf("what is left: got %v, %v", got, err)
	}
	if err := kept.Add(other, source(), goOn); !errors.Is(err, os.ErrExist) {
		t.Errorf("one that is there: got %v", err)
	}
	if _, err := kept.Open(other, path); err != nil {
		t.Errorf("it is gone: %v", err)
	}
}

// unopened opens a name without the file, where there is such a thing.
var unopened = func() int {
	if pathOnly != 0 {
		return pathOnly
	}
	return unix.O_WRONLY
}()
