package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// mustRead unmarshals a file of testdata.
func mustRead(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// mustParse reads a configuration that has no mistakes.
func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := parse("x.json", []byte(text))
	if err != nil {
		t.Fatalf("%s:\n%v", text, err)
	}
	return c
}

// ours are the keys that the original's manager template does not have.
var ours = []string{
	"max_message_size", "max_memory_per_queue", "max_memory_total", "max_unidentified", "max_size_persistence_total", "sandbox", // of our own
	"proxy_cafile", "hook_server_auth_client", "hook_allow_certificate_creation", "hook_whitelist_clients", "hook_target_directory",
	"hook_proxy_authorization", "hook_store_token", "hook_load_token", "hook_timeout",
	"receive_from_any_connector_owner", "max_size_chunk_upload", // of the original's programs
}

func TestTemplateIsTheOriginalsWithOurKeys(t *testing.T) {
	var vector struct {
		Stdout       string
		Manager, API map[string]any
	}
	mustRead(t, "config_templates.json", &vector)
	var got map[string]any
	if err := json.Unmarshal(Template(), &got); err != nil {
		t.Fatal(err)
	}
	for _, original := range []map[string]any{vector.Manager, vector.API} {
		for name, want := range original {
			if !reflect.DeepEqual(got[name], want) {
				t.Errorf("%s: got %v, want %v", name, got[name], want)
			}
		}
	}
	for name := range got {
		if _, ok := vector.Manager[name]; ok == slices.Contains(ours, name) {
			t.Errorf("%s: it is ours or the original's, not both or neither", name)
		}
	}
	// Without our lines the text is the same, byte for byte.
	_, want, _ := strings.Cut(vector.Stdout, "a connector\n")
	want, _, _ = strings.Cut(want, "\n\n- file_recv")
	var lines []string
	for line := range strings.Lines(string(Template())) {
		if !slices.ContainsFunc(ours, func(name string) bool { return strings.Contains(line, `"`+name+`"`) }) {
			lines = append(lines, line)
		}
	}
	if text := strings.Join(lines, ""); text != want+"\n" {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestDefaultsAreSoundOnBothSides(t *testing.T) {
	for _, k := range keys() {
		if k.field == nil || k.def == "" {
			continue
		}
		if problem := k.decode(&Config{}, []byte(k.def)); problem != "" {
			t.Errorf("default of %s: %s", k.name, problem)
		}
	}
	for _, server := range []bool{true, false} {
		c := Defaults()
		c.IsServer, c.ClientName = server, "pump7"
		if errs := c.Check(); errs != nil {
			t.Errorf("server %v: %v", server, errs)
		}
		if w := c.Warnings(); w != nil {
			t.Errorf("server %v: warnings %q", server, w)
		}
	}
}

func TestTheTableAndTheStructHaveTheSameKeys(t *testing.T) {
	c := Defaults()
	fields := map[any]string{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("json"); tag != "" && tag != "-" {
			fields[v.Field(i).Addr().Interface()] = tag
		}
	}
	for _, k := range keys() {
		if k.help == "" {
			t.Errorf("%s has no help", k.name)
		}
		if k.field == nil {
			if len(k.alias) == 0 {
				t.Errorf("%s has neither a field nor keys that it sets", k.name)
			}
			continue
		}
		if got := fields[k.field(c)]; got != k.name {
			t.Errorf("%s: the tag of its field is %q", k.name, got)
		}
		delete(fields, k.field(c))
	}
	for _, name := range fields {
		t.Errorf("%s is not in the table", name)
	}
}

// full has a value that is not the default for every key.
const full = `{
    "is_server": false, "server_sockaddr": ["caf\u00e9.example.org", "443"], "client_name": "pump7",
    "connector_files_dirpath": "/run/a b", "certificates_directory_path": "/etc/c",
    "tokens_directory_path": "/etc/t", "default_logger_dirpath": "/var/log",
    "client_bind_ip": "eth1", "connect_timeout": 0.25, "send_timeout": 7, "keep_alive_period": 1.5,
    "proxy": {"enabled": true, "address": "proxy", "port": "8080", "authorization": {"username": "u", "password": "p\"\u20ac"}, "ssl_server": true},
    "proxy_cafile": "/etc/proxy.pem", "hook_server_auth_client": "/opt/auth", "hook_allow_certificate_creation": ["/opt/allow", "-v", ""],
    "hook_whitelist_clients": "/opt/white list", "hook_target_directory": "/opt/dir", "hook_proxy_authorization": "/opt/proxy",
    "hook_store_token": "/opt/store", "hook_load_token": "/opt/load", "hook_timeout": 2.5,
    "keep_alive_timeout": 3, "max_number_of_unanswered_keep_alive": 9, "enable_client_try_reconnect": false,
    "reuse_server_sockaddr": true, "use_ssl": false, "ssl_allow_all": true, "use_token": true,
    "server_secure_tls": false, "server_ca": true, "server_ca_certs_not_stored": false, "max_certs": 5,
    "client_cafile_verify_server": "/etc/ca.pem", "alternate_client_default_cert": true,
    "token_verify_peer_cert": "/etc/peer.pem", "token_client_send_cert": false,
    "token_client_verify_server_hostname": true, "token_server_allow_authorized_non_default_cert": true,
    "send_message_types": ["a", "\ud83d\ude00"], "recv_message_types": [], "subscribe_message_types": ["b c"],
    "send_message_types_priorities": {"a": -1, "b": 2}, "pubsub_central_broker": true,
    "blacklisted_clients_id": ["pump[0-9]+"], "blacklisted_clients_ip": ["10.0.0.1", "::1"],
    "blacklisted_clients_subnet": ["10.0.0.0/8", "10.0.0.3"], "whitelisted_clients_id": [],
    "whitelisted_clients_ip": ["1.2.3.4"], "whitelisted_clients_subnet": ["fe80::/10"], "ignore_peer_traffic": "pump8",
    "disk_persistence_send": true, "disk_persistence_recv": ["a"], "max_size_persistence_path": 1, "max_size_persistence_total": 2,
    "file_recv_config": {"any": {"target_directory": "/srv/{source_id}/{{x}}", "owner": "a:b", "override_existing": true, "mode": "0644", "accept_owner": true}},
    "max_size_file_upload_send": 1, "max_size_file_upload_recv": 2, "max_size_chunk_upload": 3,
    "everybody_can_send_messages": false, "receive_from_any_connector_owner": false,
    "uds_path_send_preserve_socket": false, "uds_path_receive_preserve_socket": false,
    "reuse_uds_path_send_to_connector": true, "reuse_uds_path_commander_server": true,
    "max_message_size": 65536, "max_memory_per_queue": 65537, "max_memory_total": 65538, "max_unidentified": 1, "sandbox": false,
    "default_logger_log_level": "DEBUG", "default_logger_rotate": 1000, "default_logger_bk_count": 0,
    "silent": false, "debug_msg_counts": false
}`

func TestOneDestinationMayHaveWhatItsKeySays(t *testing.T) {
	for _, test := range []struct {
		set        string
		each, want int64
	}{
		{"{}", 1 << 30, 8 << 30},
		{`{"max_size_persistence_path": 20000000000}`, 20_000_000_000, 20_000_000_000},
		{`{"max_size_persistence_total": 2000000000}`, 1 << 30, 2_000_000_000},
		{`{"max_size_persistence_path": 200, "max_size_persistence_total": 100}`, 200, 200},
		{`{"max_size_persistence_total": 0}`, 1 << 30, 0},
	} {
		c := mustParse(t, test.set)
		if got := c.PersistenceTotal(); got != test.want || c.MaxPersistenceSize != test.each {
			t.Errorf("%s: got %d and %d in all, want %d and %d", test.set, c.MaxPersistenceSize, got, test.each, test.want)
		}
	}
}

func TestEveryKeyIsReadAndPrinted(t *testing.T) {
	c := mustParse(t, full)
	defaults := Defaults()
	var want map[string]any
	if err := json.Unmarshal([]byte(full), &want); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(c.AppendJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys() {
		if k.field == nil {
			continue
		}
		if _, ok := want[k.name]; !ok {
			t.Errorf("%s is not in the example", k.name)
		}
		if !reflect.DeepEqual(got[k.name], want[k.name]) {
			t.Errorf("%s: got %v, want %v", k.name, got[k.name], want[k.name])
		}
		if bytes.Equal(k.appendValue(nil, c), k.appendValue(nil, defaults)) {
			t.Errorf("%s has its default in the example", k.name)
		}
		if !c.Given(k.name) || defaults.Given(k.name) {
			t.Errorf("%s: Given is %v, of the defaults %v", k.name, c.Given(k.name), defaults.Given(k.name))
		}
	}
	if c.ConnectTimeout != 250*time.Millisecond || c.KeepAlivePeriod != 1500*time.Millisecond {
		t.Errorf("seconds: got %v and %v", c.ConnectTimeout, c.KeepAlivePeriod)
	}
	if c.Proxy.Password != `p"€` || c.Proxy.Addr.String() != "proxy:8080" {
		t.Errorf("proxy: got %+v", c.Proxy)
	}
}

func TestPrintedAndLoadedAgainItPrintsTheSame(t *testing.T) {
	for name, text := range map[string]string{
		"defaults":          string(Template()),
		"every key":         full,
		"nothing":           "{}",
		"null as a default": `{"send_message_types": null, "proxy": null, "file_recv_config": null, "blacklisted_clients_ip": null, "subscribe_message_types": null, "send_message_types_priorities": null}`,
		"odd forms": `{"ignore_peer_traffic": ["pump8"], "token_client_verify_server_hostname": "host", "send_timeout": 1e1, "max_certs": 5.0,
			"proxy": {"enabled": false}, "disk_persistence_send": [], "default_logger_rotate": false, "keep_alive_period": 0.000000001}`,
	} {
		first := mustParse(t, text).AppendJSON(nil)
		second := mustParse(t, string(first)).AppendJSON(nil)
		if !bytes.Equal(first, second) {
			t.Errorf("%s: first\n%s\nthen\n%s", name, first, second)
		}
		var v any
		if err := json.Unmarshal(first, &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNullListsOfTypesAreTheDefault(t *testing.T) {
	c := mustParse(t, `{"send_message_types": null, "recv_message_types": []}`)
	if !slices.Equal(c.SendTypes, []string{"any"}) || c.RecvTypes == nil || len(c.RecvTypes) != 0 {
		t.Errorf("got %q and %q, want any and none", c.SendTypes, c.RecvTypes)
	}
}

func TestPathsAreExpandedAsTheOriginalDoes(t *testing.T) {
	t.Setenv("HOME", "/home/me")
	t.Setenv("AIOC_TEST_VAR", "v")
	t.Setenv("AIOC_TEST_UNSET", "")
	os.Unsetenv("AIOC_TEST_UNSET")
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/a//b/../c/":          "/a/c",
		"~":                    "/home/me",
		"~/x":                  "/home/me/x",
		"rel":                  filepath.Join(here, "rel"),
		"/$AIOC_TEST_VAR/x":    "/v/x",
		"/a${AIOC_TEST_VAR}b":  "/avb",
		"/$AIOC_TEST_UNSET/x":  "/$AIOC_TEST_UNSET/x",
		"/${AIOC_TEST_VAR":     "/${AIOC_TEST_VAR",
		"/$":                   "/$",
		"/a$$AIOC_TEST_VAR":    "/a$v",
		"/${AIOC_TEST_VAR}$/x": "/v$/x",
	} {
		raw, _ := json.Marshal(path)
		c := mustParse(t, `{"connector_files_dirpath": `+string(raw)+`}`)
		if c.FilesDir != want || c.Dir() != want {
			t.Errorf("%s: got %s and %s, want %s", path, c.FilesDir, c.Dir(), want)
		}
	}
}

func TestSetDirMovesWhatWasNotGiven(t *testing.T) {
	c := mustParse(t, `{"tokens_directory_path": "/t", "connector_files_dirpath": "/f"}`)
	if err := c.SetDir("/d"); err != nil {
		t.Fatal(err)
	}
	if got := []string{c.FilesDir, c.CertificatesDir, c.TokensDir, c.LogDir}; !slices.Equal(got, []string{"/d", "/d", "/t", "/d"}) {
		t.Errorf("got %q", got)
	}
	if err := c.SetDir(""); err == nil {
		t.Error("an empty directory is accepted")
	}
}

func TestSet(t *testing.T) {
	c := Defaults()
	for _, test := range []struct{ key, value, want string }{
		{"client_name", `"pump7"`, ""},
		{"send_timeout", " 3 ", ""},
		{"client_name", "pump8", `client_name: pump8 is not JSON: a text needs double quotes: client_name='"pump8"'`},
		{"client_name", "it's me", `client_name: it's me is not JSON: it is not JSON: strings need double quotes`},
		{"use_ssl", "yes", `use_ssl: yes is not JSON: a text needs double quotes`},
		{"use_ssl", `"yes"`, `use_ssl: got "yes", want true or false`},
		{"send_timeout", "0", "send_timeout: got 0, want a number of seconds above 0"},
		{"send_timeout", "3 4", "after the value"},
		{"send_timeout", "", "ends too early"},
		{"send_timeot", "3", "send_timeot: no such key: did you mean send_timeout?"},
		{"max_size_file_upload", "77", ""},
		{"blacklisted_clients_ip", `["1.2.3"]`, `"1.2.3" is not an IP address`},
	} {
		err := c.Set(test.key, []byte(test.value))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s=%s: got %v, want %s", test.key, test.value, err, test.want)
		}
	}
	if c.ClientName != "pump7" || c.SendTimeout != 3*time.Second || c.MaxFileRecv != 77 || c.MaxFileSend != 77 || c.BlacklistIP != nil {
		t.Errorf("got %q %v %d %d %q", c.ClientName, c.SendTimeout, c.MaxFileRecv, c.MaxFileSend, c.BlacklistIP)
	}
	if !c.Given("client_name") || !c.Given("max_size_file_upload_send") || c.Given("use_ssl") {
		t.Error("Given is not what was set")
	}
}

func TestIdentities(t *testing.T) {
	server := mustParse(t, `{"server_sockaddr": ["127.0.0.1", "10673"]}`)
	client := mustParse(t, `{"is_server": false, "client_name": "pump7"}`)
	for _, test := range []struct{ name, got, want string }{
		{"a server's", server.ID(), "('127.0.0.1', '10673')"},
		{"a server's peer", server.PeerID(), ""},
		{"a client's", client.ID(), "pump7"},
		{"a client's peer", client.PeerID(), "('127.0.0.1', 10673)"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, test.got, test.want)
		}
	}
}

func TestTypesHas(t *testing.T) {
	for _, test := range []struct {
		types Types
		want  bool
	}{{Types{}, false}, {Types{All: true}, true}, {Types{Names: []string{"a", "b"}}, true}, {Types{Names: []string{"a"}}, false}} {
		if got := test.types.Has("b"); got != test.want {
			t.Errorf("%+v: got %v, want %v", test.types, got, test.want)
		}
	}
}
