package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"aioc/lib/wire"
)

func TestSubscriptionsAreASet(t *testing.T) {
	var table Table
	for _, test := range []struct {
		name, client, data string
		changed            bool
		a, b               []string
	}{
		{"first", "c1", `{"subscribe_message_types": ["a"]}`, true, []string{"c1"}, nil},
		{"once more", "c1", `{"subscribe_message_types": ["a"]}`, false, []string{"c1"}, nil},
		{"twice in one list", "c2", `{"subscribe_message_types": ["b", "b"]}`, true, []string{"c1"}, []string{"c2"}},
		{"another", "c2", `{"subscribe_message_types": ["a"]}`, true, []string{"c1", "c2"}, []string{"c2"}},
		{"both lists: unsubscribe is applied last", "c1", `{"subscribe_message_types": ["a", "b"], "unsubscribe_message_types": ["a"]}`, true, []string{"c2"}, []string{"c2", "c1"}},
		{"what was not there", "c3", `{"unsubscribe_message_types": ["a", "x"]}`, false, []string{"c2"}, []string{"c2", "c1"}},
		{"only", "c2", `{"subscribe_message_types": ["a"], "only": true}`, true, []string{"c2"}, []string{"c1"}},
		{"only nothing", "c2", `{"only": true}`, true, nil, []string{"c1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseChange([]byte(test.data))
			if err != nil {
				t.Fatal(err)
			}
			version := table.Version()
			changed, err := table.Apply(test.client, c)
			if err != nil || changed != test.changed {
				t.Errorf("got changed %v, %v; want %v", changed, err, test.changed)
			}
			if got := table.Version() != version; got != test.changed {
				t.Errorf("version changed: %v, want %v", got, test.changed)
			}
			if a, b := table.Subscribers("a"), table.Subscribers("b"); !slices.Equal(a, test.a) || !slices.Equal(b, test.b) {
				t.Errorf("got %v and %v, want %v and %v", a, b, test.a, test.b)
			}
		})
	}
}

func TestWrongChangesChangeNothing(t *testing.T) {
	var many []string
	for i := range MaxTopics + 1 {
		many = append(many, fmt.Sprint("t", i))
	}
	for _, data := range []string{"", "[]", "{}", `"x"`, `{"subscribe_message_types": "a"}`, `{"subscribe_message_types": [1]}`,
		`{"subscribe_message_types": ["a", ""]}`, `{"subscribe_message_types": ["a", "_ack"]}`, `{"subscribe_message_types": ["a", "x/../y"]}`,
		string(Change{Subscribe: many}.Data())} {
		var table Table
		c, err := ParseChange([]byte(data))
		if err == nil {
			_, err = table.Apply("c1", c)
		}
		if err == nil || table.Version() != 0 || table.Subscribers("a") != nil {
			t.Errorf("%.60s: got %v, subscribers %v", data, err, table.Subscribers("a"))
		}
	}
	var table Table
	if _, err := table.Apply("c1", Change{Subscribe: many}); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v, want ErrTooMany", err)
	}
}

func TestDurableSubscriptionsOutliveClientAndBroker(t *testing.T) {
	durable := func(topic string) bool { return strings.HasPrefix(topic, "d") }
	var table Table
	apply(t, &table, "c1", "d1", "m")
	apply(t, &table, "c2", "m")
	apply(t, &table, "c3", "d1", "d2")
	table.Keep("c1", durable)
	table.Keep("c2", durable)
	if got := table.Topics("c1"); !slices.Equal(got, []string{"d1"}) {
		t.Errorf("got %v, want d1", got)
	}
	if got := table.Subscribers("m"); got != nil {
		t.Errorf("got %v, want nobody", got)
	}
	apply(t, &table, "c3", "m")
	text, err := table.Append(nil, durable)
	if err != nil {
		t.Fatal(err)
	}
	var next Table
	if err := next.Load(text); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(next.All()), "map[c1:[d1] c3:[d1 d2]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := next.Load([]byte(`{"../x": ["a"], "c9": ["_ack"], "c8": ["a"]}`)); err == nil || len(next.Topics("c8")) != 1 || next.Topics("c9") != nil {
		t.Errorf("damaged: got %v, %v", err, next.All())
	}
	if err := next.Load([]byte(`{"c1"`)); err == nil {
		t.Error("half a file: no error")
	}
}

func TestAListInUseDoesNotChange(t *testing.T) {
	var table Table
	for i := range 10 {
		apply(t, &table, fmt.Sprint("c", i), "a")
	}
	before := table.Subscribers("a")
	want := slices.Clone(before)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				name := fmt.Sprint("n", i, "-", j)
				_, _ = table.Apply(name, Change{Subscribe: []string{"a"}})
				if j%3 == 0 {
					table.Keep(name, func(string) bool { return false })
				}
				table.Keep(fmt.Sprint("c", i), func(string) bool { return false })
			}
		})
	}
	for range 1000 {
		if !slices.Equal(before, want) {
			t.Fatalf("got %v, want %v", before, want)
		}
	}
	all.Wait()
	if got, want := len(table.Subscribers("a")), 2+8*66; got != want {
		t.Errorf("got %d subscribers, want %d", got, want)
	}
}

func TestAPublicationBecomesAMessage(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"all fields of the original", `{"message_type": "_pubsub", "source_id": "pub1", "destination_id": "('127.0.0.1', 20022)", "request_id": 3, "wait_for_ack": true, "message_type_publish": "type1", "tag": "tag1", "transport_id": 1}`,
			`{"message_type": "type1", "source_id": "broker", "request_id": 3, "wait_for_ack": true, "tag": "tag1"}`},
		{"unknown keys stay", `{"message_type": "_pubsub", "source_id": "raw1", "message_type_publish": "type1", "x_unknown": 1}`,
			`{"message_type": "type1", "source_id": "broker", "x_unknown": 1}`},
		{"response_id goes", `{"message_type": "_pubsub", "source_id": "p", "message_type_publish": "a b", "response_id": 0}`,
			`{"message_type": "a b", "source_id": "broker"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			frame, err := wire.AppendFrame(nil, []byte(test.in), []byte("data"), nil)
			if err != nil {
				t.Fatal(err)
			}
			f, err := wire.ParseFrame(frame)
			if err != nil {
				t.Fatal(err)
			}
			topic, err := Topic(f.Header)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(AppendHeader(nil, f.Header, topic, "broker")); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
	for _, topic := range []string{`""`, `"_ack"`, `"a/b"`, `"_pubsub"`} {
		frame, err := wire.AppendFrame(nil, []byte(`{"message_type": "_pubsub", "message_type_publish": `+topic+`}`), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := wire.ParseFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Topic(f.Header); err == nil {
			t.Errorf("topic %s: got %q, want an error", topic, got)
		}
	}
}

func apply(t *testing.T, table *Table, client string, topics ...string) {
	t.Helper()
	if _, err := table.Apply(client, Change{Subscribe: topics}); err != nil {
		t.Fatal(err)
	}
}
