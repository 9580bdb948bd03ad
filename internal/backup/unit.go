package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"voltar/archive"
	"voltar/internal/admit"
	"voltar/internal/journal"
	"voltar/internal/quiesce"
	"voltar/lvm"
)

// TagKept with a name is on snapshots that were made for other tools; recovery leaves them alone.
const TagKept = "voltar.kept."

// unit is what is snapshotted at one moment: one volume, or the members of a consistency group.
type unit struct {
	group   string // name of the group; "" for a volume of its own
	members []*volumeRun
}

// backUpUnit waits until a unit may begin, makes it quiet, takes its snapshots back to back, lets it go on, and then archives
// its members, each failing alone.
func (r *run) backUpUnit(ctx context.Context, u unit, ticket *admit.Ticket) {
	grant, err := ticket.Wait()
	for _, v := range u.members {
		v.beginTurn()
	}
	u.admitted(ctx, grant, err)
	for _, v := range u.members {
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
	if v.failure != nil {
		return
	}
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
	if v.share != nil {
		v.room, _ = v.share.Taken.(*lvm.Reservation)
		v.reduced = lvm.SizeReduced{WantedBytes: want, GrantedBytes: v.share.Bytes}
		return nil
	}
	room, err := v.run.space.Reserve(ctx, v.volume.VG, want, floor)
	if err != nil {
		return err
	}
	v.reduced, v.room = room.Reduced(), room
	v.held.Push(func(context.Context) error { room.Release(); return nil })
	return nil
}

// takeSnapshot makes the snapshot that a volume is read from, in the room that was reserved for it.
func (v *volumeRun) takeSnapshot(ctx context.Context) error {
	var request lvm.SnapshotRequest
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

// createSnapshot makes the snapshot, and sees to its removal.
func (v *volumeRun) createSnapshot(ctx context.Context, request lvm.SnapshotRequest) (err error) {
	if v.kept != "" { // it stays, and belongs to no run
		v.snapshot, err = v.run.LVM.CreateSnapshot(ctx, v.volume, request)
		return err
	}
	v.time = v.run.Now().UTC()
	snapshot, undo, err := v.run.owner.Snapshot(ctx, v.volume, request)
	if undo != nil {
		v.snapshot = snapshot
		v.held.Push(undo)
	}
	return err
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
	v.held.Push(func(context.Context) error { return lock.Unlock() })
	return nil
}

// activate makes an inactive volume, and so its snapshot, readable for the time of the backup.
func (v *volumeRun) activate(ctx context.Context) error {
	if v.volume.Active {
		return nil
	}
	active, undo, err := v.run.owner.Activate(ctx, v.volume)
	if undo != nil {
		v.held.Push(undo)
	}
	v.volume = active
	return err
}
