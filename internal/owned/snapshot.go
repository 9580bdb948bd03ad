package owned

import (
	"context"
	"errors"
	"fmt"

	"voltar/internal/journal"
	"voltar/lvm"
)

// Tags of a run's snapshots: TagOwn, and TagRun with its id. Recovery removes only what has both.
const (
	TagOwn = "voltar"
	TagRun = "voltar.run."
)

// Snapshot is a snapshot that an owner made.
type Snapshot struct {
	lvm.Snapshot
	owner  *Owner
	record journal.ID
}

// Remove is an Undo.
func (s Snapshot) Remove(ctx context.Context) error {
	return s.owner.gone(s.record, func(ctx context.Context) error { return s.owner.LVM.RemoveOwn(ctx, s.Snapshot) })(ctx)
}

// SetAside leaves a thin snapshot standing, with one more tag by which whoever wants it knows it. It is nobody's then; when that fails
// it is the owner's still.
func (s Snapshot) SetAside(ctx context.Context, tag string) error {
	return s.owner.gone(s.record, func(ctx context.Context) error { return s.owner.LVM.SetAside(ctx, s.Snapshot, tag) })(ctx)
}

// Snapshot makes a snapshot of a volume, with the tags of the owner. It is the owner's, and to be removed or set aside, where it has a
// name, also beside an error.
func (o *Owner) Snapshot(ctx context.Context, origin lvm.Volume, request lvm.SnapshotRequest) (Snapshot, error) {
	request.Name, request.Tags = snapshotName(origin, o.Run), []string{TagOwn, TagRun + o.Run}
	record, err := o.Journal.Intend(journal.Thing{
		Kind: journal.KindSnapshot, VG: origin.VG, LV: request.Name, OriginUUID: origin.UUID, Tags: request.Tags,
	})
	if err != nil {
		return Snapshot{}, err
	}
	snapshot, err := o.LVM.CreateSnapshot(ctx, origin, request)
	if err != nil {
		return Snapshot{}, err // what could not be taken back stays in the journal, for recovery
	}
	return Snapshot{snapshot, o, record}, o.Journal.Made(record, journal.Facts{LVUUID: snapshot.UUID})
}

// maxDMNameBytes is the longest name of a device-mapper device, less room for a partition's number.
const maxDMNameBytes = 127 - len("p128")

// snapshotName is that of a volume's snapshot in a run. A name that would become too long for the device-mapper is cut,
// and made distinct by the volume's UUID.
func snapshotName(v lvm.Volume, run string) string {
	suffix := "-voltar-" + run
	if len(lvm.DMName(v.VG, v.Name+suffix)) <= maxDMNameBytes {
		return v.Name + suffix
	}
	suffix = "-" + v.UUID[:min(len(v.UUID), 6)] + suffix
	name := v.Name
	for name != "" && len(lvm.DMName(v.VG, name+suffix)) > maxDMNameBytes {
		name = name[:len(name)-1]
	}
	return name + suffix
}

// recoverSnapshot removes a snapshot when name, tags and UUID say that it is the one in the journal. Without a UUID the
// run, or the host, died while it was made. A volume group that is not there is an error: its disks may come back, and the
// snapshot with them.
func (h *Host) recoverSnapshot(ctx context.Context, by maker, t journal.Thing) (string, error) {
	v, err := h.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("snapshot %s/%s: %w", t.VG, t.LV, err)
	}
	if !v.HasTag(TagOwn) || !v.HasTag(TagRun+by.run) {
		return "", fmt.Errorf("%s lacks the tags of the run: it was made by something else and stays", v)
	}
	if (t.LVUUID == "" || t.LVUUID == v.UUID) && v.Kind == lvm.KindLinear && !v.Open {
		// lvcreate makes the copy-on-write space as a volume of the snapshot's name and tags first, and it a snapshot then; lvremove makes
		// a snapshot such a volume again, before it removes that.
		what := "half-made snapshot "
		if t.LVUUID != "" {
			what = "half-removed snapshot "
		}
		return what + v.String(), h.LVM.RemoveVolume(ctx, t.VG, t.LV, v.UUID)
	}
	if v.Open {
		if err := h.unmapAll(ctx, by.run); err != nil {
			return "", err
		}
	}
	expect := lvm.Expect{UUID: t.LVUUID, Tag: TagRun + by.run}
	return "snapshot " + v.String(), h.LVM.RemoveSnapshot(ctx, t.VG, t.LV, expect)
}
