package queue

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"aioc/lib/spool"
)

// weakFS is the file system, until it fails as told.
type weakFS struct {
	full atomic.Bool // nothing can be written
	sync atomic.Bool // no sync succeeds
}

type weakFile struct {
	*os.File
	fs *weakFS
}

func (f *weakFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (f *weakFS) Names(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (f *weakFS) open(name string, flag int) (spool.File, error) {
	file, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return weakFile{file, f}, nil
}

func (f *weakFS) Open(name string) (spool.File, error)      { return f.open(name, os.O_RDONLY) }
func (f *weakFS) OpenWrite(name string) (spool.File, error) { return f.open(name, os.O_RDWR) }
func (f *weakFS) Create(name string) (spool.File, error) {
	return f.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}
func (f *weakFS) Rename(old, new string) error { return os.Rename(old, new) }
func (f *weakFS) Remove(name string) error     { return os.Remove(name) }

func (f *weakFS) SyncDir(string) error {
	if f.sync.Load() {
		return syscall.EIO
	}
	return nil
}

func (f weakFile) WriteAt(b []byte, off int64) (int, error) {
	if f.fs.full.Load() {
		n, _ := f.File.WriteAt(b[:len(b)/2], off) // as much as fitted
		return n, syscall.ENOSPC
	}
	return f.File.WriteAt(b, off)
}

func (f weakFile) Sync() error {
	if f.fs.sync.Load() {
		return syscall.EIO
	}
	return nil // nothing here loses power
}

func (f weakFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// roomSoon waits until the queue says that there is room.
func roomSoon(t *testing.T, q *Queue, typ string) {
	t.Helper()
	room := make(chan struct{})
	q.OnRoom(typ, 100, func() { close(room) })
	select {
	case <-room:
	case <-time.After(patience):
		t.Fatal("there is no room")
	}
}

func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	disk := &weakFS{}
	s := &store{dir: t.TempDir(), fs: disk}
	q := onDisk(t, s, 1000)
	x := newTaker(q)
	mustPut(t, q, "d", messages(1, 10, 100)...)
	mustCommit(t, q, "d")
	disk.full.Store(true)
	for range 2 {
		if n, err := q.Put("d", message(99, 100)); n != 0 || !errors.Is(err, ErrDisk) {
			t.Errorf("Put = %d, %v; want an %v", n, err, ErrDisk)
		}
	}
	// What needs no disk goes on.
	mustPut(t, q, "a", message(11, 20))
	disk.full.Store(false)
	roomSoon(t, q, "d")
	mustPut(t, q, "d", messages(12, 20, 100)...)
	mustCommit(t, q, "d")
	got := x.finish(t, 20)
	slices.Sort(got)
	checkIDs(t, got, upFrom(1, 20)...)
	if len(s.failures()) == 0 {
		t.Error("nobody was told")
	}
	x.Close()
	q.Close()
	q = onDisk(t, s, 1000, "d")
	if n := q.Len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestAFailedSyncLosesWhatWasNotCommittedAndNothingElse(t *testing.T) {
	disk := &weakFS{}
	s := &store{dir: t.TempDir(), fs: disk}
	q := onDisk(t, s, 1<<20)
	x := newTaker(q)
	put := func(first, last uint64) {
		t.Helper()
		all := slices.Concat(messages(first, last, 100)...)
		if n, err := q.PutExtra("d", all, &Extra{From: Origin{"p", Epoch{1}, first}}); n != len(all) || err != nil {
			t.Fatalf("PutExtra = %d, %v", n, err)
		}
	}
	put(1, 5)
	mustCommit(t, q, "d")
	put(6, 9)
	disk.sync.Store(true)
	if err := q.Commit("d"); !errors.Is(err, ErrDisk) {
		t.Errorf("Commit: %v, want an %v", err, ErrDisk)
	}
	if n := q.Len(); n != 5 {
		t.Errorf("%d messages, want 5", n)
	}
	disk.sync.Store(false)
	put(6, 9) // their sender was not told that they were taken
	mustCommit(t, q, "d")
	put(6, 12)
	mustCommit(t, q, "d")
	checkIDs(t, x.finish(t, 12), upFrom(1, 12)...)
	x.Close()
	q.Close()
	q = onDisk(t, s, 1<<20, "d")
	x = newTaker(q)
	put(10, 13)
	mustCommit(t, q, "d")
	checkIDs(t, x.finish(t, 1), 13)
	if n := q.Len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestAFailedSyncForgetsTheIDsOfWhatItLostOnly(t *testing.T) {
	disk := &weakFS{}
	s := &store{dir: t.TempDir(), fs: disk}
	q := onDisk(t, s, 1<<20)
	x := newTaker(q)
	put := func(id uint64) {
		t.Helper()
		f := message(id, 100)
		if n, err := q.PutExtra("d", f, &Extra{ID: ID{byte(id)}}); n != len(f) || err != nil {
			t.Fatalf("PutExtra = %d, %v", n, err)
		}
	}
	put(1)
	put(2)
	mustCommit(t, q, "d")
	put(3)
	put(4)
	disk.sync.Store(true)
	if err := q.Commit("d"); !errors.Is(err, ErrDisk) {
		t.Errorf("Commit: %v, want an %v", err, ErrDisk)
	}
	disk.sync.Store(false)
	for id := range uint64(5) { // sent again, as their senders do not know
		put(id + 1)
		put(id + 1)
	}
	mustCommit(t, q, "d")
	checkIDs(t, x.finish(t, 5), upFrom(1, 5)...)
	if st := q.Stats(); st.Duplicates != 7 || st.Waiting != 0 {
		t.Errorf("%d duplicates, %d wait; want 7 and none", st.Duplicates, st.Waiting)
	}
	x.Close()
	q.Close()
	q = onDisk(t, s, 1<<20, "d")
	for id := range uint64(6) {
		put(id + 1)
	}
	mustCommit(t, q, "d")
	checkIDs(t, newTaker(q).finish(t, 1), 6)
	if n := q.Len(); n != 0 {
		t.Errorf("%d were taken twice", n)
	}
}

// Who puts a message again, and asks what becomes of it, must not hear that all is
// well before the first one is on disk.
func TestWhoPutsAMessageAgainIsToldWhenItIsKept(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(t *testing.T, q *Queue, disk *weakFS)
		want error
	}{
		{"on disk", func(t *testing.T, q *Queue, _ *weakFS) { mustCommit(t, q, "d") }, nil},
		{"lost", func(t *testing.T, q *Queue, disk *weakFS) {
			disk.sync.Store(true)
			if err := q.Commit("d"); err == nil {
				t.Error("a commit without a disk succeeds")
			}
		}, spool.ErrFailed},
		{"closed", func(_ *testing.T, q *Queue, _ *weakFS) { q.Close() }, ErrClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := &weakFS{}
			q := onDisk(t, &store{dir: t.TempDir(), fs: disk}, 1<<20)
			var told []error
			f := message(1, 100)
			for i := range 2 {
				x := Extra{ID: ID{1}}
				if i == 1 {
					x.Note = &Note{Done: func(err error) { told = append(told, err) }}
				}
				if n, err := q.PutExtra("d", f, &x); n != len(f) || err != nil {
					t.Fatal(n, err)
				}
			}
			if told != nil {
				t.Errorf("told %v at once", told)
			}
			test.end(t, q, disk)
			if len(told) != 1 || !errors.Is(told[0], test.want) {
				t.Errorf("told %v, want %v, once", told, test.want)
			}
			q.Close()
			if len(told) != 1 {
				t.Errorf("told %v in the end", told)
			}
		})
	}
}

func TestWhoCommitsLastLearnsOfTheFailureToo(t *testing.T) {
	f, g := message(1, 100), message(2, 100)
	tests := []struct {
		name    string
		second  []byte                       // what the one puts who commits last
		id      ID                           // of what both put
		between func(t *testing.T, q *Queue) // their commits
	}{
		{"at once", g, ID{}, func(*testing.T, *Queue) {}},
		{"after the log was repaired", g, ID{}, func(t *testing.T, q *Queue) {
			mustPut(t, q, "d", message(3, 100))
			mustCommit(t, q, "d")
		}},
		{"what somebody else has put", f, ID{1}, func(*testing.T, *Queue) {}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			disk := &weakFS{}
			q := onDisk(t, &store{dir: t.TempDir(), fs: disk}, 1<<20)
			mustPut(t, q, "d", message(0, 100))
			mustCommit(t, q, "d")
			one, two := Extra{ID: test.id}, Extra{ID: test.id}
			if n, err := q.PutExtra("d", f, &one); n != len(f) || err != nil {
				t.Fatal(n, err)
			}
			if n, err := q.PutExtra("d", test.second, &two); n != len(test.second) || err != nil {
				t.Fatal(n, err)
			}
			disk.sync.Store(true)
			if err := q.CommitSince(Written{"d", one.Round}); !errors.Is(err, ErrDisk) {
				t.Errorf("the first commit: %v, want an %v", err, ErrDisk)
			}
			disk.sync.Store(false)
			test.between(t, q)
			if err := q.CommitSince(Written{"d", two.Round}); !errors.Is(err, ErrDisk) {
				t.Errorf("the second commit: %v, want an %v", err, ErrDisk)
			}
			again := Extra{ID: test.id}
			if n, err := q.PutExtra("d", test.second, &again); n != len(test.second) || err != nil {
				t.Fatal(n, err)
			}
			if err := q.CommitSince(Written{"d", again.Round}); err != nil {
				t.Errorf("the commit after that: %v", err)
			}
		})
	}
}

func TestAQuotaPushesBack(t *testing.T) {
	for _, typ := range []string{"a", "d"} {
		s := &store{dir: t.TempDir(), quota: spool.NewQuota(20_000), segment: 5000}
		q := onDisk(t, s, 1000)
		x := newTaker(q)
		all := messages(0, 999, 100)
		next, taken := 0, 0
		for taken < len(all) {
			for next < len(all) {
				n, err := q.Put(typ, slices.Concat(all[next:min(next+50, len(all))]...))
				for ; n > 0; next++ {
					n -= len(all[next])
				}
				if err != nil {
					if !errors.Is(err, ErrFull) {
						t.Fatal(err)
					}
					break
				}
			}
			mustCommit(t, q, typ)
			if n := next - taken; n > 250 {
				t.Fatalf("type %s: %d messages wait", typ, n)
			}
			n := min(20, next-taken)
			checkIDs(t, x.finish(t, n), upFrom(uint64(taken), uint64(n))...)
			if taken += n; n == 0 {
				roomSoon(t, q, typ)
			}
		}
	}
}

func TestWhatADamagedLogHasLostIsCounted(t *testing.T) {
	s := &store{dir: t.TempDir(), segment: 4000}
	q := onDisk(t, s, 1<<20)
	mustPut(t, q, "d", messages(1, 200, 100)...)
	mustCommit(t, q, "d")
	q.Close()
	names, err := os.ReadDir(s.dir + "/d")
	if err != nil {
		t.Fatal(err)
	}
	damaged := 0
	for _, e := range names {
		path := s.dir + "/d/" + e.Name()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 2000 && damaged == 0 {
			damaged++
			text[2000] ^= 1
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	q = onDisk(t, s, 1<<20, "d")
	x := newTaker(q)
	if got := x.finish(t, 199); len(slices.Compact(got)) != 199 || !slices.IsSorted(got) {
		t.Errorf("%d files damaged, got %v", damaged, got)
	}
	x.Close()
	if n := q.Len(); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestPurgeDiscardsWhatIsOnDisk(t *testing.T) {
	s := &store{dir: t.TempDir()}
	q := onDisk(t, s, 1000)
	x := newTaker(q)
	mustPut(t, q, "d", messages(1, 50, 100)...)
	mustCommit(t, q, "d")
	mustPut(t, q, "a", messages(51, 100, 100)...)
	mustPut(t, q, "b", messages(101, 102, 100)...) // in memory only
	x.take(t, 3)
	if n := q.Purge(); n != 97 {
		t.Errorf("Purge = %d, want 97", n)
	}
	if n := q.Len(); n != 5 {
		t.Errorf("%d are left, want 5", n)
	}
	mustPut(t, q, "d", message(103, 100))
	mustCommit(t, q, "d")
	got := x.take(t, 3)
	slices.Sort(got)
	checkIDs(t, got, 101, 102, 103)
	x.Done(6, true)
	x.Close()
	q.Close()
	q = onDisk(t, s, 1000, "a", "b", "d")
	if n := q.Len(); n != 0 {
		t.Errorf("%d came back", n)
	}
}

// A sender that waits to hear what becomes of its message would wait for ever.
func TestWhoAskedAfterAMessageOnDiskLearnsThatItIsGone(t *testing.T) {
	put := func(t *testing.T, q *Queue, id uint64) *[]error {
		t.Helper()
		told := new([]error)
		note := &Note{WaitForAck: true, Done: func(err error) { *told = append(*told, err) }}
		if err := q.PutNote("d", message(id, 100), note); err != nil {
			t.Fatal(err)
		}
		mustCommit(t, q, "d")
		return told
	}
	check := func(t *testing.T, told *[]error, want error) {
		t.Helper()
		if len(*told) != 1 || !errors.Is((*told)[0], want) {
			t.Errorf("told %v, want %v, once", *told, want)
		}
	}
	t.Run("discarded, never in memory", func(t *testing.T) {
		q := onDisk(t, &store{dir: t.TempDir()}, 1000)
		told := put(t, q, 1)
		q.Purge()
		check(t, told, ErrPurged)
		q.Close()
		check(t, told, ErrPurged)
	})
	t.Run("discarded after it was given back", func(t *testing.T) {
		q := onDisk(t, &store{dir: t.TempDir()}, 1000)
		x := newTaker(q)
		told := put(t, q, 1)
		x.take(t, 1)
		x.Close()
		q.Purge()
		check(t, told, ErrPurged)
	})
	t.Run("lost by the disk", func(t *testing.T) {
		s := &store{dir: t.TempDir()}
		q := onDisk(t, s, 1000)
		told := put(t, q, 1)
		names, err := filepath.Glob(s.dir + "/d/*.log")
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		if err := os.Truncate(names[0], 0); err != nil {
			t.Fatal(err)
		}
		gone := make(chan struct{})
		q.OnEmpty(func() { close(gone) })
		x := newTaker(q)
		defer x.Close()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Fatal("it waits still")
		}
		check(t, told, errLost)
	})
	t.Run("passed on after it was read", func(t *testing.T) {
		q := onDisk(t, &store{dir: t.TempDir()}, 1000)
		told := put(t, q, 1)
		x := newTaker(q)
		checkIDs(t, x.finish(t, 1), 1)
		check(t, told, nil)
		q.Purge()
		check(t, told, nil)
	})
}
