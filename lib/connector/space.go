package connector

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/local"
	"aioc/lib/spool"
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

// space looks after what is left of a disk. What waits must not take the last of
// it: acknowledgements, certificates and tokens are written there too.
type space struct {
	dir string

	mu   sync.Mutex
	left int64     // bytes that may be used
	at   time.Time // when the disk was asked
}

const (
	// spaceEvery is how often the disk is asked.
	spaceEvery = 100 * time.Millisecond
	// leastPart of a small disk is reserved.
	leastPart = 16
)

// room reports whether n more bytes may be used, and counts them as used until
// the disk is asked again.
func (s *space) room(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.at.IsZero() || now.Sub(s.at) >= spaceEvery {
		s.left, s.at = free(s.dir), now
	}
	if n > s.left {
		return false
	}
	s.left -= n
	return true
}

// free returns how many bytes of the disk of dir may be used: very many when it
// cannot be asked.
func free(dir string) int64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return math.MaxInt64
	}
	size, left := uint64(s.Blocks)*uint64(s.Bsize), uint64(s.Bavail)*uint64(s.Bsize)
	reserved := min(leastSpace, size/leastPart)
	if left <= reserved {
		return 0
	}
	return int64(min(left-reserved, math.MaxInt64))
}

// newQuota returns a quota for one destination, or for dead letters.
func (c *Connector) newQuota() *spool.Quota {
	q := spool.NewQuota(c.cfg.Load().MaxPersistenceSize)
	q.Within(c.onDisk)
	q.Reserve(c.space.room)
	return q
}

// mayKeep reports whether a user who may only send may have a durable message
// kept on disk: such users leave half of it to others.
func (c *Connector) mayKeep(caller local.Caller) bool {
	limit := c.onDisk.Limit()
	return limit <= 0 || caller.Trusted() || c.onDisk.Used() < limit/2
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
