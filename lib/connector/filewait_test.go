package connector

import (
	"fmt"
	"os"
	"testing"

	"aioc/lib/wire"
)

func TestAPurgeDiscardsAllMessagesWithFiles(t *testing.T) {
	for n := 1; n <= 3; n++ {
		s := server(t, types("any"), onDisk("any"))
		path, _ := makeFile(t, "f", 7)
		for i := range n {
			if err := s.sendFile(t, "c1", withFile(path, "pics", fmt.Sprint(i), false), "data", ""); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprintf(`{"discarded":%d,"peers":{"c1":%d},"types":{}}`, n, n)
		if got := command(t, s, "purge", nil); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s.nothingIsLeft(t)
		if _, err := os.Lstat(path); err != nil {
			t.Error("a file that was not sent is to stay:", err)
		}
		eventually(t, "nobody waits for the peer", func() bool {
			b := s.box("c1", false)
			if b == nil {
				return true
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			return !b.sending
		})
	}
}

// A small file goes inside its message, one that is not small while it is read.
func TestAPurgeDiscardsAMessageWhoseFileWasOnItsWay(t *testing.T) {
	for _, size := range []int{7, 2 * embedMax} {
		s := server(t, types("any"), onDisk("any"))
		p := s.peer(t, "py")
		s.connected(t, "py")
		path, _ := makeFile(t, "f", size)
		for range 2 {
			if err := s.sendFile(t, "py", withFile(path, "pics", "f", true), "data", ""); err != nil {
				t.Fatal(err)
			}
		}
		var f wire.Frame
		for {
			if err := p.r.Next(&f); err != nil {
				t.Fatal(err)
			}
			if string(f.Header.Type) == "any" {
				break
			}
		}
		// It is not acknowledged, and so on its way.
		if got, want := command(t, s, "purge", nil), `{"discarded":1,"peers":{"py":1},"types":{}}`; got != want {
			t.Errorf("%d bytes, on its way: got %s, want %s", size, got, want)
		}
		p.Close()
		s.disconnected(t, "py")
		eventually(t, "it waits", func() bool {
			b := s.box("py", false)
			if b.q.Stats().Waiting == 1 {
				return true
			}
			o := b.leaving.Load()
			if o == nil {
				return false
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.resting
		})
		if got, want := command(t, s, "purge", nil), `{"discarded":1,"peers":{"py":1},"types":{}}`; got != want {
			t.Errorf("%d bytes, the peer away: got %s, want %s", size, got, want)
		}
		s.nothingIsLeft(t)
	}
}

func TestMessagesWithFilesThatWaitAreCounted(t *testing.T) {
	s := server(t, types("any", "b"), onDisk("any", "b"))
	path, _ := makeFile(t, "f", 7)
	for range 3 {
		if err := s.sendFile(t, "py", withFile(path, "pics", "f", true), "data", ""); err != nil {
			t.Fatal(err)
		}
	}
	s.send(t, "any", "py", "1")
	s.send(t, "b", "py", "2")
	got := stats(t, s)
	if len(got.Peers) != 1 {
		t.Fatalf("got %+v", got.Peers)
	}
	p := got.Peers[0]
	if p.Queue.Waiting != 5 || p.Queue.InHand != 0 || p.Queue.Disk == 0 || p.Queue.Oldest == 0 || got.Disk.Bytes != p.Queue.Disk {
		t.Errorf("got %+v, and %+v on disk", p.Queue, got.Disk)
	}
	if len(p.Lanes) != 2 || p.Lanes[0].Type != "any" || p.Lanes[0].Waiting != 4 || p.Lanes[1].Waiting != 1 || p.Lanes[0].Oldest == 0 {
		t.Errorf("got %+v", p.Lanes)
	}
	if got, err := ask(t, s, "peek_queues", nil); err != nil || got != `{"queue_recv":0,"queue_send":{"py":5}}` {
		t.Errorf("peek_queues: got %s, %v", got, err)
	}

	// On its way it is in hand, and counts once.
	for _, size := range []int{7, 2 * embedMax} {
		s := server(t, types("any"), onDisk("any"))
		p := s.peer(t, "py")
		s.connected(t, "py")
		path, _ := makeFile(t, "f", size)
		for range 2 {
			if err := s.sendFile(t, "py", withFile(path, "pics", "f", true), "data", ""); err != nil {
				t.Fatal(err)
			}
		}
		var f wire.Frame
		for {
			if err := p.r.Next(&f); err != nil {
				t.Fatal(err)
			}
			if string(f.Header.Type) == "any" {
				break
			}
		}
		eventually(t, "one waits, one is on its way", func() bool {
			q := stats(t, s).Peers[0].Queue
			return q.Waiting == 1 && q.InHand == 1
		})
		p.Close()
	}
}
