package daemon

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Which directory it is: the flag, then what the command line says in other
// ways, then the environment, then the file that the environment names.
func TestTheDirectoryOfTheCommandLineGoesBeforeTheEnvironment(t *testing.T) {
	base := newDir(t)
	with := mustWrite(t, filepath.Join(base, "with.json"), fmt.Sprintf(`{"use_ssl": false, "connector_files_dirpath": %q}`, base+"/file"))
	without := mustWrite(t, filepath.Join(base, "without.json"), `{"use_ssl": false}`)
	set := fmt.Sprintf("connector_files_dirpath=%q", base+"/set")
	for _, tt := range []struct {
		name, env string // AIOC_CONFIG
		args      []string
		want      string
		warned    bool
	}{
		{"a file that is named", "", []string{with}, "/file", false},
		{"a file that -config names", "", []string{"-config", with}, "/file", false},
		{"a file that both name", with, []string{with}, "/file", false},
		{"a file without a directory", "", []string{without}, "/env", false},
		{"a file that the environment names", with, nil, "/env", true},
		{"no file", "", nil, "/env", false},
		{"a flag and a file", "", []string{"-dir", base + "/flag", with}, "/flag", false},
		{"a key that is set", "", []string{"-set", set}, "/set", false},
		{"a key that is set beside a file", "", []string{"-set", set, with}, "/set", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("AIOC_DIR", base+"/env")
			t.Setenv("AIOC_CONFIG", tt.env)
			status, out, errs := do(t, true, append([]string{"-print-config"}, tt.args...)...)
			var got struct {
				Dir string `json:"connector_files_dirpath"`
			}
			if err := json.Unmarshal([]byte(out), &got); err != nil || status != 0 || got.Dir != base+tt.want {
				t.Errorf("status %d, directory %q, %v, %s; want %s", status, got.Dir, err, errs, base+tt.want)
			}
			_, _, errs = do(t, true, append([]string{"-t"}, tt.args...)...)
			if warned := strings.Contains(errs, "AIOC_DIR"); warned != tt.warned {
				t.Errorf("-t says %q, want a warning: %v", errs, tt.warned)
			}
		})
	}
}
