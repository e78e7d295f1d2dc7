package connector

import (
	"net"
	"sync"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// waiters are the requests of local programs that wait for a response.
type waiters struct {
	mu sync.Mutex
	m  map[waitKey]asker
	of map[*link.Link]map[waitKey]struct{}
}

// asker is a program that waits.
type asker struct {
	l    *link.Link
	conn *net.UnixConn
}

// waitKey is what a response has in common with its request.
type waitKey struct {
	peer, messageType, id string
}

const (
	// maxWaiters bounds the requests that wait for responses, in all and of one
	// program; the original has 1001 for each type and peer.
	maxWaiters    = 1 << 18
	maxWaitersOne = 1 << 12
	// maxID bounds a request_id, in bytes of JSON text.
	maxID = 1 << 10
)

// requestKey returns the key for an id, the JSON text of a string or a number:
// 1 and "1" are different, "A" and "\u0041" are not.
func requestKey(peer, messageType string, id []byte) waitKey {
	if s, ok := wire.Text(id); ok {
		return waitKey{peer, messageType, `"` + s}
	}
	return waitKey{peer, messageType, string(id)}
}

// add lets l wait, and returns why it may not. While one program waits no other
// may ask with the same key: it would get what is not for it. One that has left,
// which is not known to its reader yet, waits no more.
// Differs: in the original the newest one gets the response (aioconnectors core.py).
func (w *waiters) add(key waitKey, l *link.Link, conn *net.UnixConn) *link.Refusal {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m == nil {
		w.m = map[waitKey]asker{}
		w.of = map[*link.Link]map[waitKey]struct{}{}
	}
	if other := w.m[key]; other.l != nil && other.l != l && hungUp(other.conn) {
		w.remove(key)
	}
	switch other := w.m[key].l; {
	case other == l:
		return nil
	case other != nil:
		return &link.Refusal{Reason: "full", Text: "another program waits for the response to a request with this request_id: use one of its own, or none"}
	case len(w.m) >= maxWaiters || len(w.of[l]) >= maxWaitersOne:
		return &link.Refusal{Reason: "full", Text: "too many requests wait for a response"}
	}
	w.m[key] = asker{l, conn}
	if w.of[l] == nil {
		w.of[l] = map[waitKey]struct{}{}
	}
	w.of[l][key] = struct{}{}
	return nil
}

// remove forgets a key and returns who waited for it, or nil. mu is held.
func (w *waiters) remove(key waitKey) *link.Link {
	l := w.m[key].l
	if l != nil {
		delete(w.m, key)
		if delete(w.of[l], key); len(w.of[l]) == 0 {
			delete(w.of, l)
		}
	}
	return l
}

// take removes the waiter for key and returns it, or nil.
func (w *waiters) take(key waitKey) *link.Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.remove(key)
}

// withdraw ends the waiting of l for key, and reports whether it did wait: there
// may be another for the same key by now.
func (w *waiters) withdraw(key waitKey, l *link.Link) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.m[key].l == l && w.remove(key) != nil
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
	for key := range w.of[l] {
		delete(w.m, key)
	}
	delete(w.of, l)
}

// fail tells all who wait for a peer that it is gone.
func (w *waiters) fail(peer string) {
	type failed struct {
		key waitKey
		l   *link.Link
	}
	var all []failed
	w.mu.Lock()
	for key := range w.m {
		if key.peer == peer {
			all = append(all, failed{key, w.remove(key)})
		}
	}
	w.mu.Unlock()
	for _, f := range all {
		failResponse(f.l, f.key, disconnected)
	}
}

// asked counts the messages whose senders are told what becomes of them. What
// is kept for that is in memory, as long as the message waits and also when only
// the disk has the message itself.
type asked struct {
	mu   sync.Mutex
	n    int
	room chan struct{} // closed when there is one less; nil: nobody waits for that
}

// maxAsked bounds them; those who have more to ask wait.
const maxAsked = 1 << 18

// add counts one more. If there are too many it does not, and returns what is
// closed when it may be tried again.
func (a *asked) add() (full <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n < maxAsked {
		a.n++
		return nil
	}
	if a.room == nil {
		a.room = make(chan struct{})
	}
	return a.room
}

// done ends one.
func (a *asked) done() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
	if a.room != nil {
		close(a.room)
		a.room = nil
	}
}

// disconnected is the original's word for a peer that went away.
const disconnected = "disconnected_during_wait"

// failResponse answers a request that cannot be answered any more. A Python
// program gets exactly what the original sends.
func failResponse(l *link.Link, key waitKey, why string) {
	edits := []wire.Edit{{Key: "error", Value: wire.AppendString(nil, why)}}
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
	_ = l.SendRaw(header, []byte("{}"), nil) // who does not read learns it by the end of the connection
}
