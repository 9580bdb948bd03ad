package backup

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"voltar/archive"
	"voltar/internal/admit"
	"voltar/internal/catalog"
	"voltar/internal/owned"
	"voltar/internal/placement"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/report"
)

// volumeRun is one volume on its way through a run.
type volumeRun struct {
	run      *run
	origin   *catalog.Source // of what is no volume; nil for volumes
	volume   lvm.Volume
	vg       lvm.VG
	settings Settings
	kept     string // name of the set, when the snapshot is made for other tools and stays
	exclude  *archive.Matcher
	names    catalog.Names

	held     owned.Stack      // lock, activation, snapshot
	share    *admit.Share     // of what the run gives out; nil for a snapshot that is made for other tools
	room     *lvm.Reservation // for the snapshot; nil for thin volumes
	snapshot lvm.Snapshot
	reduced  lvm.SizeReduced         // of the snapshot
	turn     *turn                   // nil for what cannot be cancelled alone
	reading  context.Context         // ends when the snapshot must not be read any more
	stop     context.CancelCauseFunc // ends reading
	watch    *lvm.Watch              // over the snapshot, while it is read
	remains  []string                // what it could not let go of
	quietMu  sync.Mutex              // several freezes for one volume go in parallel
	quiesced quiesced
	watched  *lvm.WatchResult // once the watch has ended
	time     time.Time        // of the snapshot

	logicalSector, physicalSector int // bytes

	layout     *layout             // nil until the volume was surveyed
	prepared   *placement.Prepared // nil until there is room
	out        *placement.Output   // nil until it was begun
	stored     map[string]int64    // bytes of each extent's archive, by its name
	dumps      []catalog.Dump      // that are kept
	missing    []string            // dumps that failed
	progressed int64               // bytes that were shown as read of the archive that is being written

	failure error
	result  report.Volume
}

func (r *run) newVolume(plan *Plan, volume lvm.Volume) *volumeRun {
	v := &volumeRun{run: r, volume: volume, settings: r.opts.Settings(volume), stored: map[string]int64{}}
	v.vg, _ = plan.VG(volume.VG)
	v.names = catalog.NamesOf(v.ref(), false)
	v.result = report.Volume{Name: v.name(), SizeBytes: volume.SizeBytes, PreviousStoredBytes: -1}
	return v
}

func (v *volumeRun) name() string { return v.ref().String() }

func (v *volumeRun) ref() catalog.Ref { return v.source().Ref() }

// beginReading begins to watch over the volume's snapshot.
func (v *volumeRun) beginReading(ctx context.Context) {
	reading, stop := context.WithCancelCause(ctx)
	v.stop = stop
	v.reading, v.watch = v.run.LVM.Watch(reading, v.snapshot, v.run.watchPolicy())
}

// archive is the way of one volume from its snapshot to every destination. There is no backup before its end: nothing is
// published unless every condition of the gate holds.
func (v *volumeRun) archive(ctx context.Context) error {
	if err := v.endReading(ctx, v.readAll(v.reading)); err != nil {
		return err
	}
	return v.commit(ctx)
}

// readAll finds out what is on the snapshot and stores it. It fails when the snapshot must not be read any more.
func (v *volumeRun) readAll(ctx context.Context) (err error) {
	if v.layout, err = v.survey(ctx); err != nil {
		return err
	}
	if err := v.storeAll(ctx); err != nil {
		return err
	}
	return v.stopped()
}

// storeAll writes all that is to be kept of a volume but the manifest and what goes with it.
func (v *volumeRun) storeAll(ctx context.Context) error {
	if err := v.openOutput(ctx); err != nil {
		return err
	}
	for _, x := range v.layout.extents {
		if err := v.store(ctx, x); err != nil {
			return err
		}
	}
	if err := v.storeTable(ctx, v.layout); err != nil {
		return err
	}
	return v.storeDumps(ctx)
}

// commit makes a backup of what was archived, once the gate is passed.
func (v *volumeRun) commit(ctx context.Context) error {
	v.describe()
	v.compare()
	return v.publish(ctx, v.manifest(v.layout))
}

// storeTable keeps the partition table as sfdisk reads it.
func (v *volumeRun) storeTable(ctx context.Context, l *layout) error {
	if l.table == nil {
		return nil
	}
	_, err := v.out.Write(ctx, v.names.Table(), 1<<20, func(w io.Writer) error {
		return l.table.SfdiskScript(w, v.volume.Path)
	})
	return err
}

// prepareOutput makes room on every destination that can be written to, before there is a snapshot to wait for that.
func (v *volumeRun) prepareOutput(ctx context.Context) (err error) {
	var problems []report.Problem
	v.prepared, problems, err = v.run.targets.Prepare(ctx, v.run.placing, v.source())
	v.result.PreviousStoredBytes = v.prepared.LastBytes()
	v.warnAll(problems)
	return err
}

// openOutput begins the backup of a volume.
func (v *volumeRun) openOutput(ctx context.Context) (err error) {
	v.out, err = v.prepared.Begin(ctx, v.time)
	return err
}

// publish makes a backup of what was stored.
func (v *volumeRun) publish(ctx context.Context, m *catalog.Manifest) error {
	published, err := v.out.Publish(ctx, *m)
	if err == nil {
		v.result.Backup, v.result.StoredBytes = published.Backup, published.StoredBytes
	}
	return err
}

// manifest describes the backup, but for the files of each destination.
func (v *volumeRun) manifest(l *layout) *catalog.Manifest {
	m := &catalog.Manifest{
		Format: catalog.Format, Voltar: v.run.opts.Version, Status: catalog.StatusComplete,
		Host: v.run.us(), Run: v.run.id, Source: v.source(), Time: v.out.ID.Time, Started: v.result.Started,
	}
	if v.watched != nil { // of a snapshot, as volumes are read from
		m.Snapshot, m.Quiesce = v.snapshotFacts(), v.quiesced.facts()
	}
	for _, w := range v.result.Warnings {
		m.Warnings = append(m.Warnings, w.Message)
	}
	if t := l.table; t != nil {
		m.Table = &catalog.Table{Label: string(t.Label), ID: t.ID, SectorBytes: t.SectorBytes, Notes: t.Notes, Losses: t.Losses()}
	}
	for _, x := range l.extents {
		m.Extents = append(m.Extents, x.Extent)
		if x.DamagedCount > 0 {
			m.Status = catalog.StatusDamaged
		}
	}
	m.Dumps = v.dumps
	if v.recordMissingDumps() {
		m.Status = catalog.StatusDamaged
	}
	return m
}

// closeOutput removes what was written for destinations, or a volume, that failed.
func (v *volumeRun) closeOutput(ctx context.Context) {
	if v.out == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), owned.ReleaseTimeout)
	defer cancel()
	if err := v.out.Close(ctx); err != nil {
		v.warnOf(say.WithHint(err, "the next run, or `voltar cleanup`, tries again"))
		v.remains = append(v.remains, err.Error())
	}
}

// fail records why the volume failed; the first cause counts.
func (v *volumeRun) fail(err error) {
	if errors.Is(err, errCancelled) {
		err = errCancelled // whatever it ended
	}
	if over := v.turn.overtime(); err != nil && over != nil {
		err = over
	}
	if err != nil && v.failure == nil {
		v.failure = err
	}
}

// end lets go of everything that the volume held, applies retention when its backup stands, and hands in the result.
func (v *volumeRun) end(ctx context.Context) {
	v.closeOutput(ctx)
	if err := v.held.Release(ctx); err != nil {
		v.warnOf(say.WithHint(err, "the next run, or `voltar cleanup`, tries again"))
		v.remains = append(v.remains, err.Error())
	}
	v.endTurn()
	if v.failure == nil {
		v.warnAll(v.prepared.Retain(ctx))
	}
	v.runLastHooks(ctx)
	v.finish(ctx)
}

func (v *volumeRun) warn(message, hint string) {
	v.run.Log.Warn(message, "run", v.run.id, "volume", v.name())
	v.result.Warnings = append(v.result.Warnings, report.Problem{Message: message, Hint: hint})
}

func (v *volumeRun) warnAll(problems []report.Problem) {
	for _, p := range problems {
		v.warn(p.Message, p.Hint)
	}
}

// warnOf warns of an error, with its own hints.
func (v *volumeRun) warnOf(err error) {
	problem := report.ProblemOf(err)
	v.warn(problem.Message, problem.Hint)
}
