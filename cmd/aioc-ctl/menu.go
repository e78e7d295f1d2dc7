package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
)

// choice is one line of the menu. The numbers are those of the original's cli.
type choice struct {
	words string // the command
	wants string // what is asked for, "" for nothing
	sure  bool   // asks whether it is meant
}

func choices() []choice {
	return []choice{
		{words: "start"},
		{words: "stop"},
		{words: "stop -hard", sure: true},
		{words: "restart", sure: true},
		{words: "peers"},
		{words: "ignore-traffic", wants: "on, off, show, or the name of a peer"},
		{words: "queues"},
		{words: "delete-certificate", wants: "name of the client", sure: true},
		{words: "delete-token", wants: "name of the client", sure: true},
		{words: "disconnect", wants: "name of the client", sure: true},
		{words: "log-level"},
		{words: "log-level", wants: "level: DEBUG, INFO, WARNING, ERROR or CRITICAL"},
		{words: "subscriptions"},
		{words: "subscribe", wants: "message types, or none"},
		{words: "blacklist add", wants: "pattern of names, address or subnet", sure: true},
		{words: "blacklist remove", wants: "pattern of names, address or subnet"},
		{words: "whitelist add", wants: "pattern of names, address or subnet"},
		{words: "whitelist remove", wants: "pattern of names, address or subnet", sure: true},
	}
}

// menu is the dialogue on a terminal.
type menu struct {
	p      *program
	in     *os.File
	screen *term.Terminal
	names  []string // of peers, for completion
}

// interactive runs the menu until the user leaves it.
func (p *program) interactive(ctx context.Context) error {
	in, out := p.stdin.(*os.File), p.stdout.(*os.File)
	m := &menu{p: p, in: in, screen: term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "")}
	p.menu = true
	p.ask = m.line
	m.screen.AutoCompleteCallback = m.complete
	if err := m.choose(ctx); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	if err := p.write([]byte(m.text())); err != nil {
		return err
	}
	for {
		m.learn(ctx)
		line, err := m.line(ctx, m.prompt())
		if errors.Is(err, io.EOF) {
			return p.write([]byte("\n"))
		}
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "q", "quit", "exit":
			return nil
		case "help", "?", "h":
			if err := p.write([]byte(m.text() + usage("", m.width()))); err != nil {
				return err
			}
			continue
		}
		if err := m.run(ctx, words); err != nil {
			if ctx.Err() != nil || errors.As(err, new(outputError)) {
				return err
			}
			var own *statusError
			if !errors.As(err, &own) || own.text != "" {
				cli.Report(p.stderr, name, err)
			}
		}
	}
}

func (m *menu) prompt() string {
	if c := m.p.opt.target.Connector; c != "" {
		return "aioc " + cli.Escape(c) + "> "
	}
	return "aioc> "
}

// text is the list of numbers, in as many columns as there is room for.
func (m *menu) text() string {
	var items []string
	widest := 0
	for i, c := range choices() {
		s := fmt.Sprintf("%2d %s", i, c.words)
		if c.wants != "" {
			s += " ..."
		}
		items, widest = append(items, s), max(widest, len(s)+2)
	}
	columns := max(1, m.width()/widest)
	rows := (len(items) + columns - 1) / columns
	var b strings.Builder
	for r := range rows {
		line := ""
		for i := r; i < len(items); i += rows {
			line += fmt.Sprintf("%-*s", widest, items[i])
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	hint := "A number, a command (help shows all, Tab completes), or q."
	if len(hint) >= m.width() {
		hint = "A number, a command, help, or q."
	}
	return b.String() + hint + "\n"
}

func (m *menu) width() int {
	width, _, err := term.GetSize(int(m.in.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

// line reads a line, with history and completion. Control-C and Control-D are
// io.EOF.
func (m *menu) line(ctx context.Context, prompt string) (string, error) {
	state, err := term.MakeRaw(int(m.in.Fd()))
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer term.Restore(int(m.in.Fd()), state)
	resize := func() {
		if width, height, err := term.GetSize(int(m.in.Fd())); err == nil {
			_ = m.screen.SetSize(width, height) // only a width of nothing is an error
		}
	}
	resize()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	m.screen.SetPrompt(prompt)
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	// When ctx ends, the program ends, and the goroutine with it.
	go func() {
		line, err := m.screen.ReadLine()
		got <- read{line, err}
	}()
	for {
		select {
		case <-resized:
			resize()
		case r := <-got:
			if errors.Is(r.err, term.ErrPasteIndicator) {
				r.err = nil
			}
			return strings.TrimSpace(r.line), r.err
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// choose asks which connector when several run and none was named.
func (m *menu) choose(ctx context.Context) error {
	t := &m.p.opt.target
	if t.ConfigFile != "" || t.Connector != "" {
		return nil
	}
	dir := t.Dir
	if dir == "" {
		dir = config.Defaults().Dir()
	}
	all, err := config.Running(dir)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(e config.Endpoint) bool { return !e.Alive() })
	if len(all) == 0 {
		return fmt.Errorf("%w in %s: start aioc-server or aioc-client, or name its directory with -dir", api.ErrNoConnector, dir)
	}
	names := api.Names(ctx, all)
	if len(all) == 1 {
		t.Connector = names[0]
		return nil
	}
	var b strings.Builder
	for i, e := range all {
		fmt.Fprintf(&b, "%2d %s (%s)\n", i, cli.Escape(names[i]), pick(e.Server, "server", "client"))
	}
	if err := m.p.write([]byte(b.String())); err != nil {
		return err
	}
	m.names = names
	for {
		answer, err := m.line(ctx, "which connector? ")
		if err != nil {
			return err
		}
		if answer == "q" {
			return io.EOF
		}
		if i, err := strconv.Atoi(answer); err == nil && i >= 0 && i < len(all) {
			t.Connector = names[i]
			return nil
		}
		if slices.Contains(names, answer) {
			t.Connector = answer
			return nil
		}
	}
}

// run runs one line.
func (m *menu) run(ctx context.Context, words []string) error {
	sure := words[0] == "shutdown" // it has no number, and nothing here undoes it
	if i, err := strconv.Atoi(words[0]); err == nil {
		all := choices()
		if i < 0 || i >= len(all) {
			return usagef("no number %d: they end with %d", i, len(all)-1)
		}
		c := all[i]
		words = append(strings.Fields(c.words), words[1:]...)
		if c.wants != "" && len(words) == len(strings.Fields(c.words)) {
			answer, err := m.line(ctx, c.wants+": ")
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if answer == "" && !strings.HasPrefix(c.words, "delete-") { // a client deletes its own
				return failf(cli.Failed, "%s: nothing was done", c.words)
			}
			words = append(words, strings.Fields(answer)...)
		}
		sure = c.sure
	}
	if sure {
		if err := m.sure(ctx, words); err != nil {
			return err
		}
	}
	one := *m.p
	set, fill := one.set(&one.opt)
	words, _, done := parse(set, words)
	if done || len(words) == 0 {
		return nil
	}
	fill()
	// Which connector stays, unless the line says otherwise.
	chosen := m.p.opt.target
	if !set.Given("config") && !set.Given("dir") && !set.Given("connector") {
		one.opt.target = chosen
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := m.p.catch(func() { cancel(failf(cli.Failed, "interrupted")) })
	defer stop()
	return one.command(ctx, words)
}

// sure asks whether the command is meant.
func (m *menu) sure(ctx context.Context, words []string) error {
	answer, err := m.p.ask(ctx, strings.Join(words, " ")+": sure? (y/n) ")
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !strings.HasPrefix(strings.ToLower(answer), "y") {
		return failf(cli.Failed, "%s: nothing was done", strings.Join(words, " "))
	}
	return nil
}

// learn asks for the names of the peers, for completion.
func (m *menu) learn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := api.OpenControl(ctx, m.p.opt.target)
	if err != nil {
		return // a command says why
	}
	defer c.Close()
	reply, err := c.Call(ctx, "show_connected_peers__sync", map[string]any{"dump_result": true})
	var peers map[string]any
	if err == nil && json.Unmarshal([]byte(text(reply)), &peers) == nil {
		m.names = nil
		for name := range peers {
			m.names = append(m.names, name)
		}
		slices.Sort(m.names)
	}
}

// complete completes the word before the cursor when Tab is typed.
func (m *menu) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	before, after := line[:pos], line[pos:]
	start := strings.LastIndexByte(before, ' ') + 1
	list := slices.DeleteFunc(m.candidates(strings.Fields(before[:start])), func(s string) bool { return !strings.HasPrefix(s, before[start:]) })
	if len(list) == 0 {
		return line, pos, true
	}
	common := list[0]
	for _, s := range list {
		for !strings.HasPrefix(s, common) {
			common = common[:len(common)-1]
		}
	}
	if len(list) == 1 {
		common += " "
	} else if common == before[start:] {
		fmt.Fprintln(m.screen, cut(cli.Escape(strings.Join(list, "  ")), 10*m.width()))
	}
	before = before[:start] + common
	return before + after, len(before), true
}

// candidates are what may follow the words.
func (m *menu) candidates(words []string) []string {
	if len(words) == 0 {
		list := []string{"help", "quit"}
		for _, v := range control.Verbs() {
			list = append(list, v.Word)
		}
		return list
	}
	if len(words) == 1 {
		switch words[0] {
		case "blacklist", "whitelist":
			return []string{"add", "remove", "list"}
		case "spool":
			return []string{"verify", "dump", "salvage"}
		case "dead":
			return []string{"list", "show", "retry", "drop"}
		case "ignore-traffic":
			return append([]string{"on", "off", "show"}, m.names...)
		case "log-level":
			return []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
		case "disconnect", "ping", "delete-certificate", "delete-token":
			return slices.Clone(m.names)
		case "stop", "restart", "shutdown":
			return []string{"-hard"}
		case "show":
			var keys []string
			for _, k := range config.Keys() {
				keys = append(keys, k.Name)
			}
			return append(keys, "source_id", "is_running")
		}
	}
	if words[0] == "blacklist" || words[0] == "whitelist" {
		return slices.Clone(m.names)
	}
	return nil
}
