// Command complete writes the completions of all programs for bash, zsh and
// fish, from what each prints with -h: make completions runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the programs")
	cmd := flag.String("cmd", "cmd", "directory of their sources")
	out := flag.String("out", "cmd", "directory where the files go, below the names of the programs")
	flag.Parse()
	if err := run(*bin, *cmd, *out); err != nil {
		fmt.Fprintln(os.Stderr, "complete:", err)
		os.Exit(1)
	}
}

func run(bin, cmd, out string) error {
	mains, err := filepath.Glob(filepath.Join(cmd, "*", "main.go"))
	if err != nil {
		return err
	}
	for _, main := range mains {
		name := filepath.Base(filepath.Dir(main))
		usage, err := exec.Command(filepath.Join(bin, name), "-h").Output()
		if err != nil {
			return fmt.Errorf("%s -h: %w", name, err)
		}
		if err := os.MkdirAll(filepath.Join(out, name), 0o755); err != nil {
			return err
		}
		for file, text := range files(name, string(usage)) {
			if err := os.WriteFile(filepath.Join(out, name, file), []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}
