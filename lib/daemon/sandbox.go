package daemon

import (
	"path/filepath"
	"strings"

	"aioc/lib/config"
	"aioc/lib/transfer"
)

// A daemon needs few of the rights that its user has. It gives up the others
// when it starts, so that whoever finds a mistake in it gets less:
//
//   - no program is executed, none gains rights (no_new_privs);
//   - files are made and written only below the directories that the
//     configuration names;
//   - a server connects to nothing, a client to its server only.
//
// What it may read and remove is not limited: local programs may send any file
// that they may read themselves.
//
// Hooks are programs that could do anything, so there is no sandbox with them.

// hooks lists the keys that configure hook programs.
func hooks(cfg *config.Config) (names []string) {
	for _, k := range config.Keys() {
		if strings.HasPrefix(k.Name, "hook_") && k.Name != "hook_timeout" && cfg.Given(k.Name) {
			names = append(names, k.Name)
		}
	}
	return names
}

// writesBelow lists the directories below which the daemon makes and writes files.
func writesBelow(cfg *config.Config) []string {
	dirs := []string{cfg.Dir(), cfg.CertificatesDir, cfg.TokensDir}
	if path := logPath(cfg); path != "" {
		dirs = append(dirs, filepath.Dir(path))
	}
	if cfg.File != "" { // commands that change a list write it
		if path, err := filepath.EvalSymlinks(cfg.File); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	for _, target := range cfg.FileTargets {
		dirs = append(dirs, transfer.Base(target.Directory))
	}
	var all []string
	for _, dir := range dirs {
		if abs, err := filepath.Abs(dir); err == nil {
			all = append(all, abs)
		}
	}
	return all
}
