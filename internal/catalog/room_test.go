package catalog

import (
	"slices"
	"testing"
)

func TestRoomForSharedData(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name                     string
		x                        Extent
		shared, unpacked, byHand int64
	}{
		{"nothing shared", Extent{State: StateFiles, SizeBytes: 320 * mib, UsedBytes: 110 * mib, ContentBytes: 100 * mib}, 110 * mib, 110 * mib, 0},
		{"shared", Extent{State: StateFiles, SizeBytes: 320 * mib, UsedBytes: 110 * mib, ContentBytes: 400 * mib, UniqueBytes: 100 * mib},
			110 * mib, 410 * mib, 528 * mib},
		{"shared, with room", Extent{State: StateFiles, SizeBytes: 800 * mib, UsedBytes: 110 * mib, ContentBytes: 400 * mib, UniqueBytes: 100 * mib},
			110 * mib, 410 * mib, 0},
		{"compressed", Extent{State: StateFiles, SizeBytes: 320 * mib, UsedBytes: 110 * mib, ContentBytes: 400 * mib}, 400 * mib, 400 * mib, 516 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			if shared, unpacked, byHand := c.x.NeededBytes(true), c.x.NeededBytes(false), c.x.ByHandBytes(); shared != c.shared ||
				unpacked != c.unpacked || byHand != c.byHand {
				t.Errorf("%d, %d, %d MiB, want %d, %d, %d", shared/mib, unpacked/mib, byHand/mib, c.shared/mib, c.unpacked/mib, c.byHand/mib)
			}
		})
	}
}

func TestSumsAreNeverOfNothing(t *testing.T) {
	names := func(files []File) (list []string) {
		for _, f := range files {
			list = append(list, f.Name)
		}
		return list
	}
	archive, recipe, sums := File{Name: "v.tar.gz"}, File{Name: RecipeName}, File{Name: "v.checksum"}
	if got := names(Summed([]File{archive, recipe, sums})); !slices.Equal(got, []string{"v.tar.gz"}) {
		t.Errorf("%q", got)
	}
	if got := names(Summed([]File{recipe, sums})); !slices.Equal(got, []string{RecipeName}) {
		t.Errorf("of a swap area alone: %q", got)
	}
}
