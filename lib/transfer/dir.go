package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"aioc/lib/durable"
)

// Rules are what the receiver says of the files that land in a directory.
type Rules struct {
	Mode     fs.FileMode // of files; directories that are made can be searched by who can read
	Owner    string      // user:group, "" leaves both
	Override bool        // an existing file is replaced
	Max      int64       // bytes of a file
}

// DefaultMode is the mode of files that land where nothing else is said.
// Differs: the original leaves it to the umask, which most often lets everybody
// read (aioconnectors connection.py).
const DefaultMode fs.FileMode = 0o640

// Dir is a directory in which files land. Nothing outside it is touched,
// whatever names and symbolic links say.
type Dir struct {
	path     string
	root     *os.Root
	rules    Rules
	uid, gid int
	unowned  error
	gaveWay  int
}

// Open opens the directory of a place and makes what is missing of it. What is
// made gets the owner of the rules. Close it after use. An error is an *Error.
func Open(p Place, rules Rules) (*Dir, error) {
	if rules.Mode == 0 {
		rules.Mode = DefaultMode
	}
	d := &Dir{path: p.Dir(), rules: rules}
	d.uid, d.gid, d.unowned = ownerOf(rules.Owner)
	if err := d.makeBase(p.Base); err != nil {
		return nil, ioError("target_directory", err)
	}
	base, err := os.OpenRoot(p.Base)
	if err != nil {
		return nil, ioError("target_directory", err)
	}
	d.root = base
	if len(p.Sub) > 0 {
		defer base.Close()
		sub := path.Join(p.Sub...)
		if err := d.makeAll(sub); err != nil {
			return nil, ioError("target_directory", err)
		}
		if d.root, err = base.OpenRoot(sub); err != nil {
			return nil, ioError("target_directory", err)
		}
	}
	return d, nil
}

// Close lets go of the directory.
func (d *Dir) Close() { _ = d.root.Close() }

// Unowned is why the owner of the rules cannot be given to files, or nil. They
// land all the same.
func (d *Dir) Unowned() error { return d.unowned }

// dirMode is the mode of a directory for files of the given mode.
func (r Rules) dirMode() fs.FileMode { return 0o700 | r.Mode&0o777 | r.Mode&0o444>>2 }

// makeBase makes the directory that the configuration names.
func (d *Dir) makeBase(base string) error {
	var missing []string
	for p := base; ; p = filepath.Dir(p) {
		if _, err := os.Lstat(p); err == nil || p == filepath.Dir(p) {
			break
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, p)
	}
	if err := durable.MkdirAll(base, d.rules.dirMode()); err != nil {
		return err
	}
	for _, p := range missing {
		d.noteOwner(os.Lchown(p, d.uid, d.gid))
	}
	return nil
}

// makeAll makes a directory below the root and those above it that are missing.
func (d *Dir) makeAll(sub string) error {
	for i := 0; i <= len(sub); i++ {
		if i < len(sub) && sub[i] != '/' {
			continue
		}
		name := sub[:i]
		err := d.root.Mkdir(name, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // what is no directory shows with the next step
		}
		if err != nil {
			return err
		}
		d.noteOwner(d.root.Lchown(name, d.uid, d.gid))
		if err := d.root.Chmod(name, d.rules.dirMode()); err != nil {
			return err
		}
		if err := d.sync(path.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}

// noteOwner remembers that an owner could not be given.
func (d *Dir) noteOwner(err error) {
	if err != nil && d.unowned == nil && (d.uid >= 0 || d.gid >= 0) {
		d.unowned = fmt.Errorf("owner %s: %w", d.rules.Owner, bare(err))
	}
}

// sync makes the names in a directory below the root durable.
func (d *Dir) sync(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

// Vacant returns why no file can land under the name, as far as it can be told
// now: another file is there that is not to be replaced, or a directory.
func (d *Dir) Vacant(name string) error {
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return ioError("file", err)
	case info.IsDir():
		return failf("exists", "there is a directory of that name")
	case !d.rules.Override:
		return failf("exists", "the file exists already")
	}
	return nil
}

// Has reports whether the file is there and has this size and SHA-256. It reads
// it. A transfer of which only the message is missing is recognised so.
func (d *Dir) Has(name string, size int64, sum string) bool {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return false
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return false
	}
	return hex.EncodeToString(hash.Sum(nil)) == sum
}

// Duplicate gives a file one more name, which is its own and not that of a file
// that landed, and returns it in full. id is 32 hex digits.
func (d *Dir) Duplicate(name, id string) (string, error) {
	link := ownPrefix + id + copySuffix
	if err := d.root.Link(name, link); err != nil {
		return "", ioError("file", err)
	}
	if err := d.sync("."); err != nil {
		return "", ioError("file", err)
	}
	return d.path + "/" + link, nil
}

// Drop removes a file that landed.
func (d *Dir) Drop(name string) { _ = d.root.Remove(name) }

// open opens what is there already, and does not wait for the other end of a
// FIFO.
func (d *Dir) open(name string, flag int) (*os.File, error) {
	return d.root.OpenFile(name, flag|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
}

// ownerOf looks up user:group; both may be numbers.
func ownerOf(owner string) (uid, gid int, err error) {
	if owner == "" {
		return -1, -1, nil
	}
	name, group, found := strings.Cut(owner, ":")
	if !found || name == "" || group == "" {
		return -1, -1, fmt.Errorf("owner %q is not user:group", owner)
	}
	if uid, err = strconv.Atoi(name); err != nil {
		u, err := user.Lookup(name)
		if err != nil {
			return -1, -1, fmt.Errorf("owner %q: %w", owner, err)
		}
		if uid, err = strconv.Atoi(u.Uid); err != nil {
			return -1, -1, fmt.Errorf("owner %q: %w", owner, err)
		}
	}
	if gid, err = strconv.Atoi(group); err != nil {
		g, err := user.LookupGroup(group)
		if err != nil {
			return -1, -1, fmt.Errorf("owner %q: %w", owner, err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return -1, -1, fmt.Errorf("owner %q: %w", owner, err)
		}
	}
	if uid < 0 || gid < 0 {
		return -1, -1, fmt.Errorf("owner %q: a number is negative", owner)
	}
	return uid, gid, nil
}

// ioError is an error of the file system as an *Error. What the other end may
// see has no names of this host.
func ioError(what string, err error) error {
	var own *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return failf("full", "%s: no space left at the receiver", what)
	case errors.Is(err, fs.ErrExist):
		return failf("exists", "%s: something of that name exists already", what)
	case errors.Is(err, fs.ErrPermission):
		return failf("permission", "%s: permission denied at the receiver", what)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG),
		bare(err).Error() == "path escapes from parent": // of os.Root, which has no value for it
		return failf("name", "%s: %v", what, bare(err))
	}
	return failf("disk", "%s: %v", what, bare(err))
}

// bare is the innermost error, without the names that os puts around it.
func bare(err error) error {
	var (
		pathErr *fs.PathError
		linkErr *os.LinkError
	)
	switch {
	case errors.As(err, &pathErr):
		return pathErr.Err
	case errors.As(err, &linkErr):
		return linkErr.Err
	}
	return err
}
