package main

import (
	"strings"
	"testing"
	"testing/synctest"

	"aioc/lib/api"
)

func TestFailuresSayWhatWasTaken(t *testing.T) {
	refuse := func(index int, reason, text string) *fake {
		f := client1()
		f.refuse = &api.NotTaken{Index: index, Reason: reason, Text: text}
		return f
	}
	lost := func(n int) *fake {
		f := client1()
		f.lost = n
		return f
	}
	old := lost(1)
	old.info.Native = false
	tests := []struct {
		name   string
		fake   *fake
		args   string
		input  string
		status int
		want   string
	}{
		{"away", refuse(0, "away", ""), "", "1 2 3", 75, "0 messages taken, message 1 was not: the peer is not connected"},
		{"full", refuse(1, "full", ""), "", "1 2 3", 75, "1 message taken, message 2 was not: the queue is full"},
		{"type", refuse(2, "type", "no\nsuch"), "", "1 2 3", 77, `2 messages taken, message 3 was not: no\nsuch`},
		{"name", refuse(2, "name", ""), "", "1 2 3", 77, "does not know its destination"},
		{"size", refuse(2, "size", ""), "", "1 2 3", 65, "too long"},
		{"bad", refuse(2, "bad", ""), "", "1 2 3", 65, "refused: bad"},
		{"closed", refuse(2, "closed", ""), "", "1 2 3", 75, "closed"},
		{"stopped", refuse(2, "stopped", ""), "", "1 2 3", 75, "stopped"},
		{"known only at the end", refuse(3, "away", ""), "", "1 2 3", 75, "3 messages taken, message 4 was not"},
		{"a refusal before bad input", refuse(2, "away", ""), "", "1 2 ?", 75, "2 messages taken, message 3 was not: the peer"},
		{"a file", refuse(0, "file", "the peer has the message, but not its file: its disk is full"), "-ack", "1", 1, "aioc-send: message 1 was taken, its file was not: its disk is full\n"},
		{"the file of a later one", refuse(1, "file", "no"), "-ack", "1 2", 1, "1 message taken whole, message 2 was taken, its file was not: no\n"},
		{"lost", lost(1), "", "1 2 3", 75, "2 messages known to be taken, message 3 may have been too, and may still be delivered: " + api.ErrLost.Error() + "; sent again, it may come twice, unless it has an id (-id)\n"},
		{"lost, a Python one, which knows no ids", old, "", "1 2 3", 75, "may still be delivered: " + api.ErrLost.Error() + "\n"},
		{"lost, with an id", lost(1), "-id x", "1 2 3", 75, "may still be delivered: " + api.ErrLost.Error() + "\n"},
		{"lost, and the peer is asked", lost(2), "-ack", "1 2 3", 75, "1 message acknowledged by the peer, messages 2 to 3 were not, but they may have been taken here and may still be delivered: " + api.ErrLost.Error()},
		{"not JSON", client1(), "", "1 2 ?", 65, "2 messages taken, message 3 was not: standard input, line 1, byte 5"},
		{"not an envelope", client1(), "-envelope", `{"message_type":"any"} [1]`, 65, "1 message taken, message 2 was not: standard input, line 1: not a message: not a JSON object"},
		{"an envelope of a wrong type", client1(), "-envelope", "{}\n\n{\"message_type\":\n\"q\"}", 77, `message 2 was not: standard input, line 3: type "q" is not one`},
		{"an envelope of no type", client1(), "-envelope", `{"message_type":7}`, 65, `"message_type": want a string`},
		{"an envelope for nobody", server1(), "-envelope", `{"message_type":"any"}`, 65, `"destination_id": want the name of a client`},
		{"an envelope both ways", client1(), "-envelope", `{"await_response":true,"response_id":1}`, 65, "a response is not answered"},
		{"an envelope with a long header", client1(), "-envelope", `{"a":"` + strings.Repeat("x", 65500) + `"}`, 65, "at most 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.fake.run(t.Context(), strings.NewReader(tt.input), strings.Fields(tt.args)...)
			if got.status != tt.status || !strings.Contains(got.stderr, tt.want) || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("got %+v\nwant %d, %q", got, tt.status, tt.want)
			}
		})
	}
}

func TestTimeThatIsUpIsSaidToHaveBeenWaitedForThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := client1()
		f.unacknowledged = true
		got := f.run(t.Context(), strings.NewReader("1"), "-wait", "-timeout", "10s")
		if want := "0 messages taken, message 1 was not: time is up, and the peer was away, or what waits for it"; got.status != 124 || !strings.Contains(got.stderr, want) {
			t.Errorf("got %+v, want 124 and %q", got, want)
		}
	})
}
