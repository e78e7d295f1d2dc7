package chat

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
)

func TestTheWordListHas256DifferentWords(t *testing.T) {
	list := strings.Fields(wordList)
	if len(list) != 256 {
		t.Errorf("got %d words", len(list))
	}
	slices.Sort(list)
	if n := len(slices.Compact(slices.Clone(list))); n != len(list) {
		t.Errorf("only %d are different", n)
	}
	for _, w := range list {
		if len(w) < 3 || len(w) > 8 || strings.Trim(w, "abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("%q is no short word", w)
		}
	}
	// A list that changes would tell two ends that somebody is between.
	if got, want := spell([]byte{0, 1, 127, 128, 255}), "acid acorn frost galaxy velvet"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// tlsSession makes a TLS session between two ends and returns what each knows.
func tlsSession(t *testing.T, cert tls.Certificate, version uint16) (client, server tls.ConnectionState) {
	t.Helper()
	near, far := net.Pipe()
	a := tls.Client(near, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	b := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}})
	t.Cleanup(func() { near.Close(); far.Close() })
	done := make(chan error, 1)
	go func() {
		err := b.Handshake()
		if err == nil {
			_, err = b.Write([]byte("x"))
		}
		done <- err
	}()
	if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a.ConnectionState(), b.ConnectionState()
}

func TestBothEndsOfASessionHaveTheSameWordsAndNobodyElse(t *testing.T) {
	cert, err := ownCertificate("")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 { // who sits between has two sessions
		client, server := tlsSession(t, cert, 0)
		a, errA := sessionWords(&client)
		b, errB := sessionWords(&server)
		if errA != nil || errB != nil || a != b || len(strings.Fields(a)) != wordCount {
			t.Errorf("got %q, %v and %q, %v", a, errA, b, errB)
		}
		if seen[a] {
			t.Errorf("two sessions have the words %q", a)
		}
		seen[a] = true
		if got := keyOf(&client); got == "" || !strings.HasPrefix(got, "SHA256:") {
			t.Errorf("key: got %q", got)
		}
	}
	client, _ := tlsSession(t, cert, tls.VersionTLS12)
	if got, err := sessionWords(&client); err == nil {
		t.Errorf("TLS 1.2: got %q, want an error", got)
	}
}

func TestTextsOfOthersCannotDriveATerminal(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"plain", "hello, world", "hello, world"},
		{"unicode", "é 世界 😀", "é 世界 😀"},
		{"joined emoji", "👩\u200d🚀", "👩\u200d🚀"},
		{"a tab", "a\tb", "a    b"},
		{"colours", "\x1b[31mred", `\x1b[31mred`},
		{"a title", "\x1b]0;x\a", `\x1b]0;x\a`},
		{"C1", "\u009b31m", `\u009b31m`},
		{"C1 as a byte", "\x9b31m", `\x9b31m`},
		{"going back", "good\rbad", `good\rbad`},
		{"backspace", "a\bb", `a\bb`},
		{"bidi override", "a\u202eb", `a\u202eb`},
		{"bidi isolate", "a\u2066b", `a\u2066b`},
		{"zero width", "a\u200bb", `a\u200bb`},
		{"line separator", "a\u2028b", `a\u2028b`},
		{"not UTF-8", "a\xffb", `a\xffb`},
		{"accents", "e\u0301\u0323", "e\u0301\u0323"},
		{"a heap of marks", "e" + strings.Repeat("\u0301", marksMax+2) + "x\u0301", "e" + strings.Repeat("\u0301", marksMax) + `\u0301\u0301` + "x\u0301"},
		{"a heap of big ones", "e" + strings.Repeat("\U000e0100", marksMax+1), "e" + strings.Repeat("\U000e0100", marksMax) + `\U000e0100`},
		{"a heap of joiners", "e" + strings.Repeat("\u200d", marksMax+1), "e" + strings.Repeat("\u200d", marksMax) + `\u200d`},
	} {
		if got := safe(test.in); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
	if got, left := safeLines("a\r\nb\n\nc\n"); !slices.Equal(got, []string{"a", "b", "", "c"}) || left != 0 {
		t.Errorf("lines: got %q, %d", got, left)
	}
	if got, left := safeLines(strings.Repeat("x", textMax+5)); len(got) != 1 || len(got[0]) != textMax || left != 5 {
		t.Errorf("a text without end: %d are left out, want 5", left)
	}
}

func FuzzSafe(f *testing.F) {
	f.Add("\x1b[2J\u202e\u009b\xff\u200d\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range safe(s) {
			if !unicode.IsPrint(r) && !strings.ContainsRune(joiners, r) {
				t.Errorf("%q: got %U", s, r)
			}
		}
		if name, err := plainName(s); err == nil {
			if name == "" || strings.ContainsAny(name, "/\x00\\\n\x1b") || name[0] == '.' || name[0] == '-' || safe(name) != name {
				t.Errorf("name of %q: got %q", s, name)
			}
		}
		var u unstyled
		whole := u.text([]byte(s))
		var v unstyled
		parts := ""
		if !strings.Contains(s, "\b") {
			for i := range len(s) {
				parts += v.text([]byte{s[i]})
			}
			if parts != whole {
				t.Errorf("%q: in parts %q, at once %q", s, parts, whole)
			}
		}
	})
}

func TestNamesOfReceivedFiles(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"photo.jpg", "photo.jpg"},
		{"a b.txt", "a b.txt"},
		{"日本.txt", "日本.txt"},
		{"two\nlines", "two_lines"},
		{"\x1b[2J", "_[2J"},
		{"a\u202egpj.exe", "a_gpj.exe"},
		{`c:\evil`, "c:_evil"},
		{".bashrc", "_.bashrc"},
		{"..", "_.."},
		{".", "_."},
		{"-rf", "_-rf"},
		{" x ", "x"},
		{"e" + strings.Repeat("\u0301", marksMax+2), "e" + strings.Repeat("\u0301", marksMax) + "__"},
		{"bad\xffbyte", "bad_byte"},
		{strings.Repeat("n", maxName), strings.Repeat("n", maxName)},
	} {
		if got, err := plainName(test.in); err != nil || got != test.want {
			t.Errorf("%q: got %q, %v, want %q", test.in, got, err, test.want)
		}
	}
	for _, in := range []string{"", " ", "/", "/etc/passwd", "a/b", "../x", "a\x00b", strings.Repeat("n", maxName+1)} {
		if got, err := plainName(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func TestOutputOfAShellAsLines(t *testing.T) {
	var s shellText
	var lines []string
	for _, piece := range []string{"\x1b[?2004h$ ls\r\n\x1b[0", "1;34mdir\x1b[0m  fi", "le\r\n\x1b]0;title\a\x1b]8;;x\x1b\\$ ab\bc"} {
		lines = append(lines, s.add([]byte(piece))...)
	}
	lines = append(lines, s.flush())
	if want := []string{"$ ls", "dir  file", "$ ac"}; !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	if got := s.flush(); got != "" {
		t.Errorf("then %q", got)
	}
}

func TestTheKeyOfThisEndStaysTheSame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	key := func() string {
		t.Helper()
		cert, err := ownCertificate(dir)
		if err != nil {
			t.Fatal(err)
		}
		client, _ := tlsSession(t, cert, 0)
		return keyOf(&client)
	}
	first := key()
	if again := key(); again != first {
		t.Errorf("got %q, then %q", first, again)
	}
	path := filepath.Join(dir, keyFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ownCertificate(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: got %v", err)
	}
	if err := os.WriteFile(path, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ownCertificate(dir); err == nil || !strings.Contains(err.Error(), "no key in it") {
		t.Errorf("not a key: got %v", err)
	}
}

func TestKeysOfOthersAreRemembered(t *testing.T) {
	h := hosts{filepath.Join(t.TempDir(), "new", hostsFile)}
	if got, err := h.key("a:1"); got != "" || err != nil {
		t.Errorf("nothing known: got %q, %v", got, err)
	}
	for _, e := range []struct{ addr, key string }{{"a:1", "k1"}, {"b:1", "k2"}, {"a:1", "k3"}, {"[::1]:1", "k4"}} {
		if err := h.remember(e.addr, e.key); err != nil {
			t.Fatal(err)
		}
	}
	for addr, want := range map[string]string{"a:1": "k3", "b:1": "k2", "[::1]:1": "k4", "a:2": ""} {
		if got, err := h.key(addr); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", addr, got, err, want)
		}
	}
	text, err := os.ReadFile(h.path)
	if err != nil || string(text) != "b:1 k2\na:1 k3\n[::1]:1 k4\n" {
		t.Errorf("file: got %q, %v", text, err)
	}
	if info, err := os.Stat(h.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", info.Mode(), err)
	}
	if err := (hosts{}).remember("a:1", "k"); err != nil {
		t.Errorf("without a state directory: %v", err)
	}
	// A line that somebody has damaged hides none of the others.
	if err := os.WriteFile(h.path, []byte(strings.Repeat("x", 1<<20)+"\n\na:1\n"+string(text)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := h.key("a:1"); got != "k3" || err != nil {
		t.Errorf("behind a long line: got %q, %v, want k3", got, err)
	}
	if err := os.Chmod(h.path, 0o620); err != nil {
		t.Fatal(err)
	}
	if got, err := h.key("a:1"); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others can change: got %q, %v", got, err)
	}
}

func TestKeysOfOthersThatAreLearnedAtOnce(t *testing.T) {
	h := hosts{filepath.Join(t.TempDir(), "new", hostsFile)}
	var all sync.WaitGroup
	const n = 20
	for i := range n {
		all.Go(func() {
			if err := h.remember(fmt.Sprint("a:", i), "k"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range n {
		if got, err := h.key(fmt.Sprint("a:", i)); got != "k" || err != nil {
			t.Errorf("a:%d: got %q, %v", i, got, err)
		}
	}
}

func TestBars(t *testing.T) {
	began := time.Now()
	bar := func(name string, size, done int64, width int) string {
		tr := newTransfer(name, size, true)
		tr.began = began
		tr.done.Store(done)
		return tr.bar(began.Add(10*time.Second), width)
	}
	for _, test := range []struct{ got, want string }{
		{bar("photo.jpg", 1000e6, 250e6, 80), "sending photo.jpg [#####...............]  25%  25.0 MB/s 0:30"},
		{bar("photo.jpg", 1000, 1000, 80), "sending photo.jpg [####################] 100%    100 B/s 0:00"},
		{bar("empty", 0, 0, 80), "sending empty [####################] 100%      0 B/s -:--"},
		{bar("a-very-long-name-of-a-file.tar.gz", 100e9, 1e9, 60), "sending a-very-long-na..-a-file.tar.gz   1% 100.0 MB/s 16:30"},
		{bar("a-very-long-name-of-a-file.tar.gz", 100e9, 1e9, 35), "sending a-very-...tar.gz   1% 16:30"},
		{bar("a-very-long-name-of-a-file.tar.gz", 100e9, 1e9, 28), "sending a-very...tar.gz   1%"},
		{bar("a-very-long-name-of-a-file.tar.gz", 100e9, 1e9, 10), "1%"},
		{bar("chunks", -1, 5e6, 80), "sending chunks 5.0 MB"},
	} {
		if test.got != test.want {
			t.Errorf("\n got %q\nwant %q", test.got, test.want)
		}
	}
	for width := range 120 {
		if got := bar("a-very-long-name-of-a-file.tar.gz\x1b[2J", 1<<40, 1<<20, width); len([]rune(got)) > width || strings.Contains(got, "\x1b") {
			t.Errorf("width %d: got %q", width, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_999: "1.0 MB", 4 << 30: "4.3 GB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

// typeInto gives keys to a keyboard and returns what the line editor reads, one
// read at a time.
func typeInto(t *testing.T, pieces ...string) (reads []string, interrupts, enters int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k := &keyboard{in: r, interrupt: func() { interrupts++ }, enter: func() { enters++ }, wide: new(atomic.Bool)}
	go func() {
		defer w.Close()
		for _, p := range pieces {
			_, _ = w.WriteString(p)
		}
	}()
	for {
		buf := make([]byte, 256)
		n, err := k.Read(buf)
		if err != nil {
			return reads, interrupts, enters
		}
		reads = append(reads, string(buf[:n]))
	}
}

func TestTheKeyboard(t *testing.T) {
	for _, test := range []struct {
		name               string
		in                 string
		want               string
		interrupts, enters int
	}{
		{"letters", "abc", "abc", 0, 0},
		{"two lines", "ab\rcd\r", "ab\rcd\r", 0, 2},
		{"^C empties the line", "ab\x03", "ab\x05\x15", 1, 0},
		{"arrows", "\x1b[A\x1b[D", "\x1b[A\x1b[D", 0, 0},
		{"a paste of lines", "\x1b[200~a\nb\r\nc\td\x1b[201~", "\x1b[200~a\rb\rc    d\x1b[201~", 0, 2},
		{"a paste of control characters", "\x1b[200~a\x03\x1b[31mb\x04\x1b[201~\x04", "\x1b[200~a[31mb\x1b[201~\x04", 0, 0},
	} {
		reads, interrupts, enters := typeInto(t, test.in)
		if got := strings.Join(reads, ""); got != test.want || interrupts != test.interrupts || enters != test.enters {
			t.Errorf("%s: got %q, %d interrupts, %d lines; want %q, %d, %d", test.name,
				got, interrupts, enters, test.want, test.interrupts, test.enters)
		}
		for _, r := range reads {
			if i := strings.IndexByte(r, '\r'); i >= 0 && len(r) > 1 {
				t.Errorf("%s: the end of a line is not read alone: %q", test.name, r)
			}
		}
	}
	long := strings.Repeat("x", 100_000)
	reads, _, _ := typeInto(t, pasteStart, long, pasteEnd)
	if got := strings.Join(reads, ""); got != pasteStart+long+pasteEnd {
		t.Errorf("a long paste: got %d bytes", len(got))
	}
}

func TestTheLineEditorGoesHome(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := &homing{w}
	for _, s := range []string{"\x1b[12D\x1b[Kabc", "\x1b[D\x1b[K", "\x1b[3Dabc", "abc"} {
		if n, err := h.Write([]byte(s)); n != len(s) || err != nil {
			t.Errorf("%q: got %d, %v", s, n, err)
		}
	}
	w.Close()
	var out bytes.Buffer
	_, _ = io.Copy(&out, r)
	if want := "\r\x1b[Kabc\r\x1b[K\x1b[3Dabcabc"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestWordsOfACommand(t *testing.T) {
	for in, want := range map[string][]string{
		"a b":              {"a", "b"},
		`'a b' "c d" e\ f`: {"a b", "c d", "e f"},
		`a'b'"c"`:          {"abc"},
		`'\' ''`:           {`\`, ""},
		"":                 nil,
	} {
		if got, err := splitWords(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"'a", `a\`, `"`} {
		if got, err := splitWords(in); err == nil {
			t.Errorf("%q: got %q, want an error", in, got)
		}
	}
}

func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"photos/", "photo one.jpg", "pack.zip", ".hidden", "evil\x1b[2J", "ünï.txt", "ünö.txt", "it's one"} {
		var err error
		if d, ok := strings.CutSuffix(name, "/"); ok {
			err = os.Mkdir(filepath.Join(dir, d), 0o755)
		} else {
			err = os.WriteFile(filepath.Join(dir, name), nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var shown bytes.Buffer
	c := &chat{o: Options{Dir: dir}, ui: &plain{err: &shown}}
	for _, test := range []struct{ in, want, shown string }{
		{"!up", "!upload ", ""},
		{"!", "!", "!dezip   !exit   !help   !shell   !upload"},
		{"!upload pho", "!upload photo", ""},
		{"!upload photo", "!upload photo", "photo one.jpg  photos/"},
		{"!upload photo ", "!upload photo one.jpg", ""},
		{"!upload .h", "!upload .hidden", ""},
		{"!upload ü", "!upload ün", ""},
		{"!upload e", "!upload e", ""},
		{"!upload pack.zip .h", "!upload pack.zip .hidden", ""},
		{"!upload pack.zip photo\\ ", `!upload pack.zip photo\ one.jpg`, ""},
		{"!upload pack.zip it", `!upload pack.zip it\'s\ one`, ""},
		{"!upload pack.zip phot", "!upload pack.zip photo", ""},
		{"!upload pack.zip photo", "!upload pack.zip photo", "photo one.jpg  photos/"},
		{"!upload 'photo ", "!upload 'photo one.jpg'", ""},
		{"!upload 'a b' 'photos", "!upload 'a b' 'photos/", ""},
		{"!upload 'it", `!upload "it's one"`, ""},
		{`!upload "pho`, `!upload "photo`, ""},
		{`!upload 'photo`, `!upload 'photo`, "photo one.jpg  photos/"},
		{"!upload pack.zip nothing", "!upload pack.zip nothing", ""},
		{"!dezip ", "!dezip p", ""},
		{"!dezip pa", "!dezip pack.zip", ""},
		{"!cat x pac", "!cat x pack.zip", ""},
		{"!nothing", "!nothing", ""},
	} {
		shown.Reset()
		got, pos, ok := c.complete(test.in, len(test.in))
		if got != test.want || pos != len(test.want) || !ok {
			t.Errorf("%q: got %q, %d, %v, want %q", test.in, got, pos, ok, test.want)
		}
		if text := strings.TrimSpace(strings.TrimPrefix(shown.String(), ownMark)); text != test.shown {
			t.Errorf("%q: shown %q, want %q", test.in, text, test.shown)
		}
	}
	if _, _, ok := c.complete("text", 4); ok {
		t.Error("a text is completed")
	}
}
