package main

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestMountOf(t *testing.T) {
	const mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\nbad\n/dev/c /home ext3 rw 0 0\n/dev/d /home btrfs rw 0 0\n"
	for _, tt := range []struct{ path, want string }{
		{"/", "ext4"},
		{"/var/tmp", "ext4"},
		{"/tmp", "tmpfs"},
		{"/tmp/x", "tmpfs"},
		{"/tmpx", "ext4"},
		{"/tmp/disk/x", "xfs"},
		{"/home/x", "btrfs"},
	} {
		if got := mountOf(mounts, tt.path); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.path, got, tt.want)
		}
	}
}

func TestDiskDir(t *testing.T) {
	dir := t.TempDir()
	if got, _, err := diskDir(dir); got != dir || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, dir)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(dir, "missing")} {
		if got, _, err := diskDir(bad); err == nil {
			t.Errorf("%s: got %q, want an error", bad, got)
		}
	}
}

func TestRatesOfADisk(t *testing.T) {
	dir := t.TempDir()
	if rate, err := syncRate(dir, 100, time.Millisecond); rate <= 0 || err != nil {
		t.Errorf("one writer: got %v, %v, want some", rate, err)
	}
	if rate, err := groupRate(dir, 10, 100, time.Millisecond); rate <= 0 || err != nil {
		t.Errorf("ten writers: got %v, %v, want some", rate, err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

func TestGroupWritesEachRecordOnce(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "group")
	if err != nil {
		t.Fatal(err)
	}
	g := group{f: f}
	g.cond.L = &g.mu
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 5 {
				if err := g.append([]byte("0123456789")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if info, err := f.Stat(); err != nil || info.Size() != 1000 || g.durable != 100 {
		t.Errorf("got %d bytes and %d records, %v, want 1000 and 100", info.Size(), g.durable, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := g.append(nil); err == nil {
		t.Error("a write to a closed file is no error")
	}
}

func TestCopyOfAFile(t *testing.T) {
	b := &bench{disk: "/tmp"} // a path short enough for sockets
	path := filepath.Join(t.TempDir(), "noise")
	if err := writeNoise(path, 1<<20+7); err != nil {
		t.Fatal(err)
	}
	for _, tls := range []bool{false, true} {
		took, cpu, err := b.copyFile(t.Context(), path, tls, true)
		if took <= 0 || cpu <= 0 || err != nil {
			t.Errorf("%s: got %v, %v, %v", tlsText(mode(tls)), took, cpu, err)
		}
	}
	if err := sameSize(path, os.DevNull); err == nil {
		t.Error("another size is the same")
	}
}
