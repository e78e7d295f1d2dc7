package spool

import "hash/crc32"

// What a segment needs of its header is the key, and of that no more than what
// it adds to checksums. The checksum of a record is continued from the key, so
// where all headers are lost the key follows from a record: the computation is
// run backwards.

// findKey returns a key that gives the checksums of the first record of a
// segment whose header is lost. It is not the one that was in the header, but
// all checksums of the log are the same with it.
func findKey(s *scanner, number uint64) (key uint64, ok bool) {
	b := s.bytes(segmentHead, recordHead)
	if len(b) < recordHead || string(b[:4]) != string(magic) {
		return 0, false
	}
	s.seal = unsum(le.Uint32(b[4:]), b[8:recordHead]) ^ segmentHead
	// That much any 36 bytes with the magic would give; the body proves it.
	if _, whole, ok := s.record(segmentHead); !ok || !whole {
		return 0, false
	}
	var n [8]byte
	le.PutUint64(n[:], number)
	// A key whose first half is zero, and whose second half leads to the seal.
	want := unsum(unsum(s.seal, n[:]), make([]byte, 4))
	key = uint64(crc32.Update(0, castagnoli, make([]byte, 4))^want) << 32
	return key, seal(key, number) == s.seal
}

// unsum returns the checksum from which that of b was continued.
func unsum(sum uint32, b []byte) uint32 {
	var index [256]byte // of the entry of the table with that highest byte
	for i, v := range castagnoli {
		index[v>>24] = byte(i)
	}
	sum = ^sum
	for i := len(b) - 1; i >= 0; i-- {
		k := index[sum>>24]
		sum = (sum^castagnoli[k])<<8 | uint32(k^b[i])
	}
	return ^sum
}
