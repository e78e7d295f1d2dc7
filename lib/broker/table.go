// Package broker knows who subscribes to what, and how a publication becomes
// the message that subscribers get. It moves nothing itself.
package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"aioc/lib/config"
)

// MaxTopics bounds the topics of one client.
const MaxTopics = 4096

// ErrTooMany is wrapped when a client asks for more than MaxTopics.
var ErrTooMany = errors.New("too many topics")

// Table is who subscribes to what. A client is in it once for a topic, however
// often it subscribes. The zero value is an empty table; all methods may be
// called from any goroutine.
//
// Differs: in the original a client that comes back is listed, and served,
// twice (aioconnectors api.py).
type Table struct {
	version atomic.Uint64

	mu      sync.RWMutex // guards what follows
	clients map[string][]string
	topics  map[string][]string // in the order of subscription; see Subscribers
}

// Version changes with every change of the table, so that what was derived
// from it can be kept until then.
func (t *Table) Version() uint64 { return t.version.Load() }

// Subscribers returns the clients that subscribe to a topic, in the order in
// which they did. The caller must not change the slice; it does not change either.
func (t *Table) Subscribers(topic string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.topics[topic]
}

// Topics returns what a client subscribes to, in the order in which it did.
func (t *Table) Topics(client string) []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.clients[client])
}

// All returns all subscriptions: the topics of each client.
func (t *Table) All() map[string][]string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[string][]string, len(t.clients))
	for client, topics := range t.clients {
		all[client] = slices.Clone(topics)
	}
	return all
}

// Apply applies a change that a client asked for, all of it or, with an error,
// nothing, and reports whether the table is another one now.
func (t *Table) Apply(client string, c Change) (changed bool, err error) {
	for _, topic := range c.Subscribe {
		if err := config.ValidType(topic); err != nil {
			return false, fmt.Errorf("subscribe: %w", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clients[client]
	var next []string
	if !c.Only {
		next = slices.Clone(now)
	}
	for _, topic := range c.Subscribe {
		if !slices.Contains(next, topic) {
			next = append(next, topic)
		}
		if len(next) > MaxTopics {
			return false, fmt.Errorf("%w: at most %d", ErrTooMany, MaxTopics)
		}
	}
	// As in the original, what is in both lists is not subscribed.
	next = slices.DeleteFunc(next, func(topic string) bool { return slices.Contains(c.Unsubscribe, topic) })
	return t.set(client, next), nil
}

// Keep leaves a client that is gone only the topics that keep says.
func (t *Table) Keep(client string, keep func(topic string) bool) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(t.clients[client]), func(topic string) bool { return !keep(topic) })
	return t.set(client, next)
}

// set replaces the topics of a client. mu is held.
func (t *Table) set(client string, next []string) (changed bool) {
	now := t.clients[client]
	if slices.Equal(now, next) {
		return false
	}
	if t.clients == nil {
		t.clients, t.topics = map[string][]string{}, map[string][]string{}
	}
	for _, topic := range now {
		if slices.Contains(next, topic) {
			continue
		}
		// A new slice: the old one may be in use.
		rest := make([]string, 0, len(t.topics[topic]))
		for _, c := range t.topics[topic] {
			if c != client {
				rest = append(rest, c)
			}
		}
		if t.topics[topic] = rest; len(rest) == 0 {
			delete(t.topics, topic)
		}
	}
	for _, topic := range next {
		if !slices.Contains(now, topic) {
			// Who uses the old slice does not look behind its end.
			t.topics[topic] = append(t.topics[topic], client)
		}
	}
	if t.clients[client] = next; len(next) == 0 {
		delete(t.clients, client)
	}
	t.version.Add(1)
	return true
}

// Append appends the subscriptions to the topics that keep says as JSON, an
// object with the topics of each client, for Load.
func (t *Table) Append(dst []byte, keep func(topic string) bool) ([]byte, error) {
	all := t.All()
	for client, topics := range all {
		topics = slices.DeleteFunc(topics, func(topic string) bool { return !keep(topic) })
		if all[client] = topics; len(topics) == 0 {
			delete(all, client)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return dst, err
	}
	return append(append(dst, text...), '\n'), nil
}

// Load adds subscriptions that Append wrote. What is not valid in them is left
// out and named in the error.
func (t *Table) Load(text []byte) error {
	var all map[string][]string
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("subscriptions: %w", err)
	}
	var wrong []error
	for client, topics := range all {
		if err := config.ValidName(client); err != nil {
			wrong = append(wrong, fmt.Errorf("subscriptions: %w", err))
			continue
		}
		if _, err := t.Apply(client, Change{Subscribe: topics}); err != nil {
			wrong = append(wrong, fmt.Errorf("subscriptions of %s: %w", client, err))
		}
	}
	return errors.Join(wrong...)
}
