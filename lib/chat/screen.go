package chat

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen is what the user sees and types into. Its methods may be called by any
// goroutine, but for readLine and during, which are for the goroutine that
// reads.
type screen interface {
	// text shows a text of the other end, whatever is in it. An error is one
	// of the output: the text has not arrived.
	text(s string) error
	// note shows a line of the program's own. Its arguments may come from
	// the other end.
	note(format string, args ...any)
	// progress shows how far transfers are; "" shows nothing any more.
	progress(s string)
	// width is that of progress at most.
	width() int
	// shellOut shows output of a shell at the other end, shellOver that there
	// is no more.
	shellOut(b []byte)
	shellOver()
	// readLine returns the next line, without its end. A pasted one is never a
	// command.
	readLine() (line string, pasted bool, err error)
	// during gives the terminal to f, for a command.
	during(f func() error) error
	// raw gives all that is typed to keys, and the output of the shell to the
	// terminal as it is, until leave is typed, the shell is over or keys
	// returns an error. resized is called with each size, the first one
	// included.
	raw(keys func(string) error, resized func(window)) error
	// people tells whether somebody is there to be asked.
	people() bool
	close()
}

// plain is a screen without line editing, for pipes.
type plain struct {
	in  *bufio.Reader
	tty bool // in is a terminal

	mu     sync.Mutex
	out    io.Writer
	outTTY *os.File // out, when texts are for eyes
	err    io.Writer
	bars   bool // err is a terminal that can draw them
	bar    string
	failed func(error) // out cannot be written
	shell  unstyled
	within bool // a line of the shell has no end yet
}

func newPlain(in, out, errs *os.File, failed func(error)) *plain {
	p := &plain{
		in: bufio.NewReaderSize(in, 64<<10), tty: isTerminal(in),
		out: out, err: errs, bars: isTerminal(errs), failed: failed,
	}
	if isTerminal(out) {
		p.outTTY = out
	}
	return p
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// lineMax is how much of a line of a pipe becomes one text.
const lineMax = 1 << 20

func (p *plain) text(s string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outTTY == nil {
		return p.write(s + "\n")
	}
	// Marked, so that it cannot look like a note.
	p.fresh()
	defer p.draw()
	cols, _, err := term.GetSize(int(p.outTTY.Fd()))
	if err != nil || cols <= 0 {
		cols = 80
	}
	var out strings.Builder
	lines, left := safeLines(s)
	for _, line := range lines {
		for _, row := range rows(incoming, line, cols) {
			out.WriteString(row + "\n")
		}
	}
	if left > 0 {
		out.WriteString(ownMark + leftText(left) + "\n")
	}
	return p.write(out.String())
}

// fresh makes the next line of a terminal an own one. mu is held.
func (p *plain) fresh() {
	p.clear()
	if p.within {
		p.within = false
		_ = p.write("\n")
	}
}

// leftText says that of a text so much is not shown.
func leftText(bytes int) string { return bytesText(int64(bytes)) + " more of it are not shown" }

// write writes to the standard output.
func (p *plain) write(s string) error {
	_, err := io.WriteString(p.out, s)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("standard output: %w", bare(err))
	if p.failed != nil {
		p.failed(err)
		p.failed = nil
	}
	return err
}

func (p *plain) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fresh()
	// One write, so that it stays one line among others.
	io.WriteString(p.err, "-- "+noteText(format, args)+"\n")
	p.draw()
}

// noteText formats a note; what is in its arguments cannot break it.
func noteText(format string, args []any) string {
	return safe(fmt.Sprintf(format, args...))
}

func (p *plain) progress(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bars || s == p.bar {
		return
	}
	p.clear()
	p.bar = s
	p.draw()
}

// clear takes the bar away, draw puts it back.
func (p *plain) clear() {
	if p.bar != "" {
		io.WriteString(p.err, "\r\x1b[K")
	}
}

func (p *plain) draw() {
	if p.bar != "" {
		io.WriteString(p.err, p.bar)
	}
}

func (p *plain) width() int { return 79 }

func (p *plain) shellOut(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := string(b)
	if p.outTTY != nil {
		p.clear()
		defer p.draw()
		var out strings.Builder
		for line := range strings.Lines(p.shell.text(b)) {
			if !p.within {
				out.WriteString(incoming)
			}
			text, whole := strings.CutSuffix(line, "\n")
			out.WriteString(safe(text))
			if p.within = !whole; whole {
				out.WriteString("\n")
			}
		}
		s = out.String()
	}
	_ = p.write(s) // it ends the chat
}

func (p *plain) shellOver() {}

func (p *plain) readLine() (string, bool, error) {
	var line []byte
	for {
		part, err := p.in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), false, nil
		case errors.Is(err, bufio.ErrBufferFull) && len(line) < lineMax:
		case errors.Is(err, bufio.ErrBufferFull):
			return string(line), false, nil
		case len(line) > 0 && errors.Is(err, io.EOF):
			return string(line), false, nil
		default:
			return "", false, err
		}
	}
}

func (p *plain) during(f func() error) error { return f() }

func (p *plain) raw(func(string) error, func(window)) error {
	return errors.New("a shell takes a whole terminal: start without -plain, on a terminal")
}

func (p *plain) people() bool { return p.tty }

func (p *plain) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.bar = ""
}

// shellText gathers output of a shell into lines for a screen that has a line
// being typed: the last one, without an end yet, is shown when nothing follows.
type shellText struct {
	clean unstyled
	rest  string
	timer *time.Timer
}

// restAfter is how long the start of a line waits for the rest of it.
const restAfter = 100 * time.Millisecond

// add returns the lines that are whole.
func (t *shellText) add(b []byte) (lines []string) {
	all := strings.Split(t.rest+t.clean.text(b), "\n")
	t.rest = all[len(all)-1]
	for _, line := range all[:len(all)-1] {
		lines = append(lines, safe(line))
	}
	return lines
}

// flush returns what there is of a line.
func (t *shellText) flush() string {
	s := t.rest
	t.rest = ""
	return safe(s)
}
