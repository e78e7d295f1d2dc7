package connector

import (
	"sync"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// waiters are the requests of local programs that wait for a response.
type waiters struct {
	mu sync.Mutex
	m  map[waitKey]*link.Link
}

// waitKey is what a response has in common with its request.
type waitKey struct {
	peer, messageType, id string
}

// maxWaiters bounds the requests that wait for responses.
const maxWaiters = 1 << 20

// requestKey returns the key for an id, the JSON text of a string or a number:
// 1 and "1" are different, "A" and "\u0041" are not.
func requestKey(peer, messageType string, id []byte) waitKey {
	if s, ok := wire.Text(id); ok {
		return waitKey{peer, messageType, `"` + s}
	}
	return waitKey{peer, messageType, string(id)}
}

// add lets l wait. The newest of two requests with the same key counts.
func (w *waiters) add(key waitKey, l *link.Link) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		w.m = map[waitKey]*link.Link{}
	}
	if len(w.m) >= maxWaiters {
		return false
	}
	w.m[key] = l
	return true
}

// take removes the waiter for key and returns it, or nil.
func (w *waiters) take(key waitKey) *link.Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.m[key]
	delete(w.m, key)
	return l
}

// any reports whether somebody waits at all.
func (w *waiters) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.m) > 0
}

// gone forgets what l waits for.
func (w *waiters) gone(l *link.Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, waiting := range w.m {
		if waiting == l {
			delete(w.m, key)
		}
	}
}

// fail tells all who wait for a peer that it is gone.
func (w *waiters) fail(peer string) {
	type failed struct {
		key waitKey
		l   *link.Link
	}
	var all []failed
	w.mu.Lock()
	for key, l := range w.m {
		if key.peer == peer {
			all = append(all, failed{key, l})
			delete(w.m, key)
		}
	}
	w.mu.Unlock()
	for _, f := range all {
		failResponse(f.l, f.key)
	}
}

// failResponse answers a request that cannot be answered any more. A Python
// program gets exactly what the original sends.
func failResponse(l *link.Link, key waitKey) {
	edits := []wire.Edit{{Key: "error", Value: []byte(`"disconnected_during_wait"`)}}
	if l.Acks() {
		id := []byte(key.id)
		if len(id) > 0 && id[0] == '"' {
			id = wire.AppendString(nil, key.id[1:])
		}
		edits = append(edits,
			wire.Edit{Key: "message_type", Value: wire.AppendString(nil, key.messageType)},
			wire.Edit{Key: "response_id", Value: id})
	}
	header := wire.AppendEdited(nil, []byte("{}"), edits...)
	_ = l.SendRaw(header, []byte("{}"), nil)
}
