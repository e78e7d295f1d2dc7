//go:build interop

package regress

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tools are the programs that send to and receive from one connector, of
// either kind. Their methods may be called from several goroutines.
type tools interface {
	// receive starts a receiver of a type. An answering one sends every
	// request its own data back.
	receive(t *testing.T, typ string, answering bool) *inbox
	// send sends samples, in order, and returns when they have been taken.
	send(typ string, samples ...sample) error
	// burst sends count texts, in order: format % number.
	burst(typ, format string, count int) error
	// request sends a sample and returns the response.
	request(typ string, s sample) (message, error)
	// reconnects makes sure that the next message is not written to a
	// connection that the connector closed when it was restarted.
	reconnects() error
	// kind is the implementation of the tools.
	kind() string
}

// sample is a message to send.
type sample struct {
	name       string
	data       string
	json       bool // data is JSON, written as json.dumps writes it
	text       bool // data is a text of one line
	binary     string
	requestID  any
	responseID any
	tag        string
	ack        bool
}

// arrives returns the message as it arrives, sent from one host to its peer.
func (s sample) arrives(from *host, typ string) message {
	m := message{data: []byte(s.data), binary: []byte(s.binary), fields: map[string]string{
		"message_type":   quote(typ),
		"source_id":      quote(from.id),
		"destination_id": quote(from.peer),
	}}
	if s.binary != "" {
		m.fields["with_binary"] = "true"
	}
	if s.requestID != nil {
		m.fields["request_id"] = quote(s.requestID)
	}
	if s.responseID != nil {
		m.fields["response_id"] = quote(s.responseID)
	}
	if s.tag != "" {
		m.fields["tag"] = quote(s.tag)
	}
	if s.ack {
		m.fields["wait_for_ack"] = "true"
	}
	return m
}

// newTools makes tools of a kind for a host.
func newTools(t *testing.T, kind string, h *host) tools {
	t.Helper()
	if kind == theirs {
		return newDriver(t, h)
	}
	return &goTools{host: h, bin: binaries(t), dir: t.TempDir()}
}

// goTools are aioc-send and aioc-recv.
type goTools struct {
	host *host
	bin  string
	dir  string // for files to send
	mu   sync.Mutex
	n    int
}

func (g *goTools) kind() string { return ours }

func (g *goTools) reconnects() error { return nil }

// command is a tool with its connector chosen.
func (g *goTools) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(g.bin, program), append([]string{"-config", g.host.config}, args...)...)
	cmd.Env = plainEnv()
	return cmd
}

// run runs aioc-send with an input and returns its output.
func (g *goTools) run(stdin []byte, args ...string) ([]byte, error) {
	if g.host.server {
		args = append([]string{"-to", g.host.peer}, args...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := g.command(ctx, "aioc-send", args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("still running after %v", patience)
	}
	if err != nil || errs.Len() > 0 {
		return out.Bytes(), fmt.Errorf("aioc-send %q: %w: %s", args, or2(err, errors.New("wrote to standard error")), errs.Bytes())
	}
	return out.Bytes(), nil
}

// or2 returns err, or other if err is nil.
func or2(err, other error) error {
	if err == nil {
		return other
	}
	return err
}

// id returns an id as the flags -request-id and -response-id take it.
func id(v any) string {
	s, ok := v.(string)
	if !ok {
		return quote(v)
	}
	if s == "" || strings.Trim(s, "0123456789") == "" || strings.HasPrefix(s, `"`) {
		return quote(s)
	}
	return s
}

// input returns the flags and the standard input that send a sample.
func (g *goTools) input(typ string, s sample) (args []string, stdin []byte, err error) {
	args = []string{"-type", typ}
	stdin = []byte(s.data)
	switch {
	case s.json && json.Valid(stdin):
	case s.text:
		args = append(args, "-lines")
		stdin = append(stdin, '\n')
	default:
		args = append(args, "-raw")
	}
	if s.binary != "" {
		g.mu.Lock()
		g.n++
		name := filepath.Join(g.dir, fmt.Sprint(g.n))
		g.mu.Unlock()
		if err := os.WriteFile(name, []byte(s.binary), 0o600); err != nil {
			return nil, nil, err
		}
		args = append(args, "-binary", name)
	}
	if s.requestID != nil {
		args = append(args, "-request-id", id(s.requestID))
	}
	if s.responseID != nil {
		args = append(args, "-response-id", id(s.responseID))
	}
	if s.tag != "" {
		args = append(args, "-tag", s.tag)
	}
	if s.ack {
		args = append(args, "-ack")
	}
	return args, stdin, nil
}

func (g *goTools) send(typ string, samples ...sample) error {
	for _, s := range samples {
		args, stdin, err := g.input(typ, s)
		if err != nil {
			return err
		}
		out, err := g.run(stdin, args...)
		if s.ack && g.host.kind == theirs {
			// A Python connector tells nobody what became of a message, and
			// aioc-send says so. It is asked for by the header all the same.
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 2 {
				return fmt.Errorf("%s: aioc-send -ack at a Python connector: %w, want status 2", s.name, or2(err, errors.New("no error")))
			}
			err = g.sendEnvelopes(typ, []sample{s})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if len(out) > 0 {
			return fmt.Errorf("%s: aioc-send printed %q", s.name, out)
		}
	}
	return nil
}

// sendEnvelopes sends samples with one aioc-send.
func (g *goTools) sendEnvelopes(typ string, samples []sample) error {
	var lines []byte
	for _, s := range samples {
		lines = append(lines, s.arrives(g.host, typ).writeEnvelope()...)
	}
	_, err := g.run(lines, "-envelope")
	return err
}

func (g *goTools) burst(typ, format string, count int) error {
	var lines bytes.Buffer
	for i := range count {
		fmt.Fprintf(&lines, format+"\n", i)
	}
	_, err := g.run(lines.Bytes(), "-type", typ, "-lines")
	return err
}

// request sends the sample as an envelope, since only an envelope can have a
// response printed with its transport.
func (g *goTools) request(typ string, s sample) (message, error) {
	m := s.arrives(g.host, typ)
	out, err := g.run(m.writeEnvelope(), "-await", "-envelope", "-timeout", patience.String())
	if err != nil {
		return message{}, fmt.Errorf("%s: %w", s.name, err)
	}
	line, ok := bytes.CutSuffix(out, []byte("\n"))
	if !ok || bytes.ContainsRune(line, '\n') {
		return message{}, fmt.Errorf("%s: aioc-send -await -envelope printed %q, want one line", s.name, out)
	}
	return readEnvelope(line)
}

// requestJSON sends JSON values with one aioc-send and returns what it prints.
func (g *goTools) requestJSON(typ, values string) (string, error) {
	out, err := g.run([]byte(values), "-type", typ, "-await", "-timeout", patience.String())
	return string(out), err
}

func (g *goTools) receive(t *testing.T, typ string, answering bool) *inbox {
	t.Helper()
	args := []string{"-type", typ}
	if answering {
		args = append(args, "--", "cat")
	} else {
		args = append(args, "-envelope")
	}
	return g.receiver(t, typ, args...)
}

// receiver starts aioc-recv and returns when it is sure to get what arrives.
func (g *goTools) receiver(t *testing.T, typ string, args ...string) *inbox {
	t.Helper()
	box := newInbox()
	cmd := g.command(context.Background(), "aioc-recv", args...)
	cmd.Stdout = &lines{put: func(line []byte) { box.put(readEnvelope(line)) }}
	p := start(t, "aioc-recv -type "+typ, cmd)
	t.Cleanup(func() {
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	if g.host.kind == theirs {
		// A Python connector drops what arrives before somebody listens.
		eventually(t, "aioc-recv -type "+typ+" listens", func() error {
			if p.ended() {
				t.Fatalf("aioc-recv %q ended: %v", args, p.err)
			}
			conn, err := os.Stat(g.host.receiveSocket(typ))
			if err == nil && conn.Mode()&os.ModeSocket == 0 {
				err = fmt.Errorf("%v is no socket", conn.Name())
			}
			return err
		})
	}
	return box
}

// lines is a writer that hands over each line that is written.
type lines struct {
	put func(line []byte)
	buf []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.buf = append(l.buf, b...)
	for {
		i := bytes.IndexByte(l.buf, '\n')
		if i < 0 {
			return len(b), nil
		}
		l.put(bytes.Clone(l.buf[:i]))
		l.buf = l.buf[i+1:]
	}
}

// driver runs the original's API and remote tool: testdata/interop/api.py.
type driver struct {
	host *host
	proc *process

	writing sync.Mutex // guards stdin; never taken with mu
	stdin   *os.File

	mu      sync.Mutex // guards what follows
	n       int
	waiting map[int]chan reply
	boxes   map[string]*inbox
	problem string
}

// reply is what the driver says about an operation.
type reply struct {
	Result    bool
	Reply     string
	Error     string
	Transport map[string]json.RawMessage
	Data      []byte
	Binary    []byte
}

// newDriver starts a driver for a host.
func newDriver(t *testing.T, h *host) *driver {
	t.Helper()
	d := &driver{host: h, waiting: map[int]chan reply{}, boxes: map[string]*inbox{}}
	cmd := exec.Command(h.py.exe, script(t, "api.py"), h.config)
	d.stdin = keepStdin(t, cmd)
	ready := make(chan struct{})
	cmd.Stdout = &lines{put: func(line []byte) { d.event(line, ready) }}
	d.proc = start(t, "Python programs of the "+h.role(), cmd)
	select {
	case <-ready:
	case <-d.proc.done:
		t.Fatalf("api.py ended: %v", d.proc.err)
	case <-time.After(patience):
		t.Fatalf("api.py is not ready after %v", patience)
	}
	t.Cleanup(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.problem != "" {
			t.Error("api.py: " + d.problem)
		}
	})
	return d
}

func (d *driver) kind() string { return theirs }

// event handles a line of the driver.
func (d *driver) event(line []byte, ready chan struct{}) {
	var e struct {
		Event string
		ID    int
		Type  string
		reply
	}
	if err := json.Unmarshal(line, &e); err != nil {
		d.mu.Lock()
		d.problem = fmt.Sprintf("%v: %.200q", err, line)
		d.mu.Unlock()
		return
	}
	switch e.Event {
	case "ready":
		close(ready)
	case "received":
		d.mu.Lock()
		box := d.boxes[e.Type]
		d.mu.Unlock()
		m, err := newMessage(e.Transport, e.Data, e.Binary)
		// The API must have been told of a binary, and only of one.
		if _, told := e.Transport["with_binary"]; err == nil && told != (len(e.Binary) > 0) {
			err = fmt.Errorf("with_binary is there: %v; %d bytes of binary", told, len(e.Binary))
		}
		box.put(m, err)
	case "done":
		d.mu.Lock()
		waits := d.waiting[e.ID]
		delete(d.waiting, e.ID)
		d.mu.Unlock()
		waits <- e.reply
	}
}

// op is an operation of the driver.
type op map[string]any

// do has the driver carry out an operation and returns what it says.
func (d *driver) do(o op) (reply, error) {
	answer := make(chan reply, 1)
	d.mu.Lock()
	d.n++
	o["id"] = d.n
	d.waiting[d.n] = answer
	d.mu.Unlock()
	line, err := json.Marshal(o)
	if err != nil {
		return reply{}, err
	}
	d.writing.Lock()
	err = d.stdin.SetWriteDeadline(time.Now().Add(patience))
	if err == nil {
		_, err = d.stdin.Write(append(line, '\n'))
	}
	d.writing.Unlock()
	if err != nil {
		return reply{}, fmt.Errorf("%s: api.py does not take it: %w", o["op"], err)
	}
	select {
	case r := <-answer:
		if r.Error != "" {
			return r, fmt.Errorf("%s: %s", o["op"], r.Error)
		}
		return r, nil
	case <-d.proc.done:
		return reply{}, fmt.Errorf("%s: api.py ended: %v", o["op"], d.proc.err)
	case <-time.After(patience + 5*time.Second):
		return reply{}, fmt.Errorf("%s: no answer after %v", o["op"], patience)
	}
}

// operation is the operation that sends a sample.
func (d *driver) operation(name, typ string, s sample) op {
	o := op{"op": name, "type": typ}
	if d.host.server {
		o["to"] = d.host.peer
	}
	switch {
	case s.json:
		o["json"] = s.data
	case s.text:
		o["text"] = s.data
	case s.data != "":
		o["data"] = base64.StdEncoding.EncodeToString([]byte(s.data))
	}
	if s.binary != "" {
		o["binary"] = base64.StdEncoding.EncodeToString([]byte(s.binary))
	}
	if s.requestID != nil {
		o["request_id"] = s.requestID
	}
	if s.responseID != nil {
		o["response_id"] = s.responseID
	}
	if s.tag != "" {
		o["tag"] = s.tag
	}
	if s.ack {
		o["ack"] = true
	}
	return o
}

func (d *driver) receive(t *testing.T, typ string, answering bool) *inbox {
	t.Helper()
	box := newInbox()
	d.mu.Lock()
	d.boxes[typ] = box
	d.mu.Unlock()
	if _, err := d.do(op{"op": "listen", "type": typ, "answer": answering}); err != nil {
		t.Fatal(err)
	}
	return box
}

func (d *driver) send(typ string, samples ...sample) error {
	for _, s := range samples {
		r, err := d.do(d.operation("send", typ, s))
		if err == nil && !r.Result {
			err = errors.New("send_message returned False")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (d *driver) burst(typ, format string, count int) error {
	o := op{"op": "burst", "type": typ, "count": count, "text": format}
	if d.host.server {
		o["to"] = d.host.peer
	}
	r, err := d.do(o)
	if err == nil && !r.Result {
		err = errors.New("send_message returned False")
	}
	return err
}

func (d *driver) request(typ string, s sample) (message, error) {
	o := d.operation("request", typ, s)
	o["timeout"] = patience.Seconds()
	r, err := d.do(o)
	if err == nil && !r.Result {
		err = errors.New("send_message_await_response returned no response")
	}
	if err != nil {
		return message{}, fmt.Errorf("%s: %w", s.name, err)
	}
	return newMessage(r.Transport, r.Data, r.Binary)
}

func (d *driver) reconnects() error {
	_, err := d.do(op{"op": "forget"})
	return err
}

// call calls a method of the original's remote tool and returns the reply.
func (d *driver) call(method string, args ...any) (string, error) {
	r, err := d.do(op{"op": "call", "name": method, "args": args})
	return r.Reply, err
}

// command sends a command with the original's remote tool.
func (d *driver) command(name string, kwargs map[string]any) (string, error) {
	r, err := d.do(op{"op": "command", "name": name, "kwargs": kwargs})
	return r.Reply, err
}
