package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"voltar/internal/catalog"
	"voltar/internal/journal"
	"voltar/internal/say"
	"voltar/lvm"
	"voltar/partmap"
)

// Recover removes from the host what dead runs left: only what their journals name, and only where LVM's tags or the
// device-mapper's UUIDs confirm it; maps with a run's UUID that hold its snapshot go with that. It returns a line for each
// thing removed, and the problems of what could not be. What lies on the destinations in lost, named as their stores are, is
// given up.
func (e *Engine) Recover(ctx context.Context, lost ...string) (removed []string, err error) {
	found, err := journal.Dead(e.journalOptions())
	all := []error{err}
	for _, damaged := range found.Damaged {
		reason := damaged.Err
		if reason == nil {
			reason = errors.New("as an earlier run has reported")
		}
		all = append(all, say.WithHint(fmt.Errorf("the journal of an earlier run is damaged and was set aside as %s: %w",
			damaged.Path, reason),
			"look at `lvs -o name,tags` and `dmsetup ls` for what it left, then remove the file"))
	}
	for _, path := range found.Unknown {
		all = append(all, fmt.Errorf("%s was written by a newer version of voltar: what it names is left alone", path))
	}
	for _, dead := range found.Runs {
		done, err := e.recoverRun(ctx, dead, lost)
		removed = append(removed, done...)
		all = append(all, err)
	}
	return removed, errors.Join(all...)
}

// recoverRun undoes what one dead run owned, last made first. What fails stays in its journal for the next start.
func (e *Engine) recoverRun(ctx context.Context, dead *journal.DeadRun, lost []string) (removed []string, err error) {
	defer func() { err = errors.Join(err, dead.Close()) }()
	if !dead.Rebooted() {
		if err := e.awaitOrphans(ctx, dead.Info().PID); err != nil {
			return nil, fmt.Errorf("left by run %s: %w", dead.Info().Run, err)
		}
	}
	var all []error
	for _, o := range dead.Outstanding() {
		if t := o.Thing; t.Kind == journal.KindBackup && slices.Contains(lost, t.Destination) {
			removed = append(removed, fmt.Sprintf("the note of an unfinished backup %s in %s, where what there is of it stays; left by run %s",
				t.Path, t.Destination, dead.Info().Run))
			all = append(all, dead.Done(o.ID))
			continue
		}
		what, err := e.recoverThing(ctx, ownerOf(dead), o.Thing)
		if err != nil {
			all = append(all, fmt.Errorf("left by run %s: %w", dead.Info().Run, err))
			continue
		}
		if what != "" {
			removed = append(removed, fmt.Sprintf("%s, left by run %s", what, dead.Info().Run))
		}
		all = append(all, dead.Done(o.ID))
	}
	return removed, errors.Join(all...)
}

// owner is the run that made what is to be undone.
type owner struct {
	run      string
	rebooted bool // the host was started anew since
}

func ownerOf(dead *journal.DeadRun) owner { return owner{dead.Info().Run, dead.Rebooted()} }

// settle undoes what is left of this run's own, at its end: what could not be removed in time, and what was never made
// because making it failed. What fails again stays for the next start; it was reported when it failed first. What could
// not be removed from a destination is for the next start, too: when a disk fails to write that a file is gone, the kernel
// shows it gone all the same, until the disk is mounted again.
func (r *run) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	outstanding := slices.DeleteFunc(r.journal.Outstanding(), func(o journal.Owned) bool { return o.Thing.Kind == journal.KindBackup })
	if len(outstanding) == 0 {
		return
	}
	if r.LVM.LeftRunning() { // it may yet make what is looked for here
		if err := r.awaitOrphans(ctx, os.Getpid()); err != nil {
			r.Log.Warn("left for the next run to remove", "run", r.id, "err", err)
			return
		}
	}
	for _, o := range outstanding {
		_, err := r.recoverThing(ctx, owner{run: r.id}, o.Thing)
		if err == nil {
			err = r.journal.Gone(o.ID)
		}
		if err != nil {
			r.Log.Warn("left for the next run to remove", "run", r.id, "what", string(o.Thing.Kind), "err", err)
		}
	}
}

// recoverThing undoes one thing, and says what it removed; nothing when it was gone already.
func (e *Engine) recoverThing(ctx context.Context, by owner, t journal.Thing) (string, error) {
	switch t.Kind {
	case journal.KindMap:
		return e.recoverMap(ctx, t)
	case journal.KindSnapshot:
		return e.recoverSnapshot(ctx, by, t)
	case journal.KindActivation:
		return e.recoverActivation(ctx, by, t)
	case journal.KindThinMeta:
		return e.recoverThinMeta(ctx, t)
	case journal.KindBackup:
		return e.recoverBackup(ctx, by, t)
	case journal.KindFreeze:
		return e.recoverFreeze(ctx, by, t)
	case journal.KindLoop:
		return e.recoverLoop(ctx, by, t)
	case journal.KindVolume:
		return e.recoverRestored(ctx, t)
	}
	return "", fmt.Errorf("cannot undo %q of an earlier run: not of this program's making", t.Kind)
}

func (e *Engine) recoverMap(ctx context.Context, t journal.Thing) (string, error) {
	maps, err := e.Maps.List(ctx, t.DMUUID)
	if err != nil || len(maps) == 0 {
		return "", err
	}
	return "map " + t.DMName, e.Maps.Unmap(ctx, t.DMName, t.DMUUID)
}

// recoverSnapshot removes a snapshot when name, tags and UUID say that it is the one in the journal. Without a UUID the
// run, or the host, died while it was made. A volume group that is not there is an error: its disks may come back, and the snapshot
// with them.
func (e *Engine) recoverSnapshot(ctx context.Context, by owner, t journal.Thing) (string, error) {
	v, err := e.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("snapshot %s/%s: %w", t.VG, t.LV, err)
	}
	if !v.HasTag(TagOwn) || !v.HasTag(TagRun+by.run) {
		return "", fmt.Errorf("%s lacks the tags of the run: it was made by something else and stays", v)
	}
	if t.LVUUID == "" && v.Kind == lvm.KindLinear && !v.Open {
		// lvcreate makes the copy-on-write space as a volume of the snapshot's name and tags first, and it a snapshot then.
		return "half-made snapshot " + v.String(), e.LVM.RemoveVolume(ctx, t.VG, t.LV, v.UUID)
	}
	if v.Open {
		if err := e.unmapAll(ctx, by.run); err != nil {
			return "", err
		}
	}
	expect := lvm.Expect{UUID: t.LVUUID, Tag: TagRun + by.run}
	return "snapshot " + v.String(), e.LVM.RemoveSnapshot(ctx, t.VG, t.LV, expect)
}

// unmapAll removes the maps that a run has left and takes for gone, because dmsetup said so: they would hold its snapshots
// for good. The later ones lie on the earlier.
func (e *Engine) unmapAll(ctx context.Context, run string) error {
	maps, err := e.Maps.List(ctx, mapUUIDPrefix(run))
	if err != nil {
		return err
	}
	slices.SortFunc(maps, func(a, b partmap.Mapped) int { return cmp.Compare(b.Minor, a.Minor) })
	var all []error
	for _, m := range maps {
		all = append(all, e.Maps.Unmap(ctx, m.Name, m.UUID))
	}
	return errors.Join(all...)
}

// recoverActivation deactivates a volume that a run had activated, unless somebody uses it by now or the host was
// started anew since.
func (e *Engine) recoverActivation(ctx context.Context, by owner, t journal.Thing) (string, error) {
	if by.rebooted {
		return "", nil
	}
	v, err := e.LVM.Lookup(ctx, t.VG, t.LV)
	if errors.Is(err, lvm.ErrNotFound) {
		return "", nil
	}
	if err != nil || v.UUID != t.LVUUID || !v.Active || v.Open {
		return "", err
	}
	return "activation of " + v.String(), e.LVM.Deactivate(ctx, t.VG, t.LV)
}

// recoverBackup removes what a dead run had written of a backup, or had not yet deleted of one.
func (e *Engine) recoverBackup(ctx context.Context, by owner, t journal.Thing) (string, error) {
	for _, d := range e.opts.Destinations {
		if d.Store.String() != t.Destination {
			continue
		}
		stands, freed, err := catalog.SweepUnfinished(ctx, d.Store, t.Path, by.run)
		if err != nil || stands && freed == 0 {
			return "", err
		}
		return fmt.Sprintf("unfinished backup %s (%s)", t.Path, say.Size(freed)), nil
	}
	return "", say.WithHint(
		fmt.Errorf("unfinished backup %s in %s stays: no destination of the configuration leads there", t.Path, t.Destination),
		fmt.Sprintf("name that place in a [[destination]] again for one `voltar cleanup`, or give it up: "+
			"`voltar cleanup --forget-destination '%s'`", t.Destination))
}
