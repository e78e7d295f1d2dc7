package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Files: a large one through both daemons, compared with two processes that do nothing but copy it.

const (
	leastOfCopy    = 0.80 // of the copy over TLS, for a file
	mostFileMemory = 64   // MiB of a daemon while a file travels

	tlsCopy     = "copy over TLS"
	tlsUnsynced = "without sync"
	plainCopy   = "plain copy"
	asFile      = "aioc-send -file"
	idleLine    = "idle"
	besideFile  = "beside a file"
	fileType    = "file"
)

// fileFromMain is the copy's sender: it writes a file to a connection, and waits until the other end has it.
func fileFromMain(args []string, _ *os.File, _ io.Writer) error {
	fs := flag.NewFlagSet("file-from", flag.ContinueOnError)
	path := fs.String("path", "", "send `FILE`")
	to := fs.String("to", "", "connect to `HOST:PORT`")
	secure := fs.Bool("tls", false, "use TLS")
	if err := fs.Parse(args); err != nil {
		return err
	}
	c, err := net.Dial("tcp", *to)
	if err != nil {
		return err
	}
	if *secure {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true})
	}
	f, err := os.Open(*path)
	if err != nil {
		return err
	}
	// Without a ReadFrom and a WriteTo both kinds of connection are written from the same buffer.
	if err := pump(c, f); err != nil {
		return err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return err
	}
	return errors.Join(f.Close(), c.Close())
}

// fileToMain is its receiver: it writes what comes on one connection to a new file, and syncs it if that is
// wanted.
func fileToMain(args []string, _ *os.File, stdout io.Writer) error {
	fs := flag.NewFlagSet("file-to", flag.ContinueOnError)
	path := fs.String("path", "", "write `FILE`")
	secure := fs.Bool("tls", false, "use TLS")
	synced := fs.Bool("sync", false, "sync the file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var cfg *tls.Config
	var err error
	if *secure {
		if cfg, err = selfSigned(); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "ready %s\n", l.Addr()); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	if cfg != nil {
		c = tls.Server(c, cfg)
	}
	f, err := os.OpenFile(*path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := pump(f, c); err != nil {
		return err
	}
	if *synced {
		if err := syncData(f); err != nil {
			return err
		}
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	return errors.Join(f.Close(), c.Close())
}

// copyFile measures the copy, and the processor time of both processes.
func (b *bench) copyFile(ctx context.Context, path string, tls, synced bool) (took, cpu time.Duration, err error) {
	l, err := newLine(ctx, b.disk)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = l.end(err) }()
	var secure []string
	if tls {
		secure = []string{"-tls"}
	}
	args := append([]string{"file-to", "-path", "copied", "-sync=" + strconv.FormatBool(synced)}, secure...)
	to, addr, err := l.self(command{name: "file receiver", args: args, dir: l.dir, pipeOut: true}, true)
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	args = append([]string{"file-from", "-path", path, "-to", addr}, secure...)
	from, _, err := l.self(command{name: "file sender", args: args, dir: l.dir}, false)
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(from.wait(), to.wait()); err != nil {
		return 0, 0, err
	}
	return from.ended.Sub(begin), from.cpu() + to.cpu(), sameSize(path, l.path("copied"))
}

// sameSize compares the sizes of two files.
func sameSize(want, got string) error {
	w, err := os.Stat(want)
	if err != nil {
		return err
	}
	g, err := os.Stat(got)
	if err != nil {
		return err
	}
	if w.Size() != g.Size() {
		return fmt.Errorf("%s has %d bytes, want %d", filepath.Base(got), g.Size(), w.Size())
	}
	return nil
}

// sent is what the passage of a file through the daemons gave.
type sent struct {
	took         time.Duration // until a receiver had the message
	cpu          time.Duration // of the daemons
	memory       int64         // most of a daemon, in bytes
	idle, beside []time.Duration
}

// sendFile measures aioc-send -file through a new line, and if that is wanted the round trip of small messages
// on the same line before and beside it.
func (b *bench) sendFile(ctx context.Context, path string, tls, ask bool) (r sent, err error) {
	l, err := aioc{bin: b.bin}.start(ctx, setup{tls: tls, in: b.disk, files: true})
	if err != nil {
		return r, err
	}
	defer func() { err = l.end(err) }()
	var asker *child
	if ask {
		if err := l.answerer(); err != nil {
			return r, err
		}
		p, err := l.asker(300, 3000, 100)
		if err == nil {
			r.idle, err = p.times()
		}
		if err != nil {
			return r, err
		}
		if asker, err = l.asker(0, -1, 100); err != nil {
			return r, err
		}
	}
	// A receiver that is there before: the file is timed and not the start of a program.
	receiver, err := l.tool("aioc-recv", command{args: []string{"-dir", l.path("server"), "-type", fileType, "-n", "1"}})
	if err != nil {
		return r, err
	}
	begin := time.Now()
	sender, err := l.tool("aioc-send", command{args: []string{"-dir", l.path("client"), "-type", fileType, "-file", path, "-file-type", fileType}})
	if err != nil {
		return r, err
	}
	if err := errors.Join(sender.wait(), receiver.wait()); err != nil {
		return r, err
	}
	r.took = receiver.ended.Sub(begin)
	if asker != nil {
		if err := asker.tell(); err != nil {
			return r, err
		}
		if r.beside, err = asker.times(); err != nil {
			return r, err
		}
	}
	for _, p := range []*child{l.server, l.client} {
		_, most, err := memory(p.cmd.Process.Pid)
		if err != nil {
			return r, err
		}
		r.memory = max(r.memory, most)
	}
	if err := sameSize(path, filepath.Join(l.path("received"), filepath.Base(path))); err != nil {
		return r, err
	}
	err = errors.Join(l.client.stop(), l.server.stop())
	r.cpu = l.client.cpu() + l.server.cpu()
	return r, err
}

// files compares how long a file takes, until it is synced at the other end.
func (b *bench) files(ctx context.Context, size int64, tls bool) {
	like := figure{Size: int(size), TLS: mode(tls), Disk: b.system}
	what := "files, " + like.row()
	fmt.Fprintf(b.log, "bench: %s, in %s\n", what, b.disk)
	path := filepath.Join(b.disk, fmt.Sprintf("aioc-bench-file-%d", os.Getpid()))
	err := writeNoise(path, size)
	if err == nil {
		err = b.measureFiles(ctx, path, like, tls)
	}
	if err = errors.Join(err, os.Remove(path)); err != nil {
		b.failed(what, err)
	}
}

// measureFiles does the work of files.
func (b *bench) measureFiles(ctx context.Context, path string, like figure, tls bool) error {
	rates, cpus, round := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
	perGB := func(cpu time.Duration) float64 { return cpu.Seconds() * 1e9 / float64(like.Size) }
	rate := func(took time.Duration) float64 { return float64(like.Size) / took.Seconds() / 1e6 }
	copies := []struct {
		name        string
		tls, synced bool
	}{{tlsCopy, true, true}, {tlsUnsynced, true, false}}
	if !tls {
		copies[1].name, copies[1].tls, copies[1].synced = plainCopy, false, true
	}
	var memory []float64
	for range b.runs {
		for _, c := range copies {
			took, cpu, err := b.copyFile(ctx, path, c.tls, c.synced)
			if err != nil {
				return err
			}
			rates[c.name] = append(rates[c.name], rate(took))
			cpus[c.name] = append(cpus[c.name], perGB(cpu))
		}
		if b.bin == "" {
			continue
		}
		for _, ask := range []bool{false, true} {
			r, err := b.sendFile(ctx, path, tls, ask)
			if err != nil {
				return err
			}
			memory = append(memory, float64(r.memory)/(1<<20))
			if !ask {
				rates[asFile] = append(rates[asFile], rate(r.took))
				cpus[asFile] = append(cpus[asFile], perGB(r.cpu))
				continue
			}
			for name, took := range map[string][]time.Duration{idleLine: r.idle, besideFile: r.beside} {
				for _, p := range []float64{50, 99} {
					key := fmt.Sprintf("%s p%v", name, p)
					round[key] = append(round[key], micro(percentile(took, p)))
				}
			}
		}
	}
	like.Name, like.Unit = "files", "MB/s"
	for _, name := range []string{copies[0].name, copies[1].name, asFile} {
		if like.Subject = name; len(rates[name]) > 0 {
			b.add(like, rates[name])
			f := like
			f.Name, f.Unit = "cpu of files", "s/GB"
			b.add(f, cpus[name])
		}
	}
	for _, c := range copies {
		f := like
		if c.name == tlsCopy {
			f.AtLeast = leastOfCopy
		}
		b.ratio("files", asFile, c.name, f)
	}
	if b.bin == "" {
		return nil
	}
	f := like
	f.Name, f.Subject, f.Unit, f.AtMost = "peak memory with files", "aioc", "MiB", mostFileMemory
	b.add(f, memory)
	for _, p := range []string{"p50", "p99"} {
		for _, subject := range []string{idleLine, besideFile} {
			f := like
			f.Name, f.Subject, f.Unit = "round trip beside a file "+p, subject, "us"
			b.add(f, round[subject+" "+p])
		}
	}
	return nil
}

// writeNoise makes a file that no file system can keep smaller.
func writeNoise(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
	return errors.Join(err, f.Close())
}
