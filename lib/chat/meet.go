package chat

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
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/identity"
	"aioc/lib/peer"
)

const (
	// clientName is the name under which the original's chat calls, too.
	clientName = "chat_client"

	// introduce is how long a caller has to say what it is before the user is
	// asked: a chat of this family does so at once, an original never.
	introduce = time.Second

	callersMax = 4               // who wait for their turn
	turn       = 2 * time.Second // how long behind somebody who talks
)

// settings is the configuration of either end.
func (c *chat) settings() *config.Config {
	cfg := config.Defaults()
	cfg.UseSSL, cfg.SSLAllowAll = true, true
	cfg.TryReconnect = false
	cfg.ClientName = clientName
	return cfg
}

// listen waits for calls, in the background.
func (c *chat) listen(ctx context.Context) error {
	cert, err := ownCertificate(c.o.State)
	if err != nil {
		return err
	}
	ln, err := c.bind(ctx)
	if err != nil {
		return err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	cfg := c.settings()
	cfg.IsServer = true
	cfg.ServerAddr = config.Addr{Host: "0.0.0.0", Port: port}
	l, err := peer.Listen(ctx, peer.Options{Config: cfg, Log: c.log, Listener: ln, TLS: &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
	}})
	if err != nil {
		ln.Close()
		return err
	}
	c.ln = ln
	c.side.Go(func() {
		_ = l.Serve(ctx, func(ctx context.Context, conn *peer.Conn) {
			s := newSession(ctx, c, conn, false, cfg.ID())
			c.post(func() { c.called(s) })
			err := s.run()
			c.post(func() { c.gone(s, err) })
		})
	})
	c.ui.note("waiting for a call at %s, port %d", strings.Join(addresses(ln.Addr()), ", "), port)
	return nil
}

// bind opens the listening socket.
func (c *chat) bind(ctx context.Context) (net.Listener, error) {
	host, err := config.BindHost(c.o.Bind)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	network := "tcp"
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is4() {
		network = "tcp4"
	}
	var lc net.ListenConfig
	var unknown *net.DNSError
	ln, err := lc.Listen(ctx, network, net.JoinHostPort(host, strconv.Itoa(c.o.Port)))
	where := net.JoinHostPort(c.o.Bind, strconv.Itoa(c.o.Port))
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program listens there: stop it, or choose another -port at both ends: %w", where, syscall.EADDRINUSE)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this host has no such address", where)
	case errors.As(err, &unknown):
		return nil, fmt.Errorf("listen on %s: this host has neither an interface nor an address of that name", c.o.Bind)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("listen on %s: ports below 1024 are for root: choose another -port", where)
	}
	return nil, fmt.Errorf("listen on %s: %w", where, err)
}

// addresses are those under which a listening socket can be reached.
func addresses(a net.Addr) (list []string) {
	tcp := a.(*net.TCPAddr)
	if !tcp.IP.IsUnspecified() {
		return []string{tcp.IP.String()}
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			list = append(list, n.IP.String())
		}
	}
	const most = 5
	if len(list) > most {
		list = append(list[:most], "...")
	}
	return append(list, "localhost")
}

// address is whom an end that calls calls.
func (c *chat) address() string {
	return net.JoinHostPort(strings.ToLower(c.o.Target), strconv.Itoa(c.o.Port))
}

// call calls the other end, in the background.
func (c *chat) call(ctx context.Context) error {
	cfg := c.settings()
	cfg.ServerAddr = config.Addr{Host: c.o.Target, Port: c.o.Port}
	own, err := identity.OpenClient(identity.ClientOptions{Name: clientName, Trust: identity.TrustAll})
	if err != nil {
		return err
	}
	secure, err := own.TLS(identity.ShowNone)
	if err != nil {
		return err
	}
	d := peer.NewDialer(peer.Options{Config: cfg, TLS: secure})
	c.ui.note("calling %s", c.address())
	c.side.Go(func() {
		met := false
		err := d.Run(ctx, func(ctx context.Context, conn *peer.Conn) error {
			met = true
			s := newSession(ctx, c, conn, true, clientName)
			c.post(func() { c.s = s })
			err := s.run()
			c.post(func() { c.gone(s, err) })
			return err
		})
		if !met && ctx.Err() == nil {
			c.post(func() { c.leave(fmt.Errorf("%w: %w", ErrAway, err)) })
		}
	})
	return nil
}

// people tells whether somebody can be asked.
func (c *chat) people() bool { return c.ui.people() }

// ask asks a question about s, which the next line answers.
func (c *chat) ask(s *session, text string, answer func(yes bool)) {
	if !c.people() {
		answer(false)
		return
	}
	c.ui.note("%s y/N", text)
	c.asking = text
	// Who was about to answer the question before has not read this one.
	const reading = 2 * time.Second
	if now := time.Now(); now.Sub(c.withdrawn) < reading {
		c.notBefore = now.Add(reading)
	}
	c.question = func(yes bool) {
		if c.s == s {
			answer(yes)
		}
	}
}

// decline hangs up with a reason.
func (c *chat) decline(s *session, why string) {
	c.side.Go(func() { s.refuse(why) })
}

// called is told of a caller.
func (c *chat) called(s *session) {
	switch {
	case s.ctx.Err() != nil: // gone already
	case c.s == nil:
		c.receive(s)
	case len(c.callers) >= callersMax:
		c.busyFor(s)
	default:
		c.callers = append(c.callers, s)
		if c.s.ready {
			// The one before may have left a moment ago, as when files are sent
			// one after the other.
			time.AfterFunc(turn, func() { c.post(func() { c.turnDown(s) }) })
		}
	}
}

// turnDown refuses a caller that still waits behind somebody who talks.
func (c *chat) turnDown(s *session) {
	if c.s != nil && c.s.ready && slices.Contains(c.callers, s) {
		c.busyFor(s)
	}
}

// whyBusy is what a caller is told who comes while this end talks.
const whyBusy = "busy with somebody else"

// busyFor refuses a caller.
func (c *chat) busyFor(s *session) {
	c.fold.Warn("busy", 1, "a call was refused while this end is busy", slog.String("addr", s.conn.Addr.Addr().String()))
	c.decline(s, whyBusy)
}

// receive gives a caller its turn.
func (c *chat) receive(s *session) {
	c.s = s
	if s.isKnown() {
		c.introduced(s)
		return
	}
	time.AfterFunc(introduce, func() { c.post(func() { c.introduced(s) }) })
}

// met is told that it is known what the other end is.
func (c *chat) met(s *session) {
	switch {
	case c.s != s || s.ctx.Err() != nil:
	case s.dialled:
		c.check(s)
	case s.ready: // an original that said nothing until now, or a slow caller
		c.greet(s)
		c.serveOriginal(s)
	default:
		c.introduced(s)
	}
}

// introduced asks whether a caller may talk.
func (c *chat) introduced(s *session) {
	if c.s != s || s.asked || s.ctx.Err() != nil {
		return
	}
	s.asked = true
	c.ui.note("call from %s", s.conn.Addr.Addr())
	c.identify(s)
	if c.o.Accept {
		c.accept(s)
		return
	}
	text := "talk?"
	if c.o.Exec != "" {
		text = fmt.Sprintf("talk, and give it a shell (%s) on this host?", c.o.Exec)
	}
	c.ask(s, text, func(yes bool) {
		if yes {
			c.accept(s)
			return
		}
		c.ui.note("refused")
		c.decline(s, "no")
	})
}

// identify says what can be said of the other end.
func (c *chat) identify(s *session) {
	if !s.isNative() {
		c.ui.note("the other end is not aioc-chat: who it is cannot be checked")
		return
	}
	words, err := sessionWords(s.state())
	if err != nil {
		c.ui.note("who the other end is cannot be checked: %v", err)
		return
	}
	c.ui.note("words of this connection: %s", words)
	c.ui.note("the other end must see the same; compare them by telephone")
}

// state is that of the TLS session.
func (s *session) state() *tls.ConnectionState {
	t, ok := s.conn.Conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return &tls.ConnectionState{}
	}
	state := t.ConnectionState()
	return &state
}

// accept lets a caller in.
func (c *chat) accept(s *session) {
	s.admit()
	c.greet(s)
	c.start(s)
	c.serveOriginal(s)
}

// greet tells a chat of this family that this end takes part, once.
func (c *chat) greet(s *session) {
	if s.isNative() && !s.helloOut {
		s.helloOut = true
		s.tell(opHello, 0, greeting{Shell: c.o.Exec != "", Upload: c.uploading})
	}
}

// serveOriginal starts the shell for an original, which cannot ask for it.
func (c *chat) serveOriginal(s *session) {
	if c.o.Exec != "" && s.isKnown() && !s.isNative() {
		_, _ = s.serve(window{Term: lineTerm}) // it has been said
	}
}

// check looks whether the end that was called is the one that it was before.
func (c *chat) check(s *session) {
	c.identify(s)
	known := hosts{}
	if c.o.State != "" {
		known.path = filepath.Join(c.o.State, hostsFile)
	}
	key := ""
	if s.isNative() {
		key = keyOf(s.state())
	}
	addr := c.address()
	before, err := known.key(addr)
	if err != nil {
		c.leave(err)
		return
	}
	remember := func() {
		if err := known.remember(addr, key); err != nil {
			c.ui.note("%v", err)
		}
	}
	switch {
	case before == key:
		if key != "" {
			c.ui.note("its key is the one of the last time")
		}
		c.offer(s)
	case before == "":
		c.ui.note("its key is new: %s", key)
		remember()
		c.offer(s)
	default:
		c.ui.note("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")
		c.ui.note("%s IS NOT THE ONE IT WAS: somebody may sit between", addr)
		c.ui.note("key of the last time: %s", before)
		if key == "" {
			c.ui.note("key now: none, the program at the other end is another one")
		} else {
			c.ui.note("key now:              %s", key)
		}
		c.ui.note("!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!")
		if !c.people() {
			c.leave(fmt.Errorf("%w: the key of %s has changed: when that is right, remove its line from %s", ErrRefused, addr, known.path))
			return
		}
		c.ask(s, "go on all the same?", func(yes bool) {
			if !yes {
				c.leave(fmt.Errorf("%w: the key of %s has changed", ErrRefused, addr))
				return
			}
			if key != "" {
				remember()
			}
			c.offer(s)
		})
	}
}

// offer begins to talk to the end that was called, after a last question where
// much is at stake.
func (c *chat) offer(s *session) {
	begin := func() {
		s.admit()
		c.greet(s)
		switch {
		case !s.isNative():
			c.start(s)
			c.serveOriginal(s)
		case s.welcome:
			c.start(s)
		default:
			c.ui.note("waiting until the other end accepts")
		}
	}
	if c.o.Exec == "" || c.o.Accept {
		begin()
		return
	}
	c.ask(s, fmt.Sprintf("give it a shell (%s) on this host?", c.o.Exec), func(yes bool) {
		if yes {
			begin()
			return
		}
		c.leave(fmt.Errorf("%w: no shell for the other end", ErrRefused))
	})
}

// greetedBy is told that the other end takes part.
func (c *chat) greetedBy(s *session, g greeting) {
	if c.s != s || s.welcome {
		s.hello, s.welcome = g, true
		return
	}
	s.hello, s.welcome = g, true
	if g.Shell && c.o.Exec != "" {
		c.decline(s, "both ends have -exec: one shell would talk to the other")
		c.leave(fmt.Errorf("%w: both ends have -exec: one shell would talk to the other", ErrRefused))
		return
	}
	switch {
	case s.dialled && s.helloOut:
		c.start(s)
	case s.ready:
		c.shellHint(s)
	}
}

// start is when both may talk.
func (c *chat) start(s *session) {
	if s.ready {
		return
	}
	s.ready = true
	for _, other := range c.callers {
		time.AfterFunc(turn, func() { c.post(func() { c.turnDown(other) }) })
	}
	c.ui.note("connected with %s", s.conn.Addr.Addr())
	c.shellHint(s)
	switch {
	case c.uploading:
		s.upload(c.o.Upload, func(err error) {
			c.post(func() { c.uploaded(s, err) })
		})
	case c.people():
		c.ui.note("type a line to send it, !help for more")
	}
}

// shellHint says how to use the shell of the other end.
func (c *chat) shellHint(s *session) {
	if s.hello.Shell && c.people() {
		c.ui.note("the other end offers a shell: what you type goes into it; !shell gives it the whole terminal")
	}
}

// uploaded ends a chat of -upload.
func (c *chat) uploaded(s *session, err error) {
	var stop *stopError
	switch {
	case err == nil:
	case errors.As(err, &stop) && stop.Full:
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	case errors.Is(err, errGone) && !s.spoke.Load():
		err = fmt.Errorf("%w: %w: the other end hung up without a word", ErrRefused, err)
	case errors.Is(err, errGone):
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	c.leave(err)
}

// gone is told that a connection has ended.
func (c *chat) gone(s *session, err error) {
	if c.s != s {
		c.callers = slices.DeleteFunc(c.callers, func(other *session) bool { return other == s })
		return
	}
	if c.question != nil {
		c.withdrawn = time.Now()
	}
	c.s, c.question = nil, nil
	c.ui.progress("")
	if s.hello.Shell && !s.dialled {
		c.ui.shellOver()
	}
	var no *refusedError
	refused := errors.As(err, &no)
	left := errors.Is(err, io.EOF)
	text := fmt.Sprintf("the connection is lost: %v", err)
	switch {
	case refused:
		text = no.Error()
	case errors.Is(err, errEnded):
		text = "hung up"
	case left && s.dialled && !s.spoke.Load():
		refused, text = true, "the other end hung up without a word: it refuses, or is busy"
	case left:
		text = "the other end has left"
	}
	switch {
	case s.leaving || c.uploading && s.ready: // somebody waits for it and says so
	case s.cut.Load() && !c.people():
		c.leave(fmt.Errorf("%w: %s", ErrBroken, text))
	case !s.dialled:
		c.ui.note("%s", text)
		if len(c.callers) > 0 {
			next := c.callers[0]
			c.callers = c.callers[1:]
			c.receive(next)
		} else {
			c.ui.note("waiting for the next call")
		}
	case no != nil && no.why == whyBusy:
		c.leave(fmt.Errorf("%w: %s: call again later", ErrBusy, text))
	case refused:
		c.leave(fmt.Errorf("%w: %s", ErrRefused, text))
	case left && !c.people() && !c.uploading && s.missing() != nil:
		c.leave(s.missing())
	case left && (c.people() || c.eof || c.uploading || !c.typed && s.complete()):
		c.ui.note("%s", text)
		c.leave(nil)
	default:
		c.leave(fmt.Errorf("%w: %s", ErrBroken, text))
	}
}
