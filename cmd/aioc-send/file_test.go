package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/api"
)

func TestAFileGoesWithTheMessage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.jpg")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args, input string
		want        string // with_file
		data        []string
	}{
		{"-file " + path, "not read", `{"src_path": "` + path + `", "dst_type": "any", "dst_name": "a.jpg", "delete": false}`, []string{"null"}},
		{"-type sum -file " + path + " -file-type pics -file-name s/n -delete -owner u:g -", "1 2",
			`{"src_path": "` + path + `", "dst_type": "pics", "dst_name": "s/n", "delete": true, "owner": "u:g"}`, []string{"1", "2"}},
	} {
		f := client1()
		got := f.run(t.Context(), strings.NewReader(test.input), strings.Fields(test.args)...)
		if got.status != 0 || len(f.sent) != len(test.data) {
			t.Errorf("%s: got %+v, %d messages", test.args, got, len(f.sent))
			continue
		}
		if len(f.files) != len(f.sent) || f.files[0] != path || !f.opts.Files {
			t.Errorf("%s: passed %q", test.args, f.files)
		}
		for i, m := range f.sent {
			if !strings.Contains(m.header, `"with_file": `+test.want) || m.data != test.data[i] {
				t.Errorf("%s: got %s %q, want %s", test.args, m.header, m.data, test.want)
			}
		}
	}
	two := dir + "/two\nlines"
	if err := os.WriteFile(two, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := client1()
	if got := f.run(t.Context(), strings.NewReader(""), "-file", two); got.status != 65 || !strings.Contains(got.stderr, "name it with -file-name") || len(f.sent) > 0 {
		t.Errorf("a name with a newline: got %+v", got)
	}
	if got := f.run(t.Context(), strings.NewReader(""), "-file", two, "-file-name", "one"); got.status != 0 || len(f.sent) != 1 {
		t.Errorf("with another name: got %+v", got)
	}
}

func TestAFileThatCannotBeSentIsSaidSoAtOnce(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	fifo := make("fifo", syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	loop := make("loop", os.Symlink("loop", filepath.Join(dir, "loop")))
	broken := make("broken", os.Symlink("nothing", filepath.Join(dir, "broken")))
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	socket := make("s", err)
	defer ln.Close()
	tests := []struct {
		path   string
		status int
		want   string
	}{
		{"/no/such/file", 1, "no such file"},
		{broken, 1, "no such file"},
		{loop, 1, "too many levels of symbolic links"},
		{dir, 1, "it is a directory: send an archive"},
		{"/dev/zero", 1, "it is a device"},
		{fifo, 1, "it is a fifo"},
		{socket, 1, "it is a socket"},
		{fifo + "/x", 1, "not a directory"},
		{filepath.Join(dir, strings.Repeat("x", 256)), 65, "is longer than 255 bytes"},
		{filepath.Join(dir, strings.Repeat("x/", 3000)+"x"), 65, "file name too long"},
		{filepath.Join(dir, "a\xffb"), 65, "not UTF-8"},
		{filepath.Join(dir, "a\nb"), 65, "name it with -file-name"},
	}
	if os.Geteuid() != 0 { // root may read all
		path := make("closed", os.WriteFile(filepath.Join(dir, "closed"), nil, 0))
		tests = append(tests, struct {
			path   string
			status int
			want   string
		}{path, 77, "permission denied"})
	}
	for _, test := range tests {
		f := client1()
		got := f.run(t.Context(), strings.NewReader(""), "-file", test.path)
		if got.status != test.status || !strings.Contains(got.stderr, test.want) || strings.Count(got.stderr, "\n") != 1 || len(f.sent) > 0 {
			t.Errorf("%.100q: got %+v, want status %d and %q", test.path, got, test.status, test.want)
		}
	}
}

func TestWhoRemovesTheFile(t *testing.T) {
	keep := func() *api.NotTaken { return &api.NotTaken{Reason: "keep", Text: "it cannot be removed"} }
	lost := errors.New("the peer has the message, but not its file")
	for _, test := range []struct {
		name   string
		f      func(f *fake)
		args   string
		status int
		self   bool // it is sent so that this program removes it
		gone   bool
	}{
		{"the connector", nil, "", 0, false, false},
		{"the connector, and its end is waited for", nil, "-ack", 0, false, false},
		{"this program", func(f *fake) { f.refuse = keep() }, "", 0, true, true},
		{"this program, when it cannot be known before", func(f *fake) {}, "-", 0, true, true},
		{"nobody, as the peer does not have it", func(f *fake) { f.refuse, f.failure = keep(), lost }, "", 1, true, false},
		{"nobody, as it is another one now", func(f *fake) {
			f.refuse = keep()
			f.answer = func(f *fake, m sent) {
				path := f.files[0]
				if os.Remove(path) != nil || os.WriteFile(path, []byte("another"), 0o600) != nil {
					t.Error("it cannot be replaced")
				}
			}
		}, "", 1, true, false},
		{"the connector, of a publication that is read here", func(f *fake) { f.info.Server = true }, "-publish -", 0, false, false},
		{"nobody, of a publication here", func(f *fake) { f.refuse, f.info.Server = keep(), true }, "-publish", 77, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			f := client1()
			f.info.Passes = true
			if test.f != nil {
				test.f(f)
			}
			got := f.run(t.Context(), strings.NewReader("1"), append([]string{"-file", path, "-delete"}, strings.Fields(test.args)...)...)
			if got.status != test.status || (got.status == 0) != (got.stderr == "") {
				t.Errorf("got %+v, want status %d", got, test.status)
			}
			for _, m := range f.sent {
				if strings.Contains(m.header, `"delete": false`) != test.self || test.self && !strings.Contains(m.header, `"wait_for_ack": true`) {
					t.Errorf("got %s", m.header)
				}
			}
			if _, err := os.Lstat(path); (err != nil) != test.gone {
				t.Errorf("the file: got %v, want it gone: %v", err, test.gone)
			}
		})
	}
}

func TestAFileThatNoMessageTookStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := client1()
	f.info.Passes = true
	if got := f.run(t.Context(), strings.NewReader(""), "-file", path, "-delete", "-"); len(f.sent) > 0 {
		t.Errorf("got %+v and %d messages", got, len(f.sent))
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("no message was read, and the file: %v", err)
	}
}

func TestWhoIsInterruptedLearnsThatTheFileGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		mine bool // this program would have removed it
		end  error
		want string
		code int
	}{
		{"-ack", false, signalError{syscall.SIGINT}, path + ": ended by signal: interrupt: 1.5 MB of 3.0 MB sent; the connector has it and goes on sending it\n", 130},
		{"-ack -timeout 10", false, nil, path + ": time is up: 1.5 MB of 3.0 MB sent; the connector has it and goes on sending it\n", 124},
		{"-delete", true, signalError{syscall.SIGINT}, "goes on sending it, and it stays here\n", 130},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := client1()
			f.unacknowledged = true
			if test.mine {
				f.refuse = &api.NotTaken{Reason: "keep", Text: "it cannot be removed"}
			}
			f.answer = func(f *fake, m sent) {
				if f.opts.Progress != nil {
					f.opts.Progress(api.Progress{Size: 3e6})
					f.opts.Progress(api.Progress{Sent: 1.5e6, Size: 3e6})
				}
			}
			ctx, end := context.WithCancelCause(t.Context())
			defer end(nil)
			if test.end != nil {
				time.AfterFunc(time.Minute, func() { end(test.end) })
			}
			got := f.run(ctx, strings.NewReader(""), append([]string{"-file", path}, strings.Fields(test.args)...)...)
			if got.status != test.code || !strings.HasSuffix(got.stderr, test.want) {
				t.Errorf("%s: got %+v, want status %d and %q", test.args, got, test.code, test.want)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: it is gone", test.args)
			}
		})
	}
}

func TestAConnectorThatGoesAwayHadTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []bool{false, true} {
		f := client1()
		f.lost = 1
		f.answer = func(f *fake, m sent) {
			if taken {
				f.opts.Progress(api.Progress{Size: 1})
			}
		}
		got := f.run(t.Context(), strings.NewReader(""), "-file", path, "-ack")
		if got.status != 75 || strings.Contains(got.stderr, "had taken it") != taken || strings.Contains(got.stderr, "message 1 was not, but it may have been taken") == taken {
			t.Errorf("taken %v: got %+v", taken, got)
		}
	}
}
