package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/config"
)

// The tools look where the daemon is: see the same test of lib/daemon.
func TestTheDirectoryInAFileThatIsNamedGoesBeforeTheEnvironment(t *testing.T) {
	dir, _ := daemon(t, func(cfg *config.Config) { cfg.IsServer, cfg.ClientName = false, "c1" })
	file := filepath.Join(t.TempDir(), "c1.json")
	text := fmt.Sprintf(`{"is_server": false, "client_name": "c1", "connector_files_dirpath": %q}`, dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, dir, config string // of the environment
		args              string
		status            int
	}{
		{"the file", "/nowhere", "", "-config " + file, 0},
		{"the file of the environment", "/nowhere", file, "", 69},
		{"the file of the environment alone", "", file, "", 0},
		{"a flag beside it", "", "", "-dir /nowhere -config " + file, 69},
		{"a flag", "/nowhere", "", "-dir " + dir, 0},
	} {
		t.Setenv("AIOC_DIR", tt.dir)
		t.Setenv("AIOC_CONFIG", tt.config)
		for _, command := range []string{"show source_id", "list"} {
			status, out, errs := ctl(t, "", strings.Fields(tt.args+" "+command)...)
			found := strings.Contains(out, `"c1"`)
			if found != (tt.status == 0) || command != "list" && status != tt.status {
				t.Errorf("%s: %s: status %d, %q, %q; want %d", tt.name, command, status, out, errs, tt.status)
			}
		}
	}
}
