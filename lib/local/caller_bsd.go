//go:build darwin || freebsd

package local

import (
	"net"

	"golang.org/x/sys/unix"
)

// CallerOf asks the kernel who opened the connection.
func CallerOf(c *net.UnixConn) (Caller, error) {
	var cred *unix.Xucred
	err := control(c, func(fd int) (err error) {
		cred, err = unix.GetsockoptXucred(fd, 0 /* SOL_LOCAL */, unix.LOCAL_PEERCRED)
		return err
	})
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{UID: int(cred.Uid), GID: -1}
	if cred.Ngroups > 0 {
		caller.GID = int(cred.Groups[0])
	}
	return caller, nil
}
