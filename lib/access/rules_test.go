package access

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"aioc/lib/config"
)

// lists are the lists of a configuration, as JSON.
func mustConfig(t testing.TB, lists string) *config.Config {
	t.Helper()
	c := config.Defaults()
	var keys map[string]json.RawMessage
	if err := json.Unmarshal([]byte("{"+lists+"}"), &keys); err != nil {
		t.Fatal(err)
	}
	for key, value := range keys {
		if err := c.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func mustRules(t testing.TB, lists string) *Rules {
	t.Helper()
	r, err := NewRules(mustConfig(t, lists))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The results follow aioconnectors connection.py, where the lists are sets of
// texts: the order in which the first refusal is found, and which lists are
// asked before the name is known.
func TestTheListsAreAskedInTheirOrder(t *testing.T) {
	all := `"whitelisted_clients_ip": ["10.0.0.1"], "whitelisted_clients_subnet": ["10.0.0.0/8"], "whitelisted_clients_id": ["pump"],
		"blacklisted_clients_id": ["pump6"], "blacklisted_clients_ip": ["10.0.0.6"], "blacklisted_clients_subnet": ["10.6.0.0/16"]`
	for _, test := range []struct {
		name, lists  string
		client, addr string
		want         string // the rule that refuses, and the entry
	}{
		{"no lists", ``, "pump1", "10.0.0.1", ""},
		{"on all whitelists and no blacklist", all, "pump1", "10.0.0.1", ""},
		{"on no whitelist", all, "x", "11.0.0.1", "whitelisted_clients_ip"},
		{"not the address, but the network and the name", all, "pump1", "10.0.0.2", "whitelisted_clients_ip"},
		{"not the name, whose address is right", all, "x", "10.0.0.1", "whitelisted_clients_id"},
		{"black and white", all, "pump6", "10.0.0.1", "blacklisted_clients_id pump6"},
		{"a whitelist comes before a blacklist", all, "pump6", "10.0.0.6", "whitelisted_clients_ip"},
		{"before the name is known the others are asked", all, "", "10.0.0.1", ""},
		{"and refuse", all, "", "10.0.0.2", "whitelisted_clients_ip"},
		{"a whitelist of names says nothing before", `"whitelisted_clients_id": ["pump"]`, "", "10.0.0.1", ""},
		{"a blacklist of names says nothing before", `"blacklisted_clients_id": [""]`, "", "10.0.0.1", ""},
		{"only a network", `"whitelisted_clients_subnet": ["10.0.0.0/8"]`, "", "11.0.0.1", "whitelisted_clients_subnet"},
		{"the second entry", `"whitelisted_clients_subnet": ["12.0.0.0/8", "11.0.0.0/8"]`, "", "11.0.0.1", ""},
		{"the beginning of the name is enough", `"whitelisted_clients_id": ["client1"]`, "client10", "10.0.0.1", ""},
		{"an end of the name ends it", `"whitelisted_clients_id": ["client1$"]`, "client10", "10.0.0.1", "whitelisted_clients_id"},
		{"the end of the name is not enough", `"blacklisted_clients_id": ["lient1"]`, "client1", "10.0.0.1", ""},
		{"a second alternative begins there too", `"blacklisted_clients_id": ["x|lient1"]`, "client1", "10.0.0.1", ""},
		{"an empty pattern matches all", `"blacklisted_clients_id": [""]`, "client1", "10.0.0.1", "blacklisted_clients_id "},
		{"blacklisted address", `"blacklisted_clients_ip": ["10.0.0.6"]`, "", "10.0.0.6", "blacklisted_clients_ip 10.0.0.6"},
		{"blacklisted network", `"blacklisted_clients_subnet": ["10.6.0.0/16"]`, "", "10.6.1.1", "blacklisted_clients_subnet 10.6.0.0/16"},
		{"blacklisted name before address", `"blacklisted_clients_ip": ["10.0.0.6"], "blacklisted_clients_id": ["p"]`, "p", "10.0.0.6", "blacklisted_clients_id p"},
		{"a network of one address", `"blacklisted_clients_subnet": ["10.0.0.3"]`, "", "10.0.0.3", "blacklisted_clients_subnet 10.0.0.3"},

		{"IPv4 in IPv6 past a blacklisted network", `"blacklisted_clients_subnet": ["10.0.0.0/8"]`, "", "::ffff:10.0.0.3", "blacklisted_clients_subnet 10.0.0.0/8"},
		{"IPv4 in IPv6 past a blacklisted address", `"blacklisted_clients_ip": ["10.0.0.3"]`, "", "::ffff:10.0.0.3", "blacklisted_clients_ip 10.0.0.3"},
		{"IPv4 in IPv6 in the list of addresses", `"blacklisted_clients_ip": ["::ffff:10.0.0.3"]`, "", "10.0.0.3", "blacklisted_clients_ip ::ffff:10.0.0.3"},
		{"IPv4 in IPv6 in the list of networks", `"blacklisted_clients_subnet": ["::ffff:10.0.0.0/104"]`, "", "10.9.0.3", "blacklisted_clients_subnet ::ffff:10.0.0.0/104"},
		{"IPv4 in IPv6 on a whitelist", `"whitelisted_clients_subnet": ["10.0.0.0/8"]`, "", "::ffff:10.0.0.3", ""},
		{"all of IPv6 has no IPv4", `"blacklisted_clients_subnet": ["::/0"]`, "", "10.0.0.3", ""},
		{"all of IPv4", `"blacklisted_clients_subnet": ["0.0.0.0/0"]`, "", "::ffff:10.0.0.3", "blacklisted_clients_subnet 0.0.0.0/0"},
		{"a zone past a blacklisted network", `"blacklisted_clients_subnet": ["fe80::/10"]`, "", "fe80::1%eth0", "blacklisted_clients_subnet fe80::/10"},
		{"a zone past a blacklisted address", `"blacklisted_clients_ip": ["fe80::1"]`, "", "fe80::1%eth0", "blacklisted_clients_ip fe80::1"},
		{"another zone than the list's", `"blacklisted_clients_ip": ["fe80::1%eth1"]`, "", "fe80::1%eth0", ""},
		{"other forms of one address", `"blacklisted_clients_ip": ["2001:DB8:0:0::1"]`, "", "2001:db8::1", "blacklisted_clients_ip 2001:DB8:0:0::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := mustRules(t, test.lists).Decide(test.client, netip.MustParseAddr(test.addr))
			got := ""
			var r *Refusal
			if errors.As(err, &r) {
				got = r.Rule
				if strings.HasPrefix(r.Rule, "black") {
					got += " " + r.Entry
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRefusalsSayTheListAndTheEntry(t *testing.T) {
	r := mustRules(t, `"whitelisted_clients_id": ["pump"], "blacklisted_clients_ip": ["10.0.0.6"]`)
	for _, test := range []struct{ client, addr, want string }{
		{"x", "10.0.0.1", "not on the list whitelisted_clients_id"},
		{"pump1", "10.0.0.6", `on the list blacklisted_clients_ip: "10.0.0.6"`},
	} {
		if err := r.Decide(test.client, netip.MustParseAddr(test.addr)); err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestStepsTellWhatEachListSays(t *testing.T) {
	r := mustRules(t, `"whitelisted_clients_ip": ["10.0.0.1"], "whitelisted_clients_id": ["pump"], "blacklisted_clients_id": ["pump6", "pump7"]`)
	for _, test := range []struct {
		client string
		addr   netip.Addr
		want   string
	}{
		{"pump7", netip.MustParseAddr("10.0.0.1"), "passes 10.0.0.1, empty, passes pump, refuses pump7, empty, empty"},
		{"pump7", netip.Addr{}, "not asked, empty, passes pump, refuses pump7, empty, empty"},
		{"", netip.MustParseAddr("10.0.0.2"), "refuses, empty, not asked, not asked, empty, empty"},
	} {
		var got []string
		for _, s := range r.Steps(test.client, test.addr) {
			got = append(got, strings.TrimSpace(s.Result+" "+s.Entry))
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%q %v: got %q, want %q", test.client, test.addr, strings.Join(got, ", "), test.want)
		}
	}
}

func TestEntriesThatAreNotValidAreErrors(t *testing.T) {
	for _, test := range []struct {
		set  func(c *config.Config)
		want string
	}{
		{func(c *config.Config) { c.BlacklistID = []string{"a(?=b)"} }, "blacklisted_clients_id: \"a(?=b)\" is not a regular expression"},
		{func(c *config.Config) { c.WhitelistIP = []string{"localhost"} }, "whitelisted_clients_ip: \"localhost\" is not an IP address"},
		{func(c *config.Config) { c.WhitelistSubnet = []string{"10.1.0.1/16"} }, "whitelisted_clients_subnet: \"10.1.0.1/16\" has bits set after the prefix: write 10.1.0.0/16"},
		{func(c *config.Config) { c.WhitelistSubnet = []string{"x"} }, "whitelisted_clients_subnet: \"x\" is not a network"},
	} {
		c := config.Defaults()
		test.set(c)
		if _, err := NewRules(c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestAChangeOfAList(t *testing.T) {
	for _, test := range []struct {
		name         string
		lists        string
		white        bool
		remove       bool
		id, ip       string
		key          string
		want         []string
		err          string // part of it
		wantNoChange bool
	}{
		{"a name", ``, false, false, "evil.*", "", "blacklisted_clients_id", []string{"evil.*"}, "", false},
		{"the name counts if there is an address too", ``, false, false, "evil", "10.0.0.1", "blacklisted_clients_id", []string{"evil"}, "", false},
		{"behind others", `"whitelisted_clients_id": ["a"]`, true, false, "b", "", "whitelisted_clients_id", []string{"a", "b"}, "", false},
		{"one that is there", `"whitelisted_clients_id": ["a"]`, true, false, "a", "", "whitelisted_clients_id", []string{"a"}, "", true},
		{"an address in its shortest form", ``, true, false, "", "2001:DB8:0::1", "whitelisted_clients_ip", []string{"2001:db8::1"}, "", false},
		{"IPv4 in IPv6", ``, true, false, "", "::ffff:10.0.0.1", "whitelisted_clients_ip", []string{"10.0.0.1"}, "", false},
		{"a network", ``, false, false, "", "10.1.0.0/16", "blacklisted_clients_subnet", []string{"10.1.0.0/16"}, "", false},
		{"a network with bits set", ``, false, false, "", "10.1.0.1/16", "blacklisted_clients_subnet", nil, "write 10.1.0.0/16", false},
		{"no address", ``, false, false, "", "localhost", "blacklisted_clients_ip", nil, `"localhost" is not an IP address`, false},
		{"no pattern", ``, false, false, "a(", "", "blacklisted_clients_id", nil, "is not a regular expression", false},
		{"look-around", ``, false, false, "a(?!b)", "", "blacklisted_clients_id", nil, "look-around", false},
		{"removing", `"blacklisted_clients_id": ["a", "b", "c"]`, false, true, "b", "", "blacklisted_clients_id", []string{"a", "c"}, "", false},
		{"removing another form of the address", `"blacklisted_clients_ip": ["2001:DB8:0::1"]`, false, true, "", "2001:db8::1", "blacklisted_clients_ip", []string{}, "", false},
		{"removing another form of the network", `"blacklisted_clients_subnet": ["2001:DB8::/32"]`, false, true, "", "2001:db8::/32", "blacklisted_clients_subnet", []string{}, "", false},
		{"removing what is not there", `"blacklisted_clients_id": ["ab"]`, false, true, "a", "", "blacklisted_clients_id", []string{"ab"}, ErrAbsent.Error(), false},
		{"removing from the other color", `"blacklisted_clients_id": ["a"]`, true, true, "a", "", "whitelisted_clients_id", nil, ErrAbsent.Error(), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := mustConfig(t, test.lists)
			before := *c
			ch, err := NewChange(test.white, test.remove, test.id, test.ip)
			if err != nil {
				t.Fatal(err)
			}
			if ch.Key != test.key {
				t.Errorf("key: got %s, want %s", ch.Key, test.key)
			}
			old := slices.Clone(*List(&before, ch.Key))
			changed, err := ch.Apply(c)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error: got %v, want %q", err, test.err)
			}
			if got := *List(c, ch.Key); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if want := test.err == "" && !test.wantNoChange; changed != want {
				t.Errorf("changed: got %v, want %v", changed, want)
			}
			if now := *List(&before, ch.Key); !slices.Equal(now, old) {
				t.Errorf("a list that others read was %q and is %q", old, now)
			}
		})
	}
	if _, err := NewChange(true, false, "", ""); err == nil {
		t.Error("a change of nothing is no error")
	}
}

func TestEveryListHasItsKey(t *testing.T) {
	c := config.Defaults()
	for _, key := range Keys() {
		if err := c.Set(key, []byte(`["1.2.3.4"]`)); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if got := List(c, key); got == nil || !slices.Equal(*got, []string{"1.2.3.4"}) {
			t.Errorf("%s: got %v", key, got)
		}
	}
	if List(c, "x") != nil {
		t.Error("a list without a key")
	}
}
