package connector

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// shelf is where one queue keeps what is on disk: a directory with a log for
// each message type.
type shelf struct {
	c     *Connector
	peer  string // for the log
	dir   func(messageType string) string
	types config.Types // those that are durable
	quota *spool.Quota
}

// keep gives a queue its place on disk, unless nothing may be kept there, and
// returns what bounds it.
func (c *Connector) keep(q *queue.Queue, peer string, types config.Types, dir func(messageType string) string) *spool.Quota {
	if !c.keeps() {
		return nil
	}
	s := &shelf{c: c, peer: peer, dir: dir, types: types, quota: c.newQuota()}
	q.Keep(s, func(messageType string, n int) { c.drop("expired", peer, messageType, n) })
	return s.quota
}

func (s *shelf) Durable(messageType string) bool { return s.types.Has(messageType) }

func (s *shelf) Open(messageType string, state func([]byte) []byte, restore func([]byte), replay func(spool.Record, bool)) (*spool.Log, error) {
	return s.open(messageType, spool.Options{
		Durable: s.Durable(messageType), Quota: s.quota, State: state, Restore: restore, Replay: replay,
	})
}

func (s *shelf) open(messageType string, o spool.Options) (*spool.Log, error) {
	dir := s.dir(messageType)
	log, found, err := openLog(dir, messageType, o)
	if err != nil {
		return nil, err
	}
	for _, d := range found.Damage {
		what := "disk: damage found"
		if d.OfCrash() {
			what = "disk: cut by a crash" // no cause for alarm
		}
		s.c.counts.add(what, 1)
		s.c.log.Warn("damage in what is kept on disk", "peer", s.peer, "type", messageType, "dir", dir, "what", fmt.Sprint(d))
	}
	return log, nil
}

// openLog opens a log, in a directory that is nobody else's.
func openLog(dir, name string, o spool.Options) (*spool.Log, *spool.Recovered, error) {
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	if err := durable.CheckOwner(dir); err != nil {
		return nil, nil, err
	}
	if config.LongName(dir) {
		if err := durable.WriteFile(filepath.Join(dir, config.SpoolName), []byte(name), 0o600); err != nil {
			return nil, nil, err
		}
	}
	return spool.Open(dir, o)
}

func (s *shelf) Failed(messageType string, lost int, err error) {
	reason := "disk: failing"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, spool.ErrNoSpace):
		reason = "disk: full"
	case errors.Is(err, spool.ErrTotal):
		reason = "disk: max_size_persistence_total"
	}
	s.c.events.add(reason, 1) // not lost: what could not be kept was refused
	s.c.fold.Warn(reason+"\x00"+s.peer, 1, "messages cannot be kept on disk now",
		slog.String("reason", reason), slog.String("peer", s.peer), slog.String("type", messageType), slog.String("err", err.Error()))
	if lost > 0 {
		s.c.drop(reason, s.peer, messageType, lost)
	}
}

// troubleLasts is how long it is a problem that a message could not be kept on
// disk, when none was put since.
const troubleLasts = 15 * time.Minute

// diskProblems lists what cannot be kept on disk, here or at a peer.
func (c *Connector) diskProblems() (list []string) {
	queues := map[string]*queue.Queue{}
	for typ, q := range c.inbox {
		queues["that programs here receive (type "+strconv.Quote(typ)+")"] = q
	}
	c.mu.Lock()
	for name, b := range c.boxes {
		queues["for "+name] = b.q
		if b.files != nil {
			queues["with files for "+name] = b.files
		}
		b.mu.Lock()
		for typ, at := range b.refusing {
			if time.Since(at) < refusingLasts {
				list = append(list, fmt.Sprintf("%s cannot keep messages of type %q on its disk: they wait", name, typ))
			} else {
				delete(b.refusing, typ)
			}
		}
		b.mu.Unlock()
	}
	c.mu.Unlock()
	for what, q := range queues {
		for _, t := range q.Troubles() {
			if time.Since(t.When) > troubleLasts {
				continue
			}
			why := diskReason(t.Err)
			if errors.Is(t.Err, queue.ErrFull) {
				if q.Len() == 0 {
					continue // all that was there has gone
				}
				why = "max_size_persistence_path is reached"
			}
			list = append(list, fmt.Sprintf("messages %s cannot be kept on disk, last at %s: %s", what, t.When.UTC().Format(time.TimeOnly), why))
		}
	}
	for _, topic := range c.allTopics() {
		for _, t := range topic.Troubles() {
			if time.Since(t.When) <= troubleLasts {
				list = append(list, fmt.Sprintf("publications of type %q cannot be kept on disk, last at %s: %s",
					t.Type, t.When.UTC().Format(time.TimeOnly), diskReason(t.Err)))
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// refusingLasts is how long a peer that has refused a message, because of its
// disk, counts as one that does: it lets it be tried again all the time.
const refusingLasts = 10 * time.Second

// refuses notes that the peer cannot keep messages of a type on its disk.
func (b *outbox) refuses(messageType string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refusing == nil {
		b.refusing = map[string]time.Time{}
	}
	b.refusing[messageType] = time.Now()
}

// keeps reports whether what waits may be kept on disk.
func (c *Connector) keeps() bool { return c.cfg.Load().MaxPersistenceSize > 0 }

// durableSend reports whether a message to a peer has to be on disk before it
// counts as taken.
func (c *Connector) durableSend(messageType string) bool {
	return messageType != wire.TypePing && c.keeps() && c.cfg.Load().PersistSend.Has(messageType)
}

// durableRecv is durableSend for a message to a local program.
func (c *Connector) durableRecv(messageType string) bool {
	return c.keeps() && c.cfg.Load().PersistRecv.Has(messageType)
}

// openSpools opens what is on disk from the last run, and takes over what a
// Python connector has left.
func (c *Connector) openSpools() error {
	if !c.keeps() {
		return nil
	}
	cfg := c.cfg.Load()
	var failed []error
	open := func(q *queue.Queue, types []string, attr ...any) {
		n, err := q.Open(types)
		if err != nil {
			failed = append(failed, err)
		}
		if n > 0 {
			c.log.Info("messages on disk", append(attr, "n", n)...)
		}
	}
	types, err := config.SpoolNames(c.paths.SpoolTypes)
	if err != nil {
		return err
	}
	for _, typ := range types {
		if q := c.inbox[typ]; q != nil {
			open(q, []string{typ}, "type", typ)
		} else {
			c.log.Warn("messages may be on disk for a type that is not in recv_message_types", "type", typ, "dir", c.paths.SpoolFrom(typ))
		}
	}
	if err := c.openTopics(c.known); err != nil {
		return fmt.Errorf("what was published cannot be read: %w", err)
	}
	peers := []string{cfg.PeerID()}
	if c.server {
		if peers, err = config.SpoolNames(c.paths.SpoolPeers); err != nil {
			return err
		}
		more, err := config.SpoolNames(c.paths.SpoolPeerFiles)
		if err != nil {
			return err
		}
		peers = append(peers, more...)
		for name := range c.boxes { // nothing else runs yet
			peers = append(peers, name)
		}
		slices.Sort(peers)
		peers = slices.Compact(peers)
	}
	withFiles := map[string][]string{} // directories by peer
	for _, peer := range peers {
		dir := c.spoolFiles(peer)
		types, err := config.SpoolNames(dir)
		if err != nil {
			return err
		}
		for _, typ := range types {
			withFiles[peer] = append(withFiles[peer], c.paths.SpoolType(dir, typ))
		}
	}
	if err := c.openFiles(withFiles); err != nil {
		return fmt.Errorf("what is kept on disk cannot be read: %w", err)
	}
	for _, peer := range peers {
		for _, files := range []bool{false, true} {
			dir := c.spoolTo(peer)
			if files {
				dir = c.spoolFiles(peer)
			}
			types, err := config.SpoolNames(dir)
			if err != nil {
				return err
			}
			if len(types) == 0 {
				continue
			}
			b := c.box(peer, true)
			switch {
			case b == nil:
				c.log.Warn("messages may be on disk for a peer that cannot be one", "peer", peer, "dir", dir)
			case files:
				open(c.fileQueue(b), types, "peer", peer, "what", "with files")
			default:
				open(b.q, types, "peer", peer)
			}
		}
		if c.server {
			c.emptied(peer)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("what is kept on disk cannot be read: %w", err)
	}
	return nil
}

// emptied forgets a peer of the last run for which nothing waits.
func (c *Connector) emptied(peer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boxes[peer]
	if b == nil || b.files != nil || !b.q.RemoveIfEmpty() {
		return
	}
	delete(c.boxes, peer)
	_ = os.Remove(c.paths.SpoolTo(peer)) // unless there is something else in it
}

// spoolTo returns the directory of what waits for a peer. A client has one,
// whatever the address of its server.
func (c *Connector) spoolTo(peer string) string {
	if !c.server {
		peer = ""
	}
	return c.paths.SpoolTo(peer)
}

// spoolFiles is spoolTo for messages whose files are yet to be sent.
func (c *Connector) spoolFiles(peer string) string {
	if !c.server {
		peer = ""
	}
	return c.paths.SpoolFiles(peer)
}

// dirty is what was put and is not yet known to be on disk.
type dirty struct {
	q    committer
	puts []queue.Written
}

// committer is a queue or a topic.
type committer interface {
	CommitSince(written ...queue.Written) error
}

// unsafe are the queues and topics that a handler has put into since its last commit.
type unsafe []dirty

// add notes a put that has something to commit, and its Round.
func (u *unsafe) add(q committer, messageType string, round uint64) {
	i := slices.IndexFunc(*u, func(d dirty) bool { return d.q == q })
	if i < 0 {
		if i = len(*u); i < cap(*u) {
			*u = (*u)[:i+1] // its puts have memory
			(*u)[i].q, (*u)[i].puts = q, (*u)[i].puts[:0]
		} else {
			*u = append(*u, dirty{q: q})
		}
	}
	// The first round of a type is the one that counts.
	if d := &(*u)[i]; !slices.ContainsFunc(d.puts, func(w queue.Written) bool { return w.Type == messageType }) {
		d.puts = append(d.puts, queue.Written{Type: messageType, Round: round})
	}
}

// commit waits until all of it is on disk.
func (u *unsafe) commit() error {
	var failed error
	for i := range *u {
		d := &(*u)[i]
		if err := d.q.CommitSince(d.puts...); err != nil && failed == nil {
			failed = err
		}
		d.q = nil
	}
	*u = (*u)[:0]
	return failed
}
