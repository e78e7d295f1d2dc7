package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"aioc/lib/wire"
)

// chunkMark is what the original puts between the name of a file and the number
// of a chunk.
const chunkMark = "__aioconnectors_chunk"

// File is what with_file says of a file.
type File struct {
	Source string // src_path: a path of the sender's host
	Type   string // dst_type: which of the receiver's directories
	Name   string // dst_name, below that directory
	Owner  string // user:group that the sender would like, "" for none
	Keep   bool   // the source is not deleted after sending
	Error  string // why there is no file
	Chunk  *Chunk // set for a chunk of a Python sender
	Sent   *Sent  // set when the file came before its message

	offset    int // binary_offset, -1 if absent
	chunkBad  bool
	Stored    string // where it is, on this host
	hasSource bool
}

// Chunk is which piece of a file a message has.
type Chunk struct {
	Base         string // name of the file and chunkMark
	Index, Count int    // from 1
}

// Sent is a file that went ahead of its message.
type Sent struct {
	ID   string // 32 hex digits
	Size int64
	Sum  string // SHA-256 in hex digits
}

// Parse reads the value of with_file. An error says what is wrong with it; what
// could be read is there.
func Parse(withFile []byte) (File, error) {
	f := File{offset: -1}
	err := wire.Fields(withFile, func(key, value []byte) {
		switch string(key) {
		case "src_path":
			f.Source, f.hasSource = wire.Text(value)
		case "dst_type":
			f.Type, _ = wire.Text(value)
		case "dst_name":
			f.Name, _ = wire.Text(value)
		case "dst_path":
			f.Stored, _ = wire.Text(value)
		case "owner":
			f.Owner, _ = wire.Text(value)
		case "delete":
			f.Keep = falsy(value)
		case "file_error":
			if f.Error, _ = wire.Text(value); f.Error == "" && !falsy(value) {
				f.Error = "the sender had an error"
			}
		case "binary_offset":
			if n, err := strconv.Atoi(string(value)); err == nil && n >= 0 {
				f.offset = n
			}
		case "chunked":
			f.Chunk = parseChunk(value)
			f.chunkBad = f.Chunk == nil && !falsy(value)
		case "transfer":
			f.Sent = parseSent(value)
		}
	})
	switch {
	case err != nil:
		return f, errors.New("with_file is not an object")
	case f.chunkBad:
		return f, errors.New("chunked is not a name, an index and a count")
	}
	return f, nil
}

// falsy is Python's idea of false, for the few values that occur.
func falsy(value []byte) bool {
	switch string(value) {
	case "false", "null", "0", `""`, "[]", "{}":
		return true
	}
	return false
}

// items are the values of a JSON array, nil when it is none.
func items(array []byte) (list [][]byte) {
	if len(array) == 0 || array[0] != '[' {
		return nil
	}
	for rest := array[1:]; ; {
		rest = bytes.TrimLeft(rest, ", \t\r\n")
		n, err := wire.ValueEnd(rest, false)
		if n == 0 || err != nil { // at the bracket that ends it
			return list
		}
		list = append(list, rest[:n])
		rest = rest[n:]
	}
}

func parseChunk(value []byte) *Chunk {
	list := items(value)
	if len(list) != 3 {
		return nil
	}
	base, ok := wire.Text(list[0])
	index, err1 := strconv.Atoi(string(list[1]))
	count, err2 := strconv.Atoi(string(list[2]))
	if !ok || err1 != nil || err2 != nil || index < 1 || index > count {
		return nil
	}
	return &Chunk{base, index, count}
}

func parseSent(value []byte) *Sent {
	list := items(value)
	if len(list) != 3 {
		return nil
	}
	id, ok := wire.Text(list[0])
	size, err := strconv.ParseInt(string(list[1]), 10, 64)
	sum, ok2 := wire.Text(list[2])
	if !ok || !ok2 || err != nil || size < 0 || !ValidID(id) || !isHex(sum, 64) {
		return nil
	}
	return &Sent{id, size, sum}
}

// ValidID reports whether id can be that of a transfer: 32 hex digits.
func ValidID(id string) bool { return isHex(id, 32) }

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// Split divides the binary part of a message into what its sender put there and
// the content of the file.
//
// The original notes where the file begins only if both are there. If only one
// is, it is that of the sender when with_binary comes before with_file, because
// then the program has written it, and not the connector behind all else
// (aioconnectors core.py send_message, connection.py).
// Differs: the original takes the sender's binary for the file then.
func (f *File) Split(h *wire.Header, bin []byte) (own, file []byte) {
	n := f.OwnBytes(h, int64(len(bin)))
	return bin[:n:n], bin[n:]
}

// OwnBytes is how many bytes of a binary part of size bytes are not the file's.
func (f *File) OwnBytes(h *wire.Header, size int64) int64 {
	switch {
	case f.offset >= 0:
		return min(int64(f.offset), size)
	case size > 0 && f.Sent == nil && binaryFirst(h.Raw):
		return size
	}
	return 0
}

// binaryFirst reports whether with_binary comes before with_file.
func binaryFirst(header []byte) (first bool) {
	seen := false
	_ = wire.Fields(header, func(key, _ []byte) {
		switch string(key) {
		case "with_file":
			seen = true
		case "with_binary":
			first = first || !seen
		}
	})
	return first
}

// Note returns with_file as a local program gets it: with dst_path, where the
// file was stored, unless that is empty, or with file_error, why it was not.
// What only concerns the connectors is gone. A value that is not an object is
// replaced.
func Note(withFile []byte, stored string, failure string) []byte {
	if wire.Fields(withFile, func(_, _ []byte) {}) != nil {
		withFile = []byte("{}")
	}
	edits := []wire.Edit{{Key: "transfer"}, {Key: "dst_path"}}
	if stored != "" {
		edits[1].Value = wire.AppendString(nil, stored)
	}
	if failure != "" {
		edits = append(edits, wire.Edit{Key: "file_error", Value: wire.AppendString(nil, failure)})
	}
	return wire.AppendEdited(nil, withFile, edits...)
}

// Piece is with_file of piece index of count, from 1, of a file that a Python
// receiver puts together. The number in the name is padded, because that
// receiver sorts the names.
// Differs: the original does not pad, and damages files of ten chunks and more.
func Piece(withFile []byte, name string, index, count int) []byte {
	c := Chunk{name + chunkMark, index, count}
	list := wire.AppendString([]byte{'['}, c.Base)
	return wire.AppendEdited(nil, withFile,
		wire.Edit{Key: "dst_name", Value: wire.AppendString(nil, c.Name())},
		wire.Edit{Key: "chunked", Value: append(list, fmt.Sprintf(", %d, %d]", index, count)...)})
}

// Name is the dst_name of a chunk, padded so that names sort as the chunks do.
func (c *Chunk) Name() string {
	width := len(strconv.Itoa(c.Count))
	return fmt.Sprintf("%s_%0*d_%0*d", c.Base, width, c.Index, width, c.Count)
}

// Whole is the name of the file that c is a chunk of.
func (c *Chunk) Whole() string {
	name, _, _ := strings.Cut(c.Base, chunkMark)
	return name
}
