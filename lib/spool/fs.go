package spool

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"aioc/lib/durable"
)

// FS is what a log needs of a file system. It exists for tests that fail, tear
// and lose what is written; nil in Options means the real one. Files made are
// readable for their owner only.
type FS interface {
	MkdirAll(dir string) error
	Names(dir string) ([]string, error)  // of what is in the directory, in any order
	Open(name string) (File, error)      // to read
	Create(name string) (File, error)    // to read and write; must not exist
	OpenWrite(name string) (File, error) // to read and write; must exist
	Rename(old, new string) error        // in one directory
	Remove(name string) error            // of a file or an empty directory
	SyncDir(dir string) error
}

// File is an open file of an FS.
type File interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error // content and size, not times
	Close() error
}

// disk is the real file system.
type disk struct{}

type diskFile struct{ *os.File }

func (disk) MkdirAll(dir string) error { return durable.MkdirAll(dir, 0o700) }

func (disk) Names(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (disk) Open(name string) (File, error)      { return open(name, os.O_RDONLY) }
func (disk) OpenWrite(name string) (File, error) { return open(name, os.O_RDWR) }

func (disk) Create(name string) (File, error) {
	return open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

// open refuses what is no file: a pipe of that name would block for ever.
func open(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return diskFile{f}, nil
}

func (disk) Rename(old, new string) error { return os.Rename(old, new) }
func (disk) Remove(name string) error     { return os.Remove(name) }
func (disk) SyncDir(dir string) error     { return durable.SyncDir(filepath.Clean(dir)) }

func (f diskFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
