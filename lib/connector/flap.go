package connector

import (
	"sync"
	"time"
)

// A peer whose links come and go is worth some lines in the log, and then only
// one now and then, so that a bad cable does not fill a disk.
const (
	flapBurst = 10               // links of a peer that are logged one by one
	flapEvery = 10 * time.Second // then one more in this time
	flapPeers = 1024             // that are remembered

	// All peers together: one that has another name each time is a new peer.
	flapAllBurst = 1000
	flapAllEvery = time.Second
)

// flaps remembers whose links were logged.
type flaps struct {
	mu    sync.Mutex
	peers map[string]flap
	all   flap
}

// flap is how many links of a peer could be logged at a time.
type flap struct {
	left float64
	at   time.Time
}

// now returns how many could be logged now.
func (f flap) now(now time.Time) float64 {
	return f.after(now, flapBurst, flapEvery)
}

// after returns how many could be logged now if there are at most burst, and one
// more each time.
func (f flap) after(now time.Time, burst float64, each time.Duration) float64 {
	return min(burst, f.left+max(now.Sub(f.at), 0).Seconds()/each.Seconds())
}

// log reports whether a link of the peer that begins now is to be logged.
func (f *flaps) log(peer string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers == nil {
		f.peers = map[string]flap{}
		f.all = flap{flapAllBurst, now}
	}
	p, ok := f.peers[peer]
	if !ok {
		p = flap{flapBurst, now}
		if len(f.peers) >= flapPeers {
			f.forget(now)
		}
	}
	p = flap{p.now(now), now}
	f.all = flap{f.all.after(now, flapAllBurst, flapAllEvery), now}
	loud := p.left >= 1 && f.all.left >= 1
	if loud {
		p.left--
		f.all.left--
	}
	f.peers[peer] = p
	return loud
}

// forget makes room: those go first who have nothing to be remembered.
func (f *flaps) forget(now time.Time) {
	for name, p := range f.peers {
		if p.now(now) >= flapBurst-1 {
			delete(f.peers, name)
		}
	}
	for name := range f.peers {
		if len(f.peers) < flapPeers {
			return
		}
		delete(f.peers, name)
	}
}
