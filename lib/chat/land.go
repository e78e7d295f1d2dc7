package chat

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The temporary names of files that are being received, and of directories that
// are being extracted.
const (
	partPrefix = ".aioc-chat-"
	partSuffix = ".part"
)

// partAge is how old a temporary file is that nobody holds, when it is taken
// for a leftover: one that is being made has no lock for a moment.
const partAge = time.Minute

// copies is how many files of one name are kept side by side.
const copies = 1000

// landing is a file that is being received. It gets its name when it is whole.
// It is used by one goroutine.
type landing struct {
	root *os.Root // its directory
	sub  string   // that below the working directory, "" for itself
	part string   // temporary name
	name string   // the name that is asked for, a plainName
	f    *os.File
	got  int64
	sum  hash.Hash
}

// land begins to receive a file with a plain name, in the directory sub of dir,
// which is made when it is missing; "" is dir itself.
func land(dir, sub, name string) (l *landing, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if sub != "" {
		err = root.Mkdir(sub, 0o777)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			root.Close()
			return nil, err
		}
		below, err := root.OpenRoot(sub) // not through a link that leads away
		root.Close()
		if err != nil {
			return nil, err
		}
		root = below
	}
	sweep(root)
	l = &landing{root: root, sub: sub, name: name, sum: sha256.New()}
	l.part = partPrefix + rand.Text() + partSuffix
	l.f, err = root.OpenFile(l.part, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		root.Close()
		return nil, err
	}
	// The lock says that the file is in use. A file system without locks keeps
	// the leftovers of a chat that was killed, no more.
	_ = unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return l, nil
}

// sweep removes what a chat left behind that was killed while it received.
func sweep(root *os.Root) {
	d, err := root.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, partPrefix) || !strings.HasSuffix(name, partSuffix) {
			continue
		}
		info, err := root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() || time.Since(info.ModTime()) < partAge {
			continue
		}
		mode := os.O_RDWR | syscall.O_NONBLOCK
		if info.IsDir() {
			mode = os.O_RDONLY | syscall.O_NONBLOCK
		}
		f, err := root.OpenFile(name, mode, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			root.RemoveAll(name)
		}
		f.Close()
	}
}

// write adds a piece.
func (l *landing) write(b []byte) error {
	n, err := l.f.Write(b)
	l.sum.Write(b[:n])
	l.got += int64(n)
	return err
}

// finish gives the file its name, or the next one that is free: nothing is
// ever overwritten. It returns the path from the working directory. After an
// error nothing of the file is left.
func (l *landing) finish() (name string, err error) {
	defer l.discard()
	if err := l.f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return "", err
	}
	for i := 1; i <= copies; i++ {
		name := numbered(l.name, i)
		err = l.give(name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if d, err := l.root.Open("."); err == nil {
			_ = d.Sync() // some file systems cannot, and the file is there
			d.Close()
		}
		return filepath.Join(l.sub, name), nil
	}
	return "", fmt.Errorf("%q: there are %d files of that name already", l.name, copies)
}

// numbered returns the name of the file that is the i-th with this name.
func numbered(name string, i int) string {
	if i == 1 {
		return name
	}
	ext := filepath.Ext(name)
	return fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), i, ext)
}

// give makes the temporary file appear as name, unless that is there.
func (l *landing) give(name string) error {
	err := l.root.Link(l.part, name)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A file system without links: an empty file takes the name first.
	f, createErr := l.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if createErr != nil {
		return createErr
	}
	f.Close()
	if err := l.root.Rename(l.part, name); err != nil {
		l.root.Remove(name)
		return err
	}
	return nil
}

// discard removes what is left of the temporary file. It may be called again.
func (l *landing) discard() {
	if l.f == nil {
		return
	}
	l.f.Close()
	l.f = nil
	l.root.Remove(l.part)
	l.root.Close()
}
