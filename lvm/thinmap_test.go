package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// thinDump is what thin_dump writes of one device, with the lines given between its device element.
func thinDump(mapped string, lines ...string) string {
	return `<superblock uuid="" time="1" transaction="2" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
  <device dev_id="7" mapped_blocks="` + mapped + `" transaction="0" creation_time="0" snap_time="1">
    ` + strings.Join(lines, "\n    ") + `
  </device>
</superblock>
`
}

const thinBlock = 64 << 10

func readMappings(dump string, step int) (*mappings, error) {
	m := &mappings{
		device:    ThinDevice{ID: 7, Pool: PoolDevice{BlockBytes: thinBlock}},
		sizeBytes: 1000*thinBlock + 4096, joinBytes: 4 * thinBlock,
	}
	return m, readThinXML(m, dump, step)
}

// readThinXML has the output of a tool read in steps of so many bytes.
func readThinXML(into thinXML, text string, step int) error {
	lines := &lineReader{into: into}
	for rest := []byte(text); len(rest) > 0; {
		n := min(step, len(rest))
		if _, err := lines.Write(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return lines.end()
}

func TestThinMappings(t *testing.T) {
	single := func(block string) string {
		return `<single_mapping origin_block="` + block + `" data_block="5" time="0"/>`
	}
	ranges := func(begin, length string) string {
		return `<range_mapping origin_begin="` + begin + `" data_begin="0" length="` + length + `" time="0"/>`
	}
	for _, test := range []struct {
		name, dump string
		want       []ByteRange
		wrong      bool
	}{
		{name: "nothing", dump: thinDump("0")},
		{name: "one", dump: thinDump("1", single("3")), want: []ByteRange{{3 * thinBlock, thinBlock}}},
		{name: "adjoining and near ones are joined", dump: thinDump("7", single("0"), ranges("1", "4"), single("7"), single("20")),
			want: []ByteRange{{0, 8 * thinBlock}, {20 * thinBlock, thinBlock}}},
		{name: "cut at the end of the volume", dump: thinDump("8", ranges("999", "8")), want: []ByteRange{{999 * thinBlock, thinBlock + 4096}}},
		{name: "beyond the end", dump: thinDump("2", single("1001"), single("70000"))},
		{name: "with a declaration", dump: `<?xml version="1.0"?>` + "\n" + thinDump("1", single("0")), want: []ByteRange{{0, thinBlock}}},
		{name: "fewer than declared", dump: thinDump("2", single("3")), wrong: true},
		{name: "torn", dump: strings.TrimSuffix(thinDump("1", single("3")), "</superblock>\n"), wrong: true},
		{name: "out of order", dump: thinDump("2", single("3"), single("2")), wrong: true},
		{name: "overlapping", dump: thinDump("5", ranges("3", "4"), single("6")), wrong: true},
		{name: "another device", dump: strings.Replace(thinDump("0"), `"7"`, `"8"`, 1), wrong: true},
		{name: "another block size", dump: strings.Replace(thinDump("0"), `"128"`, `"256"`, 1), wrong: true},
		{name: "an element that is not known", dump: thinDump("1", `<ref name="12"/>`, single("3")), wrong: true},
		{name: "no number", dump: thinDump("1", single("x")), wrong: true},
		{name: "no XML", dump: "Usage: thin_dump\n", wrong: true},
		{name: "nothing at all", wrong: true},
		{name: "an endless line", dump: strings.Repeat("x", maxThinLine+1), wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, step := range []int{1, 7, 1 << 20} {
				m, err := readMappings(test.dump, step)
				if test.wrong {
					if !errors.Is(err, ErrNoMapping) {
						t.Errorf("error %v, ranges %v, want ErrNoMapping", err, m.ranges)
					}
				} else if err != nil || !slices.Equal(m.ranges, test.want) {
					t.Errorf("%v, %v, want %v", m.ranges, err, test.want)
				}
			}
		})
	}
}

// Ranges stay within the volume, in order and apart, whatever thin_dump's output is.
func FuzzThinMappings(f *testing.F) {
	f.Add(thinDump("2", `<single_mapping origin_block="3" data_block="5" time="0"/>`,
		`<range_mapping origin_begin="281474976710655" data_begin="0" length="281474976710655" time="0"/>`))
	f.Fuzz(func(t *testing.T, dump string) {
		m, _ := readMappings(dump, 100)
		end := int64(0)
		for _, r := range m.ranges {
			if r.OffsetBytes < end || r.LengthBytes <= 0 || r.OffsetBytes+r.LengthBytes > m.sizeBytes {
				t.Fatalf("range %+v after %d", r, end)
			}
			end = r.OffsetBytes + r.LengthBytes
		}
	})
}
