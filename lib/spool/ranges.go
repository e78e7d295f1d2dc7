package spool

import "slices"

// A Range is the sequences from First to Last, both included.
type Range struct{ First, Last uint64 }

// set is a set of sequences: ranges in order that do not touch.
type set []Range

// find returns the index of the first range that does not end before seq.
func (s set) find(seq uint64) int {
	if len(s) == 0 || seq <= s[0].Last {
		return 0
	}
	i, _ := slices.BinarySearchFunc(s, seq, func(r Range, seq uint64) int {
		switch {
		case r.Last < seq:
			return -1
		case r.Last > seq:
			return 1
		}
		return 0
	})
	return i
}

func (s set) has(seq uint64) bool {
	i := s.find(seq)
	return i < len(s) && s[i].First <= seq
}

func (s set) count() (n int64) {
	for _, r := range s {
		n += int64(r.Last-r.First) + 1
	}
	return n
}

// push adds a sequence above all others.
func (s *set) push(seq uint64) {
	if n := len(*s); n > 0 && (*s)[n-1].Last+1 == seq {
		(*s)[n-1].Last = seq
		return
	}
	*s = append(*s, Range{seq, seq})
}

// pushRange adds a range above all others.
func (s *set) pushRange(r Range) {
	if n := len(*s); n > 0 && (*s)[n-1].Last+1 == r.First {
		(*s)[n-1].Last = r.Last
		return
	}
	*s = append(*s, r)
}

// add adds a range wherever it belongs.
func (s *set) add(r Range) {
	i := s.find(r.First)
	if i > 0 && (*s)[i-1].Last+1 == r.First {
		i--
	}
	j := i
	for j < len(*s) && (r.Last == ^uint64(0) || (*s)[j].First <= r.Last+1) {
		r.First = min(r.First, (*s)[j].First)
		r.Last = max(r.Last, (*s)[j].Last)
		j++
	}
	*s = slices.Replace(*s, i, j, r)
}

// remove removes a range and returns how many sequences of it were there.
func (s *set) remove(r Range) (n int64) {
	i := s.find(r.First)
	j := i
	var keep [2]Range
	left := keep[:0]
	for ; j < len(*s) && (*s)[j].First <= r.Last; j++ {
		old := (*s)[j]
		n += int64(min(old.Last, r.Last)-max(old.First, r.First)) + 1
		if old.First < r.First {
			left = append(left, Range{old.First, r.First - 1})
		}
		if old.Last > r.Last {
			left = append(left, Range{r.Last + 1, old.Last})
		}
	}
	switch {
	case i == j:
	case i == 0 && len(left) == 0:
		*s = (*s)[j:] // in order: nothing is moved
	case j-i == len(left):
		copy((*s)[i:], left)
	default:
		*s = slices.Replace(*s, i, j, left...)
	}
	return n
}

// overlap calls f for each part of r that is in the set.
func (s set) overlap(r Range, f func(Range)) {
	for i := s.find(r.First); i < len(s) && s[i].First <= r.Last; i++ {
		f(Range{max(r.First, s[i].First), min(r.Last, s[i].Last)})
	}
}
