package extent

import (
	"slices"
	"testing"

	"voltar/archive"
	"voltar/internal/alloc"
)

func TestIntersect(t *testing.T) {
	for _, c := range []struct{ a, b, want []int64 }{ // offset and length in turns
		{nil, nil, nil},
		{[]int64{0, 100}, nil, nil},
		{nil, []int64{0, 100}, nil},
		{[]int64{0, 100}, []int64{10, 20, 50, 50}, []int64{10, 20, 50, 50}},
		{[]int64{10, 20, 50, 50}, []int64{0, 100}, []int64{10, 20, 50, 50}},
		{[]int64{0, 10, 20, 10}, []int64{5, 20, 28, 100}, []int64{5, 5, 20, 5, 28, 2}},
		{[]int64{0, 10}, []int64{10, 10}, nil},
		{[]int64{0, 10, 90, 10}, []int64{20, 10, 40, 10, 95, 1}, []int64{95, 1}},
	} {
		a := func(yield func(archive.Range, error) bool) {
			for i := 0; i < len(c.a); i += 2 {
				if !yield(archive.Range{OffsetBytes: c.a[i], LengthBytes: c.a[i+1]}, nil) {
					return
				}
			}
		}
		var b []alloc.Range
		for i := 0; i < len(c.b); i += 2 {
			b = append(b, alloc.Range{OffsetBytes: c.b[i], LengthBytes: c.b[i+1]})
		}
		var got []int64
		for r, err := range intersect(a, slices.Values(b)) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r.OffsetBytes, r.LengthBytes)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
