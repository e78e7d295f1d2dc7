package regress

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"aioc/lib/cli"
	"aioc/lib/control"
)

// A page is a manual page: its name with the section, and its lines by section.
type page struct {
	file     string
	sections map[string][]string
}

// pages reads all pages, by file name.
func pages(t *testing.T) map[string]page {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "man", "*.[1-8]"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]page)
	for _, file := range files {
		name := filepath.Base(file)
		p := page{file: name, sections: make(map[string][]string)}
		section := ""
		for line := range strings.Lines(mustRead(t, filepath.Join("man", name))) {
			line = strings.TrimRight(line, "\n")
			if title, ok := strings.CutPrefix(line, ".Sh "); ok {
				section = title
				p.sections[section] = []string{}
			} else if section != "" {
				p.sections[section] = append(p.sections[section], line)
			}
		}
		all[name] = p
	}
	if len(all) == 0 {
		t.Fatal("no pages in man")
	}
	return all
}

// pageOf returns the page of a program.
func pageOf(t *testing.T, all map[string]page, program string) page {
	t.Helper()
	for _, section := range []string{".1", ".8"} {
		if p, ok := all[program+section]; ok {
			return p
		}
	}
	t.Fatalf("man has no page for %s", program)
	return page{}
}

// flagLine is a line of a usage text that introduces a flag.
var flagLine = regexp.MustCompile(`(?m)^  -([^ ]+)`)

// flagItem is a line of a page that introduces a flag.
var flagItem = regexp.MustCompile(`^\.It Fl ([^ ]+)`)

func TestPagesHaveTheFlagsOfThePrograms(t *testing.T) {
	bin, all := binaries(t), pages(t)
	for _, program := range mains(t) {
		t.Run(program, func(t *testing.T) {
			usage, err := exec.Command(filepath.Join(bin, program), "-h").Output()
			if err != nil {
				t.Fatalf("%s -h: %v", program, err)
			}
			var known []string
			for _, m := range flagLine.FindAllStringSubmatch(string(usage), -1) {
				known = append(known, m[1])
			}
			if len(known) == 0 {
				t.Fatalf("%s -h shows no flags:\n%s", program, usage)
			}
			p := pageOf(t, all, program)
			var described []string
			for _, lines := range p.sections {
				for _, line := range lines {
					if m := flagItem.FindStringSubmatch(line); m != nil {
						described = append(described, m[1])
					}
				}
			}
			for _, name := range known {
				if !slices.Contains(described, name) {
					t.Errorf("%s does not describe -%s", p.file, name)
				}
			}
			synopsis := strings.Fields(strings.Join(p.sections["SYNOPSIS"], "\n"))
			for _, name := range known {
				// Several letters may be in one word, as in -htv.
				if !slices.ContainsFunc(synopsis, func(word string) bool {
					return word == name || len(name) == 1 && len(word) <= 3 && strings.Contains(word, name)
				}) {
					t.Errorf("%s: the synopsis lacks -%s", p.file, name)
				}
			}
			for _, name := range described {
				if !slices.Contains(known, name) {
					t.Errorf("%s describes -%s, which %s -h does not show", p.file, name, program)
				}
			}
		})
	}
}

func TestPagesOfProgramsHaveTheSections(t *testing.T) {
	all := pages(t)
	for _, program := range mains(t) {
		p := pageOf(t, all, program)
		for _, section := range []string{
			"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO",
		} {
			if lines, ok := p.sections[section]; !ok || len(lines) == 0 {
				t.Errorf("%s: %s is missing or empty", p.file, section)
			}
		}
	}
}

// statuses returns the rows of the section EXIT STATUS: label and words.
func (p page) statuses() map[string]string {
	rows := make(map[string]string)
	label := ""
	for _, line := range p.sections["EXIT STATUS"] {
		if l, ok := strings.CutPrefix(line, ".It "); ok {
			label = l
			rows[label] = ""
		} else if strings.HasPrefix(line, ".") {
			label = ""
		} else if label != "" {
			rows[label] = strings.TrimSpace(rows[label] + " " + line)
		}
	}
	return rows
}

func TestPagesQuoteTheTableOfExitStatuses(t *testing.T) {
	table := make(map[string]string)
	for _, s := range cli.Statuses() {
		table[s.Label] = s.Words
	}
	all := pages(t)
	for label := range table {
		if _, ok := all["aioc.7"].statuses()[label]; !ok {
			t.Errorf("aioc.7 does not have exit status %s", label)
		}
	}
	for name, p := range all {
		for label, words := range p.statuses() {
			if want, ok := table[label]; !ok {
				t.Errorf("%s: exit status %s is not in the table", name, label)
			} else if words != want {
				t.Errorf("%s: exit status %s\n got %q\nwant %q", name, label, words, want)
			}
		}
	}
	for _, program := range mains(t) {
		p := pageOf(t, all, program)
		for _, label := range []string{"0", "1", "2"} {
			if _, ok := p.statuses()[label]; !ok {
				t.Errorf("%s does not have exit status %s", p.file, label)
			}
		}
	}
}

// reference is a line of a page that refers to one of our pages.
var reference = regexp.MustCompile(`(?m)^\.Xr (aioc[^ ]*) ([1-8])`)

func TestPagesReferToPagesThatExist(t *testing.T) {
	all := pages(t)
	for name := range all {
		for _, m := range reference.FindAllStringSubmatch(mustRead(t, "man/"+name), -1) {
			if _, ok := all[m[1]+"."+m[2]]; !ok {
				t.Errorf("%s refers to %s(%s), which does not exist", name, m[1], m[2])
			}
		}
	}
}

func TestOverviewNamesEveryProgramAndPage(t *testing.T) {
	all := pages(t)
	overview, readme := mustRead(t, "man/aioc.7"), mustRead(t, "README.md")
	for _, program := range mains(t) {
		p := pageOf(t, all, program)
		section := strings.TrimPrefix(p.file, program+".")
		if !strings.Contains(overview, "Xr "+program+" "+section) {
			t.Errorf("aioc.7 does not refer to %s(%s)", program, section)
		}
	}
	for name := range all {
		dot := strings.LastIndex(name, ".")
		words := name[:dot] + "(" + name[dot+1:] + ")"
		if !strings.Contains(readme, words) {
			t.Errorf("README.md does not list %s", words)
		}
		if section := name[dot+1:]; section == "1" || section == "8" {
			if _, err := os.Stat(filepath.Join(root, "cmd", name[:dot], "main.go")); err != nil {
				t.Errorf("%s is the page of no program: %v", name, err)
			}
		}
	}
}

func TestPageOfCtlHasTheCommands(t *testing.T) {
	p := pages(t)["aioc-ctl.1"]
	var words, help []string
	lines := p.sections["DESCRIPTION"]
	for i, line := range lines {
		if rest, ok := strings.CutPrefix(line, ".It Cm "); ok {
			word, _, _ := strings.Cut(rest, " ")
			words, help = append(words, word), append(help, lines[i+1])
		}
	}
	var want []string
	for i, v := range control.Verbs() {
		want = append(want, v.Word)
		if sentence := strings.ToUpper(v.Help[:1]) + v.Help[1:] + "."; i < len(help) && help[i] != sentence {
			t.Errorf("aioc-ctl.1: %s\n got %q\nwant %q", v.Word, help[i], sentence)
		}
	}
	if !slices.Equal(words, want) {
		t.Errorf("aioc-ctl.1 has the commands %q, want %q", words, want)
	}
	// And those that a Python connector does not have.
	_, text, _ := strings.Cut(mustRead(t, "man/aioc-ctl.1"), ".Ss Python connectors")
	text, _, _ = strings.Cut(text, ".Sh ")
	for _, v := range control.Verbs() {
		if has := strings.Contains(text, ".Cm "+v.Word+" "); has == v.Python {
			t.Errorf("aioc-ctl.1 says that a Python connector has %s: %v, want %v", v.Word, !has, v.Python)
		}
	}
}
