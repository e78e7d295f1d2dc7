package transfer

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

func fmtInt(n int) string { return strconv.Itoa(n) }

// public is a directory that all users can search.
func public(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// stranger is a user with no rights of its own, me is whoever runs the test.
var (
	stranger = Caller{UID: 424242, GIDs: []int{424242}}
	me       = Caller{UID: os.Geteuid(), GIDs: []int{os.Getegid()}}
)

func TestAFileIsOpenedForThoseWhoMayReadIt(t *testing.T) {
	dir := public(t)
	put := func(name string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	put("open", 0o644)
	put("group", 0o640)
	put("closed", 0o600)
	put("others", 0o404)
	put("private/open", 0o644)
	put("searchable/open", 0o644)
	if err := os.Chmod(filepath.Join(dir, "private"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "searchable"), 0o711); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"to-open": "open", "to-closed": dir + "/closed", "to-private": "private", "up": "searchable/../open",
		"loop": "loop", "to-dir": "searchable/", "abs": dir + "/open",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	group := Caller{UID: 424242, GIDs: []int{7, os.Getegid()}}
	for _, test := range []struct {
		path   string
		caller Caller
		want   string // reason
	}{
		{"open", stranger, ""}, {"open", me, ""}, {"open", Caller{}, ""},
		{"closed", stranger, "permission"}, {"closed", me, ""}, {"closed", group, "permission"},
		{"group", stranger, "permission"}, {"group", group, ""},
		{"others", group, "permission"}, {"others", stranger, ""},
		{"private/open", stranger, "permission"}, {"private/open", me, ""},
		{"searchable/open", stranger, ""},
		{"searchable/../open", stranger, ""},
		{"./searchable//open", stranger, ""},
		{"to-open", stranger, ""}, {"abs", stranger, ""}, {"up", stranger, ""}, {"to-dir/open", stranger, ""},
		{"to-closed", stranger, "permission"}, {"to-private/open", stranger, "permission"},
		{"private/../open", stranger, "permission"},
		{"loop", stranger, "missing"}, {"loop", me, "missing"},
		{"missing", stranger, "missing"}, {"missing", me, "missing"},
		{"open/x", stranger, "missing"}, {"open/", stranger, "missing"},
		{"searchable", stranger, "missing"}, {"searchable", me, "missing"}, {"searchable/", stranger, "missing"}, {".", stranger, "missing"},
		{"fifo", stranger, "missing"}, {"fifo", me, "missing"},
	} {
		s, err := OpenSource(dir+"/"+test.path, test.caller)
		if reason(err) != test.want {
			t.Errorf("%s for %d: got %v, want %q", test.path, test.caller.UID, err, test.want)
		}
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(s); string(got) != "content" || s.Size != 7 {
			t.Errorf("%s: got %q, %v", test.path, got, err)
		}
		s.Close()
	}
	for path, caller := range map[string]Caller{"relative": me, "": me, "../x": stranger, "/a\x00b": me} {
		if _, err := OpenSource(path, caller); reason(err) != "name" {
			t.Errorf("%q: got %v, want name", path, err)
		}
	}
	for _, path := range []string{"/dev/null", "/dev/zero", "/", "/dev"} {
		for _, caller := range []Caller{me, stranger} {
			if _, err := OpenSource(path, caller); reason(err) != "missing" {
				t.Errorf("%s: got %v, want it refused", path, err)
			}
		}
	}
}

func TestASourceIsRemovedByThoseWhoMay(t *testing.T) {
	for _, test := range []struct {
		name   string
		mode   os.FileMode // of the directory
		caller Caller
		want   bool
	}{
		{"mine", 0o755, me, true},
		{"a directory that a stranger may only read", 0o755, stranger, false},
		{"one that all may write", 0o777, stranger, true},
		{"one that is sticky", 0o777 | os.ModeSticky, stranger, false},
	} {
		dir := filepath.Join(public(t), "d")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, test.mode); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "f")
		for _, other := range []bool{false, true} {
			if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSource(path, test.caller)
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if other { // a new file takes the name
				if err := os.Rename(path, path+".old"); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("y"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err = s.Remove(test.caller)
			_, left := os.Lstat(path)
			if want := test.want && !other; (err == nil) != want || (left != nil) != want {
				t.Errorf("%s, another file %v: got %v, there %v", test.name, other, err, left == nil)
			}
			s.Close()
		}
	}
}
