package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"aioc/lib/config"
)

const (
	// The pause after a failure is a random one up to a bound, which doubles
	// from minPause to maxPause: a server that comes back is found soon, and not
	// by all its clients at once.
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second // the original's only pause

	// goodLife is how long a connection lives that makes the pauses small
	// again.
	goodLife = 5 * time.Second

	// manyShort is after how many connections in a row that did not live that
	// long the user is told: a server refuses without a word.
	manyShort = 5

	// A server that stays away is mentioned after a minute, then ever more
	// rarely.
	minRemind = time.Minute
	maxRemind = time.Hour

	// minNews is after what time a failure of another kind is mentioned at once.
	minNews = 10 * time.Second
)

// The states of a Dialer.
const (
	StateConnecting = "connecting" // an attempt is being made
	StateUp         = "up"         // connected
	StateWaiting    = "waiting"    // between attempts, or not running
)

// Dialer is the client's end: it connects, and connects again. Make one with
// NewDialer. Kick and State may be called by any goroutine.
type Dialer struct {
	o    Options
	mode mode
	err  error // the configuration does not let it run
	kick chan struct{}

	// Owned by Run.
	useDefault bool                        // not what the client owns, this time: alternate_client_default_cert
	unstored   func(context.Context) error // stores what the server gave out, when that has failed

	dial   func(ctx context.Context) (net.Conn, error)
	jitter func(bound time.Duration) time.Duration // a pause of at most bound

	state   atomic.Pointer[string]
	upAt    atomic.Pointer[time.Time] // when it last became StateUp
	failure atomic.Pointer[string]
}

// NewDialer returns a Dialer, which connects under the name ClientName of the
// configuration; it must be set. Refused, Listener and Admit of o are not used.
// What is wrong with o is the error of Run.
func NewDialer(o Options) *Dialer {
	d := &Dialer{o: o.withDefaults(), kick: make(chan struct{}, 1)}
	d.mode, d.err = o.check(false)
	if d.err == nil {
		if err := config.ValidName(o.Config.ClientName); err != nil {
			d.err = fmt.Errorf("client_name: %w", err)
		}
	}
	d.dial = d.dialTCP
	if o.Config.Proxy.Enabled {
		d.dial = d.dialProxy
	}
	d.jitter = func(bound time.Duration) time.Duration { return rand.N(bound) }
	d.setState(StateWaiting)
	return d
}

// State returns one of the State constants.
func (d *Dialer) State() string { return *d.state.Load() }

func (d *Dialer) setState(s string) { d.state.Store(&s) }

// Failure is why the client is not connected: the last failure in one line, ""
// before the first attempt has ended, and once a connection has lived a while: one
// that the server is about to end as it ended the last one is not better yet.
func (d *Dialer) Failure() string {
	why := d.failure.Load()
	if why == nil || d.State() == StateUp && time.Since(*d.upAt.Load()) > goodLife {
		return ""
	}
	return *why
}

// maxFailure is how many bytes of a failure are told.
const maxFailure = 600

// setFailure notes why an attempt or a connection has ended.
func (d *Dialer) setFailure(err error) {
	if err == nil {
		return
	}
	text := strings.ToValidUTF8(strings.ReplaceAll(err.Error(), "\n", "; "), "?")
	if len(text) > maxFailure {
		text = strings.ToValidUTF8(text[:maxFailure], "") + "..."
	}
	d.failure.Store(&text)
}

// Kick ends the pause between two attempts, and makes those that follow small
// again: there is news about the network. It does nothing while connected.
func (d *Dialer) Kick() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Run connects, says who it is, and calls up, which returns when the connection
// has ended; then it does so again, until ctx ends. up sees to the end of the
// connection when ctx ends; the connection is closed after it.
//
// Run returns the error of ctx. When enable_client_try_reconnect is false it
// returns after the first attempt, with its error or that of up. A configuration
// with which it cannot run is an error at once. One Run at a time.
//
// Differs: the first pauses are shorter than the original's, and no connection
// without a byte is made before the real one (aioconnectors core.py).
func (d *Dialer) Run(ctx context.Context, up func(ctx context.Context, c *Conn) error) error {
	if d.err != nil {
		return d.err
	}
	defer d.setState(StateWaiting)
	log := dialLog{log: d.o.Log, addr: d.o.Config.ServerAddr.String()}
	bound := minPause
	atOnce := false // this attempt is one without a pause
	for ctx.Err() == nil {
		d.setState(StateConnecting)
		c, err := d.connect(ctx)
		if err == nil {
			log.reached()
			began := time.Now()
			d.upAt.Store(&began)
			d.setState(StateUp)
			err = up(ctx, c)
			c.Close()
			select {
			case <-d.kick: // was for what has just ended
			default:
			}
			short := time.Since(began) < goodLife
			if !short {
				bound = minPause
			}
			if ctx.Err() == nil {
				log.ended(short, err)
				if d.setFailure(fmt.Errorf("the connection ended: %w", err)); short {
					d.setFailure(fmt.Errorf("the server ends the connection soon, its log says why: %w", err))
				}
			}
			d.alternate(short)
		} else if errors.Is(err, errStored) {
			d.o.Log.Info("certificate or token got and stored", "addr", log.addr)
			d.alternate(false)
			// Once: a server that gives out and does not take is no reason to hurry.
			if atOnce = !atOnce; atOnce {
				continue
			}
		} else if ctx.Err() == nil {
			log.failed(err)
			d.setFailure(errors.Unwrap(err))
			d.alternate(errors.As(err, new(*refusedError)))
		}
		atOnce = false
		if !d.o.Config.TryReconnect && ctx.Err() == nil {
			return err
		}
		d.setState(StateWaiting)
		if d.wait(ctx, d.jitter(bound)) {
			bound = minPause
		} else {
			bound = min(2*bound, maxPause)
		}
	}
	return ctx.Err()
}

// alternate decides, with alternate_client_default_cert, whether the next attempt
// is made as a client that has no certificate or token of its own: after each one
// that was refused as it seems, the other way.
func (d *Dialer) alternate(refused bool) {
	d.useDefault = refused && !d.useDefault && d.o.Config.AlternateDefaultCert
}

// wait waits for a pause to end and tells whether it was kicked out of it.
func (d *Dialer) wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-d.kick:
		return true
	}
	return false
}

// dialLog says in few lines how the attempts go.
type dialLog struct {
	log  *slog.Logger
	addr string

	failures int       // since the server was reached
	what     string    // the kind of the last one that was logged
	logged   time.Time // when that was
	since    time.Time // of the first of them
	remind   time.Duration
	next     time.Time // when to mention it again
	short    int       // connections in a row that did not live long
}

// failed is called after a failed attempt.
func (l *dialLog) failed(err error) {
	now := time.Now()
	l.failures++
	what, still := "server not reachable", "server still not reachable"
	switch {
	case errors.As(err, new(*localError)):
		what, still = "not connecting, for a reason on this host", "still not connecting, for a reason on this host"
	case errors.As(err, new(*proxyError)):
		what, still = "proxy makes no connection", "proxy still makes no connection"
	case errors.As(err, new(*refusedError)):
		what, still = "server refuses this client", "server still refuses this client"
	case errors.As(err, new(*distrustError)):
		what, still = "server is not trusted", "server is still not trusted"
	}
	switch {
	case l.failures == 1:
		l.since, l.remind, l.next = now, minRemind, now.Add(minRemind)
		l.log.Warn(what+", trying on", "addr", l.addr, "err", err)
	case what != l.what && now.Sub(l.logged) >= minNews:
		l.log.Warn(what+", trying on", "addr", l.addr, "err", err, "n", l.failures)
	case !now.Before(l.next):
		l.remind = min(2*l.remind, maxRemind)
		l.next = now.Add(l.remind)
		l.log.Warn(still+", trying on", "addr", l.addr, "err", err,
			"n", l.failures, "wait", now.Sub(l.since).Round(time.Second))
	default:
		l.log.Debug(what, "addr", l.addr, "err", err, "n", l.failures)
		return
	}
	l.what, l.logged = what, now
}

// reached is called when a connection is up.
func (l *dialLog) reached() {
	if l.failures > 0 {
		l.log.Info("server reached again", "addr", l.addr, "n", l.failures,
			"wait", time.Since(l.since).Round(time.Millisecond))
	}
	l.failures = 0
}

// ended is called after a connection.
func (l *dialLog) ended(short bool, err error) {
	l.log.Debug("connection ended", "addr", l.addr, "err", err)
	if !short {
		l.short = 0
		return
	}
	l.short++
	if l.short == manyShort {
		l.log.Warn("server ends each connection soon, trying on: its log says why; use_ssl, ssl_allow_all and use_token must be alike at both ends, and the name and certificate be known and allowed there and not used by another client",
			"addr", l.addr, "n", l.short)
	}
}
