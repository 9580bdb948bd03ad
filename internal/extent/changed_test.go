package extent

import (
	"testing"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/lvm"
)

func TestRangesThatDidNotChange(t *testing.T) {
	c := &changes{ranges: []lvm.ByteRange{{OffsetBytes: 100, LengthBytes: 50}, {OffsetBytes: 300, LengthBytes: 1}}}
	for _, test := range []struct {
		offset, length int64
		want           bool
	}{
		{0, 100, true}, {0, 101, false}, {149, 1, false}, {150, 150, true}, {150, 151, false}, {301, 1 << 40, true}, {0, 1 << 40, false}, {120, 5, false},
	} {
		if got := c.none(test.offset, test.length); got != test.want {
			t.Errorf("%+v: %t", test, got)
		}
	}
	if !(&changes{}).none(0, 1) {
		t.Error("without changes, something changed")
	}
	var nothingKnown *changes
	if nothingKnown.none(0, 1) {
		t.Error("where nothing is known, something is unchanged")
	}
}

// An image is read although no block of it changed, where that says nothing of what the image holds.
func TestImagesThatAreReadAllTheSame(t *testing.T) {
	elsewhere := lvm.ByteRange{OffsetBytes: 1000, LengthBytes: 10}
	for name, test := range map[string]struct {
		x      Extent
		before catalog.Extent
		change lvm.ByteRange
		want   bool
	}{
		"a change elsewhere in it":         {change: elsewhere, want: true},
		"a mount may have replayed it":     {x: Extent{replayed: true}},
		"tonight's leaves free space out":  {x: Extent{unused: "; without its free space"}, change: elsewhere},
		"the one before left some out":     {before: catalog.Extent{UsedBytes: 1}, change: elsewhere},
		"both do, and nothing has changed": {x: Extent{unused: "; without its free space"}, before: catalog.Extent{UsedBytes: 1}, want: true},
		"a guest's logical volume":         {x: Extent{Extent: catalog.Extent{LV: &catalog.GuestLV{}}}},
	} {
		t.Run(name, func(t *testing.T) {
			a := &archiver{changes: &changes{}}
			if test.change.LengthBytes > 0 {
				a.changes.ranges = append(a.changes.ranges, test.change)
			}
			test.x.SizeBytes = 4096
			unchanged := a.unchangedIn(&test.x, &test.before)
			if got := unchanged != nil && unchanged(archive.Range{OffsetBytes: 0, LengthBytes: 512}); got != test.want {
				t.Errorf("unread: %t", got)
			}
		})
	}
}
