package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"aioc/lib/wire"
)

// errStored ends a connection on which the client has got what it proves itself
// with from now on: it connects again at once.
var errStored = errors.New("certificate or token stored")

// refusedError is what a server probably meant by closing the connection, or what
// it said: trying again soon is no use unless something is done there.
type refusedError struct{ err error }

func (r *refusedError) Error() string { return r.err.Error() }
func (r *refusedError) Unwrap() error { return r.err }

// localError is what cannot be used on this host: no attempt to connect was made.
type localError struct{ err error }

func (l *localError) Error() string { return l.err.Error() }
func (l *localError) Unwrap() error { return l.err }

// proxyError is that the proxy was reached and makes no connection.
type proxyError struct{ err error }

func (p *proxyError) Error() string { return p.err.Error() }
func (p *proxyError) Unwrap() error { return p.err }

// distrustError is that the server's certificate is not one that the client trusts.
type distrustError struct{ err error }

func (d *distrustError) Error() string { return d.err.Error() }
func (d *distrustError) Unwrap() error { return d.err }

// greet says who the client is on a new connection, TLS included. The connection
// has a deadline. Without tokens and with a certificate of its own nothing is
// said or answered: what comes next are messages, and a refusal is the end of the
// connection.
func (d *Dialer) greet(ctx context.Context, c *Conn, p proof) error {
	name := d.o.Config.ClientName
	switch {
	case d.mode == modePlain, d.mode == modeAnonymous:
		return d.say(c, []byte(wire.HelloData))
	case d.mode == modeToken && p.token != "":
		answer, err := d.ask(c, map[string]string{"cmd": "authenticate", "token": p.token})
		if err != nil {
			return fmt.Errorf("token: %w", d.ended(err, "it may have another token for %q, or none, or not admit this name or address, or use_ssl, ssl_allow_all and use_token are not alike: only its log says which. If it is the token, delete it here and there (aioc-ctl delete-token), and a new one is made", name))
		}
		if answer["result"] != "success" {
			return &refusedError{errors.New("token: the server's answer is none")}
		}
		return nil
	case d.mode == modeToken:
		answer, err := d.ask(c, map[string]string{"cmd": "get_new_token", "hash": p.hash})
		if err != nil {
			return fmt.Errorf("new token: %w", d.ended(err, d.whyNone("token"), name, name))
		}
		token := answer["token"] // of a server that does not know proposals
		switch {
		case answer["cmd"] == "set_new_token" && answer["hash"] == p.hash:
			return d.keep(ctx, func(context.Context) error { return d.o.Token.Accept() })
		case answer["cmd"] != "set_new_token" || token == "":
			return &refusedError{errors.New("new token: the server's answer is none")}
		}
		return d.keep(ctx, func(ctx context.Context) error { return d.o.Token.Store(ctx, token) })
	case p.own:
		return nil
	}
	return d.enrol(ctx, c)
}

// enrol asks for a certificate. One of this toolkit makes it for our key, the
// original makes a key for us.
func (d *Dialer) enrol(ctx context.Context, c *Conn) error {
	csr, err := d.o.Client.NewRequest()
	if err != nil {
		return err
	}
	answer, err := d.ask(c, map[string]string{"cmd": "get_new_certificate", "csr": string(csr)})
	if err != nil {
		return fmt.Errorf("new certificate: %w", d.ended(err, d.whyNone("certificate"), d.o.Config.ClientName, d.o.Config.ClientName))
	}
	crt := answer["crt"]
	if answer["cmd"] != "set_new_certificate" || crt == "" {
		return &refusedError{errors.New("new certificate: the server's answer is none")}
	}
	var key []byte // nil when it is ours
	if answer["key"] != "" {
		key = []byte(answer["key"])
	}
	return d.keep(ctx, func(context.Context) error { return d.o.Client.Store([]byte(crt), key) })
}

// keep stores what the server gives out once, and returns errStored. When that
// fails, as on a full disk, it is tried again before the next attempt.
func (d *Dialer) keep(ctx context.Context, store func(context.Context) error) error {
	if err := store(ctx); err != nil {
		d.unstored = store
		return fmt.Errorf("what the server gave out is not stored, and kept in memory for now: %w", err)
	}
	d.unstored = nil
	return errStored
}

// whyNone is why a client may have got no certificate or token. What it may have
// on the server is that of another as well: it is not to be deleted on suspicion.
func (d *Dialer) whyNone(what string) string {
	return "it may not admit this name or address, have no room, be set to another mode (use_ssl, ssl_allow_all, use_token), or have a " + what +
		" for %q already: only its log says which. Another client may be using that one: delete it there (aioc-ctl delete-" + what + " %s) only if it was this client's and is lost"
}

// refusedInTLS explains what the server has said in TLS, "" if that may mean
// anything. shows is which certificate the client has shown, "" for none.
func refusedInTLS(err error, shows string) string {
	text := err.Error()
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	switch {
	case has("certificate required"), shows == "" && has("handshake failure", "bad certificate"):
		return "it wants a certificate: set ssl_allow_all, use_token and token_verify_peer_cert alike at both ends"
	case has("expired certificate") && shows == "default":
		return "the default certificate has expired: there run: aioc-certs renew default, then bring it with aioc-certs pack client"
	case has("bad certificate", "unknown certificate", "unknown certificate authority", "revoked certificate") && shows == "default":
		return "it does not take the default certificate: bring the one that it has now with aioc-certs pack client; its log says more"
	}
	return ""
}

// ended explains the error of a handshake when it is the server that has ended
// the connection, as it does to refuse.
func (d *Dialer) ended(err error, format string, args ...any) error {
	if !connectionEnded(err) && !alerted(err) {
		return err
	}
	shows := ""
	if d.mode == modeCertificates || d.mode == modeToken && d.o.Config.TokenSendCert {
		shows = "default"
	}
	if why := refusedInTLS(err, shows); alerted(err) && why != "" {
		return &refusedError{fmt.Errorf("the server refuses (%w): %s", bare(err), why)}
	}
	return &refusedError{fmt.Errorf("the server closed the connection (%w): "+format, slices.Concat([]any{bare(err)}, args)...)}
}

// alerted tells whether err is what the other end said in TLS.
func alerted(err error) bool {
	e := (*net.OpError)(nil)
	return errors.As(err, &e) && e.Op == "remote error"
}

// say sends a handshake message.
func (d *Dialer) say(c *Conn, data []byte) error {
	frame, err := handshakeFrame(d.mode.hello(), d.o.Config.ClientName, data)
	if err != nil {
		return err
	}
	if _, err := c.Write(frame); err != nil {
		return fmt.Errorf("hello: %w", bare(err))
	}
	return nil
}

// ask sends a handshake message and returns the texts in the answer.
func (d *Dialer) ask(c *Conn, texts map[string]string) (map[string]string, error) {
	if err := d.say(c, object(texts)); err != nil {
		return nil, err
	}
	var f wire.Frame
	if err := c.Reader.Next(&f); err != nil {
		return nil, err
	}
	if string(f.Header.Type) != d.mode.hello() {
		return nil, fmt.Errorf("the server answers with %s: set use_ssl, ssl_allow_all and use_token alike at both ends", quote(f.Header.Type))
	}
	return words(f.Data), nil
}

// handshakeFrame returns a frame of the handshake, as the original writes it.
func handshakeFrame(messageType, source string, data []byte) ([]byte, error) {
	header := wire.AppendString([]byte(`{"message_type": `), messageType)
	header = wire.AppendString(append(header, `, "source_id": `...), source)
	return wire.AppendFrame(nil, append(header, '}'), data, nil)
}

// object returns texts as a JSON object, cmd first, as the original writes it.
func object(texts map[string]string) []byte {
	b := []byte{'{'}
	for _, key := range []string{"cmd", "result", "token", "hash", "crt", "key", "csr"} {
		text, ok := texts[key]
		if !ok {
			continue
		}
		if len(b) > 1 {
			b = append(b, ", "...)
		}
		b = wire.AppendString(b, key)
		b = wire.AppendString(append(b, ": "...), text)
	}
	return append(b, '}')
}
