package queue

// heap holds items, the one with the smallest sequence number first. Pushing
// in order, as takers mostly give back, costs one comparison each.
type heap []item

func (h *heap) push(it item) {
	*h = append(*h, it)
	s := *h
	i := len(s) - 1
	for i > 0 && s[(i-1)/2].seq > it.seq {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = it
}

func (h *heap) pop() item {
	s := *h
	first, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		if cap(s) > keepRing {
			*h = nil
		}
		return first
	}
	i := 0
	for k := 1; k < len(s); k = 2*i + 1 {
		if k+1 < len(s) && s[k+1].seq < s[k].seq {
			k++
		}
		if s[k].seq > last.seq {
			break
		}
		s[i] = s[k]
		i = k
	}
	s[i] = last
	return first
}
