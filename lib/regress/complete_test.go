package regress

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompletionsFitThePrograms(t *testing.T) {
	out := t.TempDir()
	cmd := exec.Command("go", "run", "./lib/regress/complete", "-bin", binaries(t), "-out", out)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("complete: %v\n%s", err, text)
	}
	for _, program := range mains(t) {
		for _, file := range []string{program + ".bash", "_" + program, program + ".fish"} {
			want, err := os.ReadFile(filepath.Join(out, program, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(root, "cmd", program, file))
			if err != nil || string(got) != string(want) {
				t.Errorf("cmd/%s/%s is not up to date (%v): run make completions", program, file, err)
			}
			// Every flag is there.
			usage, err := exec.Command(filepath.Join(binaries(t), program), "-h").Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range flagLine.FindAllStringSubmatch(string(usage), -1) {
				if !strings.Contains(string(want), "-"+m[1]) && !strings.Contains(string(want), "-o "+m[1]+" ") {
					t.Errorf("%s has no flag -%s", file, m[1])
				}
			}
		}
	}
}

// The shells that are here read their files, and bash completes.
func TestCompletionsAreUnderstoodByTheShells(t *testing.T) {
	for shell, pattern := range map[string]string{"bash": "*.bash", "zsh": "_aioc-*", "fish": "*.fish"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // not installed
		}
		files, err := filepath.Glob(filepath.Join(root, "cmd", "*", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no %s: %v", pattern, err)
		}
		for _, file := range files {
			if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s -n %s: %v\n%s", shell, file, err, out)
			}
		}
		if shell != "bash" {
			continue
		}
		for words, want := range map[string]string{
			"aioc-send -a": "-ack -await ",
			"aioc-ctl sta": "status stats start ",
		} {
			program, _, _ := strings.Cut(words, " ")
			script := `. "$1"; COMP_WORDS=(` + words + `); COMP_CWORD=1; _` + strings.ReplaceAll(program, "-", "_") + ` 2>/dev/null; printf '%s ' "${COMPREPLY[@]}"`
			out, err := exec.Command(path, "-c", script, "sh", filepath.Join(root, "cmd", program, program+".bash")).Output()
			got := string(out)
			if err != nil || got != want {
				t.Errorf("%s: got %q, %v; want %q", words, got, err, want)
			}
		}
	}
}
