package owned

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/journal"
	"voltar/lvm"
)

// HoldMetadata has a thin pool hold a snapshot of its metadata, which can be read then: there is one at a time in each pool.
// The Undo may be there beside an error.
func (o *Owner) HoldMetadata(ctx context.Context, pool lvm.PoolDevice) (Undo, error) {
	// Before anything is in the journal: recovery takes what it finds for ours.
	if err := o.LVM.CheckUnheld(ctx, pool); err != nil {
		return nil, err
	}
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindThinMeta, DMName: pool.Name, DMUUID: pool.UUID})
	if err != nil {
		return nil, err
	}
	root, err := o.LVM.HoldMetadata(ctx, pool)
	if errors.Is(err, lvm.ErrRefused) {
		return nil, errors.Join(err, o.Journal.Gone(record))
	}
	undo := o.gone(record, func(ctx context.Context) error {
		_, err := o.LVM.ReleaseMetadata(ctx, pool, root)
		return err
	})
	if err != nil {
		return undo, err
	}
	return undo, o.Journal.Made(record, journal.Facts{Root: root})
}

// recoverThinMeta releases the metadata snapshot that a dead run held: the one that its journal names, or where the run
// died while it was taken, the one that there is: the run had seen that nobody else held one. It outlives a restart of
// the host. A pool that is not active keeps it until it is.
func (h *Host) recoverThinMeta(ctx context.Context, t journal.Thing) (string, error) {
	pool, err := h.LVM.PoolByUUID(t.DMUUID)
	if err != nil {
		return "", fmt.Errorf("metadata snapshot of thin pool %s: %w", t.DMName, err)
	}
	released, err := h.LVM.ReleaseMetadata(ctx, pool, t.Root)
	if err != nil || !released {
		return "", err
	}
	return "metadata snapshot of thin pool " + pool.Name, nil
}
