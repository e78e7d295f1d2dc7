package peer

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// foldEvery is how often the same thing is logged at most.
const foldEvery = 10 * time.Second

// fold logs what strangers can make happen as often as they like: the first of
// each kind at once, then one line every 10 seconds, which says how many it
// stands for. The kinds are few and ours. Any number of goroutines may use it.
type fold struct {
	log *slog.Logger

	mu    sync.Mutex // guards what follows
	kinds map[string]*folded
	done  bool
}

// folded is one kind while it is held back.
type folded struct {
	timer *time.Timer // ends the holding back
	held  int
	line  func(n int) // logs the newest
}

// warn logs that a connection from addr came to nothing because of err.
func (f *fold) warn(kind, message string, addr netip.AddrPort, err error) {
	line := func(n int) {
		attrs := []slog.Attr{slog.String("err", err.Error())}
		if addr.IsValid() {
			attrs = append(attrs, slog.String("addr", addr.String()))
		}
		if n > 1 {
			attrs = append(attrs, slog.Int("n", n))
		}
		f.log.LogAttrs(context.Background(), slog.LevelWarn, message, attrs...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if k := f.kinds[kind]; k != nil {
		k.held++
		k.line = line
		return
	}
	line(1)
	if f.done {
		return
	}
	if f.kinds == nil {
		f.kinds = make(map[string]*folded)
	}
	k := &folded{}
	k.timer = time.AfterFunc(foldEvery, func() { f.open(kind, k) })
	f.kinds[kind] = k
}

// open logs what was held back of a kind and goes on holding back, or forgets
// the kind when nothing was.
func (f *fold) open(kind string, k *folded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.kinds[kind] != k:
	case k.held == 0:
		delete(f.kinds, kind)
	default:
		k.line(k.held)
		k.held, k.line = 0, nil
		k.timer.Reset(foldEvery)
	}
}

// close logs what is still held back. What comes later is logged as it comes.
func (f *fold) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
	for _, k := range f.kinds {
		k.timer.Stop()
		if k.held > 0 {
			k.line(k.held)
		}
	}
	f.kinds = nil
}
