// Package spool is a durable log: records go in at the end, are acknowledged in
// any order, and those that are not yet acknowledged are there again after a
// kill or a power cut.
//
// A Log is a directory of segments. Each is a file with a header of 1024 bytes,
// followed by records; a second file beside it, made with the first
// acknowledgement, holds what has become of the records of that segment and
// disappears with it:
//
//	0000000007.log        segment 7
//	0000000007.ack        acknowledgements and notes of its records
//	0000000003.log.bad    a damaged segment of which all is done, kept for a human
//
// All numbers are little-endian. The header is written twice, at 0 and at 512:
//
//	 0  8  "aiocspl" and the version of the format, 1
//	 8  4  CRC-32C of bytes 12 to 511
//	12  4  flags; 1: a log that is not synced
//	16 16  epoch of the log, random
//	32  8  key of the log, random
//	40  8  number of the segment
//	48  8  prev: records in older segments with a higher sequence are void
//	56  8  time it was made, Unix ms
//	64     zero
//
// A record, in both kinds of file:
//
//	 0  4  magic, "\xa1oc\x02"
//	 4  4  checksum of bytes 8 to 35: their CRC-32C, continued from the seal of
//	       the file xor the lower half of the record's offset in it
//	 8  4  length of the body
//	12  2  length of the meta part at the start of the body
//	14  1  kind: 1 message, 2 state, 3 mark, 4 acknowledgement, 5 note, 6 views
//	15  1  flags of the owner
//	16  8  sequence; of a state and a mark, that of the last record before; of
//	       views, the one after that; of an acknowledgement, the view's number
//	24  8  time, Unix ms
//	32  4  checksum of the body: its CRC-32C, continued from the seal
//	36     body: meta, then the frame
//
// The seal of a file is the CRC-32C of the key and the number of the segment, 8
// bytes each; in the number the highest bit is set for an .ack.
//
// The header of a record has a checksum of its own so that damage in a body
// costs no search for the next record, and damage in a header only one. The
// key, which never leaves the directory, is in the checksums so that bytes
// within a message cannot pose as a record to that search.
//
// Where all headers of a log are lost the key follows from the checksums of a
// record that is intact, which is looked for at 1024 only: elsewhere it may be
// bytes within a message.
//
// What recovery relies on:
//
//   - A batch is written at the end of the newest segment, with one write where
//     it is not large. A sync makes all before it durable.
//   - A segment is made only when all older ones are synced. So whatever a power
//     cut took is at the end of the newest one.
//   - A mark says up to which offset its segment was synced when the mark was
//     written. Damage below it is the disk's fault and is stepped over. Damage
//     above it may be a write that a power cut lost; what follows such damage
//     was not committed either and is dropped, since a log with a hole would
//     make its owner believe that it has what is missing.
//   - A segment is removed when all its records are acknowledged and a newer
//     one is durable with its state. The newest is never removed: it holds the
//     epoch, the key and the state.
//   - After a failed sync or a write that could not be taken back the segment is
//     not written any more, and prev in the header of the next one makes void
//     what was reported as failed.
//
// A log can be shared: see View. A record of views says who is given what is
// appended behind it. One that lists all begins each segment, before its state;
// one of changes goes before the first record that needs it, in the same write.
// Both are written twice in a row. The body is
//
//	0  1   1: all views, 2: changes
//	1      the highest number of a view ever, as a varint
//	       for each view: its number, a varint; a byte, 0 ended, 1 it is not
//	       given what follows, 2 it is; the length of its name, a varint; the name
//
// So what waits for a view is found without anything that is written for it
// alone but its acknowledgements: as with those of all, losing them can only bring
// back what it had. The sequence of such a record makes it void when what was
// appended behind it is.
//
// Open never writes to an old segment: it goes on in a new one, made with the
// first Append. Nothing here starts a goroutine.
package spool
