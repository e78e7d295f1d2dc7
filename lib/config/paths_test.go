package config

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestPathsAreTheOriginals(t *testing.T) {
	var vector struct {
		Rows []struct {
			Kind            string
			Input           json.RawMessage
			SourceID        string            `json:"source_id"`
			Send            string            `json:"send_to_connector"`
			Receive         map[string]string `json:"receive_from_connector"`
			Commander       string
			Tokens          string `json:"tokens_file_path"`
			PersistenceSend string `json:"persistence_send_prefix"`
			PersistenceRecv string `json:"persistence_recv_prefix"`
			AsPeer          string `json:"alnum_as_peer_name"`
			ForUDS          string `json:"alnum_source_id_for_uds"`
		}
	}
	mustRead(t, "uds_paths.json", &vector)
	if len(vector.Rows) < 30 {
		t.Fatalf("only %d rows", len(vector.Rows))
	}
	for _, row := range vector.Rows {
		c := Defaults()
		c.FilesDir, c.TokensDir = "/var/tmp/aioconnectors", "/var/tmp/aioconnectors"
		own := ownServer
		if row.Kind == "server" {
			addr, problem := decodeAddr(row.Input)
			if problem != "" {
				t.Fatalf("%s: %s", row.Input, problem)
			}
			c.ServerAddr = addr
		} else {
			c.IsServer = false
			own = ownClient
			if err := json.Unmarshal(row.Input, &c.ClientName); err != nil {
				t.Fatal(err)
			}
		}
		p := c.Paths()
		tokens := p.ServerTokens
		if !c.IsServer {
			tokens = p.ClientToken
		}
		for _, test := range []struct{ name, got, want string }{
			{"identity", c.ID(), row.SourceID},
			{"send socket", p.SendSocket, row.Send},
			{"receive socket", p.ReceiveSocket("any"), row.Receive["any"]},
			{"receive socket of a broker", p.ReceiveSocket("_pubsub"), row.Receive["_pubsub"]},
			{"commander", p.CommanderSocket, row.Commander},
			{"tokens", tokens, row.Tokens},
			{"persistence of what is sent", p.PersistenceSend("('10.0.0.1', 80)"), row.PersistenceSend + "1000180"},
			{"persistence of what is received", p.PersistenceRecv("any"), row.PersistenceRecv + "any"},
			{"as a peer", p.PersistenceSend(row.SourceID), row.PersistenceSend + row.AsPeer},
			{"own socket", p.OwnSocket, "/var/tmp/aioconnectors/" + own + row.ForUDS},
			{"lock", p.LockFile, "/var/tmp/aioconnectors/." + own + row.ForUDS + ".lock"},
		} {
			if test.got != test.want {
				t.Errorf("%s: %s: got %s, want %s", row.SourceID, test.name, test.got, test.want)
			}
		}
	}
}

func TestRelativeDirectoriesThatFlagsSetBecomeAbsolute(t *testing.T) {
	c := Defaults()
	c.FilesDir, c.TokensDir, c.CertificatesDir = "a", "b", "c"
	p := c.Paths()
	for _, path := range []string{p.Dir, p.SendSocket, p.ReceiveSocket("x"), p.ServerTokens, p.ServerCert, p.ActiveList} {
		if !filepath.IsAbs(path) {
			t.Errorf("%s is not absolute", path)
		}
	}
}

func TestTheCertificateTreeIsTheOriginals(t *testing.T) {
	c := Defaults()
	c.CertificatesDir = "/etc/aioc"
	p := c.Paths()
	for got, want := range map[string]string{
		p.Root:                        "",
		p.ServerDir:                   "/server",
		p.CSRTemplate:                 "/server/csr_details_template.conf",
		p.CSRDetails:                  "/server/csr_details.conf",
		p.ServerCertDir:               "/server/server-cert",
		p.ServerCert:                  "/server/server-cert/server.pem",
		p.ServerKey:                   "/server/server-cert/server.key",
		p.ServerCACert:                "/server/server-cert/server_ca.pem",
		p.ServerCAKey:                 "/server/server-cert/server_ca.key",
		p.ServerClientCerts:           "/server/client-certs",
		p.ServerClientCert("default"): "/server/client-certs/default.pem",
		p.ServerClientKey("client1"):  "/server/client-certs/client1.key",
		p.SourceIDToCert:              "/server/client-certs/source_id_2_cert.json",
		p.Symlinks:                    "/server/client-certs/symlinks",
		p.CAGenerated:                 "/server/client-certs/ca-generated",
		p.ClientDir:                   "/client",
		p.ClientCertDir:               "/client/client-certs",
		p.ClientCert("client1"):       "/client/client-certs/client1.pem",
		p.ClientKey("client1"):        "/client/client-certs/client1.key",
		p.ClientServerCertDir:         "/client/server-cert",
		p.ClientServerCert:            "/client/server-cert/server.pem",
	} {
		if got != "/etc/aioc/certificates"+want {
			t.Errorf("got %s, want the tree's %s", got, want)
		}
	}
}

func TestLongIdentitiesCollideOnlyInSocketNames(t *testing.T) {
	c := Defaults()
	c.IsServer = false
	c.ClientName = strings.Repeat("é", 33)
	p := c.Paths()
	if id := strings.TrimPrefix(filepath.Base(p.OwnSocket), ownClient); len(id) != 32 {
		t.Errorf("got %s, want 32 hexadecimal digits", id)
	}
	if !strings.Contains(p.PersistenceRecv("x"), c.ClientName) {
		t.Errorf("got %s, want the whole name in it", p.PersistenceRecv("x"))
	}
}
