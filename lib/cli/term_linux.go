package cli

import "golang.org/x/sys/unix"

// termiosRequest is the ioctl that only a terminal answers.
const termiosRequest = unix.TCGETS
