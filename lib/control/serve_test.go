package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fixed returns a registry in which the commands of the original have the
// replies that the connector of a capture had.
func fixed(side string) *Registry {
	var ignore any = false
	running := true
	flags := []Arg{{Name: "hard", Kind: Bool}, {Name: "shutdown", Kind: Bool}, {Name: "enable_delete_files", Kind: Bool},
		{Name: "client_wait_for_reconnect", Kind: Bool}, {Name: "sleep_between", Kind: Number}}
	peers := map[string]any{"client1": []any{"127.0.0.1", 39632}, "client2": []any{"127.0.0.1", 39616}}
	dumped := `{"client1": ["127.0.0.1", 39632], "client2": ["127.0.0.1", 39616]}`
	queues := "{\n    \"queue_recv\": 0,\n    \"queue_send\": {\n        \"client1\": 0,\n        \"client2\": 0\n    }\n}"
	attributes := map[string]any{"source_id": "('127.0.0.1', 20031)", "server_sockaddr": "('127.0.0.1', 20031)", "is_server": true,
		"blacklisted_clients_id": Set{}, "blacklisted_clients_ip": Set{"10.0.0.1"}, "blacklisted_clients_subnet": Raw("{IPv4Network('10.1.0.0/16')}")}
	blacklist := []Set{{}, {"evil.*"}}
	if side == "client" {
		peers = map[string]any{"('127.0.0.1', 20031)": []any{"127.0.0.1", 20031}}
		dumped = `{"('127.0.0.1', 20031)": ["127.0.0.1", 20031]}`
		queues = "{\n    \"queue_recv\": 0,\n    \"queue_send\": {\n        \"('127.0.0.1', 20031)\": 0\n    }\n}"
		attributes["source_id"], attributes["is_server"] = "client1", false
		delete(attributes, "blacklisted_clients_id")
	}
	r := &Registry{}
	r.Add(
		Command{Name: "show_connected_peers", Args: []Arg{{Name: "dump_result", Kind: Bool}}, Run: func(_ context.Context, a Args) (any, error) {
			switch {
			case !running:
				return Raw(""), nil
			case a.Bool("dump_result"):
				return Raw(dumped), nil
			}
			return peers, nil
		}},
		Command{Name: "peek_queues", Args: []Arg{{Name: "dump_result", Kind: Bool}}, Run: func(context.Context, Args) (any, error) {
			return Raw(queues), nil
		}},
		Command{Name: "manage_ignore_peer_traffic", Args: []Arg{{Name: "show", Kind: Bool}, {Name: "enable", Kind: Bool}, {Name: "disable", Kind: Bool}, {Name: "unique_peer", Kind: String}},
			Run: func(_ context.Context, a Args) (any, error) {
				switch {
				case a.Bool("show"):
				case a.Bool("enable"):
					ignore = true
				case a.Bool("disable"):
					ignore = false
				case a.String("unique_peer") != "":
					ignore = []string{a.String("unique_peer")}
				default:
					return nil, nil
				}
				return ignore, nil
			}},
		Command{Name: "show_log_level", Run: func(context.Context, Args) (any, error) { return "DEBUG", nil }},
		Command{Name: "set_log_level", Args: []Arg{{Name: "level", Kind: String, Required: true}}, Run: func(_ context.Context, a Args) (any, error) {
			if a.String("level") == "BAD" {
				return nil, fmt.Errorf("%w: no such level", ErrArgument)
			}
			return a.String("level"), nil
		}},
		Command{Name: "show_attribute", Args: []Arg{{Name: "attribute", Kind: String, Required: true}}, Run: func(_ context.Context, a Args) (any, error) {
			v, ok := attributes[a.String("attribute")]
			if !ok {
				return nil, fmt.Errorf("%w: no such attribute", ErrArgument)
			}
			if a.String("attribute") == "blacklisted_clients_id" {
				v, blacklist = blacklist[0], blacklist[1:]
			}
			return v, nil
		}},
		Command{Name: "start", Run: func(context.Context, Args) (any, error) { running = true; return nil, nil }},
		Command{Name: "stop", Args: flags, Run: func(context.Context, Args) (any, error) { running = false; return nil, nil }},
		Command{Name: "restart", Args: flags, Run: func(_ context.Context, a Args) (any, error) {
			if a.Number("sleep_between") != 2 {
				return nil, errors.New("sleep_between did not arrive")
			}
			return nil, nil
		}},
	)
	return r
}

// The calls that the original's tool made are answered to the byte as the
// original answered. Where that gave no answer, ours says what is wrong.
func TestCallsOfTheOriginalAreAnsweredAsTheOriginalDoes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "commander.json"))
	if err != nil {
		t.Fatal(err)
	}
	var calls []struct{ Call, Side, Request, Reply string }
	if err := json.Unmarshal(text, &calls); err != nil {
		t.Fatal(err)
	}
	registries := map[string]*Registry{"server": fixed("server"), "client": fixed("client")}
	for _, c := range calls {
		t.Run(c.Side+" "+c.Call, func(t *testing.T) {
			request, err := hex.DecodeString(c.Request)
			if err != nil {
				t.Fatal(err)
			}
			got, err := exchange(t, registries[c.Side], request)
			if c.Reply == "" {
				if err == nil || !bytes.HasPrefix(got[4:], []byte("error: bad argument: ")) {
					t.Errorf("got %q, %v, want an error text", got, err)
				}
				return
			}
			if err != nil {
				t.Errorf("serve: %v", err)
			}
			if hex.EncodeToString(got) != c.Reply {
				want, _ := hex.DecodeString(c.Reply)
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

// unixPair returns two connected Unix sockets.
func unixPair(t *testing.T) (tool, daemon net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if tool, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if daemon, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tool.Close()
		daemon.Close()
	})
	return tool, daemon
}

// exchange writes a request and returns all that comes back, and what Serve
// returned.
func exchange(t *testing.T, r *Registry, request []byte) (reply []byte, err error) {
	t.Helper()
	tool, daemon := unixPair(t)
	served := make(chan error, 1)
	go func() {
		served <- r.Serve(t.Context(), daemon)
		daemon.Close()
	}()
	if _, err := tool.Write(request); err != nil {
		t.Fatal(err)
	}
	if err := tool.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	reply, readErr := io.ReadAll(tool)
	if readErr != nil && !strings.Contains(readErr.Error(), "reset") {
		t.Fatal(readErr)
	}
	return reply, <-served
}

func sized(text string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func echo() *Registry {
	r := &Registry{}
	r.Add(Command{Name: "echo", Args: []Arg{{Name: "text", Kind: String}, {Name: "flag", Kind: Bool}, {Name: "n", Kind: Number}, {Name: "must", Kind: String, Required: true}},
		Run: func(_ context.Context, a Args) (any, error) {
			return fmt.Sprint(a.String("text"), " ", a.Bool("flag"), " ", a.Number("n"), " ", a.String("must")), nil
		}},
		Command{Name: "plain", Run: func(context.Context, Args) (any, error) { return "done", nil }},
		Command{Name: "fail", Run: func(context.Context, Args) (any, error) { return "half", errors.New("disk full") }},
		Command{Name: "big", Run: func(context.Context, Args) (any, error) { return strings.Repeat("x", 3*maxCommand), nil }})
	return r
}

func TestWhatIsAnswered(t *testing.T) {
	for _, tt := range []struct {
		name, request, want string
		err                 error
	}{
		{"all arguments", `{"cmd": "echo", "kwargs": {"text": "x", "flag": true, "n": 2.5, "must": "m"}}`, "x true 2.5 m", nil},
		{"missing and null arguments", `{"cmd": "echo", "kwargs": {"text": null, "must": "m"}}`, " false 0 m", nil},
		{"a name as the original's tool sends it", `{"cmd": "plain__sync", "kwargs": {}}`, "done", nil},
		{"kwargs null", `{"cmd": "plain", "kwargs": null}`, "done", nil},
		{"kwargs absent", `{"cmd": "plain"}`, "done", nil},
		{"more keys", `{"cmd": "plain", "kwargs": {}, "x": 1}`, "done", nil},
		{"a required argument missing", `{"cmd": "echo", "kwargs": {}}`, "error: bad argument: echo needs must", ErrArgument},
		{"a required argument null", `{"cmd": "echo", "kwargs": {"must": null}}`, "error: bad argument: echo needs must", ErrArgument},
		{"a number for a text", `{"cmd": "echo", "kwargs": {"must": 1}}`, "error: bad argument: echo: must must be a string", ErrArgument},
		{"a text for a number", `{"cmd": "echo", "kwargs": {"must": "m", "n": "1"}}`, "error: bad argument: echo: n must be a number", ErrArgument},
		{"a number for a flag", `{"cmd": "echo", "kwargs": {"must": "m", "flag": 1}}`, "error: bad argument: echo: flag must be true or false", ErrArgument},
		{"a list for a text", `{"cmd": "echo", "kwargs": {"must": ["m"]}}`, "error: bad argument: echo: must must be a string", ErrArgument},
		{"an argument too many", `{"cmd": "plain", "kwargs": {"x\n": 1}}`, `error: bad argument: plain has no argument "x\n"`, ErrArgument},
		{"kwargs that are a list", `{"cmd": "plain", "kwargs": [1]}`, "error: bad argument: plain: the arguments are not a JSON object", ErrArgument},
		{"unknown", `{"cmd": "no\u001b such", "kwargs": {}}`, `error: unknown command "no\x1b such"`, ErrUnknown},
		{"the suffix alone", `{"cmd": "__sync", "kwargs": {}}`, `error: unknown command "__sync"`, ErrUnknown},
		{"no JSON", "hello, world", "error: bad argument: the command is not a JSON object with cmd and kwargs", ErrArgument},
		{"no bytes", "", "error: bad argument: the command is not a JSON object with cmd and kwargs", ErrArgument},
		{"a list", "[]", "error: bad argument: the command is not a JSON object with cmd and kwargs", ErrArgument},
		{"a number as name", `{"cmd": 1}`, "error: bad argument: the command is not a JSON object with cmd and kwargs", ErrArgument},
		{"no name", `{"cmd": "", "kwargs": {}}`, "", nil},
		{"no name at all", `{}`, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := exchange(t, echo(), sized(tt.request))
			want := ""
			if tt.want != "" {
				want = string(sized(tt.want))
			}
			if string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("Serve returned %v, want %v", err, tt.err)
			}
		})
	}
	got, err := exchange(t, echo(), sized(`{"cmd": "fail"}`))
	if string(got) != string(sized("error: disk full")) || err == nil {
		t.Errorf("a command that fails: got %q, %v", got, err)
	}
}

func TestNamesThatAreMadeUpAreShortInErrors(t *testing.T) {
	long := strings.Repeat("é\x1b", 10_000)
	args, err := json.Marshal(map[string]int{long: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		kwargs json.RawMessage
		want   error
	}{{long, nil, ErrUnknown}, {"plain", args, ErrArgument}, {"plain", json.RawMessage(strings.Repeat(" ", maxCommand+1) + "{}"), ErrArgument}} {
		if _, err := echo().Call(t.Context(), tt.name, tt.kwargs); !errors.Is(err, tt.want) || len(err.Error()) > 2000 {
			t.Errorf("%.20q: got an error of %d bytes, %.100v", tt.name, len(fmt.Sprint(err)), err)
		}
	}
}

func TestWhatIsNoCommand(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request []byte
		want    string
		err     error
	}{
		{"an empty connection", nil, "", nil},
		{"half a length", []byte{1, 0}, "", io.ErrUnexpectedEOF},
		{"a length and nothing", []byte{9, 0, 0, 0}, "", io.ErrUnexpectedEOF},
		{"half a command", sized(`{"cmd": "plain"}`)[:9], "", io.ErrUnexpectedEOF},
		{"a length of 4 GiB", []byte{255, 255, 255, 255}, fmt.Sprintf("error: bad argument: 4294967295 bytes, at most %d", maxCommand), ErrArgument},
		{"a text", []byte("GET / HTTP/1.0\r\n\r\n"), fmt.Sprintf("error: bad argument: 542393671 bytes, at most %d", maxCommand), ErrArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := exchange(t, echo(), tt.request)
			if tt.want == "" && len(got) > 0 || tt.want != "" && len(got) > 0 && string(got) != string(sized(tt.want)) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("Serve returned %v, want %v", err, tt.err)
			}
		})
	}
}

func TestAToolThatFallsSilentIsGivenUp(t *testing.T) {
	for _, sent := range []string{"", "\x20", "\x20\x00\x00\x00", "\x20\x00\x00\x00{"} {
		t.Run(fmt.Sprintf("after %q", sent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tool, daemon := net.Pipe()
				defer tool.Close()
				started := time.Now()
				served := make(chan error)
				go func() { served <- echo().Serve(t.Context(), daemon) }()
				if _, err := io.WriteString(tool, sent); err != nil {
					t.Fatal(err)
				}
				if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("got %v, want a timeout", err)
				}
				if d := time.Since(started); d != bodyTimeout {
					t.Errorf("given up after %v, want %v", d, bodyTimeout)
				}
			})
		})
	}
}

func TestAToolThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tool, daemon := net.Pipe()
		defer tool.Close()
		served := make(chan error)
		go func() { served <- echo().Serve(t.Context(), daemon) }()
		if _, err := tool.Write(sized(`{"cmd": "plain"}`)); err != nil {
			t.Fatal(err)
		}
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v, want a timeout", err)
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tool, daemon := net.Pipe()
		defer tool.Close()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error)
		go func() { served <- echo().Serve(ctx, daemon) }()
		synctest.Wait()
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}

// commander serves a registry on a socket and returns its path.
func commander(t *testing.T, serve func(ctx context.Context, c net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "commander")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(context.Background(), c)
			}()
		}
	}()
	return path
}

func TestCallsOverASocket(t *testing.T) {
	r := echo()
	path := commander(t, func(ctx context.Context, c net.Conn) { _ = r.Serve(ctx, c) })
	for _, tt := range []struct {
		name   string
		kwargs any
		want   string
	}{
		{"plain", nil, "done"},
		{"plain", map[string]any(nil), "done"},
		{"plain__sync", map[string]any{}, "done"},
		{"echo", map[string]any{"must": "<é>\n", "n": 3}, " false 3 <é>\n"},
		{"echo", struct {
			Must string `json:"must"`
		}{"m"}, " false 0 m"},
		{"none", nil, `error: unknown command "none"`},
	} {
		got, err := Call(t.Context(), path, tt.name, tt.kwargs)
		if err != nil || got != tt.want {
			t.Errorf("%s %v: got %q, %v, want %q", tt.name, tt.kwargs, got, err, tt.want)
		}
	}
	got, err := Call(t.Context(), path, "big", nil)
	if err != nil || len(got) != 3*maxCommand {
		t.Errorf("a big reply: got %d bytes, %v, want %d", len(got), err, 3*maxCommand)
	}
}

func TestCallSendsAnObjectOfArguments(t *testing.T) {
	sent := make(chan string, 1)
	path := commander(t, func(_ context.Context, c net.Conn) {
		body, _ := readSized(c, maxCommand)
		sent <- string(body)
		_ = writeSized(c, []byte("{}"))
	})
	if _, err := Call(t.Context(), path, "start", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := <-sent, `{"cmd":"start","kwargs":{}}`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
}

func TestCallsThatFail(t *testing.T) {
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	heard := make(chan struct{}, 1)
	silent := commander(t, func(_ context.Context, c net.Conn) {
		if _, err := readSized(c, maxCommand); err == nil {
			heard <- struct{}{}
			<-hold
		}
	})
	closes := commander(t, func(_ context.Context, c net.Conn) { _, _ = readSized(c, maxCommand) })
	half := commander(t, func(_ context.Context, c net.Conn) {
		_, _ = readSized(c, maxCommand)
		_, _ = c.Write([]byte{9, 0, 0, 0, 'x'})
	})
	huge := commander(t, func(_ context.Context, c net.Conn) {
		_, _ = readSized(c, maxCommand)
		_, _ = c.Write([]byte{255, 255, 255, 255})
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-heard
		cancel()
	}()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		path string
		args any
		want error
	}{
		{"nobody there", t.Context(), filepath.Join(t.TempDir(), "none"), nil, fs.ErrNotExist},
		{"no answer until the context ends", ctx, silent, nil, context.Canceled},
		{"a context that has ended", ctx, silent, nil, context.Canceled},
		{"closed without an answer", t.Context(), closes, nil, io.EOF},
		{"half an answer", t.Context(), half, nil, io.ErrUnexpectedEOF},
		{"an answer of 4 GiB", t.Context(), huge, nil, nil},
		{"arguments that JSON does not know", t.Context(), silent, func() {}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Call(tt.ctx, tt.path, "start", tt.args)
			if err == nil || got != "" || !strings.HasPrefix(err.Error(), "command start: ") {
				t.Errorf("got %q, %v, want an error about the command", got, err)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNamesAreSorted(t *testing.T) {
	if got, want := fmt.Sprint(echo().Names()), "[big echo fail plain]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := (&Registry{}).Names(); len(got) != 0 {
		t.Errorf("an empty registry has %v", got)
	}
}
