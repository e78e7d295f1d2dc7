// Package local is the Unix sockets of a host: how they appear, who is at the
// other end, and how programs are accepted on them.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"aioc/lib/config"
)

// ErrInUse is wrapped when a living process listens on the socket.
var ErrInUse = errors.New("in use by a running process")

// Listener listens on a Unix socket.
type Listener struct {
	ln   acceptor
	path string
	info fs.FileInfo // of the socket we made
	once sync.Once
}

// acceptor is what a Listener needs of a net.UnixListener.
type acceptor interface {
	AcceptUnix() (*net.UnixConn, error)
	Close() error
}

// Options of a listening socket.
type Options struct {
	Mode fs.FileMode // of the socket, whatever the umask
	// Shared, as root: the socket goes to nobody, as the original does, so
	// that programs of any user may be let in by mode.
	Shared bool
}

// Listen makes a socket at path, which has its mode and owner from its first
// moment: it is bound in a private directory beside it and then renamed. A
// socket left behind by a dead process is replaced; one that is alive is not
// touched and the error wraps ErrInUse. Anything else at path is an error. What
// a process that died on the way to here left beside path is removed.
func Listen(path string, o Options) (*Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket %s: the name has %d bytes, at most %d are possible: use a shorter directory", path, len(path), maxPath)
	}
	if err := vacant(path); err != nil {
		return nil, err
	}
	sweep(filepath.Dir(path))
	private, err := newPrivate(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer private.remove()
	inside := private.socket()
	if len(inside) > maxPath {
		return nil, fmt.Errorf("socket %s: the directory leaves too little room in a name of at most %d bytes: use a shorter one", path, maxPath)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: inside, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	l := &Listener{ln: ln, path: path}
	err = os.Chmod(inside, o.Mode)
	if err == nil && o.Shared && os.Geteuid() == 0 {
		err = toNobody(inside)
	}
	if err == nil {
		l.info, err = os.Lstat(inside)
	}
	if err == nil {
		err = os.Rename(inside, path)
	}
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// vacant makes sure that a socket can be put at path.
func vacant(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("socket %s: there is something that is not a socket: move it away", path)
	}
	// One that may not be asked counts as alive.
	if alive, err := config.Alive(path); alive || err != nil {
		return fmt.Errorf("socket %s: %w", path, ErrInUse)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("socket %s: left behind by a dead process: %w", path, err)
	}
	return nil
}

// toNobody gives the file to nobody:nogroup, or nobody's own group. A host
// without that user keeps it as it is, as the original does; so does a root who
// cannot give it away, as in a container.
func toNobody(path string) error {
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil
	}
	err = os.Lchown(path, uid, gid)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EPERM) {
		return nil // its mode lets everybody use it anyway
	}
	return err
}

// Close stops listening and removes the socket if it is still the one we made.
// Connections that were accepted go on. It may be called twice.
func (l *Listener) Close() {
	l.once.Do(func() {
		if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
			os.Remove(l.path)
		}
		l.ln.Close()
	})
}

// Serve accepts until ctx ends or the listener is closed, calls serve for each
// connection in a goroutine of its own, and returns after all of them; the
// listener is closed then. serve closes the connection, and must return when its
// ctx ends.
func (l *Listener) Serve(ctx context.Context, serve func(ctx context.Context, c *net.UnixConn)) {
	var all sync.WaitGroup
	defer all.Wait()
	l.accept(ctx, func(c *net.UnixConn) { all.Go(func() { serve(ctx, c) }) })
}

// ServeInTurn is Serve with one connection at a time, in the order in which they
// were made.
func (l *Listener) ServeInTurn(ctx context.Context, serve func(ctx context.Context, c *net.UnixConn)) {
	l.accept(ctx, func(c *net.UnixConn) { serve(ctx, c) })
}

// accept calls each for every connection until ctx ends or the listener is
// closed, and closes it.
func (l *Listener) accept(ctx context.Context, each func(c *net.UnixConn)) {
	stop := context.AfterFunc(ctx, l.Close)
	defer stop()
	defer l.Close()
	pause := time.Duration(0)
	for {
		c, err := l.ln.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: those in use come back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
				return
			}
		}
		pause = 0
		each(c)
	}
}

// Caller is who is at the other end of a connection.
type Caller struct {
	UID, GID int
	Member   bool // this process's group is one of the caller's others
}

// Trusted reports whether the caller is root, has this process's user or group,
// or is a member of that group.
func (c Caller) Trusted() bool {
	return c.UID == 0 || c.UID == os.Geteuid() || c.GID == os.Getegid() || c.Member
}
