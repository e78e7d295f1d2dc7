package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LevelCritical is the level above [slog.LevelError], as the configuration
// file knows it.
const LevelCritical = slog.LevelError + 4

// ParseLevel reads the name of a level as the configuration file and the
// commands spell it: DEBUG, INFO, WARNING, ERROR, CRITICAL, in any case, or
// WARN, which Python takes too.
func ParseLevel(name string) (slog.Level, error) {
	switch strings.ToUpper(name) {
	case "DEBUG":
		return slog.LevelDebug, nil
	case "INFO":
		return slog.LevelInfo, nil
	case "WARNING", "WARN":
		return slog.LevelWarn, nil
	case "ERROR":
		return slog.LevelError, nil
	case "CRITICAL":
		return LevelCritical, nil
	}
	return 0, fmt.Errorf("log level %q: want DEBUG, INFO, WARNING, ERROR or CRITICAL", name)
}

// LevelName is the name of the level: the opposite of [ParseLevel]. A level
// between two names has the name of the lower one.
func LevelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "DEBUG"
	case level < slog.LevelWarn:
		return "INFO"
	case level < slog.LevelError:
		return "WARNING"
	case level < LevelCritical:
		return "ERROR"
	}
	return "CRITICAL"
}

// A LogFormat is how log lines are written.
type LogFormat int

// The formats of the log. Each record is one line in one write.
const (
	LogText    LogFormat = iota // time, level, message, key=value ...
	LogJSON                     // an object with time, level, msg and the keys
	LogJournal                  // text with the priority as systemd reads it, without time
)

// ParseLogFormat reads the argument of -log: text or json. Text written to f
// becomes [LogJournal] when f leads to the journal of systemd.
func ParseLogFormat(word string, f *os.File) (LogFormat, error) {
	switch word {
	case "text":
		if isJournal(f, os.Getenv("JOURNAL_STREAM")) {
			return LogJournal, nil
		}
		return LogText, nil
	case "json":
		return LogJSON, nil
	}
	return 0, fmt.Errorf("log format %q: want text or json", word)
}

// isJournal compares f with the device and inode that systemd announced.
func isJournal(f *os.File, stream string) bool {
	if f == nil || stream == "" {
		return false
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var st unix.Stat_t
	var statErr error
	err = conn.Control(func(fd uintptr) { statErr = unix.Fstat(int(fd), &st) })
	return err == nil && statErr == nil && fmt.Sprintf("%d:%d", st.Dev, st.Ino) == stream
}

// NewLogger returns a logger that writes records of at least level to w. The
// level may be changed while it is used, with a [slog.LevelVar]. Text that came
// from a peer cannot break a line. A record that cannot be written is lost.
func NewLogger(w io.Writer, format LogFormat, level slog.Leveler) *slog.Logger {
	if format == LogJSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: jsonAttr}))
	}
	return slog.New(&textHandler{out: &output{w: w}, journal: format == LogJournal, level: level})
}

// Both returns a logger that writes to two.
func Both(a, b *slog.Logger) *slog.Logger { return slog.New(both{a.Handler(), b.Handler()}) }

// both is a handler that hands everything to two.
type both [2]slog.Handler

func (h both) Enabled(ctx context.Context, level slog.Level) bool {
	return h[0].Enabled(ctx, level) || h[1].Enabled(ctx, level)
}

func (h both) Handle(ctx context.Context, r slog.Record) error {
	var errs [2]error
	for i, one := range h {
		if one.Enabled(ctx, r.Level) {
			errs[i] = one.Handle(ctx, r.Clone())
		}
	}
	return errors.Join(errs[:]...)
}

func (h both) WithAttrs(attrs []slog.Attr) slog.Handler {
	return both{h[0].WithAttrs(attrs), h[1].WithAttrs(attrs)}
}

func (h both) WithGroup(name string) slog.Handler {
	return both{h[0].WithGroup(name), h[1].WithGroup(name)}
}

// maxValue bounds the bytes of one value: a header that a peer has sent may have
// 64 KiB, and a name that a program asks for more.
const maxValue = 2048

// clip shortens a value that is longer.
func clip(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return strings.ToValidUTF8(s[:maxValue], "") + fmt.Sprintf("... (%d bytes)", len(s))
}

// timeLayout is RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// jsonAttr gives time, level and lengths of time the forms they have in text.
func jsonAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format(timeLayout))
	}
	if len(groups) == 0 && a.Key == slog.LevelKey {
		if level, ok := a.Value.Any().(slog.Level); ok {
			a.Value = slog.StringValue(strings.ToLower(LevelName(level)))
		}
	}
	switch a.Value.Kind() {
	case slog.KindDuration:
		a.Value = slog.StringValue(a.Value.Duration().String())
	case slog.KindString:
		a.Value = slog.StringValue(clip(a.Value.String()))
	case slog.KindAny:
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(clip(err.Error()))
		}
	}
	return a
}

// output is a writer that several handlers share.
type output struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// textHandler writes records as lines of text. It is not changed once made.
type textHandler struct {
	out     *output
	journal bool
	level   slog.Leveler
	attrs   []byte // what WithAttrs added, as written
	prefix  string // what WithGroup added: "a.b."
}

func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = bytes.Clone(h.attrs)
	for _, a := range attrs {
		c.attrs = appendAttr(c.attrs, h.prefix, a)
	}
	return &c
}

func (h *textHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	line := make([]byte, 0, 256)
	if h.journal {
		line = append(line, '<', '0'+priority(r.Level), '>')
	} else if !r.Time.IsZero() {
		line = r.Time.UTC().AppendFormat(line, timeLayout)
		line = append(line, ' ')
	}
	if !h.journal {
		line = append(line, strings.ToLower(LevelName(r.Level))...)
		line = append(line, ' ')
	}
	line = append(line, Escape(r.Message)...)
	line = append(line, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		line = appendAttr(line, h.prefix, a)
		return true
	})
	line = append(line, '\n')
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(line)
	return err
}

// priority is the number of syslog for the level.
func priority(level slog.Level) byte {
	switch LevelName(level) {
	case "DEBUG":
		return 7
	case "INFO":
		return 6
	case "WARNING":
		return 4
	case "ERROR":
		return 3
	}
	return 2
}

// appendAttr appends " key=value", for each member when a is a group.
func appendAttr(line []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return line
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			line = appendAttr(line, prefix, member)
		}
		return line
	}
	line = append(line, ' ')
	line = appendWord(line, prefix+a.Key)
	line = append(line, '=')
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().UTC().AppendFormat(line, time.RFC3339Nano)
	case slog.KindAny:
		if b, ok := v.Any().([]byte); ok {
			return appendWord(line, string(b))
		}
	}
	return appendWord(line, v.String())
}

// appendWord appends s, in quotes when it would not read as one word.
func appendWord(line []byte, s string) []byte {
	s = clip(s)
	if s == "" || strings.ContainsAny(s, " =\"'\\") || Escape(s) != s {
		return strconv.AppendQuote(line, s)
	}
	return append(line, s...)
}
