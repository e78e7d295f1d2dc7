package link

import (
	"fmt"
	"time"

	"aioc/lib/wire"
)

// keepAlive is the state of the pings that watch the other end.
type keepAlive struct {
	asked  bool // a ping is not answered yet
	misses int  // in a row
}

// begin announces the extensions and starts the timers.
func (l *Link) begin() {
	switch {
	case l.opt.Announced:
	case l.opt.Extensions == nil:
		l.decide(nil)
	default:
		l.after(timerDecide, decideAfter, func() {
			l.mu.Lock()
			decided := l.decided
			l.mu.Unlock()
			if !decided {
				l.decide(nil)
			}
		})
		if l.opt.Dialled {
			_ = l.Send([]wire.Edit{
				{Key: "await_response", Value: []byte("true")},
				{Key: "request_id", Value: []byte(`"` + wire.AnnounceID + `"`)},
				{Key: "message_type", Value: []byte(`"` + wire.TypePing + `"`)},
				{Key: "aioc", Value: extensions(l.opt.Extensions)},
			}, nil, nil)
		}
	}
	if l.opt.Nudge {
		l.after(timerNudge, nudgeEvery, l.nudge)
	}
	if l.opt.KeepAlive > 0 {
		l.after(timerAlive, l.opt.KeepAlive, l.ping)
	}
}

// Timers of a link, by what they are for.
const (
	timerDecide = iota
	timerNudge
	timerAlive
	timerAck
)

// after runs f in d unless the link has ended.
func (l *Link) after(timer int, d time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.afterLocked(timer, d, f)
}

func (l *Link) afterLocked(timer int, d time.Duration, f func()) {
	if l.closing {
		return
	}
	l.side.Add(1)
	l.timers[timer] = time.AfterFunc(d, func() {
		defer l.side.Done()
		f()
	})
}

// stopTimer reports whether it kept a timer from running. mu is held.
func (l *Link) stopTimer(timer int) bool {
	t := l.timers[timer]
	if t == nil || !t.Stop() {
		return false
	}
	l.side.Done()
	return true
}

// nudge sends an answer to a keep-alive ping that nobody sent. A Python client
// over TLS (3.11 and later) stops writing after each of its messages until it
// reads something; it takes this frame in silence.
func (l *Link) nudge() {
	if l.acks.Load() {
		return
	}
	if l.Send([]wire.Edit{
		{Key: "message_type", Value: []byte(`"` + wire.TypePing + `"`)},
		{Key: "response_id", Value: []byte(`"` + wire.KeepAliveID + `"`)},
	}, []byte(wire.KeepAliveID), nil) == nil {
		l.after(timerNudge, nudgeEvery, l.nudge)
	}
}

// ping asks whether the other end is alive.
func (l *Link) ping() {
	l.mu.Lock()
	l.alive.asked = true
	l.afterLocked(timerAlive, l.opt.KeepAliveTimeout, l.unanswered)
	l.mu.Unlock()
	_ = l.Send([]wire.Edit{
		{Key: "await_response", Value: []byte("true")},
		{Key: "request_id", Value: []byte(`"` + wire.KeepAliveID + `"`)},
		{Key: "destination_id", Value: wire.AppendString(nil, l.opt.Peer)},
		{Key: "message_type", Value: []byte(`"` + wire.TypePing + `"`)},
	}, []byte(wire.KeepAliveID), nil)
}

// unanswered is called when a ping was not answered in time.
func (l *Link) unanswered() {
	l.mu.Lock()
	if !l.alive.asked { // the answer came at this very moment
		l.mu.Unlock()
		return
	}
	l.alive.asked = false
	l.alive.misses++
	misses := l.alive.misses
	l.mu.Unlock()
	if misses >= l.opt.KeepAliveMisses {
		l.Close(fmt.Errorf("%w: %d times", ErrKeepAlive, misses))
		return
	}
	l.after(timerAlive, l.opt.KeepAlive, l.ping)
}

// keptAlive notes an answer. The next ping comes a period after it, as in
// aioconnectors core.py.
func (l *Link) keptAlive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alive.misses = 0
	if l.alive.asked {
		l.alive.asked = false
		l.stopTimer(timerAlive)
		l.afterLocked(timerAlive, l.opt.KeepAlive, l.ping)
	}
}
