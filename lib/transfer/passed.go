package transfer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// PassedSource is OpenSource for a file that the caller has passed open: that it
// could open it is the proof that it may read it. path is the name that the
// caller gives it. The file is the Source's then. After an error it is still
// open, since to close it may take long.
func PassedSource(f *os.File, path string, c Caller) (*Source, error) {
	if err := checkSource(path); err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, sourceError(path, err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		// Who serves the file system could let us wait for ever: that comes
		// before all that is asked of it.
		if !c.own() && ofUser(int(fd)) {
			inner = fmt.Errorf("it is on a file system that a program serves (FUSE): copy it to another: %w", os.ErrPermission)
			return
		}
		var flags int
		if flags, inner = unix.FcntlInt(fd, unix.F_GETFL, 0); inner != nil {
			return
		}
		// A descriptor that cannot be read proves nothing.
		if how := flags & unix.O_ACCMODE; how != unix.O_RDONLY && how != unix.O_RDWR || flags&pathOnly != 0 {
			inner = fmt.Errorf("it was not opened for reading: %w", os.ErrPermission)
		}
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return nil, sourceError(path, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errIrregular
	}
	if err != nil {
		return nil, sourceError(path, err)
	}
	return &Source{f, info.Size(), path, info}, nil
}

// checkSource returns what is wrong with the name of a file to send.
func checkSource(path string) error {
	if !filepath.IsAbs(path) {
		return failf("name", "src_path %q is not absolute", path)
	}
	if strings.ContainsRune(path, 0) {
		return failf("name", "src_path contains the character NUL")
	}
	return nil
}

// Dup returns the same open file once more.
func (s *Source) Dup() (*Source, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, sourceError(s.path, err)
	}
	var fd int
	var inner error
	err = raw.Control(func(own uintptr) { fd, inner = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = inner
	}
	if err != nil {
		return nil, sourceError(s.path, err)
	}
	return &Source{os.NewFile(uintptr(fd), s.path), s.Size, s.path, s.info}, nil
}

// Again reports whether the file can be opened again by its name, for the
// caller.
func (s *Source) Again(c Caller) bool {
	other, err := OpenSource(s.path, c)
	if err != nil {
		return false
	}
	defer other.Close()
	return os.SameFile(s.info, other.info)
}

// Removable returns why Remove would fail, as far as that can be told before.
func (s *Source) Removable(c Caller) error {
	dir, name, err := s.find(c)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// And this process itself.
	if err := unix.Faccessat(dir, ".", unix.W_OK, unix.AT_EACCESS); err != nil {
		return err
	}
	me := Caller{UID: os.Geteuid()}
	if me.UID == 0 {
		return nil
	}
	return me.sticky(dir, name)
}

// find opens the directory that has the file, if the caller may remove it from
// there and its name there is still this file's.
func (s *Source) find(c Caller) (dir int, name string, err error) {
	if c.own() {
		name = filepath.Base(s.path)
		dir, err = unix.Open(filepath.Dir(s.path), dirFlags|unix.O_CLOEXEC, 0)
	} else {
		dir, name, err = c.parent(s.path)
	}
	if err != nil {
		return -1, "", err
	}
	var file unix.Stat_t
	follow := unix.AT_SYMLINK_NOFOLLOW
	if c.own() { // a symbolic link is removed, not what it leads to
		follow = 0
	}
	err = unix.Fstatat(dir, name, &file, follow)
	if old, ok := s.info.Sys().(*syscall.Stat_t); err == nil && (!ok || uint64(old.Dev) != uint64(file.Dev) || old.Ino != file.Ino) {
		err = errChanged
	}
	// What was written to it since is not sent.
	// Differs: the original removes it all the same (aioconnectors connection.py).
	if err == nil && (file.Size != s.info.Size() || unix.TimespecToNsec(file.Mtim) != s.info.ModTime().UnixNano()) {
		err = errWritten
	}
	if err == nil && !c.own() {
		var at unix.Stat_t
		if err = unix.Fstat(dir, &at); err == nil && !c.may(&at, 2) {
			err = unix.EACCES
		}
		if err == nil {
			err = c.sticky(dir, name)
		}
	}
	if err != nil {
		unix.Close(dir)
		return -1, "", err
	}
	return dir, name, nil
}

// sticky returns an error when the mode of the directory keeps the caller from
// removing what is another's.
func (c Caller) sticky(dir int, name string) error {
	var at, file unix.Stat_t
	if err := unix.Fstat(dir, &at); err != nil {
		return err
	}
	if err := unix.Fstatat(dir, name, &file, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if at.Mode&unix.S_ISVTX != 0 && int(file.Uid) != c.UID && int(at.Uid) != c.UID {
		return unix.EACCES
	}
	return nil
}
