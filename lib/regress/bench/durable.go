package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"aioc/lib/api"
)

// Durable messages: each is synced to disk before the sender's acknowledgement.

const (
	crowd = 100 // senders at once

	// The floor is leastDurable messages/s on a disk that does leastDisk syncs/s, and in proportion on a
	// slower one.
	leastDurable = 50_000
	leastDisk    = 5_000

	// mostDurable bounds the messages of one run, so that they stay below max_size_persistence_path.
	mostDurable = 2_000_000

	syncing  = "fdatasync"
	grouping = "group commit"
)

// crowdAiocMain is many senders in one process as a Go program would have them: each, on a connection of its
// own, sends a message, waits until it is taken, and so on.
func crowdAiocMain(args []string, _ *os.File, _ io.Writer) error {
	fs := flag.NewFlagSet("crowd-aioc", flag.ContinueOnError)
	dir := fs.String("dir", "", "the connector is in `DIR`")
	senders := fs.Int("senders", 1, "be `N` senders")
	count := fs.Int("count", 0, "each sends `N` messages")
	size := fs.Int("size", 100, "`BYTES` of data")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	errs := make([]error, *senders)
	var all sync.WaitGroup
	for i := range *senders {
		all.Go(func() { errs[i] = oneByOne(ctx, *dir, *count, *size) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// oneByOne is one sender of a crowd.
func oneByOne(ctx context.Context, dir string, count, size int) (err error) {
	c, err := api.Open(ctx, api.Target{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	header, data := c.Header("any", ""), record(0, size, false)
	for range count {
		if err := s.Put(header, data, nil); err != nil {
			return err
		}
		if _, err := s.Taken(ctx); err != nil {
			return err
		}
	}
	return nil
}

// workload is one way to send durable messages.
type workload struct {
	name    string
	setup   setup
	senders int  // each sends its part of the messages
	waiting bool // each message until it is taken, from one process, instead of aioc-send
	floor   bool

	count int
	rates []float64
	out   bool // it failed
}

// workloads are what is compared.
func workloads(disk string) []*workload {
	send := []string{"-set", "disk_persistence_send=true"}
	recv := []string{"-set", "disk_persistence_recv=true"}
	one := setup{in: disk, client: send}
	return []*workload{
		{name: "aioc-send", setup: one, senders: 1, floor: true},
		{name: "both ends", setup: setup{in: disk, client: send, server: recv}, senders: 1, floor: true},
		{name: fmt.Sprint(crowd, " aioc-send"), setup: one, senders: crowd, floor: true},
		{name: fmt.Sprint(crowd, " that wait"), setup: one, senders: crowd, waiting: true},
		{name: "peer away", setup: setup{in: disk, client: send, alone: true}, senders: 1, floor: true},
	}
}

// durable compares durable messages per second with what the disk does, in turn. What is sent to a peer
// that is there is timed until all of it has arrived.
func (b *bench) durable(ctx context.Context) {
	const size, first = 100, 100_000
	like := figure{Name: "durable", Size: size, TLS: mode(false), Disk: b.system, Unit: "messages/s"}
	fmt.Fprintf(b.log, "bench: durable messages, in %s (%s)\n", b.disk, b.system)
	list := workloads(b.disk)
	if b.bin == "" {
		list = nil
	}
	for _, w := range list {
		w.count = first
		rate, err := b.sendDurable(ctx, w, size)
		if err != nil {
			w.out = true
			b.failed(like.Name+", "+w.name, err)
			continue
		}
		w.count = min(max(int(rate*b.target.Seconds()), first), mostDurable)
	}
	var syncs, groups []float64
	for range b.runs {
		if ctx.Err() != nil {
			return
		}
		for _, yardstick := range []struct {
			name    string
			measure func() (float64, error)
			runs    *[]float64
		}{
			{syncing, func() (float64, error) { return syncRate(b.disk, size, time.Second) }, &syncs},
			{grouping, func() (float64, error) { return groupRate(b.disk, crowd, size, time.Second) }, &groups},
		} {
			rate, err := yardstick.measure()
			if err != nil {
				b.failed(like.Name+", "+yardstick.name, err)
				return
			}
			*yardstick.runs = append(*yardstick.runs, rate)
		}
		for _, w := range list {
			if w.out || ctx.Err() != nil {
				continue
			}
			rate, err := b.sendDurable(ctx, w, size)
			if err != nil {
				w.out = true
				b.failed(like.Name+", "+w.name, err)
				continue
			}
			w.rates = append(w.rates, rate)
		}
	}
	like.Subject = syncing
	b.add(like, syncs)
	like.Subject = grouping
	b.add(like, groups)
	for _, w := range list {
		if len(w.rates) == 0 {
			continue
		}
		f := like
		f.Subject, f.Count = w.name, w.count
		if w.floor {
			f.AtLeast = math.Round(leastDurable * min(median(syncs)/leastDisk, 1))
		}
		b.add(f, w.rates)
		b.ratio("durable", w.name, syncing, like)
	}
	b.ratio("durable", fmt.Sprint(crowd, " that wait"), grouping, like)
}

// sendDurable passes the messages of a workload through a new line and returns how many that were in a second.
func (b *bench) sendDurable(ctx context.Context, w *workload, size int) (rate float64, err error) {
	each := max(w.count/w.senders, 1)
	count := each * w.senders
	path := filepath.Join(b.dir, "durable")
	in, err := writeInput(path, each, size, false)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(in.path)) }()
	l, err := aioc{bin: b.bin}.start(ctx, w.setup)
	if err != nil {
		return 0, err
	}
	defer func() { err = l.end(err) }()
	var receiver *child
	if !w.setup.alone {
		if receiver, err = l.receiver(command{}, "-0", "-n", strconv.Itoa(count)); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	if w.waiting {
		err = l.sendWaiting(w.senders, each, size)
	} else {
		err = l.sendAll(in, w.senders)
	}
	if err != nil {
		return 0, err
	}
	ended := time.Now()
	if receiver != nil {
		if err := receiver.wait(); err != nil {
			return 0, err
		}
		ended = receiver.ended
		err = l.server.stop()
	}
	return float64(count) / ended.Sub(begin).Seconds(), errors.Join(err, l.client.stop())
}

// sendAll starts so many aioc-send, each with the whole input, and waits for them.
func (l *aiocLine) sendAll(in input, senders int) (err error) {
	all := make([]*child, senders)
	for i := range all {
		stdin, err := os.Open(in.path)
		if err != nil {
			return err
		}
		all[i], err = l.sender(command{stdin: stdin}, "-0")
		// The child has it by now.
		if err = errors.Join(err, stdin.Close()); err != nil {
			return err
		}
	}
	for _, p := range all {
		err = errors.Join(err, p.wait())
	}
	return err
}

// sendWaiting runs senders of one process that wait for each message.
func (l *aiocLine) sendWaiting(senders, each, size int) error {
	p, _, err := l.self(command{name: "crowd", args: []string{"crowd-aioc", "-dir", l.path("client"), "-senders", strconv.Itoa(senders),
		"-count", strconv.Itoa(each), "-size", strconv.Itoa(size)}}, false)
	if err != nil {
		return err
	}
	return p.wait()
}
