package connector

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// counters count what was dropped or refused, by reason.
type counters struct {
	mu sync.Mutex
	n  map[string]uint64
}

func (c *counters) add(reason string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]uint64{}
	}
	c.n[reason] += uint64(n)
}

// snapshot returns a copy.
func (c *counters) snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := maps.Clone(c.n)
	if n == nil {
		n = map[string]uint64{}
	}
	return n
}

// report logs what was counted, a line for each reason.
func (c *counters) report(log *slog.Logger) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reason := range slices.Sorted(maps.Keys(c.n)) {
		log.Info("counted since the start", "reason", reason, "n", c.n[reason])
	}
}

// drop counts n messages that are lost for a reason and logs it: the first at
// once, then at most one line in ten seconds for each reason and peer.
// The reasons are few: what others can make up goes into more.
func (c *Connector) drop(reason, peer, messageType string, n int, more ...slog.Attr) {
	c.counts.add(reason, n)
	c.fold.Warn(reason+"\x00"+peer, n, "message dropped", append([]slog.Attr{
		slog.String("reason", reason), slog.String("peer", peer), slog.String("type", messageType)}, more...)...)
}
