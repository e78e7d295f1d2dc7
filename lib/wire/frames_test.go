package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"
)

// A captured frame: what went between two ends of aioconnectors 1.6.3, and
// what is in it.
type captured struct {
	Name       string
	Hex        string
	Transport  map[string]any
	DataLength int     `json:"data_length"`
	DataText   *string `json:"data_text"`
	DataHex    *string `json:"data_hex"`
	Flagged    bool    // the header says with_binary
	BinaryHex  *string `json:"binary_hex"`
}

func (c *captured) raw(t testing.TB) []byte { return mustHex(t, c.Hex) }

func mustHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustLoad(t testing.TB, file string, v any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func capturedFrames(t testing.TB) []captured {
	t.Helper()
	var frames []captured
	mustLoad(t, "frames.json", &frames)
	if len(frames) < 150 {
		t.Fatalf("only %d captured frames", len(frames))
	}
	return frames
}

func checkCaptured(t *testing.T, c *captured, f *Frame) {
	t.Helper()
	raw := c.raw(t)
	if !bytes.Equal(f.Raw, raw) {
		t.Errorf("Raw = %x, want %x", f.Raw, raw)
	}
	if len(f.Data) != c.DataLength {
		t.Errorf("%d bytes of data, want %d", len(f.Data), c.DataLength)
	}
	if c.DataText != nil && string(f.Data) != *c.DataText {
		t.Errorf("data = %q, want %q", f.Data, *c.DataText)
	}
	if c.DataHex != nil && !bytes.Equal(f.Data, mustHex(t, *c.DataHex)) {
		t.Errorf("data = %x, want %s", f.Data, *c.DataHex)
	}
	var bin []byte
	if c.Flagged {
		bin = mustHex(t, *c.BinaryHex)
	}
	if !bytes.Equal(f.Binary, bin) {
		t.Errorf("binary = %x, want %x", f.Binary, bin)
	}
	checkHeader(t, f.Header, c.Transport)
}

// checkHeader compares a parsed header with what another parser made of it.
func checkHeader(t *testing.T, h *Header, want map[string]any) {
	t.Helper()
	for key, got := range map[string][]byte{
		"message_type": h.Type, "source_id": h.Source, "destination_id": h.Dest,
		"message_type_publish": h.Publish, "tag": h.Tag, "error": h.Error,
	} {
		if s, ok := want[key].(string); ok != (got != nil) || s != string(got) {
			t.Errorf("%s = %q, want %q", key, got, want[key])
		}
	}
	for key, got := range map[string][]byte{
		"request_id": h.RequestID, "response_id": h.ResponseID, "transport_id": h.TransportID, "with_file": h.WithFile,
	} {
		var v any
		if got != nil {
			if err := json.Unmarshal(got, &v); err != nil {
				t.Errorf("%s = %s: %v", key, got, err)
			}
		}
		if !reflect.DeepEqual(v, want[key]) {
			t.Errorf("%s = %v, want %v", key, v, want[key])
		}
	}
	for key, got := range map[string]bool{
		"with_binary": h.WithBinary, "await_response": h.AwaitResponse, "wait_for_ack": h.WaitForAck,
	} {
		if got != (want[key] == true) {
			t.Errorf("%s = %v, want %v", key, got, want[key])
		}
	}
	got := map[string]any{}
	if err := Fields(h.Raw, func(key, value []byte) {
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			t.Errorf("%s: %s: %v", key, value, err)
		}
		got[string(key)] = v
	}); err != nil {
		t.Error(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("fields = %v, want %v", got, want)
	}
}

func TestCapturedFramesAreUnderstood(t *testing.T) {
	for _, c := range capturedFrames(t) {
		t.Run(c.Name, func(t *testing.T) {
			f, err := ParseFrame(c.raw(t))
			if err != nil {
				t.Fatal(err)
			}
			checkCaptured(t, &c, &f)
		})
	}
}

func TestCapturedFramesFollowOneAnother(t *testing.T) {
	frames := capturedFrames(t)
	var stream []byte
	for _, c := range frames {
		stream = append(stream, c.raw(t)...)
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"read at once":         func(r io.Reader) io.Reader { return r },
		"read byte by byte":    iotest.OneByteReader,
		"read half by half":    iotest.HalfReader,
		"the end with a read":  iotest.DataErrReader,
		"as the original does": func(r io.Reader) io.Reader { return &twoWrites{r: r} },
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(wrap(bytes.NewReader(stream)), MaxFrame)
			var f Frame
			for i := range frames {
				if err := r.Next(&f); err != nil {
					t.Fatalf("%s: %v", frames[i].Name, err)
				}
				checkCaptured(t, &frames[i], &f)
			}
			if err := r.Next(&f); err != io.EOF {
				t.Errorf("at the end: %v, want EOF", err)
			}
		})
	}
}

// twoWrites is what arrives of an end that writes the length of a frame and
// the rest of it apart.
type twoWrites struct {
	r    io.Reader
	head bool
}

func (w *twoWrites) Read(p []byte) (int, error) {
	if !w.head {
		w.head = true
		return io.ReadFull(w.r, p[:4])
	}
	w.head = false
	return w.r.Read(p[:1])
}

func TestCapturedFramesAreWrittenAlike(t *testing.T) {
	for _, c := range capturedFrames(t) {
		t.Run(c.Name, func(t *testing.T) {
			raw := c.raw(t)
			f, err := ParseFrame(raw)
			if err != nil {
				t.Fatal(err)
			}
			bin := f.Binary
			if c.BinaryHex != nil {
				bin = mustHex(t, *c.BinaryHex) // also when no flag announces it
			}
			got, err := AppendFrame([]byte("before"), f.Header.Raw, f.Data, bin)
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte("before"), raw...); !bytes.Equal(got, want) {
				t.Errorf("frame = %x, want %x", got, want)
			}
			if got, want := Size(len(f.Header.Raw), len(f.Data), len(bin)), len(raw); got != want {
				t.Errorf("Size = %d, want %d", got, want)
			}
			// The header as Python writes it: nothing to change is no change.
			if got := AppendEdited(nil, f.Header.Raw); !bytes.Equal(got, f.Header.Raw) {
				t.Errorf("AppendEdited without edits = %s, want %s", got, f.Header.Raw)
			}
		})
	}
}

func TestAPingsAnswerHasABinaryThatNothingAnnounces(t *testing.T) {
	seen := 0
	for _, c := range capturedFrames(t) {
		if c.BinaryHex == nil || c.Flagged {
			continue
		}
		seen++
		f, err := ParseFrame(c.raw(t))
		if err != nil {
			t.Fatal(err)
		}
		if f.Binary != nil || string(f.Data) != *c.DataText {
			t.Errorf("%s: data %q, binary %x; want %q and no binary", c.Name, f.Data, f.Binary, *c.DataText)
		}
	}
	if seen == 0 {
		t.Error("no such frame is among those captured")
	}
}
