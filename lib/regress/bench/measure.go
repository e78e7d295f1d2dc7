package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The floors and ceilings.
const (
	leastOfRelay    = 0.30 // throughput, of the relay with look-up
	leastOfOriginal = 80   // throughput, of the original
	mostRoundTrip   = 2    // round trip, of the relay's
	mostStartUp     = 2    // start-up, of the minimal program's
	mostIdle        = 15   // MiB of an idle daemon
)

// The names of subjects that ratios speak of.
const (
	ours    = "aioc -0"
	lookup  = "relay look-up"
	copying = "relay copy"
)

// bench measures and keeps what it found.
type bench struct {
	report
	bin    string        // directory of the programs, "" when they are not there
	python string        // interpreter with the original, "" when there is none
	stalls bool          // the original over TLS with that interpreter
	dir    string        // where inputs are written
	disk   string        // directory on the disk that is measured, "" for none
	system string        // its file system, "" when not known
	runs   int           // of each subject, interleaved
	target time.Duration // of one run
	log    io.Writer     // progress
	errs   []error
}

// failed keeps an error and goes on.
func (b *bench) failed(what string, err error) {
	err = fmt.Errorf("%s: %w", what, err)
	b.errs = append(b.errs, err)
	fmt.Fprintln(b.log, "bench:", err)
}

// subjects are the lines whose throughput of messages of a size is compared. Only the smallest
// are sent as JSON and through the original.
func (b *bench) subjects(size int, tls bool) []subject {
	list := []subject{relay{}, relay{lookup: true}}
	if b.bin != "" {
		list = append(list, aioc{bin: b.bin})
		if size <= 100 {
			list = append(list, aioc{bin: b.bin, json: true})
		}
	}
	if b.python != "" && size <= 100 && !(tls && b.stalls) {
		list = append(list, original{python: b.python})
	}
	return list
}

// contest is one subject in a comparison.
type contest struct {
	subject
	in       input
	count    int
	outcomes []outcome
	out      bool // it failed
}

// throughput compares the throughput of messages of one size, in one mode.
func (b *bench) throughput(ctx context.Context, size int, tls bool) {
	like := figure{Size: size, TLS: mode(tls)}
	what := "throughput, " + like.row()
	fmt.Fprintln(b.log, "bench:", what)
	var list []*contest
	for i, s := range b.subjects(size, tls) {
		if ctx.Err() != nil {
			return
		}
		c := &contest{subject: s}
		path := filepath.Join(b.dir, fmt.Sprintf("input%d", i))
		if err := b.prepare(ctx, c, path, size, tls); err != nil {
			b.failed(what+", "+s.name(), err)
			continue
		}
		list = append(list, c)
	}
	for range b.runs {
		for _, c := range list {
			if c.out || ctx.Err() != nil {
				continue
			}
			o, err := c.run(ctx, c.in, c.count, tls)
			if err != nil {
				c.out = true
				b.failed(what+", "+c.name(), err)
				continue
			}
			c.outcomes = append(c.outcomes, o)
		}
	}
	for _, c := range list {
		if !c.out && len(c.outcomes) > 0 {
			like.Count = c.count
			b.addOutcomes(like, c.name(), c.outcomes)
		}
		if err := os.Remove(c.in.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			b.failed(what, err)
		}
	}
	like.Count = 0
	for _, name := range []string{ours, "aioc JSON"} {
		floors := like
		if size <= 100 {
			floors.AtLeast = leastOfRelay
		}
		b.ratio("throughput", name, lookup, floors)
		b.ratio("throughput", name, copying, like)
		if size <= 100 {
			floors.AtLeast = leastOfOriginal
		}
		b.ratio("throughput", name, original{}.name(), floors)
	}
}

// prepare verifies a subject, finds how many messages it passes in the time of a run, and writes its
// input.
func (b *bench) prepare(ctx context.Context, c *contest, path string, size int, tls bool) (err error) {
	json, again := c.input()
	most := mostRecords(b.dir, size)
	if a, ok := c.subject.(aioc); ok {
		if c.in, err = writeInput(path, min(max(4<<20/size, 100), 20_000, most), size, json); err != nil {
			return err
		}
		if err = a.verify(ctx, c.in, tls); err != nil {
			return err
		}
	}
	c.count = min(max(20<<20/size, 1000), 100_000)
	least := 1
	if _, ok := c.subject.(original); ok {
		c.count, least, most = originalLeast, originalLeast, min(originalMost, most)
	}
	for range 3 {
		if c.in, err = writeInput(path, min(c.count, most), size, json); err != nil {
			return err
		}
		if !again {
			c.count = c.in.count
		}
		o, err := c.run(ctx, c.in, c.count, tls)
		if err != nil {
			return err
		}
		c.count = max(int(float64(c.count)*b.target.Seconds()/o.elapsed.Seconds()), least)
		if o.elapsed > b.target/8 {
			break
		}
	}
	if c.in, err = writeInput(path, min(c.count, most), size, json); err == nil && !again {
		c.count = c.in.count
	}
	return err
}

// addOutcomes adds the figures of one subject's runs.
func (b *bench) addOutcomes(like figure, name string, outcomes []outcome) {
	var rate, width, cpu, memory []float64
	for _, o := range outcomes {
		n := float64(like.Count)
		rate = append(rate, n/o.elapsed.Seconds())
		width = append(width, n*float64(like.Size)/o.elapsed.Seconds()/1e6)
		cpu = append(cpu, float64(o.cpu.Nanoseconds())/1e3/n)
		memory = append(memory, float64(max(o.server, o.client))/(1<<20))
	}
	like.Subject = name
	for _, f := range []struct {
		name, unit string
		runs       []float64
	}{
		{"throughput", "messages/s", rate},
		{"bandwidth", "MB/s", width},
		{"cpu", "us/message", cpu},
		{"peak memory", "MiB", memory},
	} {
		if f.name == "bandwidth" && like.Size < 1024 {
			continue
		}
		like.Name, like.Unit = f.name, f.unit
		b.add(like, f.runs)
	}
}

// asker is a line through which requests are sent, one at a time.
type asker interface {
	name() string
	// ask starts a new line, sends warm requests and then count requests of size bytes, each when the
	// response to the one before is there, and returns how long each of the latter took.
	ask(ctx context.Context, warm, count, size int, tls bool) ([]time.Duration, error)
}

// roundTrips compares the time from a request to its response when nothing else goes on.
func (b *bench) roundTrips(ctx context.Context, tls bool) {
	const warm, count, size = 300, 3000, 100
	like := figure{Size: size, TLS: mode(tls), Unit: "us", Count: count}
	what := "request and response, " + like.row()
	fmt.Fprintln(b.log, "bench:", what)
	askers := []asker{relay{}}
	if b.bin != "" {
		askers = append(askers, aiocAsker{aioc: aioc{bin: b.bin}}, aiocAsker{aioc: aioc{bin: b.bin}, tool: true})
	}
	p50, p99 := map[string][]float64{}, map[string][]float64{}
	for range b.runs {
		for _, a := range slices.Clone(askers) {
			if ctx.Err() != nil {
				return
			}
			took, err := a.ask(ctx, warm, count, size, tls)
			if err != nil {
				b.failed(what+", "+a.name(), err)
				askers = slices.DeleteFunc(askers, func(x asker) bool { return x == a })
				continue
			}
			p50[a.name()] = append(p50[a.name()], micro(percentile(took, 50)))
			p99[a.name()] = append(p99[a.name()], micro(percentile(took, 99)))
		}
	}
	for _, a := range askers {
		like.Name, like.Subject = "round trip p50", a.name()
		b.add(like, p50[a.name()])
		like.Name = "round trip p99"
		b.add(like, p99[a.name()])
	}
	like.AtMost, like.Count = mostRoundTrip, 0
	b.ratio("round trip p50", "aioc", copying, like)
}

// micro is a duration in microseconds.
func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
