package owned

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/journal"
	"voltar/lvm"
)

// Activate makes an inactive volume, and so its snapshots, readable. The Undo is there also when that fails: it may have
// been done all the same.
func (o *Owner) Activate(ctx context.Context, v lvm.Volume) (lvm.Volume, Undo, error) {
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindActivation, VG: v.VG, LV: v.Name, LVUUID: v.UUID})
	if err != nil {
		return v, nil, err
	}
	undo := o.gone(record, func(ctx context.Context) error {
		if err := o.LVM.Deactivate(ctx, v.VG, v.Name); err != nil {
			return fmt.Errorf("deactivate %s: %w", v, err)
		}
		return nil
	})
	active, err := o.LVM.Activate(ctx, v.VG, v.Name)
	if err != nil {
		return v, undo, fmt.Errorf("activate %s: %w", v, err)
	}
	return active, undo, o.Journal.Made(record, journal.Facts{})
}

// recoverActivation deactivates a volume that a run had activated, unless somebody uses it by now or the host was
// started anew since.
func (h *Host) recoverActivation(ctx context.Context, by maker, t journal.Thing) (string, error) {
	if by.rebooted {
		return "", nil
	}
	v, err := h.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) {
		return "", nil
	}
	if err != nil || v.UUID != t.LVUUID || !v.Active || v.Open {
		return "", err
	}
	return "activation of " + v.String(), h.LVM.Deactivate(ctx, t.VG, t.LV)
}
