package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"aioc/lib/config"
	"aioc/lib/control"
	"aioc/lib/envelope"
	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/spool"
	"aioc/lib/wire"
)

// graveyard is the dead letters: messages that no handler could do. Those of a
// type are in a log of their own, which is opened when it is needed.
type graveyard struct {
	mu   sync.Mutex // one who changes or reads them
	logs map[string]*spool.Log
	n    map[string]int // how many there are, by type
	read bool           // n has those of all types
}

// epitaph is what is known of a dead letter beside the message.
type epitaph struct {
	Tries int    `json:"tries"`
	Error string `json:"error,omitempty"`
}

// letter is a dead letter as commands show it.
type letter struct {
	ID     string          `json:"id"`
	Type   string          `json:"message_type"`
	Source string          `json:"source_id"`
	Time   time.Time       `json:"time"`
	Tries  int             `json:"tries"`
	Error  string          `json:"error"`
	Size   int             `json:"size"` // of data and binary, in bytes
	Whole  json.RawMessage `json:"message,omitempty"`
}

// bury keeps a message that a program has given up. When it has returned nil
// the dead letter is on disk.
func (c *Connector) bury(frame []byte, why *link.Refusal) error {
	err := c.buryFrame(frame, why)
	if err != nil {
		c.counts.add("dead letter not kept", 1)
		c.fold.Warn("dead letter", 1, "dead letter not kept: the message is tried again", slog.String("err", err.Error()))
	}
	return err
}

// buryFrame does the work of bury.
func (c *Connector) buryFrame(frame []byte, why *link.Refusal) error {
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return err
	}
	typ := string(f.Header.Type)
	if c.inbox[typ] == nil {
		return fmt.Errorf("message type %q is not received", typ)
	}
	meta, err := json.Marshal(epitaph{why.Tries, why.Text})
	if err != nil {
		return err
	}
	g := &c.dead
	g.mu.Lock()
	defer g.mu.Unlock()
	log, err := c.deadLog(typ)
	if err != nil {
		return err
	}
	seq := log.Last() + 1
	if err := log.Append([]spool.Record{{Seq: seq, Time: time.Now().UnixMilli(), Meta: meta, Frame: frame}}); err != nil {
		return err
	}
	if err := log.Commit(seq); err != nil {
		if errors.Is(err, spool.ErrFailed) {
			err = errors.Join(err, log.Repair())
		}
		return err
	}
	g.n[typ]++
	c.events.add("dead letter", 1)
	c.fold.Warn("dead\x00"+typ, 1, "dead letter: a handler gave up; see aioc-ctl dead",
		slog.String("type", typ), slog.String("peer", string(f.Header.Source)), slog.Int("tries", why.Tries))
	return nil
}

// deadLog returns the log of a type's dead letters. dead.mu is held.
func (c *Connector) deadLog(typ string) (*spool.Log, error) {
	g := &c.dead
	if log := g.logs[typ]; log != nil {
		return log, nil
	}
	n := 0
	log, found, err := openLog(c.paths.SpoolDeadType(typ), typ, spool.Options{
		Durable: true, Quota: c.newQuota(),
		Replay: func(_ spool.Record, acknowledged bool) {
			if !acknowledged {
				n++
			}
		},
	})
	if err != nil {
		return nil, err
	}
	for _, d := range found.Damage {
		c.log.Warn("damage in the dead letters", "type", typ, "what", d.String())
	}
	if g.logs == nil {
		g.logs, g.n = map[string]*spool.Log{}, map[string]int{}
	}
	g.logs[typ], g.n[typ] = log, n
	return log, nil
}

// closeDead closes the logs.
func (c *Connector) closeDead() {
	c.dead.mu.Lock()
	defer c.dead.mu.Unlock()
	for typ, log := range c.dead.logs {
		if err := log.Close(); err != nil {
			c.log.Warn("dead letters not closed", "type", typ, "err", err)
		}
	}
	c.dead.logs, c.dead.n, c.dead.read = nil, nil, false
}

// countDead returns how many dead letters there are, by type, also of types that
// are not received any more.
func (c *Connector) countDead() map[string]int {
	g := &c.dead
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.read && c.running.Load() {
		types, err := c.deadTypes()
		for _, typ := range types {
			if _, e := c.deadLog(typ); e != nil && err == nil {
				err = e
			}
		}
		if err != nil {
			c.fold.Warn("dead letters", 1, "dead letters not counted", slog.String("err", err.Error()))
		}
		g.read = err == nil
	}
	n := map[string]int{}
	for typ, k := range g.n {
		if k > 0 {
			n[typ] = k
		}
	}
	return n
}

// deadTypes returns the types that have dead letters, or had them.
func (c *Connector) deadTypes() ([]string, error) {
	types, err := config.SpoolNames(c.paths.SpoolDead)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	slices.Sort(types)
	return types, err
}

// eachDead calls f for the dead letters of a type, oldest first, until it
// returns false. dead.mu is held.
func (c *Connector) eachDead(typ string, f func(log *spool.Log, r *spool.Record) (more bool, err error)) error {
	log, err := c.deadLog(typ)
	if err != nil {
		return err
	}
	const bytes = 256 << 10
	var page spool.Page
	r := log.Reader(1)
	defer r.Close()
	for last := log.Last(); ; {
		if err := r.Read(&page, bytes, last); err != nil {
			return err
		}
		for i := range page.Records {
			if more, err := f(log, &page.Records[i]); !more || err != nil {
				return err
			}
		}
		if len(page.Records) == 0 && len(page.Lost) == 0 {
			return nil
		}
	}
}

// letterOf describes a dead letter, with the message if whole is set.
func letterOf(typ string, r *spool.Record, whole bool) letter {
	l := letter{ID: deadID(typ, r.Seq), Type: typ, Time: time.UnixMilli(r.Time).UTC(), Size: len(r.Frame)}
	var e epitaph
	if json.Unmarshal(r.Meta, &e) == nil {
		l.Tries, l.Error = e.Tries, e.Error
	}
	if f, err := wire.ParseFrame(r.Frame); err == nil {
		l.Source, l.Size = string(f.Header.Source), len(f.Data)+len(f.Binary)
		if whole {
			l.Whole = envelope.Append(nil, &f)
		}
	}
	return l
}

// deadID is by what commands know a dead letter: the number first, since a
// type may hold anything.
func deadID(typ string, seq uint64) string { return strconv.FormatUint(seq, 10) + ":" + typ }

// parseDeadID reads what deadID returns.
func parseDeadID(id string) (typ string, seq uint64, err error) {
	number, typ, ok := strings.Cut(id, ":")
	seq, err = strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || typ == "" {
		return "", 0, fmt.Errorf("%w: %q is not the id of a dead letter: they are like 7:job", control.ErrArgument, id)
	}
	return typ, seq, nil
}

// mostLetters bounds the dead letters that are listed.
const mostLetters = 10_000

// listDead lists the dead letters of a type, of all if it is "".
func (c *Connector) listDead(typ string) ([]letter, error) {
	types, err := c.deadTypes()
	if err != nil {
		return nil, err
	}
	c.dead.mu.Lock()
	defer c.dead.mu.Unlock()
	list := []letter{}
	for _, t := range types {
		if typ != "" && typ != t {
			continue
		}
		err := c.eachDead(t, func(_ *spool.Log, r *spool.Record) (bool, error) {
			l := letterOf(t, r, false)
			l.Error = firstWords(l.Error)
			list = append(list, l)
			return len(list) < mostLetters, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// mostWords bounds, in characters, the reason of a dead letter in a list.
const mostWords = 200

// firstWords is the first line of a reason, as far as it goes into a list.
func firstWords(why string) string {
	line, _, more := strings.Cut(strings.TrimSpace(why), "\n")
	n := 0
	for i := range line {
		if n++; n > mostWords {
			line, more = line[:i], true
			break
		}
	}
	if more {
		line += " ..."
	}
	return line
}

// showDead shows one.
func (c *Connector) showDead(id string) (found *letter, err error) {
	err = c.withDead(id, func(typ string, _ *spool.Log, r *spool.Record) error {
		l := letterOf(typ, r, true)
		found = &l
		return nil
	})
	return found, err
}

// withDead calls f for the dead letter with an id.
func (c *Connector) withDead(id string, f func(typ string, log *spool.Log, r *spool.Record) error) error {
	typ, seq, err := parseDeadID(id)
	if err != nil {
		return err
	}
	types, err := c.deadTypes()
	if err != nil {
		return err
	}
	found := false
	if slices.Contains(types, typ) {
		c.dead.mu.Lock()
		defer c.dead.mu.Unlock()
		err = c.eachDead(typ, func(log *spool.Log, r *spool.Record) (bool, error) {
			if r.Seq != seq {
				return r.Seq < seq, nil
			}
			found = true
			return false, f(typ, log, r)
		})
	}
	if err == nil && !found {
		err = fmt.Errorf("no dead letter %q: see dead list", id) // the answer is no
	}
	return err
}

// endDead ends dead letters, the one with an id, those of a type, or all, after
// do has dealt with each, and returns how many.
func (c *Connector) endDead(id, typ string, do func(typ string, r *spool.Record) error) (n int, err error) {
	one := func(typ string, log *spool.Log, r *spool.Record) error {
		if err := do(typ, r); err != nil {
			return err
		}
		n++
		c.dead.n[typ]--
		return log.Ack(spool.Range{First: r.Seq, Last: r.Seq})
	}
	if id != "" {
		if typ != "" {
			return 0, fmt.Errorf("%w: id and message_type: give one of them", control.ErrArgument)
		}
		err = c.withDead(id, one)
		return n, err
	}
	types, err := c.deadTypes()
	if err != nil {
		return 0, err
	}
	c.dead.mu.Lock()
	defer c.dead.mu.Unlock()
	for _, t := range types {
		if typ != "" && typ != t {
			continue
		}
		err := c.eachDead(t, func(log *spool.Log, r *spool.Record) (bool, error) { return true, one(t, log, r) })
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// retryDead puts a dead letter back into its queue, at the end.
func (c *Connector) retryDead(typ string, r *spool.Record) error {
	q := c.inbox[typ]
	if q == nil {
		return fmt.Errorf("%w: message type %q is not in recv_message_types any more", control.ErrArgument, typ)
	}
	var extra queue.Extra
	if _, err := q.PutExtra(typ, r.Frame, &extra); err != nil {
		return fmt.Errorf("%w: %w", control.ErrBusy, err)
	}
	return q.CommitSince(queue.Written{Type: typ, Round: extra.Round})
}

// deadCommands are the commands that look after the dead letters.
func (c *Connector) deadCommands() []control.Command {
	which := []control.Arg{{Name: "id", Kind: control.String}, {Name: "message_type", Kind: control.String}}
	return []control.Command{
		{Name: "dead_list", Args: which[1:], Run: func(_ context.Context, a control.Args) (any, error) {
			return reply(c.listDead(a.String("message_type")))
		}},
		{Name: "dead_show", Args: []control.Arg{{Name: "id", Kind: control.String, Required: true}},
			Run: func(_ context.Context, a control.Args) (any, error) { return reply(c.showDead(a.String("id"))) }},
		{Name: "dead_retry", Args: which, Run: func(_ context.Context, a control.Args) (any, error) {
			return reply(c.endDead(a.String("id"), a.String("message_type"), c.retryDead))
		}},
		{Name: "dead_drop", Args: which, Run: func(_ context.Context, a control.Args) (any, error) {
			return reply(c.endDead(a.String("id"), a.String("message_type"), func(string, *spool.Record) error { return nil }))
		}},
	}
}

// reply is what a command returns.
func reply[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
