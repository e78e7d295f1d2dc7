package connector

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/wire"
)

// peerFeed gives the messages of an outbox to the link to its peer.
type peerFeed struct {
	*queue.Taker
	chunks  *chunkFeed               // go between the messages
	refused func(why error)          // a message was refused by the peer
	full    func(messageType string) // the peer cannot keep it on its disk now
}

func (f *peerFeed) Take(b *wire.Batch, max, count int) int {
	n := f.Taker.Take(b, max, count)
	f.chunks.take(b)
	return n
}

func (f *peerFeed) DoneOne(n uint64, err error) bool {
	done := f.Taker.DoneOne(n, err)
	if done && err != nil {
		f.refused(err)
	}
	return done
}

func (f *peerFeed) Return(n uint64, park bool, why *link.Refusal) string {
	typ := f.Taker.Return(n, park)
	if typ != "" && why != nil && why.Reason == "disk" {
		f.full(typ)
	}
	return typ
}

// numbered adds the number of a frame as its transport_id, which a peer that
// does not count acknowledges.
func numbered(n uint64, frame []byte) []byte {
	return edited(frame, wire.Edit{Key: "transport_id", Value: strconv.AppendUint(nil, n, 10)})
}

// forOriginal makes a frame one for a peer that has no extensions. asked: it
// is to be acknowledged.
func forOriginal(n uint64, asked bool, frame []byte) []byte {
	var edits []wire.Edit
	if f, err := wire.ParseFrame(frame); err == nil && f.Header.Expires != nil {
		edits = append(edits, wire.Edit{Key: "expires"})
	}
	if asked {
		edits = append(edits, wire.Edit{Key: "transport_id", Value: strconv.AppendUint(nil, n, 10)})
	}
	if edits == nil {
		return frame
	}
	return edited(frame, edits...)
}

// edited returns a frame with edits made to its header.
func edited(frame []byte, edits ...wire.Edit) []byte {
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return frame
	}
	header := wire.AppendEdited(nil, f.Header.Raw, edits...)
	out, err := wire.AppendFrame(nil, header, f.Data, f.Binary)
	if err != nil {
		return frame // the header is full; it goes without
	}
	return out
}

// newPeerFeed returns a feed of a connector with the name id; l is asked, later,
// whether the other end counts, refused is told why a message was not taken, and full of types that the other
// end cannot keep on its disk.
func newPeerFeed(id string, q *queue.Queue, l *lateLink, chunks *chunkFeed, refused func(error), full func(string)) *peerFeed {
	edit := func(n uint64, asked bool, frame []byte) []byte {
		if l.acks() {
			return frame
		}
		return forOriginal(n, asked, frame)
	}
	t := q.Taker(l.wake, edit)
	t.Strict()
	t.Announce(func(messageType string, epoch queue.Epoch, seq uint64) []byte {
		if w := l.get(); w == nil || !w.Dedup() {
			return nil
		}
		return announcement(id, messageType, epoch, seq)
	})
	return &peerFeed{t, chunks, refused, full}
}

// announcement is the frame that tells a peer the number of the next message of
// a type.
func announcement(id, messageType string, epoch queue.Epoch, seq uint64) []byte {
	text, _ := json.Marshal(stream{messageType, hex.EncodeToString(epoch[:]), seq}) // strings always marshal
	header := wire.AppendEdited(nil, []byte("{}"),
		wire.Edit{Key: "message_type", Value: []byte(`"` + wire.TypeStream + `"`)},
		wire.Edit{Key: "source_id", Value: wire.AppendString(nil, id)})
	frame, _ := wire.AppendFrame(nil, header, text, nil) // it is not long
	return frame
}

// stream is the data of a _stream frame.
type stream struct {
	Type  string `json:"type"`
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// lateLink is a link that is made after what it is used by.
type lateLink struct {
	mu sync.Mutex
	l  *link.Link
}

func (w *lateLink) set(l *link.Link) {
	w.mu.Lock()
	w.l = l
	w.mu.Unlock()
}

func (w *lateLink) get() *link.Link {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.l
}

func (w *lateLink) wake() {
	if l := w.get(); l != nil {
		l.Wake()
	}
}

func (w *lateLink) acks() bool {
	l := w.get()
	return l != nil && l.Acks()
}

// feed gives messages of one or more types to a local program. It is a
// link.Source: the frames that the link numbers come from several takers,
// which number them for themselves.
type feed struct {
	takers []*queue.Taker
	plain  bool                                        // the program does not count: each frame carries its number
	empty  func()                                      // called when nothing was there to take, nor is read from the disk; or nil
	spent  func()                                      // called when the limit was reached before, or nil
	wake   func()                                      // wakes the link
	keep   bool                                        // nothing is finished by being written
	bury   func(frame []byte, why *link.Refusal) error // keeps what the program has given up, or nil

	mu    sync.Mutex
	left  int  // frames that may still be taken; negative: no limit
	next  int  // the taker whose turn it is
	told  bool // empty was called
	last  uint64
	spans []span // frames given, in order of their numbers
}

// span is a run of frames from one taker.
type span struct {
	first, n uint64 // numbers of the link
	taker    *queue.Taker
	from     uint64 // number of the first for the taker
}

// newFeed returns a feed of the queues. limit bounds the frames in all; 0 is
// none. plain asks for a transport_id in every frame.
func newFeed(queues []*queue.Queue, wake func(), limit int, plain bool) *feed {
	f := &feed{plain: plain, keep: plain, left: limit, wake: wake}
	if limit == 0 {
		f.left = -1
	}
	for _, q := range queues {
		f.takers = append(f.takers, q.Taker(wake, nil))
	}
	return f
}

func (f *feed) Take(b *wire.Batch, max, count int) int {
	f.mu.Lock()
	if f.left == 0 {
		f.mu.Unlock()
		if f.spent != nil {
			f.spent()
		}
		return 0
	}
	if f.left > 0 {
		count = min(count, f.left)
	}
	total := 0
	for i := 0; i < len(f.takers) && total < count && b.Bytes < max; i++ {
		t := f.takers[(f.next+i)%len(f.takers)]
		n := 0
		if f.plain {
			n = f.takePlain(t, b, max, count-total)
		} else {
			n = t.Take(b, max, count-total)
		}
		if n == 0 {
			continue
		}
		if k := len(f.spans) - 1; k >= 0 && f.spans[k].taker == t {
			f.spans[k].n += uint64(n)
		} else {
			f.spans = append(f.spans, span{f.last + 1, uint64(n), t, t.Numbered() - uint64(n) + 1})
		}
		f.last += uint64(n)
		total += n
	}
	f.next++
	if f.left > 0 {
		f.left -= total
	}
	empty := total == 0 && count > 0 && f.empty != nil && !f.told && f.inHand() == 0 && !f.coming()
	f.told = empty || f.told && total == 0 // once, until there was something again
	f.mu.Unlock()
	if empty {
		f.empty()
	}
	return total
}

// takePlain takes frame by frame and writes each one's number into its header.
func (f *feed) takePlain(t *queue.Taker, b *wire.Batch, max, count int) (n int) {
	for n < count && b.Bytes < max {
		var one wire.Batch
		if t.Take(&one, 1, 1) == 0 {
			break
		}
		n++
		b.Add(numbered(f.last+uint64(n), one.Spans[0]), 1)
	}
	return n
}

func (f *feed) inHand() (n int) {
	for _, t := range f.takers {
		n += t.InHand()
	}
	return n
}

// coming reports whether messages are being read from the disk.
func (f *feed) coming() bool { return slices.ContainsFunc(f.takers, (*queue.Taker).Coming) }

func (f *feed) Done(n uint64, acked bool) (finished int) {
	if f.keep && !acked {
		return 0
	}
	defer f.checkEmpty()
	f.mu.Lock()
	defer f.mu.Unlock()
	k := 0
	for ; k < len(f.spans) && f.spans[k].first <= n; k++ {
		s := &f.spans[k]
		upTo := min(n, s.first+s.n-1)
		finished += s.taker.Done(s.from+upTo-s.first, acked)
		if upTo < s.first+s.n-1 {
			break
		}
	}
	f.spans = append(f.spans[:0], f.spans[k:]...)
	return finished
}

// find returns the taker of frame n, and its number there.
func (f *feed) find(n uint64) (*queue.Taker, uint64) {
	i := sort.Search(len(f.spans), func(i int) bool { s := f.spans[i]; return s.first+s.n > n })
	if i == len(f.spans) || f.spans[i].first > n {
		return nil, 0
	}
	s := f.spans[i]
	return s.taker, s.from + n - s.first
}

// checkEmpty makes the link take again when nothing is in hand any more, so that
// the program learns that nothing is left.
func (f *feed) checkEmpty() {
	if f.empty != nil && f.inHand() == 0 {
		f.wake()
	}
}

func (f *feed) DoneOne(n uint64, err error) bool {
	defer f.checkEmpty()
	f.mu.Lock()
	defer f.mu.Unlock()
	t, m := f.find(n)
	if t == nil {
		return false
	}
	var why *link.Refusal
	if errors.As(err, &why) && why.Reason == link.Later {
		return f.later(t, m, why)
	}
	if why != nil && why.Reason == link.Dead && f.bury != nil {
		frame := t.Frame(m)
		if frame == nil {
			return false
		}
		if f.bury(frame, why) != nil {
			t.Tried(m, why.Tries)
			return t.Defer(m, buryAgain)
		}
		err = nil
	}
	return t.DoneOne(m, err)
}

// buryAgain is when a message is given out again that could not be kept as a
// dead letter.
const buryAgain = 10 * time.Second

// later puts back a message that the program has tried and failed.
func (f *feed) later(t *queue.Taker, m uint64, why *link.Refusal) bool {
	if why.Tries > 0 {
		t.Tried(m, why.Tries)
	}
	if !t.Defer(m, min(why.Delay, time.Hour)) {
		return false
	}
	if f.left >= 0 {
		f.left++ // it did not count
		f.wake()
	}
	return true
}

func (f *feed) Return(n uint64, _ bool, _ *link.Refusal) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, m := f.find(n); t != nil {
		typ := t.Return(m, false)
		if typ != "" && f.left >= 0 {
			f.left++ // it did not count
			f.wake()
		}
		return typ
	}
	return ""
}

func (f *feed) Resume(string) {}

func (f *feed) Close() {
	for _, t := range f.takers {
		t.Close()
	}
}

// serveReceivers gives the messages of a type to a program that listens on the
// receive socket of the original, as often as there is one.
func (c *Connector) serveReceivers(ctx context.Context, typ string, q *queue.Queue) {
	path := c.paths.ReceiveSocket(typ)
	some := make(chan struct{}, 1)
	watch := q.Watcher(func() {
		select {
		case some <- struct{}{}:
		default:
		}
	})
	defer watch.Close()
	const least, most = 20 * time.Millisecond, time.Second
	pause := least
	for ctx.Err() == nil {
		watch.Watch()
		if q.Stats().Waiting == 0 {
			select {
			case <-some:
				continue
			case <-ctx.Done():
				return
			}
		}
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			pause = least
			c.log.Debug("receiver there", "type", typ)
			err = c.feedReceiver(ctx, conn, q)
			c.log.Debug("receiver gone", "type", typ, "err", err)
			continue
		}
		// Nobody listens there: other receivers may take the messages.
		select {
		case <-time.After(pause):
			pause = min(2*pause, most)
		case <-ctx.Done():
			return
		}
	}
}

// feedReceiver writes messages to one connection of a receiver until it ends.
func (c *Connector) feedReceiver(ctx context.Context, conn net.Conn, q *queue.Queue) error {
	limit := 0
	if !c.cfg.Load().PreserveReceive {
		limit = 1 // the receiver takes one message from each connection
	}
	var late lateLink
	f := newFeed([]*queue.Queue{q}, late.wake, limit, false)
	l := link.New(conn, wire.NewReader(conn, wire.MaxUnidentified), link.Options{
		ID: c.id, Handler: deaf{}, Source: f, Log: c.log,
	})
	late.set(l)
	if limit > 0 {
		f.spent = l.Finish
	}
	return l.Run(ctx)
}

// deaf is the handler of a link from which nothing is expected.
type deaf struct{}

func (deaf) Frame(uint64, *wire.Frame) error { return nil }
func (deaf) Flush() error                    { return nil }
