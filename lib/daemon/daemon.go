// Package daemon is the command line that aioc-server and aioc-client share:
// flags, checks, signals, the service manager.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/connector"
	"aioc/lib/durable"
)

// program is one of the two daemons while its command line is handled.
type program struct {
	name   string
	server bool
	stdout io.Writer
	stderr io.Writer
	set    *cli.Set

	file      string // "" is none
	named     bool   // the command line names it, not AIOC_CONFIG
	config    *string
	dir       *string
	addr      *string
	client    *string
	tls       *string
	broker    *bool     // a server's
	subscribe *[]string // a client's
	values    *[]string
	verbose   *bool
	tokens    bool // use_token, before -tls
}

// Run is the main function of a daemon: server tells which. It returns the
// exit status.
func Run(server bool, args []string, stdout, stderr io.Writer) int {
	p := &program{name: "aioc-client", server: server, stdout: stdout, stderr: stderr}
	if server {
		p.name = "aioc-server"
	}
	p.set = cli.New(p.name, "[flags] [FILE]", stdout, stderr)
	p.config = p.set.Config()
	p.dir = p.set.Dir()
	p.tls = p.set.String("tls", "", "MODE", "how the connection is protected: certs, ca, token, anonymous or off")
	p.values = p.set.Values("set", "KEY=JSON", "set any key of the configuration; may be repeated")
	if server {
		p.addr = p.set.String("addr", "", "HOST:PORT", "address to listen on")
		p.broker = p.set.Bool("broker", "forward publications to their subscribers")
	} else {
		p.addr = p.set.String("addr", "", "HOST:PORT", "address of the server")
		p.client = p.set.String("name", "", "NAME", "name of this client")
		p.subscribe = p.set.List("subscribe", "TYPE", "message type to subscribe to, repeatable or with commas")
	}
	test := p.set.Bool("t", "check everything, without opening a socket or writing a byte")
	printConfig := p.set.Bool("print-config", "print the effective configuration as JSON")
	template := p.set.Bool("template", "print the default configuration as JSON")
	format := p.set.String("log", "text", "FORMAT", "format of the log on stderr: text or json")
	p.verbose = p.set.Bool("v", "log more: level DEBUG")
	grace := p.set.Duration("grace", 10*time.Second, "D", "how long to pass on what was taken when ended by a signal")

	rest, status, done := p.set.Parse(args)
	if done {
		return status
	}
	if mistake := p.contradiction(rest, *test, *printConfig, *template); mistake != nil {
		return p.set.Mistake("%w", mistake)
	}
	if *template {
		return p.print(p.template())
	}
	p.file, p.named = *p.config, p.set.Given("config")
	if len(rest) == 1 {
		p.file, p.named = rest[0], true
	}
	errFile, _ := stderr.(*os.File)
	logFormat, err := cli.ParseLogFormat(*format, errFile)
	if err != nil {
		return p.set.Mistake("-log: %w", err)
	}
	cfg, warnings, status := p.load()
	if cfg == nil {
		return status
	}
	if *printConfig {
		return p.print(cfg.AppendJSON(nil))
	}
	warnings = append(warnings, connector.IdentityWarnings(cfg)...)
	warnings = append(warnings, connector.SpaceWarnings(cfg)...)
	warnings = append(warnings, connector.TargetWarnings(cfg)...)
	warnings = append(warnings, logWarnings(cfg)...)
	if *test {
		return p.check(cfg, warnings)
	}
	var level slog.LevelVar
	if l, err := cli.ParseLevel(cfg.LogLevel); err == nil {
		level.Set(l)
	}
	return p.serve(cfg, warnings, logFormat, &level, *grace)
}

// contradiction returns what is wrong with the command line as a whole.
func (p *program) contradiction(rest []string, test, printConfig, template bool) error {
	switch {
	case len(rest) > 1 && strings.HasPrefix(rest[1], "-"):
		return fmt.Errorf("%s after the file %q: flags come before the file", rest[1], rest[0])
	case len(rest) > 1:
		return fmt.Errorf("one configuration file only, not also %q", rest[1])
	case len(rest) == 1 && p.set.Given("config"):
		return errors.New("-config can't be used with a FILE argument")
	case len(rest) == 1 && rest[0] == "":
		return errors.New("the name of the configuration file is empty")
	case template && printConfig:
		return errors.New("-template can't be used with -print-config: the one prints the defaults, the other what is in effect")
	case template && test:
		return errors.New("-template can't be used with -t: it reads nothing that could be checked")
	case printConfig && test:
		return errors.New("-print-config can't be used with -t: use one after the other")
	}
	for _, name := range []string{"config", "dir", "addr", "name", "tls"} {
		if f := p.text(name); f != nil && *f == "" && p.set.Given(name) {
			return fmt.Errorf("-%s: the value is empty: leave the flag out, or give it one", name)
		}
	}
	return nil
}

// text returns the value of a flag, nil if this daemon does not have it.
func (p *program) text(name string) *string {
	switch name {
	case "config":
		return p.config
	case "dir":
		return p.dir
	case "addr":
		return p.addr
	case "name":
		return p.client
	}
	return p.tls
}

// print writes text to standard output.
func (p *program) print(text []byte) int {
	if _, err := p.stdout.Write(text); err != nil {
		cli.Errorf(p.stderr, p.name, "standard output: %w", err)
		return status(err)
	}
	return cli.OK
}

func (p *program) template() []byte {
	if p.server {
		return config.Template()
	}
	c := config.Defaults()
	c.IsServer = false
	return c.AppendJSON(nil)
}

// load makes the configuration from the file and the flags and checks it. On a
// mistake it has reported all of them, and cfg is nil.
func (p *program) load() (cfg *config.Config, warnings []string, status int) {
	cfg = config.Defaults()
	var err error
	if p.file != "" {
		if cfg, err = config.Load(p.file); err != nil {
			cli.Report(p.stderr, p.name, err)
			return nil, nil, cli.BadConfig
		}
		if cfg.Given("is_server") && cfg.IsServer != p.server {
			cli.Errorf(p.stderr, p.name, "config %q: is_server: %v: this is %s: run %s instead", p.file, cfg.IsServer, p.name, p.other())
			return nil, nil, cli.BadConfig
		}
	}
	cfg.IsServer = p.server
	own := ""
	if cfg.Given("connector_files_dirpath") {
		own = cfg.Dir()
	}
	if mistake := p.flags(cfg); mistake != nil {
		return nil, nil, p.set.Mistake("%w", mistake)
	}
	if own != "" && own != cfg.Dir() && *p.dir != "" && !p.set.Given("dir") && !p.named {
		warnings = append(warnings, "AIOC_DIR, "+cfg.Dir()+", comes before connector_files_dirpath of the file of AIOC_CONFIG, "+own+": unset it, or say -dir")
	}
	if p.tokens && (*p.tls == "anonymous" || *p.tls == "off") {
		warnings = append(warnings, "use_token has no effect: -tls "+*p.tls+" overrides it, and clients need not prove who they are")
	}
	if !p.server && cfg.ClientName == "" {
		cfg.ClientName = config.DefaultName()
		warnings = append(warnings, "no client_name: called "+cfg.ClientName+" this time; give it one with -name")
	}
	problems := cfg.Check()
	if len(problems) > 0 {
		cli.Report(p.stderr, p.name, errors.Join(problems...))
		return nil, nil, cli.BadConfig
	}
	return cfg, append(warnings, cfg.Warnings()...), cli.OK
}

// flags applies the flags that override the file.
func (p *program) flags(cfg *config.Config) error {
	// What the file says goes before the environment, if the command line names
	// the file.
	inFile := p.named && cfg.Given("connector_files_dirpath")
	for _, v := range *p.values {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return fmt.Errorf("-set %s: want KEY=JSON", v)
		}
		if key == "is_server" {
			return fmt.Errorf("-set is_server: run %s instead", p.other())
		}
		if err := cfg.Set(key, []byte(value)); err != nil {
			return fmt.Errorf("-set %w", err)
		}
		inFile = inFile || key == "connector_files_dirpath"
	}
	if *p.dir != "" && (p.set.Given("dir") || !inFile) {
		if err := cfg.SetDir(*p.dir); err != nil {
			return fmt.Errorf("-dir: %w", err)
		}
	}
	if *p.addr != "" {
		addr, err := config.ParseAddr(*p.addr)
		if err != nil {
			return fmt.Errorf("-addr: %w", err)
		}
		cfg.ServerAddr = addr
	}
	if p.client != nil && *p.client != "" {
		if err := config.ValidClientName(*p.client); err != nil {
			return fmt.Errorf("-name: %w", err)
		}
		cfg.ClientName = *p.client
	}
	if *p.verbose {
		cfg.LogLevel = cli.LevelName(slog.LevelDebug)
	}
	if p.broker != nil && p.set.Given("broker") {
		cfg.Broker = *p.broker
	}
	if p.subscribe != nil && p.set.Given("subscribe") {
		cfg.SubscribeTypes = *p.subscribe
		for _, t := range cfg.SubscribeTypes {
			if !slices.Contains(cfg.RecvTypes, t) {
				cfg.RecvTypes = append(cfg.RecvTypes, t)
			}
		}
	}
	p.tokens = cfg.UseToken
	switch *p.tls {
	case "":
	case "certs":
		cfg.UseSSL, cfg.SSLAllowAll, cfg.UseToken, cfg.ServerCA = true, false, false, false
	case "ca":
		cfg.UseSSL, cfg.SSLAllowAll, cfg.UseToken, cfg.ServerCA = true, false, false, true
	case "token":
		cfg.UseSSL, cfg.SSLAllowAll, cfg.UseToken, cfg.ServerCA = true, true, true, false
	case "anonymous":
		cfg.UseSSL, cfg.SSLAllowAll, cfg.UseToken, cfg.ServerCA = true, true, false, false
	case "off":
		cfg.UseSSL, cfg.SSLAllowAll, cfg.UseToken, cfg.ServerCA = false, false, false, false
	default:
		return fmt.Errorf("-tls %s: want certs, ca, token, anonymous or off", *p.tls)
	}
	return nil
}

// serve runs the connector until a signal ends it.
func (p *program) serve(cfg *config.Config, warnings []string, format cli.LogFormat, level *slog.LevelVar, grace time.Duration) int {
	if err := places(cfg.Paths()); err != nil {
		cli.Report(p.stderr, p.name, err)
		return status(err)
	}
	log, logFile, err := openLog(cfg, p.stderr, format, level)
	if err != nil {
		cli.Report(p.stderr, p.name, err)
		return status(err)
	}
	if logFile != nil {
		defer logFile.Close()
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	listener, err := activated(p.server)
	if err != nil {
		cli.Report(p.stderr, p.name, err)
		return cli.Failed
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1)
	signal.Ignore(syscall.SIGPIPE)
	defer signal.Stop(signals)

	notify := func(state string) {
		if err := cli.Notify(state); err != nil {
			log.Warn("service manager not told", "err", err)
		}
	}
	var c *connector.Connector
	var reloading sync.Mutex // one at a time, by a signal or by a command
	reload := func() error {
		reloading.Lock()
		defer reloading.Unlock()
		notify("RELOADING=1")
		defer notify("READY=1")
		return p.reload(c, log)
	}
	limits, err := p.enclose(cfg, log)
	if err != nil {
		cli.Report(p.stderr, p.name, err)
		return status(err)
	}
	c = connector.New(connector.Options{
		Config: cfg, Log: log, Level: level, Listener: listener, Reload: reload, Sandbox: limits,
		Ready: func() { notify("READY=1\nSTATUS=running as " + cfg.ID()) },
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, grace) }()

	// Not in the loop below: a hook that is asked for a token may take its time, and
	// neither the end nor the watchdog must wait for it.
	hangups := make(chan struct{}, 1)
	defer close(hangups)
	go func() {
		for range hangups {
			_ = reload() // it has logged why
		}
	}()

	var watchdog <-chan time.Time
	if every, ok := cli.WatchdogInterval(); ok {
		t := time.NewTicker(every / 2)
		defer t.Stop()
		watchdog = t.C
	}
	stopping := false
	for {
		select {
		case err := <-ended:
			if err != nil {
				cli.Report(p.stderr, p.name, p.explain(err))
				return status(err)
			}
			return cli.OK
		case <-watchdog:
			if c.Alive() {
				notify("WATCHDOG=1")
			}
		case s := <-signals:
			if s == syscall.SIGUSR1 {
				reopen(logFile, log)
				continue
			}
			if s == syscall.SIGHUP {
				select {
				case hangups <- struct{}{}:
				default: // one that has not begun will read what is there now
				}
				continue
			}
			if stopping || s == syscall.SIGQUIT {
				log.Warn("ended at once by a signal", "signal", s.String())
				return cli.Signaled(int(s.(syscall.Signal)))
			}
			stopping = true
			notify("STOPPING=1\nSTATUS=stopping")
			log.Info("ended by a signal", "signal", s.String())
			stop()
		}
	}
}

// enclose gives up the rights that the daemon does not need.
func (p *program) enclose(cfg *config.Config, log *slog.Logger) (string, error) {
	if err := durable.MkdirAll(cfg.Dir(), 0o755); err != nil {
		return "", err
	}
	text, err := sandbox(cfg)
	if err == nil {
		log.Info("sandbox", "limits", text)
	}
	return text, err
}

// reopen is SIGUSR1. Without a log file there is nothing to do.
func reopen(file *cli.LogFile, log *slog.Logger) {
	if file == nil {
		return
	}
	if err := file.Reopen(); err != nil {
		log.Error("log file not opened again: the old one goes on", "err", err)
		return
	}
	log.Info("log file opened again")
}

// explain adds to why a connector could not start what to do, as far as that
// depends on the flags.
func (p *program) explain(err error) error {
	if !errors.Is(err, connector.ErrRunning) {
		return err
	}
	if p.server {
		return fmt.Errorf("%w: end that one, or give this one another address with -addr or directory with -dir", err)
	}
	return fmt.Errorf("%w: end that one, or give this one another name with -name or directory with -dir; names that differ in punctuation only have the same sockets", err)
}

// other is the name of the other daemon.
func (p *program) other() string {
	if p.server {
		return "aioc-client"
	}
	return "aioc-server"
}

// reload reads the configuration again: a bad file leaves everything as it is.
func (p *program) reload(c *connector.Connector, log *slog.Logger) error {
	next := config.Defaults()
	var err error
	if p.file != "" {
		next, err = config.Load(p.file)
	}
	if err == nil {
		next.IsServer = p.server
		if err = p.flags(next); err == nil {
			if !p.server && next.ClientName == "" {
				next.ClientName = c.ID()
			}
			err = errors.Join(next.Check()...)
		}
	}
	if err == nil {
		err = c.Reload(next)
	}
	if err != nil {
		log.Error("configuration not read again: the old one stays", "err", err)
	}
	return err
}

// activated returns the listening socket that the service manager hands over.
func activated(server bool) (net.Listener, error) {
	files, err := cli.Listeners()
	if err != nil || len(files) == 0 {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if !server || len(files) > 1 {
		return nil, fmt.Errorf("the service manager hands over %d sockets: only aioc-server takes one, one only", len(files))
	}
	ln, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("socket of the service manager: %w", err)
	}
	return ln, nil
}
