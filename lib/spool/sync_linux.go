package spool

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sync leaves out the times of the file, which would cost a second write.
func (f diskFile) Sync() error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var syncErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if syncErr = unix.Fdatasync(int(fd)); !errors.Is(syncErr, syscall.EINTR) {
				return
			}
		}
	})
	if err == nil {
		err = syncErr
	}
	return err
}
