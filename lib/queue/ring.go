package queue

// ring is a growing circular buffer of items.
type ring struct {
	buf   []item // length: a power of two
	start int
	n     int
}

const keepRing = 1024 // items that an empty ring keeps room for

func (r *ring) at(i int) *item { return &r.buf[(r.start+i)&(len(r.buf)-1)] }

func (r *ring) push(it item) {
	if r.n == len(r.buf) {
		bigger := make([]item, max(16, 2*len(r.buf)))
		for i := range r.n {
			bigger[i] = *r.at(i)
		}
		r.buf, r.start = bigger, 0
	}
	r.buf[(r.start+r.n)&(len(r.buf)-1)] = it
	r.n++
}

// drop removes the first item.
func (r *ring) drop() {
	*r.at(0) = item{}
	r.start++
	if r.n--; r.n == 0 {
		r.start = 0
		if len(r.buf) > keepRing {
			r.buf = nil
		}
	}
}
