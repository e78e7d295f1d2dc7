package connector

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"aioc/lib/control"
	"aioc/lib/durable"
	"aioc/lib/local"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// importLeftovers puts into the queues what a Python connector of this name has
// left on disk, and removes its files. It is called once, at the start, before
// anything else is put.
func (c *Connector) importLeftovers() {
	if !c.keeps() {
		return
	}
	for typ, q := range c.inbox {
		c.importFile(c.paths.PersistenceRecv(typ), func(f *wire.Frame, from *queue.Origin, put *unsafe) error {
			return c.importReceived(typ, q, f, from, put)
		})
	}
	if !c.server {
		c.importFile(c.paths.PersistenceSend(c.cfg.Load().PeerID()), c.importSent)
		return
	}
	// The names of the peers cannot be read from those of the files.
	files, _ := filepath.Glob(globEscape(c.paths.PersistenceSend("")) + "*") // the pattern is sound
	for _, file := range files {
		if !strings.HasSuffix(file, setAside) {
			c.importFile(file, c.importSent)
		}
	}
}

// setAside ends the name of a file of which a part could not be read.
const setAside = ".bad"

// globEscape makes a path a pattern for itself.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// importFile puts the messages of one file and removes it.
func (c *Connector) importFile(file string, put func(f *wire.Frame, from *queue.Origin, put *unsafe) error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	failed := func(err error) {
		c.counts.add("leftover not imported", 1)
		c.log.Warn("messages of the Python connector not taken over: they are tried again at the next start", "file", file, "err", err)
	}
	if err == nil {
		defer f.Close()
		err = durable.CheckOwner(file)
	}
	if err != nil {
		failed(err)
		return
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		failed(errors.Join(err, fs.ErrInvalid))
		return
	}
	// When the connector is killed meanwhile it begins anew: what it has put on
	// disk is known by this.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", file, info.Size(), info.ModTime().UnixNano()))
	from := queue.Origin{Peer: "\x00leftover", Seq: 1}
	copy(from.Epoch[:], sum[:])
	var (
		written unsafe
		n       int
	)
	damaged, err := spool.ReadLeftover(f, int(c.cfg.Load().MaxMessageSize), func(raw []byte) (bool, error) {
		frame, err := wire.ParseFrame(raw)
		if err != nil || frame.Header.Type == nil {
			return false, nil
		}
		one := from
		if err := put(&frame, &one, &written); err != nil {
			return false, err
		}
		from.Seq++
		n++
		return true, nil
	})
	if commitErr := written.commit(); err == nil {
		err = commitErr
	}
	if err != nil {
		failed(err)
		return
	}
	if damaged > 0 {
		err = durable.Rename(file, file+setAside)
		c.counts.add("leftover damaged", 1)
		c.log.Warn("messages of the Python connector were damaged", "file", file+setAside, "bytes", damaged)
	} else {
		err = durable.Remove(file)
	}
	if err != nil {
		failed(err)
		return
	}
	c.log.Info("messages of the Python connector taken over", "file", file, "n", n)
}

// importReceived puts a message for local programs.
func (c *Connector) importReceived(typ string, q *queue.Queue, f *wire.Frame, from *queue.Origin, put *unsafe) error {
	if string(f.Header.Type) != typ {
		c.drop("leftover of another type", "", string(f.Header.Type), 1)
		return nil
	}
	extra := queue.Extra{From: *from}
	_, err := q.PutExtra(typ, f.Raw, &extra)
	put.add(q, typ, extra.Round)
	return err
}

// importSent puts a message for a peer. The Python connector has kept it as its
// program wrote it.
func (c *Connector) importSent(f *wire.Frame, from *queue.Origin, put *unsafe) error {
	d := c.decide(f.Header, false, true, local.Caller{UID: os.Geteuid()})
	switch {
	case d.refuse != nil:
		c.drop("leftover: "+d.refuse.Reason, string(f.Header.Dest), d.typ, 1)
		return nil
	case d.box == nil || d.ping || d.fan != nil:
		c.drop("leftover: bad", string(f.Header.Dest), d.typ, 1)
		return nil
	}
	header, q := d.header, d.box.q
	if header == nil {
		header = f.Header.Raw
	}
	if d.file {
		q = c.fileQueue(d.box)
		header = wire.AppendEdited(nil, header,
			wire.Edit{Key: "file_caller", Value: appendCaller(nil, transfer.Caller{UID: os.Geteuid(), GIDs: []int{os.Getegid()}})},
			wire.Edit{Key: "file_id", Value: wire.AppendString(nil, newFileID())})
	}
	raw, err := wire.AppendFrame(nil, header, f.Data, f.Binary)
	if err != nil {
		return nil // it was a frame before; it cannot have become too long
	}
	extra := queue.Extra{From: *from}
	_, err = q.PutExtra(d.typ, raw, &extra)
	put.add(q, d.typ, extra.Round)
	return err
}

// purged says how many messages purge has discarded.
type purged struct {
	Discarded int            `json:"discarded"`
	Peers     map[string]int `json:"peers"` // that waited for a peer
	Types     map[string]int `json:"types"` // that waited for programs here
}

// purge discards all that waits on disk, and what a Python connector has left.
func (c *Connector) purge() (did purged, err error) {
	did = purged{Peers: map[string]int{}, Types: map[string]int{}}
	count := func(by map[string]int, name string, q *queue.Queue) {
		if n := q.Purge(); n > 0 {
			by[name] += n
			did.Discarded += n
		}
	}
	c.mu.Lock()
	boxes := maps.Clone(c.boxes)
	c.mu.Unlock()
	for name, b := range boxes {
		// Those with files first: where there is room again they would go on.
		if files := b.waitingFiles(); files != nil {
			count(did.Peers, name, files)
		}
		if o := b.leaving.Load(); o != nil && o.purge() {
			did.Peers[name]++
			did.Discarded++
		}
		count(did.Peers, name, b.q)
	}
	for typ, q := range c.inbox {
		count(did.Types, typ, q)
	}
	var failed []error
	for _, pattern := range []string{c.paths.PersistenceSend(""), c.paths.PersistenceRecv("")} {
		files, _ := filepath.Glob(globEscape(pattern) + "*")
		for _, file := range files {
			failed = append(failed, durable.Remove(file))
		}
	}
	c.log.Warn("what waited on disk was discarded by a command", "n", did.Discarded)
	if did.Discarded > 0 {
		c.counts.add("discarded by a command", did.Discarded)
	}
	return did, errors.Join(failed...)
}

// spoolCommands are the commands about what is on disk.
func (c *Connector) spoolCommands() []control.Command {
	return []control.Command{
		{Name: "delete_previous_persistence_remains", Run: func(context.Context, control.Args) (any, error) {
			_, err := c.purge()
			return nil, err // tools of the original print a reply
		}},
		{Name: "purge", Run: func(context.Context, control.Args) (any, error) { return c.purge() }},
	}
}
