package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"aioc/lib/wire"
)

// inputSize is what is read at once, in bytes; a longer message makes the
// buffer grow.
const inputSize = 128 << 10

// inputError is a fault of the input: not the reading of it failed, but what
// was read is not what it has to be.
type inputError struct{ text string }

func (e *inputError) Error() string { return e.text }

// input cuts a stream into messages. A message is given out as soon as it is
// whole. It is used by one goroutine.
type input struct {
	ctx  context.Context // ends a read that waits
	r    io.Reader
	idle func() error // called before each read, which may wait

	cut        func() (message []byte, ok bool, err error)
	buf        []byte
	start, end int // what is read and not given out is buf[start:end]
	began      int // where in buf the message given out last begins
	eof        bool
	max        int // longest message

	off, line int64 // bytes and line breaks before buf
	reads     chan []byte
	results   chan result

	seen  int  // bytes after start that have no separator
	given bool // the one message of cutAll was given out

	glued   bool // no white space has been met since a number or a word
	partial bool // what is at start was found to be the beginning of a value
	tried   int  // its length when it was last looked at as a whole
	shape   skim
}

// result is what a read brought.
type result struct {
	n   int
	err error
}

// newInput returns an input of r. The caller sets cut.
func newInput(ctx context.Context, r io.Reader, idle func() error) *input {
	return &input{ctx: ctx, r: r, idle: idle, max: wire.MaxFrame}
}

// next returns the next message, valid until the next call, or io.EOF.
func (in *input) next() ([]byte, error) {
	for {
		message, ok, err := in.cut()
		if ok || err != nil {
			return message, err
		}
		if in.eof {
			return nil, io.EOF
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// close lets the reading goroutine go once its last read has returned.
func (in *input) close() {
	if in.reads != nil {
		close(in.reads)
		in.reads = nil
	}
}

// fill reads once, making room first.
func (in *input) fill() error {
	if in.start == in.end || in.end == len(in.buf) {
		in.off += int64(in.start)
		in.line += int64(bytes.Count(in.buf[:in.start], []byte{'\n'}))
		have := in.end - in.start
		to := in.buf
		if have == len(in.buf) {
			if have > in.max {
				return &inputError{fmt.Sprintf("it is longer than %d bytes", in.max)}
			}
			to = make([]byte, max(inputSize, 2*len(in.buf)))
		} else if have == 0 && len(in.buf) > 16*inputSize {
			to = make([]byte, inputSize)
		}
		copy(to, in.buf[in.start:in.end])
		in.buf, in.start, in.end = to, 0, have
	}
	if err := in.idle(); err != nil {
		return err
	}
	n, err := in.read(in.buf[in.end:])
	in.end += n
	switch {
	case err == io.EOF:
		in.eof = true
	case err != nil && in.ctx.Err() != nil:
		return context.Cause(in.ctx)
	case err != nil:
		return fmt.Errorf("reading standard input: %w", err)
	}
	return nil
}

// read reads in another goroutine, since a read of a terminal or a pipe cannot
// be interrupted.
func (in *input) read(p []byte) (int, error) {
	if in.reads == nil {
		in.reads, in.results = make(chan []byte, 1), make(chan result, 1)
		go func(reads <-chan []byte, results chan<- result) {
			for p := range reads {
				n, err := in.r.Read(p)
				results <- result{n, err}
			}
		}(in.reads, in.results)
	}
	in.reads <- p
	select {
	case r := <-in.results:
		return r.n, r.err
	case <-in.ctx.Done():
		return 0, context.Cause(in.ctx)
	}
}

// cutAt returns a cut for messages with sep after each; the last may be
// without.
func (in *input) cutAt(sep byte) func() ([]byte, bool, error) {
	return func() ([]byte, bool, error) {
		b := in.buf[in.start:in.end]
		if i := bytes.IndexByte(b[in.seen:], sep); i >= 0 {
			i += in.seen
			in.seen = 0
			in.began = in.start
			in.start += i + 1
			return b[:i], true, nil
		}
		in.seen = len(b)
		if in.eof && len(b) > 0 {
			in.seen = 0
			in.began, in.start = in.start, in.end
			return b, true, nil
		}
		return nil, false, nil
	}
}

// cutAll makes one message of everything, even of nothing.
func (in *input) cutAll() ([]byte, bool, error) {
	if !in.eof || in.given {
		return nil, false, nil
	}
	in.given = true
	b := in.buf[in.start:in.end]
	in.began, in.start = in.start, in.end
	return b, true, nil
}

// cutValue gives out JSON values, one after the other, with or without white
// space between them. Numbers and words need it, or a bracket or quote.
func (in *input) cutValue() ([]byte, bool, error) {
	b := in.buf[in.start:in.end]
	if !in.partial {
		i := 0
		for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
			i++
		}
		if i > 0 {
			in.glued = false
			in.start += i
			b = b[i:]
		}
		if len(b) == 0 {
			return nil, false, nil
		}
		if in.glued && !bracket(b[0]) {
			return nil, false, in.at(0, "expected white space between values")
		}
	} else if !in.shape.whole(b) && !in.eof && len(b) < 2*in.tried {
		return nil, false, nil
	}
	n, err := wire.ValueEnd(b, in.eof)
	if err != nil {
		return nil, false, in.fault(b, err)
	}
	if n == 0 {
		in.partial, in.tried = true, len(b)
		return nil, false, nil
	}
	in.partial, in.shape = false, skim{}
	in.began = in.start
	in.start += n
	in.glued = !bracket(b[0])
	return b[:n], true, nil
}

// bracket reports whether c begins a value that also says where it ends.
func bracket(c byte) bool { return c == '{' || c == '[' || c == '"' }

// skim follows a value that comes in pieces, only far enough to know when it
// may be whole, so that a long value is not scanned again for each piece.
type skim struct {
	i       int // what was looked at
	depth   int
	quoted  bool
	escaped bool
}

// whole reports whether b, the value so far and perhaps more, may hold all of
// it. Whether it is JSON is for others to say.
func (s *skim) whole(b []byte) bool {
	if !bracket(b[0]) {
		return bytes.ContainsAny(b, " \t\r\n,:]}[{\"")
	}
	for ; s.i < len(b); s.i++ {
		switch c := b[s.i]; {
		case s.escaped:
			s.escaped = false
		case s.quoted && c == '\\':
			s.escaped = true
		case c == '"':
			s.quoted = !s.quoted
		case s.quoted:
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			s.depth--
		}
		if s.depth <= 0 && !s.quoted {
			return true
		}
	}
	return false
}

// at is an error about the byte i after start.
func (in *input) at(i int, what string) error {
	i += in.start
	line := in.line + int64(bytes.Count(in.buf[:i], []byte{'\n'}))
	return &inputError{fmt.Sprintf("standard input, line %d, byte %d: %s", line+1, in.off+int64(i)+1, what)}
}

// where names the line at which the message given out last begins.
func (in *input) where() string {
	line := in.line + int64(bytes.Count(in.buf[:in.began], []byte{'\n'}))
	return fmt.Sprintf("standard input, line %d: ", line+1)
}

// fault says where b is not JSON. encoding/json knows it better than the
// scanner that found it, and is asked only here.
func (in *input) fault(b []byte, err error) error {
	if n, more := wire.ValueEnd(b, false); n == 0 && more == nil {
		return in.at(len(b), "the input ends within a JSON value")
	}
	var value json.RawMessage
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal(b, &value), &syntax) && !strings.Contains(syntax.Error(), "unexpected end") {
		return in.at(max(int(syntax.Offset)-1, 0), "not JSON: "+syntax.Error())
	}
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return in.at(i, "not UTF-8")
		}
		i += n
	}
	return in.at(0, strings.TrimPrefix(err.Error(), wire.ErrHeader.Error()+": "))
}
