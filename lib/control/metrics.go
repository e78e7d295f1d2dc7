package control

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Metrics returns the statistics in the text format of Prometheus, version
// 0.0.4. now is used for ages. Every series has the label name, so that a
// collector can take those of several connectors, and none has a name that
// collectors use for themselves, as process_open_fds.
func (s *Stats) Metrics(now time.Time) string {
	m := exposition{name: s.Name}
	m.family("aioc_info", "gauge", "What this connector is; the value is 1.")
	m.sample("aioc_info", 1, "role", s.role(), "tls", s.TLS, "version", s.Version)
	m.one("aioc_up", "gauge", "1 while the connector is started, 0 after stop.", number(s.Running))
	m.one("aioc_healthy", "gauge", "1 when health finds no problem.", number(len(s.Problems) == 0))
	peer, all := s.Ignores()
	m.one("aioc_traffic_ignored", "gauge", "1 while the messages of all peers, or of one, are dropped: see ignore-traffic.", number(all || peer != ""))
	m.one("aioc_start_time_seconds", "gauge", "When the process started, Unix time.", seconds(s.Started))

	connected := 0
	for _, p := range s.Peers {
		if p.Connected {
			connected++
		}
	}
	m.one("aioc_peers_connected", "gauge", "Peers that are connected.", float64(connected))
	m.one("aioc_peers_known", "gauge", "Peers that are connected or that messages wait for.", float64(len(s.Peers)+s.PeersLeft))
	m.one("aioc_messages_sent_total", "counter", "Messages that peers have taken.", float64(s.Sent))
	m.one("aioc_messages_received_total", "counter", "Messages of peers that were taken here.", float64(s.Received))

	m.family("aioc_peer_connected", "gauge", "1 while the peer is connected.")
	for _, p := range s.Peers {
		m.sample("aioc_peer_connected", number(p.Connected), "peer", p.Name)
	}
	m.family("aioc_peer_connected_seconds", "gauge", "How long the peer is connected.")
	for _, p := range s.Peers {
		if p.Connected {
			m.sample("aioc_peer_connected_seconds", p.Since, "peer", p.Name)
		}
	}
	peers := make([]queueOf, len(s.Peers))
	for i, p := range s.Peers {
		peers[i] = queueOf{p.Name, p.Queue}
	}
	m.queues("aioc_peer_queue", "peer", "for the peer", peers)
	m.lanes(s.Peers)
	m.one("aioc_lanes_left", "gauge", "Types with messages for a peer that are not listed, since there are too many.", float64(s.LanesLeft))
	types := make([]queueOf, len(s.Types))
	for i, t := range s.Types {
		types[i] = queueOf{t.Type, t.Queue}
	}
	m.queues("aioc_type_queue", "type", "of the type for programs here", types)
	m.family("aioc_type_receivers", "gauge", "Local programs that take the type.")
	for _, t := range s.Types {
		m.sample("aioc_type_receivers", float64(t.Receivers), "type", t.Type)
	}

	m.topics(s.Topics)

	m.family("aioc_dead_letters", "gauge", "Messages that no handler could do.")
	for _, typ := range slices.Sorted(maps.Keys(s.DeadLetters)) {
		m.sample("aioc_dead_letters", float64(s.DeadLetters[typ]), "type", typ)
	}

	m.counters("aioc_dropped_total", "Messages and connections dropped or refused, by reason.", "reason", s.Dropped)
	m.counters("aioc_events_total", "What happened, by kind.", "event", s.Events)

	m.one("aioc_queue_memory_bytes", "gauge", "Memory of waiting messages.", float64(s.MemoryUsed))
	m.one("aioc_queue_memory_limit_bytes", "gauge", "Most memory of waiting messages: max_memory_total.", float64(s.MemoryLimit))
	if d := s.Disk; d != nil {
		m.one("aioc_disk_bytes", "gauge", "Bytes of waiting messages on disk.", float64(d.Bytes))
		m.one("aioc_disk_used_bytes", "gauge", "Bytes that count for max_size_persistence_total.", float64(d.Used))
		if d.Limit > 0 {
			m.one("aioc_disk_limit_bytes", "gauge", "Most of them: max_size_persistence_total.", float64(d.Limit))
		}
		m.one("aioc_disk_errors_total", "counter", "Writes to the disk that failed.", float64(d.Errors))
		m.one("aioc_disk_lost_messages_total", "counter", "Messages on disk that could not be read any more.", float64(d.Lost))
		m.histogram("aioc_disk_sync_seconds", "How long it took until writes were on disk.", d.Syncs)
	}
	m.family("aioc_certificate_expiry_time_seconds", "gauge", "When the certificate ends, Unix time.")
	for _, c := range s.Certs {
		m.sample("aioc_certificate_expiry_time_seconds", seconds(c.NotAfter), "certificate", c.Name)
	}
	m.one("aioc_process_cpu_seconds_total", "counter", "Processor time of the process.", s.Process.CPU)
	m.one("aioc_process_heap_bytes", "gauge", "Memory in use by the process.", float64(s.Process.Memory))
	m.one("aioc_process_resident_memory_max_bytes", "gauge", "Most memory that the process has had.", float64(s.Process.Resident))
	m.one("aioc_process_goroutines", "gauge", "Goroutines of the process.", float64(s.Process.Goroutines))
	if s.Process.Files >= 0 {
		m.one("aioc_process_open_fds", "gauge", "Open files of the process.", float64(s.Process.Files))
	}
	m.one("aioc_uptime_seconds", "gauge", "How long the process runs.", now.Sub(s.Started).Seconds())
	return m.String()
}

func (s *Stats) role() string {
	if s.Server {
		return "server"
	}
	return "client"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// queueOf is a queue with the value of its label.
type queueOf struct {
	name string
	QueueStats
}

// exposition is the text as it grows. All samples of a family follow its HELP
// and TYPE lines, and a family without samples is left out.
type exposition struct {
	strings.Builder
	name string // of the connector
	head string // of the family, until its first sample
}

func (m *exposition) family(name, kind, help string) {
	m.head = "# HELP " + name + " " + strings.NewReplacer(`\`, `\\`, "\n", `\n`).Replace(help) + "\n# TYPE " + name + " " + kind + "\n"
}

// sample adds a line; labels are names and values in turn, after that of the
// connector.
func (m *exposition) sample(name string, value float64, labels ...string) {
	m.WriteString(m.head)
	m.head = ""
	m.WriteString(name)
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	labels = append([]string{"name", m.name}, labels...)
	for i := 0; i < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		m.WriteString(sep + labels[i] + `="` + escape.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")) + `"`)
	}
	m.WriteString("} " + strconv.FormatFloat(value, 'f', -1, 64) + "\n")
}

func (m *exposition) one(name, kind, help string, value float64) {
	m.family(name, kind, help)
	m.sample(name, value)
}

// topics adds what is published.
func (m *exposition) topics(list []TopicStats) {
	for _, f := range []struct {
		name, help string
		value      func(TopicStats) float64
	}{
		{"subscribers", "Clients for which publications of the type may wait on disk.", func(t TopicStats) float64 { return float64(t.Subscribers) }},
		{"messages", "Publications of the type that are kept on disk.", func(t TopicStats) float64 { return float64(t.Messages) }},
		{"disk_bytes", "Bytes on disk of publications of the type, once for all subscribers.", func(t TopicStats) float64 { return float64(t.Disk) }},
		{"oldest_time_seconds", "When the oldest of them was published, or not long before, Unix time, 0 when there is none.", func(t TopicStats) float64 { return float64(t.Oldest) / 1000 }},
	} {
		m.family("aioc_topic_"+f.name, "gauge", f.help)
		for _, t := range list {
			m.sample("aioc_topic_"+f.name, f.value(t), "type", t.Type)
		}
	}
}

// queues adds a family for each figure of queues that a label tells apart.
func (m *exposition) queues(prefix, label, what string, list []queueOf) {
	for _, f := range []struct {
		name, kind, help string
		value            func(QueueStats) float64
	}{
		{"_messages", "gauge", "Messages " + what + " that wait.", func(q QueueStats) float64 { return float64(q.Waiting) }},
		{"_in_hand_messages", "gauge", "Messages " + what + " that were passed on and are not acknowledged.", func(q QueueStats) float64 { return float64(q.InHand) }},
		{"_bytes", "gauge", "Memory of both.", func(q QueueStats) float64 { return float64(q.Bytes) }},
		{"_disk_bytes", "gauge", "Bytes on disk of both.", func(q QueueStats) float64 { return float64(q.Disk) }},
		{"_put_total", "counter", "Messages " + what + " that were put into the queue.", func(q QueueStats) float64 { return float64(q.Put) }},
		{"_put_bytes_total", "counter", "Bytes of them.", func(q QueueStats) float64 { return float64(q.PutBytes) }},
		{"_done_total", "counter", "Messages " + what + " that were passed on and acknowledged.", func(q QueueStats) float64 { return float64(q.Done) }},
		{"_duplicates_total", "counter", "Messages " + what + " that came again, and were not taken again.", func(q QueueStats) float64 { return float64(q.Duplicates) }},
		{"_ids_forgotten_total", "counter", "Ids of messages " + what + " that were not remembered for the whole time.", func(q QueueStats) float64 { return float64(q.Forgotten) }},
		{"_expired_total", "counter", "Messages " + what + " whose time was over.", func(q QueueStats) float64 { return float64(q.Expired) }},
		{"_oldest_time_seconds", "gauge", "When the oldest " + what + " was put, or not long before, Unix time, 0 when there is none.", func(q QueueStats) float64 { return float64(q.Oldest) / 1000 }},
		{"_returned_total", "counter", "Messages " + what + " that came back, to be passed on again.", func(q QueueStats) float64 { return float64(q.Returned) }},
	} {
		m.family(prefix+f.name, f.kind, f.help)
		for _, q := range list {
			m.sample(prefix+f.name, f.value(q.QueueStats), label, q.name)
		}
	}
}

// lanes adds the families about each message type that waits for each peer. Those
// with nothing are left out: there may be as many as peers times types.
func (m *exposition) lanes(peers []PeerStats) {
	for _, f := range []struct {
		name, help string
		value      func(LaneStats) float64
	}{
		{"_messages", "Messages of the type that wait for the peer.", func(l LaneStats) float64 { return float64(l.Waiting) }},
		{"_bytes", "Memory of messages of the type for the peer.", func(l LaneStats) float64 { return float64(l.Bytes) }},
		{"_disk_bytes", "Bytes on disk of messages of the type for the peer.", func(l LaneStats) float64 { return float64(l.Disk) }},
		{"_oldest_time_seconds", "When the oldest of the type for the peer was put, or not long before, Unix time, 0 when it is not known.",
			func(l LaneStats) float64 { return float64(l.Oldest) / 1000 }},
	} {
		m.family("aioc_lane"+f.name, "gauge", f.help)
		for _, p := range peers {
			for _, l := range p.Lanes {
				m.sample("aioc_lane"+f.name, f.value(l), "peer", p.Name, "type", l.Type)
			}
		}
	}
}

func (m *exposition) counters(name, help, label string, counts map[string]uint64) {
	m.family(name, "counter", help)
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		m.sample(name, float64(counts[key]), label, key)
	}
}

func (m *exposition) histogram(name, help string, h Histogram) {
	m.family(name, "histogram", help)
	total := uint64(0)
	for i, n := range h.Counts {
		total += n
		bound := "+Inf"
		if i < len(h.Bounds) {
			bound = strconv.FormatFloat(h.Bounds[i], 'g', -1, 64)
		}
		m.sample(name+"_bucket", float64(total), "le", bound)
	}
	m.sample(name+"_sum", h.Sum)
	m.sample(name+"_count", float64(total))
}
