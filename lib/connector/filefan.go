package connector

import (
	"errors"
	"os"

	"aioc/lib/link"
	"aioc/lib/queue"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// A publication with a file: the broker stores the file as any receiver does,
// and sends it from there to each subscriber. If it is not to stay, each
// subscriber has a link to it of its own, which is removed when it was sent.
//
// Differs: the original names its own path to the subscribers even when it has
// not stored the file, and removes its copy after the first of them
// (aioconnectors core.py). And it sends on the chunks of a Python publisher;
// here the subscribers get the message once, with the whole file.

// spreadFile spreads a publication whose file is stored. header and at are as receive
// made them. It reports false when there is no file and the publication goes on
// like any other.
func (p *peerLink) spreadFile(f *wire.Frame, header, bin []byte, at landing) (bool, error) {
	c, h, stored := p.c, f.Header, at.stored
	file, err := transfer.Parse(h.WithFile)
	if err != nil || stored == "" && (file.Chunk == nil || failed(header)) {
		return false, nil
	}
	var extra queue.Extra
	if from := p.how.from; from != nil {
		extra.From = *from
		from.Seq++
	}
	if stored != "" {
		edits := []wire.Edit{{Key: "chunked"}}
		if file.Chunk != nil {
			edits = append(edits, wire.Edit{Key: "dst_name", Value: wire.AppendString(nil, file.Chunk.Whole())})
		}
		withFile := wire.AppendEdited(nil, transfer.Note(h.WithFile, "", ""), edits...)
		d, err := transfer.Open(at.place, at.rules)
		if err == nil {
			defer d.Close()
		}
		for _, b := range p.how.fan.boxes {
			id, src, keep := newFileID(), stored, true
			if !file.Keep && err == nil {
				if path, linkErr := d.Duplicate(at.place.Name, id); linkErr == nil {
					src, keep = path, false
				}
			}
			x := extra
			a := admitted{caller: transfer.Caller{UID: os.Geteuid()}}
			c.spreadFileTo(b, p.how.fan.topic, id, &a, false, src, keep, header, withFile, f.Data, bin, x, &p.unsafe)
		}
		if !file.Keep && err == nil {
			d.Drop(at.place.Name)
		}
	}
	return true, p.acknowledge(h)
}

// failed reports whether with_file of a header has a file_error.
func failed(header []byte) bool {
	var h wire.Header
	if h.Parse(header) != nil || h.WithFile == nil {
		return true
	}
	f, err := transfer.Parse(h.WithFile)
	return err != nil || f.Error != ""
}

// spreadFileTo puts a publication with a file into the queue of one subscriber.
func (c *Connector) spreadFileTo(b *outbox, topic, id string, a *admitted, copied bool, src string, keep bool,
	header, withFile, data, bin []byte, extra queue.Extra, put *unsafe) {
	drop := []byte("true")
	if keep {
		drop = []byte("false")
	}
	withFile = wire.AppendEdited(nil, withFile,
		wire.Edit{Key: "src_path", Value: wire.AppendString(nil, src)}, wire.Edit{Key: "delete", Value: drop})
	frame, err := wire.AppendFrame(nil, wire.AppendEdited(nil, header,
		append(a.edits(id, copied), wire.Edit{Key: "with_file", Value: withFile})...), data, bin)
	extra.Note = c.fileNote(id, nil)
	for err == nil {
		q := c.fileQueue(b)
		if _, err = q.PutExtra(topic, frame, &extra); err == nil {
			if c.durableSend(topic) {
				put.add(q, topic, extra.Round)
			}
			c.sendFiles(b)
			return
		}
		if errors.Is(err, queue.ErrClosed) {
			// It was dropped when the subscriber had gone.
			if again := c.box(b.name, true); again != nil && again != b {
				b, err = again, nil
			}
		}
	}
	c.letGo(id)
	c.drop("queue of a subscriber full", b.name, topic, 1)
}

// publishFile spreads a publication with a file of a program on this host. When
// all subscribers have it, it is removed, if it is to be removed.
func (in *intake) publishFile(n uint64, f *wire.Frame) {
	h, c := &in.how, in.c
	a, why := in.admitFile(f.Header)
	if why != nil {
		in.notTaken(n, h, why)
		return
	}
	defer a.close()
	ids := make([]string, len(h.fan.boxes))
	copied := a.loose && c.durableSend(h.fan.topic)
	var err error
	for i, b := range h.fan.boxes {
		ids[i] = newFileID()
		switch {
		case a.src == nil:
		case copied && i > 0:
			why = c.copyAgain(ids[0], ids[i], &a, b)
		default:
			one := a
			if one.src, err = a.src.Dup(); err != nil {
				why = &link.Refusal{Reason: "full", Text: err.Error()}
				break
			}
			_, why = in.holdFile(ids[i], &one, b, copied)
		}
		if why != nil {
			for _, id := range ids[:i+1] {
				c.letGo(id)
			}
			in.notTaken(n, h, why)
			return
		}
	}
	if len(ids) > 1 && !a.file.Keep {
		a.shared = newFileID()
		c.shares.add(a.shared, false, ids...)
		if c.durableSend(h.fan.topic) {
			id, topic := a.shared, h.fan.topic
			in.safe = append(in.safe, func() {
				if err := c.shares.confirm(id); err != nil {
					c.fileFailed("file published, and not to be removed after a restart", err, "", topic)
				}
			})
		}
	}
	for i, b := range h.fan.boxes {
		c.spreadFileTo(b, h.fan.topic, ids[i], &a, copied, a.file.Source, a.file.Keep, h.fan.header, f.Header.WithFile, f.Data, f.Binary, h.extra, &in.unsafe)
	}
	in.published()
}
