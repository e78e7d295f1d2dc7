package connector

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"aioc/lib/control"
	"aioc/lib/link"
	"aioc/lib/wire"
)

// verdict is what the server says to the subscriptions of this client. It answers
// only those that it refuses, so who wants to know sends a ping behind them.
type verdict struct {
	mu      sync.Mutex
	refused string                   // why the last ones were, "" if they were not
	asked   uint64                   // pings
	waits   map[uint64]chan struct{} // closed by the answers to them
}

// pingPrefix begins the ids of these pings.
const pingPrefix = "aioc-subscribed-"

// maxVerdict is how long a server may take to answer.
const maxVerdict = 5 * time.Second

// set notes what the server says now.
func (v *verdict) set(refused string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refused = refused
}

// get returns why the last subscriptions were refused.
func (v *verdict) get() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refused
}

// ask returns a new id and what is closed when it was answered.
func (v *verdict) ask() (id uint64, answered <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked++
	if v.waits == nil {
		v.waits = map[uint64]chan struct{}{}
	}
	ch := make(chan struct{})
	v.waits[v.asked] = ch
	return v.asked, ch
}

// answer ends the wait for an id.
func (v *verdict) answer(id uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ch := v.waits[id]; ch != nil {
		close(ch)
		delete(v.waits, id)
	}
}

// ponged takes the answer to a ping if it is to one of these.
func (v *verdict) ponged(responseID []byte) {
	if text, ok := wire.Text(responseID); ok && len(text) > len(pingPrefix) && text[:len(pingPrefix)] == pingPrefix {
		if id, err := strconv.ParseUint(text[len(pingPrefix):], 10, 64); err == nil {
			v.answer(id)
		}
	}
}

// confirmed waits until the server has read the subscriptions that were sent last,
// and returns an error if it refused them. A server that is away, or of the
// original, says nothing.
func (c *Connector) confirmed(ctx context.Context) error {
	b := c.box("", false)
	if b == nil {
		return nil
	}
	p := b.current()
	if p == nil || !p.greeted.Load() || !p.l.Acks() {
		return nil
	}
	id, answered := c.verdict.ask()
	defer c.verdict.answer(id)
	if err := p.l.Send([]wire.Edit{
		{Key: "await_response", Value: []byte("true")},
		{Key: "request_id", Value: fmt.Appendf(nil, `"%s%d"`, pingPrefix, id)},
		{Key: "message_type", Value: []byte(`"` + wire.TypePing + `"`)},
	}, nil, nil); err != nil {
		return nil // it is told again when there is a link again
	}
	late := time.NewTimer(maxVerdict)
	defer late.Stop()
	select {
	case <-answered:
	case <-p.over:
	case <-late.C:
	case <-ctx.Done():
	}
	if why := c.verdict.get(); why != "" {
		return control.Failure("permission", "refused by the server, which says: "+why+"; it is asked again after each new connection")
	}
	return nil
}

// nacked takes what the peer refused that was no message.
func (p *peerLink) nacked(h *wire.Header) string {
	why := link.Clip(string(h.Error))
	if reason, _ := wire.Text(h.Field("reason")); reason == "subscribe" && !p.c.server {
		p.c.verdict.set(why)
	}
	return why
}
