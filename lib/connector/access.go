package connector

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"aioc/lib/access"
	"aioc/lib/config"
	"aioc/lib/control"
)

// openAccess makes the guard of the lists and hooks of cfg. Hooks of the program
// that made the connector go over those of the configuration.
func (c *Connector) openAccess(cfg *config.Config, hooks access.Hooks) error {
	rules, err := access.NewRules(cfg)
	if err != nil {
		return err
	}
	c.hooks = hooks.Over(access.Programs(cfg, c.fold, func(reason string) { c.counts.add(reason, 1) }))
	c.guard = access.NewGuard(rules, c.hooks, func(rule string) { c.counts.add("refused by "+rule, 1) })
	return nil
}

// admit decides whether a client may go on: see peer.Options. Hooks end with ctx.
func (c *Connector) admit(ctx context.Context) func(moment string, addr netip.AddrPort, name string) error {
	return func(moment string, addr netip.AddrPort, name string) error {
		return c.guard.Admit(ctx, moment, access.Client{Name: name, Addr: addr})
	}
}

// unlisted says with an error that the lists would not let the peer in again.
func (p *peerLink) unlisted() error {
	if !p.c.server {
		return nil
	}
	addr, err := netip.ParseAddrPort(p.addr)
	if err != nil {
		addr = netip.AddrPort{} // not of TCP: no list has it
	}
	return p.c.guard.Rules().Decide(p.box.name, addr.Addr())
}

// editConfig changes the configuration that is in effect.
func (c *Connector) editConfig(change func(cfg *config.Config)) {
	c.editing.Lock()
	defer c.editing.Unlock()
	cfg := *c.cfg.Load()
	change(&cfg)
	c.cfg.Store(&cfg)
}

// takeLists puts the lists of next into effect. Without a file, from which next
// would have all of them, those that commands have changed stay.
func (c *Connector) takeLists(next *config.Config) error {
	if !c.server || next.File == "" {
		return nil
	}
	rules, err := access.NewRules(next)
	if err != nil {
		return err
	}
	c.editConfig(func(cfg *config.Config) {
		for _, key := range access.Keys() {
			*access.List(cfg, key) = *access.List(next, key)
		}
		c.guard.Use(rules)
	})
	return nil
}

// changeList puts a change of a list into effect, disconnects those who are no
// longer welcome, and writes the change to the configuration file, in this order:
// what cannot be written holds until the end of the connector all the same. saved
// is false also when there is no file.
func (c *Connector) changeList(ch access.Change) (changed, saved bool, err error) {
	var list []string
	c.editConfig(func(cfg *config.Config) {
		var rules *access.Rules
		if changed, err = ch.Apply(cfg); err != nil || !changed {
			return
		}
		if rules, err = access.NewRules(cfg); err == nil {
			c.guard.Use(rules)
		}
		list = *access.List(cfg, ch.Key)
	})
	if err != nil {
		return false, false, fmt.Errorf("%w: %w", control.ErrArgument, err)
	}
	if changed {
		done := "added"
		if ch.Remove {
			done = "removed"
		}
		c.log.Info("list changed", "list", ch.Key, done, ch.Entry)
		c.recheck()
	}
	if ch.Key == "whitelisted_clients_id" && !ch.Remove && config.Open(ch.Entry) {
		c.log.Warn("the new entry also admits every longer name that begins so", "list", ch.Key, "entry", ch.Entry)
	}
	file := c.cfg.Load().File
	if file == "" {
		c.log.Warn("the list is changed until the connector ends: it has no configuration file", "list", ch.Key)
		return changed, false, nil
	}
	if err := saveList(file, ch, list, changed); err != nil {
		return changed, false, fmt.Errorf("the list %s is changed until the connector ends, but the change could not be saved: %w", ch.Key, err)
	}
	return changed, true, nil
}

// saveList makes the change in the file, in the list that it has now: somebody
// may have edited it, or a flag be in effect instead.
func saveList(file string, ch access.Change, list []string, changed bool) error {
	if on, err := config.Load(file); err == nil {
		changed, err = ch.Apply(on)
		if errors.Is(err, access.ErrAbsent) {
			err = nil
		}
		if err != nil {
			return err
		}
		list = *access.List(on, ch.Key)
	}
	if !changed {
		return nil
	}
	return config.Update(file, ch.Key, list)
}

// The words of the original's own tool for what it could not do.
const nothing = "{}"

// declined is a failure that the original answers with {}.
type declined struct{ error }

// OriginalReply is what control.Registry.Serve replies instead of the words.
func (declined) OriginalReply() string { return nothing }

func (d declined) Unwrap() error { return d.error }

// addAccessCommands adds the commands about lists.
func (c *Connector) addAccessCommands() {
	args := []control.Arg{{Name: "client_ip", Kind: control.String}, {Name: "client_id", Kind: control.String}}
	listed := append(args[:2:2], control.Arg{Name: "list_only", Kind: control.Bool})
	for _, v := range []struct {
		name          string
		white, remove bool
	}{
		{"add_blacklist_client", false, false}, {"remove_blacklist_client", false, true},
		{"add_whitelist_client", true, false}, {"remove_whitelist_client", true, true},
	} {
		c.commands.Add(control.Command{Name: v.name, Args: listed, Run: func(_ context.Context, a control.Args) (any, error) {
			id, ip := a.String("client_id"), a.String("client_ip")
			if c.server && id == "" && ip == "" {
				return true, nil // as the original
			}
			only := a.Bool("list_only")
			done, err := c.list(v.white, v.remove, only, id, ip)
			if err != nil {
				return nil, declined{err}
			}
			if only {
				return done, nil
			}
			return true, nil
		}})
	}
	c.commands.Add(
		control.Command{Name: "show_lists", Args: []control.Arg{}, Run: func(context.Context, control.Args) (any, error) {
			cfg := c.cfg.Load()
			lists := map[string]any{}
			for _, key := range access.Keys() {
				lists[key] = append([]string{}, *access.List(cfg, key)...)
			}
			return lists, nil
		}},
		control.Command{Name: "explain", Args: args, Run: func(_ context.Context, a control.Args) (any, error) {
			return c.explain(a.String("client_id"), a.String("client_ip"))
		}},
	)
}

// list changes a list for a client, and says what it did. As with the original,
// whom its command blacklists by name also loses what it proves itself with, and
// when it is taken off the list again, its name is free for the next who asks.
// With only, a list is a list.
func (c *Connector) list(white, remove, only bool, id, ip string) (done map[string]any, err error) {
	if !c.server {
		return nil, errNoServer
	}
	ch, err := access.NewChange(white, remove, id, ip)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", control.ErrArgument, err)
	}
	changed, saved, err := c.changeList(ch)
	if !only && !white && !remove && id != "" && !errors.Is(err, control.ErrArgument) {
		err = errors.Join(err, c.revoke(id))
	}
	return map[string]any{"list": ch.Key, "entry": ch.Entry, "changed": changed, "saved": saved}, err
}

// explain says which rule decides about a client of whom the name, the address
// or both are given.
func (c *Connector) explain(id, ip string) (any, error) {
	switch {
	case !c.server:
		return nil, errNoServer
	case id == "" && ip == "":
		return nil, fmt.Errorf("%w: explain needs client_id, client_ip, or both", control.ErrArgument)
	}
	var addr netip.Addr
	if ip != "" {
		var err error
		if addr, err = netip.ParseAddr(ip); err != nil {
			return nil, fmt.Errorf("%w: client_ip: %q is not an IP address", control.ErrArgument, ip)
		}
	}
	e := c.guard.Explain(id, addr)
	if id != "" {
		step := access.Step{Rule: "client_name", Result: access.Passes}
		if err := config.ValidName(id); err != nil {
			step.Result, step.Entry = access.Refuses, err.Error()
			e.Welcome, e.By = false, step.Rule
		}
		e.Steps = slices.Insert(e.Steps, 0, step)
	}
	return explanation(e), nil
}

// explanation is e in the types that all replies are made of.
func explanation(e access.Explanation) map[string]any {
	steps := []any{}
	for _, s := range e.Steps {
		step := map[string]any{"rule": s.Rule, "result": s.Result}
		if s.Entry != "" {
			step["entry"] = s.Entry
		}
		if s.Note != "" {
			step["note"] = s.Note
		}
		steps = append(steps, step)
	}
	reply := map[string]any{"welcome": e.Welcome, "steps": steps}
	if e.By != "" {
		reply["by"] = e.By
	}
	return reply
}
