package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Fan-out: one publisher, a broker, and many subscribers, which are the connections of one process. The
// yardstick is a process that gives every block it reads to all of its connections.

// fanTopic is the topic of the publications.
const fanTopic = "fan"

// fanSizes are the numbers of subscribers, with the floors in deliveries per second.
var fanSizes = []struct {
	subscribers int
	least       float64
}{{10, 2e6}, {1000, 1e6}}

// subscribeMain is the subscribers: each on a connection of its own counts frames. It says ready when all
// subscriptions are known to the broker, and prints the number of all deliveries when the last is there.
func subscribeMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("subscribe", flag.ContinueOnError)
	to := fs.String("to", "", "connect to the broker at `HOST:PORT`")
	subscribers := fs.Int("subscribers", 1, "be `N` clients")
	count := fs.Int("count", 0, "each ends after `N` messages")
	bare := fs.Bool("bare", false, "the other end is the yardstick: say nothing")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var total atomic.Int64
	errs := make(chan error, *subscribers)
	known := make(chan struct{}, *subscribers)
	const most = 50 // that connect at once: a server keeps crowds of strangers away
	for i := range *subscribers + most {
		if i >= most && i-most < *subscribers {
			select {
			case <-known:
			case err := <-errs:
				return err
			}
		}
		if i < *subscribers {
			go func() { errs <- subscriber(*to, fmt.Sprint("sub", i), *count, *bare, known, &total) }()
		}
	}
	if _, err := fmt.Fprintln(stdout, "ready"); err != nil {
		return err
	}
	for range *subscribers {
		if err := <-errs; err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(stdout, total.Load())
	return err
}

// subscriber is one of them. The answer to its ping says that the broker has read what came before.
func subscriber(addr, name string, count int, bare bool, known chan<- struct{}, total *atomic.Int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if bare {
		if _, err := c.Write([]byte{0}); err != nil {
			return err
		}
		known <- struct{}{}
	} else {
		hello := appendFrame(nil, fmt.Appendf(nil, `{"message_type": "_handshake_no_ssl", "source_id": "%s"}`, name), []byte("hello"))
		hello = appendFrame(hello, fmt.Appendf(nil, `{"message_type": "_pubsub", "source_id": "%s"}`, name),
			[]byte(`{"subscribe_message_types": ["`+fanTopic+`"]}`))
		hello = appendFrame(hello, fmt.Appendf(nil, `{"message_type": "_ping", "await_response": true, "request_id": 1, "source_id": "%s"}`, name), nil)
		if _, err := c.Write(hello); err != nil {
			return err
		}
	}
	got := 0
	whole := func(frame []byte) error {
		switch string(messageType(frame)) {
		case "_ping":
			known <- struct{}{}
		case fanTopic:
			got++
		default:
			return fmt.Errorf("type %q: %w", messageType(frame), errFrame)
		}
		return nil
	}
	batch := func() error {
		if got >= count {
			return errEnough
		}
		return nil
	}
	if err := eachFrameSize(c, 32<<10, whole, batch); !errors.Is(err, errEnough) {
		return fmt.Errorf("%s: after %d of %d messages: %w", name, got, count, err)
	}
	total.Add(int64(got))
	return nil
}

// spreadMain is the yardstick's broker: it gives what one publisher sends it to all subscribers, who say one
// byte when they connect.
func spreadMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("spread", flag.ContinueOnError)
	subscribers := fs.Int("subscribers", 1, "wait for `N` subscribers")
	publisher := fs.String("publisher", "", "take publications on the Unix socket `PATH`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	in, err := net.Listen("unix", *publisher)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "ready %s\n", l.Addr()); err != nil {
		return err
	}
	var outs []chan []byte
	errs := make(chan error, *subscribers+1)
	for range *subscribers {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		out := make(chan []byte, 16)
		outs = append(outs, out)
		go func() {
			one := make([]byte, 1)
			_, err := io.ReadFull(c, one)
			for block := range out {
				if err == nil {
					_, err = c.Write(block)
				}
			}
			errs <- errors.Join(err, c.Close())
		}()
	}
	go func() {
		c, err := in.Accept()
		for err == nil {
			block := make([]byte, 64<<10)
			var n int
			n, err = c.Read(block)
			for _, out := range outs {
				out <- block[:n]
			}
		}
		for _, out := range outs {
			close(out)
		}
		if err == io.EOF {
			err = nil
		}
		errs <- err
	}()
	for range *subscribers + 1 {
		select {
		case err := <-errs:
			// A subscriber that has enough closes.
			if err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				return err
			}
		case <-stop:
			return nil
		}
	}
	<-stop
	return nil
}

// fanOut compares deliveries per second, and says what a subscriber costs in memory.
func (b *bench) fanOut(ctx context.Context) {
	for _, s := range fanSizes {
		if ctx.Err() != nil {
			return
		}
		count := max(int(b.target.Seconds()*3e6)/s.subscribers, 100)
		like := figure{Name: fmt.Sprintf("fan-out to %d", s.subscribers), Size: 100, TLS: mode(false), Unit: "deliveries/s", Count: count}
		fmt.Fprintln(b.log, "bench:", like.Name)
		path := filepath.Join(b.dir, "fan")
		in, err := writeInput(path, count, 100, false)
		if err != nil {
			b.failed(like.Name, err)
			return
		}
		rates := map[string][]float64{}
		var memory []float64
		for range b.runs {
			took, err := spread(ctx, in, s.subscribers)
			if err != nil {
				b.failed(like.Name+", relay", err)
			} else {
				rates[copying] = append(rates[copying], float64(count*s.subscribers)/took.Seconds())
			}
			if b.bin == "" {
				continue
			}
			took, each, err := aioc{bin: b.bin}.publish(ctx, in, s.subscribers)
			if err != nil {
				b.failed(like.Name+", aioc", err)
				continue
			}
			rates[ours] = append(rates[ours], float64(count*s.subscribers)/took.Seconds())
			memory = append(memory, float64(each)/1024)
		}
		for _, name := range []string{copying, ours} {
			if len(rates[name]) == 0 {
				continue
			}
			f := like
			if f.Subject = name; name == ours {
				f.AtLeast = s.least
			}
			b.add(f, rates[name])
		}
		if len(memory) > 0 {
			b.add(figure{Name: "memory of a subscriber, KiB", Subject: fmt.Sprintf("of %d", s.subscribers), Unit: "KiB"}, memory)
		}
		if err := os.Remove(path); err != nil {
			b.failed(like.Name, err)
		}
	}
}

// subscribers starts the process of the subscribers and waits until they are known.
func (l *line) subscribers(addr string, n, count int, bare bool) (*child, error) {
	args := []string{"subscribe", "-to", addr, "-subscribers", strconv.Itoa(n), "-count", strconv.Itoa(count)}
	if bare {
		args = append(args, "-bare")
	}
	p, _, err := l.self(command{name: "subscribers", args: args, dir: l.dir, pipeOut: true}, true)
	return p, err
}

// counted waits for the subscribers' count, which has to be the right one.
func counted(p *child, want int) error {
	got, err := p.line()
	if err != nil {
		return err
	}
	if got != strconv.Itoa(want) {
		return fmt.Errorf("subscribers: counted %s messages, want %d", got, want)
	}
	return p.wait()
}

// spread measures the yardstick.
func spread(ctx context.Context, in input, subscribers int) (took time.Duration, err error) {
	l, err := newLine(ctx, "")
	if err != nil {
		return 0, err
	}
	defer func() { err = l.end(err) }()
	args := []string{"spread", "-subscribers", strconv.Itoa(subscribers), "-publisher", "in"}
	broker, addr, err := l.self(command{name: "relay broker", args: args, dir: l.dir, pipeOut: true, lasting: true}, true)
	if err != nil {
		return 0, err
	}
	subs, err := l.subscribers(addr, subscribers, in.count, true)
	if err != nil {
		return 0, err
	}
	stdin, err := os.Open(in.path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stdin.Close()) }()
	begin := time.Now()
	args = []string{"send", "-to", "in", "-port", "1", "-count", strconv.Itoa(in.count), "-type", fanTopic}
	sender, _, err := l.self(command{name: "relay publisher", args: args, dir: l.dir, stdin: stdin}, false)
	if err != nil {
		return 0, err
	}
	if err := sender.wait(); err != nil {
		return 0, err
	}
	if err := counted(subs, subscribers*in.count); err != nil {
		return 0, err
	}
	return subs.ended.Sub(begin), broker.stop()
}

// publish measures aioc: aioc-send publishes through a client, the server is the broker. It also returns
// the memory of the server for each subscriber, in bytes.
func (a aioc) publish(ctx context.Context, in input, subscribers int) (took time.Duration, each int64, err error) {
	l, err := a.start(ctx, setup{server: []string{"-broker", "-set", `recv_message_types=["any","` + fanTopic + `"]`}})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = l.end(err) }()
	before, _, err := memory(l.server.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	subs, err := l.subscribers(fmt.Sprintf("127.0.0.1:%d", l.port), subscribers, in.count, false)
	if err != nil {
		return 0, 0, err
	}
	after, _, err := memory(l.server.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	stdin, err := os.Open(in.path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stdin.Close()) }()
	begin := time.Now()
	p, err := l.tool("aioc-send", command{stdin: stdin, args: []string{"-dir", l.path("client"), "-publish", "-type", fanTopic, "-0"}})
	if err != nil {
		return 0, 0, err
	}
	if err := p.wait(); err != nil {
		return 0, 0, err
	}
	if err := counted(subs, subscribers*in.count); err != nil {
		return 0, 0, err
	}
	took = subs.ended.Sub(begin)
	return took, (after - before) / int64(subscribers), errors.Join(l.client.stop(), l.server.stop())
}

// fanTables are the titles of the figures' tables.
func fanTables() (titles [][2]string) {
	for _, s := range fanSizes {
		name := fmt.Sprintf("fan-out to %d", s.subscribers)
		titles = append(titles, [2]string{"deliveries/s, " + strings.TrimPrefix(name, "fan-out "), name})
	}
	return append(titles, [2]string{"memory of a subscriber, KiB", "memory of a subscriber, KiB"})
}
