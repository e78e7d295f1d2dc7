//go:build interop

package regress

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for a condition that should come about.
// It is generous: a stalled Python TLS client gives up after 50 s, so what
// takes longer than this has stalled.
const patience = 40 * time.Second

// The two implementations that stand at either end of everything.
const (
	ours   = "go"
	theirs = "python"
)

// clientName is the client's name; a character of it is missing in the names
// of its sockets.
const clientName = "pump-7"

// host is one end of a link: a connector of either kind, its directory and its
// configuration file.
type host struct {
	kind   string // ours or theirs
	server bool
	py     python
	dir    string // connector_files_dirpath
	config string // path of the configuration file
	id     string // source_id
	peer   string // destination_id of the other end
	socket string // what the names of its sockets end in
	daemon *process
}

// pair is a server and a client with a configuration for each other.
type pair struct {
	server, client *host
}

// hosts returns the server first.
func (p pair) hosts() []*host { return []*host{p.server, p.client} }

// settings are configuration keys that a test sets beyond those of every pair.
type settings map[string]any

// newPair writes the configuration of a server and a client into directories
// of their own, as on two hosts. clientPort is the port that the client dials,
// 0 for the server's.
func newPair(t *testing.T, py python, server, client, tls string, types []string, clientPort int, more settings) pair {
	t.Helper()
	// Socket names must stay below 104 characters, so not t.TempDir.
	dir, err := os.MkdirTemp("/tmp", "ai")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := freePort(t)
	if clientPort == 0 {
		clientPort = port
	}
	name := func(port int) string { return fmt.Sprintf("('127.0.0.1', %d)", port) }
	p := pair{
		server: &host{kind: server, server: true, py: py, dir: filepath.Join(dir, "s"), id: name(port),
			peer: clientName, socket: fmt.Sprintf("127001_%d", port)},
		client: &host{kind: client, py: py, dir: filepath.Join(dir, "c"), id: clientName,
			peer: name(clientPort), socket: strings.ReplaceAll(clientName, "-", "")},
	}
	for _, h := range p.hosts() {
		h.config = filepath.Join(h.dir, "config.json")
		keys := settings{
			"is_server":                        h.server,
			"server_sockaddr":                  []any{"127.0.0.1", clientPort},
			"connector_files_dirpath":          h.dir,
			"default_logger_dirpath":           h.dir,
			"default_logger_log_level":         "INFO",
			"tokens_directory_path":            h.dir,
			"certificates_directory_path":      h.dir,
			"use_ssl":                          tls != "off",
			"ssl_allow_all":                    tls != "off",
			"recv_message_types":               types,
			"send_message_types":               types,
			"silent":                           h.kind == theirs,
			"debug_msg_counts":                 false,
			"reuse_server_sockaddr":            true,
			"reuse_uds_path_commander_server":  true,
			"reuse_uds_path_send_to_connector": true,
		}
		if h.server {
			keys["server_sockaddr"] = []any{"127.0.0.1", port}
			if tls != "off" {
				keys["certificates_directory_path"] = certificates(t, py, client)
			}
		} else {
			keys["client_name"] = clientName
		}
		maps.Copy(keys, more)
		text, err := json.MarshalIndent(keys, "", "    ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(h.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.config, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, h := range p.hosts() {
			if log, err := os.ReadFile(filepath.Join(h.dir, "aioconnectors.log")); err == nil {
				t.Logf("log of the Python programs in %s:\n%s", h.dir, tail(log, 12000))
			}
		}
	})
	return p
}

// start starts both connectors and waits until they are linked.
func (p pair) start(t *testing.T) {
	t.Helper()
	for _, h := range p.hosts() {
		h.start(t)
	}
	p.awaitLink(t)
}

// awaitLink waits until each end shows the other as connected.
func (p pair) awaitLink(t *testing.T) {
	t.Helper()
	for _, h := range p.hosts() {
		h.awaitPeers(t, h.peer)
	}
}

// role is the word for what the host is, in the names of programs and sockets.
func (h *host) role() string {
	if h.server {
		return "server"
	}
	return "client"
}

// start starts the connector, and returns when it takes commands.
func (h *host) start(t *testing.T) {
	t.Helper()
	what := h.kind + " " + h.role()
	if h.kind == theirs {
		cmd := exec.Command(h.py.exe, script(t, "peer.py"), h.config)
		keepStdin(t, cmd)
		h.daemon = start(t, what, cmd)
	} else {
		cmd := exec.Command(filepath.Join(binaries(t), "aioc-"+h.role()), "-config", h.config)
		cmd.Env = plainEnv()
		h.daemon = start(t, what, cmd)
	}
	eventually(t, what+" takes commands", func() error {
		if h.daemon.ended() {
			t.Fatalf("%s ended: %v", what, h.daemon.err)
		}
		_, err := h.peers()
		return err
	})
}

// script returns the path of a Python program of these tests.
func script(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata/interop", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// keepStdin gives a command a standard input that ends with this process, even
// when this process is killed.
func keepStdin(t *testing.T, cmd *exec.Cmd) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = r
	t.Cleanup(func() {
		r.Close()
		w.Close()
	})
	return w
}

// plainEnv is the environment without what would choose another connector.
func plainEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "AIOC_") && !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			env = append(env, v)
		}
	}
	return env
}

// command sends a command as ConnectorRemoteTool does and returns the reply.
func (h *host) command(name string, kwargs any) (string, error) {
	conn, err := net.Dial("unix", filepath.Join(h.dir, "uds_path_commander_"+h.socket))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	body, err := json.Marshal(map[string]any{"cmd": name, "kwargs": kwargs})
	if err != nil {
		return "", err
	}
	if _, err := conn.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
		return "", err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return "", fmt.Errorf("reply to %s: %w", name, err)
	}
	n := binary.LittleEndian.Uint32(size[:])
	if n > 1<<20 {
		return "", fmt.Errorf("reply to %s: %d bytes", name, n)
	}
	reply := make([]byte, n)
	_, err = io.ReadFull(conn, reply)
	return string(reply), err
}

// peers returns the names and addresses of the connected peers. Connections
// without a name yet are left out: the original's client keeps one open with
// which it looked whether the server is back.
func (h *host) peers() (map[string][]any, error) {
	reply, err := h.command("show_connected_peers__sync", map[string]any{"dump_result": true})
	if err != nil {
		return nil, err
	}
	var peers map[string][]any
	if err := json.Unmarshal([]byte(reply), &peers); err != nil {
		return nil, fmt.Errorf("show_connected_peers: %q: %w", reply, err)
	}
	if h.server {
		maps.DeleteFunc(peers, func(name string, _ []any) bool { return strings.HasPrefix(name, "(") })
	}
	return peers, nil
}

// awaitPeers waits until exactly the named peers are connected.
func (h *host) awaitPeers(t *testing.T, names ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s %s is connected with %q", h.kind, h.role(), names), func() error {
		peers, err := h.peers()
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, ok := peers[name]; !ok {
				return fmt.Errorf("peers are %v", peers)
			}
		}
		if len(peers) != len(names) {
			return fmt.Errorf("peers are %v", peers)
		}
		return nil
	})
}

// receiveSocket is where a receiver of a type listens for this connector.
func (h *host) receiveSocket(typ string) string {
	return filepath.Join(h.dir, "uds_path_receive_from_connector_"+h.role()+"_"+typ+"_"+h.socket)
}

// eventually waits until condition returns nil.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	if err := eventuallyErr(condition); err != nil {
		t.Fatalf("%s: not after %v: %v", what, patience, err)
	}
}

// eventuallyErr waits until condition returns nil, and returns its last error
// when that takes too long.
func eventuallyErr(condition func() error) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

// lastPort is the port that freePort looked at last.
var lastPort atomic.Int32

// freePort returns a TCP port of 127.0.0.1 that nobody uses, and that no other
// caller in this process is given.
func freePort(t *testing.T) int {
	t.Helper()
	// Below the ports that systems give to outgoing connections, at a place
	// that differs from one run to the next.
	lastPort.CompareAndSwap(0, int32(12000+os.Getpid()%1800*10))
	for range 2000 {
		port := int(lastPort.Add(1))
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("no free port")
	return 0
}

// trees are the certificate trees of the run, by the kind of program that made
// them.
var trees struct {
	sync.Mutex
	dirs map[string]string
}

// certificates returns a directory with a certificate tree. It is made by the
// client's implementation, so that where two meet, the server uses the tree of
// the other.
func certificates(t *testing.T, py python, client string) string {
	t.Helper()
	trees.Lock()
	defer trees.Unlock()
	maker := ours
	if client == theirs {
		maker = py.name
	}
	if dir, ok := trees.dirs[maker]; ok {
		return dir
	}
	dir, err := os.MkdirTemp("/tmp", "ai")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var cmd *exec.Cmd
	if maker == ours {
		cmd = exec.CommandContext(ctx, filepath.Join(binaries(t), "aioc-certs"), "create", dir)
	} else {
		cmd = exec.CommandContext(ctx, py.exe, script(t, "program.py"), "create_certificates", dir)
		cmd.Dir = dir
	}
	cmd.Env = plainEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	if trees.dirs == nil {
		trees.dirs = map[string]string{}
	}
	trees.dirs[maker] = dir
	return dir
}

// removeTrees removes the certificate trees of the run.
func removeTrees() {
	trees.Lock()
	defer trees.Unlock()
	for _, dir := range trees.dirs {
		os.RemoveAll(dir)
	}
	trees.dirs = nil
}

// errTimeout is what waiting for messages or replies ends in.
var errTimeout = errors.New("nothing more arrived")
