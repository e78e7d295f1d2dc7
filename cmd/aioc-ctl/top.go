package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"aioc/lib/cli"
	"aioc/lib/control"
)

// view is what top shows at one moment.
type view struct {
	*control.Stats
	SentRate     float64 `json:"sent_per_second"`
	ReceivedRate float64 `json:"received_per_second"`

	rates  map[string]float64 // of queues, by way and name: messages done in a second
	recent map[string]uint64  // dropped since the last time, by reason
}

// newView compares statistics with those of a while ago, which may be nil.
func newView(s, before *control.Stats, after time.Duration) *view {
	v := &view{Stats: s, rates: map[string]float64{}, recent: map[string]uint64{}}
	if before == nil || after <= 0 || !s.Started.Equal(before.Started) {
		return v
	}
	rate := func(now, then uint64) float64 {
		if now < then {
			return 0 // forgotten, and made anew
		}
		return float64(now-then) / after.Seconds()
	}
	v.SentRate, v.ReceivedRate = rate(s.Sent, before.Sent), rate(s.Received, before.Received)
	then := map[string]uint64{}
	for _, q := range queueRows(before) {
		then[q.Direction+q.Name] = q.Done
	}
	for _, q := range queueRows(s) {
		v.rates[q.Direction+q.Name] = rate(q.Done, then[q.Direction+q.Name])
	}
	for reason, n := range s.Dropped {
		if n > before.Dropped[reason] {
			v.recent[reason] = n - before.Dropped[reason]
		}
	}
	return v
}

// lines lays the view out for a screen. With height 0 all is shown.
func (v *view) lines(width, height int) []string {
	connected := 0
	for _, p := range v.Peers {
		if p.Connected {
			connected++
		}
	}
	head := []string{
		fmt.Sprintf("%s  %s  tls %s  up %s", pick(v.Server, v.Address, v.Name), pick(v.Server, "server", "client")+pick(v.Running, "", " STOPPED"), v.TLS, age(time.Since(v.Started).Seconds())),
		fmt.Sprintf("peers %d  sent %.0f/s  received %.0f/s", connected, v.SentRate, v.ReceivedRate),
		fmt.Sprintf("memory %s of %s  cpu %.1fs", size(int64(v.MemoryUsed)), size(v.MemoryLimit), v.Process.CPU),
	}
	if width >= 90 { // one line less
		head = []string{head[0], head[1] + "  " + head[2]}
	}
	for _, p := range v.Problems {
		head = append(head, "! "+p)
	}

	rows := queueRows(v.Stats)
	slices.SortStableFunc(rows, func(a, b queueRow) int {
		if n := (b.Waiting + b.InHand) - (a.Waiting + a.InHand); n != 0 {
			return n
		}
		return int(v.rates[b.Direction+b.Name] - v.rates[a.Direction+a.Name])
	})
	longest := 12
	for _, q := range rows {
		longest = max(longest, utf8.RuneCountInString(cli.Escape(q.Name)))
	}
	name := max(12, min(width-48, longest))
	body := []string{fmt.Sprintf("%-4s %-*s %9s %8s %9s %8s", "WAY", name, "QUEUE", "WAITING", "IN HAND", "RATE/s", "MEMORY")}
	if width < 60 { // room for what matters most
		name = max(8, min(width-26, longest))
		body[0] = fmt.Sprintf("%-4s %-*s %9s %9s", "WAY", name, "QUEUE", "WAITING", "RATE/s")
	}
	for _, q := range rows {
		way := q.Direction
		if q.Direction == "send" && !v.connected(q.Name) {
			way = "away"
		}
		rate := strconv.FormatFloat(v.rates[q.Direction+q.Name], 'f', 0, 64)
		label := cut(cli.Escape(q.Name), name)
		label += strings.Repeat(" ", name-utf8.RuneCountInString(label))
		if width < 60 {
			body = append(body, fmt.Sprintf("%-4s %s %9d %9s", way, label, q.Waiting+q.InHand, rate))
		} else {
			body = append(body, fmt.Sprintf("%-4s %s %9d %8d %9s %8s", way, label, q.Waiting, q.InHand, rate, size(int64(q.Bytes))))
		}
	}

	var drops []string
	reasons := slices.SortedFunc(maps.Keys(v.Dropped), func(a, b string) int {
		if v.recent[a] != v.recent[b] {
			return int(v.recent[b]) - int(v.recent[a])
		}
		return strings.Compare(a, b)
	})
	for _, r := range reasons {
		more := ""
		if n := v.recent[r]; n > 0 {
			more = fmt.Sprintf(" (+%d)", n)
		}
		drops = append(drops, fmt.Sprintf("%9d%s %s", v.Dropped[r], more, r))
	}
	if len(drops) > 0 {
		drops = append([]string{"DROPPED OR REFUSED"}, drops...)
	}
	all := fit(head, body, drops, height)
	for i, line := range all {
		all[i] = cut(cli.Escape(line), width)
	}
	return all
}

// connected reports whether a peer is there.
func (v *view) connected(peer string) bool {
	i := slices.IndexFunc(v.Peers, func(p control.PeerStats) bool { return p.Name == peer })
	return i >= 0 && v.Peers[i].Connected
}

// fit chooses the lines that a screen has room for: the head, of the drops at
// most a third of the rest, and as many queues as possible.
func fit(head, body, drops []string, height int) []string {
	if height > 0 {
		head = head[:min(len(head), height)]
		rest := height - len(head)
		drops = drops[:min(len(drops), max(rest/3, rest-len(body)))]
		rest -= len(drops)
		if len(body) > rest {
			left := len(body) - rest + 1
			body = body[:max(rest-1, 0)]
			if rest > 0 {
				body = append(body, fmt.Sprintf("     and %d more", left))
			}
		}
	}
	return slices.Concat(head, body, drops)
}

// cut shortens a line to a number of characters.
func cut(s string, width int) string {
	if width <= 0 || utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	return string(r[:max(width-1, 0)]) + "~"
}

// top shows the statistics again and again.
func top(ctx context.Context, c *call) error {
	o := c.p.opt
	out, _ := c.p.stdout.(*os.File)
	live := !o.json && terminal(c.p.stdout)
	if !live && o.count == 0 {
		return usagef("top: want -n COUNT, since standard output is not a terminal")
	}
	sample := func(ctx context.Context) (*control.Stats, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, errTimeout)
		defer cancel()
		return c.stats(ctx)
	}
	s, err := sample(ctx)
	if err != nil {
		return err
	}
	var screen *screen
	if live && o.count != 1 {
		if screen, err = openScreen(c.p.stdin, out); err != nil {
			return err
		}
		defer func() {
			if screen != nil {
				screen.close()
			}
		}()
	}
	var before *control.Stats
	last := time.Now()
	for n := 1; ; n++ {
		now := time.Now()
		v := newView(s, before, now.Sub(last))
		before, last = s, now
		switch {
		case !live:
			err = c.p.emit(v, nil)
		case o.count == n: // stays on the screen when we have ended
			if screen != nil {
				screen.close()
				screen = nil
			}
			width, _, errSize := term.GetSize(int(out.Fd()))
			if errSize != nil {
				width = 80
			}
			err = c.p.write([]byte(strings.Join(v.lines(width, 0), "\n") + "\n"))
		default:
			err = screen.draw(v.lines)
		}
		if err != nil || o.count == n {
			return err
		}
		for {
			quit, err := pause(ctx, screen, v.lines, o.interval)
			if quit || err != nil {
				return err
			}
			c.close()
			c.client = nil
			if screen == nil {
				s, err = sample(ctx)
			} else if s, quit, err = screen.await(ctx, sample, v.lines); quit {
				return err
			}
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !live || errors.As(err, new(*statusError)) {
				return err
			}
			// It may be restarting.
			text := err.Error()
			if err := screen.draw(func(width, height int) []string {
				return warned(text, v.lines, width, height)
			}); err != nil {
				return err
			}
		}
	}
}

// warned puts a warning above the lines of before, as long as it needs.
func warned(text string, lines func(width, height int) []string, width, height int) []string {
	warning := wrap("! "+cli.Escape(text), width)
	for i, line := range warning {
		warning[i] = cut(line, width)
	}
	return append(warning, lines(width, max(height-len(warning), 1))...)
}

// lateAfter is when an answer is late enough to be told.
const lateAfter = 2 * time.Second

// await takes a sample while the keys work and the screen tells how long the
// connector has said nothing. Sample ends when it is given up.
func (s *screen) await(ctx context.Context, sample func(context.Context) (*control.Stats, error), lines func(width, height int) []string) (stats *control.Stats, quit bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	asked := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		stats, err = sample(ctx)
	}()
	shown := lines
	for told := time.Duration(0); ; {
		select {
		case <-done:
			cancel()
			return stats, false, err
		case <-time.After(50 * time.Millisecond):
		}
		quit, wrong := pause(ctx, s, shown, time.Millisecond)
		late := time.Since(asked).Truncate(time.Second)
		if !quit && wrong == nil && late >= lateAfter && late != told {
			told = late
			shown = func(width, height int) []string {
				return warned(fmt.Sprintf("no answer for %s: what follows is from before", age(late.Seconds())), lines, width, height)
			}
			wrong = s.draw(shown)
		}
		if quit || wrong != nil {
			cancel()
			<-done
			return nil, true, wrong
		}
	}
}

// pause waits until the next refresh, the end of ctx, or a key that quits.
func pause(ctx context.Context, s *screen, lines func(width, height int) []string, d time.Duration) (quit bool, err error) {
	if s == nil {
		select {
		case <-time.After(d):
			return false, nil
		case <-ctx.Done():
			return true, context.Cause(ctx)
		}
	}
	for end := time.Now().Add(d); ; {
		if ctx.Err() != nil {
			return true, context.Cause(ctx)
		}
		left := time.Until(end)
		if left <= 0 {
			return false, nil
		}
		quit, suspend := s.keys(min(left, 100*time.Millisecond))
		if quit {
			return true, nil
		}
		select {
		case <-s.suspended:
			suspend = true
		default:
		}
		again := false
		select {
		case <-s.continued: // stopped by another than us
			again = true
		default:
		}
		if suspend {
			err = s.suspend(ctx)
		} else if again {
			err = s.resume(ctx)
		}
		if err != nil {
			return true, err
		}
		if suspend || again {
			s.width = 0 // drawn anew
		}
		if s.resized() {
			if err := s.draw(lines); err != nil {
				return true, err
			}
		}
	}
}

// screen is a terminal of which top has the whole.
type screen struct {
	out           *os.File
	in            int // descriptor of the keyboard, -1 without
	before        *term.State
	width, height int
	suspended     chan os.Signal // SIGTSTP, which would leave the screen as it is
	continued     chan os.Signal // SIGCONT
}

// openScreen changes to the other screen of the terminal, if it has one.
func openScreen(stdin any, out *os.File) (*screen, error) {
	s := &screen{out: out, in: -1, suspended: make(chan os.Signal, 1), continued: make(chan os.Signal, 1)}
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.in = int(f.Fd())
	}
	err := s.open()
	if err == nil {
		signal.Notify(s.suspended, unix.SIGTSTP)
		signal.Notify(s.continued, unix.SIGCONT)
	}
	return s, err
}

// open takes the terminal.
func (s *screen) open() error {
	if s.in >= 0 {
		state, err := term.MakeRaw(s.in)
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		s.before = state
	}
	s.resized()
	_, err := s.out.WriteString("\x1b[?1049h\x1b[?25l")
	return err
}

// leave gives the terminal back as it was.
func (s *screen) leave() {
	s.out.WriteString("\x1b[?25h\x1b[?1049l")
	if s.before != nil {
		_ = term.Restore(s.in, s.before) // nobody is left to be told
		s.before = nil
	}
}

// close is leave for good.
func (s *screen) close() {
	signal.Stop(s.suspended)
	signal.Stop(s.continued)
	s.leave()
}

// suspend stops the process, as Control-Z does, until the shell lets it go on.
func (s *screen) suspend(ctx context.Context) error {
	s.leave()
	select {
	case <-s.continued: // of before
	default:
	}
	if err := unix.Kill(os.Getpid(), unix.SIGSTOP); err != nil {
		return fmt.Errorf("suspend: %w", err)
	}
	// This thread may run on for a moment before the process stops: what it did to
	// the terminal now, the shell would undo.
	select {
	case <-s.continued:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.resume(ctx)
}

// resume takes the terminal after the process was stopped, once it is in the
// foreground: until then the terminal is the shell's.
func (s *screen) resume(ctx context.Context) error {
	for s.in >= 0 {
		group, err := unix.IoctlGetInt(s.in, unix.TIOCGPGRP)
		if err != nil || group == unix.Getpgrp() {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	before := s.before
	err := s.open()
	if before != nil {
		s.before = before // the shell's own settings may not be those of programs
	}
	return err
}

// resized asks for the size and reports whether it has changed.
func (s *screen) resized() bool {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	changed := width != s.width || height != s.height
	s.width, s.height = width, height
	return changed
}

// draw writes the lines over those of before, in one write.
func (s *screen) draw(lines func(width, height int) []string) error {
	s.resized()
	var b strings.Builder
	b.WriteString("\x1b[H")
	all := lines(s.width, s.height)
	for i, line := range all[:min(len(all), s.height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	if _, err := s.out.WriteString(b.String()); err != nil {
		return outputError{err}
	}
	return nil
}

// keys waits for a key and reports whether it is one that quits, or suspends.
func (s *screen) keys(d time.Duration) (quit, suspend bool) {
	if s.in < 0 {
		time.Sleep(d)
		return false, false
	}
	fds := []unix.PollFd{{Fd: int32(s.in), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(d.Milliseconds()))
	if err != nil || n == 0 {
		return false, false
	}
	var key [16]byte
	k, err := unix.Read(s.in, key[:])
	if err != nil {
		return !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN), false
	}
	const interrupt, end, stop = 3, 4, 26 // with Control: C, D, Z
	has := func(b byte) bool { return slices.Contains(key[:k], b) }
	return k == 0 || has('q') || has('Q') || has(interrupt) || has(end), has(stop)
}
