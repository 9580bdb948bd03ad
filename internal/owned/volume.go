package owned

import (
	"context"
	"errors"
	"slices"

	"voltar/internal/journal"
	"voltar/lvm"
)

// NewVolume creates a volume to restore to, marked as incomplete from its first moment on. The Undo ends its place in the
// journal; the volume stays, with its mark or without.
func (o *Owner) NewVolume(ctx context.Context, request lvm.VolumeRequest) (v lvm.Volume, undo Undo, err error) {
	request.Tags = append(slices.Clone(request.Tags), journal.TagIncomplete)
	record, err := o.Journal.Intend(journal.Thing{Kind: journal.KindVolume, VG: request.VG, LV: request.Name, Tags: request.Tags})
	if err != nil {
		return lvm.Volume{}, nil, err
	}
	undo = func(context.Context) error { return o.Journal.Gone(record) }
	if v, err = o.LVM.CreateVolume(ctx, request); err != nil {
		return v, undo, err
	}
	return v, undo, o.Journal.Made(record, journal.Facts{LVUUID: v.UUID})
}

// MarkIncomplete marks a volume that exists, until the restore takes the mark off. The Undo ends its place in the journal.
func (o *Owner) MarkIncomplete(ctx context.Context, v lvm.Volume) (Undo, error) {
	record, err := o.Journal.Intend(journal.Thing{
		Kind: journal.KindVolume, VG: v.VG, LV: v.Name, LVUUID: v.UUID, Tags: []string{journal.TagIncomplete},
	})
	if err != nil {
		return nil, err
	}
	return func(context.Context) error { return o.Journal.Gone(record) }, o.LVM.AddTag(ctx, v.VG, v.Name, journal.TagIncomplete)
}

// recoverVolume leaves the volume of a restore that died as it is: its tag says that it is incomplete.
func (h *Host) recoverVolume(ctx context.Context, t journal.Thing) (string, error) {
	v, err := h.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) || errors.Is(err, lvm.ErrVGNotFound) {
		return "", nil
	}
	if err != nil || t.LVUUID != "" && v.UUID != t.LVUUID {
		return "", err
	}
	if v.HasTag(journal.TagIncomplete) {
		h.Log.Warn("a restore of this volume was interrupted", "volume", v.String(), "tag", journal.TagIncomplete,
			"hint", "restore it again with --force, or remove it")
	}
	return "", nil
}
