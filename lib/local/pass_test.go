package local

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := func(fd int) *net.UnixConn {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return end(fds[0]), end(fds[1])
}

func unlimited(int) bool { return true }

// file makes a file with the text, open.
func file(t *testing.T, text string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// text reads a file from its beginning and closes it.
func text(f *os.File) string {
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// open counts this process's descriptors of files in the directory, which other
// tests do not touch.
func open(t *testing.T, dir string) (n int) {
	t.Helper()
	for fd := range 256 {
		var stat, want unix.Stat_t
		if unix.Fstat(fd, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if unix.Stat(filepath.Join(dir, e.Name()), &want) == nil && want.Dev == stat.Dev && want.Ino == stat.Ino {
				n++
			}
		}
	}
	return n
}

func TestFilesArriveNotLaterThanTheBytesThatSpeakOfThem(t *testing.T) {
	a, b := pair(t)
	out, in := NewOutgoing(a), NewIncoming(b, unlimited)
	in.Accept()
	defer in.Close()
	const count = 3 * MaxPassed
	var wait sync.WaitGroup
	wait.Go(func() {
		defer out.Close()
		for i := range count {
			f := file(t, fmt.Sprint("file ", i+1))
			n, err := out.Pass(f)
			f.Close() // it has its own by now
			if err != nil || n != uint64(i+1) {
				t.Errorf("file %d: got number %d, %v", i+1, n, err)
				return
			}
			// Some are written together.
			if i%3 == 2 {
				if _, err := out.Write(fmt.Appendf(nil, "%8d%8d%8d", i-1, i, i+1)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	buf := make([]byte, 8)
	for i := range count {
		if _, err := io.ReadFull(in, buf); err != nil {
			t.Fatal(err)
		}
		f, err := in.Claim(uint64(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := text(f), fmt.Sprint("file ", strings.TrimSpace(string(buf))); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if n, err := in.Read(buf); err != io.EOF {
		t.Errorf("at the end: got %d, %v, want EOF", n, err)
	}
	wait.Wait()
}

func TestWhatIsNotClaimedIsClosed(t *testing.T) {
	a, b := pair(t)
	out, in := NewOutgoing(a), NewIncoming(b, unlimited)
	in.Accept()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pass := func() {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := out.Pass(f); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	for range MaxPassed + 5 {
		pass()
	}
	if n := open(t, dir); n != MaxPassed {
		t.Errorf("%d are open, want %d", n, MaxPassed)
	}
	if _, err := in.Claim(5); !errors.Is(err, ErrNotPassed) {
		t.Errorf("one that was pushed out: got %v, want %v", err, ErrNotPassed)
	}
	f, err := in.Claim(MaxPassed + 3)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if n := open(t, dir); n != 2 {
		t.Errorf("%d are open behind the one claimed, want 2", n)
	}
	for _, n := range []uint64{0, 1, MaxPassed + 3, MaxPassed + 6, 1 << 60} {
		if _, err := in.Claim(n); !errors.Is(err, ErrNotPassed) {
			t.Errorf("number %d: got %v, want %v", n, err, ErrNotPassed)
		}
	}
	pass()
	in.Close()
	f, err = os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := out.Pass(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	out.Close()
	if n := open(t, dir); n != 0 {
		t.Errorf("%d are open at the end", n)
	}
}

func TestFilesThatBreakTheRulesAreClosed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{2, 3, 50} {
		a, b := pair(t)
		in := NewIncoming(b, unlimited)
		in.Accept()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		fds := make([]int, count)
		for i := range fds {
			fds[i] = int(f.Fd())
		}
		_, _, err = a.WriteMsgUnix([]byte("x"), unix.UnixRights(fds...), nil)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 10)); !errors.Is(err, ErrPassed) {
			t.Errorf("%d with one write: got %v, want %v", count, err, ErrPassed)
		}
		in.Close()
		if n := open(t, dir); n != 0 {
			t.Errorf("%d with one write: %d are open", count, n)
		}
	}
}

func TestFilesAreNotTakenFromThoseWhoDidNotAnnounceThem(t *testing.T) {
	a, b := pair(t)
	out, in := NewOutgoing(a), NewIncoming(b, unlimited)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Pass(f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	want := []byte("words")
	if _, err := out.Write(want); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if _, err := in.Claim(1); !errors.Is(err, ErrNotPassed) {
		t.Errorf("got %v, want %v", err, ErrNotPassed)
	}
	if n := open(t, dir); n != 0 {
		t.Errorf("%d are open", n)
	}
}

// A process that can open no more files is told so for the one that it did not
// get, and goes on with the next.
func TestAFileForWhichThereIsNoDescriptor(t *testing.T) {
	a, b := pair(t)
	out, in := NewOutgoing(a), NewIncoming(b, unlimited)
	in.Accept()
	defer in.Close()
	f := file(t, "content")
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := out.Pass(f); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // nothing new can be opened meanwhile
			none := limit
			none.Cur = 0
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
				t.Fatal(err)
			}
		}
		_, err := in.Read(make([]byte, 10))
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Claim(1); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("got %v, want %v", err, syscall.EMFILE)
	}
	got, err := in.Claim(2)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(got); got != "content" {
		t.Errorf("got %q", got)
	}
}

func TestFilesAreKeptAsFarAsThereIsRoom(t *testing.T) {
	a, b := pair(t)
	var mu sync.Mutex
	kept, most := 0, 2
	now := func() int {
		mu.Lock()
		defer mu.Unlock()
		return kept
	}
	out := NewOutgoing(a)
	in := NewIncoming(b, func(delta int) bool {
		mu.Lock()
		defer mu.Unlock()
		if delta > 0 && kept+delta > most || delta == 0 && kept == most {
			return false
		}
		kept += delta
		return true
	})
	in.Accept()
	f := file(t, "content")
	for range 4 {
		if _, err := out.Pass(f); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	first, err := in.Claim(1)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	in.Taken()
	if n := now(); n != 1 {
		t.Errorf("%d are kept after the claim, want 1", n)
	}
	if _, err := in.Claim(3); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("one for which there was no room: got %v, want %v", err, syscall.EMFILE)
	}
	in.Close()
	for deadline := time.Now().Add(time.Minute); now() != 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := now(); n != 0 {
		t.Errorf("%d are kept at the end", n)
	}
}

// The closing of a file of a file system that a program serves may take for ever.
func TestAFileThatIsSlowToCloseHoldsUpNobody(t *testing.T) {
	a, b := pair(t)
	var left atomic.Int32
	left.Store(3)
	stuck := make(chan struct{})
	out := NewOutgoing(a)
	in := NewIncoming(b, func(delta int) bool {
		if delta < 0 {
			<-stuck
		}
		return left.Add(-int32(delta)) >= 0 && (delta != 0 || left.Load() > 0)
	})
	in.Accept()
	f := file(t, "content")
	pass := func() {
		t.Helper()
		if _, err := out.Pass(f); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := in.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		pass()
	}
	one, err := in.Claim(2)
	if err != nil {
		t.Fatal(err)
	}
	in.Discard(one)
	in.Close()
	if n := left.Load(); n != 0 {
		t.Errorf("there is room for %d, want 0: none is closed", n)
	}
	pass()
	if _, err := in.Claim(4); !errors.Is(err, syscall.EMFILE) {
		t.Errorf("one more: got %v, want %v", err, syscall.EMFILE)
	}
	close(stuck)
	for deadline := time.Now().Add(time.Minute); left.Load() <= 0 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	pass()
	if one, err = in.Claim(5); err != nil {
		t.Fatal(err)
	}
	one.Close()
}

func TestReadingFromAClosedConnectionReadsNothing(t *testing.T) {
	for _, accept := range []bool{false, true} {
		_, b := pair(t)
		in := NewIncoming(b, unlimited)
		if accept {
			in.Accept()
		}
		b.Close()
		if n, err := in.Read(make([]byte, 1)); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("accepting %v: got %d, %v, want 0 and %v", accept, n, err, net.ErrClosed)
		}
	}
}

func TestNothingIsPassedOnAClosedConnection(t *testing.T) {
	a, _ := pair(t)
	out := NewOutgoing(a)
	out.Close()
	if _, err := out.Pass(file(t, "")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
	f := file(t, "")
	f.Close()
	if _, err := NewOutgoing(a).Pass(f); err == nil {
		t.Error("a closed file was passed")
	}
}
