package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/identity"
)

// askTimeout is how long a running server may take to delete a certificate.
const askTimeout = 15 * time.Second

func (p *program) pack(dir string, operands []string) int {
	write := identity.PackClient
	switch operands[0] {
	case "client":
	case "server":
		write = identity.PackServer
	default:
		return p.set.Mistake("pack %q: say server or client", operands[0])
	}
	if terminal(p.stdout) {
		return p.set.Mistake("pack: an archive with private keys is not for a terminal: pipe it to tar, or to a file")
	}
	return p.print(cli.OK, func(w io.Writer) error { return write(w, dir) })
}

// terminal says whether w is something that people look at.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

func (p *program) replaceServer(dir string, operands []string) int {
	cert, key := operands[0], *p.key
	if key == "" {
		base, ok := strings.CutSuffix(cert, ".pem")
		if !ok {
			return p.set.Mistake("replace-server: the key is not known: PEM must end in .pem and have the key beside it in .key, or say -key FILE")
		}
		key = base + ".key"
	}
	if err := identity.ReplaceServer(dir, cert, key); err != nil {
		return p.fail(err)
	}
	status := p.sayServer(dir)
	p.sayClients(", or the CA that has signed it")
	if issuer, err := identity.Issuer(cert); err == nil && issuer != "" {
		fmt.Fprintf(p.stderr, "the last certificate in %s is signed by %s: clients that go by a CA need that one, and what is between belongs into the file\n", cli.Escape(cert), cli.Escape(issuer))
	}
	return status
}

func (p *program) revertServer(dir string, _ []string) int {
	if err := identity.RevertServer(dir); err != nil {
		return p.fail(err)
	}
	return p.sayServer(dir)
}

// sayClients says what is left to do when the server has a new certificate.
func (p *program) sayClients(or string) {
	fmt.Fprintf(p.stderr, "clients on other hosts that do not have it yet need it%s: %s pack client | ssh HOST tar -x -C DIR\n", or, name)
}

// sayServer prints the fingerprint of the certificate that the server now shows.
func (p *program) sayServer(dir string) int {
	all, err := identity.List(dir)
	for _, c := range all {
		if c.Name == "server" && c.Side == "server" {
			fmt.Fprintf(p.stderr, "server certificate %s\n", c.Fingerprint)
			return cli.OK // the first is the server's, CAs follow
		}
	}
	if err != nil {
		return p.fail(err)
	}
	return cli.OK
}

func (p *program) delete(dir string, operands []string) int {
	if err := p.deleteOnServer(dir, operands[0]); err != nil {
		return p.fail(err)
	}
	return cli.OK
}

// deleteOnServer lets the server that runs here delete the certificate, for it
// also disconnects the client, and does it itself where none runs. An original
// would write back what it has in memory.
func (p *program) deleteOnServer(dir, client string) error {
	if err := config.ValidName(client); err != nil {
		return fmt.Errorf("%w: %w", identity.ErrName, err)
	}
	asked, err := p.ask(dir, client)
	if err != nil {
		return err
	}
	// It may have been the server of another tree.
	s, err := identity.OpenServer(identity.ServerOptions{Dir: dir, Clients: identity.OwnCertificates, CA: identity.HasCA(dir), Offline: true})
	if err == nil {
		err = s.Delete(client, false)
	}
	if asked && (errors.Is(err, identity.ErrUnknown) || errors.Is(err, identity.ErrMissing)) {
		return nil
	}
	return err
}

// ask asks the server that runs in dir, if there is one, and says whether it has
// deleted the certificate.
func (p *program) ask(dir, client string) (done bool, err error) {
	target := api.Target{Dir: dir, Connector: *p.connector}
	if target.Connector == "" {
		all, err := config.Running(dir)
		if err != nil {
			return false, err
		}
		var servers []config.Endpoint
		for _, e := range all {
			if e.Server && e.Alive() {
				servers = append(servers, e)
			}
		}
		switch len(servers) {
		case 0:
			return false, nil
		case 1:
			target.Connector = servers[0].Name
		default:
			return false, fmt.Errorf("%w in %s: say which with -connector: %s", api.ErrSeveral, dir, strings.Join(config.Names(servers), ", "))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	c, err := api.Open(ctx, target)
	if errors.Is(err, api.ErrNoConnector) && *p.connector == "" {
		return false, nil // it has just ended
	}
	if err != nil {
		return false, err
	}
	defer c.Close()
	reply, err := c.Call(ctx, "delete_client_certificate_on_server", map[string]any{"client_id": client, "remove_only_symlink": false})
	if err != nil {
		return false, fmt.Errorf("server %s: %w", target.Connector, err)
	}
	return deleted(reply), nil
}

// deleted reads the reply of a server: an object, as such or as text. Anything
// else comes from one that has no certificates.
func deleted(reply json.RawMessage) bool {
	var text string
	if json.Unmarshal(reply, &text) == nil {
		reply = json.RawMessage(text)
	}
	var result struct {
		Status bool `json:"status"`
	}
	return json.Unmarshal(reply, &result) == nil && result.Status
}

func (p *program) renew(dir string, operands []string) int {
	if *p.next {
		return p.prepare(dir, operands[0])
	}
	switch operands[0] {
	case "server":
		if err := identity.RenewServer(dir); err != nil {
			return p.fail(err)
		}
		status := p.sayServer(dir)
		p.sayClients("")
		return status
	case "default":
		if err := identity.RenewDefault(dir); err != nil {
			return p.fail(err)
		}
		return cli.OK
	}
	return p.renewClient(dir, operands[0])
}

// prepare makes what the server gets at the next renewal.
func (p *program) prepare(dir, who string) int {
	if who != "server" {
		return p.set.Mistake("-next goes with server only: other certificates go on being good until they are deleted")
	}
	made, err := identity.PrepareServer(dir)
	if err != nil {
		return p.fail(err)
	}
	if !made {
		fmt.Fprintln(p.stderr, "the next certificate is there already")
	}
	p.sayClients("")
	fmt.Fprintf(p.stderr, "when all have it, the server gets it: %s renew server\n", name)
	return cli.OK
}

// renewClient makes a client ask for a new certificate: on the server its name
// becomes free, on the client its own certificate is removed.
func (p *program) renewClient(dir, client string) int {
	own, err := identity.OpenClient(identity.ClientOptions{Dir: dir, Name: client})
	if err != nil {
		return p.fail(err)
	}
	err = p.deleteOnServer(dir, client)
	onServer := err == nil
	if err != nil && !errors.Is(err, identity.ErrUnknown) && !errors.Is(err, identity.ErrMissing) {
		return p.fail(err)
	}
	onClient := own.HasOwn()
	if onClient {
		if err := own.Delete(); err != nil {
			return p.fail(err)
		}
	}
	switch {
	case onServer && !onClient:
		fmt.Fprintf(p.stderr, "the server has forgotten %s: run this on the host of the client, too\n", client)
	case onClient && !onServer:
		fmt.Fprintf(p.stderr, "%s has no certificate any more: if that is not done yet, run this on the host of the server, too\n", client)
	case !onClient:
		return p.fail(fmt.Errorf("certificate of %q: %w", client, identity.ErrUnknown))
	}
	return cli.OK
}

// statusOf is the status for errors of a running server; 0 for others.
func statusOf(err error) int {
	switch {
	case errors.Is(err, api.ErrSeveral):
		return cli.Usage
	case errors.Is(err, api.ErrNoConnector):
		return cli.Unavailable
	case errors.Is(err, api.ErrRefused), errors.Is(err, control.ErrRefused):
		return cli.Refused
	case errors.Is(err, api.ErrLost), errors.Is(err, control.ErrBusy):
		return cli.Temporary
	case errors.Is(err, context.DeadlineExceeded):
		return cli.Timeout
	}
	return cli.OK
}
