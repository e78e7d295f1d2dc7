package peer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// maxVerdict is how long a client waits to hear what the server makes of the
// certificate that it shows, or of its showing none. Servers that take it say so
// at once, but for those that issue no session tickets.
const maxVerdict = 500 * time.Millisecond

// verdict tells, in TLS 1.3, that the server has taken what the client shows. A
// client's handshake ends before the server has seen that: what comes next is
// a session ticket or an alert. Without it a connection that is refused would
// look like one that is up, and ends.
type verdict struct {
	raw net.Conn
	own bool // the client has shown its own certificate
	off bool // the connection is in use
}

// Get knows no session: each connection proves who is there.
func (v *verdict) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

// Put is called by a Read when a ticket has come, and ends it.
func (v *verdict) Put(string, *tls.ClientSessionState) {
	if !v.off {
		v.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait waits for the verdict. It returns what the server has sent already of what
// comes after it.
func (v *verdict) wait(t *tls.Conn) (early []byte, err error) {
	if t.ConnectionState().Version < tls.VersionTLS13 {
		v.off = true
		return nil, nil // the server has seen it before the handshake ended
	}
	if err := v.raw.SetReadDeadline(time.Now().Add(maxVerdict)); err != nil {
		return nil, err
	}
	var b [1]byte
	n, err := t.Read(b[:])
	v.off = true
	switch {
	case n > 0, errors.Is(err, os.ErrDeadlineExceeded):
		return b[:n], v.raw.SetReadDeadline(time.Time{})
	case alerted(err) && !v.own:
		return nil, &refusedError{fmt.Errorf("the server wants a certificate or refuses (%w): set ssl_allow_all and use_token alike at both ends", bare(err))}
	case alerted(err):
		return nil, &refusedError{fmt.Errorf("the server does not take the certificate (%w): its log says why. Only when it has forgotten it, delete it here (aioc-ctl delete-certificate), and a new one is made", bare(err))}
	case connectionEnded(err):
		return nil, &refusedError{fmt.Errorf("the server closed the connection after the TLS handshake (%w): its log says why", bare(err))}
	}
	return nil, err
}
