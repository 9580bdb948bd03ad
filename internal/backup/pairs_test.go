package backup

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"voltar/internal/catalog"
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
	r, err := s.begin("run")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.end(t.Context()); err != nil {
			t.Error(err)
		}
	}()
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
