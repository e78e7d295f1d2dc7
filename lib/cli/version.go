package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set when the programs are linked (-ldflags -X) and never changed.
var version string

// Version is the version of the programs: the one they were linked with, else
// what the go command recorded about module or source tree, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	return versionOf(info)
}

// versionOf finds a version in what the go command recorded.
func versionOf(info *debug.BuildInfo) string {
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	var revision, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if revision == "" {
		return "devel"
	}
	return "devel-" + revision + dirty
}

// printVersion prints the line of -version.
func printVersion(w io.Writer, name string) error {
	_, err := fmt.Fprintf(w, "%s %s (%s)\n", name, Version(), runtime.Version())
	return err
}
