package chat

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mustWrite makes a file and the directories above it.
func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree is what is below a directory: names with their content, directories
// with a slash.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			fmt.Fprintf(&b, "%s/\n", name)
		case d.Type().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s=%s\n", name, clip(string(text), 40))
		default:
			fmt.Fprintf(&b, "%s %v\n", name, d.Type())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestADirectoryComesBackOutOfItsArchive(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	mustWrite(t, filepath.Join(from, "a.txt"), "A")
	mustWrite(t, filepath.Join(from, "sub", "b c.txt"), "B")
	mustWrite(t, filepath.Join(from, "日本", "empty"), "")
	if err := os.Mkdir(filepath.Join(from, "nothing"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(from, "a.txt"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := tree(t, from)
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	f, left, err := pack(t.Context(), from)
	if err != nil || left != 1 {
		t.Fatalf("pack: %d left out, %v, want 1", left, err)
	}
	defer f.Close()
	if _, err := os.Stat(f.Name()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the archive has a name: %v", err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(to, "dir.zip")
	mustWrite(t, file, text.String())
	dir, files, err := unpack(t.Context(), file, usual)
	if err != nil || files != 3 || dir != filepath.Join(to, "dir") {
		t.Fatalf("unpack: %q, %d, %v", dir, files, err)
	}
	if got := tree(t, dir); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if info, err := os.Stat(filepath.Join(dir, "a.txt")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("a program is none any more: %v, %v", info.Mode(), err)
	}
	if _, _, err := unpack(t.Context(), file, usual); err == nil || !strings.Contains(err.Error(), "there already") {
		t.Errorf("a second time: got %v", err)
	}
}

func TestADirectoryWithManyFiles(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	const n = 10_000
	for i := range n {
		if err := os.WriteFile(filepath.Join(from, fmt.Sprint(i)), []byte{byte(i)}, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, _, err := pack(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(to, "d.zip"), text.String())
	if _, files, err := unpack(t.Context(), filepath.Join(to, "d.zip"), usual); files != n || err != nil {
		t.Errorf("got %d files, %v", files, err)
	}
}

func TestNamesThatCannotBeShownGetUnderscores(t *testing.T) {
	to := t.TempDir()
	mustWrite(t, filepath.Join(to, "x.zip"), archive(t,
		entry{name: "a\x1b[2Jb.txt", text: "1"}, entry{name: "a_[2Jb.txt", text: "2"}, entry{name: "d\n/e\xff", text: "3"}, entry{name: "d_/e_", text: "4"}, entry{name: `..\evil`, text: "5"}))
	dir, files, err := unpack(t.Context(), filepath.Join(to, "x.zip"), usual)
	if files != 5 || err != nil {
		t.Fatalf("got %d files, %v", files, err)
	}
	for name, want := range map[string]string{"a_[2Jb.txt": "1", "a_[2Jb-2.txt": "2", "d_/e_": "3", "d_/e_-2": "4", ".._evil": "5"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
}

// entry is a file in an archive that somebody made by hand.
type entry struct {
	name string
	mode fs.FileMode
	text string
	size uint64 // what it says of its size, if not 0
}

func archive(t *testing.T, entries ...entry) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.mode != 0 {
			h.SetMode(e.mode)
		}
		var err error
		if e.size != 0 {
			h.Method, h.UncompressedSize64, h.CompressedSize64 = zip.Store, e.size, uint64(len(e.text))
			w, rawErr := z.CreateRaw(h)
			err = rawErr
			if err == nil {
				_, err = w.Write([]byte(e.text))
			}
		} else {
			w, createErr := z.CreateHeader(h)
			err = createErr
			if err == nil && !strings.HasSuffix(e.name, "/") {
				_, err = w.Write([]byte(e.text))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestArchivesThatAreTraps(t *testing.T) {
	small := limits{entries: 10, listing: 4096, bytes: 1 << 20, ratio: 100, free: 1000}
	zeros := strings.Repeat("\x00", 900_000)
	for _, test := range []struct {
		name    string
		entries []entry
		want    string
	}{
		{"up", []entry{{name: "ok", text: "x"}, {name: "../evil", text: "x"}}, "leads out"},
		{"up in the middle", []entry{{name: "a/../../evil", text: "x"}}, "leads out"},
		{"absolute", []entry{{name: "/tmp/evil", text: "x"}}, "leads out"},
		{"no name", []entry{{name: "", text: "x"}}, "leads out"},
		{"itself", []entry{{name: "..", text: "x"}}, "leads out"},
		{"a link", []entry{{name: "l", mode: fs.ModeSymlink | 0o777, text: "/etc"}, {name: "l/x", text: "x"}}, "link"},
		{"a device", []entry{{name: "d", mode: fs.ModeDevice | 0o666}}, "link or a special"},
		{"a pipe", []entry{{name: "d", mode: fs.ModeNamedPipe | 0o666}}, "link or a special"},
		{"many", make([]entry, 11), "11 entries"},
		{"many directories", []entry{{name: "a/b/c/d/e/f/g/h/i/j/k", text: "x"}}, "too many directories"},
		{"a long path", []entry{{name: strings.Repeat("a/", 2048) + "a", text: "x"}}, "list of files is too long"},
		{"a long list", []entry{{name: strings.Repeat("a", 2000), text: "x"}, {name: strings.Repeat("b", 2000), text: "x"}, {name: strings.Repeat("c", 2000), text: "x"}}, "list of files is too long"},
		{"big", []entry{{name: "a", text: zeros}, {name: "b", text: zeros}}, "more than"},
		{"a bomb", []entry{{name: "a", text: zeros}}, "trap"},
		{"sizes that overflow", []entry{{name: "a", text: "x", size: 1 << 63}, {name: "b", text: "x", size: 1 << 63}}, "more than"},
		{"smaller than it says", []entry{{name: "ok", text: "x"}, {name: "a", text: "x", size: 500}}, ""},
		{"a file as a directory", []entry{{name: "a", text: "1"}, {name: "a/b", text: "2"}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "x.zip")
			mustWrite(t, file, archive(t, test.entries...))
			_, _, err := unpack(t.Context(), file, small)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); got != "" {
				t.Errorf("left behind:\n%s", got)
			}
		})
	}
}

func TestEntriesThatShareTheirContent(t *testing.T) {
	// Both of the list lead to the same bytes, so the archive does not grow with
	// what it becomes.
	text := archive(t, entry{name: "a", text: strings.Repeat("\x00", 1_000_000)}, entry{name: "b", text: strings.Repeat("\x00", 1_000_000)})
	i := strings.LastIndex(text, "PK\x01\x02")
	forged := text[:i+42] + "\x00\x00\x00\x00" + text[i+46:]
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "x.zip"), forged)
	max := usual
	max.free = 1_500_000
	if _, _, err := unpack(t.Context(), filepath.Join(dir, "x.zip"), max); !errors.Is(err, errTrap) {
		t.Errorf("got %v, want %v", err, errTrap)
	}
	if got := tree(t, dir); strings.Contains(got, "x/") || strings.Contains(got, partPrefix) {
		t.Errorf("left behind:\n%s", clip(got, 200))
	}
}

func TestAnArchiveInAnArchiveStaysOne(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "x.zip"), archive(t, entry{name: "y.zip", text: archive(t, entry{name: "a", text: "x"})}))
	if _, files, err := unpack(t.Context(), filepath.Join(dir, "x.zip"), usual); files != 1 || err != nil {
		t.Errorf("got %d files, %v", files, err)
	}
	if got := tree(t, filepath.Join(dir, "x")); strings.Contains(got, "a=") || !strings.HasPrefix(got, "y.zip=") {
		t.Errorf("got %s", got)
	}
}

func TestAnExtractionReplacesNothing(t *testing.T) {
	for name, put := range map[string]func(path string){
		"a file":      func(path string) { mustWrite(t, path, "mine") },
		"a directory": func(path string) { mustWrite(t, filepath.Join(path, "a"), "mine") },
		"a link": func(path string) {
			if err := os.Symlink("nowhere", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		dir := t.TempDir()
		mustWrite(t, filepath.Join(dir, "x.zip"), archive(t, entry{name: "a", text: "theirs"}))
		put(filepath.Join(dir, "x"))
		before := tree(t, dir)
		if _, _, err := unpack(t.Context(), filepath.Join(dir, "x.zip"), usual); err == nil || !strings.Contains(err.Error(), "there already") {
			t.Errorf("%s: got %v", name, err)
		}
		if got := tree(t, dir); got != before {
			t.Errorf("%s: got\n%swant\n%s", name, got, before)
		}
	}
}

func TestAnArchiveThatHoldsMoreThanItSays(t *testing.T) {
	// The size in the directory is small, the stream long.
	text := archive(t, entry{name: "a", text: strings.Repeat("x", 100_000)})
	i := strings.LastIndex(text, "PK\x01\x02")
	forged := text[:i+24] + "\x05\x00\x00\x00" + text[i+28:]
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "x.zip"), forged)
	if _, _, err := unpack(t.Context(), filepath.Join(dir, "x.zip"), usual); err == nil {
		t.Error("it was extracted")
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestAnExtractionThatIsCancelledLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "x.zip"), archive(t, entry{name: "a", text: "x"}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := unpack(ctx, filepath.Join(dir, "x.zip"), usual); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
	for _, name := range []string{"x.txt", ".zip", "missing.zip"} {
		if _, _, err := unpack(t.Context(), filepath.Join(dir, name), usual); err == nil {
			t.Errorf("%s is an archive", name)
		}
	}
}

func TestAReceivedFileNeverReplacesOne(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "a.txt"), "mine")
	for i, want := range []string{"a-2.txt", "a-3.txt"} {
		l, err := land(dir, "", "a.txt")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.write([]byte{byte('0' + i)}); err != nil {
			t.Fatal(err)
		}
		if got, err := l.finish(); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		l.discard() // again
	}
	if got, want := tree(t, dir), "a-2.txt=0\na-3.txt=1\na.txt=mine\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestAFileThatIsGivenUpLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	l, err := land(dir, "sub", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.write([]byte("part")); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); !strings.Contains(got, "sub/"+partPrefix) {
		t.Errorf("while it comes in: got %s", got)
	}
	l.discard()
	if got := tree(t, dir); got != "sub/\n" {
		t.Errorf("got %s", got)
	}
}

func TestADirectoryThatIsALinkIsNotFollowed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(other, filepath.Join(dir, "chat_client")); err != nil {
		t.Fatal(err)
	}
	if l, err := land(dir, "chat_client", "a"); err == nil {
		l.discard()
		t.Error("it was followed")
	}
	if got := tree(t, other); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestALinkOfTheSameNameIsNotFollowed(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(filepath.Join(other, "x"), filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	l, err := land(dir, "", "a")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := l.finish(); got != "a-2" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if got := tree(t, other); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestLeftoversOfAKilledChatAreRemoved(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{partPrefix + "OLD" + partSuffix, partPrefix + "NEW" + partSuffix, "other.part"} {
		mustWrite(t, filepath.Join(dir, name), "")
		if !strings.Contains(name, "NEW") {
			if err := os.Chtimes(filepath.Join(dir, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"DIR", "INUSE"} {
		below := filepath.Join(dir, partPrefix+name+partSuffix)
		mustWrite(t, filepath.Join(below, "sub", "a"), "")
		if err := os.Chtimes(below, old, old); err != nil {
			t.Fatal(err)
		}
	}
	used, err := os.Open(filepath.Join(dir, partPrefix+"INUSE"+partSuffix))
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	if err := unix.Flock(int(used.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	busy, err := land(dir, "", "busy")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.discard()
	if err := os.Chtimes(filepath.Join(dir, busy.part), old, old); err != nil {
		t.Fatal(err)
	}
	l, err := land(dir, "", "a")
	if err != nil {
		t.Fatal(err)
	}
	l.discard()
	got := tree(t, dir)
	for name, want := range map[string]bool{
		partPrefix + "OLD" + partSuffix: false, partPrefix + "NEW" + partSuffix: true, "other.part": true, busy.part: true,
		partPrefix + "DIR" + partSuffix: false, partPrefix + "INUSE" + partSuffix + "/sub/a": true,
	} {
		if strings.Contains(got, name) != want {
			t.Errorf("%s there: %v, want %v", name, !want, want)
		}
	}
}
