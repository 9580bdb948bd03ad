package extent

import (
	"testing"

	"voltar/internal/catalog"
)

// Damage is named as the commands take it: with the partition, where there is one.
func TestDamageLine(t *testing.T) {
	p1, whole := &Extent{Extent: catalog.Extent{Name: "p1"}}, &Extent{}
	file := catalog.Damage{Path: "etc/fstab", Reason: "input/output error"}
	raw := catalog.Damage{PathB64: []byte("/a\xff"), Reason: "is gone"}
	block := catalog.Damage{OffsetBytes: 4096, LengthBytes: 1024, Reason: "input/output error"}
	tree := catalog.Damage{Reason: "its folder cannot be read"}
	for _, c := range []struct {
		x    *Extent
		d    catalog.Damage
		want string
	}{
		{p1, file, "p1:/etc/fstab: input/output error"}, {whole, file, "/etc/fstab: input/output error"}, {p1, raw, "p1:/a\xff: is gone"},
		{p1, block, "p1:1.0 KiB at byte 4096: input/output error"}, {whole, block, "1.0 KiB at byte 4096: input/output error"},
		{whole, tree, "the whole volume: its folder cannot be read"},
	} {
		if got := damageLine(c.x, c.d); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
