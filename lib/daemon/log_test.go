package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
)

// holds waits until a file holds a text.
func holds(t *testing.T, path, text string) {
	t.Helper()
	limit := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%s never has %q: %q, %v", path, text, b, err)
		}
	}
}

func TestTheLogGoesToAFileWhenOneIsAskedFor(t *testing.T) {
	for _, silent := range []bool{true, false} {
		dir := newDir(t)
		path := filepath.Join(dir, "logs", cli.LogName)
		file := mustWrite(t, filepath.Join(dir, "s.json"), fmt.Sprintf(
			`{"is_server": true, "use_ssl": false, "connector_files_dirpath": %q, "default_logger_dirpath": %q, "silent": %v}`,
			dir, filepath.Dir(path), silent))
		d := spawn(t, "server", nil, nil, "-addr", freeAddr(t), file)
		holds(t, path, " info listening ")
		if silent {
			d.logs(t, "the log goes to a file path="+path)
		} else {
			d.logs(t, " info listening ")
		}
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		d.signal(t, syscall.SIGUSR1)
		holds(t, path, "log file opened again")
		d.signal(t, syscall.SIGTERM)
		if status := d.ends(t); status != 0 {
			t.Errorf("got %d, want 0", status)
		}
		holds(t, path, "stopped")
		if silent && strings.Contains(d.text(), "listening") {
			t.Errorf("standard error has %q", d.text())
		}
	}
}

func TestALogFileIsRotatedAtTheSizeThatIsAskedFor(t *testing.T) {
	dir := newDir(t)
	path := filepath.Join(dir, "logs", cli.LogName)
	file := mustWrite(t, filepath.Join(dir, "s.json"), fmt.Sprintf(`{"is_server": true, "use_ssl": false, "connector_files_dirpath": %q,
		"default_logger_dirpath": %q, "default_logger_rotate": 1500, "default_logger_bk_count": 2}`, dir, filepath.Dir(path)))
	d := spawn(t, "server", nil, nil, "-addr", freeAddr(t), file)
	holds(t, path, " info listening ")
	limit := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		d.signal(t, syscall.SIGHUP)
		old, err := filepath.Glob(path + "?*")
		if err != nil {
			t.Fatal(err)
		}
		if len(old) == 2 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("there is %q beside the log", old)
		}
	}
	d.signal(t, syscall.SIGTERM)
	if status := d.ends(t); status != 0 {
		t.Errorf("got %d, want 0", status)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1500 {
		t.Errorf("%v, %v: larger than asked for", info, err)
	}
}

func TestALogFileThatCannotBeMadeIsSaid(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(filepath.Join(dir, cli.LogName), 0o700); err != nil {
		t.Fatal(err)
	}
	status, _, errs := do(t, true, "-tls", "off", "-dir", dir, "-addr", freeAddr(t), "-set", fmt.Sprintf("default_logger_dirpath=%q", dir))
	if status != cli.Failed || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "log file") {
		t.Errorf("status %d, %s", status, errs)
	}
}

func TestALogDirectoryThatAllCanWriteIsWarnedOf(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-t", "-tls", "off", "-dir", newDir(t), "-set", fmt.Sprintf("default_logger_dirpath=%q", dir)}
	for _, tt := range []struct {
		mode os.FileMode
		want bool
	}{{0o755, false}, {0o777, true}, {0o777 | os.ModeSticky, false}} {
		if err := os.Chmod(dir, tt.mode); err != nil {
			t.Fatal(err)
		}
		status, _, errs := do(t, true, args...)
		if got := strings.Contains(errs, "writable for all"); status != 0 || got != tt.want {
			t.Errorf("%v: status %d, %q, want a warning: %v", tt.mode, status, errs, tt.want)
		}
	}
}

// asked returns the reply of a daemon to a command, when it has started.
func (d *daemon) asked(t *testing.T, dir, command string) string {
	t.Helper()
	limit := time.Now().Add(patience)
	for tick := time.NewTicker(5 * time.Millisecond); ; <-tick.C {
		c, err := api.OpenControl(t.Context(), api.Target{Dir: dir})
		if err != nil && time.Now().Before(limit) {
			continue
		}
		if err != nil {
			t.Fatalf("it does not start: %v, %s", err, d.text())
		}
		defer c.Close()
		text, err := c.Call(t.Context(), command, nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

func TestTheLevelOfTheLogIsThatOfTheFlagThenThatOfTheFile(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, `"INFO"`},
		{[]string{"-set", `default_logger_log_level="ERROR"`}, `"ERROR"`},
		{[]string{"-v", "-set", `default_logger_log_level="ERROR"`}, `"DEBUG"`},
	} {
		dir := newDir(t)
		d := spawn(t, "server", nil, nil, append([]string{"-tls", "off", "-dir", dir, "-addr", freeAddr(t)}, tt.args...)...)
		if reply := d.asked(t, dir, "show_log_level"); reply != tt.want {
			t.Errorf("%q: the level is %s, want %s", tt.args, reply, tt.want)
		}
		d.signal(t, syscall.SIGTERM)
		d.ends(t)
	}
}
