package cli

import (
	"runtime/debug"
	"testing"
)

func TestVersionOf(t *testing.T) {
	info := func(version string, settings ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Version: version}}
		for i := 0; i < len(settings); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: settings[i], Value: settings[i+1]})
		}
		return b
	}
	tests := []struct {
		name string
		info *debug.BuildInfo
		want string
	}{
		{"an installed module has its version", info("v1.2.3"), "v1.2.3"},
		{"a source tree has its revision", info("(devel)", "vcs.revision", "0123456789abcdef"), "devel-0123456789ab"},
		{"a changed source tree says so", info("", "vcs.revision", "0123", "vcs.modified", "true"), "devel-0123-dirty"},
		{"nothing known is devel", info("(devel)"), "devel"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := versionOf(tt.info); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if Version() == "" {
		t.Error("Version() is empty")
	}
}
