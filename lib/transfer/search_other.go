//go:build !linux

package transfer

import (
	"strings"

	"golang.org/x/sys/unix"
)

// dirFlags open a directory to go on from it. It must be readable for this
// process.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY

// pathOnly is no flag: such a descriptor cannot be read, which shows then.
const pathOnly = 0

// ofUser reports whether a file is on a file system that a program serves.
func ofUser(fd int) bool {
	var s unix.Statfs_t
	if unix.Fstatfs(fd, &s) != nil {
		return true
	}
	return strings.Contains(unix.ByteSliceToString(s.Fstypename[:]), "fuse")
}
