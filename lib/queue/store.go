package queue

import "aioc/lib/spool"

// Store opens the logs of a queue's lanes.
type Store interface {
	// Durable reports whether messages of a type have to be on disk before they
	// count as taken. The answer for one type is always the same.
	Durable(messageType string) bool
	// Open opens the log of a type, or makes it, with these functions in its
	// options.
	Open(messageType string, state func(dst []byte) []byte, restore func(state []byte), replay func(r spool.Record, acknowledged bool)) (*spool.Log, error)
	// Failed is told of what went wrong with a type's log, and how many
	// messages were lost by it. It must not call the queue.
	Failed(messageType string, lost int, err error)
}

// journal is what a lane needs of its log, which may be a view of one that it
// shares with others.
type journal interface {
	Ack(ranges ...spool.Range) error
	Note(seq uint64, note []byte) error
	Reader(from uint64) *spool.Reader
	Commit(seq uint64) error
	Committed() uint64
	PutState() error
	Stats() spool.Stats
	Close() error
	Remove() error
}

// Epoch tells the messages of one lane, while it lives, from those of any
// other.
type Epoch = [16]byte
