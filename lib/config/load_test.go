package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMistakesInTheFileAreNamedWithTheirPlaceAndRemedy(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"nothing", " \n", `line 2, column 1: the file is empty: write at least {}`},
		{"an array", `[1]`, `line 1, column 1: not a JSON object`},
		{"a hash comment", "{\n  # comment\n}", `line 2, column 3: comments are not JSON: remove it`},
		{"a slash comment", "{\"use_ssl\": true, // no\n}", `line 1, column 19: comments are not JSON`},
		{"a comma too many", "{\"use_ssl\": true,\n}", `line 1, column 17: a comma before the closing }: remove it`},
		{"a comma too many in a list", `{"send_message_types": ["a",]}`, `a comma before the closing ]`},
		{"a comma missing", "{\"use_ssl\": true\n\"use_token\": false}", `line 1, column 17: a comma is missing`},
		{"a colon missing", `{"use_ssl" true}`, `line 1, column 12: unexpected 't' where the : after a key should be`},
		{"single quotes", `{'use_ssl': true}`, `line 1, column 2: strings need double quotes`},
		{"a key without quotes", `{use_ssl: true}`, `keys need double quotes`},
		{"Python's True", `{"use_ssl": True}`, `True is not JSON: write true`},
		{"Python's None", `{"client_name": None}`, `None is not JSON: write null`},
		{"a word", `{"client_name": pump7}`, `pump7 is not JSON: strings need double quotes`},
		{"no end", `{"use_ssl": true`, `the text ends too early`},
		{"no end of a string", `{"client_name": "x`, `a string has no closing quote`},
		{"a line end in a string", "{\"client_name\": \"x\n\"}", `a string contains '\n'`},
		{"a bad escape", `{"client_name": "\x"}`, `a string has a bad escape`},
		{"half a surrogate pair", `{"client_name": "\ud800"}`, `a string has a bad escape`},
		{"a bad number", `{"send_timeout": 01}`, `01 is not a number`},
		{"something after the end", "{}\n{}", `line 2, column 1: unexpected '{' after the object`},
		{"a byte order mark", "\xef\xbb\xbf{}", `byte order mark`},
		{"Latin-1", "{\"client_name\": \"caf\xe9\"}", `line 1, column 21: not UTF-8`},
		{"a key twice", "{\"use_ssl\": true,\n \"use_ssl\": true}", `line 2, column 2: use_ssl stands twice: remove one`},
		{"an inner key twice", `{"file_recv_config": {"a": {}, "a": {}}}`, `a stands twice`},
		{"a type with a comma", `{"send_message_types": ["a,b"]}`, `message type "a,b" contains a comma`},
		{"a name of punctuation only", `{"is_server": false, "client_name": "-_:"}`, `client_name: name "-_:" has no letter and no digit`},
		{"deep nesting", `{"proxy": ` + strings.Repeat("[", 100000), `nested too deeply`},

		{"an unknown key", "{\n\"use_sssl\": true}", `line 2: use_sssl: no such key: did you mean use_ssl?`},
		{"a key with other letters", `{"Use-SSL": true}`, `Use-SSL: no such key: did you mean use_ssl?`},
		{"swapped letters", `{"cleint_name": "x"}`, `did you mean client_name?`},
		{"a key far from all", `{"colour": true}`, `colour: no such key: remove it, or see aioc.json(5)`},
		{"a hostile key", "{\"a\\nb\\u001b\": true}", `"a\nb\x1b": no such key`},

		{"a number for a truth", `{"use_ssl": 1}`, `use_ssl: got 1, want true or false`},
		{"a string for a number", `{"send_timeout": "50"}`, `send_timeout: got "50", want a number of seconds above 0, at most 2592000`},
		{"no time at all", `{"send_timeout": 0}`, `send_timeout: got 0, want a number of seconds above 0`},
		{"negative time", `{"connect_timeout": -1}`, `connect_timeout: got -1`},
		{"NaN", `{"send_timeout": NaN}`, `send_timeout: got NaN`},
		{"infinite time", `{"send_timeout": -Infinity}`, `send_timeout: got -Infinity`},
		{"endless time", `{"send_timeout": 1e300}`, `send_timeout: got 1e300`},
		{"a fraction for a count", `{"max_certs": 1.5}`, `max_certs: got 1.5, want a whole number from 1`},
		{"null for a number", `{"max_certs": null}`, `max_certs: got null`},
		{"a small limit", `{"max_message_size": 100}`, `max_message_size: got 100, want a whole number from 65536 to 4294967295`},
		{"a port too high", `{"server_sockaddr": ["h", 65536]}`, `a port from 0 to 65535`},
		{"a port in words", `{"server_sockaddr": ["h", "http"]}`, `a port from 0 to 65535`},
		{"an address as one string", `{"server_sockaddr": "127.0.0.1:10673"}`, `want an array of host and port, such as ["127.0.0.1", 10673]`},
		{"a host with a space", `{"server_sockaddr": ["a b", 1]}`, `host "a b" is neither`},
		{"an empty host", `{"server_sockaddr": ["", 1]}`, `write 0.0.0.0 for all addresses`},
		{"a name with a newline", `{"is_server": false, "client_name": "pump7\n"}`, `client_name: name "pump7\n" contains '\n'`},
		{"a reserved name", `{"client_name": "default7", "is_server": false}`, `name "default7" is reserved`},
		{"a type with a slash", `{"send_message_types": ["a/b"]}`, `message type "a/b" contains a slash`},
		{"a type of the protocol", `{"send_message_types": ["_ack"]}`, `message type "_ack" is reserved`},
		{"a type twice", `{"recv_message_types": ["a", "a"]}`, `recv_message_types: a stands twice`},
		{"an empty type", `{"recv_message_types": [""]}`, `message type is empty`},
		{"a subscription to a reserved type", `{"subscribe_message_types": ["_ping"]}`, `"_ping" is reserved`},
		{"one type as a string", `{"recv_message_types": "any"}`, `got "any", want an array of strings`},
		{"a number in a list", `{"recv_message_types": ["a", 1]}`, `want an array of strings`},
		{"a wrong pattern", `{"whitelisted_clients_id": ["a(?=b)"]}`, `RE2, which has no look-around`},
		{"a network among addresses", `{"whitelisted_clients_ip": ["10.0.0.0/8"]}`, `networks belong to the key that ends in _subnet`},
		{"bits behind the prefix", `{"blacklisted_clients_subnet": ["10.1.0.0/8"]}`, `write 10.0.0.0/8`},
		{"not a network", `{"blacklisted_clients_subnet": ["x"]}`, `"x" is not a network such as`},
		{"an unknown level", `{"default_logger_log_level": "debug"}`, `"debug" is not DEBUG, INFO`},
		{"an empty path", `{"connector_files_dirpath": ""}`, `the path is empty`},
		{"a path with NUL", `{"connector_files_dirpath": "a\u0000"}`, `without the character NUL`},
		{"another user's home", `{"tokens_directory_path": "~joe/x"}`, `~USER is not understood`},
		{"an unknown key of the proxy", `{"proxy": {"host": "x"}}`, `proxy: host: no such key: want an object with enabled, address`},
		{"a proxy without address", `{"proxy": {"enabled": true}}`, `proxy: address: missing`},
		{"a proxy without port", `{"proxy": {"enabled": true, "address": "p"}}`, `proxy: port: missing`},
		{"a hook that is a shell line", `{"hook_load_token": "cat - | gpg -d"}`, `hook_load_token: "cat - | gpg -d" is not an absolute path: write the whole path of the program, with its arguments as further strings`},
		{"a hook without a program", `{"hook_load_token": ["", "-v"]}`, `hook_load_token: got ["", "-v"], want a path as a string, or an array of it and arguments, such as ["/usr/local/bin/check", "-v"], or null: the program is missing`},
		{"a hook that is an empty list", `{"hook_load_token": []}`, `hook_load_token: got [], want a path as a string`},
		{"a hook with a NUL", `{"hook_load_token": ["/bin/x", "\u0000"]}`, `contains the character NUL`},
		{"a hook that may take no time", `{"hook_timeout": 0}`, `hook_timeout: got 0, want a number of seconds above 0, at most 3600`},
		{"a target without directory", `{"file_recv_config": {"a": {}}}`, `a: target_directory: missing`},
		{"a relative target", `{"file_recv_config": {"a": {"target_directory": "x"}}}`, `not an absolute path`},
		{"an unknown placeholder", `{"file_recv_config": {"a": {"target_directory": "/x/{foo}"}}}`, `{foo} is not known: use {message_type}`},
		{"an open placeholder", `{"file_recv_config": {"a": {"target_directory": "/x/{tag"}}}`, `has a { without a }`},
		{"a closed placeholder", `{"file_recv_config": {"a": {"target_directory": "/x/tag}"}}}`, `has a } without a {`},
		{"an owner without group", `{"file_recv_config": {"a": {"target_directory": "/x", "owner": "me"}}}`, `"me" is not user:group`},
		{"a mode that is none", `{"file_recv_config": {"a": {"target_directory": "/x", "mode": "0888"}}}`, `mode: "0888" is not one of a file`},
		{"a mode with more than rights", `{"file_recv_config": {"a": {"target_directory": "/x", "mode": "4755"}}}`, `mode: "4755" is not one of a file`},
		{"a mode that its owner cannot read", `{"file_recv_config": {"a": {"target_directory": "/x", "mode": "044"}}}`, `mode: "044" is not one of a file`},
		{"a mode that is a number", `{"file_recv_config": {"a": {"target_directory": "/x", "mode": 640}}}`, `want a string of octal digits`},
		{"an unknown key of a target", `{"file_recv_config": {"a": {"directory": "/x"}}}`, `a: directory: no such key`},
		{"a target that is a string", `{"file_recv_config": {"a": "/x"}}`, `a: got "/x", want an object`},
		{"an override that is a string", `{"file_recv_config": {"a": {"override_existing": "no"}}}`, `a: override_existing: got "no", want true or false`},
		{"priorities that are no numbers", `{"send_message_types_priorities": {"a": "1"}}`, `want an object of whole numbers`},
		{"persistence of a type as a string", `{"disk_persistence_send": "any"}`, `want true, false or an array of message types`},
		{"no peer to ignore", `{"ignore_peer_traffic": ""}`, `want true, false or the name of a peer`},
		{"rotation at nothing", `{"default_logger_rotate": 0}`, `want true, false or a number of bytes`},
	} {
		c, err := parse("dir/x.json", []byte(test.text))
		if err == nil {
			t.Errorf("%s: accepted: %s", test.name, c.AppendJSON(nil))
			continue
		}
		if !strings.HasPrefix(err.Error(), `config "dir/x.json": line `) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got\n%v\nwant %s", test.name, err, test.want)
		}
		if strings.ContainsFunc(strings.ReplaceAll(err.Error(), "\n", ""), func(r rune) bool { return r < ' ' }) {
			t.Errorf("%s: a control character in %q", test.name, err)
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	_, err := parse("x.json", []byte("{\n\"use_sll\": true,\n\"use_token\": 0,\n\"is_server\": false,\n\"client_name\": \"default\"\n}"))
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 3 {
		t.Fatalf("got %d errors:\n%v", len(errs), err)
	}
	for i, want := range []string{"line 2: use_sll: ", "line 3: use_token: ", "line 5: client_name: "} {
		if !strings.Contains(errs[i].Error(), want) {
			t.Errorf("got %v, want %s", errs[i], want)
		}
	}
}

func TestKeysThatStandTwiceAreReportedWithTheRest(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"with other mistakes", "{\n\"use_sll\": 1,\n\"use_ssl\": true,\n\"use_ssl\": 7,\n\"file_recv_config\": {\"a\": {}, \"a\": {}},\n\"max_certs\": 0\n}",
			[]string{"line 2: use_sll", "line 4, column 1: use_ssl stands twice", "line 5, column 31: a stands twice", "line 6: max_certs"}},
		{"before what is not JSON", "{\n\"use_ssl\": true,\n\"use_ssl\": true,\n#\n}",
			[]string{"line 3, column 1: use_ssl stands twice", "line 4, column 1: comments are not JSON"}},
		{"an unknown one", `{"a": 1, "a": 1}`, []string{"a: no such key", "a stands twice"}},
	} {
		_, err := parse("x.json", []byte(test.text))
		var errs Errors
		if !errors.As(err, &errs) || len(errs) != len(test.want) {
			t.Errorf("%s: got %d errors, want %d:\n%v", test.name, len(errs), len(test.want), err)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(errs[i].Error(), want) {
				t.Errorf("%s: got %v, want %s", test.name, errs[i], want)
			}
		}
	}
}

func TestSecretsAreNotInErrors(t *testing.T) {
	for _, text := range []string{
		`{"proxy": "hunter2"}`,
		`{"proxy": {"enabled": 1, "authorization": {"username": "u", "password": "hunter2"}}}`,
		`{"proxy": {"authorization": {"username": "u", "password": "hunter2", "x": 1}}}`,
		`{"proxy": {"authorization": "hunter2"}}`,
		`{"proxy": {"enabled": true, "authorization": {"username": "u", "password": "hunter2"}}}`,
		`{"proxy": {"port": "hunter2"}}`,
	} {
		_, err := parse("x.json", []byte(text))
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestWhatPythonWritesIsRead(t *testing.T) {
	var vector struct {
		FileText string `json:"file_text"`
	}
	mustRead(t, "config_file_updated.json", &vector)
	c := mustParse(t, vector.FileText)
	if c.Dir() != "/tmp/aioc/s4/s" || c.ServerAddr.Port != 20031 || c.BlacklistID == nil || len(c.BlacklistID) != 0 {
		t.Errorf("got %s", c.AppendJSON(nil))
	}
	// As json.dumps does without indent, with escapes outside the BMP.
	c = mustParse(t, `{"send_message_types": ["\u00e9", "\ud83d\ude00", "a\"\\\u007f"], "connect_timeout": 1e-05, "max_certs": 10.0}`)
	if got := strings.Join(c.SendTypes, " "); got != "é 😀 a\"\\\x7f" || c.MaxCerts != 10 || c.ConnectTimeout != 10_000 {
		t.Errorf("got %q, %d, %v", got, c.MaxCerts, c.ConnectTimeout)
	}
}

func TestLoadNamesTheFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.json")
	if _, err := Load(missing); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: got %v", err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: got %v", err)
	}
	big := filepath.Join(dir, "big.json")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, maxFileSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "not a configuration file") {
		t.Errorf("an endless file: got %v", err)
	}
	good := filepath.Join(dir, "good.json")
	if err := os.WriteFile(good, []byte(`{"client_name": "x", "is_server": false}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(good)
	if err != nil || c.File != good || c.ClientName != "x" {
		t.Errorf("a good file: got %+v, %v", c, err)
	}
}

func FuzzLoad(f *testing.F) {
	o, err := parseObject([]byte(full))
	if err != nil {
		f.Fatal(err)
	}
	for _, m := range o.members { // small seeds, which are quick to minimize
		f.Add([]byte("{" + full[m.keyStart:m.valEnd] + "}"))
	}
	f.Add([]byte(`{"proxy": {"authorization": {"username": "u"}}, "ignore_peer_traffic": ["x"]}`))
	f.Add([]byte("{\"client_name\": \"\\ud800\", # x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("x.json", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), `config "x.json": line `) {
				t.Errorf("an error without place: %v", err)
			}
			return
		}
		first := string(c.AppendJSON(nil))
		again, err := parse("x.json", []byte(first))
		if err != nil {
			t.Fatalf("printed it is not accepted: %v\n%s", err, first)
		}
		if second := string(again.AppendJSON(nil)); second != first {
			t.Errorf("first\n%s\nthen\n%s", first, second)
		}
		if (c.Check() == nil) != (again.Check() == nil) {
			t.Errorf("Check: first %v, then %v", c.Check(), again.Check())
		}
	})
}
