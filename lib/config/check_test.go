package config

import (
	"strings"
	"testing"
)

func TestContradictionsAreFound(t *testing.T) {
	long := strings.Repeat("d", 49)
	for _, test := range []struct{ name, text, want string }{
		{"a subscription that is not received", "{\n\"is_server\": false, \"client_name\": \"c\",\n\"subscribe_message_types\": [\"x\"]}",
			`config "x.json": line 3: subscribe_message_types: x is not received: add it to recv_message_types`},
		{"a client of port 0", `{"is_server": false, "server_sockaddr": ["h", 0]}`, "server_sockaddr: a client cannot connect to port 0"},
		{"less memory in all than for one", `{"max_memory_total": 65536}`, "max_memory_total: got 65536, want at least max_memory_per_queue, 67108864"},
		{"a directory too long for sockets", `{"is_server": false, "client_name": "client1", "connector_files_dirpath": "/tmp/` + long + `"}`,
			"has 105 bytes, at most"},
		{"a type too long for sockets", `{"recv_message_types": ["` + long + `"]}`, "use a directory or a message type that is"},
	} {
		errs := mustParse(t, test.text).Check()
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.name, errs, test.want)
		}
	}
	if errs := mustParse(t, `{"server_sockaddr": ["127.0.0.1", 0]}`).Check(); errs != nil {
		t.Errorf("a server on port 0: got %v", errs)
	}
}

func TestCheckFindsValuesThatFlagsSet(t *testing.T) {
	c := Defaults()
	c.SendTypes = []string{"a/b"}
	c.SendTimeout = -1
	c.ServerAddr.Port = 70000
	c.MaxCerts = 0
	c.KeepAlivePeriod = 0
	var text []string
	for _, err := range c.Check() {
		text = append(text, err.Error())
	}
	got := strings.Join(text, "\n")
	for _, key := range []string{"send_message_types", "send_timeout", "server_sockaddr", "max_certs"} {
		if !strings.Contains(got, "config: "+key+": ") {
			t.Errorf("%s is not in\n%s", key, got)
		}
	}
	if len(text) != 4 {
		t.Errorf("got %d errors, want 4:\n%s", len(text), got)
	}
}

func TestTheOriginalsLimitOfSocketNames(t *testing.T) {
	var vector struct {
		Limit []struct {
			Directory string
			Length    int
			OK        bool
		} `json:"limit_104"`
	}
	mustRead(t, "uds_paths.json", &vector)
	if len(vector.Limit) == 0 {
		t.Fatal("no rows")
	}
	for _, row := range vector.Limit {
		c := mustParse(t, `{"is_server": false, "client_name": "client1", "connector_files_dirpath": "`+row.Directory+`"}`)
		errs := c.Check()
		if want := row.Length <= maxSocketPath(); (errs == nil) != want {
			t.Errorf("%d bytes: got %v, want accepted %v", row.Length, errs, want)
		}
		if row.Length == 105 && errs == nil {
			t.Error("what the original refuses is accepted")
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", `{}`, ""},
		{"a template that was filled in", string(Template()), ""},
		{"tokens without TLS", `{"use_ssl": false, "use_token": true}`, "use_token: has no effect: tokens need use_ssl and ssl_allow_all"},
		{"tokens with certificates", `{"use_token": true}`, "use_token: has no effect: tokens need ssl_allow_all"},
		{"all allowed without TLS", `{"use_ssl": false, "ssl_allow_all": true}`, "ssl_allow_all: has no effect: it needs use_ssl"},
		{"a key without effect", "{\n\"reuse_server_sockaddr\": true}", `config "x.json": line 2: reuse_server_sockaddr: has no effect: that is always so`},
		{"a server's key on a client", `{"is_server": false, "max_certs": 5}`, "max_certs: has no effect: it is for a server"},
		{"a client's key on a server", `{"client_name": "c"}`, "client_name: has no effect: it is for a client"},
		{"the obsolete key", `{"max_size_file_upload": 5}`, "max_size_file_upload: obsolete: use max_size_file_upload_send and max_size_file_upload_recv"},
		{"a reserved type", `{"recv_message_types": ["any", "_pubsub"]}`, "_pubsub is always allowed as far as it is needed: leave it out"},
		{"a priority of no type", `{"send_message_types_priorities": {"x": 1}}`, "x is not one of send_message_types"},
		{"tokens for everybody", `{"ssl_allow_all": true, "use_token": true, "token_verify_peer_cert": false}`, "whoever reaches this server gets a token"},
		{"a token for every server", `{"is_server": false, "ssl_allow_all": true, "use_token": true, "token_verify_peer_cert": false}`, "any server is taken, and shown the token"},
		{"the name of any server", `{"is_server": false, "ssl_allow_all": true, "use_token": true, "token_verify_peer_cert": false, "token_client_verify_server_hostname": true}`,
			"token_client_verify_server_hostname: has no effect: token_verify_peer_cert is false"},
		{"the name of a server with certificates", `{"is_server": false, "token_client_verify_server_hostname": true}`, "with certificates use client_cafile_verify_server"},
		{"the name of a server that is verified", `{"is_server": false, "ssl_allow_all": true, "use_token": true, "token_client_verify_server_hostname": true}`, ""},
		{"a CA for any server", `{"is_server": false, "ssl_allow_all": true, "client_cafile_verify_server": "/ca.pem"}`, "with ssl_allow_all any server is taken"},
		{"a CA with tokens", `{"is_server": false, "ssl_allow_all": true, "use_token": true, "client_cafile_verify_server": "/ca.pem"}`, "write the file as token_verify_peer_cert"},
		{"a CA without TLS", `{"is_server": false, "use_ssl": false, "client_cafile_verify_server": "/ca.pem"}`, "has no effect: use_ssl is false"},
		{"a CA", `{"is_server": false, "client_cafile_verify_server": "/ca.pem"}`, ""},
		{"persistence of a topic on a broker", `{"pubsub_central_broker": true, "disk_persistence_send": ["topic"], "send_message_types_priorities": {"topic": 1}}`, ""},
		{"persistence of what is not sent", `{"disk_persistence_send": ["x"]}`, "x is not one of send_message_types"},
		{"persistence of no type", `{"disk_persistence_recv": ["x"]}`, "x is not one of recv_message_types"},
	} {
		c := mustParse(t, test.text)
		if errs := c.Check(); errs != nil {
			t.Errorf("%s: %v", test.name, errs)
		}
		got := strings.Join(c.Warnings(), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
