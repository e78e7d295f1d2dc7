package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// fake is a connector that takes messages as long as it is told to.
type fake struct {
	info api.Info

	refuse         *api.NotTaken // at its index
	lost           int           // the connection breaks when all but so many are acknowledged; 0: never
	block          bool          // takes nothing and says nothing, until closed
	unacknowledged bool          // takes messages and acknowledges none
	answer         func(f *fake, m sent)
	failure        error // of Finish, once all were taken

	mu     sync.Mutex
	opts   api.SendOptions
	target api.Target
	sent   []sent
	files  []string // passed
	flush  int
	closed chan struct{}
	ended  chan struct{} // of the connection
}

type sent struct{ header, data, binary string }

func client1() *fake {
	return &fake{
		info:   api.Info{Name: "client1", Peer: "('127.0.0.1', 10673)", SendTypes: []string{"any", "sum"}, RecvTypes: []string{"any"}, Native: true},
		closed: make(chan struct{}), ended: make(chan struct{}),
	}
}

func server1() *fake {
	f := client1()
	f.info.Name, f.info.Peer, f.info.Server = "('127.0.0.1', 10673)", "", true
	return f
}

func (f *fake) Info() api.Info { return f.info }
func (f *fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
	return nil
}

func (f *fake) Sender(o api.SendOptions) sender { f.opts = o; return fakeSender{f} }

// fakeSender is a fake whose Close returns nothing.
type fakeSender struct{ *fake }

func (f fakeSender) Close()                 { f.fake.Close() }
func (f fakeSender) Ended() <-chan struct{} { return f.ended }

func (f *fake) Put(header, data, binary []byte) error {
	if f.block {
		<-f.closed
		return api.ErrLost
	}
	m := sent{string(header), string(data), string(binary)}
	f.mu.Lock()
	if f.refuse != nil && len(f.sent) == f.refuse.Index {
		why := f.refuse
		if why.Reason == "keep" { // without delete it is taken
			f.refuse = nil
		}
		f.mu.Unlock()
		return why
	}
	f.sent = append(f.sent, m)
	f.mu.Unlock()
	if f.answer != nil {
		f.answer(f, m)
	}
	return nil
}

func (f *fake) PutFile(header, data, binary []byte, file *os.File) error {
	f.mu.Lock()
	f.files = append(f.files, file.Name())
	f.mu.Unlock()
	return f.Put(header, data, binary)
}

func (f *fake) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flush++
	select {
	case <-f.ended:
		return fmt.Errorf("%w: EOF", api.ErrLost)
	default:
	}
	return nil
}

func (f *fake) Finish(ctx context.Context) (int, error) {
	f.mu.Lock()
	n := len(f.sent)
	f.mu.Unlock()
	switch {
	case f.block:
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-f.closed:
			return n, api.ErrLost
		}
	case f.unacknowledged && n > 0:
		<-ctx.Done()
		return 0, ctx.Err()
	case f.refuse != nil && n == f.refuse.Index:
		return n, f.refuse
	case f.lost > 0:
		return n - f.lost, api.ErrLost
	}
	return n, f.failure
}

// respond sends a response from another goroutine would: from this one.
func (f *fake) respond(header, data string) {
	raw, err := wire.AppendFrame(nil, []byte(header), []byte(data), nil)
	if err != nil {
		panic(err)
	}
	frame, err := wire.ParseFrame(raw)
	if err != nil {
		panic(err)
	}
	f.opts.Responses(&frame)
}

// result is what a run of the program left.
type outcome struct {
	status         int
	stdout, stderr string
}

func (f *fake) run(ctx context.Context, stdin io.Reader, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	p := program{stdin: stdin, stdout: &stdout, stderr: &stderr,
		connect: func(_ context.Context, t api.Target) (client, error) {
			f.target = t
			return f, nil
		}}
	status := p.run(ctx, args)
	return outcome{status, stdout.String(), stderr.String()}
}

const toPeer = `"destination_id": "('127.0.0.1', 10673)"`

func TestSend(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(binary, []byte("\x00\x01"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "e")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	head := `{"message_type": "any", "source_id": "client1", ` + toPeer
	tests := []struct {
		name  string
		fake  *fake
		args  string
		input string
		want  []sent
	}{
		{"JSON by default, the first type", client1(), "", `{"a":1} 2`,
			[]sent{{head + "}", `{"a":1}`, ""}, {head + "}", "2", ""}}},
		{"nothing at all", client1(), "", "", nil},
		{"raw nothing", client1(), "-raw", "", []sent{{head + "}", "", ""}}},
		{"another type", client1(), "-type sum", "1",
			[]sent{{strings.Replace(head, "any", "sum", 1) + "}", "1", ""}}},
		{"lines", client1(), "-lines", "a\nb", []sent{{head + "}", "a", ""}, {head + "}", "b", ""}}},
		{"records", client1(), "-0", "a\x00", []sent{{head + "}", "a", ""}}},
		{"everything in the header", client1(),
			"-request-id 0 -response-id x -binary " + binary + " -ack -tag a:b", "1",
			[]sent{{head + `, "request_id": 0, "response_id": "x", "with_binary": true, "wait_for_ack": true, "tag": "a:b"}`, "1", "\x00\x01"}}},
		{"an empty binary file is no binary part", client1(), "-binary " + empty, "1", []sent{{head + "}", "1", ""}}},
		{"ids: digits", client1(), "-request-id 007", "1", []sent{{head + `, "request_id": 7}`, "1", ""}}},
		{"ids: a string of digits", client1(), `-request-id "7"`, "1", []sent{{head + `, "request_id": "7"}`, "1", ""}}},
		{"ids: a string", client1(), `-request-id -é`, "1", []sent{{head + `, "request_id": "-\u00e9"}`, "1", ""}}},
		{"the peer by name", client1(), "-to ('127.0.0.1',_10673)", "1", []sent{{head + "}", "1", ""}}},
		{"from a server", server1(), "-to pump7", "1",
			[]sent{{`{"message_type": "any", "source_id": "('127.0.0.1', 10673)", "destination_id": "pump7"}`, "1", ""}}},
		{"a ping", client1(), "-type _ping", "1", []sent{{strings.Replace(head, "any", "_ping", 1) + "}", "1", ""}}},

		{"an envelope", client1(), "-envelope",
			`{"message_type":"sum","source_id":"x","tag":"t","destination_id":"y","data_text":"q"}`,
			[]sent{{`{"message_type": "sum", "source_id": "client1", "tag": "t", ` + toPeer + `}`, "q", ""}}},
		{"an envelope with little in it", client1(), "-envelope", `{}`, []sent{{`{"source_id": "client1", "message_type": "any", ` + toPeer + `}`, "", ""}}},
		{"envelopes that repeat", client1(), "-envelope",
			`{"message_type":"sum","data":1}{"message_type":"sum","data":2}{"message_type":"sum","binary_base64":"AA=="}{"message_type":"any"}`,
			[]sent{
				{`{"message_type": "sum", "source_id": "client1", ` + toPeer + `}`, "1", ""},
				{`{"message_type": "sum", "source_id": "client1", ` + toPeer + `}`, "2", ""},
				{`{"message_type": "sum", "with_binary": true, "source_id": "client1", ` + toPeer + `}`, "", "\x00"},
				{`{"message_type": "any", "source_id": "client1", ` + toPeer + `}`, "", ""},
			}},
		{"flags win over envelopes", client1(), "-envelope -type any -tag u -request-id 1 -response-id 2 -ack",
			`{"message_type":"sum","tag":"t","request_id":5}`,
			[]sent{{`{"message_type": "any", "tag": "u", "request_id": 1, "source_id": "client1", ` + toPeer +
				`, "response_id": 2, "wait_for_ack": true}`, "", ""}}},
		{"messages with an id", client1(), "-id x", "1 2",
			[]sent{{`{"message_type": "any", "source_id": "client1", ` + toPeer + `, "id": "x"}`, "1", ""},
				{`{"message_type": "any", "source_id": "client1", ` + toPeer + `, "id": "x#2"}`, "2", ""}}},
		{"an envelope from a server", server1(), "-envelope", `{"message_type":"any","destination_id":"c"}`,
			[]sent{{`{"message_type": "any", "destination_id": "c", "source_id": "('127.0.0.1', 10673)"}`, "", ""}}},
		{"an envelope from a server to another", server1(), "-envelope -to d", `{"message_type":"any","destination_id":"c"}`,
			[]sent{{`{"message_type": "any", "destination_id": "d", "source_id": "('127.0.0.1', 10673)"}`, "", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "_1", " 1")
			}
			got := tt.fake.run(t.Context(), strings.NewReader(tt.input), args...)
			if got != (outcome{}) {
				t.Errorf("got %+v", got)
			}
			if fmt.Sprintf("%q", tt.fake.sent) != fmt.Sprintf("%q", tt.want) {
				t.Errorf("sent %q\nwant %q", tt.fake.sent, tt.want)
			}
		})
	}
}

func TestUsageMistakes(t *testing.T) {
	tests := []struct{ args, want string }{
		{"x", `unexpected argument "x"`},
		{"-lines -0", "-0 can't be used with -lines"},
		{"-id x -envelope", "-id can't be used with -envelope"},
		{"-ttl 1s -envelope", "-ttl can't be used with -envelope"},
		{"-ttl 1s -publish", "-publish can't be used with -ttl"},
		{"-ttl 0", "-ttl: want more than 0"},
		{"-id=", "-id: the argument is empty"},
		{"-raw -envelope", "-envelope can't be used with -raw"},
		{"-envelope -binary x", "-binary can't be used with -envelope"},
		{"-binary -", "-binary -: standard input"},
		{"-await -response-id 1", "-response-id can't be used with -await"},
		{"-timeout 1", "-timeout can only be used with -await, -ack, -wait or -delete"},
		{"-await -timeout 0", "-timeout: want more than 0"},
		{"-type=", "-type: the argument is empty"},
		{"-to=", "-to: the argument is empty"},
		{"-tag a/b", "-tag: "},
		{`-request-id "7`, "whole JSON string"},
		{`-response-id "7"8`, "whole JSON string"},
		{"-request-id=", "want an id"},
		{"-nonesuch", "nonesuch"},
		{"-file x -envelope", "-file can't be used with -envelope"},
		{"-file x -lines", "-lines can't be used with -file"},
		{"-file -", "-file -: "},
		{"-file=", "-file: the argument is empty"},
		{"-file x y", `unexpected argument "y"`},
		{"-delete", "-delete can only be used with -file"},
		{"-file-name x", "-file-name can only be used with -file"},
		{"-file x -file-name ../x", `-file-name: the peer would not store the file: "../x" contains ..`},
		{"-file x -file-name a/../../x", "contains .."},
		{"-file x -file-name /abs", "is absolute"},
		{"-file x -file-name a\x00", "-file-name: the peer would not"},
		{"-file x -file-name /", "is absolute"},
		{"-file x -owner me", "-owner me: want user:group"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			f := client1()
			got := f.run(t.Context(), strings.NewReader("1"), strings.Fields(tt.args)...)
			if got.status != 2 || !strings.Contains(got.stderr, tt.want) || !strings.HasSuffix(got.stderr, "see aioc-send -h\n") {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
			if f.target != (api.Target{}) || f.sent != nil {
				t.Error("something was done")
			}
		})
	}
}

func TestWhatDoesNotFitTheConnector(t *testing.T) {
	python := client1()
	python.info.Native = false
	none := client1()
	none.info.SendTypes = nil
	tests := []struct {
		name   string
		fake   *fake
		args   string
		status int
		want   string
	}{
		{"a type it does not send", client1(), "-type x", 77, `type "x" is not one that the connector sends (send_message_types): any, sum`},
		{"a reserved type", client1(), "-type _pubsub", 77, `type "_pubsub"`},
		{"another peer", client1(), "-to pump7", 2, "-to pump7: the connector is a client"},
		{"no peer", server1(), "", 2, "-to is missing"},
		{"-ack of a Python one", python, "-ack", 2, "-ack can't be used here"},
		{"-wait of a Python one", python, "-wait", 2, "-wait can't be used here"},
		{"-id of a Python one", python, "-id x", 2, "-id can't be used here"},
		{"-ttl of a Python one", python, "-ttl 1s", 2, "-ttl can't be used here"},
		{"no types", none, "", 2, "-type is missing"},
		{"no types but one given", none, "-type any", 77, "the connector sends none"},
		{"a header too long", client1(), "-request-id " + strings.Repeat("x", 65536), 2, "at most 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.fake.run(t.Context(), strings.NewReader("1"), strings.Fields(tt.args)...)
			if got.status != tt.status || !strings.Contains(got.stderr, tt.want) || len(tt.fake.sent) > 0 {
				t.Errorf("got %+v, want %d and %q", got, tt.status, tt.want)
			}
		})
	}
}

func TestConnectFailures(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{fmt.Errorf("dir: %w", api.ErrNoConnector), 69},
		{fmt.Errorf("a and b: %w", api.ErrSeveral), 2},
		{fmt.Errorf("socket: %w", api.ErrRefused), 77},
		{fmt.Errorf("%w: %w", api.ErrConfig, config.Errors{errors.New("key x"), errors.New("key y")}), 78},
		{io.ErrUnexpectedEOF, 1},
	}
	for _, tt := range tests {
		var stderr bytes.Buffer
		p := program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: &stderr,
			connect: func(context.Context, api.Target) (client, error) { return nil, tt.err }}
		if got := p.run(t.Context(), nil); got != tt.want || strings.Contains(stderr.String(), `\n`) || !strings.HasPrefix(stderr.String(), "aioc-send: ") {
			t.Errorf("%v: got %d, %q, want %d", tt.err, got, stderr.String(), tt.want)
		}
	}
}

func TestTheConnectorIsTheOneAskedFor(t *testing.T) {
	t.Setenv("AIOC_DIR", "/d")
	f := client1()
	f.run(t.Context(), strings.NewReader(""), "-config", "c", "-connector", "n")
	if want := (api.Target{ConfigFile: "c", Dir: "/d", Connector: "n"}); f.target != want {
		t.Errorf("got %+v, want %+v", f.target, want)
	}
}

func TestBinaryFileThatIsMissing(t *testing.T) {
	f := client1()
	got := f.run(t.Context(), strings.NewReader("1"), "-binary", filepath.Join(t.TempDir(), "none"))
	if got.status != 1 || !strings.Contains(got.stderr, "-binary: open ") || f.sent != nil {
		t.Errorf("got %+v", got)
	}
}

func TestInputIsFlushedBeforeItIsWaitedFor(t *testing.T) {
	f := client1()
	r, w := io.Pipe()
	done := make(chan outcome)
	go func() { done <- f.run(context.Background(), r) }()
	io.WriteString(w, "1 ")
	io.WriteString(w, " ") // was read: so there has been a flush since the first
	f.mu.Lock()
	if len(f.sent) != 1 || f.flush == 0 {
		t.Errorf("%d sent, %d flushes", len(f.sent), f.flush)
	}
	f.mu.Unlock()
	w.Close()
	if got := <-done; got.status != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestTimeoutWithoutAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := client1()
		f.block = true
		start := time.Now()
		got := f.run(t.Context(), strings.NewReader("1"), "-wait", "-timeout", "10s")
		if got.status != 124 || got.stderr != "aioc-send: 0 messages taken: time is up\n" || !f.opts.Wait {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+3*grace {
			t.Errorf("took %v", took)
		}
	})
}

func TestSignalEndsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			block bool
			want  string
		}{
			{"while it reads", false, "aioc-send: 2 messages taken: ended by signal: terminated\n"},
			{"while the connector takes nothing", true, "aioc-send: 0 messages taken: ended by signal: terminated\n"},
		} {
			f := client1()
			f.block = tt.block
			ctx, end := context.WithCancelCause(t.Context())
			r, w := io.Pipe()
			go io.WriteString(w, "1 2 ")
			time.AfterFunc(time.Second, func() { end(signalError{syscall.SIGTERM}) })
			start := time.Now()
			got := f.run(ctx, r)
			if got.status != 143 || got.stderr != tt.want {
				t.Errorf("%s: got %+v", tt.name, got)
			}
			if took := time.Since(start) - time.Second; took > 3*grace {
				t.Errorf("%s: took %v", tt.name, took)
			}
			r.Close()
		}
	})
}

// failing is a reader's end that is not there any more.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestResponsesThatCannotBePrinted(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		stderr string
	}{
		{&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}, 141, ""},
		{syscall.ENOSPC, 75, "aioc-send: standard output: no space left on device\n"},
	} {
		f := client1()
		f.answer = echo
		var stderr bytes.Buffer
		p := program{stdin: strings.NewReader("1"), stdout: failing{tt.err}, stderr: &stderr,
			connect: func(context.Context, api.Target) (client, error) { return f, nil }}
		if got := p.run(t.Context(), []string{"-await"}); got != tt.status || stderr.String() != tt.stderr {
			t.Errorf("%v: got %d, %q", tt.err, got, stderr.String())
		}
	}
}

func TestUsageText(t *testing.T) {
	got := client1().run(t.Context(), strings.NewReader(""), "-h")
	if got.status != 0 || !strings.HasPrefix(got.stdout, "usage: aioc-send ") || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkSend(b *testing.B) {
	value := `{"sensor":"t1","temp":21.5,"unit":"C","at":"2026-11-22T18:00:00Z","note":"xxxxxxxxxxxxxxxxxxxx"}`
	for _, bb := range []struct{ name, flag, sep string }{{"json", "-type=any", "\n"}, {"nul", "-0", "\x00"}} {
		b.Run(bb.name, func(b *testing.B) {
			text := strings.Repeat(value+bb.sep, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			p := program{stdin: strings.NewReader(text), stdout: io.Discard, stderr: os.Stderr,
				connect: func(context.Context, api.Target) (client, error) { return void{}, nil }}
			if p.run(b.Context(), []string{bb.flag}) != 0 {
				b.Fatal("failed")
			}
		})
	}
}

// void takes everything at no cost.
type void struct{}

func (void) Info() api.Info                { return client1().info }
func (void) Close() error                  { return nil }
func (void) Sender(api.SendOptions) sender { return voidSender{} }

type voidSender struct{}

func (voidSender) Put(_, _, _ []byte) error                 { return nil }
func (voidSender) PutFile(_, _, _ []byte, _ *os.File) error { return nil }
func (voidSender) Flush() error                             { return nil }
func (voidSender) Finish(context.Context) (int, error)      { return 0, nil }
func (voidSender) Ended() <-chan struct{}                   { return nil }
func (voidSender) Close()                                   {}

func TestMessagesWithATimeToLiveSayWhenItEnds(t *testing.T) {
	f := client1()
	before := time.Now()
	if got := f.run(t.Context(), strings.NewReader("1 2"), "-ttl", "90s"); got != (outcome{}) {
		t.Fatalf("got %+v", got)
	}
	if len(f.sent) != 2 {
		t.Fatalf("sent %q", f.sent)
	}
	for _, m := range f.sent {
		var h wire.Header
		if err := h.Parse([]byte(m.header)); err != nil {
			t.Fatal(err)
		}
		at, ok := h.ExpiresAt()
		if early, late := before.Add(90*time.Second), time.Now().Add(90*time.Second); !ok || at.Before(early.Truncate(time.Millisecond)) || at.After(late) {
			t.Errorf("expires at %v, want between %v and %v", at, early, late)
		}
	}
}
