package spool

import (
	"testing"
	"time"
)

// oldest returns the time of the oldest record that waits, as the log knows it,
// in seconds.
func oldest(l *Log) int64 {
	at := l.Stats().Oldest
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}

// Record n of batch was put at second n.
func TestTheOldestIsOfWhatWaitsAndNotOfWhatHasGone(t *testing.T) {
	tests := []struct {
		name  string
		first []Record
		acks  []Range
		then  []Record
		want  int64
	}{
		{"nothing has gone", batch(1, 3, 10), nil, nil, 1},
		{"all has gone", batch(1, 3, 10), []Range{{1, 3}}, nil, 0},
		{"all has gone, and more came", batch(1, 3, 10), []Range{{1, 3}}, batch(133, 134, 10), 133},
		{"a part has gone", batch(1, 10, 10), []Range{{1, 6}}, batch(20, 20, 10), 7},
		{"nearly all has gone of what came for long", batch(1, 900, 10), []Range{{1, 899}}, batch(1000, 1000, 10), 900},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l, _ := mustOpen(t, dir, Options{})
			mustAppend(t, l, tt.first)
			mustCommit(t, l, tt.first[len(tt.first)-1].Seq)
			if tt.acks != nil {
				mustAck(t, l, tt.acks...)
			}
			if tt.then != nil {
				mustAppend(t, l, tt.then)
				mustCommit(t, l, tt.then[len(tt.then)-1].Seq)
			}
			// It may be a little too early, never too late.
			check := func(when string) {
				t.Helper()
				if got := oldest(l); got > tt.want || got < tt.want-tt.want/pointShare-1 || tt.want == 0 && got != 0 {
					t.Errorf("%s the oldest was put at second %d, want %d", when, got, tt.want)
				}
			}
			check("at first")
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, _ = mustOpen(t, dir, Options{})
			check("opened again")
		})
	}
}

func TestAnIndexOfManyRecordsStaysSmall(t *testing.T) {
	var index []point
	const seconds = 30 * 24 * 3600
	for i := range seconds {
		index = addPoint(index, point{seq: uint64(i) + 1, time: int64(i) * int64(time.Second/time.Millisecond)})
	}
	if got := len(index); got < pointShare || got > 20*pointShare {
		t.Errorf("%d points for a month of one record a second", got)
	}
	if index = addPoint(index, point{seq: seconds + 1, time: 5000}); index[len(index)-1].seq != seconds+1 {
		t.Error("a clock that went back made no point")
	}
}
