package connector

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
)

// size returns the bytes of the files below a directory, complete or not.
func size(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// Whoever is restarted while a file is on its way, the file arrives once, whole,
// and with it its message.
func TestAFileOutlivesARestart(t *testing.T) {
	for i, who := range []string{"client", "server"} {
		t.Run(who, func(t *testing.T) {
			dir := newDir(t)
			s := server(t, types("d"), onDisk("d"), func(cfg *config.Config) {
				cfg.FileTargets = map[string]config.FileTarget{"pics": {Directory: dir}}
			})
			c := s.client(t, "c1", types("d"), onDisk("d"))
			path, content := makeFile(t, "big", 48<<20+i)
			cl := c.open(t)
			out := cl.Sender(api.SendOptions{})
			h := fmt.Appendf(nil, `{"message_type": "d", "source_id": "c1", "with_file": %s}`, withFile(path, "pics", "big", false))
			if err := out.Put(h, []byte("data"), nil); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Finish(within(t)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "a part is there", func() bool { return size(dir) > 1<<20 })
			s.halt(t)
			if who == "client" {
				c.kill(t)
				c = c.again(t)
			}
			s = s.again(t)
			in := s.receive(t, api.ReceiveOptions{})
			a := parseArrived(t, in.wait(t, 1)[0])
			if a.Path != dir+"/big" || a.Error != "" {
				t.Errorf("got %+v", a)
			}
			holds(t, dir+"/big", content, 0o640)
			eventually(t, "the source is removed", func() bool { _, err := os.Lstat(path); return err != nil })
			eventually(t, "nothing is left to send", func() bool {
				b := c.box("", false)
				files := b.waitingFiles()
				return b.q.Len() == 0 && (files == nil || files.Len() == 0)
			})
			if n := in.len(); n != 1 {
				t.Errorf("the message came %d times", n)
			}
			onlyFiles(t, dir, "big")
		})
	}
}
