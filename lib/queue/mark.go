package queue

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// Origin tells messages that a peer may send more than once: frame by frame,
// Seq goes on by one. A peer's lane is known by its epoch.
type Origin struct {
	Peer  string
	Epoch Epoch
	Seq   uint64 // of the first frame; 0: not known
}

// ID names a message so that it is taken once. The zero ID is none.
type ID [16]byte

// mark is what was taken of one peer's lane.
type mark struct {
	epoch Epoch
	high  uint64 // the highest number taken
	sure  uint64 // of that, on disk
	index uint64 // stands for peer and epoch in the log; 0: not yet
	used  int64  // unix time in seconds
	other *mark  // of the peer's lane before: it may have two of one type, see Topic
}

// unsureMark is a mark as it will be when a record is on disk.
type unsureMark struct {
	m    *mark
	num  uint64
	high uint64
}

const (
	// markWindow is for how long, and markMost for how many peers, it is kept
	// what was taken from them, when there are that many.
	markWindow = 30 * 24 * time.Hour
	markMost   = 10_000
)

// known returns how many of the frames from x were taken before, count being
// how many there are. q.mu is held.
func (l *lane) known(from *Origin, count int) int {
	if from.Seq == 0 {
		return 0
	}
	m := l.marks[from.Peer]
	if m != nil && m.epoch != from.Epoch {
		m = m.other
	}
	if m == nil || m.epoch != from.Epoch || from.Seq > m.high {
		return 0
	}
	return int(min(uint64(count), m.high-from.Seq+1))
}

// markOf returns the mark of an origin, which may be new. q.mu is held.
func (l *lane) markOf(from *Origin) *mark {
	m := l.marks[from.Peer]
	if m == nil {
		for len(l.marks) >= markMost || !l.remembers(markBytes) {
			if len(l.marks) == 0 {
				break // the one goes beyond
			}
			l.forgetMarks()
		}
		if l.marks == nil {
			l.marks = map[string]*mark{}
		}
		m = &mark{epoch: from.Epoch}
		l.marks[from.Peer] = m
		return m
	}
	if m.epoch == from.Epoch {
		return m
	}
	// The one that is older is forgotten: a peer can make up any number of them.
	next := m.other
	if m.other = nil; next == nil || next.epoch != from.Epoch {
		next = &mark{epoch: from.Epoch}
	}
	next.other = m
	l.marks[from.Peer] = next
	return next
}

// forgetMarks makes room for marks: peers that have not been heard of for a
// month go first, then those whose last message is longest ago, a tenth of all.
func (l *lane) forgetMarks() {
	type last struct {
		peer string
		used int64
	}
	all := make([]last, 0, len(l.marks))
	for peer, m := range l.marks {
		all = append(all, last{peer, m.used})
	}
	slices.SortFunc(all, func(a, b last) int { return int(a.used - b.used) })
	old := time.Now().Add(-markWindow).Unix()
	gone := 0
	for ; gone < len(all); gone++ {
		if all[gone].used > old && gone > len(all)/10 {
			break
		}
		delete(l.marks, all[gone].peer)
	}
	l.forgot(gone * markBytes)
}

// took notes that count frames were taken, the last as number l.num-1.
// q.mu is held.
func (l *lane) took(x *Extra, count int) {
	if x.From.Seq > 0 {
		m := l.markOf(&x.From)
		x.From.Seq += uint64(count)
		m.high = x.From.Seq - 1
		m.used = time.Now().Unix()
		if d := l.disk; d != nil && d.durable {
			if k := len(d.unsure) - 1; k >= 0 && d.unsure[k].m == m {
				d.unsure[k].num, d.unsure[k].high = l.num-1, m.high
			} else {
				d.unsure = append(d.unsure, unsureMark{m, l.num - 1, m.high})
			}
		}
	}
	if x.ID != (ID{}) {
		l.addID(x.ID, time.Now().Unix())
		if d := l.disk; d != nil && d.durable {
			d.newIDs = append(d.newIDs, newID{id: x.ID, num: l.num - 1})
		}
	}
}

// sure notes that the records up to safe are on disk. q.mu is held.
func (l *lane) sure(safe uint64) {
	d := l.disk
	k := 0
	for ; k < len(d.unsure) && d.unsure[k].num <= safe; k++ {
		d.unsure[k].m.sure = d.unsure[k].high
	}
	d.unsure = slices.Delete(d.unsure, 0, k)
	k = 0
	for ; k < len(d.newIDs) && d.newIDs[k].num <= safe; k++ {
		d.newIDs[k].tell(l.q, nil)
	}
	d.newIDs = slices.Delete(d.newIDs, 0, k)
}

// lostMarks takes back what was noted of records that are lost: these will be
// sent again, and must be taken then. All else is as it was: what is on disk must
// not be taken twice. q.mu is held.
func (l *lane) lostMarks(err error) {
	d := l.disk
	for _, u := range d.unsure {
		u.m.high, u.m.index = u.m.sure, 0
	}
	d.unsure = nil
	l.forgot(l.ids.remove(d.newIDs) * idBytes)
	l.tellTwice(err)
}

// meta is what is kept on disk of a message, beside its frame.
type meta struct {
	seq    uint64
	mortal bool

	// Where it came from: index stands for peer and epoch, which are there
	// only the first time.
	index  uint64
	number uint64
	peer   string
	epoch  Epoch
	id     ID
}

const (
	metaMortal = 1 << iota
	metaOrigin
	metaPeer
	metaID
)

// metaOf returns the meta of the next record but for its seq. q.mu is held;
// disk.in too.
func (l *lane) metaOf(x *Extra) meta {
	m := meta{mortal: x.Mortal, id: x.ID}
	if x.From.Seq == 0 {
		return m
	}
	k := l.markOf(&x.From)
	if k.index == 0 {
		l.disk.indexes++
		k.index = l.disk.indexes
		m.peer, m.epoch = x.From.Peer, x.From.Epoch
	}
	m.index, m.number = k.index, x.From.Seq
	return m
}

// notWritten undoes metaOf for a record that was not appended: without it, nothing
// on disk says what the index stands for. q.mu is held.
func (l *lane) notWritten(m *meta, x *Extra) {
	if k := l.marks[x.From.Peer]; m.epoch != (Epoch{}) && k != nil && k.index == m.index {
		k.index = 0
	}
}

// next makes it the meta of the next record of a run.
func (m *meta) next() {
	m.number++
	m.peer, m.epoch = "", Epoch{}
}

func (m *meta) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0)
	b = binary.AppendUvarint(b, m.seq)
	if m.mortal {
		b[at] |= metaMortal
	}
	if m.index > 0 {
		b[at] |= metaOrigin
		b = binary.AppendUvarint(b, m.index)
		b = binary.AppendUvarint(b, m.number)
		if m.epoch != (Epoch{}) {
			b[at] |= metaPeer
			b = binary.AppendUvarint(b, uint64(len(m.peer)))
			b = append(b, m.peer...)
			b = append(b, m.epoch[:]...)
		}
	}
	if m.id != (ID{}) {
		b[at] |= metaID
		b = append(b, m.id[:]...)
	}
	return b
}

var errMeta = errors.New("unknown form of what is kept beside a message")

// cursor reads the fields of a meta or a state.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func parseMeta(b []byte) (m meta, err error) {
	if len(b) == 0 {
		return m, errMeta
	}
	flags, c := b[0], cursor{b: b[1:]}
	m.seq = c.uvarint()
	m.mortal = flags&metaMortal != 0
	if flags&metaOrigin != 0 {
		m.index, m.number = c.uvarint(), c.uvarint()
	}
	if flags&metaPeer != 0 {
		m.peer = string(c.bytes(c.uvarint()))
		copy(m.epoch[:], c.bytes(uint64(len(m.epoch))))
	}
	if flags&metaID != 0 {
		copy(m.id[:], c.bytes(uint64(len(m.id))))
	}
	if c.bad || flags >= metaID<<1 {
		return m, errMeta
	}
	return m, nil
}

// remember brings the marks and ids up to a record that is on disk. It is used
// when the log is opened. q.mu is held.
func (l *lane) remember(m *meta, when int64) (twice bool) {
	d := l.disk
	if m.index > 0 {
		d.indexes = max(d.indexes, m.index)
		if m.epoch != (Epoch{}) {
			k := l.markOf(&Origin{Peer: m.peer, Epoch: m.epoch})
			k.index = m.index
			d.byIndex[m.index] = k
		}
		if k := d.byIndex[m.index]; k != nil && k.index == m.index {
			twice = m.number <= k.high
			k.high = max(k.high, m.number)
			k.sure, k.used = k.high, when
		}
	}
	if m.id != (ID{}) {
		l.addID(m.id, when)
	}
	return twice
}

const stateVersion = 1

// state appends the marks and ids of the lane to dst. The log sees to it that it
// is not found again without the records that were appended before it.
func (l *lane) state(dst []byte) []byte {
	q, d := l.q, l.disk
	q.mu.Lock()
	defer q.unlock()
	dst = append(dst, stateVersion)
	dst = binary.AppendUvarint(dst, q.order.next())
	dst = binary.AppendUvarint(dst, d.indexes)
	n := len(l.marks)
	for _, m := range l.marks {
		if m.other != nil {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	for peer, m := range l.marks {
		for _, m := range []*mark{m.other, m} { // read in this order
			if m == nil {
				continue
			}
			dst = binary.AppendUvarint(dst, uint64(len(peer)))
			dst = append(dst, peer...)
			dst = append(dst, m.epoch[:]...)
			dst = binary.AppendUvarint(dst, m.high)
			dst = binary.AppendUvarint(dst, m.index)
			dst = binary.AppendUvarint(dst, uint64(m.used))
		}
	}
	// None is forgotten here: who waits for that memory would be called with the log
	// locked.
	ids := l.ids.lasting(time.Now())
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = append(dst, id[:]...)
		dst = binary.AppendUvarint(dst, uint64(l.ids.when[id]))
	}
	return dst
}

// readState is the inverse of state. q.mu is held.
func (l *lane) readState(b []byte) {
	d := l.disk
	if len(b) == 0 || b[0] != stateVersion {
		return
	}
	c := cursor{b: b[1:]}
	l.q.order.leave(c.uvarint())
	d.indexes = c.uvarint()
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		peer := string(c.bytes(c.uvarint()))
		var m mark
		copy(m.epoch[:], c.bytes(uint64(len(m.epoch))))
		m.high, m.index, m.used = c.uvarint(), c.uvarint(), int64(c.uvarint())
		m.sure = m.high
		if c.bad {
			return
		}
		k := l.markOf(&Origin{Peer: peer, Epoch: m.epoch})
		m.high = max(m.high, k.high)
		m.sure, m.other = m.high, k.other
		*k = m
		if m.index > 0 {
			d.byIndex[m.index] = k
		}
	}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		var id ID
		copy(id[:], c.bytes(uint64(len(id))))
		if when := int64(c.uvarint()); !c.bad {
			l.addID(id, when)
		}
	}
}
