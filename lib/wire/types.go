package wire

// Reserved message types. Applications cannot use them, nor other names that
// begin with an underscore.
const (
	TypeHelloPlain = "_handshake_no_ssl" // a client's first frame without TLS
	TypeHelloTLS   = "_handshake_ssl"    // a client's first frame with TLS and ssl_allow_all
	TypeSSL        = "_ssl"              // enrolment of a certificate
	TypeToken      = "_token"            // token handshake
	TypeAck        = "_ack"              // "taken"
	TypePing       = "_ping"             // echo request and reply, keep alive, announcement
	TypePubSub     = "_pubsub"           // publish, subscribe, unsubscribe

	// Between ends that announced it, and on the daemon's own socket.
	TypeNack      = "_nack"      // "not taken", with the reason
	TypeParked    = "_parked"    // answer to a _nack that parks a type: nothing more of it is on its way
	TypeResume    = "_resume"    // a parked type may be sent again
	TypeConsume   = "_consume"   // a program wants messages of these types
	TypeEmpty     = "_empty"     // what a program consumes is empty for now
	TypeSubscribe = "_subscribe" // what a client subscribes to, for its broker
	TypeCall      = "_call"      // a command and its reply
	TypeFile      = "_file"      // a file is offered that belongs to a message
	TypeChunk     = "_chunk"     // a piece of it, or its end
	TypeFileAck   = "_file_ack"  // how much of it is there, or why it is not wanted
	TypeStream    = "_stream"    // which number the next message of a type has
)

// HelloData is the data of a hello frame.
const HelloData = "hello"

// KeepAliveID is the request id and the data of a client's keep-alive ping.
const KeepAliveID = "keep_alive_client_check"

// AnnounceID is the request id of the ping by which an end announces the
// extensions it speaks, in the header key "aioc".
const AnnounceID = "aioc"

// Extensions that an end can announce.
const (
	ExtAckTo = "ackto" // frames are counted; one _ack covers all up to a number
	ExtFlow  = "flow"  // a type can be parked by _nack and resumed
	ExtChunk = "chunk" // files come before their messages, in pieces between others
	ExtDedup = "dedup" // what is sent again is known by its number and taken once
	ExtPass  = "pass"  // on the daemon's own socket: files are passed open
)

// Reserved reports whether a message type is kept for the protocol.
func Reserved(messageType string) bool {
	return len(messageType) > 0 && messageType[0] == '_'
}
