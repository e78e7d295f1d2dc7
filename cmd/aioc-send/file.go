package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"

	"aioc/lib/api"
	"aioc/lib/cli"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// attached is what -file and the flags beside it say.
type attached struct {
	path   string // absolute once it was opened
	typ    string // "": the type of the message
	name   string // "": that of path
	owner  string
	remove bool
	// mine: the connector cannot remove it, so this program does, when the peer
	// has it.
	mine   bool
	source *transfer.Source // nil without a file, and before open
}

// check looks for contradictions between the flags.
func (f *attached) check(given func(name string) bool) error {
	for _, name := range []string{"file-type", "file-name", "delete", "owner"} {
		if f.path == "" && given(name) {
			return fmt.Errorf("-%s can only be used with -file", name)
		}
	}
	if f.path == "-" {
		return errors.New("-file -: a file is sent by its name; with -raw standard input is the message")
	}
	if given("file-name") {
		if err := transfer.CheckName(f.name); err != nil {
			return fmt.Errorf("-file-name: the peer would not store the file: %w", err)
		}
	}
	if user, group, ok := strings.Cut(f.owner, ":"); f.owner != "" && (!ok || user == "" || group == "" || strings.Contains(group, ":")) {
		return fmt.Errorf("-owner %s: want user:group", f.owner)
	}
	return nil
}

// open opens the file. It is passed to the connector as it is open then.
func (f *attached) open() error {
	if f.path == "" {
		return nil
	}
	path, err := filepath.Abs(f.path)
	if err != nil {
		return err
	}
	if !utf8.ValidString(path) {
		return &statusError{cli.BadData, fmt.Sprintf("%q: a name that is not UTF-8 cannot be passed on: rename the file", path)}
	}
	if f.name == "" {
		if err := transfer.CheckName(filepath.Base(path)); err != nil {
			return &statusError{cli.BadData, fmt.Sprintf("the peer would not store the file: %v: name it with -file-name", err)}
		}
	}
	// To open something else may do something: a device can start to work, and
	// a fifo waits for its other end.
	info, err := os.Stat(path)
	if err == nil {
		if what := irregular(info.Mode()); what != "" {
			return fmt.Errorf("%s is not a regular file: %s", f.path, what)
		}
		var opened *os.File
		if opened, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0); err == nil {
			f.path = path
			if f.source, err = transfer.PassedSource(opened, path, transfer.Caller{UID: os.Geteuid()}); err != nil {
				opened.Close()
			}
		}
	}
	var failure *transfer.Error
	switch {
	case errors.Is(err, fs.ErrPermission), errors.As(err, &failure) && failure.Reason == "permission":
		return &statusError{cli.Refused, err.Error()}
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL):
		return &statusError{cli.BadData, err.Error()}
	}
	return err
}

// irregular says what a file is that has no content to send, and what to do.
func irregular(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return ""
	case mode.IsDir():
		return "it is a directory: send an archive of it, such as tar makes"
	case mode&fs.ModeNamedPipe != 0:
		return "it is a fifo: send what comes from it with -raw <FIFO"
	case mode&fs.ModeSocket != 0:
		return "it is a socket"
	}
	return "it is a device: send what comes from it with -raw"
}

// close closes the file.
func (f *attached) close() {
	if f.source != nil {
		f.source.Close()
	}
}

// discard removes the file, which the peer has, if the one of its name is still
// the one that was sent.
func (f *attached) discard() error {
	err := f.source.Remove(transfer.Caller{UID: os.Geteuid()})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: sent, but not removed: %w", f.path, err)
	}
	return nil
}

// append appends the value of with_file for a message of a type. The order of
// keys is that of the original's documentation.
func (f *attached) append(dst []byte, messageType string) []byte {
	typ, name := f.typ, f.name
	if typ == "" {
		typ = messageType
	}
	if name == "" {
		name = filepath.Base(f.path)
	}
	dst = wire.AppendString(append(dst, `{"src_path": `...), f.path)
	dst = wire.AppendString(append(dst, `, "dst_type": `...), typ)
	dst = wire.AppendString(append(dst, `, "dst_name": `...), name)
	dst = fmt.Appendf(dst, `, "delete": %v`, f.remove && !f.mine)
	if f.owner != "" {
		dst = wire.AppendString(append(dst, `, "owner": `...), f.owner)
	}
	return append(dst, '}')
}

// journey is what is known of the way of a file that is waited for. Its methods
// may be called from any goroutine.
type journey struct {
	meter *cli.Meter // nil: nothing is drawn

	mu   sync.Mutex
	last *api.Progress
}

// progress notes how far the file is.
func (j *journey) progress(p api.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = &p
	j.meter.Set(p.Sent, p.Size)
}

// taken reports whether the connector has said that it has the file.
func (j *journey) taken() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.last != nil
}

// interrupted says what becomes of a file that is not waited for any more.
func (j *journey) interrupted(o *options, why error) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := fmt.Sprintf("%s: %v: %s of %s sent; the connector has it and goes on sending it",
		o.file.path, why, cli.Bytes(j.last.Sent), cli.Bytes(j.last.Size))
	if o.file.mine {
		text += ", and it stays here"
	}
	return text
}
