//go:build interop

package regress

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// talker is a chat of either kind with its working directory.
type talker struct {
	*process
	t   *testing.T
	dir string
	in  *os.File
}

// seated is our chat on a terminal, where it has commands and can be asked.
const seated = ours + " at a terminal"

// startChat starts a chat in a directory of its own. files are made there.
func startChat(t *testing.T, py python, kind string, port int, args ...string) *talker {
	t.Helper()
	dir := t.TempDir()
	var cmd *exec.Cmd
	if kind == ours || kind == seated {
		for i, a := range args { // the original's flags are longer
			args[i] = strings.Replace(strings.Replace(a, "--", "-", 1), "-bind_server_ip", "-bind", 1)
		}
		words := append([]string{filepath.Join(binaries(t), "aioc-chat")}, append(args, "-port", strconv.Itoa(port))...)
		if kind == seated {
			words = append([]string{py.exe, script(t, "terminal.py")}, words...)
		}
		cmd = exec.Command(words[0], words[1:]...)
		cmd.Env = append(plainEnv(), "TERM=vt100", "XDG_STATE_HOME="+filepath.Join(dir, ".state"))
	} else {
		// The names of its sockets must not be long.
		state, err := os.MkdirTemp("/tmp", "aioc")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(state) })
		state = filepath.Join(state, "c")
		cmd = exec.Command(py.exe, append([]string{"-u", script(t, "chat.py"), state}, append(args, "--port", strconv.Itoa(port))...)...)
		cmd.Env = plainEnv()
	}
	cmd.Dir = dir
	c := &talker{t: t, dir: dir, in: keepStdin(t, cmd)}
	c.process = start(t, kind+" chat", cmd)
	return c
}

// shows waits until a chat has written a text.
func (c *talker) shows(text string) {
	c.t.Helper()
	ended := false
	eventually(c.t, fmt.Sprintf("%s shows %q", c.what, text), func() error {
		if bytes.Contains(c.out.bytes(), []byte(text)) {
			return nil
		}
		if ended {
			c.t.Fatalf("%s ended and did not show %q", c.what, text)
		}
		ended = c.ended() // it may have shown it just before
		return errors.New("it does not")
	})
}

// say types a line.
func (c *talker) say(line string) {
	c.t.Helper()
	if _, err := io.WriteString(c.in, line+"\n"); err != nil {
		c.t.Fatal(err)
	}
}

// has waits until a chat has a file with a content in its directory.
func (c *talker) has(name string, want []byte) {
	c.t.Helper()
	eventually(c.t, c.what+" has "+name, func() error {
		got, err := os.ReadFile(filepath.Join(c.dir, name))
		if err == nil && want != nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%d bytes, want %d", len(got), len(want))
		}
		return err
	})
}

// status waits for the end of a chat.
func (c *talker) status() int {
	c.t.Helper()
	eventually(c.t, c.what+" ends", func() error {
		if !c.ended() {
			return errors.New("it does not")
		}
		return nil
	})
	return c.cmd.ProcessState.ExitCode()
}

// ready waits until a chat can be called. The original says that it listens
// before it does.
func (c *talker) ready(kind string) {
	c.t.Helper()
	if kind != theirs {
		c.shows("waiting for a call")
	} else {
		c.shows("aioconnectors>>")
	}
}

// testChat has our chat and the original's talk with each other in both roles.
func testChat(t *testing.T, py python) {
	for _, server := range []string{ours, theirs} {
		client := ours
		if server == ours {
			client = theirs
		}
		t.Run("server="+server, func(t *testing.T) { testChatSession(t, py, server, client) })
		t.Run("server="+server+"/upload", func(t *testing.T) { testChatUpload(t, py, server, client) })
	}
	t.Run("our shell", func(t *testing.T) { testChatOurShell(t, py) })
	t.Run("their shell", func(t *testing.T) { testChatTheirShell(t, py) })
	t.Run("refused", func(t *testing.T) { testChatRefused(t, py) })
	for _, server := range []string{seated, theirs} {
		t.Run("terminal/server="+server, func(t *testing.T) { testChatTerminal(t, py, server) })
	}
	t.Run("our shell is called", func(t *testing.T) { testChatOurShellCalled(t, py) })
	t.Run("their shell is called", func(t *testing.T) { testChatTheirShellCalled(t, py) })
	t.Run("refused by us", func(t *testing.T) { testChatRefusedByUs(t, py) })
	t.Run("we are called and upload", func(t *testing.T) { testChatUploadCalled(t, py) })
}

// testChatTerminal sends files and a directory with our commands, which the
// original's extract.
func testChatTerminal(t *testing.T, py python, server string) {
	port := freePort(t)
	client := theirs
	if server == theirs {
		client = seated
	}
	s := startChat(t, py, server, port, "--accept", "--bind_server_ip", "127.0.0.1")
	s.ready(server)
	c := startChat(t, py, client, port, "--target", "127.0.0.1")
	them, us, sub := s, c, "chat_client"
	if server == seated {
		them, us, sub = c, s, ""
		them.shows("Connected !")
		them.say("ready")
		us.shows("< ready")
	} else {
		us.shows("connected with")
	}
	for name, content := range map[string]string{"a b.txt": "A", "dir/sub/ünï.txt": "U", "dir/x": "X"} {
		path := filepath.Join(us.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	us.say("typed é 世界 😀")
	them.shows("typed é 世界 😀")
	us.say("!upload a b.txt")
	them.has(filepath.Join(sub, "a b.txt"), []byte("A"))
	us.shows("sent a b.txt")
	us.say("!upload dir")
	us.shows("sent dir.zip")
	them.has(filepath.Join(sub, "dir.zip"), nil)
	them.say("!dezip " + filepath.Join(sub, "dir.zip"))
	them.has(filepath.Join(sub, "dir/sub/ünï.txt"), []byte("U"))
	them.has(filepath.Join(sub, "dir/x"), []byte("X"))
	us.say("!exit")
	if got := us.status(); got != 0 {
		t.Errorf("our chat: status %d", got)
	}
}

// testChatOurShellCalled has the original call our chat that offers a shell.
func testChatOurShellCalled(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, seated, port, "--bind_server_ip", "127.0.0.1", "--exec", "/bin/sh")
	s.ready(seated)
	c := startChat(t, py, theirs, port, "--target", "127.0.0.1")
	s.shows("and give it a shell (/bin/sh) on this host? y/N")
	s.say("y")
	s.shows("the other end has a shell now")
	c.say("echo shell $((6*7)) $(tty)")
	c.shows("shell 42 /dev/")
	s.say("!exit")
	s.status()
}

// testChatTheirShellCalled uses the shell of an original that is called.
func testChatTheirShellCalled(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, theirs, port, "--bind_server_ip", "127.0.0.1", "--exec", "/bin/sh")
	s.ready(theirs)
	c := startChat(t, py, ours, port, "--target", "127.0.0.1")
	s.shows("Accept client")
	s.say("y")
	c.say("echo shell $((6*7))")
	c.shows("shell 42")
}

// testChatRefusedByUs refuses the original, and then lets it in.
func testChatRefusedByUs(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, seated, port, "--bind_server_ip", "127.0.0.1")
	s.ready(seated)
	file := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(file, []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startChat(t, py, theirs, port, "--target", "127.0.0.1", "--upload", file)
	s.shows("talk? y/N")
	s.say("n")
	s.shows("hung up")
	c.kill()
	if _, err := os.Lstat(filepath.Join(s.dir, "chat_client")); err == nil {
		t.Error("refused, and its file is here")
	}
	startChat(t, py, theirs, port, "--target", "127.0.0.1", "--upload", file)
	eventually(t, "a second question", func() error {
		if n := bytes.Count(s.out.bytes(), []byte("talk? y/N")); n < 2 {
			return fmt.Errorf("%d questions", n)
		}
		return nil
	})
	s.say("y")
	s.has("chat_client/a.txt", []byte("A"))
}

// testChatUploadCalled sends a file to the original that calls.
func testChatUploadCalled(t *testing.T, py python) {
	port := freePort(t)
	file := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(file, []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := startChat(t, py, ours, port, "--accept", "--bind_server_ip", "127.0.0.1", "--upload", file)
	s.ready(ours)
	c := startChat(t, py, theirs, port, "--target", "127.0.0.1")
	c.has("a.txt", []byte("A"))
	if got := s.status(); got != 0 {
		t.Errorf("status %d", got)
	}
}

// testChatSession sends texts, a file and a directory both ways. What comes
// through a pipe is no command for our chat, so it sends files with -upload only.
func testChatSession(t *testing.T, py python, server, client string) {
	port := freePort(t)
	s := startChat(t, py, server, port, "--accept", "--bind_server_ip", "127.0.0.1")
	s.ready(server)
	c := startChat(t, py, client, port, "--target", "127.0.0.1")
	connected := "Connected !"
	if client == ours {
		connected = "connected with"
	}
	c.shows(connected)
	c.say("from the client é 世界 😀")
	s.shows("from the client é 世界 😀")
	s.say("from the server é 世界 😀")
	c.shows("from the server é 世界 😀")
	c.say("and again")
	s.shows("and again")

	them, us, sub := s, c, ""
	if server == ours {
		them, us, sub = c, s, "chat_client"
	}
	big := make([]byte, 3_000_000)
	_, _ = rand.Read(big)
	for name, content := range map[string][]byte{"big.bin": big, "ünï.txt": []byte("x"), "dir/sub/a.txt": []byte("A")} {
		path := filepath.Join(them.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	them.say("!upload big.bin")
	us.has(filepath.Join(sub, "big.bin"), big)
	them.say("!upload ünï.txt")
	us.has(filepath.Join(sub, "ünï.txt"), []byte("x"))
	them.say("!upload dir")
	us.has(filepath.Join(sub, "dir.zip"), nil)
	them.say("!upload big.bin")
	us.has(filepath.Join(sub, "big-2.bin"), big)

	c.in.Close()
	if client == ours {
		if got := c.status(); got != 0 {
			t.Errorf("our chat: status %d", got)
		}
		return
	}
	c.kill()
	us.shows("left")
}

// testChatUpload sends files of several sizes with -upload.
func testChatUpload(t *testing.T, py python, server, client string) {
	port := freePort(t)
	s := startChat(t, py, server, port, "--accept", "--bind_server_ip", "127.0.0.1")
	s.ready(server)
	big := make([]byte, 45_000_000) // our chat cuts it into 11 chunks
	_, _ = rand.Read(big)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"small.txt", []byte("UPLOADED\n")}, {"big.bin", big}} {
		path := filepath.Join(t.TempDir(), f.name)
		if err := os.WriteFile(path, f.content, 0o644); err != nil {
			t.Fatal(err)
		}
		c := startChat(t, py, client, port, "--target", "127.0.0.1", "--upload", path)
		if got := c.status(); got != 0 {
			t.Errorf("%s: status %d", f.name, got)
		}
		s.has(filepath.Join("chat_client", f.name), f.content)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.txt"), []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startChat(t, py, client, port, "--target", "127.0.0.1", "--upload", dir)
	if got := c.status(); got != 0 {
		t.Errorf("a directory: status %d", got)
	}
	s.has(filepath.Join("chat_client", filepath.Base(dir)+".zip"), nil)
}

// testChatOurShell gives the original a shell.
func testChatOurShell(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, theirs, port, "--accept", "--bind_server_ip", "127.0.0.1")
	s.ready(theirs)
	c := startChat(t, py, ours, port, "--target", "127.0.0.1", "--exec", "/bin/sh", "--accept")
	c.shows("the other end has a shell now")
	s.say("echo shell $((6*7)) $(tty)")
	s.shows("shell 42 /dev/")
	s.say("echo é 世界")
	s.shows("\né 世界")
	s.kill()
	c.status()
}

// testChatTheirShell uses a shell of the original.
func testChatTheirShell(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, ours, port, "--accept", "--bind_server_ip", "127.0.0.1")
	s.ready(ours)
	c := startChat(t, py, theirs, port, "--target", "127.0.0.1", "--exec", "/bin/sh")
	c.shows("Connected !")
	s.say("echo shell $((6*7))")
	s.shows("shell 42")
	c.kill()
	s.shows("left")
}

// testChatRefused has the original refuse our chat, after a question.
func testChatRefused(t *testing.T, py python) {
	port := freePort(t)
	s := startChat(t, py, theirs, port, "--bind_server_ip", "127.0.0.1")
	s.ready(theirs)
	file := filepath.Join(t.TempDir(), "a.txt")
	if err := os.WriteFile(file, []byte("A"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startChat(t, py, ours, port, "--target", "127.0.0.1", "--upload", file)
	s.shows("Accept client")
	s.say("n")
	if got := c.status(); got != 77 {
		t.Errorf("refused: status %d, want 77", got)
	}
	c = startChat(t, py, ours, port, "--target", "127.0.0.1", "--upload", file)
	eventually(t, "a second question", func() error {
		if n := bytes.Count(s.out.bytes(), []byte("Accept client")); n < 2 {
			return fmt.Errorf("%d questions", n)
		}
		return nil
	})
	s.say("y")
	if got := c.status(); got != 0 {
		t.Errorf("accepted: status %d", got)
	}
	s.has("chat_client/a.txt", []byte("A"))
}
