package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"aioc/lib/api"
	"aioc/lib/wire"
)

// answerTime is how long a response may take.
const answerTime = 10 * time.Second

// askAiocMain is a requester as a Go program would be one: it sends a request to the peer of the
// connector in a directory, waits for the response, and so on, and prints how long each took.
func askAiocMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("ask-aioc", flag.ContinueOnError)
	dir := fs.String("dir", "", "the connector is in `DIR`")
	count := fs.Int("count", 0, "ask `N` times; -1: until told to end")
	warm := fs.Int("warm", 0, "ask `N` times before that without measuring")
	size := fs.Int("size", 100, "`BYTES` of data")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	c, err := api.Open(ctx, api.Target{Dir: *dir})
	if err != nil {
		return err
	}
	got := make(chan error, 1)
	data := record(0, *size, false)
	s := c.Sender(api.SendOptions{Responses: func(f *wire.Frame) error {
		if string(f.Data) != string(data) {
			got <- fmt.Errorf("the response is %q", f.Data)
		} else {
			got <- nil
		}
		return nil
	}})
	late := time.NewTimer(answerTime)
	defer late.Stop()
	plain := c.Header("any", "")
	var header []byte
	n := 0
	err = times(stdout, *warm, *count, func() error {
		n++
		header = wire.AppendEdited(header[:0], plain,
			wire.Edit{Key: "request_id", Value: strconv.AppendInt(nil, int64(n), 10)},
			wire.Edit{Key: "await_response", Value: []byte("true")})
		if err := s.Put(header, data, nil); err != nil {
			return err
		}
		if err := s.Flush(); err != nil {
			return err
		}
		late.Reset(answerTime)
		select {
		case err := <-got:
			return err
		case <-late.C:
			return errors.Join(fmt.Errorf("no response in %v", answerTime), s.Flush())
		case <-ctx.Done():
			if *count < 0 {
				return errEnough
			}
			return ctx.Err()
		}
	})
	if err == nil {
		_, err = s.Finish(context.WithoutCancel(ctx))
	}
	s.Close()
	return errors.Join(err, c.Close())
}

// answerAiocMain is a responder as a Go program would be one: it answers every request that the
// connector in a directory receives with the same data, until it is told to end.
func answerAiocMain(args []string, _ *os.File, _ io.Writer) error {
	fs := flag.NewFlagSet("answer-aioc", flag.ContinueOnError)
	dir := fs.String("dir", "", "the connector is in `DIR`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	c, err := api.Open(ctx, api.Target{Dir: *dir})
	if err != nil {
		return err
	}
	r := c.Receiver(api.ReceiveOptions{Types: []string{"any"}, Frame: func(_ uint64, f *wire.Frame) error {
		if req, ok := api.RequestOf(f); ok {
			return c.Respond(context.Background(), req, f.Data, nil)
		}
		return nil
	}})
	if err = r.Run(ctx); errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, c.Close())
}

// aiocAsker sends requests through the real daemons, from a Go program or from aioc-send -await with
// requests on a pipe. A Go program answers.
type aiocAsker struct {
	aioc
	tool bool
}

func (a aiocAsker) name() string {
	if a.tool {
		return "aioc-send -await"
	}
	return "aioc"
}

func (a aiocAsker) ask(ctx context.Context, warm, count, size int, tls bool) (took []time.Duration, err error) {
	l, err := a.start(ctx, setup{tls: tls})
	if err != nil {
		return nil, err
	}
	defer func() { err = l.end(err) }()
	if err := l.answerer(); err != nil {
		return nil, err
	}
	if a.tool {
		return l.askTool(warm, count, size)
	}
	p, err := l.asker(warm, count, size)
	if err != nil {
		return nil, err
	}
	return p.times()
}

// answerer starts a Go program that answers what arrives at the server.
func (l *aiocLine) answerer() error {
	_, _, err := l.self(command{name: "responder", args: []string{"answer-aioc", "-dir", l.path("server")}, lasting: true}, false)
	return err
}

// asker starts a Go program that asks it, until it is told to end where count is -1.
func (l *aiocLine) asker(warm, count, size int) (*child, error) {
	c := command{name: "requester", args: []string{"ask-aioc", "-dir", l.path("client"), "-size", strconv.Itoa(size),
		"-warm", strconv.Itoa(warm), "-count", strconv.Itoa(count)}, pipeOut: true}
	p, _, err := l.self(c, false)
	return p, err
}

// askTool sends requests with one aioc-send -await.
func (l *aiocLine) askTool(warm, count, size int) ([]time.Duration, error) {
	p, err := l.sender(command{pipeIn: true, pipeOut: true}, "-lines", "-await")
	if err != nil {
		return nil, err
	}
	data := record(0, size, false)
	request, want := string(data)+"\n", strconv.Quote(string(data))
	took := make([]time.Duration, 0, count)
	for i := range warm + count {
		begin := time.Now()
		if _, err := p.in.WriteString(request); err != nil {
			return nil, err
		}
		got, err := p.line()
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("aioc-send -await: printed %q, want %q", got, want)
		}
		if i >= warm {
			took = append(took, time.Since(begin))
		}
	}
	return took, errors.Join(p.in.Close(), p.wait())
}
