// Package chat is two people, or two scripts, on two hosts, who talk and hand
// each other files.
//
//	chat.go      Run: the main loop, what is typed, who may talk
//	meet.go      calling and being called, words and keys
//	session.go   a connection with the other end, and what goes over it
//	outbox.go    what waits for the other end
//	upload.go    files out
//	receive.go   files in
//	land.go      a received file, from its first byte to its name
//	zip.go       directories as archives, and back
//	shell.go     a shell for the other end, in a pseudo-terminal (pty_*.go)
//	commands.go  the ! commands, and completion
//	screen.go    what the user sees, without line editing
//	terminal.go  the same with it
//	progress.go  bars
//	escape.go    texts and names of the other end made harmless
//	keys.go      the key of this end, and those of others
//	words.go     the words of a session
//
// The other end is the same program or the chat of the original, in either
// role: TLS that proves nobody, messages of type "any" and nothing else. What
// goes beyond (files in pieces, a shell that fills the terminal, who is at the
// other end) is for two ends that have announced it; session.go lists it.
//
// Goroutines of a chat:
//
//	main loop   Run; owns all that has no lock
//	typing      reads lines, one at a time; it ends when its input does, or
//	            with the program
//	link        one for each connection: session.run, reader and writer of lib/link
//	watch       one for each connection, see session.watch
//	send        one while files wait to be sent
//	shell       those of a shell, while it runs
package chat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/fold"
)

var (
	// ErrAway is wrapped when there is nobody at the other address.
	ErrAway = errors.New("not reachable")
	// ErrRefused is wrapped when one of the ends did not want to talk.
	ErrRefused = errors.New("refused")
	// ErrBusy is wrapped when the other end talks with somebody else.
	ErrBusy = errors.New("busy")
	// ErrBroken is wrapped when the connection ended before everything had
	// arrived, or the other end's disk is full: it may help to try again.
	ErrBroken = errors.New("not all has arrived")
)

// DefaultPort is where a chat listens.
const DefaultPort = 10673

// Options of a chat. Stdin, Stdout and Stderr are required.
type Options struct {
	Target string // host to call; "" waits for a call
	Port   int    // where to call or to listen; 0 listens where the system likes
	Bind   string // address or interface to listen on; "" is all
	Accept bool   // ask nobody whether a caller may talk
	Upload string // file or directory: send it and leave
	Exec   string // shell that the other end gets
	Plain  bool   // no line editing
	Dumb   bool   // the terminal knows no escape sequences: no line editing, no bars

	Dir   string // where received files go
	State string // directory of keys; "" keeps none

	Stdin, Stdout, Stderr *os.File

	silence time.Duration // as the constant; tests have less patience
}

// listens tells which of the two ends this is.
func (o *Options) listens() bool { return o.Target == "" }

// chat is a running program. Its fields without a note belong to the main loop.
type chat struct {
	o         Options // constant
	ui        screen  // constant
	log       *slog.Logger
	fold      *fold.Log
	uploading bool // constant: -upload
	side      sync.WaitGroup

	mu     sync.Mutex
	events []func() // for the main loop
	some   chan struct{}

	ln        net.Listener
	s         *session       // whom we talk to, or are about to
	callers   []*session     // who wait until they may
	question  func(yes bool) // what the next line answers
	asking    string         // its words
	withdrawn time.Time      // when there was a question and nobody to answer any more
	notBefore time.Time      // a yes before that was meant for another question
	tick      *time.Ticker   // while there is something to show
	interrupt time.Time      // the last ^C
	typed     bool           // something was read
	eof       bool           // nothing more will be
	done      bool
	result    error
	commands  context.CancelFunc // of a command that can be interrupted
	running   chan struct{}      // closed when the command that has the terminal ends
}

// Run talks until one end leaves, or ctx ends, whose cause it then returns. The
// terminal is left as it was found. Errors wrap ErrAway, ErrRefused, ErrBusy or
// ErrBroken where one of them is the reason; nil is a chat that ended as asked.
func Run(ctx context.Context, o Options) error {
	if o.silence == 0 {
		o.silence = silence
	}
	c := &chat{o: o, uploading: o.Upload != "", some: make(chan struct{}, 1)}
	c.log = slog.New(noteLog{c})
	c.fold = fold.New(c.log)
	defer c.fold.Close()
	if o.Plain || o.Dumb || c.uploading || !isTerminal(o.Stdin) || !isTerminal(o.Stdout) {
		p := newPlain(o.Stdin, o.Stdout, o.Stderr, func(err error) {
			c.post(func() { c.leave(err) })
		})
		p.bars = p.bars && !o.Dumb
		c.ui = p
	} else {
		t, err := newTerminal(o.Stdin, o.Stdout, func() { c.post(c.interrupted) }, c.complete)
		if err != nil {
			return fmt.Errorf("terminal: %w", err)
		}
		c.ui = t
	}
	ctx, cancel := context.WithCancel(ctx)
	defer c.ui.close()
	defer c.side.Wait()
	defer cancel()
	var err error
	if o.listens() {
		err = c.listen(ctx)
	} else {
		err = c.call(ctx)
	}
	if err != nil {
		return err
	}
	return c.loop(ctx)
}

// line is what was typed.
type line struct {
	text   string
	pasted bool
	err    error
	next   chan func() // what to do before the next one is read
}

// loop is the main loop.
func (c *chat) loop(ctx context.Context) error {
	lines := make(chan line)
	if !c.uploading || c.people() {
		go c.read(ctx, lines)
	}
	for !c.done {
		in := lines
		if !c.wants() {
			in = nil
		}
		var tick <-chan time.Time
		if c.tick != nil {
			tick = c.tick.C
		}
		select {
		case <-ctx.Done():
			if c.s != nil {
				c.s.giveUp()
			}
			c.leave(context.Cause(ctx))
		case <-c.some:
			c.run()
		case l := <-in:
			l.next <- c.line(ctx, l)
		case <-tick:
			c.show()
		}
	}
	if c.running != nil {
		select {
		case <-c.running: // an editor is not taken away from its user
		case <-ctx.Done():
			c.result = context.Cause(ctx)
			select { // it is being hung up on
			case <-c.running:
			case <-time.After(2 * hangUp):
			}
		}
	}
	if c.ln != nil {
		c.ln.Close()
	}
	for _, s := range c.callers {
		c.decline(s, "left")
	}
	if s := c.s; s != nil {
		c.part(s)
	}
	return c.result
}

// part hangs up, after what was typed has arrived if that takes no time.
func (c *chat) part(s *session) {
	if !s.ready {
		s.refuse("left")
		return
	}
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.giveUp()
	_ = s.out.waitIdle(ctx) // it is not worth more waiting
	s.end(errEnded)
}

// read reads lines, one after the other. Nothing can end a read of a terminal:
// the goroutine goes with the program.
func (c *chat) read(ctx context.Context, lines chan<- line) {
	for {
		l := line{next: make(chan func(), 1)}
		l.text, l.pasted, l.err = c.ui.readLine()
		select {
		case lines <- l:
		case <-ctx.Done():
			return
		}
		if l.err != nil {
			return
		}
		select {
		case work := <-l.next:
			if work != nil {
				work()
			}
		case <-ctx.Done():
			return
		}
	}
}

// wants tells whether a line can be taken now. What comes through a pipe waits
// for somebody to read it; people are told that nobody is there.
func (c *chat) wants() bool {
	if c.uploading {
		return c.question != nil
	}
	return c.ui.people() || c.question != nil || c.s != nil && c.s.ready
}

// post has f called by the main loop. It does not wait.
func (c *chat) post(f func()) {
	c.mu.Lock()
	c.events = append(c.events, f)
	c.mu.Unlock()
	select {
	case c.some <- struct{}{}:
	default:
	}
}

// run does what was posted.
func (c *chat) run() {
	c.mu.Lock()
	events := c.events
	c.events = nil
	c.mu.Unlock()
	for _, f := range events {
		f()
	}
}

// leave ends the main loop. The first reason counts.
func (c *chat) leave(err error) {
	if !c.done {
		c.done, c.result = true, err
	}
}

// line handles what was typed, and returns what the goroutine that types is to
// do about it.
func (c *chat) line(ctx context.Context, l line) (work func()) {
	switch {
	case l.err != nil:
		c.ended(ctx, l.err)
		return nil
	case c.question != nil:
		word := strings.ToLower(strings.TrimSpace(l.text))
		yes := word == "y" || word == "yes"
		if yes && (l.pasted || time.Now().Before(c.notBefore)) {
			c.ui.note("%s y/N", c.asking)
			return nil
		}
		answer := c.question
		c.question = nil
		answer(yes)
		return nil
	case c.uploading:
		return nil
	}
	c.typed = true
	text := l.text
	// What comes through a pipe is data, and so is what was pasted.
	if strings.HasPrefix(text, "!") && c.ui.people() && !l.pasted {
		return c.command(ctx, text)
	}
	s := c.s
	if s == nil || !s.ready {
		c.ui.note("nobody is there yet: this was not sent")
		return nil
	}
	if c.ui.people() && !s.hello.Shell {
		if text = strings.TrimSpace(text); text == "" && s.isNative() {
			return nil
		}
	}
	if err := s.say(text, !c.ui.people()); err != nil && !errors.Is(err, errGone) && ctx.Err() == nil {
		c.ui.note("not sent: %v", err)
	}
	return nil
}

// ended handles the end of the input.
func (c *chat) ended(ctx context.Context, err error) {
	c.eof = true
	if c.question != nil {
		c.question(false)
		c.question = nil
	}
	if c.uploading {
		return
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) {
		c.leave(fmt.Errorf("standard input: %w", bare(err)))
		return
	}
	if c.ui.people() {
		c.leave(nil) // ^D
		return
	}
	// An end that was called with nothing to say listens on.
	if c.o.listens() && !c.typed {
		return
	}
	if c.s == nil {
		c.leave(nil)
		return
	}
	c.finish(ctx, c.s)
}

// finish leaves when everything has arrived, here too.
func (c *chat) finish(ctx context.Context, s *session) {
	s.leaving = true
	silent := !c.typed
	c.side.Go(func() {
		err := s.deliver(ctx)
		if err == nil {
			err = s.collect()
		}
		if err != nil {
			<-s.ended // it is known then what has arrived
			// An end that has sent its file leaves at once, and need not say
			// that it has read our greeting.
			if s.complete() && (silent || s.acks && !s.cut.Load()) {
				err = nil
			} else {
				err = fmt.Errorf("%w: %w", ErrBroken, s.why())
			}
		}
		if missed := s.missing(); missed != nil {
			err = missed
		}
		c.post(func() { c.leave(err) })
	})
}

// interrupted handles ^C on a terminal: the first one ends what takes long, a
// second one soon after leaves.
func (c *chat) interrupted() {
	const soon = 3 * time.Second
	now := time.Now()
	again := now.Sub(c.interrupt) < soon
	c.interrupt = now
	switch {
	case c.s != nil && c.s.giveUp():
	case again && !c.o.listens() && (c.s == nil || !c.s.ready):
		c.leave(errors.New("given up before the other end accepted"))
	case again:
		c.leave(nil)
	case c.commands != nil:
		c.commands()
	default:
		c.ui.note("^C once more, or !exit, leaves")
	}
}

// busy shows bars from now on. It may be called by any goroutine.
func (c *chat) busy() {
	c.post(func() {
		if c.tick == nil {
			c.tick = time.NewTicker(200 * time.Millisecond)
		}
	})
}

// show draws the bars, or none.
func (c *chat) show() {
	var list []*transfer
	if c.s != nil {
		list = c.s.transferring()
	}
	if len(list) == 0 {
		if c.s == nil || !c.s.sending() {
			c.tick.Stop()
			c.tick = nil
		}
		c.ui.progress("")
		return
	}
	width := c.ui.width() / len(list)
	var bars []string
	for _, t := range list {
		bars = append(bars, t.bar(time.Now(), width-1))
	}
	c.ui.progress(strings.Join(bars, " "))
}

// noteLog shows what the packages below log: from warnings on.
type noteLog struct{ c *chat }

func (noteLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (h noteLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.Key + "=" + a.Value.String()
		return true
	})
	h.c.ui.note("%s", clip(text, 400))
	return nil
}

func (h noteLog) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h noteLog) WithGroup(string) slog.Handler      { return h }
