package link

import (
	"fmt"
	"strconv"

	"aioc/lib/wire"
)

// acknowledged handles an _ack of all frames up to n.
func (l *Link) acknowledged(n uint64) error {
	l.mu.Lock()
	if n > l.taken {
		l.mu.Unlock()
		return fmt.Errorf("%w: frame %d acknowledged, %d sent", ErrProtocol, n, l.taken)
	}
	// The bytes of a frame must stay until the write has returned.
	if n > l.written {
		l.ackLate = max(l.ackLate, n)
		n = l.written
	}
	l.mu.Unlock()
	l.finish(n, true)
	l.Wake()
	return nil
}

// acknowledgedOne handles an _ack of one frame, or its refusal for good.
func (l *Link) acknowledgedOne(n uint64, err error) error {
	l.mu.Lock()
	if n > l.written {
		if n <= l.taken {
			l.oneLate = append(l.oneLate, oneAck{n, err})
		}
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	l.finishOne(n, err)
	l.Wake()
	return nil
}

func (l *Link) finishOne(n uint64, err error) {
	if s := l.source.Load(); s != nil && (*s).DoneOne(n, err) {
		l.mu.Lock()
		l.inFlight--
		l.mu.Unlock()
	}
}

// refused handles a _nack. A frame refused for now goes back to the source and
// its type is parked; one refused for good is finished with the reason.
func (l *Link) refused(f *wire.Frame) error {
	h := f.Header
	n, err := strconv.ParseUint(string(h.TransportID), 10, 64)
	if err != nil {
		return fmt.Errorf("%w: _nack without transport_id", ErrProtocol)
	}
	count, err := strconv.ParseUint(string(h.Field("count")), 10, 64)
	if err != nil {
		count = 1
	}
	reason, _ := wire.Text(h.Field("reason"))
	why := &Refusal{Reason: reason, Text: string(h.Error)}
	l.mu.Lock()
	sent := l.taken
	l.mu.Unlock()
	if n > sent {
		return fmt.Errorf("%w: frame %d refused, %d sent", ErrProtocol, n, sent)
	}
	if string(h.Field("park")) != "true" {
		for end := n + count; n < end && n <= sent; n++ {
			if err := l.acknowledgedOne(n, why); err != nil {
				return err
			}
		}
		return nil
	}
	s := l.source.Load()
	if s == nil {
		return nil
	}
	typ, returned := "", 0
	for end := n + count; n < end && n <= sent; n++ {
		if t := (*s).Return(n, true, why); t != "" {
			typ = t
			returned++
		}
	}
	if typ == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight -= returned
	if l.parked[typ] {
		return nil
	}
	if l.parked == nil {
		l.parked = map[string]bool{}
	}
	l.parked[typ] = true
	l.log.Debug("type parked by the other end", "type", typ, "reason", reason)
	return l.queueOwn(wire.TypeParked, nil, typ)
}

// queueOwn queues a frame of the given type. mu is held.
func (l *Link) queueOwn(typ string, more []wire.Edit, data string) error {
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
	for i := range l.holds {
		if l.holds[i].n == n && !l.holds[i].settled {
			l.holds[i].settled = true
			switch refusal, ok := err.(*Refusal); {
			case ok:
				l.nack(n, refusal, false)
			case err != nil:
				l.nack(n, &Refusal{Reason: "back", Text: err.Error()}, true)
			case i > 0 && l.acks.Load():
				// Later ones need not wait for this to be known.
				_ = l.queueOwn(wire.TypeAck, []wire.Edit{{Key: "transport_id", Value: strconv.AppendUint(nil, n, 10)}}, "")
			}
			break
		}
	}
	k := 0
	for k < len(l.holds) && l.holds[k].settled {
		k++
	}
	if k > 0 {
		l.holds = append(l.holds[:0], l.holds[k:]...)
		l.settleLocked()
	}
	l.Wake()
}

// Refuse answers that message n is not taken, for good, and settles it.
func (l *Link) Refuse(n uint64, why *Refusal) {
	l.mu.Lock()
	l.nack(n, why, false)
	l.mu.Unlock()
	l.Wake()
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
	l.Wake()
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
	if r := l.refusing[messageType]; r != nil {
		r.answered = true
		l.unpark(messageType, r)
	}
}

func (l *Link) unpark(messageType string, r *refuse) {
	if r.answered && r.room {
		delete(l.refusing, messageType)
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
	if r.park {
		edits = append(edits, wire.Edit{Key: "park", Value: []byte("true")})
	}
	_ = l.queueOwn(wire.TypeNack, edits, "")
}

// Acknowledge lets the writer acknowledge all messages that the handler was
// given and has neither held nor refused, as the link does after each Flush.
func (l *Link) Acknowledge() {
	l.mu.Lock()
	l.settleLocked()
	l.mu.Unlock()
}

func (l *Link) settleLocked() {
	if !l.acks.Load() {
		return
	}
	n := l.seen
	if len(l.holds) > 0 {
		n = l.holds[0].n - 1
	}
	if n > l.ackDue {
		l.ackDue = n
		l.Wake()
	}
}
