package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shortDir returns a directory whose sockets have short names.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "aioc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// mustListen makes a socket that is alive until the test ends, or one that its
// listener left behind.
func mustListen(t *testing.T, path string, alive bool) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if alive {
		t.Cleanup(func() { l.Close() })
		return
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestOnlyFindsTheOneConnectorThere(t *testing.T) {
	dir := shortDir(t)
	if e, ok := Only(dir); ok {
		t.Errorf("empty directory: got %+v", e)
	}
	if e, ok := Only(filepath.Join(dir, "none")); ok {
		t.Errorf("no directory: got %+v", e)
	}
	for _, name := range []string{"aioc_client_pump7", "uds_path_send_to_connector_client_pump7", "uds_path_commander_pump7"} {
		mustListen(t, filepath.Join(dir, name), true)
	}
	got, ok := Only(dir)
	all, err := Running(dir)
	if !ok || err != nil || len(all) != 1 || got != all[0] {
		t.Errorf("got %+v, Running has %+v, %v", got, all, err)
	}
	mustListen(t, filepath.Join(dir, "aioc_server_127001_10673"), false)
	if e, ok := Only(dir); ok {
		t.Errorf("two: got %+v", e)
	}
}

func TestRunningListsConnectorsByTheirSockets(t *testing.T) {
	dir := shortDir(t)
	for _, name := range []string{
		"aioc_server_127001_10673", "uds_path_send_to_connector_server_127001_10673", "uds_path_commander_127001_10673",
		"uds_path_send_to_connector_client_pump7", "uds_path_commander_pump7",
		"uds_path_receive_from_connector_client_any_pump7", "uds_path_commander_alone", "other",
	} {
		mustListen(t, filepath.Join(dir, name), false)
	}
	if err := os.WriteFile(filepath.Join(dir, "aioc_client_file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "active_connectors.json"), []byte(`["127.0.0.1 10673", "pump-7"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := Running(dir)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	want := []Endpoint{
		{Server: true, ID: "127001_10673", Name: "127.0.0.1:10673", Own: in("aioc_server_127001_10673"),
			Send: in("uds_path_send_to_connector_server_127001_10673"), Commander: in("uds_path_commander_127001_10673")},
		{ID: "pump7", Name: "pump-7", Send: in("uds_path_send_to_connector_client_pump7"), Commander: in("uds_path_commander_pump7")},
	}
	if fmt.Sprint(list) != fmt.Sprint(want) {
		t.Errorf("got\n%+v\nwant\n%+v", list, want)
	}
	for _, e := range list {
		p := e.Paths()
		if p.SendSocket != e.Send || p.CommanderSocket != e.Commander {
			t.Errorf("%s: got %s and %s", e.Name, p.SendSocket, p.CommanderSocket)
		}
	}
	if list, err := Running(filepath.Join(dir, "none")); list != nil || err != nil {
		t.Errorf("a missing directory: got %v, %v", list, err)
	}
}

func TestForConnectorFindsByEveryName(t *testing.T) {
	dir := shortDir(t)
	for _, name := range []string{"aioc_server_127001_10673", "aioc_client_pump7", "uds_path_send_to_connector_server_1_80"} {
		mustListen(t, filepath.Join(dir, name), false)
	}
	for name, want := range map[string]string{
		"127.0.0.1:10673":        "server_127001_10673",
		"127.0.0.1 10673":        "server_127001_10673",
		"('127.0.0.1', 10673)":   "server_127001_10673",
		"('127.0.0.1', '10673')": "server_127001_10673",
		"127001_10673":           "server_127001_10673",
		"pump7":                  "client_pump7",
		"pump-7":                 "client_pump7",
		"[::1]:80":               "server_1_80",
	} {
		p, err := ForConnector(dir, name)
		if err != nil || p.OwnSocket != filepath.Join(dir, "aioc_"+want) {
			t.Errorf("%s: got %s, %v, want %s", name, p.OwnSocket, err, want)
		}
		if want := filepath.Join(dir, "uds_path_receive_from_connector_"+strings.Replace(want, "_", "_any_", 1)); p.ReceiveSocket("any") != want {
			t.Errorf("%s: got receive socket %s, want %s", name, p.ReceiveSocket("any"), want)
		}
	}
	_, err := ForConnector(dir, "pump9")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there are 127001_10673, 1_80, pump7") {
		t.Errorf("one that is not there: got %v", err)
	}
	if _, err := ForConnector(shortDir(t), "x"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("an empty directory: got %v", err)
	}
}

func TestForConnectorPrefersTheOneThatLives(t *testing.T) {
	for _, test := range []struct {
		server, client bool
		want           string
	}{{true, false, "server"}, {false, true, "client"}, {true, true, ""}} {
		dir := shortDir(t)
		mustListen(t, filepath.Join(dir, "aioc_server_h_80"), test.server)
		mustListen(t, filepath.Join(dir, "aioc_client_h80"), test.client)
		p, err := ForConnector(dir, "h:80") // a server's address and a client's name
		switch {
		case test.want == "" && (err == nil || !strings.Contains(err.Error(), "several connectors")):
			t.Errorf("both alive: got %s, %v", p.OwnSocket, err)
		case test.want != "" && (err != nil || !strings.Contains(p.OwnSocket, "aioc_"+test.want)):
			t.Errorf("the %s is alive: got %s, %v", test.want, p.OwnSocket, err)
		}
	}
}

func TestAliveTellsListenersFromLeftovers(t *testing.T) {
	dir := shortDir(t)
	live, dead := filepath.Join(dir, "live"), filepath.Join(dir, "dead")
	mustListen(t, live, true)
	mustListen(t, dead, false)
	for path, want := range map[string]bool{live: true, dead: false, filepath.Join(dir, "none"): false} {
		if got, err := Alive(path); got != want || err != nil {
			t.Errorf("%s: got %v, %v, want %v", path, got, err, want)
		}
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := Alive(plain); got {
		t.Error("a plain file is alive")
	}
	if _, err := Alive(filepath.Join(dir, strings.Repeat("x", 200))); err == nil || !strings.Contains(err.Error(), "connect to") {
		t.Errorf("a name no socket can have: got %v", err)
	}
}
