package connector

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/identity"
	"aioc/lib/queue"
	"aioc/lib/spool"
)

// maxListed bounds the peers in the statistics, so that their text stays one
// that programs read in no time.
const maxListed = 10_000

// maxLanes bounds the message types of all peers in the statistics: a subscriber
// has a say in their names.
const maxLanes = 10_000

// soon is how long before its end a certificate is a problem.
const soon = 14 * 24 * time.Hour

// addOwnCommands adds the commands that the original does not have.
func (c *Connector) addOwnCommands() {
	c.commands.Add(
		control.Command{Name: "stats", Run: func(context.Context, control.Args) (any, error) { return c.stats(), nil }},
		control.Command{Name: "metrics", Run: func(context.Context, control.Args) (any, error) {
			return control.Raw(c.stats().Metrics(time.Now())), nil
		}},
		control.Command{Name: "health", Run: func(context.Context, control.Args) (any, error) {
			problems := c.problems()
			return &control.Health{OK: len(problems) == 0, Name: c.id, Problems: problems}, nil
		}},
		control.Command{Name: "show_config", Run: func(context.Context, control.Args) (any, error) { return c.publicConfig() }},
		control.Command{Name: "reload", Run: func(context.Context, control.Args) (any, error) {
			if c.reload == nil {
				return nil, fmt.Errorf("%w: this connector has nothing that reloads it", control.ErrUnknown)
			}
			return c.reloadNow()
		}},
	)
}

// reloadNow reads the configuration again and returns what could not be changed.
func (c *Connector) reloadNow() (any, error) {
	if err := c.reload(); err != nil {
		return nil, err
	}
	if keys := c.unchanged.Load(); keys != nil && len(*keys) > 0 {
		return &reloaded{*keys, "these keys are used when the process is ended and started again"}, nil
	}
	return nil, nil
}

// reloaded is the reply to reload when it could not change all.
type reloaded struct {
	Unchanged []string `json:"unchanged"` // keys whose old values are in effect
	Note      string   `json:"note"`
}

// stats gathers what the connector knows of itself.
func (c *Connector) stats() *control.Stats {
	cfg := c.cfg.Load()
	s := &control.Stats{
		Name: c.id, Server: c.server, Address: cfg.ServerAddr.String(), Peer: cfg.PeerID(),
		Version: cli.Version(), PID: os.Getpid(), Started: c.started.Round(0).UTC(), Running: c.running.Load(),
		TLS: tlsMode(cfg), Directory: c.paths.Dir, ConfigFile: cfg.File, LogLevel: cli.LevelName(c.level.Level()),
		Sandbox: c.sandbox, Ignored: c.ignoredNow(),
		Events: c.events.snapshot(), Dropped: c.counts.snapshot(),
		MemoryUsed: c.budget.Used(), MemoryLimit: cfg.MaxMemoryTotal,
		Certs: c.certs.list(cfg, c.paths), Process: processStats(), Problems: c.problems(),
	}
	now := time.Now()
	c.mu.Lock()
	boxes := make([]*outbox, 0, len(c.boxes))
	for _, b := range c.boxes {
		boxes = append(boxes, b)
	}
	s.Sent = c.sentBefore
	disk := c.diskBefore
	c.mu.Unlock()
	slices.SortFunc(boxes, func(a, b *outbox) int { return strings.Compare(a.name, b.name) })
	s.Peers = []control.PeerStats{}
	room := maxLanes
	for _, b := range boxes {
		q, logs := b.stats()
		disk.add(logs)
		s.Sent += q.Done
		if len(s.Peers) == maxListed {
			s.PeersLeft++
			continue
		}
		p := control.PeerStats{Name: b.name, Queue: queueStats(q, logs)}
		lanes := laneStats(b.lanes(), &p.Queue)
		p.Lanes = lanes[:min(len(lanes), room)]
		room -= len(p.Lanes)
		s.LanesLeft += len(lanes) - len(p.Lanes)
		if l := b.there(); l != nil {
			p.Connected, p.Addr, p.TLS = true, l.addr, l.tls
			p.Since, p.Native = now.Sub(l.since).Seconds(), l.l.Acks()
		}
		s.Peers = append(s.Peers, p)
	}
	s.Types = []control.TypeStats{}
	for typ, q := range c.inbox {
		stats, logs := q.StatsAndLogs()
		disk.add(logs)
		s.Received += stats.Put
		t := control.TypeStats{Type: typ, Receivers: q.Takers(), Queue: queueStats(stats, logs)}
		laneStats(q.Lanes(), &t.Queue)
		s.Types = append(s.Types, t)
	}
	slices.SortFunc(s.Types, func(a, b control.TypeStats) int { return strings.Compare(a.Type, b.Type) })
	for _, t := range c.allTopics() {
		log, ok := t.Stats()
		if !ok {
			continue
		}
		disk.add([]spool.Stats{log})
		topic := control.TopicStats{Type: t.Type(), Subscribers: log.Views, Messages: log.Waiting, Disk: log.Bytes}
		if !log.Oldest.IsZero() {
			topic.Oldest = log.Oldest.UnixMilli()
		}
		s.Topics = append(s.Topics, topic)
	}
	slices.SortFunc(s.Topics, func(a, b control.TopicStats) int { return strings.Compare(a.Type, b.Type) })
	if s.Disk = disk.stats(); s.Disk != nil {
		s.Disk.Used, s.Disk.Limit = c.onDisk.Used(), c.onDisk.Limit()
	}
	s.DeadLetters = c.countDead()
	return s
}

func queueStats(q queue.Stats, logs []spool.Stats) control.QueueStats {
	s := control.QueueStats{Waiting: q.Waiting, InHand: q.InHand, Bytes: q.Bytes, Put: q.Put, PutBytes: q.PutBytes, Done: q.Done, Returned: q.Returned,
		Disk: q.DiskBytes, Duplicates: q.Duplicates, Expired: q.Expired, Forgotten: q.Forgotten}
	for _, l := range logs {
		if t := l.Oldest; !t.IsZero() && (s.Oldest == 0 || t.UnixMilli() < s.Oldest) {
			s.Oldest = t.UnixMilli()
		}
	}
	return s
}

// laneStats returns lanes by type, of which one may have two, and adds the oldest
// of them to what is known of the whole.
func laneStats(lanes []queue.LaneStats, whole *control.QueueStats) (all []control.LaneStats) {
	slices.SortStableFunc(lanes, func(a, b queue.LaneStats) int { return strings.Compare(a.Type, b.Type) })
	for _, l := range lanes {
		one := control.LaneStats{Type: l.Type, Waiting: l.Waiting, Bytes: l.Bytes, Disk: l.DiskBytes}
		if !l.Oldest.IsZero() {
			one.Oldest = l.Oldest.UnixMilli()
			if whole.Oldest == 0 || one.Oldest < whole.Oldest {
				whole.Oldest = one.Oldest
			}
		}
		k := len(all) - 1
		if k < 0 || all[k].Type != one.Type {
			all = append(all, one)
			continue
		}
		to := &all[k]
		to.Waiting, to.Bytes, to.Disk = to.Waiting+one.Waiting, to.Bytes+one.Bytes, to.Disk+one.Disk
		if to.Oldest == 0 || one.Oldest != 0 && one.Oldest < to.Oldest {
			to.Oldest = one.Oldest
		}
	}
	return all
}

// disk sums up the logs of all queues. The zero value is that of none.
type disk struct {
	logs   int
	bytes  int64
	times  [len(spool.Stats{}.SyncTimes)]uint64
	total  time.Duration
	failed uint64
	lost   uint64
}

func (d *disk) add(logs []spool.Stats) {
	for _, l := range logs {
		if l.Shared {
			continue // it is counted with its topic
		}
		d.logs++
		d.bytes += l.Bytes
		for i, n := range l.SyncTimes {
			d.times[i] += n
		}
		d.total += l.SyncTotal
		d.failed += l.Failed
		d.lost += l.Lost
	}
}

// stats is nil when nothing was on disk.
func (d *disk) stats() *control.DiskStats {
	if d.logs == 0 {
		return nil
	}
	s := &control.DiskStats{Bytes: d.bytes, Errors: d.failed, Lost: d.lost,
		Syncs: control.Histogram{Counts: slices.Clone(d.times[:]), Sum: d.total.Seconds()}}
	for _, b := range spool.SyncBounds() {
		s.Syncs.Bounds = append(s.Syncs.Bounds, b.Seconds())
	}
	return s
}

// tlsMode is how the connection is protected, as the flag -tls calls it.
func tlsMode(cfg *config.Config) string {
	switch {
	case !cfg.UseSSL:
		return "off"
	case cfg.UseToken:
		return "token"
	case cfg.SSLAllowAll:
		return "anonymous"
	case cfg.ServerCA:
		return "ca"
	}
	return "certs"
}

// tlsVersion is the version of TLS of a connection, "" without TLS.
func tlsVersion(conn any) string {
	if t, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return tls.VersionName(t.ConnectionState().Version)
	}
	return ""
}

// problems lists what an operator would want to know.
func (c *Connector) problems() []string {
	list := []string{}
	cfg := c.cfg.Load()
	if !c.running.Load() {
		list = append(list, "the connector is stopped")
	} else if !c.server {
		if b := c.box("", false); b != nil && b.there() == nil {
			text := "not connected to the server " + cfg.ServerAddr.String()
			if why := c.whyAway(); why != "" {
				text += ": " + why
			}
			list = append(list, text)
		} else if why := c.verdict.get(); why != "" {
			list = append(list, "the server refuses the subscriptions: "+why)
		}
	}
	if c.ignoredNow() == true {
		list = append(list, "the messages of all peers are dropped, as ignore-traffic asked for: see aioc-ctl ignore-traffic off")
	}
	for _, crt := range c.certs.list(cfg, c.paths) {
		what := "the certificate of the " + crt.Name
		if crt.Name == "default" {
			what = "the default certificate, with which new clients come,"
		}
		switch left := time.Until(crt.NotAfter); {
		case left <= 0:
			list = append(list, fmt.Sprintf("%s has expired on %s", what, crt.NotAfter.Format(time.DateOnly)))
		case left < soon:
			list = append(list, fmt.Sprintf("%s ends on %s", what, crt.NotAfter.Format(time.DateOnly)))
		}
	}
	list = append(list, SpaceWarnings(cfg)...)
	list = append(list, TargetWarnings(cfg)...)
	if used := c.budget.Used(); int64(used) > cfg.MaxMemoryTotal/10*9 {
		list = append(list, fmt.Sprintf("waiting messages take %d bytes of max_memory_total, which is %d", used, cfg.MaxMemoryTotal))
	}
	if used, limit := c.onDisk.Used(), c.onDisk.Limit(); limit > 0 && used > limit/10*9 {
		list = append(list, fmt.Sprintf("waiting messages take %d bytes of max_size_persistence_total, which is %d", used, limit))
	}
	list = append(list, c.diskProblems()...)
	if n := c.counts.snapshot()["disk: damage found"]; n > 0 {
		list = append(list, "there was damage in what is kept on disk when it was opened, see the log: a damaged segment is kept, with .bad behind its name, when what is intact in it is done")
	}
	return list
}

// whyAway is why a client is not connected, "" if that is not known.
func (c *Connector) whyAway() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil || c.session.dialer == nil {
		return ""
	}
	return c.session.dialer.Failure()
}

// certFiles are the certificates that the connector depends on. They are read
// when their files have changed.
type certFiles struct {
	mu     sync.Mutex
	stamps []fs.FileInfo
	last   []control.CertStats
}

func (f *certFiles) list(cfg *config.Config, paths config.Paths) []control.CertStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names, files []string
	add := func(name, path string) { names, files = append(names, name), append(files, path) }
	if !cfg.UseSSL {
		return []control.CertStats{}
	}
	if cfg.IsServer {
		add("server", paths.ServerCert)
		if cfg.ServerCA {
			add("ca", paths.ServerCACert)
		}
		if ServerIdentity(cfg).Clients != identity.NoCertificates {
			add("default", config.CertificateTree(cfg.CertificatesDir).ServerClientCert("default"))
		}
	} else if !cfg.SSLAllowAll || cfg.UseToken {
		add("client", paths.ClientCert(cfg.ClientName))
		add("server", paths.ClientServerCert)
	}
	now := stamps(files)
	if f.last != nil && slices.EqualFunc(now, f.stamps, sameStamp) {
		return f.last
	}
	f.stamps, f.last = now, []control.CertStats{}
	for i, path := range files {
		if end, ok := certEnd(path); ok {
			f.last = append(f.last, control.CertStats{Name: names[i], NotAfter: end})
		}
	}
	return f.last
}

// certEnd is the end of the first certificate in a PEM file.
func certEnd(path string) (time.Time, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}, false // what is missing is said where it is needed
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if crt, err := x509.ParseCertificate(block.Bytes); err == nil {
			return crt.NotAfter.UTC(), true
		}
	}
	return time.Time{}, false
}

// processStats asks the system and the runtime.
func processStats() control.ProcessStats {
	s := control.ProcessStats{Goroutines: runtime.NumGoroutine(), Files: -1}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() == metrics.KindUint64 {
		s.Memory = int64(sample[0].Value.Uint64())
	}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		s.CPU = float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
		s.Resident = int64(u.Maxrss)
		if runtime.GOOS != "darwin" {
			s.Resident *= 1024 // in KiB there
		}
	}
	if entries, err := os.ReadDir("/dev/fd"); err == nil {
		s.Files = len(entries) - 1 // but for the one that reads them
	}
	return s
}

// countsEvery is how often debug_msg_counts looks.
const countsEvery = 2 * time.Second

// logCounts logs, while debug_msg_counts is set, how many messages passed, each
// time it has changed.
// Differs: the original does so at level INFO, which fills a log with a line
// every two seconds (aioconnectors core.py).
func (c *Connector) logCounts(ctx context.Context) {
	tick := time.NewTicker(countsEvery)
	defer tick.Stop()
	var last [4]uint64
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s := c.totals()
		now := [4]uint64{s.sent, s.received, uint64(s.toSend), uint64(s.toReceive)}
		if now == last {
			continue
		}
		last = now
		c.log.Debug("messages", "sent", s.sent, "received", s.received, "queue_send", s.toSend, "queue_recv", s.toReceive)
	}
}

// totals are sums over all queues.
type totals struct {
	sent, received    uint64
	toSend, toReceive int
}

func (c *Connector) totals() (t totals) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.sent = c.sentBefore
	for _, b := range c.boxes {
		q, _ := b.stats()
		t.sent += q.Done
		t.toSend += q.Waiting + q.InHand
	}
	for _, q := range c.inbox {
		s := q.Stats()
		t.received += s.Put
		t.toReceive += s.Waiting + s.InHand
	}
	return t
}
