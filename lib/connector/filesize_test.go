package connector

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
)

// The sizes of files that are tried in every way: nothing, next to nothing, whole
// chunks, and what is just not.
var fileSizes = []int{0, 1, chunkBytes, chunkBytes + 1, embedMax, embedMax + 1, 10 * chunkBytes, 41 * chunkBytes}

func TestFilesOfAllSizesArriveThroughTheBroker(t *testing.T) {
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
		subs = append(subs, s.client(t, name, subscribes("a"), in(name)).receive(t, api.ReceiveOptions{}))
	}
	s.subscribed(t, "a", 2)
	for i, size := range fileSizes {
		name := fmt.Sprint("f", size)
		path, content := makeFile(t, "f", size)
		pub.publishFile(t, "a", withFile(path, "pics", name, i%2 == 0), name, "own")
		for j, sub := range subs {
			a := parseArrived(t, sub.wait(t, i+1)[i])
			if want := fmt.Sprintf("%s/c%d/%s", dir, j+1, name); a.Path != want {
				t.Errorf("%d bytes: got %+v, want %s", size, a, want)
				continue
			}
			holds(t, a.Path, content, 0o640)
		}
	}
}

// sparse makes a file of size bytes with some in a few places, and nothing else.
func sparse(t *testing.T, size int64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, size/2 + 12345, size - 7} {
		if _, err := f.WriteAt([]byte("content")[:min(7, size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// digest returns the sum of a file, and how many bytes of the disk it uses.
func digest(t *testing.T, path string) (sum []byte, used int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return hash.Sum(nil), info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestHolesInAFileStayHoles(t *testing.T) {
	dir := newDir(t)
	s := server(t, anonymous(t), stores(dir))
	c := s.client(t, "c1", anonymous(t))
	in := s.receive(t, api.ReceiveOptions{})
	for i, size := range []int64{64 << 20, embedMax + 7} {
		path := sparse(t, size)
		want, _ := digest(t, path)
		if err := c.sendFile(t, "", withFile(path, "pics", fmt.Sprint("f", i), true), "", ""); err != nil {
			t.Fatal(err)
		}
		a := parseArrived(t, in.wait(t, i+1)[i])
		if a.Error != "" {
			t.Fatalf("got %+v", a)
		}
		got, used := digest(t, a.Path)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: the content differs", size)
		}
		// Where a file system has no holes the source has none.
		if _, needs := digest(t, path); used > needs+4*chunkBytes {
			t.Errorf("%d bytes: %d are used, the source uses %d", size, used, needs)
		}
	}
}
