package chat

import (
	"context"
	"errors"
	"sync"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// errGone is what becomes of frames when the connection ends before they have
// arrived.
var errGone = errors.New("the connection ended")

// item is a frame that is to be sent.
type item struct {
	frame []byte
	owner any         // who may drop it again; nil for nobody
	reply bool        // the other end asked for it
	done  func(error) // called once when it has arrived, or not; may be nil
}

// outbox is what waits for the other end: the link.Source of a chat. What
// people type goes before the pieces of files.
type outbox struct {
	wake func()

	mu       sync.Mutex
	changed  *sync.Cond
	first    []item // texts and answers
	replies  int    // bytes of the answers in first, and some for each
	low      []item // pieces of files, at most lowFrames and about lowBytes
	lowSize  int    // bytes in low
	inFlight []item // taken, in order; finished ones within have no frame
	base     uint64 // number of the frame before inFlight[0]
	closed   bool
	lost     bool // not all had arrived then
}

// What may wait of that which need not go first: enough to keep the link busy.
const (
	lowFrames = 256
	lowBytes  = 1 << 20
)

// What may wait of answers, beside one that may have any size: far more than
// comes together at an end that reads them.
const (
	repliesMax = 4 << 20
	replyCost  = 1 << 10 // of one, however short
)

func newOutbox(wake func()) *outbox {
	o := &outbox{wake: wake}
	o.changed = sync.NewCond(&o.mu)
	return o
}

// put adds a frame that goes first. It does not wait.
func (o *outbox) put(it item) {
	o.mu.Lock()
	closed := o.closed
	if !closed {
		o.first = append(o.first, it)
	} else {
		o.lost = true
	}
	o.mu.Unlock()
	if closed {
		it.finish(errGone)
		return
	}
	o.wake()
}

// putAnswer is put for what the other end asked for. It returns false when too
// much of that waits already.
func (o *outbox) putAnswer(it item) bool {
	it.reply = true
	cost := len(it.frame) + replyCost
	o.mu.Lock()
	full := o.replies > 0 && o.replies+cost > repliesMax
	if !full {
		o.replies += cost
	}
	o.mu.Unlock()
	if !full {
		o.put(it)
	}
	return !full
}

// putLow adds a piece of a file, or of what comes through a pipe. It waits while
// many wait already.
func (o *outbox) putLow(ctx context.Context, it item) error {
	stop := context.AfterFunc(ctx, o.broadcast)
	defer stop()
	o.mu.Lock()
	for (len(o.low) >= lowFrames || o.lowSize >= lowBytes) && !o.closed && ctx.Err() == nil {
		o.changed.Wait()
	}
	err := ctx.Err()
	if o.closed {
		err = errGone
	}
	if err == nil {
		o.low = append(o.low, it)
		o.lowSize += len(it.frame)
	}
	o.mu.Unlock()
	if err == nil {
		o.wake()
	}
	return err
}

// drop forgets the pieces of owner that have not been taken.
func (o *outbox) drop(owner any) {
	o.mu.Lock()
	kept := o.low[:0]
	for _, it := range o.low {
		if it.owner != owner {
			kept = append(kept, it)
			continue
		}
		o.lowSize -= len(it.frame)
	}
	clear(o.low[len(kept):])
	o.low = kept
	o.mu.Unlock()
	o.changed.Broadcast()
}

// waitIdle waits until everything has arrived, as far as the other end says so.
func (o *outbox) waitIdle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, o.broadcast)
	defer stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.first)+len(o.low)+len(o.inFlight) > 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.changed.Wait()
	}
	if o.lost {
		return errGone
	}
	return nil
}

// waiting returns how many frames have not arrived.
func (o *outbox) waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.first) + len(o.low) + len(o.inFlight)
}

// progress returns how many frames have arrived in all.
func (o *outbox) progress() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.base
}

func (o *outbox) broadcast() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed.Broadcast()
}

// finish tells what became of a frame.
func (it *item) finish(err error) {
	if it.done != nil {
		it.done(err)
	}
}

// Take is of link.Source.
func (o *outbox) Take(b *wire.Batch, max, count int) (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.changed.Broadcast()
	for n < count && b.Bytes < max {
		var it item
		switch {
		case len(o.first) > 0:
			it, o.first = shift(o.first)
			if it.reply {
				o.replies -= len(it.frame) + replyCost
			}
		case len(o.low) > 0:
			it, o.low = shift(o.low)
			o.lowSize -= len(it.frame)
		default:
			return n
		}
		b.Add(it.frame, 1)
		o.inFlight = append(o.inFlight, it)
		n++
	}
	return n
}

// shift takes the first of list.
func shift(list []item) (item, []item) {
	it := list[0]
	list[0] = item{}
	return it, list[1:]
}

// Done is of link.Source.
func (o *outbox) Done(n uint64, _ bool) (finished int) {
	o.mu.Lock()
	var over []item
	for o.base < n && len(o.inFlight) > 0 {
		if it := o.inFlight[0]; it.frame != nil {
			over = append(over, it)
		}
		o.inFlight[0] = item{}
		o.inFlight = o.inFlight[1:]
		o.base++
	}
	o.mu.Unlock()
	for _, it := range over {
		it.finish(nil)
	}
	o.broadcast()
	return len(over)
}

// DoneOne is of link.Source.
func (o *outbox) DoneOne(n uint64, err error) bool {
	o.mu.Lock()
	if n <= o.base || n-o.base > uint64(len(o.inFlight)) || o.inFlight[n-o.base-1].frame == nil {
		o.mu.Unlock()
		return false
	}
	it := o.inFlight[n-o.base-1]
	o.inFlight[n-o.base-1] = item{}
	for len(o.inFlight) > 0 && o.inFlight[0].frame == nil {
		o.inFlight = o.inFlight[1:]
		o.base++
	}
	o.mu.Unlock()
	it.finish(err)
	o.broadcast()
	return true
}

// Return is of link.Source. Types are not parked here: nobody announced that.
func (o *outbox) Return(n uint64, _ bool, why *link.Refusal) string {
	o.DoneOne(n, why)
	return ""
}

// Resume is of link.Source.
func (o *outbox) Resume(string) {}

// Close is of link.Source: what has not arrived will not.
func (o *outbox) Close() {
	o.mu.Lock()
	o.closed = true
	var rest []item
	for _, list := range [][]item{o.inFlight, o.first, o.low} {
		for _, it := range list {
			if it.frame != nil {
				rest = append(rest, it)
			}
		}
	}
	o.inFlight, o.first, o.low, o.lowSize = nil, nil, nil, 0
	o.lost = o.lost || len(rest) > 0
	o.mu.Unlock()
	for _, it := range rest {
		it.finish(errGone)
	}
	o.broadcast()
}
