package transfer

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Caller is the user of a local program that names a file to send. The
// connector opens and removes it with its own rights, but only if that user
// could, so that a program that may send cannot read, through a connector that
// runs as root, what it may not read itself.
//
// What counts is the owner, the groups and the mode of the file and of each
// directory and link on the way, as they are when it is opened. Access lists
// beyond them are not looked at.
type Caller struct {
	UID  int
	GIDs []int
}

// own reports whether the caller may do what this process may.
func (c Caller) own() bool { return c.UID == 0 || c.UID == os.Geteuid() }

// Source is a file to send, open.
type Source struct {
	*os.File
	Size int64
	path string
	info fs.FileInfo
}

var errIrregular = errors.New("not a regular file")

// maxLinks bounds the symbolic links on the way to a file.
const maxLinks = 40

// OpenSource opens the file that the caller names by its absolute path: a
// regular file that the caller may read. An error is an *Error.
func OpenSource(path string, c Caller) (*Source, error) {
	if err := checkSource(path); err != nil {
		return nil, err
	}
	var (
		f   *os.File
		err error
	)
	// To open something else may do something: a device can start to work.
	if info, statErr := os.Stat(path); c.own() && (statErr != nil || !info.Mode().IsRegular()) {
		if err = statErr; err == nil {
			err = errIrregular
		}
	} else if c.own() {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	} else {
		f, err = c.walk(path)
	}
	if err != nil {
		return nil, sourceError(path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	if err != nil {
		f.Close()
		return nil, sourceError(path, err)
	}
	return &Source{f, info.Size(), path, info}, nil
}

// sourceError is an error with a file to send. The receiver's program gets to
// see it, as with the original.
func sourceError(path string, err error) error {
	reason := "missing"
	if errors.Is(err, fs.ErrPermission) {
		reason = "permission"
	}
	return failf(reason, "%s: %v", path, bare(err))
}

// walk opens a file step by step and looks at each whether the caller may go on.
func (c Caller) walk(path string) (*os.File, error) {
	dir, name, err := c.parent(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errIrregular
	}
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	if err = unix.Fstat(fd, &stat); err == nil && !c.may(&stat, 4) {
		err = unix.EACCES
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// parent opens the directory in which the file that path leads to is, and
// returns it with the file's name there, which is that of no symbolic link.
func (c Caller) parent(path string) (dir int, name string, err error) {
	open := func(at int, name string) (int, error) {
		fd, err := openat(at, name, dirFlags)
		if err != nil {
			return -1, err
		}
		var stat unix.Stat_t
		if err = unix.Fstat(fd, &stat); err == nil && !c.may(&stat, 1) {
			err = unix.EACCES
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	if dir, err = open(unix.AT_FDCWD, "/"); err != nil {
		return -1, "", err
	}
	next := func(at int, name string) error {
		fd, err := open(at, name)
		if err != nil {
			return err
		}
		unix.Close(dir)
		dir = fd
		return nil
	}
	links := 0
	rest := strings.Split(path, "/")
	for len(rest) > 0 && err == nil {
		name, rest = rest[0], rest[1:]
		if name == "" || name == "." {
			if len(rest) == 0 {
				err = unix.EISDIR
			}
			continue
		}
		var stat unix.Stat_t
		if err = unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			break
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFLNK {
			if links++; links > maxLinks {
				err = unix.ELOOP
				break
			}
			buf := make([]byte, unix.PathMax)
			n := 0
			if n, err = unix.Readlinkat(dir, name, buf); err != nil {
				break
			}
			target := string(buf[:n])
			if strings.HasPrefix(target, "/") {
				if err = next(unix.AT_FDCWD, "/"); err != nil {
					break
				}
			}
			rest = append(strings.Split(target, "/"), rest...)
			name = ""
			continue
		}
		if len(rest) == 0 {
			return dir, name, nil
		}
		err = next(dir, name)
	}
	if err == nil {
		err = unix.EISDIR
	}
	unix.Close(dir)
	return -1, "", err
}

// openat opens a name that is no symbolic link.
func openat(dir int, name string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// may reports whether the caller has the rights (4 read, 2 write, 1 search) to
// what stat describes.
func (c Caller) may(stat *unix.Stat_t, rights uint32) bool {
	mode := uint32(stat.Mode)
	switch {
	case int(stat.Uid) == c.UID:
		mode >>= 6
	case slices.Contains(c.GIDs, int(stat.Gid)):
		mode >>= 3
	}
	return mode&rights == rights
}

// Remove removes the file after it was sent, if it is still the one that was
// opened, as it was then, and the caller may remove it.
func (s *Source) Remove(c Caller) error {
	dir, name, err := s.find(c)
	if err != nil {
		return bare(err)
	}
	defer unix.Close(dir)
	return unix.Unlinkat(dir, name, 0)
}

// errChanged means that a name leads to another file than it did.
var errChanged = errors.New("another file has its name now")

// errWritten means that a file is not any more what was sent.
var errWritten = errors.New("it was written to meanwhile")
