package local

import (
	"net"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// CallerOf asks the kernel who opened the connection.
func CallerOf(c *net.UnixConn) (Caller, error) {
	var cred *unix.Ucred
	err := control(c, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{UID: int(cred.Uid), GID: int(cred.Gid)}
	if !caller.Trusted() {
		// A kernel before 4.13 does not tell: then the caller is no member.
		_ = control(c, func(fd int) error {
			groups, err := peerGroups(fd)
			caller.Member = slices.Contains(groups, uint32(os.Getegid()))
			return err
		})
	}
	return caller, nil
}

// peerGroups returns the groups beside its own that a caller had when it
// connected.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 64)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
