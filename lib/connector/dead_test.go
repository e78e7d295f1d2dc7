package connector

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/wire"
)

// persistent makes all that arrives durable.
func persistent(cfg *config.Config) { cfg.PersistRecv = config.Types{All: true} }

// result calls a command and decodes its result.
func result[T any](t testing.TB, n *node, name, kwargs string) (v T, err error) {
	t.Helper()
	reply, err := n.commands.Call(within(t), name, []byte(kwargs))
	if err != nil {
		return v, err
	}
	text, err := json.Marshal(reply)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v, nil
}

// judge receives messages and ends each as verdict says.
func (n *node) judge(t testing.TB, verdict func(tries string, data string) error) *sink {
	t.Helper()
	var in *sink
	ready := make(chan struct{})
	in = n.receive(t, api.ReceiveOptions{Manual: true, Window: 1, Frame: func(number uint64, f *wire.Frame) error {
		<-ready
		in.r.Done(number, verdict(string(f.Header.Field("tries")), string(f.Data)))
		return nil
	}})
	close(ready)
	return in
}

func TestDeadLettersAreKeptAndCanBeRetried(t *testing.T) {
	s := server(t, types("job", "a%"), persistent)
	c := s.client(t, "c1", types("job", "a%"))
	c.send(t, "job", "", "good", "bad", "worse")
	c.send(t, "a%", "", "bad too")
	in := s.judge(t, func(_, data string) error {
		if data == "good" {
			return nil
		}
		return api.Dead(3, "it cannot be: "+data)
	})
	in.wait(t, 4)
	var list []letter
	eventually(t, "three are dead", func() bool {
		var err error
		list, err = result[[]letter](t, s, "dead_list", "{}")
		return err == nil && len(list) == 3
	})
	in.stop()
	if l := list[1]; l.ID != "1:job" || l.Source != "c1" || l.Tries != 3 || l.Error != "it cannot be: bad" || l.Size != 3 || time.Since(l.Time) > time.Hour || l.Whole != nil {
		t.Errorf("got %+v", l)
	}
	if got, want := fmt.Sprint(s.stats().DeadLetters), "map[a%:1 job:2]"; got != want {
		t.Errorf("counted %s, want %s", got, want)
	}
	s.halt(t)

	// A list has the start of a long reason only.
	for _, tt := range [][2]string{
		{"short", "short"}, {"a\nb", "a ..."}, {"", ""},
		{strings.Repeat("\u00e9", 300), strings.Repeat("\u00e9", 200) + " ..."},
	} {
		if got := firstWords(tt[0]); got != tt[1] {
			t.Errorf("first words of %.20q: got %.20q, want %.20q", tt[0], got, tt[1])
		}
	}

	// They outlive the connector.
	next := run(t, s.cfg, nil)
	if got, want := fmt.Sprint(next.stats().DeadLetters), "map[a%:1 job:2]"; got != want {
		t.Errorf("after a start: counted %s, want %s", got, want)
	}
	shown, err := result[letter](t, next, "dead_show", `{"id": "2:job"}`)
	if err != nil || !strings.Contains(string(shown.Whole), `"worse"`) || shown.Error != "it cannot be: worse" {
		t.Errorf("got %+v, %v", shown, err)
	}
	for _, wrong := range []string{`{"id": "7:job"}`, `{"id": "1:nosuch"}`, `{"id": "job"}`, `{"id": "x:job"}`, `{"id": ":"}`, `{}`, `{"id": "1:../job"}`} {
		for _, name := range []string{"dead_show", "dead_retry", "dead_drop"} {
			if wrong == "{}" && name != "dead_show" {
				continue
			}
			_, err := result[any](t, next, name, wrong)
			// It is no mistake to ask for one that there is not.
			none := regexp.MustCompile(`"[0-9]+:[^"]`).MatchString(wrong)
			if err == nil || none == errors.Is(err, control.ErrArgument) || none != strings.HasPrefix(err.Error(), "no dead letter ") {
				t.Errorf("%s %s: got %v", name, wrong, err)
			}
		}
	}
	if n, err := result[int](t, next, "dead_retry", `{"id": "1:job"}`); n != 1 || err != nil {
		t.Errorf("retry: got %d, %v", n, err)
	}
	if got := data(next.receive(t, api.ReceiveOptions{Types: []string{"job"}}).wait(t, 1)); got[0] != "bad" {
		t.Errorf("got %q, want bad", got)
	}
	if n, err := result[int](t, next, "dead_drop", `{"message_type": "job"}`); n != 1 || err != nil {
		t.Errorf("drop: got %d, %v", n, err)
	}
	if n, err := result[int](t, next, "dead_retry", `{}`); n != 1 || err != nil {
		t.Errorf("retry all: got %d, %v", n, err)
	}
	if list, err := result[[]letter](t, next, "dead_list", "{}"); len(list) != 0 || err != nil {
		t.Errorf("got %+v, %v, want none", list, err)
	}
	if got := next.stats().DeadLetters; len(got) > 0 {
		t.Errorf("counted %v, want none", got)
	}
}

func TestTriesAreCountedAcrossRestarts(t *testing.T) {
	s := server(t, persistent)
	c := s.client(t, "c1")
	c.send(t, "any", "", "hard", "easy")
	var order []string
	in := s.judge(t, func(tries, data string) error {
		order = append(order, data+" "+tries)
		switch {
		case data == "easy":
			return nil
		case tries == "2":
			return api.Later(3, time.Hour, "no")
		}
		return api.Later(len(tries)+1, time.Millisecond, "no")
	})
	in.wait(t, 4)
	in.stop()
	<-in.done
	// What waits to be tried again holds up nothing else.
	slices.Sort(order)
	if want := []string{"easy ", "hard ", "hard 1", "hard 2"}; !slices.Equal(order, want) {
		t.Errorf("got %q, want %q", order, want)
	}
	eventually(t, "it waits", func() bool { s := s.inbox["any"].Stats(); return s.Waiting == 1 && s.InHand == 0 })
	s.halt(t)
	next := run(t, s.cfg, nil)
	got := next.receive(t, api.ReceiveOptions{}).wait(t, 1)
	if !strings.Contains(got[0].header, `"tries": 3`) || got[0].data != "hard" {
		t.Errorf("got %+v", got[0])
	}
}

func TestWhatIsPutOffComesInTime(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1")
	c.send(t, "any", "", numbers(0, 50)...)
	failures := map[string]int{}
	in := s.judge(t, func(tries, data string) error {
		if n := failures[data]; n < 3 && data != "7" {
			failures[data]++
			if want := fmt.Sprint(n); tries != want && !(n == 0 && tries == "") {
				t.Errorf("%s: got tries %q, want %q", data, tries, want)
			}
			return api.Later(n+1, time.Duration(n+1)*time.Millisecond, "not yet")
		}
		return nil
	})
	in.wait(t, 49*4+1)
	eventually(t, "all are done", func() bool { return s.inbox["any"].Len() == 0 })
}
