package link

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"aioc/lib/wire"
)

// vector is a captured conversation of two ends of the original.
type vector struct {
	Frames []struct {
		Direction string
		T         float64
		Hex       string
	}
	Closed float64
}

func mustVector(t *testing.T, name string) (v vector) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func mustHex(t *testing.T, text string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestNothingIsFinishedBeforeItIsKnownWhoReads(t *testing.T) {
	const echo = `{"message_type": "_ping", "response_id": "aioc", "source_id": "far"}`
	const answer = `{"message_type": "_ping", "response_id": "aioc", "aioc": ["ackto", "flow"], "source_id": "far"}`
	for _, tt := range []struct {
		name    string
		dialled bool
		says    string
		data    string
		wait    time.Duration
		want    string
		acks    bool
		greeted string // what Greeted was called with
	}{
		{"dialled: no word yet", true, "", "", decideAfter - time.Millisecond, "done ; in hand 2; waiting ", false, ""},
		{"dialled: no word in time", true, "", "", decideAfter, "done 0 1; in hand 0; waiting ", false, "nil"},
		{"dialled: an echo, as of the original", true, echo, "", 0, "done 0 1; in hand 0; waiting ", false, "data"},
		{"dialled: an answer", true, answer, "info", 0, "done ; in hand 2; waiting ", true, "data info"},
		{"dialled: an answer without ackto", true, strings.Replace(answer, `"ackto", `, "", 1), "", 0, "done 0 1; in hand 0; waiting ", false, "data"},
		{"dialled: a message tells nothing", true, `{"message_type": "a"}`, "", 0, "done ; in hand 2; waiting ", false, ""},
		{"dialled: an announcement instead of an answer is echoed", true, farAnnounces, "", 0, "done ; in hand 2; waiting ", false, ""},
		{"accepted: no word in time", false, "", "", decideAfter, "done 0 1; in hand 0; waiting ", false, "nil"},
		{"accepted: a message first, as from the original", false, `{"message_type": "a"}`, "", 0, "done 0 1; in hand 0; waiting ", false, "nil"},
		{"accepted: a ping first, as from the original", false, `{"message_type": "_ping", "await_response": true, "request_id": 1}`, "", 0, "done 0 1; in hand 0; waiting ", false, "nil"},
		{"accepted: an announcement", false, farAnnounces, "", 0, "done ; in hand 2; waiting ", true, "data"},
		{"accepted: an answer that nobody asked for", false, answer, "", 0, "done 0 1; in hand 0; waiting ", false, "nil"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSource()
				greeted := ""
				e, f := start(t, Options{Source: s, Extensions: both, Dialled: tt.dialled, Greeted: func(f *wire.Frame) {
					greeted += "nil"
					if f != nil {
						greeted = strings.TrimSuffix(greeted, "nil") + strings.TrimSpace("data "+string(f.Data))
					}
				}})
				s.put("a", "b")
				first := f.take()
				if tt.dialled && (len(first) == 0 || first[0] != announcement) {
					t.Errorf("the first frame was %q, want the announcement", first)
				}
				if tt.says != "" {
					f.send(tt.says, tt.data)
				}
				time.Sleep(tt.wait)
				synctest.Wait()
				check(t, "outcome", s.outcome(), tt.want)
				check(t, "greeted", greeted, tt.greeted)
				if e.Acks() != tt.acks || e.Flow() != tt.acks {
					t.Errorf("Acks %v, Flow %v, want %v", e.Acks(), e.Flow(), tt.acks)
				}
			})
		})
	}
}

func TestAnAnnouncementIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := start(t, Options{Extensions: both, Info: func() []byte { return []byte(`{"name": "x"}`) }})
		f.send(farAnnounces, "")
		f.expect(`{"message_type": "_ping", "response_id": "aioc", "aioc": ["ackto", "flow"], "source_id": "near"} {"name": "x"}`)
	})
}

func TestAnAnnouncementThatComesLateStillCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Source: s, Extensions: both})
		s.put("a", "a")
		time.Sleep(decideAfter)
		synctest.Wait()
		f.send(farAnnounces, "")
		s.put("a")
		synctest.Wait()
		check(t, "outcome", s.outcome(), "done 0 1; in hand 1; waiting ")
		f.ack(3)
		check(t, "outcome", s.outcome(), "done 0 1 2; in hand 0; waiting ")
	})
}

func TestALinkThatBreaksUndecidedGivesAllBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		e, f := start(t, Options{Source: s, Extensions: both, Dialled: true})
		s.put("a", "a")
		f.take()
		f.conn.Close()
		if err := <-e.result; err != io.EOF {
			t.Errorf("got %v, want EOF", err)
		}
		check(t, "outcome", s.outcome(), "done ; in hand 0; waiting 0 1")
	})
}

// To an end without extensions, what is written is finished; what waits for an
// acknowledgement is not, and is acknowledged by id in any order.
func TestAnEndLikeTheOriginalAcknowledgesByIdInAnyOrder(t *testing.T) {
	const ack = `{"transport_id": %d, "message_type": "_ack", "source_id": "far"}`
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		_, f := start(t, Options{Source: s})
		s.put("a")
		s.wait = true
		s.put("a", "a", "a")
		s.wait = false
		s.put("a")
		synctest.Wait()
		check(t, "outcome", s.outcome(), "done 0 4; in hand 3; waiting ")
		for _, n := range []int{4, 2, 2, 1, 5, 99, 0} {
			f.send(fmt.Sprintf(ack, n), "")
		}
		check(t, "outcome", s.outcome(), "done 0 4 3 1; in hand 1; waiting ")
		f.send(fmt.Sprintf(ack, 3), "")
		check(t, "outcome", s.outcome(), "done 0 4 3 1 2; in hand 0; waiting ")
	})
}

// An acknowledgement as the original sends it finishes the frame, as it was
// captured.
func TestTheAcknowledgementOfTheOriginalIsUnderstood(t *testing.T) {
	v := mustVector(t, "ack")
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.frame = func(string, int) []byte { return mustHex(t, v.Frames[0].Hex) }
		s.wait = true
		_, f := startUnread(t, Options{ID: "client1", Source: s})
		s.put("any")
		got := make([]byte, len(v.Frames[0].Hex)/2)
		if _, err := io.ReadFull(f.conn, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, mustHex(t, v.Frames[0].Hex)) {
			t.Errorf("wrote %q", got)
		}
		synctest.Wait()
		check(t, "before", s.outcome(), "done ; in hand 1; waiting ")
		if _, err := f.conn.Write(mustHex(t, v.Frames[1].Hex)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		check(t, "after", s.outcome(), "done 0; in hand 0; waiting ")
	})
}

func TestPingsAreAnsweredAsTheOriginalDoes(t *testing.T) {
	for _, name := range []string{"ping", "ping_with_binary"} {
		t.Run(name, func(t *testing.T) {
			v := mustVector(t, name)
			synctest.Test(t, func(t *testing.T) {
				_, f := startUnread(t, Options{ID: "('127.0.0.1', 20001)"})
				if _, err := f.conn.Write(mustHex(t, v.Frames[0].Hex)); err != nil {
					t.Fatal(err)
				}
				var got wire.Frame
				if err := wire.NewReader(f.conn, wire.MaxFrame).Next(&got); err != nil {
					t.Fatal(err)
				}
				want := mustHex(t, v.Frames[1].Hex)
				if name == "ping_with_binary" {
					// Ours says that there is one, so that it arrives.
					want = mustFrame(t, `{"message_type": "_ping", "response_id": 2, "source_id": "('127.0.0.1', 20001)", "with_binary": true}`, "PING")
					want = append(want, 2, 0, 0, 0, 1, 2)
					want[0] += 6
					var a, b wire.Header
					if err := a.Parse(got.Header.Raw); err != nil {
						t.Fatal(err)
					}
					wanted, err := wire.ParseFrame(want)
					if err != nil {
						t.Fatal(err)
					}
					b = *wanted.Header
					if string(a.ResponseID) != string(b.ResponseID) || !a.WithBinary || string(got.Data) != "PING" || !bytes.Equal(got.Binary, []byte{1, 2}) {
						t.Errorf("got %q", got.Raw)
					}
					return
				}
				if !bytes.Equal(got.Raw, want) {
					t.Errorf("got  %q\nwant %q", got.Raw, want)
				}
			})
		})
	}
}

func TestWhichPingsAreTheHandlers(t *testing.T) {
	const id = `{"message_type": "_ping", "await_response": true, "request_id": "x"}`
	for _, tt := range []struct {
		name   string
		opt    Options
		header string
		sent   []string
		got    string
	}{
		{"a request is answered by the link", Options{}, id, []string{`{"message_type": "_ping", "response_id": "x", "source_id": "near"} data`}, ""},
		{"a request without id cannot be answered", Options{}, `{"message_type": "_ping", "await_response": true}`, nil, ""},
		{"an answer is the handler's", Options{}, `{"message_type": "_ping", "response_id": 7}`, nil, "0 _ping data"},
		{"an answer to a keep-alive ping is the link's", Options{}, `{"message_type": "_ping", "response_id": "keep_alive_client_check"}`, nil, ""},
		{"passed on where local programs send", Options{PassPings: true}, id, nil, "1 _ping data"},
		{"an announcement is not", Options{PassPings: true, Extensions: both}, farAnnounces, []string{`{"message_type": "_ping", "response_id": "aioc", "aioc": ["ackto", "flow"], "source_id": "near"} data`}, ""},
		{"one who says nothing echoes an announcement", Options{}, farAnnounces, []string{`{"message_type": "_ping", "response_id": "aioc", "source_id": "near"} data`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &sink{}
				tt.opt.Handler = h
				_, f := start(t, tt.opt)
				f.send(tt.header, "data")
				f.expect(tt.sent...)
				check(t, "arrived", h.arrived(), tt.got)
			})
		})
	}
}

func TestFramesAreNumberedByWhatTheyAre(t *testing.T) {
	types := []string{"a", "_consume", "b", "_empty", "_call", "_handshake_no_ssl", "_handshake_ssl", "_ssl", "_token", "_pubsub", "", "_other"}
	for _, tt := range []struct {
		name      string
		responses bool
		want      string
	}{
		{"messages", false, "1 a , 0 _consume , 2 b , 0 _empty , 0 _call , 0 _handshake_no_ssl , 0 _handshake_ssl , 0 _ssl , 0 _token , 3 _pubsub , 4  , 5 _other "},
		{"responses", true, "0 a , 0 _consume , 0 b , 0 _empty , 0 _call , 0 _handshake_no_ssl , 0 _handshake_ssl , 0 _ssl , 0 _token , 0 _pubsub , 0  , 0 _other "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &sink{}
				_, f := start(t, Options{Announced: true, Handler: h, Responses: tt.responses})
				for _, typ := range types {
					f.message(typ, "")
				}
				check(t, "arrived", h.arrived(), tt.want)
				acks := slices.DeleteFunc(f.take(), func(s string) bool { return !strings.HasPrefix(s, `{"ackto"`) })
				if tt.responses && len(acks) > 0 {
					t.Errorf("responses were acknowledged: %q", acks)
				}
				if !tt.responses && (len(acks) == 0 || acks[len(acks)-1] != acksTo(5)) {
					t.Errorf("the messages were acknowledged by %q", acks)
				}
			})
		})
	}
}
