package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"aioc/lib/config"
	"aioc/lib/durable"
)

// link is one entry of the directory symlinks.
type link struct {
	path   string
	target string // "" if it is no link but a file
}

// client returns the name of the client or default whose certificate it is.
func (l link) client() (name string, ok bool) {
	name, ok = strings.CutPrefix(l.target, "../")
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, ".pem")
	return name, ok && (isDefault(name) || config.ValidName(name) == nil)
}

// isDefault says that name is that of a certificate that clients share.
func isDefault(name string) bool {
	digits, ok := strings.CutPrefix(name, defaultName)
	return ok && strings.Trim(digits, "0123456789") == ""
}

// readLinks returns the links for a subject's hash, up to the first number that
// is free: there OpenSSL ends its search.
func readLinks(tree config.Certificates, hash string) ([]link, error) {
	var all []link
	for i := 0; ; i++ {
		path := linkPath(tree, hash, i)
		target, err := os.Readlink(path)
		if errors.Is(err, fs.ErrNotExist) {
			return all, nil
		}
		if err != nil {
			info, statErr := os.Lstat(path)
			if statErr != nil || !info.Mode().IsRegular() {
				return all, err
			}
		}
		all = append(all, link{path, target})
	}
}

func linkPath(tree config.Certificates, hash string, n int) string {
	return filepath.Join(tree.Symlinks, fmt.Sprintf("%s.%d", hash, n))
}

// addLink makes the link under which a certificate of client-certs is found.
func addLink(tree config.Certificates, name string, cert *x509.Certificate) error {
	if err := makeLink(tree, name, cert); err != nil {
		return err
	}
	return durable.SyncDir(tree.Symlinks)
}

// makeLink is addLink for one of several: the directory is not synced.
func makeLink(tree config.Certificates, name string, cert *x509.Certificate) error {
	hash, err := SubjectHash(cert.RawSubject)
	if err != nil {
		return err
	}
	links, err := readLinks(tree, hash)
	if err != nil {
		return err
	}
	return os.Symlink("../"+name+".pem", linkPath(tree, hash, len(links)))
}

// linksTo returns the paths of the links to a client's certificate.
func linksTo(tree config.Certificates, name string) ([]string, error) {
	entries, err := os.ReadDir(tree.Symlinks)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		path := filepath.Join(tree.Symlinks, e.Name())
		if e.Type() != fs.ModeSymlink {
			continue
		}
		if target, err := os.Readlink(path); err == nil && target == "../"+name+".pem" {
			found = append(found, path)
		}
	}
	return found, nil
}

// removeLink removes a link so that the numbers of its hash stay without a gap:
// OpenSSL ends its search at the first. Differs: the original moves all that
// follow down by one; here the last one takes the place, in one step, so that a
// kill leaves no gap behind that would lock other clients out.
func removeLink(tree config.Certificates, path string) error {
	hash, number, _ := strings.Cut(filepath.Base(path), ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return durable.Remove(path) // not a name that anybody looks for
	}
	links, err := readLinks(tree, hash)
	if err != nil {
		return err
	}
	if last := len(links) - 1; n < last {
		return durable.Rename(linkPath(tree, hash, last), path)
	}
	return durable.Remove(path)
}
