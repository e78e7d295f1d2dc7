// Package regress tests the family of programs as a whole: scripts that use the
// programs as people do (testdata), the manual pages against the programs
// (pages_test.go), and the order of imports (imports_test.go). The folder bench
// measures.
package regress

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scriptTime is how long one script may run. It bounds a test that hangs; no
// script comes near it.
const scriptTime = 3 * time.Minute

// TestScripts runs each script of testdata with the programs in its PATH, in an
// empty directory of its own. What a script leaves running is killed.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".sh")
		if name == "lib" { // what the others share
			continue
		}
		ran++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScript(t, script)
		})
	}
	if ran == 0 {
		t.Error("there are no scripts in testdata")
	}
}

// runScript runs one script and fails the test with its output if it fails.
func runScript(t *testing.T, script string) {
	t.Helper()
	bin := binaries(t)
	script, err := filepath.Abs(script)
	if err != nil {
		t.Fatal(err)
	}
	dir, out := scriptDir(t), outputFile(t)
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-u", script)
	cmd.Dir = dir
	cmd.Env = scriptEnv(bin, dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd) }
	err = cmd.Run()
	if killErr := killGroup(cmd); killErr != nil && !errors.Is(killErr, syscall.ESRCH) {
		t.Logf("kill what is left: %v", killErr)
	}
	if ctx.Err() == context.DeadlineExceeded {
		t.Errorf("still running after %v", scriptTime)
	}
	text, readErr := os.ReadFile(out.Name())
	if err != nil || readErr != nil {
		t.Errorf("%v\n%s", errors.Join(err, readErr), text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, notTested) {
			t.Log(line)
			os.Stderr.WriteString(line)
		}
	}
}

// notTested begins what a script says that it cannot test on this host.
const notTested = "NOT TESTED: "

// killGroup ends the process and all that it started.
func killGroup(cmd *exec.Cmd) error {
	if cmd.Process == nil {
		return syscall.ESRCH
	}
	return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}

// scriptDir makes an empty directory whose path leaves room for the name of a
// socket, which t.TempDir does not always.
func scriptDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "aioc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// outputFile makes a file for the output of a script: a pipe would keep the
// test waiting for whatever the script left running.
func outputFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// scriptEnv is the environment of a script: ours, with the programs first in
// PATH, AIOC_DIR set to dir, and nothing else that the programs read.
func scriptEnv(bin, dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "AIOC_"), name == "PATH", name == "TMPDIR",
			name == "NOTIFY_SOCKET", name == "JOURNAL_STREAM":
		default:
			env = append(env, v)
		}
	}
	return append(env, "PATH="+bin+":"+os.Getenv("PATH"), "AIOC_DIR="+dir, "TMPDIR="+dir, "LC_ALL=C")
}

func TestScriptThatFailsIsNoticed(t *testing.T) {
	for text, want := range map[string]bool{
		"check 'true is true' 'true'":                                           true,
		"check 'false is true' 'false'":                                         false,
		"check 'true is true' 'true'; check 'no' 'exit 3'":                      false,
		"same 'as it should be' 'a b' \"$(echo a b)\"":                          true,
		"same 'not as it should be' 'a b' \"$(echo a c)\"":                      false,
		"status 'the right one' 3 sh -c 'exit 3'":                               true,
		"status 'the wrong one' 3 true":                                         false,
		"waitfor 'a file' '[ -e file ]' & touch file; wait $!":                  true,
		"waitfor 'a file' '[ -e file ]' 1":                                      false,
		"waitfor 'a file' '[ -e file ]' & p=$!; (exec touch file); wait \"$p\"": true,
	} {
		dir := t.TempDir()
		lib, err := filepath.Abs("testdata/lib.sh")
		if err != nil {
			t.Fatal(err)
		}
		script := filepath.Join(dir, "script.sh")
		if err := os.WriteFile(script, []byte(". '"+lib+"'\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-u", script)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("%s: error %v, want success %v\n%s", text, err, want, out)
		}
	}
}
