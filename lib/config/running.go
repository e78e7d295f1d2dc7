package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// An Endpoint is a connector that has sockets in a directory. Whether it still
// runs is what Alive tells of its sockets.
type Endpoint struct {
	Server    bool
	ID        string // identity in the names of its sockets
	Name      string // client name or HOST:PORT as far as it is known, else ID
	Own       string // the socket of our own daemons, "" for one of the original
	Send      string // "" if it is not there
	Commander string // "" if it is not there
}

// Running lists the connectors that have an own or a send socket in dir, sorted
// by name. It connects to none, so the sockets of dead ones are listed too. A
// directory that does not exist is empty.
func Running(dir string) ([]Endpoint, error) {
	list, err := endpoints(dir)
	if len(list) == 0 {
		return nil, err
	}
	names := activeNames(filepath.Join(absolute(dir), "active_connectors.json"))
	for i, e := range list {
		if name, ok := names[e.ID]; ok && name.server == e.Server {
			list[i].Name = name.text
		}
	}
	slices.SortFunc(list, func(a, b Endpoint) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return list, nil
}

// Only returns the connector in dir if there is one and no other, as Running
// would, but with its ID for a name: that costs less, and the one who connects
// to it is told its name.
func Only(dir string) (e Endpoint, ok bool) {
	list, err := endpoints(dir)
	if err != nil || len(list) != 1 {
		return e, false
	}
	return list[0], true
}

// endpoints lists the connectors in dir in no order, with their IDs for names.
func endpoints(dir string) ([]Endpoint, error) {
	dir = absolute(dir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	type identity struct {
		server bool
		id     string
	}
	found := map[identity]*Endpoint{}
	commanders := map[string]bool{}
	for _, entry := range entries {
		name := entry.Name()
		if entry.Type()&fs.ModeSocket == 0 {
			continue
		}
		if id, ok := strings.CutPrefix(name, commander); ok {
			commanders[id] = true
			continue
		}
		for _, p := range []struct {
			prefix      string
			server, own bool
		}{{ownServer, true, true}, {ownClient, false, true}, {sendServer, true, false}, {sendClient, false, false}} {
			id, ok := strings.CutPrefix(name, p.prefix)
			if !ok || id == "" {
				continue
			}
			e := found[identity{p.server, id}]
			if e == nil {
				e = &Endpoint{Server: p.server, ID: id, Name: id}
				found[identity{p.server, id}] = e
			}
			if p.own {
				e.Own = filepath.Join(dir, name)
			} else {
				e.Send = filepath.Join(dir, name)
			}
		}
	}
	var list []Endpoint
	for key, e := range found {
		if commanders[key.id] {
			e.Commander = filepath.Join(dir, commander+key.id)
		}
		list = append(list, *e)
	}
	return list, nil
}

type activeName struct {
	server bool
	text   string
}

// activeNames reads the readable names of connectors, by their identity in
// socket names. The file is a hint: without it the identity is the name.
func activeNames(path string) map[string]activeName {
	data, err := os.ReadFile(path)
	var list []string
	if err != nil || json.Unmarshal(data, &list) != nil {
		return nil
	}
	names := map[string]activeName{}
	for _, line := range list {
		if addr, ok := parseLine(line); ok {
			names[socketID(true, addr.Text())] = activeName{true, addr.String()}
		} else {
			names[socketID(false, line)] = activeName{false, line}
		}
	}
	return names
}

// parseLine reads the form of Addr.Line.
func parseLine(s string) (Addr, bool) {
	host, port, ok := strings.Cut(s, " ")
	n, err := parsePort(port)
	return Addr{Host: host, Port: n}, ok && err == nil && host != ""
}

// ForConnector returns the sockets of a connector in dir by its name: that of a
// client, or HOST:PORT or "HOST PORT" of a server, or the name that Running gave
// it. Only Dir, the socket methods and fields, LockFile and ActiveList are filled
// in. If both a client and a server of that name have sockets there, it is the
// one that is alive. The error is fs.ErrNotExist if there is none, and lists those
// there are.
func ForConnector(dir, name string) (Paths, error) {
	list, err := Running(dir)
	if err != nil {
		return Paths{}, err
	}
	var fits []Endpoint
	for _, e := range list {
		if e.named(name) {
			fits = append(fits, e)
		}
	}
	if len(fits) > 1 {
		alive := slices.DeleteFunc(slices.Clone(fits), func(e Endpoint) bool { return !e.Alive() })
		if len(alive) > 1 {
			return Paths{}, fmt.Errorf("several connectors in %q could be %q: %s: use -config to say which", dir, name, strings.Join(Names(alive), ", "))
		}
		if len(alive) == 1 {
			fits = alive
		}
	}
	if len(fits) == 0 {
		there := "there is none"
		if len(list) > 0 {
			there = "there are " + strings.Join(Names(list), ", ")
		}
		return Paths{}, fmt.Errorf("no connector %q in %q: %s: %w", name, dir, there, fs.ErrNotExist)
	}
	return fits[0].Paths(), nil
}

// Names returns the names of connectors, as one may list them in an error.
func Names(list []Endpoint) []string {
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// Paths returns the names of the endpoint's sockets, whether they exist or not,
// as ForConnector does.
func (e Endpoint) Paths() Paths {
	dir := filepath.Dir(e.Own)
	if e.Own == "" {
		dir = filepath.Dir(e.Send)
	}
	return formPaths(dir, e.Server, e.ID)
}

// named tells whether the endpoint goes by a name.
func (e Endpoint) named(name string) bool {
	if name == e.Name || name == e.ID {
		return true
	}
	if !e.Server {
		return socketID(false, name) == e.ID
	}
	if addr, err := ParseAddr(name); err == nil {
		return socketID(true, addr.Text()) == e.ID
	}
	if addr, ok := parseLine(name); ok {
		return socketID(true, addr.Text()) == e.ID
	}
	return strings.HasPrefix(name, "(") && socketID(true, name) == e.ID
}

// Alive tells whether somebody listens on a socket of the endpoint.
func (e Endpoint) Alive() bool {
	for _, socket := range []string{e.Own, e.Send} {
		if socket != "" {
			if alive, err := Alive(socket); alive || err != nil {
				return true // one that may not be asked is somebody's
			}
		}
	}
	return false
}

// dialTimeout bounds Alive. A listener on this host answers at once or has its
// backlog full.
const dialTimeout = 2 * time.Second

// Alive connects to a Unix socket, closes at once, and tells whether a process
// listens there. A socket that does not exist or that its process left behind is
// not alive. The error, such as fs.ErrPermission, is one that leaves the question
// open. Daemons must take an empty connection as nothing. On the BSDs, unlike
// Linux, a listener whose backlog is full looks dead: who wants to take its place
// holds the lock first.
func Alive(path string) (bool, error) {
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	switch {
	case err == nil:
		return true, conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return false, nil
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil // so busy that its backlog is full
	}
	return false, fmt.Errorf("connect to %q: %w", path, errors.Unwrap(err))
}
