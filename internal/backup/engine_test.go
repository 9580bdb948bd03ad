package backup

import (
	"context"
	"errors"
	"testing"

	"voltar/lvm"
)

func TestExplainStop(t *testing.T) {
	consequence, full := errors.New("write failed"), lvm.ErrPoolFull
	overflow := lvm.ErrSnapshotOverflow
	for _, c := range []struct {
		name             string
		cause, err, lost error
		want             error
	}{
		{"all went well", nil, nil, nil, nil},
		{"lost at the last look", context.Canceled, nil, overflow, overflow},
		{"an overflow explains what followed", context.Canceled, consequence, overflow, overflow},
		{"so does a pool that filled up", full, consequence, full, full},
		{"and an interruption", errStop, consequence, nil, errStop},
		{"an error of its own", context.Canceled, consequence, nil, consequence},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			if c.cause != nil {
				cancel(c.cause)
			}
			if got := explainStop(ctx, c.err, c.lost); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
				t.Errorf("%v, want %v", got, c.want)
			} else if c.want != nil && c.want != consequence && errors.Is(got, consequence) {
				t.Errorf("%v is buried under what followed from it", got)
			}
		})
	}
}

var errStop = errors.New("interrupted")

func TestSuggestedBytes(t *testing.T) {
	const extent = 4 << 20
	for peak, want := range map[int64]int64{0: 8 * extent, 1: 8 * extent, 8 * extent: 24 * extent, 8*extent + 1: 25 * extent} {
		if got := suggestedBytes(peak, extent); got != want {
			t.Errorf("suggestedBytes(%d) = %d, want %d", peak, got, want)
		}
	}
}
