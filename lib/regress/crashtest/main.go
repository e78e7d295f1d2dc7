// Crashtest kills the programs of this toolkit under load, one after the other,
// and looks whether a message was lost, doubled or out of order.
//
// A client sends messages of two durable types to a server, where a receiver
// prints them. In each cycle one of sender, client, server and receiver is
// killed with SIGKILL at a moment of chance, and started again. A sender that
// was killed, or could not reach its connector, is run again with the same -id.
//
// A receiver that was killed, or whose connector was, gets again what it had not
// acknowledged: that is counted by itself. It has to be what came last, in
// order, and once; anything else that comes twice is an error.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// The message types; the first goes first.
var types = []string{"high", "low"}

const (
	batch = 400 // messages of each type in a cycle
	// patience is how long anything may take.
	patience = time.Minute
	// notice is how long a connector may take to see that a receiver is dead.
	notice = 100 * time.Millisecond
)

func run(args []string, stdout, stderr io.Writer) int {
	set := flag.NewFlagSet("crashtest", flag.ContinueOnError)
	set.SetOutput(stderr)
	bin := set.String("bin", "bin", "`directory` of the programs")
	cycles := set.Int("n", 200, "`number` of kills")
	seed := set.Uint64("seed", uint64(time.Now().UnixNano()), "`seed` of the moments of chance")
	if err := set.Parse(args); err != nil {
		return 2
	}
	dir, err := os.MkdirTemp("", "crashtest")
	if err == nil {
		var full string
		if full, err = filepath.Abs(*bin); err == nil {
			t := &test{bin: full, dir: dir, stdout: stdout, random: rand.New(rand.NewPCG(*seed, 0))}
			err = t.run(*cycles, *seed)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "crashtest: %v\nseed %d; logs are in %s\n", err, *seed, dir)
		return 1
	}
	os.RemoveAll(dir)
	return 0
}

// grace is when a receiver may get again what it had: as the first it gets, or
// also after what was on its way.
type grace int

const (
	none grace = iota
	atOnce
	once
)

// test is one run.
type test struct {
	bin, dir string
	stdout   io.Writer
	random   *rand.Rand
	addr     string

	server, client, receiver *exec.Cmd
	reading                  sync.WaitGroup // of what the receiver prints

	mu          sync.Mutex
	changed     *sync.Cond
	next        map[string]int   // by type: what the receiver gets next
	again       map[string]grace // it may get what it had once more
	redelivered int
	err         error
}

func (t *test) run(cycles int, seed uint64) error {
	t.changed = sync.NewCond(&t.mu)
	t.next, t.again = map[string]int{}, map[string]grace{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t.addr = ln.Addr().String()
	ln.Close()
	for _, name := range []string{"s", "c"} {
		if err := os.Mkdir(filepath.Join(t.dir, name), 0o700); err != nil {
			return err
		}
	}
	for _, start := range []func() error{t.startServer, t.startClient, t.startReceiver} {
		if err := start(); err != nil {
			return err
		}
	}
	defer func() {
		t.killReceiver()
		kill(t.client)
		kill(t.server)
	}()
	started := time.Now()
	killed := map[string]int{}
	for i := range cycles {
		victim := []string{"sender", "client", "server", "receiver"}[i%4]
		killed[victim]++
		if err := t.cycle(i, victim); err != nil {
			return fmt.Errorf("cycle %d, %s killed: %w", i+1, victim, err)
		}
	}
	if err := t.await(cycles * batch); err != nil {
		return err
	}
	fmt.Fprintf(t.stdout, "%d kills in %v (%v), seed %d\n%d messages: 0 lost, 0 doubled, order kept; %d given again to a receiver that had not acknowledged them\n",
		cycles, time.Since(started).Round(time.Second), killed, seed, cycles*batch*len(types), t.redelivered)
	return nil
}

// cycle sends a batch of each type and kills the victim meanwhile.
func (t *test) cycle(n int, victim string) error {
	senders := make([]*exec.Cmd, len(types))
	for i := range types {
		senders[i] = t.sender(i, n)
		if err := senders[i].Start(); err != nil {
			return err
		}
	}
	time.Sleep(time.Duration(t.random.IntN(40_000)) * time.Microsecond) // the moment of the kill
	var err error
	switch victim {
	case "sender":
		for _, s := range senders {
			_ = s.Process.Kill() // it may have ended
		}
	case "client":
		kill(t.client)
		err = t.startClient()
	case "server":
		kill(t.server)
		t.mayComeAgain(once)
		err = t.startServer()
	case "receiver":
		t.killReceiver()
		t.mayComeAgain(atOnce)
		// The connector gives to another receiver what it is not known yet to have
		// lost by this one: then the order would be that of two receivers.
		time.Sleep(notice)
		err = t.startReceiver()
	}
	if err != nil {
		return err
	}
	// Again, with the same ids, until all is taken.
	for i, s := range senders {
		err := s.Wait()
		for end := time.Now().Add(patience); err != nil; {
			if time.Now().After(end) {
				return fmt.Errorf("sender: %w", err)
			}
			err = t.sender(i, n).Run()
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// sender returns the sender of a type's batch of cycle n.
func (t *test) sender(typ, n int) *exec.Cmd {
	var in strings.Builder
	for i := range batch {
		fmt.Fprintf(&in, "%s %d\n", types[typ], n*batch+i)
	}
	c := t.command("aioc-send", "c", "-lines", "-type", types[typ], "-id", fmt.Sprint("batch ", n))
	c.Stdin = strings.NewReader(in.String())
	return c
}

// command returns a command whose standard error is appended to a log.
func (t *test) command(program, dir string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(t.bin, program), append([]string{"-dir", filepath.Join(t.dir, dir)}, args...)...)
	log, err := os.OpenFile(filepath.Join(t.dir, program+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		c.Stderr = log
	}
	return c
}

func (t *test) daemon(program, dir string, args ...string) (*exec.Cmd, error) {
	list := `["` + strings.Join(types, `", "`) + `"]`
	c := t.command(program, dir, append(args, "-addr", t.addr, "-tls", "off",
		"-set", "send_message_types="+list, "-set", "recv_message_types="+list,
		"-set", "disk_persistence_send=true", "-set", "disk_persistence_recv=true",
		"-set", fmt.Sprintf(`send_message_types_priorities={%q: -1}`, types[0]))...)
	return c, c.Start()
}

func (t *test) startServer() (err error) {
	t.server, err = t.daemon("aioc-server", "s")
	return err
}

func (t *test) startClient() (err error) {
	t.client, err = t.daemon("aioc-client", "c", "-name", "c1")
	return err
}

// startReceiver starts a receiver, as soon as its connector is there.
func (t *test) startReceiver() error {
	for end := time.Now().Add(patience); ; {
		t.receiver = t.command("aioc-recv", "s", "-type", strings.Join(types, ","))
		out, err := t.receiver.StdoutPipe()
		if err != nil {
			return err
		}
		if err := t.receiver.Start(); err != nil {
			return err
		}
		first := make(chan bool, 1)
		t.reading.Go(func() { t.read(out, first) })
		select {
		case printed := <-first:
			if printed {
				return nil
			}
		case <-time.After(300 * time.Millisecond):
			return nil // it waits for messages
		}
		t.reading.Wait()
		_ = t.receiver.Wait() // it says why in its log
		if time.Now().After(end) {
			return errors.New("the receiver does not start")
		}
	}
}

// read checks what a receiver prints until it ends.
func (t *test) read(out io.Reader, first chan<- bool) {
	lines := bufio.NewScanner(out)
	some := false
	for lines.Scan() {
		if !some {
			some = true
			first <- true
		}
		t.got(lines.Text())
	}
	if !some {
		first <- false
	}
}

// got checks one message, a JSON string.
func (t *test) got(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.changed.Broadcast()
	text, err := strconv.Unquote(line)
	typ, number, _ := strings.Cut(text, " ")
	n, numErr := strconv.Atoi(number)
	if err != nil || numErr != nil {
		if !strings.HasSuffix(line, `"`) {
			return // cut by a kill
		}
		t.fail(fmt.Errorf("received %.50q", line))
		return
	}
	grace := t.again[typ]
	if grace == atOnce {
		t.again[typ] = none
	}
	switch want := t.next[typ]; {
	case n == want:
		t.next[typ]++
	case n > want:
		t.fail(fmt.Errorf("type %s: received %d, want %d: %d messages lost or out of order", typ, n, want, n-want))
	case grace == none:
		t.fail(fmt.Errorf("type %s: received %d again, want %d", typ, n, want))
	default:
		// It begins with n and goes on in order.
		t.again[typ] = none
		t.redelivered += want - n
		t.next[typ] = n + 1
	}
}

func (t *test) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// mayComeAgain notes that the receiver gets again what it has not acknowledged.
func (t *test) mayComeAgain(when grace) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, typ := range types {
		t.again[typ] = when
	}
}

// await waits until n messages of each type have arrived.
func (t *test) await(n int) error {
	stop := time.AfterFunc(patience, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.fail(fmt.Errorf("after the last cycle: only %v of %d arrived", t.next, n))
		t.changed.Broadcast()
	})
	defer stop.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.err == nil && (t.next[types[0]] < n || t.next[types[1]] < n) {
		t.changed.Wait()
	}
	return t.err
}

// killReceiver kills the receiver. What it had printed counts.
func (t *test) killReceiver() {
	if t.receiver != nil && t.receiver.Process != nil {
		_ = t.receiver.Process.Kill() // it may have ended
		t.reading.Wait()
		_ = t.receiver.Wait()
	}
}

// kill ends a process as a power cut would.
func kill(c *exec.Cmd) {
	if c != nil && c.Process != nil {
		_ = c.Process.Kill() // it may have ended
		_ = c.Wait()
	}
}
