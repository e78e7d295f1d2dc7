package queue

import (
	"sync/atomic"

	"aioc/lib/wire"
)

// Page is frames that are put into several queues, which keep them in memory
// once. They count for the limit of each lane, and once for the budget. What goes
// to disk is there for each queue, unless it is a Topic's.
type Page struct {
	frames []byte // capacity: length, see offset
	budget *Budget
	users  atomic.Int64 // who holds it; the last one gives the memory back
}

// leastPage is from how many bytes on it is worth while to share them: each
// queue has something to keep for each page.
const leastPage = 4 << 10

// Pages copies frames, which are whole, into pages. What it is not worth while,
// or no memory, to share is in pages that only refer to frames: so these must not
// change until Release, which is to be called for each page when it was put.
func Pages(frames []byte, budget *Budget) (pages []*Page) {
	for len(frames) > 0 {
		f, rest := wire.Split(frames)
		n := len(f)
		for len(rest) > 0 {
			if f, rest = wire.Split(rest); n+len(f) > fullBlock {
				break
			}
			n += len(f)
		}
		p := &Page{frames: frames[:n:n]}
		if n >= leastPage && budget.take(n) {
			p.frames = append(make([]byte, 0, n), frames[:n]...)[:n:n]
			p.budget = budget
			p.users.Store(1)
		}
		pages = append(pages, p)
		frames = frames[n:]
	}
	return pages
}

// Frames are the frames of the page. Who puts them, or a part of them, says so in
// Extra.
func (p *Page) Frames() []byte { return p.frames }

// shared reports whether queues may keep the page itself.
func (p *Page) shared() bool { return p != nil && p.users.Load() > 0 }

// offset is where a part of the page begins in it.
func (p *Page) offset(part []byte) int { return cap(p.frames) - cap(part) }

// Release ends the use of the page by who made it. No lock of a queue may be
// held.
func (p *Page) Release() {
	if !p.shared() {
		return
	}
	for _, f := range p.release() {
		f()
	}
}

// release ends one use and returns what Budget.give does.
func (p *Page) release() (calls []func()) {
	if p.users.Add(-1) > 0 {
		return nil
	}
	return p.budget.give(len(p.frames))
}

// putPage is put for a part of a page.
func (l *lane) putPage(part []byte, e *slot) (taken int, err error) {
	q := l.q
	b := &block{lane: l, buf: e.page.frames, page: e.page}
	q.addBlock(b)
	for taken < len(part) {
		f, _ := wire.Split(part[taken:])
		if l.above(len(f), e) {
			err = ErrFull
			break
		}
		b.live++
		l.bytes += len(f) + overhead
		l.item(b, e.page.offset(part[taken:]), len(f), e)
		taken += len(f)
	}
	if taken == 0 {
		q.dropBlock(b)
		return 0, err
	}
	e.page.users.Add(1)
	return taken, err
}
