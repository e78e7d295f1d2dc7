// Package lib is a map. It holds no code: each folder here is a package that
// does one thing, and may import only the packages below it in this list. A test
// reads the list here.
//
//	cmd            the programs: flags, checks, one call, an exit status
//	lib/daemon     the command line that the two daemons share: flags, checks, signals, systemd
//	lib/chat       the chat: a connection, a terminal, and its ! commands
//	lib/connector  the daemon: makes the queues, runs the pumps, owns start, stop, reload
//	lib/api        what Go programs import: a client of the daemon on this host
//	lib/control    commands: names, arguments, replies
//	lib/broker     who subscribes to what; how a publication becomes a message
//	lib/transfer   files: which may be sent, where they land, chunks put together
//	lib/peer       from an address to an identified link: dial, accept, handshakes, reconnect
//	lib/local      the Unix sockets, both ends
//	lib/link       a live stream of frames: reader, writer, acknowledgement window, keep alive
//	lib/access     may this peer go on? black and white lists, hooks
//	lib/identity   certificates and tokens, and what TLS needs of them
//	lib/queue      what waits for one destination
//	lib/spool      a durable log
//	lib/config     the configuration file, its defaults and checks; names of sockets and files
//	lib/envelope   a message as one line of JSON, and back
//	lib/wire       one frame: bytes, limits, header
//	lib/fold       one log line for many events
//	lib/durable    write, replace, remove and lock files so that it survives a power cut
//	lib/cli        for the mains: flags, exit statuses, log; imports nothing of ours
//	lib/regress    tests of the family as a whole: scripts, pages, imports; measurements
//
// A message takes this way, and always in this direction:
//
//	aioc-send: standard input > envelope > api > local
//	daemon:    local > connector > queue of the peer > link
//	           == the network ==
//	daemon:    link > connector > queue of the type > local
//	aioc-recv: local > api > envelope > standard output
//
// Three things travel back: an acknowledgement, inside a link or a local
// connection; a response, to the sender that waits for it; and push-back, since
// the reader of a connection whose queue is full does not read on. The data of
// a message is read once and passed on as the same bytes.
//
// Decisions are pure functions of the package that knows the subject; what is
// done about them is connector's. Every goroutine of a daemon has a row in the
// package comment of connector.
package lib
