package transfer

import "golang.org/x/sys/unix"

// dirFlags open a directory to go on from it, for which it need not be readable.
const dirFlags = unix.O_PATH | unix.O_DIRECTORY

// pathOnly is the flag of a descriptor that stands for a name only.
const pathOnly = unix.O_PATH

// ofUser reports whether a file is on a file system that a program serves.
func ofUser(fd int) bool {
	var s unix.Statfs_t
	return unix.Fstatfs(fd, &s) != nil || s.Type == unix.FUSE_SUPER_MAGIC
}
