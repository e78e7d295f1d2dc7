package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// bufferSize is what the yardstick's processes read and write at once, in bytes.
const bufferSize = 256 << 10

// typeKey comes before the message type in a header as aioc and the original write it: at its begin.
const typeKey = `{"message_type": "`

// errFrame says that bytes are no frame of the protocol.
var errFrame = errors.New("not a frame")

// headerJSON is the header that a message of type any has on its way from client1 to a server on
// this port of 127.0.0.1.
func headerJSON(port int) []byte {
	return fmt.Appendf(nil, `{"message_type": "any", "source_id": "client1", "destination_id": "('127.0.0.1', %d)"}`, port)
}

// appendFrame appends the frame of a header and data to dst.
func appendFrame(dst, header, data []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(2+len(header)+4+len(data)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(header)))
	dst = append(dst, header...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(data)))
	return append(dst, data...)
}

// frameSize is the size of the frame that p begins with, its length field included, or 0 when p has
// fewer bytes than a length field.
func frameSize(p []byte) int {
	if len(p) < 4 {
		return 0
	}
	return 4 + int(binary.LittleEndian.Uint32(p))
}

// messageType finds the message type in a whole frame whose header begins with it, nil if it does not.
func messageType(frame []byte) []byte {
	if len(frame) < 6+len(typeKey) || string(frame[6:6+len(typeKey)]) != typeKey {
		return nil
	}
	t := frame[6+len(typeKey):]
	i := bytes.IndexByte(t[:min(len(t), 64)], '"')
	if i < 0 {
		return nil
	}
	return t[:i]
}

// eachFrame reads src until it ends, calling whole for every frame in order and batch after the last
// whole frame of each read. The slice given to whole is valid during the call only.
func eachFrame(src io.Reader, whole func(frame []byte) error, batch func() error) error {
	return eachFrameSize(src, bufferSize, whole, batch)
}

// eachFrameSize is eachFrame with another size of its buffer, in bytes.
func eachFrameSize(src io.Reader, size int, whole func(frame []byte) error, batch func() error) error {
	in := make([]byte, size)
	have := 0
	for {
		n, err := src.Read(in[have:])
		have += n
		p := in[:have]
		for {
			size := frameSize(p)
			if size == 0 || size > len(p) {
				if size > len(in) {
					in = append(make([]byte, 0, 2*size), p...)[:2*size]
					p = in[:len(p)]
				}
				break
			}
			if err := whole(p[:size]); err != nil {
				return err
			}
			p = p[size:]
		}
		if n > 0 {
			if err := batch(); err != nil {
				return err
			}
		}
		if len(p) < have {
			have = copy(in, p)
		}
		if err == io.EOF && have > 0 {
			return fmt.Errorf("%d bytes at the end: %w", have, io.ErrUnexpectedEOF)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// pump passes everything from src to dst as it is, once per read, until src ends.
func pump(dst io.Writer, src io.Reader) error {
	buf := make([]byte, bufferSize)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// route is where the messages of one type go.
type route struct {
	out   []byte // frames that wait for the end of this batch
	count int
}

// pumpFrames passes frames from src to dst until src ends. It does the least that a message daemon
// has to do: it finds each frame's length and message type, looks the type up, copies the frame to
// the outgoing buffer of that type and writes the buffer once per read.
func pumpFrames(dst io.Writer, src io.Reader) error {
	routes := map[string]*route{}
	for _, t := range []string{"_ack", "_ping", "_pubsub", "any", "reading"} {
		routes[t] = &route{out: make([]byte, 0, bufferSize)}
	}
	var busy []*route
	whole := func(frame []byte) error {
		r := routes[string(messageType(frame))]
		if r == nil {
			return fmt.Errorf("type %q: %w", messageType(frame), errFrame)
		}
		if len(r.out) == 0 {
			busy = append(busy, r)
		}
		r.count++
		r.out = append(r.out, frame...)
		return nil
	}
	batch := func() error {
		for _, r := range busy {
			if _, err := dst.Write(r.out); err != nil {
				return err
			}
			r.out = r.out[:0]
		}
		busy = busy[:0]
		return nil
	}
	return eachFrame(src, whole, batch)
}
