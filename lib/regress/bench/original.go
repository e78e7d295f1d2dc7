package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/original.py
var originalScript []byte

// original is the Python original at all four places of the line. The clock starts when its sender
// has been loaded and begins to send, so that Python's start-up is not held against it.
type original struct{ python string }

func (original) name() string { return "original" }

func (original) input() (json, again bool) { return false, false }

// Bounds of the number of messages in one run of the original: with fewer, what its interpreters cost at
// their start would count too much; what does not fit in its queue it drops.
const (
	originalLeast = 20_000
	originalMost  = 50_000
)

// stallsFrom is the minor version of Python 3 from which the original's client falls silent over TLS.
const stallsFrom = 11

// findPython finds an interpreter that has aioconnectors among those that the interoperability tests
// leave in the user's cache, "" if there is none. The oldest Python is taken: the original's client
// stalls over TLS on 3.11 and later.
func findPython() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	found, err := filepath.Glob(filepath.Join(cache, "aioc-interop", "*", "bin", "python"))
	if err != nil {
		return ""
	}
	best, bestMinor := "", 0
	for _, path := range found {
		minor, err := pythonMinor(path)
		if err == nil && (best == "" || minor < bestMinor) {
			best, bestMinor = path, minor
		}
	}
	return best
}

// pythonMinor is the second number of an interpreter's version, an error if it has no aioconnectors.
func pythonMinor(path string) (int, error) {
	out, err := exec.Command(path, "-c", "import sys, aioconnectors; print(sys.version_info[1])").Output()
	if err != nil {
		return 0, fmt.Errorf("%s: import aioconnectors: %w", path, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(out)))
}

// config writes the configuration file of one end.
func (o original) config(l *line, server, tls bool, port int) (string, error) {
	name := "client"
	if server {
		name = "server"
	}
	dir := l.path(name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	keys := map[string]any{
		"is_server":                   server,
		"server_sockaddr":             []any{"127.0.0.1", port},
		"use_ssl":                     tls,
		"ssl_allow_all":               tls,
		"connector_files_dirpath":     dir,
		"default_logger_dirpath":      dir,
		"certificates_directory_path": dir,
		"tokens_directory_path":       dir,
		"send_message_types":          []string{"any"},
		"recv_message_types":          []string{"any"},
		"silent":                      true,
	}
	if !server {
		keys["client_name"] = "client1"
	}
	p, err := json.Marshal(keys)
	if err != nil {
		return "", err
	}
	path := dir + ".json"
	if err := os.WriteFile(path, p, 0o600); err != nil || !server || !tls {
		return path, err
	}
	var tail tail
	cmd := exec.CommandContext(l.ctx, o.python, "-m", "aioconnectors", "create_certificates", dir)
	cmd.Dir, cmd.Stderr = l.dir, &tail
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("original: create_certificates: %w: %s", err, tail.last())
	}
	return path, nil
}

func (o original) run(ctx context.Context, in input, count int, tls bool) (out outcome, err error) {
	l, err := newLine(ctx, "")
	if err != nil {
		return out, err
	}
	defer func() { err = l.end(err) }()
	port, err := freePort()
	if err != nil {
		return out, err
	}
	serverConfig, err := o.config(l, true, tls, port)
	if err != nil {
		return out, err
	}
	clientConfig, err := o.config(l, false, tls, port)
	if err != nil {
		return out, err
	}
	records, err := firstRecords(in, count)
	if err != nil {
		return out, err
	}
	script := l.path("original.py")
	if err := os.WriteFile(script, originalScript, 0o600); err != nil {
		return out, err
	}
	if err := os.WriteFile(l.path("records"), records, 0o600); err != nil {
		return out, err
	}
	python := func(name string, lasting bool, args ...string) (*child, error) {
		c := command{name: "original " + name, path: o.python, args: append([]string{script}, args...),
			dir: l.dir, pipeIn: name == "sender", pipeOut: true, lasting: lasting}
		p, err := l.start(c)
		if err != nil {
			return nil, err
		}
		_, err = p.ready()
		return p, err
	}
	server, err := python("server", true, "connector", serverConfig)
	if err != nil {
		return out, err
	}
	client, err := python("client", true, "connector", clientConfig)
	if err != nil {
		return out, err
	}
	receiver, err := python("receiver", false, "receive", serverConfig, strconv.Itoa(count))
	if err != nil {
		return out, err
	}
	sender, err := python("sender", false, "send", clientConfig, l.path("records"))
	if err != nil {
		return out, err
	}
	begin := time.Now()
	if _, err := fmt.Fprintln(sender.in, "go"); err != nil {
		return out, err
	}
	if err := sender.wait(); err != nil {
		return out, err
	}
	got, err := receiver.line()
	if err != nil {
		return out, err
	}
	if want := fmt.Sprintf("%d %d", count, count*in.size); got != want {
		return out, fmt.Errorf("original receiver: counted %s messages and bytes, want %s", got, want)
	}
	return l.finish(begin, sender, receiver, server, client)
}

// firstRecords reads the first count records of an input, with their ends.
func firstRecords(in input, count int) ([]byte, error) {
	f, err := os.Open(in.path)
	if err != nil {
		return nil, err
	}
	p := make([]byte, count*(in.size+1))
	_, err = f.ReadAt(p, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("first %d of %d records: %w", count, in.count, err)
	}
	if bytes.Count(p, []byte{ending(in.json)}) != count {
		return nil, fmt.Errorf("first %d records are not of one size", count)
	}
	return p, nil
}

// freePort is a TCP port of 127.0.0.1 on which nobody listens.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
