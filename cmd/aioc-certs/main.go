// Aioc-certs makes the certificates that a server and its clients prove
// themselves with, shows those that are there, and replaces and removes them. It
// works on files; only delete asks a server that runs.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/identity"
)

const (
	name     = "aioc-certs"
	synopsis = `create [-ca] [-v] [DIR]
list [-json] [DIR]
show [-json] NAME [DIR]
fingerprint [-json] [DIR]
check [-days N] [DIR]
pack server|client [DIR]
renew [-connector NAME] [-next] NAME|server|default [DIR]
delete [-connector NAME] NAME [DIR]
replace-server [-key FILE] PEM [DIR]
revert-server [DIR]`
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// program is one run of a command.
type program struct {
	stdout, stderr io.Writer
	set            *cli.Set

	dir       *string
	connector *string
	days      *int
	json      *bool
	verbose   *bool
	ca        *bool
	next      *bool
	key       *string
}

// command is one row of what the program can do.
type command struct {
	name     string
	flags    []string // that it takes, besides those of every command
	operands []string // that it needs, besides DIR, which may follow
	do       func(p *program, dir string, operands []string) int
}

func commands() []command {
	return []command{
		{"create", []string{"ca", "v"}, nil, (*program).create},
		{"list", []string{"json"}, nil, (*program).list},
		{"show", []string{"json"}, []string{"NAME"}, (*program).show},
		{"fingerprint", []string{"json"}, nil, (*program).fingerprint},
		{"check", []string{"days"}, nil, (*program).check},
		{"pack", nil, []string{"server or client"}, (*program).pack},
		{"renew", []string{"connector", "next"}, []string{"NAME, server or default"}, (*program).renew},
		{"delete", []string{"connector"}, []string{"NAME"}, (*program).delete},
		{"replace-server", []string{"key"}, []string{"PEM"}, (*program).replaceServer},
		{"revert-server", nil, nil, (*program).revertServer},
	}
}

func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	p := &program{stdout: stdout, stderr: stderr, set: cli.New(name, synopsis, stdout, stderr)}
	p.dir = p.set.Dir()
	p.days = p.set.Int("days", 30, 0, "N", "check: complain about certificates that end within N days")
	p.json = p.set.Bool("json", "list, show, fingerprint: print JSON")
	p.verbose = p.set.Bool("v", "create: name the files that were made")
	p.ca = p.set.Bool("ca", "create: make a CA as well, for server_ca")
	p.key = p.set.String("key", "", "FILE", "replace-server: the private key, if it is not beside PEM in .key")
	p.next = p.set.Bool("next", "renew server: make the next certificate, and do not use it yet")
	p.connector = p.set.Connector()

	// Flags may stand on both sides of the command's name.
	words, status, done := p.set.Parse(args)
	if done {
		return status
	}
	var names []string
	for _, c := range commands() {
		names = append(names, c.name)
	}
	if len(words) == 0 {
		return p.set.Mistake("a command is missing: %s", strings.Join(names, ", "))
	}
	i := slices.Index(names, words[0])
	if i < 0 {
		return p.set.Mistake("%q is not a command: use %s", words[0], strings.Join(names, ", "))
	}
	c := commands()[i]
	operands, status, done := p.set.Parse(words[1:])
	if done {
		return status
	}
	for _, f := range []string{"ca", "connector", "days", "json", "key", "next", "v"} {
		if p.set.Given(f) && !slices.Contains(c.flags, f) {
			return p.set.Mistake("-%s can't be used with %s", f, c.name)
		}
	}
	switch n := len(operands) - len(c.operands); {
	case n < 0:
		return p.set.Mistake("%s: %s is missing", c.name, c.operands[len(operands)])
	case n > 1:
		return p.set.Mistake("%s: too many arguments (flags come before them)", c.name)
	case n == 1:
		if p.set.Given("dir") {
			return p.set.Mistake("-dir can't be used with a DIR argument")
		}
		*p.dir = operands[len(operands)-1]
		if *p.dir == "" {
			return p.set.Mistake("%s: DIR is empty", c.name)
		}
	}
	if *p.dir == "" {
		*p.dir = config.Defaults().Dir()
	}
	return c.do(p, *p.dir, operands)
}

// fail reports err and returns the status that it deserves.
func (p *program) fail(err error) int {
	cli.Report(p.stderr, name, err)
	if status := statusOf(err); status != cli.OK {
		return status
	}
	switch {
	case errors.Is(err, identity.ErrBusy), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cli.Temporary
	case errors.Is(err, identity.ErrUnsafe), errors.Is(err, fs.ErrPermission):
		return cli.Refused
	case errors.Is(err, identity.ErrTemplate):
		return cli.BadConfig
	}
	return cli.Failed
}

func (p *program) create(dir string, _ []string) int {
	create := identity.Create
	if *p.ca {
		create = identity.CreateCA
	}
	if err := create(dir); err != nil {
		return p.fail(err)
	}
	if *p.verbose {
		err := filepath.WalkDir(config.CertificateTree(dir).Root, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() {
				fmt.Fprintln(p.stderr, cli.Escape(path))
			}
			return err
		})
		if err != nil {
			return p.fail(err)
		}
	}
	all, err := identity.List(dir)
	if err != nil {
		return p.fail(err)
	}
	for _, c := range distinct(all, "server") {
		fmt.Fprintf(p.stderr, "server certificate %s\n", c.Fingerprint)
	}
	return cli.OK
}

// distinct returns the certificates with this name, each once even if both
// sides of the tree have it.
func distinct(all []identity.Certificate, name string) []identity.Certificate {
	var found []identity.Certificate
	for _, c := range all {
		same := func(f identity.Certificate) bool { return f.Fingerprint == c.Fingerprint }
		if c.Name == name && !slices.ContainsFunc(found, same) {
			found = append(found, c)
		}
	}
	return found
}

func (p *program) list(dir string, _ []string) int {
	all, err := identity.List(dir)
	status := cli.OK
	if err != nil {
		status = p.fail(err)
		if len(all) == 0 {
			return status
		}
	}
	if *p.json {
		return p.print(status, func(w io.Writer) error { return printJSON(w, all) })
	}
	return p.print(status, func(w io.Writer) error {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "NAME\tSIDE\tEXPIRES\tFINGERPRINT")
		for _, c := range all {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", cli.Escape(c.Name), place(c), known(c.NotAfter, time.DateOnly), cmp.Or(c.Fingerprint, "-"))
		}
		return table.Flush()
	})
}

// place is the side of the tree, and which certificate of its file it is.
func place(c identity.Certificate) string {
	if c.Number == 0 {
		return c.Side
	}
	return fmt.Sprintf("%s #%d", c.Side, c.Number)
}

// role says what one of several certificates called server is for.
func role(c identity.Certificate) string {
	switch {
	case c.Side == "client":
		return "trusted by clients"
	case c.Number == 0:
		return "the server's"
	}
	return "shown with it"
}

func (p *program) show(dir string, operands []string) int {
	all, err := identity.List(dir)
	status := cli.OK
	if err != nil {
		status = p.fail(err)
	}
	found := slices.DeleteFunc(all, func(c identity.Certificate) bool { return c.Name != operands[0] })
	if len(found) == 0 {
		if err == nil {
			return p.fail(fmt.Errorf("no certificate of %q in %q: see %s list", operands[0], dir, name))
		}
		return status
	}
	if *p.json {
		return p.print(status, func(w io.Writer) error { return printJSON(w, found) })
	}
	return p.print(status, func(w io.Writer) error {
		for i, c := range found {
			if i > 0 {
				fmt.Fprintln(w)
			}
			table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			for _, row := range [][2]string{
				{"name", c.Name},
				{"side", place(c)},
				{"file", c.Path},
				{"subject", c.Subject},
				{"hash", c.Hash},
				{"serial", c.Serial},
				{"from", known(c.NotBefore, time.RFC3339)},
				{"until", known(c.NotAfter, time.RFC3339)},
				{"fingerprint", c.Fingerprint},
			} {
				fmt.Fprintf(table, "%s\t%s\n", row[0], cmp.Or(cli.Escape(row[1]), "-"))
			}
			if err := table.Flush(); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *program) fingerprint(dir string, _ []string) int {
	all, err := identity.List(dir)
	servers := distinct(all, "server")
	if len(servers) == 0 {
		if err == nil {
			err = fmt.Errorf("no certificate of the server in %q", dir)
		}
		return p.fail(err)
	}
	if *p.json {
		return p.print(cli.OK, func(w io.Writer) error { return printJSON(w, servers) })
	}
	return p.print(cli.OK, func(w io.Writer) error {
		for _, c := range servers {
			line := c.Fingerprint
			if len(servers) > 1 {
				line += "  " + role(c)
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *program) check(dir string, _ []string) int {
	all, err := identity.List(dir)
	status := cli.OK
	if err != nil {
		status = p.fail(err)
	}
	var text strings.Builder
	now := time.Now()
	for _, c := range all {
		if words := warning(c, now, *p.days); words != "" {
			path := cli.Escape(c.Path)
			if filepath.Ext(c.Path) != ".pem" { // a list of many
				path += ": " + cli.Escape(c.Name)
			}
			fmt.Fprintf(&text, "%s: %s\n", path, words)
		}
	}
	if text.Len() > 0 {
		status = max(status, cli.Failed)
	}
	return p.print(status, func(w io.Writer) error {
		_, err := io.WriteString(w, text.String())
		return err
	})
}

// known formats a time, if it is known.
func known(t time.Time, layout string) string {
	if t.IsZero() {
		return "-"
	}
	return t.Format(layout)
}

// warning says what is wrong with the dates of c, or will be within days.
func warning(c identity.Certificate, now time.Time, days int) string {
	day := c.NotAfter.Format(time.DateOnly)
	left := c.NotAfter.Sub(now)
	whole := int(left / (24 * time.Hour))
	switch {
	case c.NotAfter.IsZero():
		return "" // nobody here knows
	case now.Before(c.NotBefore):
		return "is not valid before " + c.NotBefore.Format(time.RFC3339)
	case left < 0:
		return "expired on " + day
	case whole >= days:
		return ""
	case whole == 0:
		return "expires on " + day + ", in less than a day"
	case whole == 1:
		return "expires on " + day + ", in 1 day"
	}
	return fmt.Sprintf("expires on %s, in %d days", day, whole)
}

// print writes to stdout what write makes and returns the status, which is
// another if stdout takes no more.
func (p *program) print(status int, write func(io.Writer) error) int {
	if err := write(p.stdout); err != nil {
		return p.fail(fmt.Errorf("write: %w", err))
	}
	return status
}

// printJSON prints certificates as an array, one JSON text.
func printJSON(w io.Writer, all []identity.Certificate) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(all)
}
