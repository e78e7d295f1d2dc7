package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/api"
	"aioc/lib/wire"
)

// idOf is the request id in a header.
func idOf(header string) string {
	var h wire.Header
	if h.Parse([]byte(header)) != nil || !h.AwaitResponse {
		return ""
	}
	return string(h.RequestID)
}

// echo answers each request at once.
func echo(f *fake, m sent) {
	f.respond(`{"message_type": "any", "source_id": "s", "response_id": `+idOf(m.header)+`}`, "["+m.data+", 1]")
}

func TestAwait(t *testing.T) {
	reversed := func(f *fake, m sent) {
		f.mu.Lock()
		all := append([]sent(nil), f.sent...)
		f.mu.Unlock()
		if len(all) == 3 {
			for i := range all {
				echo(f, all[len(all)-1-i])
			}
		}
	}
	disconnected := func(f *fake, m sent) {
		if m.data == "2" {
			f.respond(`{"error": "disconnected_during_wait", "response_id": `+idOf(m.header)+`}`, "{}")
		} else {
			echo(f, m)
		}
	}
	allGone := func(f *fake, m sent) {
		if m.data == "2" {
			f.respond(`{"error": "disconnected_during_wait"}`, "{}")
		}
	}
	declined := func(f *fake, m sent) {
		if m.data == "2" {
			f.respond(`{"error": "refused: message type not in recv_message_types", "response_id": `+idOf(m.header)+`}`, "{}")
		} else {
			disconnected(f, sent{m.header, "2", ""})
		}
	}
	stray := func(f *fake, m sent) {
		f.respond(`{"message_type": "any", "response_id": "nobody's"}`, "9")
		f.respond(`{"message_type": "any"}`, "9")
		echo(f, m)
		echo(f, m)
	}
	escaped := func(f *fake, m sent) { f.respond(`{"response_id": "\u00e9\u0041"}`, "ok") }
	tests := []struct {
		name   string
		answer func(*fake, sent)
		args   string
		input  string
		stdout string
		status int
		stderr string
	}{
		{"one", echo, "-await", "1", "[1,1]\n", 0, ""},
		{"no request", echo, "-await", "", "", 0, ""},
		{"many", echo, "-await", strings.Repeat("1 ", 3*inFlight), strings.Repeat("[1,1]\n", 3*inFlight), 0, ""},
		{"answers in another order", reversed, "-await", "1 2 3", "[1,1]\n[2,1]\n[3,1]\n", 0, ""},
		{"one id for all", echo, "-await -request-id 7", "1 2 3", "[1,1]\n[2,1]\n[3,1]\n", 0, ""},
		{"an id escaped in another way", escaped, "-await -request-id éA", "1", "\"ok\"\n", 0, ""},
		{"answers that nobody waits for", stray, "-await", "1 2", "[1,1]\n[2,1]\n", 0, ""},
		{"whole answers", echo, "-await -envelope -request-id 7", `{"data":1}`,
			`{"message_type":"any","source_id":"s","response_id":7,"data":[1, 1]}` + "\n", 0, ""},
		{"envelopes that await", echo, "-envelope", `{"data":1,"await_response":true,"request_id":5}{"data":2}`,
			`{"message_type":"any","source_id":"s","response_id":5,"data":[1, 1]}` + "\n", 0, ""},
		{"envelopes without ids", echo, "-await -envelope", `{"data":1}{"data":2}`, "", 0, ""},
		{"the peer of one went away", disconnected, "-await", "1 2 3", "[1,1]\n[3,1]\n", 75, "message 2 got no response: the peer was disconnected"},
		{"one was refused by the peer", declined, "-await", "1 2 3", "", 77, "message 2 got no response: refused: message type not in recv_message_types"},
		{"the peer of all went away", allGone, "-await", "1 2", "", 75, "message 2 got no response"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := client1()
			f.answer = func(f *fake, m sent) {
				if idOf(m.header) != "" {
					tt.answer(f, m)
				}
			}
			got := f.run(t.Context(), strings.NewReader(tt.input), strings.Fields(tt.args)...)
			if got.status != tt.status || tt.stdout != "" && got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) || tt.stderr == "" && got.stderr != "" {
				t.Errorf("got %+v", got)
			}
			seen := make(map[string]bool)
			for _, m := range f.sent {
				if id := idOf(m.header); id != "" && !strings.Contains(tt.args, "-request-id") {
					if seen[id] || len(id) != 34 && id != "5" {
						t.Errorf("bad id %s", id)
					}
					seen[id] = true
				}
			}
		})
	}
}

func TestAwaitEndsWithTheConnection(t *testing.T) {
	f := client1()
	f.answer = func(f *fake, m sent) {
		if m.data == "1" {
			echo(f, m)
		} else {
			close(f.ended)
		}
	}
	got := f.run(t.Context(), strings.NewReader("1 2"), "-await")
	if got.status != 75 || got.stdout != "[1,1]\n" || got.stderr != "aioc-send: message 2 got no response: "+api.ErrLost.Error()+"\n" {
		t.Errorf("got %+v", got)
	}
}

// The refusal of a message takes nothing from those before it.
func TestResponsesToWhatWasTakenBeforeARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := client1()
		f.refuse = &api.NotTaken{Index: 2, Reason: "full"}
		f.answer = func(f *fake, m sent) { time.AfterFunc(time.Second, func() { echo(f, m) }) }
		got := f.run(t.Context(), strings.NewReader("1 2 3 4"), "-await")
		if want := (outcome{75, "[1,1]\n[2,1]\n", "aioc-send: 2 messages taken, message 3 was not: the queue is full\n"}); got != want {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	})
}

func TestRefusalAndMissingResponsesAreBothTold(t *testing.T) {
	const refusal = "aioc-send: 2 messages taken, message 3 was not: too long\n"
	for _, tt := range []struct {
		name string
		end  bool // of the connection
		want string
	}{
		{"the connection ends", true, refusal + "aioc-send: messages 1 and 2 got no response: connection to the connector lost\n"},
		{"time ends", false, refusal + "aioc-send: messages 1 and 2 got no response in time\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := client1()
			f.refuse = &api.NotTaken{Index: 2, Reason: "size", Text: "too long"}
			start := time.Now()
			if tt.end {
				time.AfterFunc(time.Second, func() { close(f.ended) })
			}
			got := f.run(t.Context(), strings.NewReader("1 2 3"), "-await", "-timeout", "5")
			if got != (outcome{65, "", tt.want}) || time.Since(start) < time.Second {
				t.Errorf("%s: got %+v\nwant %s", tt.name, got, tt.want)
			}
		})
	}
}

// Without its configuration nothing is known of a Python connector but its
// name.
func TestPythonConnectorOfWhichLittleIsKnown(t *testing.T) {
	for _, tt := range []struct {
		args   string
		status int
		want   string
	}{
		{"-type x", 0, `{"message_type": "x", "source_id": "c"}`},
		{"-type x -to y", 0, `{"message_type": "x", "source_id": "c", "destination_id": "y"}`},
		{"", 2, ""},
	} {
		f := client1()
		f.info = api.Info{Name: "c"}
		got := f.run(t.Context(), strings.NewReader("1"), strings.Fields(tt.args)...)
		header := ""
		if len(f.sent) > 0 {
			header = f.sent[0].header
		}
		if got.status != tt.status || header != tt.want {
			t.Errorf("%s: got %+v, %s", tt.args, got, header)
		}
	}
}

func TestAwaitTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			args []string
			want time.Duration
		}{
			{[]string{"-await"}, time.Minute},
			{[]string{"-await", "-timeout", "5s"}, 5 * time.Second},
		} {
			f := client1()
			f.answer = func(f *fake, m sent) {
				if m.data == "2" {
					echo(f, m)
				}
			}
			start := time.Now()
			got := f.run(t.Context(), strings.NewReader("1 2 3 4"), tt.args...)
			if want := "aioc-send: messages 1, 3 and 4 got no response in time\n"; got.status != 124 || got.stderr != want || got.stdout != "[2,1]\n" {
				t.Errorf("%s: got %+v", tt.args, got)
			}
			if took := time.Since(start); took != tt.want {
				t.Errorf("%s: took %v", tt.args, took)
			}
		}
	})
}

// Each response has its own time: the input may go on for longer.
func TestAwaitTimesOutWhileTheInputGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := client1()
		f.answer = func(f *fake, m sent) {
			if m.data != "3" {
				time.AfterFunc(9*time.Second, func() { echo(f, m) })
			}
		}
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			for i := 1; i < 5; i++ {
				fmt.Fprintln(w, i)
				select {
				case <-time.After(6 * time.Second):
				case <-done:
					return
				}
			}
		}()
		start := time.Now()
		got := f.run(t.Context(), r, "-await", "-timeout", "10s")
		if got.status != 124 || got.stdout != "[1,1]\n[2,1]\n" || got.stderr != "aioc-send: messages 3 and 4 got no response in time\n" {
			t.Errorf("got %+v", got)
		}
		if took := time.Since(start); took != 22*time.Second+grace && took != 22*time.Second {
			t.Errorf("took %v", took)
		}
		close(done)
		r.Close()
	})
}

func TestTimeoutOfTheAcknowledgement(t *testing.T) {
	for _, tt := range []struct{ input, want string }{
		{"1", "aioc-send: 0 messages acknowledged by the peer, message 1 was not, but it may have been taken here and may still be delivered: time is up\n"},
		{"1 2 3", "aioc-send: 0 messages acknowledged by the peer, messages 1 to 3 were not, but they may have been taken here and may still be delivered: time is up\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := client1()
			f.unacknowledged = true
			got := f.run(t.Context(), strings.NewReader(tt.input), "-ack", "-timeout", "10s")
			if got != (outcome{124, "", tt.want}) {
				t.Errorf("%s: got %+v", tt.input, got)
			}
		})
	}
}

func TestMissingIsShortened(t *testing.T) {
	a := newAwaiter(io.Discard, false, time.Minute, func(error) {})
	defer a.stop()
	for i := range 14 {
		if err := a.add(t.Context(), i+1, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := a.missing(13), "messages 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 3 more"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := a.missing(1), "message 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
