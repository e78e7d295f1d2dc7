package spool

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// leftoverFile is a file that aioconnectors has written, and what is in it.
func leftoverFile(t testing.TB, name string) (file []byte, frames [][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		File    string   `json:"file_hex"`
		Records []string `json:"records"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	decode := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, r := range v.Records {
		frames = append(frames, decode(r))
	}
	return decode(v.File), frames
}

// readLeftover reads a file, byte by byte too, and expects the same of both.
func readLeftover(t *testing.T, file []byte) (frames [][]byte, damaged int64) {
	t.Helper()
	read := func(r io.Reader) (frames [][]byte, damaged int64) {
		damaged, err := ReadLeftover(r, 1<<20, func(f []byte) (bool, error) {
			frames = append(frames, bytes.Clone(f))
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return frames, damaged
	}
	frames, damaged = read(bytes.NewReader(file))
	slow, n := read(iotest.OneByteReader(bytes.NewReader(file)))
	if n != damaged || !slices.EqualFunc(slow, frames, bytes.Equal) {
		t.Errorf("byte by byte: %d frames and %d bytes damaged, otherwise %d and %d", len(slow), n, len(frames), damaged)
	}
	return frames, damaged
}

func TestFilesOfThePythonProgramAreRead(t *testing.T) {
	for _, name := range []string{"persistence_send.json", "persistence_recv.json"} {
		file, want := leftoverFile(t, name)
		got, damaged := readLeftover(t, file)
		if damaged != 0 || !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: got %d frames, %d bytes damaged; want %d frames", name, len(got), damaged, len(want))
		}
	}
}

func TestDamageInALeftoverCostsTheFrameItHits(t *testing.T) {
	file, frames := leftoverFile(t, "persistence_send.json")
	second := len(separator) + len(frames[0]) + len(separator)
	for _, test := range []struct {
		name string
		file []byte
		want [][]byte
	}{
		{"nothing", nil, nil},
		{"no separator at all", []byte("some text"), nil},
		{"text before", slices.Concat([]byte("some text"), file), frames},
		{"text behind", slices.Concat(file, []byte("some text")), frames[:2]},
		{"a torn end", file[:len(file)-1], frames[:2]},
		{"only a separator", []byte(separator), nil},
		{"a separator twice", slices.Concat([]byte(separator), file), frames},
		{"a length too long", slices.Concat(file[:second], []byte{255, 255, 255, 255}, file[second+4:]), [][]byte{frames[0], frames[2]}},
		{"a length too short", slices.Concat(file[:second], []byte{9, 0, 0, 0}, file[second+4:]), [][]byte{frames[0], frames[2]}},
	} {
		got, damaged := readLeftover(t, test.file)
		if !slices.EqualFunc(got, test.want, bytes.Equal) {
			t.Errorf("%s: got %d frames, want %d", test.name, len(got), len(test.want))
		}
		kept := 0
		for _, f := range got {
			kept += len(separator) + len(f)
		}
		if int(damaged) != len(test.file)-kept {
			t.Errorf("%s: %d bytes damaged, want %d", test.name, damaged, len(test.file)-kept)
		}
	}
}

func TestALongLeftoverIsReadWithLittleMemory(t *testing.T) {
	frame := binary.LittleEndian.AppendUint32(nil, 10_000)
	frame = append(frame, make([]byte, 10_000)...)
	one := slices.Concat([]byte(separator), frame)
	n := 0
	damaged, err := ReadLeftover(bytes.NewReader(bytes.Repeat(one, 2000)), 1<<20, func(f []byte) (bool, error) {
		if len(f) != len(frame) || cap(f) > 8*window {
			t.Fatalf("frame %d: %d bytes of %d", n, len(f), cap(f))
		}
		n++
		return true, nil
	})
	if n != 2000 || damaged != 0 || err != nil {
		t.Errorf("got %d frames, %d bytes damaged, %v", n, damaged, err)
	}
}

func TestErrorsEndTheReadingOfALeftover(t *testing.T) {
	file, _ := leftoverFile(t, "persistence_send.json")
	broken := errors.New("broken")
	if _, err := ReadLeftover(io.MultiReader(bytes.NewReader(file), iotest.ErrReader(broken)), 1<<20, func([]byte) (bool, error) { return true, nil }); err != broken {
		t.Errorf("of the file: got %v", err)
	}
	if _, err := ReadLeftover(strings.NewReader(string(file)), 1<<20, func([]byte) (bool, error) { return false, broken }); err != broken {
		t.Errorf("of the function: got %v", err)
	}
}
