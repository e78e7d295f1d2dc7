package queue

// ring is a growing circular buffer of items.
type ring struct {
	buf   []item // length: a power of two
	start int
	n     int
}

const keepRing = 4096 // items that an empty ring keeps room for

func (r *ring) at(i int) *item { return &r.buf[(r.start+i)&(len(r.buf)-1)] }

// push makes room for one more at the end and returns it, to be filled in.
func (r *ring) push() *item {
	if r.n == len(r.buf) {
		bigger := make([]item, max(16, 2*len(r.buf)))
		k := copy(bigger, r.buf[r.start:])
		copy(bigger[k:], r.buf[:r.start])
		r.buf, r.start = bigger, 0
	}
	r.n++
	return r.at(r.n - 1)
}

// drop removes the first item.
func (r *ring) drop() {
	r.start = (r.start + 1) & (len(r.buf) - 1)
	if r.n--; r.n == 0 && len(r.buf) > keepRing {
		*r = ring{}
	}
}
