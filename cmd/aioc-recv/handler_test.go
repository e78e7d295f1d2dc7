package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/api"
	"aioc/lib/wire"
)

// handler is the command of a shell script.
func handler(flags, script string) []string {
	return append(strings.Fields("-drain "+flags), "--", "sh", "-c", script)
}

func request(t testing.TB, id, data string) *wire.Frame {
	t.Helper()
	return message(t, `{"message_type": "job", "source_id": "s", "request_id": `+id+`, "await_response": true}`, data, "")
}

func TestHandlerGetsTheMessage(t *testing.T) {
	t.Setenv("AIOC_TAG", "left over")
	t.Setenv("AIOC_DIR", "/from/environment")
	script := `printf '%s|' "$(cat)" "$AIOC_MESSAGE_TYPE" "$AIOC_SOURCE_ID" "${AIOC_REQUEST_ID-none}" "${AIOC_TAG-none}" "${AIOC_BINARY-none}" "$AIOC_TRIES" "$AIOC_DIR" "$AIOC_CONNECTOR"`
	tests := []struct{ name, header, data, want string }{
		{"a plain one", `{"message_type": "job", "source_id": "s"}`, `{"a": 1}`, `{"a": 1}|job|s|none|none|none|1|/d|n|`},
		{"with everything", `{"message_type": "job", "source_id": "s", "request_id": 7, "tag": "t:1"}`, "", `|job|s|7|t:1|none|1|/d|n|`},
		{"a text as id", `{"message_type": "job", "source_id": "s", "request_id": "a b\n\"$(x)"}`, "1", "1|job|s|a b\n\"$(x)|none|none|1|/d|n|"},
		{"a text of digits as id", `{"message_type": "job", "source_id": "s", "request_id": "7"}`, "1", `1|job|s|"7"|none|none|1|/d|n|`},
		{"NUL", `{"message_type": "job", "source_id": "s", "tag": "a\u0000b", "request_id": "\u0000"}`, "1", "1|job|s|\ufffd|a\ufffdb|none|1|/d|n|"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, message(t, tt.header, tt.data, ""))
			got := f.run(t.Context(), handler("-dir /d -connector n", script)...)
			if got.status != 0 || got.stdout != tt.want || got.stderr != "" || len(f.acked) != 1 {
				t.Errorf("got %+v\nwant %q", got, tt.want)
			}
		})
	}
}

func TestHandlerLearnsWhatBecameOfTheFile(t *testing.T) {
	t.Setenv("AIOC_FILE_ERROR", "left over")
	for _, tt := range []struct{ name, with, want string }{
		{"none came", "", "none|none"},
		{"stored", `, "with_file": {"dst_path": "/d/f"}`, "/d/f|none"},
		{"not stored", `, "with_file": {"dst_name": "f", "file_error": "disk full"}`, "none|disk full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, message(t, `{"message_type": "job"`+tt.with+`}`, "1", ""))
			got := f.run(t.Context(), handler("", `printf %s "${AIOC_FILE-none}|${AIOC_FILE_ERROR-none}"`)...)
			if got.status != 0 || got.stdout != tt.want {
				t.Errorf("got %+v, want %q", got, tt.want)
			}
		})
	}
}

func TestHandlerGetsTheBinaryPartAsAPrivateFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	f := newFake(t, message(t, `{"message_type": "job", "with_binary": true}`, "1", "\x00\x01bin"))
	got := f.run(t.Context(), handler("", `cat "$AIOC_BINARY"; ls -l "$AIOC_BINARY" | cut -c 1-10`)...)
	if got.status != 0 || got.stdout != "\x00\x01bin-rw-------\n" {
		t.Errorf("got %+q", got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestHandlerThatDoesNotReadItsInput(t *testing.T) {
	f := newFake(t, messages(t, strings.Repeat("x", 1<<20), "2")...)
	got := f.run(t.Context(), handler("", "echo done")...)
	if got != (outcome{stdout: "done\ndone\n"}) || len(f.acked) != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestHandlerIsTriedAgain(t *testing.T) {
	f := newFake(t, messages(t, "1", "2", "3")...)
	got := f.run(t.Context(), "-n", "3", "--", "sh", "-c", `x=$(cat); echo "$x try $AIOC_TRIES"; [ "$x" != 2 ] || [ $AIOC_TRIES = 3 ] || exit 3`)
	if got.status != 0 || got.stdout != "1 try 1\n3 try 1\n2 try 3\n" || !slices.Equal(f.acked, []uint64{1, 3, 5}) {
		t.Errorf("got %+v, acknowledged %v", got, f.acked)
	}
	for _, want := range []string{"aioc-recv: handler exited with status 3 (type any, try 1), again in ", "try 2), again in "} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("stderr %q lacks %q", got.stderr, want)
		}
	}
}

func TestWhatAHandlerGivesUpIsADeadLetter(t *testing.T) {
	for _, tt := range []struct {
		name, flags, script string
		status              int
		dead                []string
	}{
		{"status 65", "", `cat >/dev/null; echo hopeless >&2; exit 65`, 0, []string{"1 handler exited with status 65: hopeless"}},
		{"so many failures", "-tries 3", `cat >/dev/null; echo no $AIOC_TRIES >&2; exit 1`, 0, []string{"3 handler exited with status 1: no 3"}},
		{"a signal counts", "-tries 1", `kill -9 $$`, 0, []string{"1 handler was ended by signal 9"}},
		{"try again is never the last", "-tries 2", `[ $AIOC_TRIES -gt 4 ] || exit 75`, 0, nil},
		{"75 does not count", "-tries 3", `cat >/dev/null; echo no $AIOC_TRIES >&2; [ $AIOC_TRIES -gt 3 ] || exit 75; exit 1`, 0, []string{"6 handler exited with status 1: no 6"}},
		{"no more than the end of what it says", "-tries 1", `i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done >&2; exit 1`, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t, messages(t, "1")...)
			args := append(strings.Fields("-n 1 "+tt.flags), "--", "sh", "-c", tt.script)
			got := f.run(t.Context(), args...)
			if got.status != tt.status || tt.dead != nil && !slices.Equal(f.dead, tt.dead) {
				t.Errorf("got %.300v, dead %q, want %q", got, f.dead, tt.dead)
			}
			if len(f.dead) == 1 && (len(f.dead[0]) > mostWords+60 || strings.Contains(tt.script, "5000") && !strings.HasSuffix(f.dead[0], "4999")) {
				t.Errorf("got %d bytes: %.80q", len(f.dead[0]), f.dead[0])
			}
		})
	}
	f := newFake(t, messages(t, "1")...)
	f.info.Native = false
	f.info.RecvTypes = nil
	got := f.run(t.Context(), "-type", "any", "-n", "1", "--", "sh", "-c", "exit 65")
	if got.status != 0 || !strings.Contains(got.stderr, "keeps no dead letters") || len(f.acked) != 1 {
		t.Errorf("a Python connector: got %+v", got)
	}
}

func TestHandlerAnswersRequests(t *testing.T) {
	f := newFake(t, request(t, "7", "6"), request(t, `"x"`, "bad"), request(t, "9", "killed"))
	got := f.run(t.Context(), handler("", `x=$(cat); case $x in bad) echo partial; exit 3;; killed) kill -9 $$;; esac; echo $((x*7))`)...)
	want := []string{"job s 7: 42\n", `job s "x": {"error": "handler exited with status 3"}`, `job s 9: {"error": "handler was ended by signal 9"}`}
	if got.status != 0 || got.stdout != "" || !slices.Equal(f.answers, want) || len(f.acked) != 3 {
		t.Errorf("got %+v, answers %q", got, f.answers)
	}
}

func TestResponsesThatCannotBeSent(t *testing.T) {
	for _, tt := range []struct {
		err             error
		acked, returned int
	}{
		{&api.NotTaken{Reason: "away", Text: "the peer is away"}, 1, 0},
		{fmt.Errorf("%w: EOF", api.ErrLost), 0, 1},
		{&api.NotTaken{Reason: "full", Text: "the queue is full"}, 0, 0},
		{context.DeadlineExceeded, 0, 0},
	} {
		f := newFake(t, request(t, "7", "6"))
		f.answer = tt.err
		f.run(t.Context(), handler("-timeout 0.5", "cat")...)
		if acked, returned := f.done(); acked != tt.acked || returned != tt.returned {
			t.Errorf("%v: %d acknowledged, %d returned", tt.err, acked, returned)
		}
	}
}

func TestAResponseThatFindsNoRoomIsSentLater(t *testing.T) {
	f := newFake(t, request(t, "7", "6"))
	f.answer = &api.NotTaken{Reason: "full", Text: "the queue is full"}
	f.room = 3
	got := f.run(t.Context(), handler("", "echo $AIOC_TRIES")...)
	if want := "job s 7: 1\n"; got.status != 0 || len(f.acked) != 1 || !slices.Equal(f.answers, []string{want, want, want}) {
		t.Errorf("got %+v, answers %q", got, f.answers)
	}
	if want := "response to s: the queue is full (type job, try 1), again in "; !strings.Contains(got.stderr, want) {
		t.Errorf("stderr %q lacks %q", got.stderr, want)
	}
}

func TestDrainEndsWhenOnlyFailedMessagesAreLeft(t *testing.T) {
	f := newFake(t, messages(t, "1", "2", "3")...)
	got := f.run(t.Context(), handler("", `[ $(cat) != 2 ]`)...)
	if got.status != 75 || !slices.Equal(f.acked, []uint64{1, 3}) ||
		!strings.HasSuffix(got.stderr, "aioc-recv: failed and went back to the queue: 1; the next run tries again\n") {
		t.Errorf("got %+v, acknowledged %v", got, f.acked)
	}
}

func TestIdleEndsWhileAFailedMessageWaits(t *testing.T) {
	f := newFake(t, messages(t, "1")...)
	got := f.run(t.Context(), "-idle", "600ms", "--", "false")
	if got.status != 124 || len(f.acked) != 0 {
		t.Errorf("got %+v, acknowledged %v", got, f.acked)
	}
}

func TestHandlerOutputIsNotMixed(t *testing.T) {
	var all []string
	for i := range 20 {
		all = append(all, fmt.Sprint(i))
	}
	f := newFake(t, messages(t, all...)...)
	got := f.run(t.Context(), handler("-j 4", `x=$(cat); echo "a $x"; echo "b $x"`)...)
	lines := strings.Split(got.stdout, "\n")
	if got.status != 0 || len(lines) != 41 {
		t.Fatalf("got %+v", got)
	}
	for i := 0; i < 40; i += 2 {
		if lines[i][:1] != "a" || lines[i+1] != "b"+lines[i][1:] {
			t.Errorf("%q is followed by %q", lines[i], lines[i+1])
		}
	}
}

func TestHandlersRunAtOnce(t *testing.T) {
	// Each of the three waits until all have begun.
	dir := t.TempDir()
	f := newFake(t, messages(t, "1", "2", "3")...)
	got := f.run(t.Context(), handler("-j 3", `touch "`+dir+`/$(cat)"; until [ -e "`+dir+`/1" ] && [ -e "`+dir+`/2" ] && [ -e "`+dir+`/3" ]; do sleep 0.01; done`)...)
	if got != (outcome{}) || len(f.acked) != 3 || f.opts.Window != 2*3 {
		t.Errorf("got %+v, window %d", got, f.opts.Window)
	}
}

func TestHandlerThatTakesTooLong(t *testing.T) {
	dir := t.TempDir()
	f := newFake(t, request(t, "1", "x"))
	// The whole process group is ended, the grandchild too.
	got := f.run(t.Context(), handler("-limit 0.2", `(trap 'echo > "`+dir+`/ended"' TERM; sleep 60; sleep 60) & wait`)...)
	if got.status != 0 || len(f.acked) != 1 || !slices.Equal(f.answers, []string{`job s 1: {"error": "handler took longer than 200ms"}`}) {
		t.Errorf("got %+v, answers %q", got, f.answers)
	}
	if _, err := os.Stat(filepath.Join(dir, "ended")); err != nil {
		t.Errorf("the grandchild was not told: %v", err)
	}
}

// jobOf is a job for tests of processes.
func jobOf(data string) *job { return &job{n: 1, typ: "any", data: []byte(data), tries: 1} }

// processOf returns a shell script as processes, and what they say.
func processOf(t *testing.T, script string) (*processes, *bytes.Buffer) {
	t.Helper()
	var said bytes.Buffer
	return &processes{path: "/bin/sh", args: []string{"sh", "-c", script}, env: os.Environ(), kill: 100 * time.Millisecond,
		stderr: &lockedWriter{w: &said}, log: func(f string, a ...any) { fmt.Fprintf(&said, f, a...) }}, &said
}

func TestHandlerThatDoesNotWantToEndIsKilled(t *testing.T) {
	p, _ := processOf(t, `trap '' TERM; while :; do sleep 0.01; done`)
	p.limit = 50 * time.Millisecond
	_, err := p.attempt(t.Context(), jobOf(""))
	if err == nil || err.Error() != "took longer than 50ms" {
		t.Errorf("got %v", err)
	}
}

func TestHandlerEndsWithTheProgram(t *testing.T) {
	for _, tt := range []struct{ name, script, want string }{
		{"at once", `echo $$ > "$F"; sleep 60`, "was ended by signal 15"},
		{"with a status of its own", `trap 'exit 5' TERM; echo $$ > "$F"; while :; do sleep 0.01; done`, "exited with status 5"},
		{"after it has finished", `trap 'exit 0' TERM; echo $$ > "$F"; while :; do sleep 0.01; done`, ""},
		{"never", `trap '' TERM; echo $$ > "$F"; while :; do sleep 0.01; done`, "was ended by signal 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "f")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			p, _ := processOf(t, tt.script)
			p.env = append(p.env, "F="+fifo)
			ctx, end := context.WithCancel(t.Context())
			defer end()
			go func() {
				os.ReadFile(fifo) // returns when the script has set its trap
				end()
			}()
			_, err := p.attempt(ctx, jobOf(""))
			if got := fmt.Sprint(err); got != tt.want && !(err == nil && tt.want == "") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestHandlerThatLeavesAProcessBehind(t *testing.T) {
	p, said := processOf(t, `sleep 60 & echo $!`)
	out, err := p.attempt(t.Context(), jobOf(""))
	var pid int
	fmt.Sscan(string(out), &pid)
	if err != nil || pid == 0 || !strings.Contains(said.String(), "holds its output open") {
		t.Errorf("got %q, %v, said %q", out, err, said)
	}
	if pid > 1 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestHandlerErrorsPassThrough(t *testing.T) {
	p, said := processOf(t, `echo oh >&2; exit 65`)
	if _, err := p.attempt(t.Context(), jobOf("")); err == nil || err.Error() != "exited with status 65" || said.String() != "oh\n" {
		t.Errorf("got %v, said %q", err, said)
	}
}

func TestLimitedBuffer(t *testing.T) {
	b := &limitedBuffer{max: 3}
	b.Write([]byte("ab"))
	if _, err := b.Write([]byte("cd")); err == nil || !b.full || b.String() != "ab" {
		t.Errorf("got %q, %v", b.String(), err)
	}
	if err := inWords(errors.New("x"), b); err.Error() != "wrote more than 3 bytes" {
		t.Errorf("got %v", err)
	}
}

// attempts is handlers whose processes are a function.
func attempts(ctx context.Context, atOnce int, attempt func(j *job) error) (h *handlers, done map[uint64]error, mu *sync.Mutex) {
	done, mu = make(map[uint64]error), new(sync.Mutex)
	h = newHandlers(&handlers{
		ctx: ctx, end: func(error) {}, atOnce: atOnce,
		attempt: func(_ context.Context, j *job) ([]byte, error) { return nil, attempt(j) },
		done: func(n uint64, err error) {
			mu.Lock()
			defer mu.Unlock()
			done[n] = err
		},
		log: func(string, ...any) {}, active: func() {},
	})
	return h, done, mu
}

func TestPausesGrowAndOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		h, done, mu := attempts(t.Context(), 1, func(j *job) error {
			if j.n != 1 {
				return nil
			}
			at = append(at, time.Since(start))
			if j.tries < 15 {
				return errors.New("no")
			}
			return nil
		})
		m := message(t, `{"message_type": "any"}`, "1", "")
		for n := range 5 {
			h.take(uint64(n+1), m)
		}
		synctest.Wait()
		mu.Lock()
		if len(done) != 4 {
			t.Errorf("%d of 4 others are done", len(done))
		}
		mu.Unlock()
		h.finish()
		if err, ok := done[1]; !ok || err != nil || len(at) != 15 {
			t.Fatalf("done: %v %v, after %d tries", ok, err, len(at))
		}
		longest := firstPause
		for i := 1; i < len(at); i++ {
			if pause := at[i] - at[i-1]; pause < longest/2 || pause > longest+time.Millisecond {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, longest/2, longest)
			}
			longest = min(2*longest, lastPause)
		}
	})
}

func TestNoPauseOverflows(t *testing.T) {
	for tries := 1; tries < 200; tries++ {
		if p := pauseAfter(tries); p < firstPause/2 || p > lastPause {
			t.Errorf("pause after %d tries is %v", tries, p)
		}
	}
}

func TestAFailedMessageWaitsOnlyForItsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		h, done, mu := attempts(ctx, 2, func(j *job) error { return errors.New("no") })
		m := message(t, `{"message_type": "any"}`, "1", "")
		for n := range h.window() {
			h.take(uint64(n+1), m)
		}
		synctest.Wait()
		if h.busy() {
			t.Error("busy")
		}
		end()
		h.stop()
		mu.Lock()
		defer mu.Unlock()
		for n, err := range done {
			if err == nil {
				t.Errorf("message %d was acknowledged", n)
			}
		}
		time.Sleep(2 * lastPause) // nothing begins after the end
	})
}

func TestStopWaitsForHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		h, done, _ := attempts(ctx, 1, func(j *job) error {
			<-ctx.Done()
			time.Sleep(time.Second) // to finish its work
			return nil
		})
		m := message(t, `{"message_type": "any"}`, "1", "")
		h.take(1, m)
		h.take(2, m)
		synctest.Wait()
		start := time.Now()
		end()
		h.stop()
		if err, ok := done[1]; !ok || err != nil || len(done) != 1 || time.Since(start) != time.Second {
			t.Errorf("done %v after %v", done, time.Since(start))
		}
	})
}

func TestNothingIsBegunWhileTheConnectorIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var begun []uint64
		h, done, _ := attempts(t.Context(), 1, func(j *job) error {
			begun = append(begun, j.n)
			time.Sleep(time.Second)
			return nil
		})
		h.native = true
		m := message(t, `{"message_type": "any"}`, "1", "")
		h.take(1, m)
		h.take(2, m)
		synctest.Wait()
		h.lost()
		time.Sleep(time.Minute)
		if len(begun) != 1 || h.holds() {
			t.Errorf("begun %v, something in hand: %v; want 1 alone, and nothing", begun, h.holds())
		}
		h.take(3, m)
		h.take(4, m)
		h.finish()
		if !slices.Equal(begun, []uint64{1, 3, 4}) || len(done) != 3 {
			t.Errorf("begun %v, done %v", begun, done)
		}
	})
}

func TestAResponseThatWaitsIsDroppedWithItsConnector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, done, _ := attempts(t.Context(), 1, func(*job) error { return nil })
		h.native = true
		sent := 0
		h.respond = func(api.Request, []byte) error {
			sent++
			return &api.NotTaken{Reason: "full", Text: "the queue is full"}
		}
		h.take(1, request(t, "7", "6"))
		synctest.Wait()
		h.lost()
		h.finish()
		if sent != 1 || len(done) != 0 {
			t.Errorf("sent %d times, done %v; want once, and nothing", sent, done)
		}
	})
}

func TestMoreMessagesThanCanBeInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, done, _ := attempts(t.Context(), 1, func(*job) error {
			time.Sleep(time.Second)
			return nil
		})
		m := message(t, `{"message_type": "any"}`, "1", "")
		start := time.Now()
		const n = 10
		for i := range n {
			h.take(uint64(i+1), m)
		}
		if waited, want := time.Since(start), (n-2)*time.Second; waited != want {
			t.Errorf("waited %v, want %v", waited, want)
		}
		h.finish()
		if len(done) != n || h.stop() != 0 {
			t.Errorf("%d done", len(done))
		}
	})
}

// A Python connector forgets a message that it has given out, and so does its
// receiver of Count.
func TestWhatAPythonConnectorGaveOutIsHandled(t *testing.T) {
	f := newFake(t, messages(t, "1", "2", "3")...)
	f.info.Native = false
	f.forget = true
	got := f.run(t.Context(), "-n", "3", "--", "sh", "-c", `[ $AIOC_TRIES = 2 ] && cat`)
	if got.status != 0 || len(got.stdout) != 3 || strings.Contains(got.stderr, "lost") {
		t.Errorf("got %+v", got)
	}
}

func TestWhatAPythonConnectorGaveOutIsReportedWhenItIsLost(t *testing.T) {
	f := newFake(t, messages(t, "1", "2")...)
	f.info.Native = false
	got := f.run(t.Context(), "-timeout", "0.5", "--", "sleep", "60")
	if want := "aioc-recv: 2 messages were not handled and are lost: a Python connector does not keep them\n"; got != (outcome{124, "", want}) {
		t.Errorf("got %+v", got)
	}
}

func TestIdleDoesNotCountWhileAHandlerRuns(t *testing.T) {
	f := newFake(t, messages(t, "1")...)
	dir := t.TempDir()
	got := f.run(t.Context(), "-idle", "500ms", "--", "sh", "-c", `sleep 0.8; touch "`+dir+`/done"`)
	if got != (outcome{status: 124}) || len(f.acked) != 1 {
		t.Errorf("got %+v, acknowledged %v", got, f.acked)
	}
}

func TestSignalReturnsWhatIsNotDone(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "f")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancelCause(t.Context())
	go func() {
		os.ReadFile(fifo)
		end(signalError{syscall.SIGTERM})
	}()
	f := newFake(t, messages(t, "1", "2")...)
	got := f.run(ctx, "--", "sh", "-c", `echo > "`+fifo+`"; sleep 60`)
	if got != (outcome{status: 143}) || len(f.acked) > 0 || !slices.Equal(f.returned, []uint64{1}) {
		t.Errorf("got %+v, acknowledged %v, returned %v", got, f.acked, f.returned)
	}
}

func TestTimeoutEndsHandlers(t *testing.T) {
	f := newFake(t, messages(t, "1")...)
	got := f.run(t.Context(), "-timeout", "0.1", "--", "sleep", "60")
	if got != (outcome{status: 124}) || len(f.acked) > 0 {
		t.Errorf("got %+v", got)
	}
}
