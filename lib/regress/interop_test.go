//go:build interop

package regress

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestInterop holds this family and the original against each other, in every
// role and with every kind of Python that is there. It fails when there is no
// Python, or when the original cannot be installed.
func TestInterop(t *testing.T) {
	t.Cleanup(removeTrees)
	for _, py := range pythons(t) {
		t.Run(py.name, func(t *testing.T) {
			t.Run("messages", func(t *testing.T) { testMessages(t, py) })
			// These wait most of the time.
			together(t, 4, []subtest{
				{"commands", func(t *testing.T) { testCommands(t, py) }},
				{"ctl", func(t *testing.T) { testCtl(t, py) }},
				{"programs", func(t *testing.T) { testPrograms(t, py) }},
				{"keep alive", func(t *testing.T) { testKeepAlive(t, py) }},
				{"publish", func(t *testing.T) { testPublish(t, py) }},
				{"kill", func(t *testing.T) { testKill(t, py) }},
				{"identity", func(t *testing.T) { testIdentity(t, py) }},
				{"access", func(t *testing.T) { testAccess(t, py) }},
				{"files", func(t *testing.T) { testFiles(t, py) }},
				{"published files", func(t *testing.T) { testPublishedFiles(t, py) }},
				{"chat", func(t *testing.T) { testChat(t, py) }},
			})
		})
	}
}

// subtest is a test that may run beside others.
type subtest struct {
	name string
	run  func(t *testing.T)
}

// together runs subtests, at most n at a time. The number is not that of
// processors, as t.Parallel would have it: some tests do nothing but wait.
func together(t *testing.T, n int, tests []subtest) {
	t.Helper()
	free := make(chan struct{}, n)
	var wg sync.WaitGroup
	for _, s := range tests {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			t.Run(s.name, s.run)
		})
	}
	wg.Wait()
}

// everyPair calls f with every combination of mode and connectors, but for
// those of which the original alone is known not to work.
func everyPair(t *testing.T, py python, f func(name, tls, server, client string)) {
	t.Helper()
	for _, tls := range []string{"off", "anonymous"} {
		for _, server := range []string{ours, theirs} {
			for _, client := range []string{ours, theirs} {
				if py.stalls && tls != "off" && server == theirs && client == theirs {
					loud(t, fmt.Sprintf("not tried: a %s client at a %s server over TLS, which stall by themselves", py.name, py.name))
					continue
				}
				f(fmt.Sprintf("tls=%s/server=%s/client=%s", tls, server, client), tls, server, client)
			}
		}
	}
}

// combination is which tools are used at the server's and at the client's side.
// Its name is part of the message types, so that combinations do not meet.
type combination struct{ server, client string }

var combinations = []combination{{ours, ours}, {ours, theirs}, {theirs, ours}, {theirs, theirs}}

func (c combination) String() string { return c.server[:1] + c.client[:1] }

// testMessages sends messages of all kinds both ways, with every combination
// of connectors and tools.
func testMessages(t *testing.T, py python) {
	// One letter for each use of a type: n messages, e envelopes, b bursts,
	// l large messages, r requests, m requests that are answered by hand.
	types := []string{"any"}
	for _, c := range combinations {
		for _, use := range "neblrm" {
			types = append(types, string(use)+c.String())
		}
	}
	var tests []subtest
	everyPair(t, py, func(name, tls, server, client string) {
		tests = append(tests, subtest{name, func(t *testing.T) {
			p := newPair(t, py, server, client, tls, types, 0, nil)
			p.start(t)
			for _, c := range combinations {
				step(t, fmt.Sprintf("tools=%s,%s", c.server, c.client), func(t *testing.T) {
					testTools(t, p, c)
				})
			}
		}})
	})
	together(t, 2, tests)
}

// step runs a subtest, and ends the test when it failed by waiting in vain: then
// all that follow would do the same.
func step(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	began := time.Now()
	if !t.Run(name, f) && time.Since(began) >= patience {
		t.Fatalf("%s waited in vain: what follows it is not tried", name)
	}
}

// route is a direction in which messages go.
type route struct {
	name     string
	from, to *host
	src, dst tools
}

// testTools sends messages of all kinds both ways with the tools of one
// combination.
func testTools(t *testing.T, p pair, c combination) {
	server, client := newTools(t, c.server, p.server), newTools(t, c.client, p.client)
	routes := []route{
		{"to the server", p.client, p.server, client, server},
		{"to the client", p.server, p.client, server, client},
	}
	step(t, "messages", func(t *testing.T) { testSamples(t, routes, "n"+c.String()) })
	step(t, "envelopes", func(t *testing.T) { testEnvelopes(t, routes, "e"+c.String()) })
	step(t, "burst", func(t *testing.T) { testBurst(t, routes, "b"+c.String()) })
	step(t, "large", func(t *testing.T) { testLarge(t, routes, "l"+c.String()) })
	step(t, "requests", func(t *testing.T) { testRequests(t, routes, "r"+c.String()) })
	step(t, "answers", func(t *testing.T) { testAnswers(t, routes, "m"+c.String()) })
	step(t, "ping", func(t *testing.T) { testPing(t, routes) })
}

// everyByte has each byte value once.
func everyByte() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

// noise returns n bytes that no compression or luck makes equal to others.
func noise(n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return string(b)
}

// samples are the messages that everybody must be able to send and receive.
func samples() []sample {
	all := everyByte()
	huge := json.Number("123456789012345678901234567890")
	return []sample{
		{name: "a JSON object", json: true,
			data: `{"temp": 21.5, "unit": "\u00b0C", "on": true, "none": null, "list": [1, -2, 1e-07, "x"]}`},
		{name: "JSON text beyond ASCII", json: true, data: `"\u4f60\u597d \ud83d\ude00 \u00e9"`},
		{name: "JSON text", json: true, data: `"plain"`},
		{name: "JSON null", json: true, data: `null`},
		{name: "JSON false", json: true, data: `false`},
		{name: "a large JSON number", json: true, data: huge.String()},
		{name: "an empty JSON object", json: true, data: `{}`},
		{name: "nested JSON", json: true, data: `[[[["\\", "\"", "/"]]]]`},
		{name: "half a surrogate pair in JSON", json: true, data: `"\ud800"`},
		{name: "what only Python takes for JSON", json: true, data: `{"a": NaN, "b": -Infinity}`},
		{name: "JSON with space around it", data: " {\"a\": 1}\n"},
		{name: "JSON with space in it", data: "{ \"a\" :\t[1,\n2] }"},
		{name: "text beyond ASCII", text: true, data: "h\u00e9llo w\u00f6rld \u4f60\u597d \U0001f600 \u2028"},
		{name: "text with quotes", text: true, data: `a "quoted" \ word` + "\tand a tab"},
		{name: "text of lines", data: "line 1\nline 2\r\n\n"},
		{name: "a byte order mark", data: "\ufeffbom"},
		{name: "every byte", data: all},
		{name: "a zero byte", data: "\x00"},
		{name: "no UTF-8", data: "\xff\xfe\xed\xa0\x80"},
		{name: "empty data"},
		{name: "a binary", json: true, data: `{"n": 1}`, binary: all + all},
		{name: "a binary and empty data", binary: "\x00\x01"},
		{name: "a binary and bytes", data: all, binary: all},
		{name: "request id 0", json: true, data: `1`, requestID: 0},
		{name: "request id 42", json: true, data: `2`, requestID: 42},
		{name: "a large request id", json: true, data: `3`, requestID: huge},
		{name: "request id of digits", json: true, data: `4`, requestID: "7"},
		{name: "request id of text", json: true, data: `5`, requestID: "caf\u00e9 \"au\" lait"},
		{name: "response id 0", json: true, data: `6`, responseID: 0},
		{name: "response id 7", json: true, data: `7`, responseID: 7},
		{name: "response id of text", json: true, data: `8`, responseID: "7"},
		{name: "a tag", json: true, data: `9`, tag: "a-b_c:D9"},
		{name: "wait for acknowledgement", json: true, data: `10`, ack: true},
		{name: "all at once", data: all, binary: all, requestID: "r-1", responseID: 99, tag: "t", ack: true},
		{name: "wait for acknowledgement again", text: true, data: "again", ack: true},
		{name: "a megabyte and a half", data: noise(1 << 20), binary: noise(1 << 19)},
		{name: "the last", text: true, data: "last"},
	}
}

// testSamples sends the samples both ways at the same time.
func testSamples(t *testing.T, routes []route, typ string) {
	boxes := receiveAll(t, routes, typ, false)
	bothWays(t, routes, func(i int, r route) error {
		list := samples()
		if err := r.src.send(typ, list...); err != nil {
			return err
		}
		return r.arrive(boxes[i], typ, list)
	})
	nothingMore(t, routes, boxes)
}

// testEnvelopes sends the samples again as envelopes, with one aioc-send. The
// Python tools have no envelopes.
func testEnvelopes(t *testing.T, routes []route, typ string) {
	routes = slices.DeleteFunc(slices.Clone(routes), func(r route) bool { return r.src.kind() != ours })
	boxes := receiveAll(t, routes, typ, false)
	bothWays(t, routes, func(i int, r route) error {
		list := samples()
		if err := r.src.(*goTools).sendEnvelopes(typ, list); err != nil {
			return err
		}
		return r.arrive(boxes[i], typ, list)
	})
	nothingMore(t, routes, boxes)
}

// testBurst sends many messages both ways at the same time.
func testBurst(t *testing.T, routes []route, typ string) {
	const count = 500
	const format = "message %06d of the burst"
	var list []sample
	for i := range count {
		list = append(list, sample{name: fmt.Sprint("message ", i), data: fmt.Sprintf(format, i)})
	}
	boxes := receiveAll(t, routes, typ, false)
	bothWays(t, routes, func(i int, r route) error {
		if err := r.src.burst(typ, format, count); err != nil {
			return err
		}
		return r.arrive(boxes[i], typ, list)
	})
	nothingMore(t, routes, boxes)
}

// testLarge sends large messages both ways at the same time, between messages
// that the other end has to acknowledge. A Python client over TLS from 3.11 on
// is for good in a state in which it neither writes nor reads when it is sent
// more than it reads at once while its acknowledgement is stuck.
func testLarge(t *testing.T, routes []route, typ string) {
	var list []sample
	for i := range 6 {
		list = append(list,
			sample{name: fmt.Sprint("small ", i), text: true, data: fmt.Sprint("small ", i), ack: true},
			sample{name: fmt.Sprint("large ", i), data: fmt.Sprint("large ", i, noise(1<<20))})
	}
	boxes := receiveAll(t, routes, typ, false)
	bothWays(t, routes, func(i int, r route) error {
		if err := r.src.send(typ, list...); err != nil {
			return err
		}
		return r.arrive(boxes[i], typ, list)
	})
	nothingMore(t, routes, boxes)
}

// arrive waits for samples and says what is wrong with those that arrived.
func (r route) arrive(box *inbox, typ string, list []sample) error {
	var want []message
	for _, s := range list {
		want = append(want, s.arrives(r.from, typ))
	}
	got, err := box.take(len(want))
	if r.to.kind == theirs && r.dst.kind() == theirs {
		// The original opens a new connection to the receiver for every
		// hundredth message, and reads the old and the new in no order.
		got = inOrderOf(want, got)
	}
	var problems []error
	for i, m := range got {
		if d := diff(m, want[i]); d != "" {
			problems = append(problems, fmt.Errorf("%s: %s", list[i].name, d))
		}
	}
	if n := len(problems); n > 10 {
		problems = append(problems[:10], fmt.Errorf("and %d more", n-10))
	}
	return errors.Join(append(problems, err)...)
}

// inOrderOf returns the messages in the order of those that they should equal;
// those that equal none fill the gaps.
func inOrderOf(want, got []message) []message {
	var ordered []message
	others := slices.Clone(got)
	for _, w := range want {
		if i := slices.IndexFunc(others, func(m message) bool { return diff(m, w) == "" }); i >= 0 {
			ordered = append(ordered, others[i])
			others = slices.Delete(others, i, i+1)
		} else {
			ordered = append(ordered, message{})
		}
	}
	for i, m := range ordered {
		if m.fields == nil && len(others) > 0 {
			ordered[i], others = others[0], others[1:]
		}
	}
	return slices.DeleteFunc(ordered, func(m message) bool { return m.fields == nil })
}

// testRequests awaits responses both ways, from an answering program.
func testRequests(t *testing.T, routes []route, typ string) {
	receiveAll(t, routes, typ, true)
	bothWays(t, routes, func(i int, r route) error {
		var problems []error
		for _, s := range []sample{
			{name: "an integer", data: `{"a": 1}`, requestID: 7},
			{name: "zero", data: `{"a": 2}`, requestID: 0},
			{name: "text", data: everyByte(), requestID: "7"},
			{name: "no id", data: `{"a": 3}`},
			{name: "empty", requestID: "empty"},
			{name: "with an acknowledgement", data: `{"a": 4}`, requestID: 8, ack: true},
		} {
			got, err := r.src.request(typ, s)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			want := sample{data: s.data, responseID: s.requestID}.arrives(r.to, typ)
			if s.requestID == nil {
				if got.fields["response_id"] == "" {
					problems = append(problems, fmt.Errorf("%s: the response has no response_id", s.name))
				}
				want.fields["response_id"] = got.fields["response_id"]
			}
			if d := diff(got, want); d != "" {
				problems = append(problems, fmt.Errorf("%s: %s", s.name, d))
			}
		}
		if g, ok := r.src.(*goTools); ok {
			out, err := g.requestJSON(typ, `{"n":1} {"n":2} [3] "four" 5`)
			if err != nil {
				problems = append(problems, err)
			}
			if want := "{\"n\":1}\n{\"n\":2}\n[3]\n\"four\"\n5\n"; out != want {
				problems = append(problems, fmt.Errorf("aioc-send -await of five values printed %q, want %q", out, want))
			}
		}
		return errors.Join(problems...)
	})
}

// testAnswers awaits responses both ways that the test itself sends, with a
// binary and a tag.
func testAnswers(t *testing.T, routes []route, typ string) {
	boxes := receiveAll(t, routes, typ, false)
	bothWays(t, routes, func(i int, r route) error {
		requestID := "answer me"
		answered := make(chan error, 1)
		ask := sample{name: "a request", data: everyByte(), binary: "\x00\xff", requestID: requestID, tag: "q"}
		answer := sample{name: "an answer", data: "\x00answer", binary: everyByte(), responseID: requestID, tag: "a"}
		go func() {
			got, err := boxes[i].take(1)
			if err != nil {
				answered <- fmt.Errorf("the request: %w", err)
				return
			}
			want := ask.arrives(r.from, typ)
			want.fields["await_response"] = "true"
			if d := diff(got[0], want); d != "" {
				answered <- fmt.Errorf("the request: %s", d)
				return
			}
			answered <- r.dst.send(typ, answer)
		}()
		got, err := r.src.request(typ, ask)
		if err := <-answered; err != nil {
			return err
		}
		if err != nil {
			return err
		}
		if d := diff(got, answer.arrives(r.to, typ)); d != "" {
			return fmt.Errorf("the response: %s", d)
		}
		return nil
	})
	nothingMore(t, routes, boxes)
}

// testPing pings both ways.
func testPing(t *testing.T, routes []route) {
	bothWays(t, routes, func(i int, r route) error {
		return ping(r)
	})
}

// ping sends a ping and checks the answer, which comes from the connector.
func ping(r route) error {
	for _, s := range []sample{
		{name: "a ping", data: "PING " + everyByte(), requestID: 3},
		{name: "an empty ping", requestID: "p"},
	} {
		got, err := r.src.request("_ping", s)
		if err != nil {
			return err
		}
		want := sample{data: s.data, responseID: s.requestID}.arrives(r.to, "_ping")
		// The answer is the connector's own: it has no destination.
		if d := diff(got, want, "destination_id"); d != "" {
			return fmt.Errorf("%s: %s", s.name, d)
		}
	}
	return nil
}

// receiveAll starts a receiver at the end of each route.
func receiveAll(t *testing.T, routes []route, typ string, answering bool) []*inbox {
	t.Helper()
	var boxes []*inbox
	for _, r := range routes {
		boxes = append(boxes, r.dst.receive(t, typ, answering))
	}
	return boxes
}

// bothWays calls f for all routes at the same time.
func bothWays(t *testing.T, routes []route, f func(i int, r route) error) {
	t.Helper()
	errs := make([]error, len(routes))
	var wg sync.WaitGroup
	for i, r := range routes {
		wg.Go(func() { errs[i] = f(i, r) })
	}
	wg.Wait()
	for i, r := range routes {
		if errs[i] != nil {
			t.Errorf("%s: %s", r.name, strings.ReplaceAll(errs[i].Error(), "\n", "\n\t"))
		}
	}
}

// nothingMore fails the test if messages arrived that nobody sent, or twice.
func nothingMore(t *testing.T, routes []route, boxes []*inbox) {
	t.Helper()
	for i, r := range routes {
		if rest := boxes[i].rest(); len(rest) > 0 {
			t.Errorf("%s: %d messages too many, the first: %v %.100q", r.name, len(rest), rest[0].fields, rest[0].data)
		}
	}
}
