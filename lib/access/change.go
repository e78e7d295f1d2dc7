package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"aioc/lib/config"
)

// ErrAbsent is wrapped when what is to be removed from a list is not on it.
var ErrAbsent = errors.New("not on the list")

// A Change adds an entry to one of the lists or removes it.
type Change struct {
	Key    string // of the configuration
	Entry  string
	Remove bool
}

// NewChange returns the change of the white or the black list for a client: by
// the pattern of its name, else by its address, which with a slash is a network.
// An address is written in its shortest form.
func NewChange(white, remove bool, id, ip string) (Change, error) {
	ch := Change{Key: "blacklisted_clients", Remove: remove}
	if white {
		ch.Key = "whitelisted_clients"
	}
	switch {
	case id != "":
		ch.Key += "_id"
		ch.Entry = id
	case strings.Contains(ip, "/"):
		ch.Key += "_subnet"
		ch.Entry = ip
		if net, err := parseNet(ip); err == nil {
			ch.Entry = net.String()
		}
	case ip != "":
		ch.Key += "_ip"
		ch.Entry = ip
		if addr, err := netip.ParseAddr(ip); err == nil {
			ch.Entry = addr.Unmap().String()
		}
	default:
		return ch, errors.New("neither a name nor an address was given")
	}
	return ch, nil
}

// Apply makes the change in c, whose lists are replaced and not written to, and
// tells whether c is another one now. An entry that is not valid is an error
// that names the key; one that is there already is not added again.
func (ch Change) Apply(c *config.Config) (changed bool, err error) {
	list := List(c, ch.Key)
	at := slices.IndexFunc(*list, ch.same)
	switch {
	case ch.Remove && at < 0:
		return false, fmt.Errorf("%s: %q: %w", ch.Key, ch.Entry, ErrAbsent)
	case ch.Remove:
		next := slices.Clone(*list)
		*list = slices.DeleteFunc(next, ch.same)
		return true, nil
	case at >= 0:
		return false, nil
	}
	// Checked alone: what is wrong with the others is not for now.
	raw, err := json.Marshal([]string{ch.Entry})
	if err != nil {
		return false, err
	}
	if err := config.Defaults().Set(ch.Key, raw); err != nil {
		return false, err
	}
	*list = append(slices.Clip(*list), ch.Entry)
	return true, nil
}

// same tells whether an entry of the list means what ch.Entry does.
func (ch Change) same(entry string) bool {
	if entry == ch.Entry {
		return true
	}
	switch {
	case strings.HasSuffix(ch.Key, "_ip"):
		a, err := netip.ParseAddr(entry)
		return err == nil && a.Unmap().String() == ch.Entry
	case strings.HasSuffix(ch.Key, "_subnet"):
		n, err := parseNet(entry)
		return err == nil && n.String() == ch.Entry
	}
	return false
}

// Keys returns the keys of the lists.
func Keys() []string {
	return []string{
		"blacklisted_clients_id", "blacklisted_clients_ip", "blacklisted_clients_subnet",
		"whitelisted_clients_id", "whitelisted_clients_ip", "whitelisted_clients_subnet",
	}
}

// List returns the list of c with one of the Keys, nil for another key.
func List(c *config.Config, key string) *[]string {
	switch key {
	case "blacklisted_clients_id":
		return &c.BlacklistID
	case "blacklisted_clients_ip":
		return &c.BlacklistIP
	case "blacklisted_clients_subnet":
		return &c.BlacklistSubnet
	case "whitelisted_clients_id":
		return &c.WhitelistID
	case "whitelisted_clients_ip":
		return &c.WhitelistIP
	case "whitelisted_clients_subnet":
		return &c.WhitelistSubnet
	}
	return nil
}
