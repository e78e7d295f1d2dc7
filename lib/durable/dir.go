package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// MkdirAll makes a directory and those of its parents that are missing. Each
// directory made gets exactly the given mode, whatever the umask, and is synced
// into its parent. What exists is left as it is; that the path exists and is no
// directory is an error.
func MkdirAll(path string, mode fs.FileMode) error {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("make directory %q: %w, and it is no directory", path, fs.ErrExist)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, mode); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode.Perm()); err != nil {
		if info, statErr := os.Stat(path); errors.Is(err, fs.ErrExist) && statErr == nil && info.IsDir() {
			return nil // somebody else made it meanwhile
		}
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return SyncDir(parent)
}

// SyncDir makes the names in a directory durable: files created, renamed or
// removed in it before the call stay so after a power cut.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that has nothing to sync in a directory
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// ErrUnsafe is what the errors of CheckOwner and CheckParent are when somebody
// else could change what the path leads to.
var ErrUnsafe = errors.New("not safe from others")

// unsafeError is an ErrUnsafe whose words say all.
type unsafeError string

func (e unsafeError) Error() string        { return string(e) }
func (e unsafeError) Is(target error) bool { return target == ErrUnsafe }

// CheckOwner tells whether nobody but the caller's user and root can change
// what path leads to, as sshd does with StrictModes: path and each directory
// above it must belong to one of the two and must not be writable for group or
// others. A directory above path that is writable for all and sticky, such as
// /tmp, is accepted, since others cannot rename what is not theirs in it.
// Symbolic links are resolved first. The error is an ErrUnsafe that names the
// offending path and the command that corrects it.
func CheckOwner(path string) error {
	return checkPath(path, os.Geteuid(), os.Stat, true)
}

// CheckParent is CheckOwner for something that is about to be made in the
// directory at path: the directory itself may be one such as /tmp, too.
func CheckParent(path string) error {
	return checkPath(path, os.Geteuid(), os.Stat, false)
}

// checkPath is CheckOwner, or CheckParent if path is not the last.
func checkPath(path string, euid int, stat func(string) (fs.FileInfo, error), last bool) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	real, err = filepath.Abs(real)
	if err != nil {
		return err
	}
	for p := real; ; last = false {
		info, err := stat(p)
		if err != nil {
			return err
		}
		if uid, _ := owner(info); uid != euid && uid != 0 {
			return unsafeError(fmt.Sprintf("%q belongs to user %d, who could change it: run: chown %d %s", p, uid, euid, quote(p)))
		}
		who, letters := "", ""
		switch info.Mode().Perm() & 0o022 {
		case 0o020:
			who, letters = "its group", "g-w"
		case 0o002:
			who, letters = "everybody", "o-w"
		case 0o022:
			who, letters = "its group and everybody", "go-w"
		}
		sticky := info.IsDir() && info.Mode()&fs.ModeSticky != 0
		if who != "" && (last || !sticky) {
			return unsafeError(fmt.Sprintf("%q is writable for %s: run: chmod %s %s", p, who, letters, quote(p)))
		}
		parent := filepath.Dir(p)
		if parent == p {
			return nil
		}
		p = parent
	}
}

// quote makes a path one word of a POSIX shell.
func quote(path string) string {
	plain := strings.IndexFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+,:@%", r) &&
			(r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if plain && path != "" && path[0] != '-' {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
