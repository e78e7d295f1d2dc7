package chat

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"
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
	return " in " + clock(d)
}

// clock writes a duration as minutes and seconds.
func clock(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// bar draws how far a transfer is, in at most width columns.
func (t *transfer) bar(now time.Time, width int) string {
	done := t.done.Load()
	verb := "receiving"
	if t.out {
		verb = "sending"
	}
	rate := 0.0
	if spent := now.Sub(t.began).Seconds(); spent > 0 {
		rate = float64(done) / spent
	}
	if t.size < 0 {
		return fit(fmt.Sprintf("%s %s %s", verb, short(safe(t.name), width/3), bytesText(done)), width)
	}
	left := "-:--"
	if rate >= 1 {
		left = clock(time.Duration(min(float64(t.size-done)/rate, 359999) * float64(time.Second)))
	}
	share := 100
	if t.size > 0 {
		share = int(min(100, float64(done)*100/float64(t.size)))
	}
	// As much of it as there is room for.
	percent := fmt.Sprintf("%3d%%", share)
	numbers := fmt.Sprintf("%s %8s/s %s", percent, bytesText(int64(rate)), left)
	head := func(rest int) string { return verb + " " + short(safe(t.name), width-len(verb)-rest-2) + " " }
	const (
		nameMin = 12 // that much of a name is enough to know the file
		barMax  = 20
	)
	switch room := width - len(verb) - nameMin - 2; {
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
