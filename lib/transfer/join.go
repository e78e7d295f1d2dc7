package transfer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	chunkSuffix = ".chunk"
	maxChunks   = 4096 // of one file
	maxPartial  = 64   // files of one peer that are not complete, in one directory
)

// Add adds a stage, which is complete and which it closes, as a chunk of the
// file name, and returns the full name of that file if it was the last one.
// Chunks may come in any order, and some before and some after a restart. key is
// a StageID that is the same for the chunks of one file only. A chunk that
// comes again with other content begins the file anew. After an error, an
// *Error, the stage is gone.
//
// Differs: the original counts names and joins in the order of the names, so
// that a file of ten chunks or more is damaged, and chunks of an earlier attempt
// are mixed in (aioconnectors connection.py).
func (s *Stage) Add(key string, c *Chunk, name string) (stored string, err error) {
	defer func() {
		if err != nil {
			s.Discard()
		}
		s.Close()
	}()
	d := s.d
	if c.Count > maxChunks {
		return "", failf("size", "a file of %d chunks, at most %d", c.Count, maxChunks)
	}
	if err := d.Vacant(name); err != nil {
		d.dropChunks(key, c.Count)
		return "", err
	}
	part := chunkName(key, c.Index, c.Count)
	total, here := d.chunks(key, c.Count)
	switch old, err := d.root.Lstat(part); {
	case err == nil && old.Size() == s.off && d.equal(s, part):
		s.Discard() // the same again
	case err == nil:
		d.dropChunks(key, c.Count)
		total, here = 0, 0
		fallthrough
	default:
		if here == 0 {
			if err := d.makeRoom(key); err != nil {
				return "", err
			}
		}
		if total += s.off; total > d.rules.Max {
			d.dropChunks(key, c.Count)
			return "", s.tooBig()
		}
		if err := s.f.Sync(); err != nil {
			return "", ioError("chunk", err)
		}
		if err := d.root.Rename(s.name, part); err != nil {
			return "", ioError("chunk", err)
		}
		s.name = part
		if err := d.sync("."); err != nil {
			return "", ioError("chunk", err)
		}
		here++
	}
	if here < c.Count {
		return "", nil
	}
	stored, err = d.join(key, c.Count, name)
	var own *Error
	if err == nil || errors.As(err, &own) && own.Reason != "full" {
		d.dropChunks(key, c.Count)
	}
	return stored, err
}

func chunkName(key string, index, count int) string {
	return fmt.Sprintf("%s%s-%d-%d%s", ownPrefix, key, count, index, chunkSuffix)
}

// chunks returns the bytes and the number of the chunks that are here.
func (d *Dir) chunks(key string, count int) (total int64, n int) {
	for i := 1; i <= count; i++ {
		if info, err := d.root.Lstat(chunkName(key, i, count)); err == nil && info.Mode().IsRegular() {
			total += info.Size()
			n++
		}
	}
	return total, n
}

func (d *Dir) dropChunks(key string, count int) {
	for i := 1; i <= count; i++ {
		_ = d.root.Remove(chunkName(key, i, count))
	}
}

// equal reports whether a stage and a file have the same content.
func (d *Dir) equal(s *Stage, name string) bool {
	f, err := d.openChunk(name)
	if err != nil {
		return false
	}
	defer f.Close()
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := int64(0); off < s.off; {
		n := int(min(int64(len(a)), s.off-off))
		if _, err := s.f.ReadAt(a[:n], off); err != nil {
			return false
		}
		if _, err := io.ReadFull(f, b[:n]); err != nil || string(a[:n]) != string(b[:n]) {
			return false
		}
		off += int64(n)
	}
	return true
}

// openChunk opens a chunk that is no link to something else. An error is an
// *Error.
func (d *Dir) openChunk(name string) (*os.File, error) {
	f, err := d.open(name, os.O_RDONLY)
	if err != nil {
		return nil, ioError("chunk", err)
	}
	if _, ok := d.alone(f, name); !ok {
		f.Close()
		return nil, failf("missing", "a chunk has been replaced at the receiver")
	}
	return f, nil
}

// join puts the chunks together.
func (d *Dir) join(key string, count int, name string) (stored string, err error) {
	s, err := d.Create()
	if err != nil {
		return "", err
	}
	for i := 1; i <= count && err == nil; i++ {
		err = s.appendFile(chunkName(key, i, count))
	}
	if err == nil {
		stored, err = s.Land(name)
	}
	if err != nil {
		s.Discard()
	}
	return stored, err
}

func (s *Stage) appendFile(name string) error {
	f, err := s.d.openChunk(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := s.f.Seek(s.off, io.SeekStart); err != nil {
		return ioError("chunk", err)
	}
	n, err := io.Copy(s.f, f) // in the kernel, where that can be
	if s.off += n; err == nil && s.off > s.d.rules.Max {
		return s.tooBig()
	}
	return ioError("chunk", err)
}

// partial is a file that is not complete, or has no name yet.
type partial struct {
	names  []string
	sealed bool
	last   time.Time // when something was last added to it
}

// makeRoom sees to it that a peer, whose key is given, can begin one more file:
// when there are too many of its own that are not complete, those go to which
// nothing was added for the longest time. Files that wait for their message only
// go after all others.
func (d *Dir) makeRoom(key string) error {
	f, err := d.root.Open(".")
	if err != nil {
		return ioError("target_directory", err)
	}
	defer f.Close()
	prefix := ownPrefix + peerPart(key)
	files := map[string]*partial{}
	for {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			name := e.Name()
			if !strings.HasPrefix(name, prefix) || !unfinished(name) || strings.HasSuffix(name, copySuffix) {
				continue
			}
			info, err := e.Info()
			if err != nil { // it is gone
				continue
			}
			id := name[:len(ownPrefix)+32]
			p := files[id]
			if p == nil {
				p = &partial{}
				files[id] = p
			}
			p.names = append(p.names, name)
			p.sealed = p.sealed || strings.HasSuffix(name, doneSuffix)
			if info.ModTime().After(p.last) {
				p.last = info.ModTime()
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return ioError("target_directory", err)
		}
	}
	if len(files) < maxPartial {
		return nil
	}
	list := slices.SortedFunc(maps.Values(files), func(a, b *partial) int {
		switch {
		case a.sealed == b.sealed:
			return a.last.Compare(b.last)
		case a.sealed:
			return 1
		}
		return -1
	})
	for _, p := range list[:len(list)-maxPartial+1] {
		for _, name := range p.names {
			if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return ioError("target_directory", err)
			}
		}
		d.gaveWay++
	}
	return nil
}

// GaveWay is how many files that were not complete had to go, so that others of
// the same peer could be begun.
func (d *Dir) GaveWay() int { return d.gaveWay }

// unfinished reports whether a name is one of a file that is not complete.
func unfinished(name string) bool {
	rest, own := strings.CutPrefix(name, ownPrefix)
	if !own || len(rest) < 32 || !ValidID(rest[:32]) {
		return false
	}
	switch rest[32:] {
	case partSuffix, doneSuffix, copySuffix:
		return true
	}
	return strings.HasSuffix(rest, chunkSuffix)
}
