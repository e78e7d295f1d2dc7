package connector

import (
	"maps"
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

func (c *counters) snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// drop counts n messages that are lost for a reason and logs it: the first at
// once, then at most one line in ten seconds for each reason and peer.
func (c *Connector) drop(reason, peer, messageType string, n int) {
	c.counts.add(reason, n)
	if ok, held := c.fold.Allow(reason + "\x00" + peer); ok {
		c.log.Warn("message dropped", "reason", reason, "peer", peer, "type", messageType, "n", n+held)
	}
}
