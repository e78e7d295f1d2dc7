package connector

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"aioc/lib/api"
	"aioc/lib/config"
	"aioc/lib/local"
)

// inAll bounds what may be on disk for each destination and for all.
func inAll(each, all int64) func(*config.Config) {
	return func(cfg *config.Config) { cfg.MaxPersistenceSize, cfg.MaxPersistenceTotal = each, all }
}

func TestNamesThatProgramsMakeUpDoNotFillTheDisk(t *testing.T) {
	const all = 2 << 20
	s := server(t, types("d"), onDisk("d"), inAll(1<<20, all))
	kilobyte := strings.Repeat("x", 8<<10)
	taken := map[string]int{}
	var err error
	name := ""
	for i := 0; err == nil && i < 10*all/len(kilobyte); i++ {
		name = fmt.Sprint("made-up", i%50)
		if err = s.try(t, "d", name, kilobyte); err == nil {
			taken[name]++
		}
	}
	notTaken(t, err, 0, "full")
	if err == nil || !strings.Contains(err.Error(), "max_size_persistence_total") {
		t.Errorf("got %v, want the key named", err)
	}
	if n := s.onDisk.Used(); n > all || n < all/2 {
		t.Errorf("%d bytes are used, want at most %d, and not much less", n, all)
	}
	if list := s.problems(); !slices.ContainsFunc(list, func(p string) bool { return strings.Contains(p, "max_size_persistence_total") }) {
		t.Errorf("got the problems %q", list)
	}
	if n := s.log.count("disk: max_size_persistence_total"); n == 0 {
		t.Error("the log says nothing of it")
	}
	// One of them comes, and there is room again.
	c := s.client(t, "made-up0", types("d"))
	in := c.receive(t, api.ReceiveOptions{})
	in.wait(t, taken["made-up0"])
	eventually(t, "there is room", func() bool { return s.try(t, "d", name, "y") == nil })
	// All is there after a start, and counted.
	before := s.onDisk.Used()
	c.halt(t)
	s.halt(t)
	s = s.again(t)
	if n := s.onDisk.Used(); n == 0 || n > before {
		t.Errorf("%d bytes are used after a start, %d before", n, before)
	}
}

func TestUsersWhoMayOnlySendLeaveRoomForOthers(t *testing.T) {
	s := server(t, types("d"), onDisk("d"), inAll(1<<20, 1<<20))
	stranger := local.Caller{UID: os.Geteuid() + 1000, GID: os.Getegid() + 1000}
	own := local.Caller{UID: os.Geteuid()}
	if !s.mayKeep(stranger) {
		t.Error("a stranger may keep nothing")
	}
	var err error
	for i := 0; err == nil && s.onDisk.Used() < 1<<19; i++ {
		err = s.try(t, "d", "c1", strings.Repeat("x", 8<<10))
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.mayKeep(stranger) || !s.mayKeep(own) {
		t.Errorf("half is used: a stranger may go on: %t, the connector's user: %t; want false and true", s.mayKeep(stranger), s.mayKeep(own))
	}
	for i := range maxMadeUp {
		if s.boxFor(fmt.Sprint("made-up", i), true, true) == nil {
			t.Fatalf("stranger's name %d is refused", i)
		}
	}
	if s.boxFor("another", true, true) != nil {
		t.Errorf("stranger's name %d is taken", maxMadeUp)
	}
	if n := s.counted("too many clients named that are away"); n != 1 {
		t.Errorf("got %d refusals counted, want 1", n)
	}
	if s.boxFor("made-up1", true, true) == nil || s.boxFor("another", true, false) == nil {
		t.Error("a name that is known, or of the connector's user, is refused")
	}
	// One that comes is not made up.
	s.peer(t, "made-up2")
	s.connected(t, "made-up2")
	if s.boxFor("one-more", true, true) == nil {
		t.Error("there is no room after one has come")
	}
}

func TestTheLastOfADiskIsNotUsed(t *testing.T) {
	s := &space{dir: t.TempDir()}
	if !s.room(1) {
		t.Fatalf("the disk of %s is full", s.dir)
	}
	left := s.left
	if !s.room(left) || s.room(1) {
		t.Errorf("%d bytes were left, and %d after they were used", left, s.left)
	}
	gone := &space{dir: s.dir + "/none"}
	if !gone.room(1 << 50) {
		t.Error("a disk that cannot be asked counts as full")
	}
}

func TestAReservedDiskRefusesAsAFullOne(t *testing.T) {
	s := server(t, types("d"), onDisk("d"))
	s.send(t, "d", "c1", "0")
	s.space.mu.Lock()
	s.space.left, s.space.dir = 0, "/proc" // where nothing is free
	s.space.mu.Unlock()
	err := s.try(t, "d", "c1", "1")
	notTaken(t, err, 0, "full")
	var why *api.NotTaken
	if errors.As(err, &why) && !strings.Contains(why.Text, "no space left") {
		t.Errorf("got %q", why.Text)
	}
	s.space.mu.Lock()
	s.space.dir = s.paths.Dir
	s.space.mu.Unlock()
	eventually(t, "there is room", func() bool { return s.try(t, "d", "c1", "1") == nil })
	c := s.client(t, "c1", types("d"))
	inOrder(t, c.receive(t, api.ReceiveOptions{}).wait(t, 2), 2)
}
