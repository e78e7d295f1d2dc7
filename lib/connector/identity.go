package connector

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"

	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/identity"
	"aioc/lib/peer"
	"aioc/lib/wire"
)

// credentials are what a connector proves itself with, and knows others by. Which
// of them there are depends on the side and on the mode.
type credentials struct {
	server *identity.Server
	tokens *identity.Tokens
	client *identity.Client
	token  *identity.TokenFile
}

// CheckIdentity reads what a connector of this configuration would prove itself
// with and know others by, without changing anything, and describes it line by
// line. The error is the one that a start would end with.
func CheckIdentity(ctx context.Context, cfg *config.Config) (found []string, err error) {
	note := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if !cfg.UseSSL {
		note("TLS: off")
		return found, nil
	}
	paths := cfg.Paths()
	mode := "certificates"
	switch {
	case usesTokens(cfg):
		mode = "tokens"
	case cfg.SSLAllowAll:
		mode = "anonymous"
	case cfg.IsServer && cfg.ServerCA:
		mode = "certificates, signed by " + paths.ServerCACert
	}
	if cfg.IsServer {
		o := ServerIdentity(cfg)
		o.ReadOnly = true
		server, err := identity.OpenServer(o)
		if err != nil {
			return found, err
		}
		note("TLS: %s, with %s", mode, paths.ServerCert)
		if o.Clients != identity.NoCertificates {
			note("clients with a certificate: %d", len(server.Names()))
		}
		if usesTokens(cfg) {
			tokens, err := identity.OpenTokens(paths.ServerTokens)
			if err != nil {
				return found, err
			}
			note("clients with a token: %d", len(tokens.Names()))
		}
		return found, nil
	}
	client, err := identity.OpenClient(ClientIdentity(cfg))
	if err != nil {
		return found, err
	}
	own := client.HasOwn()
	if _, err := peer.ClientTLS(cfg, client, own); err != nil {
		return found, err
	}
	note("TLS: %s", mode)
	switch {
	case usesTokens(cfg):
		token, err := (&identity.TokenFile{Path: paths.ClientToken}).Load(ctx)
		if err != nil {
			return found, err
		}
		if own = token != ""; own {
			note("token: %s", paths.ClientToken)
		}
	case own && !cfg.SSLAllowAll:
		note("certificate: its own")
	}
	if !own && (usesTokens(cfg) || !cfg.SSLAllowAll) {
		note("it will ask the server for its own")
	}
	return found, nil
}

// IdentityWarnings returns what does not keep a server of this configuration from
// running, but some of its clients from being let in, one line each.
func IdentityWarnings(cfg *config.Config) []string {
	if !cfg.IsServer || ServerIdentity(cfg).Clients == identity.NoCertificates || !cfg.UseSSL {
		return nil
	}
	return identity.Troubles(cfg.CertificatesDir)
}

// usesTokens tells whether clients have tokens: elsewhere use_token has no effect.
func usesTokens(cfg *config.Config) bool { return cfg.UseSSL && cfg.SSLAllowAll && cfg.UseToken }

// openCredentials reads all that cfg needs.
func (c *Connector) openCredentials(ctx context.Context, cfg *config.Config) (k credentials, err error) {
	switch {
	case !cfg.UseSSL:
		return k, nil
	case cfg.IsServer:
		o := ServerIdentity(cfg)
		o.Warn = func(err error) {
			c.fold.Warn("certificates", 1, "changed certificates cannot be used: those read before count", slog.String("err", err.Error()))
		}
		if k.server, err = identity.OpenServer(o); err == nil && usesTokens(cfg) {
			if k.tokens, err = identity.OpenTokens(c.paths.ServerTokens); err != nil {
				return k, err
			}
			var hidden bool
			if hidden, err = k.tokens.Hide(); hidden {
				c.log.Warn("others could read the table of tokens: its mode is 0600 now", "file", c.paths.ServerTokens)
			}
		}
	default:
		if k.client, err = identity.OpenClient(ClientIdentity(cfg)); err != nil {
			return k, err
		}
		// What is missing is better known now than at each attempt.
		if _, err = peer.ClientTLS(cfg, k.client, k.client.HasOwn()); err == nil && usesTokens(cfg) {
			k.token = &identity.TokenFile{Path: c.paths.ClientToken, StoreHook: c.hooks.StoreToken, LoadHook: c.hooks.LoadToken}
			_, err = k.token.Load(ctx)
		}
	}
	return k, err
}

// ServerIdentity returns what a server of this configuration proves itself with,
// and which certificates it asks for.
func ServerIdentity(cfg *config.Config) identity.ServerOptions {
	o := identity.ServerOptions{
		Dir: cfg.CertificatesDir, OldTLS: !cfg.ServerSecureTLS,
		CA: cfg.ServerCA, NotStored: cfg.ServerCACertsNotStored, MaxCerts: cfg.MaxCerts,
	}
	switch {
	case !cfg.SSLAllowAll:
		o.Clients = identity.OwnCertificates
	case cfg.UseToken && cfg.TokenVerifyPeerCert.On:
		o.Clients = identity.TrustedCertificates
	}
	return o
}

// ClientIdentity returns what a client of this configuration proves itself with,
// and which server it trusts.
func ClientIdentity(cfg *config.Config) identity.ClientOptions {
	o := identity.ClientOptions{Dir: cfg.CertificatesDir, Name: cfg.ClientName}
	switch file := cfg.TokenVerifyPeerCert.File; {
	case !cfg.SSLAllowAll && cfg.ClientCAFile != "":
		o.Trust, o.File, o.Host = identity.TrustFile, cfg.ClientCAFile, cfg.ServerAddr.Host
	case !cfg.SSLAllowAll:
		o.Trust = identity.TrustTree
	case !cfg.UseToken || !cfg.TokenVerifyPeerCert.On:
		o.Trust = identity.TrustAll
	case file != "":
		o.Trust, o.File = identity.TrustFile, file
	default:
		o.Trust = identity.TrustTree
	}
	if o.Trust != identity.TrustAll && cfg.SSLAllowAll && cfg.TokenVerifyHostname {
		o.Host = cfg.ServerAddr.Host
	}
	return o
}

// reload reads everything again. What cannot be read stays as it was.
func (k credentials) reload(ctx context.Context) error {
	var all []error
	if k.server != nil {
		all = append(all, k.server.Reload())
	}
	if k.tokens != nil {
		all = append(all, k.tokens.Reload())
	}
	if k.token != nil {
		_, err := k.token.Load(ctx)
		all = append(all, err)
	}
	return errors.Join(all...)
}

// errDisconnected ends a link because a command said so.
var errDisconnected = errors.New("disconnected by a command")

// links returns the links that there are.
func (c *Connector) links() []*peerLink {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*peerLink
	for _, b := range c.boxes {
		if p := b.current(); p != nil {
			all = append(all, p)
		}
	}
	return all
}

// disconnect ends the link to a peer and tells whether there was one.
func (c *Connector) disconnect(name string, why error) bool {
	b := c.box(name, false)
	if b == nil || b.name != name {
		return false
	}
	p := b.current()
	if p == nil {
		return false
	}
	p.l.Close(why)
	return true
}

// recheck ends the links of peers whose certificate or token is no longer good, or
// whom the lists refuse now.
func (c *Connector) recheck() {
	for _, p := range c.links() {
		p.recheck()
	}
}

// recheck ends the link if the peer would not be let in any more.
func (p *peerLink) recheck() {
	err := p.unlisted()
	if err == nil && p.welcome != nil {
		err = p.welcome()
	}
	if err != nil {
		p.c.counts.add("peer disconnected: not welcome any more", 1)
		p.c.log.Warn("peer not welcome any more", "peer", p.box.name, "addr", p.addr, "err", err)
		p.l.Close(fmt.Errorf("not welcome any more: %w", err))
	}
}

// watchEvery is how often a server looks whether somebody has changed the
// certificates or tokens. A new connection always meets the newest.
const watchEvery = 2 * time.Second

// watch disconnects those whose certificate or token somebody has taken away on
// the disk, as aioc-certs delete does.
func (c *Connector) watch(ctx context.Context, paths []string) {
	last := stamps(paths)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now := stamps(paths); !slices.EqualFunc(now, last, sameStamp) {
			last = now
			c.recheck()
		}
	}
}

// stamps returns what tells whether files have changed.
func stamps(paths []string) []fs.FileInfo {
	all := make([]fs.FileInfo, len(paths))
	for i, path := range paths {
		all[i], _ = os.Stat(path) // nil is a stamp, too
	}
	return all
}

func sameStamp(a, b fs.FileInfo) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

// watched returns the files and directories in which clients can lose what they
// prove themselves with.
func (c *Connector) watched(cfg *config.Config) []string {
	switch {
	case !c.server || !cfg.UseSSL:
		return nil
	case usesTokens(cfg) && cfg.TokenAllowOtherCert, !cfg.SSLAllowAll:
		return []string{c.paths.SourceIDToCert, c.paths.Symlinks, c.paths.ServerClientCerts, c.paths.ServerCertDir, c.paths.ServerTokens}
	case usesTokens(cfg):
		return []string{c.paths.ServerTokens}
	}
	return nil
}

// revoke takes the certificate or token from a client, and disconnects it. It is
// for blacklisting: that there is neither is no error.
func (c *Connector) revoke(name string) error {
	k := c.keys.Load()
	var err error
	what := ""
	switch {
	case k == nil:
	case k.tokens != nil:
		var found bool
		if found, err = k.tokens.Delete(name); found {
			what = "token"
		}
	case k.server != nil && config.ValidName(name) == nil && k.server.Has(name):
		what = "certificate"
		err = k.server.Delete(name, false)
	}
	if err == nil && what != "" {
		c.log.Warn(what+" deleted, as add_blacklist_client does with who has exactly this name", "peer", name)
	}
	c.disconnect(name, errDisconnected)
	return err
}

// status is the reply to the commands that delete certificates and tokens, in the
// words of the original.
func status(err error) control.Raw {
	text := ""
	if err != nil {
		text = err.Error()
	}
	return control.Raw(fmt.Sprintf(`{"status": %v, "msg": %s}`, err == nil, wire.AppendString(nil, text)))
}

// addIdentityCommands adds the commands about certificates and tokens.
func (c *Connector) addIdentityCommands() {
	client := control.Arg{Name: "client_id", Kind: control.String, Required: true}
	again := []control.Arg{{Name: "restart_client", Kind: control.Bool}}
	c.commands.Add(
		control.Command{Name: "disconnect_client", Args: []control.Arg{client},
			Run: func(_ context.Context, a control.Args) (any, error) {
				name := a.String("client_id")
				switch {
				case !c.server:
					return nil, nil
				case !c.disconnect(name, errDisconnected):
					return "Non existing client " + name, nil
				}
				c.log.Info("peer disconnected by a command", "peer", name)
				return true, nil
			}},
		control.Command{Name: "delete_client_certificate_on_server",
			Args: []control.Arg{client, {Name: "remove_only_symlink", Kind: control.Bool}},
			Run: func(ctx context.Context, a control.Args) (any, error) {
				name := a.String("client_id")
				err := c.deleteCertificate(name, a.Bool("remove_only_symlink"))
				c.disconnectDeleted(ctx, name, err)
				if ctx.Value(ownSocket{}) != nil {
					var bad original
					if errors.As(err, &bad) {
						err = fmt.Errorf("no client with the name %q has a certificate here: aioc-certs list shows those that have", name)
					}
					return status(err), nil
				}
				if errors.Is(err, errNoTLS) {
					return true, nil
				}
				return status(err), nil
			}},
		control.Command{Name: "delete_client_certificate_on_client", Args: again,
			Run: func(ctx context.Context, a control.Args) (any, error) {
				return c.deleteOwn(ctx, a, "certificate", func(k *credentials) error {
					if k.client == nil {
						return errNoTLS
					}
					return k.client.Delete()
				})
			}},
		control.Command{Name: "delete_client_token_on_server", Args: []control.Arg{client},
			Run: func(ctx context.Context, a control.Args) (any, error) {
				name := a.String("client_id")
				err := c.deleteToken(name)
				c.disconnectDeleted(ctx, name, err)
				// For the original that there is none is no error.
				if ctx.Value(ownSocket{}) == nil && (errors.Is(err, errNoTokens) || errors.Is(err, errNoToken)) {
					err = nil
				}
				return status(err), nil
			}},
		control.Command{Name: "delete_client_token_on_client", Args: again,
			Run: func(ctx context.Context, a control.Args) (any, error) {
				return c.deleteOwn(ctx, a, "token", func(k *credentials) error {
					if k.token == nil {
						return errNoTokens
					}
					_, err := k.token.Delete()
					return err
				})
			}},
		control.Command{Name: "load_server_tokens", Args: []control.Arg{}, Run: c.loadTokens},
		control.Command{Name: "load_client_token", Args: []control.Arg{}, Run: c.loadTokens},
	)
}

var (
	errNoTLS    = errors.New("no certificates are used here: use_ssl is false")
	errNoTokens = errors.New("no tokens are used here: they need use_token, use_ssl and ssl_allow_all")
	errNoToken  = errors.New("no client with this name has a token here")
	errNoServer = errors.New("this is a client: ask the server")
	errNoClient = errors.New("this is a server: ask the client")
	errStopped  = errors.New("the connector is stopped: start it")
)

// original is an error in the words of the original.
type original string

func (o original) Error() string { return string(o) }

// deleteCertificate deletes a client's certificate on the server. What is wrong
// with the name is said in the words of the original, as tools may look for them.
func (c *Connector) deleteCertificate(name string, onlyLink bool) error {
	k := c.keys.Load()
	switch err := config.ValidName(name); {
	case !c.server:
		return errNoServer
	case k == nil:
		return errStopped
	case k.server == nil:
		return errNoTLS
	case err != nil && config.ValidTag(name) == nil:
		return original("Invalid source_id : " + name + " - cannot match ^default[0-9]*$")
	case err != nil:
		return original("Invalid source_id : " + name + " - please use only ^[0-9a-zA-Z-_:]+$")
	case !k.server.Has(name):
		return original("remove_client_cert non existing client in source_id_2_cert : " + name)
	default:
		if err := k.server.Delete(name, onlyLink); err != nil {
			return err
		}
	}
	c.log.Info("certificate deleted", "peer", name)
	return nil
}

// deleteToken deletes a client's token on the server.
func (c *Connector) deleteToken(name string) error {
	k := c.keys.Load()
	switch {
	case !c.server:
		return errNoServer
	case k == nil:
		return errStopped
	case k.tokens == nil:
		return errNoTokens
	}
	found, err := k.tokens.Delete(name)
	switch {
	case err != nil:
		return err
	case !found:
		return errNoToken
	}
	c.log.Info("token deleted", "peer", name)
	return nil
}

// disconnectDeleted disconnects a client whose certificate or token a command
// was to delete, with what came of that.
// Differs: the original disconnects it also when there was nothing to delete. So
// do we for its tools; our own are told of a failure, after which nothing is
// expected to have changed.
func (c *Connector) disconnectDeleted(ctx context.Context, name string, err error) {
	if err == nil || ctx.Value(ownSocket{}) == nil {
		c.disconnect(name, errDisconnected)
	}
}

// deleteOwn deletes what a client proves itself with, and connects it again, so
// that it gets another one.
func (c *Connector) deleteOwn(ctx context.Context, a control.Args, what string, remove func(*credentials) error) (any, error) {
	k := c.keys.Load()
	switch {
	case c.server:
		return status(errNoClient), nil
	case k == nil:
		return status(errStopped), nil
	}
	if err := remove(k); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return status(err), nil
	}
	c.log.Info(what+" deleted", "peer", c.id)
	if restart, given := a["restart_client"].(bool); given && !restart {
		return status(nil), nil
	}
	return status(c.reconnect(ctx)), nil
}

// reconnect makes a client connect anew: now, and also if it would not by itself.
func (c *Connector) reconnect(ctx context.Context) error {
	c.mu.Lock()
	var d *peer.Dialer
	if c.session != nil {
		d = c.session.dialer
	}
	c.mu.Unlock()
	if d == nil || !c.cfg.Load().TryReconnect {
		c.stop(softGrace)
		return c.start(ctx)
	}
	for _, p := range c.links() {
		p.l.Close(errDisconnected)
	}
	d.Kick()
	return nil
}

// loadTokens reads the token, or the table of tokens, again.
func (c *Connector) loadTokens(ctx context.Context, _ control.Args) (any, error) {
	k := c.keys.Load()
	switch {
	case k == nil:
		return nil, errStopped
	case k.tokens == nil && k.token == nil:
		return nil, errNoTokens
	}
	if err := (credentials{tokens: k.tokens, token: k.token}).reload(ctx); err != nil {
		return nil, err
	}
	c.recheck()
	return nil, nil
}
