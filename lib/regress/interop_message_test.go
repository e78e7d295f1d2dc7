//go:build interop

package regress

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// message is a message as a receiver gets it.
type message struct {
	fields map[string]string // transport keys, each value as canonical JSON
	data   []byte
	binary []byte
}

// quote returns v as canonical JSON.
func quote(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // only called with what came out of a decoder, and strings
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// canonical returns JSON text as quote would write its value, numbers as they
// are.
func canonical(text []byte) (string, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", err
	}
	return quote(v), nil
}

// newMessage makes a message of raw transport keys. The key with_binary, which
// an envelope need not show, is what the binary says.
func newMessage(raw map[string]json.RawMessage, data, binary []byte) (message, error) {
	m := message{fields: map[string]string{}, data: data, binary: binary}
	for k, v := range raw {
		text, err := canonical(v)
		if err != nil {
			return m, fmt.Errorf("transport key %s: %w", k, err)
		}
		m.fields[k] = text
	}
	delete(m.fields, "with_binary")
	if len(binary) > 0 {
		m.fields["with_binary"] = "true"
	}
	return m, nil
}

// readEnvelope reads a line of aioc-recv -envelope.
func readEnvelope(line []byte) (message, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return message{}, fmt.Errorf("envelope %.200q: %w", line, err)
	}
	var data, binary []byte
	forms := 0
	for _, key := range []string{"data", "data_text", "data_base64", "binary_base64"} {
		value, ok := raw[key]
		if !ok {
			continue
		}
		delete(raw, key)
		var text string
		if key != "data" {
			if err := json.Unmarshal(value, &text); err != nil {
				return message{}, fmt.Errorf("envelope key %s: %w", key, err)
			}
		}
		var err error
		switch key {
		case "data":
			data = value
		case "data_text":
			data = []byte(text)
		case "data_base64":
			data, err = base64.StdEncoding.DecodeString(text)
		case "binary_base64":
			binary, err = base64.StdEncoding.DecodeString(text)
			forms--
		}
		if err != nil {
			return message{}, fmt.Errorf("envelope key %s: %w", key, err)
		}
		forms++
	}
	if forms > 1 {
		return message{}, fmt.Errorf("envelope with more than one form of data: %.200q", line)
	}
	return newMessage(raw, data, binary)
}

// writeEnvelope writes a message as a line for aioc-send -envelope, without the
// keys that only a connector sets.
func (m message) writeEnvelope() []byte {
	out := map[string]json.RawMessage{}
	for k, v := range m.fields {
		if k != "source_id" && k != "with_binary" {
			out[k] = json.RawMessage(v)
		}
	}
	text := func(s string) json.RawMessage { return json.RawMessage(quote(s)) }
	switch {
	case len(m.data) == 0:
	case embeddable(m.data):
		out["data"] = m.data
	case utf8.Valid(m.data):
		out["data_text"] = text(string(m.data))
	default:
		out["data_base64"] = text(base64.StdEncoding.EncodeToString(m.data))
	}
	if len(m.binary) > 0 {
		out["binary_base64"] = text(base64.StdEncoding.EncodeToString(m.binary))
	}
	// Written by hand: json.Marshal would compact the data.
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range slices.Sorted(maps.Keys(out)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quote(k))
		b.WriteByte(':')
		b.Write(out[k])
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// embeddable says whether data is JSON that can stand in a line as it is.
func embeddable(data []byte) bool {
	return json.Valid(data) && !bytes.ContainsAny(data, "\r\n") && len(bytes.TrimSpace(data)) == len(data)
}

// diff says how got differs from want, "" if it does not. The keys of optional
// are not looked at.
func diff(got, want message, optional ...string) string {
	var out []string
	keys := slices.Collect(maps.Keys(want.fields))
	keys = slices.AppendSeq(keys, maps.Keys(got.fields))
	slices.Sort(keys)
	for _, k := range slices.Compact(keys) {
		if slices.Contains(optional, k) {
			continue
		}
		if g, w := got.fields[k], want.fields[k]; g != w {
			out = append(out, fmt.Sprintf("%s is %s, want %s", k, or(g, "absent"), or(w, "absent")))
		}
	}
	if !bytes.Equal(got.data, want.data) {
		out = append(out, "data: "+diffBytes(got.data, want.data))
	}
	if !bytes.Equal(got.binary, want.binary) {
		out = append(out, "binary: "+diffBytes(got.binary, want.binary))
	}
	return strings.Join(out, "; ")
}

// diffBytes shows where got leaves want.
func diffBytes(got, want []byte) string {
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	from := max(0, at-20)
	show := func(b []byte) []byte { return b[from:min(len(b), from+80)] }
	return fmt.Sprintf("%d bytes, want %d; from byte %d: %q, want %q", len(got), len(want), from, show(got), show(want))
}

// or returns s, or other if s is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// inbox is where the messages of one type arrive at one receiver.
type inbox struct {
	mu       sync.Mutex
	messages []message
	problems []string
	more     chan struct{} // has an element when something was added
}

func newInbox() *inbox { return &inbox{more: make(chan struct{}, 1)} }

// put adds a message, or what was wrong with one.
func (b *inbox) put(m message, err error) {
	b.mu.Lock()
	if err != nil {
		b.problems = append(b.problems, err.Error())
	} else {
		b.messages = append(b.messages, m)
	}
	b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// take waits for n messages and removes them; only one caller at a time.
func (b *inbox) take(n int) ([]message, error) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		if len(b.problems) > 0 {
			defer b.mu.Unlock()
			return nil, fmt.Errorf("%s", strings.Join(b.problems, "; "))
		}
		if len(b.messages) >= n {
			taken := b.messages[:n:n]
			b.messages = b.messages[n:]
			b.mu.Unlock()
			return taken, nil
		}
		got := b.messages
		b.mu.Unlock()
		select {
		case <-b.more:
		case <-deadline.C:
			return got, fmt.Errorf("%w after %d of %d messages in %v", errTimeout, len(got), n, patience)
		}
	}
}

// rest returns what nobody took.
func (b *inbox) rest() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.messages
}
