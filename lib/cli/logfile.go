package cli

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LogName is the name of the log file in its directory, as in the original.
const LogName = "aioconnectors.log"

// A LogFile is a log file that is rotated when it has reached a size: the old
// one is compressed, as NAME.1.gz, those before it count up, and the oldest is
// removed. Several processes may write to one file. Its methods may be called
// from any goroutine.
type LogFile struct {
	path     string
	max      int64     // bytes, 0: never rotated
	keep     int       // old files
	complain io.Writer // hears that the file cannot be written
	all      sync.WaitGroup

	mu      sync.Mutex // guards what follows
	f       *os.File   // nil when it cannot be opened
	grown   int64      // size beyond which it is rotated once more, after a failure
	failing bool       // it was complained
	hurried time.Time  // until then locks are not waited for: somebody holds one
	closed  bool
}

// OpenLogFile opens or makes the file, with mode 0640 if it is new. With max or
// keep 0 it grows for ever. What goes wrong later is said to complain, once
// until it is well again. A symbolic link is refused: in a directory that others
// can write to it could lead anywhere. So is a file of another user but root: it
// could be read, changed, or locked so that the log waits for ever.
func OpenLogFile(path string, max int64, keep int, complain io.Writer) (*LogFile, error) {
	l := &LogFile{path: path, max: max, keep: keep, complain: complain}
	if keep == 0 {
		l.max = 0
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the file of that name. mu is held.
func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK) {
		return fmt.Errorf("log file %q: is a symbolic link: name the directory that it leads to, or remove it", l.path)
	}
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", l.path)
	}
	if st := (unix.Stat_t{}); err == nil {
		if err = unix.Fstat(int(f.Fd()), &st); err == nil && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
			err = fmt.Errorf("%w: %s belongs to user %d: remove it, or choose another default_logger_dirpath", fs.ErrPermission, l.path, st.Uid)
		}
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("log file: %w", err)
	}
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

// Write appends a line. A line that cannot be written is lost.
func (l *LogFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, fs.ErrClosed
	}
	n, err := l.write(line)
	if err != nil && !l.failing {
		fmt.Fprintf(l.complain, "log lines are lost: %v\n", err)
	}
	l.failing = err != nil
	return n, err
}

// write appends a line to the file that has the name now. Whoever writes holds
// a shared lock, and who renames or compresses the file the only one: so no
// line gets into a file that is compressed already.
func (l *LogFile) write(line []byte) (int, error) {
	for {
		size, ok := l.current()
		if !ok {
			if err := l.open(); err != nil {
				return 0, err
			}
			continue
		}
		if l.max > 0 && size > 0 && size+int64(len(line)) > l.grown+l.max {
			if err := l.rotate(int64(len(line))); err != nil {
				l.grown = size // try again when as much has been written once more
				fmt.Fprintf(l.complain, "log file is not rotated: %v\n", err)
			}
			continue
		}
		err := l.lock(unix.LOCK_SH)
		if errors.Is(err, errHeld) {
			// Better a line in a file that is being compressed than none at all.
			return l.f.Write(line)
		}
		if err != nil {
			return 0, err
		}
		if _, ok := l.current(); ok {
			n, err := l.f.Write(line)
			return n, errors.Join(err, flock(l.f, unix.LOCK_UN))
		}
		if err := flock(l.f, unix.LOCK_UN); err != nil {
			return 0, err
		}
	}
}

// current reports whether the open file is the one of that name, and its size.
func (l *LogFile) current() (size int64, ok bool) {
	if l.f == nil {
		return 0, false
	}
	info, err := l.f.Stat()
	if err != nil {
		return 0, false
	}
	there, err := os.Lstat(l.path)
	return info.Size(), err == nil && os.SameFile(info, there)
}

// lockWait is how long a lock is waited for. Those who write hold it for a moment
// only, but whoever may read the file can lock it, and must not stop the daemon.
const lockWait = 2 * time.Second

// hurry is how long locks are not waited for after one was held.
const hurry = 10 * time.Second

// errHeld is wrapped when somebody else has the lock for longer.
var errHeld = errors.New("somebody holds a lock on it")

// lock waits for a lock of the file, for a while not after one was held for long.
// mu is held.
func (l *LogFile) lock(how int) error {
	wait := lockWait
	if time.Now().Before(l.hurried) {
		wait = 0
	}
	err := flockFor(l.f, how, wait)
	if wait > 0 && errors.Is(err, errHeld) {
		l.hurried = time.Now().Add(hurry)
	}
	return err
}

// flock waits for a lock of the file, or ends it.
func flock(f *os.File, how int) error { return flockFor(f, how, lockWait) }

// flockFor is flock for at most so long.
func flockFor(f *os.File, how int, wait time.Duration) error {
	end := time.Now().Add(wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err == unix.EINTR:
		case err != unix.EWOULDBLOCK:
			return fmt.Errorf("log file: lock: %w", err)
		case !time.Now().Before(end):
			return fmt.Errorf("log file: %w: %s", errHeld, f.Name())
		default:
			time.Sleep(pause)
		}
	}
}

// rotate gives the file another name if there is no room in it for n bytes.
func (l *LogFile) rotate(n int64) error {
	if err := l.lock(unix.LOCK_EX); err != nil {
		return err
	}
	// Another process may have been faster.
	if size, ok := l.current(); !ok || size+n <= l.grown+l.max {
		return flock(l.f, unix.LOCK_UN)
	}
	if err := l.shift(); err != nil {
		return errors.Join(err, flock(l.f, unix.LOCK_UN))
	}
	// Who compresses it keeps the lock, so that nobody gives it another name
	// meanwhile.
	old := l.f
	l.f, l.grown = nil, 0
	l.all.Go(func() {
		defer old.Close()
		if err := compress(old, l.old(1)); err != nil {
			fmt.Fprintf(l.complain, "old log file is not compressed: %v\n", err)
		}
	})
	return nil
}

// shift renames the old files, and the file itself to NAME.1.
func (l *LogFile) shift() error {
	l.all.Wait() // for the one before
	first := l.old(1)
	if f, err := os.OpenFile(first, os.O_RDONLY|unix.O_NOFOLLOW, 0); err == nil {
		// Another process may be compressing it.
		err = flock(f, unix.LOCK_EX) // else it would remove what gets the name
		f.Close()
		if err != nil {
			return err
		}
	}
	for _, suffix := range []string{"", ".gz"} {
		for i := l.keep; i > 0; i-- {
			var err error
			if i == l.keep {
				err = os.Remove(l.old(i) + suffix)
			} else {
				err = os.Rename(l.old(i)+suffix, l.old(i+1)+suffix)
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return os.Rename(l.path, first)
}

func (l *LogFile) old(i int) string { return l.path + "." + strconv.Itoa(i) }

// compress replaces a file, which is locked and has the path, by one with .gz
// added to its name.
func compress(in *os.File, path string) (err error) {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		out.Close()
		if err != nil {
			os.Remove(part)
		}
	}()
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, io.NewSectionReader(in, 0, info.Size())); err != nil {
		return err
	}
	if err := errors.Join(z.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// Reopen opens the file of that name again, as after another program has
// renamed it. With an error the old one goes on.
func (l *LogFile) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fs.ErrClosed
	}
	return l.open()
}

// Close closes the file when the last old one is compressed.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Wait()
	if l.closed || l.f == nil {
		l.closed = true
		return nil
	}
	l.closed = true
	return l.f.Close()
}
