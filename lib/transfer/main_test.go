package transfer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/wire"
)

// header returns a parsed header.
func header(t *testing.T, text string) *wire.Header {
	t.Helper()
	h := new(wire.Header)
	if err := h.Parse([]byte(text)); err != nil {
		t.Fatalf("header %s: %v", text, err)
	}
	return h
}

// open opens the place base for files, without placeholders.
func open(t *testing.T, base string, r Rules) *Dir {
	t.Helper()
	if r.Max == 0 {
		r.Max = 1 << 20
	}
	d, err := Open(Place{Base: base}, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// land puts content under a name.
func land(t *testing.T, d *Dir, name, content string) (string, error) {
	t.Helper()
	s, err := d.Create()
	if err != nil {
		return "", err
	}
	if _, err := s.Write([]byte(content)); err != nil {
		s.Discard()
		return "", err
	}
	path, err := s.Land(name)
	if err != nil {
		s.Discard()
	}
	return path, err
}

// reason is that of an *Error, "" for no error.
func reason(err error) string {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Reason
	}
	return "not an *Error: " + err.Error()
}

// tree lists what is below a directory: names of directories end with a slash,
// files have their content behind an equals sign.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case e.IsDir():
			name += "/"
		case e.Type().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name += "=" + string(content)
		default:
			name += "@"
		}
		list = append(list, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

// unhex decodes a frame of the test data.
func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// capture is what a Python sender wrote, and what its receiver made of it.
type capture struct {
	Name   string
	Frames []string
	Files  map[string]string
}

func captures(t *testing.T) (list []capture) {
	t.Helper()
	text, err := os.ReadFile("testdata/files.json")
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What a Python sender writes lands as its own receiver would have it, but for
// the defects of that one.
func TestFramesOfAPythonSenderLand(t *testing.T) {
	better := map[string]struct{ file, own string }{
		// The original gave the file the program's binary.
		"file_empty_with_binary": {"any/client1/e2.txt=", "\x01\x02\x03"},
		"file_error_with_binary": {"", "\x01\x02\x03"},
		"file_with_binary":       {"any/client1/c.txt=FILE CONTENT\n", "\x01\x02\x03"},
		"file_chunked_11":        {"any/client1/eleven.bin=00112233445566778899AA", ""},
		"file_chunked_exact":     {"any/client1/one.bin=01234", ""},
	}
	for _, c := range captures(t) {
		base := t.TempDir()
		want, own := "", ""
		for name, content := range c.Files {
			want = name + "=" + string(unhex(t, content))
		}
		if b, ok := better[c.Name]; ok {
			want, own = b.file, b.own
		}
		for _, text := range c.Frames {
			f, err := wire.ParseFrame(unhex(t, text))
			if err != nil {
				t.Fatal(err)
			}
			file, err := Parse(f.Header.WithFile)
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
				continue
			}
			mine, content := file.Split(f.Header, f.Binary)
			if string(mine) != own {
				t.Errorf("%s: got binary %q for the program, want %q", c.Name, mine, own)
			}
			place, err := Find(base+"/{message_type}/{source_id}/", f.Header, &file)
			if c.Name == "file_traversal" {
				if reason(err) != "name" {
					t.Errorf("%s: got %v, want it refused", c.Name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
				continue
			}
			if file.Error != "" {
				continue
			}
			d, err := Open(place, Rules{Max: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			s, err := d.Create()
			if err == nil {
				_, err = s.Write(content)
			}
			if err == nil && file.Chunk != nil {
				_, err = s.Add(StageID("client1", place.Name), file.Chunk, place.Name)
			} else if err == nil {
				_, err = s.Land(place.Name)
			}
			if err != nil {
				t.Errorf("%s: %v", c.Name, err)
			}
			d.Close()
		}
		got := tree(t, base)
		for _, dir := range []string{"any/ ", "any/client1/ ", "any/('127.0.0.1', 20001)/ "} {
			got = strings.Replace(got, dir, "", 1)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", c.Name, got, want)
		}
	}
}

func TestWithFileIsReadAndWritten(t *testing.T) {
	for _, test := range []struct {
		text string
		want File
		err  bool
	}{
		{`{"src_path": "/a", "dst_type": "t", "dst_name": "n", "delete": false}`, File{Source: "/a", Type: "t", Name: "n", Keep: true, offset: -1, hasSource: true}, false},
		{`{"dst_name": "n", "binary_offset": 3, "owner": "a:b"}`, File{Name: "n", Owner: "a:b", offset: 3}, false},
		{`{"binary_offset": -3, "delete": 0}`, File{Keep: true, offset: -1}, false},
		{`{"file_error": "gone"}`, File{Error: "gone", offset: -1}, false},
		{`{"file_error": 5}`, File{Error: "the sender had an error", offset: -1}, false},
		{`{"file_error": ""}`, File{offset: -1}, false},
		{`{"chunked": ["x", 0, 3]}`, File{offset: -1, chunkBad: true}, true},
		{`{"chunked": ["x", 4, 3]}`, File{offset: -1, chunkBad: true}, true},
		{`{"chunked": ["x", 1]}`, File{offset: -1, chunkBad: true}, true},
		{`{"chunked": {"x": 1}}`, File{offset: -1, chunkBad: true}, true},
		{`{"chunked": []}`, File{offset: -1}, false},
		{`{"transfer": ["../../../../etc/passwd0000000000", 1, "x"]}`, File{offset: -1}, false},
		{`"text"`, File{offset: -1}, true},
		{`[1]`, File{offset: -1}, true},
	} {
		got, err := Parse([]byte(test.text))
		if got.Chunk != nil || got != test.want || (err != nil) != test.err {
			t.Errorf("%s: got %+v, %v, want %+v, error %v", test.text, got, err, test.want, test.err)
		}
	}
	id, sum := strings.Repeat("a1", 16), strings.Repeat("b2", 32)
	f, err := Parse([]byte(`{"chunked": ["n__aioconnectors_chunk", 2, 10], "transfer": ["` + id + `", 77, "` + sum + `"]}`))
	if err != nil || *f.Chunk != (Chunk{"n__aioconnectors_chunk", 2, 10}) || *f.Sent != (Sent{id, 77, sum}) || f.Chunk.Whole() != "n" {
		t.Errorf("got %+v, %v", f, err)
	}
	if got, want := string(Piece([]byte(`{"dst_name": "n", "delete": false}`), "n", 7, 41)),
		`{"dst_name": "n__aioconnectors_chunk_07_41", "delete": false, "chunked": ["n__aioconnectors_chunk", 7, 41]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, test := range []struct{ text, stored, failure, want string }{
		{`{"dst_name": "n", "transfer": [1]}`, "/d/n", "", `{"dst_name": "n", "dst_path": "/d/n"}`},
		{`{"dst_name": "n", "dst_path": "/etc/passwd"}`, "", "no \"x\"", `{"dst_name": "n", "file_error": "no \"x\""}`},
		{`"text"`, "", "no", `{"file_error": "no"}`},
	} {
		if got := string(Note([]byte(test.text), test.stored, test.failure)); got != test.want {
			t.Errorf("%s: got %s, want %s", test.text, got, test.want)
		}
	}
}

func TestBinaryIsDividedBetweenProgramAndFile(t *testing.T) {
	for _, test := range []struct {
		name, header, bin, own, file string
	}{
		{"an offset", `{"with_file": {"dst_name": "n", "binary_offset": 2}, "with_binary": true}`, "abcd", "ab", "cd"},
		{"an offset of 0 counts, whatever the order", `{"with_binary": true, "with_file": {"dst_name": "n", "binary_offset": 0}}`, "abcd", "", "abcd"},
		{"an offset beyond the end", `{"with_file": {"dst_name": "n", "binary_offset": 99}, "with_binary": true}`, "abcd", "abcd", ""},
		{"the connector added with_binary", `{"with_file": {"dst_name": "n"}, "with_binary": true}`, "abcd", "", "abcd"},
		{"the program had a binary, the file is empty", `{"with_binary": true, "with_file": {"dst_name": "n"}}`, "abcd", "abcd", ""},
		{"nothing", `{"with_file": {"dst_name": "n"}}`, "", "", ""},
	} {
		h := header(t, test.header)
		f, err := Parse(h.WithFile)
		if err != nil {
			t.Fatal(err)
		}
		own, file := f.Split(h, []byte(test.bin))
		if string(own) != test.own || string(file) != test.file {
			t.Errorf("%s: got %q and %q, want %q and %q", test.name, own, file, test.own, test.file)
		}
		if !bytes.Equal(append(own, "x"...)[:len(own)], own) || len(test.bin) > len(test.own) && test.bin[len(test.own)] == 'x' {
			t.Errorf("%s: the program's part can grow into the file's", test.name)
		}
	}
}
