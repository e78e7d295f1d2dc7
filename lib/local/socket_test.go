package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever the umask, nobody ever sees the socket with another mode.
func TestASocketAppearsWithItsMode(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o777} {
		for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
			t.Run(fmt.Sprintf("umask %o mode %o", umask, mode), func(t *testing.T) {
				dir := newDir(t)
				path := filepath.Join(dir, "aioc_client_x")
				defer syscall.Umask(syscall.Umask(umask))
				for range 20 {
					seen := make(chan fs.FileMode)
					go func() {
						for {
							if info, err := os.Lstat(path); err == nil {
								seen <- info.Mode()
								return
							}
						}
					}()
					l := mustListen(t, path, Options{Mode: mode})
					if got, want := <-seen, fs.ModeSocket|mode; got != want {
						t.Fatalf("it was seen with mode %v, want %v", got, want)
					}
					l.Close()
				}
				if got := names(t, dir); got != "" {
					t.Errorf("left in the directory: %s", got)
				}
			})
		}
	}
}

func TestASharedSocketIsNobodysWhenRootMakesIt(t *testing.T) {
	for _, shared := range []bool{false, true} {
		path := filepath.Join(newDir(t), "socket")
		mustListen(t, path, Options{Mode: 0o666, Shared: shared})
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		wantUID, wantGID := os.Geteuid(), os.Getegid()
		if shared && wantUID == 0 {
			wantUID, wantGID = nobody(t)
		}
		got := info.Sys().(*syscall.Stat_t)
		if int(got.Uid) != wantUID || int(got.Gid) != wantGID {
			t.Errorf("shared %v: owner %d:%d, want %d:%d", shared, got.Uid, got.Gid, wantUID, wantGID)
		}
		if got, want := info.Mode(), fs.ModeSocket|0o666; got != want {
			t.Errorf("shared %v: mode %v, want %v", shared, got, want)
		}
	}
}

// stale leaves a socket behind on which nobody listens.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}

func TestASocketLeftBehindIsReplaced(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "socket")
	stale(t, path)
	mustListen(t, path, Options{Mode: 0o600})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got := names(t, dir); got != "socket" {
		t.Errorf("in the directory: %s", got)
	}
}

func TestALiveSocketIsNotTouched(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "socket")
	l := mustListen(t, path, Options{Mode: 0o600})
	_, err := Listen(path, Options{Mode: 0o666})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrInUse with the path", err)
	}
	info, err := os.Lstat(path)
	if err != nil || !os.SameFile(info, l.info) || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket changed: %v, %v", info, err)
	}
	if got := names(t, dir); got != "socket" {
		t.Errorf("in the directory: %s", got)
	}
}

func TestWhatIsNoSocketIsNotTouched(t *testing.T) {
	dir := newDir(t)
	live := filepath.Join(dir, "live")
	mustListen(t, live, Options{Mode: 0o600})
	for _, tt := range []struct {
		name string
		make func(path string) error
	}{
		{"a file", func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"a fifo", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
		{"a link to nothing", func(path string) error { return os.Symlink("nothing", path) }},
		{"a link to a socket", func(path string) error { return os.Symlink(live, path) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, "in the way")
			if err := tt.make(path); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Listen(path, Options{Mode: 0o600}); err == nil || !strings.Contains(err.Error(), "not a socket") {
				t.Errorf("got %v, want an error that says that it is not a socket", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
				t.Errorf("it was touched: %v, %v", after, err)
			}
			if got := names(t, dir); got != "in the way live" {
				t.Errorf("in the directory: %s", got)
			}
		})
	}
}

func TestADirectoryThatIsMissingIsAnError(t *testing.T) {
	path := filepath.Join(newDir(t), "missing", "socket")
	if _, err := Listen(path, Options{Mode: 0o600}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func TestNamesOfSockets(t *testing.T) {
	base := newDir(t)
	// deep returns a directory whose name has n bytes.
	deep := func(n int) string {
		dir := filepath.Join(base, strings.Repeat("d", n-len(base)-1))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	most := min(104, maxPath) // of a socket of a connector
	for _, tt := range []struct {
		name, path, want string
	}{
		{"spaces and more", filepath.Join(base, "a b\n'\"é"), ""},
		{"as long as a connector's may be", filepath.Join(deep(most-14), "aioc_client_x"), ""},
		{"a long name in a short directory", filepath.Join(base, strings.Repeat("x", most-len(base)-1)), ""},
		{"one byte too long for any system", filepath.Join(deep(maxPath-13), "aioc_client_x"), fmt.Sprintf("%d bytes, at most %d", maxPath+1, maxPath)},
		{"a short name in a directory that is too long", filepath.Join(deep(maxPath-2), "s"), "use a shorter one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Dir(tt.path)
			before := names(t, dir)
			l, err := Listen(tt.path, Options{Mode: 0o600})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				if got := names(t, dir); got != before {
					t.Errorf("left in the directory: %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c, err := net.Dial("unix", tt.path)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	for _, tt := range []struct {
		name    string
		do      func(path string) error // after Listen
		remains string
	}{
		{"nothing happened", func(string) error { return nil }, ""},
		{"removed meanwhile", os.Remove, ""},
		{"replaced by another socket", func(path string) error { os.Remove(path); stale(t, path); return nil }, "socket"},
		{"replaced by a file", func(path string) error { os.Remove(path); return os.WriteFile(path, nil, 0o600) }, "socket"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := newDir(t)
			path := filepath.Join(dir, "socket")
			l := mustListen(t, path, Options{Mode: 0o600})
			if err := tt.do(path); err != nil {
				t.Fatal(err)
			}
			l.Close()
			l.Close()
			if got := names(t, dir); got != tt.remains {
				t.Errorf("in the directory: %q, want %q", got, tt.remains)
			}
		})
	}
}

func TestServeReturnsAfterItsHandlers(t *testing.T) {
	path := filepath.Join(newDir(t), "socket")
	l := mustListen(t, path, Options{Mode: 0o600})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const count = 5
	entered, leave, served := make(chan struct{}, count), make(chan struct{}), make(chan struct{})
	go func() {
		l.Serve(ctx, func(ctx context.Context, c *net.UnixConn) {
			defer c.Close()
			entered <- struct{}{}
			<-ctx.Done()
			<-leave
		})
		close(served)
	}()
	for range count {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		<-entered
	}
	cancel()
	for range count {
		select {
		case <-served:
			t.Fatal("Serve returned before its handlers")
		default:
		}
		leave <- struct{}{}
	}
	<-served
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket after Serve: got %v, want ErrNotExist", err)
	}
}

func TestServeEndsWhenTheListenerIsClosed(t *testing.T) {
	l := mustListen(t, filepath.Join(newDir(t), "socket"), Options{Mode: 0o600})
	served := make(chan struct{})
	go func() {
		l.Serve(t.Context(), func(context.Context, *net.UnixConn) {})
		close(served)
	}()
	l.Close()
	<-served
}

// short is a listener that is out of descriptors now and then.
type short struct {
	mu     sync.Mutex
	errs   []error // what the next accepts return
	calls  []time.Duration
	start  time.Time
	closed chan struct{}
}

func (s *short) AcceptUnix() (*net.UnixConn, error) {
	s.mu.Lock()
	s.calls = append(s.calls, time.Since(s.start))
	if len(s.errs) == 0 {
		s.mu.Unlock()
		<-s.closed
		return nil, &net.OpError{Op: "accept", Err: net.ErrClosed}
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	s.mu.Unlock()
	return nil, err
}

func (s *short) Close() error { close(s.closed); return nil }

func TestServeGoesOnWhenDescriptorsRunOut(t *testing.T) {
	out := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	synctest.Test(t, func(t *testing.T) {
		s := &short{start: time.Now(), closed: make(chan struct{})}
		for range 12 {
			s.errs = append(s.errs, out)
		}
		s.errs = append(s.errs, nil, out, nil)
		var served atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			(&Listener{ln: s, path: "/nonexistent"}).Serve(ctx, func(context.Context, *net.UnixConn) { served.Add(1) })
			close(over)
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := served.Load(); n != 2 {
			t.Errorf("%d connections were served, want 2", n)
		}
		for i := 1; i < len(s.calls); i++ {
			gap := s.calls[i] - s.calls[i-1]
			want := min(5*time.Millisecond<<(i-1), time.Second)
			switch i {
			case 13, 15: // after one that was served
				want = 0
			case 14: // starts anew
				want = 5 * time.Millisecond
			}
			if gap != want {
				t.Errorf("accept %d came %v after the one before, want %v", i, gap, want)
			}
		}
		cancel()
		<-over
	})
}

func TestServeEndsWhileItWaitsForDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &short{start: time.Now(), closed: make(chan struct{})}
		for range 1000 {
			s.errs = append(s.errs, syscall.EMFILE)
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			(&Listener{ln: s, path: "/nonexistent"}).Serve(ctx, func(context.Context, *net.UnixConn) {})
			close(over)
		}()
		time.Sleep(30 * time.Second)
		cancel()
		started := time.Now()
		<-over
		if d := time.Since(started); d > time.Second {
			t.Errorf("it took %v to end", d)
		}
	})
}
