package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"aioc/lib/config"
)

// index is the content of source_id_2_cert.json: which client has the
// certificate with which serial number. It is not changed once it is shared.
type index struct {
	serials table // of the clients, by name
	names   table // of the clients, by serial number
}

// table is an object of strings that keeps its order, as Python does.
type table struct {
	keys   []string
	values map[string]string
}

func (t *table) set(key, value string) {
	if t.values == nil {
		t.values = map[string]string{}
	}
	if _, ok := t.values[key]; !ok {
		t.keys = append(t.keys, key)
	}
	t.values[key] = value
}

func (t *table) remove(key string) {
	delete(t.values, key)
	t.keys = slices.DeleteFunc(t.keys, func(k string) bool { return k == key })
}

func (t *table) clone() table {
	c := table{keys: slices.Clone(t.keys), values: make(map[string]string, len(t.values)+1)}
	for k, v := range t.values {
		c.values[k] = v
	}
	return c
}

// UnmarshalJSON reads one object; the last of equal keys counts, as in Python.
func (t *table) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.New("an object was expected")
	}
	*t = table{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var value string
		if err := d.Decode(&value); err != nil {
			return fmt.Errorf("%q: text was expected", key)
		}
		t.set(key.(string), value)
	}
	return nil
}

// appendJSON writes the object as Python's json.dump does.
func (t *table) appendJSON(to []byte) []byte {
	to = append(to, '{')
	for i, k := range t.keys {
		if i > 0 {
			to = append(to, ", "...)
		}
		to = append(append(appendString(to, k), ": "...), appendString(nil, t.values[k])...)
	}
	return append(to, '}')
}

func appendString(to []byte, s string) []byte {
	text, _ := json.Marshal(s) // text always can be
	return append(to, text...)
}

// parseIndex reads source_id_2_cert.json.
func parseIndex(text []byte) (*index, error) {
	var file struct {
		Serials *table `json:"source_id_2_cert"`
		Names   *table `json:"cert_2_source_id"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if file.Serials == nil || file.Names == nil {
		return nil, errors.New(`needs "source_id_2_cert" and "cert_2_source_id"`)
	}
	return &index{*file.Serials, *file.Names}, nil
}

// text returns the file as the original writes it.
func (x *index) text() []byte {
	to := x.serials.appendJSON([]byte(`{"source_id_2_cert": `))
	to = x.names.appendJSON(append(to, `, "cert_2_source_id": `...))
	return append(to, '}')
}

// with returns an index that has one client more.
func (x *index) with(name, serial string) *index {
	y := &index{x.serials.clone(), x.names.clone()}
	y.serials.set(name, serial)
	y.names.set(serial, name)
	return y
}

// without returns an index that does not have the client.
func (x *index) without(name string) *index {
	y := &index{x.serials.clone(), x.names.clone()}
	if serial, ok := y.serials.values[name]; ok {
		y.names.remove(serial)
	}
	y.serials.remove(name)
	return y
}

// owner returns the name of the client whose certificate has the serial number.
// Both halves must say so: the original identifies a connection by one of them
// and its messages by the other (aioconnectors connection.py). A name that no
// client may have, as a hand may have written it, is none.
func (x *index) owner(serial string) (name string, ok bool) {
	name, ok = x.names.values[serial]
	if !ok || x.serials.values[name] != serial || config.ValidName(name) != nil {
		return "", false
	}
	return name, true
}
