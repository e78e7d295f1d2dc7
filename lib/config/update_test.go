package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestUpdateChangesOnlyItsKey(t *testing.T) {
	for _, test := range []struct {
		name, before string
		key          string
		value        any
		after        string
	}{
		{"a value in place", "{\n  \"use_ssl\" : true ,\n\n\t\"is_server\":true}\n", "use_ssl", false,
			"{\n  \"use_ssl\" : false ,\n\n\t\"is_server\":true}\n"},
		{"a list on lines of its own", "{\n  \"blacklisted_clients_ip\": null,\n  \"use_ssl\": true\n}", "blacklisted_clients_ip", []string{"1.2.3.4", "::1"},
			"{\n  \"blacklisted_clients_ip\": [\n    \"1.2.3.4\",\n    \"::1\"\n  ],\n  \"use_ssl\": true\n}"},
		{"an empty list", "{\n\t\"blacklisted_clients_ip\": [\n\t\t\"1.2.3.4\"\n\t]\n}", "blacklisted_clients_ip", []string{},
			"{\n\t\"blacklisted_clients_ip\": []\n}"},
		{"a list on one line", `{"use_ssl": true, "blacklisted_clients_id": []}`, "blacklisted_clients_id", []string{"a:,b", `"\.`},
			`{"use_ssl": true, "blacklisted_clients_id": ["a:,b", "\"\\."]}`},
		{"a new key among sorted ones", "{\n    \"blacklisted_clients_id\": [],\n    \"use_ssl\": true\n}", "ignore_peer_traffic", "pump7",
			"{\n    \"blacklisted_clients_id\": [],\n    \"ignore_peer_traffic\": \"pump7\",\n    \"use_ssl\": true\n}"},
		{"a new key before sorted ones", "{\n    \"use_ssl\": true\n}", "blacklisted_clients_ip", []string{"1.2.3.4"},
			"{\n    \"blacklisted_clients_ip\": [\n        \"1.2.3.4\"\n    ],\n    \"use_ssl\": true\n}"},
		{"a new key after unsorted ones", "{\n    \"use_ssl\": true,\n    \"is_server\": true\n}\n", "blacklisted_clients_ip", []string{},
			"{\n    \"use_ssl\": true,\n    \"is_server\": true,\n    \"blacklisted_clients_ip\": []\n}\n"},
		{"a new key on one line", `{"use_ssl":true}`, "whitelisted_clients_ip", []string{"::1"},
			`{"use_ssl":true, "whitelisted_clients_ip": ["::1"]}`},
		{"an empty object", "{ }\n", "ignore_peer_traffic", true, "{\n    \"ignore_peer_traffic\": true\n}\n"},
		{"lines of Windows", "{\r\n    \"use_ssl\": true\r\n}\r\n", "whitelisted_clients_ip", []string{"::1"},
			"{\r\n    \"use_ssl\": true,\r\n    \"whitelisted_clients_ip\": [\r\n        \"::1\"\r\n    ]\r\n}\r\n"},
		{"unknown keys and wrong values", "{\"x\": NaN,\n \"use_ssl\": \"maybe\", \"blacklisted_clients_id\": 1}", "blacklisted_clients_id", []string{"é😀<&>"},
			"{\"x\": NaN,\n \"use_ssl\": \"maybe\", \"blacklisted_clients_id\": [\"\\u00e9\\ud83d\\ude00<&>\"]}"},
		{"null", `{"client_bind_ip": "eth0"}`, "client_bind_ip", nil, `{"client_bind_ip": null}`},
	} {
		path := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(path, []byte(test.before), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := Update(path, test.key, test.value); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != test.after {
			t.Errorf("%s: got\n%q, %v\nwant\n%q", test.name, got, err, test.after)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s: got mode %v, %v, want it kept", test.name, info.Mode(), err)
		}
	}
}

func TestUpdateGivesWhatTheOriginalWrote(t *testing.T) {
	var vector struct {
		FileText string `json:"file_text"`
	}
	mustRead(t, "config_file_updated.json", &vector)
	var all map[string]any
	if err := json.Unmarshal([]byte(vector.FileText), &all); err != nil {
		t.Fatal(err)
	}
	added := []string{"ignore_peer_traffic", "blacklisted_clients_id", "blacklisted_clients_ip", "blacklisted_clients_subnet",
		"whitelisted_clients_id", "whitelisted_clients_ip", "whitelisted_clients_subnet"}
	start := map[string]any{}
	for name, value := range all {
		start[name] = value
	}
	for _, name := range added {
		delete(start, name)
	}
	data, err := json.MarshalIndent(start, "", "    ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range added {
		if err := Update(path, name, all[name]); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != vector.FileText {
		t.Errorf("got\n%s, %v\nwant\n%s", got, err, vector.FileText)
	}
}

func TestUpdateRefusesAndLeavesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	const text = "{\n  \"use_ssl\": true,\n}"
	for _, test := range []struct {
		name, text, key string
		value           any
		want            string
	}{
		{"an unknown key", "{}", "blacklist", []string{}, "blacklist: no such key"},
		{"a value of another type", "{}", "blacklisted_clients_ip", "1.2.3.4", `blacklisted_clients_ip: got "1.2.3.4", want an array of IP addresses`},
		{"a value that is wrong", "{}", "blacklisted_clients_subnet", []string{"10.1.0.0/8"}, "write 10.0.0.0/8"},
		{"a value that is no JSON", "{}", "use_ssl", make(chan int), "unsupported type"},
		{"a file with a mistake", text, "use_ssl", false, "line 2, column 18: a comma before the closing }"},
	} {
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Update(path, test.key, test.value)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.want)
		}
		if got, err := os.ReadFile(path); string(got) != test.text {
			t.Errorf("%s: the file is %q, %v", test.name, got, err)
		}
	}
	if err := Update(path+"x", "use_ssl", true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v", err)
	}
}

func TestConcurrentUpdatesAreAllKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(path, Template(), 0o600); err != nil {
		t.Fatal(err)
	}
	lists := []string{"blacklisted_clients_id", "blacklisted_clients_ip", "blacklisted_clients_subnet",
		"whitelisted_clients_id", "whitelisted_clients_ip", "whitelisted_clients_subnet"}
	var wg sync.WaitGroup
	for _, name := range lists {
		wg.Go(func() {
			if err := Update(path, name, []string{"1.2.3.4"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{c.BlacklistID, c.BlacklistIP, c.BlacklistSubnet, c.WhitelistID, c.WhitelistIP, c.WhitelistSubnet} {
		if len(list) != 1 {
			t.Errorf("a list is lost:\n%s", c.AppendJSON(nil))
		}
	}
}

// members reads the outer object without the help of this package. A number
// keeps its text, and what is not JSON, such as NaN, is an error.
func members(data []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	err := json.Unmarshal(data, &m)
	return m, err
}

func FuzzUpdate(f *testing.F) {
	f.Add([]byte("{\n    \"ignore_peer_traffic\": [\n1],\n    \"x\": {\"a\": \"b\"}\n}\n"), "pump7")
	f.Add([]byte(`{"a": 1,"z":"\u00e9"}`), "é😀\"\\\n,: ")
	f.Add([]byte("\t{ }"), "x")
	f.Add([]byte("{\r\n\t\t\"z\":[1 , 2]\r\n,\"a\":{}}"), "")
	f.Fuzz(func(t *testing.T, data []byte, peer string) {
		const name = "blacklisted_clients_id"
		value := []string{peer, "x"}
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		before, parseErr := parseObject(data)
		got, err := setMember(data, name, ascii(raw))
		if (err == nil) != (parseErr == nil) {
			t.Fatalf("got %v for a file of which the parser says %v", err, parseErr)
		}
		if err != nil {
			return
		}
		after, err := parseObject(got)
		if err != nil {
			t.Fatalf("the result is no configuration: %v\n%s", err, got)
		}
		var list []string
		values := map[string][]byte{}
		for _, m := range after.members {
			values[m.name] = m.value(got)
		}
		if err := json.Unmarshal(values[name], &list); err != nil || len(list) != 2 || list[0] != strings.ToValidUTF8(peer, "\ufffd") && !strings.ContainsRune(list[0], '\ufffd') {
			t.Errorf("got %s, %v", values[name], err)
		}
		delete(values, name)
		rest := 0
		for _, m := range before.members {
			if m.name == name {
				continue
			}
			rest++
			if !bytes.Equal(values[m.name], m.value(data)) {
				t.Errorf("%q was %s and is %s", m.name, m.value(data), values[m.name])
			}
		}
		if rest != len(values) {
			t.Errorf("there were %d other keys and are %d", rest, len(values))
		}
		// A second reader must agree, as far as it takes such files at all.
		if want, err := members(data); err == nil {
			have, err := members(got)
			if err != nil {
				t.Fatal(err)
			}
			delete(want, name)
			delete(have, name)
			if !reflect.DeepEqual(have, want) {
				t.Errorf("got %s, want %s", have, want)
			}
		}
		again, err := setMember(got, name, ascii(raw))
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("the same update twice: %v\n%s\nthen\n%s", err, got, again)
		}
	})
}
