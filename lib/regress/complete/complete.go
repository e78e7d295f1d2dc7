package main

import (
	"fmt"
	"regexp"
	"strings"
)

// word is a flag or a command of a program.
type word struct {
	name string
	arg  string // of a flag, in capitals; "" when it has none
	help string
}

// program is what a usage text tells.
type program struct {
	name     string
	flags    []word
	commands []word
	file     bool // words that are no flags are names of files
}

var (
	flagLine = regexp.MustCompile(`^  -(\S+)(?: ([A-Z][A-Z0-9=:,.|]*))?\s{2,}(\S.*)$`)
	// A synopsis such as "aioc-certs list [DIR]" names a command.
	synopsisLine = regexp.MustCompile(`(?m)^(?:usage:|      ) aioc-[a-z]+ ([a-z][a-z-]+)(?: |$)`)
	// A help text such as "format of the log: text or json" names all values.
	valuesText  = regexp.MustCompile(`: ((?:[a-z]+, )*[a-z]+ or [a-z]+)(?: \(|$)`)
	commandLine = regexp.MustCompile(`^  ([a-z][a-z-]*)(?: .*?)?(?:\s{2,}(\S.*))?$`)
)

// read reads a usage text.
func read(name, usage string) program {
	p := program{name: name}
	first, _, _ := strings.Cut(usage, "\n")
	p.file = strings.HasSuffix(first, "[FILE]")
	inCommands := false
	for _, m := range synopsisLine.FindAllStringSubmatch(usage, -1) {
		p.commands = append(p.commands, word{name: m[1]})
	}
	for line := range strings.Lines(usage) {
		line = strings.TrimRight(line, "\n")
		if line == "commands:" {
			inCommands = true
		} else if m := flagLine.FindStringSubmatch(line); m != nil && !inCommands {
			p.flags = append(p.flags, word{m[1], m[2], m[3]})
		} else if m := commandLine.FindStringSubmatch(line); m != nil && inCommands {
			p.commands = append(p.commands, word{name: m[1], help: m[2]})
		} else if n := len(p.commands); inCommands && n > 0 && p.commands[n-1].help == "" {
			p.commands[n-1].help = strings.TrimSpace(line)
		}
	}
	return p
}

// files returns the completions of a program, by the name of the file.
func files(name, usage string) map[string]string {
	p := read(name, usage)
	return map[string]string{name + ".bash": p.bash(), "_" + name: p.zsh(), name + ".fish": p.fish()}
}

const made = "# Made by make completions; changes are lost.\n"

// kind is what completes the argument of a flag: files, dirs, or "".
func (w word) kind() string {
	switch w.arg {
	case "FILE", "PATH":
		return "files"
	case "DIR":
		return "dirs"
	}
	return ""
}

// values are all that the argument of a flag can be, none if that is not known.
func (w word) values() []string {
	m := valuesText.FindStringSubmatch(w.help)
	if m == nil || w.arg != "MODE" && w.arg != "FORMAT" {
		return nil
	}
	return strings.Fields(strings.NewReplacer(",", "", " or ", " ").Replace(m[1]))
}

func (p program) bash() string {
	var files, dirs, others, words []string
	var chosen []word
	for _, f := range p.flags {
		words = append(words, "-"+f.name)
		switch {
		case f.arg == "":
		case f.kind() == "files":
			files = append(files, "-"+f.name)
		case f.kind() == "dirs":
			dirs = append(dirs, "-"+f.name)
		case f.values() != nil:
			chosen = append(chosen, f)
		default:
			others = append(others, "-"+f.name)
		}
	}
	fn := "_" + strings.ReplaceAll(p.name, "-", "_")
	var b strings.Builder
	fmt.Fprintf(&b, "# Completion of %s for bash.\n%s%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n\tCOMPREPLY=()\n\tcase $prev in\n", p.name, made, fn)
	branch := func(list []string, do string) {
		if len(list) > 0 {
			fmt.Fprintf(&b, "\t%s)\n\t\t%sreturn\n\t\t;;\n", strings.Join(list, " | "), do)
		}
	}
	branch(files, "compopt -o filenames\n\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n\t\t")
	branch(dirs, "compopt -o filenames\n\t\tmapfile -t COMPREPLY < <(compgen -d -- \"$cur\")\n\t\t")
	for _, f := range chosen {
		branch([]string{"-" + f.name}, fmt.Sprintf("mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n\t\t", strings.Join(f.values(), " ")))
	}
	branch(others, "")
	fmt.Fprintf(&b, "\tesac\n\tif [[ $cur == -* ]]; then\n\t\tmapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n", strings.Join(words, " "))
	if len(p.commands) > 0 {
		var names []string
		for _, c := range p.commands {
			names = append(names, c.name)
		}
		// The second word is an argument of the command.
		fmt.Fprintf(&b, "\telse\n\t\tlocal word commands='%s'\n\t\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n\t\t\t[[ \" $commands \" != *\" $word \"* ]] || return\n\t\tdone\n"+
			"\t\tmapfile -t COMPREPLY < <(compgen -W \"$commands\" -- \"$cur\")\n", strings.Join(names, " "))
	} else if p.file {
		b.WriteString("\telse\n\t\tcompopt -o filenames\n\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n")
	}
	fmt.Fprintf(&b, "\tfi\n}\ncomplete -o default -F %s %s\n", fn, p.name)
	return b.String()
}

func (p program) zsh() string {
	quote := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`, ":", `\:`)
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n# Completion of %s for zsh.\n%s_arguments", p.name, p.name, made)
	for _, f := range p.flags {
		fmt.Fprintf(&b, " \\\n\t'*-%s[%s]", f.name, quote.Replace(f.help))
		switch {
		case f.arg == "":
		case f.kind() == "files":
			b.WriteString(":" + f.arg + ":_files")
		case f.kind() == "dirs":
			b.WriteString(":" + f.arg + ":_files -/")
		case f.values() != nil:
			b.WriteString(":" + f.arg + ":(" + strings.Join(f.values(), " ") + ")")
		default:
			b.WriteString(":" + quote.Replace(f.arg) + ": ")
		}
		b.WriteString("'")
	}
	if len(p.commands) > 0 {
		b.WriteString(" \\\n\t'1:command:((")
		for _, c := range p.commands {
			fmt.Fprintf(&b, "%s\\:\"%s\" ", c.name, quote.Replace(c.help))
		}
		b.WriteString("))'")
	} else if p.file {
		b.WriteString(" \\\n\t'1:FILE:_files'")
	}
	b.WriteString("\n")
	return b.String()
}

func (p program) fish() string {
	quote := strings.NewReplacer(`\`, `\\`, "'", `\'`)
	var b strings.Builder
	fmt.Fprintf(&b, "# Completion of %s for fish.\n%s", p.name, made)
	if !p.file {
		fmt.Fprintf(&b, "complete -c %s -f\n", p.name)
	}
	for _, f := range p.flags {
		arg := ""
		switch {
		case f.arg == "":
		case f.kind() == "files":
			arg = " -r -F"
		case f.kind() == "dirs":
			arg = " -x -a '(__fish_complete_directories)'"
		case f.values() != nil:
			arg = " -x -a '" + strings.Join(f.values(), " ") + "'"
		default:
			arg = " -x"
		}
		fmt.Fprintf(&b, "complete -c %s -o %s%s -d '%s'\n", p.name, f.name, arg, quote.Replace(f.help))
	}
	for _, c := range p.commands {
		fmt.Fprintf(&b, "complete -c %s -n __fish_use_subcommand -a %s -d '%s'\n", p.name, c.name, quote.Replace(c.help))
	}
	return b.String()
}
