package api

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestParseInfoReadsWhatEncodingJSONWrites(t *testing.T) {
	type info struct {
		Name      string   `json:"name"`
		Server    bool     `json:"server"`
		Peer      string   `json:"peer,omitempty"`
		SendTypes []string `json:"send_message_types"`
		RecvTypes []string `json:"recv_message_types"`
		Max       int64    `json:"max_message_size"`
	}
	for _, want := range []Info{
		{Native: true},
		{Name: "client1", Peer: "127.0.0.1 10673", SendTypes: []string{"any"}, RecvTypes: []string{}, Native: true},
		{Name: "a\"\\\n\u2028é", Server: true, SendTypes: []string{"a,b", "[", "\"]\"", " "}, Max: 1 << 40, Native: true},
	} {
		given := info{want.Name, want.Server, want.Peer, want.SendTypes, want.RecvTypes, want.Max}
		text, err := json.Marshal(given)
		if err != nil {
			t.Fatal(err)
		}
		spaced, err := json.MarshalIndent(given, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range [][]byte{text, spaced} {
			if got, err := parseInfo(object); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, %v\nwant %+v", object, got, err, want)
			}
		}
	}
}

func TestParseInfoRefusesWhatIsNotAnObject(t *testing.T) {
	for _, text := range []string{"", "[]", `{"name": "a"`, `{"name": }`} {
		if info, err := parseInfo([]byte(text)); err == nil {
			t.Errorf("%q: got %+v", text, info)
		}
	}
}
