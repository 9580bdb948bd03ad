package backup

import (
	"testing"

	"voltar/internal/catalog"
	"voltar/internal/extent"
	"voltar/internal/placement"
)

// A backup that lacks data of any extent, or a dump, is damaged, and no last good one for retention.
func TestGateLackingDataIsDamage(t *testing.T) {
	whole := &extent.Extent{Extent: catalog.Extent{Name: "p1", State: catalog.StateFiles}}
	lossy := &extent.Extent{Extent: catalog.Extent{Name: "p2", State: catalog.StateImage, DamagedCount: 1}}
	for _, c := range []struct {
		name    string
		extents []*extent.Extent
		missing []string
		want    catalog.Status
	}{
		{"whole", []*extent.Extent{whole}, nil, catalog.StatusComplete},
		{"an extent lacks data", []*extent.Extent{whole, lossy}, nil, catalog.StatusDamaged},
		{"a dump failed", []*extent.Extent{whole}, []string{"mysqldump: exit status 2"}, catalog.StatusDamaged},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &archived{
				account: &account{run: &run{Engine: &Engine{}}}, out: &placement.Output{},
				layout: &extent.Layout{Extents: c.extents}, dumps: dumps{missing: c.missing},
			}
			if m := a.manifest(); m.Status != c.want {
				t.Errorf("%s, want %s", m.Status, c.want)
			}
		})
	}
}
