package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the content of path atomically: after a crash at any
// moment the file holds either all of its old content or all of data. The mode
// is exact, whatever the umask. The file need not exist, its directory must.
// A symbolic link at path is replaced, not followed.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	return writeFile(disk{}, path, data, attributes{mode: mode, uid: -1, gid: -1}, replace)
}

// CreateFile is like WriteFile for a file that must not exist yet: the error
// is fs.ErrExist when something has that name, and that something is untouched.
// Of several concurrent calls exactly one succeeds.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	return writeFile(disk{}, path, data, attributes{mode: mode, uid: -1, gid: -1}, create)
}

// Edit reads the file at path, passes its content to change, and replaces the
// file with what change returns, as WriteFile does. Mode, owner and group are
// kept, and a symbolic link at path is followed, so that the file behind it is
// replaced. Concurrent calls of Edit for one file wait for each other, in other
// processes too, so none of the changes is lost. An error of change is returned
// as it is, and the file is not touched.
func Edit(path string, change func(old []byte) ([]byte, error)) error {
	return edit(disk{}, path, change)
}

// Remove removes the file or empty directory and syncs its directory.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Rename renames a file or directory and syncs the directories of both names.
// As with rename(2), an existing file of the new name is replaced.
func Rename(old, new string) error {
	if err := os.Rename(old, new); err != nil {
		return err
	}
	to, from := filepath.Dir(new), filepath.Dir(old)
	if err := SyncDir(to); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	return SyncDir(from)
}

// attributes are what a new file is given before it takes its name. A negative
// uid or gid is left as the system chose it.
type attributes struct {
	mode     fs.FileMode
	uid, gid int
}

// A publish says how the temporary file takes the public name.
type publish bool

const (
	replace publish = false
	create  publish = true
)

func writeFile(s system, path string, data []byte, a attributes, how publish) error {
	dir := filepath.Dir(path)
	temp, err := writeTemporary(s, dir, data, a)
	if err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if how == create {
		err = s.link(temp, path)
		if removeErr := s.remove(temp); err == nil {
			err = removeErr
		}
	} else if err = s.rename(temp, path); err != nil {
		s.remove(temp) // the error of the rename is the one to report
	}
	if err != nil {
		return fmt.Errorf("write %q: %w", path, cause(err))
	}
	if err := s.syncDir(dir); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// randomBytes are in the name of a temporary file, as hexadecimal digits.
const randomBytes = 8

// writeTemporary makes a file with all of its content and attributes on the
// disk, and returns its name. After an error it is gone.
func writeTemporary(s system, dir string, data []byte, a attributes) (name string, err error) {
	var random [randomBytes]byte
	rand.Read(random[:]) // never fails
	temp := filepath.Join(dir, ".aioc-"+hex.EncodeToString(random[:])+".tmp")
	f, err := s.create(temp, a.mode.Perm())
	if err != nil {
		return "", cause(err)
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			s.remove(temp) // the first error is the one to report
			err = cause(err)
		}
	}()
	if a.uid >= 0 || a.gid >= 0 {
		if err := f.Chown(a.uid, a.gid); err != nil {
			return "", err
		}
	}
	if err := f.Chmod(a.mode); err != nil {
		return "", err
	}
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return temp, nil
}

func edit(s system, path string, change func([]byte) ([]byte, error)) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	f, err := openLocked(real)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("edit %q: not a regular file", path)
	}
	old, err := os.ReadFile(real)
	if err != nil {
		return err
	}
	data, err := change(old)
	if err != nil {
		return err
	}
	uid, gid := owner(info)
	return writeFile(s, real, data, attributes{info.Mode(), uid, gid}, replace)
}

// cause drops the temporary name from an error: it means nothing to whoever
// asked for another name.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	var linkErr *os.LinkError
	if errors.As(err, &linkErr) {
		return linkErr.Err
	}
	return err
}
