package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Key describes one key of the configuration file.
type Key struct {
	Name    string
	Want    string // what its value is, in words
	Default string // as JSON; "" is the data directory
	Help    string // one line
	Ignored string // why it has no effect here, "" if it has
}

// Keys returns all keys, in the order of the manual.
func Keys() []Key {
	var all []Key
	for _, k := range keys() {
		all = append(all, Key{k.name, k.want(), k.def, k.help, k.ignored})
	}
	return all
}

// A side is where a key has a meaning.
type side byte

const (
	both side = iota
	serverOnly
	clientOnly
)

// A key is a row of the table.
type key struct {
	name  string
	side  side
	def   string            // the default as JSON, "" is the data directory
	field func(*Config) any // pointer to the field
	help  string

	min, max int64              // of integers, and of durations in seconds
	null     bool               // null is allowed and is the zero value, which prints as null
	path     bool               // a path, made absolute
	item     func(string) error // checks a string that is not empty, or each one of a list
	words    string             // what the value is, "" to say it by the field's type
	secret   bool               // never quoted in an error
	ignored  string             // why it has no effect here
	alias    []string           // keys that it sets; it has no field of its own then
}

const (
	gigabyte = 1 << 30
	maxFrame = 1<<32 - 1 // what the length of a frame can say
	forever  = 30 * 86400
)

// keys returns the table. It is made anew by each call, so that programs that
// read no configuration do not pay for it at their start.
func keys() []key {
	return []key{
		// The connector.
		{name: "is_server", def: "true", field: func(c *Config) any { return &c.IsServer },
			help: "whether this connector listens, or connects to one that does"},
		{name: "server_sockaddr", def: `["127.0.0.1", 10673]`, field: func(c *Config) any { return &c.ServerAddr },
			help: "host and port of the server"},
		{name: "client_name", side: clientOnly, def: "null", null: true, field: func(c *Config) any { return &c.ClientName },
			help: "name of the client"},

		// Directories.
		{name: "connector_files_dirpath", path: true, field: func(c *Config) any { return &c.FilesDir },
			help: "directory of sockets and of waiting messages"},
		{name: "certificates_directory_path", path: true, field: func(c *Config) any { return &c.CertificatesDir },
			help: "directory that contains the directory certificates"},
		{name: "tokens_directory_path", path: true, field: func(c *Config) any { return &c.TokensDir },
			help: "directory of tokens"},
		{name: "default_logger_dirpath", path: true, field: func(c *Config) any { return &c.LogDir },
			help: "directory of the log file, which is written when this key is there"},

		// The connection between the two.
		{name: "client_bind_ip", side: clientOnly, def: "null", null: true, item: validHost, field: func(c *Config) any { return &c.ClientBindIP },
			help: "local address or network interface that the client connects from"},
		{name: "proxy", side: clientOnly, def: "{}", null: true, secret: true, field: func(c *Config) any { return &c.Proxy },
			help: "HTTP proxy through which the client connects"},
		{name: "proxy_cafile", side: clientOnly, def: "null", null: true, path: true, field: func(c *Config) any { return &c.ProxyCAFile },
			help: "file of certificates by which a proxy with ssl_server is verified"},
		{name: "connect_timeout", side: clientOnly, def: "10", max: forever, field: func(c *Config) any { return &c.ConnectTimeout },
			help: "seconds that connecting may take"},
		{name: "send_timeout", def: "50", max: forever, field: func(c *Config) any { return &c.SendTimeout },
			help: "seconds that writing a message may take before the connection is given up"},
		{name: "keep_alive_period", side: clientOnly, def: "null", null: true, max: forever, field: func(c *Config) any { return &c.KeepAlivePeriod },
			help: "seconds between two keep alive pings of the client"},
		{name: "keep_alive_timeout", side: clientOnly, def: "5", max: forever, field: func(c *Config) any { return &c.KeepAliveTimeout },
			help: "seconds to wait for the answer to a keep alive ping"},
		{name: "max_number_of_unanswered_keep_alive", side: clientOnly, def: "2", min: 1, max: 1000000, field: func(c *Config) any { return &c.MaxUnansweredKeepAlive },
			help: "unanswered keep alive pings in a row after which the client reconnects"},
		{name: "enable_client_try_reconnect", side: clientOnly, def: "true", field: func(c *Config) any { return &c.TryReconnect },
			help: "whether the client connects again after it lost the connection"},
		{name: "reuse_server_sockaddr", side: serverOnly, def: "false", field: func(c *Config) any { return &c.ReuseServerAddr },
			help:    "whether the server may bind an address that was in use a moment ago",
			ignored: "that is always so, and two servers on one address are always refused"},

		// Transport security.
		{name: "use_ssl", def: "true", field: func(c *Config) any { return &c.UseSSL },
			help: "whether the connection is encrypted with TLS"},
		{name: "ssl_allow_all", def: "false", field: func(c *Config) any { return &c.SSLAllowAll },
			help: "whether TLS is used without certificates that prove who the ends are"},
		{name: "use_token", def: "false", field: func(c *Config) any { return &c.UseToken },
			help: "whether clients prove who they are by a token"},
		{name: "server_secure_tls", side: serverOnly, def: "true", field: func(c *Config) any { return &c.ServerSecureTLS },
			help: "whether the server refuses TLS versions before 1.2"},
		{name: "server_ca", def: "false", field: func(c *Config) any { return &c.ServerCA },
			help: "whether the server signs its clients' certificates as a certificate authority"},
		{name: "server_ca_certs_not_stored", side: serverOnly, def: "true", field: func(c *Config) any { return &c.ServerCACertsNotStored },
			help: "whether the authority forgets the certificates that it signed"},
		{name: "max_certs", side: serverOnly, def: "1024", min: 1, max: 1 << 31, field: func(c *Config) any { return &c.MaxCerts },
			help: "number of client certificates that the server gives out"},
		{name: "client_cafile_verify_server", side: clientOnly, def: "null", null: true, path: true, field: func(c *Config) any { return &c.ClientCAFile },
			help: "file of certificates by which the client verifies the server and its name"},
		{name: "alternate_client_default_cert", side: clientOnly, def: "false", field: func(c *Config) any { return &c.AlternateDefaultCert },
			help: "whether a client that is refused tries the default certificate in turn with its own"},
		{name: "token_verify_peer_cert", def: "true", field: func(c *Config) any { return &c.TokenVerifyPeerCert },
			help: "whether certificates are verified when tokens are used"},
		{name: "token_client_send_cert", side: clientOnly, def: "true", field: func(c *Config) any { return &c.TokenSendCert },
			help: "whether the client presents a certificate when tokens are used"},
		{name: "token_client_verify_server_hostname", side: clientOnly, def: "null", null: true, field: func(c *Config) any { return &c.TokenVerifyHostname },
			help: "whether the server's certificate must have the host's name when tokens are used"},
		{name: "token_server_allow_authorized_non_default_cert", side: serverOnly, def: "false", field: func(c *Config) any { return &c.TokenAllowOtherCert },
			help: "whether a client with a certificate of its own needs no token"},

		// Message types.
		{name: "send_message_types", def: `["any"]`, item: listedType, field: func(c *Config) any { return &c.SendTypes },
			help: "message types that may be sent"},
		{name: "recv_message_types", def: `["any"]`, item: listedType, field: func(c *Config) any { return &c.RecvTypes },
			help: "message types that may be received"},
		{name: "subscribe_message_types", side: clientOnly, def: "[]", item: ValidType, field: func(c *Config) any { return &c.SubscribeTypes },
			help: "message types that the client subscribes to"},
		{name: "send_message_types_priorities", def: "{}", item: listedType, field: func(c *Config) any { return &c.Priorities },
			help: "priority of message types, the smaller number first"},
		{name: "pubsub_central_broker", side: serverOnly, def: "false", field: func(c *Config) any { return &c.Broker },
			help: "whether the server passes publications on to subscribers"},

		// Who may connect.
		{name: "blacklisted_clients_id", side: serverOnly, def: "null", null: true, item: validPattern, field: func(c *Config) any { return &c.BlacklistID },
			help: "regular expressions of client names that are refused", words: "an array of regular expressions"},
		{name: "blacklisted_clients_ip", side: serverOnly, def: "null", null: true, item: validIP, field: func(c *Config) any { return &c.BlacklistIP },
			help: "addresses that are refused", words: "an array of IP addresses"},
		{name: "blacklisted_clients_subnet", side: serverOnly, def: "null", null: true, item: validSubnet, field: func(c *Config) any { return &c.BlacklistSubnet },
			help: "networks that are refused", words: "an array of networks"},
		{name: "whitelisted_clients_id", side: serverOnly, def: "null", null: true, item: validPattern, field: func(c *Config) any { return &c.WhitelistID },
			help: "regular expressions of the only client names that are accepted", words: "an array of regular expressions"},
		{name: "whitelisted_clients_ip", side: serverOnly, def: "null", null: true, item: validIP, field: func(c *Config) any { return &c.WhitelistIP },
			help: "the only addresses that are accepted", words: "an array of IP addresses"},
		{name: "whitelisted_clients_subnet", side: serverOnly, def: "null", null: true, item: validSubnet, field: func(c *Config) any { return &c.WhitelistSubnet },
			help: "the only networks that are accepted", words: "an array of networks"},
		{name: "ignore_peer_traffic", def: "false", field: func(c *Config) any { return &c.IgnoreTraffic },
			help: "whether messages from and to the peers, or one of them, are dropped"},

		// Programs that are asked.
		{name: "hook_server_auth_client", side: serverOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookAuthClient },
			help: "program that decides whether a client may connect"},
		{name: "hook_allow_certificate_creation", side: serverOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookAllowCertificate },
			help: "program that decides whether a new client is given a certificate"},
		{name: "hook_whitelist_clients", side: serverOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookWhitelist },
			help: "program that is told of a client that is on no whitelist"},
		{name: "hook_target_directory", def: "null", null: true, field: func(c *Config) any { return &c.HookTargetDirectory },
			help: "program that says in which directory a file that arrives is stored"},
		{name: "hook_proxy_authorization", side: clientOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookProxyAuth },
			help: "program that gives user name and password for the proxy"},
		{name: "hook_store_token", side: clientOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookStoreToken },
			help: "program that turns the client's token into what is written to disk"},
		{name: "hook_load_token", side: clientOnly, def: "null", null: true, field: func(c *Config) any { return &c.HookLoadToken },
			help: "program that turns what is on disk into the client's token"},
		{name: "hook_timeout", def: "10", max: 3600, field: func(c *Config) any { return &c.HookTimeout },
			help: "seconds after which such a program is killed"},

		// Durability.
		{name: "disk_persistence_send", def: "false", item: listedType, field: func(c *Config) any { return &c.PersistSend },
			help: "message types that are kept on disk until a peer has them"},
		{name: "disk_persistence_recv", def: "false", item: listedType, field: func(c *Config) any { return &c.PersistRecv },
			help: "message types that are kept on disk until a local program has them"},
		{name: "max_size_persistence_path", def: "1073741824", max: 1 << 62, field: func(c *Config) any { return &c.MaxPersistenceSize },
			help: "bytes on disk of what waits for one destination"},
		{name: "max_size_persistence_total", def: "8589934592", max: 1 << 62, field: func(c *Config) any { return &c.MaxPersistenceTotal },
			help: "bytes on disk of what waits for all destinations together"},

		// Files.
		{name: "file_recv_config", def: "{}", null: true, field: func(c *Config) any { return &c.FileTargets },
			help: "where files are stored that arrive, by destination type"},
		{name: "max_size_file_upload_send", def: "8589930194", max: 1 << 62, field: func(c *Config) any { return &c.MaxFileSend },
			help: "bytes of the biggest file that is sent"},
		{name: "max_size_file_upload_recv", def: "8589930194", max: 1 << 62, field: func(c *Config) any { return &c.MaxFileRecv },
			help: "bytes of the biggest file that is stored"},
		{name: "max_size_file_upload", alias: []string{"max_size_file_upload_send", "max_size_file_upload_recv"},
			help: "obsolete: sets max_size_file_upload_send and max_size_file_upload_recv"},
		{name: "max_size_chunk_upload", def: "209715200", min: 1, max: maxFrame / 2, field: func(c *Config) any { return &c.MaxFileChunkSize },
			help: "bytes of a file from which it is sent in pieces of that size"},

		// Local programs.
		{name: "everybody_can_send_messages", def: "true", field: func(c *Config) any { return &c.EverybodyCanSend },
			help: "whether every local user may send"},
		{name: "receive_from_any_connector_owner", def: "true", field: func(c *Config) any { return &c.ReceiveFromAnyOwner },
			help: "whether a receiver accepts messages from a connector of another user"},
		{name: "uds_path_send_preserve_socket", def: "true", field: func(c *Config) any { return &c.PreserveSend },
			help: "whether programs send many messages over one connection"},
		{name: "uds_path_receive_preserve_socket", def: "true", field: func(c *Config) any { return &c.PreserveReceive },
			help: "whether programs receive many messages over one connection"},
		{name: "reuse_uds_path_send_to_connector", def: "false", field: func(c *Config) any { return &c.ReuseSendSocket },
			help:    "whether a socket that a dead connector left behind is replaced",
			ignored: "the socket of a dead connector is always replaced, that of a live one never"},
		{name: "reuse_uds_path_commander_server", def: "false", field: func(c *Config) any { return &c.ReuseCommander },
			help:    "whether a commander socket that a dead connector left behind is replaced",
			ignored: "the socket of a dead connector is always replaced, that of a live one never"},

		// Limits of our own.
		{name: "max_message_size", def: "268435456", min: 65536, max: maxFrame, field: func(c *Config) any { return &c.MaxMessageSize },
			help: "bytes of the biggest message that is accepted"},
		{name: "max_memory_per_queue", def: "67108864", min: 65536, max: 1 << 62, field: func(c *Config) any { return &c.MaxMemoryPerQueue },
			help: "bytes in memory of one message type that waits for one destination"},
		{name: "max_memory_total", def: "1073741824", min: 65536, max: 1 << 62, field: func(c *Config) any { return &c.MaxMemoryTotal },
			help: "bytes in memory of all that waits"},
		{name: "max_unidentified", side: serverOnly, def: "512", min: 1, max: 1000000, field: func(c *Config) any { return &c.MaxUnidentified },
			help: "connections at a time that have not yet said who they are"},
		{name: "sandbox", def: "true", field: func(c *Config) any { return &c.Sandbox },
			help: "whether the process gives up the rights that it does not need"},

		// The log.
		{name: "default_logger_log_level", def: `"INFO"`, item: validLevel, field: func(c *Config) any { return &c.LogLevel },
			words: "DEBUG, INFO, WARNING, ERROR or CRITICAL", help: "what is logged: this level and those above"},
		{name: "default_logger_rotate", def: "true", field: func(c *Config) any { return &c.LogRotate },
			help: "whether the log file is rotated, or the size in bytes at which it is"},
		{name: "default_logger_bk_count", def: "5", max: 1000000, field: func(c *Config) any { return &c.LogBackups },
			help: "number of old log files that are kept"},
		{name: "silent", def: "true", field: func(c *Config) any { return &c.Silent },
			help: "whether the log is kept off standard error when there is a log file"},
		{name: "debug_msg_counts", def: "true", field: func(c *Config) any { return &c.DebugMessageCounts },
			help: "whether, at level DEBUG, counters are logged every two seconds"},
	}
}

// lookup returns the row of a key.
func lookup(name string) (key, bool) {
	for _, k := range keys() {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// unknownKey is the error for a key that is not in the table.
func unknownKey(name string) error {
	if near := nearest(name); near != "" {
		return fmt.Errorf("%s: no such key: did you mean %s?", printable(name), near)
	}
	return fmt.Errorf("%s: no such key: remove it, or see aioc.json(5) for all keys", printable(name))
}

// nearest returns the key that was probably meant, "" if none is near.
func nearest(name string) string {
	plain := strings.ToLower(strings.NewReplacer("-", "_", " ", "_", ".", "_").Replace(name))
	best, bestDistance := "", len(plain)/3+2
	for _, k := range keys() {
		if len(k.alias) == 0 || plain == k.name {
			if d := distance(plain, k.name, bestDistance); d < bestDistance {
				best, bestDistance = k.name, d
			}
		}
	}
	return best
}

// distance counts the characters to insert, remove, replace or swap with their
// neighbour to make b of a. From limit on the exact number does not matter.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		two, one, row = one, row, two
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := one[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, one[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// Checks of single strings.

func validPattern(s string) error {
	_, err := Pattern(s)
	return err
}

func validIP(s string) error {
	if _, err := netip.ParseAddr(s); err != nil {
		if strings.Contains(s, "/") {
			return fmt.Errorf("%q is a network: networks belong to the key that ends in _subnet", s)
		}
		return fmt.Errorf("%q is not an IP address", s)
	}
	return nil
}

func validSubnet(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil // a network of one address
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%q is not a network such as 10.1.0.0/16", s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return fmt.Errorf("%q has bits set after the prefix: write %s", s, masked)
	}
	return nil
}

func validLevel(s string) error {
	switch s {
	case "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "NOTSET", "WARN", "FATAL":
		return nil
	}
	return fmt.Errorf("%q is not DEBUG, INFO, WARNING, ERROR or CRITICAL", s)
}
