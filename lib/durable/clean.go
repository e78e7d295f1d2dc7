package durable

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// tempAge is how old a temporary file is that nobody can be writing any more.
const tempAge = time.Hour

// Clean removes what processes that were killed have left of WriteFile, CreateFile
// and Edit in the directory, and returns how many files that were. What is younger
// than an hour stays: somebody may be at it. What cannot be removed stays, too.
func Clean(dir string) (n int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		name := e.Name()
		random, ok := strings.CutPrefix(name, ".aioc-")
		random, tmp := strings.CutSuffix(random, ".tmp")
		if !ok || !tmp || len(random) != 2*randomBytes || strings.Trim(random, "0123456789abcdef") != "" || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > tempAge && os.Remove(filepath.Join(dir, name)) == nil {
			n++
		}
	}
	return n
}
