package connector

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"aioc/lib/local"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// maxHeld bounds the files that are open while their messages wait.
const maxHeld = 256

// held are the files of messages that wait, open, so that a program may remove
// its file as soon as the message was taken.
type held struct {
	mu sync.Mutex
	m  map[string]heldFile // by file_id
}

type heldFile struct {
	src *transfer.Source
	uid int // of a user who may only send, -1 of others
}

// add keeps s, if there is room, and reports whether it does. For files of users
// who may only send there is half of it, and for each of them an eighth.
func (h *held) add(id string, s *transfer.Source, caller local.Caller) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := heldFile{s, -1}
	if !caller.Trusted() {
		f.uid = caller.UID
		same := 0
		for _, other := range h.m {
			if other.uid == f.uid {
				same++
			}
		}
		if len(h.m) >= maxHeld/2 || same >= maxHeld/8 {
			return false
		}
	}
	if len(h.m) >= maxHeld {
		return false
	}
	h.put(id, f)
	return true
}

func (h *held) put(id string, f heldFile) {
	if h.m == nil {
		h.m = map[string]heldFile{}
	}
	h.m[id] = f
}

// take returns what was kept, or nil.
func (h *held) take(id string) *transfer.Source {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := h.m[id]
	delete(h.m, id)
	return f.src
}

// back keeps again what was taken, and was not sent.
func (h *held) back(id string, s *transfer.Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.put(id, heldFile{s, -1})
}

// drop closes what was kept, if it is there.
func (h *held) drop(id string) {
	if s := h.take(id); s != nil {
		s.Close()
	}
}

// close closes all.
func (h *held) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.m {
		f.src.Close()
	}
	h.m = nil
}

// copies are the copies of files whose messages wait.
type copies struct {
	kept transfer.Kept
	mu   sync.Mutex
	m    map[string]charge // by file_id
}

// charge is what a copy uses of a quota.
type charge struct {
	quota *spool.Quota
	bytes int64
}

func (s *copies) add(id string, bytes int64, quota *spool.Quota) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]charge{}
	}
	s.m[id] = charge{quota, bytes}
}

// drop removes a copy, if there is one.
func (s *copies) drop(id string) {
	s.mu.Lock()
	c, ok := s.m[id]
	delete(s.m, id)
	s.mu.Unlock()
	if ok {
		s.kept.Remove(id)
		c.quota.Add(-c.bytes)
	}
}

// letGo forgets the file of a message that does not wait any more.
func (c *Connector) letGo(id string) {
	c.held.drop(id)
	c.copies.drop(id)
	c.shares.drop(id)
	c.watching.drop(id)
}

// fileNote makes note, which may be nil, let go of a file when its message is
// sent or discarded. What waits when the connector ends stays.
func (c *Connector) fileNote(id string, note *queue.Note) *queue.Note {
	n := queue.Note{}
	if note != nil {
		n = *note
	}
	done := n.Done
	n.Done = func(err error) {
		if !errors.Is(err, queue.ErrClosed) {
			c.letGo(id)
		}
		if done != nil {
			done(err)
		}
	}
	return &n
}

// openFiles finds the copies that messages of the last run need, and removes
// the others: a connector that was killed may have left them. It also finds the
// messages that have a file together. dirs are the spools of messages with files,
// by peer.
func (c *Connector) openFiles(dirs map[string][]string) error {
	sizes, err := c.copies.kept.List()
	if err != nil || len(sizes) == 0 && !c.publishing() {
		return err
	}
	shared := map[string][]string{}
	for peer, list := range dirs {
		b := c.box(peer, true)
		var quota *spool.Quota
		if b != nil {
			quota = c.quotaOf(b)
		}
		for _, dir := range list {
			err := spool.Waiting(dir, func(frame []byte) {
				f, err := wire.ParseFrame(frame)
				if err != nil {
					return
				}
				if id, file, ok := sharedBy(f.Header); ok {
					shared[id] = append(shared[id], file)
				}
				if string(f.Header.Field("file_copy")) != "true" {
					return
				}
				id, _ := wire.Text(f.Header.Field("file_id"))
				size, ok := sizes[id]
				if !ok {
					return
				}
				delete(sizes, id)
				if quota != nil {
					quota.Add(size)
					c.copies.add(id, size, quota)
				}
			})
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("which copies of files are needed: %w", err)
			}
		}
	}
	if err := c.shares.open(shared); err != nil {
		return err
	}
	for id := range sizes {
		c.copies.kept.Remove(id)
	}
	if n := len(sizes); n > 0 {
		c.log.Info("copies of files that no message needs were removed", "n", n)
	}
	return nil
}
