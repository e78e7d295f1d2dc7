package transfer

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAFileLandsWithItsModeAndNothingElseIsLeft(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	for _, test := range []struct{ mode, file, dir fs.FileMode }{
		{0, 0o640, 0o750}, {0o600, 0o600, 0o700}, {0o644, 0o644, 0o755}, {0o660, 0o660, 0o770},
	} {
		base := filepath.Join(t.TempDir(), "x", "y")
		d := open(t, base, Rules{Mode: test.mode})
		path, err := land(t, d, "s1/s2/f", "content")
		if err != nil || path != base+"/s1/s2/f" {
			t.Fatalf("got %s, %v", path, err)
		}
		if got, want := tree(t, base), "s1/ s1/s2/ s1/s2/f=content"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		for name, want := range map[string]fs.FileMode{"s1/s2/f": test.file, "s1/s2": fs.ModeDir | test.dir, "s1": fs.ModeDir | test.dir, ".": fs.ModeDir | test.dir, "..": fs.ModeDir | test.dir} {
			if info, err := os.Stat(filepath.Join(base, name)); err != nil || info.Mode() != want {
				t.Errorf("%s: got %v, %v, want %v", name, info.Mode(), err, want)
			}
		}
	}
}

func TestAnExistingFileIsReplacedOnlyWhereThatIsAllowed(t *testing.T) {
	base := t.TempDir()
	d := open(t, base, Rules{})
	for range 2 {
		if _, err := land(t, d, "f", "old"); err != nil && reason(err) != "exists" {
			t.Fatal(err)
		}
	}
	if _, err := land(t, d, "f", "new"); reason(err) != "exists" {
		t.Errorf("without override: got %v, want it refused", err)
	}
	if got := tree(t, base); got != "f=old" {
		t.Errorf("without override: got %q", got)
	}
	d = open(t, base, Rules{Override: true})
	if _, err := land(t, d, "f", "new"); err != nil {
		t.Errorf("with override: got %v", err)
	}
	if err := os.Mkdir(filepath.Join(base, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := land(t, d, "dir", "x"); reason(err) != "exists" {
		t.Errorf("a directory: got %v, want it refused", err)
	}
	if _, err := land(t, d, "f/x", "x"); err == nil {
		t.Error("below a file: got no error")
	}
	if got := tree(t, base); got != "dir/ f=new" {
		t.Errorf("got %q", got)
	}
	// What comes between the look and the end counts too.
	d = open(t, base, Rules{})
	s, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("f", filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	if err := s.publish("link"); err == nil {
		t.Error("over a link: got no error")
	}
	s.Discard()
	if got := tree(t, base); got != "dir/ f=new link@" {
		t.Errorf("got %q", got)
	}
}

func TestWhatIsTooBigIsRefused(t *testing.T) {
	base := t.TempDir()
	d := open(t, base, Rules{Max: 4})
	if _, err := land(t, d, "f", "12345"); reason(err) != "size" {
		t.Errorf("got %v, want size", err)
	}
	if _, err := land(t, d, "f", "1234"); err != nil {
		t.Errorf("exactly: %v", err)
	}
	s, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{5, -1, 1 << 62} {
		if err := s.Skip(n); reason(err) != "size" {
			t.Errorf("a hole of %d: got %v, want size", n, err)
		}
	}
	s.Discard()
	if got := tree(t, base); got != "f=1234" {
		t.Errorf("got %q", got)
	}
}

func TestATransferGoesOnWhereItEnded(t *testing.T) {
	base := t.TempDir()
	d := open(t, base, Rules{})
	id := StageID("peer", "id")
	s, err := d.Resume(id)
	if err != nil || s.Offset() != 0 {
		t.Fatalf("new: got %d, %v", s.Offset(), err)
	}
	write := func(s *Stage, text string) {
		t.Helper()
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(s, "abc")
	if err := s.Skip(2); err != nil {
		t.Fatal(err)
	}
	s.Close() // as a crash does
	d.Close()
	d = open(t, base, Rules{})
	if _, err := d.Sealed(id); reason(err) != "missing" {
		t.Errorf("not complete: got %v, want missing", err)
	}
	if s, err = d.Resume(id); err != nil || s.Offset() != 5 {
		t.Fatalf("again: got %d, %v, want 5", s.Offset(), err)
	}
	write(s, "def")
	got := s.Sum()
	s.Close()
	whole, err := d.Create()
	if err != nil {
		t.Fatal(err)
	}
	write(whole, "abc\x00\x00def")
	if _, err := whole.Land("f"); err != nil {
		t.Fatal(err)
	}
	if !d.Has("f", 8, got) || d.Has("f", 7, got) || d.Has("f", 8, strings.Repeat("0", 64)) || d.Has("g", 8, got) || d.Has(".", 8, got) {
		t.Errorf("a file with sum %s is not told from others", got)
	}
	if s, err = d.Resume(id); err != nil || s.Offset() != 8 {
		t.Fatalf("got %d, %v, want 8", s.Offset(), err)
	}
	if err := s.Restart(); err != nil || s.Offset() != 0 {
		t.Fatal(err)
	}
	write(s, "new")
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = d.Sealed(id); err != nil || s.Offset() != 3 {
		t.Fatalf("sealed: got %v", err)
	}
	if _, err := s.Land("g"); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, base), "f=abc\x00\x00def g=new"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if StageID("a", "b") == StageID("b", "a") || !ValidID(id) {
		t.Error("stages of different peers meet")
	}
}

func TestChunksInAnyOrderMakeTheFile(t *testing.T) {
	whole := "00112233445566778899AA"
	orders := [][]int{
		{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
		{11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
		{10, 1, 11, 2, 9, 3, 8, 4, 7, 5, 6},
		{1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11}, // some twice
	}
	for _, order := range orders {
		base := t.TempDir()
		for k, i := range order {
			d := open(t, base, Rules{}) // each time as after a restart
			s, err := d.Create()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte(whole[2*i-2 : 2*i])); err != nil {
				t.Fatal(err)
			}
			stored, err := s.Add(hex32, &Chunk{"f" + chunkMark, i, 11}, "sub/f")
			last := k == len(order)-1
			if err != nil || (stored != "") != last || last && stored != base+"/sub/f" {
				t.Fatalf("%v: chunk %d: got %q, %v", order, i, stored, err)
			}
			if _, err := os.Lstat(filepath.Join(base, "sub/f")); (err == nil) != last {
				t.Fatalf("%v: after chunk %d the file is visible: %v", order, i, err == nil)
			}
			d.Close()
		}
		if got, want := tree(t, base), "sub/ sub/f="+whole; got != want {
			t.Errorf("%v: got %q, want %q", order, got, want)
		}
	}
}

func TestChunksOfAnEarlierAttemptAreNotMixedIn(t *testing.T) {
	base := t.TempDir()
	d := open(t, base, Rules{Max: 6})
	add := func(content string, i, count int) (string, error) {
		t.Helper()
		s, err := d.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		return s.Add(hex32, &Chunk{"f" + chunkMark, i, count}, "f")
	}
	for _, step := range []struct {
		content  string
		i, count int
		reason   string
		files    int // that are not complete
	}{
		{"o1", 1, 3, "", 1},
		{"o2", 2, 3, "", 2},
		{"n1", 1, 3, "", 1}, // anew
		{"n2", 2, 3, "", 2},
		{"xxxxx", 3, 3, "size", 0},
		{"n1", 1, 3, "", 1},
		{"n2", 2, 3, "", 2},
		{"n3", 3, 3, "", 1}, // complete
		{"z", 1, 2, "exists", 1},
		{"z", 1, maxChunks + 1, "size", 1},
	} {
		_, err := add(step.content, step.i, step.count)
		entries, _ := os.ReadDir(base)
		if reason(err) != step.reason || len(entries) != step.files {
			t.Fatalf("%+v: got %v and %v", step, err, entries)
		}
	}
	if got := tree(t, base); got != "f=n1n2n3" {
		t.Errorf("got %q", got)
	}
}

// age makes all that is there of a stage as old as that.
func age(t *testing.T, base, id string, old time.Duration) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(base, ownPrefix+id+"*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("nothing of %s: %v", id, err)
	}
	at := time.Now().Add(-old)
	for _, name := range names {
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

// there reports whether something of a stage is.
func there(base, id string) bool {
	names, _ := filepath.Glob(filepath.Join(base, ownPrefix+id+"*"))
	return len(names) > 0
}

func TestTheOldestFileOfAPeerThatIsNotCompleteGivesWayToItsNext(t *testing.T) {
	base := t.TempDir()
	d := open(t, base, Rules{})
	begin := func(id string) {
		t.Helper()
		s, err := d.Resume(id)
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	other := StageID("other", "0")
	begin(other)
	age(t, base, other, 24*time.Hour)
	sealed := StageID("p", "sealed")
	s, err := d.Resume(sealed)
	if err == nil {
		err = s.Seal()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	age(t, base, sealed, 24*time.Hour)
	chunked := StageID("p", "chunked")
	for i, old := range []time.Duration{20 * time.Hour, 210 * time.Minute} {
		c, err := d.Create()
		if err == nil {
			_, err = c.Add(chunked, &Chunk{"f" + chunkMark, i + 1, 3}, "f")
		}
		if err != nil {
			t.Fatal(err)
		}
		names, _ := filepath.Glob(filepath.Join(base, ownPrefix+chunked+"*"))
		at := time.Now().Add(-old)
		if err := os.Chtimes(names[i], at, at); err != nil {
			t.Fatal(err)
		}
	}
	// The first of these are the oldest but for the sealed one; the chunks come
	// between them.
	id := func(n int) string { return StageID("p", fmtInt(n)) }
	for n := range maxPartial - 2 {
		begin(id(n))
		age(t, base, id(n), time.Duration(100-n)*2*time.Minute)
	}
	age(t, base, id(0), 5*time.Hour)
	age(t, base, id(1), 4*time.Hour)
	if d.GaveWay() != 0 {
		t.Errorf("%d gave way to %d", d.GaveWay(), maxPartial)
	}
	for n, gone := range []string{id(0), id(1), chunked, id(2), id(3)} {
		begin(id(1000 + n))
		if there(base, gone) || d.GaveWay() != n+1 {
			t.Errorf("%d more: %s is there: %v, %d gave way", n+1, gone, there(base, gone), d.GaveWay())
		}
	}
	for what, id := range map[string]string{"another peer's": other, "the one that waits for its message": sealed, "a younger one": id(4), "the last": id(1004)} {
		if !there(base, id) {
			t.Errorf("%s is gone", what)
		}
	}
	// One that goes on needs no room, nor does another peer.
	begin(id(4))
	begin(StageID("third", "0"))
	if d.GaveWay() != 5 {
		t.Errorf("%d gave way, want 5", d.GaveWay())
	}
	// Chunks of a Python sender need it like others.
	c, err := d.Create()
	if err == nil {
		_, err = c.Add(StageID("p", "more"), &Chunk{"g" + chunkMark, 1, 2}, "g")
	}
	if err != nil || d.GaveWay() != 6 {
		t.Errorf("%d gave way to a chunk, %v, want 6", d.GaveWay(), err)
	}
	// One that had to go while it was written comes again.
	s, err = d.Resume(id(5))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(base, s.name)); err != nil {
		t.Fatal(err)
	}
	if err := s.Seal(); reason(err) != "full" {
		t.Errorf("sealed when it was gone: got %v, want full", err)
	}
	s.Close()
}

func TestFilesThatAreNotCompleteExpire(t *testing.T) {
	top := t.TempDir()
	base := filepath.Join(top, "any", "c1")
	d := open(t, base, Rules{})
	const n = 7
	for i := range n {
		s, err := d.Resume(StageID("p", fmtInt(i)))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	s, err := d.Create()
	if err == nil {
		err = s.Seal()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := land(t, d, "mine", "x"); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(base, ".aioc-notours.part")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	template := top + "/{message_type}/{source_id}"
	now := time.Now()
	if got := Sweep(template, now.Add(KeepPartial/2)); got != 0 {
		t.Errorf("too early: %d removed", got)
	}
	if got := Sweep(top+"/{message_type}", now.Add(10*KeepPartial)); got != 0 {
		t.Errorf("another depth: %d removed", got)
	}
	if got := Sweep(template, now.Add(KeepPartial+time.Hour)); got != n {
		t.Errorf("%d removed, want %d", got, n)
	}
	if got := Sweep(template, now.Add(keepSealed+time.Hour)); got != 1 {
		t.Errorf("%d removed, want the sealed one", got)
	}
	if got := tree(t, base); !strings.Contains(got, "mine=x") || !strings.Contains(got, ".aioc-notours.part") || strings.Count(got, "=") != 2 {
		t.Errorf("left: %q", got)
	}
	if got := Sweep("/no such directory", now); got != 0 {
		t.Errorf("nothing there: %d removed", got)
	}
}

func TestOwnerIsGivenOrItIsSaidWhyNot(t *testing.T) {
	me := fmtInt(os.Geteuid()) + ":" + fmtInt(os.Getegid())
	d := open(t, t.TempDir(), Rules{Owner: me})
	if _, err := land(t, d, "s/f", "x"); err != nil || d.Unowned() != nil {
		t.Errorf("myself: got %v, %v", err, d.Unowned())
	}
	for _, owner := range []string{"no-such-user-here:root", "0:no-such-group-here", "x", "-1:0", ":"} {
		d := open(t, t.TempDir(), Rules{Owner: owner})
		if _, err := land(t, d, "f", "x"); err != nil || d.Unowned() == nil {
			t.Errorf("%s: got %v, %v, want a file and a complaint", owner, err, d.Unowned())
		}
	}
}

func TestErrorsSayWhatToDoAndNameNoPathOfThisHost(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "open", Path: "/secret", Err: syscall.ENOSPC}, "full"},
		{&os.LinkError{Op: "link", Old: "/secret", New: "/secret", Err: syscall.EDQUOT}, "full"},
		{&fs.PathError{Op: "open", Path: "/secret", Err: syscall.EACCES}, "permission"},
		{&fs.PathError{Op: "open", Path: "/secret", Err: syscall.EEXIST}, "exists"},
		{&fs.PathError{Op: "write", Path: "/secret", Err: syscall.EIO}, "disk"},
		{&fs.PathError{Op: "open", Path: "/secret", Err: syscall.ENOTDIR}, "name"},
		{&fs.PathError{Op: "open", Path: "/secret", Err: syscall.ELOOP}, "name"},
	} {
		err := ioError("file", test.err)
		if reason(err) != test.want || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: got %s: %v, want %s", test.err, reason(err), err, test.want)
		}
	}
}
