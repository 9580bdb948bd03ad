package guestlvm

import (
	"slices"
	"strings"
	"testing"
)

// on is a physical volume on one of the host's volumes.
type on struct {
	volume int
	pv
}

func readOn(list []on) ([]VG, []Problem) {
	var disks []Disk
	for _, p := range list {
		disk := p.disk()
		disk.Volume = p.volume
		disks = append(disks, disk)
	}
	return Read(disks)
}

// What one of the host's volumes says must not lay claim to another, which may be another guest's.
func TestReadAcrossVolumes(t *testing.T) {
	own := two(volume("a", visible, linear(0, 2, "pv0", 0), linear(2, 2, "pv1", 0)))
	const uuid2 = "cccccc-2222-2222-2222-2222-2222-cccccc"
	newer := strings.Replace(own[0].texts[0], "seqno = 3", "seqno = 4", 1)
	foreign := strings.ReplaceAll(other(uuid2), "pv0 {", "stolen {\nid = \""+uuid0+"\"\ndev_size = 131072\npe_start = 2048\npe_count = 15\n}\npv0 {")
	for _, test := range []struct {
		name     string
		pvs      []on
		groups   string // with the places of their physical volumes
		problems map[int]string
		lacking  []int
	}{
		{name: "one group on two volumes", pvs: []on{{0, own[0]}, {1, own[1]}}, groups: "rl:01"},
		{name: "in another order", pvs: []on{{0, own[1]}, {1, own[0]}}, groups: "rl:10"},
		{name: "one is missing", pvs: []on{{0, own[0]}, {1, one("")[0]}}, problems: map[int]string{0: "same UUID", 1: "same UUID"}},
		{name: "one is on none of them", pvs: []on{{0, own[0]}, {1, pv{uuid: uuid2, texts: []string{other(uuid2)}}}}, groups: "data:1",
			problems: map[int]string{0: "is not on any of these volumes"}, lacking: []int{0}},
		{name: "clones of one guest beside it", pvs: []on{{0, own[0]}, {1, own[1]}, {2, own[0]}, {3, own[1]}},
			problems: map[int]string{0: "same UUID", 1: "same UUID", 2: "same UUID", 3: "same UUID"}},
		{name: "half a clone whose guest went its own way", pvs: []on{{0, own[0]}, {1, pv{uuid: uuid1, texts: []string{newer}}}},
			problems: map[int]string{0: "does not carry the same metadata", 1: "does not carry the same metadata"}},
		{name: "a physical volume without metadata of its own", pvs: []on{{0, own[0]}, {1, pv{uuid: uuid1}}},
			problems: map[int]string{0: "does not carry the same metadata", 1: "in no volume group"}},
		{name: "without metadata, but on the same volume", pvs: []on{{0, own[0]}, {0, pv{uuid: uuid1}}}, groups: "rl:01"},
		{name: "another guest lays claim to what is not its own",
			pvs: []on{{0, pv{uuid: uuid2, texts: []string{foreign}}}, {1, own[0]}, {2, own[1]}}, groups: "rl:12",
			problems: map[int]string{0: "does not carry the same metadata"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			vgs, problems := readOn(test.pvs)
			var got []string
			for _, vg := range vgs {
				text := vg.Name + ":"
				for _, p := range vg.PVs {
					text += string(rune('0' + p.Disk))
				}
				got = append(got, text)
			}
			if strings.Join(got, " ") != test.groups {
				t.Errorf("groups %q, want %q", got, test.groups)
			}
			if len(problems) != len(test.problems) {
				t.Errorf("problems %+v, want %v", problems, test.problems)
			}
			for _, p := range problems {
				if want := test.problems[p.Disk]; want == "" || !strings.Contains(p.Reason, want) {
					t.Errorf("disk %d: %q, want %q", p.Disk, p.Reason, want)
				}
				if p.Lacking != slices.Contains(test.lacking, p.Disk) {
					t.Errorf("disk %d lacking: %t", p.Disk, p.Lacking)
				}
			}
		})
	}
}
