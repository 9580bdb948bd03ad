package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/internal/placement/placementtest"
	"voltar/internal/quiesce"
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/report"
	"voltar/retention"
)

// Nothing that is on the host or in the configuration is forgotten, whether a run takes it or has one of its own.
func TestPresentIsWhatIsThereAndConfigured(t *testing.T) {
	named := func(name string) []Dump { return []Dump{{Dump: quiesce.Dump{Name: name}}} }
	s := newSite(t, "disk")
	s.opts.Sources = Sources{Dumps: named("dump"), Streams: named("stream"), Directories: []Directory{{Name: "tree", Path: "/tree"}}}
	p := s.opts.present(lvm.Inventory{
		VGs:     []lvm.VG{{Name: "vg", UUID: "whole"}, {Name: "half", UUID: "half", Partial: true}},
		Volumes: []lvm.Volume{{VG: "vg", VGUUID: "whole", Name: "v", UUID: "v-uuid"}},
	})
	for _, source := range []catalog.Source{
		{Kind: catalog.SourceDump, Name: "dump"}, {Kind: catalog.SourceStream, Name: "stream"}, {Kind: catalog.SourceDirectory, Name: "tree"},
	} {
		if !p.Configured[source.Identity()] {
			t.Errorf("%s is configured", source.Ref())
		}
	}
	if len(p.Configured) != 3 || p.Volumes[catalog.VolumeIdentity("whole", "v-uuid")] != "vg/v" || !p.Groups["whole"] || p.Groups["half"] {
		t.Errorf("%+v", p)
	}
	for _, c := range []struct {
		name  string
		inv   lvm.Inventory
		whole bool
	}{
		{"nothing is missing", lvm.Inventory{VGs: []lvm.VG{{UUID: "g"}}}, true},
		{"a line that lvm2 prints every night", lvm.Inventory{VGs: []lvm.VG{{UUID: "g"}}, Warnings: "WARNING: Failed to connect to lvmpolld."}, true},
		{"another group lacks a disk", lvm.Inventory{VGs: []lvm.VG{{UUID: "g"}, {UUID: "other", MissingPVs: 1, Partial: true}}}, true},
		{"a disk is missing", lvm.Inventory{VGs: []lvm.VG{{UUID: "g", MissingPVs: 1}}}, false},
		{"lvm2 could not read everything", lvm.Inventory{VGs: []lvm.VG{{UUID: "g"}}, Incomplete: true}, false},
	} {
		if got := s.opts.present(c.inv).Groups["g"]; got != c.whole {
			t.Errorf("%s: whole %v, want %v", c.name, got, c.whole)
		}
	}
}

// Only voltar's mark has a volume continue the history of another: never its name, never two at once, never one that is here.
func TestRestoredAs(t *testing.T) {
	v := func(uuid string, tags ...string) lvm.Volume {
		return lvm.Volume{VG: "vg", VGUUID: "vg", Name: "v", UUID: uuid, Tags: tags}
	}
	got := restoredAs(lvm.Inventory{Volumes: []lvm.Volume{
		v("tenant"), v("restored", "web", "voltar.was=vg/gone", "voltar.was=vg/older"), v("copy-1", "voltar.was=vg/copied"),
		v("copy-2", "voltar.was=vg/copied"), v("other", "voltar.was=vg/tenant"),
	}})
	want := map[catalog.Identity]catalog.Identity{"vg/gone": "vg/restored", "vg/older": "vg/restored"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A night reads each manifest that is there once, however many sources it backs up, and lists the backups of a source only
// where one of them is to go.
func TestNightReadsEachManifestOnce(t *testing.T) {
	const sources, kept = 6, 5
	for _, c := range []struct {
		policy retention.Policy
		lists  int // of all backups of a source
	}{{retention.Policy{KeepLast: kept + 1}, 0}, {retention.Policy{KeepLast: kept}, sources}} {
		s := newSite(t, "disk")
		s.Pool = archive.NewPool(1)
		defer s.Pool.Close()
		s.on("disk").Policy = c.policy
		for n := range sources {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprint("tree", n)
			s.opts.Sources.Directories = append(s.opts.Sources.Directories, Directory{Name: name, Path: dir, Level: archive.LevelFast})
			for night := range kept {
				placementtest.Make(t, s.on("disk").Store, name, -night, func(m *catalog.Manifest) {
					m.Source = catalog.Source{Kind: catalog.SourceDirectory, Name: name, Path: dir}
				})
			}
		}
		counted := &readCounter{Store: s.on("disk").Store}
		s.on("disk").Store = counted
		result, err := s.Run(t.Context(), []string{"@directory/*"})
		if err != nil || len(result.Volumes) != sources {
			t.Fatalf("%+v, %v", result, err)
		}
		for _, v := range result.Volumes {
			if v.Status != report.VolumeOK || v.Copies[0].Kept != c.policy.KeepLast {
				t.Errorf("%s: %s, %+v %+v", v.Name, v.Status, v.Error, v.Copies)
			}
		}
		if counted.manifests != sources*kept || counted.lists != c.lists {
			t.Errorf("%s: %d manifests read of %d, %d sources listed, want %d",
				c.policy, counted.manifests, sources*kept, counted.lists, c.lists)
		}
	}
}

// Backups of a group that are named are looked after with one reading of the stock, and of each manifest, and in one listing a source.
func TestForgetReadsOnce(t *testing.T) {
	const sources = 4
	s := newSite(t, "disk")
	q := ForgetRequest{DryRun: true}
	for n := range sources {
		for night := range 2 {
			b := placementtest.Make(t, s.on("disk").Store, fmt.Sprint("v", n), night, func(m *catalog.Manifest) {
				m.Run, m.Quiesce = fmt.Sprint("run", night), &catalog.Quiesce{Group: "all"}
			})
			if night == 0 {
				q.Backups = append(q.Backups, b.ID.String())
			}
		}
	}
	counted := &readCounter{Store: s.on("disk").Store}
	s.on("disk").Store = counted
	lines, err := s.ForgetBackups(t.Context(), q)
	if err != nil || len(lines) != sources || lines[0].Keep {
		t.Errorf("%+v, %v", lines, err)
	}
	// The sources are read, then all of the host, and then what each of the night was made with.
	if counted.manifests != 2*sources+2*sources+sources || counted.lists != sources {
		t.Errorf("%d manifests, %d listings", counted.manifests, counted.lists)
	}
	q.Backups = q.Backups[1:]
	lines, err = s.ForgetBackups(t.Context(), q)
	if err == nil || len(lines) != sources-1 || !lines[0].Keep || lines[0].Reason != "it was made at one moment with vg/v0@2026-11-20T010001Z, which stays" {
		t.Errorf("a part: %+v, %v", lines, err)
	}
}

// readCounter counts the manifests that are read, and the listings of all backups of a source.
type readCounter struct {
	store.Store
	mu               sync.Mutex
	manifests, lists int
}

func (c *readCounter) Open(ctx context.Context, key string) (store.Reader, error) {
	if path.Base(key) == catalog.ManifestName {
		c.mu.Lock()
		c.manifests++
		c.mu.Unlock()
	}
	return c.Store.Open(ctx, key)
}

func (c *readCounter) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if strings.Count(prefix, "/") == 2 { // HOST/@KIND/NAME
		c.mu.Lock()
		c.lists++
		c.mu.Unlock()
	}
	return c.Store.List(ctx, prefix)
}

// A source whose files cannot be listed does not keep a dry run from saying what goes of the others.
func TestPreviewOfRetentionGoesOn(t *testing.T) {
	s := newSite(t, "disk")
	s.on("disk").Policy = retention.Policy{KeepLast: 1}
	var tonight []catalog.Entry
	for _, name := range []string{"a1", "a2", "a3", "b"} {
		b := placementtest.Make(t, s.on("disk").Store, name, 0, nil)
		tonight = append(tonight, catalog.Entry{Identity: b.Identity(), ID: catalog.ID{Ref: b.ID.Ref}})
	}
	target, err := placement.Look(t.Context(), s.placing(), *s.on("disk"))
	if err != nil {
		t.Fatal(err)
	}
	kept := target.Kept()
	kept.Store = unlisted{kept.Store, "/vg/a"}
	removed, err := previewRetention(t.Context(), s.placing(), kept, tonight)
	if !errors.Is(err, errUnlisted) || !strings.HasSuffix(err.Error(), "; and 2 more") || len(removed) != 1 || !strings.Contains(removed[0].Path, "/vg/b/") {
		t.Errorf("%+v, %v", removed, err)
	}
}

var errUnlisted = errors.New("no right to list it")

// unlisted is a store that does not list some folders.
type unlisted struct {
	store.Store
	folders string
}

func (u unlisted) List(ctx context.Context, prefix string) ([]store.Object, error) {
	if strings.Contains(prefix, u.folders) {
		return nil, errUnlisted
	}
	return u.Store.List(ctx, prefix)
}

// What stays on a destination stays locked, even if no backup was made tonight.
func TestRunRenewsLocksWhateverCameOfTheBackups(t *testing.T) {
	for name, hooks := range map[string][]quiesce.Hook{
		"the backup fails": nil,
		"a hook before it": {{Name: "line", Phase: quiesce.PhaseBefore, Command: []string{"false"}, Timeout: time.Minute, Must: true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "disk")
			s.withSources(t, Sources{Directories: []Directory{{Name: "tree", Path: filepath.Join(s.dir, "away"), Level: archive.LevelFast}}})
			s.opts.Hooks = hooks
			placementtest.Make(t, s.on("disk").Store, "gone", 0, nil)
			locks := &lockingStore{Store: s.on("disk").Store}
			s.on("disk").Store = locks
			result, _ := s.Run(t.Context(), []string{"@directory/tree"}) // which fails
			if result == nil || len(result.Warnings) > 0 {
				t.Fatalf("%+v", result)
			}
			if len(locks.locked) != 3 || path.Base(locks.locked[2]) != catalog.ManifestName {
				t.Errorf("locked %q", locks.locked)
			}
		})
	}
}

// lockingStore is a store in which nothing is locked yet.
type lockingStore struct {
	store.Store
	locked []string
}

func (l *lockingStore) LockFor() time.Duration { return 30 * 24 * time.Hour }

func (l *lockingStore) Lock(_ context.Context, keys []string, _ time.Time) error {
	l.locked = append(l.locked, keys...)
	return nil
}

func (l *lockingStore) LockedUntil(context.Context, string) (time.Time, error) {
	return time.Time{}, nil
}
