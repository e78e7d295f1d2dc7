package identity

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aioc/lib/config"
)

// PackClient writes a tar archive of what a new client needs: the certificate of
// the server, and the default certificate with its key. It holds no client's own
// key. Unpacked in certificates_directory_path it gives the tree's client side.
// Errors wrap ErrMissing or ErrUnsafe where one of them is the reason; nothing is
// written then.
func PackClient(w io.Writer, dir string) error {
	tree := config.CertificateTree(dir)
	var files []string
	for _, path := range []string{tree.ClientServerCert, tree.ClientCert(defaultName), tree.ClientKey(defaultName)} {
		if !exists(path) {
			return explain("file", path, "run: aioc-certs create "+shellWord(dir)+", or where there are other certificates: aioc-certs renew server, renew default", fs.ErrNotExist)
		}
		files = append(files, path)
	}
	return pack(w, tree, []string{tree.ClientDir, tree.ClientServerCertDir, tree.ClientCertDir}, files)
}

// PackServer writes a tar archive of all of the tree's server side, the private
// keys included. Errors are as those of PackClient, and ErrBusy.
func PackServer(w io.Writer, dir string) error {
	tree := config.CertificateTree(dir)
	if !exists(tree.ServerCert) {
		return explain("certificate", tree.ServerCert, ofServer(tree, dir).missing, fs.ErrNotExist)
	}
	return changeTree(dir, []string{tree.ServerDir}, func() error {
		var dirs, files []string
		err := filepath.WalkDir(tree.ServerDir, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case strings.HasPrefix(e.Name(), swapPrefix) && e.IsDir():
				return fs.SkipDir
			case e.IsDir():
				dirs = append(dirs, path)
			case strings.HasPrefix(e.Name(), ".aioc-") && strings.HasSuffix(e.Name(), ".tmp"):
			default:
				files = append(files, path)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return pack(w, tree, dirs, files)
	})
}

// pack reads everything before it writes anything, so that an archive is whole
// or not there.
func pack(w io.Writer, tree config.Certificates, dirs, files []string) error {
	var entries []tar.Header
	var contents [][]byte
	above := filepath.Dir(tree.Root)
	add := func(path string, h tar.Header, data []byte) error {
		name, err := filepath.Rel(above, path)
		if err != nil {
			return err
		}
		h.Name, h.ModTime, h.Format = filepath.ToSlash(name), time.Now(), tar.FormatPAX
		if h.Typeflag == tar.TypeDir {
			h.Name += "/"
		}
		h.ModTime = h.ModTime.Truncate(time.Second)
		h.Size = int64(len(data))
		entries, contents = append(entries, h), append(contents, data)
		return nil
	}
	for _, path := range append([]string{tree.Root}, dirs...) {
		if err := add(path, tar.Header{Typeflag: tar.TypeDir, Mode: 0o700}, nil); err != nil {
			return err
		}
	}
	for _, path := range files {
		if filepath.Dir(path) == tree.Symlinks {
			target, err := os.Readlink(path)
			if err == nil {
				if err := add(path, tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}, nil); err != nil {
					return err
				}
				continue
			}
		}
		// A link to elsewhere would lead nowhere on the other host.
		data, info, err := readFile(path)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
		mode := int64(0o644)
		if strings.HasSuffix(strings.TrimSuffix(strings.TrimSuffix(path, orgSuffix), nextSuffix), ".key") {
			if err := checkPrivate(path, info); err != nil {
				return fmt.Errorf("key %q: %w", path, err)
			}
			mode = 0o600
		} else if info.Mode().Perm()&0o077 == 0 {
			mode = 0o600
		}
		if err := add(path, tar.Header{Typeflag: tar.TypeReg, Mode: mode}, data); err != nil {
			return err
		}
	}
	t := tar.NewWriter(w)
	for i := range entries {
		if err := t.WriteHeader(&entries[i]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		if _, err := t.Write(contents[i]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}
