//go:build interop

package regress

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// identityMode is a way in which clients prove who they are.
type identityMode struct {
	name  string
	ca    bool
	token bool
	keys  settings
}

func identityModes() []identityMode {
	return []identityMode{
		{name: "certificates", keys: settings{"ssl_allow_all": false}},
		{name: "ca", ca: true, keys: settings{"ssl_allow_all": false, "server_ca": true}},
		{name: "ca stored", ca: true, keys: settings{"ssl_allow_all": false, "server_ca": true, "server_ca_certs_not_stored": false}},
		{name: "token", token: true, keys: settings{"use_token": true}},
		{name: "token without certificates", token: true, keys: settings{"use_token": true, "token_verify_peer_cert": false}},
	}
}

// testIdentity enrols a client in every mode, lets both ends come back, takes
// from the client what it proves itself with, and lets it get another. The tree
// is made by the client's implementation, so that in mixed pairs the server uses
// one of the other.
func testIdentity(t *testing.T, py python) {
	var tests []subtest
	for _, mode := range identityModes() {
		for _, server := range []string{ours, theirs} {
			for _, client := range []string{ours, theirs} {
				if server == theirs && client == theirs {
					continue // their own business
				}
				name := fmt.Sprintf("%s/server=%s/client=%s", mode.name, server, client)
				tests = append(tests, subtest{name, func(t *testing.T) { testIdentityPair(t, py, mode, server, client) }})
			}
		}
	}
	together(t, 3, tests)
}

func testIdentityPair(t *testing.T, py python, mode identityMode, server, client string) {
	tree := newTree(t, py, client, mode.ca)
	more := settings{"certificates_directory_path": tree}
	for key, value := range mode.keys {
		more[key] = value
	}
	p := newPair(t, py, server, client, "anonymous", []string{"any", "ww"}, 0, more)
	p.start(t)
	arrives := func(word string) {
		t.Helper()
		to, from := newTools(t, ours, p.server), newTools(t, ours, p.client)
		for _, r := range []route{
			{"to the server", p.client, p.server, from, to},
			{"to the client", p.server, p.client, to, from},
		} {
			box := r.dst.receive(t, "ww", false)
			if err := r.src.send("ww", sample{data: word, text: true}); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
			if err := awaitWord(box, word); err != nil {
				t.Fatalf("%s: %v", r.name, err)
			}
		}
	}
	first := p.proof(t, mode, tree)
	restart := func(h *host) {
		t.Helper()
		h.daemon.kill()
		h.start(t)
		p.awaitLink(t)
	}
	restart(p.client)
	restart(p.server)
	if got := p.proof(t, mode, tree); got != first {
		t.Error("a restart changed what the client proves itself with")
	}

	// Another client with the same name gets nothing.
	thief := *p.client
	thief.kind, thief.dir = ours, filepath.Join(filepath.Dir(p.client.dir), "d")
	if err := os.Mkdir(thief.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var keys settings
	text, err := os.ReadFile(p.client.config)
	if err == nil {
		err = json.Unmarshal(text, &keys)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"connector_files_dirpath", "tokens_directory_path", "certificates_directory_path"} {
		keys[key] = thief.dir
	}
	for key := range keys { // its log is read from standard error
		if strings.HasPrefix(key, "default_logger_") {
			delete(keys, key)
		}
	}
	copyClient(t, tree, thief.dir)
	if text, err = json.Marshal(keys); err == nil {
		thief.config = filepath.Join(thief.dir, "config.json")
		err = os.WriteFile(thief.config, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	thief.start(t)
	eventually(t, "a second client of the name is refused", func() error {
		if !bytes.Contains(thief.daemon.out.bytes(), []byte("server refuses this client")) {
			return errors.New("its log does not say so")
		}
		return nil
	})
	thief.daemon.kill()
	p.server.awaitPeers(t, clientName)

	// Who is deleted goes, and stays away.
	what := "certificate"
	if mode.token {
		what = "token"
	}
	kwargs := map[string]any{"client_id": clientName}
	if !mode.token {
		kwargs["remove_only_symlink"] = false
	}
	done := func(h *host, command string, kwargs map[string]any) {
		t.Helper()
		reply, err := h.command(command, kwargs)
		if err != nil || reply != `{"status": true, "msg": ""}` {
			t.Errorf("%s at %s: got %q, %v", command, h.kind, reply, err)
		}
	}
	done(p.server, "delete_client_"+what+"_on_server", kwargs)
	p.server.awaitPeers(t)
	if p.server.kind == ours {
		eventually(t, "a deleted client is refused", func() error {
			if !bytes.Contains(p.server.daemon.out.bytes(), []byte("client refused")) {
				return errors.New("the server's log does not say so")
			}
			return nil
		})
	}
	if mode.name == "certificates" && p.server.kind == ours {
		reply, err := p.server.command("delete_client_certificate_on_server", kwargs)
		if want := `{"status": false, "msg": "remove_client_cert non existing client in source_id_2_cert : ` + clientName + `"}`; err != nil || reply != want {
			t.Errorf("deleted twice: got %q, %v, want %q", reply, err, want)
		}
	}
	done(p.client, "delete_client_"+what+"_on_client", map[string]any{"restart_client": true})
	p.awaitLink(t)
	if got := p.proof(t, mode, tree); got == first {
		t.Error("after the deletion the client proves itself with the same as before")
	}
	arrives("after all")
}

// proof is what the client has got of the server.
func (p pair) proof(t *testing.T, mode identityMode, tree string) string {
	t.Helper()
	path := filepath.Join(tree, "certificates/client/client-certs", clientName+".pem")
	if mode.token {
		path = filepath.Join(p.client.dir, strings.ReplaceAll(clientName, "-", ""))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || mode.token && info.Mode().Perm() != 0o600 {
		t.Errorf("%s: mode %v, %v", path, info.Mode(), err)
	}
	return string(text)
}

// newTree makes a certificate tree in a directory of its own.
func newTree(t *testing.T, py python, maker string, ca bool) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ai")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var args []string
	if maker == ours {
		args = []string{filepath.Join(binaries(t), "aioc-certs"), "create"}
		if ca {
			args = append(args, "-ca")
		}
	} else {
		args = []string{py.exe, script(t, "program.py"), "create_certificates"}
		if ca {
			args = append(args, "--ca")
		}
	}
	cmd := exec.CommandContext(ctx, args[0], append(args[1:], dir)...)
	cmd.Dir = dir
	cmd.Env = plainEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return dir
}

// copyClient copies what a new client needs of a tree.
func copyClient(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"client-certs/default.pem", "client-certs/default.key", "server-cert/server.pem"} {
		name = filepath.Join("certificates/client", name)
		text, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
