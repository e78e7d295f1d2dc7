package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/link"
	"aioc/lib/wire"
)

// fake is a connector with messages to give out.
type fake struct {
	info    api.Info
	batch   int   // messages between two flushes
	failure error // of Run, at once
	forget  bool  // what was given out counts as acknowledged

	target api.Target
	opts   api.ReceiveOptions

	mu       sync.Mutex
	messages []*wire.Frame
	acked    []uint64
	returned []uint64
	late     []*wire.Frame // to be given out again
	dead     []string      // what was said of dead letters
	answers  []string      // responses: request and data
	answer   error         // of Respond
	room     int           // the response from which on answer is nil; 0: none
	changed  chan struct{}
}

func newFake(t testing.TB, frames ...*wire.Frame) *fake {
	t.Helper()
	return &fake{
		info:     api.Info{Name: "client1", RecvTypes: []string{"any", "job"}, Native: true},
		batch:    2,
		messages: frames, changed: make(chan struct{}, 1),
	}
}

// message is a frame with a header and data.
func message(t testing.TB, header, data, bin string) *wire.Frame {
	t.Helper()
	raw, err := wire.AppendFrame(nil, []byte(header), []byte(data), []byte(bin))
	if err != nil {
		t.Fatal(err)
	}
	f, err := wire.ParseFrame(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &f
}

// messages are plain ones, of type any.
func messages(t testing.TB, data ...string) (all []*wire.Frame) {
	t.Helper()
	for _, d := range data {
		all = append(all, message(t, `{"message_type": "any", "source_id": "s"}`, d, ""))
	}
	return all
}

func (f *fake) Info() api.Info                         { return f.info }
func (f *fake) Close() error                           { return nil }
func (f *fake) Receiver(o api.ReceiveOptions) receiver { f.opts = o; return f }
func (f *fake) notify() {
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fake) Respond(r api.Request, data []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers = append(f.answers, fmt.Sprintf("%s %s %s: %s", r.Type, r.Source, r.RequestID, data))
	if f.room > 0 && len(f.answers) >= f.room {
		return nil
	}
	return f.answer
}

func (f *fake) Done(n uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.notify()
	var why *link.Refusal
	switch errors.As(err, &why); {
	case why != nil && why.Reason == link.Dead:
		f.dead = append(f.dead, fmt.Sprint(why.Tries, " ", why.Text))
		f.acked = append(f.acked, n)
	case why != nil && f.opts.Count > 0:
		again := f.messages[n-1]
		header := wire.AppendEdited(nil, again.Header.Raw, wire.Edit{Key: "tries", Value: strconv.AppendInt(nil, int64(why.Tries), 10)})
		raw, _ := wire.AppendFrame(nil, header, again.Data, again.Binary)
		frame, _ := wire.ParseFrame(raw)
		f.late = append(f.late, &frame)
	case err != nil:
		f.returned = append(f.returned, n)
	default:
		f.acked = append(f.acked, n)
	}
}

func (f *fake) done() (acked, returned int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked), len(f.returned)
}

func (f *fake) Run(ctx context.Context) error {
	if f.failure != nil {
		return f.failure
	}
	o := f.opts
	for i, m := range f.messages {
		if o.Count > 0 && i == o.Count {
			break
		}
		for o.Manual {
			acked, returned := f.done()
			if i-acked-returned < o.Window {
				break
			}
			select {
			case <-f.changed:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := o.Frame(uint64(i+1), m); err != nil {
			return err
		}
		if (i+1)%f.batch == 0 || i+1 == len(f.messages) || i+1 == o.Count {
			if err := o.Flush(); err != nil {
				return err
			}
			if !o.Manual {
				f.mu.Lock()
				for n := len(f.acked); n <= i; n++ {
					f.acked = append(f.acked, uint64(n+1))
				}
				f.mu.Unlock()
			}
		}
	}
	for {
		acked, returned := f.done()
		if o.Count > 0 && (acked == o.Count || f.forget) || o.Drain && acked+returned == len(f.messages) {
			return nil
		}
		f.mu.Lock()
		var again *wire.Frame
		if len(f.late) > 0 {
			again = f.late[0]
			f.late = f.late[1:]
			f.messages = append(f.messages, again)
		}
		n := len(f.messages)
		f.mu.Unlock()
		if again != nil {
			if err := o.Frame(uint64(n), again); err != nil {
				return err
			}
			continue
		}
		select {
		case <-f.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type outcome struct {
	status         int
	stdout, stderr string
}

func (f *fake) run(ctx context.Context, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	status := f.runTo(ctx, &stdout, &stderr, args...)
	return outcome{status, stdout.String(), stderr.String()}
}

func (f *fake) runTo(ctx context.Context, stdout, stderr io.Writer, args ...string) int {
	p := program{stdout: stdout, stderr: stderr, settle: func() {},
		connect: func(_ context.Context, t api.Target) (client, error) {
			f.target = t
			return f, nil
		}}
	return p.run(ctx, args)
}

func TestFormats(t *testing.T) {
	all := append(messages(t, `{"a": [1, 2]}`, "text\n", "\xff\x00", ""),
		message(t, `{"message_type": "any", "source_id": "s", "request_id": 7, "with_binary": true}`, `{"t":21.50}`, "\x01"))
	tests := []struct{ name, flags, want string }{
		{"JSON lines", "", `{"a":[1,2]}` + "\n" + `"text\n"` + "\n" + `{"base64":"/wA="}` + "\n" + `""` + "\n" + `{"t":21.50}` + "\n"},
		{"raw", "-raw", `{"a": [1, 2]}` + "text\n\xff\x00" + `{"t":21.50}`},
		{"records", "-0", `{"a": [1, 2]}` + "\x00text\n\x00\xff\x00\x00\x00" + `{"t":21.50}` + "\x00"},
		{"envelopes", "-envelope", `{"message_type":"any","source_id":"s","data":{"a": [1, 2]}}` + "\n" +
			`{"message_type":"any","source_id":"s","data_text":"text\n"}` + "\n" +
			`{"message_type":"any","source_id":"s","data_base64":"/wA="}` + "\n" +
			`{"message_type":"any","source_id":"s"}` + "\n" +
			`{"message_type":"any","source_id":"s","request_id":7,"data":{"t":21.50},"binary_base64":"AQ=="}` + "\n"},
		{"a template", "-format={{.source_id}}:{{json_.data}}", "s:{\"a\":[1,2]}\ns:null\ns:null\ns:null\ns:{\"t\":21.50}\n"},
		{"a template with its own line break", "-format={{.request_id}}{{\"\\n\"}}", strings.Repeat("<no value>\n", 4) + "7\n"},
		{"a template that prints nothing", "-format={{if_.request_id}}x{{end}}", "\n\n\n\nx\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, all...)
			args := []string{"-drain"}
			if tt.flags != "" {
				args = append(args, strings.ReplaceAll(tt.flags, "_.", " ."))
			}
			got := f.run(t.Context(), args...)
			if got.status != 0 || got.stdout != tt.want || got.stderr != "" {
				t.Errorf("got  %+q\nwant %+q", got, tt.want)
			}
			if len(f.acked) != len(all) {
				t.Errorf("%d acknowledged", len(f.acked))
			}
		})
	}
}

func TestUsageMistakes(t *testing.T) {
	tests := []struct{ args, want string }{
		{"reading", `unexpected argument "reading"`},
		{"-n 1 sort --", `unexpected argument "sort"`},
		{"--", "there is no command after --"},
		{"-raw -0", "-0 can't be used with -raw"},
		{"-envelope -format x", "-format can't be used with -envelope"},
		{"-format {{", "unclosed action"},
		{"-raw -- cat", "-raw can't be used with a command"},
		{"-format x -- cat", "-format can't be used with a command"},
		{"-j 2", "-j can only be used with a command"},
		{"-limit 2", "-limit can only be used with a command"},
		{"-j 0 -- cat", "want 1 or more"},
		{"-n 0", "want 1 or more"},
		{"-timeout 0", "-timeout: want more than 0"},
		{"-idle 0s", "-idle: want more than 0"},
		{"-limit 0 -- cat", "-limit: want more than 0"},
		{"-type a,,b", "single commas"},
		{"-nonesuch", "nonesuch"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			f := newFake(t)
			got := f.run(t.Context(), strings.Fields(tt.args)...)
			if got.status != 2 || !strings.Contains(got.stderr, tt.want) || !strings.HasSuffix(got.stderr, "see aioc-recv -h\n") {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
			if f.opts.Frame != nil {
				t.Error("something was received")
			}
		})
	}
}

func TestCommandsThatCannotBeRun(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lost"), []byte("#!/nonesuch/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "noise"), []byte("\x00\x01"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, command string
		status        int
		connected     bool
	}{
		{"not in PATH", "nonesuch-command", 127, false},
		{"no such file", dir + "/nonesuch", 127, false},
		{"not executable", dir + "/data", 126, false},
		{"a directory", dir, 126, false},
		{"its interpreter is missing", dir + "/lost", 127, true},
		{"not a program", dir + "/noise", 126, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, messages(t, "1")...)
			got := f.run(t.Context(), "--", tt.command)
			if got.status != tt.status || !strings.Contains(got.stderr, fmt.Sprintf("%q", tt.command)) || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("got %+v, want %d", got, tt.status)
			}
			if connected := f.opts.Frame != nil; connected != tt.connected {
				t.Errorf("connected: %v", connected)
			}
			if acked, _ := f.done(); acked > 0 {
				t.Error("acknowledged")
			}
		})
	}
}

func TestTypes(t *testing.T) {
	python := api.Info{Name: "c"}
	tests := []struct {
		name   string
		info   *api.Info
		args   string
		status int
		want   string // types, or what is on stderr
	}{
		{"all", nil, "", 0, "[]"},
		{"some", nil, "-type job,any -type job", 0, "[job any]"},
		{"one that is not received", nil, "-type any,x", 77, `type "x" is not one that the connector receives (recv_message_types): any, job`},
		{"none are", &api.Info{Native: true}, "", 77, "recv_message_types are empty"},
		{"a Python connector", &python, "-type q -idle 0.01", 124, ""},
		{"a Python connector, to the end", &python, "-type q -drain", 2, "-drain can't be used here"},
		{"a Python connector, none given", &python, "", 2, "-type is missing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			if tt.info != nil {
				f.info = *tt.info
			}
			if f.info.Native {
				tt.args += " -drain"
			}
			got := f.run(t.Context(), strings.Fields(tt.args)...)
			if got.status != tt.status || tt.status == 0 && fmt.Sprint(f.opts.Types) != tt.want ||
				tt.status != 0 && !strings.Contains(got.stderr, tt.want) {
				t.Errorf("got %+v, types %v", got, f.opts.Types)
			}
		})
	}
}

// Python and Node discard output by opening /dev/null for reading and writing,
// which looks like a standard output that was closed.
func TestOutputThatIsDiscardedIsRefusedWhereMessagesWouldBeLost(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name string
		args []string
		want int
	}{
		{"messages are printed", []string{"-drain"}, 1},
		{"a command takes them", handler("", "cat"), 0},
	} {
		f := newFake(t, message(t, `{"message_type": "job"}`, "1", ""))
		var stderr bytes.Buffer
		p := program{stdout: null, stderr: &stderr, settle: func() {},
			connect: func(context.Context, api.Target) (client, error) { return f, nil }}
		got := p.run(t.Context(), tt.args)
		if got != tt.want || (len(f.acked) > 0) != (tt.want == 0) {
			t.Errorf("%s: got %d, %d acknowledged, %q, want %d", tt.name, got, len(f.acked), stderr.String(), tt.want)
		}
	}
}

func TestFailures(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{fmt.Errorf("dir: %w", api.ErrNoConnector), 69},
		{fmt.Errorf("a and b: %w", api.ErrSeveral), 2},
		{fmt.Errorf("socket: %w", api.ErrRefused), 77},
		{fmt.Errorf("%w: %w", api.ErrConfig, config.Errors{errors.New("x"), errors.New("y")}), 78},
		{api.ErrLost, 75},
		{io.ErrUnexpectedEOF, 1},
	}
	for _, tt := range tests {
		for _, connected := range []bool{false, true} {
			f := newFake(t)
			f.failure = tt.err
			var stderr bytes.Buffer
			p := program{stdout: io.Discard, stderr: &stderr, settle: func() {},
				connect: func(context.Context, api.Target) (client, error) {
					if connected {
						return f, nil
					}
					return nil, tt.err
				}}
			if got := p.run(t.Context(), nil); got != tt.want || !strings.HasPrefix(stderr.String(), "aioc-recv: ") || strings.Contains(stderr.String(), `\n`) {
				t.Errorf("%v: got %d, %q, want %d", tt.err, got, stderr.String(), tt.want)
			}
		}
	}
}

func TestTheConnectorIsTheOneAskedFor(t *testing.T) {
	t.Setenv("AIOC_CONNECTOR", "n")
	f := newFake(t)
	f.run(t.Context(), "-config", "c", "-dir", "/d", "-drain")
	if want := (api.Target{ConfigFile: "c", Dir: "/d", Connector: "n"}); f.target != want {
		t.Errorf("got %+v, want %+v", f.target, want)
	}
}

func TestCountLeavesTheRest(t *testing.T) {
	f := newFake(t, messages(t, "1", "2", "3", "4")...)
	got := f.run(t.Context(), "-n", "3")
	if got.status != 0 || got.stdout != "1\n2\n3\n" || len(f.acked) != 3 || f.opts.Count != 3 {
		t.Errorf("got %+v, acknowledged %v", got, f.acked)
	}
}

func TestTimeEnds(t *testing.T) {
	for _, tt := range []struct {
		args string
		want time.Duration
	}{
		{"-timeout 10s", 10 * time.Second},
		{"-idle 5s", 5 * time.Second},
		{"-idle 5s -timeout 3s", 3 * time.Second},
		{"-n 9 -timeout 2", 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, messages(t, "1", "2")...)
			start := time.Now()
			got := f.run(t.Context(), strings.Fields(tt.args)...)
			if got.status != 124 || got.stdout != "1\n2\n" || got.stderr != "" || time.Since(start) != tt.want {
				t.Errorf("%s: got %+v after %v", tt.args, got, time.Since(start))
			}
		})
	}
}

func TestSignalEndsTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { end(signalError{syscall.SIGINT}) })
		f := newFake(t)
		if got := f.run(ctx); got != (outcome{status: 130}) {
			t.Errorf("got %+v", got)
		}
	})
}

// failing is a writer that takes so many writes.
type failing struct {
	n   int
	err error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func TestWhatIsNotWrittenIsNotAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		stderr string
	}{
		{&os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}, 141, ""},
		{syscall.ENOSPC, 75, "aioc-recv: standard output: no space left on device\n"},
	} {
		for _, command := range []string{"", "-- cat"} {
			f := newFake(t, messages(t, "1", "2", "3", "4", "5", "6")...)
			var stderr bytes.Buffer
			status := f.runTo(t.Context(), &failing{n: 2, err: tt.err}, &stderr, strings.Fields(command)...)
			if status != tt.status || stderr.String() != tt.stderr {
				t.Errorf("%v: got %d, %q", tt.err, status, stderr.String())
			}
			want := 2 * f.batch
			if command != "" {
				want = 2
			}
			if acked, _ := f.done(); acked != want {
				t.Errorf("%v: %d acknowledged, want %d", tt.err, acked, want)
			}
		}
	}
}

func TestALongBatchIsWrittenInPieces(t *testing.T) {
	long := strings.Repeat("x", outputSize)
	f := newFake(t, messages(t, long, "1", long)...)
	f.batch = 10
	var stderr bytes.Buffer
	if got := f.runTo(t.Context(), &failing{n: 1, err: syscall.ENOSPC}, &stderr, "-drain"); got != 75 || len(f.acked) > 0 {
		t.Errorf("got %d, acknowledged %v", got, f.acked)
	}
}

func TestTemplateThatFails(t *testing.T) {
	f := newFake(t, messages(t, `{"a":1}`)...)
	got := f.run(t.Context(), "-format", "{{index .data 7}}")
	if got.status != 1 || !strings.Contains(got.stderr, "-format") || !strings.Contains(got.stderr, `message of type "any" from "s"`) ||
		!strings.Contains(got.stderr, `its data: "{\"a\":1}"`) || len(f.acked) > 0 {
		t.Errorf("got %+v", got)
	}
}

func TestUsageText(t *testing.T) {
	got := newFake(t).run(t.Context(), "-h")
	if got.status != 0 || !strings.HasPrefix(got.stdout, "usage: aioc-recv ") || got.stderr != "" {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkOutput(b *testing.B) {
	value := `{"sensor":"t1","temp":21.5,"unit":"C","at":"2026-11-22T18:00:00Z","note":"xxxxxxxxxxxxxxxxxxxx"}`
	f := message(b, `{"message_type": "any", "source_id": "s"}`, value, "")
	for _, bb := range []struct {
		name string
		use  format
	}{{"json", lines}, {"nul", records}, {"envelope", envelopes()}} {
		b.Run(bb.name, func(b *testing.B) {
			o := &output{w: io.Discard, format: bb.use}
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				if err := o.frame(1, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
