package catalog

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"voltar/internal/say"
	"voltar/internal/store"
)

const otherRun = "20261120T010001Z-ffffff"

// Of several runs that begin one backup at once, in many rounds, one has it; what the others do, their end included, takes
// nothing from it.
func TestOneOfSeveralWritersHasTheFolder(t *testing.T) {
	s := newStore(t)
	for round := range 20 {
		m := manifest(volume("v"), night.Add(time.Duration(round)*time.Second))
		var group sync.WaitGroup
		var mu sync.Mutex
		committed := 0
		for range 4 {
			group.Go(func() {
				d, err := Begin(t.Context(), s, testHost, m.ID(), testRun, nil)
				if errors.Is(err, ErrTaken) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				fill(t, d, m)
				if _, err := d.Commit(t.Context(), m); err != nil {
					t.Errorf("whoever has the folder cannot commit: %v", err)
				}
				if err := d.Abort(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				committed++
			})
		}
		group.Wait()
		b, err := readBackup(t.Context(), s, testHost, m.ID())
		if err == nil {
			var objects []store.Object
			objects, err = s.List(t.Context(), b.Path())
			err = errors.Join(err, b.checkHeld(objects))
		}
		if committed != 1 || err != nil {
			t.Errorf("round %d: %d were told that it stands, and it is %v", round, committed, err)
		}
	}
	if got := keys(t, s); len(got) != 2*20 {
		t.Errorf("left %q", got)
	}
}

// A draft whose folder another has taken meanwhile removes nothing of it, and does not commit there.
func TestWhatAnotherHasTakenIsLeftAlone(t *testing.T) {
	s := newStore(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	if _, err := removeAll(t.Context(), s, d.Path()); err != nil {
		t.Fatal(err)
	}
	other, err := Begin(t.Context(), s, testHost, m.ID(), otherRun, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, other, m)
	if err := d.Abort(t.Context()); !errors.Is(err, ErrTaken) {
		t.Errorf("Abort = %v", err)
	}
	if _, err := other.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Commit(t.Context(), m); err == nil {
		t.Error("the first has committed what the other wrote")
	}
	if err := errors.Join(d.Abort(t.Context()), other.Abort(t.Context())); err != nil {
		t.Error(err)
	}
	if got := keys(t, s); len(got) != 2 {
		t.Errorf("left %q", got)
	}
}

// Recovery from one run's journal does not touch what another run is writing under the same name.
func TestSweepLeavesWhatAnotherRunClaimed(t *testing.T) {
	s := newStore(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	if stands, freed, err := SweepUnfinished(t.Context(), s, d.Path(), otherRun); !stands || freed != 0 || err != nil || len(keys(t, s)) != 2 {
		t.Errorf("by another: %v, %d, %v, left %q", stands, freed, err, keys(t, s))
	}
	raw(t, s, d.Path()+"/"+ClaimName, "") // what a power cut may leave
	if stands, _, err := SweepUnfinished(t.Context(), s, d.Path(), otherRun); stands || err != nil || len(keys(t, s)) != 0 {
		t.Errorf("with a claim that names nobody: %v, %v, left %q", stands, err, keys(t, s))
	}
}

// A claim that Commit could not remove goes with Abort, or with the recovery of its run; the backup stands.
func TestClaimIsRemovedInTheEnd(t *testing.T) {
	for _, by := range []string{"Abort", "recovery"} {
		s := newStore(t)
		m := manifest(volume("v"), night)
		sick := &struct{ err error }{errBroken}
		broken := faulty{s, func(op, key string) error {
			if op == "delete" && path.Base(key) == ClaimName {
				return sick.err
			}
			return nil
		}}
		d := mustBegin(t, broken, m.ID())
		fill(t, d, m)
		if _, err := d.Commit(t.Context(), m); err != nil {
			t.Fatalf("the backup is there, and Commit says %v", err)
		}
		if err := d.Abort(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Abort = %v", err)
		}
		sick.err = nil
		if by == "Abort" {
			if err := d.Abort(t.Context()); err != nil {
				t.Error(err)
			}
		} else if stands, _, err := SweepUnfinished(t.Context(), s, d.Path(), testRun); !stands || err != nil {
			t.Errorf("recovery: %v, %v", stands, err)
		}
		if got := keys(t, s); len(got) != 2 || len(mustList(t, s, Filter{}).Backups) != 1 {
			t.Errorf("after %s there is %q", by, got)
		}
	}
}

// A store whose first answer is lost has the claim, and the manifest, all the same.
func TestClaimWhoseAnswerWasLost(t *testing.T) {
	m := manifest(volume("v"), night)
	s := lossy{newStore(t)}
	d, err := Begin(t.Context(), s, testHost, m.ID(), testRun, nil)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, m)
	if _, err := d.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := d.Abort(t.Context()); err != nil || len(keys(t, s)) != 2 {
		t.Errorf("%v, %q", err, keys(t, s))
	}
}

// lossy stores what may replace nothing and is told that it was there: its own.
type lossy struct{ store.Store }

type lossyWriter struct{ store.Writer }

func (s lossy) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	w, err := s.Store.Create(ctx, key, opts)
	if opts.IfAbsent {
		w = lossyWriter{w}
	}
	return w, err
}

func (w lossyWriter) Commit(ctx context.Context) (store.Object, error) {
	_, err := w.Writer.Commit(ctx)
	return store.Object{}, errors.Join(err, store.ErrExists)
}

// folding is what vfat and others are: names that are the same for same are one, shown as the first was, or as show makes it.
type folding struct {
	store.Store
	mu         *sync.Mutex
	first      map[string]string
	same, show func(string) string
}

// newFolding is vfat: names that differ in capitals or dots at the end are one, and it drops these dots.
func newFolding(t *testing.T) folding {
	return newFoldingBy(t, fold, func(name string) string { return strings.TrimRight(name, ".") })
}

func newFoldingBy(t *testing.T, same, show func(string) string) folding {
	return folding{newStore(t), &sync.Mutex{}, map[string]string{}, same, show}
}

func (f folding) shown(key string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range strings.SplitSeq(key, "/") {
		folded := path.Join(append(slices.Clone(names), f.same(name))...)
		if f.first[folded] == "" {
			f.first[folded] = f.show(name)
		}
		names = append(names, f.first[folded])
	}
	return path.Join(names...)
}

func (f folding) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	return f.Store.Create(ctx, f.shown(key), opts)
}

func (f folding) Open(ctx context.Context, key string) (store.Reader, error) {
	return f.Store.Open(ctx, f.shown(key))
}

func (f folding) Stat(ctx context.Context, key string) (store.Object, error) {
	return f.Store.Stat(ctx, f.shown(key))
}

func (f folding) Delete(ctx context.Context, key string) error {
	return f.Store.Delete(ctx, f.shown(key))
}

func (f folding) Folders(ctx context.Context, prefix string) ([]string, error) {
	return f.Store.Folders(ctx, f.shown(prefix))
}

func (f folding) List(ctx context.Context, prefix string) ([]store.Object, error) {
	shown := f.shown(prefix)
	objects, err := f.Store.List(ctx, shown)
	for i := range objects { // as a store does that joins names to the prefix
		objects[i].Key = prefix + strings.TrimPrefix(objects[i].Key, shown)
	}
	return objects, err
}

// On a destination that folds names the first volume is backed up, and one that would fall into its folder is refused with
// what to do, and leaves nothing.
func TestNamesThatFallTogetherAreRefused(t *testing.T) {
	for _, pair := range [][2]Ref{
		{VolumeRef("vg", "Data"), VolumeRef("vg", "data")}, {VolumeRef("vg", "vol"), VolumeRef("vg", "vol.")},
		{VolumeRef("VG", "a"), VolumeRef("vg", "b")},
	} {
		s := newFolding(t)
		first := manifest(volume("v"), night)
		first.Source.VG, first.Source.Name = pair[0].VG, pair[0].Name
		d, err := Begin(t.Context(), s, testHost, first.ID(), testRun, nil)
		if err != nil {
			t.Fatalf("%s: %v", pair[0], err)
		}
		fill(t, d, first)
		if _, err := d.Commit(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		before := keys(t, s)
		_, err = Begin(t.Context(), s, testHost, ID{pair[1], night.Add(time.Second)}, testRun, nil)
		if !errors.Is(err, ErrNames) || len(say.Hints(err)) != 1 || errors.Is(err, ErrLeft) {
			t.Errorf("%s beside %s: %v with hints %q", pair[1], pair[0], err, say.Hints(err))
		}
		if after := keys(t, s); !slices.Equal(before, after) {
			t.Errorf("%s beside %s: left %q", pair[1], pair[0], after)
		}
	}
	if err := Claim(t.Context(), newFolding(t), Host{Name: "host.", MachineID: "m"}, night); !errors.Is(err, ErrNames) {
		t.Errorf("a host whose name is kept as another: %v", err)
	}
}

// Whatever a destination makes of names, what it shows under another one is refused: where it tells no composed letters from
// decomposed ones (APFS), where it decomposes all (HFS+, ZFS), with spaces at the end (CIFS), with letters that only
// Unicode takes for the same, and where it cuts names.
func TestNamesThatOtherDestinationsChange(t *testing.T) {
	const composed, decomposed = "m\u00fcller", "mu\u0308ller"
	decompose := func(name string) string { return strings.ReplaceAll(name, "\u00fc", "u\u0308") }
	keep := func(name string) string { return name }
	cut := func(name string) string { return name[:min(len(name), 64)] }
	long := strings.Repeat("x", 50)
	for _, c := range []struct {
		name       string
		same, show func(string) string
		names      []string // of dumps; the last is refused
	}{
		{"insensitive to composition", decompose, keep, []string{composed, decomposed}},
		{"decomposing", decompose, decompose, []string{composed}},
		{"decomposing, with both", decompose, decompose, []string{decomposed, composed}},
		{"dropping spaces", strings.TrimSpace, strings.TrimSpace, []string{"data", "data "}},
		{"Unicode's capitals", strings.ToLower, keep, []string{"\u00c9t\u00e9", "\u00e9t\u00e9"}},
		{"capitals alone", strings.ToUpper, strings.ToUpper, []string{"data"}},
		{"cutting", cut, cut, []string{long, long + strings.Repeat("y", 20)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newFoldingBy(t, c.same, c.show)
			for i, name := range c.names {
				m := manifest(Source{Kind: SourceDump, Name: name}, night)
				before := keys(t, s)
				d, err := Begin(t.Context(), s, testHost, m.ID(), testRun, nil)
				if i == len(c.names)-1 {
					if err == nil || errors.Is(err, ErrLeft) {
						t.Errorf("%q: %v", name, err)
					}
					if after := keys(t, s); !slices.Equal(before, after) {
						t.Errorf("left %q", after)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				fill(t, d, m)
				if _, err := d.Commit(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Files whose names are changed though that of their folder is not make no backup, and none is left.
func TestFilesWhoseNamesAreCutAreNoBackup(t *testing.T) {
	cut := func(name string) string { return name[:min(len(name), 20)] }
	s := newFoldingBy(t, cut, cut)
	m := manifest(Source{Kind: SourceDump, Name: "seventeen-letters"}, night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	if _, err := d.Commit(t.Context(), m); err == nil {
		t.Error("it is a backup")
	}
	if err := d.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if left := keys(t, s); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// Two files of one backup that fall together make none.
func TestFilesThatFallTogetherAreNoBackup(t *testing.T) {
	s := newFolding(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	m.Files = nil
	for _, name := range []string{"Web.dump.gz", "web.dump.gz"} {
		m.Files = append(m.Files, File{Name: name, SizeBytes: 4, SHA1: strings.Repeat("0", 40), SHA256: strings.Repeat("0", 64)})
		w, err := d.Create(t.Context(), name, store.PutOptions{})
		if err == nil {
			_, err = w.Write([]byte("dump"))
		}
		if err == nil {
			_, err = w.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Commit(t.Context(), m); err == nil {
		t.Error("it is a backup")
	}
	if err := d.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if left := keys(t, s); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}
