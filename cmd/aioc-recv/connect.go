package main

import (
	"context"
	"time"

	"aioc/lib/api"
)

// respondTimeout is how long a connector may take to take a response.
const respondTimeout = 10 * time.Second

// client is what this program needs of an [api.Client].
type client interface {
	Info() api.Info
	Receiver(api.ReceiveOptions) receiver
	Respond(request api.Request, data []byte) error
	Close() error
}

// receiver is what it needs of an [api.Receiver].
type receiver interface {
	Run(ctx context.Context) error
	Done(n uint64, err error)
}

// connected is an [api.Client] as a client.
type connected struct{ *api.Client }

func (c connected) Receiver(o api.ReceiveOptions) receiver { return c.Client.Receiver(o) }

// Respond answers a request and returns when the connector has taken the
// response: only then the request may be acknowledged, and the program end.
func (c connected) Respond(request api.Request, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), respondTimeout)
	defer cancel()
	return c.Client.Respond(ctx, request, data, nil)
}

// connect finds a running connector and connects to it.
func connect(ctx context.Context, t api.Target) (client, error) {
	c, err := api.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return connected{c}, nil
}
