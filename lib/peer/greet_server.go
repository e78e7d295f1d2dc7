package peer

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

const (
	// maxIssueWait is how long a client waits for its turn to get a certificate
	// or a token. One that has given up, as they do after ten seconds, must not
	// get any: it could not ask again.
	maxIssueWait = 5 * time.Second
	// maxIssuing is how many are given a certificate or a token at a time, if
	// max_unidentified is not small: together they wait for the disk once.
	maxIssuing = 32
	// maxParting is how long a client that got one has to close the connection.
	maxParting = 2 * time.Second
)

// refusal is why a client was refused.
type refusal struct {
	reason string // one of the Reason constants
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse returns a refusal.
func refuse(reason, format string, args ...any) error {
	return &refusal{reason, fmt.Errorf(format, args...)}
}

// issued ends a connection whose client got what it proves itself with from now
// on: it comes back at once.
type issued struct {
	what string // "certificate" or "token"
	name string // the client's
}

func (i *issued) Error() string { return i.what + " issued to client " + i.name }

// greet finds out who the client at the other end of c, the stranger s, is, who
// has shown the certificate of who, if any. The connection has a deadline and the reader a
// small limit; what follows the handshake stays in the reader.
func (l *Listener) greet(s *stranger, c *Conn, who identity.Who) (name string, err error) {
	switch {
	case l.mode == modeCertificates && !who.Default, l.mode == modeToken && l.byCertificate(who):
		// No hello at all: the certificate says it.
		if state, ok := tlsState(c.Conn); ok {
			c.Welcome = func() error { return l.stillHas(state, who.Name) }
		}
		return who.Name, l.admit(c, MomentName, who.Name)
	}
	var f wire.Frame
	if err := c.Reader.Next(&f); err != nil {
		return "", err
	}
	if err := l.mode.check(&f); err != nil {
		return "", err
	}
	if f.Header.Source == nil {
		return "", refuse(ReasonName, "hello has no source_id")
	}
	name = string(f.Header.Source)
	if err := config.ValidName(name); err != nil {
		return "", &refusal{ReasonName, err}
	}
	switch l.mode {
	case modePlain, modeAnonymous:
		if string(f.Data) != wire.HelloData {
			return "", refuse(ReasonHello, "hello has other data: %s", quote(f.Data))
		}
		return name, l.admit(c, MomentName, name)
	case modeToken:
		return name, l.token(s, c, name, words(f.Data))
	}
	return "", l.enrol(s, c, name, words(f.Data))
}

// byCertificate tells whether a client of the token mode is identified by the
// certificate it has shown, and says nothing of a token.
func (l *Listener) byCertificate(who identity.Who) bool {
	return l.o.Config.TokenAllowOtherCert && who.Name != "" && !who.Default
}

// errTokenGone is why a client is not welcome any more.
var errTokenGone = errors.New("its token was deleted or replaced")

// tlsState returns the state of a TLS connection.
func tlsState(c net.Conn) (state tls.ConnectionState, ok bool) {
	t, ok := c.(*tlsConn)
	if !ok {
		return state, false
	}
	return t.ConnectionState(), true
}

// stillHas says with an error that the certificate shown in a connection is no
// longer that of the client called name.
func (l *Listener) stillHas(state tls.ConnectionState, name string) error {
	who, err := l.o.Server.Recognise(state)
	if err == nil && (who.Default || who.Name != name) {
		err = fmt.Errorf("its certificate is not that of %q any more", name)
	}
	return err
}

// admit asks Admit, which may take a while, and gives the client new time for
// what follows.
func (l *Listener) admit(c *Conn, moment, name string) error {
	err := l.o.Admit(moment, c.Addr, name)
	c.SetDeadline(time.Now().Add(l.greeting))
	if err != nil {
		if name != "" {
			err = fmt.Errorf("client %q: %w", name, err)
		}
		return &refusal{ReasonAdmit, err}
	}
	return nil
}

// check says why f is no first frame of the mode, by its type.
//
// Differs: the hello comes first and once. The original takes messages before
// it, and a second one renames the connection (aioconnectors connection.py).
func (m mode) check(f *wire.Frame) error {
	h := f.Header
	got := string(h.Type)
	switch {
	case h.Type == nil:
		return refuse(ReasonHello, "first message has no type")
	case got == m.hello():
		return nil
	case m == modeCertificates:
		return refuse(ReasonHello, "first message is %s, and the client has shown the default certificate, which is good for getting its own only", quote(h.Type))
	case got == wire.TypeHelloPlain:
		return refuse(ReasonHello, "hello of a client whose use_ssl is false: set it alike at both ends")
	case got == wire.TypeHelloTLS && m == modeToken:
		return refuse(ReasonHello, "hello of a client whose use_token is false: set it alike at both ends")
	case got == wire.TypeHelloTLS:
		return refuse(ReasonHello, "hello of a client whose use_ssl is true: set it alike at both ends")
	case got == wire.TypeToken:
		return refuse(ReasonHello, "hello of a client whose use_token is true: set it alike at both ends")
	case got == wire.TypeSSL:
		return refuse(ReasonHello, "the client asks for a certificate, its ssl_allow_all is false: set it alike at both ends")
	}
	return refuse(ReasonHello, "first message is %s, not a hello", quote(h.Type))
}

// words returns the texts in the JSON object that is the data of a handshake
// message, none if it is something else.
func words(data []byte) map[string]string {
	var all map[string]any
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	texts := map[string]string{}
	for key, value := range all {
		if text, ok := value.(string); ok {
			texts[key] = text
		}
	}
	return texts
}

// token handles what a client asks in the token mode. Nothing of what it says
// is quoted: it may be a token.
func (l *Listener) token(s *stranger, c *Conn, name string, request map[string]string) error {
	if err := l.admit(c, MomentName, name); err != nil {
		return err
	}
	switch request["cmd"] {
	case "authenticate":
		if err := l.o.Tokens.Check(name, request["token"]); err != nil {
			return &refusal{ReasonToken, err}
		}
		hash := l.o.Tokens.Hash(name)
		c.Welcome = func() error {
			if hash == "" || l.o.Tokens.Hash(name) != hash {
				return errTokenGone
			}
			return nil
		}
		return l.answer(c, wire.TypeToken, map[string]string{"result": "success"})
	case "get_new_token":
		if hash := request["hash"]; hash != "" {
			// If the answer gets lost it asks again, with the same.
			if err := l.issue(s, c, func() error { return l.o.Tokens.Take(name, hash) }); err != nil {
				return err
			}
			if err := l.answer(c, wire.TypeToken, map[string]string{"cmd": "set_new_token", "hash": hash}); err != nil {
				return err
			}
			l.part(s, c)
			return &issued{"token", name}
		}
		var token string
		err := l.issue(s, c, func() (err error) {
			token, err = l.o.Tokens.New(name)
			return err
		})
		if err != nil {
			return err
		}
		if err := l.answer(c, wire.TypeToken, map[string]string{"cmd": "set_new_token", "token": token}); err != nil {
			// It was not sent: nobody has it.
			_, undo := l.o.Tokens.Delete(name)
			return errors.Join(err, undo)
		}
		l.part(s, c)
		return &issued{"token", name}
	}
	return refuse(ReasonHello, "client %q neither shows a token nor asks for one", name)
}

// enrol makes a certificate for a client that has shown the default one.
func (l *Listener) enrol(s *stranger, c *Conn, name string, request map[string]string) error {
	if request["cmd"] != "get_new_certificate" {
		return refuse(ReasonHello, "client %q has shown the default certificate and does not ask for its own", name)
	}
	if err := l.admit(c, MomentName, name); err != nil {
		return err
	}
	if err := l.admit(c, MomentCertificate, name); err != nil {
		return err
	}
	var csr []byte // an aioc client's; the key stays there
	if request["csr"] != "" {
		csr = []byte(request["csr"])
	}
	var crt, key []byte
	err := l.issue(s, c, func() (err error) {
		crt, key, err = l.o.Server.Enrol(name, csr)
		return err
	})
	if err != nil {
		return err
	}
	reply := map[string]string{"cmd": "set_new_certificate", "crt": string(crt)}
	if len(key) > 0 {
		reply["key"] = string(key)
	}
	if err := l.answer(c, wire.TypeSSL, reply); err != nil {
		if len(key) > 0 { // nobody has it now; to one with a key of its own it is sent again
			err = errors.Join(err, l.o.Server.Delete(name, false))
		}
		return err
	}
	l.part(s, c)
	return &issued{"certificate", name}
}

// issue runs do when it is its turn. From then on s is not pushed out, nor while
// it waits, if there are not too many.
func (l *Listener) issue(s *stranger, c *Conn, do func() error) error {
	l.gate.serve(s, l.gate.max/2-cap(l.issuing)) // the others must find room
	timer := time.NewTimer(l.turn)
	defer timer.Stop()
	select {
	case l.issuing <- struct{}{}:
		defer func() { <-l.issuing }()
	case <-s.gone:
		return net.ErrClosed // nobody waits any more
	case <-timer.C:
		return refuse(ReasonBusy, "too many clients want a certificate or a token at once: this one may ask again")
	}
	if !l.gate.serve(s, l.gate.max/2) {
		return net.ErrClosed // it was pushed out, and could not be told
	}
	if err := do(); errors.Is(err, identity.ErrBusy) {
		return &refusal{ReasonBusy, err}
	} else if err != nil {
		return &refusal{ReasonIssue, err}
	}
	c.SetDeadline(time.Now().Add(l.greeting))
	return nil
}

// answer sends the answer to a handshake message.
func (l *Listener) answer(c *Conn, messageType string, texts map[string]string) error {
	frame, err := handshakeFrame(messageType, l.o.Config.ID(), object(texts))
	if err != nil {
		return err
	}
	_, err = c.Write(frame)
	return err
}

// part ends a connection so that the other end gets all that was sent: it is
// closed when the client has closed it, after a while in any case.
func (l *Listener) part(s *stranger, c *Conn) {
	l.gate.unserve(s)
	c.SetDeadline(time.Now().Add(maxParting))
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok && t.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.Conn, wire.MaxUnidentified))
	}
}

// quote returns the beginning of what a stranger sent, for an error.
func quote(b []byte) string {
	const most = 40
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
