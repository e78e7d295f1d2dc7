package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The disk: which one is measured, and what it can do without any message queue.

// diskDir chooses the directory of what is measured on a disk, and tells its file system, "" when that is
// not known. What is kept in memory would measure nothing.
func diskDir(wanted string) (dir, system string, err error) {
	if dir = wanted; dir == "" {
		if dir = os.TempDir(); fileSystem(dir) == "tmpfs" {
			dir = "."
		}
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	if info, err := os.Stat(dir); err != nil {
		return "", "", err
	} else if !info.IsDir() {
		return "", "", errors.New(dir + ": not a directory")
	}
	return dir, fileSystem(dir), nil
}

// fileSystem is the kind of the file system of a directory, "" when that is not known.
func fileSystem(dir string) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "" // not Linux
	}
	if dir, err = filepath.Abs(dir); err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return ""
	}
	return mountOf(string(mounts), dir)
}

// mountOf finds the kind of the file system of a clean absolute path in the text of a /proc/PID/mounts. Of
// several mounts on one directory the last counts.
func mountOf(mounts, path string) (system string) {
	best := -1
	for line := range strings.Lines(mounts) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		on := strings.TrimSuffix(words[1], "/")
		if within := path == on || strings.HasPrefix(path, on+"/"); within && len(on) >= best {
			best, system = len(on), words[2]
		}
	}
	return system
}

// syncRate is how often in a second a record can be appended to a file in dir and made durable, one after
// the other.
func syncRate(dir string, size int, d time.Duration) (rate float64, err error) {
	f, err := os.CreateTemp(dir, "aioc-bench")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	data := record(0, size, false)
	n, begin := 0, time.Now()
	for ; n == 0 || time.Since(begin) < d; n++ {
		if _, err := f.Write(data); err != nil {
			return 0, err
		}
		if err := syncData(f); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// groupRate is syncRate of many writers who share syncs: each appends a record, waits until it is durable,
// and so on.
func groupRate(dir string, writers, size int, d time.Duration) (rate float64, err error) {
	f, err := os.CreateTemp(dir, "aioc-bench")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	g := group{f: f}
	g.cond.L = &g.mu
	data := record(0, size, false)
	begin := time.Now()
	counts, errs := make([]int, writers), make([]error, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for counts[i] == 0 || errs[i] == nil && time.Since(begin) < d {
				errs[i] = g.append(data)
				counts[i]++
			}
		})
	}
	all.Wait()
	took := time.Since(begin)
	n := 0
	for _, count := range counts {
		n += count
	}
	return float64(n) / took.Seconds(), errors.Join(errs...)
}

// group is a file whose writers share syncs. The one who finds that nobody writes does it for all.
type group struct {
	f *os.File

	mu      sync.Mutex
	cond    sync.Cond
	pending []byte
	spare   []byte
	put     int  // records given to append
	durable int  // of them, the first so many
	busy    bool // somebody writes
	err     error
}

// append returns when the record is durable.
func (g *group) append(data []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = append(g.pending, data...)
	g.put++
	for mine := g.put; g.durable < mine && g.err == nil; {
		if g.busy {
			g.cond.Wait()
			continue
		}
		g.busy = true
		block, upTo := g.pending, g.put
		g.pending = g.spare[:0]
		g.mu.Unlock()
		_, err := g.f.Write(block)
		if err == nil {
			err = syncData(g.f)
		}
		g.mu.Lock()
		g.spare, g.busy, g.err = block, false, err
		if err == nil {
			g.durable = upTo
		}
		g.cond.Broadcast()
	}
	return g.err
}
