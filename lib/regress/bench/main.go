// Bench measures the programs as their users run them, and a yardstick in the same run.
//
// A line is four processes on this host: a sender, a client daemon, a server daemon and a receiver,
// joined by a Unix socket, one TCP or TLS connection, and a Unix socket. Bench passes the same messages through
// these lines, in turn:
//
//   - aioc-send, aioc-client, aioc-server, aioc-recv, with -0 or with JSON values;
//   - the relay: four processes of this program that pass the same frames on, headers included, with
//     as little work as possible, as a plain copy ("relay copy"), or with each frame's type looked up
//     and the frame copied once in both daemons ("relay look-up");
//   - the Python original, where it is installed.
//
// Durable messages are compared with what the same disk does for a program that only appends and syncs,
// files with two processes that only copy one over TLS: both in a directory on a real disk (-disk).
//
// Senders read prepared records from a file, in memory if the host has a tmpfs; the relay's reads its
// file again when it needs more than the file has. A run is timed from the start of the
// sender to the end of the receiver. Compare ratios within one run only.
//
// It is made for
//
//	go run ./lib/regress/bench -bin bin
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// options is what the command line says.
type options struct {
	bin, python, json string
	disk              string
	fileSize          int64 // bytes
	runs              int
	seconds           float64
	sizes             []int
	modes             []bool
	figures           []string
	strict            bool
}

// allFigures are the words of -figures.
const allFigures = "throughput,latency,startup,memory,fanout,handshakes,durable,files"

// run is the whole program; it returns the exit status.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if mode := modes()[args[0]]; mode != nil {
			if err := mode(args[1:], stdin, stdout); err != nil {
				fmt.Fprintf(stderr, "%s: %v\n", args[0], err)
				return exitFailed
			}
			return exitOK
		}
	}
	o, err := parse(args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\nsee bench -h\n", err)
		return exitUsage
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	b, err := measure(ctx, o, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	if err := b.print(stdout, o); err != nil {
		fmt.Fprintf(stderr, "bench: %v\n", err)
		return exitFailed
	}
	switch {
	case len(b.errs) > 0:
		fmt.Fprintf(stderr, "bench: %d figures could not be measured:\n%v\n", len(b.errs), errors.Join(b.errs...))
		return exitFailed
	case o.strict && b.missed() > 0:
		return exitFailed
	}
	return exitOK
}

// parse reads the command line.
func parse(args []string, stdout, stderr io.Writer) (o options, err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&o.bin, "bin", "bin", "the programs are in `DIR`")
	fs.StringVar(&o.python, "python", "", "`FILE` is a Python that has aioconnectors (default: one that make interop installed)")
	fs.StringVar(&o.json, "json", "", "write the JSON lines to `FILE`, not after the tables")
	fs.IntVar(&o.runs, "n", 3, "run each `N` times and take the median")
	fs.Float64Var(&o.seconds, "seconds", 2.5, "choose the number of messages so that a run takes about `S`")
	fs.BoolVar(&o.strict, "strict", false, "fail when a floor is missed")
	fs.StringVar(&o.disk, "disk", "", "measure the disk that has `DIR` (default: that of temporary files, or else the current directory)")
	file := fs.Int("file", 1024, "send files of `MIB`")
	sizes := fs.String("sizes", "100,1024,65536", "measure messages of `BYTES,...`")
	tls := fs.String("tls", "off,anonymous", "measure these `MODES`")
	figures := fs.String("figures", allFigures, "measure these `WORDS`")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		fs.SetOutput(stdout)
		fmt.Fprintln(stdout, "usage: bench [flags]")
		fs.PrintDefaults()
		return o, err
	} else if err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.runs < 1 || !(o.seconds > 0 && o.seconds <= 20) {
		return o, errors.New("-n must be 1 or more, -seconds between 0 and 20")
	}
	if *file < 1 || *file > 64<<10 {
		return o, fmt.Errorf("-file: %d is not from 1 to %d", *file, 64<<10)
	}
	o.fileSize = int64(*file) << 20
	for word := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.Atoi(word)
		if err != nil || size < 32 || size > 128<<10 {
			return o, fmt.Errorf("-sizes: %q is not a number from 32 to %d", word, 128<<10)
		}
		o.sizes = append(o.sizes, size)
	}
	for word := range strings.SplitSeq(*tls, ",") {
		if word != mode(false) && word != mode(true) {
			return o, fmt.Errorf("-tls: %q is neither %s nor %s", word, mode(false), mode(true))
		}
		o.modes = append(o.modes, word == mode(true))
	}
	o.figures = strings.Split(*figures, ",")
	for _, word := range o.figures {
		if !slices.Contains(strings.Split(allFigures, ","), word) {
			return o, fmt.Errorf("-figures: %q is none of %s", word, allFigures)
		}
	}
	return o, nil
}

// programs is the absolute path of a directory that has all the programs needed.
func programs(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"aioc-server", "aioc-client", "aioc-send", "aioc-recv", "aioc-certs"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("%w: run make all, or say where with -bin", err)
		}
	}
	return dir, nil
}

// measure measures what the options say. Its error is that nothing could be.
func measure(ctx context.Context, o options, log io.Writer) (*bench, error) {
	b := &bench{runs: o.runs, target: time.Duration(o.seconds * float64(time.Second)), log: log}
	var err error
	if b.bin, err = programs(o.bin); err != nil {
		b.failed("aioc", err)
	}
	if b.python = o.python; b.python == "" {
		b.python = findPython()
	}
	if b.python != "" {
		if b.python, err = filepath.Abs(b.python); err != nil {
			return nil, err
		}
		minor, err := pythonMinor(b.python)
		if err != nil {
			return nil, err
		}
		b.stalls = minor >= stallsFrom
	}
	if b.dir, err = os.MkdirTemp(inputDir(), "aioc-bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err := os.RemoveAll(b.dir); err != nil {
			b.failed("input", err)
		}
	}()
	wants := func(word string) bool { return slices.Contains(o.figures, word) }
	for _, size := range o.sizes {
		for _, tls := range o.modes {
			if wants("throughput") && ctx.Err() == nil {
				b.throughput(ctx, size, tls)
			}
		}
	}
	for _, tls := range o.modes {
		if wants("latency") && ctx.Err() == nil {
			b.roundTrips(ctx, tls)
		}
		if wants("memory") && b.bin != "" && ctx.Err() == nil {
			b.idle(ctx, tls)
		}
	}
	if wants("startup") && b.bin != "" && ctx.Err() == nil {
		b.startUp(ctx)
	}
	if wants("fanout") && ctx.Err() == nil {
		b.fanOut(ctx)
	}
	if wants("handshakes") && b.bin != "" && ctx.Err() == nil {
		b.handshakes(ctx)
	}
	if (wants("durable") || wants("files")) && ctx.Err() == nil {
		if b.disk, b.system, err = diskDir(o.disk); err != nil {
			b.failed("disk", err)
		} else if wants("durable") {
			b.durable(ctx)
		}
	}
	for _, tls := range o.modes {
		if wants("files") && b.disk != "" && ctx.Err() == nil {
			b.files(ctx, o.fileSize, tls)
		}
	}
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	return b, nil
}

// print writes the tables, and the lines of JSON where they are wanted.
func (b *bench) print(stdout io.Writer, o options) error {
	if err := b.tables(stdout); err != nil {
		return err
	}
	missing := ""
	switch {
	case b.python == "":
		missing = "original: not measured: install it with make interop\n"
	case b.stalls && slices.Contains(o.modes, true):
		missing = fmt.Sprintf("original, TLS: not measured: its client stalls over TLS on Python 3.%d and later: name an older one with -python\n", stallsFrom)
	}
	if _, err := io.WriteString(stdout, missing); err != nil {
		return err
	}
	if o.json == "" {
		return b.lines(stdout)
	}
	f, err := os.Create(o.json)
	if err != nil {
		return err
	}
	return errors.Join(b.lines(f), f.Close())
}
