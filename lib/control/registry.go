// Package control is the commands of a connector: their names, arguments and
// replies; a registry for the daemon and a caller for tools.
//
// The same commands are served on the commander socket of the original, with
// replies in the text forms of Python, and on the daemon's own socket as JSON.
// Known (table.go) describes all of them, and Verbs the words by which aioc-ctl
// asks for them. A daemon adds to its Registry what it can do:
//
//	registry.Add(control.Command{Name: "disconnect_client", Run: disconnect})
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What is wrong with a call, as far as callers tell it apart. Any other error is
// a failure of the command itself.
var (
	// ErrUnknown is wrapped when there is no such command.
	ErrUnknown = errors.New("unknown command")
	// ErrArgument is wrapped when an argument is missing, unknown or of the
	// wrong type.
	ErrArgument = errors.New("bad argument")
	// ErrRefused is wrapped when the caller may not give the command.
	ErrRefused = errors.New("permission denied")
	// ErrAway is wrapped when the peer is not connected, or the connector is
	// stopped.
	ErrAway = errors.New("not connected")
	// ErrBusy is wrapped when it may help to try again.
	ErrBusy = errors.New("try again")
)

// reasons are the words for these errors in a reply on the own socket.
func reasons() map[string]error {
	return map[string]error{"unknown": ErrUnknown, "argument": ErrArgument, "permission": ErrRefused, "away": ErrAway, "busy": ErrBusy}
}

// Reason is the word for an error that a command returned, "failed" for those
// that are not told apart.
func Reason(err error) string {
	for word, e := range reasons() {
		if errors.Is(err, e) {
			return word
		}
	}
	return "failed"
}

// Failure is the error that a reply with this reason and text stands for.
func Failure(reason, text string) error { return &failure{reasons()[reason], text} }

// failure is an error of a connector, in its words.
type failure struct {
	kind error // nil: not told apart
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

// Kind is the type of an argument.
type Kind string

// The types of arguments.
const (
	Bool   Kind = "true or false"
	String Kind = "a string"
	Number Kind = "a number"
	List   Kind = "a list of strings"
)

// Arg is an argument of a command.
type Arg struct {
	Name     string
	Kind     Kind
	Required bool
}

// Command is one command. Run gets checked arguments; its result is one of the
// types that Text can print, or what JSON makes an object of.
type Command struct {
	Name string
	Args []Arg // when nil, those of the command of that name in Known
	Run  func(ctx context.Context, args Args) (any, error)

	Help     string // one line
	Reply    string // what the result is, in words; "" for nothing
	Original bool   // the original has it too
	Anyone   bool   // those may call it who may only send messages
}

// Args are the arguments of a call.
type Args map[string]any

// Bool returns an argument, false when it was not given.
func (a Args) Bool(name string) bool { b, _ := a[name].(bool); return b }

// String returns an argument, "" when it was not given.
func (a Args) String(name string) string { s, _ := a[name].(string); return s }

// Number returns an argument, 0 when it was not given.
func (a Args) Number(name string) float64 { n, _ := a[name].(float64); return n }

// List returns an argument, nil when it was not given.
func (a Args) List(name string) []string { l, _ := a[name].([]string); return l }

// Registry holds the commands of a connector. It is filled before it is used,
// and then used by any goroutine.
type Registry struct {
	commands map[string]Command
}

// Add adds commands. What a command does not say of itself, Known says.
func (r *Registry) Add(commands ...Command) {
	if r.commands == nil {
		r.commands = map[string]Command{}
	}
	known := Known()
	for _, c := range commands {
		if i := slices.IndexFunc(known, func(k Command) bool { return k.Name == c.Name }); i >= 0 {
			k := known[i]
			if c.Args == nil {
				c.Args = k.Args
			}
			if c.Help == "" {
				c.Help, c.Reply = k.Help, k.Reply
			}
			c.Original, c.Anyone = k.Original, c.Anyone || k.Anyone
		}
		r.commands[c.Name] = c
	}
}

// Names returns the names of all commands, sorted.
func (r *Registry) Names() []string {
	var names []string
	for name := range r.commands {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Command returns the command of that name. A name may end in "__sync", which
// the original's tool appends.
func (r *Registry) Command(name string) (Command, bool) {
	c, ok := r.commands[strings.TrimSuffix(name, "__sync")]
	return c, ok
}

// Call runs the command of that name with kwargs, a JSON object or nothing.
func (r *Registry) Call(ctx context.Context, name string, kwargs json.RawMessage) (any, error) {
	c, ok := r.Command(name)
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknown, short(name))
	}
	if len(kwargs) > maxCommand {
		return nil, fmt.Errorf("%w: %s: arguments of %d bytes, at most %d", ErrArgument, c.Name, len(kwargs), maxCommand)
	}
	given := map[string]any{}
	if len(kwargs) > 0 && string(kwargs) != "null" {
		if err := json.Unmarshal(kwargs, &given); err != nil {
			return nil, fmt.Errorf("%w: %s: the arguments are not a JSON object", ErrArgument, c.Name)
		}
	}
	args := Args{}
	for _, a := range c.Args {
		v, ok := given[a.Name]
		delete(given, a.Name)
		if !ok || v == nil {
			if a.Required {
				return nil, fmt.Errorf("%w: %s needs %s", ErrArgument, c.Name, a.Name)
			}
			continue
		}
		if v, ok = a.Kind.check(v); !ok {
			return nil, fmt.Errorf("%w: %s: %s must be %s", ErrArgument, c.Name, a.Name, a.Kind)
		}
		args[a.Name] = v
	}
	for name := range given {
		return nil, fmt.Errorf("%w: %s has no argument %q", ErrArgument, c.Name, short(name))
	}
	return c.Run(ctx, args)
}

// short cuts a name that somebody made up to what an error has room for.
func short(name string) string {
	const most = 200
	if len(name) <= most {
		return name
	}
	return strings.ToValidUTF8(name[:most], "") + "..."
}

// check returns a JSON value as the type that Args has for the kind.
func (k Kind) check(v any) (any, bool) {
	ok := false
	switch v := v.(type) {
	case bool:
		ok = k == Bool
	case string:
		ok = k == String
	case float64:
		ok = k == Number
	case []any:
		list := make([]string, len(v))
		ok = k == List
		for i, e := range v {
			s, isString := e.(string)
			list[i], ok = s, ok && isString
		}
		return list, ok
	}
	return v, ok
}
