package connector

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/wire"
)

// announcesChunks is what an end says that sends files ahead of their messages.
const announcesChunks = `{"message_type": "_ping", "await_response": true, "request_id": "aioc", "aioc": ["ackto", "flow", "chunk"], "source_id": %q}`

const (
	hex31 = "0123456789abcdef0123456789abcde"
	hex32 = hex31 + "f"
)

// sumABC is the SHA-256 of abc.
var sumABC = func() string {
	sum := sha256.Sum256([]byte("abc"))
	return hex.EncodeToString(sum[:])
}()

// fileHeader is the header of a message with a file of a peer called evil.
func fileHeader(withFile string) string {
	return `{"message_type": "any", "source_id": "evil", "with_file": ` + withFile + `}`
}

// offers offers a file of size bytes, with with_file of its message.
func (c *raw) offers(id, withFile string, size int64) {
	c.t.Helper()
	c.write(fmt.Sprintf(`{"message_type": "_file", "file": %q, "size": %d}`, id, size), fileHeader(withFile))
}

// answer waits for the answer to an offer, or to a chunk: a reason, or an offset.
func (c *raw) answer(id string) (reason, offset string) {
	c.t.Helper()
	for {
		h, _ := c.next()
		if got, _ := wire.Text(h.Field("file")); string(h.Type) == wire.TypeFileAck && got == id {
			reason, _ = wire.Text(h.Field("reason"))
			return reason, string(h.Field("offset"))
		}
	}
}

// answered waits for the answer and fails the test unless it has the reason, or,
// if that is "", the offset.
func (c *raw) answered(id, reason, offset string) {
	c.t.Helper()
	if r, o := c.answer(id); r != reason || reason == "" && o != offset {
		c.t.Errorf("got reason %q, offset %s, want %q, %s", r, o, reason, offset)
	}
}

// sends sends a message with a file in its binary part.
func (c *raw) sends(withFile, content string) {
	c.t.Helper()
	header := []byte(fileHeader(withFile))
	var bin []byte
	if content != "" {
		bin = []byte(content)
		header = wire.AppendEdited(nil, header, wire.Edit{Key: "with_binary", Value: []byte("true")})
	}
	b, err := wire.AppendFrame(nil, header, []byte("data"), bin)
	if err == nil {
		_, err = c.Write(b)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// quoted is a string as JSON.
func quoted(s string) string {
	text, _ := json.Marshal(s) // never fails
	return string(text)
}

// refusedNames are names under which no file lands.
var refusedNames = []string{
	`""`, `"."`, `".."`, `"/"`, `"//"`, `"./"`, `"../"`, `"./.."`, `"..//"`, `".././"`,
	`"../x"`, `"../../x"`, `"../../out/x"`, `"../../../../../../../../../../tmp/aioc-escaped"`, `"a/../../x"`, `"a/.."`,
	`"a/../b"`, `"./../x"`, `"x/../../../out/secret"`, `"..\/x"`, `"\u002e\u002e/x"`, `"..\u002fx"`,
	`"/x"`, `"/tmp/aioc-escaped"`, `"//tmp/aioc-escaped"`, `"/etc/passwd"`, `"/dev/null"`, `"/proc/self/mem"`, `"\/tmp/aioc-escaped"`,
	`"a\u0000b"`, `"\u0000"`, `"../x\u0000"`, `"ok\u0000/../../x"`, `"a\nb"`, `"a\rb"`, `"a\tb"`, `"\u001b[2J"`, `"a\u007f"`, `"a\u0085b"`, `"sub/a\nb"`, `"sub\n/a"`,
	`".aioc-x"`, `".aioc-` + hex32 + `.part"`, `".aioc-` + hex32 + `.done"`, `"sub/.aioc-` + hex32 + `.copy"`, `".aioc-` + hex32 + `-3-1.chunk"`,
	quoted(strings.Repeat("x", 256)), quoted("sub/" + strings.Repeat("x", 256)), quoted(strings.Repeat("\u00e9", 128)),
	quoted(strings.Repeat("x/", 600) + "x"), quoted(strings.Repeat("../", 300) + "x"), quoted(strings.Repeat("d/", 33) + "x"), quoted(strings.Repeat("y", 5000)),
	`7`, `null`, `["x"]`, `{"x": 1}`, `true`,
	// Through what is planted: see plant.
	`"abs/x"`, `"rel/x"`, `"up/x"`, `"up/up/x"`, `"root/tmp/aioc-escaped"`, `"loop/x"`, `"file/x"`, `"dangling/x"`, `"hard/x"`, `"fifo/x"`, `"null/x"`,
	`"abs/secret"`, `"rel/secret"`, `"dir/to-out/x"`, `"dir"`,
}

// brokenNames are no JSON, and end the link.
var brokenNames = []string{"\"a\xff\"", "\"\xc0\xae\xc0\xae/x\"", "\"sub/\xff\"", "\"a\nb\"", "\"a\x00b\"", `"..`, `'x'`, `"\x2e\x2e/x"`}

// plainNames look odd and are names like others.
var plainNames = map[string]string{
	`"-rf"`: "-rf", `"--"`: "--", `"~"`: "~", `"~root/x"`: "~root/x", `"$HOME/x"`: "$HOME/x", `"a b"`: "a b", `" "`: " ", `"..."`: "...",
	`"a\\..\\b"`: `a\..\b`, `"C:\\x"`: `C:\x`, `"con"`: "con", `"nul.txt"`: "nul.txt", `"x:y"`: "x:y", `"*"`: "*", `"a;id"`: "a;id", `"{tag}"`: "{tag}",
	`"sub//y"`: "sub/y", `"./z"`: "z", `"w/"`: "w", `"dir/./v"`: "dir/v", quoted("gr\u00fc\u00dfe"): "gr\u00fc\u00dfe", `"\udc80/\ud83d"`: "\ufffd/\ufffd",
}

// plantedNames are things that lie in the way of a file: it lands only where
// existing files are replaced.
var plantedNames = []string{"abs", "rel", "up", "root", "loop", "file", "dangling", "hard", "fifo", "null"}

// plant puts into dir what somebody who may write there could, to lead files out
// of it.
func plant(t *testing.T, dir, outside string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"abs": outside, "rel": "../../../out", "up": "..", "root": "/", "loop": "loop", "file": outside + "/secret",
		"dangling": outside + "/new", "null": "/dev/null", "dir/to-out": outside,
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(outside+"/secret", filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
}

// A peer that is let in, and hostile, names files in every way: nothing is
// written outside of the target directory, whether it speaks as the original or
// as this toolkit.
func TestAHostilePeersFilesStayInTheirDirectory(t *testing.T) {
	if n := len(refusedNames); n < 60 {
		t.Errorf("%d names, want 60", n)
	}
	top := newDir(t)
	outside := top + "/out"
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside+"/secret", []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := server(t, func(cfg *config.Config) {
		cfg.FileTargets = map[string]config.FileTarget{}
		for _, way := range []string{"python", "inside", "ahead"} {
			for kind, override := range map[string]bool{"new": false, "over": true} {
				dir := top + "/in/" + way + "/" + kind
				plant(t, dir, outside)
				cfg.FileTargets[way+kind] = config.FileTarget{Directory: dir, Override: override}
			}
		}
	})
	in := s.receive(t, api.ReceiveOptions{})
	python, aioc := s.peer(t, "python"), s.peer(t, "evil")
	aioc.write(fmt.Sprintf(announcesChunks, "evil"), "")
	n := 0
	ids := 0
	send := func(way, kind, name string) (a arrived) {
		t.Helper()
		file := fmt.Sprintf(`{"src_path": "/etc/passwd", "dst_type": %q, "dst_name": %s, "delete": false, "binary_offset": 0`, way+kind, name)
		ids++
		id := fmt.Sprintf("%032x", ids)
		sent := fmt.Sprintf(`, "transfer": [%q, 3, %q]}`, id, sumABC)
		switch way {
		case "python":
			h := strings.Replace(fileHeader(file+"}"), `"evil"`, `"python"`, 1)
			b, err := wire.AppendFrame(nil, wire.AppendEdited(nil, []byte(h), wire.Edit{Key: "with_binary", Value: []byte("true")}), []byte("data"), []byte("abc"))
			if err == nil {
				_, err = python.Write(b)
			}
			if err != nil {
				t.Fatal(err)
			}
		case "inside":
			aioc.sends(file+sent, "abc")
		case "ahead":
			aioc.offers(id, file+"}", 3)
			if reason, _ := aioc.answer(id); reason == "" {
				aioc.write(fmt.Sprintf(`{"message_type": "_chunk", "file": %q, "offset": 0}`, id), "abc")
				aioc.write(fmt.Sprintf(`{"message_type": "_chunk", "file": %q, "offset": 3, "sum": %q}`, id, sumABC), "")
				aioc.answered(id, "", "3")
			}
			aioc.sends(file+sent, "") // whatever it was told
		}
		n++
		return parseArrived(t, in.wait(t, n)[n-1])
	}
	for _, way := range []string{"python", "inside", "ahead"} {
		for _, kind := range []string{"new", "over"} {
			dir := top + "/in/" + way + "/" + kind
			before := namesBelow(t, dir)
			for _, name := range refusedNames {
				if a := send(way, kind, name); a.Path != "" || a.Error == "" {
					t.Errorf("%s, %s, %.40s: got %+v, want it refused", way, kind, name, a)
				}
			}
			if got := namesBelow(t, dir); !slices.Equal(got, before) {
				t.Errorf("%s, %s: files that are refused left something: got %q, had %q", way, kind, got, before)
			}
			for name, want := range plainNames {
				a := send(way, kind, name)
				if a.Path != dir+"/"+want {
					t.Errorf("%s, %s, %s: got %+v, want %q", way, kind, name, a, want)
					continue
				}
				holds(t, a.Path, []byte("abc"), 0o640)
			}
			for _, name := range plantedNames {
				a := send(way, kind, quoted(name))
				if (a.Path == dir+"/"+name) != (kind == "over") {
					t.Errorf("%s, %s, %s is there: got %+v", way, kind, name, a)
				}
				if info, err := os.Lstat(dir + "/" + name); err != nil || info.Mode().IsRegular() != (kind == "over" || name == "hard") {
					t.Errorf("%s, %s: %s is %v, %v", way, kind, name, info.Mode(), err)
				}
			}
			for _, name := range namesBelow(t, dir) {
				if strings.Contains(name, ".aioc-") && !strings.Contains(name, ".done") {
					t.Errorf("%s, %s: %s is left", way, kind, name)
				}
			}
		}
	}
	for _, name := range brokenNames {
		file := `{"dst_type": "pythonnew", "dst_name": ` + name + `}`
		for _, header := range []string{fileHeader(file), `{"message_type": "_file", "file": "` + hex32 + `", "size": 3}`} {
			p := s.peer(t, "evil2")
			p.write(fmt.Sprintf(announcesChunks, "evil2"), "")
			p.write(header, fileHeader(file))
			p.closed()
		}
	}
	if got := in.len(); got != n {
		t.Errorf("%d messages, want %d", got, n)
	}
	if got := namesBelow(t, outside); !slices.Equal(got, []string{"secret"}) {
		t.Errorf("outside: got %q", got)
	}
	holds(t, outside+"/secret", []byte("secret"), 0o600)
	if got, want := dirNames(t, top), []string{"in", "out"}; !slices.Equal(got, want) {
		t.Errorf("above: got %q, want %q", got, want)
	}
	if got, want := dirNames(t, top+"/in"), []string{"ahead", "inside", "python"}; !slices.Equal(got, want) {
		t.Errorf("above: got %q, want %q", got, want)
	}
	for _, way := range dirNames(t, top+"/in") {
		if got, want := dirNames(t, top+"/in/"+way), []string{"new", "over"}; !slices.Equal(got, want) {
			t.Errorf("above %s: got %q, want %q", way, got, want)
		}
	}
	for _, path := range []string{"/tmp/aioc-escaped", "/x"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}

// namesBelow lists what is below a directory.
func namesBelow(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// dirNames lists a directory.
func dirNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
