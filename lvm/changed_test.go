package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// thinDelta is what thin_delta writes of two devices, with the lines given between its diff element.
func thinDelta(lines ...string) string {
	return `<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="800">
  <diff left="1" right="7">
    ` + strings.Join(lines, "\n    ") + `
  </diff>
</superblock>
`
}

func readDifferences(delta string, before, blocks int64, step int) (*differences, error) {
	m := &differences{blockBytes: thinBlock, joinBytes: 4 * thinBlock, ids: [2]uint64{1, 7}, mappedBytes: [2]int64{before * thinBlock, blocks * thinBlock}}
	return m, readThinXML(m, delta, step)
}

func TestThinDifferences(t *testing.T) {
	for _, test := range []struct {
		name, delta    string
		before, blocks int64 // that the devices have
		want           []ByteRange
		wrong          bool
	}{
		{name: "nothing", delta: thinDelta()},
		{name: "all is the same", delta: thinDelta(`<same begin="0" length="16"/>`), before: 16, blocks: 16},
		{
			name: "of each kind", before: 16, blocks: 13,
			delta: thinDelta(`<same begin="0" length="10"/>`, `<different begin="10" length="1"/>`, `<left_only begin="20" length="5"/>`,
				`<right_only begin="40" length="2"/>`),
			want: []ByteRange{{10 * thinBlock, thinBlock}, {20 * thinBlock, 5 * thinBlock}, {40 * thinBlock, 2 * thinBlock}},
		},
		{
			name: "near ones are joined", before: 3, blocks: 4,
			delta: thinDelta(`<different begin="0" length="1"/>`, `<same begin="1" length="2"/>`, `<right_only begin="3" length="1"/>`),
			want:  []ByteRange{{0, 4 * thinBlock}},
		},
		{name: "the kernel knows of more blocks", delta: thinDelta(`<same begin="0" length="16"/>`), before: 16, blocks: 17, wrong: true},
		{name: "the kernel knows of fewer blocks", delta: thinDelta(`<same begin="0" length="16"/>`), before: 16, blocks: 15, wrong: true},
		{name: "the first device has fewer blocks than it had", delta: thinDelta(`<same begin="0" length="16"/>`), before: 17, blocks: 16, wrong: true},
		{name: "torn", delta: strings.TrimSuffix(thinDelta(), "</superblock>\n"), wrong: true},
		{name: "out of order", delta: thinDelta(`<same begin="5" length="1"/>`, `<same begin="4" length="1"/>`), blocks: 2, wrong: true},
		{name: "of other devices", delta: strings.Replace(thinDelta(), `right="7"`, `right="8"`, 1), wrong: true},
		{name: "of nothing", delta: thinDelta(`<different begin="1" length="0"/>`), wrong: true},
		{name: "another block size", delta: strings.Replace(thinDelta(), `"128"`, `"256"`, 1), wrong: true},
		{name: "an element that is not known", delta: thinDelta(`<moved begin="1" length="1"/>`), blocks: 1, wrong: true},
		{name: "no number", delta: thinDelta(`<same begin="-1" length="1"/>`), blocks: 1, wrong: true},
		{name: "beyond what bytes can tell", delta: thinDelta(`<left_only begin="140737488355327" length="1"/>`), wrong: true},
		{name: "no XML", delta: "Usage: thin_delta\n", wrong: true},
		{name: "nothing at all", wrong: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, step := range []int{1, 7, 1 << 20} {
				m, err := readDifferences(test.delta, test.before, test.blocks, step)
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

// Ranges are in order and apart, whatever thin_delta's output is.
func FuzzThinDifferences(f *testing.F) {
	f.Add(thinDelta(`<same begin="0" length="10"/>`, `<different begin="10" length="281474976710655"/>`))
	f.Fuzz(func(t *testing.T, delta string) {
		m, _ := readDifferences(delta, 0, 0, 100)
		end := int64(0)
		for _, r := range m.ranges {
			if r.OffsetBytes < end || r.LengthBytes <= 0 || r.OffsetBytes+r.LengthBytes < 0 {
				t.Fatalf("range %+v after %d", r, end)
			}
			end = r.OffsetBytes + r.LengthBytes
		}
	})
}
