// Package peer leads from an address to a connection whose other end is
// identified: it dials, accepts, shakes hands, and dials again.
//
//	peer.go          Conn, Options, the modes of a connection
//	dial.go          one attempt of a client
//	proxy.go         the same through an HTTP proxy
//	reconnect.go     the Dialer: attempts and the pauses between them
//	accept.go        the Listener: accepting, and the life of one connection
//	gate.go          connections that are not identified yet, and what they may cost
//	greet_client.go  what a client says first, by mode
//	records.go       TLS whose records leave together
//	verdict.go       whether a server takes the certificate that a client shows
//	greet_server.go  what a server makes of it, by mode
//
// A client says who it is in its first frame, and without tokens a server answers
// nothing:
//
//	client ── TCP ─▶ [TLS] ─▶ {"message_type": "_handshake_no_ssl", "source_id": NAME} hello ─▶ messages
//
// With a certificate of its own a client says nothing: it is known by that. A
// client that has none shows the default one, asks for its own and comes back;
// one that has no token asks for one, likewise.
//
// Until then a client is a stranger. It has 10 seconds, a first frame of at most
// 64 KiB and a TLS handshake of at most 256 KiB; all strangers together are
// limited in number (max_unidentified) and in bytes. When there are too many the
// oldest goes, so that one who is quick gets through a flood of those who are
// not; but none of up to half of them who are being given a certificate or a token.
// A refusal is a silent close, as in aioconnectors, whose reason is logged
// here, a few times a minute at most.
//
// Goroutines: Serve has one for each connection, which runs up and ends with it,
// and Run has none of its own. Both return after all that they started.
package peer
