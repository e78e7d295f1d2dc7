package chat

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"aioc/lib/link"
	"aioc/lib/wire"
)

// takeAll takes up to count frames and returns them.
func takeAll(o *outbox, count int) (frames []string) {
	for range count {
		var b wire.Batch
		if o.Take(&b, 1<<20, 1) == 0 {
			break
		}
		frames = append(frames, string(b.Spans[0]))
	}
	return frames
}

func TestTextsGoBeforeFiles(t *testing.T) {
	woken := 0
	o := newOutbox(func() { woken++ })
	done := []string{}
	put := func(text string, low bool) {
		it := item{frame: []byte(text), done: func(err error) {
			if err != nil {
				text += " " + err.Error()
			}
			done = append(done, text)
		}}
		if !low {
			o.put(it)
		} else if err := o.putLow(t.Context(), it); err != nil {
			t.Error(err)
		}
	}
	put("f1", true)
	put("f2", true)
	put("t1", false)
	put("t2", false)
	if got := takeAll(o, 3); !slices.Equal(got, []string{"t1", "t2", "f1"}) {
		t.Errorf("got %q", got)
	}
	put("t3", false)
	if got := takeAll(o, 3); !slices.Equal(got, []string{"t3", "f2"}) {
		t.Errorf("then %q", got)
	}
	if woken != 5 {
		t.Errorf("woken %d times, want 5", woken)
	}
	if got := o.waiting(); got != 5 {
		t.Errorf("%d wait, want 5", got)
	}
	if n := o.Done(2, true); n != 2 {
		t.Errorf("Done(2): %d", n)
	}
	if !o.DoneOne(4, &link.Refusal{Text: "no"}) || o.DoneOne(4, nil) || o.DoneOne(1, nil) || o.DoneOne(9, nil) {
		t.Error("DoneOne is wrong")
	}
	if n := o.Done(4, true); n != 1 {
		t.Errorf("Done(4): %d, one of the two was done", n)
	}
	put("t4", false)
	o.Close()
	put("t5", false)
	want := []string{"t1", "t2", "t3 no", "f1", "f2 " + errGone.Error(), "t4 " + errGone.Error(), "t5 " + errGone.Error()}
	if !slices.Equal(done, want) {
		t.Errorf("\n got %q\nwant %q", done, want)
	}
	if err := o.putLow(t.Context(), item{frame: []byte("x")}); !errors.Is(err, errGone) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAFileWaitsForTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(func() {})
		owner := new(int)
		sent := 0
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			piece := []byte(strings.Repeat("x", lowBytes/4))
			for {
				if err := o.putLow(ctx, item{frame: piece, owner: owner}); err != nil {
					over <- err
					return
				}
				sent++
			}
		}()
		synctest.Wait()
		if sent != 4 {
			t.Errorf("%d pieces wait, want 4", sent)
		}
		takeAll(o, 2)
		synctest.Wait()
		if sent != 6 {
			t.Errorf("%d pieces, want 6", sent)
		}
		cancel()
		if err := <-over; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		o.drop(owner)
		if got := takeAll(o, 9); len(got) != 0 {
			t.Errorf("%d pieces after they were dropped", len(got))
		}
		idle := make(chan error, 1)
		go func() { idle <- o.waitIdle(t.Context()) }()
		synctest.Wait()
		select {
		case err := <-idle:
			t.Errorf("idle with two frames on their way: %v", err)
		default:
		}
		o.Done(2, true)
		if err := <-idle; err != nil {
			t.Error(err)
		}
		o.put(item{frame: []byte("x")})
		go func() { idle <- o.waitIdle(t.Context()) }()
		synctest.Wait()
		o.Close()
		if err := <-idle; !errors.Is(err, errGone) {
			t.Errorf("the link ended first: got %v, want %v", err, errGone)
		}
	})
}
