package connector

import (
	"errors"
	"fmt"
	"strconv"

	"aioc/lib/link"
	"aioc/lib/transfer"
	"aioc/lib/wire"
)

// A file comes from an end that announced "chunk" before its message:
//
//	_file      file, size; data: the message's header     sender
//	_file_ack  file, offset                               receiver: go on from there
//	_chunk     file, offset; data, or zeros               sender
//	_file_ack  file, offset                               now and then
//	_chunk     file, offset, sum                          sender: that was all
//	_file_ack  file, offset, done                         receiver: it is safe
//	           file, offset 0                             it was damaged: once more
//	           file, reason, error                        at any time: not wanted
//
// Then comes the message, with the id, the size and the sum in with_file, and
// only that makes the file appear. When that fails, as when another file has
// got the name meanwhile, a _file_ack with reason and error goes before the
// message's _ack: so the sender does not remove its file.
const (
	chunkBytes = 64 << 10 // of a file in one _chunk, at most

	// fileWindow is how much of a file is on its way at most, leastWindow where
	// that begins. The receiver has room for it in memory, so that a slow disk
	// does not stop other messages.
	fileWindow  = 8 << 20
	leastWindow = 1 << 20
	// fileAckBytes is after how much the receiver says how far it is.
	fileAckBytes = leastWindow / 4

	maxIncoming = 4 // files at a time from one peer
)

// inFile is a file on its way here. The link's reader hands its pieces to a
// goroutine that writes them.
type inFile struct {
	id     string
	pieces chan piece    // closed when no more come
	done   chan struct{} // closed when no more are taken
}

// piece is a part of a file.
type piece struct {
	off   int64
	data  []byte
	zeros int64
	sum   string // the end
}

// offered handles _file.
func (p *peerLink) offered(f *wire.Frame) error {
	id, _ := wire.Text(f.Header.Field("file"))
	size, err := strconv.ParseInt(string(f.Header.Field("size")), 10, 64)
	h := new(wire.Header)
	if !transfer.ValidID(id) || err != nil || size < 0 || h.Parse(append([]byte(nil), f.Data...)) != nil {
		return fmt.Errorf("%w: _file", link.ErrProtocol)
	}
	if why := p.route(h).drop; why != "" {
		p.refuseFile(id, &transfer.Error{Reason: "type", Text: why})
		return nil
	}
	if p.incoming == nil {
		p.incoming = map[string]*inFile{}
	}
	for _, old := range p.incoming {
		select {
		case <-old.done:
			delete(p.incoming, old.id)
		default:
		}
	}
	before := p.incoming[id]
	if before != nil {
		close(before.pieces)
	} else if len(p.incoming) >= maxIncoming {
		return fmt.Errorf("%w: more than %d files at a time", link.ErrProtocol, maxIncoming)
	}
	in := &inFile{id: id, pieces: make(chan piece, fileWindow/chunkBytes), done: make(chan struct{})}
	p.incoming[id] = in
	p.files.Go(func() {
		defer close(in.done)
		if before != nil {
			<-before.done
		}
		if err := p.takeFile(in, h, size); err != nil && !errors.Is(err, errEnding) {
			p.c.fileFailed("file refused", err, p.box.name, about(h))
			p.refuseFile(id, err)
		}
	})
	return nil
}

// chunk handles _chunk.
func (p *peerLink) chunk(f *wire.Frame) error {
	id, _ := wire.Text(f.Header.Field("file"))
	in := p.incoming[id]
	if in == nil {
		return nil // of one that was refused
	}
	select {
	case <-in.done:
		delete(p.incoming, id) // and what waits for it
		return nil
	default:
	}
	off, err := strconv.ParseInt(string(f.Header.Field("offset")), 10, 64)
	if err != nil || off < 0 || len(f.Data) > chunkBytes {
		return fmt.Errorf("%w: _chunk", link.ErrProtocol)
	}
	one := piece{off: off}
	if text := f.Header.Field("zeros"); text != nil {
		if one.zeros, err = strconv.ParseInt(string(text), 10, 64); err != nil || one.zeros < 0 || one.zeros > chunkBytes {
			return fmt.Errorf("%w: _chunk", link.ErrProtocol)
		}
	} else if one.sum, _ = wire.Text(f.Header.Field("sum")); one.sum == "" {
		one.data = append(chunkBuffers.get(), f.Data...)
	}
	select {
	case in.pieces <- one:
	case <-in.done: // it was refused
	case <-p.l.Done():
	}
	return nil
}

// endFiles ends what is on its way, at the end of the link. What is there stays.
func (p *peerLink) endFiles() {
	for _, in := range p.incoming {
		close(in.pieces)
	}
	p.incoming = nil
	p.files.Wait()
}

// takeFile takes one file until it is complete or no more comes.
func (p *peerLink) takeFile(in *inFile, h *wire.Header, size int64) error {
	file, err := transfer.Parse(h.WithFile)
	if err != nil {
		return err
	}
	key := transfer.StageID(p.box.name, in.id)
	if _, ok := p.c.landed.get(key); ok {
		p.ackFile(in.id, size, true)
		return nil
	}
	if most := p.c.cfg.Load().MaxFileRecv; size > most {
		return &transfer.Error{Reason: "size", Text: fmt.Sprintf("the file is larger than max_size_file_upload_recv, %d bytes", most)}
	}
	file.Sent = &transfer.Sent{ID: in.id, Size: size}
	at, err := p.landing(h, &file)
	if err != nil {
		return err
	}
	d, err := transfer.Open(at.place, at.rules)
	if err != nil {
		return err
	}
	defer d.Close()
	defer p.opened(d)
	if err := d.Vacant(at.place.Name); err != nil {
		return err
	}
	if s, err := d.Sealed(key); err == nil {
		same := s.Offset() == size
		s.Close()
		if same {
			p.ackFile(in.id, size, true)
			return nil
		}
		s.Discard()
	}
	s, err := d.Resume(key)
	if err != nil {
		return err
	}
	defer s.Close()
	if s.Offset() > size {
		if err := s.Restart(); err != nil {
			return err
		}
	}
	p.ackFile(in.id, s.Offset(), false)
	told := s.Offset()
	for one := range in.pieces {
		if one.off != s.Offset() {
			continue // sent before the sender knew where to go on
		}
		switch {
		case one.sum != "" && s.Offset() == size && one.sum == s.Sum():
			if err := s.Seal(); err != nil {
				return err
			}
			p.ackFile(in.id, size, true)
			return nil
		case one.sum != "":
			p.c.counts.add("file damaged on its way", 1)
			if err = s.Restart(); err == nil {
				p.ackFile(in.id, 0, false)
				told = 0
			}
		case s.Offset()+int64(len(one.data))+one.zeros > size:
			err = &transfer.Error{Reason: "size", Text: "the file is longer than its sender said"}
		case one.zeros > 0:
			err = s.Skip(one.zeros)
		default:
			_, err = s.Write(one.data)
			chunkBuffers.put(one.data)
		}
		if err != nil {
			return err
		}
		if s.Offset()-told >= fileAckBytes {
			told = s.Offset()
			p.ackFile(in.id, told, false)
		}
	}
	return nil
}

// ackFile says how much of a file is there.
func (p *peerLink) ackFile(id string, offset int64, done bool) {
	edits := []wire.Edit{
		{Key: "message_type", Value: []byte(`"` + wire.TypeFileAck + `"`)},
		{Key: "file", Value: wire.AppendString(nil, id)},
		{Key: "offset", Value: strconv.AppendInt(nil, offset, 10)},
	}
	if done {
		edits = append(edits, wire.Edit{Key: "done", Value: []byte("true")})
	}
	_ = p.l.Send(edits, nil, nil)
}

// refuseFile says that a file is not wanted.
func (p *peerLink) refuseFile(id string, why error) {
	_ = p.l.Send([]wire.Edit{
		{Key: "message_type", Value: []byte(`"` + wire.TypeFileAck + `"`)},
		{Key: "file", Value: wire.AppendString(nil, id)},
		{Key: "reason", Value: wire.AppendString(nil, fileReason(why))},
		{Key: "error", Value: wire.AppendString(nil, why.Error())},
	}, nil, nil)
}
