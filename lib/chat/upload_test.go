package chat

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestHowMuchOfAFileIsOnItsWay(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name       string
		spent      time.Duration
		done, sent int64
		want       int64 // 0 waits
	}{
		{"the first piece", 0, 0, 0, pieceMin},
		{"enough for a line that is not known yet", time.Second, 0, windowMin, 0},
		{"a slow line", time.Minute, 60_000, 60_000, pieceMin},
		{"a slow line that has enough", time.Minute, 60_000, 60_000 + windowMin, 0},
		{"a faster one", 10 * time.Second, 1_000_000, 1_100_000, 200_000 / 4},
		{"a faster one that has enough", 10 * time.Second, 1_000_000, 1_210_000, 0},
		{"a network", time.Second, 100_000_000, 101_000_000, pieceSize},
	} {
		u := &upload{ctx: over, result: make(chan error, 1), moved: make(chan struct{})}
		tr := newTransfer("a", 1<<30, true)
		tr.began = time.Now().Add(-test.spent)
		tr.done.Store(test.done)
		got, err := u.room(tr, test.sent)
		if test.want == 0 {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %d, %v, want it to wait", test.name, got, err)
			}
			continue
		}
		// The clock goes on meanwhile.
		if err != nil || got > test.want || got < test.want/2 {
			t.Errorf("%s: got %d, %v, want about %d", test.name, got, err, test.want)
		}
	}

	u := &upload{ctx: t.Context(), result: make(chan error, 1), moved: make(chan struct{})}
	u.result <- nil
	if _, err := u.room(newTransfer("a", 1, true), 0); err == nil {
		t.Error("an end that has stored what has not come is believed")
	}
	u.result <- errGiven
	if _, err := u.room(newTransfer("a", 1<<20, true), windowMin); !errors.Is(err, errGiven) {
		t.Errorf("got %v, want %v", err, errGiven)
	}
}
