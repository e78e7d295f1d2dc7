package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"aioc/lib/config"
	"aioc/lib/durable"
)

var (
	// ErrTokenTaken: the name has a token already; the first who asks gets it.
	ErrTokenTaken = errors.New("has a token already")
	// ErrTokenFull: there are as many tokens as a server keeps.
	ErrTokenFull = errors.New("too many tokens")
	// ErrTokenWrong: the name has no token, or another one.
	ErrTokenWrong = errors.New("wrong token")
)

const (
	// maxTokens is how many clients may have a token, as in the original.
	maxTokens = 10000
	// maxToken is the length of a token in characters; what follows does not
	// count. It is the hexadecimal form of 32 bytes.
	maxToken = 64
	// maxTokenFile bounds the table: 10000 long names with their hashes.
	maxTokenFile = 4 << 20
)

// Tokens is a server's table of who has which token: a file of JSON with the
// SHA-256 of each, which aioconnectors reads and writes as well. The file is
// looked at before each use, so that what another program changes in it counts
// at once. Safe for concurrent use, also by several processes.
type Tokens struct {
	path   string
	nobody [2 * sha256.Size]byte // compared with when a name has no token

	table atomic.Pointer[tokenTable]

	mu sync.Mutex // one reads or writes the file at a time

	waiting sync.Mutex
	changes []*change // guarded by waiting: those that the next write makes
}

// change is a change of the table that somebody waits for.
type change struct {
	edit func(map[string]string) error
	err  error // when it is made; guarded by Tokens.mu
	made bool  // guarded by Tokens.mu
}

// tokenTable is the content of the file. It does not change.
type tokenTable struct {
	hashes map[string]string // hexadecimal SHA-256 by name
	state  fileState
}

// fileState tells whether a file is still the one that was read.
type fileState struct {
	there bool
	size  int64
	mtime time.Time
	info  fs.FileInfo // for os.SameFile
}

func stateOf(info fs.FileInfo) fileState {
	return fileState{there: true, size: info.Size(), mtime: info.ModTime(), info: info}
}

func (s fileState) same(t fileState) bool {
	return s.there == t.there && (!s.there || s.size == t.size && s.mtime.Equal(t.mtime) && os.SameFile(s.info, t.info))
}

// Hide makes the table readable for its owner only, and tells whether it was not:
// the original makes an empty one that others can read.
func (t *Tokens) Hide() (hidden bool, err error) {
	info, err := os.Stat(t.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().Perm()&0o077 == 0 {
		return false, nil
	}
	if err == nil {
		err = os.Chmod(t.path, 0o600)
	}
	if err != nil {
		return false, fmt.Errorf("tokens %q: others can read it: run: chmod 600 %s: %w", t.path, shellWord(t.path), bare(err))
	}
	return true, nil
}

// OpenTokens reads the table at path, which need not be there. Errors say what to
// do; one of a file that others could change wraps ErrUnsafe.
func OpenTokens(path string) (*Tokens, error) {
	t := &Tokens{path: path}
	var random [sha256.Size]byte
	rand.Read(random[:]) // never fails
	hex.Encode(t.nobody[:], random[:])
	if err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// Reload reads the file again. With an error the table stays as it was.
func (t *Tokens) Reload() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read()
}

// read is Reload with mu held.
func (t *Tokens) read() error {
	table, err := readTokens(t.path)
	if last := t.table.Load(); err == nil && !table.state.there && last != nil && len(last.hashes) > 0 {
		// Taken as empty it would make every name free for the first who asks.
		err = fmt.Errorf("it is gone, and it had the tokens of %d clients: put it back, or start the server again to begin with none", len(last.hashes))
	}
	if err != nil {
		return fmt.Errorf("tokens %q: %w", t.path, err)
	}
	t.table.Store(table)
	return nil
}

// fresh returns the table as the file has it now. When the file cannot be read,
// as while another program writes it, the error comes with the last one that was.
func (t *Tokens) fresh() (*tokenTable, error) {
	now := fileState{}
	if info, err := os.Stat(t.path); err == nil {
		now = stateOf(info)
	}
	if table := t.table.Load(); table.state.same(now) {
		return table, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.read()
	return t.table.Load(), err
}

// Check tells with an error that wraps ErrTokenWrong that the token is not that
// of the client called name. It takes as long for a name without a token.
func (t *Tokens) Check(name, token string) error {
	table, err := t.fresh()
	if err != nil {
		return err
	}
	hash, has := table.hashes[name]
	want, known := []byte(hash), 1
	if len(want) != len(t.nobody) {
		want, known = t.nobody[:], 0
	}
	if known&subtle.ConstantTimeCompare(want, []byte(hashToken(token))) != 1 {
		if !has {
			return fmt.Errorf("client %q: %w: it has none here: it was deleted, or is another server's", name, ErrTokenWrong)
		}
		return fmt.Errorf("client %q: %w", name, ErrTokenWrong)
	}
	return nil
}

// Has tells whether the client called name has a token.
func (t *Tokens) Has(name string) bool {
	table, _ := t.fresh()
	_, ok := table.hashes[name]
	return ok
}

// Hash returns what the table has of a client's token, "" if it has none: as long
// as it stays the same, so does the token.
func (t *Tokens) Hash(name string) string {
	table, _ := t.fresh()
	return table.hashes[name]
}

// Names returns the names of all clients that have a token, sorted.
func (t *Tokens) Names() []string {
	table, _ := t.fresh()
	return slices.Sorted(maps.Keys(table.hashes))
}

// New makes a token for a client that has none and returns it once its hash is
// on the disk. The error wraps ErrTokenTaken or ErrTokenFull when that is the
// reason. The token itself is kept nowhere.
func (t *Tokens) New(name string) (token string, err error) {
	if err := config.ValidName(name); err != nil {
		return "", err
	}
	token = newToken()
	err = t.change(func(hashes map[string]string) error { return insert(hashes, name, hashToken(token)) })
	if err != nil {
		return "", err
	}
	return token, nil
}

// errNothing ends a change that is none.
var errNothing = errors.New("nothing to change")

// Delete removes the token of a client and tells whether there was one.
func (t *Tokens) Delete(name string) (found bool, err error) {
	err = t.change(func(hashes map[string]string) error {
		if _, ok := hashes[name]; !ok {
			return errNothing
		}
		delete(hashes, name)
		return nil
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

// change changes the table with edit, which leaves it as it was if it fails. What
// many want to change at once is written at once: each write is of the whole file.
func (t *Tokens) change(edit func(map[string]string) error) error {
	mine := &change{edit: edit}
	t.waiting.Lock()
	t.changes = append(t.changes, mine)
	t.waiting.Unlock()

	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.made { // by the one that had mu before
		return mine.err
	}
	t.waiting.Lock()
	all := t.changes
	t.changes = nil
	t.waiting.Unlock()
	err := t.write(all)
	for _, c := range all {
		c.made = true
		if err != nil { // what one was refused for may be what another has not got now
			c.err = err
		}
	}
	return mine.err
}

// write reads the table, changes it and writes it. It sets the errors of the
// changes that fail. With an error the file is as it was. The caller holds mu.
func (t *Tokens) write(changes []*change) error {
	if err := durable.MkdirAll(filepath.Dir(t.path), 0o700); err != nil {
		return err
	}
	lock, err := durable.Lock(t.path + ".lock")
	for i := 0; errors.Is(err, durable.ErrLocked) && i < 500; i++ { // another process writes: a moment
		<-time.After(10 * time.Millisecond)
		lock, err = durable.Lock(t.path + ".lock")
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if err := t.read(); err != nil {
		return err
	}
	hashes := maps.Clone(t.table.Load().hashes)
	changed := false
	for _, c := range changes {
		c.err = c.edit(hashes)
		changed = changed || c.err == nil
	}
	if !changed {
		return nil
	}
	if err := durable.WriteFile(t.path, encodeTokens(hashes), 0o600); err != nil {
		return err
	}
	return t.read()
}

// readTokens reads a table. What is not there is empty.
func readTokens(path string) (*tokenTable, error) {
	table := &tokenTable{hashes: map[string]string{}}
	// Without O_NONBLOCK, opening a pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return table, nil
	}
	if err != nil {
		return nil, bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, bare(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxTokenFile {
		return nil, fmt.Errorf("larger than %d bytes", maxTokenFile)
	}
	if err := durable.CheckOwner(path); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if n < len(text) {
		return nil, bare(err)
	}
	if err := json.Unmarshal(text, &table.hashes); err != nil || table.hashes == nil {
		return nil, errors.New("it is damaged: want a JSON object of names and hashes: restore it, or remove it and the clients' tokens so that new ones are made")
	}
	table.state = stateOf(info)
	return table, nil
}

// encodeTokens writes a table as aioconnectors core.py does: four spaces, sorted,
// no newline at the end.
func encodeTokens(hashes map[string]string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	_ = e.Encode(hashes) // a map of strings, to memory
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// hashToken returns the hash of a token as the table has it.
func hashToken(token string) string {
	sum := sha256.Sum256([]byte(cutToken(token)))
	return hex.EncodeToString(sum[:])
}

// cutToken returns the part of a token that counts.
func cutToken(token string) string {
	n := 0
	for i := range token {
		if n == maxToken {
			return token[:i]
		}
		n++
	}
	return token
}

// TokenFile is where a client keeps its token: a file that holds the text and
// nothing else, as that of aioconnectors. Safe for concurrent use.
type TokenFile struct {
	Path string // config.Paths.ClientToken
	// StoreHook, if set, turns the token into the text that is written, and
	// LoadHook turns it back. Both may be called by any goroutine.
	StoreHook, LoadHook func(ctx context.Context, text string) (string, error)
}

// Load returns the token, "" when there is none. Errors say what to do and wrap
// ErrUnsafe when others could read the file.
func (f *TokenFile) Load(ctx context.Context) (string, error) {
	token, err := f.load(ctx, f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return token, err
}

// load reads a token from the file at path. When there is none the error wraps
// fs.ErrNotExist.
func (f *TokenFile) load(ctx context.Context, path string) (string, error) {
	text, info, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if stat, statErr := os.Stat(path); err != nil && statErr == nil && stat.IsDir() {
		err = errors.New("it is a directory: choose another tokens_directory_path, or another client_name")
	}
	if err == nil {
		err = checkPrivate(path, info)
	}
	token := string(text)
	if err == nil && f.LoadHook != nil {
		if token, err = f.LoadHook(ctx, token); err != nil {
			err = fmt.Errorf("hook_load_token: %w", err)
		}
	}
	if err == nil && strings.TrimSpace(token) == "" {
		err = errors.New("it is empty: remove it, and the token on the server, to get a new one")
	}
	if err != nil {
		return "", fmt.Errorf("token %q: %w", path, err)
	}
	return cutToken(token), nil
}

// Store keeps the token, in place of another one. The file is there, with all of
// it and mode 0600, or it is as it was.
func (f *TokenFile) Store(ctx context.Context, token string) error {
	if err := f.write(ctx, f.Path, token); err != nil {
		return err
	}
	return removeIf(f.pending())
}

// write writes a token to the file at path.
func (f *TokenFile) write(ctx context.Context, path, token string) error {
	token = cutToken(token)
	if strings.TrimSpace(token) == "" {
		return errors.New("the token is empty")
	}
	text := token
	if f.StoreHook != nil {
		var err error
		if text, err = f.StoreHook(ctx, token); err != nil {
			return fmt.Errorf("hook_store_token: %w", err)
		}
		if text == "" {
			return errors.New("hook_store_token: the program prints nothing: it must print what is to be written to the file of the token")
		}
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(text), 0o600)
}

// Delete removes the token and tells whether there was one.
func (f *TokenFile) Delete() (found bool, err error) {
	if err := removeIf(f.pending()); err != nil {
		return false, err
	}
	err = durable.Remove(f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
