package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// firstNumber is the number of the first record: all numbers have ten digits, so that all records
// of an input have one size.
const firstNumber = 1_000_000_000

// record is the data of message i: size bytes that begin with its number, as text or as one JSON
// value. A size too small for that is made large enough.
func record(i, size int, json bool) []byte {
	before, after := "", " "
	end := ""
	if json {
		before, after, end = `{"n":`, `,"text":"`, `"}`
	}
	p := fmt.Appendf(nil, "%s%d%s", before, firstNumber+i, after)
	fill := max(size-len(p)-len(end), 0)
	for j := range fill {
		p = append(p, 'a'+byte(j%26))
	}
	return append(p, end...)
}

// input is a file of records, each ended by one byte: NUL, or a newline when they are JSON.
type input struct {
	path  string
	count int
	size  int // of one record without its end
	json  bool
}

// ending is the byte that ends each record.
func ending(json bool) byte {
	if json {
		return '\n'
	}
	return 0
}

// writeInput makes a file of count records at path, replacing what is there.
func writeInput(path string, count, size int, json bool) (input, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return input{}, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	// Only the number differs from record to record, so it is counted up in place.
	rec := append(record(0, size, json), ending(json))
	at := bytes.IndexByte(rec, '1')
	number := rec[at : at+10]
	for range count {
		if _, err = w.Write(rec); err != nil {
			break
		}
		for d := len(number) - 1; d >= 0; d-- {
			if number[d] < '9' {
				number[d]++
				break
			}
			number[d] = '0'
		}
	}
	if err = errors.Join(err, w.Flush(), f.Close()); err != nil {
		return input{}, fmt.Errorf("input of %d records: %w", count, err)
	}
	return input{path: path, count: count, size: len(rec) - 1, json: json}, nil
}

// frames reads NUL-ended records from src, from its start again when it ends, until count of them
// were read, and writes each as a frame to dst, as many at once as fit in a buffer.
func frames(dst io.Writer, src io.ReadSeeker, header []byte, count int) error {
	in := make([]byte, bufferSize)
	out := make([]byte, 0, bufferSize)
	have, rest := 0, count
	for rest > 0 {
		n, err := src.Read(in[have:])
		have += n
		p := in[:have]
		for rest > 0 {
			end := bytes.IndexByte(p, 0)
			if end < 0 {
				break
			}
			if len(out)+len(header)+10+end > cap(out) && len(out) > 0 {
				if _, err := dst.Write(out); err != nil {
					return err
				}
				out = out[:0]
			}
			out = appendFrame(out, header, p[:end])
			p = p[end+1:]
			rest--
		}
		if len(p) == len(in) {
			return fmt.Errorf("record of more than %d bytes", len(in)-1)
		}
		have = copy(in, p)
		switch {
		case err == io.EOF && have > 0:
			return errors.New("input ends within a record")
		case err == io.EOF && rest == count:
			return errors.New("input is empty")
		case err == io.EOF:
			if _, err := src.Seek(0, io.SeekStart); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	_, err := dst.Write(out)
	return err
}

// inputDir chooses where inputs are kept: memory where there is a tmpfs with room, so that no disk
// slows the sender.
func inputDir() string {
	const shm = "/dev/shm"
	if free(shm) >= 1<<30 {
		return shm
	}
	return os.TempDir()
}

// free is the room in a directory's file system in bytes, 0 when that is not known.
func free(dir string) int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0
	}
	return int64(s.Bavail) * int64(s.Bsize)
}

// mostRecords is how many records of a size may be written to dir: a quarter of its room, 2 GiB at
// most.
func mostRecords(dir string, size int) int {
	room := min(free(dir)/4, 2<<30)
	return max(int(room/int64(size+1)), 1)
}
