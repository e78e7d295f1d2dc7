package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"aioc/lib/access"
	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/connector"
	"aioc/lib/durable"
	"aioc/lib/identity"
	"aioc/lib/peer"
)

// errConfig is what an error is that a change of the configuration corrects.
var errConfig = errors.New("configuration error")

// A mistake is an errConfig whose words say all.
type mistake struct{ err error }

func (m mistake) Error() string        { return m.err.Error() }
func (m mistake) Unwrap() error        { return m.err }
func (m mistake) Is(target error) bool { return target == errConfig }

func mistakef(format string, args ...any) error { return mistake{fmt.Errorf(format, args...)} }

// status is the exit status for why a connector could not start.
func status(err error) int {
	var dns *net.DNSError
	switch {
	case errors.Is(err, errConfig), errors.Is(err, access.ErrProgram), errors.Is(err, identity.ErrMissing), errors.Is(err, identity.ErrDate),
		errors.Is(err, syscall.EADDRNOTAVAIL), errors.As(err, &dns) && dns.IsNotFound:
		return cli.BadConfig
	case errors.Is(err, fs.ErrPermission), errors.Is(err, identity.ErrUnsafe), errors.Is(err, durable.ErrUnsafe):
		return cli.Refused
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cli.Temporary
	}
	return cli.Failed
}

// check is -t. The exit status is that of the first problem, which is the one
// that a start would end with.
func (p *program) check(cfg *config.Config, warnings []string) int {
	paths := cfg.Paths()
	var problems []error
	bad := func(err error) { problems = append(problems, err) }
	var text []byte
	note := func(format string, args ...any) {
		text = append(text, cli.Escape(fmt.Sprintf(format, args...))+"\n"...)
	}
	if p.file != "" {
		note("configuration: %s", p.file)
	} else {
		note("configuration: defaults")
	}
	if err := places(paths); err != nil {
		bad(err)
	} else if _, err := os.Stat(paths.Dir); err != nil {
		note("directory: %s will be made", paths.Dir)
	} else {
		note("directory: %s", paths.Dir)
	}
	if path := logPath(cfg); path != "" {
		note("log: %s", path)
	}
	spools, err := connector.CheckSpools(cfg)
	if err != nil {
		bad(fmt.Errorf("what is kept on disk: %w", err))
	}
	warnings = append(warnings, spools.Warnings...)
	if spools.Logs > 0 {
		note("waiting on disk: %d messages in %d log(s)", spools.Waiting, spools.Logs-spools.Unread)
	}
	if spools.Unread > 0 {
		note("not read: %d more; aioc-ctl spool verify reads all", spools.Unread)
	}
	found, err := connector.CheckIdentity(context.Background(), cfg)
	if err != nil {
		bad(err)
	}
	for _, line := range found {
		note("%s", line)
	}
	if p.server {
		if err := listens(cfg.ServerAddr); err != nil {
			bad(err)
		} else {
			note("listens on: %s", cfg.ServerAddr)
		}
	} else {
		note("name: %s", cfg.ClientName)
		server, key, host := cfg.ServerAddr.String(), "server_sockaddr", cfg.ServerAddr.Host
		if cfg.Proxy.Enabled { // which looks up the server
			server += ", through the proxy " + cfg.Proxy.Addr.String()
			key, host = "proxy", cfg.Proxy.Addr.Host
		}
		if _, err := lookup(key, host); err != nil {
			bad(err)
		} else {
			note("server: %s", server)
		}
		if cfg.Proxy.Enabled && cfg.Proxy.TLS && cfg.ProxyCAFile != "" {
			if err := peer.CheckProxyCA(cfg.ProxyCAFile); err != nil {
				bad(mistake{err})
			}
		}
		if cfg.ClientBindIP != "" {
			if err := local("client_bind_ip", cfg.ClientBindIP); err != nil {
				bad(err)
			} else {
				note("connects from: %s", cfg.ClientBindIP)
			}
		}
	}
	if err := access.CheckPrograms(cfg); err != nil {
		bad(err)
	} else {
		for _, h := range cfg.Hooks() {
			note("%s: %s", h.Key, strings.Join(h.Command, " "))
		}
	}
	for _, w := range warnings {
		cli.Errorf(p.stderr, p.name, "warning: %s", w)
	}
	switch {
	case len(problems) == 0 && len(warnings) == 0:
		note("all is well")
	case len(problems) == 0:
		note("all is well, but for the warnings")
	default:
		cli.Report(p.stderr, p.name, errors.Join(problems...))
	}
	printed := p.print(text)
	if len(problems) > 0 {
		return status(problems[0])
	}
	return printed
}

// places checks the directory and the names in it that a connector uses,
// before anything is made. Its errors say what to do.
func places(paths config.Paths) error {
	info, err := os.Stat(paths.Dir)
	switch {
	case err == nil && !info.IsDir():
		return mistakef("connector_files_dirpath: %q is not a directory: choose another with -dir", paths.Dir)
	case err == nil:
		if err := durable.CheckOwner(paths.Dir); err != nil {
			return fmt.Errorf("connector_files_dirpath: %w", err)
		}
		if err := writable(paths.Dir, paths.Dir); err != nil {
			return err
		}
		return names(paths)
	case errors.Is(err, fs.ErrNotExist):
		return canMake(paths.Dir)
	}
	return unusable(paths.Dir, paths.Dir, err)
}

// canMake checks that the directory dir, which is not there, can be made.
func canMake(dir string) error {
	for missing := dir; ; {
		if _, err := os.Lstat(missing); err == nil {
			return mistakef("connector_files_dirpath: %q is a symbolic link to nothing: remove it, or choose another directory with -dir", missing)
		}
		parent := filepath.Dir(missing)
		info, err := os.Stat(parent)
		switch {
		case err == nil && !info.IsDir():
			return mistakef("connector_files_dirpath: %q is not a directory: choose another with -dir", parent)
		case err == nil:
			if err := durable.CheckParent(parent); err != nil {
				return fmt.Errorf("connector_files_dirpath: %w", err)
			}
			return writable(dir, parent)
		case !errors.Is(err, fs.ErrNotExist) || parent == missing:
			return unusable(dir, parent, err)
		}
		missing = parent
	}
}

// writable checks that this user can make files in the directory at, which is
// dir or where dir is to be made.
func writable(dir, at string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return unusable(dir, at, err)
	}
	return nil
}

// unusable says why the directory dir cannot be used or made: err of the path
// at.
func unusable(dir, at string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	what := fmt.Sprintf("%q cannot be used", dir)
	if at != dir {
		what = fmt.Sprintf("%q cannot be made in %q", dir, at)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("connector_files_dirpath: %s by user %d: %w: choose another with -dir, or run as its owner", what, os.Geteuid(), err)
	case errors.Is(err, syscall.ENOTDIR):
		return mistakef("connector_files_dirpath: %s: a part of the name is not a directory: choose another with -dir", what)
	}
	return mistakef("connector_files_dirpath: %s: %w: choose another with -dir", what, err)
}

// names checks what has the names of the lock and of the sockets.
func names(paths config.Paths) error {
	if info, err := os.Lstat(paths.LockFile); err == nil {
		if !info.Mode().IsRegular() {
			return mistakef("lock %q: is not a regular file: move it away", paths.LockFile)
		}
		if err := unix.Faccessat(unix.AT_FDCWD, paths.LockFile, unix.R_OK|unix.W_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("lock %q: %w: another user ran this connector: run as that user, or choose another directory with -dir", paths.LockFile, err)
		}
	}
	for _, path := range []string{paths.CommanderSocket, paths.OwnSocket, paths.SendSocket} {
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
			return mistakef("socket %q: there is something that is not a socket: move it away", path)
		}
	}
	return nil
}

// lookup returns the addresses of a host: an interface, an address or a name.
func lookup(key, host string) ([]netip.Addr, error) {
	bind, err := config.BindHost(host)
	if err != nil {
		return nil, mistakef("%s: %w", key, err)
	}
	if ip, err := netip.ParseAddr(bind); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", bind)
	if err != nil {
		return nil, mistakef("%s: %w", key, err)
	}
	for i := range all {
		all[i] = all[i].Unmap()
	}
	return all, nil
}

// listens checks, without a socket, that a server can listen there.
func listens(addr config.Addr) error {
	if err := local("server_sockaddr", addr.Host); err != nil {
		return err
	}
	if least := unprivileged(); addr.Port != 0 && addr.Port < least {
		return fmt.Errorf("server_sockaddr: port %d: %w: ports below %d need root or CAP_NET_BIND_SERVICE: choose a higher one", addr.Port, fs.ErrPermission, least)
	}
	return nil
}

// local checks that a host is, or has, an address of this host.
func local(key, host string) error {
	all, err := lookup(key, host)
	if err != nil {
		return err
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return nil // it cannot be told
	}
	for _, ip := range all {
		if ip.IsUnspecified() || ip.Is4() && ip.IsLoopback() && runtime.GOOS == "linux" || nonlocal(ip) {
			return nil
		}
		for _, o := range own {
			if n, ok := o.(*net.IPNet); ok && n.IP.Equal(net.IP(ip.AsSlice())) {
				return nil
			}
		}
	}
	return mistakef("%s: %s is not an address of this host: use one of its addresses or interfaces, or 0.0.0.0 for all", key, host)
}

// nonlocal tells whether the system lets anybody bind to the addresses of
// others, as hosts that take turns with an address do.
func nonlocal(ip netip.Addr) bool {
	family := "ipv4"
	if ip.Is6() {
		family = "ipv6"
	}
	return number("/proc/sys/net/"+family+"/ip_nonlocal_bind", 0) != 0
}

// bindService is CAP_NET_BIND_SERVICE, by its number in Linux.
const bindService = 10

// unprivileged returns the first port that this process may listen on, 0 if
// that cannot be told.
func unprivileged() int {
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(rest, "\n")
	if caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64); err != nil || caps&(1<<bindService) != 0 {
		return 0
	}
	return number("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)
}

// number reads a file that holds one, or returns what to take instead.
func number(path string, other int) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return other
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return other
	}
	return n
}
