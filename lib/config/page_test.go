package config

import (
	"os"
	"strings"
	"testing"
)

// mustReadPage returns the items of aioc.json(5), by key, and the examples.
func mustReadPage(t *testing.T) (items map[string]string, examples []string) {
	t.Helper()
	page, err := os.ReadFile("../../man/aioc.json.5")
	if err != nil {
		t.Fatal(err)
	}
	items = map[string]string{}
	key, example := "", ""
	inExample := false
	for line := range strings.Lines(string(page)) {
		if name, ok := strings.CutPrefix(line, ".It Cm "); ok {
			key = strings.TrimSpace(name)
			if _, twice := items[key]; twice {
				t.Errorf("%s is described twice", key)
			}
			items[key] = ""
			continue
		}
		switch strings.TrimSpace(line) {
		case ".El":
			key = ""
		case ".Bd -literal -offset indent":
			inExample, example = true, ""
			continue
		case ".Ed":
			inExample = false
			examples = append(examples, example)
		}
		if key != "" {
			items[key] += line
		}
		if inExample {
			example += line
		}
	}
	return items, examples
}

func TestThePageAndTheTableHaveTheSameKeys(t *testing.T) {
	items, _ := mustReadPage(t)
	for _, k := range keys() {
		text, ok := items[k.name]
		if !ok {
			t.Errorf("%s is not in the page", k.name)
			continue
		}
		delete(items, k.name)
		def := k.def
		if def == "" {
			def = dataDir
		}
		if want := ".br\nDefault: " + def + ".\n"; k.field != nil && !strings.HasSuffix(text, want) {
			t.Errorf("%s: the page does not end its item with %q", k.name, want)
		}
		if without := strings.Contains(text, "without effect"); without != (k.ignored != "") {
			t.Errorf("%s: the page says that it is without effect: %v, the table %q", k.name, without, k.ignored)
		}
		switch {
		case strings.Contains(text, "Only for a server."):
			if k.side != serverOnly {
				t.Errorf("%s: the page says it is for a server only", k.name)
			}
		case strings.Contains(text, "Only for a client."):
			if k.side != clientOnly {
				t.Errorf("%s: the page says it is for a client only", k.name)
			}
		case k.side == clientOnly:
			t.Errorf("%s: the page does not say that it is for a client only", k.name)
		}
	}
	for name := range items {
		t.Errorf("%s is in the page but not in the table", name)
	}
}

func TestKeysTellsWhatThePageTells(t *testing.T) {
	all := keys()
	list := Keys()
	if len(list) != len(all) {
		t.Fatalf("got %d keys, want %d", len(list), len(all))
	}
	for i, k := range list {
		if k.Name != all[i].name || k.Help == "" || k.Want == "" || k.Default != all[i].def {
			t.Errorf("got %+v", k)
		}
	}
}

func TestTheExamplesOfThePageAreSound(t *testing.T) {
	_, examples := mustReadPage(t)
	found := 0
	for _, text := range examples {
		if !strings.HasPrefix(text, "{") {
			continue
		}
		found++
		c := mustParse(t, text)
		if errs, warnings := c.Check(), c.Warnings(); errs != nil || warnings != nil {
			t.Errorf("%s%v %q", text, errs, warnings)
		}
	}
	if found != 2 {
		t.Errorf("got %d examples of files, want 2", found)
	}
}
