//go:build interop

package regress

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// another adds a client to a pair, with the configuration of the first but for
// its name, its directory and what more says.
func (p pair) another(t *testing.T, kind, name string, more settings) *host {
	t.Helper()
	text, err := os.ReadFile(p.client.config)
	if err != nil {
		t.Fatal(err)
	}
	var keys settings
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	h := *p.client
	h.kind, h.id, h.daemon = kind, name, nil
	h.socket = strings.ReplaceAll(name, "-", "")
	h.dir = filepath.Join(filepath.Dir(p.client.dir), name)
	h.config = filepath.Join(h.dir, "config.json")
	keys["client_name"] = name
	keys["connector_files_dirpath"], keys["default_logger_dirpath"] = h.dir, h.dir
	maps.Copy(keys, more)
	if text, err = json.MarshalIndent(keys, "", "    "); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return &h
}

// publish publishes texts from a client of either kind.
func publish(t *testing.T, from *host, d *driver, topic string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		var err error
		if d != nil {
			_, err = d.do(op{"op": "publish", "type": topic, "text": text, "tag": "tag1"})
		} else {
			_, err = (&goTools{host: from, bin: binaries(t)}).run([]byte(text), "-publish", "-type", topic, "-raw", "-tag", "tag1")
		}
		if err != nil {
			t.Fatalf("publish: %v", err)
		}
	}
}

// testPublish has a broker, publishers and subscribers of both kinds: everybody
// gets everything once, also after coming back.
func testPublish(t *testing.T, py python) {
	for _, kind := range []string{ours, theirs} {
		t.Run("broker="+kind, func(t *testing.T) {
			topics := []string{"news", "weather"}
			p := newPair(t, py, kind, ours, "off", topics, 0, nil)
			rewrite(t, p.server, settings{"pubsub_central_broker": true})
			var subscribers []*host
			for i, k := range []string{ours, theirs, ours, theirs} {
				more := settings{"subscribe_message_types": topics[:1]}
				if i > 1 {
					more["subscribe_message_types"] = topics
				}
				subscribers = append(subscribers, p.another(t, k, fmt.Sprintf("sub-%d", i), more))
			}
			publishers := []*host{p.client, p.another(t, theirs, "pub-2", nil)}
			p.server.start(t)
			all := append(slices.Clone(subscribers), publishers...)
			var names []string
			for _, h := range all {
				h.start(t)
				names = append(names, h.id)
			}
			p.server.awaitPeers(t, names...)
			var boxes []map[string]*inbox
			for _, h := range subscribers {
				tools := newTools(t, h.kind, h)
				boxes = append(boxes, map[string]*inbox{"news": tools.receive(t, "news", false), "weather": tools.receive(t, "weather", false)})
			}
			driver := newDriver(t, publishers[1])
			round := func(word string) {
				for i, h := range publishers {
					d := driver
					if i == 0 {
						d = nil
					}
					var texts []string
					for k := range 20 {
						texts = append(texts, fmt.Sprint(word, " ", h.id, " ", k))
					}
					publish(t, h, d, "news", texts...)
					publish(t, h, d, "weather", word+" of "+h.id)
				}
				for i, h := range subscribers {
					want := map[string]int{"news": 40, "weather": 0}
					if i > 1 {
						want["weather"] = 2
					}
					for topic, n := range want {
						got, err := boxes[i][topic].take(n)
						if err != nil {
							t.Fatalf("%s %s, %s: got %d publications of %d: %v", h.kind, h.id, topic, len(got), n, err)
						}
						seen := map[string]bool{}
						for _, m := range got {
							if seen[string(m.data)] || !strings.HasPrefix(string(m.data), word) || m.fields["tag"] != `"tag1"` || m.fields["message_type"] != quote(topic) {
								t.Errorf("%s %s: got %s, %v", h.kind, h.id, m.data, m.fields)
							}
							seen[string(m.data)] = true
						}
					}
				}
			}
			awaitSubscriptions(t, subscribers, publishers, driver, boxes)
			round("first")
			// A client of ours that comes back is served once by both brokers.
			for _, h := range subscribers[2:3] {
				h.daemon.kill()
				p.server.awaitPeers(t, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == h.id })...)
				h.start(t)
			}
			p.server.awaitPeers(t, names...)
			// Its receivers are those from before: they wait for their connector.
			awaitSubscriptions(t, subscribers, publishers, driver, boxes)
			round("second")
			for i, h := range subscribers {
				for topic, box := range boxes[i] {
					if more := box.rest(); len(more) > 0 {
						t.Errorf("%s %s, %s: got %d publications more: %s", h.kind, h.id, topic, len(more), more[0].data)
					}
				}
			}
		})
	}
}

// awaitSubscriptions publishes until every subscriber has got one of each
// topic, so that all subscriptions are known, and waits until all those have
// come to an end.
func awaitSubscriptions(t *testing.T, subscribers, publishers []*host, d *driver, boxes []map[string]*inbox) {
	t.Helper()
	for k := 0; ; k++ {
		text := fmt.Sprint("try ", k)
		publish(t, publishers[1], d, "weather", text)
		publish(t, publishers[1], d, "news", text)
		all := true
		for i := range subscribers {
			if !boxes[i]["news"].until(text) || i > 1 && !boxes[i]["weather"].until(text) {
				all = false
			}
		}
		if all {
			return
		}
		if k > 20 {
			t.Fatal("the subscriptions do not become known")
		}
	}
}

// rewrite changes keys of a host's configuration.
func rewrite(t *testing.T, h *host, more settings) {
	t.Helper()
	text, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	var keys settings
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	maps.Copy(keys, more)
	if text, err = json.MarshalIndent(keys, "", "    "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// until removes what has arrived up to the message with the given data, and
// reports whether that came.
func (b *inbox) until(text string) bool {
	deadline := time.NewTimer(time.Second)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		for i, m := range b.messages {
			if string(m.data) == text {
				b.messages = b.messages[i+1:]
				b.mu.Unlock()
				return true
			}
		}
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-deadline.C:
			return false
		}
	}
}
