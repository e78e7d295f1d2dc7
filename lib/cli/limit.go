package cli

import (
	"sync"
	"time"
)

// limitEvery is how often a [Limiter] lets the same key through.
const limitEvery = 10 * time.Second

// limitKeys is how many keys a [Limiter] tells apart at most; a stranger may
// choose the keys. Those beyond it are treated as one.
const limitKeys = 1024

// A Limiter folds events that repeat: the first one of a key passes at once,
// then one every 10 seconds, with the number of those held back since. The zero
// value is ready; any number of goroutines may use it.
type Limiter struct {
	mu   sync.Mutex // guards seen
	seen map[string]*limit
}

// limit is what is known of one key.
type limit struct {
	passed time.Time // when the last event passed
	held   int       // events held back since
}

// Allow says whether an event with this key should be logged now, and how many
// were held back since the last one that was.
func (l *Limiter) Allow(key string) (ok bool, suppressed int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.seen[key]
	if e == nil {
		if len(l.seen) >= limitKeys {
			l.forget(now)
		}
		if len(l.seen) >= limitKeys {
			key = ""
			e = l.seen[key]
		}
	}
	if e == nil {
		if l.seen == nil {
			l.seen = make(map[string]*limit)
		}
		l.seen[key] = &limit{passed: now}
		return true, 0
	}
	if now.Sub(e.passed) < limitEvery {
		e.held++
		return false, 0
	}
	suppressed = e.held
	e.passed, e.held = now, 0
	return true, suppressed
}

// forget drops the keys of which nothing would be held back now.
func (l *Limiter) forget(now time.Time) {
	for key, e := range l.seen {
		if now.Sub(e.passed) >= limitEvery {
			delete(l.seen, key)
		}
	}
}
