package connector

import (
	"errors"
	"log/slog"

	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/wire"
)

// What a local program is told of the messages that it sends.

// tooLate does not take message n now, for which all was prepared.
func (in *intake) tooLate(n uint64, h *decision, key waitKey, why *link.Refusal) error {
	in.notNow(n, h, why)
	if h.ack && in.native && in.l.Acks() {
		in.l.Settle(n, nil) // ends the hold; the refusal has gone out
	}
	if h.await {
		in.c.waiters.withdraw(key, in.l)
		if !in.native {
			return errAbsent
		}
	}
	return nil
}

// note returns the note of a message whose sender learns when the peer has it,
// or that the peer refuses its request. It is one of those that asked counts.
func (in *intake) note(n uint64, h *decision, key waitKey) *queue.Note {
	var tell func(error)
	l := in.l
	switch {
	case h.ack && in.native && l.Acks():
		l.Hold(n)
		tell = func(err error) {
			if err != nil && !errors.As(err, new(*link.Refusal)) {
				err = &link.Refusal{Reason: "closed", Text: err.Error()}
			}
			l.Settle(n, err)
		}
	case h.ack && h.answer != nil:
		how := *h
		tell = func(err error) { in.answered(&how, err) }
	case !h.ack && !h.await:
		return nil
	}
	note := &queue.Note{WaitForAck: h.ack, Done: tell}
	if h.await {
		note.Done = func(err error) {
			var why *link.Refusal
			if errors.As(err, &why) && in.c.waiters.withdraw(key, l) {
				failResponse(l, key, "refused: "+why.Text)
			}
			if tell != nil {
				tell(err)
			}
		}
	}
	done := note.Done
	note.Done = func(err error) {
		in.c.asked.done()
		if done != nil {
			done(err)
		}
	}
	return note
}

// answered sends the _ack or _nack that a transport_id asks for.
func (in *intake) answered(h *decision, err error) {
	if h.answer == nil {
		return
	}
	edits := []wire.Edit{{Key: "transport_id", Value: h.answer}}
	if err == nil {
		edits = append(edits, wire.Edit{Key: "message_type", Value: []byte(`"` + wire.TypeAck + `"`)})
	} else {
		reason := "closed"
		var why *link.Refusal
		if errors.As(err, &why) {
			reason = why.Reason
		}
		edits = append(edits,
			wire.Edit{Key: "message_type", Value: []byte(`"` + wire.TypeNack + `"`)},
			wire.Edit{Key: "reason", Value: wire.AppendString(nil, reason)},
			wire.Edit{Key: "error", Value: wire.AppendString(nil, err.Error())})
	}
	_ = in.l.Send(edits, nil, nil)
}

// refuse does not take message n, for good.
func (in *intake) refuse(n uint64, h *decision, why *link.Refusal) {
	in.l.Refuse(n, why)
	in.answered(h, why)
	if !in.native {
		in.c.drop("send: "+why.Reason, "local program", h.typ, 1, slog.String("err", why.Text))
	}
}

// notTaken does not take message n: not now if that may help, else for good.
func (in *intake) notTaken(n uint64, h *decision, why *link.Refusal) {
	if why.Reason == "full" || why.Reason == "stopped" {
		in.notNow(n, h, why)
		return
	}
	in.refuse(n, h, why)
}

// notNow does not take message n now, nor those of its type that follow it on
// the way, so that their order is kept when they are sent again.
func (in *intake) notNow(n uint64, h *decision, why *link.Refusal) {
	in.l.Park(n, h.typ, why)
	in.l.Room(h.typ) // there is nothing to wait for here: the program decides
	in.answered(h, why)
	if !in.native {
		in.c.drop("send: "+why.Reason, "local program", h.typ, 1, slog.String("err", why.Text))
	}
}
