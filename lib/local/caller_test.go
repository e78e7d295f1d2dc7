package local

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The caller is known by what the kernel says. As root, another user is tried
// too; others can only be themselves.
func TestTheCallerIsWhoOpenedTheConnection(t *testing.T) {
	type caller struct {
		name    string
		uid     int
		gid     int
		env     []string
		trusted bool
	}
	callers := []caller{{"this user", os.Geteuid(), os.Getegid(), nil, true}}
	if os.Geteuid() == 0 {
		uid, gid := nobody(t)
		as := func(uid, gid int) []string {
			return []string{dialUID + "=" + strconv.Itoa(uid), dialGID + "=" + strconv.Itoa(gid)}
		}
		callers = append(callers, caller{"nobody", uid, gid, as(uid, gid), false},
			caller{"nobody, of our group", uid, 0, as(uid, 0), true},
			caller{"nobody, a member of our group", uid, gid, append(as(uid, gid), dialGroups+"=1"), true},
			caller{"nobody, in more groups than most", uid, gid, append(as(uid, gid), dialGroups+"=500"), true})
	}
	for _, tt := range callers {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(newDir(t), "socket")
			l := mustListen(t, path, Options{Mode: 0o666})
			cmd := again(t, append(tt.env, dialPath+"="+path)...)
			var out bytes.Buffer
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			c, err := l.ln.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			got, err := CallerOf(c)
			c.Close()
			if err != nil || got.UID != tt.uid || got.GID != tt.gid {
				t.Errorf("got %+v, %v, want %d:%d", got, err, tt.uid, tt.gid)
			}
			if got.Trusted() != tt.trusted {
				t.Errorf("trusted %v, want %v", got.Trusted(), tt.trusted)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("the caller: %v: %s", err, out.String())
			}
		})
	}
}

// The mode of the socket keeps other users out. As root that can be tried.
func TestTheModeDecidesWhoMayConnect(t *testing.T) {
	if os.Geteuid() != 0 {
		path := filepath.Join(newDir(t), "socket")
		mustListen(t, path, Options{Mode: 0})
		if _, err := net.Dial("unix", path); err == nil {
			t.Error("a socket of mode 0 took a connection")
		}
		return
	}
	uid, gid := nobody(t)
	path := filepath.Join(newDir(t), "socket")
	mustListen(t, path, Options{Mode: 0o660})
	out, err := again(t, dialPath+"="+path, dialUID+"="+strconv.Itoa(uid), dialGID+"="+strconv.Itoa(gid)).Output()
	if err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("nobody got %v, %q, want permission denied", err, out)
	}
}

func TestTheCallerOfAClosedConnectionIsAnError(t *testing.T) {
	path := filepath.Join(newDir(t), "socket")
	mustListen(t, path, Options{Mode: 0o600})
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := CallerOf(c); err == nil || !strings.HasPrefix(err.Error(), "caller: ") {
		t.Errorf("got %v, want an error about the caller", err)
	}
}

func TestWhoIsTrusted(t *testing.T) {
	uid, gid := os.Geteuid(), os.Getegid()
	for _, tt := range []struct {
		c    Caller
		want bool
	}{
		{Caller{UID: 0, GID: 12345}, true},
		{Caller{UID: uid, GID: 12345}, true},
		{Caller{UID: 54321, GID: gid}, true},
		{Caller{UID: 54321, GID: 12345, Member: true}, true},
		{Caller{UID: 54321, GID: 12345}, false},
		{Caller{UID: 54321, GID: -1}, false},
	} {
		if got := tt.c.Trusted(); got != tt.want {
			t.Errorf("%+v: got %v, want %v", tt.c, got, tt.want)
		}
	}
}
