package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/identity"
)

// runs calls the program and returns what it did.
func runs(args ...string) (status int, stdout, stderr string) {
	var out, err strings.Builder
	status = run(args, strings.NewReader(""), &out, &err)
	return status, out.String(), err.String()
}

// newDir returns a directory that only we may write to, whatever the umask.
func newDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newTree returns a directory with a tree, which nothing but the tests knows.
func newTree(t *testing.T) string {
	t.Helper()
	t.Setenv("AIOC_DIR", "")
	dir := newDir(t)
	if err := identity.Create(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCreateIsQuietButForTheFingerprint(t *testing.T) {
	t.Setenv("AIOC_DIR", "")
	dir := filepath.Join(newDir(t), "x")
	status, stdout, stderr := runs("create", dir)
	if status != cli.OK || stdout != "" {
		t.Errorf("status %d, stdout %q, want %d and nothing", status, stdout, cli.OK)
	}
	if !regexp.MustCompile(`^server certificate SHA256:[0-9A-Za-z+/]{43}\n$`).MatchString(stderr) {
		t.Errorf("stderr %q", stderr)
	}
	status, stdout, _ = runs("fingerprint", dir)
	if status != cli.OK || "server certificate "+stdout != stderr {
		t.Errorf("fingerprint: status %d, %q, want that of %q", status, stdout, stderr)
	}
}

func TestCreateNamesFilesWithV(t *testing.T) {
	t.Setenv("AIOC_DIR", "")
	dir := newDir(t)
	status, stdout, stderr := runs("create", "-v", dir)
	if status != cli.OK || stdout != "" {
		t.Errorf("status %d, stdout %q", status, stdout)
	}
	tree := config.CertificateTree(dir)
	for _, path := range []string{tree.ServerKey, tree.ServerCert, tree.ClientKey("default"), tree.CSRTemplate} {
		if !strings.Contains(stderr, path+"\n") {
			t.Errorf("stderr does not name %s:\n%s", path, stderr)
		}
	}
}

func TestTheDirectoryIsTheArgumentOrTheFlagOrTheEnvironment(t *testing.T) {
	for name, c := range map[string]func(dir string) []string{
		"argument":                   func(dir string) []string { return []string{"create", dir} },
		"flag after the command":     func(dir string) []string { return []string{"create", "-dir", dir} },
		"flag before the command":    func(dir string) []string { return []string{"-dir", dir, "create"} },
		"argument and flag -v":       func(dir string) []string { return []string{"create", "-v", dir} },
		"argument after --":          func(dir string) []string { return []string{"create", "--", dir} },
		"two hyphens":                func(dir string) []string { return []string{"create", "--dir=" + dir} },
		"environment without others": func(string) []string { return []string{"create"} },
	} {
		t.Run(name, func(t *testing.T) {
			dir, other := newDir(t), filepath.Join(newDir(t), "other")
			t.Setenv("AIOC_DIR", other)
			if name == "environment without others" {
				t.Setenv("AIOC_DIR", dir)
			}
			if status, _, stderr := runs(c(dir)...); status != cli.OK {
				t.Fatalf("status %d: %s", status, stderr)
			}
			if _, err := os.Stat(config.CertificateTree(dir).ServerKey); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(other); err == nil {
				t.Errorf("%q was made", other)
			}
		})
	}
}

func TestMistakesAreNamed(t *testing.T) {
	dir := newTree(t)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no command":              {nil, "a command is missing: create, list"},
		"an unknown command":      {[]string{"make"}, `"make" is not a command: use create, list`},
		"an unknown flag":         {[]string{"create", "-x"}, "-x"},
		"too many arguments":      {[]string{"create", "a", "b"}, "too many arguments"},
		"a flag after the DIR":    {[]string{"create", dir, "-v"}, "too many arguments (flags come before them)"},
		"no NAME":                 {[]string{"show"}, "NAME is missing"},
		"an empty DIR":            {[]string{"create", ""}, "DIR is empty"},
		"two directories":         {[]string{"list", "-dir", dir, dir}, "-dir can't be used with a DIR argument"},
		"-json with create":       {[]string{"create", "-json"}, "-json can't be used with create"},
		"-v with list":            {[]string{"-v", "list"}, "-v can't be used with list"},
		"-days with fingerprint":  {[]string{"fingerprint", "-days", "3"}, "-days can't be used with fingerprint"},
		"days that are no number": {[]string{"check", "-days", "soon"}, "whole number"},
		"-ca with list":           {[]string{"list", "-ca"}, "-ca can't be used with list"},
		"-key with revert-server": {[]string{"revert-server", "-key", "x"}, "-key can't be used with revert-server"},
		"-connector with show":    {[]string{"show", "-connector", "x", "y"}, "-connector can't be used with show"},
		"an unknown side":         {[]string{"pack", "both"}, "say server or client"},
		"fewer than no days":      {[]string{"check", "-days", "-1"}, "0 or more"},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := runs(c.args...)
			if status != cli.Usage || stdout != "" || !strings.Contains(stderr, c.says) ||
				!strings.HasSuffix(stderr, "see aioc-certs -h\n") || strings.Count(stderr, "\n") != 2 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d with %q", status, stdout, stderr, cli.Usage, c.says)
			}
		})
	}
}

func TestHelpAndVersionGoToStdout(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"create", "-h"}, {"-help"}, {"-version"}, {"list", "--version"}} {
		status, stdout, stderr := runs(args...)
		if status != cli.OK || stderr != "" || !strings.Contains(stdout, "aioc-certs") {
			t.Errorf("%q: status %d, stdout %q, stderr %q", args, status, stdout, stderr)
		}
	}
}

func TestStatusesSayWhy(t *testing.T) {
	t.Setenv("AIOC_DIR", "")
	full := newTree(t)
	open := newDir(t)
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	bad := newDir(t)
	template := config.CertificateTree(bad).CSRTemplate
	if err := os.MkdirAll(filepath.Dir(template), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(template, []byte("[req]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"a tree that is there":     {[]string{"create", full}, cli.Failed, "already"},
		"a directory open to all":  {[]string{"create", open}, cli.Refused, "chmod"},
		"a template that is wrong": {[]string{"create", bad}, cli.BadConfig, "csr_details_template.conf"},
		"nothing to list":          {[]string{"list", open}, cli.Failed, "run: aioc-certs create "},
		"nothing to show":          {[]string{"show", "server", open}, cli.Failed, "run: aioc-certs create "},
		"nothing to check":         {[]string{"check", open}, cli.Failed, "run: aioc-certs create "},
		"no fingerprint":           {[]string{"fingerprint", open}, cli.Failed, "run: aioc-certs create "},
		"a name that is not there": {[]string{"show", "pump\n7", full}, cli.Failed, `no certificate of "pump\n7"`},
	} {
		t.Run(name, func(t *testing.T) {
			status, stdout, stderr := runs(c.args...)
			if status != c.status || stdout != "" || !strings.Contains(stderr, c.says) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("status %d, stdout %q, stderr %q, want %d with %q", status, stdout, stderr, c.status, c.says)
			}
		})
	}
}

func TestListShowsEveryCertificate(t *testing.T) {
	dir := newTree(t)
	status, stdout, stderr := runs("list", dir)
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if status != cli.OK || stderr != "" || len(lines) != 5 {
		t.Fatalf("status %d, stderr %q, stdout:\n%s", status, stderr, stdout)
	}
	if got := strings.Fields(lines[0]); strings.Join(got, " ") != "NAME SIDE EXPIRES FINGERPRINT" {
		t.Errorf("heading %q", lines[0])
	}
	for i, want := range []string{"server server", "default server", "server client", "default client"} {
		f := strings.Fields(lines[i+1])
		if len(f) != 4 || f[0]+" "+f[1] != want || !strings.HasPrefix(f[3], "SHA256:") {
			t.Errorf("line %q, want %s", lines[i+1], want)
		}
	}

	status, stdout, _ = runs("list", "-json", dir)
	var all []identity.Certificate
	if err := json.Unmarshal([]byte(stdout), &all); err != nil || status != cli.OK || len(all) != 4 {
		t.Errorf("JSON: status %d, %v:\n%s", status, err, stdout)
	}

	bad := config.CertificateTree(dir).ServerClientCert("\x1b[31m")
	if err := os.WriteFile(bad, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr = runs("list", dir)
	if status != cli.Failed || strings.Count(stdout, "\n") != 5 || !strings.Contains(stderr, "no certificate in it") || strings.Contains(stderr, "\x1b") {
		t.Errorf("with a bad file: status %d, stderr %q, stdout:\n%s", status, stderr, stdout)
	}
}

func TestShowTellsAllOfOne(t *testing.T) {
	dir := newTree(t)
	tree := config.CertificateTree(dir)
	status, stdout, stderr := runs("show", "server", dir)
	if status != cli.OK || stderr != "" {
		t.Fatalf("status %d, stderr %q", status, stderr)
	}
	for _, want := range []string{"O=company,C=US", "16ae8728", tree.ServerCert, tree.ClientServerCert, "SHA256:"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, tree.ClientCert("default")) {
		t.Errorf("others are shown as well:\n%s", stdout)
	}
	_, stdout, _ = runs("show", "-json", "default", dir)
	var found []identity.Certificate
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found) != 2 || found[0].Fingerprint != found[1].Fingerprint {
		t.Errorf("JSON: %v:\n%s", err, stdout)
	}
}

func TestFingerprintShowsEachServerOnce(t *testing.T) {
	dir, other := newTree(t), newDir(t)
	if err := identity.Create(other); err != nil {
		t.Fatal(err)
	}
	_, one, _ := runs("fingerprint", dir)
	if strings.Count(one, "\n") != 1 {
		t.Errorf("fingerprint: %q, want one line", one)
	}
	// This host is also a client of another server.
	pem, err := os.ReadFile(config.CertificateTree(other).ServerCert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config.CertificateTree(dir).ClientServerCert, pem, 0o644); err != nil {
		t.Fatal(err)
	}
	_, two, _ := runs("fingerprint", other)
	status, both, _ := runs("fingerprint", dir)
	if want := strings.TrimSpace(one) + "  the server's\n" + strings.TrimSpace(two) + "  trusted by clients\n"; status != cli.OK || both != want {
		t.Errorf("fingerprint: status %d, %q, want %q", status, both, want)
	}
	_, stdout, _ := runs("fingerprint", "-json", dir)
	var found []identity.Certificate
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found) != 2 {
		t.Errorf("JSON: %v:\n%s", err, stdout)
	}
}

func TestCheckNamesWhatEndsSoon(t *testing.T) {
	dir := newTree(t)
	if status, stdout, stderr := runs("check", dir); status != cli.OK || stdout+stderr != "" {
		t.Errorf("a new tree: status %d, %q, %q", status, stdout, stderr)
	}
	status, stdout, stderr := runs("check", "-days", "3650", dir)
	if status != cli.Failed || stderr != "" || strings.Count(stdout, "\n") != 4 ||
		!strings.Contains(stdout, config.CertificateTree(dir).ServerCert+": expires on ") {
		t.Errorf("within ten years: status %d, stderr %q, stdout:\n%s", status, stderr, stdout)
	}
	if err := os.WriteFile(config.CertificateTree(dir).ServerClientCert("x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if status, stdout, stderr := runs("check", dir); status != cli.Failed || stdout != "" || !strings.Contains(stderr, "x.pem") {
		t.Errorf("with a bad file: status %d, %q, %q", status, stdout, stderr)
	}
}

func TestWarningsAreInDays(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		from, until time.Time
		want        string
	}{
		"long":            {now, now.AddDate(1, 0, 0), ""},
		"exactly 30 days": {now, now.AddDate(0, 0, 30), ""},
		"nearly 30 days":  {now, now.AddDate(0, 0, 30).Add(-time.Second), "expires on 2030-01-31, in 29 days"},
		"one day":         {now, now.AddDate(0, 0, 1), "expires on 2030-01-02, in 1 day"},
		"hours":           {now, now.Add(time.Hour), "expires on 2030-01-01, in less than a day"},
		"over":            {now, now.Add(-time.Second), "expired on 2030-01-01"},
		"tomorrow":        {now.AddDate(0, 0, 1), now.AddDate(1, 0, 0), "is not valid before 2030-01-02T12:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			got := warning(identity.Certificate{NotBefore: c.from, NotAfter: c.until}, now, 30)
			if got != c.want {
				t.Errorf("warning %q, want %q", got, c.want)
			}
		})
	}
}

// full is a stdout on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestAFailedWriteIsAFailure(t *testing.T) {
	dir := newTree(t)
	for _, args := range [][]string{{"list", dir}, {"list", "-json", dir}, {"show", "server", dir}, {"fingerprint", dir}, {"check", "-days", "9999", dir}} {
		var stderr strings.Builder
		if status := run(args, strings.NewReader(""), full{}, &stderr); status != cli.Failed || !strings.Contains(stderr.String(), "write: no space") {
			t.Errorf("%q: status %d, stderr %q", args, status, stderr.String())
		}
	}
}
