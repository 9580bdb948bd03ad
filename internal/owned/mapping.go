package owned

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"voltar/internal/journal"
	"voltar/partmap"
)

// MapUUIDPrefix is what the UUIDs of an owner's maps begin with. lvm2 takes no device for a physical volume whose UUID
// begins with LVM-.
func MapUUIDPrefix(run string) string { return "LVM-voltar-" + run + "-" }

// Map makes a map. Where that fails its place in the journal stays: recovery looks whether anything was left.
func (o *Owner) Map(ctx context.Context, target partmap.Target) (*partmap.Mapped, Undo, error) {
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindMap, DMName: target.Name, DMUUID: target.UUID})
	if err != nil {
		return nil, nil, err
	}
	mapped, err := o.Maps.Map(ctx, target)
	if err != nil {
		return nil, nil, err
	}
	return mapped, o.gone(record, func(ctx context.Context) error { return o.Maps.Unmap(ctx, target.Name, target.UUID) }), nil
}

func (h *Host) recoverMap(ctx context.Context, t journal.Thing) (string, error) {
	maps, err := h.Maps.List(ctx, t.DMUUID)
	if err != nil || len(maps) == 0 {
		return "", err
	}
	return "map " + t.DMName, h.Maps.Unmap(ctx, t.DMName, t.DMUUID)
}

// unmapAll removes the maps that a run has left and takes for gone, because dmsetup said so: they would hold its snapshots
// for good. The later ones lie on the earlier.
func (h *Host) unmapAll(ctx context.Context, run string) error {
	maps, err := h.Maps.List(ctx, MapUUIDPrefix(run))
	if err != nil {
		return err
	}
	slices.SortFunc(maps, func(a, b partmap.Mapped) int { return cmp.Compare(b.Minor, a.Minor) })
	var all []error
	for _, m := range maps {
		all = append(all, h.Maps.Unmap(ctx, m.Name, m.UUID))
	}
	return errors.Join(all...)
}
