package chat

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"aioc/lib/wire"
)

func TestTextsGoBothWays(t *testing.T) {
	ann := start(t, Options{Accept: true})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.say("hello é 世界 😀\n!exit is only a text here\n\n\x1b[31m\n")
	ann.out.await(t, "^hello é 世界 😀\n!exit is only a text here\n\n\x1b\\[31m\n$")
	ann.say("and back\n")
	bob.out.await(t, "^and back\n$")
	words := bob.err.await(t, `words of this connection: (.*)\n`)
	if got := ann.err.await(t, `words of this connection: (.*)\n`); got != words {
		t.Errorf("words: %q here, %q there", words, got)
	}
	bob.say("last words")
	bob.in.Close()
	if err := bob.result(); err != nil {
		t.Errorf("bob: %v", err)
	}
	ann.out.await(t, "last words\n$")
	ann.err.await(t, "the other end has left")

	// The end that was called takes the next call.
	carl := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	carl.say("me too\n")
	ann.out.await(t, "me too\n$")
	ann.in.Close()
	if err := ann.result(); err != nil {
		t.Errorf("ann: %v", err)
	}
	carl.err.await(t, "connected with")
}

func TestALongPipeArrivesInOrder(t *testing.T) {
	ann := start(t, Options{Accept: true})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	var want bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintln(&want, i)
	}
	long := strings.Repeat("x", 300_000)
	fmt.Fprintln(&want, long)
	bob.say(want.String())
	bob.in.Close()
	if err := bob.result(); err != nil {
		t.Fatal(err)
	}
	ann.err.await(t, "has left")
	ann.out.await(t, "x\n$")
	if ann.out.String() != want.String() {
		t.Errorf("got %d bytes, want %d", len(ann.out.String()), want.Len())
	}
}

func TestFilesAndDirectoriesArrive(t *testing.T) {
	from := t.TempDir()
	content := make([]byte, 3*pieceSize+17)
	_, _ = rand.Read(content)
	mustWrite(t, filepath.Join(from, "big.bin"), string(content))
	mustWrite(t, filepath.Join(from, "empty"), "")
	mustWrite(t, filepath.Join(from, "two\nlines\x1b[2J"), "x")
	mustWrite(t, filepath.Join(from, ".profile"), "x")
	mustWrite(t, filepath.Join(from, "dir", "sub", "a"), "A")
	tests := []struct{ path, stored string }{
		{"big.bin", "big.bin"},
		{"big.bin", "big-2.bin"},
		{"empty", "empty"},
		{"two\nlines\x1b[2J", "two_lines_[2J"},
		{".profile", "_.profile"},
		{"dir", "dir.zip"},
	}
	const illFormed = "caf\xe9.txt" // some file systems have no such names
	if os.WriteFile(filepath.Join(from, illFormed), nil, 0o644) == nil {
		tests = append(tests, struct{ path, stored string }{illFormed, "caf_.txt"})
	}
	ann := start(t, Options{Accept: true})
	for _, test := range tests {
		bob := start(t, Options{Target: "127.0.0.1", Port: ann.port(), Upload: filepath.Join(from, test.path)})
		if err := bob.result(); err != nil {
			t.Errorf("%q: %v", test.path, err)
			continue
		}
		text, err := os.ReadFile(filepath.Join(ann.dir, "chat_client", test.stored))
		if err != nil {
			t.Errorf("%q: %v", test.path, err)
		}
		if test.path == "big.bin" && !bytes.Equal(text, content) {
			t.Errorf("%q: other bytes have come", test.stored)
		}
		if test.stored != test.path && test.path != "dir" {
			bob.err.await(t, "stored there as chat_client/"+regexp.QuoteMeta(test.stored))
		}
		if strings.Contains(bob.err.String()+ann.err.String(), "\x1b") {
			t.Errorf("%q: an escape reached the terminal", test.path)
		}
	}
	if _, _, err := unpack(t.Context(), filepath.Join(ann.dir, "chat_client", "dir.zip"), usual); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(filepath.Join(ann.dir, "chat_client", "dir", "sub", "a")); string(got) != "A" {
		t.Errorf("from the directory: got %q, %v", got, err)
	}
}

func TestTheEndThatWaitsMayBeTheOneThatUploads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.txt")
	mustWrite(t, file, "A")
	ann := start(t, Options{Accept: true, Upload: file})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	if err := ann.result(); err != nil {
		t.Error(err)
	}
	bob.err.await(t, "received a.txt")
	if got, err := os.ReadFile(filepath.Join(bob.dir, "a.txt")); string(got) != "A" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhatCannotBeSentIsSaid(t *testing.T) {
	ann := start(t, Options{Accept: true})
	for _, test := range []struct{ path, want string }{
		{"/nowhere/at/all", "no such file"},
		{"/dev/null", "neither a file nor a directory"},
	} {
		bob := start(t, Options{Target: "127.0.0.1", Port: ann.port(), Upload: test.path})
		if err := bob.result(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.path, err)
		}
	}
	// The other end cannot store it.
	mustWrite(t, filepath.Join(ann.dir, "chat_client"), "in the way")
	file := filepath.Join(t.TempDir(), "a.txt")
	mustWrite(t, file, "A")
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port(), Upload: file})
	if err := bob.result(); err == nil || !strings.Contains(err.Error(), "the other end: ") {
		t.Errorf("got %v", err)
	}
	ann.err.await(t, "a.txt from the other end is not stored")
}

func TestNobodyThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	bob := start(t, Options{Target: "127.0.0.1", Port: port})
	if err := bob.result(); !errors.Is(err, ErrAway) {
		t.Errorf("got %v, want %v", err, ErrAway)
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	ann := start(t, Options{Accept: true})
	second := start(t, Options{Accept: true, Port: ann.port()})
	if err := second.result(); err == nil || !strings.Contains(err.Error(), "choose another -port") {
		t.Errorf("got %v", err)
	}
}

func TestALineThatCannotBeWrittenHasNotArrived(t *testing.T) {
	full, err := os.Open(os.DevNull) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	ann := start(t, Options{Accept: true, Stdout: full})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.say("hello\n")
	bob.in.Close()
	if err := bob.result(); !errors.Is(err, ErrBroken) {
		t.Errorf("the one who sent it: got %v, want %v", err, ErrBroken)
	}
	if err := ann.result(); err == nil || !strings.Contains(err.Error(), "standard output") {
		t.Errorf("the other one: got %v", err)
	}
}

func TestAnEndThatIsBusyRefuses(t *testing.T) {
	ann := start(t, Options{Accept: true})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.err.await(t, "connected with")
	carl := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	if err := carl.result(); !errors.Is(err, ErrBusy) || errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	bob.say("still here\n")
	ann.out.await(t, "still here")
}

func TestWhereNobodyCanBeAskedNobodyIsLetIn(t *testing.T) {
	ann := start(t, Options{})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.say("let me in\n")
	if err := bob.result(); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want %v", err, ErrRefused)
	}
	if got := ann.out.String(); got != "" {
		t.Errorf("it was let in: %q", got)
	}
}

func TestAKeyThatHasChangedIsLoud(t *testing.T) {
	state := t.TempDir()
	ann := start(t, Options{Accept: true})
	port := ann.port()
	call := func() (*party, error) {
		bob := start(t, Options{Target: "127.0.0.1", Port: port, State: state})
		bob.in.Close()
		return bob, bob.result()
	}
	for _, want := range []string{"its key is new", "its key is the one of the last time"} {
		if bob, err := call(); err != nil {
			t.Errorf("%v", err)
		} else {
			bob.err.await(t, want)
		}
	}
	ann.end(nil)
	_ = ann.result()
	ann = start(t, Options{Accept: true, Port: port}) // with a key of its own
	ann.port()
	bob, err := call()
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), hostsFile) {
		t.Errorf("got %v, want %v", err, ErrRefused)
	}
	bob.err.await(t, "IS NOT THE ONE IT WAS")
	if strings.Contains(bob.err.String(), "connected with") {
		t.Error("it went on all the same")
	}
}

func TestBothEndsCannotGiveAShell(t *testing.T) {
	ann := start(t, Options{Accept: true, Exec: "/bin/sh"})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port(), Exec: "/bin/sh", Accept: true})
	if err := bob.result(); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "both ends have -exec") {
		t.Errorf("got %v", err)
	}
}

func TestAShellForAPipe(t *testing.T) {
	ann := start(t, Options{Accept: true, Exec: "/bin/sh"})
	bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
	bob.say("echo $((6*7)) $TERM; tty\n")
	bob.out.await(t, `42 dumb\r\n`)
	bob.out.await(t, `/dev/\w+`)
	bob.say("exit 3\n")
	bob.err.await(t, "the shell of the other end has ended: exit status 3")
	bob.say("echo a new one $((7*7))\n")
	bob.out.await(t, `a new one 49`)
}

func TestACallerThatVanishesLeavesNoPartOfAFile(t *testing.T) {
	ann := start(t, Options{Accept: true})
	for _, native := range []bool{true, false} {
		s := dial(t, ann.port())
		if native {
			s.announce()
			s.op(opFile, 1, `{"name": "part.bin", "size": 1000000}`)
			s.op(opPiece, 1, strings.Repeat("x", 100_000))
		} else {
			s.send(`{"message_type": "any", "source_id": "chat_client", "request_id": 1, "await_response": true, "with_binary": true, "with_file": {"src_path": "x", "dst_type": "any", "dst_name": "part.bin__aioconnectors_chunk_1_2", "chunked": ["part.bin__aioconnectors_chunk", 1, 2], "binary_offset": 0}}`,
				"", bytes.Repeat([]byte("x"), 100_000))
			s.receive(`"response_id": 1`)
		}
		s.Close()
		ann.err.await(t, `part.bin is not here(?s:.*)has left|part.bin is not here(?s:.*)is lost`)
		if got := tree(t, ann.dir); strings.Contains(got, "part") {
			t.Errorf("native %v: left behind:\n%s", native, got)
		}
		ann = start(t, Options{Accept: true})
	}
}

func TestAHostileCaller(t *testing.T) {
	sum := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	for _, test := range []struct {
		name string
		do   func(s *stranger)
		want string // said at the other end
		op   string // answered
	}{
		{"a slash in a name", func(s *stranger) { s.op(opFile, 1, `{"name": "../../evil", "size": 1}`) }, "slash", opStop},
		{"an absolute name", func(s *stranger) { s.op(opFile, 1, `{"name": "/tmp/evil", "size": 1}`) }, "slash", opStop},
		{"a name that is too long", func(s *stranger) {
			s.op(opFile, 1, `{"name": "`+strings.Repeat("n", 5000)+`", "size": 1}`)
		}, "at most", opStop},
		{"more than announced", func(s *stranger) {
			s.op(opFile, 1, `{"name": "a", "size": 1}`)
			s.op(opPiece, 1, "xx")
		}, "longer than announced", opStop},
		{"less than announced", func(s *stranger) {
			s.op(opFile, 1, `{"name": "a", "size": 3}`)
			s.op(opPiece, 1, "xx")
			s.op(opEnd, 1, `{"sha256": "`+sum("xx")+`"}`)
		}, "2 of 3 bytes", opStop},
		{"other content", func(s *stranger) {
			s.op(opFile, 1, `{"name": "a", "size": 2}`)
			s.op(opPiece, 1, "xy")
			s.op(opEnd, 1, `{"sha256": "`+sum("xx")+`"}`)
		}, "checksum", opStop},
		{"given up", func(s *stranger) {
			s.op(opFile, 1, `{"name": "a", "size": 2}`)
			s.op(opQuit, 1, `{"text": "no \u001b[2J more"}`)
		}, `not coming: no \\x1b\[2J more`, ""},
		{"pieces of nothing", func(s *stranger) {
			s.op(opPiece, 7, "x")
			s.op(opEnd, 7, "{}")
			s.op(opGot, 7, "x")
			s.op(opStop, 7, "{")
			s.op("later", 7, "")
			s.op(opKeys, 0, "reboot\r")
			s.op(opTerm, 0, `{"rows": 1}`)
			s.send(`{"message_type": "any", "source_id": "x", "chat": "piece", "id": -1}`, "", nil)
			s.send(`{"message_type": "any", "source_id": "x"}`, "after all that", nil)
		}, "", ""},
		{"an offer that is none", func(s *stranger) { s.op(opFile, 1, `{"name": 3}`) }, "not understood", ""},
		{"two files at once", func(s *stranger) {
			s.op(opFile, 1, `{"name": "a", "size": 2}`)
			s.op(opFile, 2, `{"name": "b", "size": 2}`)
		}, "not at its end", ""},
		{"a negative size", func(s *stranger) { s.op(opFile, 1, `{"name": "a", "size": -5}`) }, "not understood", ""},
		{"an original's name", func(s *stranger) {
			s.send(`{"message_type": "any", "source_id": "x", "with_binary": true, "with_file": {"dst_name": "../evil"}}`, "", []byte("x"))
		}, "slash", ""},
		{"an original's chunks in disorder", func(s *stranger) {
			s.send(`{"message_type": "any", "source_id": "x", "with_file": {"dst_name": "a", "chunked": ["a__aioconnectors_chunk", 1, 3]}}`, "", nil)
			s.send(`{"message_type": "any", "source_id": "x", "with_file": {"dst_name": "a", "chunked": ["a__aioconnectors_chunk", 3, 3]}}`, "", nil)
		}, "part 3 of 3 came after part 1 of 3", ""},
		{"an original's offset beyond the end", func(s *stranger) {
			s.send(`{"message_type": "any", "source_id": "x", "with_binary": true, "with_file": {"dst_name": "a", "binary_offset": 999999}}`, "", []byte("x"))
			s.send(`{"message_type": "any", "source_id": "x", "with_file": {"dst_name": "a", "binary_offset": -5}}`, "", nil)
		}, `received chat_client/a-2`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ann := start(t, Options{Accept: true})
			s := dial(t, ann.port())
			s.announce()
			test.do(s)
			ann.err.await(t, test.want)
			if test.op != "" {
				s.receive(`"` + test.op + `"`)
			}
			if test.want == "" {
				ann.out.await(t, "after all that\n")
			}
			s.Close()
			ann.err.await(t, "has left|is lost")
			if got := tree(t, ann.dir); strings.Contains(got, partPrefix) || strings.Contains(got, "evil") {
				t.Errorf("left behind:\n%s", got)
			}
			if text := ann.err.String(); strings.Contains(text, "\x1b") {
				t.Errorf("an escape reached the terminal: %q", text)
			}
		})
	}
}

func TestAFileThatTheOtherEndCannotStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.txt")
	mustWrite(t, file, "A")
	for _, test := range []struct {
		stop      string
		temporary bool
	}{
		{`{"text": "no \u001b[2Jroom", "full": true}`, true},
		{`{"text": "no name"}`, false},
		{`nonsense`, false},
	} {
		ann := start(t, Options{Accept: true, Upload: file})
		s := dial(t, ann.port())
		s.announce()
		s.op(opHello, 0, "{}")
		s.receive(`"chat": "file"`)
		s.op(opStop, 1, test.stop)
		err := ann.result()
		if err == nil || errors.Is(err, ErrBroken) != test.temporary || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: got %v, want temporary %v", test.stop, err, test.temporary)
		}
	}
}

func TestACallerThatDoesNotReadItsAnswers(t *testing.T) {
	ann := start(t, Options{Accept: true})
	for _, ask := range []struct {
		name string
		do   func(s *stranger, id int) []byte
	}{
		{"texts", func(s *stranger, id int) []byte {
			header := fmt.Sprintf(`{"message_type": "any", "source_id": "x", "await_response": true, "request_id": %d}`, id)
			frame, _ := wire.AppendFrame(nil, []byte(header), make([]byte, 64<<10), nil)
			return frame
		}},
		{"files", func(s *stranger, id int) []byte {
			header := fmt.Sprintf(`{"message_type": "any", "source_id": "x", "chat": "file", "id": %d}`, id)
			frame, _ := wire.AppendFrame(nil, []byte(header), []byte(`{"name": "/", "size": 1}`), nil)
			return frame
		}},
	} {
		s := dial(t, ann.port())
		s.announce()
		var err error
		for id := 1; err == nil && id < 1_000_000; id++ {
			_, err = s.Write(ask.do(s, id))
		}
		if err == nil {
			t.Errorf("%s: it was not hung up on", ask.name)
		}
		s.Close()
	}
	ann.err.await(t, "(?s)does not read the answers.*does not read the answers")
}

func TestLinesThatALostCallerHasNotTaken(t *testing.T) {
	ann := start(t, Options{Accept: true})
	s := dial(t, ann.port())
	s.announce()
	ann.say("hello\n")
	s.receive(`"any"`) // and does not acknowledge it
	s.Close()
	if err := ann.result(); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v, want %v", err, ErrBroken)
	}
}

// ackHello acknowledges the first message, which is the greeting.
const ackHello = `{"ackto": 1, "message_type": "_ack", "source_id": "chat_client"}`

func TestACallerThatIsStoppedIsHungUpOn(t *testing.T) {
	for _, test := range []struct {
		name   string
		native bool
		ops    string
	}{
		{"while nothing happens", true, ""},
		{"while a text waits", true, "text"},
		{"while a file waits", true, "file"},
		{"an original that has a file", false, "file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := Options{Accept: true, silence: 600 * time.Millisecond}
			if test.ops == "file" {
				o.Upload = filepath.Join(t.TempDir(), "a.txt")
				mustWrite(t, o.Upload, "A")
			}
			ann := start(t, o)
			s := dial(t, ann.port())
			if test.native {
				s.announce()
				s.send(ackHello, "", nil)
			} else {
				s.send(`{"message_type": "any", "source_id": "chat_client"}`, "hello", nil)
			}
			if test.ops == "text" {
				ann.say("hello\n")
			}
			if test.ops == "" {
				ann.err.await(t, "the other end does not answer any more")
				return
			}
			if err := ann.result(); !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), errSilent.Error()) {
				t.Errorf("got %v, want %v and %v", err, ErrBroken, errSilent)
			}
		})
	}
}

func TestACallerThatOnlyAnswersIsKept(t *testing.T) {
	t.Parallel() // it takes its time
	ann := start(t, Options{Accept: true, silence: 6 * time.Second})
	s := dial(t, ann.port())
	s.announce()
	s.send(ackHello, "", nil)
	for range 2 { // the second after the silence is over
		s.receive(aliveID)
		s.send(`{"message_type": "_ping", "source_id": "chat_client", "response_id": "`+aliveID+`"}`, "", nil)
	}
	s.send(`{"message_type": "any", "source_id": "chat_client"}`, "still here", nil)
	ann.out.await(t, "still here")
}

// captured is a session of the original's chat.
type captured struct {
	Frames []struct {
		Type, Direction, Hex string
		Decoded              struct {
			Transport map[string]any
			DataText  string `json:"data_text"`
		}
	}
}

func TestTheOriginalsClientIsUnderstood(t *testing.T) {
	for _, name := range []string{"chat_session", "chat_upload"} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var c captured
			if err := json.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			ann := start(t, Options{Accept: true})
			s := dial(t, ann.port())
			files := 0
			for _, f := range c.Frames[1:] { // dial has said hello
				raw, err := hex.DecodeString(f.Hex)
				if err != nil {
					t.Fatal(err)
				}
				if f.Direction == "client->server" {
					if _, err := s.Write(raw); err != nil {
						t.Fatal(err)
					}
					continue
				}
				if id, ok := f.Decoded.Transport["response_id"]; ok {
					files++
					header, data := s.receive("response_id")
					var h map[string]any
					if err := json.Unmarshal([]byte(header), &h); err != nil {
						t.Fatal(err)
					}
					if h["response_id"] != id || data != f.Decoded.DataText || h["message_type"] != "any" {
						t.Errorf("response: got %s %q, want id %v and %q", header, data, id, f.Decoded.DataText)
					}
				}
			}
			if files == 0 {
				t.Error("no files were in it")
			}
			got, err := os.ReadFile(filepath.Join(ann.dir, "chat_client", "up.txt"))
			if string(got) != "UPLOADED\n" {
				t.Errorf("got %q, %v", got, err)
			}
			if name == "chat_session" {
				ann.out.await(t, "^hello from client é\n")
				if _, _, err := unpack(t.Context(), filepath.Join(ann.dir, "chat_client", "dir1.zip"), usual); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
