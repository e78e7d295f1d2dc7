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
