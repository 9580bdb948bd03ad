package probe

import (
	"slices"
	"testing"
)

func TestRangesOfBootCode(t *testing.T) {
	cases := []struct {
		name string
		fs   Filesystem
		want []Range
	}{
		{"ext", Filesystem{Ext: &Ext{}}, []Range{{0, 1024}}},
		{"xfs", Filesystem{XFS: &XFS{}}, nil},
		{"FAT16", Filesystem{FAT: &FAT{Bits: 16, SectorBytes: 512, ReservedSectors: 1}}, []Range{{0, 11}, {62, 448}}},
		{"FAT16 with room", Filesystem{FAT: &FAT{Bits: 16, SectorBytes: 512, ReservedSectors: 4}},
			[]Range{{0, 11}, {62, 448}, {512, 1536}}},
		{"FAT32", Filesystem{FAT: &FAT{Bits: 32, SectorBytes: 512, ReservedSectors: 32, InfoSector: 1, BackupBootSector: 6}},
			[]Range{{0, 11}, {90, 420}, {1024, 2048}, {4096, 12288}}},
		{"FAT32 in large sectors", Filesystem{FAT: &FAT{Bits: 32, SectorBytes: 4096, ReservedSectors: 3, InfoSector: 1}},
			[]Range{{0, 11}, {90, 420}, {512, 3584}, {8192, 4096}}},
	}
	for _, c := range cases {
		if got := c.fs.BootCodeRanges(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
