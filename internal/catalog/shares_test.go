package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	homeID = "nova-volumes/v1@2026-11-20T010001Z"
	outID  = "nova-volumes/v2@2026-11-20T010003Z"
)

// homeManifest has a logical volume that lies on its own volume and on another.
func homeManifest() *Manifest {
	m := manifest(volume("v1"), night)
	file := m.Files[0].Name
	m.Extents = []Extent{
		{SizeBytes: 64 << 20, State: StateLVM, Archive: file, PV: &GuestPV{UUID: "a", VG: "rl", VGUUID: "g", HeadBytes: 1 << 20,
			Others: []OtherShare{{Backup: outID, PVs: []PVPlace{{UUID: "b", OffsetBytes: 1 << 20, SizeBytes: 32 << 20}}}}}},
		{Name: "lv1", OffsetBytes: 2 << 20, SizeBytes: 12 << 20, State: StateImage, Archive: file, LV: &GuestLV{VG: "rl", VGUUID: "g", Name: "root", UUID: "l",
			Others: []string{outID}, Segments: []GuestSegment{
				{SizeBytes: 4 << 20, Offsets: []int64{2 << 20}},
				{SizeBytes: 8 << 20, StripeBytes: 64 << 10, Offsets: []int64{8 << 20, 29 << 20}, On: []int{0, 1}},
			}}},
	}
	return m
}

func TestSharesOfAVolumeGroup(t *testing.T) {
	want := homeManifest()
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`"on": [`, `"others": [`, `"backup": "` + outID + `"`} {
		if !strings.Contains(string(data), line) {
			t.Errorf("there is no %s in %s", line, data)
		}
	}
	m, err := ParseManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Extents, want.Extents) {
		t.Errorf("read back: %+v", m.Extents)
	}
	lv := m.Extents[1].LV
	if lv.OwnBytes() != 8<<20 || lv.Elsewhere(lv.Segments[0], 0) != "" || lv.Elsewhere(lv.Segments[1], 0) != "" || lv.Elsewhere(lv.Segments[1], 1) != outID {
		t.Errorf("own %d", lv.OwnBytes())
	}
	if got := m.Partners(); len(got) != 1 || got[0].String() != outID || len(m.Shares("g")) != 1 || m.Shares("other") != nil {
		t.Errorf("partners %v", got)
	}
	out := manifest(volume("v2"), night)
	out.Extents = []Extent{
		{SizeBytes: 64 << 20, State: StateLVM, Archive: out.Files[0].Name, PV: &GuestPV{UUID: "b", VGUUID: "g", Home: homeID}},
		{Name: "p2", SizeBytes: 64 << 20, State: StateLVM, Archive: out.Files[0].Name, PV: &GuestPV{UUID: "c", VGUUID: "g", Home: homeID}},
	}
	if got := out.Partners(); len(got) != 1 || got[0].String() != homeID || out.Check() != nil {
		t.Errorf("partners %v, %v", got, out.Check())
	}
	// On a destination that encrypts they are the same.
	if got := want.Encrypted("age", []string{"age1"}).Partners(); !slices.Equal(got, want.Partners()) {
		t.Errorf("encrypted: %v", got)
	}
}

// What a manifest says is where a restore writes: nothing but physical volumes of the same group.
func TestSharesThatMakeNoSense(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(pv *GuestPV, lv *GuestLV)
		says string
	}{
		{"a volume that it does not list", func(_ *GuestPV, lv *GuestLV) { lv.Segments[1].On[1] = 2 }, "makes no sense"},
		{"a negative one", func(_ *GuestPV, lv *GuestLV) { lv.Segments[1].On[1] = -1 }, "makes no sense"},
		{"too few of them", func(_ *GuestPV, lv *GuestLV) { lv.Segments[1].On = []int{1} }, "makes no sense"},
		{"before the physical volume", func(_ *GuestPV, lv *GuestLV) { lv.Segments[1].Offsets[1] = 1<<20 - 1 }, "not on a physical volume of its group"},
		{"behind it", func(_ *GuestPV, lv *GuestLV) { lv.Segments[1].Offsets[1] = 29<<20 + 1 }, "not on a physical volume of its group"},
		{"another backup", func(_ *GuestPV, lv *GuestLV) { lv.Others[0] = "nova-volumes/v3@2026-11-20T010003Z" }, "not on a physical volume of its group"},
		{"another group", func(pv *GuestPV, _ *GuestLV) { pv.VGUUID = "h" }, "not on a physical volume of its group"},
		{"no backup", func(pv *GuestPV, _ *GuestLV) { pv.Others[0].Backup = "../../etc" }, "cannot take"},
		{"this volume", func(pv *GuestPV, _ *GuestLV) { pv.Others[0].Backup = "nova-volumes/v1@2026-11-20T010003Z" }, "not a backup of another volume"},
		{"two homes", func(pv *GuestPV, _ *GuestLV) { pv.Home = outID }, "in this backup and in another"},
		{"a place out of range", func(pv *GuestPV, _ *GuestLV) { pv.Others[0].PVs[0].OffsetBytes = 1<<63 - 1 }, "out of range"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := homeManifest()
			test.edit(m.Extents[0].PV, m.Extents[1].LV)
			if err := m.Check(); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want %q", err, test.says)
			}
		})
	}
}

// A listing tells what lacks another, whatever it was narrowed to, and takes no half for the newest good backup.
func TestListingOfHalves(t *testing.T) {
	s := newStore(t)
	hour := func(n int) time.Time { return night.Add(time.Duration(n) * time.Hour) }
	idAt := func(name string, n int) ID { return ID{VolumeRef("nova-volumes", name), hour(n)} }
	half := func(name, other string, n int, isHome bool) {
		m := manifest(volume(name), hour(n))
		pv := &GuestPV{UUID: name, VG: "rl", VGUUID: "g", HeadBytes: 1 << 20}
		if isHome {
			pv.Others = []OtherShare{{Backup: idAt(other, n).String()}}
		} else {
			pv.Home = idAt(other, n).String()
		}
		m.Extents = []Extent{{SizeBytes: 64 << 20, State: StateLVM, Archive: m.Files[0].Name, PV: pv}}
		d := mustBegin(t, s, m.ID())
		fill(t, d, m)
		if _, err := d.Commit(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	half("v1", "v2", 0, true)
	half("v2", "v1", 0, false)
	half("v1", "v2", 1, true)  // the other is not there
	half("v2", "v1", 2, false) // the other is being written
	raw(t, s, idAt("v1", 2).Path(testHost)+"/v1.tar.gz", "x")
	half("v2", "v1", 3, false) // the other cannot be read
	raw(t, s, idAt("v1", 3).Path(testHost)+"/manifest.json", "garbage")
	only := func(name string) func(Ref) bool { return func(r Ref) bool { return r.Name == name } }
	const lacks1, lacks2, lacks3 = "v1@1 v2@1", "v2@2 v1@2", "v2@3 v1@3"
	for _, test := range []struct {
		name   string
		filter Filter
		listed int
		want   []string
	}{
		{"all", Filter{}, 5, []string{lacks1, lacks2, lacks3}},
		{"one volume", Filter{Match: only("v1")}, 2, []string{lacks1}},
		{"the other", Filter{Match: only("v2")}, 3, []string{lacks2, lacks3}},
		{"the newest", Filter{Newest: 1}, 2, []string{lacks1, lacks3}},
		{"up to the newest good", Filter{Newest: 1, Good: true}, 5, []string{lacks1, lacks2, lacks3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := mustList(t, s, test.filter)
			var got []string
			for _, b := range l.Backups {
				for _, id := range l.Lacks(b.ID) {
					at := func(id ID) string { return fmt.Sprintf("%s@%d", id.Ref.Name, int(id.Time.Sub(night).Hours())) }
					got = append(got, at(b.ID)+" "+at(id))
				}
			}
			if !slices.Equal(got, test.want) || len(l.Backups) != test.listed {
				t.Errorf("%d are listed, and lack %q; want %d, %q", len(l.Backups), got, test.listed, test.want)
			}
		})
	}
}

func TestCheckFiles(t *testing.T) {
	s := newStore(t)
	b := add(t, s, volume("v1"), night)
	if err := b.CheckFiles(t.Context(), s); err != nil {
		t.Error(err)
	}
	b.Manifest.Files[0].SizeBytes++
	if err := b.CheckFiles(t.Context(), s); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), b.Manifest.Files[0].Name+" has ") {
		t.Errorf("too short: %v", err)
	}
	b.Manifest.Files[0].Name = "lost"
	if err := b.CheckFiles(t.Context(), s); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "lost is missing") {
		t.Errorf("missing: %v", err)
	}
}
