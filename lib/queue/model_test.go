package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"aioc/lib/wire"
)

// message returns a frame of at least size bytes that holds id and, in every
// other byte of its data, something that depends on id.
func message(id uint64, size int) []byte {
	data := make([]byte, max(8, size-12))
	binary.LittleEndian.PutUint64(data, id)
	for i := 8; i < len(data); i++ {
		data[i] = byte(id*7 + uint64(i))
	}
	f, err := wire.AppendFrame(nil, []byte("{}"), data, nil)
	if err != nil {
		panic(err)
	}
	return f
}

// marked is the message as an edit passes it on.
func marked(frame []byte) []byte {
	f := bytes.Clone(frame)
	f[6], f[7] = '[', ']'
	return f
}

func idOf(frame []byte) uint64 { return binary.LittleEndian.Uint64(frame[12:]) }

// frames cuts a batch into its frames.
func frames(b *wire.Batch) (all [][]byte) {
	for _, span := range b.Spans {
		for len(span) > 0 {
			var f []byte
			f, span = wire.Split(span)
			all = append(all, f)
		}
	}
	return all
}

// entry is a message of the model.
type entry struct {
	id    uint64
	typ   string
	frame []byte
	note  *Note
	told  *[]error // what the note was told
	done  bool     // of one in a taker's hand: finished or given back
}

// modelTaker is a taker and what it should have.
type modelTaker struct {
	t       *Taker
	edits   bool
	hand    []*entry // number 1 first
	got     [][]byte // what Take returned for them
	parked  map[string]bool
	waiting bool
	ready   int // calls of ready
}

// model is a queue, slow and plain, beside the queue it is compared with.
type model struct {
	t       *testing.T
	r       *rand.Rand
	q       *Queue
	budget  *Budget
	limit   int
	prio    map[string]int
	types   []string
	wait    []*entry // by id
	nextID  uint64
	takers  []*modelTaker
	rooms   map[string][]*modelRoom
	empties []*int
	noted   []*entry
	closed  bool
}

type modelRoom struct{ n, calls int }

func newModel(t *testing.T, seed uint64, budget *Budget) *model {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &model{
		t: t, r: r, budget: budget,
		limit: []int{200, 5000, 100_000, 300_000}[r.IntN(4)],
		prio:  map[string]int{"urgent": -1, "bulk": 5},
		types: []string{"a", "b", "urgent", "bulk"},
		rooms: map[string][]*modelRoom{},
	}
	m.q = New(m.limit, budget, m.prio)
	for range 1 + r.IntN(3) {
		m.newTaker()
	}
	return m
}

func (m *model) newTaker() {
	x := &modelTaker{parked: map[string]bool{}, edits: m.r.IntN(2) == 0}
	var edit func(uint64, bool, []byte) []byte
	if x.edits {
		edit = func(n uint64, _ bool, frame []byte) []byte {
			if n != x.t.base+uint64(x.t.hand.n) {
				m.t.Errorf("edit of number %d", n)
			}
			return marked(frame)
		}
	}
	x.t = m.q.Taker(func() { x.ready++ }, edit)
	m.takers = append(m.takers, x)
}

func (m *model) bytes(typ string) (n int) {
	count := func(e *entry) {
		if e.typ == typ && !e.done {
			n += len(e.frame) + overhead
		}
	}
	for _, e := range m.wait {
		count(e)
	}
	for _, x := range m.takers {
		for _, e := range x.hand {
			count(e)
		}
	}
	return n
}

func (m *model) inHand() (n int) {
	for _, x := range m.takers {
		for _, e := range x.hand {
			if !e.done {
				n++
			}
		}
	}
	return n
}

// wake expects each waiting taker to be called once.
func (m *model) wake(before []int) {
	for i, x := range m.takers {
		if x.waiting {
			before[i]++
			x.waiting = false
		}
	}
}

func (m *model) size() int {
	switch m.r.IntN(20) {
	case 0:
		return fullBlock + m.r.IntN(3) - 1
	case 1:
		return smallBlock + m.r.IntN(3) - 1
	case 2:
		return m.limit + m.r.IntN(3) - 1
	case 3:
		return m.r.IntN(100_000)
	}
	return m.r.IntN(300)
}

func (m *model) put(calls []int) {
	typ := m.types[m.r.IntN(len(m.types))]
	if m.r.IntN(3) == 0 {
		m.putNote(typ, calls)
		return
	}
	var all []byte
	var entries []*entry
	for range 1 + m.r.IntN(20) {
		e := &entry{id: m.nextID + uint64(len(entries)), typ: typ}
		e.frame = message(e.id, m.size())
		entries = append(entries, e)
		all = append(all, e.frame...)
	}
	n, err := m.q.Put(typ, all)
	clear(all) // the queue has copied them
	want, bytes := 0, m.bytes(typ)
	for _, e := range entries {
		if m.closed || bytes > 0 && bytes+len(e.frame)+overhead > m.limit || m.budget != nil && want == n {
			break // a budget may take less
		}
		bytes += len(e.frame) + overhead
		want += len(e.frame)
		m.wait = append(m.wait, e)
		m.nextID++
	}
	wantErr := error(nil)
	if m.closed {
		wantErr = ErrClosed
	} else if want < len(all) {
		wantErr = ErrFull
	}
	if n != want || err != wantErr {
		m.t.Fatalf("Put = %d, %v; want %d, %v", n, err, want, wantErr)
	}
	if n > 0 {
		m.wake(calls)
	}
}

func (m *model) putNote(typ string, calls []int) {
	e := &entry{id: m.nextID, typ: typ, told: new([]error)}
	e.frame = message(e.id, m.size())
	e.note = &Note{Done: func(err error) { *e.told = append(*e.told, err) }, WaitForAck: m.r.IntN(2) == 0}
	b := m.bytes(typ)
	fits := !m.closed && (b == 0 || b+len(e.frame)+overhead <= m.limit)
	switch err := m.q.PutNote(typ, e.frame, e.note); {
	case err == nil && fits:
		m.wait = append(m.wait, e)
		m.noted = append(m.noted, e)
		m.nextID++
		m.wake(calls)
	case err == nil:
		m.t.Fatal("PutNote took what has no room")
	case m.closed && err != ErrClosed, !m.closed && err != ErrFull:
		m.t.Fatalf("PutNote = %v", err)
	case fits && m.budget == nil:
		m.t.Fatalf("PutNote = %v, but there is room", err)
	}
}

func (m *model) take(x *modelTaker) {
	limit, count := 1+m.r.IntN(5000), 1+m.r.IntN(30)
	var b wire.Batch
	n := x.t.Take(&b, limit, count)
	got := frames(&b)
	if n != len(got) || n != b.Frames {
		m.t.Fatalf("Take = %d, but the batch holds %d frames, and counts %d", n, len(got), b.Frames)
	}
	size := 0
	for i := 0; ; i++ {
		best := -1
		for k, e := range m.wait {
			if !x.parked[e.typ] && (best < 0 || m.prio[e.typ] < m.prio[m.wait[best].typ]) {
				best = k
			}
		}
		if best < 0 || i == count || size >= limit || m.closed {
			if i != n {
				m.t.Fatalf("Take took %d, want %d", n, i)
			}
			break
		}
		e := m.wait[best]
		want := e.frame
		if x.edits && e.note != nil {
			want = marked(want)
		}
		if i >= n || !bytes.Equal(got[i], want) {
			m.t.Fatalf("Take: frame %d of %d is not that of message %d of type %s", i, n, e.id, e.typ)
		}
		m.wait = slices.Delete(m.wait, best, best+1)
		x.hand = append(x.hand, e)
		x.got = append(x.got, got[i])
		size += len(e.frame)
	}
	if n == 0 && !m.closed {
		x.waiting = true
	}
	if got, want := x.t.Numbered(), uint64(len(x.hand)); got != want {
		m.t.Fatalf("Numbered = %d, want %d", got, want)
	}
}

// finish expects e to be finished with err.
func (m *model) finish(e *entry, err error) {
	e.done = true
	if e.note == nil {
		return
	}
	if len(*e.told) != 1 || !errors.Is((*e.told)[0], err) {
		m.t.Fatalf("the note of %d was told %v, want %v once", e.id, *e.told, err)
	}
}

// checkHand makes sure that nothing has touched what is in hand.
func (m *model) checkHand(x *modelTaker) {
	for i, e := range x.hand {
		want := e.frame
		if x.edits && e.note != nil {
			want = marked(want)
		}
		if !e.done && !bytes.Equal(x.got[i], want) {
			m.t.Fatalf("message %d has changed while it was in hand", e.id)
		}
	}
}

func (m *model) giveBack(e *entry) {
	if m.closed {
		m.finish(e, ErrClosed)
		return
	}
	back := *e
	i, _ := slices.BinarySearchFunc(m.wait, e.id, func(e *entry, id uint64) int { return int(e.id) - int(id) })
	m.wait = slices.Insert(m.wait, i, &back)
	for k, n := range m.noted {
		if n == e {
			m.noted[k] = &back
		}
	}
	e.done = true
}

// step does one thing at random and compares.
func (m *model) step() {
	calls := make([]int, len(m.takers))
	for i, x := range m.takers {
		calls[i] = x.ready
	}
	x := m.takers[m.r.IntN(len(m.takers))]
	number := 1 + m.r.IntN(len(x.hand)+2)
	switch k := m.r.IntN(100); {
	case k < 35:
		m.put(calls)
	case k < 55:
		m.take(x)
	case k < 68:
		acked, n := m.r.IntN(2) == 0, 0
		m.checkHand(x)
		got := x.t.Done(uint64(number), acked)
		for _, e := range x.hand[:min(number, len(x.hand))] {
			if !e.done && (e.note == nil || acked || !e.note.WaitForAck) {
				m.finish(e, nil)
				n++
			}
		}
		if got != n {
			m.t.Fatalf("Done = %d, want %d", got, n)
		}
	case k < 76:
		err := []error{nil, errors.New("refused")}[m.r.IntN(2)]
		m.checkHand(x)
		want := number <= len(x.hand) && !x.hand[number-1].done
		if got := x.t.DoneOne(uint64(number), err); got != want {
			m.t.Fatalf("DoneOne(%d) = %v, want %v", number, got, want)
		}
		if want {
			m.finish(x.hand[number-1], err)
		}
	case k < 84:
		park, want := m.r.IntN(2) == 0, ""
		if number <= len(x.hand) && !x.hand[number-1].done {
			want = x.hand[number-1].typ
		}
		if got := x.t.Return(uint64(number), park); got != want {
			m.t.Fatalf("Return(%d) = %q, want %q", number, got, want)
		}
		if want != "" {
			m.giveBack(x.hand[number-1])
			if park {
				x.parked[want] = true
			}
			if !m.closed {
				m.wake(calls)
			}
		}
	case k < 88:
		typ := m.types[m.r.IntN(len(m.types))]
		known := m.q.byType[typ] != nil
		x.t.Resume(typ)
		delete(x.parked, typ)
		if known {
			calls[slices.Index(m.takers, x)]++
		}
	case k < 90:
		m.checkHand(x)
		x.t.Close()
		x.t.Close()
		x.waiting = false
		for _, e := range x.hand {
			if !e.done {
				m.giveBack(e)
				if !m.closed {
					m.wake(calls)
				}
			}
		}
		i := slices.Index(m.takers, x)
		m.takers, calls = slices.Delete(m.takers, i, i+1), slices.Delete(calls, i, i+1)
		m.newTaker()
		calls = append(calls, 0)
	case k < 92:
		x.t.Watch()
		x.waiting = x.waiting || !m.closed
	case k < 96:
		typ, room := m.types[m.r.IntN(len(m.types))], &modelRoom{n: m.r.IntN(500)}
		m.rooms[typ] = append(m.rooms[typ], room)
		m.q.OnRoom(typ, room.n, func() { room.calls++ })
	case k < 98:
		calls := new(int)
		m.empties = append(m.empties, calls)
		m.q.OnEmpty(func() { *calls++ })
	case k == 98:
		if m.r.IntN(20) == 0 && !m.closed {
			m.close(calls)
		}
	default:
		want := !m.closed && len(m.wait)+m.inHand() == 0
		if m.r.IntN(20) > 0 {
			break
		}
		if got := closeIfEmpty(m.q); got != want {
			m.t.Fatalf("CloseIfEmpty = %v, want %v", got, want)
		}
		if want {
			m.closed = true
			m.wake(calls)
		}
	}
	m.compare(calls)
}

func (m *model) close(calls []int) {
	got, want := m.q.Close(), len(m.wait)
	if got != want {
		m.t.Fatalf("Close = %d, want %d", got, want)
	}
	for _, e := range m.wait {
		m.finish(e, ErrClosed)
	}
	m.wait, m.closed = nil, true
	m.wake(calls)
}

func (m *model) compare(calls []int) {
	m.t.Helper()
	for i, x := range m.takers {
		if x.ready != calls[i] {
			m.t.Fatalf("taker %d was called %d times, want %d", i, x.ready, calls[i])
		}
		left := 0
		for _, e := range x.hand {
			if !e.done {
				left++
			}
		}
		if got := x.t.InHand(); got != left {
			m.t.Fatalf("InHand = %d, want %d", got, left)
		}
	}
	s, total := m.q.Stats(), 0
	for _, typ := range m.types {
		n := m.bytes(typ)
		total += n
		need, roomy := 0, false
		for _, room := range m.rooms[typ] {
			need = max(need, room.n+overhead)
		}
		roomy = m.closed || n == 0 || n <= m.limit/2 && n+need <= m.limit
		for _, room := range m.rooms[typ] {
			if room.calls > 1 || !roomy && room.calls > 0 || roomy && room.calls == 0 && m.budget == nil {
				m.t.Fatalf("OnRoom has called %d times, there is room: %v", room.calls, roomy)
			}
		}
		m.rooms[typ] = slices.DeleteFunc(m.rooms[typ], func(r *modelRoom) bool { return r.calls > 0 })
	}
	if s.Waiting != len(m.wait) || s.InHand != m.inHand() || s.Bytes != total {
		m.t.Fatalf("Stats = %d waiting, %d in hand, %d bytes; want %d, %d, %d",
			s.Waiting, s.InHand, s.Bytes, len(m.wait), m.inHand(), total)
	}
	agree(m.t, m.q)
	empty := m.closed || len(m.wait)+m.inHand() == 0
	for _, n := range m.empties {
		if *n > 1 || (*n == 1) != empty {
			m.t.Fatalf("OnEmpty has called %d times, it is empty: %v", *n, empty)
		}
	}
	if empty {
		m.empties = nil
	}
	for _, e := range m.noted {
		if !e.done && len(*e.told) > 0 {
			m.t.Fatalf("the note of %d was told %v too early", e.id, *e.told)
		}
		if e.done && e.note != nil && len(*e.told) != 1 {
			m.t.Fatalf("the note of %d was told %v, want it once", e.id, *e.told)
		}
	}
}

// end finishes everything, one way or the other.
func (m *model) end() {
	if m.r.IntN(2) == 0 && !m.closed {
		m.close(make([]int, len(m.takers)))
	}
	for _, x := range m.takers {
		for typ := range x.parked {
			x.t.Resume(typ)
			delete(x.parked, typ)
		}
		m.checkHand(x)
		x.t.Done(uint64(len(x.hand)), true)
		for _, e := range x.hand {
			if !e.done {
				m.finish(e, nil)
			}
		}
	}
	x := m.takers[0]
	for len(m.wait) > 0 {
		m.take(x)
		x.t.Done(uint64(len(x.hand)), true)
		for _, e := range x.hand {
			if !e.done {
				m.finish(e, nil)
			}
		}
	}
	for _, e := range m.noted {
		if len(*e.told) != 1 {
			m.t.Errorf("the note of %d was told %v, want it once", e.id, *e.told)
		}
	}
	for typ, rooms := range m.rooms {
		for _, room := range rooms {
			if room.calls != 1 {
				m.t.Errorf("type %s is empty, but OnRoom has called %d times", typ, room.calls)
			}
		}
	}
	for _, n := range m.empties {
		if *n != 1 {
			m.t.Errorf("the queue is empty, but OnEmpty has called %d times", *n)
		}
	}
	if s := m.q.Stats(); s.Waiting+s.InHand+s.Bytes != 0 || m.q.Len() != 0 {
		m.t.Errorf("at the end: %+v", s)
	}
	if len(m.q.notes) != 0 {
		m.t.Errorf("%d notes are left", len(m.q.notes))
	}
	if len(m.q.vacant) != len(m.q.blocks) {
		m.t.Errorf("%d blocks are left", len(m.q.blocks)-len(m.q.vacant))
	}
	if n := m.budget.Used(); n != 0 {
		m.t.Errorf("%d bytes of the budget are left in use", n)
	}
}

func TestAQueueDoesWhatItsModelDoes(t *testing.T) {
	seeds, steps := 12, 200
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		for _, budget := range []*Budget{nil, NewBudget(1 << 30), NewBudget(fullBlock), NewBudget(10_000)} {
			max := 0
			if budget != nil {
				max = budget.max
			}
			ok := t.Run(fmt.Sprintf("seed %d, budget %d", seed, max), func(t *testing.T) {
				m := newModel(t, uint64(seed), budget)
				for range steps {
					m.step()
				}
				m.end()
			})
			if !ok {
				return
			}
		}
	}
}
