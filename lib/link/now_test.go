package link

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"aioc/lib/wire"
)

// Messages that come one by one are written as they come, by whoever wakes the
// link, as far as the socket takes them: in order, whatever it takes.
func TestMessagesThatComeOneByOneKeepTheirOrder(t *testing.T) {
	for _, size := range []int{10, 3000, 20000, 300000} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			a, b := pair(t)
			if err := a.SetWriteBuffer(4608); err != nil {
				t.Fatal(err)
			}
			s := newSource()
			s.frame = func(typ string, seq int) []byte {
				return mustFrame(t, `{"message_type": "`+typ+`"}`, fmt.Sprintf("%d %s", seq, strings.Repeat("x", size)))
			}
			e := run(t, a, Options{Announced: true, Source: s})
			count := min(200, 6<<20/(size+100)) // all within the window
			var all sync.WaitGroup
			var got []string
			all.Go(func() {
				r := wire.NewReader(b, wire.MaxFrame)
				for len(got) < count {
					var f wire.Frame
					if err := r.Next(&f); err != nil {
						t.Error(err)
						return
					}
					if string(f.Header.Type) != "a" {
						continue
					}
					seq, _, _ := strings.Cut(string(f.Data), " ")
					got = append(got, seq)
				}
				if _, err := b.Write(mustFrame(t, fmt.Sprintf(`{"ackto": %d, "message_type": "_ack"}`, count), "")); err != nil {
					t.Error(err)
				}
			})
			var want []string
			for i := range count {
				s.put("a")
				if i%3 == 0 {
					if err := e.Send([]wire.Edit{{Key: "message_type", Value: []byte(`"_empty"`)}}, nil, nil); err != nil {
						t.Error(err)
					}
				}
				want = append(want, fmt.Sprint(i))
			}
			all.Wait()
			if !slices.Equal(got, want) {
				t.Errorf("got %v", got)
			}
			s.until(t, "all are acknowledged", func() bool { return len(s.done) == count })
		})
	}
}

// What does not go out, because nobody reads it, is not finished by writing.
func TestWhatTheSocketDoesNotTakeIsGivenBack(t *testing.T) {
	a, b := pair(t)
	if err := a.SetWriteBuffer(4608); err != nil {
		t.Fatal(err)
	}
	s := newSource()
	s.frame = func(typ string, seq int) []byte {
		return mustFrame(t, `{"message_type": "`+typ+`"}`, strings.Repeat("x", 2000))
	}
	s.takeMax = 5
	e := run(t, a, Options{Source: s}) // to a plain end
	for range 100 {
		s.put("a")
	}
	first := make([]byte, 50000)
	if _, err := io.ReadFull(b, first); err != nil {
		t.Fatal(err)
	}
	s.until(t, "some are written", func() bool { return len(s.done) > 0 })
	e.Close(nil)
	<-e.result
	data, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	arrived := 0
	for r := wire.NewReader(bytes.NewReader(append(first, data...)), wire.MaxFrame); r.Next(&wire.Frame{}) == nil; {
		arrived++
	}
	if len(s.done) > arrived {
		t.Errorf("%d count as taken, and only %d arrived", len(s.done), arrived)
	}
	if len(s.done)+len(s.items) != 100 {
		t.Errorf("%d taken, %d given back, of 100", len(s.done), len(s.items))
	}
}

// A source that wakes the link while it is told something, or gives frames, or
// is closed, gets no answer while it holds its lock, and does not stop the link.
type echoing struct {
	*source
	l *Link
}

func (s *echoing) Take(b *wire.Batch, max, count int) int {
	defer s.l.Wake()
	return s.source.Take(b, max, count)
}

func (s *echoing) Done(n uint64, acked bool) int {
	defer s.l.Wake()
	return s.source.Done(n, acked)
}

func (s *echoing) DoneOne(n uint64, err error) bool {
	defer s.l.Wake()
	return s.source.DoneOne(n, err)
}

func (s *echoing) Return(n uint64, park bool, why *Refusal) string {
	defer s.l.Wake()
	return s.source.Return(n, park, why)
}

func (s *echoing) Close() {
	defer s.l.Wake()
	s.source.Close()
}

func TestASourceMayWakeTheLinkAtAnyTime(t *testing.T) {
	a, b := pair(t)
	s := newSource()
	es := &echoing{source: s}
	l := New(a, wire.NewReader(a, wire.MaxFrame), Options{ID: "near", Announced: true, Handler: &sink{}})
	es.l, s.wake = l, l.Wake
	l.SetSource(es)
	over := make(chan error, 1)
	go func() { over <- l.Run(t.Context()) }()
	s.put("a", "b", "c", "d")
	r := wire.NewReader(b, wire.MaxFrame)
	for range 4 { // before they are here nobody can answer them
		var f wire.Frame
		if err := r.Next(&f); err != nil {
			t.Fatal(err)
		}
	}
	for _, header := range []string{
		`{"transport_id": 1, "message_type": "_nack", "park": true}`,
		`{"transport_id": 3, "message_type": "_ack"}`,
		`{"ackto": 4, "message_type": "_ack"}`,
	} {
		if _, err := b.Write(mustFrame(t, header, "")); err != nil {
			t.Fatal(err)
		}
	}
	s.until(t, "three are done", func() bool { return len(s.done) == 3 })
	if _, err := b.Write(mustFrame(t, `{"message_type": "_resume"}`, "a")); err != nil {
		t.Fatal(err)
	}
	s.until(t, "the one given back is sent", func() bool { return s.taken == 5 })
	b.Close()
	<-over
	check(t, "outcome", s.outcome(), "done 2 1 3; in hand 0; waiting 0")
}

// Messages that are there before the link runs do not overtake the announcement.
func TestTheAnnouncementIsTheFirstFrame(t *testing.T) {
	for range 50 {
		a, b := pair(t)
		s := newSource()
		l := New(a, wire.NewReader(a, wire.MaxFrame), Options{ID: "near", Handler: &sink{}, Source: s, Extensions: both, Dialled: true})
		s.wake = l.Wake
		s.put("a", "b")
		over := make(chan error, 1)
		go func() { over <- l.Run(t.Context()) }()
		s.put("c")
		var f wire.Frame
		if err := wire.NewReader(b, wire.MaxFrame).Next(&f); err != nil {
			t.Fatal(err)
		}
		if got := string(f.Header.Raw) + " "; got != announcement {
			t.Fatalf("the first frame is %s", got)
		}
		l.Close(nil)
		<-over
	}
}
