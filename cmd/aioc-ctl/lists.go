package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"aioc/lib/cli"
)

// listed is blacklist and whitelist.
func listed(ctx context.Context, c *call) error {
	action, who := c.args[0], c.arg(1)
	switch {
	case action == "list" && who == "":
		return showLists(ctx, c)
	case action != "add" && action != "remove":
		return usagef("%s: %q: want add, remove or list", c.word, action)
	case who == "":
		return usagef("%s %s: want PATTERN, IP or SUBNET", c.word, action)
	}
	kwargs := map[string]any{"client_ip": nil, "client_id": nil}
	_, badIP := netip.ParseAddr(who)
	_, badNet := netip.ParsePrefix(who)
	kind, key := "id", "client_id"
	switch {
	case badNet == nil:
		kind, key = "subnet", "client_ip"
	case badIP == nil:
		kind, key = "ip", "client_ip"
	case strings.Contains(who, "/"):
		return usagef("%s: %q is no subnet, which is written 10.1.0.0/16, and no name has a slash", c.word, who)
	case action == "add" && likeAddress(who):
		return usagef("%s: %q is no address, and no name has a dot: an address is written 10.1.2.3, a subnet 10.1.0.0/16", c.word, who)
	}
	kwargs[key] = who
	if err := c.open(ctx); err != nil {
		return err
	}
	did := struct {
		Kind    string `json:"kind"`
		Value   string `json:"value"`
		Changed *bool  `json:"changed,omitempty"`
		Saved   *bool  `json:"saved,omitempty"`
		Note    string `json:"note,omitempty"`
	}{Kind: kind, Value: who}
	if !c.python() {
		kwargs["list_only"] = true
	}
	reply, err := c.ask(ctx, action+"_"+c.word+"_client", kwargs)
	switch {
	case err != nil:
		return err
	case c.python() && !done(text(reply)):
		return failf(cli.Failed, "%s %s: refused: only a server has lists%s", c.word, action, pick(action == "remove", ", and what is not there cannot be removed", ""))
	case c.python() && c.word == "blacklist" && action == "add" && kind == "id":
		did.Note = "a Python connector has also deleted the certificate or token of the client with exactly this name"
	case !c.python():
		var now struct {
			Entry          string
			Changed, Saved bool
		}
		if err := json.Unmarshal(reply, &now); err != nil {
			return fmt.Errorf("the reply is not understood: %w", err)
		}
		did.Value, did.Changed, did.Saved = now.Entry, &now.Changed, &now.Saved
		if !now.Saved {
			did.Note = "until the connector ends: it has no configuration file to write the list into"
		}
	}
	return c.p.emit(did, func(t *table) {
		what := pick(did.Changed == nil || *did.Changed, pick(action == "add", "added", "removed"), "was there")
		t.head("LIST", "KIND", "VALUE", "", "")
		t.row(c.word, did.Kind, did.Value, what, did.Note)
	})
}

// likeAddress tells whether s begins as an address does, which no name of a
// client can.
func likeAddress(s string) bool {
	dots := 0
	for i, c := range []byte(s) {
		switch {
		case c == '.' && i > 0 && s[i-1] != '.':
			dots++
		case c < '0' || c > '9':
			return dots > 1
		}
	}
	return dots > 0
}

func showLists(ctx context.Context, c *call) error {
	type entry struct {
		Kind  string `json:"kind"`
		Value string `json:"value"`
	}
	all := []entry{}
	for _, kind := range []string{"id", "ip", "subnet"} {
		reply, err := c.ask(ctx, "show_attribute", map[string]any{"attribute": c.word + "ed_clients_" + kind})
		if err != nil {
			return err
		}
		if c.python() {
			v, ok := pythonValue(text(reply))
			if !ok && text(reply) != "{}" {
				all = append(all, entry{kind, text(reply)})
				continue
			}
			reply = v
		}
		var values []string
		if len(reply) > 0 {
			if err := json.Unmarshal(reply, &values); err != nil {
				return fmt.Errorf("the reply is not understood: %w", err)
			}
		}
		slices.Sort(values)
		for _, v := range values {
			all = append(all, entry{kind, v})
		}
	}
	return c.p.emit(all, func(t *table) {
		t.head("KIND", "VALUE")
		for _, e := range all {
			t.row(e.Kind, e.Value)
		}
	})
}

func explain(ctx context.Context, c *call) error {
	o := c.p.opt
	if o.id == "" && o.ip == "" {
		return usagef("explain: want -id, -ip or both")
	}
	kwargs := map[string]any{}
	if o.id != "" {
		kwargs["client_id"] = o.id
	}
	if o.ip != "" {
		if _, err := netip.ParseAddr(o.ip); err != nil {
			return usagef("explain: -ip %q: want an IP address", o.ip)
		}
		kwargs["client_ip"] = o.ip
	}
	reply, err := c.ask(ctx, "explain", kwargs)
	if err != nil {
		return err
	}
	var e explanation
	if err := json.Unmarshal(reply, &e); err != nil {
		return fmt.Errorf("the reply is not understood: %w", err)
	}
	err = c.p.emit(e, func(t *table) {
		t.head("RULE", "RESULT", "ENTRY", "NOTE")
		for _, s := range e.Steps {
			t.row(s.Rule, s.Result, dash(s.Entry), dash(s.Note))
		}
		t.row(pick(e.Welcome, "welcome", "refused by "+e.By))
	})
	if err == nil && !e.Welcome {
		err = &statusError{status: cli.Failed}
	}
	return err
}

// explanation is the reply of explain.
type explanation struct {
	Welcome bool   `json:"welcome"`
	By      string `json:"by,omitempty"` // the rule that refuses
	Steps   []struct {
		Rule   string `json:"rule"`
		Result string `json:"result"`
		Entry  string `json:"entry,omitempty"`
		Note   string `json:"note,omitempty"`
	} `json:"steps"`
}

// result is what the commands that delete reply.
type result struct {
	Status bool   `json:"status"`
	Msg    string `json:"msg"`
}

// forget returns the deletion of certificates or tokens.
func forget(what string) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		if err := c.open(ctx); err != nil {
			return err
		}
		command := "delete_client_" + what + "_on_client"
		kwargs := map[string]any{"restart_client": true}
		switch id := c.arg(0); {
		case c.client.Info().Server && id == "":
			return usagef("%s: want the name of a client: this is a server", c.word)
		case c.client.Info().Server:
			command = "delete_client_" + what + "_on_server"
			kwargs = map[string]any{"client_id": id}
			if what == "certificate" {
				kwargs["remove_only_symlink"] = false
			}
		case id != "" && id != c.client.Info().Name:
			return usagef("%s: this is client %s, which can delete its own only", c.word, c.client.Info().Name)
		}
		reply, err := c.ask(ctx, command, kwargs)
		if err != nil {
			return err
		}
		var r result
		if s := text(reply); done(s) {
			return nil
		} else if json.Unmarshal([]byte(s), &r) != nil {
			return failf(cli.Failed, "%s: refused: %s", c.word, s)
		}
		if !r.Status {
			return failf(cli.Failed, "%s: %s", c.word, r.Msg)
		}
		if !c.client.Info().Server {
			fmt.Fprintf(c.p.stderr, "%s: %s: while the server has the old one it makes no new one: say %s %s there too\n",
				name, c.word, c.word, cli.Escape(c.client.Info().Name))
		}
		return nil
	}
}

func reloadTokens(ctx context.Context, c *call) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	command := "load_client_token"
	if c.client.Info().Server {
		command = "load_server_tokens"
	}
	if !c.python() {
		_, err := c.ask(ctx, command, nil)
		return err
	}
	// It does it and never answers.
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := c.client.Call(short, command, nil)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return err
}
