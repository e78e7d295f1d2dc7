//go:build interop

package regress

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// fileChunk is the size at which files are cut in these tests.
const fileChunk = 1000

// testFiles sends files both ways, with every combination of connectors and
// tools that has one of ours.
func testFiles(t *testing.T, py python) {
	for _, pair := range []struct{ server, client string }{{ours, theirs}, {theirs, ours}, {ours, ours}} {
		t.Run(fmt.Sprintf("server=%s/client=%s", pair.server, pair.client), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			p := newPair(t, py, pair.server, pair.client, "off", []string{"any"}, 0, settings{
				"max_size_chunk_upload": fileChunk,
				"file_recv_config":      map[string]any{"any": map[string]any{"target_directory": dir + "/{source_id}/"}},
			})
			p.start(t)
			for _, c := range combinations {
				server, client := newTools(t, c.server, p.server), newTools(t, c.client, p.client)
				for _, r := range []route{
					{"to the server", p.client, p.server, client, server},
					{"to the client", p.server, p.client, server, client},
				} {
					if r.src.kind() == theirs && r.from.kind == theirs && r.to.kind == theirs {
						continue
					}
					step(t, fmt.Sprintf("tools=%s,%s/%s", c.server, c.client, r.name), func(t *testing.T) {
						testFileSizes(t, r, filepath.Join(dir, r.from.id), "f"+c.String())
					})
				}
			}
		})
	}
}

// testFileSizes sends files of many sizes, one after the other.
func testFileSizes(t *testing.T, r route, target, prefix string) {
	for _, chunks := range []float64{0, 0.001, 0.999, 1, 1.001, 2, 10, 41} {
		size := int(chunks * fileChunk)
		content := []byte(noise(size))
		src := filepath.Join(t.TempDir(), "source")
		if err := os.WriteFile(src, content, 0o644); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s-%d", prefix, size)
		for _, binary := range []string{"", "own"} {
			if binary != "" {
				name += "-with-binary"
			}
			if err := r.sendFile(src, name, binary); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			path := filepath.Join(target, name)
			if size == fileChunk && r.to.kind == theirs && r.src.kind() == theirs {
				// The original does not put a single chunk together in a new
				// directory; its sender has cut the file.
				continue
			}
			if err := eventuallyErr(func() error {
				got, err := os.ReadFile(path)
				if err == nil && !bytes.Equal(got, content) {
					err = errors.New(diffBytes(got, content))
				}
				return err
			}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := os.Stat(src); err != nil {
			t.Errorf("the source: %v", err)
		}
	}
}

// sendFile sends a file with the tools of the route's source.
func (r route) sendFile(src, name, binary string) error {
	switch from := r.src.(type) {
	case *driver:
		s := sample{name: name, data: "1", json: true, binary: binary}
		o := from.operation("send", "any", s)
		// The API uses the object again for the next chunk.
		o["file"] = map[string]any{"src_path": src, "dst_type": "any", "dst_name": name, "delete": false}
		o["chunk"] = fileChunk
		reply, err := from.do(o)
		if err == nil && !reply.Result {
			err = errors.New("send_message returned False")
		}
		return err
	case *goTools:
		args := []string{"-type", "any", "-file", src, "-file-name", name}
		if binary != "" {
			path := filepath.Join(from.dir, "binary")
			if err := os.WriteFile(path, []byte(binary), 0o600); err != nil {
				return err
			}
			args = append(args, "-binary", path)
		}
		_, err := from.run(nil, args...)
		return err
	}
	return errors.New("tools that cannot send files")
}

// testPublishedFiles publishes files from clients of both kinds through a broker of
// ours to subscribers of both.
func testPublishedFiles(t *testing.T, py python) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPair(t, py, ours, ours, "off", []string{"news"}, 0, settings{"max_size_chunk_upload": fileChunk})
	stores := func(name string) settings {
		target := filepath.Join(dir, name)
		if err := os.Mkdir(target, 0o755); err != nil { // the original joins no chunks in a new one
			t.Fatal(err)
		}
		return settings{"file_recv_config": map[string]any{"any": map[string]any{"target_directory": target + "/"}}}
	}
	broker := stores("broker")
	broker["pubsub_central_broker"] = true
	rewrite(t, p.server, broker)
	var subscribers []*host
	for _, kind := range []string{ours, theirs} {
		more := stores("sub-" + kind)
		more["subscribe_message_types"] = []string{"news"}
		subscribers = append(subscribers, p.another(t, kind, "sub-"+kind, more))
	}
	publishers := []*host{p.client, p.another(t, theirs, "pub-2", nil)}
	p.server.start(t)
	var names []string
	for _, h := range append(slices.Clone(subscribers), publishers...) {
		h.start(t)
		names = append(names, h.id)
	}
	p.server.awaitPeers(t, names...)
	var boxes []map[string]*inbox
	for _, h := range subscribers {
		boxes = append(boxes, map[string]*inbox{"news": newTools(t, h.kind, h).receive(t, "news", false)})
	}
	d := newDriver(t, publishers[1])
	for k := 0; ; k++ { // until the subscriptions are known
		text := fmt.Sprint("try ", k)
		publish(t, publishers[1], d, "news", text)
		if boxes[0]["news"].until(text) && boxes[1]["news"].until(text) {
			break
		}
		if k > 20 {
			t.Fatal("the subscriptions do not become known")
		}
	}
	tools := &goTools{host: p.client, bin: binaries(t), dir: t.TempDir()}
	for _, chunks := range []float64{0, 0.001, 1, 10, 41} {
		size := int(chunks * fileChunk)
		content := []byte(noise(size))
		src := filepath.Join(t.TempDir(), "source")
		if err := os.WriteFile(src, content, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, h := range publishers {
			name := fmt.Sprintf("%s-%d", h.kind, size)
			var err error
			if h.kind == theirs {
				var reply reply
				reply, err = d.do(op{"op": "publish", "type": "news", "text": name, "chunk": fileChunk,
					"file": map[string]any{"src_path": src, "dst_type": "any", "dst_name": name, "delete": false}})
				if err == nil && !reply.Result {
					err = errors.New("publish_message returned False")
				}
			} else {
				_, err = tools.run(nil, "-publish", "-type", "news", "-file", src, "-file-type", "any", "-file-name", name)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for _, sub := range subscribers {
				if err := eventuallyErr(func() error {
					got, err := os.ReadFile(filepath.Join(dir, sub.id, name))
					if err == nil && !bytes.Equal(got, content) {
						err = errors.New(diffBytes(got, content))
					}
					return err
				}); err != nil {
					t.Errorf("%s at %s: %v", name, sub.id, err)
				}
			}
		}
	}
}
