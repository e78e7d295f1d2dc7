package chat

import (
	"bytes"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openMaster opens the master side of a new pseudo-terminal and returns the
// path of its other side.
func openMaster() (*os.File, string, error) {
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", err
	}
	var name [128]byte
	err = control(m, func(fd int) error {
		for _, request := range []struct {
			number uintptr
			arg    unsafe.Pointer
		}{{unix.TIOCPTYGRANT, nil}, {unix.TIOCPTYUNLK, nil}, {unix.TIOCPTYGNAME, unsafe.Pointer(&name)}} {
			if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request.number, uintptr(request.arg)); errno != 0 {
				return os.NewSyscallError("pseudo-terminal", errno)
			}
		}
		return nil
	})
	if err != nil {
		m.Close()
		return nil, "", err
	}
	path, _, _ := bytes.Cut(name[:], []byte{0})
	return m, string(path), nil
}

// inSession finds nothing: the groups that are known are all that is signalled.
func inSession(int) []int { return nil }
