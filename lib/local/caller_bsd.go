//go:build darwin || freebsd

package local

import (
	"net"
	"os"
	"slices"

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
		groups := cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))]
		caller.GID = int(groups[0])
		caller.Member = slices.Contains(groups[1:], uint32(os.Getegid()))
	}
	return caller, nil
}
