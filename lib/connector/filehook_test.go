package connector

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// asking makes a connector ask a hook where its files are to land: in a directory
// that is called as the file's type. It returns what the hook was asked, a line
// for each name.
func asking(t *testing.T) (edit func(*config.Config), asked func() []string) {
	log := filepath.Join(t.TempDir(), "asked")
	hook := hookScript(t, `echo "$AIOC_FILE_NAME" >>`+log+`; echo "by-hook/$AIOC_FILE_TYPE"`)
	edit = func(cfg *config.Config) { cfg.HookTargetDirectory = hook }
	return edit, func() []string {
		text, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return strings.Fields(string(text))
	}
}

func TestAHookIsAskedOnceWhereAFileLands(t *testing.T) {
	dir := newDir(t)
	hook, asked := asking(t)
	s := server(t, isBroker, stores(dir), hook)
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	n := 0
	for _, size := range []int{0, 5, embedMax + 1, 4 * embedMax} {
		for _, keep := range []bool{true, false} {
			n++
			name := fmt.Sprintf("f%d", n)
			path, content := makeFile(t, "f", size)
			if err := c.sendFile(t, "", withFile(path, "pics", name, keep), "data", "own"); err != nil {
				t.Fatal(err)
			}
			a := parseArrived(t, in.wait(t, n)[n-1])
			if want := dir + "/pics/c1/by-hook/pics/" + name; a.Path != want {
				t.Errorf("%s: got %+v, want %s", name, a, want)
				continue
			}
			holds(t, a.Path, content, 0o640)
			if got := asked(); len(got) != n || got[n-1] != name {
				t.Fatalf("%d bytes, keep %v: asked for %q, want %s last and once", size, keep, got, name)
			}
		}
	}
	// The same for publications, of which the broker has a file for each
	// subscriber.
	sub := s.peer(t, "py")
	sub.write(`{"message_type": "_pubsub", "source_id": "py"}`, `{"subscribe_message_types": ["a"]}`)
	s.subscribed(t, "a", 1)
	for _, size := range []int{5, 2 * embedMax} {
		n++
		name := fmt.Sprintf("f%d", n)
		path, content := makeFile(t, "f", size)
		c.publishFile(t, "a", withFile(path, "pics", name, false), "data", "own")
		var f wire.Frame
		for f.Header == nil || string(f.Header.Type) != "a" {
			if err := sub.r.Next(&f); err != nil {
				t.Fatal(err)
			}
		}
		if string(f.Binary) != "own"+string(content) {
			t.Errorf("%s: %d bytes arrived", name, len(f.Binary))
		}
		if got := asked(); len(got) != n || got[n-1] != name {
			t.Errorf("a publication of %d bytes: asked for %q, want %s last and once", size, got, name)
		}
	}
}

// What a hook has said of one file holds for no other, even if the peer calls it
// the same.
func TestAHookIsAskedAgainForAnotherFileOfTheSameID(t *testing.T) {
	dir := newDir(t)
	hook, asked := asking(t)
	s := server(t, stores(dir), hook)
	in := s.receive(t, api.ReceiveOptions{})
	p := s.peer(t, "evil")
	p.write(fmt.Sprintf(announcesChunks, "evil"), "")
	p.offers(hex32, `{"dst_type": "pics", "dst_name": "one"}`, 3)
	p.answered(hex32, "", "0")
	for i, file := range []string{
		`{"dst_type": "pics", "dst_name": "two", "transfer": ["` + hex32 + `", 3, "` + sumABC + `"], "binary_offset": 0}`,
		`{"dst_type": "replace", "dst_name": "one", "transfer": ["` + hex31 + `2", 3, "` + sumABC + `"], "binary_offset": 0}`,
	} {
		p.sends(file, "abc")
		if a := parseArrived(t, in.wait(t, i+1)[i]); a.Error != "" {
			t.Errorf("got %+v", a)
		}
	}
	if got := fmt.Sprint(asked()); got != "[one two one]" {
		t.Errorf("asked for %s", got)
	}
	holds(t, dir+"/pics/evil/by-hook/pics/two", []byte("abc"), 0o640)
	holds(t, dir+"/replace/by-hook/replace/one", []byte("abc"), 0o600)
}
