package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// open opens a file for the rest of a test.
func open(t *testing.T, path string, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestCheckOutputKnowsAClosedOne(t *testing.T) {
	both := open(t, os.DevNull, os.O_RDWR)
	write := open(t, os.DevNull, os.O_WRONLY)
	shut := open(t, os.DevNull, os.O_WRONLY)
	shut.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, tt := range map[string]struct {
		stdout, stderr *os.File
		want           error
	}{
		"what Go opens instead":      {both, w, ErrClosed},
		"what this program closed":   {shut, w, ErrClosed},
		"a shell's /dev/null":        {write, w, nil},
		"a pipe":                     {w, w, nil},
		"a daemon without any":       {both, both, nil},
		"a pipe and no error output": {w, both, nil},
	} {
		if got := checkOutput(tt.stdout, tt.stderr); !errors.Is(got, tt.want) {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
	if err := CheckOutput(new(bytes.Buffer)); err != nil {
		t.Errorf("a buffer: %v", err)
	}
}

// TestCheckOutputOfAProcess is run by itself in a process of its own, whose
// standard output the shell has closed or not.
func TestCheckOutputOfAProcess(t *testing.T) {
	if os.Getenv("CHECK_OUTPUT") != "" {
		if err := CheckOutput(os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error())
		}
		return
	}
	for redirection, want := range map[string]string{
		">&-": ErrClosed.Error(), "1<>/dev/null": ErrClosed.Error(), ">/dev/null": "", ">>/dev/null": "", "| cat": "",
	} {
		cmd := exec.Command("sh", "-c", `"$0" -test.run='^TestCheckOutputOfAProcess$' `+redirection, os.Args[0])
		cmd.Env = append(os.Environ(), "CHECK_OUTPUT=1", "GOCOVERDIR="+t.TempDir())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil || stderr.String() != want {
			t.Errorf("%s: got %q, %v, want %q", redirection, stderr.String(), err, want)
		}
	}
}
