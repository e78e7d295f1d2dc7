package identity

import (
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aioc/lib/config"
)

func mustCreateCA(t testing.TB, dir string) string {
	t.Helper()
	if err := CreateCA(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAClientOfACAEnrolsAndIsRevoked(t *testing.T) {
	for _, notStored := range []bool{true, false} {
		t.Run(map[bool]string{true: "nothing is stored", false: "certificates are stored"}[notStored], func(t *testing.T) {
			dir := mustCreateCA(t, newDir(t))
			tree := config.CertificateTree(dir)
			s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: true, NotStored: notStored})
			c := mustClient(t, ClientOptions{Dir: dir, Name: "pump7"})
			state, serverErr, clientErr := meet(t, s.TLS(), mustTLS(t, c, ShowDefault))
			if serverErr != nil || clientErr != nil {
				t.Fatalf("with the default certificate: server %v, client %v", serverErr, clientErr)
			}
			if who, err := s.Recognise(state); err != nil || !who.Default {
				t.Fatalf("the default certificate is %+v, %v", who, err)
			}
			mustEnrol(t, s, c)
			if _, err := os.Lstat(tree.ServerClientCert("pump7")); err == nil {
				t.Error("NAME.pem is stored, which the original does not do with a CA")
			}
			kept, _ := filepath.Glob(filepath.Join(tree.CAGenerated, "*.pem"))
			if want := map[bool]int{true: 1, false: 2}[notStored]; len(kept) != want {
				t.Errorf("ca-generated has %d certificates, want %d", len(kept), want)
			}
			config := mustTLS(t, c, ShowOwn)
			config.ServerName = "server" // the key of the cache
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
			for _, resumed := range []bool{false, true} {
				state, serverErr, clientErr = meet(t, s.TLS(), config)
				if serverErr != nil || clientErr != nil {
					t.Fatalf("with its own certificate: server %v, client %v", serverErr, clientErr)
				}
				if who, err := s.Recognise(state); err != nil || who.Name != "pump7" || state.DidResume != resumed {
					t.Fatalf("the own certificate is %+v, %v, resumed %v; want resumed %v", who, err, state.DidResume, resumed)
				}
			}
			before := mustRead(t, tree.SourceIDToCert)
			if err := s.Delete("pump7", false); err != nil {
				t.Fatal(err)
			}
			// The original's only memory is the index: with it back, the list of
			// revoked certificates must still hold, also for a session that goes on.
			mustWrite(t, tree.SourceIDToCert, string(before))
			if _, serverErr, _ := meet(t, s.TLS(), config); !errors.Is(serverErr, ErrRevoked) {
				t.Errorf("a revoked client that resumes its session: %v", serverErr)
			}
			if _, serverErr, _ := meet(t, s.TLS(), mustTLS(t, c, ShowOwn)); !errors.Is(serverErr, ErrRevoked) {
				t.Errorf("a revoked client: %v", serverErr)
			}
			if database := string(mustRead(t, databasePath(tree))); strings.Count(database, "R\t") != 1 || strings.Count(database, "V\t") != 1 {
				t.Errorf("index.txt after the deletion:\n%s", database)
			}
			list, err := readRevocationList(revokedPath(tree), s.fresh().ca)
			if err != nil || len(list.RevokedCertificateEntries) != 1 {
				t.Errorf("revocation list: %v, %v", list, err)
			}
		})
	}
}

func TestOpenSSLReadsATreeWithACA(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Log("there is no openssl here: what it would say stays unknown")
		return
	}
	dir := mustCreateCA(t, newDir(t))
	tree := config.CertificateTree(dir)
	s := mustServer(t, ServerOptions{Dir: dir, Clients: OwnCertificates, CA: true})
	mustEnrol(t, s, mustClient(t, ClientOptions{Dir: dir, Name: "pump7"}))
	mustEnrol(t, s, mustClient(t, ClientOptions{Dir: dir, Name: "pump8"}))
	if err := s.Delete("pump8", false); err != nil {
		t.Fatal(err)
	}
	key, request := filepath.Join(dir, "x.key"), filepath.Join(dir, "x.pem")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"OK", []string{"verify", "-CApath", tree.Symlinks, tree.ClientCert("pump7")}},
		{"OK", []string{"verify", "-CApath", tree.Symlinks, tree.ClientCert("default")}},
		{"certificate revoked", []string{"verify", "-crl_check", "-CRLfile", revokedPath(tree), "-CApath", tree.Symlinks, tree.ClientCert("pump8")}},
		// What aioconnectors runs for a new client (ssl_helper.py).
		{"", []string{"req", "-config", filepath.Join(tree.ServerDir, "server_ca_csr_details.conf"), "-newkey", "rsa:2048",
			"-sha256", "-nodes", "-keyout", key, "-out", request, "-outform", "PEM"}},
		{"pdated", []string{"ca", "-rand_serial", "-batch", "-policy", "signing_policy", "-config",
			filepath.Join(tree.ServerDir, "server_ca_details.conf"), "-extensions", "signing_req",
			"-out", filepath.Join(dir, "y.pem"), "-infiles", request}},
		{"OK", []string{"verify", "-CApath", tree.Symlinks, filepath.Join(dir, "y.pem")}},
	} {
		out, _ := exec.Command(openssl, c.args...).CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("openssl %s: got %s, want %q in it", strings.Join(c.args, " "), out, c.want)
		}
	}
}
