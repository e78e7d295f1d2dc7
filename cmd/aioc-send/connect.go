package main

import (
	"context"
	"os"

	"aioc/lib/api"
)

// client is what this program needs of an [api.Client].
type client interface {
	Info() api.Info
	Sender(api.SendOptions) sender
	Close() error
}

// sender is what it needs of an [api.Sender].
type sender interface {
	Put(header, data, binary []byte) error
	PutFile(header, data, binary []byte, f *os.File) error
	Flush() error
	Finish(ctx context.Context) (taken int, err error)
	Ended() <-chan struct{}
	Close()
}

// connected is an [api.Client] as a client.
type connected struct{ *api.Client }

func (c connected) Sender(o api.SendOptions) sender { return c.Client.Sender(o) }

// connect finds a running connector and connects to it.
func connect(ctx context.Context, t api.Target) (client, error) {
	c, err := api.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	return connected{c}, nil
}
