package connector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"aioc/lib/access"
	"aioc/lib/broker"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/durable"
	"aioc/lib/fold"
	"aioc/lib/link"
	"aioc/lib/local"
	"aioc/lib/peer"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/transfer"
)

// ErrRunning is wrapped when another connector of the same name runs in the
// directory.
var ErrRunning = errors.New("another connector of this name is running here")

// Options of a connector.
type Options struct {
	Config *config.Config // checked; a client has a name
	Log    *slog.Logger
	Level  *slog.LevelVar // of Log, for the commands that show and change it

	// Listener is the server's socket if a supervisor opened it.
	Listener net.Listener
	// Hooks are asked where the configuration has no program for it, or has
	// one: they go over programs.
	Hooks access.Hooks
	// Ready, if set, is called when the connector can be used: a server
	// listens, a client has a first link or has begun to try again.
	Ready func()
	// Reload, if set, is the command reload: it reads the configuration again
	// and calls the method Reload.
	Reload func() error
	// Sandbox says what the process has shut itself out of, for people.
	Sandbox string
}

// Connector is a daemon: queues, and the pumps that fill and drain them. Make
// one with New, run it once with Run.
type Connector struct {
	// Constant.
	paths    config.Paths
	id       string // our source_id
	server   bool
	level    *slog.LevelVar
	log      *slog.Logger
	fold     *fold.Log
	budget   *queue.Budget
	onDisk   *spool.Quota // of all that waits
	space    *space       // of the disk for it
	commands control.Registry
	listener net.Listener
	ready    func()
	reload   func() error
	sandbox  string
	started  time.Time
	inbox    map[string]*queue.Queue // by message type; the map does not change
	hooks    access.Hooks
	guard    *access.Guard // of a server's lists and hooks
	invalid  error         // the configuration does not let it start
	callerOf func(*net.UnixConn) (local.Caller, error)

	cfg     atomic.Pointer[config.Config]
	keys    atomic.Pointer[credentials] // nil before the first start
	editing sync.Mutex                  // one change of cfg at a time; taken before mu
	counts  counters                    // what was dropped or refused
	events  counters                    // what happened
	certs   certFiles
	flaps   flaps
	// keys that the last Reload could not change, nil before the first
	unchanged atomic.Pointer[[]string]
	reading   atomic.Int64 // bytes of big messages on their way in
	strange   atomic.Int64 // of those, from users who may only send

	running atomic.Bool   // between start and stop
	version atomic.Uint64 // of what decides where messages go; changed by Reload

	waiters waiters
	asked   asked

	landed   memo[landing] // files that landed, by the id of their stage
	choices  memo[string]  // what a hook said of files that come: see chosen
	held     held          // files to send
	copies   copies        // of files to send
	shares   shares        // files to send to several
	passing  passing       // files of which no message has come
	watching watched       // files whose programs want to know how far they are

	dead  graveyard
	table broker.Table  // who subscribes to what, on a broker
	known bool          // that was read from the disk
	order *queue.Order  // of what waits for peers
	grace time.Duration // see unsubscribeGrace

	publishedMu sync.Mutex
	published   map[string]*queue.Topic // what is published of durable types
	saving      sync.Mutex              // one writer of the subscriptions; guards saved
	saved       []byte                  // what is in their file

	verdict verdict // of the server, about what this client subscribes to

	// telling is held while topics change, or a server is told of them: the last
	// that it hears are the newest. Taken before mu.
	telling sync.Mutex

	turn  sync.Mutex // one start or stop at a time; taken before mu
	ended bool       // Run ends: no start any more; guarded by turn

	mu         sync.Mutex // guards what follows
	boxes      map[string]*outbox
	sentBefore uint64 // messages that went to outboxes that are forgotten
	diskBefore disk   // what was written for them
	ignore     config.Ignore
	topics     []string    // what this client subscribes to
	session    *session    // nil while stopped
	strangers  map[int]int // connections of users who may only send, by uid
	madeUp     int         // outboxes that such users have named and nobody has come for
	shutdown   func()      // ends Run
}

// session is what runs between start and stop.
type session struct {
	cancel  context.CancelFunc
	all     sync.WaitGroup     // intakes and pumps
	outs    sync.WaitGroup     // outlets
	pumped  context.Context    // ends with the links
	intakes context.CancelFunc // ends what takes messages from local programs
	pumps   context.CancelFunc // ends the links, and what intakes ends
	outlets context.CancelFunc // ends what gives messages to local programs
	dialer  *peer.Dialer       // a client's
}

// New returns a connector. It opens nothing.
func New(o Options) *Connector {
	cfg := o.Config
	c := &Connector{
		paths:     cfg.Paths(),
		id:        cfg.ID(),
		server:    cfg.IsServer,
		level:     o.Level,
		log:       o.Log,
		fold:      fold.New(o.Log),
		budget:    queue.NewBudget(int(cfg.MaxMemoryTotal)),
		onDisk:    spool.NewQuota(cfg.PersistenceTotal()),
		space:     &space{dir: cfg.Paths().Dir},
		listener:  o.Listener,
		reload:    o.Reload,
		sandbox:   o.Sandbox,
		started:   time.Now(),
		callerOf:  local.CallerOf,
		ready:     sync.OnceFunc(func() {}),
		inbox:     map[string]*queue.Queue{},
		boxes:     map[string]*outbox{},
		published: map[string]*queue.Topic{},
		order:     new(queue.Order),
		grace:     unsubscribeGrace,
		ignore:    cfg.IgnoreTraffic,
		topics:    cfg.SubscribeTypes,
		strangers: map[int]int{},
	}
	if o.Ready != nil {
		c.ready = sync.OnceFunc(o.Ready)
	}
	c.cfg.Store(cfg)
	c.copies.kept = transfer.KeptIn(c.paths.SpoolCopies)
	c.shares.dir = c.paths.SpoolShared
	for _, typ := range cfg.RecvTypes {
		q := queue.New(int(cfg.MaxMemoryPerQueue), c.budget, nil)
		c.keep(q, "", cfg.PersistRecv, func(string) string { return c.paths.SpoolFrom(typ) })
		c.inbox[typ] = q
	}
	if !c.server {
		c.boxes[cfg.PeerID()] = newOutbox(c, cfg.PeerID())
	}
	c.invalid = c.openAccess(cfg, o.Hooks)
	c.addCommands()
	c.addAccessCommands()
	c.addOwnCommands()
	c.commands.Add(c.deadCommands()...)
	return c
}

// Run runs the connector until ctx ends, then stops it gracefully: what local
// programs have handed over is passed on for at most grace. It returns nil
// then, or the reason why it could not start.
func (c *Connector) Run(ctx context.Context, grace time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.shutdown = cancel
	c.mu.Unlock()

	if c.listener != nil {
		defer c.listener.Close()
	}
	if err := durable.MkdirAll(c.paths.Dir, 0o755); err != nil {
		return err
	}
	if err := durable.CheckOwner(c.paths.Dir); err != nil {
		return err
	}
	lock, err := durable.Lock(c.paths.LockFile)
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("%w: %s is locked", ErrRunning, c.paths.LockFile)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	c.loadTable()
	if err := c.openSpools(); err != nil {
		return err
	}
	c.importLeftovers()

	commander, err := local.Listen(c.paths.CommanderSocket, local.Options{Mode: 0o660})
	if err != nil {
		return running(err)
	}
	defer commander.Close()
	own, err := local.Listen(c.paths.OwnSocket, local.Options{Mode: c.sendMode()})
	if err != nil {
		return running(err)
	}
	defer own.Close()

	// Who is quick waits in the backlog of the sockets until all is there. They
	// outlive a stop, so that a start can be asked for.
	if err := c.start(ctx); err != nil {
		return err
	}
	sockets, closeSockets := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	defer all.Wait()
	defer closeSockets()
	all.Go(func() { commander.Serve(sockets, c.serveCommander) })
	all.Go(func() { own.Serve(sockets, c.serveOwn) })
	if c.cfg.Load().DebugMessageCounts {
		all.Go(func() { c.logCounts(sockets) })
	}
	<-ctx.Done()
	c.stop(grace)
	closeSockets()
	all.Wait() // programs give back what they have in hand
	c.close()
	c.fold.Close()
	c.counts.report(c.log)
	return nil
}

// running turns a socket that is in use into ErrRunning.
func running(err error) error {
	if errors.Is(err, local.ErrInUse) {
		return fmt.Errorf("%w: %w", ErrRunning, err)
	}
	return err
}

// sendMode is the mode of the sockets that take messages.
func (c *Connector) sendMode() os.FileMode {
	if c.cfg.Load().EverybodyCanSend {
		return 0o666
	}
	return 0o660
}

// start opens what stop closes. It does nothing when it is running.
func (c *Connector) start(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.ended {
		return errors.New("the connector is shutting down")
	}
	c.mu.Lock()
	open := c.session != nil // it changes in our turn only
	c.mu.Unlock()
	if open {
		return nil
	}
	cfg := c.cfg.Load()
	if c.invalid != nil {
		return c.invalid
	}
	if err := access.CheckPrograms(cfg); err != nil {
		return err
	}
	o := peer.Options{Config: cfg, Log: c.log, Refused: func(reason string) { c.counts.add("peer refused: "+reason, 1) }}
	c.cleanUp(cfg)
	keys, err := c.openCredentials(ctx, cfg)
	if err != nil {
		return err
	}
	c.keys.Store(&keys)
	o.Server, o.Tokens, o.Client, o.Token = keys.server, keys.tokens, keys.client, keys.token
	if keys.server != nil {
		o.TLS = keys.server.TLS() // follows the files
	}
	c.mu.Lock() // not before: hooks may have asked us something
	defer c.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	ctx, cancel := context.WithCancel(ctx)
	outletCtx, outlets := context.WithCancel(ctx)
	pumpCtx, pumps := context.WithCancel(ctx)
	intakeCtx, intakes := context.WithCancel(pumpCtx)
	o.Admit, o.ProxyAuthorization = c.admit(pumpCtx), c.hooks.ProxyAuthorization
	s := &session{cancel: cancel, pumped: pumpCtx, intakes: intakes, pumps: pumps, outlets: outlets}

	send, err := local.Listen(c.paths.SendSocket, local.Options{Mode: c.sendMode(), Shared: cfg.EverybodyCanSend})
	if err != nil {
		cancel()
		return running(err)
	}
	if c.server {
		if c.listener != nil { // of a supervisor: for this start, and others
			if o.Listener, err = again(c.listener); err != nil {
				send.Close()
				cancel()
				return err
			}
		}
		ln, err := peer.Listen(ctx, o)
		if err != nil {
			send.Close()
			cancel()
			return err
		}
		c.log.Info("listening", "addr", ln.Addr().String())
		// New links end with the intakes, so that stopping can drain.
		s.all.Go(func() { c.serveLinks(intakeCtx, pumpCtx, ln) })
	} else {
		s.dialer = peer.NewDialer(o)
		s.all.Go(func() { c.dialLinks(pumpCtx, s.dialer) })
	}
	if paths := c.watched(cfg); len(paths) > 0 {
		s.all.Go(func() { c.watch(pumpCtx, paths) })
	}
	s.all.Go(func() { send.Serve(intakeCtx, c.serveSender) })
	for typ, q := range c.inbox {
		s.outs.Go(func() { c.serveReceivers(outletCtx, typ, q) })
	}
	c.session = s
	c.running.Store(true)
	c.events.add("start", 1)
	c.setActive(true)
	s.all.Go(func() { c.sweepFiles(pumpCtx) })
	for _, b := range c.boxes {
		s.all.Go(func() { c.sendFiles(b) }) // what waits since the last time
	}
	if c.server {
		c.ready()
	}
	return nil
}

// again returns another listener on the same socket.
func again(ln net.Listener) (net.Listener, error) {
	l, ok := ln.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("socket of the service manager: %s is not a stream socket", ln.Addr().Network())
	}
	f, err := l.File()
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager: %w", err)
	}
	defer f.Close()
	return net.FileListener(f)
}

// stop ends what start began. For at most grace, messages that were taken are
// still passed on.
func (c *Connector) stop(grace time.Duration) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.mu.Lock()
	s := c.session
	c.session = nil
	c.running.Store(false)
	boxes := make([]*outbox, 0, len(c.boxes))
	for _, b := range c.boxes {
		boxes = append(boxes, b)
	}
	c.mu.Unlock()
	if s == nil {
		return
	}
	c.log.Info("stopping")
	s.intakes()
	timeout, done := context.WithTimeout(context.Background(), grace)
	c.drainPeers(timeout, boxes)
	c.finishPeers(timeout, boxes)
	s.pumps()
	s.all.Wait()
	c.drainPrograms(timeout)
	done()
	s.outlets()
	s.outs.Wait()
	s.cancel()
	c.setActive(false)
	c.log.Info("stopped")
}

// drainPeers waits until nothing waits for a peer that is connected, or time is
// up. A client that can keep nothing on disk also waits for its server to come
// back; to a stopping server no client comes back.
func (c *Connector) drainPeers(ctx context.Context, boxes []*outbox) {
	for _, b := range boxes {
		for _, q := range []*queue.Queue{b.waitingFiles(), b.q} { // a file's message comes last
			if q == nil {
				continue
			}
			if l := b.current(); l != nil {
				drain(ctx, q, l.l.Done())
			}
			if !c.server && !c.keeps() {
				drain(ctx, q, nil)
			}
		}
	}
}

// finishPeers closes the links to the peers, after the acknowledgements of what
// was taken from them: they would send it again.
func (c *Connector) finishPeers(ctx context.Context, boxes []*outbox) {
	if ctx.Err() != nil {
		return
	}
	var links []*link.Link
	for _, b := range boxes {
		if p := b.current(); p != nil {
			p.unsubscribeAll()
			p.l.Finish()
			links = append(links, p.l)
		}
	}
	for _, l := range links {
		select {
		case <-l.Done():
		case <-ctx.Done():
		}
	}
}

// drainPrograms waits until nothing waits for programs that receive, or time
// is up. For a type that nobody receives it only waits if what is left cannot be
// kept on disk.
func (c *Connector) drainPrograms(ctx context.Context) {
	for _, q := range c.inbox {
		if q.Takers() > 0 || !c.keeps() {
			drain(ctx, q, nil)
		}
	}
}

// drain waits until the queue is empty, ctx ends or gone is closed.
func drain(ctx context.Context, q *queue.Queue, gone <-chan struct{}) {
	empty := make(chan struct{})
	q.OnEmpty(func() { close(empty) })
	select {
	case <-empty:
	case <-gone:
	case <-ctx.Done():
	}
}

// close discards what is left and says so.
func (c *Connector) close() {
	defer c.closeDead()
	c.turn.Lock()
	c.ended = true
	c.turn.Unlock()
	c.stop(0) // what a command has started meanwhile
	c.mu.Lock()
	boxes := c.boxes
	c.boxes = map[string]*outbox{}
	c.mu.Unlock()
	defer c.held.close()
	for name, b := range boxes {
		n := b.q.Close()
		if files := b.waitingFiles(); files != nil {
			n += files.Close()
		}
		if n > 0 {
			c.log.Warn("messages lost: they were in memory only", "peer", name, "n", n)
		}
	}
	for _, t := range c.allTopics() {
		t.Close()
	}
	for typ, q := range c.inbox {
		if n := q.Close(); n > 0 {
			c.log.Warn("messages lost: they were in memory only", "type", typ, "n", n)
		}
	}
}

// Reload reads the configuration file and the certificates again. What can
// change while running does; for the rest the process must be ended and started
// again, which is logged.
// With an error everything stays as it was.
func (c *Connector) Reload(next *config.Config) error {
	if keys := c.keys.Load(); keys != nil {
		if err := keys.reload(context.Background()); err != nil {
			return err
		}
	}
	if err := c.takeLists(next); err != nil {
		return err
	}
	if level, err := cli.ParseLevel(next.LogLevel); err == nil {
		c.level.Set(level)
	}
	var unchanged []string
	for _, key := range changed(c.cfg.Load(), next) {
		switch key {
		case "default_logger_log_level", "send_message_types", "ignore_peer_traffic", "subscribe_message_types":
		default:
			if !slices.Contains(access.Keys(), key) {
				unchanged = append(unchanged, key)
				c.log.Warn("changed key not used: end the process and start it again", "key", key)
			}
		}
	}
	c.unchanged.Store(&unchanged)
	subscribe := false
	c.editConfig(func(cfg *config.Config) {
		if subscribe = !c.server && !slices.Equal(cfg.SubscribeTypes, next.SubscribeTypes); subscribe {
			cfg.SubscribeTypes = next.SubscribeTypes
		}
		cfg.SendTypes = next.SendTypes
		cfg.LogLevel = next.LogLevel
		cfg.IgnoreTraffic = next.IgnoreTraffic
	})
	c.mu.Lock()
	c.ignore = next.IgnoreTraffic
	c.mu.Unlock()
	c.version.Add(1)
	if subscribe {
		c.setSubscriptions(next.SubscribeTypes)
	}
	c.recheck()
	c.events.add("reload", 1)
	c.log.Info("configuration read again")
	return nil
}
