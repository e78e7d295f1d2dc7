package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"aioc/lib/control"
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

// Request sends a message and waits for its response, until ctx ends. Type
// _ping asks the peer's connector itself.
func (c *Client) Request(ctx context.Context, messageType, destination string, data, bin []byte) (Message, error) {
	got := make(chan Message, 1)
	s := c.Sender(SendOptions{Responses: func(f *wire.Frame) error {
		select {
		case got <- Message{append([]byte(nil), f.Header.Raw...), append([]byte(nil), f.Data...), append([]byte(nil), f.Binary...)}:
		default: // a second response to one request
		}
		return nil
	}})
	defer s.Close()
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails
	edits := []wire.Edit{
		{Key: "request_id", Value: wire.AppendString(nil, hex.EncodeToString(random[:]))},
		{Key: "await_response", Value: []byte("true")},
	}
	if len(bin) > 0 {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	}
	if err := s.Put(wire.AppendEdited(nil, c.Header(messageType, destination), edits...), data, bin); err != nil {
		return Message{}, err
	}
	if _, err := s.Finish(ctx); err != nil {
		return Message{}, err
	}
	select {
	case m := <-got:
		var h wire.Header
		if err := h.Parse(m.Header); err != nil {
			return m, err
		}
		if h.Error != nil {
			return m, fmt.Errorf("%w: %s", ErrNoAnswer, h.Error)
		}
		return m, nil
	case <-s.ended:
		return Message{}, ErrLost
	case <-ctx.Done():
		return Message{}, ctx.Err()
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

// Call runs a command of the connector and returns its result as JSON. The
// commands of a Python connector answer with a text, which comes as a JSON
// string.
func (c *Client) Call(ctx context.Context, command string, kwargs map[string]any) (json.RawMessage, error) {
	text, err := control.Call(ctx, c.paths.CommanderSocket, command, kwargs)
	if err != nil {
		if absent(err) {
			return nil, fmt.Errorf("%w: %w", ErrNoConnector, err)
		}
		return nil, err
	}
	return json.Marshal(text)
}
