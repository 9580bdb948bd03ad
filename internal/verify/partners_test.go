package verify

import (
	"strings"
	"testing"

	"voltar/internal/browse/browsetest"
	"voltar/internal/catalog"
)

func TestMissingPartners(t *testing.T) {
	b, s := made(t, browsetest.Spec{LV: "volume-00000001", Whole: true, Fill: small(t)})
	other := browsetest.Make(t, s, browsetest.Spec{LV: "volume-00000002", Whole: true, Fill: small(t)})
	missing := strings.Replace(other.ID.String(), "volume-00000002", "volume-00000003", 1)
	for _, test := range []struct {
		name string
		pv   catalog.GuestPV
		says string
	}{
		{"the home is missing", catalog.GuestPV{VG: "rl", Home: missing}, missing + " is missing, which has the logical volumes of the guest's volume group rl"},
		{"the other is missing", catalog.GuestPV{VG: "rl", Others: []catalog.OtherShare{{Backup: missing}}},
			missing + " is missing, which has the part of the guest's volume group rl on " + b.ID.Ref.VG + "/volume-00000003"},
		{"it knows nothing of it", catalog.GuestPV{VG: "rl", Home: other.ID.String()}, "does not belong with it"},
		{"nothing is shared", catalog.GuestPV{VG: "rl"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := *b.Manifest
			m.Extents = append(m.Extents[:len(m.Extents):len(m.Extents)], catalog.Extent{PV: &test.pv})
			changed := b
			changed.Manifest = &m
			if got := texts(mustVerify(t, s, changed, Options{})); test.says == "" && got != "" || !strings.Contains(got, test.says) {
				t.Errorf("%q, want %q", got, test.says)
			}
		})
	}
}

// A logical volume that begins near the end of its volume and goes on elsewhere does not reach beyond it.
func TestEndsOfGuestVolumes(t *testing.T) {
	lv := func(segments ...catalog.GuestSegment) catalog.Extent {
		return catalog.Extent{Name: "lv1", OffsetBytes: segments[0].Offsets[0], SizeBytes: 40 << 20, State: catalog.StateImage,
			LV: &catalog.GuestLV{Others: []string{"vg/other@2026-11-20T010001Z"}, Segments: segments}}
	}
	m := &catalog.Manifest{Source: catalog.Source{Kind: catalog.SourceVolume, SizeBytes: 64 << 20}}
	for _, test := range []struct {
		name string
		x    catalog.Extent
		bad  bool
	}{
		{"in the other order", lv(catalog.GuestSegment{SizeBytes: 8 << 20, Offsets: []int64{56 << 20}}, catalog.GuestSegment{SizeBytes: 32 << 20, Offsets: []int64{1 << 20}}), false},
		{"on another volume", lv(catalog.GuestSegment{SizeBytes: 40 << 20, Offsets: []int64{1 << 30}, On: []int{1}}), false},
		{"beyond the end", lv(catalog.GuestSegment{SizeBytes: 40 << 20, Offsets: []int64{30 << 20}}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.Extents = []catalog.Extent{test.x}
			if findings := checkLayout(m); (len(findings) > 0) != test.bad {
				t.Errorf("%+v", findings)
			}
		})
	}
}
