package chat

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aioc/lib/durable"
	"aioc/lib/identity"
)

// The files of a user, in Options.State.
const (
	keyFile   = "chat-key.pem" // the private key of this end when it listens
	hostsFile = "chat-hosts"   // HOST:PORT and key of those who were called
)

// ownCertificate returns the certificate of a listening end. Its key stays the
// same from one chat to the next, so that callers know it again; with an empty
// dir it is made anew each time.
func ownCertificate(dir string) (tls.Certificate, error) {
	var none tls.Certificate
	key, err := ownKey(dir)
	if err != nil {
		return none, err
	}
	// The certificate is nothing but a cover of the key, and new each time:
	// one that is kept would expire.
	now := time.Now()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return none, fmt.Errorf("make a certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "aioc-chat"},
		NotBefore:    now.AddDate(-1, 0, 0), // clocks differ
		NotAfter:     now.AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return none, fmt.Errorf("make a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ownKey reads the key of this end, or makes it.
func ownKey(dir string) (*ecdsa.PrivateKey, error) {
	if dir == "" {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	path := filepath.Join(dir, keyFile)
	for range 2 { // another chat may make it at this moment
		key, err := readKey(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return key, err
		}
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		if err := durable.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("directory of the chat's key: %w: set XDG_STATE_HOME to a directory of yours", err)
		}
		err = durable.CreateFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
		if err == nil {
			return key, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("key of the chat: %w", err)
		}
	}
	return readKey(path)
}

// readKey reads a key that is for us alone.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key of the chat: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key of the chat %q: mode %v lets others use it: run chmod 600, or remove it to get a new one", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key of the chat: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("key of the chat %q: no key in it: remove it to get a new one", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("key of the chat %q: not a key of ours: remove it to get a new one", path)
	}
	return key, nil
}

// keyOf returns the fingerprint of the key that the other end has proven to
// hold.
func keyOf(s *tls.ConnectionState) string {
	if len(s.PeerCertificates) == 0 {
		return ""
	}
	return identity.Fingerprint(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
}

// hosts remembers the keys of the listening ends that were called, by HOST:PORT
// as the user wrote it.
type hosts struct{ path string }

// key returns the key that was seen at an address, or "".
func (h hosts) key(addr string) (string, error) {
	if h.path == "" {
		return "", nil
	}
	f, err := os.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("keys of others: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("keys of others: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("keys of others %q: mode %v lets others change it: look through it and run chmod 600", h.path, info.Mode())
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return "", fmt.Errorf("keys of others: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == addr {
			return f[1], nil
		}
	}
	return "", nil
}

// remember notes the key of an address, in place of an older one.
func (h hosts) remember(addr, key string) error {
	if h.path == "" {
		return nil
	}
	err := h.edit(addr, key)
	if errors.Is(err, fs.ErrNotExist) {
		if err = durable.MkdirAll(filepath.Dir(h.path), 0o700); err == nil {
			err = durable.CreateFile(h.path, nil, 0o600)
		}
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = h.edit(addr, key)
		}
	}
	if err != nil {
		return fmt.Errorf("keys of others: %w", err)
	}
	return nil
}

// edit is remember in a file that is there.
func (h hosts) edit(addr, key string) error {
	return durable.Edit(h.path, func(old []byte) ([]byte, error) {
		var out bytes.Buffer
		for line := range strings.Lines(string(old)) {
			if f := strings.Fields(line); len(f) == 0 || f[0] != addr {
				out.WriteString(strings.TrimSuffix(line, "\n") + "\n")
			}
		}
		fmt.Fprintf(&out, "%s %s\n", addr, key)
		return out.Bytes(), nil
	})
}
