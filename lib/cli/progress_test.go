package cli

import (
	"bytes"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestProgressHasAsMuchAsThereIsRoomFor(t *testing.T) {
	line := func(name string, size, since, done int64, width int) string {
		return Progress{"sending", name, size, done, since, 10 * time.Second}.Line(width)
	}
	for _, test := range []struct{ got, want string }{
		{line("photo.jpg", 1000e6, 0, 250e6, 80), "sending photo.jpg [#####...............]  25%  25.0 MB/s 0:30"},
		{line("photo.jpg", 1000e6, 150e6, 250e6, 80), "sending photo.jpg [#####...............]  25%  10.0 MB/s 1:15"},
		{line("photo.jpg", 1000, 0, 1000, 80), "sending photo.jpg [####################] 100%    100 B/s 0:00"},
		{line("photo.jpg", 1000, 0, 0, 80), "sending photo.jpg [....................]   0%      0 B/s -:--"},
		{line("empty", 0, 0, 0, 80), "sending empty [####################] 100%      0 B/s -:--"},
		{line("a-very-long-name-of-a-file.tar.gz", 100e9, 0, 1e9, 60), "sending a-very-long-na..-a-file.tar.gz   1% 100.0 MB/s 16:30"},
		{line("a-very-long-name-of-a-file.tar.gz", 100e9, 0, 1e9, 35), "sending a-very-...tar.gz   1% 16:30"},
		{line("a-very-long-name-of-a-file.tar.gz", 100e9, 0, 1e9, 28), "sending a-very...tar.gz   1%"},
		{line("a-very-long-name-of-a-file.tar.gz", 100e9, 0, 1e9, 10), "1%"},
		{line("of unknown size", -1, 0, 5e6, 80), "sending of unknown size 5.0 MB"},
		{Progress{Verb: "sending", Name: "x", Size: 10}.Line(80), "sending x [....................]   0%      0 B/s -:--"},
	} {
		if test.got != test.want {
			t.Errorf("\n got %q\nwant %q", test.got, test.want)
		}
	}
	for width := -1; width < 120; width++ {
		if got := line("a-very-long-name-of-a-file.tar.gz", 1<<40, 0, 1<<20, width); len(got) > max(width, 0) {
			t.Errorf("width %d: got %q", width, got)
		}
	}
}

func TestNumbersOfBytesAndTimes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 4 << 30: "4.3 GB", 1<<63 - 1: "9.2 EB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0:00", 59600 * time.Millisecond: "1:00", time.Hour: "1:00:00", 100*time.Hour + 61*time.Second: "100:01:01"} {
		if got := Clock(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// screen is what a terminal of one line shows after what was written.
func screen(text string) string {
	var line []rune
	at := 0
	for _, r := range text {
		switch {
		case r == '\r':
			at = 0
			continue
		case at < len(line):
			line[at] = r
		default:
			line = append(line, r)
		}
		at++
	}
	return strings.TrimRight(string(line), " ")
}

func TestAMeterDrawsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		var width atomic.Int64
		width.Store(80)
		m := newMeter(&out, "sending", "evil\x1b[2J\n", func() int { return int(width.Load()) })
		step := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			if got := screen(out.String()); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if text := out.String(); strings.ContainsAny(text, "\n\x1b") {
				t.Errorf("the terminal gets %q", text)
			}
			out.Reset()
		}
		step(time.Second, "")
		m.Set(0, 1000)
		step(0, `waiting evil\x1b[2J\n [....................]   0%      0 B/s -:--`)
		step(time.Hour, `waiting evil\x1b[2J\n [....................]   0%      0 B/s -:--`)
		m.Set(200, 1000) // the rate counts from here
		step(time.Second, `sending evil\x1b[2J\n [####................]  20%      0 B/s -:--`)
		m.Set(500, 1000)
		step(time.Second, `sending evil\x1b[2J\n [##########..........]  50%    150 B/s 0:03`)
		width.Store(40)
		step(time.Second, screen(m.p.lineAfter(3*time.Second, 39)))
		m.Set(1000, 1000)
		step(0, screen(m.p.lineAfter(3*time.Second, 39)))
		m.Stop()
		step(0, "")
		m.Set(1, 1000)
		m.Stop()
		step(time.Hour, "")

		m = newMeter(&out, "sending", "x", func() int { return 80 })
		m.Done() // nothing was drawn: nothing is left
		m.Set(0, 1000)
		time.Sleep(time.Second / 5)
		m.Done()
		if got, want := out.String(), "sending x [####################] 100%   5.0 kB/s 0:00\n"; !strings.HasSuffix(got, want) {
			t.Errorf("got %q, want it to end in %q", got, want)
		}
		out.Reset()
		m.Set(1, 1000)
		m.Stop()
		step(time.Hour, "")
	})
}

// lineAfter is the line after a time.
func (p Progress) lineAfter(d time.Duration, width int) string {
	p.Spent = d
	return p.Line(width)
}

func TestWithoutATerminalThereIsNoMeter(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	for _, m := range []*Meter{NewMeter(f, "sending", "x"), NewMeter(&out, "sending", "x")} {
		if m != nil {
			t.Error("there is one")
		}
		m.Set(1, 2)
		m.Done()
		m.Stop()
	}
	if info, err := f.Stat(); err != nil || info.Size() != 0 || out.Len() != 0 {
		t.Errorf("something was written: %v, %q", err, out.String())
	}
}
