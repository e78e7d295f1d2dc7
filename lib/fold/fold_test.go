package fold

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal keeps log lines.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

// lines returns each line as "err addr n".
func (j *journal) lines(t *testing.T) (all []string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for line := range strings.Lines(j.buf.String()) {
		var e struct {
			Err, Addr string
			N         int
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		all = append(all, fmt.Sprintf("%s %s n=%d", e.Err, e.Addr, e.N))
	}
	return all
}

func TestWarningsAreFoldedByKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		f := New(slog.New(slog.NewJSONHandler(&j, nil)))
		warn := func(kind string, times int) {
			for i := range times {
				f.Warn(kind, 1, "client refused", slog.String("err", kind+" "+strconv.Itoa(i)), slog.String("addr", "192.0.2.7:1"))
			}
		}
		check := func(when string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := j.lines(t); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s:\ngot  %q\nwant %q", when, got, want)
			}
		}
		a := "slow 0 192.0.2.7:1 n=0"
		b := "name 0 192.0.2.7:1 n=0"
		warn("slow", 1)
		warn("name", 100)
		check("at once", a, b)
		<-time.After(9 * time.Second)
		check("before 10 s", a, b)
		<-time.After(time.Second)
		c := "name 99 192.0.2.7:1 n=99"
		check("after 10 s", a, b, c)
		warn("slow", 1)
		check("a new one after a quiet time", a, b, c, a)
		warn("name", 2)
		check("it still folds", a, b, c, a)
		<-time.After(10 * time.Second)
		d := "name 1 192.0.2.7:1 n=2"
		check("after 20 s", a, b, c, a, d)
		<-time.After(time.Hour)
		check("after an hour", a, b, c, a, d)
		warn("name", 3)
		f.Close()
		e := "name 2 192.0.2.7:1 n=2"
		check("at the end", a, b, c, a, d, b, e)
		f.Warn("name", 3, "client refused", slog.String("err", "late"))
		f.Warn("name", 1, "client refused", slog.String("err", "later"))
		check("after the end", a, b, c, a, d, b, e, "late  n=3", "later  n=0")
	})
}

func TestKindsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		f := New(slog.New(slog.NewJSONHandler(&j, nil)))
		for i := range 3 * maxKinds {
			f.Warn("kind "+strconv.Itoa(i), 1, "client refused")
		}
		if got, want := len(j.lines(t)), maxKinds+1; got != want {
			t.Errorf("%d lines at once, want %d", got, want)
		}
		if got := len(f.kinds); got > maxKinds+1 {
			t.Errorf("%d kinds remembered, at most %d", got, maxKinds+1)
		}
		f.Close()
		if got, want := len(j.lines(t)), maxKinds+2; got != want {
			t.Errorf("%d lines at the end, want %d", got, want)
		}
	})
}

func TestWarningsFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		f := New(slog.New(slog.NewJSONHandler(&j, nil)))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 1000 {
					f.Warn("same", 1, "client refused")
				}
			})
		}
		all.Wait()
		f.Close()
		got := j.lines(t)
		if want := []string{"  n=0", "  n=7999"}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Who is called anew with each connection fills no disk.
func TestNewKindsOfADayAreFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		f := New(slog.New(slog.NewJSONHandler(&j, nil)))
		const day = 24 * 3600
		for i := range 2 * day {
			f.Warn("kind "+strconv.Itoa(i), 1, "links come and go")
			<-time.After(500 * time.Millisecond)
		}
		f.Close()
		all := j.lines(t)
		if most := maxKinds + day + day/10 + 1; len(all) > most {
			t.Errorf("%d lines for %d kinds, want at most %d", len(all), 2*day, most)
		}
		sum := 0
		for _, line := range all {
			n := 0
			if _, err := fmt.Sscanf(line[strings.Index(line, "n="):], "n=%d", &n); err != nil {
				t.Fatal(err)
			}
			sum += max(n, 1)
		}
		if sum != 2*day {
			t.Errorf("the lines stand for %d events, want %d", sum, 2*day)
		}
	})
}
