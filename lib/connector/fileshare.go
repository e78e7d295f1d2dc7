package connector

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"aioc/lib/durable"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// shares are the files that a program on this host has published, to be removed,
// and that several subscribers are to get: the last who has got one removes it.
// If one of them does not get it, it stays.
//
// That holds after a restart too. Each message notes, in file_shared, which of
// them it belongs to, and when all messages of one are on disk an empty file says
// so, which is called by that id. Without it, because the connector was killed
// meanwhile, the publisher was not told that its publication is taken, and the
// file stays.
type shares struct {
	dir string

	mu sync.Mutex
	m  map[string]*share // by file_id
}

type share struct {
	id      string
	waiting int
	stays   bool
}

// add makes one, with an id, of the file of so many messages.
func (s *shares) add(id string, stays bool, files ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]*share{}
	}
	one := &share{id: id, stays: stays}
	for _, file := range files {
		if s.m[file] == nil {
			s.m[file] = one
			one.waiting++
		}
	}
}

// confirm notes on disk that all messages of one are there.
func (s *shares) confirm(id string) error {
	if err := durable.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return durable.CreateFile(filepath.Join(s.dir, id), nil, 0o600)
}

// sent notes that a message and its file have arrived, and reports whether the
// file can be removed. One of which nothing is known stays.
func (s *shares) sent(file string) (last bool) { return s.done(file, false) }

// drop notes that a message does not wait any more. Unless it was sent, its file
// stays.
func (s *shares) drop(file string) { s.done(file, true) }

// done takes a message out, if it is there, and reports whether it was the last
// and the file can be removed.
func (s *shares) done(file string, stays bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.m[file]
	if one == nil {
		return false
	}
	delete(s.m, file)
	one.stays = one.stays || stays
	if one.waiting--; one.waiting > 0 {
		return false
	}
	_ = os.Remove(filepath.Join(s.dir, one.id)) // one that is left is removed at the next start
	return !one.stays
}

// open takes over what there is from the last run: the messages that wait, by
// file_shared.
func (s *shares) open(waiting map[string][]string) error {
	for id, files := range waiting {
		_, err := os.Lstat(filepath.Join(s.dir, id))
		s.add(id, err != nil, files...)
	}
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if id := e.Name(); transfer.ValidID(id) && waiting[id] == nil {
			_ = os.Remove(filepath.Join(s.dir, id))
		}
	}
	return err
}

// sharedBy returns the ids of a message whose file others are to get too.
func sharedBy(h *wire.Header) (id, file string, ok bool) {
	id, _ = wire.Text(h.Field("file_shared"))
	file, _ = wire.Text(h.Field("file_id"))
	return id, file, transfer.ValidID(id) && transfer.ValidID(file)
}
