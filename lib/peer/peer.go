package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"time"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// Conn is a connection whose other end is identified. Everything is read
// through Reader, never from the net.Conn: Reader holds bytes that came with the
// handshake. No deadline is set.
type Conn struct {
	net.Conn // plain TCP, or TLS, which has the methods ConnectionState and NetConn of tls.Conn

	Reader *wire.Reader   // its limit is max_message_size
	Name   string         // on a server the client's name, on a client config.PeerID
	Addr   netip.AddrPort // the other end of the TCP connection
	TLS    bool

	// Welcome says with an error that the client would no longer be let in with
	// the certificate or token that it has shown. It is nil where it has shown
	// none, and on a client. It may be called by any goroutine.
	Welcome func() error
}

// Options is what a Listener and a Dialer are made from.
type Options struct {
	Config *config.Config
	Log    *slog.Logger // nil logs nothing

	// TLS is needed when the configuration says use_ssl, and must be nil when it
	// does not. A client with Client needs none.
	TLS *tls.Config

	// Server is needed by a server that asks for certificates, Tokens by one
	// with use_token.
	Server *identity.Server
	Tokens *identity.Tokens

	// Client is needed by a client with certificates or a token, Token by one with
	// use_token.
	Client *identity.Client
	Token  *identity.TokenFile

	// Refused counts: it is called once for each refused connection, by any
	// goroutine, with one of the reasons in this package. It may be nil.
	Refused func(reason string)

	// Listener is a listening socket to use instead of a new one, as a
	// supervisor hands it over. It may be nil.
	Listener net.Listener

	// Admit decides whether a client may go on, at the moments MomentAddr, with
	// an empty name, MomentName and MomentCertificate. Its error is logged, the client learns
	// nothing. It is called by many goroutines and may be nil. While it thinks,
	// the client is still a stranger, and counts as one.
	Admit func(moment string, addr netip.AddrPort, name string) error

	// ProxyAuthorization returns user name and password for the proxy of a
	// client. It gets those of the configuration, and may be nil.
	ProxyAuthorization func(ctx context.Context, user, password string) (string, string, error)
}

// The moments at which Admit is asked.
const (
	MomentAddr = "addr" // the address is known, nothing has been read
	MomentName = "name" // the client has said a valid name, or shown its certificate

	// A client that has shown the default certificate is about to get its own.
	// MomentName was just before.
	MomentCertificate = "certificate"
)

// The reasons for which a client is refused.
const (
	ReasonCrowd = "crowd" // too many who had not said who they are: the oldest went
	ReasonSlow  = "slow"  // no whole first frame in time
	ReasonLost  = "lost"  // the connection ended within the handshake
	ReasonTLS   = "tls"   // the TLS handshake failed
	ReasonFrame = "frame" // the first frame is none, or too big
	ReasonHello = "hello" // the first frame is no hello of the mode in use
	ReasonName  = "name"  // the client's name is not valid
	ReasonAdmit = "admit" // Admit said no

	ReasonCertificate = "certificate" // the client's certificate is none that counts
	ReasonToken       = "token"       // it is not the client's token
	ReasonIssue       = "issue"       // the client cannot get a certificate or a token
	ReasonBusy        = "busy"        // too many want one at once
)

// keepAlive is how TCP finds out that the other end is gone: after a minute of
// silence and unanswered probes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

// mode is how the two ends prove who they are. There is no negotiation: both are
// configured alike.
type mode int

const (
	modePlain        mode = iota // no TLS
	modeAnonymous                // TLS with ssl_allow_all: hidden, but nobody is proven
	modeToken                    // the same with a token
	modeCertificates             // a certificate for each client
)

// modeOf returns the mode that c asks for.
func modeOf(c *config.Config) mode {
	switch {
	case !c.UseSSL:
		return modePlain
	case !c.SSLAllowAll:
		return modeCertificates
	case c.UseToken:
		return modeToken
	}
	return modeAnonymous
}

// hello returns the message type of the handshake.
func (m mode) hello() string {
	switch m {
	case modePlain:
		return wire.TypeHelloPlain
	case modeAnonymous:
		return wire.TypeHelloTLS
	case modeToken:
		return wire.TypeToken
	}
	return wire.TypeSSL
}

// check returns the mode of o, or what it lacks for it: never is anything sent in
// clear text, or taken from anybody, because of an oversight.
func (o *Options) check(server bool) (mode, error) {
	m := modeOf(o.Config)
	some := o.TLS != nil || o.Client != nil
	switch {
	case m == modePlain && some:
		return m, errors.New("use_ssl is false, and there is a TLS configuration")
	case m == modePlain:
	case o.TLS == nil && (server || o.Client == nil):
		return m, errors.New("use_ssl is true, and there is no TLS configuration")
	case !server && m != modeAnonymous && o.Client == nil:
		return m, errors.New("there is nothing to prove with who the client is")
	case server && m == modeToken && o.Tokens == nil, !server && m == modeToken && o.Token == nil:
		return m, errors.New("use_token is true, and there is no place for tokens")
	case server && o.asksCertificates(m) && o.Server == nil:
		return m, errors.New("clients show certificates, and there is nothing to compare them with")
	}
	return m, nil
}

// asksCertificates tells whether a server asks clients for their certificates.
func (o *Options) asksCertificates(m mode) bool {
	return m == modeCertificates || m == modeToken && o.Config.TokenVerifyPeerCert.On
}

// withDefaults fills in what may be nil.
func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Refused == nil {
		o.Refused = func(string) {}
	}
	if o.Admit == nil {
		o.Admit = func(string, netip.AddrPort, string) error { return nil }
	}
	return o
}

// setup sets the options of a TCP connection; others are left as they are.
func setup(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		// They fail only on a connection that has ended, which reading tells.
		t.SetNoDelay(true)
		t.SetKeepAliveConfig(keepAlive)
	}
}

// addrPort returns the other end's address, zero when it is not one of TCP. An
// IPv4 address is one, also on a socket that takes both.
func addrPort(c net.Conn) netip.AddrPort {
	t, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	a := t.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// maxMessage is max_message_size as a length.
func maxMessage(c *config.Config) int { return int(min(c.MaxMessageSize, math.MaxInt)) }

// bare takes operation and addresses from an error of package net: the caller
// says them better.
func bare(err error) error {
	if e := (*net.OpError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// bindHost is config.BindHost for a key of the configuration.
func bindHost(key, host string) (string, error) {
	host, err := config.BindHost(host)
	if err != nil {
		return "", fmt.Errorf("%s: %w", key, err)
	}
	return host, nil
}
