package transfer

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestSymbolicLinksDoNotLeadOut(t *testing.T) {
	top := t.TempDir()
	base, outside := filepath.Join(top, "in"), filepath.Join(top, "out")
	for _, dir := range []string{base, outside} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"abs": outside, "rel": "../out", "up": "..", "file": secret, "dangling": "../out/new", "loop": "loop", "deep": "rel/..", "root": "/",
	} {
		if err := os.Symlink(target, filepath.Join(base, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []Rules{{}, {Override: true}} {
		d := open(t, base, r)
		for _, name := range []string{"abs/x", "rel/x", "up/x", "up/out/x", "file/x", "loop/x", "deep/x", "root/tmp/aioc-escaped", "abs/secret", "dangling/x", "rel/a/b"} {
			if path, err := land(t, d, name, "evil"); reason(err) != "name" {
				t.Errorf("%s: landed as %s, %v, want its name refused", name, path, err)
			}
		}
		for _, name := range []string{"file", "dangling"} {
			_, err := land(t, d, name, "mine")
			if (err == nil) != r.Override {
				t.Errorf("%s, override %v: got %v", name, r.Override, err)
			}
		}
	}
	if got := tree(t, outside); got != "secret=secret" {
		t.Errorf("outside: got %q", got)
	}
	// A placeholder's directory is one of them.
	for _, sub := range []string{"abs", "rel", "up", "root", "loop"} {
		if d, err := Open(Place{Base: base, Sub: []string{sub}}, Rules{}); err == nil {
			d.Close()
			t.Errorf("%s was opened as a target directory", sub)
		}
		if d, err := Open(Place{Base: base, Sub: []string{sub, "x"}}, Rules{}); err == nil {
			d.Close()
			t.Errorf("%s/x was made", sub)
		}
	}
	if got := tree(t, outside); got != "secret=secret" {
		t.Errorf("outside: got %q", got)
	}
}

// Somebody who may write in the directory swaps a directory and a link while
// files land below it.
func TestASymbolicLinkRaceDoesNotLeadOut(t *testing.T) {
	top := t.TempDir()
	base, outside := filepath.Join(top, "in"), filepath.Join(top, "out")
	d := open(t, base, Rules{Override: true})
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		sub := filepath.Join(base, "sub")
		for {
			_ = os.RemoveAll(sub)
			_ = os.Symlink(outside, sub)
			_ = os.Remove(sub)
			_ = os.Mkdir(sub, 0o755)
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for range 150 {
		_, _ = land(t, d, "sub/f", "evil")
	}
	close(stop)
	<-done
	if got := tree(t, outside); got != "" {
		t.Errorf("outside: got %q", got)
	}
}

// inTheWay are things that somebody who may write in the directory can put where a
// stage is to be. Each gets the stage's name, and a file that is to stay as it is.
var inTheWay = map[string]func(name, victim string) error{
	"a link":              func(name, victim string) error { return os.Symlink(victim, name) },
	"a link inside":       func(name, _ string) error { return os.Symlink("inside", name) },
	"a link up":           func(name, _ string) error { return os.Symlink("../victim", name) },
	"a link to nothing":   func(name, victim string) error { return os.Symlink(victim+"-not", name) },
	"a link to itself":    func(name, _ string) error { return os.Symlink(filepath.Base(name), name) },
	"a link to a device":  func(name, _ string) error { return os.Symlink("/dev/null", name) },
	"a hard link":         func(name, victim string) error { return os.Link(victim, name) },
	"a hard link inside":  func(name, _ string) error { return os.Link(filepath.Join(filepath.Dir(name), "inside"), name) },
	"a FIFO":              func(name, _ string) error { return syscall.Mkfifo(name, 0o600) },
	"a socket":            func(name, _ string) error { return syscall.Mknod(name, syscall.S_IFSOCK|0o600, 0) },
	"an empty directory":  func(name, _ string) error { return os.Mkdir(name, 0o700) },
	"a full directory":    func(name, _ string) error { return os.MkdirAll(filepath.Join(name, "x"), 0o700) },
	"a file for everyone": func(name, _ string) error { return put(name, "evil", 0o666) },
}

// put makes a file with exactly this mode.
func put(name, content string, mode fs.FileMode) error {
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chmod(name, mode)
}

// planted returns a directory for files in which something lies in the way of what
// is called name. untouched fails the test unless the files around it are as they
// were.
func planted(t *testing.T, what, name string) (d *Dir, untouched func()) {
	t.Helper()
	top := t.TempDir()
	base, victim := filepath.Join(top, "in"), filepath.Join(top, "victim")
	d = open(t, base, Rules{Override: true, Mode: 0o644})
	inside := filepath.Join(base, "inside")
	for _, path := range []string{victim, inside} {
		if err := put(path, "v", 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := inTheWay[what](filepath.Join(base, name), victim); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return d, func() {
		t.Helper()
		for _, path := range []string{victim, inside} {
			content, err := os.ReadFile(path)
			if err != nil || string(content) != "v" {
				t.Errorf("%s: %s has %q, %v", what, path, content, err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %s has mode %v, %v", what, path, info.Mode(), err)
			}
		}
		if _, err := os.Lstat(victim + "-not"); err == nil {
			t.Errorf("%s: a file was made outside", what)
		}
		if names, err := os.ReadDir(top); err != nil || len(names) != 2 {
			t.Errorf("%s: outside are %v, %v", what, names, err)
		}
	}
}

func TestWhatLiesInAStagesWayIsNotWrittenTo(t *testing.T) {
	for what := range inTheWay {
		d, untouched := planted(t, what, ownPrefix+hex32+partSuffix)
		s, err := d.Resume(hex32)
		if err != nil {
			if !strings.Contains(what, "full directory") {
				t.Errorf("%s: %v", what, err)
			}
			untouched()
			continue
		}
		if s.Offset() != 0 {
			t.Errorf("%s: goes on at %d", what, s.Offset())
		}
		if _, err := s.Write([]byte("mine")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		path, err := s.Land("f")
		if got, _ := os.ReadFile(path); err != nil || string(got) != "mine" {
			t.Errorf("%s: landed %q, %v", what, got, err)
		}
		untouched()
	}
}

func TestWhatLiesInTheWayOfASealedStageIsNotTakenForIt(t *testing.T) {
	for what := range inTheWay {
		d, untouched := planted(t, what, ownPrefix+hex32+doneSuffix)
		s, err := d.Sealed(hex32)
		if what == "a file for everyone" { // and of the size that its sender said
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			s.Close()
		} else if reason(err) != "missing" {
			t.Errorf("%s: got %v, want missing", what, err)
		}
		untouched()
		if s, err = d.Resume(hex32); err == nil {
			_, err = s.Write([]byte("mine"))
		}
		if err == nil {
			err = s.Seal()
		}
		if err != nil && !strings.Contains(what, "directory") {
			t.Errorf("%s: sealed: %v", what, err)
		}
		untouched()
	}
}

func TestWhatLiesInTheWayOfAChunkIsNotMixedIn(t *testing.T) {
	for what := range inTheWay {
		d, untouched := planted(t, what, chunkName(hex32, 1, 2))
		var stored string
		for i := 1; i <= 2; i++ {
			s, err := d.Create()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{'m'}); err != nil {
				t.Fatal(err)
			}
			if i == 2 && stored != "" {
				t.Errorf("%s: complete after one of two", what)
			}
			if stored, err = s.Add(hex32, &Chunk{"f" + chunkMark, i, 2}, "f"); err != nil && reason(err) == "" {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got, err := os.ReadFile(stored); stored != "" && (err != nil || string(got) != "mm") {
			t.Errorf("%s: joined %q, %v", what, got, err)
		}
		if stored == "" && !strings.Contains(what, "directory") {
			t.Errorf("%s: not joined", what)
		}
		untouched()
		// And only the second came: the first is what lies there.
		d, untouched = planted(t, what, chunkName(hex32, 1, 2))
		s, err := d.Create()
		if err == nil {
			_, err = s.Write([]byte{'m'})
		}
		if err != nil {
			t.Fatal(err)
		}
		if stored, err := s.Add(hex32, &Chunk{"f" + chunkMark, 2, 2}, "f"); stored != "" && what != "a file for everyone" {
			t.Errorf("%s: joined, %v", what, err)
		}
		untouched()
	}
}

func TestWhatLiesInAFilesWayIsReplacedOrStays(t *testing.T) {
	for what := range inTheWay {
		for _, override := range []bool{true, false} {
			d, untouched := planted(t, what, "f")
			d.rules.Override = override
			path, err := land(t, d, "f", "mine")
			if want := override && !strings.Contains(what, "directory"); (err == nil) != want {
				t.Errorf("%s, override %v: got %v", what, override, err)
			}
			if err == nil {
				info, err := os.Lstat(path)
				if got, _ := os.ReadFile(path); err != nil || string(got) != "mine" || info.Mode() != 0o644 {
					t.Errorf("%s: got %q, %v, %v", what, got, info.Mode(), err)
				}
			}
			untouched()
		}
	}
}

// What is done between the look at a name and the rename does not lead out.
func TestWhatComesWhileAFileIsWrittenDoesNotLeadOut(t *testing.T) {
	for what := range inTheWay {
		for _, override := range []bool{true, false} {
			d, untouched := planted(t, what, "elsewhere")
			d.rules.Override = override
			s, err := d.Create()
			if err == nil {
				_, err = s.Write([]byte("mine"))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Vacant("f"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(d.path, "elsewhere"), filepath.Join(d.path, "f")); err != nil {
				t.Fatal(err)
			}
			if err := s.settle(); err != nil {
				t.Fatal(err)
			}
			if err := s.publish("f"); (err == nil) != (override && !strings.Contains(what, "directory")) {
				t.Errorf("%s, override %v: got %v", what, override, err)
			}
			s.Discard()
			untouched()
		}
	}
}

func TestADirectoryThatIsReplacedByALinkMeanwhileKeepsItsFiles(t *testing.T) {
	for _, test := range []struct{ name, file, swapped string }{
		{"the target directory", "f", "in"},
		{"one below it", "sub/f", "in/sub"},
		{"one above it", "f", "."},
	} {
		top := filepath.Join(t.TempDir(), "top")
		outside := filepath.Join(filepath.Dir(top), "out")
		for _, dir := range []string{filepath.Join(top, "in", "sub"), filepath.Join(outside, "in", "sub")} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		d := open(t, filepath.Join(top, "in"), Rules{})
		s, err := d.Create()
		if err == nil {
			_, err = s.Write([]byte("mine"))
		}
		if err != nil {
			t.Fatal(err)
		}
		swapped := filepath.Join(top, test.swapped)
		if err := os.Rename(swapped, swapped+"-old"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, swapped); err != nil {
			t.Fatal(err)
		}
		_, err = s.Land(test.file)
		if (err == nil) != (test.swapped != "in/sub") {
			t.Errorf("%s: got %v", test.name, err)
		}
		if got := tree(t, outside); got != "in/ in/sub/" {
			t.Errorf("%s: outside: got %q", test.name, got)
		}
	}
}
