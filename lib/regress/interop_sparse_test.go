//go:build interop

package regress

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	sparseBytes = 5_000_000_000
	// sparseTime bounds how long such a file may take, on a machine with other
	// things to do.
	sparseTime = 5 * time.Minute
	// mostMemory is what a connector may use meanwhile.
	mostMemory = 64 << 20
)

// TestInteropSparseFile publishes a file of 5 GB, of which most is holes, through
// a broker: it is the same at both ends, the holes are still none of the disk's
// business, and no connector has it in memory. No Python has a part in it: it is
// here because it takes a while.
func TestInteropSparseFile(t *testing.T) {
	t.Cleanup(removeTrees)
	dir := t.TempDir()
	src := filepath.Join(dir, "source")
	makeSparse(t, src)
	p := newPair(t, python{}, ours, ours, "anonymous", []string{"news"}, 0, nil)
	stores := func(name string) settings {
		return settings{"file_recv_config": map[string]any{"any": map[string]any{"target_directory": filepath.Join(dir, name)}}}
	}
	broker := stores("broker")
	broker["pubsub_central_broker"] = true
	rewrite(t, p.server, broker)
	more := stores("subscriber")
	more["subscribe_message_types"] = []string{"news"}
	sub := p.another(t, ours, "sub", more)
	p.server.start(t)
	for _, h := range []*host{p.client, sub} {
		h.start(t)
	}
	p.server.awaitPeers(t, p.client.id, sub.id)
	ctx, cancel := context.WithTimeout(t.Context(), sparseTime)
	defer cancel()
	recv := (&goTools{host: sub, bin: binaries(t)}).command(ctx, "aioc-recv", "-type", "news", "-n", "1")
	receiver := start(t, "aioc-recv", recv)
	eventually(t, "the subscription is known", func() error {
		out, err := (&goTools{host: p.server, bin: binaries(t)}).command(ctx, "aioc-ctl", "subscriptions").Output()
		if err == nil && !strings.Contains(string(out), sub.id) {
			err = fmt.Errorf("subscriptions are %s", out)
		}
		return err
	})
	began := time.Now()
	send := (&goTools{host: p.client, bin: binaries(t)}).command(ctx, "aioc-send", "-publish", "-type", "news", "-file", src, "-file-type", "any", "-file-name", "f")
	if out, err := send.CombinedOutput(); err != nil {
		t.Fatalf("aioc-send: %v\n%s", err, out)
	}
	select {
	case <-receiver.done:
	case <-ctx.Done():
	}
	if receiver.err != nil || ctx.Err() != nil {
		t.Fatalf("aioc-recv: %v, %v", receiver.err, ctx.Err())
	}
	t.Logf("%d bytes in %v", int64(sparseBytes), time.Since(began).Round(time.Second))
	needs := used(t, src)
	sums := make([][]byte, 2)
	var both sync.WaitGroup
	for i, path := range []string{src, filepath.Join(dir, "subscriber", "f")} {
		both.Go(func() { sums[i] = digest(t, path) })
	}
	both.Wait()
	if !bytes.Equal(sums[0], sums[1]) {
		t.Error("the subscriber has another content")
	}
	for _, name := range []string{"broker", "subscriber"} { // the second hop has looked at the broker's
		if n := used(t, filepath.Join(dir, name, "f")); n > needs+1<<20 {
			t.Errorf("%s: %d bytes of the disk are used, the source uses %d", name, n, needs)
		}
	}
	for _, h := range []*host{p.server, p.client, sub} {
		peak, err := peakMemory(h.daemon.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s %s: at most %d KiB", h.role(), h.id, peak>>10)
		if peak >= mostMemory {
			t.Errorf("%s %s: at most %d KiB, want less than %d", h.role(), h.id, peak>>10, mostMemory>>10)
		}
	}
}

// makeSparse makes a file of sparseBytes with content in a few places.
func makeSparse(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(sparseBytes); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 1<<31 - 50_000, 1<<32 - 50_000, sparseBytes - 100_000} {
		if _, err := f.WriteAt([]byte(noise(100_000)), at); err != nil {
			t.Fatal(err)
		}
	}
}

// digest returns the sum of a file.
func digest(t *testing.T, path string) []byte {
	hash := sha256.New()
	f, err := os.Open(path)
	if err == nil {
		_, err = io.CopyBuffer(hash, struct{ io.Reader }{f}, make([]byte, 1<<20))
		f.Close()
	}
	if err != nil {
		t.Error(err)
	}
	return hash.Sum(nil)
}

// used returns how many bytes of the disk a file uses.
func used(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// peakMemory is the most memory that a process has used, in bytes.
func peakMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d: no VmHWM", pid)
}
