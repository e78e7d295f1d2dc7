package control

import "time"

// Stats is what a connector tells of itself: the reply to the command stats.
// Counters count since the process started.
type Stats struct {
	Name       string    `json:"name"` // source_id
	Server     bool      `json:"server"`
	Address    string    `json:"address"`         // the server's, HOST:PORT
	Peer       string    `json:"peer,omitempty"`  // a client's server, as a destination_id
	Version    string    `json:"version"`         // of the program
	PID        int       `json:"pid"`             //
	Started    time.Time `json:"started"`         //
	Running    bool      `json:"running"`         // false after stop
	TLS        string    `json:"tls"`             // off, anonymous, token, certs or ca
	Directory  string    `json:"directory"`       // of its sockets
	ConfigFile string    `json:"config_file"`     // "" without one
	LogLevel   string    `json:"log_level"`       //
	Sandbox    string    `json:"sandbox"`         // what the process has shut itself out of
	Ignored    any       `json:"ignored_traffic"` // true, false or a list with a peer

	Peers     []PeerStats  `json:"peers"`                // sorted by name
	PeersLeft int          `json:"peers_left,omitempty"` // known, but not in the list
	LanesLeft int          `json:"lanes_left,omitempty"` // have messages, but are not in the list
	Types     []TypeStats  `json:"types"`                // those received here, sorted
	Topics    []TopicStats `json:"topics,omitempty"`     // durable types that are published, sorted
	Sent      uint64       `json:"sent"`                 // messages that peers have taken, those of Peers and of others
	Received  uint64       `json:"received"`             // messages from peers, put into the queues of Types

	Events  map[string]uint64 `json:"events"`  // what happened, by kind
	Dropped map[string]uint64 `json:"dropped"` // what was dropped or refused, by reason

	// DeadLetters has the messages that no handler could do, by type.
	DeadLetters map[string]int `json:"dead_letters"`

	MemoryUsed  int          `json:"memory_used"` // bytes of waiting messages
	MemoryLimit int64        `json:"memory_limit"`
	Disk        *DiskStats   `json:"disk,omitempty"`
	Certs       []CertStats  `json:"certificates"`
	Process     ProcessStats `json:"process"`
	Problems    []string     `json:"problems"` // what is not well; empty when all is

}

// Ignores returns whose messages are dropped, as the command ignore-traffic asked
// for: of all peers, or of one, or of none: then it is "".
func (s *Stats) Ignores() (peer string, all bool) {
	switch v := s.Ignored.(type) {
	case bool:
		return "", v
	case []string:
		if len(v) > 0 {
			return v[0], false
		}
	case []any: // it was read from JSON
		if len(v) > 0 {
			peer, _ = v[0].(string)
		}
	}
	return peer, false
}

// PeerStats is what is known of one peer.
type PeerStats struct {
	Name      string      `json:"name"`
	Connected bool        `json:"connected"`
	Addr      string      `json:"address,omitempty"`
	Since     float64     `json:"since_seconds"`   // how long it is connected
	TLS       string      `json:"tls,omitempty"`   // version of TLS
	Native    bool        `json:"native"`          // of this toolkit
	Queue     QueueStats  `json:"queue"`           // what goes to it
	Lanes     []LaneStats `json:"lanes,omitempty"` // the same by type, those with messages
}

// LaneStats is what waits of one message type for one peer.
type LaneStats struct {
	Type    string `json:"type"`
	Waiting int    `json:"waiting"`
	Bytes   int    `json:"bytes"`              // in memory, with what is passed on and not acknowledged
	Disk    int64  `json:"disk"`               // bytes on disk
	Oldest  int64  `json:"oldest_unix_millis"` // when the oldest was put, or not long before; 0 when unknown
}

// TypeStats is what is known of one message type that is received here.
type TypeStats struct {
	Type      string     `json:"type"`
	Receivers int        `json:"receivers"` // local programs that take it
	Queue     QueueStats `json:"queue"`
}

// TopicStats is what a broker keeps on disk, once for all subscribers, of what is
// published of a durable type.
type TopicStats struct {
	Type        string `json:"type"`
	Subscribers int    `json:"subscribers"`        // for whom something may wait
	Messages    int64  `json:"messages"`           // of which one waits for somebody, or one near it
	Disk        int64  `json:"disk"`               // bytes
	Oldest      int64  `json:"oldest_unix_millis"` // when the oldest was put; 0 when unknown
}

// QueueStats is what is known of a queue.
type QueueStats struct {
	Waiting  int    `json:"waiting"`
	InHand   int    `json:"in_hand"`            // taken, and not acknowledged
	Bytes    int    `json:"bytes"`              // of both, in memory
	Put      uint64 `json:"put"`                // messages since the queue was made
	PutBytes uint64 `json:"put_bytes"`          //
	Done     uint64 `json:"done"`               // acknowledged
	Returned uint64 `json:"returned"`           // given back by a taker
	Disk     int64  `json:"disk"`               // bytes on disk
	Oldest   int64  `json:"oldest_unix_millis"` // when the oldest was put, or not long before; 0 when unknown

	Duplicates uint64 `json:"duplicates"` // that came again, and were not taken again
	Expired    uint64 `json:"expired"`    // whose time was over
	Forgotten  uint64 `json:"forgotten"`  // ids, before their time, for want of memory
}

// DiskStats is what is known of the durable queues together.
type DiskStats struct {
	Bytes  int64     `json:"bytes"`
	Used   int64     `json:"used"`   // of max_size_persistence_total
	Limit  int64     `json:"limit"`  // that; 0: no bound
	Syncs  Histogram `json:"syncs"`  // seconds that a write to the disk took
	Errors uint64    `json:"errors"` // of those, failed
	Lost   uint64    `json:"lost"`   // messages that could not be read any more
}

// Histogram counts durations.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // upper ends in seconds, increasing
	Counts []uint64  `json:"counts"` // one more than Bounds: the last is for what is above
	Sum    float64   `json:"sum"`    // seconds
}

// CertStats is a certificate that this connector depends on.
type CertStats struct {
	Name     string    `json:"name"` // server, ca, client
	NotAfter time.Time `json:"not_after"`
}

// ProcessStats is what is known of the process.
type ProcessStats struct {
	CPU        float64 `json:"cpu_seconds"`
	Memory     int64   `json:"memory"`     // bytes of the heap
	Resident   int64   `json:"resident"`   // bytes, at most until now
	Goroutines int     `json:"goroutines"` //
	Files      int     `json:"open_files"` // -1 when not known
}

// Health is the reply to the command health.
type Health struct {
	OK       bool     `json:"ok"`
	Name     string   `json:"name"`
	Problems []string `json:"problems"`
}
