package transfer

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Stage is a file that is being received: not complete, and not under its name.
type Stage struct {
	d    *Dir
	f    *os.File // nil once sealed and opened again
	name string
	off  int64
	// Up to begun the disk was told to write.
	begun int64
	hash  hash.Hash // nil: nobody asks for it
}

const (
	partSuffix = ".part" // not complete
	doneSuffix = ".done" // complete, its message has not come
	copySuffix = ".copy" // of a file that landed, to be sent on
)

// StageID is the id of the stage for what a peer calls id. Stages of different
// peers never meet; its first half is that of all stages of the peer.
func StageID(peer, id string) string {
	whose, which := sha256.Sum256([]byte(peer)), sha256.Sum256([]byte(peer+"\x00"+id))
	return hex.EncodeToString(append(whose[:8:8], which[:8]...))
}

// peerPart is the half of a StageID that tells the peer.
func peerPart(id string) string { return id[:16] }

// Create makes a new, empty stage. An error is an *Error.
func (d *Dir) Create() (*Stage, error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	s := &Stage{d: d, name: ownPrefix + hex.EncodeToString(random[:]) + partSuffix}
	return s, s.create()
}

func (s *Stage) create() (err error) {
	s.f, err = s.d.root.OpenFile(s.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return ioError("file", err)
}

// Resume opens the stage of a transfer where it ended, or makes a new one, for
// which another of the same peer may have to go: see GaveWay. What is there
// already is read, for the sum of the whole. An error is an *Error.
func (d *Dir) Resume(id string) (*Stage, error) {
	s := &Stage{d: d, name: ownPrefix + id + partSuffix, hash: sha256.New()}
	f, err := d.open(s.name, os.O_RDWR)
	if err == nil {
		if s.f = f; s.mine() {
			if s.off, err = io.Copy(s.hash, f); err != nil {
				f.Close()
				return nil, ioError("file", err)
			}
			return s, nil
		}
		f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if info, statErr := d.root.Lstat(s.name); err != nil && statErr == nil && info.Mode().IsRegular() {
			return nil, ioError("file", err)
		}
		// It is none of ours.
		if err := d.root.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, ioError("file", err)
		}
	}
	if err := d.makeRoom(id); err != nil {
		return nil, err
	}
	return s, s.create()
}

// mine reports whether the file is one that a stage made and that has no other
// name.
func (s *Stage) mine() bool {
	info, ok := s.d.alone(s.f, s.name)
	if !ok || info.Mode().Perm()&0o077 != 0 {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// alone reports whether f is the regular file of that name and has no other: what
// somebody else has put there may be a link to a file that is to stay as it is.
func (d *Dir) alone(f *os.File, name string) (info fs.FileInfo, ok bool) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return info, false
	}
	if there, err := d.root.Lstat(name); err != nil || !os.SameFile(info, there) {
		return info, false // a symbolic link led here
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return info, ok && stat.Nlink == 1
}

// Offset is how many bytes are there.
func (s *Stage) Offset() int64 { return s.off }

// Write appends. More than the rules allow is an error, with reason size.
func (s *Stage) Write(p []byte) (int, error) {
	if s.off+int64(len(p)) > s.d.rules.Max {
		return 0, s.tooBig()
	}
	n, err := s.f.WriteAt(p, s.off)
	if s.hash != nil {
		_, _ = s.hash.Write(p[:n]) // never fails
	}
	s.off += int64(n)
	if s.off-s.begun >= writeBack {
		startSync(s.f, s.begun, s.off-s.begun)
		s.begun = s.off
	}
	return n, ioError("file", err)
}

// writeBack is after how many bytes the disk is told to begin with them: else
// all would wait for the sync at the end, and with it what others sync meanwhile.
const writeBack = 8 << 20

// zeros is what a hole in a file reads as.
var zeros [64 << 10]byte

// Skip appends n bytes that are 0, without using space where the file system
// can do without.
func (s *Stage) Skip(n int64) error {
	if n < 0 || n > s.d.rules.Max-s.off {
		return s.tooBig()
	}
	if err := s.f.Truncate(s.off + n); err != nil {
		return ioError("file", err)
	}
	s.off += n
	for s.hash != nil && n > 0 {
		k := min(n, int64(len(zeros)))
		_, _ = s.hash.Write(zeros[:k]) // never fails
		n -= k
	}
	return nil
}

func (s *Stage) tooBig() error {
	return failf("size", "the file is larger than max_size_file_upload_recv, %d bytes", s.d.rules.Max)
}

// Sum is the SHA-256 of what is there, in hex digits, of a stage that Resume
// returned.
func (s *Stage) Sum() string { return hex.EncodeToString(s.hash.Sum(nil)) }

// Restart makes the stage empty again.
func (s *Stage) Restart() error {
	s.off, s.begun = 0, 0
	if s.hash != nil {
		s.hash.Reset()
	}
	return ioError("file", s.f.Truncate(0))
}

// settle gives the file its mode and owner and brings it to the disk.
func (s *Stage) settle() error {
	if s.d.uid >= 0 || s.d.gid >= 0 {
		s.d.noteOwner(s.f.Chown(s.d.uid, s.d.gid))
	}
	if err := s.f.Chmod(s.d.rules.Mode.Perm()); err != nil {
		return ioError("file", err)
	}
	return ioError("file", s.f.Sync())
}

// Seal marks a complete stage, so that Sealed finds it, also after a crash. An
// error is an *Error.
func (s *Stage) Seal() error {
	if err := s.f.Sync(); err != nil {
		return ioError("file", err)
	}
	sealed := strings.TrimSuffix(s.name, partSuffix) + doneSuffix
	err := s.d.root.Rename(s.name, sealed)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failf("full", "the file gave way to others of its sender") // it may come again
	case err != nil:
		return ioError("file", err)
	}
	s.name = sealed
	return ioError("file", s.d.sync("."))
}

// Sealed opens a stage that was sealed; there is none with an error.
func (d *Dir) Sealed(id string) (*Stage, error) {
	s := &Stage{d: d, name: ownPrefix + id + doneSuffix}
	f, err := d.open(s.name, os.O_RDWR)
	if err != nil {
		return nil, failf("missing", "the file has not arrived")
	}
	s.f = f
	info, ok := d.alone(f, s.name)
	if !ok {
		s.Discard() // it may have its name already, and this is the other
		return nil, failf("missing", "the file has not arrived")
	}
	s.off = info.Size()
	return s, nil
}

// Land gives the complete file its name, makes the directories above it, and
// closes the stage. It returns the full name. After an error, an *Error, the
// stage is as it was: Close or Discard it.
func (s *Stage) Land(name string) (string, error) {
	d := s.d
	if err := d.Vacant(name); err != nil {
		return "", err
	}
	dir := path.Dir(name)
	if dir != "." {
		if err := d.makeAll(dir); err != nil {
			return "", ioError("directory of the file", err)
		}
	}
	if err := s.settle(); err != nil {
		return "", err
	}
	if err := s.publish(name); err != nil {
		return "", ioError("file", err)
	}
	if err := d.sync(dir); err != nil {
		return "", ioError("file", err)
	}
	s.Close()
	return d.path + "/" + name, nil
}

// publish gives the file its name.
func (s *Stage) publish(name string) error {
	d := s.d
	if !d.rules.Override {
		err := d.root.Link(s.name, name)
		if err == nil {
			return d.root.Remove(s.name)
		}
		if !noLinks(err) {
			return err
		}
		// A file system without links cannot tell who came first.
		if err := d.Vacant(name); err != nil {
			return err
		}
	}
	return d.root.Rename(s.name, name)
}

// noLinks reports whether an error says that the file system has no hard links.
func noLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) ||
		errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.ENOSYS)
}

// Close lets go of the stage. What is there stays, to be resumed. It may be
// called twice.
func (s *Stage) Close() {
	if s.f != nil {
		_ = s.f.Close()
		s.f = nil
	}
}

// Discard removes the stage.
func (s *Stage) Discard() {
	s.Close()
	_ = s.d.root.Remove(s.name)
}
