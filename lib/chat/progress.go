package chat

import (
	"sync/atomic"
	"time"

	"aioc/lib/cli"
)

// transfer is how far a file is, for people to see.
type transfer struct {
	name  string
	size  int64 // -1 when it is not known
	out   bool
	began time.Time
	done  atomic.Int64
}

func newTransfer(name string, size int64, out bool) *transfer {
	return &transfer{name: name, size: size, out: out, began: time.Now()}
}

// took says how long it took, unless that was next to nothing.
func (t *transfer) took() string {
	d := time.Since(t.began)
	if d < time.Second {
		return ""
	}
	return " in " + cli.Clock(d)
}

// bar draws how far a transfer is, in at most width columns.
func (t *transfer) bar(now time.Time, width int) string {
	p := cli.Progress{Verb: "receiving", Name: safe(t.name), Size: t.size, Done: t.done.Load(), Spent: now.Sub(t.began)}
	if t.out {
		p.Verb = "sending"
	}
	return p.Line(width)
}

// bytesText writes a number of bytes for people.
func bytesText(n int64) string { return cli.Bytes(n) }
