package spool

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// memFS is a file system in memory that remembers every change, so that it can
// say what a disk might hold after a crash at any moment: a change of a file is
// sure to be there only after a sync of the file, a name only after a sync of
// the directory.
type memFS struct {
	mu    sync.Mutex
	base  map[string][]byte // what is durable from the start
	names map[string]*memFile
	files []*memFile
	ops   []op
	open  int
	fault func(o op) error // makes the next change fail; a write keeps half of its bytes
	read  func(name string, off int64, n int) error
}

type memFile struct {
	id   int
	data []byte
}

// op is one change.
type op struct {
	kind string // create, write, truncate, sync, syncfail, rename, remove, syncdir
	file int
	name string
	to   string
	off  int64 // or the size
	data []byte
}

func newMemFS(base map[string][]byte) *memFS {
	m := &memFS{base: base, names: map[string]*memFile{}}
	for _, name := range slices.Sorted(maps.Keys(base)) {
		m.names[name] = m.add(slices.Clone(base[name]))
	}
	return m
}

func (m *memFS) add(data []byte) *memFile {
	f := &memFile{id: len(m.files), data: data}
	m.files = append(m.files, f)
	return f
}

// change records a change, or fails it.
func (m *memFS) change(o op) error {
	if m.fault != nil {
		if err := m.fault(o); err != nil {
			if o.kind == "sync" {
				o.kind = "syncfail"
				m.ops = append(m.ops, o)
			}
			return &fs.PathError{Op: o.kind, Path: o.name, Err: err}
		}
	}
	m.ops = append(m.ops, o)
	return nil
}

func (m *memFS) MkdirAll(string) error { return nil }

func (m *memFS) Names(dir string) (names []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.names {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	m.open++
	return &memHandle{m: m, f: f, name: name}, nil
}

func (m *memFS) OpenWrite(name string) (File, error) { return m.Open(name) }

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if err := m.change(op{kind: "create", name: name, file: len(m.files)}); err != nil {
		return nil, err
	}
	f := m.add(nil)
	m.names[name] = f
	m.open++
	return &memHandle{m: m, f: f, name: name}, nil
}

func (m *memFS) Rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[old] == nil {
		return fs.ErrNotExist
	}
	if err := m.change(op{kind: "rename", name: old, to: new}); err != nil {
		return err
	}
	m.names[new] = m.names[old]
	delete(m.names, old)
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	if err := m.change(op{kind: "remove", name: name}); err != nil {
		return err
	}
	delete(m.names, name)
	return nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.change(op{kind: "syncdir", name: dir})
}

// memHandle is an open file.
type memHandle struct {
	m      *memFS
	f      *memFile
	name   string
	closed bool
}

func (h *memHandle) ReadAt(b []byte, off int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return 0, fs.ErrClosed
	}
	if h.m.read != nil {
		if err := h.m.read(h.name, off, len(b)); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(b []byte, off int64) (int, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return 0, fs.ErrClosed
	}
	o := op{kind: "write", file: h.f.id, name: h.name, off: off, data: slices.Clone(b)}
	err := h.m.change(o)
	if err != nil {
		o.data = o.data[:len(o.data)/2]
		h.m.ops = append(h.m.ops, o)
	}
	h.f.data = o.apply(h.f.data, nil)
	return len(o.data), err
}

func (h *memHandle) Truncate(size int64) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	o := op{kind: "truncate", file: h.f.id, name: h.name, off: size}
	if err := h.m.change(o); err != nil {
		return err
	}
	h.f.data = o.apply(h.f.data, nil)
	return nil
}

func (h *memHandle) Size() (int64, error) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	return int64(len(h.f.data)), nil
}

func (h *memHandle) Sync() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return fs.ErrClosed
	}
	return h.m.change(op{kind: "sync", file: h.f.id, name: h.name})
}

func (h *memHandle) Close() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if !h.closed {
		h.closed = true
		h.m.open--
	}
	return nil
}

// blockSize divides the sizes of all blocks that a disk writes as a whole.
const blockSize = 512

// apply makes a change of a file's content, of a write only those blocks for
// which keep, which may be nil, says so of an offset in them.
func (o op) apply(data []byte, keep func(at int64) bool) []byte {
	if o.kind == "truncate" {
		if o.off <= int64(len(data)) {
			return data[:o.off]
		}
		return append(data, make([]byte, o.off-int64(len(data)))...)
	}
	for done := int64(0); done < int64(len(o.data)); {
		at, part := o.off+done, o.data[done:]
		if keep != nil {
			part = part[:min(int64(len(part)), blockSize-at%blockSize)]
		}
		done += int64(len(part))
		if keep != nil && !keep(at) {
			continue
		}
		if n := at + int64(len(part)) - int64(len(data)); n > 0 {
			data = append(data, make([]byte, n)...)
		}
		copy(data[at:], part)
	}
	return data
}

// A crash says what of the changes that are not synced is on the disk.
type crash struct {
	name  string
	block int64   // what is written as a whole
	data  float64 // chance of a block
	names float64 // chance of a name's change
	torn  bool    // all of it, but the last write only up to a block
}

var crashes = []crash{
	{"killed", 1, 1, 1, false},
	{"all lost", 1, 0, 0, false},
	{"names lost", 1, 1, 0, false},
	{"data lost", 1, 0, 1, false},
	{"torn at 512", 512, 1, 1, true},
	{"torn at 4096", 4096, 1, 1, true},
	{"reordered by 512", 512, 0.5, 0.5, false},
	{"reordered by 512, little there", 512, 0.2, 0.9, false},
	{"reordered by 512, much there", 512, 0.9, 0.9, false},
	{"reordered by 4096", 4096, 0.5, 0.5, false},
	{"reordered by 4096, much there", 4096, 0.9, 1, false},
}

// crash returns what the disk may hold after the first n changes.
func (m *memFS) crash(n int, c crash, rng *rand.Rand) map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	type change struct {
		op
		sure, never bool // a failed sync says nothing, and neither does one after it
	}
	files := map[int][]*change{}
	var names []*change
	for _, o := range m.ops[:n] {
		switch o.kind {
		case "write", "truncate":
			files[o.file] = append(files[o.file], &change{op: o})
		case "sync":
			for _, w := range files[o.file] {
				w.sure = !w.never
			}
		case "syncfail":
			for _, w := range files[o.file] {
				w.never = !w.sure
			}
		case "create", "rename", "remove":
			names = append(names, &change{op: o})
		case "syncdir":
			for _, w := range names {
				w.sure = true
			}
		}
	}
	dir := map[string]int{}
	content := map[int][]byte{}
	for i, name := range slices.Sorted(maps.Keys(m.base)) {
		dir[name] = i
		content[i] = slices.Clone(m.base[name])
	}
	for _, o := range names {
		if !o.sure && c.names < 1 && rng.Float64() >= c.names {
			continue
		}
		switch o.kind {
		case "create":
			dir[o.name] = o.file
		case "rename":
			if file, ok := dir[o.name]; ok {
				dir[o.to] = file
				delete(dir, o.name)
			}
		case "remove":
			delete(dir, o.name)
		}
	}
	image := map[string][]byte{}
	for name, file := range dir {
		data := content[file]
		for _, w := range files[file] {
			var keep func(int64) bool
			switch {
			case w.sure:
			case c.torn:
				if last := m.ops[n-1]; w.kind == "write" && len(w.data) > 0 && &w.data[0] == &last.data[0] {
					blocks := (int64(len(w.data))+w.off%c.block)/c.block + 1
					end := (w.off/c.block + rng.Int64N(blocks)) * c.block
					keep = func(at int64) bool { return at < end }
				}
			case w.kind == "truncate":
				if c.data < 1 && rng.Float64() >= c.data {
					continue
				}
			default:
				kept := map[int64]bool{}
				keep = func(at int64) bool {
					b := at / c.block
					if _, ok := kept[b]; !ok {
						kept[b] = c.data == 1 || rng.Float64() < c.data
					}
					return kept[b]
				}
				if c.data == 1 {
					keep = nil
				}
			}
			data = w.apply(data, keep)
		}
		image[name] = data
	}
	return image
}

// after returns the file system as it is after the first n changes for one who
// opens it then: nothing is lost, but what is not synced is so still.
func (m *memFS) after(n int) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := newMemFS(m.base)
	for _, o := range m.ops[:n] {
		switch o.kind {
		case "create":
			a.names[o.name] = a.add(nil)
		case "write", "truncate":
			a.files[o.file].data = o.apply(a.files[o.file].data, nil)
		case "rename":
			a.names[o.to] = a.names[o.name]
			delete(a.names, o.name)
		case "remove":
			delete(a.names, o.name)
		}
	}
	a.ops = slices.Clone(m.ops[:n])
	return a
}

// doubtful tells whether the last sync before change n failed: then the system
// shows what is not on the disk and no sync will write, even to the next process.
func (m *memFS) doubtful(n int) bool {
	for _, o := range slices.Backward(m.ops[:n]) {
		if o.kind == "sync" || o.kind == "syncfail" {
			return o.kind == "syncfail"
		}
	}
	return false
}

// applies tells whether the crash after n changes differs from others.
func (m *memFS) applies(n int, c crash) bool {
	return !c.torn || n > 0 && m.ops[n-1].kind == "write" && len(m.ops[n-1].data) > 0
}

func TestTheDiskOfTheTestsLosesWhatIsNotSynced(t *testing.T) {
	m := newMemFS(map[string][]byte{"d/a": []byte("old")})
	a, err := m.OpenWrite("d/a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Create("d/b")
	if err != nil {
		t.Fatal(err)
	}
	a.WriteAt([]byte("new"), 0)
	b.WriteAt([]byte("b"), 1)
	b.Sync()
	b.WriteAt([]byte("c"), 2)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, test := range []struct {
		c    crash
		n    int
		a, b string
	}{
		{crashes[0], 5, "new", "\x00bc"},
		{crashes[0], 3, "new", "\x00b"},
		{crashes[1], 5, "old", ""},
		{crashes[3], 5, "old", "\x00b"},
		{crashes[2], 5, "new", ""},
	} {
		image := m.crash(test.n, test.c, rng)
		if string(image["d/a"]) != test.a || string(image["d/b"]) != test.b {
			t.Errorf("%s after %d: got %q", test.c.name, test.n, image)
		}
	}
	if m.open != 2 {
		t.Errorf("got %d open files", m.open)
	}
}
