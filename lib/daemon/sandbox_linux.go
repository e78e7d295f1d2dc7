package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"aioc/lib/config"
)

// Rights of Landlock by the version of its interface in which they came.
const (
	fsFirst  = unix.LANDLOCK_ACCESS_FS_EXECUTE | fsWrite
	fsWrite  = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | fsMake
	fsMake   = unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | fsDevice
	fsDevice = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO
	netAll   = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP

	ruleNetPort = 2 // LANDLOCK_RULE_NET_PORT
)

// netPort is struct landlock_net_port_attr.
type netPort struct{ access, port uint64 }

// sandbox gives up what the daemon does not need and says what that is. The
// directories that it writes to should exist. Nothing can be taken back.
func sandbox(cfg *config.Config) (string, error) {
	if !cfg.Sandbox {
		return "off: the key sandbox is false", nil
	}
	if names := hooks(cfg); len(names) > 0 {
		return "off: " + strings.Join(names, ", ") + " may run any program", nil
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return "off: this program was built with cgo", nil
		}
		return "", fmt.Errorf("sandbox: no_new_privs: %w", err)
	}
	version, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
	case unix.ENOSYS, unix.EOPNOTSUPP:
		return "no_new_privs; this kernel has no Landlock", nil
	default: // a filter of system calls, as containers have
		return fmt.Sprintf("no_new_privs; no Landlock here: %v", errno), nil
	}
	rights := unix.LandlockRulesetAttr{Access_fs: fsFirst}
	below := uint64(fsWrite &^ fsDevice)
	if version >= 2 {
		rights.Access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
		below |= unix.LANDLOCK_ACCESS_FS_REFER
	} else {
		return "no_new_privs; the Landlock of this kernel is too old", nil // sockets are renamed into place
	}
	if version >= 3 {
		rights.Access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
		below |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	size := unsafe.Sizeof(rights.Access_fs)
	if version >= 4 {
		rights.Access_net = netAll
		size += unsafe.Sizeof(rights.Access_net)
	}
	fd, _, errno := syscall.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rights)), size, 0)
	if errno != 0 {
		return "", fmt.Errorf("sandbox: landlock: %w", errno)
	}
	ruleset := os.NewFile(fd, "landlock")
	defer ruleset.Close()
	dirs, err := allowFiles(fd, cfg, below)
	if err != nil {
		return "", err
	}
	text := "no_new_privs, no programs, writes below " + strings.Join(dirs, " ")
	if rights.Access_net != 0 {
		if err := allowPorts(fd, cfg); err != nil {
			return "", err
		}
		if cfg.IsServer {
			text += ", connects to nothing"
		} else {
			text += ", connects to its server only"
		}
	}
	if err := allThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); err != nil {
		return "", fmt.Errorf("sandbox: landlock: %w", err)
	}
	return text, nil
}

// allowFiles adds the directories to a ruleset, and returns them.
func allowFiles(ruleset uintptr, cfg *config.Config, rights uint64) (dirs []string, err error) {
	for _, dir := range writesBelow(cfg) {
		// Of one that is not there yet, where it will be made.
		for {
			info, err := os.Stat(dir)
			if err == nil && info.IsDir() || dir == "/" {
				break
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				return nil, fmt.Errorf("sandbox: %w", err)
			}
			dir = filepath.Dir(dir)
		}
		dirs = append(dirs, dir)
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	for _, dir := range dirs {
		if err := allow(ruleset, dir, rights); err != nil {
			return nil, err
		}
	}
	return dirs, allow(ruleset, os.DevNull, unix.LANDLOCK_ACCESS_FS_WRITE_FILE)
}

func allow(ruleset uintptr, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: %s: %w", path, err)
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := syscall.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("sandbox: %s: %w", path, errno)
	}
	return nil
}

// allowPorts lets a server listen on its port, and a client connect to that of
// its server, of its proxy and of the domain name system.
func allowPorts(ruleset uintptr, cfg *config.Config) error {
	rules := []netPort{{unix.LANDLOCK_ACCESS_NET_BIND_TCP, uint64(cfg.ServerAddr.Port)}}
	if !cfg.IsServer {
		rules = []netPort{{unix.LANDLOCK_ACCESS_NET_BIND_TCP, 0}} // client_bind_ip
		ports := []int{cfg.ServerAddr.Port, 53}
		if cfg.Proxy.Enabled {
			ports = append(ports, cfg.Proxy.Addr.Port)
		}
		for _, p := range ports {
			rules = append(rules, netPort{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(p)})
		}
	}
	for _, r := range rules {
		if _, _, errno := syscall.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, ruleset, ruleNetPort, uintptr(unsafe.Pointer(&r)), 0, 0, 0); errno != 0 {
			return fmt.Errorf("sandbox: port %d: %w", r.port, errno)
		}
	}
	return nil
}

// allThreads makes a system call in every thread of the process.
func allThreads(trap, a, b, c uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(trap, a, b, c)
	if errno != 0 {
		return errno
	}
	return nil
}
