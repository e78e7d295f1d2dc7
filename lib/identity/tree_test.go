package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// entry is a row of testdata/created.json, the tree that aioconnectors makes.
type entry struct {
	Path   string `json:"path"`
	Type   string `json:"type"`
	Mode   string `json:"mode"`
	Target string `json:"target"`
}

var linkName = regexp.MustCompile(`/symlinks/[0-9a-f]{8}\.0$`)

// treeOf lists what is below dir/certificates; hashes in names become HASH.
func treeOf(t testing.TB, dir string) []entry {
	t.Helper()
	var found []entry
	err := filepath.WalkDir(filepath.Join(dir, "certificates"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		x := entry{Path: linkName.ReplaceAllString(name, "/symlinks/HASH.0"), Mode: fmt.Sprintf("0o%o", info.Mode().Perm())}
		switch info.Mode().Type() {
		case fs.ModeDir:
			x.Type = "dir"
		case fs.ModeSymlink:
			x.Type, x.Mode = "link", ""
			if x.Target, err = os.Readlink(path); err != nil {
				return err
			}
		case 0:
			x.Type = "file"
		}
		found = append(found, x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// originalTree is the tree of aioconnectors, with our modes of directories.
func originalTree(t testing.TB) []entry {
	t.Helper()
	var want []entry
	mustJSON(t, "testdata/created.json", &want)
	for i := range want {
		want[i].Path = linkName.ReplaceAllString(want[i].Path, "/symlinks/HASH.0")
		if want[i].Type == "dir" {
			want[i].Mode = "0o700"
		}
	}
	slices.SortFunc(want, func(a, b entry) int { return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/")) })
	return want
}

// checkComplete fails the test unless dir holds a whole tree and nothing else
// but the lock and what is named in extra.
func checkComplete(t testing.TB, dir string, extra ...entry) {
	t.Helper()
	want := append(originalTree(t), extra...)
	slices.SortFunc(want, func(a, b entry) int { return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/")) })
	got := treeOf(t, dir)
	slices.SortFunc(got, func(a, b entry) int { return slices.Compare(strings.Split(a.Path, "/"), strings.Split(b.Path, "/")) })
	if !slices.Equal(got, want) {
		t.Errorf("tree:\n%v\nwant\n%v", got, want)
	}
	checkNoLeftovers(t, dir)
}

func checkNoLeftovers(t testing.TB, dir string) {
	t.Helper()
	for _, name := range namesIn(t, dir) {
		if name != "certificates" && name != lockName {
			t.Errorf("%q was left in the directory", name)
		}
	}
}

func namesIn(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestCreateMakesTheTreeOfTheOriginal(t *testing.T) {
	dir := filepath.Join(newDir(t), "a", "b")
	mustCreate(t, dir)
	checkComplete(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory itself: %v, %v, want mode 0755", info.Mode(), err)
	}
}

func TestCreateMakesCertificatesThatFitTogether(t *testing.T) {
	dir := mustCreate(t, newDir(t))
	tree := config.CertificateTree(dir)
	before := time.Now()

	load := func(cert, key string) *x509.Certificate {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(mustRead(t, key))
		if block == nil || block.Type != "PRIVATE KEY" {
			t.Errorf("%s is not PKCS#8", key)
		}
		if k, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || k.Curve != elliptic.P256() {
			t.Errorf("%s is a %T, want ECDSA P-256", key, pair.PrivateKey)
		}
		return pair.Leaf
	}
	server := load(tree.ServerCert, tree.ServerKey)
	client := load(tree.ClientCert("default"), tree.ClientKey("default"))

	if got := server.Subject.String(); got != "O=company,C=US" {
		t.Errorf("the server is %q", got)
	}
	if got := client.Subject.String(); !regexp.MustCompile(`^O=[0-9a-f]{32},C=US$`).MatchString(got) {
		t.Errorf("the default client is %q", got)
	}
	for name, c := range map[string]*x509.Certificate{"server": server, "client": client} {
		if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
			t.Errorf("%s: not signed by itself: %v", name, err)
		}
		if !bytes.Equal(c.RawIssuer, c.RawSubject) {
			t.Errorf("%s: issuer %q", name, c.Issuer)
		}
		if len(c.Extensions) > 0 {
			t.Errorf("%s: extensions %v, want none", name, c.Extensions)
		}
		if got := len(c.SerialNumber.Bytes()); got != 20 || c.SerialNumber.Sign() < 0 {
			t.Errorf("%s: serial number of %d bytes, want 20", name, got)
		}
		if got := c.NotAfter.Sub(before); got < 3650*24*time.Hour-time.Hour || got > 3650*24*time.Hour+time.Hour {
			t.Errorf("%s: expires in %v, want 3650 days", name, got)
		}
		if c.NotBefore.After(before) {
			t.Errorf("%s: begins at %v, after it was made", name, c.NotBefore)
		}
	}
	if server.SerialNumber.Cmp(client.SerialNumber) == 0 {
		t.Error("server and client have the same serial number")
	}
	if !bytes.Equal(mustRead(t, tree.ServerCert), mustRead(t, tree.ClientServerCert)) {
		t.Error("the client does not trust the server's certificate")
	}
	if !bytes.Equal(mustRead(t, tree.ServerClientCert("default")), mustRead(t, tree.ClientCert("default"))) {
		t.Error("the server does not have the default client's certificate")
	}
	hash, err := SubjectHash(client.RawSubject)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, filepath.Join(tree.Symlinks, hash+".0")), mustRead(t, tree.ClientCert("default"))) {
		t.Error("the link does not lead to the default client's certificate")
	}
	if got := string(mustRead(t, tree.CSRTemplate)); got != defaultTemplate {
		t.Errorf("template %q", got)
	}
	if got, want := string(mustRead(t, tree.CSRDetails)), defaultTemplate+"O = "+client.Subject.Organization[0]+"\n"; got != want {
		t.Errorf("details %q, want %q", got, want)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	dir := newDir(t)
	tree := config.CertificateTree(dir)
	mine := head + "[dn]\nC = FR\nCN = base\n"
	mustWrite(t, tree.CSRTemplate, mine)
	mustWrite(t, tree.CSRDetails, "old\n")
	mustWrite(t, filepath.Join(tree.ServerDir, "notes", "read me"), "text\n")
	if err := os.Symlink("notes", filepath.Join(tree.ServerDir, "n")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{tree.ServerCertDir, tree.ServerClientCerts, tree.ClientDir} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mustCreate(t, dir)
	checkComplete(t, dir,
		entry{Path: "certificates/server/notes", Type: "dir", Mode: "0o700"},
		entry{Path: "certificates/server/notes/read me", Type: "file", Mode: "0o644"},
		entry{Path: "certificates/server/n", Type: "link", Target: "notes"})
	if got := string(mustRead(t, tree.CSRTemplate)); got != mine {
		t.Errorf("template %q, want %q", got, mine)
	}
	all, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := all[0].Subject; got != "O=company,CN=base,C=FR" {
		t.Errorf("the server is %q", got)
	}
}

func TestCreateFollowsALinkToTheTree(t *testing.T) {
	for name, there := range map[string]bool{"a directory": true, "a name that is free": false} {
		t.Run(name, func(t *testing.T) {
			dir, elsewhere := newDir(t), newDir(t)
			real := filepath.Join(elsewhere, "certs of base")
			if there {
				if err := os.Mkdir(real, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(real, filepath.Join(dir, "certificates")); err != nil {
				t.Fatal(err)
			}
			mustCreate(t, dir)
			if to, err := os.Readlink(filepath.Join(dir, "certificates")); err != nil || to != real {
				t.Errorf("the link leads to %q, %v, want %q", to, err, real)
			}
			if _, err := os.Stat(filepath.Join(real, "server", "server-cert", "server.key")); err != nil {
				t.Error(err)
			}
			if err := Create(dir); !errors.Is(err, ErrExists) {
				t.Errorf("again: %v, want %v", err, ErrExists)
			}
		})
	}
}

func TestCreateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, dir string)
		is      error
		says    string
	}{
		"a whole tree":                  {func(t *testing.T, dir string) { mustCreate(t, dir) }, ErrExists, "server-cert"},
		"a certificate of the server":   {func(t *testing.T, dir string) { mustWrite(t, dir+"/certificates/server/server-cert/x", "") }, ErrExists, `server-cert" has "x"`},
		"certificates of clients":       {func(t *testing.T, dir string) { mustWrite(t, dir+"/certificates/server/client-certs/x", "") }, ErrExists, `client-certs" has "x"`},
		"anything on the client's side": {func(t *testing.T, dir string) { mustWrite(t, dir+"/certificates/client/x", "") }, ErrExists, `client" has "x"`},
		"a file in the tree's place":    {func(t *testing.T, dir string) { mustWrite(t, dir+"/certificates", "") }, nil, "move it away"},
		"a file in a directory's place": {func(t *testing.T, dir string) { mustWrite(t, dir+"/certificates/client", "") }, nil, "not a directory"},
		"a link to nothing":             {func(t *testing.T, dir string) { os.Symlink("nowhere/at/all", dir+"/certificates") }, nil, "link to nothing"},
		"a link in a directory's place": {func(t *testing.T, dir string) {
			os.MkdirAll(dir+"/certificates/server", 0o755)
			os.Symlink(t.TempDir(), dir+"/certificates/server/server-cert")
		}, nil, `"server/server-cert" in the tree is not a directory: remove it`},
		"a bad template": {func(t *testing.T, dir string) {
			mustWrite(t, dir+"/certificates/server/csr_details_template.conf", head+"[dn]\nX = y\n")
		}, ErrTemplate, `csr_details_template.conf": line 5: subject field "X"`},
		"a template that is a directory": {func(t *testing.T, dir string) {
			mustWrite(t, dir+"/certificates/server/csr_details_template.conf/x", "")
		}, nil, "not a regular file"},
		"a directory that others may write to": {func(t *testing.T, dir string) { os.Chmod(dir, 0o777) }, ErrUnsafe, "chmod"},
		"a place that is taken by another process": {func(t *testing.T, dir string) {
			lock, err := durable.Lock(filepath.Join(dir, lockName))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { lock.Unlock() })
		}, ErrBusy, "try again"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newDir(t)
			c.prepare(t, dir)
			before := snapshot(t, dir)
			err := Create(dir)
			if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.is, c.says)
			}
			if got := snapshot(t, dir); got != before {
				t.Errorf("now there is\n%s\nbefore\n%s", got, before)
			}
		})
	}
	if err := Create(""); err == nil {
		t.Error("Create took an empty name")
	}
	if err := Create("a\x00b"); err == nil {
		t.Error("Create took a name with NUL")
	}
	file := filepath.Join(newDir(t), "file")
	mustWrite(t, file, "")
	if err := Create(file); err == nil {
		t.Error("Create took a file for a directory")
	}
}

// snapshot is the names and contents of everything below dir but the lock.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.Name() == lockName {
			return err
		}
		fmt.Fprintf(&b, "%s %v", path, e.Type())
		if e.Type().IsRegular() {
			fmt.Fprintf(&b, " %q", mustRead(t, path))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCreateTakesAnyName(t *testing.T) {
	for _, name := range []string{"with blank", "new\nline", "*?[a-", "$HOME", "-ca", "~", "üñ", "'\"`", strings.Repeat("x", 200)} {
		t.Run(strconv.Quote(name), func(t *testing.T) {
			parent := newDir(t)
			dir := filepath.Join(parent, name)
			mustCreate(t, dir)
			checkComplete(t, dir)
			err := Create(dir)
			if !errors.Is(err, ErrExists) || strings.ContainsAny(err.Error(), "\n") {
				t.Errorf("again: %q", err)
			}
			if got := namesIn(t, parent); len(got) != 1 {
				t.Errorf("beside it: %q", got)
			}
		})
	}
}

func TestOneOfManyCreatesWins(t *testing.T) {
	dir := newDir(t)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = Create(dir) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrExists) && !errors.Is(err, ErrBusy):
			t.Errorf("error %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d calls made a tree, want 1", won)
	}
	checkComplete(t, dir)
}

// placesBefore are what Create may find.
func placesBefore() map[string]func(t testing.TB, dir string) {
	return map[string]func(t testing.TB, dir string){
		"nothing": func(testing.TB, string) {},
		"a template": func(t testing.TB, dir string) {
			mustWrite(t, config.CertificateTree(dir).CSRTemplate, defaultTemplate+"L = here\n")
		},
	}
}

func TestCreateThatFailsAtAnyStepLeavesAllOrNothing(t *testing.T) {
	failed := errors.New("failed")
	for name, prepare := range placesBefore() {
		for how, swap := range map[string]func(a, b string) error{
			"in one move":  exchange,
			"in two moves": func(string, string) error { return errors.ErrUnsupported },
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				for at := 1; ; at++ {
					dir := newDir(t)
					prepare(t, dir)
					before := snapshot(t, dir)
					n := 0
					b := builder{exchange: swap, step: func(string) error {
						if n++; n == at {
							return failed
						}
						return nil
					}}
					err := b.create(dir)
					if n < at {
						if err != nil {
							t.Fatal(err)
						}
						checkComplete(t, dir)
						if at < 10 {
							t.Errorf("only %d steps were seen", n)
						}
						return
					}
					if !errors.Is(err, failed) {
						t.Fatalf("step %d: error %v", at, err)
					}
					if snapshot(t, dir) != before {
						checkComplete(t, dir)
					}
					checkNoLeftovers(t, dir)
				}
			})
		}
	}
}

func TestCreateThatIsKilledAtAnyStepLeavesAllOrNothing(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, prepare := range placesBefore() {
		for _, simple := range []bool{false, true} {
			if simple && name == "nothing" {
				continue // the same moves
			}
			t.Run(fmt.Sprintf("%s, two moves %v", name, simple), func(t *testing.T) {
				t.Parallel()
				for at := 1; ; at++ {
					dir := newDir(t)
					prepare(t, dir)
					before := snapshot(t, filepath.Join(dir, "."))
					cmd := exec.Command(self)
					cmd.Env = append(os.Environ(), killDir+"="+dir, killStep+"="+strconv.Itoa(at))
					if simple {
						cmd.Env = append(cmd.Env, killSimple+"=1")
					}
					out, err := cmd.CombinedOutput()
					if err == nil {
						checkComplete(t, dir)
						if at < 10 {
							t.Errorf("only %d steps were seen", at-1)
						}
						return
					}
					if len(out) > 0 {
						t.Fatalf("step %d: %s", at, out)
					}
					// What others see: the old tree, the new one, or (two moves) none.
					now := visible(t, dir)
					switch {
					case now == before:
					case strings.Contains(now, "server.key"):
						if got := treeOf(t, dir); !slices.Equal(got, originalTree(t)) {
							t.Fatalf("step %d: half a tree:\n%v", at, got)
						}
					case simple && !strings.Contains(now, "certificates"):
					default:
						t.Fatalf("step %d: now there is\n%s\nbefore\n%s", at, now, before)
					}
					// The next one finishes the work, or says that it is done.
					err = Create(dir)
					if err != nil && !(errors.Is(err, ErrExists) && strings.Contains(now, "server.key")) {
						t.Fatalf("step %d: again: %v", at, err)
					}
					checkComplete(t, dir)
					if name != "nothing" && !bytes.Contains(mustRead(t, config.CertificateTree(dir).CSRTemplate), []byte("L = here")) {
						t.Errorf("step %d: the template was lost", at)
					}
				}
			})
		}
	}
}

// visible is snapshot without the temporary directories.
func visible(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	for _, line := range strings.SplitAfter(snapshot(t, dir), "\n") {
		if !strings.Contains(line, "/"+tempPrefix) {
			b.WriteString(line)
		}
	}
	return b.String()
}
