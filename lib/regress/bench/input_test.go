package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestInputHasNumberedRecordsOfOneSize(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprintf("JSON %v", asJSON), func(t *testing.T) {
			const count = 1234
			in, err := writeInput(filepath.Join(t.TempDir(), "in"), count, 100, asJSON)
			if err != nil {
				t.Fatal(err)
			}
			p, err := os.ReadFile(in.path)
			if err != nil {
				t.Fatal(err)
			}
			records := bytes.Split(p, []byte{ending(asJSON)})
			if last := records[len(records)-1]; len(records) != count+1 || len(last) != 0 {
				t.Fatalf("got %d records and %q after them, want %d and nothing", len(records)-1, last, count)
			}
			for i, r := range records[:count] {
				if want := record(i, 100, asJSON); !bytes.Equal(r, want) || len(r) != 100 {
					t.Fatalf("record %d: got %q, want %q", i, r, want)
				}
				if asJSON && !json.Valid(r) {
					t.Fatalf("record %d is not JSON: %s", i, r)
				}
			}
			some, err := firstRecords(in, 5)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(some, p[:505]) {
				t.Errorf("first records: got %q, want %q", some, p[:505])
			}
			if _, err := firstRecords(in, count+1); err == nil {
				t.Error("more records than there are were read")
			}
		})
	}
}

func TestFramesSendsRecordsAsOftenAsAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	in, err := writeInput(path, 3, 100, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{1, 3, 4, 10_000} {
		t.Run(fmt.Sprintf("%d of 3", count), func(t *testing.T) {
			f, err := os.Open(in.path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var out bytes.Buffer
			if err := frames(&out, f, headerJSON(10673), count); err != nil {
				t.Fatal(err)
			}
			n := 0
			err = eachFrame(&out, func(frame []byte) error {
				if want := appendFrame(nil, headerJSON(10673), record(n%3, 100, false)); !bytes.Equal(frame, want) {
					return fmt.Errorf("frame %d: got %q, want %q", n, frame, want)
				}
				n++
				return nil
			}, func() error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			if n != count {
				t.Errorf("got %d frames, want %d", n, count)
			}
		})
	}
}

func TestFramesRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
	}{
		{"nothing", nil},
		{"a record without its end", []byte("a\x00b")},
		{"a record that fits no buffer", bytes.Repeat([]byte("x"), 2*bufferSize)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := frames(&out, bytes.NewReader(tt.in), headerJSON(1), 10); err == nil {
				t.Errorf("no error, %d bytes sent", out.Len())
			}
		})
	}
}

func TestSame(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789"), 20_000)
	changed := bytes.Clone(long)
	changed[150_000] = 'x'
	for _, tt := range []struct {
		name      string
		got, want []byte
		ok        bool
	}{
		{"equal", long, long, true},
		{"both empty", nil, nil, true},
		{"one buffer exactly", long[:64<<10], long[:64<<10], true},
		{"a byte less", long[:len(long)-1], long, false},
		{"a byte more", append(bytes.Clone(long), 'x'), long, false},
		{"a byte changed", changed, long, false},
		{"something instead of nothing", []byte("x"), nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := same(bytes.NewReader(tt.got), bytes.NewReader(tt.want))
			if (err == nil) != tt.ok {
				t.Errorf("got error %v, want equal %v", err, tt.ok)
			}
		})
	}
}
