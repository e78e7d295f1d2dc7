package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/spool"
)

// spoolCommand looks at what is on disk, without a connector: one that runs may
// be writing meanwhile, which changes nothing but what is seen.
func spoolCommand(_ context.Context, c *call) error {
	action, dir, out := c.args[0], c.arg(1), c.arg(2)
	if action != "salvage" && c.arg(3) != "" {
		return usagef("spool %s: unexpected argument %q", action, c.arg(3))
	}
	switch action {
	case "verify":
		if out != "" {
			return usagef("spool verify: unexpected argument %q: want one directory", out)
		}
		return c.verify(dir)
	case "dump":
		if dir == "" || out != "" {
			return usagef("spool dump: want the directory of one log, which spool verify shows")
		}
		return c.dump(dir)
	case "salvage":
		if dir == "" || out == "" {
			return usagef("spool salvage: want the directory of one log, a new one for the copy, and perhaps the subscriber whose messages to copy")
		}
		n, err := spool.Salvage(dir, out, c.arg(3))
		if err != nil {
			return fmt.Errorf("spool salvage: %w", err)
		}
		return c.p.emit(n, func(t *table) { t.row(strconv.FormatInt(n, 10) + " messages copied") })
	}
	return usagef("spool: %q: want verify, dump or salvage", action)
}

// logRow is one log in the reply of verify.
type logRow struct {
	Dir     string   `json:"directory"`
	Waiting int64    `json:"waiting"`
	Bytes   int64    `json:"bytes"`
	Damage  []string `json:"damage"`
	// Of what is published: how many wait for each subscriber.
	Subscribers map[string]int64 `json:"subscribers,omitempty"`
}

// verify reads all logs below a directory, or those of the connectors of this
// host.
func (c *call) verify(dir string) error {
	roots := []string{dir}
	if dir == "" {
		var err error
		if roots, err = c.spools(); err != nil {
			return err
		}
	}
	var dirs []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && strings.HasSuffix(path, ".log") && !slices.Contains(dirs, filepath.Dir(path)) {
				dirs = append(dirs, filepath.Dir(path))
			}
			return err
		})
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				return failf(cli.Refused, "spool verify: %v", err)
			}
			return fmt.Errorf("spool verify: %w", err)
		}
	}
	rows, damaged := []logRow{}, false
	for _, dir := range dirs {
		r, err := spool.Verify(dir)
		if err != nil {
			return fmt.Errorf("spool verify: %w", err)
		}
		row := logRow{dir, r.Waiting, r.Bytes, []string{}, r.Views}
		for _, d := range r.Damage {
			row.Damage = append(row.Damage, d.String())
			damaged = true
		}
		rows = append(rows, row)
	}
	err := c.p.emit(rows, func(t *table) {
		t.head("WAITING", "BYTES", "DAMAGE", "LOG")
		for _, r := range rows {
			t.row(strconv.FormatInt(r.Waiting, 10), size(r.Bytes), strconv.Itoa(len(r.Damage)), r.Dir)
			for _, name := range slices.Sorted(maps.Keys(r.Subscribers)) {
				t.row(strconv.FormatInt(r.Subscribers[name], 10), "", "", "  for "+name)
			}
			for _, d := range r.Damage {
				t.row("", "", "", d)
			}
		}
	})
	if err == nil && damaged {
		err = &statusError{status: cli.Failed}
	}
	return err
}

// spools are the spools in the directory of the connectors.
func (c *call) spools() ([]string, error) {
	t := c.p.opt.target
	dir := t.Dir
	if dir == "" {
		cfg := config.Defaults()
		if t.ConfigFile != "" {
			var err error
			if cfg, err = config.Load(t.ConfigFile); err != nil {
				return nil, fmt.Errorf("%w: %w", api.ErrConfig, err)
			}
		}
		dir = cfg.Dir()
	}
	all, err := filepath.Glob(filepath.Join(strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`).Replace(dir), "spool_*"))
	if err == nil && len(all) == 0 {
		if _, err := os.Stat(dir); err != nil && t.Dir != "" {
			return nil, err // a mistake, unlike a directory that nobody has made
		}
	}
	return all, err
}

// dump writes one log as lines of JSON.
func (c *call) dump(dir string) error {
	w := bufio.NewWriter(c.p)
	if err := spool.Dump(dir, w, c.p.opt.frames); err != nil {
		return fmt.Errorf("spool dump: %w", err)
	}
	return w.Flush()
}
