package spool

import (
	"bufio"
	"encoding/hex"
	"encoding/json"

	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// inspect reads the log in a directory without changing anything there. It may
// be a log that is in use: then its end may look torn.
func inspect(dir string, o Options) (*Log, *Recovered, error) {
	l, rec := newLog(dir, o), new(Recovered)
	l.readOnly = true
	if err := l.recover(rec, o.Replay, o.Restore); err != nil {
		return nil, nil, l.wrap(err)
	}
	if len(l.segs) == 0 {
		return nil, nil, l.wrap(fmt.Errorf("no log here: %w", fs.ErrNotExist))
	}
	l.summary(rec)
	return l, rec, nil
}

// Verify reads the log in a directory as Open does, without changing anything,
// and reports what it found. That there is damage is no error.
func Verify(dir string) (*Recovered, error) {
	_, rec, err := inspect(dir, Options{Durable: true})
	return rec, err
}

// line is one line of Dump.
type line struct {
	Kind         string `json:"kind"`
	File         string `json:"file,omitempty"`
	Offset       int64  `json:"offset,omitempty"`
	Seq          uint64 `json:"seq,omitempty"`
	Time         int64  `json:"time,omitempty"`
	Flags        uint8  `json:"flags,omitempty"`
	Meta         []byte `json:"meta,omitempty"`
	Note         []byte `json:"note,omitempty"`
	Bytes        int64  `json:"bytes"`
	Frame        []byte `json:"frame,omitempty"`
	Acknowledged bool   `json:"acknowledged,omitempty"`
	Epoch        string `json:"epoch,omitempty"`
	First        uint64 `json:"first,omitempty"`
	Last         uint64 `json:"last,omitempty"`
	Waiting      int64  `json:"waiting,omitempty"`
	What         string `json:"what,omitempty"`
	View         string `json:"view,omitempty"`
}

// Dump writes the log in a directory as lines of JSON without changing anything:
// one of kind message for each record that is still on disk, acknowledged or
// not; or, with frames, for each that waits, with its frame; then one of kind
// damage for each damage, one of kind view for each view, and one of kind log.
// A message of a log that is shared is acknowledged when no view waits for it.
// Meta parts, notes and frames are
// in base64.
func Dump(dir string, w io.Writer, frames bool) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	var failed error
	put := func(v line) {
		if failed == nil {
			failed = enc.Encode(v)
		}
	}
	message := func(r Record, acknowledged bool) {
		put(line{Kind: "message", Seq: r.Seq, Time: r.Time, Flags: r.Flags, Meta: r.Meta, Note: r.Note,
			Bytes: int64(r.Size), Frame: r.Frame, Acknowledged: acknowledged})
	}
	o := Options{Durable: true}
	l, rec, err := inspect(dir, o)
	if err != nil {
		return err
	}
	if !frames {
		// What waits is known only when all has been read.
		shared := l.shared
		o.Replay = func(r Record, acknowledged bool) {
			message(r, acknowledged || shared && !l.waits(r.Seq))
		}
		if _, rec, err = inspect(dir, o); err != nil {
			return err
		}
	}
	if frames {
		err := l.each(func(p *Page) error {
			for _, r := range p.Records {
				message(r, false)
			}
			return failed
		})
		if err != nil {
			return err
		}
	}
	for _, d := range rec.Damage {
		put(line{Kind: "damage", File: d.File, Offset: d.Offset, Bytes: d.Bytes, What: string(d.Kind)})
	}
	for _, name := range slices.Sorted(maps.Keys(rec.Views)) {
		put(line{Kind: "view", View: name, Waiting: rec.Views[name]})
	}
	put(line{Kind: "log", Epoch: hex.EncodeToString(l.epoch[:]), First: rec.First, Last: rec.Last, Waiting: rec.Waiting, Bytes: rec.Bytes})
	if failed == nil {
		failed = out.Flush()
	}
	return failed
}

// waits tells whether a record is there and not acknowledged.
func (l *Log) waits(seq uint64) bool {
	return slices.ContainsFunc(l.segs, func(s *segment) bool { return s.live.has(seq) })
}

// each calls f with all records that wait, some at a time.
func (l *Log) each(f func(*Page) error) error { return readEach(l.Reader(0), f) }

func readEach(r *Reader, f func(*Page) error) error {
	defer r.Close()
	for {
		var p Page
		if err := r.Read(&p, largeWrite, ^uint64(0)); err != nil {
			return err
		}
		if len(p.Records) == 0 && len(p.Lost) == 0 {
			return nil
		}
		if err := f(&p); err != nil {
			return err
		}
	}
}

// Waiting calls f with the frame of each message that waits in the log in dir,
// without changing anything. The bytes are valid during the call.
func Waiting(dir string, f func(frame []byte)) error {
	l, _, err := inspect(dir, Options{Durable: true})
	if err != nil {
		return err
	}
	return l.each(func(p *Page) error {
		for _, r := range p.Records {
			f(r.Frame)
		}
		return nil
	})
}

// Salvage copies all records that wait in the log in dir, those behind a gap
// too, to a new log in the directory out, which must not hold one, and returns
// how many. Nothing in dir is changed. The new log has another epoch and no
// state. Of a log that is shared it copies what waits for one view; without its
// name, what waits for any.
func Salvage(dir, out, view string) (n int64, err error) {
	from, _, err := inspect(dir, Options{})
	if err != nil {
		return 0, err
	}
	source := from.Reader(0)
	if view != "" {
		if source.v = from.view(view); source.v == nil {
			return 0, from.wrap(fmt.Errorf("nothing is there for %q: %w", view, fs.ErrNotExist))
		}
	}
	to, rec, err := Open(out, Options{Durable: true})
	if err != nil {
		return 0, err
	}
	defer func() {
		if closeErr := to.Close(); err == nil {
			err = closeErr
		}
	}()
	if rec.Last > 0 || rec.Bytes > 0 {
		return 0, to.wrap(fmt.Errorf("a log is there: %w", fs.ErrExist))
	}
	err = readEach(source, func(p *Page) error {
		if err := to.Append(p.Records); err != nil {
			return err
		}
		n += int64(len(p.Records))
		return nil
	})
	if err == nil && n > 0 {
		err = to.Commit(to.Last())
	}
	return n, err
}
