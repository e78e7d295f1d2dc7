package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

// connect makes one attempt: TCP, TLS and the greeting, in connect_timeout
// together.
func (d *Dialer) connect(ctx context.Context) (*Conn, error) {
	cfg := d.o.Config
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	c, err := d.establish(ctx)
	switch {
	case err == nil:
		return c, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		through := ""
		if cfg.Proxy.Enabled {
			through = fmt.Sprintf(" through the proxy %s", cfg.Proxy.Addr)
		}
		err = fmt.Errorf("no connection%s within %v (connect_timeout): %w", through, cfg.ConnectTimeout, os.ErrDeadlineExceeded)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("server %s: %w", cfg.ServerAddr, err)
}

// establish is connect without its words for the end of ctx.
func (d *Dialer) establish(ctx context.Context) (*Conn, error) {
	p, err := d.prove(ctx)
	if err != nil {
		return nil, &localError{err}
	}
	raw, err := d.dial(ctx)
	if err != nil {
		return nil, bare(err)
	}
	setup(raw)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := &Conn{Conn: raw, Name: d.o.Config.PeerID(), Addr: addrPort(raw)}
	if err := d.identify(ctx, c, p); err != nil {
		c.Close() // of TLS too, which says so
		return nil, err
	}
	if !stop() { // raw is being closed
		return nil, ctx.Err()
	}
	c.Reader.SetMax(maxMessage(d.o.Config))
	return c, nil
}

// proof is what a client proves itself with in one attempt.
type proof struct {
	tls   *tls.Config // nil without TLS
	own   bool        // it holds the client's own certificate
	token string      // "" is to ask for one
	hash  string      // of the one that it asks for
}

// prove reads the proof: it may have changed since the last attempt.
func (d *Dialer) prove(ctx context.Context) (p proof, err error) {
	if d.unstored != nil {
		if err := d.keep(ctx, d.unstored); !errors.Is(err, errStored) {
			return p, err
		}
	}
	switch d.mode {
	case modePlain:
		return p, nil
	case modeToken:
		if !d.useDefault {
			if p.token, err = d.o.Token.Load(ctx); err != nil {
				return p, err
			}
		}
		if p.token == "" {
			if p.hash, err = d.o.Token.Propose(ctx); err != nil {
				return p, fmt.Errorf("a token to propose: %w", err)
			}
		}
	case modeCertificates:
		p.own = d.o.Client.HasOwn() && !d.useDefault
	}
	if p.tls = d.o.TLS; d.o.Client != nil {
		p.tls, err = ClientTLS(d.o.Config, d.o.Client, p.own)
	}
	return p, err
}

// ClientTLS returns what a client of this configuration dials with: own says that
// it shows its own certificate, if the mode is that of certificates. Errors say
// what to do.
func ClientTLS(cfg *config.Config, c *identity.Client, own bool) (*tls.Config, error) {
	switch m := modeOf(cfg); {
	case m == modeCertificates && own:
		return c.TLS(identity.ShowOwn)
	case m == modeToken && cfg.TokenSendCert:
		t, err := c.TLS(identity.ShowDefault)
		if errors.Is(err, identity.ErrMissing) && !cfg.TokenVerifyPeerCert.On {
			return c.TLS(identity.ShowNone) // the server does not look at it
		}
		return t, err
	case m == modeCertificates:
		return c.TLS(identity.ShowDefault)
	}
	return c.TLS(identity.ShowNone)
}

// identify does TLS and the handshake on a new connection.
func (d *Dialer) identify(ctx context.Context, c *Conn, p proof) error {
	stream := io.Reader(c.Conn)
	if p.tls != nil {
		v := &verdict{raw: c.Conn, own: p.own}
		silent := p.own || d.mode == modeAnonymous // it answers nothing that would tell
		if silent {
			p.tls = p.tls.Clone()
			p.tls.ClientSessionCache = v
		}
		under := tlsOver(c.Conn)
		t := tls.Client(under, p.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			var header tls.RecordHeaderError
			switch {
			case errors.As(err, &header):
				return errors.New("the server does not use TLS: set use_ssl alike at both ends")
			case alerted(err):
				return &refusedError{fmt.Errorf("TLS handshake: the server refuses it: %w", bare(err))}
			}
			err = fmt.Errorf("TLS handshake: %w", bare(err))
			if notRecognised(err) {
				err = &distrustError{err}
			}
			return err
		}
		c.Conn, c.TLS, stream = under.with(t), true, t
		if silent {
			early, err := v.wait(t)
			if err != nil {
				return err
			}
			if len(early) > 0 {
				stream = io.MultiReader(bytes.NewReader(early), t)
			}
		}
	}
	c.Reader = wire.NewReader(stream, wire.MaxUnidentified)
	return d.greet(ctx, c, p)
}

// dialTCP connects to server_sockaddr, from client_bind_ip if there is one. Both
// are looked up each time: an interface may have got another address.
func (d *Dialer) dialTCP(ctx context.Context) (net.Conn, error) {
	return d.dialTo(ctx, "server_sockaddr", d.o.Config.ServerAddr)
}

// dialTo connects to the address that is the value of key.
func (d *Dialer) dialTo(ctx context.Context, key string, addr config.Addr) (net.Conn, error) {
	cfg := d.o.Config
	host, err := bindHost(key, addr.Host)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{KeepAlive: -1} // setup does it
	if cfg.ClientBindIP != "" {
		local, err := localAddr(ctx, cfg.ClientBindIP)
		if err != nil {
			return nil, err
		}
		dialer.LocalAddr = local
	}
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(addr.Port)))
	if err != nil && cfg.ClientBindIP != "" && errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, fmt.Errorf("client_bind_ip %q: this host has no such address: %w", cfg.ClientBindIP, bare(err))
	}
	return c, err
}

// localAddr returns the address to connect from: host is an address, an
// interface, or a name.
func localAddr(ctx context.Context, host string) (*net.TCPAddr, error) {
	ip, err := bindHost("client_bind_ip", host)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", ip)
		if err != nil {
			return nil, fmt.Errorf("client_bind_ip %q is neither an address of this host nor one of its interfaces: %w", host, err)
		}
		addr = addrs[0]
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Unmap(), 0)), nil
}
