package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"voltar/archive"
	"voltar/internal/journal"
	"voltar/internal/quiesce"
	"voltar/lvm"
)

// Tags of snapshots. A run's carry TagOwn and TagRun with its id, and recovery removes only what has both; those made
// for other tools carry TagKept with a name, and are left alone.
const (
	TagOwn  = "voltar"
	TagRun  = "voltar.run."
	TagKept = "voltar.kept."
)

// unit is what is snapshotted at one moment: one volume, or the members of a consistency group.
type unit struct {
	group   string // name of the group; "" for a volume of its own
	members []*volumeRun
}

// backUpUnit makes a unit quiet, takes its snapshots back to back, lets it go on, and then archives its members, each
// failing alone.
func (r *run) backUpUnit(ctx context.Context, u unit) {
	for _, v := range u.members {
		v.beginTurn()
		v.start(v.within(ctx))
	}
	r.snapshotUnit(ctx, u)
	for _, v := range u.alive() {
		v.beginReading(v.within(ctx))
	}
	var group errgroup.Group
	group.SetLimit(r.opts.Parallel)
	for _, v := range u.members {
		group.Go(func() error {
			if v.failure == nil {
				v.fail(v.archive(v.within(ctx)))
			}
			v.end(ctx)
			return nil
		})
	}
	_ = group.Wait() // members keep their own errors
}

// start gets everything ready that takes time, so that nothing is frozen for longer than the snapshots themselves take.
func (v *volumeRun) start(ctx context.Context) {
	v.result.Started = v.run.Now().UTC()
	if ctx.Err() != nil {
		v.fail(fmt.Errorf("the run was stopped before its turn: %w", context.Cause(ctx)))
		return
	}
	if v.run.Progress != nil {
		v.run.Progress.VolumeStarted(v.name(), v.volume.SizeBytes)
	}
	var err error
	if v.exclude, err = archive.NewMatcher(v.settings.Exclude); err == nil {
		err = v.prepareSnapshot(ctx)
	}
	v.fail(err)
}

// prepareSnapshot takes the lock, makes room for the backup, makes the volume active, runs its hooks and reserves room for the
// snapshot.
func (v *volumeRun) prepareSnapshot(ctx context.Context) error {
	if v.kept == "" {
		if err := v.lock(ctx); err != nil {
			return err
		}
		if err := v.prepareOutput(ctx); err != nil {
			return err
		}
	}
	if err := v.activate(ctx); err != nil {
		return err
	}
	if err := v.runHooks(ctx, quiesce.PhaseBefore); err != nil {
		return err
	}
	return v.reserve(ctx)
}

// reserve makes sure of the room that the snapshot needs.
func (v *volumeRun) reserve(ctx context.Context) error {
	if v.volume.IsThin() {
		limits := v.run.opts.Snapshot
		_, err := v.run.LVM.CheckThinPool(ctx, v.volume.VG, v.volume.Pool, limits.ThinDataPercent, limits.ThinMetadataPercent)
		return err
	}
	want, floor := v.settings.SnapshotSize.Bounds(v.volume.SizeBytes, v.vg.ExtentBytes)
	room, err := v.run.space.Reserve(ctx, v.volume.VG, want, floor)
	if err != nil {
		return err
	}
	v.reduced, v.room = room.Reduced(), room
	v.held.push(func(context.Context) error { room.Release(); return nil })
	return nil
}

// takeSnapshot makes the snapshot that a volume is read from, in the room that was reserved for it.
func (v *volumeRun) takeSnapshot(ctx context.Context) error {
	request := lvm.SnapshotRequest{
		Name: snapshotName(v.volume, v.run.id),
		Tags: []string{TagOwn, TagRun + v.run.id},
	}
	if v.kept != "" {
		request = v.keptRequest()
	}
	if v.room == nil {
		return v.createSnapshot(ctx, request)
	}
	return v.room.Use(ctx, func(bytes int64) error {
		request.SizeBytes = bytes
		return v.createSnapshot(ctx, request)
	})
}

// createSnapshot journals the snapshot, makes it, and sees to its removal.
func (v *volumeRun) createSnapshot(ctx context.Context, request lvm.SnapshotRequest) (err error) {
	if v.kept != "" { // it stays, and belongs to no run
		v.snapshot, err = v.run.LVM.CreateSnapshot(ctx, v.volume, request)
		return err
	}
	tag := TagRun + v.run.id
	record, err := v.run.journal.Intend(journal.Thing{
		Kind: journal.KindSnapshot, VG: v.volume.VG, LV: request.Name, OriginUUID: v.volume.UUID, Tags: request.Tags,
	})
	if err != nil {
		return err
	}
	v.time = v.run.Now().UTC()
	v.snapshot, err = v.run.LVM.CreateSnapshot(ctx, v.volume, request)
	if err != nil {
		return err // what could not be taken back stays in the journal, for recovery
	}
	v.held.push(func(ctx context.Context) error {
		// By UUID and tag: a thin snapshot whose origin is gone by now is no longer one to LVM.
		expect := lvm.Expect{UUID: v.snapshot.UUID, Tag: tag}
		if err := v.run.LVM.RemoveSnapshot(ctx, v.snapshot.VG, v.snapshot.Name, expect); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", v.snapshot, err)
		}
		return v.run.journal.Gone(record)
	})
	return v.run.journal.Made(record, journal.Facts{LVUUID: v.snapshot.UUID})
}

// maxDMNameBytes is the longest name of a device-mapper device, less room for a partition's number.
const maxDMNameBytes = 127 - len("p128")

// snapshotName is that of a volume's snapshot in a run. A name that would become too long for the device-mapper is cut,
// and made distinct by the volume's UUID.
func snapshotName(v lvm.Volume, runID string) string {
	suffix := "-voltar-" + runID
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

// lockPatience is how long a volume waits for whoever holds it: a copy looks in for a moment only.
const lockPatience = time.Second

// lock keeps other runs from the volume.
func (v *volumeRun) lock(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, errors.New("it was waited for"))
	defer cancel()
	lock, err := v.run.locks.Lock(ctx, journal.ScopeVolume, v.name())
	if err != nil {
		return err
	}
	v.held.push(func(context.Context) error { return lock.Unlock() })
	return nil
}

// activate makes an inactive volume, and so its snapshot, readable for the time of the backup.
func (v *volumeRun) activate(ctx context.Context) error {
	if v.volume.Active {
		return nil
	}
	record, err := v.run.journal.Intend(journal.Thing{
		Kind: journal.KindActivation, VG: v.volume.VG, LV: v.volume.Name, LVUUID: v.volume.UUID,
	})
	if err != nil {
		return err
	}
	v.held.push(func(ctx context.Context) error {
		if err := v.run.LVM.Deactivate(ctx, v.volume.VG, v.volume.Name); err != nil {
			return fmt.Errorf("deactivate %s: %w", v.name(), err)
		}
		return v.run.journal.Gone(record)
	})
	active, err := v.run.LVM.Activate(ctx, v.volume.VG, v.volume.Name)
	if err != nil {
		return fmt.Errorf("activate %s: %w", v.name(), err)
	}
	v.volume = active
	return v.run.journal.Made(record, journal.Facts{})
}
