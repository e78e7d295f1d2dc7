package spool

import (
	"bytes"
	"encoding/binary"
	"io"
)

// separator is before each frame in a file in which a connector of
// aioconnectors 1.6.3 keeps messages (core.py, PERSISTENCE_SEPARATOR). Where a
// frame had it, it is altered, and cannot be told from what was so before.
const separator = "@@@PERSISTENCE_SEPARATOR@@@"

// ReadLeftover calls each for the frames in a file of that form, in order. A
// frame ends where its length says if a separator, or the end, follows there;
// otherwise, and where each returns false, what is there is damaged, and the
// next separator is looked for. Frames are at most most bytes, and valid during
// the call. It returns how many bytes were damaged; an error is that of r, or of
// each.
func ReadLeftover(r io.Reader, most int, each func(frame []byte) (whole bool, err error)) (damaged int64, err error) {
	l := leftover{r: r}
	for {
		// To the next separator.
		i := 0
		for {
			if err := l.need(i + len(separator)); err != nil {
				return damaged, err
			}
			if k := bytes.Index(l.buf[i:], []byte(separator)); k >= 0 {
				i += k
				break
			}
			if l.end {
				return damaged + int64(len(l.buf)), nil
			}
			i = max(0, len(l.buf)-len(separator)+1)
			damaged += int64(i)
			l.drop(i)
			i = 0
		}
		damaged += int64(i)
		l.drop(i + len(separator))
		if err := l.need(4); err != nil {
			return damaged, err
		}
		whole := false
		if len(l.buf) >= 4 {
			if n := int64(binary.LittleEndian.Uint32(l.buf)) + 4; n <= int64(most) {
				if err := l.need(int(n) + len(separator)); err != nil {
					return damaged, err
				}
				if len(l.buf) == int(n) || len(l.buf) > int(n) && bytes.HasPrefix(l.buf[n:], []byte(separator)) {
					if whole, err = each(l.buf[:n]); err != nil {
						return damaged, err
					}
				}
				if whole {
					l.drop(int(n))
				}
			}
		}
		if !whole {
			damaged += int64(len(separator))
		}
		if len(l.buf) == 0 && l.end {
			return damaged, nil
		}
	}
}

// leftover is a window of such a file.
type leftover struct {
	r   io.Reader
	buf []byte
	end bool // buf reaches to the end
}

// need reads until the window has n bytes, or reaches to the end.
func (l *leftover) need(n int) error {
	for len(l.buf) < n && !l.end {
		if cap(l.buf)-len(l.buf) < window {
			l.buf = append(make([]byte, 0, max(2*len(l.buf), 2*window)), l.buf...)
		}
		k, err := l.r.Read(l.buf[len(l.buf) : len(l.buf)+window])
		l.buf = l.buf[:len(l.buf)+k]
		if err == io.EOF {
			l.end = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// drop moves the start of the window.
func (l *leftover) drop(n int) { l.buf = l.buf[n:] }
