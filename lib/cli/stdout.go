package cli

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrClosed is the error of [CheckOutput].
var ErrClosed = errors.New("standard output is closed, or /dev/null opened for reading and writing, which looks the same: what is printed would be lost (to throw it away, use >/dev/null)")

// CheckOutput returns [ErrClosed] when w is a standard output that was closed
// when the program was started, as with >&- in a shell, and nil for anything
// else that can be written to. A program calls it before it takes what it
// prints from somebody else, who has nothing left then.
//
// Go opens /dev/null for reading and writing in place of a closed descriptor.
// That is how it is known; a shell opens /dev/null for writing only. Python and
// Node open it for both when they are told to discard output, which cannot be
// told apart: so a program that loses nothing does not ask. A daemon whose
// standard error is like that too is taken to want no output.
func CheckOutput(w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok || f == nil {
		return nil
	}
	return checkOutput(f, os.Stderr)
}

// Full reports whether err says that a disk or a quota is full: then it may
// help to try again.
func Full(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// checkOutput is CheckOutput with the standard error.
func checkOutput(stdout, stderr *os.File) error {
	if replaced(stdout) && !replaced(stderr) {
		return ErrClosed
	}
	return nil
}

// replaced reports whether f is what Go puts in the place of a closed one.
func replaced(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return true // closed by this program
	}
	var st, null unix.Stat_t
	var flags int
	var statErr, flagErr error
	err = conn.Control(func(fd uintptr) {
		statErr = unix.Fstat(int(fd), &st)
		flags, flagErr = unix.FcntlInt(fd, unix.F_GETFL, 0)
	})
	if err != nil || statErr != nil || flagErr != nil {
		return true
	}
	if unix.Stat(os.DevNull, &null) != nil {
		return false
	}
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == null.Rdev &&
		flags&(unix.O_ACCMODE|unix.O_APPEND) == unix.O_RDWR
}
