// Aioc-ctl looks at and changes a running connector. See aioc-ctl(1).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
)

const name = "aioc-ctl"

func main() {
	ctx, end := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	p := program{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, interrupt: new(atomic.Pointer[func()])}
	p.ask = p.question
	go func() {
		for s := range signals {
			if f := p.interrupt.Load(); s == syscall.SIGINT && f != nil {
				(*f)()
				continue
			}
			signal.Stop(signals) // the second one ends the program at once
			end(signalError{s.(syscall.Signal)})
			return
		}
	}()
	os.Exit(p.run(ctx, os.Args[1:]))
}

// signalError ends the work because of a signal.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// errTimeout ends the work because of -timeout.
var errTimeout = errors.New("time is up: the connector did not answer")

// statusError is an error that knows its exit status. Without text, all was
// said already.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

func failf(status int, format string, args ...any) error {
	return &statusError{status, fmt.Sprintf(format, args...)}
}

// usagef is a mistake on the command line.
func usagef(format string, args ...any) error { return failf(cli.Usage, format, args...) }

// program is one run.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	opt            options
	menu           bool // questions are asked, and tables printed
	ask            func(ctx context.Context, question string) (string, error)
	interrupt      *atomic.Pointer[func()] // what the interrupt key does instead of ending the program
}

// catch makes the interrupt key call f until stop.
func (p *program) catch(f func()) (stop func()) {
	if p.interrupt == nil {
		return func() {}
	}
	p.interrupt.Store(&f)
	return func() { p.interrupt.Store(nil) }
}

// question asks on standard error and reads a line of standard input.
func (p *program) question(ctx context.Context, question string) (string, error) {
	fmt.Fprint(p.stderr, question)
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	// When ctx ends, the program ends, and the goroutine with it.
	go func() {
		var line []byte
		for b := make([]byte, 1); ; { // not more than the line
			n, err := p.stdin.Read(b)
			if n > 0 && b[0] != '\n' {
				line = append(line, b[0])
			}
			if err != nil || n > 0 && b[0] == '\n' {
				if err == io.EOF {
					err = nil // no answer
				}
				got <- read{strings.TrimSpace(string(line)), err}
				return
			}
		}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// options are the flags.
type options struct {
	target         api.Target
	json           bool
	timeout        time.Duration
	hard, yes, all bool
	frames         bool
	id, ip, typ    string
	count          int
	interval       time.Duration
	given          map[string]bool // those of one command that are there
}

// set declares the flags.
func (p *program) set(o *options) (set *cli.Set, fill func()) {
	set = cli.New(name, "[flags] COMMAND [ARG ...]\n[flags]", p.stdout, p.stderr)
	file, dir, connector := set.Config(), set.Dir(), set.Connector()
	asJSON := set.Bool("json", "print JSON, on a terminal too")
	timeout := set.Duration("timeout", 30*time.Second, "D", "how long to wait for an answer")
	hard := set.Bool("hard", "stop, restart, shutdown: at once")
	yes := set.Bool("yes", "purge, dead drop: do not ask")
	all := set.Bool("all", "dead: all messages")
	frames := set.Bool("frames", "spool dump: what waits, with its frames")
	id := set.String("id", "", "ID", "explain: name of a client")
	ip := set.String("ip", "", "IP", "explain: address of a client")
	typ := set.String("type", "", "TYPE", "dead: messages of this type")
	count := set.Int("n", 0, 1, "COUNT", "top: refresh COUNT times")
	interval := set.Duration("interval", time.Second, "D", "top: time between two refreshes")
	return set, func() {
		*o = options{target: api.Target{ConfigFile: *file, Dir: *dir, Connector: *connector}, json: *asJSON, timeout: *timeout,
			hard: *hard, yes: *yes, all: *all, frames: *frames, id: *id, ip: *ip, typ: *typ, count: *count, interval: *interval, given: map[string]bool{}}
		if set.Given("config") && !set.Given("dir") {
			o.target.PreferFile()
		}
		for _, f := range []string{"hard", "yes", "all", "frames", "id", "ip", "type", "n", "interval"} {
			if set.Given(f) {
				o.given[f] = true
			}
		}
	}
}

// parse reads the arguments: flags may stand before and after words.
func parse(set *cli.Set, args []string) (words []string, status int, done bool) {
	for {
		rest, status, done := set.Parse(args)
		if done {
			return nil, status, true
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(words, rest...), cli.OK, false
		}
		if len(rest) == 0 {
			return words, cli.OK, false
		}
		words, args = append(words, rest[0]), rest[1:]
	}
}

// usage is the text of -h: the flags, then the commands, for a terminal of so
// many columns, 0 for as many as it needs.
func usage(flags string, columns int) string {
	var b strings.Builder
	b.WriteString(flags + "commands:\n")
	indent := 30
	if columns > 0 && columns < 2*indent {
		indent = 6
	}
	for _, v := range control.Verbs() {
		words := strings.TrimRight(v.Word+" "+v.Args, " ")
		help := strings.Join(wrap(v.Help, columns-indent), "\n"+strings.Repeat(" ", indent))
		if len(words) > indent-4 {
			words = strings.Join(wrap(words, columns-2), "\n"+strings.Repeat(" ", 4))
			fmt.Fprintf(&b, "  %s\n%*s%s\n", words, indent, "", help)
		} else {
			fmt.Fprintf(&b, "  %-*s%s\n", indent-2, words, help)
		}
	}
	return b.String()
}

// run is the program: its arguments in, its exit status out. A signal ends ctx
// with a signalError.
func (p *program) run(ctx context.Context, args []string) int {
	// The usage text of the set is followed by the commands.
	var own strings.Builder
	stdout := p.stdout
	p.stdout = &own
	set, fill := p.set(&p.opt)
	p.stdout = stdout
	words, status, done := parse(set, args)
	if done {
		text := own.String()
		if strings.HasPrefix(text, "usage:") {
			text = usage(text, 0)
		}
		if _, err := io.WriteString(p.stdout, text); err != nil {
			return p.report(ctx, err)
		}
		return status
	}
	fill()
	for _, f := range []string{"id", "ip", "type"} {
		if p.opt.given[f] && p.opt.text(f) == "" {
			return set.Mistake("-%s: the argument is empty", f)
		}
	}
	if p.opt.timeout <= 0 {
		return set.Mistake("-timeout: want more than 0")
	}
	if p.opt.interval < 100*time.Millisecond {
		return set.Mistake("-interval: want 100ms or more")
	}
	var err error
	if len(words) > 0 {
		err = p.command(ctx, words)
	} else if !terminal(p.stdin) || !terminal(p.stdout) {
		return set.Mistake("a command is missing; without one a terminal is needed, for the menu")
	} else {
		err = p.interactive(ctx)
	}
	return p.report(ctx, err)
}

func (o *options) text(flag string) string {
	return map[string]string{"id": o.id, "ip": o.ip, "type": o.typ}[flag]
}

// terminal reports whether a stream is a terminal.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// report says what went wrong, and returns the status.
func (p *program) report(ctx context.Context, err error) int {
	if err == nil {
		return cli.OK
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	status := statusOf(err)
	var own *statusError
	if errors.As(err, &own) && own.text == "" || errors.As(err, new(outputError)) && errors.Is(err, syscall.EPIPE) {
		return status
	}
	var several config.Errors // a line for each
	if errors.As(err, &several) {
		err = several
	}
	cli.Report(p.stderr, name, err)
	if own != nil && own.status == cli.Usage {
		fmt.Fprintf(p.stderr, "see %s -h\n", name)
	}
	return status
}

// outputError is a failure to write to standard output.
type outputError struct{ error }

func (e outputError) Unwrap() error { return e.error }

// statusOf is the exit status for err.
func statusOf(err error) int {
	var (
		own      *statusError
		signaled signalError
		output   outputError
		notTaken *api.NotTaken
	)
	for _, s := range []struct {
		is     error
		status int
	}{
		{errTimeout, cli.Timeout},
		{context.DeadlineExceeded, cli.Timeout},
		{control.ErrArgument, cli.Usage},
		{control.ErrRefused, cli.Refused},
		{control.ErrAway, cli.Unavailable},
		{control.ErrBusy, cli.Temporary},
		{api.ErrLost, cli.Temporary},
		{api.ErrNoConnector, cli.Unavailable},
		{api.ErrNoAnswer, cli.Unavailable},
		{api.ErrDeclined, cli.Refused},
		{api.ErrSeveral, cli.Usage},
		{api.ErrRefused, cli.Refused},
		{api.ErrConfig, cli.BadConfig},
	} {
		if errors.Is(err, s.is) && !errors.As(err, &own) {
			return s.status
		}
	}
	switch {
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &signaled):
		return cli.Signaled(int(signaled.Signal))
	case errors.As(err, &output):
		if errors.Is(err, syscall.EPIPE) {
			return cli.Signaled(int(syscall.SIGPIPE))
		}
		if cli.Full(err) {
			return cli.Temporary
		}
	case errors.As(err, &notTaken):
		switch notTaken.Reason {
		case "away", "closed", "stopped", "name":
			return cli.Unavailable
		case "full":
			return cli.Temporary
		case "type", "ignored":
			return cli.Refused
		}
	}
	return cli.Failed
}

// command runs one command.
func (p *program) command(ctx context.Context, words []string) error {
	r, args, err := p.row(words)
	if err != nil {
		return err
	}
	for flag := range p.opt.given {
		if !slices.Contains(r.flags, flag) {
			return usagef("-%s can't be used with %s", flag, r.word)
		}
	}
	if !r.endless {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.opt.timeout, errTimeout)
		defer cancel()
	}
	c := &call{p: p, word: r.word, args: args}
	defer c.close()
	return r.run(ctx, c)
}

// row finds the command that words ask for.
func (p *program) row(words []string) (r row, args []string, err error) {
	all := rows()
	for _, r := range all {
		if r.word != words[0] {
			continue
		}
		args := words[1:]
		switch {
		case len(args) < r.least:
			return r, nil, usagef("%s: want %s", r.word, r.synopsis())
		case len(args) > r.most:
			return r, nil, usagef("%s: unexpected argument %q: want %s", r.word, args[r.most], r.synopsis())
		case slices.Contains(args, ""):
			return r, nil, usagef("%s: an argument is empty", r.word)
		}
		return r, args, nil
	}
	var known []string
	for _, r := range all {
		known = append(known, r.word)
	}
	hint := ""
	if near := nearest(words[0], known); near != "" {
		hint = fmt.Sprintf(" (did you mean %s?)", near)
	}
	return row{}, nil, usagef("no command %q%s", words[0], hint)
}

// nearest returns the word that begins like s, or differs least, or "".
func nearest(s string, words []string) string {
	best, least := "", 3
	for _, w := range words {
		if len(s) > 1 && strings.HasPrefix(w, s) {
			return w
		}
		if d := distance(s, w); d < least {
			best, least = w, d
		}
	}
	return best
}

// distance is how many letters must be put in, left out or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := last
			if a[i] != b[j] {
				d = min(last, row[j], row[j+1]) + 1
			}
			last, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
