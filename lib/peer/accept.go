package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/fold"
	"aioc/lib/identity"
	"aioc/lib/wire"
)

const (
	// maxGreeting is the time from accepting a connection to the end of its
	// first frame.
	maxGreeting = 10 * time.Second

	// The pauses after a failed accept.
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

// errProbe is a connection that ended before its first byte. The original's
// client makes one before each reconnection, to see whether the server is there.
var errProbe = errors.New("not a byte")

// Listener is the server's end: a socket that listens.
type Listener struct {
	o        Options
	mode     mode
	ln       net.Listener
	gate     *gate
	fold     *fold.Log
	greeting time.Duration
	turn     time.Duration // how long who wants a certificate or a token waits for its turn
	issuing  chan struct{} // held by those who get a certificate or a token
}

// Listen starts listening on server_sockaddr, whose host may name a network
// interface, or takes over o.Listener. Errors say what to do; an address in use
// is one that wraps syscall.EADDRINUSE. Whoever does not call Serve calls Close.
func Listen(ctx context.Context, o Options) (*Listener, error) {
	o = o.withDefaults()
	m, err := o.check(true)
	if err != nil {
		return nil, err
	}
	l := &Listener{
		o:        o,
		mode:     m,
		ln:       o.Listener,
		gate:     newGate(max(o.Config.MaxUnidentified, 1)),
		fold:     fold.New(o.Log),
		greeting: maxGreeting,
		turn:     maxIssueWait,
		issuing:  make(chan struct{}, max(1, min(maxIssuing, o.Config.MaxUnidentified/4))),
	}
	if l.ln == nil {
		if l.ln, err = bind(ctx, o); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", o.Config.ServerAddr, err)
		}
	} else if _, ok := l.ln.Addr().(*net.TCPAddr); !ok {
		return nil, fmt.Errorf("the listening socket that was handed over is not TCP but %s: set ListenStream to HOST:PORT", l.ln.Addr().Network())
	}
	return l, nil
}

// bind opens the listening socket of the configuration.
func bind(ctx context.Context, o Options) (net.Listener, error) {
	host, err := bindHost("server_sockaddr", o.Config.ServerAddr.Host)
	if err != nil {
		return nil, err
	}
	network := "tcp"
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		network = "tcp4" // 0.0.0.0 is not all of IPv6 as well, as :: is
	}
	lc := net.ListenConfig{KeepAlive: -1} // setup does it
	ln, err := lc.Listen(ctx, network, net.JoinHostPort(host, strconv.Itoa(o.Config.ServerAddr.Port)))
	if err == nil {
		return ln, nil
	}
	err = bare(err)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		// The system keeps the ends of connections for a minute, and the address with
		// them if it belongs to the original's server, which does not share it.
		return nil, fmt.Errorf("another program listens there, or did a minute ago: stop it and wait, or choose another server_sockaddr: %w", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("this host has no such address: set server_sockaddr to one of its own, or to 0.0.0.0 for all: %w", err)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("ports below 1024 need root or CAP_NET_BIND_SERVICE: choose another port: %w", err)
	}
	return nil, err
}

// Addr returns the address that is listened on, with the port that the system
// chose if the configured one is 0.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Close stops listening. Connections that are there go on. It may be called
// twice, and by any goroutine.
func (l *Listener) Close() error {
	if err := l.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Serve accepts connections until ctx ends. Each is identified in a goroutine of
// its own, which then calls up; up may be called many times at once. up returns
// when the connection has ended, which it sees to when its ctx, that of Serve,
// ends; the connection is closed after it.
//
// Serve closes the listener and returns when all calls of up have returned: the
// error of ctx, or net.ErrClosed after Close. A failure to accept, such as
// too many open files, does not end it. It is called once.
func (l *Listener) Serve(ctx context.Context, up func(ctx context.Context, c *Conn)) error {
	defer l.fold.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		l.Close()
		l.gate.close()
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	// A stranger who was pushed out may take a while to be gone: its goroutine
	// computes, or Admit asks somebody.
	slots := make(chan struct{}, 2*l.gate.max)
	pause := minAcceptPause
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		c, err := l.ln.Accept()
		if err == nil {
			pause = minAcceptPause
			s := l.gate.enter(c) // here: in order
			wg.Go(func() {
				conn := l.meet(ctx, s)
				<-slots
				if conn != nil {
					defer conn.Close()
					up(ctx, conn)
				}
			})
			continue
		}
		<-slots
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			wg.Wait() // before stop: ctx closes the gate
			return net.ErrClosed
		}
		l.fold.Warn("accept", 1, "accept failed", slog.String("err", bare(err).Error()))
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			l.gate.pushOldest()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// meet identifies the other end of s, or closes it, counts and logs, and returns
// nil.
func (l *Listener) meet(ctx context.Context, s *stranger) *Conn {
	c := s.Conn
	setup(c)
	c.SetDeadline(time.Now().Add(l.greeting))
	addr := addrPort(c)
	conn, err := l.identify(s, addr)
	if in, got := l.gate.leave(s), (*issued)(nil); !in && !errors.As(err, &got) {
		err = refuse(ReasonCrowd, "too many connections without a hello: the oldest was closed")
	}
	if err == nil {
		s.known = true
		c.SetDeadline(time.Time{})
		return conn
	}
	c.Close()
	var got *issued
	switch {
	case errors.As(err, &got):
		l.o.Log.LogAttrs(ctx, slog.LevelInfo, got.what+" issued", slog.String("peer", got.name), slog.String("addr", addr.String()))
	case ctx.Err() != nil:
	case errors.Is(err, errProbe):
		l.o.Log.LogAttrs(ctx, slog.LevelDebug, "connection without a byte", slog.String("addr", addr.String()))
	default:
		r := l.classify(err)
		l.o.Refused(r.reason)
		l.fold.Warn(r.reason, 1, "client refused", slog.String("err", r.err.Error()), slog.String("addr", addr.String()))
	}
	return nil
}

// identify does what leads from an accepted connection to an identified one.
func (l *Listener) identify(s *stranger, addr netip.AddrPort) (*Conn, error) {
	conn := &Conn{Conn: s.Conn, Addr: addr}
	if err := l.admit(conn, MomentAddr, ""); err != nil {
		return nil, err
	}
	stream := io.Reader(s)
	var who identity.Who
	if l.o.TLS != nil {
		under := tlsOver(s)
		t := tls.Server(under, l.o.TLS)
		if err := t.Handshake(); err != nil { // ended by the deadline, or the gate
			return nil, l.early(s, l.tlsError(err))
		}
		conn.Conn, conn.TLS, stream = under.with(t), true, t
		if l.o.asksCertificates(l.mode) {
			var err error
			if who, err = l.o.Server.Recognise(t.ConnectionState()); err != nil {
				return nil, &refusal{ReasonCertificate, err}
			}
		}
	}
	conn.Reader = wire.NewReader(stream, wire.MaxUnidentified)
	name, err := l.greet(s, conn, who)
	if err != nil {
		return nil, l.early(s, err)
	}
	conn.Name = name
	conn.Reader.SetMax(maxMessage(l.o.Config))
	return conn, nil
}

// early returns errProbe instead of err for a connection that ended before its
// first byte, and the reason instead of what TLS looks like to one without.
func (l *Listener) early(s *stranger, err error) error {
	switch {
	case s.seen == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return errProbe
	case l.mode == modePlain && s.first == [2]byte{22, 3} && errors.Is(err, wire.ErrTooBig):
		return refuse(ReasonHello, "the client uses TLS: set use_ssl alike at both ends")
	}
	return err
}

// tlsError makes a refusal of an error of a TLS handshake, unless it is the
// connection's.
func (l *Listener) tlsError(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		return refuse(ReasonTLS, "the client does not use TLS: set use_ssl alike at both ends")
	case connectionEnded(err):
		return err
	case notRecognised(err):
		return &refusal{ReasonCertificate, err}
	case strings.Contains(err.Error(), "didn't provide a certificate"): // package tls has no type for it
		return refuse(ReasonCertificate, "the client shows no certificate: set ssl_allow_all, use_token and token_client_send_cert alike at both ends")
	case alerted(err):
		return refuse(ReasonTLS, "the client ends the handshake: %w: it may not know this server's certificate", bare(err))
	}
	return refuse(ReasonTLS, "handshake: %w", err)
}

// notRecognised tells whether err says what is wrong with a client's certificate.
func notRecognised(err error) bool {
	for _, why := range []error{identity.ErrUnknown, identity.ErrForeign, identity.ErrRevoked, identity.ErrDate} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// connectionEnded tells whether err is the end of a connection, by whomever, and
// not something that the other end said.
func connectionEnded(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, errHandshake,
		os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// classify finds the reason in an error of identify.
func (l *Listener) classify(err error) *refusal {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{ReasonSlow, fmt.Errorf("no whole hello within %v", l.greeting)}
	case errors.Is(err, wire.ErrTooBig), errors.Is(err, wire.ErrFrame), errors.Is(err, wire.ErrHeader):
		return &refusal{ReasonFrame, fmt.Errorf("first message: %w", err)}
	case errors.Is(err, errHandshake):
		return &refusal{ReasonFrame, err}
	}
	return &refusal{ReasonLost, fmt.Errorf("the connection ended before a whole hello: %w", bare(err))}
}
