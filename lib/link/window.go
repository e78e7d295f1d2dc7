package link

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"aioc/lib/wire"
)

// late is what the other end said of frames while their write had not returned:
// until then their bytes must stay.
type late struct {
	upTo uint64             // all up to here are acknowledged
	one  map[uint64]outcome // the first word on each frame counts
}

// outcome is what became of one frame.
type outcome struct {
	err  error    // nil: acknowledged
	back *Refusal // set: given back, for this reason
}

// acknowledged handles an _ack of all frames up to n.
func (l *Link) acknowledged(n uint64) error {
	l.settling.Lock()
	defer l.settling.Unlock()
	l.mu.Lock()
	if n > l.taken {
		l.mu.Unlock()
		return fmt.Errorf("%w: frame %d acknowledged, %d sent", ErrProtocol, n, l.taken)
	}
	if n > l.written {
		l.late.upTo = max(l.late.upTo, n)
		n = l.written
	}
	l.mu.Unlock()
	l.finish(n, true)
	l.opened()
	return nil
}

// opened makes the writer look if it found the window closed.
func (l *Link) opened() {
	l.mu.Lock()
	closed := l.shut
	l.shut = false
	l.mu.Unlock()
	if closed {
		l.signal()
	}
}

// acknowledgedOne handles an _ack of one frame.
func (l *Link) acknowledgedOne(n uint64) {
	l.settling.Lock()
	defer l.settling.Unlock()
	l.settleOne(n, outcome{})
	l.opened()
}

// settleOne tells the source what became of frame n, or notes it when the frame
// is still being written. settling is held.
func (l *Link) settleOne(n uint64, o outcome) {
	l.mu.Lock()
	if n > l.written {
		_, known := l.late.one[n]
		if n <= l.taken && n > l.late.upTo && !known {
			if l.late.one == nil {
				l.late.one = map[uint64]outcome{}
			}
			l.late.one[n] = o
		}
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	s := l.source.Load()
	switch {
	case s == nil:
	case o.back != nil:
		if typ := (*s).Return(n, true, o.back); typ != "" {
			l.returned(typ, o.back)
		}
	case (*s).DoneOne(n, o.err):
		l.mu.Lock()
		l.inFlight--
		l.mu.Unlock()
	}
}

// settleBatch ends the batch in hand, whose bytes nobody reads any more: the
// source hears what was said of it meanwhile. settling is held.
func (l *Link) settleBatch() {
	l.mu.Lock()
	l.written = l.taken
	said := l.late
	l.late = late{}
	l.mu.Unlock()
	if len(said.one) > 0 {
		for _, n := range slices.Sorted(maps.Keys(said.one)) {
			l.settleOne(n, said.one[n])
		}
	}
	l.finish(said.upTo, true)
}

// returned accounts for a frame that the source has taken back. The first of a
// type parks that type.
func (l *Link) returned(typ string, why *Refusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if l.parked[typ] {
		return
	}
	if l.parked == nil {
		l.parked = map[string]bool{}
	}
	l.parked[typ] = true
	l.log.Debug("type parked by the other end", "type", typ, "reason", why.Reason)
	_ = l.queueOwn(wire.TypeParked, nil, typ)
}

// refused handles a _nack. Frames refused for now go back to the source and
// their type is parked; one refused for good is finished with the reason.
func (l *Link) refused(f *wire.Frame) error {
	h := f.Header
	n, err := strconv.ParseUint(string(h.TransportID), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: _nack of no frame", ErrProtocol)
	}
	reason, _ := wire.Text(h.Field("reason"))
	why := &Refusal{Reason: Clip(reason), Text: Clip(string(h.Error)), Tries: small(h.Field("tries"))}
	why.Delay = time.Duration(small(h.Field("delay"))) * time.Millisecond
	park := string(h.Field("park")) == "true"
	count := uint64(1)
	if c, err := strconv.ParseUint(string(h.Field("count")), 10, 64); err == nil {
		count = c
	}
	l.settling.Lock()
	defer l.settling.Unlock()
	l.mu.Lock()
	sent, inFlight := l.taken, l.inFlight
	l.mu.Unlock()
	if n > sent || count > uint64(inFlight) && count > 1 || count > sent-n+1 {
		return fmt.Errorf("%w: %d frames from %d refused, %d sent", ErrProtocol, count, n, sent)
	}
	o := outcome{err: why}
	if park {
		o = outcome{back: why}
	}
	for end := n + count; n < end; n++ {
		l.settleOne(n, o)
	}
	l.signal()
	return nil
}

// small reads a number that fits into 31 bits, 0 if it is none.
func small(text []byte) int {
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil {
		return 0
	}
	return max(int(n), 0)
}

// Clip bounds what is kept of a text of the other end.
func Clip(s string) string {
	if len(s) > textMax {
		s = strings.ToValidUTF8(s[:textMax], "")
	}
	return s
}

// queueOwn queues a frame of the given type. mu is held.
func (l *Link) queueOwn(typ string, more []wire.Edit, data string) error {
	defer l.signal()
	edits := append([]wire.Edit{{Key: "message_type", Value: []byte(`"` + typ + `"`)}}, more...)
	return l.queue(edits, []byte(data), nil)
}

// hold is a received frame that is not settled.
type hold struct {
	n       uint64
	settled bool
}

// refuse is the state of a type that this end has parked.
type refuse struct {
	why      *Refusal
	answered bool // the other end has sent _parked
	room     bool // Room was called
}

// How much may arrive before AckDelay ends early.
const (
	ackFrames = 1024
	ackBytes  = 512 << 10
)

// Hold keeps message n, the current one, from being acknowledged until Settle.
func (l *Link) Hold(n uint64) {
	l.mu.Lock()
	l.holds = append(l.holds, hold{n: n})
	l.mu.Unlock()
}

// Settle ends the holding of message n: with nil it is acknowledged, with a
// *Refusal refused for good, with any other error given back.
func (l *Link) Settle(n uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	open := l.holds[l.gone:]
	i, found := slices.BinarySearchFunc(open, n, func(h hold, n uint64) int { return cmp.Compare(h.n, n) })
	if !found || open[i].settled {
		return
	}
	open[i].settled = true
	switch refusal, ok := err.(*Refusal); {
	case ok:
		l.nack(n, refusal, false)
	case err != nil:
		l.nack(n, &Refusal{Reason: "back", Text: err.Error()}, true)
	case i > 0 && l.acks.Load():
		// Later ones need not wait for this to be known.
		_ = l.queueOwn(wire.TypeAck, []wire.Edit{{Key: "transport_id", Value: strconv.AppendUint(nil, n, 10)}}, "")
	}
	for l.gone < len(l.holds) && l.holds[l.gone].settled {
		l.gone++
	}
	if l.gone > len(l.holds)/2 {
		l.holds = append(l.holds[:0], l.holds[l.gone:]...)
		l.gone = 0
	}
	if i == 0 {
		l.settled()
	}
	l.signal()
}

// Refuse answers that message n is not taken, for good, and settles it.
func (l *Link) Refuse(n uint64, why *Refusal) {
	l.mu.Lock()
	l.nack(n, why, false)
	l.mu.Unlock()
	l.signal()
}

// Park refuses message n for now, and with it, until the sender has answered
// and Room was called, all that follow of its type.
func (l *Link) Park(n uint64, messageType string, why *Refusal) {
	if !l.acks.Load() {
		return // the other end knows nothing of it
	}
	l.mu.Lock()
	if l.refusing == nil {
		l.refusing = map[string]*refuse{}
	}
	r := l.refusing[messageType]
	if r == nil {
		r = &refuse{why: why}
		l.refusing[messageType] = r
	}
	l.nack(n, r.why, true)
	l.mu.Unlock()
	l.signal()
}

// Refusing reports whether the type is parked: what arrives of it, and what of
// it the handler has not put yet, is refused with Park.
func (l *Link) Refusing(messageType string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusing[messageType] != nil
}

// Room tells that a parked type can be sent again.
func (l *Link) Room(messageType string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.refusing[messageType]; r != nil {
		r.room = true
		l.unpark(messageType, r)
	}
}

// othersParked handles _parked.
func (l *Link) othersParked(messageType string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.refusing[messageType]
	if r == nil { // it was parked by a message that Settle gave back
		r = &refuse{room: true}
	}
	r.answered = true
	l.unpark(messageType, r)
}

func (l *Link) unpark(messageType string, r *refuse) {
	if r.answered && r.room {
		delete(l.refusing, messageType)
		l.queueNacks() // those of this type park it once more
		_ = l.queueOwn(wire.TypeResume, nil, messageType)
	}
}

// refuseParked refuses message n if its type is parked. mu is held.
func (l *Link) refuseParked(n uint64, messageType []byte) bool {
	r := l.refusing[string(messageType)]
	if r == nil {
		return false
	}
	l.nack(n, r.why, true)
	return true
}

// nackRun is a run of frames that are refused for the same reason.
type nackRun struct {
	first, count uint64
	why          *Refusal
	park         bool
}

// nack refuses message n. mu is held.
func (l *Link) nack(n uint64, why *Refusal, park bool) {
	if !l.acks.Load() {
		return
	}
	r := &l.nacks
	if r.count > 0 && r.park == park && r.why == why && r.first+r.count == n {
		r.count++
		return
	}
	l.queueNacks()
	*r = nackRun{first: n, count: 1, why: why, park: park}
}

// queueNacks queues the _nack of the run. mu is held.
func (l *Link) queueNacks() {
	r := l.nacks
	if r.count == 0 {
		return
	}
	l.nacks = nackRun{}
	edits := []wire.Edit{
		{Key: "transport_id", Value: strconv.AppendUint(nil, r.first, 10)},
		{Key: "reason", Value: wire.AppendString(nil, r.why.Reason)},
		{Key: "error", Value: wire.AppendString(nil, r.why.Text)},
	}
	if r.count > 1 {
		edits = append(edits, wire.Edit{Key: "count", Value: strconv.AppendUint(nil, r.count, 10)})
	}
	if r.why.Tries > 0 {
		edits = append(edits, wire.Edit{Key: "tries", Value: strconv.AppendInt(nil, int64(r.why.Tries), 10)})
	}
	if r.why.Delay > 0 {
		edits = append(edits, wire.Edit{Key: "delay", Value: strconv.AppendInt(nil, r.why.Delay.Milliseconds(), 10)})
	}
	if r.park {
		edits = append(edits, wire.Edit{Key: "park", Value: []byte("true")})
	}
	_ = l.queueOwn(wire.TypeNack, edits, "")
}

// Acknowledge lets all messages be acknowledged that the handler was given and
// has neither held nor refused, as the link does after each Flush.
func (l *Link) Acknowledge() {
	l.mu.Lock()
	l.flushed = l.seen
	now := l.settled()
	l.mu.Unlock()
	if now {
		l.Wake()
	}
}

// AcknowledgeNow is Acknowledge without AckDelay, for a message whose sender
// waits.
func (l *Link) AcknowledgeNow() {
	l.mu.Lock()
	l.flushed = l.seen
	l.settled()
	l.ackWanted = true
	l.mu.Unlock()
	l.Wake()
}

// settled looks how far messages are settled and reports whether that is to be
// written at once. mu is held.
func (l *Link) settled() (now bool) {
	if !l.acks.Load() {
		return false
	}
	n := l.flushed
	if l.gone < len(l.holds) {
		n = min(n, l.holds[l.gone].n-1)
	}
	if n <= l.ackDue {
		return false
	}
	l.ackDue = n
	if l.opt.AckDelay == 0 || n-l.acked > ackFrames || l.ackBytes > ackBytes {
		l.ackWanted = true
		return true
	}
	if !l.ackTimer {
		l.ackTimer = true
		l.afterLocked(timerAck, l.opt.AckDelay, l.ackNow)
	}
	return false
}

// ackNow ends an AckDelay.
func (l *Link) ackNow() {
	l.mu.Lock()
	l.ackTimer = false
	due := l.ackDue > l.acked
	l.ackWanted = due
	l.mu.Unlock()
	if due {
		l.Wake()
	}
}
