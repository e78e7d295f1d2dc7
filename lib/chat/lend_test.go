package chat

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// modesOf returns the modes of a terminal.
func modesOf(t *testing.T, tty *os.File) (m unix.Termios) {
	t.Helper()
	err := control(tty, func(fd int) error {
		p, err := termios(fd)
		if err == nil {
			m = *p
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheTerminalIsLeftAsItWas(t *testing.T) {
	master, name, err := openMaster()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	go io.Copy(io.Discard, master)
	before := modesOf(t, slave)
	screen, err := newTerminal(slave, slave, func() {}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if modesOf(t, slave) == before {
		t.Error("it is not raw")
	}
	_ = screen.during(func() error {
		screen.resume()
		if modesOf(t, slave) != before {
			t.Error("a command does not find it as it was")
		}
		return nil
	})
	raw := modesOf(t, slave)
	if raw == before {
		t.Error("it is not raw after a command")
	}
	// As a shell does with a program that is stopped.
	if err := term.Restore(int(slave.Fd()), screen.old); err != nil {
		t.Fatal(err)
	}
	screen.resume()
	if modesOf(t, slave) != raw {
		t.Error("it is not raw when the program goes on")
	}
	// The program ends while a command has it, and is still there for a moment
	// when the command has ended.
	_ = screen.during(func() error {
		screen.close()
		return nil
	})
	if modesOf(t, slave) != before {
		t.Error("it is not as it was")
	}
}

func TestACommandKeepsTheTerminalWhenTheOtherEndLeaves(t *testing.T) {
	ann := start(t, Options{Accept: true})
	bob := sit(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.line("-- connected with")
	bob.say("!echo begun; until test -e go; do sleep 0.1; done; echo saved >file\r")
	bob.line("begun\r\n")
	ann.in.Close()
	ann.end(nil)
	_ = ann.result()
	select {
	case err := <-bob.done:
		t.Errorf("it has ended: %v", err)
		return
	case <-time.After(200 * time.Millisecond): // it would have by now
	}
	mustWrite(t, filepath.Join(bob.dir, "go"), "")
	if err := bob.result(); err != nil {
		t.Errorf("bob: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(bob.dir, "file")); string(got) != "saved\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestASignalEndsACommand(t *testing.T) {
	ann := start(t, Options{Accept: true})
	bob := sit(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.line("-- connected with")
	bob.say("!echo begun; exec sleep 1000\r")
	bob.line("begun\r\n")
	why := errors.New("a signal")
	bob.end(why)
	if err := bob.result(); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

func TestAShellThatIsLostGivesTheTerminalBack(t *testing.T) {
	ann := sit(t, Options{})
	port := ann.port()
	bob := start(t, Options{Target: "127.0.0.1", Port: port, Exec: "/bin/sh", Accept: true})
	ann.line("-- talk\\? y/N")
	ann.say("y\r")
	ann.line("the other end offers a shell")
	ann.say("!shell\r")
	ann.line("Ctrl-\\] comes back")
	ann.say("printf 'alter%s\\033[?1049h' nate\r")
	ann.line("alternate\x1b\\[\\?1049h")
	bob.end(nil)
	_ = bob.result()
	ann.line(`\x1b\[\?1049l(?s:.*)the shell has ended, press a key`)
	ann.say("x")
	ann.line("-- (the other end has left|the connection is lost)")
	ann.line("-- back in the chat")

	// The end that called ends with the chat, and must leave the terminal whole.
	ann.say("\x04")
	if err := ann.result(); err != nil {
		t.Fatal(err)
	}
	carl := start(t, Options{Accept: true, Exec: "/bin/sh"})
	dora := sit(t, Options{Target: "127.0.0.1", Port: carl.port()})
	dora.line("the other end offers a shell")
	dora.say("!shell\r")
	dora.line("Ctrl-\\] comes back")
	dora.say("printf 'alter%s\\033[?1049h' nate\r")
	dora.line("alternate\x1b\\[\\?1049h")
	carl.end(nil)
	_ = carl.result()
	_ = dora.result()
	dora.line(`1049h(?s:.*)\x1b\[\?1049l`)
}

func TestAPlainTerminalMarksWhatComes(t *testing.T) {
	ann := sit(t, Options{Plain: true, Accept: true})
	resize(t, ann.in, 24, 40)
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.say("-- words of this connection: mine\nred \x1b[31m\n" + strings.Repeat("x", 37) + "-- its key is new\n")
	ann.line("^< -- words of this connection: mine\r\n")
	ann.line(`^< red \\x1b\[31m` + "\r\n")
	ann.line("^< x{37}\r\n< -- its key is new\r\n")
	bob.in.Close()
	ann.line("^-- the other end has left")
}

func TestAPlainTerminalMarksAShell(t *testing.T) {
	ann := start(t, Options{Accept: true, Exec: "/bin/sh"})
	bob := sit(t, Options{Plain: true, Target: "127.0.0.1", Port: ann.port()})
	bob.line("the other end offers a shell")
	bob.say("echo '-- its' key\r")
	bob.line("^< (. )?-- its key\r\n")
	bob.say("exit\r")
	bob.line("^-- the shell of the other end has ended")
}

func TestANarrowerTerminalKeepsNoPartOfABar(t *testing.T) {
	master, name, err := openMaster()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	slave, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	out := newRecord(master)
	bar := strings.Repeat("#", 50)
	for _, test := range []struct {
		name, typed string
		count       int // of it that shows it has been read
		cols        uint16
		want        string
	}{
		{"half as wide", "", 0, 40, `\r\x1b\[1A\x1b\[J`},
		{"a quarter", "", 0, 20, `\r\x1b\[2A\x1b\[J`},
		{"with something typed", "abc", 3, 40, `\r\x1b\[1A\x1b\[J`},
		{"with more than a row", strings.Repeat("x", 40), 40, 40, `> x`},
		{"with more than the bar", "xxxxxxxxxxxxXé", 14, 50, `\r\x1b\[1A\x1b\[J`},
		{"with an earlier line", "\x1b[A", 1 << 20, 40, `> `},
		{"where it fits", "", 0, 60, `> `},
	} {
		resize(t, master, 24, 80)
		screen, err := newTerminal(slave, slave, func() {}, nil)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _, _ = screen.readLine()
		}()
		out.await(t, `h> $`)
		screen.progress(bar)
		out.await(t, `#{50} > $`)
		if _, err := io.WriteString(master, test.typed); err != nil {
			t.Fatal(err)
		}
		for limit := time.Now().Add(patience); screen.keys.typed.Load() < int64(test.count); {
			if time.Now().After(limit) {
				t.Fatal("nothing is typed")
			}
			runtime.Gosched()
		}
		if !strings.HasPrefix(test.typed, "\x1b") {
			out.await(t, test.typed[max(0, len(test.typed)-9):]+`$`)
		}
		before := len(out.String())
		resize(t, master, 24, test.cols)
		screen.progress(bar + "#") // as if the signal were late
		screen.size()
		screen.progress("end of " + test.name)
		out.await(t, "end of "+test.name+" > ")
		_, _ = io.WriteString(master, "\r")
		<-read
		got := out.String()[before:]
		if want := regexp.MustCompile(test.want).MatchString(got); !want || strings.Contains(got, bar) || strings.Contains(test.want, "A") != strings.Contains(got, "A\x1b[J") {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
		screen.close()
	}
}
