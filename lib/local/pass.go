package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A program can pass open files with the bytes that it writes (SCM_RIGHTS). The
// files of a connection are numbered from 1, in the order in which they were
// passed. Each goes with at least one byte of its own, and not later than the
// bytes that speak of it.

// MaxPassed is how many files one end keeps that were passed and not claimed
// yet. When there are more, the oldest are closed.
const MaxPassed = 32

// ErrNotPassed is wrapped when a file is claimed that was not passed, or was
// closed because too many were.
var ErrNotPassed = errors.New("no file was passed")

// ErrPassed is wrapped when the files that came with bytes break the rules.
var ErrPassed = errors.New("files passed against the rules")

// closeWait is how long the closing of a file is waited for, once in a connection.
const closeWait = time.Second

// Incoming reads from a connection, and keeps the files that are passed on it
// until they are claimed. Its methods are called from one goroutine.
//
// To close a file may take for ever: the program that serves a file system (FUSE)
// is asked first, and it may be the caller's. So that is done aside, and counts
// until it is over.
type Incoming struct {
	conn    *net.UnixConn
	account func(delta int) bool
	oob     []byte // nil: files are not accepted, and dropped by the system
	files   []*os.File
	first   uint64 // number of files[0]
	slow    bool   // the closing of one took long
}

// NewIncoming returns an Incoming that does not accept files yet. It does not
// close the connection. account is called with 0 to learn whether there is room
// for a file: without, none is taken from the system. It is called with 1 for each
// file that is to be kept, and refuses it by returning false; and with -1, from any
// goroutine, when it is closed or belongs to the caller of Taken.
func NewIncoming(conn *net.UnixConn, account func(delta int) bool) *Incoming {
	return &Incoming{conn: conn, account: account, first: 1}
}

// Accept makes it accept files, which come with what is read from now on.
func (in *Incoming) Accept() {
	// There is room for more than one descriptor, so that more than one is seen,
	// and not cut off in silence by a system that has no room for half of them.
	in.oob = make([]byte, unix.CmsgSpace(2*4))
}

// Read reads bytes, and keeps the file that came with them. An error wraps
// ErrPassed when there were several with one write, or something else.
func (in *Incoming) Read(p []byte) (int, error) {
	if in.oob == nil || len(p) == 0 {
		return in.conn.Read(p)
	}
	oob := in.oob
	if !in.account(0) {
		oob = nil // the system drops what comes, and nobody has to close it
	}
	n, oobn, flags, _, err := in.conn.ReadMsgUnix(p, oob)
	if oobn > 0 || flags&unix.MSG_CTRUNC != 0 {
		if passErr := in.keep(oob[:oobn], flags&unix.MSG_CTRUNC != 0); passErr != nil {
			return 0, passErr
		}
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // as other connections say it
	}
	return max(n, 0), err // it is -1 with an error
}

// keep keeps the file of a control message. When the process can have no more
// descriptors the message is cut off: then, or when there are too many, the
// number stands for no file.
func (in *Incoming) keep(oob []byte, cut bool) error {
	var got []int
	messages, err := unix.ParseSocketControlMessage(oob)
	for i := range messages {
		fds, rightsErr := unix.ParseUnixRights(&messages[i])
		if rightsErr != nil {
			err = rightsErr
		}
		got = append(got, fds...)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrPassed, err)
	case len(got) > 1:
		err = fmt.Errorf("%w: more than one with one write", ErrPassed)
	}
	if err != nil {
		for _, fd := range got {
			in.close(os.NewFile(uintptr(fd), "passed"), in.account(1))
		}
		return err
	}
	var f *os.File
	if len(got) == 1 {
		f = os.NewFile(uintptr(got[0]), "passed")
	} else if !cut {
		return nil
	}
	if len(in.files) >= MaxPassed {
		in.dropFirst()
	}
	switch room := in.account(1); {
	case f == nil && room:
		in.account(-1)
	case f != nil && !room:
		in.close(f, false)
		f = nil
	}
	in.files = append(in.files, f)
	return nil
}

// dropFirst closes the oldest.
func (in *Incoming) dropFirst() {
	if f := in.files[0]; f != nil {
		in.close(f, true)
	}
	in.files = append(in.files[:0], in.files[1:]...)
	in.first++
}

// close closes a file, which counts until then or was not counted.
func (in *Incoming) close(f *os.File, counted bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Close()
		if counted {
			in.account(-1)
		}
	}()
	if in.slow {
		return
	}
	wait := time.NewTimer(closeWait)
	defer wait.Stop()
	select {
	case <-done:
	case <-wait.C:
		in.slow = true
	}
}

// Claim returns file number n, which counts until Taken or Discard. Those before it are
// closed: what spoke of them was not wanted. The error wraps ErrNotPassed, or
// syscall.EMFILE when it was passed but too many files are open.
func (in *Incoming) Claim(n uint64) (*os.File, error) {
	for len(in.files) > 0 && in.first < n {
		in.dropFirst()
	}
	if len(in.files) == 0 || in.first != n {
		return nil, fmt.Errorf("%w as number %d", ErrNotPassed, n)
	}
	f := in.files[0]
	in.files[0] = nil
	in.dropFirst()
	if f == nil {
		return nil, fmt.Errorf("file number %d: %w", n, syscall.EMFILE)
	}
	return f, nil
}

// Taken makes a file that was claimed the caller's, who closes it.
func (in *Incoming) Taken() { in.account(-1) }

// Discard closes a file that was claimed and is not wanted.
func (in *Incoming) Discard(f *os.File) { in.close(f, true) }

// Close closes the files that were not claimed.
func (in *Incoming) Close() {
	for len(in.files) > 0 {
		in.dropFirst()
	}
}

// Outgoing is a connection on which files can be passed. Its methods may be
// called from any goroutine. It is a net.Conn.
type Outgoing struct {
	conn *net.UnixConn

	writing sync.Mutex // one Write at a time: taken before mu

	mu     sync.Mutex
	files  []*os.File // to be passed with the next bytes
	passed uint64
	closed bool
}

// NewOutgoing returns an Outgoing on conn, which it closes with itself.
func NewOutgoing(conn *net.UnixConn) *Outgoing { return &Outgoing{conn: conn} }

// Pass makes f be passed with what is written next, and returns its number. f
// is duplicated: the caller may close its own at once. At least one byte has to
// be written for each file.
func (o *Outgoing) Pass(f *os.File) (n uint64, err error) {
	var fd int
	raw, err := f.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(own uintptr) { fd, inner = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
		if err == nil {
			err = inner
		}
	}
	if err != nil {
		return 0, fmt.Errorf("%s: duplicate the descriptor: %w", f.Name(), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		unix.Close(fd)
		return 0, net.ErrClosed
	}
	o.files = append(o.files, os.NewFile(uintptr(fd), f.Name()))
	o.passed++
	return o.passed, nil
}

// Write writes bytes, and with the first of them the files that wait.
func (o *Outgoing) Write(p []byte) (n int, err error) {
	o.writing.Lock()
	defer o.writing.Unlock()
	for n < len(p) {
		f := o.next()
		if f == nil {
			k, err := o.conn.Write(p[n:])
			return n + k, err
		}
		// A byte each: so many files never come later than what speaks of them.
		k, err := o.with(f, p[n:n+1])
		f.Close()
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// next takes the next file to be passed, or nil.
func (o *Outgoing) next() *os.File {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.files) == 0 {
		return nil
	}
	f := o.files[0]
	o.files = append(o.files[:0], o.files[1:]...)
	return f
}

func (o *Outgoing) with(f *os.File, p []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) {
		n, _, err = o.conn.WriteMsgUnix(p, unix.UnixRights(int(fd)), nil)
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return n, err
}

// Close closes the connection, and the files that were not written.
func (o *Outgoing) Close() error {
	o.mu.Lock()
	o.closed = true
	for _, f := range o.files {
		f.Close()
	}
	o.files = nil
	o.mu.Unlock()
	return o.conn.Close()
}

// Read reads from the connection.
func (o *Outgoing) Read(p []byte) (int, error) { return o.conn.Read(p) }

// LocalAddr is that of the connection.
func (o *Outgoing) LocalAddr() net.Addr { return o.conn.LocalAddr() }

// RemoteAddr is that of the connection.
func (o *Outgoing) RemoteAddr() net.Addr { return o.conn.RemoteAddr() }

// SetDeadline is that of the connection.
func (o *Outgoing) SetDeadline(t time.Time) error { return o.conn.SetDeadline(t) }

// SetReadDeadline is that of the connection.
func (o *Outgoing) SetReadDeadline(t time.Time) error { return o.conn.SetReadDeadline(t) }

// SetWriteDeadline is that of the connection.
func (o *Outgoing) SetWriteDeadline(t time.Time) error { return o.conn.SetWriteDeadline(t) }
