package durable

import (
	"io/fs"
	"os"
)

// system is what writing a file needs of the operating system: the seam where
// the tests make the Nth call fail.
type system interface {
	create(name string, mode fs.FileMode) (file, error)
	link(old, new string) error
	rename(old, new string) error
	remove(name string) error
	syncDir(dir string) error
}

type file interface {
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Write(data []byte) (int, error)
	Sync() error
	Close() error
}

// disk is the real one.
type disk struct{}

func (disk) create(name string, mode fs.FileMode) (file, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err // not a nil *os.File in a file
	}
	return f, nil
}

func (disk) link(old, new string) error   { return os.Link(old, new) }
func (disk) rename(old, new string) error { return os.Rename(old, new) }
func (disk) remove(name string) error     { return os.Remove(name) }
func (disk) syncDir(dir string) error     { return SyncDir(dir) }
