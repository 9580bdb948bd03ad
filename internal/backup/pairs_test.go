package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"voltar/internal/catalog"
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/retention"
)

// lvmOf makes of a manifest that of a volume with a guest's physical volume, whose logical volumes are in the backup home,
// or in this one with a share on others.
func lvmOf(home string, others ...string) func(*catalog.Manifest) {
	return func(m *catalog.Manifest) {
		x := &m.Extents[0]
		x.State, x.PV = catalog.StateLVM, &catalog.GuestPV{VG: "guest", VGUUID: "g", HeadBytes: 1 << 10, Home: home}
		for _, other := range others {
			x.PV.Others = append(x.PV.Others, catalog.OtherShare{Backup: other})
		}
	}
}

func idOf(volume string, night int) string {
	return catalog.ID{Ref: catalog.VolumeRef("vg", volume), Time: firstNight.AddDate(0, 0, night)}.String()
}

// pair makes the backups of one night of two volumes that share a volume group.
func (s *copySite) pair(t *testing.T, on string, night int) {
	t.Helper()
	s.make(t, on, "home", night, lvmOf("", idOf("out", night)))
	s.make(t, on, "out", night, lvmOf(idOf("home", night)))
}

// damagedPair is a pair of which the one that has no logical volumes lacks some of its data.
func (s *copySite) damagedPair(t *testing.T, on string, night int) {
	t.Helper()
	s.make(t, on, "home", night, lvmOf("", idOf("out", night)))
	s.make(t, on, "out", night, func(m *catalog.Manifest) {
		lvmOf(idOf("home", night))(m)
		m.Status = catalog.StatusDamaged
	})
}

// left names what stands on a destination.
func (s *copySite) left(t *testing.T, on string) string {
	t.Helper()
	listing, err := catalog.List(t.Context(), s.on(on).Store, copyHost, catalog.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, b := range listing.Backups {
		list = append(list, fmt.Sprintf("%s%d", b.ID.Ref.Name, int(b.ID.Time.Sub(firstNight).Hours()/24)))
	}
	return strings.Join(list, " ")
}

// Retention, which decides on one volume at a time, takes no backup from another that needs it.
func TestRetentionKeepsWhatBelongsTogether(t *testing.T) {
	for _, test := range []struct {
		name   string
		policy retention.Policy
		make   func(*testing.T, *copySite)
		wanted string // that prune is asked for; all when empty
		left   string
	}{
		{name: "pairs grow old together", policy: retention.Policy{KeepLast: 1},
			make: func(t *testing.T, s *copySite) { s.pair(t, "near", 0); s.pair(t, "near", 1) }, left: "home1 out1"},
		{name: "the outlying one has no newer", policy: retention.Policy{KeepLast: 1},
			make: func(t *testing.T, s *copySite) { s.pair(t, "near", 0); s.make(t, "near", "home", 1, nil) }, left: "home0 home1 out0"},
		{name: "the home has no newer", policy: retention.Policy{KeepLast: 1},
			make: func(t *testing.T, s *copySite) { s.pair(t, "near", 0); s.make(t, "near", "out", 1, nil) }, left: "home0 out0 out1"},
		{name: "half a pair is not the last good one", policy: retention.Policy{KeepLast: 1},
			make: func(t *testing.T, s *copySite) {
				s.pair(t, "near", 0)
				s.make(t, "near", "home", 1, lvmOf("", idOf("out", 1)))
				s.make(t, "near", "out", 2, nil)
			}, left: "home0 home1 out0 out2"},
		{name: "one of the newest is damaged", policy: retention.Policy{KeepLast: 1}, left: "home0 home1 out0 out1",
			make: func(t *testing.T, s *copySite) { s.pair(t, "near", 0); s.damagedPair(t, "near", 1) }},
		{name: "one was found damaged since", policy: retention.Policy{KeepLast: 1}, left: "alone0 alone1 home0 home1 out0 out1",
			make: func(t *testing.T, s *copySite) {
				s.pair(t, "near", 0)
				s.make(t, "near", "home", 1, lvmOf("", idOf("out", 1)))
				s.make(t, "near", "alone", 0, nil)
				s.opts.Damage = map[string]string{}
				for _, b := range []catalog.Backup{
					s.make(t, "near", "alone", 1, nil), s.make(t, "near", "out", 1, lvmOf(idOf("home", 1))),
				} {
					s.opts.Damage[s.on("near").Store.String()+"/"+b.Path()] = "on 2026-11-20: its sum is another"
				}
			}},
		{name: "a damaged one grows old", policy: retention.Policy{KeepLast: 1}, left: "home2 out2",
			make: func(t *testing.T, s *copySite) {
				s.pair(t, "near", 0)
				s.damagedPair(t, "near", 1)
				s.pair(t, "near", 2)
			}},
		{name: "only one of them is asked for", policy: retention.Policy{KeepLast: 1}, wanted: "vg/home",
			make: func(t *testing.T, s *copySite) { s.pair(t, "near", 0); s.pair(t, "near", 1) }, left: "home0 home1 out0 out1"},
		{name: "a chain", policy: retention.Policy{KeepLast: 1}, left: "end0 home0 home1 out0 out1",
			make: func(t *testing.T, s *copySite) {
				s.make(t, "near", "home", 0, lvmOf("", idOf("out", 0)))
				s.make(t, "near", "out", 0, lvmOf("", idOf("home", 0), idOf("end", 0)))
				s.make(t, "near", "end", 0, lvmOf(idOf("out", 0))) // its last
				s.pair(t, "near", 1)
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newCopySite(t, "near")
			test.make(t, s)
			s.on("near").Policy = test.policy
			wanted := func(ref catalog.Ref) bool { return test.wanted == "" || ref.String() == test.wanted }
			dry, err := s.Prune(t.Context(), wanted, true)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := s.Prune(t.Context(), wanted, false)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(dry, lines) {
				t.Errorf("dry run: %+v, and then %+v", dry, lines)
			}
			if got := s.left(t, "near"); got != test.left {
				t.Errorf("left: %s, want %s\n%+v", got, test.left, lines)
			}
		})
	}
}

// A run, which prunes each volume by itself, does the same.
func TestRunKeepsWhatBelongsTogether(t *testing.T) {
	s := newCopySite(t, "near")
	s.pair(t, "near", 0)
	s.make(t, "near", "home", 1, nil)
	s.on("near").Policy = retention.Policy{KeepLast: 1}
	s.withRun(t, func(r *run) {
		target := r.openTarget(t.Context(), *s.on("near"))
		for name, want := range map[string]string{"home": idOf("out", 0), "out": ""} {
			decisions, err := target.decide(catalog.VolumeIdentity("vg-uuid", "uuid-"+name), target.byPolicy(s.Now(), retention.Apply))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range decisions {
				if !d.Keep || strings.HasSuffix(d.Backup.ID, firstNight.Format(catalog.TimeLayout)) && want != "" && d.Reason != "belongs with "+want {
					t.Errorf("%s: %+v", name, d)
				}
			}
		}
	})
}

// heldStore holds objects against deletion.
type heldStore struct {
	store.Store
	held string // in their keys
}

func (s heldStore) CheckDelete(_ context.Context, keys []string) error {
	for _, key := range keys {
		if strings.Contains(key, s.held) {
			return fmt.Errorf("%w: %s", store.ErrLocked, key)
		}
	}
	return nil
}

// What a store still holds keeps what belongs with it, in either order.
func TestHeldBackupsKeepTheirCompany(t *testing.T) {
	for _, held := range []string{"/home/", "/out/"} {
		s := newCopySite(t, "near")
		s.pair(t, "near", 0)
		s.pair(t, "near", 1)
		s.on("near").Policy = retention.Policy{KeepLast: 1}
		s.on("near").Store = heldStore{s.on("near").Store, held}
		if _, err := s.Prune(t.Context(), nil, false); !errors.Is(err, store.ErrLocked) {
			t.Errorf("%s is held: %v", held, err)
		}
		if got := s.left(t, "near"); got != "home0 home1 out0 out1" {
			t.Errorf("%s is held, and left are %s", held, got)
		}
	}
}

// A backup whose manifest cannot be read stays, and what belongs with it too, on which it may depend one day again. It is
// no good backup meanwhile.
func TestUnreadableBackupsKeepTheirCompany(t *testing.T) {
	s := newCopySite(t, "near")
	for night := range 3 {
		s.pair(t, "near", night)
	}
	garble(t, s, catalog.ID{Ref: catalog.VolumeRef("vg", "out"), Time: firstNight})
	s.on("near").Policy = retention.Policy{KeepLast: 1}
	lines, err := s.Prune(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.left(t, "near"); got != "home0 home2 out2" {
		t.Errorf("left: %s, %+v", got, lines)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "near", copyHost, "vg/out", firstNight.Format(catalog.TimeLayout))); err != nil {
		t.Errorf("the one that cannot be read: %v", err)
	}
}

func garble(t *testing.T, s *copySite, id catalog.ID) {
	t.Helper()
	path := filepath.Join(s.dir, "near", id.Path(copyHost), catalog.ManifestName)
	if err := os.WriteFile(path, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A run, which works through one volume after the other, leaves no half in between.
func TestRunRemovesWhatBelongsTogether(t *testing.T) {
	s := newCopySite(t, "near")
	s.pair(t, "near", 0)
	s.pair(t, "near", 1)
	s.on("near").Policy = retention.Policy{KeepLast: 1}
	s.withRun(t, func(r *run) {
		target := r.openTarget(t.Context(), *s.on("near"))
		home := catalog.VolumeIdentity("vg-uuid", "uuid-home")
		decisions, err := target.decide(home, target.byPolicy(s.Now(), retention.Apply))
		if err != nil {
			t.Fatal(err)
		}
		removed, err := target.prune(t.Context(), target.history(home), decisions)
		if got := s.left(t, "near"); err != nil || got != "home1 out1" || len(removed) != 2 {
			t.Errorf("left: %s, removed %+v, %v", got, removed, err)
		}
	})
}

// Backups of volumes that are gone end together, and stay for those that are not.
func TestVanishedVolumesEndTogether(t *testing.T) {
	for _, test := range []struct {
		name string
		live []string
		left string
		says string
	}{
		{"both are gone", nil, "", "2 removed"},
		{"one is there", []string{"home"}, "home0 home1 out0 out1", "0 removed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newCopySite(t, "near")
			s.pair(t, "near", 0)
			s.pair(t, "near", 1)
			s.opts.VanishedKeep = 24 * time.Hour
			plan := &Plan{Inventory: lvm.Inventory{VGs: []lvm.VG{{UUID: "vg-uuid"}}}}
			for _, name := range test.live {
				plan.Volumes = append(plan.Volumes, lvm.Volume{VGUUID: "vg-uuid", UUID: "uuid-" + name})
			}
			s.withRun(t, func(r *run) {
				r.targets = append(r.targets, r.openTarget(t.Context(), *s.on("near")))
				r.retainGone(t.Context(), plan)
				if len(r.report.Gone) != 2-len(test.live) || len(r.report.Warnings) > 0 {
					t.Errorf("%+v %+v", r.report.Gone, r.report.Warnings)
				}
				for _, gone := range r.report.Gone {
					if gone.Backups != 2 || !strings.Contains(gone.Note, test.says) {
						t.Errorf("%+v", gone)
					}
				}
			})
			if got := s.left(t, "near"); got != test.left {
				t.Errorf("left: %s, want %s", got, test.left)
			}
		})
	}
}

// withRun does something within a run.
func (s *copySite) withRun(t *testing.T, do func(*run)) {
	t.Helper()
	r, err := s.begin("run")
	if err != nil {
		t.Fatal(err)
	}
	do(r)
	if err := r.end(t.Context()); err != nil {
		t.Error(err)
	}
}

// What retention would not keep by itself is copied with what it does.
func TestCopyTakesWhatBelongsTogether(t *testing.T) {
	s := newCopySite(t, "near", "far")
	s.pair(t, "near", 0)
	s.make(t, "near", "home", 1, nil)
	s.on("far").Policy = retention.Policy{KeepLast: 1}
	if _, err := s.Copy(t.Context(), CopyRequest{From: "near", To: "far"}); err != nil {
		t.Fatal(err)
	}
	if got, want := s.left(t, "far"), "home0 home1 out0"; got != want {
		t.Errorf("copied: %s, want %s", got, want)
	}
}

// Whoever names one volume gets what belongs with it, and is told what is not there to be copied.
func TestCopyOfOneTakesTheOther(t *testing.T) {
	s := newCopySite(t, "near", "far")
	s.pair(t, "near", 0)
	s.pair(t, "near", 1)
	s.make(t, "near", "home", 2, lvmOf("", idOf("out", 2))) // out was lost
	s.make(t, "near", "other", 0, nil)
	pick := func(volume string) func(*catalog.Listing) ([]catalog.Backup, error) {
		return func(l *catalog.Listing) (picked []catalog.Backup, _ error) {
			for _, b := range l.Backups {
				if b.ID.Ref.Name == volume {
					picked = append(picked, b)
				}
			}
			return picked, nil
		}
	}
	for _, volume := range []string{"home", "out"} {
		for _, dryRun := range []bool{true, false} {
			s.on("far").Store = newCopySite(t, "far").on("far").Store
			lines, err := s.Copy(t.Context(), CopyRequest{From: "near", To: "far", Pick: pick(volume), DryRun: dryRun})
			if err != nil {
				t.Fatal(err)
			}
			want := []string{idOf("home", 0), idOf("home", 1), idOf("out", 0), idOf("out", 1)}
			if volume == "home" {
				want = append(want, idOf("home", 2))
			}
			var got []string
			for _, line := range lines {
				got = append(got, line.Backup)
				if isHalf := line.Backup == idOf("home", 2); isHalf != strings.Contains(line.Reason, "lacks there "+idOf("out", 2)) || !isHalf && line.Reason != "" {
					t.Errorf("%+v", line)
				}
			}
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s, dry run %v: %q, want %q", volume, dryRun, got, want)
			}
			listing, err := catalog.List(t.Context(), s.on("far").Store, copyHost, catalog.Filter{})
			if err != nil || len(listing.Backups) != map[bool]int{true: 0, false: len(want)}[dryRun] {
				t.Errorf("%d are there, %v", len(listing.Backups), err)
			}
		}
	}
}

// A run that is asked for one volume makes up the other's with it.
func TestCatchUpTakesWhatBelongsTogether(t *testing.T) {
	s := newCopySite(t, "near", "far")
	s.pair(t, "near", 0)
	s.make(t, "near", "other", 0, nil)
	s.on("far").Policy = retention.Policy{KeepLast: 1}
	s.withRun(t, func(r *run) {
		for _, d := range s.opts.Destinations {
			r.targets = append(r.targets, r.openTarget(t.Context(), d))
		}
		r.catchUp(t.Context(), func(ref catalog.Ref) bool { return ref.Name == "out" })
	})
	if got := s.left(t, "far"); got != "home0 out0" {
		t.Errorf("made up: %s", got)
	}
}
