package transfer

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"aioc/lib/durable"
)

// Kept are copies of files that were passed and that could not be opened again
// by their name. They are in a directory of the connector's own, of mode 0700,
// and are called by the id of the transfer and ".copy".
type Kept struct{ dir string }

// KeptIn returns the copies in a directory. It need not be there.
func KeptIn(dir string) Kept { return Kept{dir} }

// path returns the name of a copy. An id is 32 hex digits.
func (k Kept) path(id string) string { return filepath.Join(k.dir, id+copySuffix) }

// Add copies a file, and returns when the copy is on disk. It gives up with the
// error that stop, which is asked now and then, returns. What it has begun is
// removed after an error.
func (k Kept) Add(id string, s *Source, stop func() error) error {
	err := k.add(id, s, stop)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		k.Remove(id)
	}
	return err
}

func (k Kept) add(id string, s *Source, stop func() error) (err error) {
	if err := durable.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	if err := durable.CheckOwner(k.dir); err != nil {
		return err
	}
	f, err := os.OpenFile(k.path(id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	buf := make([]byte, len(zeros))
	for off := int64(0); off < s.Size; {
		if err := stop(); err != nil {
			return err
		}
		part := buf[:min(int64(len(zeros)), s.Size-off)]
		if n, err := s.ReadAt(part, off); n < len(part) {
			if err == io.EOF {
				return failf("missing", "%s: it became shorter while it was copied", s.path)
			}
			return failf("disk", "%s: %v", s.path, bare(err))
		}
		if !bytes.Equal(part, zeros[:len(part)]) { // else it stays a hole
			if _, err := f.WriteAt(part, off); err != nil {
				return err
			}
		}
		off += int64(len(part))
	}
	if err := f.Truncate(s.Size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return durable.SyncDir(k.dir)
}

// Link makes the copy id also that of another transfer.
func (k Kept) Link(id, other string) error {
	if err := os.Link(k.path(id), k.path(other)); err != nil {
		return err
	}
	return durable.SyncDir(k.dir)
}

// Open opens a copy; path is what the file was called. An error is an *Error.
func (k Kept) Open(id, path string) (*Source, error) {
	if !ValidID(id) {
		return nil, failf("missing", "%s: its copy has no id", path)
	}
	f, err := os.Open(k.path(id))
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

// Remove removes a copy if it is there.
func (k Kept) Remove(id string) {
	if ValidID(id) {
		_ = os.Remove(k.path(id))
	}
}

// List returns the copies that there are, and the bytes of each.
func (k Kept) List() (sizes map[string]int64, err error) {
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	sizes = map[string]int64{}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), copySuffix)
		if !ok || !ValidID(id) || !e.Type().IsRegular() {
			continue
		}
		if info, infoErr := e.Info(); infoErr == nil {
			sizes[id] = info.Size()
		}
	}
	return sizes, err
}
