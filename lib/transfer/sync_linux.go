package transfer

import (
	"os"

	"golang.org/x/sys/unix"
)

// startSync lets the disk begin to write a part of the file, and waits for
// nothing but room in its queue. An error is met again by the sync.
func startSync(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
