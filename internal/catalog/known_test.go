package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"voltar/internal/store"
)

// readCounter is a store whose manifests are counted as they are read.
type readCounter struct {
	faulty
	mu    sync.Mutex
	reads []string // keys
}

func newReadCounter(s store.Store) *readCounter {
	c := &readCounter{}
	c.faulty = faulty{s, func(op, key string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if op == "open" {
			c.reads = append(c.reads, key)
		}
		return nil
	}}
	return c
}

func (c *readCounter) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	reads := c.reads
	c.reads = nil
	return reads
}

func knownIn(t *testing.T, dir string) (k *Known, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	return NewKnown(filepath.Join(dir, "manifests"), slog.New(slog.NewTextHandler(log, nil))), log
}

// listWith lists, and returns what is there but for whether it was known.
func listWith(t *testing.T, s store.Store, k *Known, filter Filter) *Listing {
	t.Helper()
	filter.Known = k
	l := mustList(t, s, filter)
	for i := range l.Backups {
		l.Backups[i].known = false
	}
	return l
}

// site holds what a store may hold: good, damaged, encrypted, unfinished and unreadable backups.
func knownSite(t *testing.T) store.Store {
	t.Helper()
	s := newStore(t)
	for n := range 3 {
		add(t, s, volume("v"), night.Add(time.Duration(n)*time.Hour))
	}
	damaged := manifest(volume("w"), night)
	damaged.Status = StatusDamaged
	damaged.Extents[0].Entries = 17
	sealed := manifest(volume("x"), night).Encrypted("age-encryption.org/v1", []string{"age1one", "age1two"})
	sealed.Files[0].Name += AgeSuffix
	for _, m := range []*Manifest{damaged, sealed} {
		d := mustBegin(t, s, m.ID())
		fill(t, d, m)
		if _, err := d.Commit(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	raw(t, s, ID{VolumeRef("nova-volumes", "v"), night}.Path(testHost)+"/"+ClaimName, "held by object lock")
	raw(t, s, ID{VolumeRef("nova-volumes", "v"), night.Add(10 * time.Hour)}.Path(testHost)+"/v.tar.gz", "x")
	raw(t, s, ID{VolumeRef("nova-volumes", "v"), night.Add(11 * time.Hour)}.Path(testHost)+"/"+ManifestName, "{}")
	return s
}

// A manifest is read once; what is listed is the same whether it was read or known. What could not be used is read again.
func TestKnownManifestsAreReadOnce(t *testing.T) {
	s := newReadCounter(knownSite(t))
	k, log := knownIn(t, t.TempDir())
	for i, filter := range []Filter{{}, {Newest: 1, Good: true}, {Newest: 2}, {Compare: CompareAll}} {
		want := listWith(t, s, nil, filter)
		s.taken()
		for round, reads := range []int{len(want.Backups) + 1, 1, 1} {
			if got := listWith(t, s, k, filter); !reflect.DeepEqual(got, want) {
				t.Errorf("%+v, round %d: %+v, want %+v", filter, round, got, want)
			}
			if i > 0 {
				reads = 1 // the others are known from the first filter
			}
			if got := s.taken(); len(got) != reads {
				t.Errorf("%+v, round %d: read %q", filter, round, got)
			}
		}
	}
	if log.Len() > 0 {
		t.Errorf("it logs %s", log)
	}
}

// What becomes of a manifest on a disk, none of which leaves the old one known.
func TestAnotherManifestIsReadAgain(t *testing.T) {
	key := ID{VolumeRef("nova-volumes", "v"), night}.Path(testHost) + "/" + ManifestName
	file := func(s store.Store) string { return filepath.Join(s.String(), key) }
	keepTimes := func(t *testing.T, name string, change func([]byte) []byte, replace bool) {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		to := name
		if replace {
			to = name + ".new"
		}
		if err := os.WriteFile(to, change(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(to, info.ModTime(), info.ModTime()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to, name); err != nil {
			t.Fatal(err)
		}
		for changedAt(t, name) == info.Sys().(*syscall.Stat_t).Ctim { // all was within one tick of the filesystem's clock
			check(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
		}
	}
	changed := func(text []byte) []byte {
		return bytes.Replace(text, []byte(testRun), []byte("20991231T010001Z-ffffff"), 1)
	}
	for name, change := range map[string]func(t *testing.T, s store.Store){
		"written in its place, with its time":     func(t *testing.T, s store.Store) { keepTimes(t, file(s), changed, false) },
		"restored as another file, with its time": func(t *testing.T, s store.Store) { keepTimes(t, file(s), changed, true) },
		"replaced by the store":                   func(t *testing.T, s store.Store) { raw(t, s, key, string(changed([]byte(readFile(t, file(s)))))) },
		"longer by a byte, which nobody would see": func(t *testing.T, s store.Store) {
			keepTimes(t, file(s), func(b []byte) []byte { return append(changed(b), '\n') }, false)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			add(t, s, volume("v"), night)
			k, _ := knownIn(t, t.TempDir())
			listWith(t, s, k, Filter{})
			change(t, s)
			if l := listWith(t, s, k, Filter{}); len(l.Backups) != 1 || l.Backups[0].Run == testRun {
				t.Errorf("%+v", l)
			}
		})
	}
}

// changedAt is the time of the last change of any kind.
func changedAt(t *testing.T, name string) syscall.Timespec {
	t.Helper()
	var stat syscall.Stat_t
	check(t, syscall.Stat(name, &stat))
	return stat.Ctim
}

// A young manifest has no mark: what is written in its place within a tick of the clock is read all the same.
func TestYoungManifestsAreReadAgain(t *testing.T) {
	s := newReadCounter(openStoreWhen(t, t.TempDir(), func() time.Time { return time.Unix(0, 0) }))
	add(t, s, volume("v"), night)
	k, log := knownIn(t, t.TempDir())
	for round := range 2 {
		s.taken()
		listWith(t, s, k, Filter{})
		if got := s.taken(); len(got) != 1 {
			t.Errorf("round %d: read %q", round, got)
		}
	}
	if log.Len() > 0 {
		t.Errorf("it logs %s", log)
	}
}

// A backup whose folder cannot be looked into is one that cannot be read. The others are listed, and what is known stays known.
func TestAFolderThatCannotBeLookedIntoIsOneUnreadable(t *testing.T) {
	s := newStore(t)
	for n := range 3 {
		add(t, s, volume("v"), night.Add(time.Duration(n)*time.Hour))
	}
	broken := FormatTime(night.Add(time.Hour))
	k, _ := knownIn(t, t.TempDir())
	for _, known := range []*Known{nil, k} {
		listWith(t, s, known, Filter{})
		blind := blindTo{faulty{s, func(op, key string) error {
			if (op == "open" || op == "list") && strings.Contains(key, broken) {
				return errBroken
			}
			return nil
		}}, broken}
		l := listWith(t, blind, known, Filter{})
		if len(l.Backups) != 2 || len(l.Unreadable) != 1 || !errors.Is(l.Unreadable[0].Err, errBroken) || len(l.Unfinished) > 0 {
			t.Errorf("%+v", l)
		}
	}
	counted := newReadCounter(s)
	if listWith(t, counted, k, Filter{}); len(counted.taken()) > 0 {
		t.Error("what was known is read again")
	}
}

// blindTo is a store that cannot look into a folder.
type blindTo struct {
	faulty
	folder string
}

func (b blindTo) Look(ctx context.Context, prefix string, names ...string) ([]store.Folder, error) {
	folders, err := b.faulty.Look(ctx, prefix, names...)
	for i := range folders {
		if folders[i].Name == b.folder {
			folders[i] = store.Folder{Name: b.folder, Err: errBroken}
		}
	}
	return folders, err
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A store of the same name that holds something else, as another disk at the same path, is known by nothing of the first.
func TestAnotherStoreOfTheNameIsAnother(t *testing.T) {
	s := newStore(t)
	add(t, s, volume("v"), night)
	k, _ := knownIn(t, t.TempDir())
	listWith(t, s, k, Filter{})
	name := s.String()
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	other := openStoreAt(t, name)
	m := manifest(volume("v"), night)
	m.Run = "another disk's"
	d := mustBegin(t, other, m.ID())
	fill(t, d, m)
	if _, err := d.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if l := listWith(t, other, k, Filter{}); len(l.Backups) != 1 || l.Backups[0].Run != m.Run {
		t.Errorf("%+v", l)
	}
}

// trusting is a store whose manifests count by whom it trusts.
type trusting struct {
	store.Store
	trust string
}

func (s trusting) Trust() string { return s.trust }

// What was read while somebody was trusted is read again when somebody else is, and is known again afterwards.
func TestKnownOfWhomIsTrusted(t *testing.T) {
	s := newReadCounter(newStore(t))
	add(t, s, volume("v"), night)
	k, _ := knownIn(t, t.TempDir())
	for i, test := range []struct {
		trust string
		reads int
	}{{"", 1}, {"one", 1}, {"two", 1}, {"one", 0}, {"", 0}} {
		s.taken()
		listWith(t, trusting{s, test.trust}, k, Filter{})
		if got := s.taken(); len(got) != test.reads {
			t.Errorf("%d, trusting %q: read %q", i, test.trust, got)
		}
	}
}

// Whatever becomes of the folder, listings are as if there were none, and it is of use again as soon as that can be.
func TestKnownFolderInAnyState(t *testing.T) {
	one := func(t *testing.T, dir string) string {
		files, err := filepath.Glob(filepath.Join(dir, "manifests", "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%q, %v", files, err)
		}
		return files[0]
	}
	rewrite := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			name := one(t, dir)
			if err := os.WriteFile(name, change([]byte(readFile(t, name))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		harm  func(t *testing.T, dir string)
		lost  bool // it cannot be written anew either
		quiet bool
	}{
		"torn":      {harm: rewrite(func(b []byte) []byte { return b[:len(b)/2] })},
		"torn line": {harm: rewrite(func(b []byte) []byte { return b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1] })},
		"empty":     {harm: rewrite(func([]byte) []byte { return nil })},
		"one bit":   {harm: rewrite(func(b []byte) []byte { return bytes.Replace(b, []byte(`"complete"`), []byte(`"complexe"`), 1) })},
		"removed":   {harm: func(t *testing.T, dir string) { t.Helper(); check(t, os.RemoveAll(filepath.Join(dir, "manifests"))) }, quiet: true},
		"of another store": {harm: func(t *testing.T, dir string) {
			name := one(t, dir)
			other := newStore(t)
			add(t, other, volume("v"), night)
			k, _ := knownIn(t, dir)
			listWith(t, other, k, Filter{})
			files, err := filepath.Glob(filepath.Join(dir, "manifests", "*"))
			check(t, err)
			files = slices.DeleteFunc(files, func(f string) bool { return f == name })
			check(t, os.Rename(files[0], name))
		}},
		"a pipe": {harm: func(t *testing.T, dir string) {
			name := one(t, dir)
			check(t, os.Remove(name))
			check(t, syscall.Mkfifo(name, 0o600))
		}},
		"a folder": {harm: func(t *testing.T, dir string) {
			name := one(t, dir)
			check(t, os.Remove(name))
			check(t, os.MkdirAll(name+"/x", 0o700))
		}, lost: true},
		"no folder can be made": {harm: func(t *testing.T, dir string) {
			check(t, os.RemoveAll(filepath.Join(dir, "manifests")))
			check(t, os.WriteFile(filepath.Join(dir, "manifests"), nil, 0o600))
		}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newReadCounter(newStore(t))
			add(t, s, volume("v"), night)
			dir := t.TempDir()
			k, log := knownIn(t, dir)
			want := listWith(t, s, k, Filter{})
			test.harm(t, dir)
			log.Reset()
			for round, reads := range []int{1, 0} {
				s.taken()
				if got := listWith(t, s, k, Filter{}); !reflect.DeepEqual(got, want) {
					t.Errorf("%+v, want %+v", got, want)
				}
				if got := s.taken(); len(got) != reads && !test.lost {
					t.Errorf("round %d: read %q", round, got)
				}
			}
			if (log.Len() == 0) != test.quiet {
				t.Errorf("it logs %q", log)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Listings of parts, of all, and of the newest, several at once, each by what the others write meanwhile, are right.
func TestKnownByManyAtOnce(t *testing.T) {
	s := newStore(t)
	for n := range 4 {
		for _, name := range []string{"v", "w", "x"} {
			add(t, s, volume(name), night.Add(time.Duration(n)*time.Hour))
		}
	}
	dir := t.TempDir()
	only := func(ref Ref) bool { return ref.Name == "w" }
	var group sync.WaitGroup
	for i := range 24 {
		filter := []Filter{{}, {Match: only}, {Newest: 1, Good: true}}[i%3]
		group.Go(func() {
			filter.Now = night.AddDate(0, 1, 0)
			want, err := List(context.Background(), s, testHost, filter)
			if err != nil {
				t.Error(err)
				return
			}
			filter.Known = NewKnown(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
			got, err := List(context.Background(), s, testHost, filter)
			if err != nil || !slices.Equal(names(got.Backups), names(want.Backups)) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	group.Wait()
	counted := newReadCounter(s)
	for range 2 {
		counted.taken()
		k, log := knownIn(t, dir)
		k.dir = dir
		if listWith(t, counted, k, Filter{}); log.Len() > 0 {
			t.Errorf("it logs %s", log)
		}
	}
	if got := counted.taken(); len(got) > 0 {
		t.Errorf("read again: %q", got)
	}
}

// What is gone is forgotten when its source was looked at, and nothing else is.
func TestWhatIsGoneIsForgotten(t *testing.T) {
	s := newStore(t)
	var made []Backup
	for _, name := range []string{"v", "v", "w", "x"} {
		made = append(made, add(t, s, volume(name), night.Add(time.Duration(len(made))*time.Hour)))
	}
	dir := t.TempDir()
	k, _ := knownIn(t, dir)
	held := func() (list []string) {
		r := k.load(s, testHost)
		for folder := range r.entries {
			list = append(list, path.Dir(folder)[len("nova-volumes/"):])
		}
		slices.Sort(list)
		return list
	}
	for _, test := range []struct {
		gone   int
		filter Filter
		want   string
	}{
		{-1, Filter{}, "v v w x"},
		{0, Filter{Match: func(ref Ref) bool { return ref.Name == "w" }}, "v v w x"},
		{-1, Filter{Newest: 1, Match: func(ref Ref) bool { return ref.Name == "v" }}, "v w x"},
		{3, Filter{Newest: 1}, "v w"},
		{2, Filter{}, "v"},
	} {
		if test.gone >= 0 {
			if _, err := Delete(t.Context(), s, made[test.gone].Path()); err != nil {
				t.Fatal(err)
			}
		}
		listWith(t, s, k, test.filter)
		if got := strings.Join(held(), " "); got != test.want {
			t.Errorf("%d gone, %+v: %q, want %q", test.gone, test.filter, got, test.want)
		}
	}
}

// The folder does not grow for ever: the files that were not used for longest go, and what dead writers left.
func TestKnownFilesAreBounded(t *testing.T) {
	s := newStore(t)
	add(t, s, volume("v"), night)
	dir := t.TempDir()
	next := func() *Known { // of another command
		k, _ := knownIn(t, dir)
		k.limits = limits{20, 1 << 20}
		return k
	}
	k := next()
	listWith(t, s, k, Filter{})
	for i := range 25 {
		name := filepath.Join(k.dir, fmt.Sprintf("%04d.known", i))
		check(t, os.WriteFile(name, nil, 0o600))
		at := time.Now().Add(time.Duration(i-100) * time.Minute)
		check(t, os.Chtimes(name, at, at))
	}
	left := filepath.Join(k.dir, ".x.known.voltar-tmp-1")
	check(t, os.WriteFile(left, nil, 0o600))
	check(t, os.Chtimes(left, time.Unix(1, 0), time.Unix(1, 0)))
	add(t, s, volume("v"), night.Add(time.Hour))
	listWith(t, s, next(), Filter{})
	entries, err := os.ReadDir(k.dir)
	check(t, err)
	if len(entries) != 18 || entries[0].Name() != "0008.known" {
		t.Errorf("%d files, the first %s", len(entries), entries[0].Name())
	}
	check(t, os.Truncate(filepath.Join(k.dir, "0024.known"), 1<<20))
	add(t, s, volume("v"), night.Add(2*time.Hour))
	listWith(t, s, next(), Filter{})
	entries, err = os.ReadDir(k.dir)
	check(t, err)
	if len(entries) != 1 || entries[0].Name() != filepath.Base(k.load(s, testHost).path()) {
		t.Errorf("too many bytes: %d files, the first %s", len(entries), entries[0].Name())
	}
}

// One command that learns of many hosts keeps the bounds, too, but for a tenth, and seldom looks at all files.
func TestKnownFilesOfOneCommandAreBounded(t *testing.T) {
	for name, allowed := range map[string]limits{"files": {20, 1 << 20}, "bytes": {1000, 20 << 10}} {
		k := &bounded{dir: t.TempDir(), limits: allowed}
		most, looks := 0, 0
		for i := range 200 {
			file := filepath.Join(k.dir, fmt.Sprintf("%04d.known", i))
			check(t, os.WriteFile(file, make([]byte, 1<<10), 0o600))
			check(t, os.Chtimes(file, time.Unix(int64(i), 0), time.Unix(int64(i), 0)))
			check(t, k.wrote(1<<10))
			if k.since.files == 0 {
				looks++
			}
			files, err := os.ReadDir(k.dir)
			check(t, err)
			most = max(most, len(files))
			if files[len(files)-1].Name() != filepath.Base(file) {
				t.Fatalf("%s: what was just written is gone", name)
			}
		}
		if most > 22 || looks > 70 {
			t.Errorf("%s: %d files of 20, looked at %d times", name, most, looks)
		}
	}
}

// Nothing older goes on account of a manifest that was good when it was read, and is no more.
func TestAKnownManifestIsReadBeforeAnythingGoes(t *testing.T) {
	s := newStore(t)
	var made []Backup
	for n := range 3 {
		made = append(made, add(t, s, volume("v"), night.Add(time.Duration(n)*time.Hour)))
	}
	k, _ := knownIn(t, t.TempDir())
	filter := Filter{Now: night.AddDate(0, 1, 0), Known: k}
	for range 2 {
		if _, err := ReadStock(t.Context(), s, testHost, filter); err != nil {
			t.Fatal(err)
		}
	}
	for rotten, want := range map[string]int{"nothing": 0, FormatTime(made[2].ID.Time): 1, FormatTime(made[1].ID.Time): 0} {
		x, err := ReadStock(t.Context(), s, testHost, filter)
		if err != nil {
			t.Fatal(err)
		}
		rot := faulty{s, failing("open", rotten, ErrDamaged)}
		lacking, err := x.MarkLacking(t.Context(), rot, made[0].Identity())
		if err != nil || len(lacking) != want {
			t.Errorf("%s is rotten: %+v, %v", rotten, lacking, err)
		}
	}
	x, err := ReadStock(t.Context(), s, testHost, filter)
	if err != nil {
		t.Fatal(err)
	}
	broken := faulty{s, failing("open", ManifestName, errBroken)}
	if _, err := x.MarkLacking(t.Context(), broken, made[0].Identity()); !errors.Is(err, errBroken) {
		t.Errorf("a store that does not say: %v", err)
	}
}
