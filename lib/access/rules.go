package access

import (
	"fmt"
	"net/netip"
	"regexp"

	"aioc/lib/config"
)

// Rules are black and white lists. They do not change and may be used by any
// goroutine.
type Rules struct {
	white, black lists
}

// lists are the three lists of one color.
type lists struct {
	ids  []idEntry
	ips  []ipEntry
	nets []netEntry
}

type idEntry struct {
	text string
	re   *regexp.Regexp
}

type ipEntry struct {
	text string
	addr netip.Addr
}

type netEntry struct {
	text string
	net  netip.Prefix
}

// NewRules returns the lists of c. An entry that is not valid, which c.Check
// finds too, is an error that names its key.
func NewRules(c *config.Config) (*Rules, error) {
	r := &Rules{}
	var err error
	if r.white, err = newLists("whitelisted_clients", c.WhitelistID, c.WhitelistIP, c.WhitelistSubnet); err != nil {
		return nil, err
	}
	if r.black, err = newLists("blacklisted_clients", c.BlacklistID, c.BlacklistIP, c.BlacklistSubnet); err != nil {
		return nil, err
	}
	return r, nil
}

func newLists(prefix string, ids, ips, nets []string) (l lists, err error) {
	for _, text := range ids {
		pattern, err := config.Pattern(text)
		if err != nil {
			return l, fmt.Errorf("%s_id: %w", prefix, err)
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return l, fmt.Errorf("%s_id: %q: %w", prefix, text, err)
		}
		l.ids = append(l.ids, idEntry{text, re})
	}
	for _, text := range ips {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return l, fmt.Errorf("%s_ip: %q is not an IP address", prefix, text)
		}
		l.ips = append(l.ips, ipEntry{text, addr.Unmap()})
	}
	for _, text := range nets {
		net, err := parseNet(text)
		if err != nil {
			return l, fmt.Errorf("%s_subnet: %w", prefix, err)
		}
		l.nets = append(l.nets, netEntry{text, net})
	}
	return l, nil
}

// parseNet reads a network, or an address as a network of one. A network of IPv4
// addresses written as one of IPv6 is one of IPv4.
func parseNet(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap().WithZone("")
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	net, err := netip.ParsePrefix(text)
	if err != nil {
		return net, fmt.Errorf("%q is not a network such as 10.1.0.0/16", text)
	}
	if masked := net.Masked(); masked != net {
		return net, fmt.Errorf("%q has bits set after the prefix: write %s", text, masked)
	}
	if addr := net.Addr(); addr.Is4In6() && net.Bits() >= 96 {
		net = netip.PrefixFrom(addr.Unmap(), net.Bits()-96)
	}
	return net, nil
}

// The results of a Step.
const (
	Empty   = "empty"     // the list has no entries, so it does not matter
	Unasked = "not asked" // what it is about, name or address, is not known
	Passes  = "passes"
	Refuses = "refuses"
)

// A Step is what one list has to say of a client.
type Step struct {
	Rule   string `json:"rule"`            // the key of the configuration
	Result string `json:"result"`          // one of the constants
	Entry  string `json:"entry,omitempty"` // the first entry that matches
	Note   string `json:"note,omitempty"`  // what to look at, in words
}

// Steps asks each list, in their order. The name is "" and the address the zero
// Addr when they are not known. The first Step that refuses decides.
func (r *Rules) Steps(name string, addr netip.Addr) []Step {
	addr = addr.Unmap()
	step := func(rule string, known bool, n int, white bool, entry string, on bool) Step {
		switch {
		case n == 0:
			return Step{Rule: rule, Result: Empty}
		case !known:
			return Step{Rule: rule, Result: Unasked}
		case on == white:
			return Step{Rule: rule, Result: Passes, Entry: entry}
		}
		return Step{Rule: rule, Result: Refuses, Entry: entry}
	}
	byID := func(rule string, l *lists, white bool) Step {
		entry, on := l.id(name)
		return step(rule, name != "", len(l.ids), white, entry, on)
	}
	byIP := func(rule string, l *lists, white bool) Step {
		entry, on := l.ip(addr)
		return step(rule, addr.IsValid(), len(l.ips), white, entry, on)
	}
	byNet := func(rule string, l *lists, white bool) Step {
		entry, on := l.net(addr)
		return step(rule, addr.IsValid(), len(l.nets), white, entry, on)
	}
	// The order of aioconnectors connection.py.
	return []Step{
		byIP("whitelisted_clients_ip", &r.white, true),
		byNet("whitelisted_clients_subnet", &r.white, true),
		byID("whitelisted_clients_id", &r.white, true),
		byID("blacklisted_clients_id", &r.black, false),
		byIP("blacklisted_clients_ip", &r.black, false),
		byNet("blacklisted_clients_subnet", &r.black, false),
	}
}

func (l *lists) id(name string) (entry string, on bool) {
	for _, e := range l.ids {
		if e.re.MatchString(name) {
			return e.text, true
		}
	}
	return "", false
}

func (l *lists) ip(addr netip.Addr) (entry string, on bool) {
	bare := addr.WithZone("")
	for _, e := range l.ips {
		if e.addr == addr || e.addr == bare {
			return e.text, true
		}
	}
	return "", false
}

func (l *lists) net(addr netip.Addr) (entry string, on bool) {
	bare := addr.WithZone("") // with a zone it would be in no network
	for _, e := range l.nets {
		if e.net.Contains(bare) {
			return e.text, true
		}
	}
	return "", false
}

// Decide returns nil if the lists let a client go on, else a *Refusal. The name
// is "" while it is not known.
func (r *Rules) Decide(name string, addr netip.Addr) error {
	for _, s := range r.Steps(name, addr) {
		if s.Result == Refuses {
			return &Refusal{Rule: s.Rule, Entry: s.Entry}
		}
	}
	return nil
}

// A Refusal is that a list or a hook refuses a client.
type Refusal struct {
	Rule  string // the key of the configuration
	Entry string // of a blacklist
	err   error  // of a hook
}

func (r *Refusal) Error() string {
	switch {
	case r.err != nil:
		return r.Rule + ": " + r.err.Error()
	case r.Entry != "":
		return fmt.Sprintf("on the list %s: %q", r.Rule, r.Entry)
	}
	return "not on the list " + r.Rule
}

// Unwrap returns why a hook refuses.
func (r *Refusal) Unwrap() error { return r.err }
