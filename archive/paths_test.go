package archive

import (
	"slices"
	"testing"
)

func TestComparePathsIsTheOrderOfTheWalk(t *testing.T) {
	want := []string{".", "!", "a", "a/\x01", "a/b", "a/b/c", "a/b!", "a/c", "a\x01", "a!", "a.b", "aa", "b", "é", "\xff"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, ComparePaths)
	if !slices.Equal(got, want) {
		t.Errorf("sorted\n %q, want\n %q", got, want)
	}
	for _, p := range want {
		if ComparePaths(p, p) != 0 {
			t.Errorf("%q is not equal to itself", p)
		}
	}
}
