package regress

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// goPackage is what the go command tells about a package.
type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// goList lists the packages of the module as a system sees them.
func goList(t *testing.T, system string, args ...string) []goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// order reads the package comment of lib/doc.go: the indented lines that begin
// with cmd or lib/name, highest first, as import paths.
func order(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "lib/doc.go"), nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for line := range strings.SplitSeq(file.Doc.Text(), "\n") {
		words := strings.Fields(line)
		if strings.HasPrefix(line, "\t") && len(words) > 1 && (words[0] == "cmd" || strings.HasPrefix(words[0], "lib/")) {
			paths = append(paths, "aioc/"+words[0])
		}
	}
	if len(paths) < 2 {
		t.Fatal("lib/doc.go lists no packages")
	}
	return paths
}

// place is where a package is in the order: all programs are at the first one,
// and a folder below a listed package is where that one is.
func place(order []string, path string) int {
	return slices.IndexFunc(order, func(o string) bool { return path == o || strings.HasPrefix(path, o+"/") })
}

// shipped says whether a package is part of the programs.
func shipped(path string) bool { return !strings.HasPrefix(path, "aioc/lib/regress") }

func TestImportsPointDownwards(t *testing.T) {
	order := order(t)
	for _, system := range []string{"linux", "darwin", "freebsd"} {
		for _, p := range goList(t, system, "./...") {
			from := place(order, p.ImportPath)
			for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				own := strings.HasPrefix(imported, "aioc/")
				if !own || imported == p.ImportPath || !shipped(p.ImportPath) {
					continue
				}
				if to := place(order, imported); from >= 0 && to >= 0 && to <= from {
					t.Errorf("%s: %s imports %s, which is not below it in lib/doc.go", system, p.ImportPath, imported)
				}
				if !shipped(imported) {
					t.Errorf("%s: %s imports %s, which is for tests", system, p.ImportPath, imported)
				}
			}
		}
	}
}

func TestDocListsEveryPackage(t *testing.T) {
	order := order(t)
	found := make([]bool, len(order))
	for _, p := range goList(t, "linux", "./...") {
		if p.ImportPath == "aioc/lib" { // the list itself
			continue
		}
		if i := place(order, p.ImportPath); i >= 0 {
			found[i] = true
		} else {
			t.Errorf("lib/doc.go does not list %s", p.ImportPath)
		}
	}
	for i, path := range order {
		if !found[i] {
			t.Errorf("lib/doc.go lists %s, which does not exist", path)
		}
		if slices.Index(order, path) != i {
			t.Errorf("lib/doc.go lists %s twice", path)
		}
	}
}

func TestOnlyStandardPackagesAreImported(t *testing.T) {
	for _, system := range []string{"linux", "darwin", "freebsd"} {
		for _, p := range goList(t, system, "./...") {
			for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				first, _, _ := strings.Cut(imported, "/")
				switch {
				case !strings.Contains(first, "."): // standard, or of this module
				case strings.HasPrefix(imported, "golang.org/x/sys/"), imported == "golang.org/x/term":
				default:
					t.Errorf("%s: %s imports %s", system, p.ImportPath, imported)
				}
			}
		}
	}
}

func TestToolsLinkNeitherTLSNorHTTP(t *testing.T) {
	for _, tool := range []string{"aioc-send", "aioc-recv", "aioc-ctl"} {
		for _, p := range goList(t, "linux", "-deps", "./cmd/"+tool) {
			if p.ImportPath == "crypto/tls" || p.ImportPath == "net/http" {
				t.Errorf("%s links %s, which makes it slow to start", tool, p.ImportPath)
			}
		}
	}
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	want := []string{"cmd", "lib", "man", "go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "bin"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		hidden := strings.HasPrefix(e.Name(), ".") // an editor's or git's, beside our own
		if !hidden && !slices.Contains(want, e.Name()) {
			t.Errorf("%s does not belong at the top of the tree", e.Name())
		}
	}
}
