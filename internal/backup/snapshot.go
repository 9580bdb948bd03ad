package backup

import (
	"context"
	"fmt"
	"time"

	"voltar/internal/extent"
	"voltar/internal/quiesce"
	"voltar/internal/quiet"
	"voltar/lvm"
	"voltar/report"
)

// snapshotted is a volume whose snapshot stands.
type snapshotted struct {
	*admitted
	snapshot lvm.Snapshot
	time     time.Time // of it
}

// maker makes the snapshot of a volume.
type maker func(context.Context, *admitted, lvm.SnapshotRequest) (lvm.Snapshot, error)

// snapshot makes the unit quiet, makes the snapshots of its volumes that are ready, and lets everything go on. It returns all
// whose snapshot stands, also those that failed with their group since.
func (u unit) snapshot(ctx context.Context, ready []*admitted, make maker) (taken []*snapshotted) {
	u.failTogether()
	for _, a := range alive(ready) {
		a.fail(a.runHooks(ctx, quiesce.PhaseSnapshotBefore))
	}
	u.failTogether()
	still := u.still(ctx)
	u.failTogether()
	for _, a := range alive(ready) {
		still.StillSuspended(a.quiet)
		at := a.run.Now().UTC()
		snapshot, err := a.take(make)
		a.fail(err)
		if snapshot.Name != "" {
			a.device = snapshot.DMPath
			a.resize(snapshot.OriginBytes)
			taken = append(taken, &snapshotted{a, snapshot, at})
		}
	}
	still.Thaw(ctx)
	u.failTogether()
	for _, s := range taken {
		s.fail(s.runHooks(ctx, quiesce.PhaseSnapshotAfter))
	}
	return taken
}

// resize notes the size of the snapshot as the volume's: it may have been extended or reduced since the inventory.
func (a *account) resize(sizeBytes int64) {
	a.source.SizeBytes, a.line.SizeBytes = sizeBytes, sizeBytes
	a.extents = extent.Whole(a.source)
}

// take makes a snapshot in the space that there is for it.
func (a *admitted) take(make maker) (snapshot lvm.Snapshot, err error) {
	ctx := a.scope.ctx
	if a.space == nil {
		return make(ctx, a, lvm.SnapshotRequest{})
	}
	err = a.space.Use(ctx, func(bytes int64) error {
		snapshot, err = make(ctx, a, lvm.SnapshotRequest{SizeBytes: bytes})
		return err
	})
	return snapshot, err
}

// ownSnapshot makes the snapshot that a volume is backed up from, and sees to its removal.
func ownSnapshot(ctx context.Context, a *admitted, request lvm.SnapshotRequest) (lvm.Snapshot, error) {
	snapshot, err := a.run.owner.Snapshot(ctx, a.volume, request)
	if snapshot.Name == "" {
		return lvm.Snapshot{}, err
	}
	a.held.Push(func(ctx context.Context) error { return a.endSnapshot(ctx, snapshot) })
	return snapshot.Snapshot, err
}

// still makes quiet what the volumes of the unit want to be.
func (u unit) still(ctx context.Context) *quiet.Unit {
	r := u.run
	host := &quiet.Host{Owner: r.owner, Quieter: r.Quieter, Now: r.Now, Warn: r.warnOf, Needed: []quiet.Needed{
		{Path: "/", Why: "it is this host's root"}, {Path: "/etc/lvm", Why: "LVM keeps its records there"},
		{Path: "/run", Why: "LVM and this program keep locks there"}, {Path: "/var/log", Why: "the logs lie there"},
		{Path: r.StateDir, Why: "this program keeps its journal there"}, {Path: r.opts.RunDir, Why: "this program keeps its locks there"},
	}}
	for _, d := range r.opts.Destinations {
		if folder, isThere := folderOf(ctx, d.Store); isThere {
			host.Needed = append(host.Needed, quiet.Needed{
				Path: folder, Why: fmt.Sprintf("destination %s lies there", d.Name),
				Devices: func(ctx context.Context) ([]lvm.Dev, error) { return r.devicesUnder(ctx, d.Store, folder) },
			})
		}
	}
	var volumes []*quiet.Volume
	for _, c := range u.volumes {
		volumes = append(volumes, c.quiet)
	}
	return host.Still(ctx, volumes)
}

// lessQuiet says that something which was wanted around the snapshot did not happen. Must fails the volume.
func (c *candidate) lessQuiet(err error, must bool) {
	if must {
		c.fail(err)
		return
	}
	problem := report.ProblemOf(err)
	hint := problem.Hint
	if hint == "" {
		hint = "the backup is only crash-consistent: what ran then has to recover from it as from a power cut"
	}
	c.warn(problem.Message, hint)
}
