package connector

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/transfer"
)

// leastSpace is how many bytes a disk must have left to be well.
const leastSpace = 8 << 20

// SpaceWarnings names the directories of a connector of this configuration whose
// disk has no room: messages, certificates and tokens could not be kept. Those
// that are not there are left out.
func SpaceWarnings(cfg *config.Config) []string {
	paths := cfg.Paths()
	var found []string
	seen := map[string]bool{}
	for _, dir := range []string{paths.Dir, paths.TokensDir, cfg.CertificatesDir} {
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if text := shortOf(dir, leastSpace); text != "" {
			found = append(found, text)
		}
	}
	return found
}

// TargetWarnings names the types of files of this configuration that cannot be
// stored, because no file can be made where they are to go: it belongs to
// another user, or the service manager has made it read-only.
func TargetWarnings(cfg *config.Config) []string {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(cfg.FileTargets)) {
		base := transfer.Base(cfg.FileTargets[name].Directory)
		at := base // or where it will be made
		err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		for err == unix.ENOENT && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			err = unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		}
		if info, statErr := os.Stat(at); statErr == nil && !info.IsDir() {
			err = unix.ENOTDIR
		}
		if err == nil {
			continue
		}
		text := fmt.Sprintf("file_recv_config: files of the type %q cannot be stored in %q", name, base)
		if at != base {
			text += fmt.Sprintf(", which cannot be made in %q", at)
		}
		found = append(found, fmt.Sprintf("%s: %v", text, err))
	}
	return found
}

// shortOf says that the disk of dir has less than least bytes, or no file left;
// "" if it has, or cannot be asked.
func shortOf(dir string, least uint64) string {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return ""
	}
	left := uint64(s.Bavail) * uint64(s.Bsize)
	switch {
	case left < least:
		return fmt.Sprintf("the disk of %s is full: %d KiB are left", dir, left>>10)
	case s.Files > 0 && s.Ffree == 0:
		return fmt.Sprintf("the disk of %s is full: it can hold no more files", dir)
	}
	return ""
}

// cleanUp removes what a connector that was killed has left in its directories.
func (c *Connector) cleanUp(cfg *config.Config) {
	tree := config.CertificateTree(cfg.CertificatesDir)
	n := 0
	for _, dir := range []string{c.paths.Dir, c.paths.TokensDir, tree.ServerDir, tree.ServerCertDir, tree.ServerClientCerts,
		tree.CAGenerated, tree.ClientServerCertDir, tree.ClientCertDir} {
		n += durable.Clean(dir)
	}
	if n > 0 {
		c.log.Info("files that a killed connector had not completed were removed", "n", n)
	}
}
