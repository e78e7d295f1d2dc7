package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"aioc/lib/control"
)

// busy is a connector with many queues, and hostile names.
func busy() *control.Stats {
	s := &control.Stats{Name: "n", Server: true, Address: "127.0.0.1:1", Running: true, TLS: "certs", Started: time.Now(),
		Dropped: map[string]uint64{}, Problems: []string{"the certificate of the server ends on 2026-12-01"}}
	for i := range 60 {
		s.Peers = append(s.Peers, control.PeerStats{Name: fmt.Sprintf("pump%d", i), Connected: i%2 == 0, Queue: control.QueueStats{Waiting: i, Done: 100}})
	}
	s.Peers = append(s.Peers, control.PeerStats{Name: "evil\x1b[2J\nname" + strings.Repeat("x", 300), Queue: control.QueueStats{Waiting: 1000}})
	for i := range 20 {
		s.Dropped[fmt.Sprintf("reason %d", i)] = uint64(i)
	}
	return s
}

func TestTheViewFitsTheScreen(t *testing.T) {
	v := newView(busy(), nil, 0)
	for _, size := range [][2]int{{40, 12}, {80, 24}, {200, 50}, {10, 3}, {1, 1}, {300, 500}} {
		lines := v.lines(size[0], size[1])
		if len(lines) > size[1] {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if utf8.RuneCountInString(l) > size[0] || strings.ContainsAny(l, "\x1b\n") {
				t.Errorf("%v: line %q", size, l)
			}
		}
	}
	// The fullest queue comes first, and what does not fit is said.
	text := strings.Join(v.lines(80, 24), "\n")
	for _, want := range []string{"evil", "and ", "more", "DROPPED", "! the certificate"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestRatesAreThoseOfTheTimeBetween(t *testing.T) {
	before, now := busy(), busy()
	now.Started = before.Started
	now.Peers[3].Queue.Done += 50
	now.Sent, now.Dropped["reason 4"] = 50, 10
	now.Peers[5].Queue.Done = 0 // forgotten, and made anew
	v := newView(now, before, 2*time.Second)
	if got := v.rates["sendpump3"]; got != 25 {
		t.Errorf("rate %v, want 25", got)
	}
	if got := v.rates["sendpump5"]; got != 0 {
		t.Errorf("rate %v, want 0", got)
	}
	if v.SentRate != 25 || v.recent["reason 4"] != 6 {
		t.Errorf("sent %v, dropped %v", v.SentRate, v.recent)
	}
	now.Started = now.Started.Add(time.Second) // restarted
	if v := newView(now, before, time.Second); v.SentRate != 0 {
		t.Errorf("rate %v after a restart, want 0", v.SentRate)
	}
}

func TestAgesAndSizes(t *testing.T) {
	for want, got := range map[string]string{
		"0s": age(0), "59s": age(59), "1m0s": age(60), "1h1m": age(3660), "2d3h": age(2*86400 + 3*3600 + 59),
		"0": size(0), "9999": size(9999), "9.8K": size(10000), "1.0M": size(1 << 20), "2048.0G": size(1 << 41),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// A connector that is silent must not take the keys away from the user.
func TestALateAnswerIsToldAndTheKeysWork(t *testing.T) {
	keyboard, typed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer typed.Close()
	seen, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	given := make(chan struct{})
	silent := func(ctx context.Context) (*control.Stats, error) {
		<-ctx.Done()
		close(given)
		return nil, ctx.Err()
	}
	v := newView(busy(), nil, 0)
	s := &screen{out: out, in: int(keyboard.Fd()), width: 80, height: 24}
	go func() {
		for r := bufio.NewScanner(seen); r.Scan(); {
			if strings.Contains(r.Text(), "! no answer for 2s: what follows is from before") {
				_, _ = typed.WriteString("q")
			}
		}
	}()
	if _, quit, err := s.await(ctx, silent, v.lines); !quit || err != nil {
		t.Fatalf("quit %v, %v; want true, nil", quit, err)
	}
	<-given

	prompt := func(context.Context) (*control.Stats, error) { return v.Stats, nil }
	if got, quit, err := s.await(ctx, prompt, v.lines); got != v.Stats || quit || err != nil {
		t.Errorf("got %p, %v, %v; want %p, false, nil", got, quit, err, v.Stats)
	}
}

func TestAWarningIsShownToItsEnd(t *testing.T) {
	v := newView(busy(), nil, 0)
	text := "nobody listens at " + strings.Repeat("x", 30) + ": start aioc-server or aioc-client"
	lines := warned(text, v.lines, 40, 12)
	if got := strings.Join(lines[:3], " "); got != "! "+text {
		t.Errorf("got %q, want %q", got, "! "+text)
	}
	if len(lines) > 12 {
		t.Errorf("%d lines for 12", len(lines))
	}
}
