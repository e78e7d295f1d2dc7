package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/template"

	"aioc/lib/envelope"
	"aioc/lib/wire"
)

// outputSize is how much is written at once, in bytes.
const outputSize = 256 << 10

// shown is how much of its data an error shows of a message, in bytes.
const shown = 60

// outputError is a failed write to standard output.
type outputError struct{ err error }

func (e *outputError) Error() string { return "standard output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// format appends one message as it is printed. It is used by one goroutine.
type format func(dst []byte, f *wire.Frame) ([]byte, error)

// output collects printed messages and writes many at once.
type output struct {
	w      io.Writer
	format format
	buf    []byte
}

// frame adds a message.
func (o *output) frame(_ uint64, f *wire.Frame) (err error) {
	if o.buf, err = o.format(o.buf, f); err != nil {
		return err
	}
	if len(o.buf) >= outputSize {
		return o.flush()
	}
	return nil
}

// flush writes what was added. After an error nothing more can be written.
func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	if _, err := o.w.Write(o.buf); err != nil {
		return &outputError{err}
	}
	if cap(o.buf) > 16*outputSize {
		o.buf = nil // made by one long message
	}
	o.buf = o.buf[:0]
	return nil
}

// lines is one JSON value on a line.
func lines(dst []byte, f *wire.Frame) ([]byte, error) {
	return append(envelope.AppendData(dst, f.Data), '\n'), nil
}

// raws is the bytes as they came.
func raws(dst []byte, f *wire.Frame) ([]byte, error) {
	return append(dst, f.Data...), nil
}

// records is the bytes as they came and a NUL.
func records(dst []byte, f *wire.Frame) ([]byte, error) {
	return append(append(dst, f.Data...), 0), nil
}

// envelopes returns the format of whole messages.
func envelopes() format {
	var e envelope.Encoder
	return func(dst []byte, f *wire.Frame) ([]byte, error) {
		return append(e.Append(dst, f), '\n'), nil
	}
}

// templates returns the format that text says, a template over the envelope.
// Each message ends with a line break, whether the template says so or not.
func templates(text string) (format, error) {
	t, err := template.New("-format").Funcs(template.FuncMap{"json": marshal}).Parse(text)
	if err != nil {
		return nil, err
	}
	var e envelope.Encoder
	var line []byte
	var out bytes.Buffer
	return func(dst []byte, f *wire.Frame) ([]byte, error) {
		line = e.Append(line[:0], f)
		d := json.NewDecoder(bytes.NewReader(line))
		d.UseNumber() // a number is printed as it came
		var message map[string]any
		if err := d.Decode(&message); err != nil {
			return dst, err
		}
		out.Reset()
		if err := t.Execute(&out, message); err != nil {
			return dst, fmt.Errorf("message of type %q from %q does not fit the template, and stays in the queue: %w; its data: %q",
				f.Header.Type, f.Header.Source, err, f.Data[:min(len(f.Data), shown)])
		}
		dst = append(dst, out.Bytes()...)
		if n := out.Len(); n == 0 || out.Bytes()[n-1] != '\n' {
			dst = append(dst, '\n')
		}
		return dst, nil
	}, nil
}

// marshal is the function json of templates.
func marshal(value any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return "", fmt.Errorf("json: %w", err)
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte{'\n'})), nil
}
