package connector

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"aioc/lib/config"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// outbox is what waits for one peer, and the link to it.
type outbox struct {
	name  string
	q     *queue.Queue
	quota *spool.Quota // of all that q keeps on disk; nil without one

	mu   sync.Mutex
	link *peerLink     // nil while the peer is away
	up   chan struct{} // closed while the peer is there
	held int           // those who need the outbox to stay: see hold

	refusing map[string]time.Time // by type: when the peer last had no room on its disk

	files      *queue.Queue // messages with files, nil until there is one
	filesQuota *spool.Quota // of what it keeps on disk, set with files
	sending    bool         // fileLoop runs

	leaving atomic.Pointer[outgoing] // the message of files that fileLoop has in hand
	passed  atomic.Bool              // it is in q
	landing atomic.Pointer[outgoing] // the file whose message is on its way
	asking  bool                     // forget will be called once more; guarded by Connector.mu
	madeUp  bool                     // see maxMadeUp; guarded by Connector.mu
}

func newOutbox(c *Connector, name string) *outbox {
	b := &outbox{name: name, up: make(chan struct{})}
	b.q, b.quota = c.newQueue(name, c.spoolTo(name))
	return b
}

// newQueue returns a queue for a peer, which may keep things in dir.
func (c *Connector) newQueue(peer, dir string) (*queue.Queue, *spool.Quota) {
	cfg := c.cfg.Load()
	q := queue.New(int(cfg.MaxMemoryPerQueue), c.budget, cfg.Priorities)
	q.Follow(c.order)
	return q, c.keep(q, peer, cfg.PersistSend, func(typ string) string { return c.paths.SpoolType(dir, typ) })
}

// stats is what waits for the peer and is on its way to it, the messages with
// files too. What was put and what is done counts without those whose files are
// not over yet.
func (b *outbox) stats() (queue.Stats, []spool.Stats) {
	s, logs := b.q.StatsAndLogs()
	files := b.waitingFiles()
	if files == nil {
		return s, logs
	}
	f, more := files.StatsAndLogs()
	if b.passed.Load() {
		f.InHand = max(0, f.InHand-1) // it is in the peer's queue too
	}
	s.Waiting, s.InHand = s.Waiting+f.Waiting, s.InHand+f.InHand
	s.Bytes, s.DiskBytes = s.Bytes+f.Bytes, s.DiskBytes+f.DiskBytes
	return s, append(logs, more...)
}

// lanes is the same by type.
func (b *outbox) lanes() []queue.LaneStats {
	lanes := b.q.Lanes()
	if files := b.waitingFiles(); files != nil {
		lanes = append(lanes, files.Lanes()...)
	}
	return lanes
}

// len is how many messages are not finished.
func (b *outbox) len() int {
	n := b.q.Len()
	if files := b.waitingFiles(); files != nil {
		n += files.Len()
	}
	if b.passed.Load() {
		n-- // it is in both
	}
	return max(n, 0)
}

// current returns the link, nil while there is none.
func (b *outbox) current() *peerLink {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.link
}

// there returns the link once the peer counts as connected, nil while it is away.
func (b *outbox) there() *peerLink {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == nil || !b.link.there {
		return nil
	}
	return b.link
}

// whenUp returns a channel that is closed while the peer is there.
func (b *outbox) whenUp() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.up
}

// box returns the outbox for a destination: on a client that of its server
// whatever the destination, on a server that of a client. A client that is not
// known has none, unless make is set and the name is valid.
func (c *Connector) box(destination string, create bool) *outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boxLocked(destination, create)
}

// boxLocked is box with mu held.
func (c *Connector) boxLocked(destination string, create bool) *outbox {
	if !c.server {
		for _, b := range c.boxes {
			return b
		}
		return nil
	}
	b := c.boxes[destination]
	if b == nil && create && config.ValidName(destination) == nil && len(c.boxes) < maxBoxes {
		b = newOutbox(c, destination)
		c.boxes[destination] = b
	}
	return b
}

// boxFor is box for a message of a local program. Programs can name any number of
// clients: they must leave room for those that connect. What users who may only
// send (strange) can name is bounded once more: each name costs a directory.
func (c *Connector) boxFor(destination string, create, strange bool) *outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.boxes)
	enough := before >= maxBoxes/2 || strange && c.madeUp >= maxMadeUp
	b := c.boxLocked(destination, create && !enough)
	switch {
	case b == nil && create && enough:
		c.counts.add("too many clients named that are away", 1)
		c.fold.Warn("names", 1, "message refused: programs have named too many clients that are away")
	case b != nil && strange && len(c.boxes) > before:
		b.madeUp = true
		c.madeUp++
	}
	return b
}

const (
	// maxBoxes bounds the peers that a server keeps something for.
	maxBoxes = 100_000
	// maxMadeUp bounds those of which only users have spoken who may only send.
	maxMadeUp = 1000
)

// real notes that a peer is not only made up. c.mu is held.
func (c *Connector) real(b *outbox) {
	if b.madeUp {
		b.madeUp = false
		c.madeUp--
	}
}

// ignored reports whether the traffic with a peer is to be ignored.
func (c *Connector) ignored(peer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ignore.All || c.ignore.Peer != "" && c.ignore.Peer == peer
}

// maySend reports whether local programs may send the type.
func (c *Connector) maySend(messageType []byte) bool {
	t := string(messageType)
	return t == wire.TypePing || t == wire.TypePubSub || slices.Contains(c.cfg.Load().SendTypes, t)
}

// memory accounts for big messages on their way in: see wire.Reader.Account.
func (c *Connector) memory(delta int) bool {
	if delta < 0 {
		c.reading.Add(int64(delta))
		c.budget.Give(-delta)
		return true
	}
	// Halves of messages must not keep whole ones out.
	if c.reading.Add(int64(delta)) > c.cfg.Load().MaxMemoryTotal/2 || !c.budget.Take(delta) {
		c.reading.Add(int64(-delta))
		return false
	}
	return true
}

// memory is Connector.memory for one peer. It may have half of what there is for
// all, and more only while nobody else has any: so a message of any size that is
// accepted can pass, and what one begins and does not end leaves room for others.
func (p *peerLink) memory(delta int) bool {
	c := p.c
	most := c.cfg.Load().MaxMemoryTotal / 4
	if held := p.reading + int64(delta); delta > 0 && held > most && c.reading.Load() > p.reading || !c.memory(delta) {
		return false
	}
	p.reading += int64(delta)
	return true
}

// strangerMemory is memory for users who may only send. All together they get
// half of what there is: what they begin and do not end keeps nobody else out.
func (c *Connector) strangerMemory(delta int) bool {
	if delta > 0 && c.strange.Load()+int64(delta) > c.cfg.Load().MaxMemoryTotal/4 || !c.memory(delta) {
		return false
	}
	c.strange.Add(int64(delta))
	return true
}

// hold is box for one who waits for the peer or is about to connect it: until
// release, the outbox is not forgotten. It is nil when there are too many.
func (c *Connector) hold(destination string) *outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.boxLocked(destination, true)
	if b != nil {
		b.mu.Lock()
		b.held++
		b.mu.Unlock()
	}
	return b
}

// release ends what hold began.
func (c *Connector) release(b *outbox) {
	b.mu.Lock()
	b.held--
	b.mu.Unlock()
	c.forget(b)
}

// ID returns the source_id.
func (c *Connector) ID() string { return c.id }

// Alive reports whether the connector answers: it waits for its lock.
func (c *Connector) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boxes != nil
}
