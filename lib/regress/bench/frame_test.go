package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// someFrames is a stream of frames whose data have these sizes.
func someFrames(sizes ...int) []byte {
	var p []byte
	for i, n := range sizes {
		p = appendFrame(p, headerJSON(10673), bytes.Repeat([]byte{byte('a' + i)}, n))
	}
	return p
}

// limited reads at most n bytes at once.
type limited struct {
	r io.Reader
	n int
}

func (l limited) Read(p []byte) (int, error) { return l.r.Read(p[:min(len(p), l.n)]) }

func TestFrame(t *testing.T) {
	p := appendFrame(nil, []byte(`{"message_type": "any"}`), []byte("data"))
	want := "\x21\x00\x00\x00\x17\x00" + `{"message_type": "any"}` + "\x04\x00\x00\x00data"
	if string(p) != want {
		t.Errorf("appendFrame: got %q, want %q", p, want)
	}
	if got := frameSize(p); got != len(p) {
		t.Errorf("frameSize: got %d, want %d", got, len(p))
	}
	if got := frameSize(p[:3]); got != 0 {
		t.Errorf("frameSize of 3 bytes: got %d, want 0", got)
	}
}

func TestMessageType(t *testing.T) {
	for _, tt := range []struct{ name, header, want string }{
		{"type comes first", `{"message_type": "any", "source_id": "x"}`, "any"},
		{"empty type", `{"message_type": ""}`, ""},
		{"type comes later", `{"source_id": "x", "message_type": "any"}`, "none"},
		{"type does not end", `{"message_type": "any`, "none"},
		{"no header", ``, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := "none"
			if b := messageType(appendFrame(nil, []byte(tt.header), nil)); b != nil {
				got = string(b)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPumpsPassTheSameBytes(t *testing.T) {
	for _, at := range []int{1, 7, 4096, 4 * bufferSize} {
		stream := someFrames(0, 1, 100, 3000, 5, 0, 7)
		if at >= 4096 {
			stream = append(stream, someFrames(bufferSize, 5, 3*bufferSize, 0, 7)...)
		}
		for name, pass := range map[string]func(io.Writer, io.Reader) error{"copy": pump, "look-up": pumpFrames} {
			t.Run(fmt.Sprintf("%s, %d bytes at once", name, at), func(t *testing.T) {
				var out bytes.Buffer
				if err := pass(&out, limited{bytes.NewReader(stream), at}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.Bytes(), stream) {
					t.Errorf("got %d bytes that differ from the %d sent", out.Len(), len(stream))
				}
			})
		}
	}
}

func TestPumpFramesWritesOncePerRead(t *testing.T) {
	stream := someFrames(10, 10, 10, 10)
	var writes counting
	if err := pumpFrames(&writes, bytes.NewReader(stream)); err != nil {
		t.Fatal(err)
	}
	if writes.calls != 1 || writes.bytes != len(stream) {
		t.Errorf("got %d writes of %d bytes, want 1 of %d", writes.calls, writes.bytes, len(stream))
	}
}

// counting counts what is written to it.
type counting struct{ calls, bytes int }

func (c *counting) Write(p []byte) (int, error) {
	c.calls++
	c.bytes += len(p)
	return len(p), nil
}

func TestPumpFramesRefuses(t *testing.T) {
	whole := someFrames(10)
	for _, tt := range []struct {
		name string
		in   io.Reader
		want error
	}{
		{"half a frame", bytes.NewReader(whole[:len(whole)-1]), io.ErrUnexpectedEOF},
		{"half a length", strings.NewReader("\x01\x00"), io.ErrUnexpectedEOF},
		{"an unknown type", bytes.NewReader(appendFrame(nil, []byte(`{"message_type": "x"}`), nil)), errFrame},
		{"a frame without a header", bytes.NewReader(binary.LittleEndian.AppendUint32(nil, 0)), errFrame},
		{"a read error", iotest.ErrReader(errEnough), errEnough},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := pumpFrames(io.Discard, tt.in); !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
		})
	}
}
