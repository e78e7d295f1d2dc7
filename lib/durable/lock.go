package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
)

// ErrLocked says that somebody else, in this process or another, holds the
// lock.
var ErrLocked = errors.New("locked by another process")

// A LockFile is a lock on a file, held until Unlock is called or the process
// ends, however it ends. Its methods may be called concurrently.
type LockFile struct {
	mu   sync.Mutex
	file *os.File // nil when unlocked; guarded by mu
}

// Lock takes the lock on the file at path without waiting: errors.Is(err,
// ErrLocked) when another holds it. The file is created, empty and with mode
// 0600, if it is missing, and stays when the lock is given back. A symbolic link
// at path is refused. Programs started by this one do not inherit the lock.
func Lock(path string) (*LockFile, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", path, cause(err))
		}
		err = flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == syscall.EWOULDBLOCK {
			err = ErrLocked
		}
		if err == nil {
			var same bool
			if same, err = current(f, path); same {
				return &LockFile{file: f}, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
	}
}

// Unlock gives the lock back. Further calls do nothing.
func (l *LockFile) Unlock() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// openLocked opens the file for reading and waits for its lock, until the name
// and the lock are of the same file: whoever held the lock may have replaced it.
func openLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		err = flock(f, syscall.LOCK_EX)
		if err == nil {
			var same bool
			if same, err = current(f, path); same {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %q: %w", path, err)
		}
	}
}

// current tells whether the open file still has that name.
func current(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(mine, named), err
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return err
		}
	}
}

// owner returns the user and group a file belongs to.
func owner(info fs.FileInfo) (uid, gid int) {
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}
