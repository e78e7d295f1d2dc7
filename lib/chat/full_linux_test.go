package chat

import (
	"os"
	"testing"

	"aioc/lib/cli"
)

func TestAFullDiskKeepsNoPartOfAFile(t *testing.T) {
	dir := t.TempDir()
	l, err := land(dir, "", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	l.f.Close()
	if l.f, err = os.OpenFile("/dev/full", os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	err = l.write([]byte("x"))
	if !cli.Full(err) {
		t.Errorf("got %v, want one of a full disk", err)
	}
	if got := plainError(err); got != "no space left on device" {
		t.Errorf("for people: got %q", got)
	}
	l.discard()
	if got := tree(t, dir); got != "" {
		t.Errorf("left behind: %s", got)
	}
}
