package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress is how far something is that has a size in bytes, for people to see.
type Progress struct {
	Verb  string // such as "sending"
	Name  string // of what; a terminal gets it as it is, so it must be harmless
	Size  int64  // -1 when it is not known
	Done  int64
	Since int64         // what was done at the beginning of Spent
	Spent time.Duration // in which the rest of Done was done
}

// Line draws it in at most width columns: the more room, the more of a bar, the
// rate, and the time that is left.
func (p Progress) Line(width int) string {
	rate := 0.0
	if spent := p.Spent.Seconds(); spent > 0 {
		rate = float64(p.Done-p.Since) / spent
	}
	if p.Size < 0 {
		return fit(fmt.Sprintf("%s %s %s", p.Verb, short(p.Name, width/3), Bytes(p.Done)), width)
	}
	left := "-:--"
	if rate >= 1 {
		left = Clock(time.Duration(min(float64(p.Size-p.Done)/rate, 359999) * float64(time.Second)))
	}
	share := 100
	if p.Size > 0 {
		share = int(min(100, float64(p.Done)*100/float64(p.Size)))
	}
	// As much of it as there is room for.
	percent := fmt.Sprintf("%3d%%", share)
	numbers := fmt.Sprintf("%s %8s/s %s", percent, Bytes(int64(rate)), left)
	head := func(rest int) string { return p.Verb + " " + short(p.Name, width-len(p.Verb)-rest-2) + " " }
	const (
		nameMin = 12 // that much of a name is enough to know the file
		barMax  = 20
	)
	switch room := width - len(p.Verb) - nameMin - 2; {
	case room >= len(numbers)+barMax+3:
		full := barMax * share / 100
		return head(len(numbers)+barMax+3) + "[" + strings.Repeat("#", full) + strings.Repeat(".", barMax-full) + "] " + numbers
	case room >= len(numbers):
		return head(len(numbers)) + numbers
	case room >= len(percent)+len(left)+1:
		return head(len(percent)+len(left)+1) + percent + " " + left
	case room < -4:
		return fit(strings.TrimSpace(percent), width)
	}
	return fit(head(len(percent))+percent, width)
}

// Clock writes a duration as minutes and seconds.
func Clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// Bytes writes a number of bytes with at most one decimal: "4.3 GB".
func Bytes(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 999.95 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}

// short leaves out the middle of a text that has more than n characters.
func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n < 5 {
		return string(r[:max(n, 0)])
	}
	head := (n - 2) / 2
	return string(r[:head]) + ".." + string(r[len(r)-(n-2-head):])
}

// fit cuts a text off at n characters.
func fit(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:max(n, 0)])
	}
	return s
}

// meterEvery is how often a Meter draws its line again.
const meterEvery = 250 * time.Millisecond

// A Meter draws how far something is on a terminal, in one line, over and over.
// Its methods may be called from any goroutine; those of a nil Meter do nothing.
type Meter struct {
	w     io.Writer
	width func() int

	mu    sync.Mutex
	p     Progress
	first time.Time // of the first Set
	begun time.Time // when something was done first
	drawn int       // characters of the line that is there
	tick  *time.Timer
	over  bool
}

// NewMeter returns a Meter that draws on w, nil if that is not a terminal. The
// name is escaped. Nothing is drawn before the first Set.
func NewMeter(w io.Writer, verb, name string) *Meter {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return newMeter(w, verb, name, func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			width = 80
		}
		return width
	})
}

func newMeter(w io.Writer, verb, name string, width func() int) *Meter {
	return &Meter{w: w, width: width, p: Progress{Verb: verb, Name: Escape(name)}}
}

// Set says how far it is. The rate counts from when something was done first.
func (m *Meter) Set(done, size int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over {
		return
	}
	if m.begun.IsZero() && done > 0 {
		m.begun, m.p.Since = time.Now(), done
	}
	m.p.Done, m.p.Size = done, size
	if m.tick == nil {
		m.first = time.Now()
		m.draw()
		m.tick = time.AfterFunc(meterEvery, m.again)
	} else if done == size {
		m.draw()
	}
}

// again draws now and then.
func (m *Meter) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.over {
		m.draw()
		m.tick.Reset(meterEvery)
	}
}

// draw draws the line. mu is held.
func (m *Meter) draw() {
	p := m.p
	if m.begun.IsZero() {
		p.Verb = "waiting"
	} else {
		p.Spent = time.Since(m.begun)
	}
	line := p.Line(m.width() - 1) // in the last column some terminals go to the next line
	n := len([]rune(line))
	io.WriteString(m.w, "\r"+line+strings.Repeat(" ", max(0, m.drawn-n)))
	m.drawn = n
}

// Done ends the drawing of something that is done, and leaves the line.
func (m *Meter) Done() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over || m.drawn == 0 {
		return
	}
	if m.p.Done = m.p.Size; m.begun.IsZero() { // too quick for more than one
		m.begun = m.first
	}
	m.draw()
	io.WriteString(m.w, "\n")
	m.over, m.drawn = true, 0
	m.tick.Stop()
}

// Stop ends the drawing and removes the line. It may be called twice, and after
// Done.
func (m *Meter) Stop() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.tick != nil {
		m.tick.Stop()
	}
	if m.drawn > 0 {
		io.WriteString(m.w, "\r"+strings.Repeat(" ", m.drawn)+"\r")
		m.drawn = 0
	}
}
