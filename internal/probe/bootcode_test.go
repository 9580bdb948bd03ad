package probe

import (
	"bytes"
	"os"
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

// The boot code of an exFAT comes back onto one of another size, whose parameters stay as they are and whose sum is right.
func TestExFATBootCode(t *testing.T) {
	const sector = 512
	old := blankFile(t, "old", 64<<20)
	run(t, nil, old, []string{"mkfs.exfat", Device})
	code := func(from, to int) {
		file := bytes.Repeat([]byte("code"), (to-from)/4+1)[:to-from]
		patch(t, old, int64(from), file...)
	}
	code(120, 510)
	code(sector, 9*sector-4) // in front of the last signature
	code(9*sector, 10*sector)
	code(10*sector, 11*sector) // which is reserved, and stays behind
	area, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	x := read(t, old, "exfat").ExFAT

	path := blankFile(t, "new", 200<<20)
	run(t, nil, path, []string{"mkfs.exfat", "-L", "new", Device})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := x.WriteBootCode(file, area[:12*sector-1]); err == nil {
		t.Error("half an area was taken")
	}
	if err := x.WriteBootCode(file, area[:12*sector]); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, copyAt := range []int{0, 12 * sector} {
		want := bytes.Clone(before[copyAt:][:11*sector])
		copy(want[120:510], area[120:])
		copy(want[sector:10*sector], area[sector:])
		if !bytes.Equal(after[copyAt:][:11*sector], want) {
			t.Errorf("the region at %d is another", copyAt)
		}
	}
	if !bytes.Equal(after[24*sector:], before[24*sector:]) {
		t.Error("what is behind the boot region has changed")
	}
	if !bytes.Equal(after[:12*sector], after[12*sector:24*sector]) {
		t.Error("the copy differs")
	}
	run(t, nil, path, []string{"fsck.exfat", "-n", Device})
	if out := run(t, nil, path, []string{"fsck.exfat", "-n", "-v", Device}); bytes.Contains(out, []byte("checksum")) {
		t.Errorf("%s", out)
	}

	wrong := *x
	wrong.SectorBytes = 4096
	if err := wrong.WriteBootCode(file, make([]byte, 12*4096)); err != nil {
		t.Error(err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, after) {
		t.Errorf("code for other sectors was written (%v)", err)
	}
}
