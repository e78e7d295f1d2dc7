package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// tokenDir returns a directory that only we can change.
func tokenDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// openTokens opens the table in a new directory.
func openTokens(t *testing.T, content string) (*Tokens, string) {
	t.Helper()
	path := filepath.Join(tokenDir(t), "server_tokens.json")
	if content != "" {
		write(t, path, content, 0o600)
	}
	table, err := OpenTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	return table, path
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
}

func TestATokenIsTheClientsAlone(t *testing.T) {
	table, path := openTokens(t, "")
	token, err := table.New("client1")
	if err != nil {
		t.Fatal(err)
	}
	if len(token) != 64 || strings.Trim(token, "0123456789abcdef") != "" {
		t.Fatalf("token: got %d characters, want 64 of hexadecimal", len(token))
	}
	other, err := table.New("client2")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, client, token string
		ok                  bool
	}{
		{"its own", "client1", token, true},
		{"its own with a newline, as an editor leaves it", "client1", token + "\n", true},
		{"that of another client", "client1", other, false},
		{"one that is as long", "client1", strings.Repeat("0", 64), false},
		{"its own but for the last character", "client1", token[:63] + "g", false},
		{"a shorter one", "client1", token[:63], false},
		{"a longer one", "client1", strings.Repeat("0", 1000), false},
		{"none", "client1", "", false},
		{"its hash", "client1", hashToken(token), false},
		{"that of a client without one", "client3", token, false},
		{"none of a client without one", "client3", "", false},
		{"a name with a newline", "client1\n", token, false},
		{"an empty name", "", token, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := table.Check(test.client, test.token)
			if test.ok && err != nil || !test.ok && !errors.Is(err, ErrTokenWrong) {
				t.Errorf("got %v, want success %v", err, test.ok)
			}
		})
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("{\n    \"client1\": \"%s\",\n    \"client2\": \"%s\"\n}", hashToken(token), hashToken(other))
	if string(text) != want {
		t.Errorf("file: got %q, want %q", text, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
}

func TestTheFirstWhoAsksGetsTheToken(t *testing.T) {
	table, path := openTokens(t, "")
	again, err := OpenTokens(path) // as another process
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	tokens := make(chan string, 8)
	for i := range 8 {
		all.Go(func() {
			who := table
			if i%2 == 1 {
				who = again
			}
			token, err := who.New("client1")
			switch {
			case err == nil:
				tokens <- token
			case !errors.Is(err, ErrTokenTaken):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(tokens) != 1 {
		t.Fatalf("got %d tokens, want 1", len(tokens))
	}
	if err := again.Check("client1", <-tokens); err != nil {
		t.Error(err)
	}
}

func TestNamesThatAreNoneGetNoToken(t *testing.T) {
	table, path := openTokens(t, "")
	for _, name := range []string{"", "client1\n", "../client1", "a b", "default7", strings.Repeat("n", 129)} {
		if _, err := table.New(name); err == nil {
			t.Errorf("%q: got a token, want an error", name)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}

func TestAServerKeepsTenThousandTokens(t *testing.T) {
	names := map[string]string{}
	for i := range maxTokens - 1 {
		names[fmt.Sprintf("client%d", i)] = hashToken("x")
	}
	text, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	table, _ := openTokens(t, string(text))
	if _, err := table.New("one"); err != nil {
		t.Errorf("number %d: %v", maxTokens, err)
	}
	if _, err := table.New("more"); !errors.Is(err, ErrTokenFull) {
		t.Errorf("number %d: got %v, want %v", maxTokens+1, err, ErrTokenFull)
	}
	if found, err := table.Delete("client7"); !found || err != nil {
		t.Errorf("delete: got %v, %v", found, err)
	}
	if _, err := table.New("more"); err != nil {
		t.Errorf("after a deletion: %v", err)
	}
}

func TestWhatAnotherProgramWritesCountsAtOnce(t *testing.T) {
	table, path := openTokens(t, `{}`)
	token := strings.Repeat("0123456789abcdef", 4)
	write(t, path, "{\n    \"client1\": \""+hashToken(token)+"\"\n}", 0o644)
	if err := table.Check("client1", token); err != nil {
		t.Errorf("a token that was added: %v", err)
	}
	write(t, path, `{"client1": "`, 0o644) // half of it is there
	if err := table.Check("client1", token); err == nil || errors.Is(err, ErrTokenWrong) {
		t.Errorf("a damaged file: got %v, want an error that says so", err)
	}
	if _, err := table.New("client2"); err == nil {
		t.Error("a damaged file was written over")
	}
	if text, _ := os.ReadFile(path); string(text) != `{"client1": "` {
		t.Errorf("the damaged file became %q", text)
	}
	if got := table.Names(); len(got) != 1 || got[0] != "client1" {
		t.Errorf("names: got %v, want what was there before the damage", got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := table.Check("client1", token); err == nil || !strings.Contains(err.Error(), "it is gone") {
		t.Errorf("the file is gone: got %v, want an error that says so", err)
	}
	if err := table.Reload(); err == nil {
		t.Error("the file is gone: reloaded as empty")
	}
	if err := table.Take("client1", strings.Repeat("0", 64)); err == nil {
		t.Error("the file is gone: the name is free for another")
	}
	if again, err := OpenTokens(path); err != nil || len(again.Names()) != 0 {
		t.Errorf("a new start: got %v", err)
	}
}

func TestDeletedTokensAreWorthNothing(t *testing.T) {
	table, _ := openTokens(t, "")
	token, err := table.New("client1")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := table.Delete("client1"); !found || err != nil {
		t.Fatalf("got %v, %v", found, err)
	}
	if err := table.Check("client1", token); !errors.Is(err, ErrTokenWrong) {
		t.Errorf("got %v, want %v", err, ErrTokenWrong)
	}
	if err := table.Check("client1", token); !strings.Contains(err.Error(), "has none here") {
		t.Errorf("got %v, want that it has none", err)
	}
	if table.Has("client1") {
		t.Error("it is still there")
	}
	if found, err := table.Delete("client1"); found || err != nil {
		t.Errorf("again: got %v, %v", found, err)
	}
}

func TestATableThatOthersCanChangeIsRefused(t *testing.T) {
	dir := tokenDir(t)
	path := filepath.Join(dir, "server_tokens.json")
	for _, test := range []struct {
		name, content string
		mode          os.FileMode
		unsafe        bool
	}{
		{"writable for all", "{}", 0o666, true},
		{"writable for the group", "{}", 0o660, true},
		{"readable for all, as the original makes it", "{}", 0o644, false},
	} {
		write(t, path, test.content, test.mode)
		_, err := OpenTokens(path)
		if errors.Is(err, ErrUnsafe) != test.unsafe || !test.unsafe && err != nil {
			t.Errorf("%s: got %v, want ErrUnsafe %v", test.name, err, test.unsafe)
		}
		if test.unsafe && !strings.Contains(fmt.Sprint(err), "chmod") {
			t.Errorf("%s: %v does not say what to do", test.name, err)
		}
	}
	for _, content := range []string{"", "null", "[]", `{"a": 1}`, `{"a": "b"} x`} {
		write(t, path, content, 0o600)
		if _, err := OpenTokens(path); err == nil {
			t.Errorf("%q: got no error", content)
		}
	}
}

// Whatever of a group of changes is decided, counts only once it is on the disk.
func TestChangesThatAreWrittenTogetherSucceedOrFailTogether(t *testing.T) {
	for _, fails := range []bool{false, true} {
		table, path := openTokens(t, "{}")
		hash := hashToken("x")
		const many = 20
		table.mu.Lock() // as if one were being written
		errs := make(chan error, many)
		for i := range many {
			go func() { errs <- table.Take(fmt.Sprint("client", i/2), hash) }() // twice each
		}
		for waiting := 0; waiting < many; runtime.Gosched() {
			table.waiting.Lock()
			waiting = len(table.changes)
			table.waiting.Unlock()
		}
		if fails {
			write(t, path, "damaged", 0o600)
		}
		table.mu.Unlock()
		for range many {
			if err := <-errs; (err != nil) != fails {
				t.Errorf("fails %v: got %v", fails, err)
			}
		}
		if fails {
			write(t, path, "{}", 0o600)
		}
		again, err := OpenTokens(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(again.Names()), many/2; fails && got != 0 || !fails && got != want {
			t.Errorf("fails %v: got %d names", fails, got)
		}
		if err := table.Take("another", hash); err != nil {
			t.Errorf("fails %v: the next: %v", fails, err)
		}
	}
}

func TestATableThatOthersCanReadIsHidden(t *testing.T) {
	table, path := openTokens(t, "")
	if hidden, err := table.Hide(); hidden || err != nil {
		t.Errorf("none: got %v, %v", hidden, err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o600} {
		write(t, path, "{}", mode)
		hidden, err := table.Hide()
		if err != nil || hidden != (mode != 0o600) {
			t.Errorf("mode %04o: got %v, %v", mode, hidden, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %04o: got mode %v, %v", mode, info.Mode(), err)
		}
	}
}

func TestAClientKeepsItsToken(t *testing.T) {
	ctx := context.Background()
	f := &TokenFile{Path: filepath.Join(tokenDir(t), "tokens", "client1")}
	if token, err := f.Load(ctx); token != "" || err != nil {
		t.Errorf("without a file: got %q, %v", token, err)
	}
	if found, err := f.Delete(); found || err != nil {
		t.Errorf("without a file: got %v, %v", found, err)
	}
	if _, err := (&TokenFile{Path: filepath.Dir(filepath.Dir(f.Path))}).Load(ctx); err == nil || !strings.Contains(err.Error(), "another client_name") {
		t.Errorf("a directory: got %v", err)
	}
	token := strings.Repeat("a", 64)
	if err := f.Store(ctx, token+"behind it"); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(ctx); got != token || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, token)
	}
	for path, want := range map[string]os.FileMode{f.Path: 0o600, filepath.Dir(f.Path): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want %v", path, info, err, want)
		}
	}
	if err := os.Chmod(f.Path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(ctx); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), token) {
		t.Errorf("readable for others: got %v, want %v", err, ErrUnsafe)
	}
	if found, err := f.Delete(); !found || err != nil {
		t.Errorf("delete: got %v, %v", found, err)
	}
	if err := f.Store(ctx, ""); err == nil {
		t.Error("an empty token was stored")
	}
}

func TestHooksChangeWhatIsWritten(t *testing.T) {
	ctx := context.Background()
	broken := false
	turn := func(_ context.Context, s string) (string, error) {
		if broken {
			return "", errors.New("no key")
		}
		return strings.Map(func(r rune) rune { return r ^ 1 }, s), nil
	}
	f := &TokenFile{Path: filepath.Join(tokenDir(t), "client1"), StoreHook: turn, LoadHook: turn}
	if err := f.Store(ctx, "secret"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(f.Path); err != nil || string(text) == "secret" {
		t.Errorf("file: got %q, %v, want what the hook made", text, err)
	}
	if got, err := f.Load(ctx); got != "secret" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	broken = true
	if _, err := f.Load(ctx); err == nil {
		t.Error("a hook that fails: got no error")
	}
	if err := f.Store(ctx, "other"); err == nil {
		t.Error("a hook that fails: got no error")
	}
	broken = false
	if got, err := f.Load(ctx); got != "secret" || err != nil {
		t.Errorf("after a hook that failed: got %q, %v", got, err)
	}
}

func TestAProposedTokenStaysTheSameUntilItIsAccepted(t *testing.T) {
	ctx := context.Background()
	dir := tokenDir(t)
	table, err := OpenTokens(filepath.Join(dir, "server_tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	f := &TokenFile{Path: filepath.Join(dir, "client1")}
	hash, err := f.Propose(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.pending()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of the proposal: %v, %v", info, err)
	}
	if token, err := f.Load(ctx); token != "" || err != nil {
		t.Errorf("before: got %q, %v, want none", token, err)
	}
	for range 2 {
		// A new process.
		again, err := (&TokenFile{Path: f.Path}).Propose(ctx)
		if err != nil || again != hash {
			t.Errorf("again: got %q, %v, want %q", again, err, hash)
		}
		if err := table.Take("client1", again); err != nil {
			t.Errorf("the server: %v", err)
		}
	}
	if err := f.Accept(); err != nil {
		t.Fatal(err)
	}
	token, err := f.Load(ctx)
	if err != nil || table.Check("client1", token) != nil {
		t.Errorf("got %q, %v, and the server says %v", token, err, table.Check("client1", token))
	}
	// What comes next is another token.
	other, err := f.Propose(ctx)
	if err != nil || other == hash {
		t.Errorf("after: got %q, %v", other, err)
	}
	if err := table.Take("client1", other); !errors.Is(err, ErrTokenTaken) {
		t.Errorf("another token for the same name: got %v, want %v", err, ErrTokenTaken)
	}
	for _, bad := range []string{"", "0", strings.Repeat("g", 64), strings.Repeat("A", 64), strings.Repeat("a", 66)} {
		if err := table.Take("client2", bad); !errors.Is(err, ErrProposal) {
			t.Errorf("%q: got %v, want %v", bad, err, ErrProposal)
		}
	}
	if err := table.Take("../x", hash); err == nil {
		t.Error("a name that is none was taken")
	}
	if found, err := f.Delete(); !found || err != nil {
		t.Errorf("delete: %v, %v", found, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 { // the table and its lock
		t.Errorf("left over: %v", entries)
	}
}

// How long a comparison takes is not to be measured here: what is compared with
// what is read off the source.
func TestTokensAreComparedInConstantTime(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "token.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constant, other := 0, 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "Check" {
			continue
		}
		ast.Inspect(f.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Name == "subtle" && n.Sel.Name == "ConstantTimeCompare" {
					constant++
				} else if ok && (x.Name == "bytes" || x.Name == "strings") {
					other++
				}
			case *ast.BinaryExpr:
				if id, ok := n.X.(*ast.Ident); ok && (id.Name == "hash" || id.Name == "want" || id.Name == "token") {
					other++
				}
			}
			return true
		})
	}
	if constant != 1 || other != 0 {
		t.Errorf("Check compares %d times in constant time and %d times otherwise, want once and never", constant, other)
	}
}
