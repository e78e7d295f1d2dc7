package peer

import (
	"container/list"
	"errors"
	"net"
	"sync"
)

const (
	// maxHandshake is how many bytes one stranger may send, TLS included. A
	// handshake with certificates is about 4 KiB.
	maxHandshake = 256 << 10
	// minStrangers and perStranger say how many bytes all strangers of a Listener
	// may have sent together: a fixed number, or so many for each who may be
	// there. What they cost in memory is a small multiple of it.
	minStrangers = 8 << 20
	perStranger  = 4 << 10
)

// errHandshake ends a connection that sent too much before its hello.
var errHandshake = errors.New("more than 256 KiB before the first message")

// gate holds the connections that are not identified yet: in order of arrival,
// limited in number and in bytes. All methods may be called by any goroutine.
type gate struct {
	max      int
	maxBytes int

	mu     sync.Mutex // guards what follows
	guests list.List  // of *stranger, the oldest first
	served list.List  // of *stranger: see serve; they count among max
	bytes  int        // what all of them have sent, together
	closed bool
}

// newGate returns a gate for at most so many strangers.
func newGate(most int) *gate {
	return &gate{max: most, maxBytes: max(minStrangers, most*perStranger)}
}

// stranger is the reading side of a connection, which counts until the other
// end is identified, and only passes on afterwards.
type stranger struct {
	net.Conn
	gate *gate
	gone chan struct{} // closed when it was pushed out, or the gate was closed

	// Owned by the goroutine of the handshake, constant after it.
	known bool
	seen  int     // bytes read
	first [2]byte // of them

	// guarded by gate.mu
	place *list.Element // in gate.guests or gate.served, nil after leaving
	read  int           // bytes counted
}

// enter lets a connection in, and the oldest stranger out if there are too many.
func (g *gate) enter(c net.Conn) *stranger {
	s := &stranger{Conn: c, gate: g, gone: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		s.end()
	}
	s.place = g.guests.PushBack(s)
	if g.guests.Len()+g.served.Len() > g.max {
		g.push(g.guests.Front())
	}
	return s
}

// serve keeps s from having to go for those who come later: it has said what it
// wants and may have it, and what is done for it would be in vain. That holds for
// at most so many at a time, and no more than half of all, so that strangers who
// ask for much do not keep out those who only say who they are. It tells whether
// s is in, served or not.
func (g *gate) serve(s *stranger, most int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.place == nil {
		return false
	}
	if g.served.Len() < min(most, g.max/2) {
		g.guests.Remove(s.place) // nothing if it is served already
		g.served.Remove(s.place)
		s.place = g.served.PushBack(s)
	}
	return true
}

// unserve ends serve: s is like one who has just come.
func (g *gate) unserve(s *stranger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.place != nil {
		g.guests.Remove(s.place)
		g.served.Remove(s.place)
		s.place = g.guests.PushBack(s)
	}
}

// leave takes s out, identified or not, and tells whether it was still in.
func (g *gate) leave(s *stranger) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.place == nil {
		return false
	}
	g.remove(s)
	return true
}

// pushOldest closes the connection that has been waiting longest, if any.
func (g *gate) pushOldest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if oldest := g.guests.Front(); oldest != nil {
		g.push(oldest)
	}
}

// close closes the connections of all strangers, and of those still to come.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.closed = true
	for _, l := range []*list.List{&g.guests, &g.served} {
		for e := l.Front(); e != nil; e = e.Next() {
			e.Value.(*stranger).end()
		}
	}
}

// end closes the connection, once. gate.mu is held.
func (s *stranger) end() {
	s.Conn.Close()
	close(s.gone)
}

// push closes the connection at e and forgets it. mu is held.
func (g *gate) push(e *list.Element) {
	s := e.Value.(*stranger)
	if !g.closed { // that has ended it
		s.end()
	}
	g.remove(s)
}

// remove forgets s. mu is held.
func (g *gate) remove(s *stranger) {
	g.guests.Remove(s.place) // it is in one of the two
	g.served.Remove(s.place)
	g.bytes -= s.read
	s.place = nil
}

// add counts n bytes that s has read. When all together have sent too much, the
// one who sent most goes: an honest hello is tiny.
func (g *gate) add(s *stranger, n int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.place == nil {
		return net.ErrClosed
	}
	s.read += n
	g.bytes += n
	if s.read > maxHandshake {
		return errHandshake
	}
	if g.bytes > g.maxBytes {
		most := s
		for e := g.guests.Front(); e != nil; e = e.Next() {
			if other := e.Value.(*stranger); other.read > most.read {
				most = other
			}
		}
		g.push(most.place)
	}
	return nil
}

// NetConn returns the connection itself.
func (s *stranger) NetConn() net.Conn { return s.Conn }

// Read reads and, from a stranger, counts.
func (s *stranger) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.known || n == 0 {
		return n, err
	}
	if s.seen < len(s.first) {
		copy(s.first[s.seen:], b[:n])
	}
	s.seen += n
	if full := s.gate.add(s, n); full != nil {
		return 0, full
	}
	return n, err
}
