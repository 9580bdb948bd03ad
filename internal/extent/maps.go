package extent

import (
	"context"
	"fmt"

	"voltar/internal/owned"
	"voltar/partmap"
)

// mapExtent gives an extent a device of its own; one that is the whole volume has the snapshot's.
func (r *Reader) mapExtent(ctx context.Context, x *Extent, held *owned.Stack) (*partmap.Mapped, error) {
	if x.Number == 0 && x.LV == nil {
		return &partmap.Mapped{Path: r.Snapshot.DMPath, Major: uint32(r.Snapshot.KernelMajor), Minor: uint32(r.Snapshot.KernelMinor)}, nil
	}
	return r.makeMap(ctx, r.mapTarget(x), held)
}

// makeMap makes a map, and sees to its removal.
func (r *Reader) makeMap(ctx context.Context, target partmap.Target, held *owned.Stack) (*partmap.Mapped, error) {
	mapped, undo, err := r.Map(ctx, target)
	if err == nil {
		held.Push(undo)
	}
	return mapped, err
}

// mapTarget is the map of a partition, under the name that kpartx would give it, or of a guest's logical volume.
func (r *Reader) mapTarget(x *Extent) partmap.Target {
	if x.LV != nil {
		return r.guestTarget(x)
	}
	return partmap.Target{
		Name: partmap.MapName(partmap.DMName(r.Snapshot.VG, r.Snapshot.Name), x.Number),
		UUID: fmt.Sprintf("%s%s-%d", owned.MapUUIDPrefix(r.Run), r.Volume.UUID, x.Number),
		Segments: []partmap.Segment{{
			SizeBytes: x.SizeBytes, Sources: []partmap.Source{{Device: r.Snapshot.DMPath, OffsetBytes: x.OffsetBytes}},
		}},
	}
}
