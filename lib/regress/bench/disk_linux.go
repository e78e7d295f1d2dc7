package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData makes what was written to a file durable, as the spool does.
func syncData(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
