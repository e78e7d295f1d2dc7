package chat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// The commands, as completion knows them.
const commandNames = "!dezip !exit !help !shell !upload"

const help = `a line            is sent to the other end
!upload PATH...   send files, and directories as zip archives
!dezip FILE.zip   extract a received archive into a directory beside it
!shell            use the shell that the other end offers; Ctrl-] comes back
!exit             leave; so does Ctrl-D, and Ctrl-C twice
!COMMAND          run COMMAND here; the other end sees nothing of it
Ctrl-C            cancel what is being sent or received`

// command does what a line with an exclamation mark says. What it returns is
// done by the goroutine that types, before it reads on.
func (c *chat) command(ctx context.Context, text string) (work func()) {
	text = "!" + strings.TrimSpace(strings.TrimPrefix(text, "!")) // "! ls" too
	name, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch name {
	case "!exit", "!quit":
		c.leave(nil)
	case "!help", "!":
		for line := range strings.Lines(help) {
			c.ui.note("%s", strings.TrimSuffix(line, "\n"))
		}
	case "!upload":
		c.uploadAll(rest)
	case "!dezip":
		c.dezip(ctx, rest)
	case "!shell":
		return c.takeShell()
	default:
		running := make(chan struct{})
		c.running = running
		return func() {
			defer close(running)
			err := c.ui.during(func() error { return runHere(ctx, c.o.Dir, text[1:], c.o.Stdin, c.o.Stdout) })
			if err != nil {
				c.ui.note("%s: %v", text[1:], err)
			}
		}
	}
	return nil
}

// uploadAll sends the files and directories of a command.
func (c *chat) uploadAll(args string) {
	s := c.s
	if s == nil || !s.ready {
		c.ui.note("nobody is there yet")
		return
	}
	paths, err := c.uploadPaths(args)
	if err != nil {
		c.ui.note("!upload: %v", err)
		return
	}
	for _, path := range paths {
		s.upload(path, func(err error) {
			if err != nil {
				c.ui.note("%v", err)
			}
		})
	}
}

// below makes a path as people write it one of the chat's directory.
func (c *chat) below(path string) string {
	path = home(path)
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(c.o.Dir, path)
}

// uploadPaths are the arguments of !upload: as in the original all of it is one
// path, if there is one of that name; otherwise words as in a shell.
func (c *chat) uploadPaths(args string) ([]string, error) {
	if args == "" {
		return nil, errors.New("which file or directory?")
	}
	if _, err := os.Lstat(c.below(args)); err == nil {
		return []string{args}, nil
	}
	return splitWords(args)
}

// home replaces ~ by the home directory.
func home(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		if dir, err := os.UserHomeDir(); err == nil {
			return dir + path[1:]
		}
	}
	return path
}

// splitWords splits a line at spaces, but for those in quotes or behind a
// backslash.
func splitWords(s string) (words []string, err error) {
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			in, quote = true, r
		case unicode.IsSpace(r):
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote or backslash has no end")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// dezip extracts an archive, in the background.
func (c *chat) dezip(ctx context.Context, name string) {
	if name == "" {
		c.ui.note("!dezip: which archive?")
		return
	}
	if c.commands != nil {
		c.ui.note("!dezip: one at a time")
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	c.commands = cancel
	c.side.Go(func() {
		_, files, err := unpack(ctx, c.below(name), usual)
		cancel()
		entries := fmt.Sprintf("%d files are", files)
		if files == 1 {
			entries = "1 file is"
		}
		switch {
		case errors.Is(err, context.Canceled):
			c.ui.note("%s: cancelled, nothing is extracted", name)
		case err != nil:
			c.ui.note("!dezip: %v", err)
		default:
			c.ui.note("%s in %s now", entries, strings.TrimSuffix(name, filepath.Ext(name)))
		}
		c.post(func() { c.commands = nil })
	})
}

// takeShell gives the terminal to the shell of the other end.
func (c *chat) takeShell() (work func()) {
	s := c.s
	if s == nil || !s.ready || !s.hello.Shell {
		c.ui.note("the other end offers no shell")
		return nil
	}
	c.ui.note("the terminal is the other end's now; Ctrl-] comes back")
	return func() {
		first := true
		err := c.ui.raw(func(keys string) error {
			return s.out.putLow(s.ctx, item{frame: s.op(opKeys, 0, []byte(keys))})
		}, func(w window) {
			op := opSize
			if first {
				op, w.Term = opTerm, termType()
			}
			first = false
			s.tell(op, 0, w)
		})
		if err != nil {
			c.ui.note("%v", err)
		} else {
			c.ui.note("back in the chat")
		}
	}
}

// runHere runs a command of the user, who has the terminal meanwhile.
func runHere(ctx context.Context, dir, command string, in, out *os.File) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	tty := int(in.Fd())
	own := unix.Getpgrp()
	if group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP); err != nil || group != own {
		return cmd.Run() // no terminal, or none that is ours to give
	}
	// In the foreground, so that ^C means the command and not the chat.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Foreground: true, Ctty: tty}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, syscall.SIGHUP) }
	cmd.WaitDelay = hangUp
	// To take the terminal back from the background would stop this program, and
	// ^Z would stop the command, which nothing here can continue: it inherits both.
	signal.Ignore(syscall.SIGTTOU, syscall.SIGTSTP)
	defer signal.Reset(syscall.SIGTTOU, syscall.SIGTSTP)
	err := cmd.Run()
	if backErr := unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, own); err == nil && backErr != nil {
		err = fmt.Errorf("the terminal does not come back: %w", backErr)
	}
	return err
}

// complete completes a command or the path behind one, as far as there is no
// choice; without progress it shows what there is.
func (c *chat) complete(line string, pos int) (string, int, bool) {
	head, tail := line[:pos], line[pos:]
	if !strings.HasPrefix(head, "!") {
		return "", 0, false
	}
	name, arg, isArg := strings.Cut(head, " ")
	var before, word, quote string
	var found []string
	split := false // word is one of several
	switch {
	case !isArg:
		word = head
		for _, n := range strings.Fields(commandNames) {
			if strings.HasPrefix(n, word) {
				found = append(found, n+" ")
			}
		}
	case name == "!upload" || name == "!dezip":
		before, word = name+" ", strings.TrimLeft(arg, " ")
		found = c.paths(word, name == "!dezip")
		if len(found) == 0 && name == "!upload" {
			var start int
			start, quote, word = lastWord(arg)
			before, split = name+" "+arg[:start], true
			found = c.paths(word, false)
		}
	default:
		i := strings.LastIndexByte(head, ' ') + 1
		before, word = head[:i], head[i:]
		found = c.paths(word, false)
	}
	if len(found) == 0 {
		return line, pos, true
	}
	done := commonPrefix(found)
	if done == word && len(found) > 1 {
		var names []string
		for _, f := range found {
			base := filepath.Base(f)
			if strings.HasSuffix(f, "/") {
				base += "/"
			}
			names = append(names, base)
		}
		const most = 60
		if len(names) > most {
			names = append(names[:most], "...")
		}
		c.ui.note("%s", strings.Join(names, "  "))
	}
	if split {
		if done == word && len(found) > 1 {
			return line, pos, true
		}
		done = quoted(done, quote, len(found) == 1 && !strings.HasSuffix(done, "/"))
	}
	return before + done + tail, len(before + done), true
}

// lastWord is the last word of a line that is not at its end, by the rules of
// splitWords: where it starts, the quote that is open and what it says so far.
func lastWord(line string) (start int, quote, word string) {
	var b strings.Builder
	open, escaped := rune(0), false
	for i, r := range line {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\' && open != '\'':
			escaped = true
		case open != 0 && r == open:
			open = 0
		case open == 0 && (r == '\'' || r == '"'):
			open = r
		case open == 0 && unicode.IsSpace(r):
			start = i + utf8.RuneLen(r)
			b.Reset()
		default:
			b.WriteRune(r)
		}
	}
	if open != 0 {
		quote = string(open)
	}
	return start, quote, b.String()
}

// quoted writes a word so that splitWords reads it, in quotes if quote is not
// empty, which whole closes.
func quoted(word, quote string, whole bool) string {
	if quote == "'" && strings.Contains(word, quote) {
		quote = `"`
	}
	special := " '\"\\"
	switch quote {
	case "'":
		special = ""
	case `"`:
		special = "\"\\"
	}
	var b strings.Builder
	b.WriteString(quote)
	for _, r := range word {
		if strings.ContainsRune(special, r) || quote == "" && unicode.IsSpace(r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	if whole {
		b.WriteString(quote)
	}
	return b.String()
}

// paths are those that begin with a word, directories with a slash behind
// them. Hidden ones have to be asked for.
func (c *chat) paths(word string, archives bool) (found []string) {
	dir, start := filepath.Split(word)
	read := c.below(dir)
	entries, err := os.ReadDir(read)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, start) || start == "" && name[0] == '.' || safe(name) != name {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&os.ModeSymlink != 0 {
			info, err := os.Stat(filepath.Join(read, name))
			isDir = err == nil && info.IsDir()
		}
		switch {
		case isDir:
			name += "/"
		case archives && !strings.EqualFold(filepath.Ext(name), ".zip"):
			continue
		}
		found = append(found, dir+name)
	}
	slices.Sort(found)
	return found
}

// commonPrefix is the longest start that all have, in whole characters.
func commonPrefix(list []string) string {
	p := list[0]
	for _, s := range list[1:] {
		n := 0
		for n < len(p) && n < len(s) && p[n] == s[n] {
			n++
		}
		p = p[:n]
	}
	for !utf8.ValidString(p) && len(p) > 0 {
		p = p[:len(p)-1]
	}
	return p
}
