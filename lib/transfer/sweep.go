package transfer

import (
	"io"
	"os"
	"path/filepath"
	"time"
)

// How long a file that is not complete is kept since something was last added
// to it.
const (
	KeepPartial = 72 * time.Hour      // a transfer goes on where it ended
	keepSealed  = 30 * 24 * time.Hour // a whole file whose message waits, here or at the sender
)

// maxSwept bounds the names that one Sweep looks at.
const maxSwept = 100_000

// Sweep removes what was left behind of transfers that did not go on, in the
// directories that target_directory can stand for. It returns how many files
// that were. What cannot be looked at is left.
func Sweep(template string, now time.Time) (removed int) {
	base, depth := fixed(template)
	root, err := os.OpenRoot(base)
	if err != nil {
		return 0
	}
	defer root.Close()
	looked := 0
	return sweep(root, depth, now, &looked)
}

// sweep looks at the directories that are depth levels below root.
func sweep(root *os.Root, depth int, now time.Time, looked *int) (removed int) {
	f, err := root.Open(".")
	if err != nil {
		return 0
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(256)
		for _, e := range entries {
			if *looked++; *looked > maxSwept {
				return removed
			}
			name := e.Name()
			if depth > 0 {
				if e.IsDir() {
					if sub, err := root.OpenRoot(name); err == nil {
						removed += sweep(sub, depth-1, now, looked)
						sub.Close()
					}
				}
				continue
			}
			if !unfinished(name) {
				continue
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				continue
			}
			keep := KeepPartial
			if ext := filepath.Ext(name); ext == doneSuffix || ext == copySuffix {
				keep = keepSealed
			}
			if now.Sub(info.ModTime()) > keep && root.Remove(name) == nil {
				removed++
			}
		}
		if err == io.EOF || err != nil {
			return removed
		}
	}
}
