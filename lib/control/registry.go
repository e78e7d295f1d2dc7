// Package control is the commands of a connector: their names, arguments and
// replies; a registry for the daemon and a caller for tools.
//
// The same commands are served on the commander socket of the original, with
// replies in the text forms of Python, and on the daemon's own socket as JSON.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var (
	// ErrUnknown is wrapped when there is no such command.
	ErrUnknown = errors.New("unknown command")
	// ErrArgument is wrapped when an argument is missing, unknown or of the
	// wrong type.
	ErrArgument = errors.New("bad argument")
)

// Kind is the type of an argument.
type Kind string

// The types of arguments.
const (
	Bool   Kind = "true or false"
	String Kind = "a string"
	Number Kind = "a number"
)

// Arg is an argument of a command.
type Arg struct {
	Name     string
	Kind     Kind
	Required bool
}

// Command is one command. Run gets checked arguments; its result is one of the
// types that Text can print.
type Command struct {
	Name string
	Args []Arg
	Run  func(ctx context.Context, args Args) (any, error)
}

// Args are the arguments of a call.
type Args map[string]any

// Bool returns an argument, false when it was not given.
func (a Args) Bool(name string) bool { b, _ := a[name].(bool); return b }

// String returns an argument, "" when it was not given.
func (a Args) String(name string) string { s, _ := a[name].(string); return s }

// Number returns an argument, 0 when it was not given.
func (a Args) Number(name string) float64 { n, _ := a[name].(float64); return n }

// Registry holds the commands of a connector. It is filled before it is used,
// and then used by any goroutine.
type Registry struct {
	commands map[string]Command
}

// Add adds commands.
func (r *Registry) Add(commands ...Command) {
	if r.commands == nil {
		r.commands = map[string]Command{}
	}
	for _, c := range commands {
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

// Call runs the command of that name with kwargs, a JSON object or nothing. A
// name may end in "__sync", which the original's tool appends.
func (r *Registry) Call(ctx context.Context, name string, kwargs json.RawMessage) (any, error) {
	c, ok := r.commands[strings.TrimSuffix(name, "__sync")]
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknown, name)
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
		switch v.(type) {
		case bool:
			ok = a.Kind == Bool
		case string:
			ok = a.Kind == String
		case float64:
			ok = a.Kind == Number
		default:
			ok = false
		}
		if !ok {
			return nil, fmt.Errorf("%w: %s: %s must be %s", ErrArgument, c.Name, a.Name, a.Kind)
		}
		args[a.Name] = v
	}
	for name := range given {
		return nil, fmt.Errorf("%w: %s has no argument %q", ErrArgument, c.Name, name)
	}
	return c.Run(ctx, args)
}
