package chat

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"aioc/lib/wire"
)

func TestAnAnswerToTheQuestionBefore(t *testing.T) {
	p := newPlain(os.Stdin, os.Stdout, os.Stderr, nil)
	var notes strings.Builder
	p.tty, p.err = true, &notes
	c := &chat{ui: p}
	var got []bool
	ask := func() { c.ask(nil, "talk?", func(yes bool) { got = append(got, yes) }) }
	say := func(text string, pasted bool) { c.line(t.Context(), line{text: text, pasted: pasted}) }

	ask()
	say("y", true)
	if len(got) != 0 {
		t.Error("a pasted yes was taken")
	}
	say("y", false)
	gone := &session{} // is asked about, and leaves
	c.s, c.question = gone, func(bool) {}
	c.gone(gone, io.EOF)
	ask()
	say("yes", false)
	if len(got) != 1 {
		t.Error("a yes to the question before was taken")
	}
	say("n", false)
	ask()
	c.notBefore = time.Now()
	say("y", false)
	if len(got) != 3 || !got[0] || got[1] || !got[2] {
		t.Errorf("got %v, want [true false true]", got)
	}
	ask()
	c.notBefore, c.s = time.Now(), &session{}
	say("y", false)
	if len(got) != 3 {
		t.Error("a yes was taken for somebody else")
	}
	if n := strings.Count(notes.String(), "talk? y/N\n"); n != 6 {
		t.Errorf("it was asked %d times, want 6", n)
	}
}

func TestACallerThatIntroducesItselfLate(t *testing.T) {
	ann := sit(t, Options{})
	s := dial(t, ann.port())
	ann.line("-- talk\\? y/N")
	s.send(announcement, "", nil)
	s.receive(`"response_id": "aioc"`)
	ann.say("y\r")
	s.receive(`"chat": "hello"`)
	ann.line("-- connected with")
	if n := strings.Count(ann.out.String(), "talk? y/N"); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
}

func TestAStrangerWhoIsNotLetInSaysNothing(t *testing.T) {
	for _, native := range []bool{true, false} {
		ann := sit(t, Options{})
		s := dial(t, ann.port())
		if native {
			s.send(announcement, "", nil)
			s.receive(`"response_id": "aioc"`)
			s.op(opFile, 1, `{"name": "a.txt", "size": 1}`)
			s.op(opPiece, 1, "x")
			s.op(opEnd, 1, `{}`)
		}
		s.send(`{"message_type": "any", "source_id": "chat_client", "with_file": {"dst_name": "b.txt"}}`, "", nil)
		s.send(`{"message_type": "any", "source_id": "chat_client"}`, "early words", nil)
		ann.line("-- talk\\? y/N")
		ann.say("n\r")
		ann.line("-- hung up")
		if got := ann.out.String(); strings.Contains(got, "early words") || strings.Contains(got, ".txt") {
			t.Errorf("native %v: got %q", native, got)
		}
		if got := tree(t, ann.dir); got != "" {
			t.Errorf("native %v: left behind: %s", native, got)
		}
	}
}

func TestAStrangerWhoIsNotLetInCostsNoMemory(t *testing.T) {
	ann := sit(t, Options{})
	s := dial(t, ann.port())
	const size = 64 << 20
	frame, err := wire.AppendFrame(nil, []byte(`{"message_type": "any", "source_id": "x"}`), make([]byte, size), nil)
	if err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := s.Write(frame)
		written <- err
	}()
	ann.line("-- talk\\? y/N")
	select {
	case err := <-written:
		t.Fatalf("%d bytes were taken (%v)", size, err)
	case <-time.After(time.Second): // it has no need of so much
	}
	ann.say("n\r")
	if err := <-written; err == nil {
		t.Error("refused, and all of it was taken")
	}
}

func TestAGreetingCountsOnce(t *testing.T) {
	ann := sit(t, Options{Accept: true})
	s := dial(t, ann.port())
	s.announce()
	s.op(opHello, 0, "{}")
	s.op(opHello, 0, `{"shell": true}`)
	s.send(`{"message_type": "any", "source_id": "chat_client"}`, "after it", nil)
	ann.line("< after it")
	ann.say("!shell\r")
	ann.line("-- the other end offers no shell")
}
