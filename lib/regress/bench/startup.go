package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

//go:embed testdata/minimal.go
var minimalSource []byte

// buildMinimal builds the minimal sender in a line's directory, as the programs are built.
func buildMinimal(l *line) (string, error) {
	dir := l.path("minimal")
	bin := filepath.Join(dir, "minimal")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), minimalSource, 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module minimal\n\ngo 1.25\n"), 0o600); err != nil {
		return "", err
	}
	p, err := l.start(command{name: "go build", path: "go", args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "."},
		dir: dir, env: []string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}})
	if err != nil {
		return "", err
	}
	return bin, p.wait()
}

// startUp compares the time that aioc-send takes for one message, as in echo '{}' | aioc-send, with
// that of a minimal program. Each starts in turn.
func (b *bench) startUp(ctx context.Context) {
	fmt.Fprintln(b.log, "bench: start-up")
	if err := b.measureStartUp(ctx); err != nil {
		b.failed("start-up", err)
	}
}

// measureStartUp does the work of startUp.
func (b *bench) measureStartUp(ctx context.Context) (err error) {
	const warm, count = 10, 100
	l, err := aioc{bin: b.bin}.start(ctx, setup{})
	if err != nil {
		return err
	}
	defer func() { err = l.end(err) }()
	minimal, err := buildMinimal(l.line)
	if err != nil {
		return err
	}
	s, err := newSink(l.path("sink"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	names := []string{"aioc-send", "minimal program"}
	medians := make([][]float64, len(names))
	for range b.runs {
		took := make([][]float64, len(names))
		for i := range warm + count {
			for j, c := range []command{
				{name: names[0], path: filepath.Join(b.bin, "aioc-send"), args: []string{"-dir", l.path("client")}},
				{name: names[1], path: minimal, args: []string{l.path("sink")}},
			} {
				d, err := l.once(c)
				if err != nil {
					return err
				}
				if i >= warm {
					took[j] = append(took[j], micro(d)/1e3)
				}
			}
		}
		for j := range names {
			medians[j] = append(medians[j], median(took[j]))
		}
	}
	for j, name := range names {
		b.add(figure{Name: "start-up", Subject: name, Unit: "ms", Count: count}, medians[j])
	}
	b.ratio("start-up", names[0], names[1], figure{AtMost: mostStartUp})
	return nil
}

// once runs a command with the standard input that echo '{}' would give it, and tells how long it
// took from its start to its end.
func (l *line) once(c command) (d time.Duration, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	_, err = w.WriteString("{}\n")
	if err = errors.Join(err, w.Close()); err != nil {
		return 0, errors.Join(err, r.Close())
	}
	c.dir, c.stdin = l.dir, r
	begin := time.Now()
	p, err := start(l.ctx, c, l.cancel)
	if err != nil {
		return 0, errors.Join(err, r.Close())
	}
	err = errors.Join(p.wait(), r.Close())
	return p.ended.Sub(begin), err
}

// idle measures the memory of both daemons when they are connected and have nothing to do.
func (b *bench) idle(ctx context.Context, tls bool) {
	fmt.Fprintln(b.log, "bench: idle memory,", tlsText(mode(tls)))
	if err := b.measureIdle(ctx, tls); err != nil {
		b.failed("idle memory, "+tlsText(mode(tls)), err)
	}
}

// measureIdle does the work of idle.
func (b *bench) measureIdle(ctx context.Context, tls bool) (err error) {
	var server, client []float64
	for range b.runs {
		s, c, err := aioc{bin: b.bin}.idleMemory(ctx, tls)
		if err != nil {
			return err
		}
		server = append(server, float64(s)/(1<<20))
		client = append(client, float64(c)/(1<<20))
	}
	like := figure{Name: "idle memory", TLS: mode(tls), Unit: "MiB", AtMost: mostIdle}
	like.Subject = "aioc-server"
	b.add(like, server)
	like.Subject = "aioc-client"
	b.add(like, client)
	return nil
}

// idleMemory is the memory of both daemons a second after a message has gone through them.
func (a aioc) idleMemory(ctx context.Context, tls bool) (server, client int64, err error) {
	l, err := a.start(ctx, setup{tls: tls})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = l.end(err) }()
	pause := time.NewTimer(time.Second)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-l.ctx.Done():
		return 0, 0, context.Cause(l.ctx)
	}
	if server, _, err = memory(l.server.cmd.Process.Pid); err != nil {
		return 0, 0, err
	}
	client, _, err = memory(l.client.cmd.Process.Pid)
	return server, client, err
}
