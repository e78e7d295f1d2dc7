package cli

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openLog opens a log file in a directory of its own.
func openLog(t *testing.T, max int64, keep int) (l *LogFile, path string, complaints *bytes.Buffer) {
	t.Helper()
	path, complaints = filepath.Join(t.TempDir(), LogName), new(bytes.Buffer)
	l, err := OpenLogFile(path, max, keep, complaints)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path, complaints
}

// content reads a file, compressed or not; "" when there is none.
func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err == nil && strings.HasSuffix(path, ".gz") {
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(z)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogFileIsRotatedAndTheOldOnesAreCompressed(t *testing.T) {
	l, path, complaints := openLog(t, 100, 3)
	line := func(i int) string { return fmt.Sprintf("line %02d %s\n", i, strings.Repeat("x", 30)) }
	for i := range 12 { // two to a file
		if _, err := l.Write([]byte(line(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, first := range map[string]int{"": 10, ".1.gz": 8, ".2.gz": 6, ".3.gz": 4} {
		if got, want := content(t, path+name), line(first)+line(first+1); got != want {
			t.Errorf("%q has %q, want %q", name, got, want)
		}
		if info, err := os.Stat(path + name); err != nil || info.Mode().Perm()&0o027 != 0 {
			t.Errorf("%q: %v, %v", name, info, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 4 {
		t.Errorf("%d files are there, %v", len(entries), err)
	}
	if complaints.Len() > 0 {
		t.Error(complaints)
	}
}

func TestLogFileWithoutOldFilesGrows(t *testing.T) {
	for _, tt := range []struct {
		max  int64
		keep int
	}{{0, 5}, {10, 0}} {
		l, path, _ := openLog(t, tt.max, tt.keep)
		for range 3 {
			if _, err := io.WriteString(l, "twenty bytes, or so\n"); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(content(t, path)); got != 60 {
			t.Errorf("%+v: %d bytes, want 60", tt, got)
		}
	}
}

func TestLogFileThatWasRenamedIsOpenedAgain(t *testing.T) {
	l, path, _ := openLog(t, 0, 0)
	io.WriteString(l, "one\n")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(l, "two\n")
	if got := content(t, path+".old") + content(t, path); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
	if got := content(t, path); got != "two\n" {
		t.Errorf("the new file has %q", got)
	}
	// Without being told, it finds out itself.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	io.WriteString(l, "three\n")
	if got := content(t, path); got != "three\n" {
		t.Errorf("got %q", got)
	}
}

func TestLogFileSharedByManyLosesNothing(t *testing.T) {
	a, path, _ := openLog(t, 2000, 50)
	b, err := OpenLogFile(path, 2000, 50, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const lines = 300
	var all sync.WaitGroup
	for i, l := range []*LogFile{a, b} {
		all.Go(func() {
			for n := range lines {
				fmt.Fprintf(l, "%d %04d %s\n", i, n, strings.Repeat("x", 40))
			}
		})
	}
	all.Wait()
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range names {
		for line := range strings.Lines(content(t, name)) {
			seen[line[:6]] = true
		}
	}
	if len(seen) != 2*lines {
		t.Errorf("%d lines in %d files, want %d", len(seen), len(names), 2*lines)
	}
}

func TestLogFileRefusesWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, says := range map[string]string{"link": "symbolic link", "": "log file", "none/log": "log file"} {
		if _, err := OpenLogFile(filepath.Join(dir, name), 0, 0, io.Discard); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestLogFileRefusesThatOfAnotherUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	want := error(nil)
	if os.Geteuid() == 0 { // nobody else can give it away
		want = fs.ErrPermission
		if err := os.Chown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	l, err := OpenLogFile(path, 0, 0, io.Discard)
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	if err == nil {
		l.Close()
	}
}

func TestLogFileComplainsOnceWhenItCannotBeWritten(t *testing.T) {
	l, path, complaints := openLog(t, 0, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := io.WriteString(l, "lost\n"); err == nil {
			t.Error("no error")
		}
	}
	if got := strings.Count(complaints.String(), "lost"); got != 1 {
		t.Errorf("complained %d times: %s", got, complaints)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(l, "well\n"); err != nil || content(t, path) != "well\n" {
		t.Errorf("%v, %q", err, content(t, path))
	}
}

func TestLogFileThatCannotBeRotatedGoesOn(t *testing.T) {
	l, path, complaints := openLog(t, 50, 1)
	// A directory that is not empty stands where the old file should be.
	if err := os.MkdirAll(path+".1/x", 0o700); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := io.WriteString(l, "twenty bytes, or so\n"); err != nil {
			t.Error(err)
		}
	}
	if got := len(content(t, path)); got != 100 {
		t.Errorf("%d bytes, want 100", got)
	}
	if got := strings.Count(complaints.String(), "not rotated"); got != 2 {
		t.Errorf("complained %d times: %s", got, complaints)
	}
}

func TestBothLoggersGetTheirLines(t *testing.T) {
	var a, b bytes.Buffer
	log := Both(NewLogger(&a, LogJournal, slog.LevelInfo), NewLogger(&b, LogJSON, slog.LevelWarn)).With("peer", "p").WithGroup("g")
	log.Info("one", "k", 1)
	log.Warn("two")
	if got := a.String(); got != "<6>one peer=p g.k=1\n<4>two peer=p\n" {
		t.Errorf("got %q", got)
	}
	if got := b.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"msg":"two"`) {
		t.Errorf("got %q", got)
	}
}

// Whoever may read a file can lock it.
func TestALogFileThatSomebodyLocksIsWrittenAllTheSame(t *testing.T) {
	l, path, complaints := openLog(t, 100, 2)
	write := func(text string) {
		t.Helper()
		if _, err := io.WriteString(l, text+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	other, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	for i := range 100 {
		write(fmt.Sprint("line ", i))
	}
	if d := time.Since(started); d < lockWait || d > 50*lockWait {
		t.Errorf("100 lines took %v: only one should have waited for %v", d, lockWait)
	}
	if got := content(t, path); !strings.Contains(got, "line 99\n") || strings.Count(got, "\n") != 101 {
		t.Errorf("the file has %q", got)
	}
	if !strings.Contains(complaints.String(), "not rotated") {
		t.Errorf("complaints: %q", complaints)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		write("after")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1.gz"); err != nil {
		t.Errorf("it is never rotated again: %v", err)
	}
}
