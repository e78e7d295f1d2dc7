package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
	"aioc/lib/durable"
	"aioc/lib/fold"
)

// Hooks are what is asked, or told, when a connector cannot decide alone. Those
// that are nil are not asked. They are called by many goroutines at once.
// An error is a no, and says why; it never holds a secret.
type Hooks struct {
	// ServerAuthClient decides whether a client may connect.
	ServerAuthClient func(ctx context.Context, c Client) error
	// AllowCertificate decides whether a client is given a certificate.
	AllowCertificate func(ctx context.Context, c Client) error
	// WhitelistClients is told of a client that a whitelist refuses.
	WhitelistClients func(ctx context.Context, c Client)
	// TargetDirectory returns the directory in target_directory for a file
	// that arrives, "" for that directory itself.
	TargetDirectory func(ctx context.Context, f File) (dir string, err error)
	// ProxyAuthorization returns user name and password for the proxy. It gets
	// those of the configuration.
	ProxyAuthorization func(ctx context.Context, user, password string) (string, string, error)
	// StoreToken turns a client's token into what is written to disk, and
	// LoadToken turns it back.
	StoreToken, LoadToken func(ctx context.Context, text string) (string, error)
}

// File is a file that arrives, as TargetDirectory is told of it. All of it is
// the word of the other end, but for Source where that is proven.
type File struct {
	Type    string // destination type
	Name    string
	Message string // message type
	Source  string // who sends it
	Header  []byte // of the message, as JSON
}

// Over returns h with what is nil in it taken from low.
func (h Hooks) Over(low Hooks) Hooks {
	if h.ServerAuthClient == nil {
		h.ServerAuthClient = low.ServerAuthClient
	}
	if h.AllowCertificate == nil {
		h.AllowCertificate = low.AllowCertificate
	}
	if h.WhitelistClients == nil {
		h.WhitelistClients = low.WhitelistClients
	}
	if h.TargetDirectory == nil {
		h.TargetDirectory = low.TargetDirectory
	}
	if h.ProxyAuthorization == nil {
		h.ProxyAuthorization = low.ProxyAuthorization
	}
	if h.StoreToken == nil {
		h.StoreToken = low.StoreToken
	}
	if h.LoadToken == nil {
		h.LoadToken = low.LoadToken
	}
	return h
}

// ErrProgram is wrapped when the program of a hook is not one that can be run.
var ErrProgram = errors.New("not a program that can be run")

// CheckPrograms checks, before a start, that the programs of the hooks of c can
// be run, and that nobody else can change them: an ErrProgram or a
// durable.ErrUnsafe. Each error names the key.
func CheckPrograms(c *config.Config) error {
	var found []error
	for _, h := range c.Hooks() {
		if err := checkProgram(h.Command[0]); err != nil {
			found = append(found, fmt.Errorf("%s: %w", h.Key, err))
		}
	}
	return errors.Join(found...)
}

func checkProgram(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return fmt.Errorf("%q is %w: %w", path, ErrProgram, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%q is %w: it is not a file", path, ErrProgram)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("%q is %w: %w: make it executable", path, ErrProgram, err)
	}
	return durable.CheckOwner(path)
}

// Programs returns the hooks of c that are programs. What goes wrong with them
// is logged to log and counted with count, which may be nil.
func Programs(c *config.Config, log *fold.Log, count func(reason string)) Hooks {
	if count == nil {
		count = func(string) {}
	}
	connector := c.ClientName
	if c.IsServer {
		connector = c.ServerAddr.String()
	}
	var env []string
	for _, v := range os.Environ() {
		// What tells the connector something is not for the program.
		if !strings.HasPrefix(v, "AIOC_") && !strings.HasPrefix(v, "LISTEN_") && !strings.HasPrefix(v, "NOTIFY_SOCKET=") && !strings.HasPrefix(v, "WATCHDOG_") {
			env = append(env, v)
		}
	}
	env = append(env, "AIOC_ID="+c.ID(), "AIOC_DIR="+c.Dir(), "AIOC_CONNECTOR="+connector)
	var h Hooks
	for _, hook := range c.Hooks() {
		p := &program{
			name: hook.Key, argv: hook.Command, limit: c.HookTimeout, fold: log, count: count,
			env:   append(env[:len(env):len(env)], "AIOC_HOOK="+hook.Key),
			slots: make(chan struct{}, maxRunning),
			queue: make(chan struct{}, maxRunning+maxWaiting),
		}
		decide := func(ctx context.Context, c Client) error {
			_, err := p.run(ctx, clientEnv(c), nil)
			return err
		}
		change := func(ctx context.Context, text string) (string, error) { return p.run(ctx, nil, []byte(text)) }
		switch hook.Key {
		case "hook_server_auth_client":
			h.ServerAuthClient = decide
		case "hook_allow_certificate_creation":
			h.AllowCertificate = decide
		case "hook_whitelist_clients":
			p.queue = p.slots // who is not told at once is told at the next attempt
			h.WhitelistClients = func(ctx context.Context, c Client) { _ = decide(ctx, c) }
		case "hook_target_directory":
			h.TargetDirectory = func(ctx context.Context, f File) (string, error) { return p.directory(ctx, f) }
		case "hook_proxy_authorization":
			proxy := "AIOC_PROXY=" + c.Proxy.Addr.String()
			h.ProxyAuthorization = func(ctx context.Context, user, password string) (string, string, error) {
				return p.authorization(ctx, proxy, user, password)
			}
		case "hook_store_token":
			h.StoreToken = change
		case "hook_load_token":
			h.LoadToken = func(ctx context.Context, text string) (string, error) {
				token, err := change(ctx, text)
				return strings.TrimRight(token, "\r\n"), err
			}
		}
	}
	return h
}

// clientEnv is the facts about a client. Its name is a valid one.
func clientEnv(c Client) []string {
	return []string{"AIOC_CLIENT=" + c.Name, "AIOC_ADDR=" + c.Addr.Addr().String(), "AIOC_PORT=" + strconv.Itoa(int(c.Addr.Port()))}
}

// directory is TargetDirectory.
func (p *program) directory(ctx context.Context, f File) (string, error) {
	env := []string{"AIOC_FILE_TYPE=" + f.Type, "AIOC_FILE_NAME=" + f.Name, "AIOC_MESSAGE_TYPE=" + f.Message, "AIOC_SOURCE_ID=" + f.Source}
	for _, v := range env {
		if strings.ContainsRune(v, 0) {
			return "", p.failed(errors.New("what it is to be told contains the character NUL"))
		}
	}
	dir, err := p.run(ctx, env, f.Header)
	if dir = strings.TrimRight(dir, "\r\n"); err == nil && strings.ContainsAny(dir, "\x00\r\n") {
		return "", p.failed(errors.New("printed more than one line"))
	}
	return dir, err
}

// authorization is ProxyAuthorization.
func (p *program) authorization(ctx context.Context, proxy, user, password string) (string, string, error) {
	text, err := p.run(ctx, []string{proxy}, []byte(user+"\n"+password+"\n"))
	if err != nil {
		return "", "", err
	}
	user, rest, ok := strings.Cut(text, "\n")
	password, more, _ := strings.Cut(rest, "\n")
	if user, password = strings.TrimSuffix(user, "\r"), strings.TrimSuffix(password, "\r"); !ok || user == "" || more != "" {
		return "", "", p.failed(errors.New("did not print two lines, user name and password"))
	}
	return user, password, nil
}
