package local

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
)

// maxPath is the longest name of a socket in bytes: the final NUL must fit too.
const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// A private directory is called ".s" and nameLen digits, base 32, and holds one
// socket "s". That is shorter than the name of any socket that is renamed out of
// it, so that what can be bound there is not limited further.
const (
	namePrefix = ".s"
	nameLen    = 5
)

// private is a directory that only we may enter. As long as it is open it is
// locked, by which a later process can tell it from one that was left behind.
type private struct {
	dir string
	f   *os.File
}

// newPrivate makes a private directory in dir.
func newPrivate(dir string) (*private, error) {
	for range 1000 {
		digits := strconv.FormatUint(1<<(5*nameLen)|rand.Uint64()>>(64-5*nameLen), 32)
		p := &private{dir: filepath.Join(dir, namePrefix+digits[1:])}
		err := os.Mkdir(p.dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = p.open()
		if err == nil {
			return p, nil
		}
		// Another process may have swept it away before it was locked.
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			os.Remove(p.dir)
			return nil, err
		}
	}
	return nil, fmt.Errorf("no name is free for a directory in %s", dir)
}

// open opens and locks the directory that was just made.
func (p *private) open() error {
	if err := os.Chmod(p.dir, 0o700); err != nil { // the umask may have taken rights away
		return err
	}
	f, err := openDir(p.dir)
	if err != nil {
		return err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		err = nil // a file system without locks has no sweeping either
	}
	var opened, there fs.FileInfo
	if err == nil {
		opened, err = f.Stat()
	}
	if err == nil {
		there, err = os.Lstat(p.dir)
	}
	if err == nil && !os.SameFile(opened, there) {
		err = fs.ErrNotExist
	}
	if err != nil {
		f.Close()
		return err
	}
	p.f = f
	return nil
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func (p *private) socket() string { return filepath.Join(p.dir, "s") }

// remove removes the directory, and the socket if it is still there.
func (p *private) remove() {
	_ = os.Remove(p.socket())
	_ = os.Remove(p.dir)
	p.f.Close()
}

// sweep removes the private directories in dir that processes of this user left
// behind when they were killed: those that nobody has locked and that hold
// nothing but a socket on which nobody listens. Failing is no harm.
func sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && len(e.Name()) == len(namePrefix)+nameLen && strings.HasPrefix(e.Name(), namePrefix) {
			sweepOne(filepath.Join(dir, e.Name()))
		}
	}
}

func sweepOne(path string) {
	f, err := openDir(path)
	if err != nil {
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() != 0o700 {
		return
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	entries, err := f.ReadDir(2)
	if len(entries) > 1 || err != nil && len(entries) > 0 {
		return
	}
	if len(entries) == 1 {
		if entries[0].Name() != "s" || entries[0].Type() != fs.ModeSocket {
			return
		}
		if alive, err := config.Alive(filepath.Join(path, "s")); alive || err != nil {
			return
		}
		if unix.Unlinkat(int(f.Fd()), "s", 0) != nil {
			return
		}
	}
	_ = unix.Rmdir(path)
}
