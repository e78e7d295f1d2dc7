package spool

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	headerCopy  = 512            // bytes of one copy of a segment's header
	segmentHead = 2 * headerCopy // where the records of a segment start
	recordHead  = 36             // bytes of a record before its body
	version     = 1

	// MaxMeta is the largest Meta or note in bytes.
	MaxMeta = 1<<16 - 1
	// MaxFrame is the largest Frame or state in bytes.
	MaxFrame = 1 << 30

	notSynced = 1       // flag of a segment
	ofAcks    = 1 << 63 // in the number that the checksum of an .ack uses
)

// The kinds of records.
const (
	kindMessage = 1 + iota
	kindState
	kindMark
	kindAck
	kindNote
	kindViews
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	magic      = []byte("\xa1oc\x02")
	signature  = []byte{'a', 'i', 'o', 'c', 's', 'p', 'l', version}
)

// A Record is one message.
type Record struct {
	Seq   uint64 // above that of the record before; gaps are allowed
	Time  int64  // Unix ms, as its owner says
	Flags uint8  // the owner's
	Meta  []byte // the owner's, at most MaxMeta bytes
	Frame []byte // at most MaxFrame bytes

	// When read or replayed; Append does not look at them.
	Size int    // of Frame
	Note []byte // what Note said last
}

// head is the fixed part of a record.
type head struct {
	seq    uint64
	time   int64
	length int // of the body
	meta   int
	kind   uint8
	flags  uint8
	crc    uint32 // of the body
}

// seal is what the checksums of the records of one file start from.
func seal(key, number uint64) uint32 {
	var b [16]byte
	le.PutUint64(b[:], key)
	le.PutUint64(b[8:], number)
	return crc32.Update(0, castagnoli, b[:])
}

// headSum returns the checksum of the head of a record at off.
func headSum(seal uint32, off int64, b []byte) uint32 {
	return crc32.Update(seal^uint32(off), castagnoli, b[8:recordHead])
}

// appendHead appends the head of a record that is to be written at off and whose
// body is meta and frame.
func appendHead(b []byte, seal uint32, off int64, h head, meta, frame []byte) []byte {
	n := len(b)
	b = append(b, magic...)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(meta)+len(frame)))
	b = le.AppendUint16(b, uint16(len(meta)))
	b = append(b, h.kind, h.flags)
	b = le.AppendUint64(b, h.seq)
	b = le.AppendUint64(b, uint64(h.time))
	crc := crc32.Update(seal, castagnoli, meta)
	crc = crc32.Update(crc, castagnoli, frame)
	b = le.AppendUint32(b, crc)
	le.PutUint32(b[n+4:], headSum(seal, off, b[n:]))
	return b
}

// appendRecord appends a whole record to be written at off.
func appendRecord(b []byte, seal uint32, off int64, h head, meta, frame []byte) []byte {
	b = appendHead(b, seal, off, h, meta, frame)
	b = append(b, meta...)
	return append(b, frame...)
}

// parseHead reads the head of a record at off from the start of b.
func parseHead(b []byte, seal uint32, off int64) (h head, ok bool) {
	if len(b) < recordHead || string(b[:4]) != string(magic) {
		return head{}, false
	}
	h = head{
		length: int(int32(le.Uint32(b[8:]))), meta: int(le.Uint16(b[12:])),
		kind: b[14], flags: b[15], seq: le.Uint64(b[16:]), time: int64(le.Uint64(b[24:])), crc: le.Uint32(b[32:]),
	}
	if le.Uint32(b[4:]) != headSum(seal, off, b) || h.length < h.meta || h.length > MaxFrame+MaxMeta {
		return head{}, false
	}
	return h, true
}

// segmentHeader is what is at the start of a segment.
type segmentHeader struct {
	flags  uint32
	epoch  [16]byte
	key    uint64
	number uint64
	prev   uint64
	time   int64
}

// encode returns both copies.
func (h *segmentHeader) encode() []byte {
	b := make([]byte, headerCopy, segmentHead)
	copy(b, signature)
	le.PutUint32(b[12:], h.flags)
	copy(b[16:], h.epoch[:])
	le.PutUint64(b[32:], h.key)
	le.PutUint64(b[40:], h.number)
	le.PutUint64(b[48:], h.prev)
	le.PutUint64(b[56:], uint64(h.time))
	le.PutUint32(b[8:], crc32.Checksum(b[12:], castagnoli))
	return append(b, b...)
}

// parseHeader reads the header from one of its copies.
func parseHeader(b []byte) (h segmentHeader, ok bool) {
	if len(b) < headerCopy || string(b[:8]) != string(signature) ||
		le.Uint32(b[8:]) != crc32.Checksum(b[12:headerCopy], castagnoli) {
		return h, false
	}
	h.flags = le.Uint32(b[12:])
	copy(h.epoch[:], b[16:])
	h.key = le.Uint64(b[32:])
	h.number = le.Uint64(b[40:])
	h.prev = le.Uint64(b[48:])
	h.time = int64(le.Uint64(b[56:]))
	return h, true
}
