//go:build interop

package regress

import (
	"fmt"
	"testing"
)

// testKill kills a connector of either kind at either side as a power cut
// would, and starts it again: everybody else goes on by himself.
func testKill(t *testing.T, py python) {
	var tests []subtest
	everyPair(t, py, func(name, mode, server, client string) {
		if server == theirs && client == theirs {
			return
		}
		for _, victim := range []string{"server", "client"} {
			tests = append(tests, subtest{name + "/victim=" + victim, func(t *testing.T) {
				types := []string{"gg", "pp"}
				p := newPair(t, py, server, client, mode, types, 0, nil)
				p.start(t)
				var routes []route
				var boxes []*inbox
				for _, kind := range []string{ours, theirs} {
					s, c := newTools(t, kind, p.server), newTools(t, kind, p.client)
					routes = append(routes,
						route{kind + " tools to the server", p.client, p.server, c, s},
						route{kind + " tools to the client", p.server, p.client, s, c})
				}
				typ := func(r route) string { return r.src.kind()[:1] + r.dst.kind()[:1] }
				for _, r := range routes {
					boxes = append(boxes, r.dst.receive(t, typ(r), false))
				}
				arrives := func(word string, may ...string) {
					t.Helper()
					bothWays(t, routes, func(i int, r route) error {
						if err := r.src.send(typ(r), sample{data: word, text: true}); err != nil {
							return err
						}
						return awaitWord(boxes[i], word, may...)
					})
				}
				arrives("before")

				h := p.client
				if victim == "server" {
					h = p.server
				}
				h.daemon.kill()
				h.start(t)
				p.awaitLink(t)
				for _, r := range routes {
					if err := r.src.reconnects(); err != nil {
						t.Fatal(err)
					}
				}
				// What was delivered but not acknowledged comes again.
				arrives("after", "before")
				arrives("again")
			}})
		}
	})
	// They wait most of the time.
	together(t, 4, tests)
}

// awaitWord waits for a message with a word as its data; only messages with
// the words of may are passed over.
func awaitWord(box *inbox, word string, may ...string) error {
	for {
		got, err := box.take(1)
		if err != nil {
			return fmt.Errorf("waiting for %q: %w", word, err)
		}
		text := string(got[0].data)
		if text == word {
			return nil
		}
		known := false
		for _, m := range may {
			known = known || text == m
		}
		if !known {
			return fmt.Errorf("%q arrived, want %q", text, word)
		}
	}
}
