package chat

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sit runs a chat on a terminal of its own. The test types into its master and
// reads from it.
func sit(t *testing.T, o Options) *party {
	t.Helper()
	master, name, err := openMaster()
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	resize(t, master, 24, 80)
	o.Stdin, o.Stdout, o.Stderr = slave, slave, slave
	p := &party{t: t, in: master, done: make(chan error, 1)}
	p.out = newRecord(master)
	p.err = p.out
	t.Cleanup(func() { slave.Close(); master.Close() })
	p.run(&o)
	return p
}

func resize(t *testing.T, master *os.File, rows, cols uint16) {
	t.Helper()
	err := control(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// line waits for a line of the screen, after the mark.
func (p *party) line(text string) {
	p.t.Helper()
	p.out.await(p.t, `(?m)`+text)
}

func TestTwoPeopleOnTerminals(t *testing.T) {
	ann := sit(t, Options{})
	bob := sit(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.line("-- waiting until the other end accepts")
	bob.say("too early\r")
	bob.line("-- nobody is there yet: this was not sent")
	ann.line("-- talk\\? y/N")
	ann.say("y\r")
	bob.line("-- connected with")
	bob.say("hello\r")
	ann.line("< hello")

	// What comes does not break what is typed.
	ann.say("half a li")
	ann.line("half a li")
	bob.say("interrupted\r")
	ann.line("< interrupted\r\n> half a li")
	ann.say("ne\r")
	bob.line("< half a line\r\n")

	// Editing, history, and ^C that empties the line.
	bob.say("abX\x7fc\r")
	ann.line("< abc\r\n")
	bob.say("\x1b[Ax\x1b[D\x01y\r") // the line before, with something around it
	ann.line("< yabcx\r\n")
	bob.say("not this\x03but this\r")
	ann.line("< but this\r\n")

	// A pasted command is text; so is all that others send.
	bob.say(pasteStart + "!touch evil\nsecond\x1b[2J line" + pasteEnd + "\r")
	ann.line("< !touch evil\r\n")
	ann.line(`< second\[2J line`)
	long := strings.Repeat("long ", 2000)
	bob.say(pasteStart + long + "end" + pasteEnd + "\r")
	ann.line("long end|ng end|g end")

	// Commands.
	mustWrite(t, filepath.Join(bob.dir, "photo one.jpg"), "P")
	bob.say("!upl\tph\t\r")
	ann.line("-- received chat_client/photo one.jpg \\(1 B\\)")
	bob.line("-- sent photo one.jpg")
	bob.say("!echo $((6*7)) >answer; cat answer\r")
	bob.line("42\r\n")
	bob.say("!upload nowhere\r")
	bob.line("-- .*nowhere is not sent: no such file")
	bob.say("!shell\r!help\r")
	bob.line("-- the other end offers no shell")
	bob.line("!dezip FILE.zip")
	if _, err := os.Stat(filepath.Join(bob.dir, "evil")); err == nil {
		t.Error("a pasted command was run")
	}

	// A terminal that becomes another size.
	resize(t, bob.in, 10, 30)
	bob.say("still there\r")
	ann.line("< still there")

	bob.say("\x03")
	bob.line("\\^C once more")
	bob.say("\x03")
	if err := bob.result(); err != nil {
		t.Errorf("bob: %v", err)
	}
	ann.line("-- the other end has left(?s:.*)-- waiting for the next call")
	ann.say("\x04")
	if err := ann.result(); err != nil {
		t.Errorf("ann: %v", err)
	}
}

func TestACallThatIsGivenUpIsNoSuccess(t *testing.T) {
	ann := sit(t, Options{})
	bob := sit(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.line("-- waiting until the other end accepts")
	bob.say("\x03")
	bob.line("\\^C once more")
	bob.say("\x03")
	if err := bob.result(); err == nil || !strings.Contains(err.Error(), "given up before") {
		t.Errorf("got %v", err)
	}
}

func TestNoRowOfWhatComesLooksLikeOurs(t *testing.T) {
	for _, test := range []struct {
		in   string
		cols int
		want []string
	}{
		{"", 20, []string{"< "}},
		{"short", 20, []string{"< short"}},
		{"0123456789abcdefg-- words", 20, []string{"< 0123456789abcdefg", "< -- words"}},
		{"世界世界世界世界世界", 20, []string{"< 世界世界世界世界", "< 世界"}},
		{"0123456789", 1, []string{"< 01234567", "< 89"}},
	} {
		if got := rows(incoming, test.in, test.cols); !slices.Equal(got, test.want) {
			t.Errorf("%q in %d: got %q, want %q", test.in, test.cols, got, test.want)
		}
	}
}

func TestACallThatIsDeclined(t *testing.T) {
	ann := sit(t, Options{})
	for _, answer := range []string{"n\r", "\r", "yess\r"} {
		before := strings.Count(ann.out.String(), "talk?")
		bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
		bob.err.await(t, "waiting until")
		ann.out.await(t, strings.Repeat(`(?s:.*)talk\? y/N`, before+1))
		ann.say(answer)
		if err := bob.result(); !errors.Is(err, ErrRefused) {
			t.Errorf("%q: got %v", answer, err)
		}
	}
	if strings.Contains(ann.out.String(), "connected with") {
		t.Error("one was let in")
	}
}

func TestAShellThatFillsTheTerminal(t *testing.T) {
	t.Setenv("TERM", "vt100")
	ann := start(t, Options{Accept: true, Exec: "/bin/sh"})
	bob := sit(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.line("the other end offers a shell")
	bob.say("!shell\r")
	bob.line("Ctrl-] comes back")
	bob.say("printf 'raw \\033[7m %s' $TERM; stty size; sleep 100 &\r")
	bob.line("raw \x1b\\[7m vt10024 80")
	resize(t, bob.in, 30, 100)
	// Only a terminal that controls a session is told by the kernel.
	// What is to be interrupted says when it has the terminal: the shell itself
	// may miss an interrupt while it starts something.
	bob.say("stty size; sh -c 'echo there; exec cat'\r")
	bob.line("(?s)size; sh.*(24 80|30 100)\r\n.*there\r\n")
	bob.say("\x03") // is for cat
	bob.line("\\^C")
	bob.say("echo after $((6*7))\r")
	bob.line("after 42")
	bob.say("\x1d")
	bob.line("-- back in the chat")
	bob.say("echo as a line $((7*7))\r")
	bob.line("< as a line 49")
	bob.say("!shell\r")
	bob.line("(?s)comes back.*comes back")
	bob.say("exit 4\r")
	bob.line("the shell has ended, press a key")
	bob.say("x")
	bob.line("the shell of the other end has ended: exit status 4")
	bob.say("!exit\r")
	if err := bob.result(); err != nil {
		t.Error(err)
	}
}

func TestWhatAShellStartedEndsWithIt(t *testing.T) {
	var out strings.Builder
	pids := make(chan string, 1)
	sh, err := startShell("/bin/sh", t.TempDir(), window{Term: lineTerm}, func(b []byte) error {
		out.Write(b)
		if _, rest, ok := strings.Cut(out.String(), "\npid="); ok {
			if pid, _, ok := strings.Cut(rest, "\r"); ok {
				select {
				case pids <- pid:
				default:
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sh.keys("trap '' HUP; sh -c 'trap \"\" HUP; echo; echo pid=$$; while :; do sleep 1; done'\r")
	pid := ""
	select {
	case pid = <-pids:
	case <-time.After(patience):
		sh.close()
		t.Fatal("nothing was started")
	}
	sh.close()
	sh.close() // again
	limit := time.After(patience)
	for {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return // without /proc there is nothing to see
		}
		select {
		case <-limit:
			t.Fatalf("it is still there: %s", stat)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestAShellThatCannotBeStarted(t *testing.T) {
	if sh, err := startShell("/nowhere/sh", t.TempDir(), window{}, func([]byte) error { return nil }); err == nil {
		sh.close()
		t.Error("it was started")
	}
	for in, want := range map[string]string{"xterm-256color": "xterm-256color", "": lineTerm, "$(reboot)": lineTerm, "a\nb": lineTerm, strings.Repeat("x", 65): lineTerm} {
		if got := termName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]int{"abc": 3, "é": 2, "a\xc3": 1, "\xf0\x9f\x98": 0, "\xff": 1, "a\x80\x80\x80\x80": 5, "": 0} {
		if got := whole8([]byte(in)); got != want {
			t.Errorf("%q: got %d, want %d", in, got, want)
		}
	}
}
