package identity

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// A token is proposed: the client makes it, keeps it on its disk, and asks the
// server to take its hash. Whoever is killed then, or whatever gets lost on the
// way, the client asks again with the same one, and gets the same answer.
//
// Differs: the original's server makes the token and sends it once. When that
// gets lost, nobody has it, and the name is taken (aioconnectors connection.py).

// ErrProposal: it is not the hash of a token.
var ErrProposal = errors.New("not the hash of a token")

// Take gives the client called name the token with this hash, if it has none. It
// may ask again for the same one. Errors are those of New, and ErrProposal.
func (t *Tokens) Take(name, hash string) error {
	if err := config.ValidName(name); err != nil {
		return err
	}
	if raw, err := hex.DecodeString(hash); err != nil || len(hash) != len(t.nobody) || hex.EncodeToString(raw) != hash {
		return ErrProposal
	}
	err := t.change(func(hashes map[string]string) error {
		if hashes[name] == hash {
			return errNothing
		}
		return insert(hashes, name, hash)
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}

// insert adds the hash of a client's first token.
func insert(hashes map[string]string, name, hash string) error {
	if _, ok := hashes[name]; ok {
		return fmt.Errorf("client %q %w", name, ErrTokenTaken)
	}
	if len(hashes) >= maxTokens {
		return fmt.Errorf("%w: %d, which is the limit: delete those of clients that are gone", ErrTokenFull, len(hashes))
	}
	hashes[name] = hash
	return nil
}

// newToken returns a token that nobody can guess.
func newToken() string {
	var random [maxToken / 2]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

// pending is where a token waits that the server has not taken yet.
func (f *TokenFile) pending() string {
	return filepath.Join(filepath.Dir(f.Path), ".aioc-"+filepath.Base(f.Path)+".token")
}

// Propose returns the hash of the token that a client without one asks for. It
// is on the disk then, as Store would write it, and the same at each call, also
// after a restart, until Accept, Store or Delete.
func (f *TokenFile) Propose(ctx context.Context) (hash string, err error) {
	token, err := f.load(ctx, f.pending())
	if errors.Is(err, fs.ErrNotExist) {
		token = newToken()
		err = f.write(ctx, f.pending(), token)
	}
	if err != nil {
		return "", err
	}
	return hashToken(token), nil
}

// Accept makes the proposed token the client's: the server has taken it.
func (f *TokenFile) Accept() error { return durable.Rename(f.pending(), f.Path) }
