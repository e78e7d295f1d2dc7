package connector

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/spool"
)

// checkBytes is how much of the logs CheckSpools reads at most: it has to be
// quick.
const checkBytes = 256 << 20

// SpoolReport is what CheckSpools found.
type SpoolReport struct {
	Logs     int
	Waiting  int64    // messages in those that were read
	Unread   int      // logs that were not read: there is too much
	Warnings []string // damage, and what nobody takes; a start goes on with it
}

// CheckSpools reads what is kept on disk for a connector of this configuration,
// without writing anything. The error is what keeps a connector from starting: a
// directory that is somebody else's, a file that cannot be read or written. Of
// very much it reads a part.
func CheckSpools(cfg *config.Config) (r SpoolReport, err error) {
	if cfg.MaxPersistenceSize == 0 {
		return r, nil
	}
	paths := cfg.Paths()
	info, err := os.Stat(paths.Spool)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return r, err
	case !info.IsDir():
		return r, fmt.Errorf("%q is no directory: remove it", paths.Spool)
	}
	if err := durable.CheckOwner(paths.Spool); err != nil {
		return r, err
	}
	names, err := config.SpoolNames(paths.SpoolTypes)
	if err != nil {
		return r, err
	}
	for _, typ := range names {
		if !slices.Contains(cfg.RecvTypes, typ) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("messages may wait in %q for type %q, which is not in recv_message_types", paths.SpoolFrom(typ), typ))
		}
	}
	left := int64(checkBytes)
	var failed []error
	err = filepath.WalkDir(paths.Spool, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			failed = append(failed, err)
			return fs.SkipDir
		}
		if d.IsDir() {
			failed = append(failed, r.checkLog(path, &left))
		}
		return nil
	})
	return r, errors.Join(append(failed, err)...)
}

// checkLog looks at the log in a directory, if there is one.
func (r *SpoolReport) checkLog(dir string, left *int64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // who walks here meets it too
	}
	size := int64(0)
	log := false
	for _, e := range entries {
		segment := strings.HasSuffix(e.Name(), ".log")
		if !e.Type().IsRegular() || !segment && !strings.HasSuffix(e.Name(), ".ack") {
			continue
		}
		log = log || segment
		path := filepath.Join(dir, e.Name())
		if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil {
			return &fs.PathError{Op: "open", Path: path, Err: err}
		}
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	if !log {
		return nil
	}
	r.Logs++
	if err := durable.CheckOwner(dir); err != nil {
		return err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "write", Path: dir, Err: err}
	}
	if *left -= size; *left < 0 {
		r.Unread++
		return nil
	}
	found, err := spool.Verify(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // a connector that runs has removed it
	case err != nil:
		return err
	}
	r.Waiting += found.Waiting
	// A torn end is what any crash leaves, and nobody was told that it was kept.
	bad := slices.DeleteFunc(found.Damage, spool.Damage.OfCrash)
	if len(bad) > 0 {
		more := ""
		if n := len(bad) - 1; n > 0 {
			more = fmt.Sprintf(" and %d more", n)
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("damage in what is kept on disk: %v%s: a start takes what is intact and keeps damaged segments, as .log.bad; aioc-ctl spool verify shows all", bad[0], more))
	}
	return nil
}
