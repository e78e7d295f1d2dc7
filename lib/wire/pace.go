package wire

import (
	"errors"
	"os"
	"time"
)

// ErrSlow is returned when a big frame has begun and does not go on as it must:
// see Reader.Pace.
var ErrSlow = errors.New("a frame has begun and does not go on")

const (
	// paceBytes is how much of a big frame has to come each second, at least.
	paceBytes = 1 << 10
	// paceParts is in how many windows all of it has to come, at most, if it is
	// kept in memory until then.
	paceParts = 256
)

// pace is what a Reader knows of the frame that is on its way.
type pace struct {
	window time.Duration // 0: a frame may take for ever
	arm    func(time.Time) error
	armed  bool

	waited time.Duration // for this frame, in this window
	got    int64         // meanwhile
	least  int64         // of that, what there must be
}

// Pace makes big frames go on: those that need memory beyond the usual buffer or
// that are streamed or stepped over. While the Reader waits for more of one,
// each window of waiting brings at least 1 KiB a second, and one 256th of a frame
// that takes memory; if not, reading ends with ErrSlow. Time between the reads
// does not count. arm sets the deadline for the next read of the stream, the zero time
// takes it away.
func (r *Reader) Pace(window time.Duration, arm func(time.Time) error) {
	r.pace = pace{window: window, arm: arm}
}

// slow reports whether more of a big frame has to come.
func (r *Reader) slow() bool {
	if r.pace.window == 0 {
		return false
	}
	n := r.announced()
	if r.discard > 0 {
		n = 0
	} else if n <= maxBuffer {
		return false
	}
	r.begin(n)
	return true
}

// begin notes that a big frame is on its way, of which n bytes take memory. It
// may have begun as one that takes more.
func (r *Reader) begin(n int64) {
	p := &r.pace
	if !r.big {
		r.big = true
		p.waited, p.got = 0, 0
	}
	p.least = max(int64(p.window.Seconds()*paceBytes), n/paceParts)
}

// read reads from the stream once. big: more of a big frame has to come.
func (r *Reader) read(b []byte, big bool) (n int, err error) {
	p := &r.pace
	if p.window == 0 {
		return r.r.Read(b)
	}
	if !big {
		if p.armed {
			if err := p.arm(time.Time{}); err != nil {
				return 0, err
			}
			p.armed = false
		}
		return r.r.Read(b)
	}
	for {
		start := time.Now()
		if err := p.arm(start.Add(p.window - p.waited)); err != nil {
			return 0, err
		}
		p.armed = true
		n, err = r.r.Read(b)
		p.waited += time.Since(start)
		p.got += int64(n)
		late := err != nil && errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case p.waited < p.window:
			return n, err // also when somebody else has set a deadline
		case p.got < p.least:
			return n, ErrSlow
		}
		p.waited, p.got = 0, 0
		if n > 0 || !late {
			return n, err
		}
	}
}
