// Package config is the configuration file of a connector: its keys with their
// defaults and checks, and the names of all sockets and files that follow from
// it.
//
//	config.go   the Config, its defaults, and setting single keys
//	keys.go     the table of keys, which everything else reads
//	values.go   the JSON forms of the values
//	json.go     a strict JSON reader that knows where things stand
//	load.go     reading a file
//	check.go    ranges and contradictions
//	update.go   changing one key of the user's file in place
//	names.go    names of clients, message types and tags
//	pattern.go  patterns of client names
//	command.go  programs to run
//	addr.go     addresses
//	paths.go    every socket and file
//	running.go  which connectors have sockets in a directory
//
// The file is the one of aioconnectors 1.6.3, with a few keys of our own; it is
// described in aioc.json(5). Nothing here writes to a file but Update.
package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Config holds the value of every key. Make one with Defaults or Load.
// A Config has no lock: it is changed before it is shared.
type Config struct {
	// The connector.
	IsServer   bool   `json:"is_server"`       // a server listens, a client connects
	ServerAddr Addr   `json:"server_sockaddr"` // where the server listens, or the client connects to
	ClientName string `json:"client_name"`     // "" means none was given: see DefaultName

	// Directories, absolute when they come from a file or from Set.
	FilesDir        string `json:"connector_files_dirpath"`     // sockets, locks, persistence
	CertificatesDir string `json:"certificates_directory_path"` // holds the directory "certificates"
	TokensDir       string `json:"tokens_directory_path"`
	LogDir          string `json:"default_logger_dirpath"`

	// The connection between the two.
	ClientBindIP           string        `json:"client_bind_ip"` // local address or interface of a client, "" is any
	Proxy                  Proxy         `json:"proxy"`
	ProxyCAFile            string        `json:"proxy_cafile"` // "" is what the system trusts
	ConnectTimeout         time.Duration `json:"connect_timeout"`
	SendTimeout            time.Duration `json:"send_timeout"`
	KeepAlivePeriod        time.Duration `json:"keep_alive_period"` // 0 is no keep alive
	KeepAliveTimeout       time.Duration `json:"keep_alive_timeout"`
	MaxUnansweredKeepAlive int           `json:"max_number_of_unanswered_keep_alive"`
	TryReconnect           bool          `json:"enable_client_try_reconnect"`
	ReuseServerAddr        bool          `json:"reuse_server_sockaddr"`

	// Transport security.
	UseSSL                 bool   `json:"use_ssl"`
	SSLAllowAll            bool   `json:"ssl_allow_all"` // TLS that proves nobody's identity
	UseToken               bool   `json:"use_token"`
	ServerSecureTLS        bool   `json:"server_secure_tls"`
	ServerCA               bool   `json:"server_ca"`
	ServerCACertsNotStored bool   `json:"server_ca_certs_not_stored"`
	MaxCerts               int    `json:"max_certs"`
	ClientCAFile           string `json:"client_cafile_verify_server"`
	AlternateDefaultCert   bool   `json:"alternate_client_default_cert"`
	TokenVerifyPeerCert    Verify `json:"token_verify_peer_cert"`
	TokenSendCert          bool   `json:"token_client_send_cert"`
	TokenVerifyHostname    bool   `json:"token_client_verify_server_hostname"` // null is false
	TokenAllowOtherCert    bool   `json:"token_server_allow_authorized_non_default_cert"`

	// Message types.
	SendTypes      []string       `json:"send_message_types"`
	RecvTypes      []string       `json:"recv_message_types"`
	SubscribeTypes []string       `json:"subscribe_message_types"`
	Priorities     map[string]int `json:"send_message_types_priorities"` // smaller goes first, 0 when absent
	Broker         bool           `json:"pubsub_central_broker"`

	// Who may connect to a server. A nil list was never given, which is the same
	// as an empty one but for how it is printed.
	BlacklistID     []string `json:"blacklisted_clients_id"` // regular expressions, anchored at the start only
	BlacklistIP     []string `json:"blacklisted_clients_ip"`
	BlacklistSubnet []string `json:"blacklisted_clients_subnet"`
	WhitelistID     []string `json:"whitelisted_clients_id"`
	WhitelistIP     []string `json:"whitelisted_clients_ip"`
	WhitelistSubnet []string `json:"whitelisted_clients_subnet"`
	IgnoreTraffic   Ignore   `json:"ignore_peer_traffic"`

	// Programs that are asked.
	HookAuthClient       Command       `json:"hook_server_auth_client"`
	HookAllowCertificate Command       `json:"hook_allow_certificate_creation"`
	HookWhitelist        Command       `json:"hook_whitelist_clients"`
	HookTargetDirectory  Command       `json:"hook_target_directory"`
	HookProxyAuth        Command       `json:"hook_proxy_authorization"`
	HookStoreToken       Command       `json:"hook_store_token"`
	HookLoadToken        Command       `json:"hook_load_token"`
	HookTimeout          time.Duration `json:"hook_timeout"`

	// Durability.
	PersistSend         Types `json:"disk_persistence_send"`
	PersistRecv         Types `json:"disk_persistence_recv"`
	MaxPersistenceSize  int64 `json:"max_size_persistence_path"`  // bytes per destination
	MaxPersistenceTotal int64 `json:"max_size_persistence_total"` // bytes in all, 0 is no bound: see PersistenceTotal

	// Files.
	FileTargets      map[string]FileTarget `json:"file_recv_config"`
	MaxFileSend      int64                 `json:"max_size_file_upload_send"` // bytes
	MaxFileRecv      int64                 `json:"max_size_file_upload_recv"` // bytes
	MaxFileChunkSize int64                 `json:"max_size_chunk_upload"`     // bytes

	// Local programs.
	EverybodyCanSend    bool `json:"everybody_can_send_messages"`
	ReceiveFromAnyOwner bool `json:"receive_from_any_connector_owner"`
	PreserveSend        bool `json:"uds_path_send_preserve_socket"`    // one connection for many messages
	PreserveReceive     bool `json:"uds_path_receive_preserve_socket"` // the same to receivers
	ReuseSendSocket     bool `json:"reuse_uds_path_send_to_connector"`
	ReuseCommander      bool `json:"reuse_uds_path_commander_server"`

	// Limits of our own.
	MaxMessageSize    int64 `json:"max_message_size"`     // bytes of one message, from peers and local programs
	MaxMemoryPerQueue int64 `json:"max_memory_per_queue"` // bytes of one message type waiting for one destination
	MaxMemoryTotal    int64 `json:"max_memory_total"`     // bytes of all queues together
	Sandbox           bool  `json:"sandbox"`              // the process gives up what it does not need
	MaxUnidentified   int   `json:"max_unidentified"`     // connections that have not said who they are

	// The log.
	LogLevel           string `json:"default_logger_log_level"`
	LogRotate          Rotate `json:"default_logger_rotate"`
	LogBackups         int    `json:"default_logger_bk_count"`
	Silent             bool   `json:"silent"`
	DebugMessageCounts bool   `json:"debug_msg_counts"`

	// File is the name of the file the Config was loaded from, "" if none.
	File string `json:"-"`

	given map[string]int // keys that were set, with their line in File, 0 if elsewhere
}

// Types is true for every message type, or for those of a list.
type Types struct {
	All   bool
	Names []string
}

// Has tells whether it is true for a message type.
func (t Types) Has(messageType string) bool {
	return t.All || slices.Contains(t.Names, messageType)
}

// Ignore says whose traffic is ignored: everybody's, that of one peer, or
// nobody's.
type Ignore struct {
	All  bool
	Peer string
}

// Rotate says whether a log file is rotated, and at which size. Size 0 is the
// default of 64 MiB.
type Rotate struct {
	On   bool
	Size int64 // bytes
}

// Verify says whether the other end's certificate is verified. File, which may
// be set when On is, is the trust file to use instead of the usual one.
type Verify struct {
	On   bool
	File string
}

// Proxy is the HTTP proxy through which a client connects.
type Proxy struct {
	Enabled  bool
	Addr     Addr
	Username string // "" is no authorization
	Password string
	TLS      bool // the connection to the proxy itself

	null bool // written {} and not filled in
}

// FileTarget says where files of one destination type are stored.
type FileTarget struct {
	Directory string // may contain placeholders such as {source_id}
	Owner     string // "user:group", "" leaves it
	Override  bool   // existing files are replaced
	Mode      string // three octal digits, "" is 640
	AnyOwner  bool   // the sender may choose the owner
}

// Defaults returns a Config with the default of every key.
// Differs: message types that are absent or null are ["any"]. In the original
// nothing can be sent then (aioconnectors api.py).
func Defaults() *Config {
	c := &Config{given: map[string]int{}}
	for _, k := range keys() {
		if k.field == nil {
			continue
		}
		if k.def == "" {
			*k.field(c).(*string) = defaultDir()
			continue
		}
		k.decode(c, []byte(k.def)) // succeeds: a test tries them all
	}
	return c
}

// Given tells whether the key was set, by a file, Set or SetDir, to whatever
// value.
func (c *Config) Given(key string) bool {
	_, ok := c.given[key]
	return ok
}

// Set sets one key to a JSON value, as the flag -set KEY=JSON does. A value that
// is not JSON is an error that says how to quote it; so is a key that does not
// exist, with the nearest one that does.
func (c *Config) Set(key string, value []byte) error {
	k, ok := lookup(key)
	if !ok {
		return unknownKey(key)
	}
	raw, err := oneValue(value)
	if err != nil {
		text := string(value)
		if list := k.listOf(text); list != "" {
			return fmt.Errorf("%s: %s is not JSON: a list needs brackets and double quotes: %s=%s", key, text, key, shellQuote(list))
		}
		if plainWord(text) {
			return fmt.Errorf("%s: %s is not JSON: a text needs double quotes: %s=%s", key, text, key, shellQuote(`"`+text+`"`))
		}
		return fmt.Errorf("%s: %s is not JSON: %w", key, shorten(text), err)
	}
	next := *c
	if problem := k.set(&next, raw); problem != "" {
		if text, ok := decodeString(raw); ok && k.listOf(text) != "" {
			problem += ": " + key + "=" + shellQuote(k.listOf(text))
		}
		return fmt.Errorf("%s: %s", key, problem)
	}
	if problem := k.problem(&next); problem != "" {
		return fmt.Errorf("%s: %s", key, problem)
	}
	k.set(c, raw)
	c.mark(k, 0)
	return nil
}

// listOf returns the JSON list that was probably meant by words with commas
// between them, "" if the key wants no list or the text is something else.
func (k key) listOf(text string) string {
	switch k.field0().(type) {
	case *[]string, *Types:
	default:
		return ""
	}
	var list []byte
	for i, word := range strings.Split(text, ",") {
		if !plainWord(word) || word == "true" || word == "false" {
			return ""
		}
		if i > 0 {
			list = append(list, ',')
		}
		list = appendString(list, word)
	}
	return "[" + string(list) + "]"
}

// SetDir sets connector_files_dirpath, as the flag -dir does, and with it the
// directories of certificates, tokens and logs as far as they were not given
// explicitly, so that one directory holds all that belongs to a connector.
func (c *Config) SetDir(dir string) error {
	full, err := fullPath(dir)
	if err != nil {
		return fmt.Errorf("directory %q: %w", dir, err)
	}
	c.FilesDir = full
	if !c.Given("certificates_directory_path") {
		c.CertificatesDir = full
	}
	if !c.Given("tokens_directory_path") {
		c.TokensDir = full
	}
	if !c.Given("default_logger_dirpath") {
		c.LogDir = full
	}
	c.given["connector_files_dirpath"] = 0
	return nil
}

// mark notes that a key was set.
func (c *Config) mark(k key, line int) {
	if c.given == nil {
		c.given = map[string]int{}
	}
	for _, name := range append([]string{k.name}, k.alias...) {
		c.given[name] = line
	}
}

// Dir returns the absolute directory of sockets, locks and persistence.
func (c *Config) Dir() string { return absolute(c.FilesDir) }

func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// ID returns the identity under which the connector speaks: the name of a
// client, "" if it has none yet, or the text of a server's address.
func (c *Config) ID() string {
	if c.IsServer {
		return c.ServerAddr.Text()
	}
	return c.ClientName
}

// PersistenceTotal returns how many bytes may be on disk for all destinations
// together, 0 if that is not bounded. It leaves one destination what
// max_size_persistence_path allows it, so that who knows only that key gets what
// it says.
func (c *Config) PersistenceTotal() int64 {
	if c.MaxPersistenceTotal == 0 {
		return 0
	}
	return max(c.MaxPersistenceTotal, c.MaxPersistenceSize)
}

// PeerID returns the name of a client's only peer: the text of the server's
// address as the client has it. It is "" on a server.
func (c *Config) PeerID() string {
	if c.IsServer {
		return ""
	}
	return c.ServerAddr.Text()
}
