package main

import (
	"context"

	"aioc/lib/api"
)

// client is what this program needs of an [api.Client].
type client interface {
	Info() api.Info
	Receiver(api.ReceiveOptions) receiver
	Respond(request api.Request, data, binary []byte) error
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

// connect finds a running connector and connects to it.
func connect(ctx context.Context, t api.Target) (client, error) {
	c, err := api.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return connected{c}, nil
}
