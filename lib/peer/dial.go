package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

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
		err = fmt.Errorf("no connection within %v (connect_timeout): %w", cfg.ConnectTimeout, os.ErrDeadlineExceeded)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("server %s: %w", cfg.ServerAddr, err)
}

// establish is connect without its words for the end of ctx.
func (d *Dialer) establish(ctx context.Context) (*Conn, error) {
	raw, err := d.dial(ctx)
	if err != nil {
		return nil, bare(err)
	}
	setup(raw)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := &Conn{Conn: raw, Name: d.o.Config.PeerID(), Addr: addrPort(raw)}
	if err := d.greet(ctx, c); err != nil {
		raw.Close()
		return nil, err
	}
	if !stop() { // raw is being closed
		return nil, ctx.Err()
	}
	c.Reader.SetMax(maxMessage(d.o.Config))
	return c, nil
}

// greet does TLS and the handshake on a new connection.
func (d *Dialer) greet(ctx context.Context, c *Conn) error {
	if d.o.TLS != nil {
		t := tls.Client(c.Conn, d.o.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			var header tls.RecordHeaderError
			if errors.As(err, &header) {
				return errors.New("the server does not use TLS: set use_ssl alike at both ends")
			}
			return fmt.Errorf("TLS handshake: %w", bare(err))
		}
		c.Conn, c.TLS = t, true
	}
	c.Reader = wire.NewReader(c.Conn, wire.MaxUnidentified)
	return greetClient(d.mode, c, d.o.Config.ClientName)
}

// dialTCP connects to server_sockaddr, from client_bind_ip if there is one. Both
// are looked up each time: an interface may have got another address.
func (d *Dialer) dialTCP(ctx context.Context) (net.Conn, error) {
	cfg := d.o.Config
	host, err := bindHost("server_sockaddr", cfg.ServerAddr.Host)
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
	c, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(cfg.ServerAddr.Port)))
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
