package placement

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"voltar/internal/browse"
	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/internal/verify"
	"voltar/retention"
)

// damagedSite is a site whose destination "far" has a backup that something was found wrong with, and "near" the sound one.
type damagedSite struct {
	*site
	backup catalog.Backup
	sound  map[string]string // the files of it
	mu     sync.Mutex        // destinations are repaired at the same time
	known  map[string]string // what was found wrong, by place
}

func newDamagedSite(t *testing.T, edit func(*catalog.Manifest)) *damagedSite {
	t.Helper()
	s := &damagedSite{site: newSite(t, "near", "far"), known: map[string]string{}}
	for i := range s.destinations {
		s.destinations[i].Policy = retention.Policy{Days: 30}
	}
	s.backup = s.make(t, "near", "v1", 1, edit)
	s.make(t, "far", "v1", 1, edit)
	s.sound = s.tree(t, "near", s.backup.Path())
	return s
}

// spoil changes a file of the backup on a destination; nil removes it.
func (s *damagedSite) spoil(t *testing.T, on, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(s.dir, on, s.backup.Path(), name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if data = change(data); data == nil {
		err = os.Remove(path)
	} else {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.known[catalog.Place(s.on("far").Store, s.backup.Path())] = "rotten"
}

func flipped(data []byte) []byte {
	data[len(data)/2] ^= 1
	return data
}

// repair is what a run does after its volumes, with what is known of damage.
func (s *damagedSite) repair(t *testing.T) night {
	t.Helper()
	return s.catchUpNow(t, nil)
}

// knowing has runs of the site know what was found wrong, and remember it.
func (s *damagedSite) knowing(run *Run) {
	run.Damage = maps.Clone(s.known)
	run.MarkDamaged = func(place, what string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.known[place] = what
		return nil
	}
	run.FoundSound = func(place string, replaced bool) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if replaced {
			delete(s.known, place)
		}
		return nil
	}
}

// Whatever became of a file, the sound one takes its place, and the backup counts as good again.
func TestRepair(t *testing.T) {
	const archive, sums = "v1.tar.gz", "v1.checksum"
	for _, c := range []struct {
		name   string
		change map[string]func([]byte) []byte
		want   string // the files that are told
	}{
		{"a flipped bit", map[string]func([]byte) []byte{archive: flipped}, archive},
		{"a file that is cut", map[string]func([]byte) []byte{archive: func(b []byte) []byte { return b[:100] }}, archive},
		{"a file that is gone", map[string]func([]byte) []byte{archive: func([]byte) []byte { return nil }}, archive},
		{"the list of sums", map[string]func([]byte) []byte{sums: flipped}, sums},
		{"all of it", map[string]func([]byte) []byte{archive: flipped, sums: flipped}, archive + ", " + sums},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newDamagedSite(t, nil)
			s.prepare = s.knowing
			for name, change := range c.change {
				s.spoil(t, "far", name, change)
			}
			r := s.repair(t)
			if got, want := r.caughtUp("far"), "v1@2026-11-21 from near"; got != want || len(r.problems) > 0 || len(r.caught) != 1 {
				t.Fatalf("%s, %+v", got, r.problems)
			}
			if files := strings.Join(r.destinations[1].CaughtUp[0].Repaired, ", "); files != c.want {
				t.Errorf("repaired %s, want %s", files, c.want)
			}
			s.isSound(t)
			if e := r.targets[1].stock.Entries(nil); len(e) != 1 || !e[0].IsGood() || len(s.known) > 0 {
				t.Errorf("%+v, known: %v", e, s.known)
			}
			if r := s.repair(t); len(r.destinations[1].CaughtUp) > 0 {
				t.Errorf("again: %+v", r.destinations[1].CaughtUp)
			}
		})
	}
}

// isSound wants the files of both destinations to be those that were stored first.
func (s *damagedSite) isSound(t *testing.T) {
	t.Helper()
	for _, on := range []string{"near", "far"} {
		got := s.tree(t, on, s.backup.Path())
		for name, text := range s.sound {
			if got[name] != text && name != catalog.ManifestName && !strings.HasSuffix(name, ".checksum") {
				t.Errorf("%s on %s is not what was stored", name, on)
			}
		}
		if len(got) != len(s.sound) {
			t.Errorf("%s has %q", on, slices.Sorted(maps.Keys(got)))
		}
		listing, err := catalog.List(t.Context(), s.on(on).Store, hostName, catalog.Filter{})
		if err != nil || len(listing.Backups) != 1 {
			t.Fatalf("%s: %+v, %v", on, listing, err)
		}
		b, err := listing.Backups[0].Load(t.Context(), s.on(on).Store)
		if err != nil {
			t.Fatal(err)
		}
		r := repairing{own: b, target: &Target{Destination: *s.on(on)}, progress: func(int64) {}}
		if broken, err := r.broken(t.Context()); err != nil || len(broken) > 0 {
			t.Errorf("%s: %+v, %v", on, broken, err)
		}
	}
}

// Where the other copy is rotten, too, nothing of either is touched, and both are known from then on.
func TestRepairFromWhatIsRottenItself(t *testing.T) {
	s := newDamagedSite(t, nil)
	s.prepare = s.knowing
	s.spoil(t, "far", "v1.tar.gz", flipped)
	s.spoil(t, "near", "v1.tar.gz", func(b []byte) []byte { return b[:7] })
	near, far := s.tree(t, "near", s.backup.Path()), s.tree(t, "far", s.backup.Path())
	r := s.repair(t)
	if len(r.caught) > 0 || len(r.problems) != 1 || !strings.Contains(r.problems[0].Message, "v1.tar.gz from near") {
		t.Errorf("%+v, %+v", r.caught, r.problems)
	}
	if !maps.Equal(near, s.tree(t, "near", s.backup.Path())) || !maps.Equal(far, s.tree(t, "far", s.backup.Path())) {
		t.Error("something was changed")
	}
	if len(s.known) != 2 {
		t.Errorf("known: %v", s.known)
	}
	if r := s.repair(t); len(r.problems) > 0 || len(r.caught) > 0 {
		t.Errorf("the night after: %+v", r.problems)
	}
}

// What one sound file repairs does not make the backup good while another is lost; a third destination that has that makes it so.
func TestRepairInPart(t *testing.T) {
	s := newDamagedSite(t, nil)
	s.prepare = s.knowing
	s.spoil(t, "far", "v1.tar.gz", flipped)
	s.spoil(t, "far", "v1.checksum", flipped)
	s.spoil(t, "near", "v1.tar.gz", flipped)
	lost := s.tree(t, "far", s.backup.Path())["v1.tar.gz"]
	r := s.repair(t)
	far := r.destinations[1].CaughtUp
	if len(r.caught) > 0 || len(r.problems) != 1 || len(far) != 1 || !slices.Equal(far[0].Repaired, []string{"v1.checksum"}) {
		t.Errorf("%+v, %+v, %+v", r.caught, r.problems, far)
	}
	if e := r.targets[1].stock.Entries(nil); len(e) != 1 || e[0].IsGood() || len(s.known) != 2 || s.tree(t, "far", s.backup.Path())["v1.tar.gz"] != lost {
		t.Errorf("%+v, known: %v", e, s.known)
	}
	third := newSite(t, "third")
	third.make(t, "third", "v1", 1, nil)
	s.destinations = append(s.destinations, third.destinations[0])
	if r := s.repair(t); len(r.caught) != 2 || len(r.problems) > 0 || len(s.known) > 0 {
		t.Errorf("%+v, %+v, known: %v", r.caught, r.problems, s.known)
	}
	s.isSound(t)
}

// A note on a backup whose files are all right, as of a restore that differed, has nothing replaced and stays.
func TestNothingToRepair(t *testing.T) {
	s := newDamagedSite(t, nil)
	s.prepare = s.knowing
	s.spoil(t, "far", "v1.tar.gz", func(b []byte) []byte { return b })
	far := s.tree(t, "far", s.backup.Path())
	if r := s.repair(t); len(r.caught) > 0 || len(r.problems) > 0 || len(s.known) != 1 || !maps.Equal(far, s.tree(t, "far", s.backup.Path())) {
		t.Errorf("%+v, %+v, %v", r.caught, r.problems, s.known)
	}
}

// What was found on one destination alone is repaired by `voltar copy`, too; its dry run says what it would do.
func TestCopyRepairs(t *testing.T) {
	s := newDamagedSite(t, nil)
	s.prepare = s.knowing
	s.spoil(t, "far", "v1.tar.gz", flipped)
	lines, err := s.Copy(t.Context(), request{From: "near", To: "far", DryRun: true})
	if err != nil || states(lines) != "v1@2026-11-21 damaged" {
		t.Errorf("%+v, %v", lines, err)
	}
	lines, err = s.Copy(t.Context(), request{From: "near", To: "far"})
	if err != nil || states(lines) != "v1@2026-11-21 repaired" || lines[0].Reason != "v1.tar.gz" {
		t.Errorf("%+v, %v", lines, err)
	}
	s.isSound(t)
	s.spoil(t, "far", "v1.tar.gz", flipped)
	lines, err = s.Copy(t.Context(), request{From: "far", To: "near"})
	if err != nil || states(lines) != "v1@2026-11-21 there" {
		t.Errorf("from the damaged one: %+v, %v", lines, err)
	}
}

// What is encrypted is repaired from the open, and from what is encrypted for the same; nothing comes into the open.
func TestRepairOfWhatIsEncrypted(t *testing.T) {
	s := newSite(t, "near", "vault", "same")
	recipients, identities := browsetest.NewKey(t)
	s.on("vault").Recipients, s.on("same").Recipients = recipients, recipients
	for i := range s.destinations {
		s.destinations[i].Policy = retention.Policy{Days: 30}
	}
	browsetest.Make(t, s.on("near").Store, browsetest.Spec{Time: firstNight, Edit: func(m *catalog.Manifest) {
		m.Warnings = []string{"home/secret-plans.doc is odd"}
	}})
	for _, to := range []string{"vault", "same"} { // each encrypted by itself
		if _, err := s.Copy(t.Context(), request{From: "near", To: to}); err != nil {
			t.Fatal(err)
		}
	}
	path := ""
	for name := range s.tree(t, "vault") {
		if strings.HasSuffix(name, "/"+catalog.ManifestName) {
			path = filepath.Dir(name)
		}
	}
	place := catalog.Place(s.on("vault").Store, path)
	for _, without := range []string{"same", "near"} { // the other one repairs
		for name := range s.tree(t, "vault", path) {
			if name == catalog.ManifestName || name == catalog.SignatureName {
				continue
			}
			data, err := os.ReadFile(filepath.Join(s.dir, "vault", path, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.dir, "vault", path, name), flipped(data), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		known := map[string]string{place: "rotten", catalog.Place(s.on(without).Store, path): "rotten, too"}
		s.prepare = func(run *Run) {
			run.Damage = known
			run.FoundSound = func(place string, _ bool) error { delete(known, place); return nil }
		}
		for i := range s.destinations {
			s.destinations[i].CatchUp = s.destinations[i].Name == "vault"
		}
		r := s.catchUpNow(t, nil)
		if len(r.problems) > 0 || len(r.caught) != 1 || known[place] != "" {
			t.Fatalf("without %s: %+v, %+v", without, r.caught, r.problems)
		}
		listing, err := catalog.List(t.Context(), s.on("vault").Store, hostName, catalog.Filter{})
		if err != nil || len(listing.Backups) != 1 {
			t.Fatalf("%+v, %v", listing, err)
		}
		b, err := listing.Backups[0].Load(t.Context(), s.on("vault").Store)
		if err != nil {
			t.Fatal(err)
		}
		result, err := verify.Backup(t.Context(), s.on("vault").Store, b, verify.Options{Level: verify.Full, Decrypt: browse.Decrypt(identities, false)})
		if err != nil || !result.Good() || len(result.Notes) > 0 {
			t.Errorf("without %s: %+v, %v", without, result, err)
		}
	}
	for name, text := range s.tree(t, "vault") {
		if strings.Contains(text, "secret-plans") {
			t.Errorf("%s is readable by everyone", name)
		}
	}
	s.journals(t, 0)
}

// errCut is the end of a machine.
var errCut = errors.New("the power is cut")

// dying is a store whose machine loses its power at the n-th time that a file is begun, written or committed.
type dying struct {
	store.Store
	left int
}

func (d *dying) Unwrap() store.Store { return d.Store }

func (d *dying) step() error {
	if d.left--; d.left < 0 {
		return errCut
	}
	return nil
}

func (d *dying) Create(ctx context.Context, key string, opts store.PutOptions) (store.Writer, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	w, err := d.Store.Create(ctx, key, opts)
	return &dyingWriter{w, d}, err
}

type dyingWriter struct {
	store.Writer
	of *dying
}

func (w *dyingWriter) Write(p []byte) (int, error) {
	if err := w.of.step(); err != nil {
		n, _ := w.Writer.Write(p[:len(p)/2])
		return n, err
	}
	return w.Writer.Write(p)
}

func (w *dyingWriter) Commit(ctx context.Context) (store.Object, error) {
	if err := w.of.step(); err != nil {
		return store.Object{}, err
	}
	return w.Writer.Commit(ctx)
}

// A power cut at any moment leaves each file as it was or as it is to be, and the next night repairs the rest.
func TestRepairThatIsCutOff(t *testing.T) {
	const both = 2
	cuts := 0
	for at := 0; ; at++ {
		s := newDamagedSite(t, nil)
		s.prepare = s.knowing
		s.spoil(t, "far", "v1.tar.gz", flipped)
		s.spoil(t, "far", "v1.checksum", flipped)
		before := s.tree(t, "far", s.backup.Path())
		far := s.on("far").Store
		s.destinations[1].Store = &dying{far, at}
		s.prepare = func(run *Run) {
			s.knowing(run)
			run.FoundSound = nil // the note is for what comes after the cut
		}
		run, end := s.begin()
		targets := Targets{}
		for _, d := range s.destinations {
			target, err := Look(t.Context(), run, d)
			if err != nil {
				t.Fatal(err)
			}
			targets = append(targets, target)
		}
		e := targets[1].damaged(nil)
		if len(e) != 1 {
			t.Fatalf("%+v", e)
		}
		_, err := targets[1].repair(t.Context(), targets, e[0], func(int64) {})
		end()
		s.destinations[1].Store = far
		if err == nil {
			break
		}
		cuts++
		if !errors.Is(err, errCut) {
			t.Fatalf("at %d: %v", at, err)
		}
		for name, text := range s.tree(t, "far", s.backup.Path()) {
			if text != before[name] && text != s.sound[name] && name != catalog.ManifestName && name != "v1.checksum" &&
				!strings.Contains(name, "voltar-tmp") {
				t.Errorf("at %d: %s is neither what it was nor what it is to be", at, name)
			}
		}
		s.prepare = s.knowing
		if r := s.repair(t); len(r.problems) > 0 {
			t.Errorf("the night after a cut at %d: %+v", at, r.problems)
		}
		s.isSound(t)
	}
	if cuts < 3*both {
		t.Errorf("%d cuts", cuts)
	}
}
