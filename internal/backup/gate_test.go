package backup

import (
	"testing"

	"voltar/archive"
	"voltar/internal/catalog"
	"voltar/internal/placement"
	"voltar/lvm"
)

// A backup that lacks data of any extent, or a dump, is damaged, and no last good one for retention.
func TestGateLackingDataIsDamage(t *testing.T) {
	whole := &extent{Extent: catalog.Extent{Name: "p1", State: catalog.StateFiles}}
	lossy := &extent{Extent: catalog.Extent{Name: "p2", State: catalog.StateImage}}
	lossy.noteImage(archive.ImageStats{DamagedCount: 1, Damaged: []archive.Damage{{OffsetBytes: 512, LengthBytes: 512, Reason: "bad sector"}}})
	for _, c := range []struct {
		name    string
		extents []*extent
		missing []string
		want    catalog.Status
	}{
		{"whole", []*extent{whole}, nil, catalog.StatusComplete},
		{"an extent lacks data", []*extent{whole, lossy}, nil, catalog.StatusDamaged},
		{"a dump failed", []*extent{whole}, []string{"mysqldump: exit status 2"}, catalog.StatusDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &volumeRun{run: &run{Engine: &Engine{}}, missing: c.missing, watched: &lvm.WatchResult{}, out: &placement.Output{}}
			if m := v.manifest(&layout{extents: c.extents}); m.Status != c.want {
				t.Errorf("%s, want %s", m.Status, c.want)
			}
		})
	}
}
