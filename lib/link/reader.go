package link

import (
	"fmt"
	"strconv"

	"aioc/lib/wire"
)

// kind is what the reader does with a frame.
type kind uint8

const (
	message kind = iota // numbered, for the handler
	control             // for the handler
	ack
	nack
	parked
	resume
	ping
)

func classify(h *wire.Header) kind {
	if len(h.Type) == 0 || h.Type[0] != '_' {
		return message
	}
	switch string(h.Type) {
	case wire.TypeAck:
		return ack
	case wire.TypeNack:
		return nack
	case wire.TypeParked:
		return parked
	case wire.TypeResume:
		return resume
	case wire.TypePing:
		return ping
	case wire.TypeConsume, wire.TypeEmpty, wire.TypeCall, wire.TypeStream, wire.TypeSubscribe,
		wire.TypeFile, wire.TypeChunk, wire.TypeFileAck,
		wire.TypeHelloPlain, wire.TypeHelloTLS, wire.TypeSSL, wire.TypeToken:
		return control
	}
	return message
}

// read runs until the connection ends.
func (l *Link) read() error {
	var f wire.Frame
	for first := true; ; first = false {
		if !l.r.Ready() {
			if err := l.opt.Handler.Flush(); err != nil {
				return err
			}
			l.Acknowledge()
			l.throttle()
		}
		if err := l.r.Next(&f); err != nil {
			if flushErr := l.opt.Handler.Flush(); flushErr != nil {
				return flushErr
			}
			return ended(err)
		}
		if !f.Same {
			l.kind = classify(f.Header)
			switch {
			case l.kind == ping && l.opt.PassPings && !announces(f.Header):
				l.kind = message
			case l.kind == message && l.opt.Responses:
				l.kind = control
			}
		}
		if first && !l.opt.Dialled && !announces(f.Header) {
			l.decide(nil) // an end that has extensions announces them first
		}
		if l.kind != ack && l.kind != nack && l.acks.Load() && l.over() {
			l.skipped = true
			continue // it will be sent again, on another link
		}
		if f.TooBig > 0 {
			if err := l.tooBig(&f); err != nil {
				return err
			}
			continue
		}
		if l.kind == message {
			l.mu.Lock()
			l.seen++
			l.ackBytes += len(f.Raw)
			n := l.seen
			refused := len(l.refusing) > 0 && l.refuseParked(n, f.Header.Type)
			l.mu.Unlock()
			if refused {
				l.skipped = true
				l.signal()
				continue
			}
			f.Same = f.Same && !l.skipped
			l.skipped = false
			if err := l.opt.Handler.Frame(n, &f); err != nil {
				return err
			}
			continue
		}
		if l.kind == parked {
			// What came before it is still refused.
			if err := l.opt.Handler.Flush(); err != nil {
				return err
			}
		}
		if err := l.own(&f); err != nil {
			return err
		}
	}
}

// tooBig refuses a message above the reader's limit. The handler sees nothing
// of it.
func (l *Link) tooBig(f *wire.Frame) error {
	switch l.kind {
	case message:
	case ping:
		l.log.Debug("big ping ignored", "bytes", f.TooBig)
		return nil // nobody waits for more than its time
	default:
		return fmt.Errorf("%w: %s of %d bytes", wire.ErrTooBig, f.Header.Type, f.TooBig)
	}
	l.skipped = true
	l.mu.Lock()
	l.seen++
	l.nack(l.seen, &Refusal{Reason: "size", Text: fmt.Sprintf("message of %d bytes is larger than max_message_size", f.TooBig)}, false)
	l.mu.Unlock()
	l.signal()
	if l.opt.TooBig != nil {
		l.opt.TooBig(f)
	}
	return nil
}

// own handles the frames that are not messages.
func (l *Link) own(f *wire.Frame) error {
	h := f.Header
	switch l.kind {
	case control:
		return l.opt.Handler.Frame(0, f)
	case ack:
		if h.AckTo > 0 {
			return l.acknowledged(h.AckTo)
		}
		if n, err := strconv.ParseUint(string(h.TransportID), 10, 64); err == nil {
			l.acknowledgedOne(n)
			return nil
		}
		if l.opt.Acked != nil {
			l.opt.Acked(h.TransportID)
			return nil
		}
		l.log.Debug("unknown acknowledgement", "id", string(h.TransportID))
		return nil
	case nack:
		if h.TransportID == nil {
			return l.opt.Handler.Frame(0, f) // refuses something else than a frame
		}
		return l.refused(f)
	case parked:
		l.othersParked(string(f.Data))
		return nil
	case resume:
		typ := string(f.Data)
		l.mu.Lock()
		delete(l.parked, typ)
		l.mu.Unlock()
		if s := l.source.Load(); s != nil {
			(*s).Resume(typ)
		}
		return nil
	case ping:
		return l.pinged(f)
	}
	return fmt.Errorf("%w: frame of type %q", ErrProtocol, h.Type)
}

// announces reports whether a frame announces extensions.
func announces(h *wire.Header) bool {
	id, _ := wire.Text(h.RequestID)
	return id == wire.AnnounceID && h.Extensions != nil && h.AwaitResponse
}

// pinged answers a ping, or takes an answer.
func (l *Link) pinged(f *wire.Frame) error {
	h := f.Header
	if h.AwaitResponse {
		if h.RequestID == nil {
			l.log.Debug("ping without request_id ignored")
			return nil
		}
		if len(f.Raw) > PingMax {
			return fmt.Errorf("%w: ping of %d bytes, at most %d", ErrProtocol, len(f.Raw), PingMax)
		}
		reply := []wire.Edit{
			{Key: "message_type", Value: []byte(`"` + wire.TypePing + `"`)},
			{Key: "response_id", Value: append([]byte(nil), h.RequestID...)},
		}
		data := f.Data
		if announces(h) && !l.opt.Dialled && l.opt.Extensions != nil {
			reply = append(reply, wire.Edit{Key: "aioc", Value: extensions(l.opt.Extensions)})
			if l.opt.Info != nil {
				data = l.opt.Info()
			}
			l.decide(f)
		}
		// Differs: a binary comes back with with_binary, so that it arrives.
		if len(f.Binary) > 0 {
			reply = append(reply, wire.Edit{Key: "with_binary", Value: []byte("true")})
		}
		bin := f.Binary
		if len(bin) == 0 {
			bin = nil
		}
		return l.Send(reply, data, bin)
	}
	switch id, _ := wire.Text(h.ResponseID); {
	case id == wire.KeepAliveID:
		l.keptAlive()
		return nil
	case id == wire.AnnounceID && l.opt.Dialled && l.opt.Extensions != nil:
		l.decide(f)
		return nil
	}
	return l.opt.Handler.Frame(0, f)
}

// extensions is the JSON array of names.
func extensions(names []string) []byte {
	b := []byte{'['}
	for i, name := range names {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = wire.AppendString(b, name)
	}
	return append(b, ']')
}
