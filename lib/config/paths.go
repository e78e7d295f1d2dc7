package config

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// dataDir is the directory of everything unless the configuration says
// otherwise. It is not the installation's to choose: programs of the original
// look there.
const dataDir = "/var/tmp/aioconnectors"

// The prefixes of the sockets' names. The identity follows, and before it the
// message type in those of receivers.
const (
	sendServer    = "uds_path_send_to_connector_server_"
	sendClient    = "uds_path_send_to_connector_client_"
	receiveServer = "uds_path_receive_from_connector_server_"
	receiveClient = "uds_path_receive_from_connector_client_"
	commander     = "uds_path_commander_"
	ownServer     = "aioc_server_"
	ownClient     = "aioc_client_"
)

// Paths are the names of a connector's sockets and files. All are absolute.
type Paths struct {
	Dir             string // connector_files_dirpath: all sockets are here
	SendSocket      string // senders connect here
	CommanderSocket string // commands are taken here
	OwnSocket       string // the daemon's own socket, for all of that
	LockFile        string // locked while a daemon of this name runs
	Subscriptions   string // a broker's, those that outlive connections
	ActiveList      string // active_connectors.json

	Spool      string // directory of what is kept on disk
	SpoolPeers string // in it, on a server: a directory for each client
	SpoolDead  string // in it: the same of dead letters
	SpoolTypes string // in it: a directory for each type that is received

	SpoolTopics string // in it, on a server: a directory for each durable type that is published

	SpoolPeerFiles string // in it, on a server: the same for messages with files
	SpoolCopies    string // in it: copies of files that cannot be opened by their name
	SpoolShared    string // in it, on a broker: which files several subscribers are to get

	TokensDir    string
	ServerTokens string // hashes of the clients' tokens
	ClientToken  string // the client's token; "" on a server

	Certificates

	server   bool
	id       string // identity in socket names
	diskName string // identity in names of persistence files
}

// Certificates are the names in a tree of certificates.
type Certificates struct {
	Root string // the directory "certificates"

	// On the server.
	ServerDir         string
	ServerCertDir     string
	ServerCert        string
	ServerKey         string
	ServerCACert      string
	ServerCAKey       string
	ServerClientCerts string // directory of the clients' certificates
	Symlinks          string // directory of links to those that are trusted, by subject hash
	CAGenerated       string // directory of what the CA issued
	SourceIDToCert    string // client names and certificate serials
	CSRTemplate       string // the user's request template
	CSRDetails        string // the request as last used

	// On the client.
	ClientDir           string
	ClientCertDir       string // directory of the client's own certificates
	ClientServerCertDir string
	ClientServerCert    string // the server's certificate, which the client trusts
}

// CertificateTree returns the names below a directory such as
// certificates_directory_path.
func CertificateTree(dir string) Certificates {
	root := filepath.Join(absolute(dir), "certificates")
	server, client := filepath.Join(root, "server"), filepath.Join(root, "client")
	serverCert := filepath.Join(server, "server-cert")
	clientCerts := filepath.Join(server, "client-certs")
	clientServerCert := filepath.Join(client, "server-cert")
	return Certificates{
		Root:              root,
		ServerDir:         server,
		ServerCertDir:     serverCert,
		ServerCert:        filepath.Join(serverCert, "server.pem"),
		ServerKey:         filepath.Join(serverCert, "server.key"),
		ServerCACert:      filepath.Join(serverCert, "server_ca.pem"),
		ServerCAKey:       filepath.Join(serverCert, "server_ca.key"),
		ServerClientCerts: clientCerts,
		Symlinks:          filepath.Join(clientCerts, "symlinks"),
		CAGenerated:       filepath.Join(clientCerts, "ca-generated"),
		SourceIDToCert:    filepath.Join(clientCerts, "source_id_2_cert.json"),
		CSRTemplate:       filepath.Join(server, "csr_details_template.conf"),
		CSRDetails:        filepath.Join(server, "csr_details.conf"),

		ClientDir:           client,
		ClientCertDir:       filepath.Join(client, "client-certs"),
		ClientServerCertDir: clientServerCert,
		ClientServerCert:    filepath.Join(clientServerCert, "server.pem"),
	}
}

// ClientCert returns the certificate of a client, or with the name "default" of
// all that have none yet, on the client. The name must be a ValidName or one of
// the default names.
func (c Certificates) ClientCert(name string) string {
	return filepath.Join(c.ClientCertDir, name+".pem")
}

// ClientKey returns the key that belongs to ClientCert.
func (c Certificates) ClientKey(name string) string {
	return filepath.Join(c.ClientCertDir, name+".key")
}

// ServerClientCert returns the certificate of a client on the server.
func (c Certificates) ServerClientCert(name string) string {
	return filepath.Join(c.ServerClientCerts, name+".pem")
}

// ServerClientKey returns the key that the original keeps beside
// ServerClientCert.
func (c Certificates) ServerClientKey(name string) string {
	return filepath.Join(c.ServerClientCerts, name+".key")
}

// Paths returns the names that follow from the configuration. A client must
// have a name: see DefaultName.
func (c *Config) Paths() Paths {
	p := formPaths(c.Dir(), c.IsServer, socketID(c.IsServer, c.ID()))
	p.diskName = diskID(c.IsServer, c.ID())
	// Unlike the names of sockets, those of spools are never the same.
	p.Spool = filepath.Join(p.Dir, "spool_client_"+escapeName(c.ID()))
	if c.IsServer {
		p.Spool = filepath.Join(p.Dir, "spool_server_"+escapeName(strings.ReplaceAll(c.ServerAddr.Line(), " ", ":")))
	}
	p.SpoolPeers, p.SpoolTypes = filepath.Join(p.Spool, "to"), filepath.Join(p.Spool, "from")
	p.SpoolTopics = filepath.Join(p.Spool, "topics")
	p.SpoolDead = filepath.Join(p.Spool, "dead")
	p.SpoolPeerFiles = filepath.Join(p.Spool, "to-files")
	p.SpoolCopies = filepath.Join(p.Spool, "copies")
	p.SpoolShared = filepath.Join(p.Spool, "shared")
	p.TokensDir = absolute(c.TokensDir)
	p.ServerTokens = filepath.Join(p.TokensDir, "server_tokens.json")
	if !c.IsServer {
		p.ClientToken = filepath.Join(p.TokensDir, alphanumeric(c.ClientName))
	}
	p.Certificates = CertificateTree(c.CertificatesDir)
	return p
}

// formPaths fills in what follows from the directory, the role and the identity
// in socket names.
func formPaths(dir string, server bool, id string) Paths {
	send, own := sendClient, ownClient
	if server {
		send, own = sendServer, ownServer
	}
	return Paths{
		Dir:             dir,
		SendSocket:      filepath.Join(dir, send+id),
		CommanderSocket: filepath.Join(dir, commander+id),
		OwnSocket:       filepath.Join(dir, own+id),
		LockFile:        filepath.Join(dir, "."+own+id+".lock"),
		Subscriptions:   filepath.Join(dir, own+id+"_subscriptions.json"),
		ActiveList:      filepath.Join(dir, "active_connectors.json"),
		server:          server,
		id:              id,
	}
}

// ReceiveSocket returns the socket on which a receiver of the message type
// listens. The type must be a ValidType or a reserved one.
func (p Paths) ReceiveSocket(messageType string) string {
	prefix := receiveClient
	if p.server {
		prefix = receiveServer
	}
	return filepath.Join(p.Dir, prefix+messageType+"_"+p.id)
}

// SpoolTo returns the directory with what waits for a peer, a directory for each
// message type: a client's name, or "" on a client for its server.
func (p Paths) SpoolTo(peer string) string {
	if peer == "" {
		return filepath.Join(p.Spool, "server")
	}
	return filepath.Join(p.SpoolPeers, escapeName(peer))
}

// SpoolFiles is SpoolTo for messages whose files are yet to be sent.
func (p Paths) SpoolFiles(peer string) string {
	if peer == "" {
		return filepath.Join(p.Spool, "server-files")
	}
	return filepath.Join(p.SpoolPeerFiles, escapeName(peer))
}

// SpoolTopic returns the directory with what was published of a message type.
func (p Paths) SpoolTopic(messageType string) string {
	return filepath.Join(p.SpoolTopics, escapeName(messageType))
}

// SpoolDeadType returns the directory with the dead letters of a message type.
func (p Paths) SpoolDeadType(messageType string) string {
	return filepath.Join(p.SpoolDead, escapeName(messageType))
}

// SpoolFrom returns the directory with what waits for receivers of a message
// type.
func (p Paths) SpoolFrom(messageType string) string {
	return filepath.Join(p.SpoolTypes, escapeName(messageType))
}

// SpoolType returns the directory of one message type below SpoolTo.
func (p Paths) SpoolType(dir, messageType string) string {
	return filepath.Join(dir, escapeName(messageType))
}

// SpoolName is the file, in a directory of a spool whose name is cut short,
// that holds the peer or the type; see LongName.
const SpoolName = "name"

// LongName reports whether a directory of a spool needs a file SpoolName.
func LongName(dir string) bool { return strings.HasPrefix(filepath.Base(dir), longName) }

// SpoolNames returns the peers or types whose directories, as the functions above
// form them, are in dir. What has another name is left out; a dir that is not
// there has none.
func SpoolNames(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		name, ok := unescapeName(e.Name())
		if LongName(e.Name()) {
			text, err := os.ReadFile(filepath.Join(dir, e.Name(), SpoolName))
			name, ok = string(text), err == nil
		}
		if ok && e.IsDir() && escapeName(name) == e.Name() {
			names = append(names, name)
		}
	}
	return names, err
}

// longName begins the names of directories that were cut short.
const longName = "%%"

// escapeName makes any name that of a file, different ones of different names:
// letters of ASCII, digits, - and _ stay, : becomes a dot unless it is
// the first, all else % and two hexadecimal digits. One that gets too long for
// a file system is replaced by a hash.
func escapeName(name string) string {
	const hexDigits = "0123456789abcdef"
	var b []byte
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b = append(b, c)
		case c == ':' && i > 0:
			b = append(b, '.')
		default:
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	if len(b) > 200 {
		sum := sha256.Sum256([]byte(name))
		return longName + hex.EncodeToString(sum[:])
	}
	return string(b)
}

// unescapeName is the inverse of escapeName for names that were not too long.
func unescapeName(file string) (name string, ok bool) {
	var b []byte
	for i := 0; i < len(file); i++ {
		c := file[i]
		switch c {
		case '.':
			c = ':'
		case '%':
			if i+2 >= len(file) {
				return "", false
			}
			n, err := strconv.ParseUint(file[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		b = append(b, c)
	}
	return string(b), len(b) > 0
}

// PersistenceSend returns the file in which the original keeps what waits for a
// peer: a client's name, or the text of the server's address.
func (p Paths) PersistenceSend(peer string) string {
	return filepath.Join(p.Dir, "connector_disk_persistence_send_from_"+p.diskName+"_to_peer_"+alphanumeric(peer))
}

// PersistenceRecv returns the file in which the original keeps what waits for a
// receiver of the message type.
func (p Paths) PersistenceRecv(messageType string) string {
	return filepath.Join(p.Dir, "connector_disk_persistence_recv_by_"+p.diskName+"_"+messageType)
}

// diskID returns the identity as it stands in names of files: letters and
// digits only, and for a server "_" between host and port. Different clients may
// share one, as a-b and ab do.
func diskID(server bool, id string) string {
	if !server {
		return alphanumeric(id)
	}
	words := strings.Fields(id)
	for i, w := range words {
		words[i] = alphanumeric(w)
	}
	return strings.Join(words, "_")
}

// socketID returns the identity as it stands in names of sockets: that of files,
// or its MD5 if it has more than 32 characters.
func socketID(server bool, id string) string {
	s := diskID(server, id)
	if utf8.RuneCountInString(s) > 32 {
		sum := md5.Sum([]byte(s))
		return hex.EncodeToString(sum[:])
	}
	return s
}

// alphanumeric keeps what Python's str.isalnum is true for.
func alphanumeric(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return r
		}
		return -1
	}, s)
}

// maxSocketPath is the longest name of a Unix socket, in bytes. The original
// stops at 104 everywhere, which Linux can hold and the BSDs, whose limit
// includes the final NUL, cannot.
func maxSocketPath() int {
	if runtime.GOOS == "linux" {
		return 104
	}
	return 103
}

// defaultDir is where everything is unless the configuration says otherwise,
// as in aioconnectors helpers.py.
func defaultDir() string {
	if _, err := os.Stat("/var/tmp"); err == nil {
		return dataDir
	}
	here := absolute("aioconnectors_tmp")
	home, err := fullPath("~/aioconnectors_tmp")
	if err != nil || utf8.RuneCountInString(here) < utf8.RuneCountInString(home) {
		return here
	}
	return home
}

// fullPath makes a path absolute, with a leading ~ and $VAR or ${VAR} replaced
// as the original does. A variable that is not set stays as it is.
func fullPath(path string) (string, error) {
	if path == "" {
		return "", errors.New("the path is empty")
	}
	if path[0] == '~' {
		if path != "~" && path[1] != '/' {
			return "", errors.New("~USER is not understood: write the whole path")
		}
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("~ needs the environment variable HOME: write the whole path")
		}
		path = home + path[1:]
	}
	return filepath.Abs(expandVars(path))
}

// expandVars replaces $VAR and ${VAR} where the variable is set.
func expandVars(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		name, rest, ok := "", "", false
		if strings.HasPrefix(s, "${") {
			name, rest, ok = strings.Cut(s[2:], "}")
		} else {
			n := 1
			for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n] >= 'A' && s[n] <= 'Z' || s[n] >= 'a' && s[n] <= 'z') {
				n++
			}
			name, rest, ok = s[1:n], s[n:], n > 1
		}
		value, set := "", false
		if ok {
			value, set = os.LookupEnv(name)
		}
		if !set {
			b.WriteByte('$')
			s = s[1:]
			continue
		}
		b.WriteString(value)
		s = rest
	}
	b.WriteString(s)
	return b.String()
}
