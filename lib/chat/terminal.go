package chat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// What introduces a line on a terminal: what is typed, what comes, and what the
// program itself says. A text of the other end has its mark on each line, so
// that it cannot look like anything else.
const (
	prompt   = "> "
	incoming = "< "
	ownMark  = "-- "
)

// leaveKey is Ctrl-], as in telnet: it gives the terminal back.
const leaveKey = 0x1d

// restore undoes what the programs of a shell may have done to the terminal:
// attributes, the alternate screen, mouse, cursor, keypad, scrolling region.
const restore = "\x1b[0m\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?25h\x1b[?1l\x1b>\x1b[r\x1b[999;1H\r\n"

// heldMax is how many lines are kept while somebody else has the terminal.
const heldMax = 10_000

// terminal is a screen with line editing.
type terminal struct {
	in, out *os.File
	keys    *keyboard
	t       *term.Terminal
	old     *term.State
	signals chan os.Signal
	stop    sync.WaitGroup

	// wide is set while the line that is typed has characters of two columns:
	// where it is wrapped, drawing it anew would leave a copy behind each time.
	wide atomic.Bool

	mu      sync.Mutex
	cols    int
	lent    bool     // to a command or a shell: nothing is shown
	held    []string // what is shown after that
	lost    int      // what is not
	bar     string
	shell   shellText
	cooked  bool         // a command has it
	closed  bool         // the terminal is as it was found, and stays so
	passing bool         // output of the shell goes to the terminal as it is
	over    bool         // there is no shell to be raw with
	resized func(window) // the shell is told
}

// newTerminal puts in and out, a terminal, into raw mode, until close.
// interrupt is called for ^C.
func newTerminal(in, out *os.File, interrupt func(), complete func(line string, pos int) (string, int, bool)) (*terminal, error) {
	t := &terminal{in: in, out: out, signals: make(chan os.Signal, 8)}
	old, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	t.old = old
	// A line that is sent goes up the screen without the bar.
	t.keys = &keyboard{in: in, interrupt: interrupt, enter: func() { t.progress("") }, wide: &t.wide}
	t.t = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{t.keys, &homing{out}}, prompt)
	t.t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return complete(line, pos)
	}
	t.t.SetBracketedPasteMode(true)
	t.size()
	signal.Notify(t.signals, syscall.SIGWINCH, syscall.SIGCONT)
	t.stop.Go(func() {
		for s := range t.signals {
			if s == syscall.SIGCONT {
				t.resume()
			}
			t.size()
		}
	})
	return t, nil
}

// size looks how big the terminal is.
func (t *terminal) size() {
	cols, rows, err := term.GetSize(int(t.out.Fd()))
	if err != nil || cols <= 0 || rows <= 0 {
		cols, rows = 80, 24
	}
	t.mu.Lock()
	was, resized := t.cols, t.resized
	t.cols = cols
	if !t.lent {
		if cols < was {
			t.shrink(was)
		}
		_ = t.t.SetSize(cols, rows)
	}
	t.mu.Unlock()
	if resized != nil {
		resized(window{Rows: uint16(min(rows, 65535)), Cols: uint16(min(cols, 65535))})
	}
}

// resume makes the terminal raw again when the program was stopped: a shell has
// used it meanwhile.
func (t *terminal) resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.cooked {
		return
	}
	_, _ = term.MakeRaw(int(t.in.Fd()))
	if !t.lent {
		t.t.SetBracketedPasteMode(true)
		_, _ = t.t.Write(nil) // draws the line anew
	}
}

// shrink takes the bar away when the terminal has become narrower than the was
// columns it had. Most terminals break then what does not fit any more, which
// the line editor does not expect of a line that fitted. mu is held.
func (t *terminal) shrink(was int) {
	if t.bar == "" {
		return
	}
	n := utf8.RuneCountInString(t.bar) + 1 + len(prompt) + int(t.keys.typed.Load())
	if up := (n - 1) / t.cols; up > 0 && n < was {
		_, _ = fmt.Fprintf(t.out, "\r\x1b[%dA\x1b[J", up)
	}
	t.bar = ""
	t.t.SetPrompt(prompt)
}

func (t *terminal) close() {
	signal.Stop(t.signals)
	close(t.signals)
	t.stop.Wait()
	t.progress("")
	t.t.SetBracketedPasteMode(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passing {
		_, _ = io.WriteString(t.out, restore)
	}
	_, _ = io.WriteString(t.out, "\r\x1b[K")
	for _, row := range t.held {
		_, _ = io.WriteString(t.out, row+"\r\n")
	}
	_ = term.Restore(int(t.in.Fd()), t.old)
	t.passing, t.closed = false, true
}

func (t *terminal) people() bool { return true }

func (t *terminal) width() int {
	cols, _, err := term.GetSize(int(t.out.Fd()))
	if err != nil || cols <= 0 {
		cols = 80
	}
	return max(20, cols*2/3)
}

// line shows a line with a mark, above the one that is typed. mu is held.
func (t *terminal) line(mark, s string) {
	for _, row := range rows(mark, s, t.cols) {
		t.show(row)
	}
}

// rows cuts a line into rows of the terminal, each with the mark: where the
// terminal breaks it, what the other end sends could stand at the start of a
// row, and look like what it is not.
func rows(mark, s string, cols int) (list []string) {
	room := max(cols-len(mark)-1, 8)
	used, from := 0, 0
	for i, r := range s {
		w := 1
		if r >= 0x1100 { // the first of those that may be of two columns
			w = 2
		}
		if used+w > room {
			list = append(list, mark+s[from:i])
			used, from = 0, i
		}
		used += w
	}
	return append(list, mark+s[from:])
}

// show shows a row, or keeps it until the terminal is back. mu is held.
func (t *terminal) show(row string) {
	switch {
	case t.closed:
	case !t.lent:
		_, _ = io.WriteString(t.t, row+"\n")
	case len(t.held) < heldMax:
		t.held = append(t.held, row)
	default:
		t.lost++
	}
}

func (t *terminal) text(s string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines, left := safeLines(s)
	for _, line := range lines {
		t.line(incoming, line)
	}
	if left > 0 {
		t.line(ownMark, leftText(left))
	}
	return nil
}

func (t *terminal) note(format string, args ...any) {
	s := noteText(format, args)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line(ownMark, s)
}

// progress puts the bar before the line that is typed, where it neither scrolls
// nor hides anything.
func (t *terminal) progress(s string) {
	if t.wide.Load() {
		s = ""
	}
	cols, _, err := term.GetSize(int(t.out.Fd()))
	t.mu.Lock()
	defer t.mu.Unlock()
	// What was drawn for another size is gone first, see size.
	if s == t.bar || s != "" && err == nil && cols < t.cols {
		return
	}
	t.bar = s
	if s != "" {
		s += " "
	}
	t.t.SetPrompt(s + prompt)
	if !t.lent {
		_, _ = t.t.Write(nil) // draws it anew
	}
}

func (t *terminal) readLine() (string, bool, error) {
	line, err := t.t.ReadLine()
	if errors.Is(err, term.ErrPasteIndicator) {
		return line, true, nil
	}
	return line, false, err
}

// lend keeps the screen still.
func (t *terminal) lend() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent = true
}

// takeBack shows what had to wait.
func (t *terminal) takeBack() {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	held, lost := t.held, t.lost
	t.held, t.lost, t.lent = nil, 0, false
	for _, s := range held {
		t.show(s)
	}
	if lost > 0 {
		t.line(ownMark, noteText("%d lines that came meanwhile are not shown", []any{lost}))
	}
	t.mu.Unlock()
	t.size()
}

func (t *terminal) during(f func() error) error {
	t.lend()
	defer t.takeBack()
	t.t.SetBracketedPasteMode(false)
	t.mu.Lock()
	t.cooked = true
	_ = term.Restore(int(t.in.Fd()), t.old)
	t.mu.Unlock()
	err := f()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cooked = false
	if t.closed {
		return err // the program has ended meanwhile, and nobody would undo it
	}
	if _, rawErr := term.MakeRaw(int(t.in.Fd())); rawErr != nil {
		err = errors.Join(err, rawErr)
	}
	t.t.SetBracketedPasteMode(true)
	return err
}

func (t *terminal) shellOut(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.passing {
		_, _ = t.out.Write(b)
		return
	}
	if t.shell.timer != nil {
		t.shell.timer.Stop()
	}
	for _, line := range t.shell.add(b) {
		t.line(incoming, line)
	}
	if t.shell.rest != "" {
		t.shell.timer = time.AfterFunc(restAfter, t.flushShell)
	}
}

func (t *terminal) flushShell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.shell.flush(); s != "" {
		t.line(incoming, s)
	}
}

func (t *terminal) shellOver() {
	t.flushShell()
	t.mu.Lock()
	passing := t.passing
	t.over = true
	if passing {
		_, _ = io.WriteString(t.out, restore+ownMark+"the shell has ended, press a key\r\n")
	}
	t.passing = false
	t.mu.Unlock()
}

func (t *terminal) raw(keys func(string) error, resized func(window)) error {
	t.lend()
	t.t.SetBracketedPasteMode(false)
	t.mu.Lock()
	t.passing, t.over, t.resized = true, false, resized
	t.mu.Unlock()
	t.size()
	buf := make([]byte, 4096)
	var err error
	for err == nil {
		var n int
		n, err = t.keys.direct(buf)
		t.mu.Lock()
		over := t.over
		t.mu.Unlock()
		if over {
			break
		}
		b, rest, left := bytes.Cut(buf[:n], []byte{leaveKey})
		if len(b) > 0 && keys(string(b)) != nil {
			break // the connection has ended, and the shell with it
		}
		if left {
			t.keys.back(rest)
			break
		}
	}
	t.mu.Lock()
	t.resized = nil
	if t.closed {
		t.mu.Unlock()
		return err
	}
	if t.passing {
		_, _ = io.WriteString(t.out, restore)
	}
	t.passing = false
	t.mu.Unlock()
	t.t.SetBracketedPasteMode(true)
	t.takeBack()
	return err
}

// keyboard is what is typed, as the line editor gets it: ^C is an interrupt
// that also empties the line, and what is pasted has no control characters.
type keyboard struct {
	in        *os.File
	interrupt func() // ^C was typed
	enter     func() // a line is about to end
	wide      *atomic.Bool
	typed     atomic.Int64 // characters of the line, the cursor behind them; or unknown and more
	pending   []byte       // read and not given out
	paste     bool
}

// wideFrom is the first byte of all characters that may be of two columns, and
// of others.
const wideFrom = 0xe1

// unknown is more than fits into any line.
const unknown = 1 << 20

// How a terminal brackets what is pasted.
const (
	pasteStart = "\x1b[200~"
	pasteEnd   = "\x1b[201~"
)

// direct reads what is typed as it is.
func (k *keyboard) direct(b []byte) (int, error) {
	if len(k.pending) > 0 {
		n := copy(b, k.pending)
		k.pending = k.pending[n:]
		return n, nil
	}
	return k.in.Read(b)
}

// back gives back what belongs to the line editor.
func (k *keyboard) back(b []byte) { k.pending = append(append([]byte(nil), b...), k.pending...) }

// Read is of io.Reader. It gives out one piece at a time, so that what follows
// the end of a line stays for whoever reads next.
func (k *keyboard) Read(b []byte) (int, error) {
	var out []byte
	for len(out) == 0 {
		if len(k.pending) == 0 || k.half() {
			buf := make([]byte, 4096)
			n, err := k.in.Read(buf)
			if n == 0 && err != nil {
				return 0, err
			}
			k.pending = append(k.pending, buf[:n]...)
		}
		out = k.next(len(b))
	}
	return copy(b, out), nil
}

// half tells whether pending is the start of an end of a paste, and no more.
func (k *keyboard) half() bool {
	return k.paste && len(k.pending) < len(pasteEnd) && strings.HasPrefix(pasteEnd, string(k.pending))
}

// next takes from pending what the line editor gets, at most max bytes, up to
// the end of a line.
func (k *keyboard) next(max int) (out []byte) {
	for len(k.pending) > 0 && len(out)+len(pasteEnd) <= max {
		switch c := k.pending[0]; {
		case !k.paste && bytes.HasPrefix(k.pending, []byte(pasteStart)):
			k.paste = true
			out = append(out, pasteStart...)
			k.pending = k.pending[len(pasteStart):]
			continue
		case k.paste && bytes.HasPrefix(k.pending, []byte(pasteEnd)):
			k.paste = false
			out = append(out, pasteEnd...)
			k.pending = k.pending[len(pasteEnd):]
			continue
		case k.half():
			return out
		case !k.paste && c == 3:
			k.interrupt()
			k.wide.Store(false)
			k.typed.Store(0)
			out = append(out, 5, 21) // to the end of the line, and delete to its start
		case k.paste && c == '\t':
			k.typed.Add(4)
			out = append(out, "    "...)
		case k.paste && c == '\n':
			out = append(out, '\r')
		case k.paste && (c < ' ' && c != '\r' || c == 0x7f):
		default:
			if c >= wideFrom {
				k.wide.Store(true)
			}
			switch {
			case c < ' ': // an earlier line, a completed one, or the cursor moves
				k.typed.Add(unknown)
			case c == 0x7f:
				if k.typed.Load() > 0 {
					k.typed.Add(-1)
				}
			case utf8.RuneStart(c):
				k.typed.Add(1)
			}
			out = append(out, c)
		}
		if n := len(out); n > 1 && out[n-1] == '\r' {
			return out[:n-1] // the editor has what is before it when enter is called
		}
		if len(out) == 1 && out[0] == '\r' {
			k.enter()
			k.wide.Store(false)
			k.typed.Store(0)
		}
		k.pending = k.pending[1:]
		if n := len(out); n > 0 && out[n-1] == '\r' {
			if len(k.pending) > 0 && k.pending[0] == '\n' {
				k.pending = k.pending[1:] // CR LF is one end of a line
			}
			return out
		}
	}
	return out
}

// homing is the output of the line editor. When it goes back to the start of
// the line to write above it, it counts a column for each character; what is
// twice as wide, as Chinese or emoji are, makes it stop short. The start of the
// line is where a carriage return leads in any case.
type homing struct{ out *os.File }

func (h *homing) Write(b []byte) (int, error) {
	if rest, ok := bytes.CutPrefix(b, []byte("\x1b[")); ok {
		digits := len(rest) - len(bytes.TrimLeft(rest, "0123456789"))
		if back, ok := bytes.CutPrefix(rest[digits:], []byte("D\x1b[K")); ok {
			fixed := append([]byte("\r\x1b[K"), back...)
			if _, err := h.out.Write(fixed); err != nil {
				return 0, err
			}
			return len(b), nil
		}
	}
	return h.out.Write(b)
}

// termType is $TERM for the shell of the other end.
func termType() string { return termName(os.Getenv("TERM")) }
