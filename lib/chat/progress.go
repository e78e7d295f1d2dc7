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
	numbers := fmt.Sprintf("%3d%% %8s/s %s", share, bytesText(int64(rate)), left)
	text := fmt.Sprintf("%s %s ", verb, short(safe(t.name), max(8, width-len(numbers)-16)))
	if room := width - len([]rune(text)) - len(numbers) - 3; room >= 8 {
		room = min(room, 20)
		full := room * share / 100
		text += "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "] "
	}
	return fit(text+numbers, width)
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
