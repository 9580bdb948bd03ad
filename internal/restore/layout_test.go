package restore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"voltar/internal/catalog"
	"voltar/partmap"
)

const mib = 1 << 20

const gptScript = `label: gpt
label-id: AAAAAAAA-0000-0000-0000-000000000000
device: /dev/vg/lv
unit: sectors
first-lba: 34
last-lba: 131038
sector-size: 512

/dev/vg/lv1 : start=        2048, size=       40960, type=L
/dev/vg/lv2 : start=       43008, size=       86016, type=L
`

// disk is a volume of 64 MiB with two partitions, the second of 42 MiB.
func disk(last catalog.State) *catalog.Manifest {
	return &catalog.Manifest{
		Source: catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: "lv", SizeBytes: 64 * mib},
		Table:  &catalog.Table{Label: "gpt", SectorBytes: 512},
		Extents: []catalog.Extent{
			{Name: "boot", SizeBytes: mib, State: catalog.StateImage},
			{Name: "p1", Number: 1, OffsetBytes: mib, SizeBytes: 20 * mib, State: catalog.StateImage},
			{Name: "p2", Number: 2, OffsetBytes: 21 * mib, SizeBytes: 42 * mib, State: last, UsedBytes: 10 * mib},
			{Name: "gap1", OffsetBytes: 63 * mib, SizeBytes: mib, State: catalog.StateImage},
		},
	}
}

func plain(state catalog.State) *catalog.Manifest {
	return &catalog.Manifest{
		Source:  catalog.Source{Kind: catalog.SourceVolume, VG: "vg", Name: "lv", SizeBytes: 64 * mib},
		Extents: []catalog.Extent{{SizeBytes: 64 * mib, State: state, UsedBytes: 10 * mib}},
	}
}

func TestLayOut(t *testing.T) {
	files, image := catalog.StateFiles, catalog.StateImage
	cases := []struct {
		name    string
		m       *catalog.Manifest
		sizeMiB int64
		grow    bool
		want    string // names and sizes in MiB of what goes to the target
		refused string
	}{
		{"same size", disk(files), 64, false, "boot:1 p1:20 p2:42 gap1:1", ""},
		{"larger keeps its partitions", disk(files), 100, false, "boot:1 p1:20 p2:42", ""},
		{"larger and grown", disk(files), 100, true, "boot:1 p1:20 p2:78", ""},
		{"larger, the last an image", disk(image), 100, true, "boot:1 p1:20 p2:42", ""},
		{"smaller", disk(files), 40, false, "boot:1 p1:20 p2:18", ""},
		{"smaller than the files", disk(files), 30, false, "", "do not fit"},
		{"smaller, the last an image", disk(image), 40, false, "", "cannot have"},
		{"smaller than where the last begins", disk(files), 20, false, "", "begins at byte"},
		{"whole, same size", plain(files), 64, true, ":64", ""},
		{"whole, larger", plain(files), 100, false, ":64", ""},
		{"whole, grown", plain(files), 100, true, ":100", ""},
		{"whole, smaller", plain(files), 32, false, ":32", ""},
		{"whole, too small", plain(files), 10, false, "", "do not fit"},
		{"image, larger", plain(image), 100, true, ":64", ""},
		{"image, smaller", plain(image), 32, false, "", "does not fit"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l, err := layOut(c.m, []byte(gptScript), c.sizeMiB*mib, c.grow)
			if c.refused != "" {
				if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("%v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range l.pieces {
				got = append(got, fmt.Sprintf("%s:%d", p.Name, p.targetBytes/mib))
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Every difference between a table and the one wanted counts.
func TestSameTable(t *testing.T) {
	m := disk(catalog.StateFiles)
	m.Table.ID = "AAAA"
	m.Extents[2].PartType, m.Extents[2].PartUUID, m.Extents[2].PartName = "L", "bbbb", "root"
	l, err := layOut(m, []byte(gptScript), 64*mib, false)
	if err != nil {
		t.Fatal(err)
	}
	table := func(change func(*partmap.Table)) *partmap.Table {
		table := &partmap.Table{Label: "gpt", ID: "aaaa", SectorBytes: 512, Partitions: []partmap.Partition{
			{Number: 1, StartSectors: 2048, SizeSectors: 40960, SectorBytes: 512},
			{Number: 2, StartSectors: 43008, SizeSectors: 86016, SectorBytes: 512, Type: "l", UUID: "BBBB", Name: "root"},
		}}
		change(table)
		return table
	}
	if got := l.sameTable(table(func(*partmap.Table) {}), m.Table); got != "" {
		t.Errorf("the same table differs: %s", got)
	}
	for name, change := range map[string]func(*partmap.Table){
		"kind":    func(t *partmap.Table) { t.Label = "dos" },
		"id":      func(t *partmap.Table) { t.ID = "cccc" },
		"sectors": func(t *partmap.Table) { t.SectorBytes = 4096 },
		"missing": func(t *partmap.Table) { t.Partitions = t.Partitions[:1] },
		"more": func(t *partmap.Table) {
			t.Partitions = append(t.Partitions, partmap.Partition{Number: 3, SectorBytes: 512})
		},
		"start": func(t *partmap.Table) { t.Partitions[1].StartSectors++ },
		"size":  func(t *partmap.Table) { t.Partitions[0].SizeSectors-- },
		"type":  func(t *partmap.Table) { t.Partitions[1].Type = "x" },
		"uuid":  func(t *partmap.Table) { t.Partitions[1].UUID = "x" },
		"name":  func(t *partmap.Table) { t.Partitions[1].Name = "x" },
	} {
		if l.sameTable(table(change), m.Table) == "" {
			t.Errorf("%s: the difference is not seen", name)
		}
	}
}
