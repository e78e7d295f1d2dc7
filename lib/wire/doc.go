// Package wire is one frame of the aioconnectors protocol: its bytes, its
// limits, its header, the reserved message types.
//
// A frame, all integers unsigned and little-endian:
//
//	+--------+--------+-------------+--------+--------+ - - - - - - - - - - - - +
//	| u32 N  | u16 T  | header (T)  | u32 D  | data(D)| u32 B  | binary (B)   |
//	+--------+--------+-------------+--------+--------+ - - - - - - - - - - - - +
//	         |<------------------------- N bytes ----------------------------->|
//
// The header is a JSON object. The binary section is there when the header's
// with_binary is true; bytes after the last section are ignored.
// (aioconnectors packs in the byte order of its host; every host it is met on
// is little-endian.)
//
// Nothing in this package starts a goroutine; a value of it is used by one
// goroutine at a time.
package wire
