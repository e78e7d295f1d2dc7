//go:build !linux

package main

import "os"

// syncData makes what was written to a file durable, as the spool does.
func syncData(f *os.File) error { return f.Sync() }
