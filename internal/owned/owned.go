// Package owned makes what a run or a restore has on the host only for a while, and takes it away again: one file for each
// kind of thing, with what makes it, what undoes it, and what recovery does about one whose owner died.
//
//	snapshot.go    of a volume, to be read
//	mapping.go     a device for a part of a volume
//	activation.go  of an inactive volume
//	thinmeta.go    a look at the metadata of a thin pool
//	freeze.go      of a guest or a filesystem
//	loop.go        a loop device
//	volume.go      one that is being restored
//	folder.go      of a backup on a destination, before it stands
//
// Whatever is made stands in the owner's journal before it is made, and leaves it when it is gone. Recovery trusts that
// journal no further than LVM's tags and the device-mapper's UUIDs confirm it.
package owned

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"voltar/internal/hostcmd"
	"voltar/internal/journal"
	"voltar/internal/loopdev"
	"voltar/internal/say"
	"voltar/internal/store"
	"voltar/lvm"
	"voltar/partmap"
)

// Host is where things are made. Its commands carry the mark of this process; see OwnerEnv.
type Host struct {
	LVM      *lvm.Client
	Maps     *partmap.Mapper
	Loops    *loopdev.Loops
	Runner   *hostcmd.Runner
	Log      *slog.Logger
	StateDir string
	Stores   []store.Store // of the destinations
}

// Journals says where the journals are.
func (h *Host) Journals() journal.Options {
	return journal.Options{Dir: filepath.Join(h.StateDir, "journal")}
}

// Owner is a run or a restore that lives.
type Owner struct {
	*Host
	Run     string
	Journal *journal.Run
}

// Undo undoes something. It is called once, in a context that outlives the cancellation of the owner's.
type Undo func(context.Context) error

// gone returns an Undo that ends a thing's place in the journal once undo has undone it.
func (o *Owner) gone(record journal.ID, undo Undo) Undo {
	return func(ctx context.Context) error {
		if err := undo(ctx); err != nil {
			return err // it stays in the journal, for recovery
		}
		return o.Journal.Gone(record)
	}
}

// ReleaseTimeout bounds the undoing of one thing, which goes on after its owner was interrupted. How many things a volume has, a
// guest decides: a map for each partition.
const ReleaseTimeout = 5 * time.Minute

// Stack is what its owner has to undo, the last first.
type Stack struct{ list []Undo }

// Push adds what undoes something that was just made.
func (s *Stack) Push(undo Undo) { s.list = append(s.list, undo) }

// Len is how much there is to undo.
func (s *Stack) Len() int { return len(s.list) }

// Release undoes everything, whatever fails, each thing in a context that outlives the cancellation of ctx.
func (s *Stack) Release(ctx context.Context) error { return s.ReleaseTo(ctx, 0) }

// ReleaseTo undoes all but the first so many.
func (s *Stack) ReleaseTo(ctx context.Context, keep int) error {
	var all []error
	for len(s.list) > keep {
		undo := s.list[len(s.list)-1]
		s.list = s.list[:len(s.list)-1]
		all = append(all, within(ctx, undo))
	}
	return errors.Join(all...)
}

// within undoes one thing.
func within(ctx context.Context, undo Undo) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ReleaseTimeout)
	defer cancel()
	return undo(ctx)
}

// maker is the owner that made what is to be undone.
type maker struct {
	run      string
	rebooted bool // the host was started anew since
}

// Settle undoes what is left of the owner's own, at its end: what could not be removed in time, and what was never made
// because making it failed. What fails again stays for the next start; it was reported when it failed first. What could
// not be removed from a destination is for the next start, too: when a disk fails to write that a file is gone, the kernel
// shows it gone all the same, until the disk is mounted again.
func (o *Owner) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ReleaseTimeout)
	defer cancel()
	left := slices.DeleteFunc(o.Journal.Outstanding(), func(t journal.Owned) bool { return t.Thing.Kind == journal.KindBackup })
	if len(left) == 0 {
		return
	}
	if o.LVM.LeftRunning() { // it may yet make what is looked for here
		if err := awaitOrphans(ctx, os.Getpid()); err != nil {
			o.Log.Warn("left for the next run to remove", "run", o.Run, "err", err)
			return
		}
	}
	for _, t := range left {
		_, err := o.recover(ctx, maker{run: o.Run}, t.Thing)
		if err == nil {
			err = o.Journal.Gone(t.ID)
		}
		if err != nil {
			o.Log.Warn("left for the next run to remove", "run", o.Run, "what", string(t.Thing.Kind), "err", err)
		}
	}
}

// Recover removes from the host what dead owners left: only what their journals name, and only where LVM's tags or the
// device-mapper's UUIDs confirm it; maps with a run's UUID that hold its snapshot go with that. It returns a line for each
// thing removed, and the problems of what could not be. What lies on the destinations in lost, named as their stores are, is
// given up.
func (h *Host) Recover(ctx context.Context, lost ...string) (removed []string, err error) {
	found, err := journal.Dead(h.Journals())
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
		done, err := h.recoverRun(ctx, dead, lost)
		removed = append(removed, done...)
		all = append(all, err)
	}
	return removed, errors.Join(all...)
}

// recoverRun undoes what one dead owner had, last made first. What fails stays in its journal for the next start.
func (h *Host) recoverRun(ctx context.Context, dead *journal.DeadRun, lost []string) (removed []string, err error) {
	defer func() { err = errors.Join(err, dead.Close()) }()
	run := dead.Info().Run
	if !dead.Rebooted() {
		if err := awaitOrphans(ctx, dead.Info().PID); err != nil {
			return nil, fmt.Errorf("left by run %s: %w", run, err)
		}
	}
	var all []error
	for _, o := range dead.Outstanding() {
		if t := o.Thing; t.Kind == journal.KindBackup && slices.Contains(lost, t.Destination) {
			removed = append(removed, fmt.Sprintf("the note of an unfinished backup %s in %s, where what there is of it stays; left by run %s",
				t.Path, t.Destination, run))
			all = append(all, dead.Done(o.ID))
			continue
		}
		what, err := h.recover(ctx, maker{run, dead.Rebooted()}, o.Thing)
		if err != nil {
			all = append(all, fmt.Errorf("left by run %s: %w", run, err))
			continue
		}
		if what != "" {
			removed = append(removed, fmt.Sprintf("%s, left by run %s", what, run))
		}
		all = append(all, dead.Done(o.ID))
	}
	return removed, errors.Join(all...)
}

// recover undoes one thing, and says what it removed; nothing when it was gone already.
func (h *Host) recover(ctx context.Context, by maker, t journal.Thing) (string, error) {
	switch t.Kind {
	case journal.KindMap:
		return h.recoverMap(ctx, t)
	case journal.KindSnapshot:
		return h.recoverSnapshot(ctx, by, t)
	case journal.KindActivation:
		return h.recoverActivation(ctx, by, t)
	case journal.KindThinMeta:
		return h.recoverThinMeta(ctx, t)
	case journal.KindBackup:
		return h.recoverFolder(ctx, by, t)
	case journal.KindFreeze:
		return h.recoverFreeze(ctx, by, t)
	case journal.KindLoop:
		return h.recoverLoop(ctx, by, t)
	case journal.KindVolume:
		return h.recoverVolume(ctx, t)
	}
	return "", fmt.Errorf("cannot undo %q of an earlier run: not of this program's making", t.Kind)
}
