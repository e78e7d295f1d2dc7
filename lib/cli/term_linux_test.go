package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo terminal and returns the end a program would see.
func terminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty
}

func TestTerminal(t *testing.T) {
	tty := terminal(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file.Close()
	tests := []struct {
		name string
		file *os.File
		want bool
	}{
		{"a terminal", tty, true},
		{"a pipe", w, false},
		{"the null device", null, false},
		{"a closed file", file, false},
		{"no file", nil, false},
	}
	for _, tt := range tests {
		if got := IsTerminal(tt.file); got != tt.want {
			t.Errorf("%s: IsTerminal = %v, want %v", tt.name, got, tt.want)
		}
	}
	colors := []struct {
		name, noColor, term string
		file                *os.File
		want                bool
	}{
		{"a terminal has colours", "", "xterm", tty, true},
		{"NO_COLOR forbids them", "1", "xterm", tty, false},
		{"a dumb terminal has none", "", "dumb", tty, false},
		{"a pipe has none", "", "xterm", w, false},
	}
	for _, tt := range colors {
		t.Setenv("NO_COLOR", tt.noColor)
		t.Setenv("TERM", tt.term)
		if got := Color(tt.file); got != tt.want {
			t.Errorf("%s: Color = %v, want %v", tt.name, got, tt.want)
		}
	}
}
