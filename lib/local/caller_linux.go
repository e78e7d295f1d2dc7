package local

import (
	"net"

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
	return Caller{UID: int(cred.Uid), GID: int(cred.Gid)}, nil
}
