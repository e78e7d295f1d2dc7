package local

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A process that is killed before its socket has its name leaves a directory,
// which the next that listens there removes.
func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	dir := newDir(t)
	for range 3 {
		out, err := again(t, killDir+"="+dir).CombinedOutput()
		if err == nil || string(out) != "<nil>\n" {
			t.Fatalf("the process to be killed: %v, %s", err, out)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".saaaaa"), 0o700); err != nil { // killed even earlier
		t.Fatal(err)
	}
	mustListen(t, filepath.Join(dir, "socket"), Options{Mode: 0o600})
	if got := names(t, dir); got != "socket" {
		t.Errorf("in the directory: %s", got)
	}
}

func TestWhatMayBelongToOthersIsKept(t *testing.T) {
	type in struct {
		name string
		make func(t *testing.T, path string) error
	}
	list := []in{
		{"the directory of a process that is about to listen", func(t *testing.T, path string) error {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			p := &private{dir: path}
			t.Cleanup(func() { p.f.Close() })
			return p.open()
		}},
		{"a socket on which somebody listens", func(t *testing.T, path string) error {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			ln, err := net.Listen("unix", filepath.Join(path, "s"))
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		}},
		{"a directory with something else", func(t *testing.T, path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "s"), nil, 0o600))
		}},
		{"a directory with something more", func(t *testing.T, path string) error {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			stale(t, filepath.Join(path, "s"))
			return os.WriteFile(filepath.Join(path, "more"), nil, 0o600)
		}},
		{"a directory that others may enter", func(t *testing.T, path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o755))
		}},
		{"a file", func(t *testing.T, path string) error { return os.WriteFile(path, nil, 0o700) }},
		{"a link to a directory", func(t *testing.T, path string) error { return os.Symlink(t.TempDir(), path) }},
	}
	if os.Geteuid() == 0 {
		list = append(list, in{"a directory of another user", func(t *testing.T, path string) error {
			uid, gid := nobody(t)
			return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, uid, gid))
		}})
	}
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			dir := newDir(t)
			path := filepath.Join(dir, ".s01234")
			if err := tt.make(t, path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(path)
			mustListen(t, filepath.Join(dir, "socket"), Options{Mode: 0o600})
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it is gone: %v", err)
			}
			if after, _ := os.ReadDir(path); len(after) != len(before) {
				t.Errorf("it held %v, and now %v", before, after)
			}
		})
	}
}

func TestNamesThatOnlyLookAlikeAreKept(t *testing.T) {
	dir := newDir(t)
	for _, name := range []string{".s", ".s1234", ".s123456", "xs12345", ".sub00000"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mustListen(t, filepath.Join(dir, "socket"), Options{Mode: 0o600})
	if got, want := names(t, dir), ".s .s1234 .s123456 .sub00000 socket xs12345"; got != want {
		t.Errorf("in the directory: %s, want %s", got, want)
	}
}

// Those who start to listen in a directory at the same time do not sweep each
// other's directories away.
func TestManyMayStartToListenAtOnce(t *testing.T) {
	dir := newDir(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			path := filepath.Join(dir, fmt.Sprint("socket", i))
			for range 50 {
				l, err := Listen(path, Options{Mode: 0o600})
				if err != nil {
					t.Error(err)
					return
				}
				l.Close()
			}
		})
	}
	all.Wait()
	if got := names(t, dir); got != "" {
		t.Errorf("left in the directory: %s", got)
	}
}

func TestAPrivateDirectoryIsPrivate(t *testing.T) {
	p, err := newPrivate(newDir(t))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(p.dir)
	if err != nil || info.Mode() != fs.ModeDir|0o700 {
		t.Errorf("got %v, %v, want mode 0700", info, err)
	}
	p.remove()
	if _, err := os.Lstat(p.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after remove: %v", err)
	}
}
