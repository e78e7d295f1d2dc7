// Package fold logs what others can make happen as often as they like: the
// first of each kind at once, then one line every ten seconds, which says how
// many it stands for.
package fold

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

const (
	// every is how often the same kind is logged at most.
	every = 10 * time.Second
	// maxKinds bounds the kinds that are told apart, since a stranger may have
	// a say in them. Those beyond it are one kind.
	maxKinds = 1024
	// newEvery is when another kind may be told apart, after the first maxKinds:
	// who makes up a kind for each event gets a line a second and no more.
	newEvery = time.Second
)

// Log folds warnings. Any number of goroutines may use it.
type Log struct {
	log *slog.Logger

	mu    sync.Mutex // guards what follows
	kinds map[string]*folded
	used  float64   // of maxKinds, at the time of
	since time.Time // the last new kind
	done  bool
}

// folded is one kind while it is held back.
type folded struct {
	timer *time.Timer // ends the holding back
	held  int         // events
	line  func(n int) // logs the newest
}

// New returns a Log that writes to log.
func New(log *slog.Logger) *Log { return &Log{log: log} }

// Warn logs n events of a kind, now or later; of those that are held back the
// last one's attributes are logged, and as "n" how many they were.
func (f *Log) Warn(kind string, n int, message string, attrs ...slog.Attr) {
	line := func(n int) {
		if n > 1 {
			attrs = append(attrs, slog.Int("n", n))
		}
		f.log.LogAttrs(context.Background(), slog.LevelWarn, message, attrs...)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.kinds[kind] == nil && (len(f.kinds) >= maxKinds || !f.room()) {
		kind = ""
	}
	if k := f.kinds[kind]; k != nil {
		k.held += n
		k.line = line
		return
	}
	line(n)
	if f.done {
		return
	}
	if f.kinds == nil {
		f.kinds = make(map[string]*folded)
	}
	k := &folded{}
	k.timer = time.AfterFunc(every, func() { f.open(kind, k) })
	f.kinds[kind] = k
}

// room reports whether one more kind may be told apart now. mu is held.
func (f *Log) room() bool {
	now := time.Now()
	f.used = max(0, f.used-max(0, now.Sub(f.since).Seconds()/newEvery.Seconds()))
	f.since = now
	if f.used+1 > maxKinds {
		return false
	}
	f.used++
	return true
}

// open logs what was held back of a kind and goes on holding back, or forgets
// the kind when nothing was.
func (f *Log) open(kind string, k *folded) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.kinds[kind] != k:
	case k.held == 0:
		delete(f.kinds, kind)
	default:
		k.line(k.held)
		k.held, k.line = 0, nil
		k.timer.Reset(every)
	}
}

// Close logs what is still held back. What comes later is logged as it comes.
func (f *Log) Close() {
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
