//go:build !linux

package transfer

import "golang.org/x/sys/unix"

// dirFlags open a directory to go on from it. It must be readable for this
// process.
const dirFlags = unix.O_RDONLY | unix.O_DIRECTORY
