package wire

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// dribble is how something is written: in pieces, with pauses between them.
type dribble struct {
	piece int
	pause time.Duration
}

func TestABigFrameThatHasBegunMustGoOn(t *testing.T) {
	const window = 10 * time.Second
	big := strings.Repeat("x", 1<<20)
	// What a frame of 1 MiB has to bring in a window.
	least := int(window.Seconds()) * paceBytes
	tests := []struct {
		name   string
		frame  string // its header and data
		data   string
		stop   int // bytes of the frame after which nothing comes; 0: all comes
		steady dribble
		busy   time.Duration // what the reader does before each read
		want   error
	}{
		{name: "all at once", data: big},
		{name: "steady", data: big, steady: dribble{2 * least, window / 2}},
		{name: "too slow", data: big, steady: dribble{least / 4, window / 2}, want: ErrSlow},
		{name: "a byte now and then", data: big, stop: 300_000, steady: dribble{100_000, time.Second}, want: ErrSlow},
		{name: "begun only", data: big, stop: 10, want: ErrSlow},
		{name: "nearly done", data: big, stop: 1 << 20, want: ErrSlow},
		{name: "streamed, and the reader takes its time", frame: "file", data: big, busy: window},
		{name: "small and late", data: "x", steady: dribble{10, 10 * window}},
		{name: "stepped over, too slow", frame: "over", data: strings.Repeat("x", 5<<20), stop: 2 << 20, want: ErrSlow},
		{name: "stepped over", frame: "over", data: strings.Repeat("x", 5<<20)},
		{name: "streamed, too slow", frame: "file", data: big, stop: 500_000, want: ErrSlow},
		{name: "streamed, a long one over a slow link", frame: "file", data: strings.Repeat("x", 8<<20), steady: dribble{least, window / 2}},
		{name: "stepped over, a long one over a slow link", frame: "over", data: strings.Repeat("x", 8<<20), steady: dribble{least, window / 2}},
		{name: "a long one in memory, too slow", data: strings.Repeat("x", 3<<20), steady: dribble{least / 2, window / 2}, want: ErrSlow},
		{name: "streamed", frame: "file", data: big, steady: dribble{2 * least, window / 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				var writer sync.WaitGroup
				defer writer.Wait() // in a bubble time ends with the test
				defer here.Close()
				header, data, bin := `{"tag": "x"}`, test.data, ""
				if test.frame == "file" {
					header, data, bin = `{"with_file": {"a": 1}, "with_binary": true}`, "", test.data
				}
				b := mustFrame(t, header, data, bin)
				if test.stop > 0 {
					b = b[:test.stop]
				}
				writer.Go(func() {
					for len(b) > 0 {
						n := len(b)
						if test.steady.piece > 0 {
							n = min(n, test.steady.piece)
						}
						if _, err := there.Write(b[:n]); err != nil {
							return
						}
						b = b[n:]
						time.Sleep(test.steady.pause)
					}
					if test.want == nil {
						time.Sleep(100 * window) // between frames there may be any time
						there.Close()
					}
				})
				r := NewReader(here, 4<<20)
				r.Skip()
				r.Stream(64<<10, 1<<30)
				r.Pace(window, here.SetReadDeadline)
				var f Frame
				err := r.Next(&f)
				if err == nil && f.Body != nil {
					for part := make([]byte, 30_000); err == nil; _, err = f.Body.Read(part) {
						time.Sleep(test.busy)
					}
					if err == io.EOF {
						err = nil
					}
				}
				if err == nil && f.TooBig > 0 || err == nil && test.want == nil {
					if err = r.Next(&f); err == io.EOF {
						err = nil
					}
				}
				if !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
		})
	}
}

// A deadline that somebody else sets still ends the reading.
func TestADeadlineOfOthersIsTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var writer sync.WaitGroup
		defer writer.Wait()
		defer here.Close()
		r := NewReader(here, 4<<20)
		r.Pace(time.Minute, func(time.Time) error { return nil }) // the link is ending
		writer.Go(func() { _, _ = there.Write(mustFrame(t, `{"tag": "x"}`, strings.Repeat("x", 1<<20), "")[:1000]) })
		if err := here.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		var f Frame
		if err := r.Next(&f); err == nil || errors.Is(err, ErrSlow) {
			t.Errorf("got %v, want the deadline's", err)
		}
	})
}
