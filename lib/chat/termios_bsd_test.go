//go:build darwin || freebsd

package chat

import "golang.org/x/sys/unix"

// termios reads the modes of a terminal.
func termios(fd int) (*unix.Termios, error) { return unix.IoctlGetTermios(fd, unix.TIOCGETA) }
