package transfer

import "golang.org/x/sys/unix"

// dirFlags open a directory to go on from it, for which it need not be readable.
const dirFlags = unix.O_PATH | unix.O_DIRECTORY
