package access

import (
	"context"
	"net/netip"
	"sync/atomic"

	"aioc/lib/config"
)

// The moments at which Admit is asked. Package peer has the same.
const (
	MomentAddr        = "addr"        // only the address is known
	MomentName        = "name"        // the name is known too
	MomentCertificate = "certificate" // a certificate is about to be issued; MomentName was before
)

// A Client is who wants to go on.
type Client struct {
	Name string // "" while it is not known
	Addr netip.AddrPort
}

// Guard decides with lists, which can be replaced at any time, and hooks. All
// methods may be called by any goroutine.
type Guard struct {
	rules atomic.Pointer[Rules]
	hooks Hooks
	count func(reason string)
}

// NewGuard returns a Guard. count is called for each refusal, with the key of
// the list or hook; it may be nil.
func NewGuard(r *Rules, h Hooks, count func(reason string)) *Guard {
	if count == nil {
		count = func(string) {}
	}
	g := &Guard{hooks: h, count: count}
	g.rules.Store(r)
	return g
}

// Use replaces the lists.
func (g *Guard) Use(r *Rules) { g.rules.Store(r) }

// Rules returns the lists in use.
func (g *Guard) Rules() *Rules { return g.rules.Load() }

// Admit returns nil if a client may go on at one of the moments, else a
// *Refusal. It may take as long as the hooks do; the end of ctx is a no.
func (g *Guard) Admit(ctx context.Context, moment string, c Client) error {
	c.Addr = netip.AddrPortFrom(c.Addr.Addr().Unmap(), c.Addr.Port())
	if err := g.Rules().Decide(c.Name, c.Addr.Addr()); err != nil {
		r := err.(*Refusal)
		g.count(r.Rule)
		if g.hooks.WhitelistClients != nil && r.Entry == "" {
			g.hooks.WhitelistClients(ctx, c)
		}
		return r
	}
	ask := func(rule string, hook func(context.Context, Client) error) error {
		if hook == nil {
			return nil
		}
		if err := hook(ctx, c); err != nil {
			g.count(rule)
			return &Refusal{Rule: rule, err: err}
		}
		return nil
	}
	switch moment {
	case MomentName:
		return ask("hook_server_auth_client", g.hooks.ServerAuthClient)
	case MomentCertificate:
		return ask("hook_allow_certificate_creation", g.hooks.AllowCertificate)
	}
	return nil
}

// Explanation is how it is decided whether a client may go on.
type Explanation struct {
	Welcome bool   `json:"welcome"`      // as far as it can be told without asking hooks
	By      string `json:"by,omitempty"` // the rule that refuses
	Steps   []Step `json:"steps"`        // in their order
}

// Explain returns what decides about a client, of whom the name or the address
// may be unknown. It asks no hook.
func (g *Guard) Explain(name string, addr netip.Addr) Explanation {
	e := Explanation{Welcome: true, Steps: g.Rules().Steps(name, addr)}
	for i, s := range e.Steps {
		if s.Rule == "whitelisted_clients_id" && s.Result == Passes && config.Open(s.Entry) {
			e.Steps[i].Note = "the entry has no end, and admits every longer name that begins so: see $ and .* in aioc.json(5)"
		}
	}
	for _, h := range []struct {
		rule string
		hook func(context.Context, Client) error
	}{
		{"hook_server_auth_client", g.hooks.ServerAuthClient},
		{"hook_allow_certificate_creation", g.hooks.AllowCertificate},
	} {
		if h.hook != nil {
			e.Steps = append(e.Steps, Step{Rule: h.rule, Result: Unasked})
		}
	}
	for _, s := range e.Steps {
		if s.Result == Refuses {
			e.Welcome, e.By = false, s.Rule
			break
		}
	}
	return e
}
