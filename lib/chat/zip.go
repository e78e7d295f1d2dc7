package chat

import (
	"archive/zip"
	"compress/flate"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"aioc/lib/cli"
)

// limits bound what an archive may make of itself.
type limits struct {
	entries int   // files and directories, those included that only a path names
	listing int64 // bytes of the list of them
	bytes   int64 // of all files together
	ratio   int64 // of that to the size of the archive
	free    int64 // bytes up to which the ratio does not matter
}

// usual limits: a directory of sources or pictures is far below, and what is
// above is either a trap or for a tool that was told to.
var usual = limits{entries: 200_000, listing: 32 << 20, bytes: 64 << 30, ratio: 200, free: 64 << 20}

// errTrap is wrapped when an archive goes beyond the limits, or out of its
// directory.
var errTrap = errors.New("not extracted")

// scratch opens a file that has no name: it is gone when it is closed, however
// the program ends.
func scratch() (*os.File, error) {
	f, err := os.CreateTemp("", "aioc-chat-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// pack writes what is below dir into a new archive, which the caller closes;
// it is at its start. Symbolic links, sockets and the like are left out, and
// counted.
func pack(ctx context.Context, dir string) (f *os.File, left int, err error) {
	f, err = scratch()
	if err != nil {
		return nil, 0, fmt.Errorf("archive of %q: %w", dir, err)
	}
	left, err = packInto(ctx, f, dir)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if cli.Full(err) {
		err = fmt.Errorf("%w in %s: set TMPDIR to a directory that has room", bare(err), os.TempDir())
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("archive of %q: %w", dir, err)
	}
	return f, left, nil
}

func packInto(ctx context.Context, w io.Writer, dir string) (left int, err error) {
	// A root, so that a directory that becomes a link meanwhile leads nowhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	z := zip.NewWriter(w)
	// One for all files, which come one after the other: it is big.
	fast, err := flate.NewWriter(nil, flate.BestSpeed)
	if err != nil {
		return 0, err
	}
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		fast.Reset(w)
		return fast, nil
	})
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case name == ".":
			return nil
		case !d.IsDir() && !info.Mode().IsRegular():
			left++
			return nil
		}
		h, err := zip.FileInfoHeader(info)
		if err != nil {
			return err
		}
		h.Name = filepath.ToSlash(name)
		if d.IsDir() {
			h.Name += "/"
			_, err := z.CreateHeader(h)
			return err
		}
		h.Method = zip.Deflate
		out, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		in, err := root.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		_, err = io.Copy(out, reader{ctx, in})
		return err
	})
	if err != nil {
		return 0, err
	}
	return left, z.Close()
}

// reader is an io.Reader that ends with a context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// unpack extracts the archive file into a new directory beside it, named as the
// archive without .zip, and returns how many files that were. When anything is
// wrong with the archive nothing stays.
func unpack(ctx context.Context, file string, max limits) (dir string, files int, err error) {
	dir = strings.TrimSuffix(file, filepath.Ext(file))
	if !strings.EqualFold(filepath.Ext(file), ".zip") || filepath.Base(dir) == "" {
		return "", 0, fmt.Errorf("%q does not end in .zip", file)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	listing := &bounded{ReaderAt: f, left: max.listing}
	z, err := zip.NewReader(listing, info.Size())
	if err != nil {
		return "", 0, fmt.Errorf("%q: %w", file, err)
	}
	listing.open = true
	if err := max.check(z.File, info.Size()); err != nil {
		return "", 0, fmt.Errorf("%q: %w", file, err)
	}
	if files, err = extractAs(ctx, z.File, dir); err != nil {
		return "", 0, fmt.Errorf("%q: %w", file, err)
	}
	return dir, files, nil
}

// bounded reads at most so many bytes until it is open: package zip takes the
// whole list of an archive into memory, however long that is.
type bounded struct {
	io.ReaderAt
	left int64
	open bool
}

func (b *bounded) ReadAt(p []byte, off int64) (int, error) {
	if !b.open {
		if b.left -= int64(len(p)); b.left < 0 {
			return 0, fmt.Errorf("%w: its list of files is too long", errTrap)
		}
	}
	return b.ReaderAt.ReadAt(p, off)
}

// extractAs writes the entries below the new directory dir, which gets its name
// when all are there. After an error, nothing is left.
func extractAs(ctx context.Context, entries []*zip.File, dir string) (files int, err error) {
	root, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return 0, err
	}
	defer root.Close()
	sweep(root)
	name := filepath.Base(dir)
	there := fmt.Errorf("%q is there already: move it away first", dir)
	if _, err := root.Lstat(name); err == nil {
		return 0, there
	}
	part := partPrefix + rand.Text() + partSuffix
	if err := root.Mkdir(part, 0o777); err != nil {
		return 0, err
	}
	defer func() {
		if err == nil {
			return
		}
		if rest := root.RemoveAll(part); rest != nil {
			err = errors.Join(err, rest)
		}
	}()
	d, err := root.Open(part)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	_ = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB) // as of a file that comes in
	below, err := root.OpenRoot(part)
	if err != nil {
		return 0, err
	}
	defer below.Close()
	if files, err = extract(ctx, entries, below); err != nil {
		return 0, err
	}
	// This replaces nothing but an empty directory.
	err = root.Rename(part, name)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.ENOTDIR) {
		err = there
	}
	return files, err
}

// check looks at all that an archive of size bytes says of its entries.
func (max limits) check(entries []*zip.File, size int64) error {
	if len(entries) > max.entries {
		return fmt.Errorf("%w: %d entries, at most %d", errTrap, len(entries), max.entries)
	}
	var total int64
	made := map[string]bool{}
	for _, e := range entries {
		for at := strings.TrimSuffix(e.Name, "/"); at != "." && at != "/" && !made[at]; at = path.Dir(at) {
			made[at] = true
		}
		mode := e.Mode()
		switch {
		case !mode.IsDir() && !mode.IsRegular():
			return fmt.Errorf("%w: %q is a link or a special file", errTrap, e.Name)
		case !local(e.Name):
			return fmt.Errorf("%w: %q leads out of the directory, or is no name for a file", errTrap, e.Name)
		case len(made) > max.entries || len(e.Name) > pathMax:
			return fmt.Errorf("%w: too many directories, at %q", errTrap, clip(e.Name, 80))
		case e.Flags&1 != 0:
			return fmt.Errorf("%w: %q is encrypted", errTrap, e.Name)
		case e.UncompressedSize64 > uint64(max.bytes-total):
			return fmt.Errorf("%w: more than %s in it", errTrap, bytesText(max.bytes))
		}
		total += int64(e.UncompressedSize64)
	}
	if total > max.free && total/max.ratio > size {
		return fmt.Errorf("%w: %s would become %s, which looks like a trap: use unzip(1) if it is none",
			errTrap, bytesText(size), bytesText(total))
	}
	return nil
}

// pathMax is how many bytes the name of an entry may have.
const pathMax = 4096

// local tells whether an entry's name stays below its directory.
func local(name string) bool {
	name = strings.TrimSuffix(name, "/")
	return name != "" && filepath.IsLocal(filepath.FromSlash(name)) && !strings.Contains(name, "\x00")
}

// shown returns the name under which an entry is extracted: with underscores for
// what cannot be shown or typed, as in the names of received files.
func shown(name string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r == '\\' || !unicode.IsPrint(r) && !strings.ContainsRune(joiners, r) {
			return '_'
		}
		return r
	}, name)
}

// extract writes the entries below root.
func extract(ctx context.Context, entries []*zip.File, root *os.Root) (files int, err error) {
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		name := shown(strings.TrimSuffix(e.Name, "/"))
		if e.Mode().IsDir() {
			if err := root.MkdirAll(name, 0o777); err != nil {
				return 0, err
			}
			continue
		}
		if err := extractFile(ctx, root, e, name); err != nil {
			return 0, err
		}
		files++
	}
	return files, nil
}

// extractFile writes one file, which gets a number when its name is taken.
func extractFile(ctx context.Context, root *os.Root, e *zip.File, name string) (err error) {
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o777); err != nil {
			return err
		}
	}
	in, err := e.Open()
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	defer in.Close()
	// Executable or not is all that is taken of the mode.
	mode := fs.FileMode(0o666)
	if e.Mode()&0o100 != 0 {
		mode = 0o777
	}
	var out *os.File
	for i := 1; i <= copies; i++ {
		out, err = root.OpenFile(numbered(name, i), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	// An entry may hold more than it says: package zip ends it there.
	if _, err := io.Copy(out, reader{ctx, in}); err != nil {
		return fmt.Errorf("%q: %w", name, bare(err))
	}
	return nil
}
