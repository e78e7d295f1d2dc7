package chat

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestACallerWithNothingToSayFetchesAFile(t *testing.T) {
	from := t.TempDir()
	content := make([]byte, 40*pieceSize+17)
	_, _ = rand.Read(content)
	mustWrite(t, filepath.Join(from, "big"), string(content))
	mustWrite(t, filepath.Join(from, "small"), "S")
	for _, test := range []struct {
		name, path, stored string
		open               bool // its input is
	}{
		{"no input", "big", "big", false},
		{"an input that says nothing", "big", "big", true},
		{"a small file", "small", "small", false},
		{"an archive that has to be made first", ".", filepath.Base(from) + ".zip", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ann := start(t, Options{Accept: true, Dir: from, Upload: test.path})
			port := ann.port()
			bob := start(t, Options{Target: "127.0.0.1", Port: port})
			if !test.open {
				bob.in.Close()
			}
			if err := bob.result(); err != nil {
				t.Errorf("the one who fetches: %v\n%s", err, bob.err)
			}
			if err := ann.result(); err != nil {
				t.Errorf("the one who sends: %v", err)
			}
			got, err := os.ReadFile(filepath.Join(bob.dir, test.stored))
			if err != nil || test.path == "big" && !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestAFileThatDoesNotComeIsNoSuccess(t *testing.T) {
	from := t.TempDir()
	mustWrite(t, filepath.Join(from, "small"), "S")
	mustWrite(t, filepath.Join(from, "huge"), "")
	if err := os.Truncate(filepath.Join(from, "huge"), 1<<40); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(from, "small")
	for _, open := range []bool{false, true} {
		ann := start(t, Options{Accept: true, Dir: from, Upload: "huge"})
		bob := start(t, Options{Target: "127.0.0.1", Port: ann.port()})
		if !open {
			bob.in.Close()
		}
		bob.err.await(t, "connected with")
		ann.end(errors.New("killed"))
		if err := bob.result(); !errors.Is(err, ErrBroken) {
			t.Errorf("the sender is killed, open %v: got %v, want %v", open, err, ErrBroken)
		}
		if got := tree(t, bob.dir); got != "" {
			t.Errorf("left behind:\n%s", got)
		}

		ann = start(t, Options{Accept: true, Dir: from, Upload: "small"})
		bob = start(t, Options{Target: "127.0.0.1", Port: ann.port(), Dir: inTheWay})
		if !open {
			bob.in.Close()
		}
		if err := bob.result(); err == nil || errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "small from the other end is not stored") {
			t.Errorf("it cannot be stored, open %v: got %v", open, err)
		}
	}
}
