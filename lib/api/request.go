package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"aioc/lib/wire"
)

// Message is a message that was received.
type Message struct {
	Header []byte // JSON text
	Data   []byte
	Binary []byte // nil without one
}

// Request is what a response needs to know of its request.
type Request struct {
	Type      string // message_type
	Source    string // source_id
	RequestID []byte // JSON text
}

// RequestOf returns the request that a message is; ok is false when it is not
// one. The frame may be gone afterwards.
func RequestOf(f *wire.Frame) (req Request, ok bool) {
	h := f.Header
	return Request{string(h.Type), string(h.Source), append([]byte(nil), h.RequestID...)}, h.AwaitResponse && h.RequestID != nil
}

// ErrNoAnswer is wrapped when the peer went away before it answered.
var ErrNoAnswer = errors.New("peer disconnected before it answered")

// ErrDeclined is wrapped when the peer refused the request, for instance because
// it does not receive the type.
var ErrDeclined = errors.New("the peer refused the request")

// asker is the connection on which a Client's requests wait for responses.
type asker struct {
	mu      sync.Mutex
	sender  *Sender
	old     []*Sender // refused a message, so that no more can be put
	prefix  string    // of request ids
	last    uint64
	waiting map[string]chan Message
}

// Request sends a message and waits for its response, until ctx ends. Type
// _ping asks the peer's connector itself. Many may wait at once.
func (c *Client) Request(ctx context.Context, messageType, destination string, data, bin []byte) (Message, error) {
	id, got, s := c.asker.begin(c)
	defer c.asker.end(id)
	edits := []wire.Edit{
		{Key: "request_id", Value: wire.AppendString(nil, id)},
		{Key: "await_response", Value: []byte("true")},
	}
	if len(bin) > 0 {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	}
	n, err := s.put(wire.AppendEdited(nil, c.Header(messageType, destination), edits...), data, bin, nil)
	if err != nil {
		return Message{}, err
	}
	s.link.Wake()
	for {
		refused, changed := s.fate(n)
		if refused != nil {
			return Message{}, refused
		}
		select {
		case m := <-got:
			return answered(m)
		case <-changed:
			continue
		case <-s.ended:
			err = ErrLost
		case <-ctx.Done():
			err = ctx.Err()
		}
		select {
		case m := <-got: // it came first
			return answered(m)
		default:
			return Message{}, err
		}
	}
}

// answered returns a response, or the error that the connector made it of.
func answered(m Message) (Message, error) {
	var h wire.Header
	if err := h.Parse(m.Header); err != nil {
		return m, err
	}
	switch why := string(h.Error); {
	case h.Error == nil:
		return m, nil
	case why == "disconnected_during_wait":
		return m, fmt.Errorf("%w: %s", ErrNoAnswer, why)
	default:
		return m, fmt.Errorf("%w: %s", ErrDeclined, strings.TrimPrefix(why, "refused: "))
	}
}

// begin returns a new request id, where its response will come, and the sender
// to use.
func (a *asker) begin(c *Client) (id string, got chan Message, s *Sender) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sender == nil || a.sender.broken() {
		if a.sender != nil {
			a.old = append(a.old, a.sender) // others may wait on it
		}
		var random [12]byte
		_, _ = rand.Read(random[:]) // never fails
		a.prefix = hex.EncodeToString(random[:])
		a.sender = c.Sender(SendOptions{Responses: a.arrived})
	}
	a.last++
	id = fmt.Sprintf("%s%08x", a.prefix, a.last)
	got = make(chan Message, 1)
	if a.waiting == nil {
		a.waiting = map[string]chan Message{}
	}
	a.waiting[id] = got
	return id, got, a.sender
}

func (a *asker) end(id string) {
	a.mu.Lock()
	delete(a.waiting, id)
	var old []*Sender
	if len(a.waiting) == 0 {
		old, a.old = a.old, nil
	}
	a.mu.Unlock()
	for _, s := range old {
		s.Close()
	}
}

// arrived hands a response to the request that waits for it.
func (a *asker) arrived(f *wire.Frame) error {
	id, _ := wire.Text(f.Header.ResponseID)
	a.mu.Lock()
	got := a.waiting[id]
	delete(a.waiting, id) // a second response to one request goes nowhere
	a.mu.Unlock()
	if got != nil {
		got <- Message{bytes.Clone(f.Header.Raw), bytes.Clone(f.Data), bytes.Clone(f.Binary)}
	}
	return nil
}

func (a *asker) close() {
	a.mu.Lock()
	all := a.old
	if a.sender != nil {
		all = append(all, a.sender)
	}
	a.sender, a.old = nil, nil
	a.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
}

// Respond answers a request. It returns when the connector has taken the
// response, or ctx ends.
func (c *Client) Respond(ctx context.Context, req Request, data, bin []byte) error {
	edits := []wire.Edit{{Key: "response_id", Value: req.RequestID}}
	if len(bin) > 0 {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	}
	header := wire.AppendEdited(nil, c.Header(req.Type, req.Source), edits...)
	c.responding.Lock()
	defer c.responding.Unlock()
	var err error
	for range 2 {
		if c.responder == nil {
			c.responder = c.Sender(SendOptions{})
		}
		if err = c.responder.Put(header, data, bin); err == nil {
			if _, err = c.responder.Taken(ctx); err == nil {
				return nil
			}
		}
		c.responder.Close()
		c.responder = nil
		if !errors.Is(err, ErrLost) {
			return err
		}
		// The connector was restarted since the last one: once more, anew.
	}
	return err
}
