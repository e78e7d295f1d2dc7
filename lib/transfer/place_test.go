package transfer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTargetDirectoryIsFilledIn(t *testing.T) {
	t.Setenv("HOME", "/home/{me}")
	t.Setenv("AIOC_TEST", "/srv/x")
	h := `{"message_type": "any", "source_id": "('127.0.0.1', 10673)", "destination_id": "c1", "tag": "t:1", "request_id": 7, "response_id": "r"}`
	for _, test := range []struct{ template, base, sub string }{
		{"/data", "/data", ""},
		{"/data/", "/data", ""},
		{"/data//x/../y/.", "/data/y", ""},
		{"/data/{message_type}/{source_id}/", "/data", "any|('127.0.0.1', 10673)"},
		{"/data/{message_type}-{tag}/in", "/data", "any-t:1|in"},
		{"/data/{request_id}/{response_id}", "/data", "7|r"},
		{"/data/{destination_id}/./{with_file[dst_type]}", "/data", "c1|ty"},
		{"/data/{with_file[dst_name]}", "/data", "n"},
		{"/data/{{x}}", "/data/{x}", ""},
		{"/dätä/{tag}", "/dätä", "t:1"},
		{"~/in/{tag}", "/home/{me}/in", "t:1"},
		{"$AIOC_TEST/in", "/srv/x/in", ""},
		{"/a/$AIOC_NOT_SET/b", "/a/$AIOC_NOT_SET/b", ""},
		{"/{tag}", "/", "t:1"},
	} {
		p, err := Find(test.template, header(t, h), &File{Name: "n", Type: "ty"})
		if err != nil || p.Base != test.base || strings.Join(p.Sub, "|") != test.sub {
			t.Errorf("%s: got %+v, %v, want %s and %s", test.template, p, err, test.base, test.sub)
		}
		if got := Base(test.template); got != test.base {
			t.Errorf("%s: got base %s, want %s", test.template, got, test.base)
		}
	}
}

func TestAMessageCannotLeadOutOfTheTargetDirectory(t *testing.T) {
	for _, test := range []struct{ template, header string }{
		{"/data/{tag}", `{}`},
		{"/data/{tag}", `{"tag": null}`},
		{"/data/{tag}", `{"tag": ["x"]}`},
		{"/data/{tag}", `{"tag": true}`},
		{"/data/{tag}", `{"tag": 1e5}`},
		{"/data/{tag}", `{"tag": ""}`},
		{"/data/{tag}", `{"tag": "."}`},
		{"/data/{tag}", `{"tag": ".."}`},
		{"/data/{tag}{tag}", `{"tag": "."}`},
		{"/data/.{tag}", `{"tag": "."}`},
		{"/data/{tag}", `{"tag": "../x"}`},
		{"/data/{tag}", `{"tag": "a/b"}`},
		{"/data/{tag}", `{"tag": "/etc"}`},
		{"/data/{tag}", `{"tag": "a\u0000b"}`},
		{"/data/{tag}", `{"tag": "a\nb"}`},
		{"/data/{tag}", `{"tag": ".aioc-x"}`},
		{"/data/{tag}", `{"tag": "` + strings.Repeat("x", 256) + `"}`},
		{"/data/{tag}/../..", `{"tag": "x"}`},
		{"/data/{other}", `{"tag": "x"}`},
		{"/data/{tag", `{"tag": "x"}`},
		{"/data/{source_id}", `{"source_id": "../f_spoof"}`},
		{"/data/{with_file[src_path]}", `{"with_file": {"src_path": "x"}}`},
	} {
		p, err := Find(test.template, header(t, test.header), &File{Name: "n"})
		if reason(err) != "directory" {
			t.Errorf("%s with %s: got %+v, %v, want it refused", test.template, test.header, p, err)
		}
	}
}

// goodNames are names that land, and as what.
var goodNames = map[string]string{
	"a.txt":                      "a.txt",
	"sub/a.txt":                  "sub/a.txt",
	"sub//a.txt":                 "sub/a.txt",
	"./a.txt":                    "a.txt",
	"a/":                         "a",
	"a/./b":                      "a/b",
	"~root":                      "~root",
	"~":                          "~",
	"$HOME/x":                    "$HOME/x",
	"${HOME}":                    "${HOME}",
	"-rf":                        "-rf",
	"a b":                        "a b",
	" ":                          " ",
	"...":                        "...",
	".hidden":                    ".hidden",
	"a\\..\\b":                   "a\\..\\b",
	"C:\\x":                      "C:\\x",
	"con":                        "con",
	"*":                          "*",
	"a;rm -rf":                   "a;rm -rf",
	"`id`":                       "`id`",
	"grüße":                      "grüße",
	strings.Repeat("x", maxPart): strings.Repeat("x", maxPart),
}

// badNames are refused.
var badNames = []string{
	"", ".", "..", "/", "//", "./", "../", "./.", "./..",
	"../x", "../../x", "../../../../../../../../etc/passwd",
	"a/..", "a/../", "a/../b", "a/../../b", "a/b/../../../c", "./../x", ".//../x", "a/..//../x",
	"/x", "/etc/passwd", "//etc/passwd", "///x", "/../x", "/./x", "/dev/null", "/proc/self/mem",
	"a\x00b", "\x00", "a\x00/../../b", "../\x00",
	"a\nb", "\n", "a\rb", "a\tb", "\x1b[2J", "a\x7f", "a\u0085b", "a\u009bb", "sub/a\nb", "sub\n/a",
	"a\xffb", "\xc0\xae\xc0\xae/x", "\xe0\x80\xae/x",
	".aioc-x", ".aioc-" + hex32 + ".part", "sub/.aioc-" + hex32 + ".done", ".aioc-" + hex32 + "-3-1.chunk", ".aioc-a/b",
	strings.Repeat("x", 256), "sub/" + strings.Repeat("x", 256), strings.Repeat("x", 256) + "/a",
	strings.Repeat("x/", 600) + "x", strings.Repeat("a/", 33) + "x", strings.Repeat("../", 300) + "x",
	strings.Repeat("x", 4097), "..\x00", "x/..\n", strings.Repeat("\u00e9", 128),
}

const hex32 = "0123456789abcdef0123456789abcdef"

func TestNamesThatAreRefused(t *testing.T) {
	if len(badNames) < 60 {
		t.Errorf("%d names, want 60", len(badNames))
	}
	for _, name := range badNames {
		if p, err := Find("/data", header(t, "{}"), &File{Name: name}); reason(err) != "name" {
			t.Errorf("%.40q: got %+v, %v, want it refused", name, p, err)
		}
		// As a chunk the name is that of the whole.
		c := &Chunk{Base: name + chunkMark, Index: 1, Count: 1}
		if p, err := Find("/data", header(t, "{}"), &File{Name: "ok", Chunk: c}); reason(err) != "name" {
			t.Errorf("chunk of %.40q: got %+v, %v, want it refused", name, p, err)
		}
	}
	for name, want := range goodNames {
		if p, err := Find("/data", header(t, "{}"), &File{Name: name}); err != nil || p.Path() != "/data/"+want {
			t.Errorf("%.40q: got %s, %v, want %s", name, p.Path(), err, want)
		}
	}
}

// Whatever Find says, nothing is made outside.
func TestHostileNamesLandInside(t *testing.T) {
	top := t.TempDir()
	base := filepath.Join(top, "a", "in")
	d := open(t, base, Rules{})
	for _, name := range badNames {
		_, _ = land(t, d, name, "x") // as if Find had let it through
	}
	for name := range goodNames {
		_, _ = land(t, d, name, "x")
	}
	for _, dir := range []string{top, filepath.Dir(base)} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: got %v, %v, want one directory", dir, entries, err)
		}
	}
	for _, name := range []string{"/etc/.aioc-x", "/x"} {
		if _, err := os.Lstat(name); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

func TestAHookNamesAnotherDirectory(t *testing.T) {
	p := Place{Base: "/data", Sub: []string{"c1"}, Name: "n"}
	for dir, want := range map[string]string{
		"x": "/data/c1/x/n", "x/y/": "/data/c1/x/y/n", "/other//z": "/other/z/n", ".": "/data/c1/n", "": "/data/c1/n", "../y": "/data/y/n",
	} {
		if got := p.Below(dir).Path(); got != want {
			t.Errorf("%q: got %s, want %s", dir, got, want)
		}
	}
	if p.Path() != "/data/c1/n" {
		t.Errorf("the place itself changed: %s", p.Path())
	}
}
