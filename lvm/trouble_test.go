package lvm

import (
	"strings"
	"testing"
)

func TestTroubles(t *testing.T) {
	inv := Inventory{
		VGs: []VG{{Name: "whole", UUID: "w"}, {Name: "torn", UUID: "t", Partial: true, MissingPVs: 1}, {Name: "two", UUID: "a"},
			{Name: "two", UUID: "b"}},
		PVs:      []PV{{UUID: "here", VGUUID: "t"}, {UUID: "away", VGUUID: "t", Missing: true}},
		Warnings: "WARNING: VG torn is missing PV away.\nWARNING: something else.",
		Volumes: []Volume{
			{VG: "torn", VGUUID: "t", Name: "fine", Kind: KindLinear},
			{VG: "torn", VGUUID: "t", Name: "lost", Kind: KindLinear, Health: "partial"},
			{VG: "torn", VGUUID: "t", Name: "mirrored", Kind: "raid1", Health: "partial"},
			{VG: "torn", VGUUID: "t", Name: "mirrored_rimage_1", Kind: KindLinear, Health: "partial", Internal: true},
			{VG: "whole", VGUUID: "w", Name: "flaky", Kind: "raid5", Health: "refresh needed"},
			{VG: "whole", VGUUID: "w", Name: "uneven", Kind: "raid6", Health: "mismatches exist"},
			{VG: "whole", VGUUID: "w", Name: "good", Kind: "raid1"},
		},
	}
	want := []string{
		"volume group torn lacks 1 of its physical volumes away: lvm2 makes no snapshot in it; parts of lost, mirrored are away",
		"2 volume groups have the name two: a, b",
		"RAID volume torn/mirrored has lost a disk",
		"RAID volume whole/flaky runs without a disk that had errors and is there",
		"the parts of RAID volume whole/uneven differ",
		"lvm2 says: WARNING: something else.",
	}
	var got []string
	for _, trouble := range inv.Troubles() {
		got = append(got, trouble.What)
		if trouble.Hint == "" {
			t.Errorf("%s: nothing is said about what to do", trouble.What)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("troubles:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := (Inventory{VGs: []VG{{Name: "a", UUID: "1"}}}).Troubles(); len(got) > 0 {
		t.Errorf("of a whole host: %v", got)
	}
}
