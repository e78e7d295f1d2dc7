package peer

import (
	"crypto/tls"
	"net"
	"sync"
)

const (
	// maxRecord is how many bytes one record of TLS carries.
	maxRecord = 16 << 10
	// joinMax is how many bytes of records go into one system call: eight whole
	// records, and what TLS adds to each.
	joinMax = 8 * (maxRecord + 256)
)

// joinBuffers lends the memory in which records wait.
var joinBuffers sync.Pool // of *[joinMax]byte

// tlsConn is a TLS connection that writes the records of one Write together.
// Package tls has a system call for each, which for a big file is a fifth of the
// time. Nothing is kept back when Write returns, and an idle connection keeps no
// buffer.
type tlsConn struct {
	*tls.Conn
	records *records

	writing sync.Mutex // held by Write
}

// tlsOver returns what is to be made a tls.Conn instead of c.
func tlsOver(c net.Conn) *records { return &records{Conn: c} }

// with returns t, which is over r, as what is to be used instead of it.
func (r *records) with(t *tls.Conn) *tlsConn { return &tlsConn{Conn: t, records: r} }

// Write writes p. After an error nothing can be written any more, and the number
// is that of bytes of which it is certain.
//
// All but the last record is held back, and the last takes the others with it: so
// each system call is made within a Write of package tls, which knows what to do
// when it fails, and when Close comes meanwhile.
func (c *tlsConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if len(p) <= maxRecord {
		return c.Conn.Write(p)
	}
	c.records.hold()
	defer c.records.drop()
	rest := len(p) - (len(p)-1)/maxRecord*maxRecord // in the last record
	if _, err := c.Conn.Write(p[:len(p)-rest]); err != nil {
		return 0, err
	}
	c.records.release()
	if _, err := c.Conn.Write(p[len(p)-rest:]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// NetConn returns the connection of the system, whatever is above it.
func (c *tlsConn) NetConn() net.Conn {
	conn := c.records.Conn
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = over.NetConn()
	}
}

// records is the connection under a tlsConn. Package tls calls Write for each
// record, for an alert and an answer to a new key too, one after the other: they
// leave in that order, held back or not.
type records struct {
	net.Conn

	mu   sync.Mutex // guards what follows
	held bool       // records wait in buf
	buf  []byte     // nil but within a Write of tlsConn
}

// Write writes one record, and with it those that wait, or lets it wait too.
func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.buf)+len(p) > cap(r.buf) {
		if err := r.flush(); err != nil {
			return 0, err // package tls writes no more then
		}
	}
	switch {
	case r.held && len(p) <= cap(r.buf):
		r.buf = append(r.buf, p...)
		return len(p), nil
	case len(r.buf) == 0:
		return r.Conn.Write(p)
	}
	r.buf = append(r.buf, p...)
	if err := r.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush writes what waits. mu is held.
func (r *records) flush() error {
	if len(r.buf) == 0 {
		return nil
	}
	_, err := r.Conn.Write(r.buf)
	r.buf = r.buf[:0]
	return err
}

// hold lets records wait.
func (r *records) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, ok := joinBuffers.Get().(*[joinMax]byte); ok {
		r.buf = b[:0]
	} else {
		r.buf = make([]byte, 0, joinMax)
	}
	r.held = true
}

// release ends that with the next record.
func (r *records) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
}

// drop lets go of the buffer. Records still wait in it only after an error: an
// alert may be the last of them.
func (r *records) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.flush()
	joinBuffers.Put((*[joinMax]byte)(r.buf[:joinMax]))
	r.held, r.buf = false, nil
}
