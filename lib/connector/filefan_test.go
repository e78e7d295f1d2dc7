package connector

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/local"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// publishFile publishes a message with a file.
func (n *node) publishFile(t testing.TB, topic, withFile, data, bin string) {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	h := fmt.Appendf(nil, `{"message_type": "_pubsub", "source_id": "x", "with_binary": true, "with_file": %s, "message_type_publish": %q}`, withFile, topic)
	if err := s.Put(h, []byte(data), []byte(bin)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(within(t)); err != nil {
		t.Fatal(err)
	}
}

func TestAPublishedFileReachesEachSubscriber(t *testing.T) {
	dir := newDir(t)
	in := func(name string) func(*config.Config) {
		return func(cfg *config.Config) {
			cfg.FileTargets = map[string]config.FileTarget{"pics": {Directory: dir + "/" + name}}
		}
	}
	s := server(t, isBroker, in("broker"))
	pub := s.client(t, "pub")
	var subs []*sink
	for _, name := range []string{"c1", "c2"} {
		c := s.client(t, name, subscribes("a"), in(name))
		subs = append(subs, c.receive(t, api.ReceiveOptions{}))
	}
	py := s.peer(t, "py")
	py.write(`{"message_type": "_pubsub", "source_id": "py"}`, `{"subscribe_message_types": ["a"]}`)
	s.subscribed(t, "a", 3)
	for i, size := range []int{7, 2 * embedMax} {
		for _, keep := range []bool{true, false} {
			for _, from := range []*node{pub, s} {
				name := fmt.Sprintf("f%d-%v-%v", i, keep, from == s)
				path, content := makeFile(t, "f", size)
				from.publishFile(t, "a", withFile(path, "pics", name, keep), name, "own")
				n := subs[0].len() + 1
				for j, sub := range subs {
					m := sub.wait(t, n)[n-1]
					a := parseArrived(t, m)
					if want := fmt.Sprintf("%s/c%d/%s", dir, j+1, name); a.Path != want || m.data != name || m.bin != "own" || !strings.Contains(m.header, `"message_type": "a"`) {
						t.Errorf("%s: got %s %q %q", name, m.header, m.data, m.bin)
						continue
					}
					holds(t, a.Path, content, 0o640)
				}
				var f wire.Frame
				for {
					if err := py.r.Next(&f); err != nil {
						t.Fatal(err)
					}
					if string(f.Header.Type) == "a" {
						break
					}
				}
				if !bytes.Equal(f.Binary, append([]byte("own"), content...)) || strings.Contains(string(f.Header.Raw), "file_") {
					t.Errorf("%s: a Python subscriber got %s and %d bytes", name, f.Header.Raw, len(f.Binary))
				}
				_, err := os.Lstat(path)
				if keep && err != nil {
					t.Errorf("%s: the source: %v", name, err)
				}
				if !keep {
					eventually(t, "the source is removed", func() bool { _, err := os.Lstat(path); return errors.Is(err, fs.ErrNotExist) })
				}
			}
		}
	}
	// The broker keeps what is to stay, and nothing else.
	eventually(t, "the copies are removed", func() bool {
		entries, err := os.ReadDir(dir + "/broker")
		return err == nil && len(entries) == 2
	})
	onlyFiles(t, dir+"/broker", "f0-true-false", "f1-true-false")
}

func TestAPublishedFileIsRemovedAlsoIfTooManyAreOpen(t *testing.T) {
	dir := newDir(t)
	s := server(t, isBroker)
	c := s.client(t, "c1", subscribes("a"), func(cfg *config.Config) {
		cfg.FileTargets = map[string]config.FileTarget{"pics": {Directory: dir}}
	})
	in := c.receive(t, api.ReceiveOptions{})
	s.subscribed(t, "a", 1)
	for i := range maxHeld {
		if ok := s.held.add(fmt.Sprint(i), new(transfer.Source), local.Caller{UID: os.Geteuid()}); !ok {
			t.Fatalf("no room for file %d", i)
		}
		if i == maxHeld/2 && s.held.add("more", new(transfer.Source), local.Caller{UID: 54321, GID: 54321}) {
			t.Error("strangers get more than half")
		}
	}
	path, content := makeFile(t, "f", 7)
	s.publishFile(t, "a", withFile(path, "pics", "n", false), "data", "own")
	holds(t, parseArrived(t, in.wait(t, 1)[0]).Path, content, 0o640)
	eventually(t, "the source is removed", func() bool { _, err := os.Lstat(path); return errors.Is(err, fs.ErrNotExist) })
}

// A file that is published on the broker's host, to be removed, is there for all
// subscribers, however often the broker is restarted meanwhile, and not longer.
func TestAPublishedFileIsRemovedByTheLastSubscriberAlsoAfterARestart(t *testing.T) {
	for _, test := range []struct {
		name    string
		killed  bool // before it was noted that all messages are on disk
		refuses bool // the last subscriber does not take it
		stays   bool
	}{
		{"all get it", false, false, false},
		{"one does not", false, true, true},
		{"the broker was killed while it was published", true, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := newDir(t)
			in := func(name string, kind string) func(*config.Config) {
				return func(cfg *config.Config) {
					cfg.FileTargets = map[string]config.FileTarget{kind: {Directory: dir + "/" + name}}
				}
			}
			kind := "pics"
			if test.refuses {
				kind = "others"
			}
			s := server(t, isBroker, onDisk("d"))
			c1 := s.client(t, "c1", subscribes("d"), onDisk("d"), in("c1", "pics"))
			c2 := s.client(t, "c2", subscribes("d"), onDisk("d"), in("c2", "pics"))
			c3 := s.client(t, "c3", subscribes("d"), onDisk("d"), in("c3", kind))
			s.subscribed(t, "d", 3)
			for _, c := range []*node{c2, c3} {
				c.halt(t)
				s.disconnected(t, c.ID())
			}
			path, content := makeFile(t, "f", 2*embedMax)
			s.publishFile(t, "d", withFile(path, "pics", "f", false), "data", "own")
			marks := func(s *node) int {
				entries, err := os.ReadDir(s.paths.SpoolShared)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				return len(entries)
			}
			got := c1.receive(t, api.ReceiveOptions{})
			holds(t, parseArrived(t, got.wait(t, 1)[0]).Path, content, 0o640)
			eventually(t, "it is noted that all are there", func() bool { return marks(s) == 1 })
			next := func(c *node) *node {
				s.halt(t)
				s = s.again(t)
				if _, err := os.Lstat(path); err != nil {
					t.Fatalf("the source: %v", err)
				}
				c = c.again(t)
				a := parseArrived(t, c.receive(t, api.ReceiveOptions{}).wait(t, 1)[0])
				if test.refuses && c.ID() == "c3" {
					if a.Error == "" {
						t.Errorf("c3: got %+v", a)
					}
					return c
				}
				holds(t, a.Path, content, 0o640)
				return c
			}
			if test.killed {
				if err := os.RemoveAll(s.paths.SpoolShared); err != nil {
					t.Fatal(err)
				}
			}
			next(c2)
			next(c3)
			eventually(t, "nothing waits", func() bool {
				for _, name := range []string{"c1", "c2", "c3"} {
					if b := s.box(name, false); b != nil && b.waitingFiles() != nil && b.waitingFiles().Len() > 0 {
						return false
					}
				}
				s.shares.mu.Lock()
				defer s.shares.mu.Unlock()
				return len(s.shares.m) == 0
			})
			eventually(t, "it is forgotten", func() bool { return marks(s) == 0 })
			if !test.stays {
				eventually(t, "the source is removed", func() bool { _, err := os.Lstat(path); return errors.Is(err, fs.ErrNotExist) })
			} else if _, err := os.Lstat(path); err != nil {
				t.Errorf("the source: %v", err)
			}
		})
	}
}

func TestAPublicationWhoseFileTheBrokerDoesNotStoreSaysSo(t *testing.T) {
	s := server(t, isBroker)
	pub, sub := s.client(t, "pub"), s.client(t, "c1", subscribes("a"))
	in := sub.receive(t, api.ReceiveOptions{})
	s.subscribed(t, "a", 1)
	secret, _ := makeFile(t, "secret", 9)
	path, _ := makeFile(t, "f", 5)
	pub.publishFile(t, "a", fmt.Sprintf(`{"src_path": %q, "dst_type": "pics", "dst_name": "n", "delete": false, "dst_path": %q}`, path, secret), "data", "own")
	m := in.wait(t, 1)[0]
	if a := parseArrived(t, m); a.Path != "" || !strings.Contains(a.Error, "no file_recv_config") || m.data != "data" || m.bin != "own" {
		t.Errorf("got %s", m.header)
	}
	// The log of both names the topic, also when the file goes ahead.
	pub.publishFile(t, "a", withFile(path, "pics", "n", false), "data", "own")
	in.wait(t, 2)
	eventually(t, "both have said it", func() bool {
		return s.log.count("file not stored") > 0 && s.log.count("file refused") > 0 && pub.log.count("file not sent") > 0
	})
	for _, n := range []*node{s, pub} {
		if n.log.count("type=a reason=type") < 2 || n.log.count("type="+wire.TypePubSub) > 0 {
			t.Error("the log does not name the topic")
		}
	}
}
