package connector

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// stores makes a connector store files below dir, by destination type.
func stores(dir string) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.FileTargets = map[string]config.FileTarget{
			"pics":    {Directory: dir + "/pics/{source_id}"},
			"replace": {Directory: dir + "/replace", Override: true, Mode: "600"},
		}
	}
}

// makeFile makes a file of random bytes, the same for the same size.
func makeFile(t testing.TB, name string, size int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size)})
	_, _ = r.Read(content) // never fails
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// sendFile sends a message with a file.
func (n *node) sendFile(t testing.TB, to, withFile, data, bin string) error {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	s := c.Sender(api.SendOptions{})
	defer s.Close()
	edits := []wire.Edit{{Key: "with_file", Value: []byte(withFile)}}
	if bin != "" {
		edits = append(edits, wire.Edit{Key: "with_binary", Value: []byte("true")})
	}
	if err := s.Put(wire.AppendEdited(nil, c.Header("any", to), edits...), []byte(data), []byte(bin)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Finish(within(t))
	return err
}

// withFile makes the value of a header's with_file.
func withFile(src, dstType, name string, keep bool) string {
	return fmt.Sprintf(`{"src_path": %q, "dst_type": %q, "dst_name": %q, "delete": %v}`, src, dstType, name, !keep)
}

// arrived is with_file as the receiving program gets it.
type arrived struct {
	Path  string `json:"dst_path"`
	Error string `json:"file_error"`
	Sent  any    `json:"transfer"`
}

func parseArrived(t testing.TB, m message) (a arrived) {
	t.Helper()
	h := struct {
		File   arrived `json:"with_file"`
		Caller any     `json:"file_caller"`
		ID     any     `json:"file_id"`
	}{}
	if err := json.Unmarshal([]byte(m.header), &h); err != nil {
		t.Fatal(err)
	}
	if h.Caller != nil || h.ID != nil || h.File.Sent != nil {
		t.Errorf("the program sees what only concerns the connectors: %s", m.header)
	}
	return h.File
}

// holds fails the test unless the file has the content, and the mode.
func holds(t testing.TB, path string, content []byte, mode fs.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if sha256.Sum256(got) != sha256.Sum256(content) {
		t.Errorf("%s: %d bytes that differ from the %d sent", path, len(got), len(content))
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != mode {
		t.Errorf("%s: got mode %v, %v, want %v", path, info.Mode(), err, mode)
	}
}

// onlyFiles fails the test unless the directory has these files and no others,
// not even hidden ones.
func onlyFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	var got []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			name, _ := filepath.Rel(dir, path)
			got = append(got, name)
		}
		return nil
	})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %q, want %q", dir, got, want)
	}
}

func TestFilesOfAllSizesArrive(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir))
	c := s.client(t, "c1", stores(dir+"/client"))
	in := s.receive(t, api.ReceiveOptions{})
	sizes := append(slices.Clone(fileSizes), chunkBytes-1, 41*chunkBytes+17, fileWindow+chunkBytes/2)
	var contents [][]byte
	for i, size := range sizes {
		path, content := makeFile(t, "f", size)
		contents = append(contents, content)
		if err := c.sendFile(t, "", withFile(path, "pics", fmt.Sprint("sub/f", i), i%2 == 0), fmt.Sprint(i), "own"); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			defer func() { holds(t, path, content, 0o600) }()
		}
	}
	for i, m := range in.wait(t, len(sizes)) {
		a := parseArrived(t, m)
		want := fmt.Sprintf("%s/pics/c1/sub/f%d", dir, i)
		if a.Path != want || a.Error != "" || m.data != fmt.Sprint(i) || m.bin != "own" {
			t.Errorf("message %d: got %s %q %q", i, m.header, m.data, m.bin)
			continue
		}
		holds(t, a.Path, contents[i], 0o640)
	}
	// And from the server to the client.
	path, content := makeFile(t, "back", 3*embedMax)
	in = c.receive(t, api.ReceiveOptions{})
	if err := s.sendFile(t, "c1", withFile(path, "replace", "back", true), "", ""); err != nil {
		t.Fatal(err)
	}
	a := parseArrived(t, in.wait(t, 1)[0])
	if a.Path != dir+"/client/replace/back" {
		t.Errorf("got %+v", a)
	}
	holds(t, a.Path, content, 0o600)
	onlyFiles(t, dir+"/client", "replace/back")
}

func TestASourceIsRemovedOnlyAfterItWasSent(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir))
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	for i, size := range []int{0, 5, 2 * embedMax} {
		path, _ := makeFile(t, "f", size)
		if err := c.sendFile(t, "", fmt.Sprintf(`{"src_path": %q, "dst_type": "pics", "dst_name": "f%d"}`, path, i), "", ""); err != nil {
			t.Fatal(err)
		}
		in.wait(t, i+1)
		eventually(t, "the source is removed", func() bool { _, err := os.Lstat(path); return err != nil })
	}
	onlyFiles(t, dir, "pics/c1/f0", "pics/c1/f1", "pics/c1/f2")
	for i, size := range []int{0, 5, 2 * embedMax} {
		path, _ := makeFile(t, "f", size)
		if err := c.sendFile(t, "", fmt.Sprintf(`{"src_path": %q, "dst_type": "nothing", "dst_name": "f%d"}`, path, i), "", ""); err != nil {
			t.Fatal(err)
		}
		if a := parseArrived(t, in.wait(t, 4+i)[3+i]); a.Error == "" {
			t.Errorf("a file of %d bytes that is not wanted: got %+v", size, a)
		}
		eventually(t, "nothing is left to send", func() bool { return c.box("", false).waitingFiles().Len() == 0 })
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a file of %d bytes that was not stored is gone: %v", size, err)
		}
	}
}

func TestWhoWaitsForAnAcknowledgementLearnsThatItsFileWasNotStored(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir))
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	small, _ := makeFile(t, "small", 5)
	if err := c.sendFile(t, "", withFile(small, "pics", "f", true), "", ""); err != nil {
		t.Fatal(err)
	}
	in.wait(t, 1)
	conn := c.open(t)
	defer conn.Close()
	for i, test := range []struct {
		name    string
		size    int
		keep    bool
		dstType string
		want    string
	}{
		{"a small file that is known only when its message is there", 6, true, "pics", "exists"},
		{"a small file that goes ahead", 6, false, "pics", "exists"},
		{"a big file", 2 * embedMax, true, "pics", "exists"},
		{"no place for it", 6, false, "nothing", "no file_recv_config"},
	} {
		path, _ := makeFile(t, "x", test.size)
		sender := conn.Sender(api.SendOptions{})
		edits := []wire.Edit{
			{Key: "wait_for_ack", Value: []byte("true")},
			{Key: "with_file", Value: []byte(withFile(path, test.dstType, "f", test.keep))},
		}
		if err := sender.Put(wire.AppendEdited(nil, conn.Header("any", ""), edits...), nil, nil); err != nil {
			t.Fatal(err)
		}
		_, err := sender.Finish(within(t))
		sender.Close()
		var why *api.NotTaken
		if !errors.As(err, &why) || why.Reason != "file" || !strings.Contains(why.Text, test.want) {
			t.Errorf("%s: got %v, want a file that was not stored: %s", test.name, err, test.want)
		}
		if a := parseArrived(t, in.wait(t, 2+i)[1+i]); !strings.Contains(a.Error, test.want) {
			t.Errorf("%s: the receiver got %+v", test.name, a)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: the file is gone: %v", test.name, err)
		}
	}
	if c.counted("file not stored by the peer: exists") == 0 {
		t.Error("the sender's connector does not count it")
	}
}

func TestAMessageWhoseFileIsNotStoredArrivesAllTheSame(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir), func(cfg *config.Config) { cfg.MaxFileRecv = 4 * embedMax })
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	small, _ := makeFile(t, "small", 5)
	big, _ := makeFile(t, "big", 2*embedMax)
	huge, _ := makeFile(t, "huge", 5*embedMax)
	for _, name := range []string{"f", "g"} {
		if err := c.sendFile(t, "", withFile(small, "pics", name, true), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	in.wait(t, 2)
	n := 2
	// The same once more would be the same file.
	small, _ = makeFile(t, "small", 6)
	for _, test := range []struct{ file, want string }{
		{withFile(small, "other", "x", true), "no file_recv_config"},
		{withFile(big, "other", "x", true), "no file_recv_config"},
		{withFile(small, "pics", "../x", true), "contains .."},
		{withFile(big, "pics", "../x", true), "contains .."},
		{withFile(small, "pics", "f", true), "exists"},
		{withFile(big, "pics", "g", true), "exists"},
		{withFile(huge, "pics", "x", true), "max_size_file_upload_recv"},
		{`{"src_path": "` + small + `", "dst_type": "pics"}`, "dst_name is missing"},
	} {
		if err := c.sendFile(t, "", test.file, "data", "own"); err != nil {
			t.Fatal(err)
		}
		n++
		m := in.wait(t, n)[n-1]
		if a := parseArrived(t, m); a.Path != "" || !strings.Contains(a.Error, test.want) || m.data != "data" || m.bin != "own" {
			t.Errorf("%s: got %s %q, want an error with %q", test.file, m.header, m.bin, test.want)
		}
	}
	onlyFiles(t, dir, "pics/c1/f", "pics/c1/g")
}

func TestAProgramIsToldThatItsFileCannotBeSent(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1", func(cfg *config.Config) { cfg.MaxFileSend = 3 })
	path, _ := makeFile(t, "f", 4)
	for _, test := range []string{
		withFile("/no/such/file", "pics", "f", true), withFile("relative", "pics", "f", true),
		withFile("/etc", "pics", "f", true), withFile(path, "pics", "f", true), withFile("/dev/null", "pics", "f", true),
	} {
		notTaken(t, c.sendFile(t, "", test, "", ""), 0, "bad")
	}
	if n := len(c.held.m); n != 0 {
		t.Errorf("%d files are kept open", n)
	}
}

// A Python program cuts its files itself, whoever is at the other end.
func TestChunksOfAPythonProgramArePutTogether(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir))
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	const count = 11
	var whole []byte
	for i := 1; i <= count; i++ {
		size := 700
		if i%3 == 0 {
			size = embedMax + i // goes ahead of its message
		}
		path, content := makeFile(t, "chunk", size)
		whole = append(whole, content...)
		if err := c.sendFile(t, "", fmt.Sprintf(`{"src_path": %q, "dst_type": "pics", "dst_name": "b__aioconnectors_chunk_%d_%d", "chunked": ["b__aioconnectors_chunk", %d, %d]}`,
			path, i, count, i, count), "", ""); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range in.wait(t, count) {
		if a := parseArrived(t, m); a.Error != "" || (a.Path != "") != (i == count-1) {
			t.Errorf("chunk %d: got %s", i+1, m.header)
		}
	}
	holds(t, dir+"/pics/c1/b", whole, 0o640)
	onlyFiles(t, dir, "pics/c1/b")
}

// A Python client and a Python server get the file inside the message.
func TestAFileForAPythonClient(t *testing.T) {
	s := server(t, func(cfg *config.Config) { cfg.MaxFileChunkSize = 300 << 10 })
	p := s.peer(t, "py")
	s.connected(t, "py")
	path, content := makeFile(t, "f", 700<<10)
	if err := s.sendFile(t, "py", withFile(path, "pics", "f", true), "data", "own"); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for i := 1; i <= 3; i++ {
		var f wire.Frame
		for {
			if err := p.r.Next(&f); err != nil {
				t.Fatal(err)
			}
			if string(f.Header.Type) == "any" {
				break
			}
		}
		want := fmt.Sprintf(`"dst_name": "f__aioconnectors_chunk_%d_3", "delete": false, "binary_offset": 3, "chunked": ["f__aioconnectors_chunk", %d, 3]`, i, i)
		if !strings.Contains(string(f.Header.Raw), want) || strings.Contains(string(f.Header.Raw), "file_") || string(f.Data) != "data" || !bytes.HasPrefix(f.Binary, []byte("own")) {
			t.Errorf("chunk %d: got %s", i, f.Header.Raw)
		}
		got = append(got, f.Binary[3:]...)
	}
	if !bytes.Equal(got, content) {
		t.Error("the content differs")
	}
}

// A Python client sends a file whole. It is not kept in memory.
func TestABigFileOfAPythonClient(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir), func(cfg *config.Config) { cfg.MaxMessageSize = 1 << 20 })
	in := s.receive(t, api.ReceiveOptions{})
	_, content := makeFile(t, "f", 5<<20)
	p := s.peer(t, "py")
	put := func(name string, n int) {
		t.Helper()
		h := `{"message_type": "any", "source_id": "py", "with_binary": true, "with_file": {"src_path": "/x", "dst_type": "pics", "dst_name": "` + name + `", "binary_offset": 3}}`
		b, err := wire.AppendFrame(nil, []byte(h), []byte("data"), append([]byte("own"), content...))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(b[:n+len(b)-len(content)]); err != nil {
			t.Fatal(err)
		}
	}
	put("f", len(content))
	put("../f", len(content)) // refused, and stepped over
	put("g", len(content))
	for i, m := range in.wait(t, 3) {
		a := parseArrived(t, m)
		want := dir + "/pics/py/" + []string{"f", "", "g"}[i]
		if i != 1 && a.Path != want || i == 1 && a.Error == "" || m.data != "data" || m.bin != "own" {
			t.Errorf("message %d: got %s %q", i, m.header, m.bin)
		}
	}
	holds(t, dir+"/pics/py/f", content, 0o640)
	put("half", len(content)/2) // and the link breaks
	p.Close()
	s.disconnected(t, "py")
	onlyFiles(t, dir, "pics/py/f", "pics/py/g")
	if n := in.len(); n != 3 {
		t.Errorf("got %d messages, want 3", n)
	}
}

func TestAFileOfAPythonClient(t *testing.T) {
	dir := newDir(t)
	s := server(t, stores(dir))
	in := s.receive(t, api.ReceiveOptions{})
	p := s.peer(t, "py")
	content := []byte("0123456789AB")
	for _, i := range []int{3, 1, 2} {
		h := fmt.Sprintf(`{"message_type": "any", "source_id": "py", "with_file": {"src_path": "/x", "dst_type": "pics", "dst_name": "b__aioconnectors_chunk_%d_3", "chunked": ["b__aioconnectors_chunk", %d, 3], "dst_path": "/etc/passwd"}, "with_binary": true}`, i, i)
		b, err := wire.AppendFrame(nil, []byte(h), nil, content[4*i-4:4*i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range in.wait(t, 3) {
		want := ""
		if i == 2 {
			want = dir + "/pics/py/b"
		}
		if a := parseArrived(t, m); a.Path != want || a.Error != "" || m.bin != "" || strings.Contains(m.header, "with_binary") {
			t.Errorf("chunk %d: got %s", i, m.header)
		}
	}
	holds(t, dir+"/pics/py/b", content, 0o640)
	onlyFiles(t, dir, "pics/py/b")
}
