package catalog

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/store"
)

func TestBackupAppearsWithItsManifest(t *testing.T) {
	s := newStore(t)
	m := manifest(volume("v"), night)
	d := mustBegin(t, s, m.ID())
	fill(t, d, m)
	if l := mustList(t, s, Filter{}); len(l.Backups) != 0 || len(l.Unfinished) != 1 || l.Unfinished[0].Path != d.Path() {
		t.Errorf("before Commit: %+v", l)
	}
	b, err := d.Commit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	l := mustList(t, s, Filter{})
	if len(l.Backups) != 1 || len(l.Unfinished) != 0 {
		t.Fatalf("after Commit: %+v", l)
	}
	got, err := l.Backups[0].Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID.Compare(m.ID()) != 0 || got.SizeBytes != b.SizeBytes || got.Path() != d.Path() ||
		!reflect.DeepEqual(got.Manifest, m) {
		t.Errorf("listed %+v, committed %+v", got, b)
	}
	info, err := os.Stat(filepath.Join(s.String(), d.Path(), ManifestName))
	if err != nil || got.SizeBytes != 4+info.Size() {
		t.Errorf("%d bytes, want 4 and the manifest's %d", got.SizeBytes, info.Size())
	}
	r, err := got.OpenFile(context.Background(), s, "v.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(r); err != nil || len(data) != 4 {
		t.Errorf("%q, %v", data, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := got.OpenFile(context.Background(), s, "../v.tar.gz"); err == nil {
		t.Error("a file that the manifest does not list was opened")
	}
	raw(t, s, d.Path()+"/v.tar.gz", "longer than it was")
	if _, err := got.OpenFile(context.Background(), s, "v.tar.gz"); !errors.Is(err, ErrDamaged) {
		t.Errorf("a file of another size: %v", err)
	}
}

func TestCommitComparesTheStore(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, s store.Store, d *Draft, m *Manifest){
		"file is missing": func(t *testing.T, s store.Store, d *Draft, m *Manifest) {
			if err := s.Delete(context.Background(), d.Path()+"/"+m.Files[0].Name); err != nil {
				t.Fatal(err)
			}
		},
		"file is short": func(t *testing.T, s store.Store, d *Draft, m *Manifest) {
			raw(t, s, d.Path()+"/"+m.Files[0].Name, "x")
		},
		"file that nobody lists": func(t *testing.T, s store.Store, d *Draft, _ *Manifest) {
			raw(t, s, d.Path()+"/more", "x")
		},
		"manifest of another": func(_ *testing.T, _ store.Store, _ *Draft, m *Manifest) { m.Source.Name = "w" },
		"manifest of no use":  func(_ *testing.T, _ store.Store, _ *Draft, m *Manifest) { m.Status = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			m := manifest(volume("v"), night)
			d := mustBegin(t, s, m.ID())
			fill(t, d, m)
			spoil(t, s, d, m)
			if _, err := d.Commit(context.Background(), m); err == nil {
				t.Error("it was committed")
			}
			if l := mustList(t, s, Filter{}); len(l.Backups) != 0 {
				t.Errorf("listed: %v", names(l.Backups))
			}
			if err := d.Abort(context.Background()); err != nil {
				t.Error(err)
			}
			left := keys(t, s)
			if name == "file that nobody lists" { // it is not this backup's, and stays
				left = slices.DeleteFunc(left, func(key string) bool { return key == d.Path()+"/more" })
			}
			if len(left) != 0 {
				t.Errorf("after Abort there is %q", left)
			}
		})
	}
}

func TestCommitThatTheStoreRefuses(t *testing.T) {
	s := newStore(t)
	broken := faulty{s, failing("create", ManifestName, errBroken)}
	m := manifest(volume("v"), night)
	d := mustBegin(t, broken, m.ID())
	fill(t, d, m)
	if _, err := d.Commit(context.Background(), m); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if l := mustList(t, s, Filter{}); len(l.Backups) != 0 {
		t.Errorf("listed: %v", names(l.Backups))
	}
}

func TestDraftRefusesNames(t *testing.T) {
	d := mustBegin(t, newStore(t), ID{VolumeRef("vg", "v"), night})
	for _, name := range []string{ManifestName, "../x", "a/b", ""} {
		if _, err := d.Create(context.Background(), name, store.PutOptions{}); err == nil {
			t.Errorf("%q was created", name)
		}
	}
}

func TestTimesThatAreTaken(t *testing.T) {
	one, two, down := newStore(t), newStore(t), faulty{newStore(t), failing("folders", "", errBroken)}
	source := volume("v")
	add(t, one, source, night)
	raw(t, two, ID{source.Ref(), night.Add(time.Second)}.Path(testHost)+"/unfinished", "x")
	stores, at := []store.Store{one, down, two}, night.Add(300*time.Millisecond)
	got, failed := FreeTime(context.Background(), stores, testHost, source.Ref(), at)
	if !got.Equal(night.Add(2 * time.Second)) {
		t.Errorf("free time %v, want two seconds later", got)
	}
	if failed[0] != nil || !errors.Is(failed[1], errBroken) || failed[2] != nil {
		t.Errorf("failed %v", failed)
	}
	if _, err := Begin(context.Background(), one, testHost, ID{source.Ref(), night}, testRun, nil); !errors.Is(err, ErrTaken) {
		t.Errorf("Begin in a folder that is taken: %v", err)
	}
	for i := range 200 {
		raw(t, two, ID{source.Ref(), night.Add(time.Duration(i) * time.Second)}.Path(testHost)+"/of others", "x")
	}
	got, failed = FreeTime(context.Background(), stores, testHost, source.Ref(), at)
	if !got.Equal(night.Add(time.Second)) || failed[0] != nil || failed[2] == nil || !strings.Contains(failed[2].Error(), "each second") {
		t.Errorf("with a store whose seconds are all taken: %v, %v", got, failed)
	}
	now := time.Now()
	add(t, one, source, now.Truncate(time.Second))
	got, _ = FreeTime(context.Background(), []store.Store{one}, testHost, source.Ref(), now)
	if got.After(time.Now()) || !got.After(now) {
		t.Errorf("free time %v, asked at %v", got, now)
	}
}

func TestDelete(t *testing.T) {
	s := newStore(t)
	// Named so that the archive comes before the manifest in every listing.
	b, kept := add(t, s, volume("a"), night), add(t, s, volume("a"), night.Add(time.Second))
	var order []string
	watched := faulty{s, func(op, key string) error {
		if op == "delete" {
			order = append(order, path.Base(key))
		}
		return nil
	}}
	freed, err := Delete(context.Background(), watched, b.Path())
	if err != nil || freed != b.SizeBytes {
		t.Errorf("Delete = %d, %v, want %d", freed, err, b.SizeBytes)
	}
	if !slices.Equal(order, []string{ManifestName, "a.tar.gz"}) {
		t.Errorf("order %q: the manifest must go first", order)
	}
	if freed, err := Delete(context.Background(), s, b.Path()); freed != 0 || err != nil {
		t.Errorf("a second Delete = %d, %v", freed, err)
	}
	if got := names(mustList(t, s, Filter{}).Backups); !slices.Equal(got, []string{kept.ID.String()}) {
		t.Errorf("left %q", got)
	}
	for _, folder := range []string{"", testHost, testHost + "/nova-volumes", testHost + "/nova-volumes/a",
		kept.Path() + "/x", testHost + "/nova-volumes/../" + testHost} {
		if _, err := Delete(context.Background(), s, folder); err == nil {
			t.Errorf("%q was deleted", folder)
		}
		if _, _, err := SweepUnfinished(context.Background(), s, folder, testRun); err == nil {
			t.Errorf("%q was swept", folder)
		}
	}
}

func TestDeleteThatIsInterrupted(t *testing.T) {
	s := newStore(t)
	b := add(t, s, volume("a"), night)
	freed, err := Delete(context.Background(), faulty{s, failing("delete", ManifestName, errBroken)}, b.Path())
	if !errors.Is(err, errBroken) || freed != 0 || len(mustList(t, s, Filter{}).Backups) != 1 || len(keys(t, s)) != 2 {
		t.Errorf("a manifest that stays must keep all: %d, %v, %q", freed, err, keys(t, s))
	}
	_, err = Delete(context.Background(), faulty{s, failing("check", "tar.gz", store.ErrLocked)}, b.Path())
	if !errors.Is(err, store.ErrLocked) || len(keys(t, s)) != 2 {
		t.Errorf("one object that is locked must keep all: %v, %q", err, keys(t, s))
	}
	_, err = Delete(context.Background(), faulty{s, failing("delete", "tar.gz", errBroken)}, b.Path())
	if l := mustList(t, s, Filter{}); !errors.Is(err, errBroken) || len(l.Backups) != 0 || len(l.Unfinished) != 1 {
		t.Errorf("a deletion that got half-way: %v, %+v", err, l)
	}
	stands, freed, err := SweepUnfinished(context.Background(), s, b.Path(), testRun)
	if stands || freed != 4 || err != nil || len(keys(t, s)) != 0 {
		t.Errorf("sweep = %v, %d, %v, left %q", stands, freed, err, keys(t, s))
	}
}

func TestSweepUnfinished(t *testing.T) {
	s := newStore(t)
	standing := add(t, s, volume("v"), night)
	m := manifest(volume("v"), night.Add(time.Second))
	dead := mustBegin(t, s, m.ID())
	fill(t, dead, m)
	for _, draft := range []string{dead.Path(), standing.Path()} { // a writer that is heard of no more
		w, err := s.Create(context.Background(), draft+"/v.p2.tar.gz", store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	if stands, freed, err := SweepUnfinished(context.Background(), s, dead.Path(), testRun); stands || freed != 9 || err != nil {
		t.Errorf("sweep of what died = %v, %d, %v, want 9 bytes", stands, freed, err)
	}
	stands, freed, err := SweepUnfinished(context.Background(), s, standing.Path(), testRun)
	if !stands || freed != 5 || err != nil {
		t.Errorf("sweep of what stands = %v, %d, %v, want 5 bytes", stands, freed, err)
	}
	l := mustList(t, s, Filter{})
	if len(l.Backups) != 1 || len(l.Unfinished) != 0 || len(keys(t, s)) != 2 {
		t.Errorf("left %+v, %q", l, keys(t, s))
	}
}
