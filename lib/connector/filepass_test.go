package connector

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// passFile sends a message with a file that it passes open, after doing
// something to its name.
func (n *node) passFile(t testing.TB, o api.SendOptions, typ, path, withFile string, with []wire.Edit, do func()) error {
	t.Helper()
	c := n.open(t)
	defer c.Close()
	o.Files = true
	s := c.Sender(o)
	defer s.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if do != nil {
		do()
	}
	edits := append([]wire.Edit{{Key: "with_file", Value: []byte(withFile)}}, with...)
	if err := s.PutFile(wire.AppendEdited(nil, c.Header(typ, ""), edits...), []byte("data"), nil, f); err != nil {
		return err
	}
	_, err = s.Finish(within(t))
	return err
}

// nothingIsLeft waits until a connector keeps no file open, nor a copy of one.
func (n *node) nothingIsLeft(t testing.TB) {
	t.Helper()
	eventually(t, "no file is kept open", func() bool {
		n.held.mu.Lock()
		defer n.held.mu.Unlock()
		return len(n.held.m) == 0
	})
	eventually(t, "no file that was passed is kept", func() bool {
		n.passing.mu.Lock()
		defer n.passing.mu.Unlock()
		return n.passing.all == 0 && n.passing.strangers == 0 && len(n.passing.byUID) == 0
	})
	eventually(t, "nobody is to be told of a file", func() bool {
		n.watching.mu.Lock()
		defer n.watching.mu.Unlock()
		return len(n.watching.m) == 0
	})
	n.noCopies(t)
}

// noCopies waits until a connector keeps no copy of a file, and the quotas know.
func (n *node) noCopies(t testing.TB) {
	t.Helper()
	eventually(t, "no copy is kept", func() bool {
		list, err := n.copies.kept.List()
		return err == nil && len(list) == 0
	})
	eventually(t, "nothing of the quotas is used", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, b := range n.boxes {
			if q := b.filesQuota; q != nil && b.files != nil && b.files.Len() == 0 && q.Used() != 0 {
				return false
			}
		}
		return true
	})
}

// picsIn makes a connector store files in a directory.
func picsIn(dir string) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.FileTargets = map[string]config.FileTarget{"pics": {Directory: dir}}
	}
}

func TestAPassedFileNeedsNoName(t *testing.T) {
	for _, durable := range []bool{false, true} {
		for _, size := range []int{0, 5, 2 * embedMax} {
			t.Run(fmt.Sprintf("durable %v, %d bytes", durable, size), func(t *testing.T) {
				dir := newDir(t)
				edits := []func(*config.Config){types("d"), picsIn(dir)}
				if durable {
					edits = append(edits, onDisk("d"))
				}
				s := server(t, edits...)
				c := s.client(t, "c1", edits...)
				in := s.receive(t, api.ReceiveOptions{})
				path, content := makeFile(t, "f", size)
				if err := c.passFile(t, api.SendOptions{}, "d", path, withFile(path, "pics", "f", true), nil, func() { os.Remove(path) }); err != nil {
					t.Fatal(err)
				}
				m := in.wait(t, 1)[0]
				a := parseArrived(t, m)
				if a.Path != dir+"/f" || a.Error != "" || m.data != "data" {
					t.Errorf("got %s", m.header)
				}
				for _, key := range []string{"file_passed", "file_progress", "file_copy"} {
					if strings.Contains(m.header, key) {
						t.Errorf("the program sees %s: %s", key, m.header)
					}
				}
				holds(t, dir+"/f", content, 0o640)
				c.nothingIsLeft(t)
			})
		}
	}
}

func TestTheFileThatWasPassedIsSentAndNotAnotherOfItsName(t *testing.T) {
	dir := newDir(t)
	s := server(t, picsIn(dir))
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	path, content := makeFile(t, "f", 1000)
	replace := func() {
		os.Remove(path)
		if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", true), nil, replace); err != nil {
		t.Fatal(err)
	}
	holds(t, parseArrived(t, in.wait(t, 1)[0]).Path, content, 0o640)
	// Nor is that one removed.
	path, _ = makeFile(t, "g", 1000)
	err := c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "g", false), nil, replace)
	notTaken(t, err, 0, "keep")
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	c.nothingIsLeft(t)
}

func TestAPassedFileIsRemovedByTheConnectorThatCan(t *testing.T) {
	dir := newDir(t)
	s := server(t, picsIn(dir))
	c := s.client(t, "c1")
	in := s.receive(t, api.ReceiveOptions{})
	path, content := makeFile(t, "f", 1000)
	if err := c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", false), nil, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, parseArrived(t, in.wait(t, 1)[0]).Path, content, 0o640)
	eventually(t, "it is removed", func() bool { _, err := os.Lstat(path); return err != nil })
	c.nothingIsLeft(t)
}

// The message is durable, and its file cannot be opened again: a copy of it
// outlives the connector.
func TestACopyOfAPassedFileOutlivesAKill(t *testing.T) {
	dir := newDir(t)
	s := server(t, types("d"), onDisk("d"), picsIn(dir))
	c := s.client(t, "c1", types("d"), onDisk("d"))
	s.halt(t)
	eventually(t, "the server has gone", func() bool { return c.box("", false).current() == nil })
	path, content := makeFile(t, "f", 3*embedMax)
	if err := c.passFile(t, api.SendOptions{}, "d", path, withFile(path, "pics", "f", true), nil, func() { os.Remove(path) }); err != nil {
		t.Fatal(err)
	}
	// A second one can be opened by its name, and needs none.
	open, openContent := makeFile(t, "g", embedMax)
	if err := c.passFile(t, api.SendOptions{}, "d", open, withFile(open, "pics", "g", false), nil, nil); err != nil {
		t.Fatal(err)
	}
	list, err := c.copies.kept.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("copies: got %v, %v, want one", list, err)
	}
	// And one that is nobody's.
	orphan := filepath.Join(c.paths.SpoolCopies, strings.Repeat("0", 32)+".copy")
	if err := os.WriteFile(orphan, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.kill(t)
	c = c.again(t)
	if _, err := os.Lstat(orphan); err == nil {
		t.Error("a copy that no message needs is still there")
	}
	if used := c.quotaOf(c.box("", false)).Used(); used < int64(len(content)) {
		t.Errorf("%d bytes of the quota are used, want %d for the copy at least", used, len(content))
	}
	s = s.again(t)
	in := s.receive(t, api.ReceiveOptions{})
	for i, m := range in.wait(t, 2) {
		if a := parseArrived(t, m); a.Error != "" {
			t.Errorf("file %d: got %s", i+1, m.header)
		}
	}
	holds(t, dir+"/f", content, 0o640)
	holds(t, dir+"/g", openContent, 0o640)
	eventually(t, "the one that was to be removed is", func() bool { _, err := os.Lstat(open); return err != nil })
	eventually(t, "no copy is left", func() bool { list, err := c.copies.kept.List(); return err == nil && len(list) == 0 })
	c.nothingIsLeft(t)
}

func TestCopiesHaveTheirBounds(t *testing.T) {
	const most = 1 << 20
	s := server(t)
	c := s.lateClient(t, "c1", types("d"), onDisk("d"), func(cfg *config.Config) {
		cfg.ServerAddr.Port, cfg.MaxPersistenceSize = 1, most
	})
	pass := func(size int) error {
		t.Helper()
		path, _ := makeFile(t, "f", size)
		return c.passFile(t, api.SendOptions{}, "d", path, withFile(path, "pics", "f", true), nil, func() { os.Remove(path) })
	}
	// While the server is away all wait.
	first, _ := makeFile(t, "f", 5)
	if err := c.passFile(t, api.SendOptions{}, "d", first, withFile(first, "pics", "f", true), nil, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() bool { return c.box("", false).waitingFiles().Stats().Waiting == 1 })
	notTaken(t, pass(most+1), 0, "bad")
	if err := pass(most * 2 / 3); err != nil {
		t.Fatal(err)
	}
	notTaken(t, pass(most*2/3), 0, "full")
	list, err := c.copies.kept.List()
	if err != nil || len(list) != 1 {
		t.Errorf("copies: got %v, %v, want one", list, err)
	}
	// What is to be removed cannot be a copy.
	path, _ := makeFile(t, "f", 5)
	err = c.passFile(t, api.SendOptions{}, "d", path, withFile(path, "pics", "f", false), nil, func() { os.Remove(path) })
	notTaken(t, err, 0, "keep")
	if err := os.Chmod(c.paths.SpoolCopies, 0o777); err != nil { // as another might have made it
		t.Fatal(err)
	}
	notTaken(t, pass(5), 0, "full")
	command(t, c, "purge", nil)
	c.noCopies(t)
	if err := os.Chmod(c.paths.SpoolCopies, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := pass(most * 2 / 3); err != nil {
		t.Error("there is room again:", err)
	}
}

func TestWhatIsPassedIsLookedAt(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1", func(cfg *config.Config) { cfg.MaxFileSend = 3 })
	path, _ := makeFile(t, "f", 4)
	notTaken(t, c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", true), nil, nil), 0, "bad")
	for _, other := range []string{"/dev/null", "/dev/zero", "/", t.TempDir()} {
		notTaken(t, c.passFile(t, api.SendOptions{}, "any", other, withFile(path, "pics", "f", true), nil, nil), 0, "bad")
	}
	notTaken(t, c.passFile(t, api.SendOptions{}, "any", path, withFile("relative", "pics", "f", true), nil, nil), 0, "bad")
	notTaken(t, c.passFile(t, api.SendOptions{}, "any", path, `["no object"]`, nil, nil), 0, "bad")
	// Numbers of files that were not passed.
	for _, number := range []string{"1", "0", "-1", "1.5", `"1"`, "18446744073709551615", "[]"} {
		cl := c.open(t)
		out := cl.Sender(api.SendOptions{})
		h := wire.AppendEdited(nil, cl.Header("any", ""), wire.Edit{Key: "with_file", Value: []byte(withFile(path, "pics", "f", true))},
			wire.Edit{Key: "file_passed", Value: []byte(number)})
		if err := out.Put(h, nil, nil); err != nil {
			t.Fatal(err)
		}
		_, err := out.Finish(within(t))
		notTaken(t, err, 0, "bad")
		out.Close()
		cl.Close()
	}
	c.nothingIsLeft(t)
}

func TestPassedFilesThatNoMessageNamesAreClosed(t *testing.T) {
	s := server(t)
	c := s.client(t, "c1", types("a"))
	path, _ := makeFile(t, "f", 4)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cl := c.open(t)
	defer cl.Close()
	out := cl.Sender(api.SendOptions{Files: true})
	for range 5 { // of a type that is refused
		if err := out.PutFile(wire.AppendEdited(nil, cl.Header("b", ""), wire.Edit{Key: "with_file", Value: []byte(withFile(path, "pics", "f", true))}), nil, nil, f); err != nil {
			break
		}
	}
	_, err = out.Finish(within(t))
	notTaken(t, err, 0, "type")
	out.Close()
	c.nothingIsLeft(t)
}

func TestFilesThatAreTooManyAreCounted(t *testing.T) {
	s := server(t)
	for range maxPassing { // of others
		s.passing.account(local.Caller{UID: os.Geteuid()})(1)
	}
	path, _ := makeFile(t, "f", 4)
	err := s.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", true), []wire.Edit{{Key: "destination_id", Value: []byte(`"c1"`)}}, nil)
	notTaken(t, err, 0, "away")
	if n := s.counted("file passed: too many"); n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	c := s.client(t, "c1")
	for range maxPassing {
		c.passing.account(local.Caller{UID: os.Geteuid()})(1)
	}
	notTaken(t, c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", true), nil, nil), 0, "full")
}

func TestFilesThatWaitHaveTheirBounds(t *testing.T) {
	me, one, two := local.Caller{UID: os.Geteuid()}, local.Caller{UID: 54321, GID: 54321}, local.Caller{UID: 54322, GID: 54321}
	var p passing
	count := func(account func(int) bool) (n int) {
		for account(1) {
			n++
		}
		return n
	}
	got := fmt.Sprint(count(p.account(one)), count(p.account(one)), count(p.account(two)), count(p.account(me)))
	if want := fmt.Sprint(maxPassing/8, 0, maxPassing/8, maxPassing*3/4); got != want {
		t.Errorf("passed: got %s, want %s", got, want)
	}
	var h held
	n := 0
	hold := func(caller local.Caller) (count int) {
		for h.add(fmt.Sprint(n), new(transfer.Source), caller) {
			n++
			count++
		}
		return count
	}
	got = fmt.Sprint(hold(one), hold(two), hold(me), hold(one))
	if want := fmt.Sprint(maxHeld/8, maxHeld/8, maxHeld*3/4, 0); got != want {
		t.Errorf("held: got %s, want %s", got, want)
	}
}

func TestAFileThatCannotBeHeldAndHasNoNameIsRefused(t *testing.T) {
	dir := newDir(t)
	s := server(t, picsIn(dir))
	c := s.client(t, "c1")
	for i := range maxHeld {
		c.held.add(fmt.Sprint(i), new(transfer.Source), local.Caller{UID: os.Geteuid()})
	}
	in := s.receive(t, api.ReceiveOptions{})
	path, content := makeFile(t, "f", 5)
	if err := c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "f", true), nil, nil); err != nil {
		t.Fatal(err)
	}
	holds(t, parseArrived(t, in.wait(t, 1)[0]).Path, content, 0o640)
	notTaken(t, c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "g", true), nil, func() { os.Remove(path) }), 0, "full")
}

// Between stop and start the file stays open.
func TestAPassedFileOutlivesAStop(t *testing.T) {
	dir := newDir(t)
	s := server(t, picsIn(dir))
	c := s.client(t, "c1")
	path, content := makeFile(t, "big", 48<<20)
	if err := c.passFile(t, api.SendOptions{}, "any", path, withFile(path, "pics", "big", true), nil, func() { os.Remove(path) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a part is there", func() bool { return size(dir) > 1<<20 })
	command(t, c, "stop", map[string]any{"hard": true})
	command(t, c, "start", nil)
	in := s.receive(t, api.ReceiveOptions{})
	if a := parseArrived(t, in.wait(t, 1)[0]); a.Path != dir+"/big" || a.Error != "" {
		t.Errorf("got %+v", a)
	}
	holds(t, dir+"/big", content, 0o640)
	c.nothingIsLeft(t)
}

func TestAProgramIsToldHowFarItsFileIs(t *testing.T) {
	for _, python := range []bool{false, true} {
		t.Run(fmt.Sprintf("python %v", python), func(t *testing.T) {
			dir := newDir(t)
			s := server(t, picsIn(dir))
			const size = 24 << 20
			path, _ := makeFile(t, "big", size)
			var mu sync.Mutex
			var got []api.Progress
			o := api.SendOptions{Progress: func(p api.Progress) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, p)
			}}
			from, to := s, "py"
			if python {
				p := s.peer(t, "py")
				s.connected(t, "py")
				go func() { // it reads, and acknowledges
					var f wire.Frame
					for p.r.Next(&f) == nil {
						if f.Header.TransportID != nil {
							p.write(fmt.Sprintf(`{"message_type": "_ack", "source_id": "py", "transport_id": %s}`, f.Header.TransportID), "")
						}
					}
				}()
			} else {
				from, to = s.client(t, "c1"), ""
			}
			edits := []wire.Edit{{Key: "wait_for_ack", Value: []byte("true")}}
			if to != "" {
				edits = append(edits, wire.Edit{Key: "destination_id", Value: wire.AppendString(nil, to)})
			}
			if err := from.passFile(t, o, "any", path, withFile(path, "pics", "big", true), edits, nil); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if len(got) == 0 || got[0] != (api.Progress{Index: 0, Sent: 0, Size: size}) {
				t.Fatalf("got %v, want first that it was taken", got)
			}
			for i, p := range got[1:] {
				if p.Sent < got[i].Sent || p.Size != size || p.Index != 0 {
					t.Errorf("got %v", got)
				}
			}
			if last := got[len(got)-1]; last.Sent != size {
				t.Errorf("the last is %+v, want all of it", last)
			}
			from.nothingIsLeft(t)
		})
	}
}

func TestAPassedFileIsPublished(t *testing.T) {
	for _, durable := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable %v", durable), func(t *testing.T) {
			edits := []func(*config.Config){isBroker}
			if durable {
				edits = append(edits, onDisk("a"))
			}
			s := server(t, edits...)
			var sinks []*sink
			var dirs []string
			for i := range 3 {
				dir := newDir(t)
				c := s.client(t, fmt.Sprint("c", i), subscribes("a"), picsIn(dir))
				sinks, dirs = append(sinks, c.receive(t, api.ReceiveOptions{})), append(dirs, dir)
			}
			s.subscribed(t, "a", 3)
			path, content := makeFile(t, "f", 2*embedMax)
			edit := []wire.Edit{{Key: "message_type_publish", Value: []byte(`"a"`)}}
			if err := s.passFile(t, api.SendOptions{}, wire.TypePubSub, path, withFile(path, "pics", "f", true), edit, func() { os.Remove(path) }); err != nil {
				t.Fatal(err)
			}
			for i, in := range sinks {
				a := parseArrived(t, in.wait(t, 1)[0])
				if a.Path != dirs[i]+"/f" {
					t.Errorf("got %+v", a)
				}
				holds(t, dirs[i]+"/f", content, 0o640)
			}
			s.nothingIsLeft(t)
		})
	}
}

func TestNothingIsKeptOfAProgramThatWatchedAFileAndLeft(t *testing.T) {
	var w watched
	here, left := new(link.Link), new(link.Link)
	for i := range maxWatched + 10 {
		w.add(fmt.Sprint("left", i), left, uint64(i+1))
	}
	w.add("here", here, 1)
	w.add("here too", here, 2)
	if len(w.m) != maxWatched+2 {
		t.Errorf("%d files are watched, want %d", len(w.m), maxWatched+2)
	}
	w.gone(left)
	w.drop("here")
	w.drop("left0")
	if w.m["here too"] == nil || len(w.m) != 1 || len(w.of) != 1 || len(w.of[here]) != 1 {
		t.Errorf("kept %d files of %d programs, want one of one", len(w.m), len(w.of))
	}
	if w.drop("here too"); len(w.m) != 0 || len(w.of) != 0 {
		t.Errorf("kept %d files of %d programs, want none", len(w.m), len(w.of))
	}
}
