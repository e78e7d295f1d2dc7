//go:build bridge

package regress

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// recipe is a display of aioc-bridge(7) that a comment before it names.
var recipe = regexp.MustCompile(`(?m)^\.\\" recipe: ([a-z-]+)\n\.Bd .*\n((?s:.*?))^\.Ed$`)

// escape is what a page has to write in another way.
var escape = regexp.MustCompile(`\\(\(..|.)`)

// escapes says what the escapes stand for.
var escapes = map[string]string{
	`\(aq`: "'", `\(ga`: "`", `\(ha`: "^", `\(ti`: "~", `\e`: `\`, `\-`: "-", `\&`: "",
}

// TestBridge runs the recipes of aioc-bridge(7), as they are in the page,
// against real brokers that it starts on ports of its own. It fails without
// them.
func TestBridge(t *testing.T) {
	dir := t.TempDir()
	found := recipe.FindAllStringSubmatch(mustRead(t, "man/aioc-bridge.7"), -1)
	for _, m := range found {
		name := m[1]
		text := escape.ReplaceAllStringFunc(m[2], func(e string) string {
			plain, ok := escapes[e]
			if !ok {
				t.Errorf("recipe %s: what does %s stand for?", name, e)
			}
			return plain
		})
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if want := strings.Count(mustRead(t, "man/aioc-bridge.7"), "recipe:"); len(found) != want {
		t.Errorf("found %d recipes in the page, want %d", len(found), want)
	}
	t.Setenv("RECIPES", dir)

	scripts, err := filepath.Glob("testdata/bridge/*.sh")
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
		t.Run(name, func(t *testing.T) { runScript(t, script) })
	}
	if ran == 0 {
		t.Error("there are no scripts in testdata/bridge")
	}
}
