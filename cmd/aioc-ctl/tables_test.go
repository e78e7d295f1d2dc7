package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"aioc/lib/control"
)

func TestTablesFitTheTerminal(t *testing.T) {
	peers := &table{}
	peers.head("NAME", "ADDRESS", "TLS", "WAITING")
	peers.row("pump7", "192.0.2.7:51515", "-", "0")
	peers.row("é\nb", "-", "TLS 1.3", "12")
	peers.row("and 7 more")
	status := &table{}
	status.row("state", "running")
	status.row("problem", "not connected to the server 192.0.2.1:10673: connection refused")
	status.row("directory", "/var/tmp/aioconnectors")
	rules := &table{}
	rules.head("RULE", "NOTE")
	rules.row("client_name", "one two three four five six")
	for _, tt := range []struct {
		name    string
		t       *table
		columns int
		want    string
	}{
		{"room", peers, 0, `
NAME   ADDRESS          TLS      WAITING
pump7  192.0.2.7:51515  -        0
é\nb   -                TLS 1.3  12
and 7 more
`},
		{"just enough room", peers, 40, `
NAME   ADDRESS          TLS      WAITING
pump7  192.0.2.7:51515  -        0
é\nb   -                TLS 1.3  12
and 7 more
`},
		{"too little", peers, 39, `
NAME     pump7
ADDRESS  192.0.2.7:51515
TLS      -
WAITING  0

NAME     é\nb
ADDRESS  -
TLS      TLS 1.3
WAITING  12
and 7 more
`},
		{"very little", peers, 12, `
NAME  pump7
ADDRESS  192.0.2.7:51515
TLS  -
WAITING  0

NAME  é\nb
ADDRESS  -
TLS  TLS 1.3
WAITING  12
and 7 more
`},
		{"keys", status, 40, `
state      running
problem    not connected to the server
           192.0.2.1:10673: connection
           refused
directory  /var/tmp/aioconnectors
`},
		{"keys and little room", status, 20, `
state
  running
problem
  not connected to
  the server
  192.0.2.1:10673:
  connection refused
directory
  /var/tmp/aioconnectors
`},
		{"a long note", rules, 31, `
RULE         NOTE
client_name  one two three four
             five six
`},
		{"nothing", &table{}, 40, "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.t.text(tt.columns); got != tt.want[1:] {
				t.Errorf("got\n%swant%s", got, tt.want)
			}
		})
	}
}

func TestTheUsageFitsTheTerminal(t *testing.T) {
	for _, columns := range []int{40, 59, 60, 80, 200} {
		text := usage("", columns)
		for line := range strings.Lines(text) {
			if n := len(strings.TrimRight(line, "\n")); n > columns {
				t.Errorf("%d columns: %q has %d", columns, line, n)
			}
		}
		for _, v := range control.Verbs() {
			if !strings.Contains(text, "  "+v.Word) {
				t.Errorf("%d columns: %s is missing", columns, v.Word)
			}
		}
	}
}

func TestNothingThatIsPrintedIsACommandOfTheTerminal(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"{\"a\": \"é ß 日本 😀\"}\n", "{\"a\": \"é ß 日本 😀\"}\n"},
		{"a\x1b[2Jb\u009b2J\x7f\t\r", `a\u001b[2Jb\u009b2J\u007f\u0009\u000d`},
		{"\u202e\ufeff\U000e0001", `\u202e\ufeff\udb40\udc01`},
		{"", ""},
	} {
		if got := string(harmless([]byte(tt.in))); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
	var back, want string
	text, err := json.Marshal("x\u009b\U000e0001\u202e\x1b")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(json.Unmarshal(harmless(text), &back), json.Unmarshal(text, &want)); err != nil || back != want {
		t.Errorf("got %q, %v, want %q: JSON means the same", back, err, want)
	}
}
