package control

// Known describes all commands, without the function that carries each out:
// first those of the original, then those of this toolkit. A command that a
// daemon does not have is answered ErrUnknown.
func Known() []Command {
	needs := func(name string, kind Kind) Arg { return Arg{name, kind, true} }
	may := func(name string, kind Kind) Arg { return Arg{name, kind, false} }
	dump := []Arg{may("dump_result", Bool)}
	client := []Arg{needs("client_id", String)}
	stop := []Arg{may("hard", Bool), may("shutdown", Bool), may("enable_delete_files", Bool), may("client_wait_for_reconnect", Bool)}
	restart := append([]Arg{may("sleep_between", Number)}, stop...)
	listed := []Arg{may("client_ip", String), may("client_id", String), may("list_only", Bool)}
	change := "true; with list_only an object with list, entry, changed and saved"
	restarts := []Arg{may("restart_client", Bool)}
	result := "an object with status and msg"
	original := []Command{
		{Name: "start", Help: "open what stop has closed"},
		{Name: "stop", Args: stop, Help: "close links and sockets, but not those for commands"},
		{Name: "restart", Args: restart, Help: "stop and start", Reply: "nothing; on the own socket, where the configuration is read again, as reload"},
		{Name: "show_connected_peers", Args: dump, Help: "the peers that are connected", Reply: "an object: peer to address and port"},
		{Name: "peek_queues", Args: dump, Help: "how many messages wait", Reply: "an object: queue_recv, and queue_send by peer"},
		{Name: "manage_ignore_peer_traffic", Args: []Arg{may("show", Bool), may("enable", Bool), may("disable", Bool), may("unique_peer", String)},
			Help: "whose messages are ignored", Reply: "true, false or a list with one peer"},
		{Name: "show_log_level", Help: "the level of the log", Reply: "its name"},
		{Name: "set_log_level", Args: []Arg{needs("level", String)}, Help: "change the level of the log", Reply: "its name"},
		{Name: "show_subscribe_message_types", Help: "what a client subscribes to", Reply: "a list"},
		{Name: "set_subscribe_message_types", Args: []Arg{needs("message_types", List)}, Help: "change what a client subscribes to", Reply: "the list"},
		{Name: "delete_previous_persistence_remains", Help: "delete all messages that wait on disk"},
		{Name: "show_attribute", Args: []Arg{needs("attribute", String)}, Help: "a key of the configuration", Reply: "its value"},
		{Name: "disconnect_client", Args: client, Help: "close the link to a client", Reply: "true, or a text"},
		{Name: "add_blacklist_client", Args: listed, Help: "refuse a client; without list_only also delete its certificate or token", Reply: change},
		{Name: "remove_blacklist_client", Args: listed, Help: "do not refuse a client any more", Reply: change},
		{Name: "add_whitelist_client", Args: listed, Help: "admit a client", Reply: change},
		{Name: "remove_whitelist_client", Args: listed, Help: "do not admit a client any more", Reply: change},
		{Name: "delete_client_certificate_on_server", Args: append(client[:1:1], may("remove_only_symlink", Bool)),
			Help: "forget the certificate of a client, and disconnect it", Reply: result},
		{Name: "delete_client_certificate_on_client", Args: restarts, Help: "forget the own certificate, and get a new one", Reply: result},
		{Name: "delete_client_token_on_server", Args: client, Help: "forget the token of a client, and disconnect it", Reply: result},
		{Name: "delete_client_token_on_client", Args: restarts, Help: "forget the own token, and get a new one", Reply: result},
		{Name: "load_server_tokens", Help: "read the tokens of the clients again"},
		{Name: "load_client_token", Help: "read the own token again"},
	}
	for i := range original {
		original[i].Original = true
	}
	return append(original,
		Command{Name: "health", Anyone: true, Help: "whether all is well", Reply: "an object: ok, and problems"},
		Command{Name: "stats", Help: "all counters and gauges", Reply: "an object"},
		Command{Name: "metrics", Help: "the same in the text format of Prometheus", Reply: "a text"},
		Command{Name: "reload", Help: "read configuration, certificates, tokens and lists again", Reply: "nothing, or an object: unchanged, the keys that need a new process"},
		Command{Name: "purge", Help: "delete all messages that wait on disk", Reply: "an object: discarded, and by queue peers and types"},
		Command{Name: "show_config", Help: "the configuration in effect, without secrets", Reply: "an object"},
		Command{Name: "show_lists", Help: "black and white lists", Reply: "an object: the six keys of the configuration"},
		Command{Name: "show_subscriptions", Help: "what the clients of a server subscribe to", Reply: "an object: client to list"},
		Command{Name: "explain", Args: listed[:2:2],
			Help: "which rule admits or refuses a client", Reply: "an object"},
		Command{Name: "dead_list", Args: []Arg{may("message_type", String)}, Help: "messages that no handler could do", Reply: "a list of objects"},
		Command{Name: "dead_show", Args: []Arg{needs("id", String)}, Help: "one of them", Reply: "an object"},
		Command{Name: "dead_retry", Args: []Arg{may("id", String), may("message_type", String)}, Help: "put them back into their queue", Reply: "how many"},
		Command{Name: "dead_drop", Args: []Arg{may("id", String), may("message_type", String)}, Help: "delete them", Reply: "how many"},
	)
}

// A Verb is a word by which a user of aioc-ctl asks for something.
type Verb struct {
	Word    string // what the user types
	Args    string // what follows it, as a synopsis shows it
	Help    string // one line
	Command string // what the connector is asked then; "" when it is not asked a command
	Python  bool   // a connector of the original can be asked too
}

// Verbs lists them in the order of the usage and of the manual.
func Verbs() []Verb {
	return []Verb{
		{"list", "", "the connectors of this host", "", true},
		{"status", "", "what a connector is, and whether it is well", "stats", true},
		{"health", "", "status 0 when all is well, else 1 and what is not", "health", false},
		{"peers", "", "the peers that are connected", "stats", true},
		{"queues", "", "the messages that wait, by peer and by type", "stats", true},
		{"stats", "", "all counters and gauges", "stats", false},
		{"metrics", "", "the same in the text format of Prometheus", "metrics", false},
		{"top", "[-n COUNT] [-interval D]", "queues, rates, peers and drops, refreshed", "stats", false},
		{"ping", "[ID]", "ask a peer whether it is there", "", true},
		{"disconnect", "ID", "close the link to a client", "disconnect_client", true},
		{"blacklist", "add|remove PATTERN|IP|SUBNET, list", "clients that are refused", "add_blacklist_client", true},
		{"whitelist", "add|remove PATTERN|IP|SUBNET, list", "clients that alone are admitted", "add_whitelist_client", true},
		{"explain", "[-id ID] [-ip IP]", "which rule admits or refuses a client", "explain", false},
		{"delete-certificate", "[ID]", "forget a client's certificate; on a client its own", "delete_client_certificate_on_server", true},
		{"delete-token", "[ID]", "forget a client's token; on a client its own", "delete_client_token_on_server", true},
		{"reload-tokens", "", "read the tokens again", "load_server_tokens", true},
		{"ignore-traffic", "on|off|show|PEER", "drop the messages of all peers, or of one", "manage_ignore_peer_traffic", true},
		{"log-level", "[LEVEL]", "show or change the level of the log", "set_log_level", true},
		{"subscriptions", "", "what a client subscribes to; on a server all clients", "show_subscribe_message_types", true},
		{"subscribe", "TYPE ...", "change what a client subscribes to", "set_subscribe_message_types", true},
		{"purge", "[-yes]", "delete ALL messages that wait on disk, good ones too", "purge", true},
		{"dead", "list|show ID|retry|drop ID|-type T|-all", "messages that no handler could do", "dead_list", false},
		{"spool", "verify [DIR]|dump DIR|salvage DIR NEW [SUBSCRIBER]", "look at messages on disk, without a connector", "", true},
		{"start", "", "open what stop has closed", "start", true},
		{"stop", "[-hard]", "close links and sockets, but go on listening to commands", "stop", true},
		{"restart", "[-hard]", "read the configuration again, stop and start", "restart", true},
		{"reload", "", "read configuration, certificates, tokens and lists again", "reload", false},
		{"shutdown", "[-hard]", "end the connector", "stop", true},
		{"show", "KEY", "a key of the configuration", "show_attribute", true},
		{"config", "", "the configuration in effect, without secrets", "show_config", false},
	}
}
