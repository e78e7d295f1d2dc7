package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"aioc/lib/wire"
)

// problem returns what is wrong with the value of the key alone, "" if nothing
// is.
func (k key) problem(c *Config) string {
	if k.field == nil {
		return ""
	}
	switch p := k.field(c).(type) {
	case *string:
		if k.name == "client_name" && !c.IsServer && *p != "" {
			return words(ValidClientName(*p))
		}
		if k.item != nil && *p != "" {
			return words(k.item(*p))
		}
	case *[]string:
		return k.items(*p)
	case *Types:
		return k.items(p.Names)
	case *map[string]int:
		return k.items(slices.Sorted(maps.Keys(*p)))
	case *map[string]FileTarget:
		for _, name := range slices.Sorted(maps.Keys(*p)) {
			if problem := (*p)[name].problem(); problem != "" {
				return printable(name) + ": " + problem
			}
		}
	case *Proxy:
		return p.problem()
	case *Command:
		return p.problem()
	case *int:
		return k.outside(int64(*p))
	case *int64:
		return k.outside(*p)
	case *time.Duration:
		if (*p <= 0 && !(k.null && *p == 0)) || *p > time.Duration(k.max)*time.Second {
			return "want " + k.want()
		}
	case *Addr:
		if err := validHost(p.Host); err != nil {
			return err.Error()
		}
		if p.Port < 0 || p.Port > 65535 {
			return fmt.Sprintf("port %d: want a port from 1 to 65535", p.Port)
		}
	}
	return ""
}

func (k key) outside(n int64) string {
	if n < k.min || n > k.max {
		return fmt.Sprintf("got %d, want %s", n, k.want())
	}
	return ""
}

func (k key) items(list []string) string {
	for i, s := range list {
		if k.item != nil {
			if err := k.item(s); err != nil {
				return err.Error()
			}
		}
		if slices.Contains(list[:i], s) {
			return fmt.Sprintf("%s stands twice: remove one", printable(s))
		}
	}
	return ""
}

func words(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (p Proxy) problem() string {
	switch {
	case !p.Enabled:
	case p.Addr.Host == "":
		return "address: missing: want the proxy's host"
	case strings.Contains(p.Addr.Host, "/"):
		return fmt.Sprintf("address: %q: want a host, not a URL: its port is \"port\", and https:// is \"ssl_server\": true", p.Addr.Host)
	case validHost(p.Addr.Host) != nil:
		return "address: " + words(validHost(p.Addr.Host))
	case p.Addr.Port == 0:
		return "port: missing: want a port from 1 to 65535"
	case strings.Contains(p.Username, ":"):
		return "authorization: a username cannot contain a colon"
	}
	return ""
}

// placeholders are what may stand in braces in a target_directory.
func placeholders() []string {
	return []string{"message_type", "source_id", "destination_id", "tag", "request_id", "response_id", "with_file[dst_name]", "with_file[dst_type]"}
}

// FileMode returns the mode that files are given: 0 if none was said.
func (t FileTarget) FileMode() (fs.FileMode, error) {
	if t.Mode == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(t.Mode, 8, 9)
	if err == nil && n&0o400 == 0 {
		err = errors.New("not readable for its owner")
	}
	return fs.FileMode(n), err
}

func (t FileTarget) problem() string {
	if t.Directory == "" {
		return "target_directory: missing: want an absolute path"
	}
	if !filepath.IsAbs(t.Directory) && !strings.HasPrefix(t.Directory, "~/") && !strings.HasPrefix(t.Directory, "$") {
		return fmt.Sprintf("target_directory: %q is not an absolute path", t.Directory)
	}
	if strings.ContainsRune(t.Directory, 0) {
		return "target_directory: contains the character NUL"
	}
	rest := strings.NewReplacer("{{", "", "}}", "").Replace(t.Directory)
	for {
		before, after, open := strings.Cut(rest, "{")
		if strings.Contains(before, "}") {
			return fmt.Sprintf("target_directory: %q has a } without a {: write }} for the character", t.Directory)
		}
		if !open {
			break
		}
		name, next, closed := strings.Cut(after, "}")
		if !closed {
			return fmt.Sprintf("target_directory: %q has a { without a }: write {{ for the character", t.Directory)
		}
		if !slices.Contains(placeholders(), name) {
			return fmt.Sprintf("target_directory: {%s} is not known: use {%s}", name, strings.Join(placeholders(), "}, {"))
		}
		rest = next
	}
	if user, group, ok := strings.Cut(t.Owner, ":"); t.Owner != "" && (!ok || user == "" || group == "" || strings.Contains(group, ":")) {
		return fmt.Sprintf("owner: %q is not user:group", t.Owner)
	}
	if _, err := t.FileMode(); t.Mode != "" && err != nil {
		return fmt.Sprintf("mode: %q is not one of a file: want octal digits from 400 to 777, such as 640", t.Mode)
	}
	return ""
}

// Check returns everything that is wrong with the configuration: values out of
// range, however they were set, and contradictions between keys. It looks at
// nothing but the configuration.
func (c *Config) Check() []error {
	var found []error
	bad := func(key, format string, args ...any) { found = append(found, c.errorf(key, format, args...)) }
	for _, k := range keys() {
		if problem := k.problem(c); problem != "" {
			bad(k.name, "%s", problem)
		}
	}
	if len(found) > 0 {
		return found // what follows relies on sound values
	}
	if !c.IsServer && c.ServerAddr.Port == 0 {
		bad("server_sockaddr", "a client cannot connect to port 0: want a port from 1 to 65535")
	}
	for _, t := range c.SubscribeTypes {
		if !slices.Contains(c.RecvTypes, t) {
			bad("subscribe_message_types", "%s is not received: add it to recv_message_types", printable(t))
		}
	}
	if c.MaxMemoryTotal < c.MaxMemoryPerQueue {
		bad("max_memory_total", "got %d, want at least max_memory_per_queue, %d", c.MaxMemoryTotal, c.MaxMemoryPerQueue)
	}
	for _, k := range []struct {
		name string
		list Types
	}{{"disk_persistence_send", c.PersistSend}, {"disk_persistence_recv", c.PersistRecv}} {
		if c.MaxPersistenceSize == 0 && (k.list.All || len(k.list.Names) > 0) {
			bad(k.name, "nothing may be kept on disk: max_size_persistence_path is 0: want more, or no types here")
		}
	}
	if problem := c.longPath(); problem != "" {
		bad("connector_files_dirpath", "%s", problem)
	}
	return found
}

// longPath returns what to do if the name of a socket is too long for the
// system.
func (c *Config) longPath() string {
	paths := c.Paths()
	names := []string{paths.SendSocket, paths.CommanderSocket, paths.OwnSocket}
	for _, t := range c.RecvTypes {
		names = append(names, paths.ReceiveSocket(t))
	}
	if c.IsServer && c.Broker {
		names = append(names, paths.ReceiveSocket(wire.TypePubSub))
	}
	longest := slices.MaxFunc(names, func(a, b string) int { return len(a) - len(b) })
	if over := len(longest) - maxSocketPath(); over > 0 {
		return fmt.Sprintf("the socket %q has %d bytes, at most %d are possible: use a directory or a message type that is %d shorter",
			longest, len(longest), maxSocketPath(), over)
	}
	return ""
}

// verifiesNobody warns where somebody may believe that the other end is verified.
func verifiesNobody(c *Config, warn func(key, format string, args ...any)) {
	tokens := c.UseSSL && c.SSLAllowAll && c.UseToken
	switch {
	case tokens && !c.TokenVerifyPeerCert.On && c.IsServer:
		warn("token_verify_peer_cert", "false: no certificate is asked for, so whoever reaches this server gets a token for any name that is free")
	case tokens && !c.TokenVerifyPeerCert.On && !c.TokenVerifyHostname:
		warn("token_verify_peer_cert", "false: any server is taken, and shown the token: who stands between can use it")
	}
	if c.IsServer {
		return
	}
	switch {
	case !c.TokenVerifyHostname:
	case !tokens:
		warn("token_client_verify_server_hostname", "has no effect: it needs use_token, ssl_allow_all and use_ssl; with certificates use client_cafile_verify_server")
	case !c.TokenVerifyPeerCert.On:
		warn("token_client_verify_server_hostname", "has no effect: token_verify_peer_cert is false, so any server is taken, whatever its name, and shown the token")
	}
	switch {
	case c.ClientCAFile == "":
	case !c.UseSSL:
		warn("client_cafile_verify_server", "has no effect: use_ssl is false")
	case tokens:
		warn("client_cafile_verify_server", "has no effect with tokens: write the file as token_verify_peer_cert, and set token_client_verify_server_hostname")
	case c.SSLAllowAll:
		warn("client_cafile_verify_server", "has no effect: with ssl_allow_all any server is taken")
	}
}

// Warnings returns what is probably not meant, and what has no effect, one line
// each. The configuration works all the same.
func (c *Config) Warnings() []string {
	var found []string
	warn := func(key, format string, args ...any) {
		found = append(found, c.errorf(key, format, args...).Error())
	}
	role, other := serverOnly, "client"
	if !c.IsServer {
		role, other = clientOnly, "server"
	}
	defaults := Defaults()
	for _, k := range keys() {
		if !c.Given(k.name) {
			continue
		}
		if len(k.alias) > 0 {
			warn(k.name, "obsolete: use %s", strings.Join(k.alias, " and "))
			continue
		}
		if string(k.appendValue(nil, c)) == string(k.appendValue(nil, defaults)) {
			continue // a template that was filled in has every key
		}
		switch {
		case k.ignored != "":
			warn(k.name, "has no effect: %s", k.ignored)
		case k.side != both && k.side != role:
			warn(k.name, "has no effect: it is for a %s", other)
		}
	}
	switch {
	case c.UseToken && !c.UseSSL:
		warn("use_token", "has no effect: tokens need use_ssl and ssl_allow_all")
	case c.UseToken && !c.SSLAllowAll:
		warn("use_token", "has no effect: tokens need ssl_allow_all")
	case c.SSLAllowAll && !c.UseSSL:
		warn("ssl_allow_all", "has no effect: it needs use_ssl")
	}
	verifiesNobody(c, warn)
	for _, pattern := range c.WhitelistID {
		if c.IsServer && Open(pattern) {
			warn("whitelisted_clients_id", "%q also admits every longer name that begins so: write %q, or %q if that is meant", pattern, closed(pattern)+"$", closed(pattern)+".*")
		}
	}
	for _, k := range []struct {
		name  string
		types []string
	}{{"send_message_types", c.SendTypes}, {"recv_message_types", c.RecvTypes}} {
		for _, t := range k.types {
			if wire.Reserved(t) {
				warn(k.name, "%s is always allowed as far as it is needed: leave it out", t)
			}
		}
	}
	for _, k := range []struct {
		name  string
		types []string
		of    string
		known []string
	}{
		{"send_message_types_priorities", slices.Sorted(maps.Keys(c.Priorities)), "send_message_types", c.SendTypes},
		{"disk_persistence_send", c.PersistSend.Names, "send_message_types", c.SendTypes},
		{"disk_persistence_recv", c.PersistRecv.Names, "recv_message_types", c.RecvTypes},
	} {
		if c.IsServer && c.Broker && k.of == "send_message_types" {
			continue // a broker passes on topics that it sends nothing of itself
		}
		for _, t := range k.types {
			if !slices.Contains(k.known, t) && !wire.Reserved(t) {
				warn(k.name, "%s is not one of %s", printable(t), k.of)
			}
		}
	}
	return found
}
