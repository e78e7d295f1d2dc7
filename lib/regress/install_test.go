package regress

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runMake runs make at the top of the tree.
func runMake(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("make", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %q: %v\n%s", args, err, out)
	}
}

// tree lists the files below a directory, with their modes.
func tree(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, path)
		all[rel] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInstallAndUninstall(t *testing.T) {
	bin, prefix := binaries(t), filepath.Join(t.TempDir(), "a prefix")
	args := []string{"OUT=" + bin, "PREFIX=" + prefix, "SYSCONFDIR=" + prefix + "/etc"}
	runMake(t, append(args, "install")...)
	runMake(t, append(args, "install")...) // over what is there
	files := tree(t, prefix)
	want := []string{"lib/systemd/system/aioc-server.service", "lib/systemd/system/aioc-server.socket", "lib/systemd/system/aioc-client.service",
		"lib/systemd/system/aioc-client@.service", "lib/sysusers.d/aioc.conf", "lib/tmpfiles.d/aioc.conf",
		"share/aioc/aioc-server.openrc", "share/aioc/aioc-client.openrc", "share/aioc/aioc-server.rc", "share/aioc/aioc-client.rc"}
	for _, program := range mains(t) {
		want = append(want, "bin/"+program, "share/bash-completion/completions/"+program,
			"share/zsh/site-functions/_"+program, "share/fish/vendor_completions.d/"+program+".fish")
	}
	for name := range pages(t) {
		want = append(want, "share/man/man"+name[len(name)-1:]+"/"+name)
	}
	for _, name := range want {
		mode, ok := files[name]
		if !ok {
			t.Errorf("%s is not installed", name)
			continue
		}
		runs := strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "share/aioc/")
		if expected := map[bool]fs.FileMode{true: 0o755, false: 0o644}[runs]; mode != expected {
			t.Errorf("%s has mode %v, want %v", name, mode, expected)
		}
	}
	for name := range files {
		if !slices.Contains(want, name) {
			t.Errorf("%s is installed, and nobody knows why", name)
		}
	}
	for _, name := range []string{"lib/systemd/system/aioc-server.service", "lib/systemd/system/aioc-client@.service", "share/aioc/aioc-server.openrc", "share/aioc/aioc-client.rc"} {
		text, err := os.ReadFile(filepath.Join(prefix, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "/usr/bin/aioc") || !strings.Contains(string(text), prefix+"/bin/aioc-") {
			t.Errorf("%s does not run the programs that were installed", name)
		}
	}
	runMake(t, append(args, "uninstall")...)
	if left := tree(t, prefix); len(left) > 0 {
		t.Errorf("uninstall left %v", left)
	}
}

// The units are good, as systemd sees them where it is installed.
func TestUnitsAreVerified(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd-analyze is not installed: only the flags are compared")
	}
	bin, prefix := binaries(t), t.TempDir()
	runMake(t, "OUT="+bin, "PREFIX="+prefix, "SYSCONFDIR="+prefix+"/etc", "install")
	units, err := filepath.Glob(filepath.Join(prefix, "lib/systemd/system/*"))
	if err != nil || len(units) != 4 {
		t.Fatalf("got %q, %v", units, err)
	}
	if analyze != "" {
		if out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput(); err != nil || strings.Contains(string(out), prefix) {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
	}
	// What the units run is understood: all is well but the file, which is not there.
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart=")
			if !ok {
				continue
			}
			words := strings.Fields(strings.ReplaceAll(command, "%i", "pump7"))
			out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
			exit, _ := err.(*exec.ExitError)
			if exit == nil || exit.ExitCode() != 78 || !strings.Contains(string(out), prefix+"/etc/aioc/") {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
}
