package peer

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"aioc/lib/config"
	"aioc/lib/identity"
)

func TestWhatCouldNotBeStoredIsKeptAndStoredLater(t *testing.T) {
	h := newHome(t, true)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	c := runWith(t, o, func(d *Dialer) {
		d.jitter = func(time.Duration) time.Duration { return 10 * time.Millisecond }
		d.unstored = func(context.Context) error {
			if len(h.tokens.Names()) == 0 {
				return syscall.ENOSPC
			}
			return nil
		}
	})
	until(t, "the failure is logged", func() bool {
		for _, line := range c.log.lines(t, slog.LevelWarn) {
			if strings.Contains(line.Err, "not stored, and kept in memory") {
				return true
			}
		}
		return false
	})
	if err := h.tokens.Take("other", strings.Repeat("0", 64)); err != nil {
		t.Fatal(err)
	}
	if far := wait(t, "server up", s.conns); far.Name != "pump7" {
		t.Errorf("got %q", far.Name)
	}
}

func TestWhatCannotBeKeptIsNotAskedFor(t *testing.T) {
	h := newHome(t, true)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	var broken atomic.Bool
	broken.Store(true)
	o.Token.StoreHook = func(_ context.Context, text string) (string, error) {
		if broken.Load() {
			return "", nil // as a program that prints nothing
		}
		return text, nil
	}
	c := runWith(t, o, func(d *Dialer) {
		d.jitter = func(time.Duration) time.Duration { return 10 * time.Millisecond }
	})
	until(t, "the failure is logged", func() bool {
		return slices.ContainsFunc(c.log.lines(t, slog.LevelWarn), func(e entry) bool {
			return strings.Contains(e.Err, "hook_store_token: the program prints nothing")
		})
	})
	if names := h.tokens.Names(); len(names) != 0 {
		t.Errorf("got tokens for %q, want none", names)
	}
	broken.Store(false)
	if far := wait(t, "server up", s.conns); far.Name != "pump7" {
		t.Errorf("got %q", far.Name)
	}
}

// The client is killed, or the server is, or the answer gets lost: the client
// comes again.
func TestATokenWhoseAnswerWasLostIsGotAgain(t *testing.T) {
	h := newHome(t, true)
	s := h.start(t, Options{})
	o := h.client(t, s, "pump7")
	hash, err := o.Token.Propose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.tokens.Take("pump7", hash); err != nil { // nobody has heard of it
		t.Fatal(err)
	}
	runWith(t, o, nil)
	if far := wait(t, "server up", s.conns); far.Name != "pump7" {
		t.Errorf("got %q", far.Name)
	}
	// Somebody else who wants the name does not get it.
	runWith(t, h.client(t, s, "pump7"), nil)
	if got := wait(t, "reason", s.refused); got != ReasonIssue {
		t.Errorf("another with the name: got %q, want %q", got, ReasonIssue)
	}
}

func TestWhyAClientIsNotConnectedIsTold(t *testing.T) {
	quick := func(d *Dialer) { d.jitter = func(time.Duration) time.Duration { return 10 * time.Millisecond } }
	t.Run("something on this host", func(t *testing.T) {
		h := newHome(t, true)
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		if err := os.WriteFile(o.Token.Path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var d *Dialer
		c := runWith(t, o, func(made *Dialer) { d = made; quick(made) })
		until(t, "the log says it", func() bool {
			return slices.ContainsFunc(c.log.lines(t, slog.LevelWarn), func(e entry) bool {
				return e.Msg == "not connecting, for a reason on this host, trying on" && strings.Contains(e.Err, "it is empty")
			})
		})
		until(t, "Failure says it", func() bool { return strings.Contains(d.Failure(), "it is empty") })
		if err := os.Remove(o.Token.Path); err != nil {
			t.Fatal(err)
		}
		wait(t, "up", c.conns)
		until(t, "Failure says nothing", func() bool { return d.Failure() == "" })
	})
	t.Run("the default certificate was replaced", func(t *testing.T) {
		h := newHome(t, false)
		s := h.start(t, Options{})
		o := h.client(t, s, "pump7")
		other := t.TempDir()
		if err := os.Chmod(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.Create(other); err != nil {
			t.Fatal(err)
		}
		mine, theirs := config.CertificateTree(filepath.Dir(o.Token.Path)), config.CertificateTree(other)
		for to, from := range map[string]string{mine.ClientCert("default"): theirs.ClientCert("default"), mine.ClientKey("default"): theirs.ClientKey("default")} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var d *Dialer
		runWith(t, o, func(made *Dialer) { d = made; quick(made) })
		until(t, "it says what to do", func() bool {
			return strings.Contains(d.Failure(), "bring the one that it has now with aioc-certs pack client")
		})
		if strings.Contains(d.Failure(), "delete") {
			t.Errorf("it advises to delete: %s", d.Failure())
		}
	})
}
